"""Routes: the recorded path of each agent, carried on along the lane graph, with its stops.

`build_routes` serves recorded scenarios. Generators that know an agent's path already make its
points with `route_along` and its stops with `stops_along`, and join all agents with `pack_routes`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from alpagym.scenarios.flags import parked_agents
from alpagym.scenarios.polyline import (
    Segments,
    arc_length,
    cut_segments,
    drop_duplicates,
    headings,
    interpolate,
    on_segment,
    project,
    resample,
    squared_distances,
    wrap_angle,
)
from alpagym.scenarios.scenario import (
    ROUTE_SPACING,
    AgentType,
    Lights,
    MapType,
    RoadMap,
    Routes,
    Tracks,
)
from alpagym.scenarios.segment_tree import IntricateError, SegmentTree

MIN_MOVE = 0.5
"""A recorded position counts as progress once this far from the one kept before it [m]."""
EXTENSION = 100.0
"""A route goes on for at least this long after the last recorded position [m]."""
LANE_ANGLE = np.pi / 4
"""A lane agrees with a path if their headings differ by less [rad]."""
LANE_REACH = 2.5
"""and if it runs within this distance [m],"""
LANE_HEIGHT = 3.0
"""and within this height [m]."""
MAX_LENGTH, MAX_PAIRS = 2e6, 4_000_000
"""Longest total of all recorded paths of a scenario [m]; most pairs of one's end and a lane."""
MERGE_LENGTH = 20.0
"""The lateral offset from the lane at the end of the record fades out over this length [m]."""
STOP_REACH = 3.0
"""A stop point concerns a route that passes it within this distance [m]."""
STOP_CHECK = (2.0, 5.0, 10.0)
"""Places on a controlled lane [m] where the route must still run along it,"""
STOP_CORRIDOR = 1.5
"""within this distance [m]."""
SIGN_RIGHT = (1.0, 6.0)
SIGN_AHEAD = 3.0
"""A stop sign without a lane stands this far right of where one starts, so far ahead [m]."""


@dataclass
class AgentRoute:
    """Route of one agent; of no points if it has none."""

    points: np.ndarray
    """Every `ROUTE_SPACING` [m], [n, 3]."""
    speed_limit: np.ndarray
    """At each point [m/s], NaN where unknown, [n]."""
    log_length: float
    """Arc length at the last recorded position [m]."""
    stops: list[tuple[float, int]]
    """Arc length [m] and index of the light (-1 for a sign), in order of arc length."""


NO_ROUTE = AgentRoute(np.zeros((0, 3)), np.zeros(0), 0.0, [])


def route_along(
    line: np.ndarray, speed_limit: np.ndarray | float = np.nan
) -> tuple[np.ndarray, np.ndarray]:
    """Route points and their speed limits from one polyline.

    Args:
        line: points in driving order [m], [n, 2] or [n, 3]; z is zero if absent.
        speed_limit: one value, or one for each point of `line` that holds until the next [m/s].

    Returns:
        points: every `ROUTE_SPACING` from the first point on, float64 [m, 3].
        limits: float64 [m].
    """
    line = np.asarray(line, np.float64)
    if line.shape[1] == 2:
        line = np.column_stack([line, np.zeros(len(line))])
    points = resample(line, ROUTE_SPACING)
    if np.ndim(speed_limit) == 0:
        return points, np.full(len(points), speed_limit, np.float64)
    s = np.arange(len(points)) * ROUTE_SPACING
    source = np.searchsorted(arc_length(line), s + 1e-9, side="right") - 1
    return points, np.asarray(speed_limit, np.float64)[source]


def pack_routes(routes: list[AgentRoute]) -> Routes:
    """All agents' routes in the arrays of `Routes`."""

    def offsets(counts: list[int]) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int32)

    stops = [stop for route in routes for stop in route.stops]
    none = np.zeros((0, 3))
    return Routes(
        points=np.concatenate([none, *(r.points for r in routes)]).astype(np.float32),
        offsets=offsets([len(r.points) for r in routes]),
        speed_limit=np.concatenate([none[:, 0], *(r.speed_limit for r in routes)]).astype(
            np.float32
        ),
        log_length=np.array([r.log_length for r in routes], np.float32),
        stop_offsets=offsets([len(r.stops) for r in routes]),
        stop_s=np.array([s for s, _ in stops], np.float32),
        stop_light=np.array([light for _, light in stops], np.int32),
    )


