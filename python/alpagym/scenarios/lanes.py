"""Routes along the lane graph, on which IDM traffic changes lanes and drives on.

A lane route follows a lane and its straightest successors; every lane that some agent can reach
lies on one. Where lane routes meet, the one that ends runs on for `lane_chains.OVERLAP` and tells
where it continues on the other. Agents' own routes know which lane route they run along: from there
they take the lanes beside, and what continues them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from alpagym.scenarios.lane_chains import Chain, chains_of
from alpagym.scenarios.polyline import headings, project
from alpagym.scenarios.routes import find_stops, route_along, straightest
from alpagym.scenarios.scenario import ROUTE_SPACING, MapType, RoadMap, Scenario

MIN_GAIN = 10.0
"""A route is continued by one that leads at least so much farther [m]."""
SAME_LANE = 1.2
"""A route runs along a lane route that is this near [m]."""
BESIDE = (2.0, 6.0)
"""Centers of lanes beside each other are so far apart [m]."""
ALIGNED = float(np.cos(np.radians(25.0)))
"""Cosine of the angle up to which two routes run the same way."""
DRIFT = 6.0
"""A stretch is split where arc lengths on both sides drift apart by more [m]."""
MIN_STRETCH = 10.0
"""Shorter stretches are of no use [m]."""
SAME_STOP = 3.0
"""Stops of one route this near to each other are one [m]."""
REACH_STEP = 4
"""Every how many points an agent's route looks for its lanes."""


@dataclass
class Stretch:
    """A part of a route along which a lane route runs beside it, or runs as well."""

    first: float
    """Arc length of the begin [m]."""
    last: float
    """Arc length of the end [m]."""
    shift: float
    """Arc length on the lane route less the one here [m]."""
    lane: int
    """The lane route."""
    left: bool = False
    """For one beside: on the left."""


@dataclass
class LaneRoute:
    """One polyline through the lane graph, resampled every `ROUTE_SPACING`."""

    points: np.ndarray
    """[m], float64 [n, 3]."""
    limit: np.ndarray
    """[m/s], NaN where unknown, [n]."""
    element: np.ndarray
    """The lane that each point lies on, int [n]."""
    stops: list[tuple[float, int]] = field(default_factory=list)
    """As `AgentRoute.stops`."""
    beside: list[Stretch] = field(default_factory=list)
    next: tuple[int, float] = (-1, 0.0)
    """The lane route that goes on, and arc length there less the one here [m]."""

    @property
    def length(self) -> float:
        return ROUTE_SPACING * (len(self.points) - 1)


@dataclass
class Lanes:
    """The lane routes of one scenario, and what its agents' own routes know of them."""

    routes: list[LaneRoute]
    beside: list[list[Stretch]]
    """For each agent."""
    next: list[tuple[int, float]]
    """For each agent."""


def no_lanes(scenario: Scenario) -> Lanes:
    """No lane routes: agents keep to their own and leave where those end."""
    count = scenario.tracks.num_agents
    return Lanes([], [[] for _ in range(count)], [(-1, 0.0)] * count)


def lanes_of(scenario: Scenario) -> Lanes:
    """Lane routes along every lane that an agent of the scenario can reach."""
    road = scenario.map
    own = _own_points(scenario)
    pool = [Chain(road, chain) for chain in chains_of(road, _reachable(road, own))]
    routes = [LaneRoute(c.points, c.limit, c.element) for c in pool]
    if not routes:
        return no_lanes(scenario)
    holder = {
        element: (k, span) for k, c in enumerate(pool) for element, span in c.own_spans.items()
    }
    for route, chain in zip(routes, pool, strict=True):
        if chain.goes_on_at is not None:
            element, s = chain.goes_on_at
            other, (start, _) = holder[element]
            if routes[other].length > route.length + start - s + MIN_GAIN:
                route.next = (other, start - s)
        route.beside = _beside(road, route, holder, routes)
    along = _along(own, routes)
    _place_stops(scenario, routes, pool, along)
    return Lanes(
        routes,
        [_inherited(runs, routes) for runs in along],
        [_continued(len(points), runs, routes) for points, runs in zip(own, along, strict=True)],
    )


