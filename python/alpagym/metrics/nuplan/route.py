"""Which lanes the ego and its corners are in, step by step.

nuPlan: `metrics/utils/route_extractor.py` and `evaluation_metrics/common/ego_lane_change.py`.
A route is one list of lane indices a sample, the first of which is the lane.
"""

from __future__ import annotations

import numpy as np

from alpagym.metrics.polygon_map import PolygonMap
from alpagym.scenarios.polyline import project

NEAR_CONNECTOR = 5.0
"""Nearer than this to the connectors it was in, a point has not left them for others [m]."""

Route = list[list[int]]


def route_along(polygon_map: PolygonMap, points: np.ndarray) -> Route:
    """The lanes or connectors at each of consecutive points.

    A point is looked for where the one before it was, then, if that was a single lane, in the lanes
    that this leads to, and only then in the whole map: the lane that holds it, else all connectors
    that do. Between connectors of an intersection the point stays in those it comes from, if near.
    At last, ambiguous connectors are reduced to those that the ego ends up in.

    Args:
        polygon_map: n lanes.
        points: [m], [T, 2].
    """
    inside = polygon_map.lanes_at(points)
    in_intersection = polygon_map.in_intersection(points)
    is_connector = polygon_map.is_connector
    route: Route = []
    here: list[int] = []
    for t in range(len(points)):
        here = _among(polygon_map, inside[t], here)
        if not here:
            here = _anywhere(polygon_map, inside[t], points[t])
            before = route[-1] if t > 1 else []
            from_connector = bool(before) and is_connector[before[0]]
            if from_connector and (is_connector[here[0]] if here else in_intersection[t]):
                near = polygon_map.polygons.select(np.array(before)).distance(points[t])
                here = [i for i, d in zip(before, near, strict=True) if d < NEAR_CONNECTOR] or here
        route.append(here)
    return _without_passed_connectors(polygon_map, route)


def route_of_corners(polygon_map: PolygonMap, corners: np.ndarray) -> list[Route]:
    """The lanes or connectors of each corner at each of T samples, T lists of 4 lists.

    Corners look in the lanes that any corner was in at the sample before, then in the whole map.
    nuPlan means to hand lanes from corner to corner in the first sample but does so in the second.

    Args:
        polygon_map: n lanes.
        corners: [m], [T, 4, 2].
    """
    inside = polygon_map.lanes_at(corners)
    result: list[Route] = []
    candidates: list[int] = []
    for t in range(len(corners)):
        found: Route = []
        for c in range(corners.shape[1]):
            here = _among(polygon_map, inside[t, c], candidates)
            if not here:
                here = _anywhere(polygon_map, inside[t, c], corners[t, c])
                if t == 1:
                    candidates = _union(candidates, here)
            found.append(here)
        candidates = _union(*found)
        result.append(found)
    return result


def in_common_or_connected_lane(polygon_map: PolygonMap, corner_route: list[Route]) -> np.ndarray:
    """Whether the four corners share a lane, or lie in lanes that follow each other, bool [T].

    False where a corner is in no lane.

    Args:
        polygon_map: n lanes.
        corner_route: Of the corners front left, rear left, rear right, front right.
    """
    inside = np.zeros((len(corner_route), 4, len(polygon_map.ids)), bool)
    for t, found in enumerate(corner_route):
        for c, lanes in enumerate(found):
            inside[t, c, lanes] = True
    front_left, rear_left, rear_right, front_right = inside.transpose(1, 0, 2)
    leads = polygon_map.leads_to
    left_or_next, right_or_next = rear_left | rear_left @ leads, rear_right | rear_right @ leads
    common = inside.all(1).any(-1)
    rear_connected = ((rear_left & right_or_next) | (rear_right & left_or_next)).any(-1)
    left = (front_left | front_left @ leads.T) & right_or_next
    right = (front_right | front_right @ leads.T) & left_or_next
    connected = rear_connected & (left & right).any(-1)
    return inside.any(-1).all(-1) & (common | connected)


def _among(polygon_map: PolygonMap, inside: np.ndarray, candidates: list[int]) -> list[int]:
    """Those candidates, or lanes that a single candidate leads to, that hold the point."""
    found = [i for i in candidates if inside[i]]
    if not found and len(candidates) == 1:
        found = [int(i) for i in polygon_map.outgoing[candidates[0]] if inside[i]]
    return found


def _anywhere(polygon_map: PolygonMap, inside: np.ndarray, point: np.ndarray) -> list[int]:
    """The lane that holds the point, else the connectors that do.

    nuPlan's lanes do not overlap; where ours do, the one with the nearest baseline counts.
    """
    lanes = np.flatnonzero(inside & ~polygon_map.is_connector)
    if len(lanes) > 1:
        away = [project(polygon_map.baselines[int(i)], point)[1] for i in lanes]
        lanes = lanes[[np.abs(away).argmin()]]
    found = lanes if len(lanes) else np.flatnonzero(inside)
    return [int(i) for i in found]


def _union(*lists: list[int]) -> list[int]:
    """Each once, in the order of their first appearance."""
    return list(dict.fromkeys(i for one in lists for i in one))


def _without_passed_connectors(polygon_map: PolygonMap, route: Route) -> Route:
    """Ambiguous connectors reduced, from the end, to those that the next sample is in or after."""
    kept = list(route)
    for t in range(len(kept) - 2, -1, -1):
        here, following = kept[t], kept[t + 1]
        if len(here) < 2:
            continue
        if len(here) > len(following) and set(following) <= set(here):
            kept[t] = following
        if following and not polygon_map.is_connector[following[0]]:
            leading = [i for i in here if polygon_map.leads_to[i, following[0]]]
            kept[t] = leading or kept[t]
    return kept