def build_routes(
    tracks: Tracks,
    road_map: RoadMap,
    lights: Lights,
    stop_lanes: dict[int, list[int]] | None = None,
    missions: dict[int, set[int]] | None = None,
) -> Routes:
    """Routes of all agents of a recorded scenario.

    Args:
        tracks: recorded states.
        road_map: its lanes carry routes on beyond the record.
        lights: stops of the lanes they control.
        stop_lanes: lanes (element indices) that each stop sign (element index) controls, where the
            source tells; other signs are given to the lanes that start beside them.
        missions: lanes (element indices) that an agent (index) prefers where the road forks beyond
            its record.

    Raises:
        IntricateError: if records or lanes are absurdly long or close.
    """
    lanes = np.flatnonzero(road_map.type == MapType.LANE)
    segments = cut_segments([road_map.polyline(int(i)) for i in lanes], lanes, max_step=10.0)
    stop_points = find_stops(road_map, lights, stop_lanes or {})
    has_limits = bool(np.isfinite(road_map.speed_limit[lanes]).any())
    parked = parked_agents(tracks)

    routes = [NO_ROUTE] * tracks.num_agents
    moving = [int(a) for a in np.flatnonzero(~parked)]
    paths = [recorded_path(tracks, a) for a in moving]
    if sum(float(arc_length(path)[-1]) for path in paths) > MAX_LENGTH:
        raise IntricateError(
            f"has agents that were recorded over {MAX_LENGTH / 1e3:g} km in all, which none drives"
        )
    yaws = [_last_yaw(tracks, a, path) for a, path in zip(moving, paths, strict=True)]
    places = np.full(len(moving), -1)
    if moving and len(segments.owner):
        places = _nearest_lane(np.array([path[-1] for path in paths]), np.array(yaws), segments)
    for a, path, yaw, place in zip(moving, paths, yaws, places, strict=True):
        on_foot = tracks.type[a] == AgentType.PEDESTRIAN
        lane = -1 if on_foot or place < 0 else int(segments.owner[place])
        mission = (missions or {}).get(a, set())
        points, limits = route_along(extend(path, yaw, road_map, lane, mission))
        stops = [] if on_foot else stops_along(points, stop_points)
        routes[a] = AgentRoute(points, limits, float(arc_length(path)[-1]), stops)
    if has_limits:
        _fill_speed_limits(routes, segments, road_map.speed_limit)
    return pack_routes(routes)


def recorded_path(tracks: Tracks, agent: int) -> np.ndarray:
    """The path of one agent through its valid frames without standstill jitter, [n >= 2, 3].

    It begins at the first and ends at the last valid position; holes are bridged straight.
    """
    seen = tracks.xyz[agent, tracks.valid[agent]].astype(np.float64)
    places = seen[:, :2].tolist()  # to count in Python is faster than in arrays of one number
    kept, last = [0], len(seen) - 1
    for i in range(1, last):
        if math.dist(places[i], places[kept[-1]]) > MIN_MOVE:
            kept.append(i)
    # The end replaces a kept point that is too near to it to tell a heading.
    while len(kept) > 1 and math.dist(places[last], places[kept[-1]]) < MIN_MOVE:
        kept.pop()
    path = seen[[*kept, last]]
    if len(path) > 2:
        path[1:-1] = 0.25 * path[:-2] + 0.5 * path[1:-1] + 0.25 * path[2:]
    path = drop_duplicates(path)
    if len(path) < 2:  # it came back to where it began
        farthest = seen[np.hypot(*(seen[:, :2] - seen[0, :2]).T).argmax()]
        path = np.array([seen[0], farthest, seen[-1] + [MIN_MOVE * 0.01, 0, 0]])
    return path


def _last_yaw(tracks: Tracks, agent: int, path: np.ndarray) -> float:
    """Heading in which the path ends: its own, or the box's where the path is too short to tell."""
    s = arc_length(path)[-1]
    if s < 2.0:
        return float(tracks.yaw[agent, np.flatnonzero(tracks.valid[agent])[-1]])
    before, end = interpolate(path, np.array([s - 2.0, s]))
    return float(np.arctan2(end[1] - before[1], end[0] - before[0]))