def _own_points(scenario: Scenario) -> list[np.ndarray]:
    r = scenario.routes
    return [
        r.points[a:b].astype(np.float64) for a, b in zip(r.offsets[:-1], r.offsets[1:], strict=True)
    ]


def _reachable(road: RoadMap, own: list[np.ndarray]) -> np.ndarray:
    """Lanes along which routes run, those beside them, and all that these lead to, bool [L]."""
    lane = (road.type == MapType.LANE) & (np.diff(road.offsets) >= 2)
    reached = np.zeros(road.num_elements, bool)
    lanes = np.flatnonzero(lane)
    query = [points[::REACH_STEP] for points in own if len(points) > 1]
    if not len(lanes) or not query:
        return reached
    fine = [route_along(road.polyline(int(i)))[0] for i in lanes]
    element = np.repeat(lanes, [len(f) for f in fine])
    near = _nearest(
        np.concatenate(query),
        np.concatenate([_directions(points)[::REACH_STEP] for points in own if len(points) > 1]),
        np.concatenate(fine),
        np.concatenate([_directions(f) for f in fine]),
        2.5,
    )
    front = {int(e) for e in element[near[near >= 0]]}
    while front:
        reached[list(front)] = True
        onward = {straightest(e, road) for e in front}
        beside = {int(n[e]) for e in front for n in (road.left_neighbor, road.right_neighbor)}
        front = {e for e in onward | beside if e >= 0 and lane[e] and not reached[e]}
    return reached


def _directions(points: np.ndarray) -> np.ndarray:
    """Unit directions of a polyline at its points [n, 2]."""
    if len(points) < 2:
        return np.tile([1.0, 0.0], (len(points), 1))
    yaw = headings(points)
    return np.stack([np.cos(yaw), np.sin(yaw)], 1)


