"""The whole of nuPlan's closed-loop score of one drive, for reactive and other agents alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alpagym.metrics.comfort import comfort_series, is_comfortable
from alpagym.metrics.nuplan.aggregate import SCORES, final_score
from alpagym.metrics.nuplan.collisions import Collisions, collisions
from alpagym.metrics.nuplan.progress import Progress, progress
from alpagym.metrics.nuplan.road import (
    drivable_area,
    driving_direction_score,
    overspeed,
    progress_along_lanes,
    speed_limit_score,
)
from alpagym.metrics.nuplan.route import (
    Route,
    in_common_or_connected_lane,
    route_along,
    route_of_corners,
)
from alpagym.metrics.nuplan.state import Ego, Tracks
from alpagym.metrics.nuplan.time_to_collision import LEAST, time_to_collision
from alpagym.metrics.polygon_map import PolygonMap

LEAST_SAMPLES = 4
"""Comfort of fewer samples is not defined: its filters fit cubics."""


@dataclass(frozen=True)
class ClosedLoop:
    """Sub-scores of one drive of T samples, and what they come from."""

    scores: dict[str, float]
    """By the names of `SCORES`, NaN where the map or the drive gives no answer."""
    final: float
    route: Route
    """Lanes of the ego's center."""
    corner_route: list[Route]
    """Lanes of its corners front left, rear left, rear right, front right."""
    in_lane: np.ndarray
    """Whether its corners are in common or connected lanes, bool [T]."""
    collisions: Collisions
    ttc: np.ndarray
    """Time to collision [s], inf if none, [T]."""
    on_drivable_area: np.ndarray
    """Whether all corners are on it, bool [T]."""
    direction: np.ndarray
    """Way along the lanes within the last second [m], [T]."""
    overspeed: np.ndarray
    """[m/s], [T]."""
    progress: Progress
    comfort: dict[str, np.ndarray]
    """Series of `comfort.BOUNDS`, [T] each; empty for fewer than `LEAST_SAMPLES`."""


def closed_loop(
    ego: Ego, tracks: Tracks, polygon_map: PolygonMap, expert: np.ndarray, dt: float
) -> ClosedLoop:
    """Score a drive.

    Args:
        ego: T states.
        tracks: K tracks over the same states.
        polygon_map: Where they are.
        expert: Box centers of the recorded drive of the ego [m], [F, 2].
        dt: Mean time between samples [s].

    Raises:
        ValueError: A time step not above 0, an expert without a finite position, or tracks over
            other states than the ego's.
    """
    if not dt > 0:
        raise ValueError(f"dt: expected a time above 0 s, got {dt}")
    if expert.ndim != 2 or expert.shape[1:] != (2,) or not len(expert):
        raise ValueError(f"expert: expected [F, 2] with F >= 1, got {list(expert.shape)}")
    if not np.isfinite(expert).all():
        raise ValueError("expert: expected finite positions, got NaN or infinity")
    if len(tracks.valid) != len(ego.rear_axle):
        raise ValueError(
            f"tracks: expected {len(ego.rear_axle)} states as the ego has, got {len(tracks.valid)}"
        )
    center = ego.center[:, :2]
    route = route_along(polygon_map, center)
    corner_route = route_of_corners(polygon_map, ego.corners)
    in_lane = in_common_or_connected_lane(polygon_map, corner_route)
    hits = collisions(ego, tracks, in_lane)
    in_intersection = polygon_map.in_intersection(ego.rear_axle[:, :2])
    ttc = time_to_collision(
        ego, tracks, hits.collided, in_lane, in_intersection, np.any(hits.at_fault, axis=1)
    )
    on_road, far = drivable_area(polygon_map, ego.corners, corner_route, route)
    direction = progress_along_lanes(polygon_map, center, route, dt)
    over = overspeed(polygon_map, ego.speed, route)
    made = progress(polygon_map, center, expert)
    comfort: dict[str, np.ndarray] = {}
    if len(center) >= LEAST_SAMPLES:
        heading = ego.rear_axle[:, 2]
        comfort = comfort_series(ego.center_acceleration, ego.acceleration, heading, dt)
    scores = {
        "no_ego_at_fault_collisions": hits.score,
        "drivable_area_compliance": float(not far.any())
        if polygon_map.knows_drivable_area
        else np.nan,
        "ego_is_making_progress": made.is_making_progress,
        "driving_direction_compliance": driving_direction_score(direction),
        "ego_progress_along_expert_route": made.score,
        "time_to_collision_within_bound": float((ttc > LEAST).all()),
        "speed_limit_compliance": speed_limit_score(over, dt),
        "ego_is_comfortable": float(is_comfortable(comfort)) if comfort else np.nan,
    }
    final = float(final_score(np.array([scores[name] for name in SCORES])))
    return ClosedLoop(
        scores,
        final,
        route,
        corner_route,
        in_lane,
        hits,
        ttc,
        on_road,
        direction,
        over,
        made,
        comfort,
    )