def extend(
    path: np.ndarray, yaw: float, road_map: RoadMap, lane: int, mission: set[int] | None = None
) -> np.ndarray:
    """The path carried on for `EXTENSION` along `lane` and successors, then straight on, [m, 3].

    Without a lane (-1) it goes straight on at once, with heading `yaw` [rad]. Lanes of the mission
    are preferred.
    """
    ahead = (
        _along_lanes(path[-1], lane, road_map, mission or set()) if lane >= 0 else np.zeros((0, 3))
    )
    line = drop_duplicates(np.concatenate([path, ahead]), 0.01)
    missing = arc_length(path)[-1] + EXTENSION - arc_length(line)[-1]
    if missing > 0:
        heading = yaw if len(ahead) == 0 else headings(line)[-1]
        step = missing + ROUTE_SPACING
        line = np.concatenate(
            [line, line[-1:] + step * np.array([[np.cos(heading), np.sin(heading), 0.0]])]
        )
    return line


def _nearest_lane(query: np.ndarray, yaw: np.ndarray, segments: Segments) -> np.ndarray:
    """Index of the best agreeing lane segment for each point [m, 3] and heading [m], or -1, [m].

    A meter to the side weighs as much as 19 degrees of heading, so that of the lanes that fan out
    of one place the one that the path follows wins.
    """
    result = np.full(len(query), -1)
    reach = np.full(len(query), LANE_REACH)
    tree, segment_yaw = SegmentTree(segments), segments.yaw
    for row, index in tree.near(query, reach, LANE_HEIGHT, MAX_PAIRS, nearest=False):
        angle = np.abs(wrap_angle(segment_yaw[index] - yaw[row]))
        _, distance = on_segment(segments, index, query[row])
        agrees = (angle < LANE_ANGLE) & (distance < LANE_REACH)
        row, index, cost = row[agrees], index[agrees], (distance + 3.0 * angle)[agrees]
        order = np.lexsort((index, cost, row))
        rows, best = np.unique(row[order], return_index=True)
        result[rows] = index[order[best]]
    return result


def _along_lanes(end: np.ndarray, lane: int, road_map: RoadMap, mission: set[int]) -> np.ndarray:
    """Points ahead of `end` [3] along `lane` and its straightest successors, [n, 3]."""
    line = road_map.polyline(lane).astype(np.float64)
    s, d = project(line, end[None])
    parts, seen = [line], {lane}
    length = arc_length(line)[-1] - s[0]
    while length < EXTENSION + ROUTE_SPACING:
        lane = straightest(lane, road_map, mission)
        if lane < 0 or lane in seen:
            break
        seen.add(lane)
        parts.append(road_map.polyline(lane).astype(np.float64))
        length += arc_length(parts[-1])[-1]
    whole = drop_duplicates(np.concatenate(parts), 0.01)
    if len(whole) < 2:
        return np.zeros((0, 3))
    # Begins a little ahead, so that the lateral offset does not make the joint kink.
    stations = np.arange(s[0] + ROUTE_SPACING, arc_length(whole)[-1], ROUTE_SPACING)
    points = interpolate(whole, stations)
    if len(points) < 2:
        return np.zeros((0, 3))
    yaw = headings(points)
    fade = d[0] * np.clip(1.0 - (stations - s[0]) / MERGE_LENGTH, 0.0, 1.0)
    points[:, 0] -= fade * np.sin(yaw)
    points[:, 1] += fade * np.cos(yaw)
    return points


def straightest(lane: int, road_map: RoadMap, mission: set[int] | None = None) -> int:
    """The successor that turns least over its first 15 m, or -1; of those of a mission if any."""
    options = [int(i) for i in road_map.successors_of(lane)]
    options = [i for i in options if mission and i in mission] or options
    if len(options) < 2:
        return int(options[0]) if len(options) else -1
    line = road_map.polyline(lane)
    yaw = headings(line)[-1]
    turns = []
    for option in options:
        chord = np.diff(interpolate(road_map.polyline(int(option)), np.array([0.0, 15.0])), axis=0)[
            0
        ]
        turns.append(abs(float(wrap_angle(np.arctan2(chord[1], chord[0]) - yaw))))
    return int(options[int(np.argmin(turns))])