def _nearest(
    query: np.ndarray,
    query_direction: np.ndarray,
    points: np.ndarray,
    direction: np.ndarray,
    reach: float,
) -> np.ndarray:
    """For each query point [m, 3] the nearest of `points` [n, 3] that runs its way, -1 if none."""
    # Points of both lie up to half a spacing apart along the way.
    reach2 = reach**2 + (0.5 * ROUTE_SPACING) ** 2
    cell = np.sqrt(reach2)
    columns = 1 << 20

    def key(xy: np.ndarray) -> np.ndarray:
        ij = np.floor(xy / cell).astype(np.int64)
        return ij[:, 0] * columns + ij[:, 1]

    order = np.argsort(key(points[:, :2]), kind="stable")
    keys = key(points[order, :2])
    rows, candidates = [], []
    for offset in [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
        here = key(query[:, :2]) + offset[0] * columns + offset[1]
        low, high = np.searchsorted(keys, here), np.searchsorted(keys, here, side="right")
        counts = high - low
        row = np.repeat(np.arange(len(query)), counts)
        rows.append(row)
        candidates.append(np.arange(len(row)) - (np.cumsum(counts) - counts)[row] + low[row])
    row = np.concatenate(rows)
    index = order[np.concatenate(candidates)]
    gap = ((query[row, :2] - points[index, :2]) ** 2).sum(1)
    ok = (gap < reach2) & ((query_direction[row] * direction[index]).sum(1) > ALIGNED)
    ok &= np.abs(query[row, 2] - points[index, 2]) < 3.0
    row, index, gap = row[ok], index[ok], gap[ok]
    best = np.lexsort((index, gap, row))
    found, first = np.unique(row[best], return_index=True)
    result = np.full(len(query), -1)
    result[found] = index[best[first]]
    return result


def _stretches(s: np.ndarray, to: np.ndarray, ok: np.ndarray) -> list[tuple[float, float, float]]:
    """(first, last, shift) of runs of stations `s` [n] whose partners `to` [n] keep their lead."""
    found = []
    n, k = len(s), 0
    while k < n:
        if not ok[k]:
            k += 1
            continue
        end = k
        while (
            end + 1 < n and ok[end + 1] and abs(to[end + 1] - s[end + 1] - (to[k] - s[k])) < DRIFT
        ):
            end += 1
        if s[end] - s[k] >= MIN_STRETCH:
            found.append(
                (float(s[k]), float(s[end]), float(np.median(to[k : end + 1] - s[k : end + 1])))
            )
        k = end + 1
    return found


def _beside(
    road: RoadMap,
    route: LaneRoute,
    holder: dict[int, tuple[int, tuple[float, float]]],
    routes: list[LaneRoute],
) -> list[Stretch]:
    """Where the lanes of a route have neighbors in the lane graph that run beside them."""
    found = []
    s = ROUTE_SPACING * np.arange(len(route.points))
    direction = _directions(route.points)
    for neighbor, left in ((road.left_neighbor, True), (road.right_neighbor, False)):
        beside = neighbor[route.element]
        for element in np.unique(beside[beside >= 0]):
            if int(element) not in holder:
                continue
            lane, (start, end) = holder[int(element)]
            other = routes[lane]
            low = max(int(start / ROUTE_SPACING) - 1, 0)
            part = other.points[low : int(end / ROUTE_SPACING) + 2]
            here = np.flatnonzero(beside == element)
            if len(part) < 2:
                continue
            at, d = project(part, route.points[here])
            ahead = _directions(part)[np.minimum((at / ROUTE_SPACING).astype(int), len(part) - 1)]
            inner = (at > 0.0) & (at < ROUTE_SPACING * (len(part) - 1))
            ok = inner & (np.abs(d) > BESIDE[0]) & (np.abs(d) < BESIDE[1])
            ok &= ((d < 0) == left) & ((ahead * direction[here]).sum(1) > ALIGNED)
            to = at + ROUTE_SPACING * low
            found += [Stretch(*run, lane, left) for run in _stretches(s[here], to, ok)]
    return _merged(found)


def _merged(stretches: list[Stretch]) -> list[Stretch]:
    """Stretches beside one lane route that follow each other with the same lead, as one."""
    result: list[Stretch] = []
    for x in sorted(stretches, key=lambda x: (x.left, x.lane, x.first)):
        last = result[-1] if result else None
        if (
            last is not None
            and (last.left, last.lane) == (x.left, x.lane)
            and x.first - last.last < 2.5 * ROUTE_SPACING
            and abs(x.shift - last.shift) < 0.5 * DRIFT
        ):
            last.last = max(last.last, x.last)
        else:
            result.append(x)
    return sorted(result, key=lambda x: (x.first, x.lane))


def _along(own: list[np.ndarray], routes: list[LaneRoute]) -> list[list[Stretch]]:
    """For each of some routes [n, 3] where it runs along lane routes."""
    pool = np.concatenate([r.points for r in routes])
    direction = np.concatenate([_directions(r.points) for r in routes])
    owner = np.repeat(np.arange(len(routes)), [len(r.points) for r in routes])
    s_of = np.concatenate([ROUTE_SPACING * np.arange(len(r.points)) for r in routes])
    all_near = _nearest(
        np.concatenate(own),
        np.concatenate([_directions(points) for points in own]),
        pool,
        direction,
        SAME_LANE,
    )
    result, begin = [], 0
    for points in own:
        near = all_near[begin : begin + len(points)]
        begin += len(points)
        s = ROUTE_SPACING * np.arange(len(points))
        found = []
        for lane in np.unique(owner[near[near >= 0]]):
            ok = (near >= 0) & (owner[near] == lane)
            found += [Stretch(*run, int(lane)) for run in _stretches(s, s_of[near], ok)]
        result.append(sorted(found, key=lambda x: x.first))
    return result


def _inherited(runs: list[Stretch], routes: list[LaneRoute]) -> list[Stretch]:
    """Lanes beside a route, from those beside the lane routes that it runs along."""
    found = []
    for run in runs:
        for x in routes[run.lane].beside:
            first, last = max(run.first, x.first - run.shift), min(run.last, x.last - run.shift)
            if last - first >= MIN_STRETCH:
                found.append(Stretch(first, last, run.shift + x.shift, x.lane, x.left))
    return _merged(found)


def _continued(count: int, runs: list[Stretch], routes: list[LaneRoute]) -> tuple[int, float]:
    """What goes on beyond a route of `count` points, if it ends along a lane route."""
    end = ROUTE_SPACING * (count - 1)
    for run in reversed(runs):
        if run.last > end - 3.0 * ROUTE_SPACING:
            lane = routes[run.lane]
            if lane.length - (end + run.shift) > MIN_GAIN or lane.next[0] >= 0:
                return run.lane, run.shift
    return -1, 0.0


def _place_stops(
    scenario: Scenario, routes: list[LaneRoute], pool: list[Chain], along: list[list[Stretch]]
) -> None:
    """Stops of lane routes: lights of their lanes, signs and lines that agents' routes know.

    What holds one of two lanes beside each other without a light holds the other one too.
    """
    road, lights, r = scenario.map, scenario.lights, scenario.routes
    signs = find_stops(road, lights, {})
    for lane, (route, chain) in enumerate(zip(routes, pool, strict=True)):
        if len(route.points) < 2:
            continue
        stops: list[tuple[float, int]] = []
        for element, first, last in chain.spans:
            for k in np.flatnonzero(lights.lane == element):
                s, d = project(route.points, lights.xy[k][None].astype(np.float64))
                if abs(d[0]) < SAME_STOP and first - SAME_STOP < s[0] < last + SAME_STOP:
                    _add(stops, float(s[0]), int(k))
            for sign in np.flatnonzero(signs.light < 0):
                if np.array_equal(signs.lane[sign], road.polyline(element)):
                    _add(stops, first, -1)
        for agent, runs in enumerate(along):
            for m in range(r.stop_offsets[agent], r.stop_offsets[agent + 1]):
                for run in runs:
                    if run.lane == lane and run.first - 4.0 < r.stop_s[m] < run.last + 4.0:
                        _add(stops, float(r.stop_s[m]) + run.shift, int(r.stop_light[m]))
        route.stops = stops
    for route in routes:
        for x in route.beside:
            for at, light in list(route.stops):
                if light < 0 and x.first - SAME_STOP < at < x.last + 2.0 * SAME_STOP:
                    _add(routes[x.lane].stops, at + x.shift, light)
    for route in routes:
        route.stops = sorted(x for x in route.stops if 0.0 < x[0] < route.length)


def _add(stops: list[tuple[float, int]], s: float, light: int) -> None:
    if all(abs(s - other) > SAME_STOP for other, _ in stops):
        stops.append((s, light))


def go_on(
    scenario: Scenario, lanes: Lanes, agent: int, length: float
) -> tuple[np.ndarray, np.ndarray, list[tuple[float, int]]]:
    """What continues an agent's own route up to `length` [m]: points [n, 3], limits [n] and stops.

    Of no points where the map ends, or where the route is as long already.
    """
    r = scenario.routes
    count = int(r.offsets[agent + 1] - r.offsets[agent])
    lane, shift = lanes.next[agent]
    points, limits, stops = [np.zeros((0, 3))], [np.zeros(0)], []
    while lane >= 0 and ROUTE_SPACING * count < length:
        route = lanes.routes[lane]
        first = round((ROUTE_SPACING * count + shift) / ROUTE_SPACING)
        missing = int(np.ceil(length / ROUTE_SPACING)) - count
        last = min(first + missing, len(route.points))
        if first < 0 or last <= first:
            break
        points.append(route.points[first:last])
        limits.append(route.limit[first:last])
        back = ROUTE_SPACING * (count - first)
        stops += [
            (s + back, light)
            for s, light in route.stops
            if ROUTE_SPACING * (first - 1) < s <= ROUTE_SPACING * (last - 1)
        ]
        count += last - first
        lane, step = route.next
        shift += step
    return np.concatenate(points), np.concatenate(limits), stops
