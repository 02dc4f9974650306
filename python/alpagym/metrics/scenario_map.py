"""The polygon map of a scenario of ours, for scores that were defined on maps of another kind."""

from __future__ import annotations

import numpy as np

from alpagym.metrics.geometry import cross
from alpagym.metrics.polygon_map import PolygonMap
from alpagym.metrics.polygons import Polygons
from alpagym.metrics.road_edges import RoadEdgeSegments
from alpagym.scenarios.polyline import arc_length, project, split_long_steps
from alpagym.scenarios.scenario import MapType, RoadMap, Scenario

HALF_WIDTH = 1.85
"""Of a lane to a side without a neighbor [m]."""
MAX_NEIGHBOR = 6.0
"""A neighbor whose center line is farther than this is no longer alongside [m]."""
ALONGSIDE_STEP = 2.0
"""Resolution at which the part of a neighbor that lies alongside is found [m]."""
SAME_LEVEL = 2.5
"""Lanes and edges that differ more in height from the ego's record are on another level [m]."""
CHUNK = 400_000
"""Pairs of segments held in memory at once."""


def polygon_map_of(scenario: Scenario) -> PolygonMap:
    """The lanes and the drivable area of a scenario.

    Our maps hold center lines, links and road edges, so the rest is approximated:

    - A lane reaches to the middle between its center line and a left or right neighbor's, or
      `HALF_WIDTH` to a side without one; ends are cut square.
    - A lane that starts at a fork, ends at a merge, or crosses another's center line is a
      connector. The outlines of those that cross are the intersection polygons.
    - Each lane has a roadblock of its own: it and the parts of its neighbors that lie alongside.
    - Inside of the directed road edges is drivable, with no polygons; without edges the drivable
      area is unknown. Car parks are unknown.
    - Of maps with heights, lanes and edges at another level than the nearest recorded position of
      the ego are left out.

    Lanes are named by their ids in the source and stand in the order of the map.
    """
    road_map = scenario.map
    lanes = [int(e) for e in np.flatnonzero(road_map.type == MapType.LANE)]
    level = _Level(scenario)
    lanes = [e for e in lanes if level.holds(road_map.polyline(e)).any()]
    place = {element: i for i, element in enumerate(lanes)}
    lines = [road_map.polyline(e)[:, :2].astype(np.float64) for e in lanes]
    outgoing = [
        np.array([place[int(s)] for s in road_map.successors_of(e) if int(s) in place], int)
        for e in lanes
    ]
    left, right = _sides(road_map, place)
    rings = [
        _outline(
            line,
            _half_width(line, [lines[j] for j in left[i]]),
            _half_width(line, [lines[j] for j in right[i]]),
        )
        for i, line in enumerate(lines)
    ]
    crosses = _crossing(lines, left, right)
    is_connector = np.asarray(crosses | _branches(outgoing))
    parts, owner = [], []
    for i, line in enumerate(lines):
        parts.append(rings[i])
        owner.append(i)
        for j in _reached(i, left) | _reached(i, right):
            stretch = _alongside(lines[j], line)
            if len(stretch) >= 2:
                parts.append(_outline(stretch, HALF_WIDTH, HALF_WIDTH))
                owner.append(i)
    return PolygonMap(
        ids=[str(road_map.id[e]) for e in lanes],
        is_connector=is_connector,
        polygons=Polygons.of(rings),
        baselines=lines,
        outgoing=outgoing,
        roadblock=np.arange(len(lanes)),
        speed_limit=road_map.speed_limit[lanes].astype(np.float64),
        roadblocks=Polygons.of(parts),
        roadblock_is_connector=is_connector[np.array(owner, int)],
        roadblock_of_outline=np.array(owner, int),
        intersections=Polygons.of([rings[i] for i in np.flatnonzero(crosses)]),
        edges=_road_edges(road_map, level),
    )