def _fill_speed_limits(
    routes: list[AgentRoute], segments: Segments, lane_limit: np.ndarray
) -> None:
    """Give each route point the limit of the nearest lane that runs its way."""
    moving = [r for r in routes if len(r.points) > 1]
    if not moving:
        return
    points = np.concatenate([r.points for r in moving])
    place = _nearest_lane(points, np.concatenate([headings(r.points) for r in moving]), segments)
    limits = np.where(place >= 0, lane_limit[segments.owner[place]], np.nan)
    first = 0
    for route in moving:
        route.speed_limit = limits[first : first + len(route.points)]
        first += len(route.points)


@dataclass
class StopPoints:
    """Places where traffic on a lane has to stop, for a light or a sign."""

    xy: np.ndarray
    """[m], [n, 2]."""
    light: np.ndarray
    """Index into `Lights`, or -1 for a stop sign, [n]."""
    lane: list[np.ndarray]
    """Points of the lane that begins there [m], [k, 3] each."""


def find_stops(road_map: RoadMap, lights: Lights, stop_lanes: dict[int, list[int]]) -> StopPoints:
    """Stop points of all lights that control a lane, and of all stop signs with a lane."""
    lit = np.flatnonzero(lights.lane >= 0)
    xy = [lights.xy[k] for k in lit]
    light = [int(k) for k in lit]
    lane = [road_map.polyline(int(lights.lane[k])) for k in lit]
    for sign in np.flatnonzero(road_map.type == MapType.STOP_SIGN):
        for element in stop_lanes.get(int(sign)) or _lanes_beside(road_map, int(sign)):
            lane.append(road_map.polyline(element))
            xy.append(lane[-1][0, :2])
            light.append(-1)
    return StopPoints(np.array(xy, np.float64).reshape(-1, 2), np.array(light, np.int64), lane)


def _lanes_beside(road_map: RoadMap, sign: int) -> list[int]:
    """Lanes that start where a stop sign stands on their right."""
    lanes = np.flatnonzero(road_map.type == MapType.LANE)
    if not len(lanes):
        return []
    place = road_map.polyline(sign)[0]
    first = road_map.points[road_map.offsets[lanes]].astype(np.float64)
    second = road_map.points[road_map.offsets[lanes] + 1].astype(np.float64)
    yaw = np.arctan2(second[:, 1] - first[:, 1], second[:, 0] - first[:, 0])
    dx, dy = place[0] - first[:, 0], place[1] - first[:, 1]
    ahead = np.cos(yaw) * dx + np.sin(yaw) * dy
    right = np.sin(yaw) * dx - np.cos(yaw) * dy
    beside = (np.abs(ahead) < SIGN_AHEAD) & (right > SIGN_RIGHT[0]) & (right < SIGN_RIGHT[1])
    return [int(i) for i in lanes[beside & (np.abs(place[2] - first[:, 2]) < LANE_HEIGHT)]]


def stops_along(points: np.ndarray, stops: StopPoints) -> list[tuple[float, int]]:
    """The stops of a route [n, 3]: those it passes and along whose lane it then runs.

    Returns:
        Arc length [m] and light index (-1 for a sign), in order of arc length. Of stops within one
        `ROUTE_SPACING`, as lanes that fan out of one place have, the best fitting one is kept.
    """
    if len(points) < 2 or not len(stops.light):
        return []
    near = squared_distances(stops.xy, points).min(1) < (STOP_REACH + 0.5 * ROUTE_SPACING) ** 2
    length = arc_length(points)[-1]
    found = []
    for i in np.flatnonzero(near):
        line = stops.lane[i].astype(np.float64)
        reach = arc_length(line)[-1]
        checks = interpolate(line, np.array([min(c, reach) for c in STOP_CHECK]))
        s, d = project(points, np.concatenate([np.append(stops.xy[i], 0.0)[None], checks]))
        aligned = (np.diff(s[1:]) >= 0).all() and s[-1] > s[0] and 0.0 < s[0] < length
        inside = s[1:] < length
        if aligned and abs(d[0]) < STOP_REACH and (np.abs(d[1:][inside]) < STOP_CORRIDOR).all():
            fit = float(np.abs(d[1:][inside]).mean()) if inside.any() else STOP_CORRIDOR
            found.append((float(s[0]), int(stops.light[i]), fit))
    best: list[tuple[float, int]] = []
    taken: list[float] = []
    for s0, light, _ in sorted(found, key=lambda f: (f[2], f[0])):
        if all(abs(s0 - other) > ROUTE_SPACING for other in taken):
            taken.append(s0)
            best.append((s0, light))
    return sorted(best)
