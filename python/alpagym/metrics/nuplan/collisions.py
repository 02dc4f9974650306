"""Collisions of the ego: what kind, whose fault, how hard.

nuPlan: `evaluation_metrics/common/no_ego_at_fault_collisions.py`, `metrics/utils/
collision_utils.py` and `simulation/observation/idm/utils.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from alpagym.metrics.geometry import corners
from alpagym.metrics.nuplan.state import Ego, TrackKind, Tracks
from alpagym.metrics.polygons import angle_off, convex_intersect

STOPPED = 0.05
"""At this speed or below, the ego or a track stands [m/s]."""
AHEAD, BEHIND = np.deg2rad(30.0), np.deg2rad(150.0)
"""A track is ahead below the one angle off the rear axle's heading and behind above the other."""
ALLOWED = {"vru": 0, "vehicle": 0, "object": 1}
"""At-fault collisions of each class that leave some score."""


class CollisionType(IntEnum):
    """How the boxes met; NONE where they did not."""

    NONE = -1
    STOPPED_EGO = 0
    STOPPED_TRACK = 1
    ACTIVE_FRONT = 2
    ACTIVE_REAR = 3
    ACTIVE_LATERAL = 4


@dataclass(frozen=True)
class Collisions:
    """First contacts with each track; every track collides at most once."""

    type: np.ndarray
    """`CollisionType` at the sample of the first contact, NONE elsewhere, [T, K]."""
    at_fault: np.ndarray
    """Whether that contact is the ego's fault, bool [T, K]."""
    delta_v: np.ndarray
    """Change of the ego's velocity in it [m/s], 0 elsewhere, [T, K]."""
    counts: dict[str, int]
    """Tracks hit at fault by class: vru, vehicle, object."""
    score: float

    @property
    def collided(self) -> np.ndarray:
        """Whether the track collided at the sample or before, bool [T, K]."""
        return np.logical_or.accumulate(self.type != CollisionType.NONE, axis=0)


def contacts(ego: Ego, tracks: Tracks) -> np.ndarray:
    """Whether the ego's box touches each track's, bool [T, K]."""
    offset = tracks.pose[..., :2] - ego.center[:, None, :2]
    reach = 0.5 * (np.hypot(*ego.size) + np.hypot(tracks.size[..., 0], tracks.size[..., 1]))
    near = tracks.valid & (np.hypot(offset[..., 0], offset[..., 1]) < reach)
    t, k = np.nonzero(near)
    result = np.zeros(tracks.valid.shape, bool)
    result[t, k] = convex_intersect(ego.corners[t], corners(tracks.pose[t, k], tracks.size[t, k]))
    return result


def types(ego: Ego, tracks: Tracks, touching: np.ndarray) -> np.ndarray:
    """The `CollisionType` of each sample and track that touch, [T, K]."""
    t, k = np.nonzero(touching)
    box = corners(tracks.pose[t, k], tracks.size[t, k])
    conditions = [
        ego.speed[t] <= STOPPED,
        tracks.speed[t, k] <= STOPPED,
        angle_off(ego.rear_axle[t], tracks.pose[t, k, :2]) > BEHIND,
        convex_intersect(ego.corners[t][:, [0, 3]], box),
    ]
    kinds = [
        CollisionType.STOPPED_EGO,
        CollisionType.STOPPED_TRACK,
        CollisionType.ACTIVE_REAR,
        CollisionType.ACTIVE_FRONT,
    ]
    result = np.full(touching.shape, int(CollisionType.NONE))
    result[t, k] = np.select(conditions, kinds, CollisionType.ACTIVE_LATERAL)
    return result


def delta_velocity(ego: Ego, tracks: Tracks) -> np.ndarray:
    """Half the difference of the velocities along the headings, for equal masses [m/s], [T, K]."""
    ego_speed = ego.speed[:, None]
    turn = np.cos(ego.rear_axle[:, None, 2] - tracks.pose[..., 2])
    squared = ego_speed**2 + tracks.speed**2 - 2 * ego_speed * tracks.speed * turn
    return 0.5 * np.sqrt(np.maximum(squared, 0.0))


def faults(type: np.ndarray, in_lane: np.ndarray) -> np.ndarray:
    """Whether collisions are the ego's fault, bool [T, K].

    Args:
        type: `CollisionType`, [T, K].
        in_lane: Whether the ego's corners are in common or connected lanes, bool [T].
    """
    always = (type == CollisionType.ACTIVE_FRONT) | (type == CollisionType.STOPPED_TRACK)
    return always | ((type == CollisionType.ACTIVE_LATERAL) & ~in_lane[:, None])


def collisions(ego: Ego, tracks: Tracks, in_lane: np.ndarray) -> Collisions:
    """First contacts and the score no_ego_at_fault_collisions.

    Args:
        ego: T states.
        tracks: K tracks.
        in_lane: Whether the ego's corners are in common or connected lanes, bool [T].
    """
    touching = contacts(ego, tracks)
    first = touching & (np.cumsum(touching, 0) == 1)
    type = types(ego, tracks, first)
    at_fault = faults(type, in_lane)
    kind = tracks.kind[at_fault]
    counts = {
        "vru": int(np.isin(kind, [TrackKind.PEDESTRIAN, TrackKind.BICYCLE]).sum()),
        "vehicle": int((kind == TrackKind.VEHICLE).sum()),
        "object": int((kind >= TrackKind.TRAFFIC_CONE).sum()),
    }
    parts = [max(0.0, 1.0 - counts[name] / (ALLOWED[name] + 1)) for name in ALLOWED]
    strength = np.where(first, delta_velocity(ego, tracks), 0.0)
    return Collisions(type, at_fault, strength, counts, float(np.prod(parts)))