class _Level:
    """Which map points are at the height of the ego's record."""

    def __init__(self, scenario: Scenario) -> None:
        there = scenario.tracks.valid[scenario.ego]
        self.path = scenario.tracks.xyz[scenario.ego, there].astype(np.float64)
        self.path = self.path[:: max(1, len(self.path) // 30)]
        self.known = scenario.has_z

    def holds(self, points: np.ndarray) -> np.ndarray:
        """[n, 3] to bool [n]."""
        if not self.known:
            return np.ones(len(points), bool)
        offset = points[:, None].astype(np.float64) - self.path
        nearest = np.square(offset[..., :2]).sum(-1).argmin(1)
        return np.abs(offset[np.arange(len(points)), nearest, 2]) < SAME_LEVEL


def _road_edges(road_map: RoadMap, level: _Level) -> RoadEdgeSegments | None:
    lines = [road_map.polyline(int(e)) for e in np.flatnonzero(road_map.type == MapType.ROAD_EDGE)]
    if not lines:
        return None
    start = np.concatenate([line[:-1] for line in lines]).astype(np.float64)
    end = np.concatenate([line[1:] for line in lines]).astype(np.float64)
    keep = level.holds(start) & (start[:, :2] != end[:, :2]).any(1)
    return RoadEdgeSegments(start[keep, :2], end[keep, :2]) if keep.any() else None


def _sides(road_map: RoadMap, place: dict[int, int]) -> tuple[list[set[int]], list[set[int]]]:
    """Direct neighbors to the left and right of each lane, named by either of the two."""
    left: list[set[int]] = [set() for _ in place]
    right: list[set[int]] = [set() for _ in place]
    for element, i in place.items():
        for here, there, links in (
            (left, right, road_map.left_neighbor),
            (right, left, road_map.right_neighbor),
        ):
            j = place.get(int(links[element]))
            if j is not None and j != i:
                here[i].add(j)
                there[j].add(i)
    return left, right


def _reached(lane: int, links: list[set[int]]) -> set[int]:
    """All lanes farther and farther to one side."""
    found: set[int] = set()
    ahead = set(links[lane])
    while ahead:
        found |= ahead
        ahead = {j for i in ahead for j in links[i]} - found
    return found - {lane}


def _half_width(line: np.ndarray, neighbors: list[np.ndarray]) -> np.ndarray:
    """Distance from each point of a lane to its border on the side of these neighbors [m]."""
    if not neighbors:
        return np.full(len(line), HALF_WIDTH)
    distance = np.abs([project(other, line)[1] for other in neighbors]).min(0)
    return np.where(distance < MAX_NEIGHBOR, 0.5 * distance, HALF_WIDTH)


def _outline(line: np.ndarray, left: np.ndarray | float, right: np.ndarray | float) -> np.ndarray:
    """The line widened by these distances to its sides [m], [2 k, 2]."""
    step = np.diff(line, axis=0)
    step /= np.hypot(step[:, 0], step[:, 1])[:, None]
    tangent = np.concatenate([step[:1], step[1:] + step[:-1], step[-1:]])
    length = np.hypot(tangent[:, 0], tangent[:, 1])[:, None]
    back = np.append(step, step[-1:], 0)  # where the line turns back on itself
    tangent = np.where(length > 1e-6, tangent / np.maximum(length, 1e-6), back)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], -1)
    left, right = np.broadcast_to(left, len(line)), np.broadcast_to(right, len(line))
    return np.concatenate([line - right[:, None] * normal, (line + left[:, None] * normal)[::-1]])


def _alongside(line: np.ndarray, of: np.ndarray) -> np.ndarray:
    """The part of a line whose nearest points on another are not the other's ends, [k, 2]."""
    dense = split_long_steps(line, ALONGSIDE_STEP)
    s = project(of, dense)[0]
    inner = np.flatnonzero((s > 0) & (s < arc_length(of)[-1]))
    return dense[inner[0] : inner[-1] + 1] if len(inner) else dense[:0]


def _branches(outgoing: list[np.ndarray]) -> np.ndarray:
    """Whether each lane is one of several after a fork or before a merge, bool [n]."""
    count = np.zeros(len(outgoing), int)
    for following in outgoing:
        np.add.at(count, following, 1)
    result = np.zeros(len(outgoing), bool)
    for i, following in enumerate(outgoing):
        result[i] |= bool((count[following] > 1).any())
        if len(following) > 1:
            result[following] = True
    return result


def _crossing(lines: list[np.ndarray], left: list[set[int]], right: list[set[int]]) -> np.ndarray:
    """Whether each lane's center line crosses that of another but a neighbor, bool [n]."""
    result = np.zeros(len(lines), bool)
    if not lines:
        return result
    low = np.array([line.min(0) for line in lines])
    high = np.array([line.max(0) for line in lines])
    near = np.asarray((low[:, None] <= high).all(-1) & (low <= high[:, None]).all(-1))
    for i, neighbors in enumerate(left):
        near[i, list(neighbors | right[i])] = False
    a, b = np.nonzero(np.triu(near, 1))
    segments = [np.stack([line[:-1], line[1:]], 1) for line in lines]
    for i in np.unique(a):
        others = b[a == i]
        counts = np.array([len(segments[j]) for j in others])
        theirs = np.concatenate([segments[j] for j in others])
        mine = segments[i]
        rows = max(1, CHUNK // len(mine))
        met = np.concatenate(
            [_meet(mine, theirs[k : k + rows]) for k in range(0, len(theirs), rows)]
        )
        crossed = np.asarray(np.logical_or.reduceat(met, np.cumsum(counts) - counts))
        result[others[crossed]] = True
        result[i] |= bool(crossed.any())
    return result


def _meet(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Whether each of their segments [k, 2, 2] crosses one of mine [m, 2, 2] inside both, [k]."""
    a, b = mine[:, None], theirs[None]

    def side(line: np.ndarray, point: np.ndarray) -> np.ndarray:
        return cross(line[..., 1, :] - line[..., 0, :], point - line[..., 0, :])

    apart = side(a, b[..., 0, :]) * side(a, b[..., 1, :])
    return np.asarray(((apart < 0) & (side(b, a[..., 0, :]) * side(b, a[..., 1, :]) < 0)).any(0))
