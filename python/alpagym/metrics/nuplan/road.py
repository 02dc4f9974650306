"""Staying on the road, driving along it, and its speed limit.

nuPlan: `evaluation_metrics/common/drivable_area_compliance.py`,
`driving_direction_compliance.py` and `speed_limit_compliance.py`.
"""

from __future__ import annotations

import numpy as np

from alpagym.metrics.nuplan.route import Route
from alpagym.metrics.polygon_map import PolygonMap
from alpagym.scenarios.polyline import project

MAX_OUTSIDE = 0.3
"""From this distance on, a corner outside the drivable area is a violation [m]."""
DIRECTION_TIME = 1.0
"""Time over which driving backwards is summed [s]."""
COMPLIANT, VIOLATION = 2.0, 6.0
"""Driven against the lane: less than the first scores 1, less than the second 0.5, else 0 [m]."""
MAX_OVERSPEED = 2.23
"""Mean overspeed at which the score reaches 0 [m/s]."""


def drivable_area(
    polygon_map: PolygonMap, corners: np.ndarray, corner_route: list[Route], route: Route
) -> tuple[np.ndarray, np.ndarray]:
    """Whether all corners are on the drivable area, and whether one is too far off it, bool [T].

    A corner is on it in any lane or connector too; one that is not is excused when it is near the
    lanes of the ego's center or a drivable area.

    Args:
        polygon_map: Lanes and drivable areas.
        corners: [m], [T, 4, 2].
        corner_route: Lanes of the corners.
        route: Lanes of the ego's center.
    """
    in_lane = np.array([[len(lanes) > 0 for lanes in found] for found in corner_route])
    outside = ~in_lane & ~polygon_map.in_drivable_area(corners)
    far = np.zeros_like(outside)
    t, c = np.nonzero(outside)
    far[t, c] = polygon_map.distance_to_drivable_area(corners[t, c]) >= MAX_OUTSIDE
    for i, j in zip(*np.nonzero(far), strict=True):
        if route[i]:
            distance = polygon_map.polygons.select(np.array(route[i])).distance(corners[i, j])
            far[i, j] = distance.min() >= MAX_OUTSIDE
    return ~outside.any(1), far.any(1)


def progress_along_lanes(
    polygon_map: PolygonMap, points: np.ndarray, route: Route, dt: float
) -> np.ndarray:
    """Way made along the lanes' direction within the last second [m], negative against it, [T].

    A sample counts nothing in no lane, on the change to another lane and right after it, and where
    it projects onto the very start of the lane.

    Args:
        polygon_map: n lanes.
        points: Box centers [m], [T, 2].
        route: Lanes of the centers.
        dt: Mean time between samples [s].
    """
    lane = np.array([found[0] if found else -1 for found in route])
    s = np.zeros(len(lane))
    for i in np.unique(lane[lane >= 0]):
        s[lane == i] = project(polygon_map.baselines[i], points[lane == i])[0]
    made = np.zeros(len(lane))
    current, before = lane[0], np.nan
    for t in np.flatnonzero(lane >= 0):
        if lane[t] != current:
            current, before = lane[t], np.nan
            continue
        if s[t] > 0 and not np.isnan(before):
            made[t] = s[t] - before
        before = s[t]
    samples = int(DIRECTION_TIME / dt + 1e-9) + 1
    total = np.concatenate([np.zeros(samples), np.cumsum(made)])
    return total[samples:] - total[:-samples]


def driving_direction_score(progress: np.ndarray) -> float:
    """1, 0.5 or 0 for the most that was driven against the lane within a second.

    Args:
        progress: Of `progress_along_lanes` [m], [T].
    """
    against = abs(float(progress.min()))
    return 1.0 if against < COMPLIANT else 0.5 if against < VIOLATION else 0.0


def overspeed(polygon_map: PolygonMap, speed: np.ndarray, route: Route) -> np.ndarray:
    """Speed above the limit, 0 where there is none to know [m/s], [T].

    Connectors have the greatest limit of all lanes before and after them, if all of these have one;
    a limit of 0 is no limit.

    Args:
        polygon_map: n lanes.
        speed: Of the ego [m/s], [T].
        route: Lanes of the ego's center.
    """
    known = np.where(polygon_map.speed_limit > 0, polygon_map.speed_limit, np.nan)
    result = np.zeros(len(speed))
    for t, lanes in enumerate(route):
        if lanes and polygon_map.is_connector[lanes[0]]:
            leads = polygon_map.leads_to
            limits = known[leads[lanes].any(0) | leads[:, lanes].any(1)]
        else:
            limits = known[lanes[:1]]
        if len(limits) and not np.isnan(limits).any():
            result[t] = max(0.0, speed[t] - limits.max())
    return result


def speed_limit_score(overspeed: np.ndarray, dt: float) -> float:
    """1 without overspeed, less by its integral over the drive's time.

    Args:
        overspeed: [m/s], [T].
        dt: Mean time between samples [s].
    """
    duration = dt * (len(overspeed) - 1)
    if duration <= 0:
        return 1.0
    return max(0.0, 1.0 - float(overspeed.sum()) * dt / (MAX_OVERSPEED * duration))
