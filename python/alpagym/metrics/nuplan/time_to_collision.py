"""Time to collision at constant speed along the headings.

nuPlan: `evaluation_metrics/common/time_to_collision_within_bound.py`.
"""

from __future__ import annotations

import numpy as np

from alpagym.metrics.geometry import ahead, corners
from alpagym.metrics.nuplan.collisions import AHEAD, BEHIND
from alpagym.metrics.nuplan.state import Ego, Tracks
from alpagym.metrics.polygons import angle_off, convex_intersect

STEP, HORIZON = 0.1, 3.0
"""Projected times are whole steps from one step to before the horizon [s]."""
LEAST = 0.95
"""Every sample's time must exceed this for the score 1 [s]."""
STOPPED = 0.005
"""At this speed or below, the ego runs into nothing [m/s]."""


def time_to_collision(
    ego: Ego,
    tracks: Tracks,
    collided: np.ndarray,
    in_lane: np.ndarray,
    in_intersection: np.ndarray,
    at_fault: np.ndarray,
) -> np.ndarray:
    """Seconds until the ego's box meets a track's, inf where it does not within the horizon, [T].

    Tracks ahead count, and those that are not behind where the ego is between lanes or in an
    intersection. Velocity is taken along the heading whichever way a box moves.

    Args:
        ego: T states.
        tracks: K tracks.
        collided: Tracks that collided by then and no longer count, bool [T, K].
        in_lane: Whether the ego's corners are in common or connected lanes, bool [T].
        in_intersection: Whether the rear axle is in an intersection, bool [T].
        at_fault: Whether an at-fault collision begins at the sample, which makes it 0, bool [T].
    """
    angle = angle_off(ego.rear_axle[:, None], tracks.pose[..., :2])
    wide = (~in_lane | in_intersection)[:, None]
    seen = (angle < AHEAD) | (wide & (angle <= BEHIND))
    t, k = np.nonzero(tracks.valid & ~collided & seen & (ego.speed > STOPPED)[:, None])
    # Boxes stretched over the horizon sort out the pairs that cannot meet in it.
    ego_box = _moved(ego.center[t], ego.size, ego.speed[t], 0.5 * HORIZON, HORIZON)
    box = _moved(tracks.pose[t, k], tracks.size[t, k], tracks.speed[t, k], 0.5 * HORIZON, HORIZON)
    meet = convex_intersect(ego_box, box)
    t, k = t[meet], k[meet]
    result = np.full(len(ego.rear_axle), np.inf)
    if len(t):
        times = np.arange(STEP, HORIZON, STEP)
        ego_box = _moved(ego.center[t, None], ego.size, ego.speed[t, None], times)
        pose, size, speed = tracks.pose[t, k], tracks.size[t, k], tracks.speed[t, k]
        box = _moved(pose[:, None], size[:, None], speed[:, None], times)
        hit = convex_intersect(ego_box, box)
        np.minimum.at(result, t, np.where(hit.any(1), times[hit.argmax(1)], np.inf))
    result[at_fault] = 0.0
    return result


def _moved(
    pose: np.ndarray,
    size: np.ndarray,
    speed: np.ndarray,
    time: np.ndarray | float,
    stretch: float = 0.0,
) -> np.ndarray:
    """Corners of boxes driven on for `time` [s] and longer by the way of `stretch` [s]."""
    way = speed * time
    length = np.broadcast_to(size[..., 0], way.shape) + speed * stretch
    width = np.broadcast_to(size[..., 1], way.shape)
    return corners(ahead(pose, way), np.stack([length, width], -1))
