"""The map of a scenario from raw elements: cleaned, simplified polylines and the lane graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from alpagym.scenarios.polyline import (
    arc_length,
    drop_duplicates,
    headings,
    simplify,
    split_long_steps,
    squared_distances,
    wrap_angle,
)
from alpagym.scenarios.scenario import MapType, RoadMap, ScenarioError

SIMPLIFY_TOLERANCE = 0.05
"""How far a dropped map point may lie from the simplified line [m]."""
MAX_LANE_STEP = 10.0
"""Longest step between two points of a lane [m], so that a chord never hides a bend."""
MAX_MAP_REACH = 20_000.0
"""A map point farther than this from the origin is a data fault [m]."""
MAX_POINTS, MAX_LENGTH = 300_000, 2e6
"""Most points of the map of a scenario, and longest total of its lines [m]."""
MAX_VOTES = 4e8
"""Most pairs of a point of an edge and one of a lane that are looked at to direct edges."""
LINK_GAP, LINK_STEP, LINK_ANGLE = 0.5, 2.0, np.pi / 4
"""A lane follows another that ends this near to its start in x-y and z [m], this well aligned."""
EDGE_TO_LANE = 10.0
"""A lane farther than this from a road edge says nothing about its direction [m]."""
DIRECTED_SHARE = 0.6
"""Share of the edges' length with its nearest lane on the left that a directed map exceeds."""
CLOSED = (MapType.CROSSWALK, MapType.SPEED_BUMP, MapType.DRIVEWAY)


@dataclass
class RawElement:
    """One map element as the source has it."""

    type: MapType
    id: int
    points: np.ndarray
    """[m], float64 [n, 3]."""
    speed_limit: float = np.nan
    """[m/s]."""
    successors: list[int] = field(default_factory=list)
    """Ids of the lanes that this lane leads to."""
    left: list[int] = field(default_factory=list)
    """Ids of lanes to the left, the longest neighbor first."""
    right: list[int] = field(default_factory=list)
    stop_lanes: list[int] = field(default_factory=list)
    """Ids of the lanes that a stop sign controls."""


def build_map(
    raw: list[RawElement],
    origin: np.ndarray,
    has_z: bool,
    infer_links: bool,
    source: str,
    notes: list[str],
) -> tuple[list[RawElement], RoadMap]:
    """The elements that were kept, and the map made of them in the same order.

    Args:
        raw: elements in source coordinates.
        origin: subtracted in float64 before the cast to float32 [m], [3].
        has_z: whether z is real; it becomes zero otherwise.
        infer_links: take lane successors from geometry instead of ids.
        source: for messages.
        notes: gets a clause for each repair.

    Raises:
        ScenarioError: if a point lies farther than `MAX_MAP_REACH` from the origin.
    """
    kept, lines, dropped, not_finite = [], [], 0, 0
    for element in raw:
        points = element.points - origin
        if not has_z:
            points[:, 2] = 0.0
        finite = np.isfinite(points).all(1)
        if not finite.all():
            not_finite += 1
            points = points[finite]
        if len(points) and np.abs(points).max() > MAX_MAP_REACH:
            raise ScenarioError(
                f"{source}: map element {element.id}: a point lies {np.abs(points).max():.6g} m "
                f"from the ego, at most {MAX_MAP_REACH:g} m is plausible"
            )
        line = clean_line(points, element.type)
        if line is None:
            dropped += 1
            continue
        kept.append(element)
        lines.append(line)
    _check_extent(lines, source)
    lines = [
        _finish_line(line, e.type)
        for line, e in zip(simplify(lines, SIMPLIFY_TOLERANCE), kept, strict=True)
    ]
    if not_finite:
        notes.append(f"left out points of {not_finite} map elements that are not finite")
    if dropped:
        notes.append(f"left out {dropped} map elements of too few points")

    types = np.array([e.type for e in kept], np.uint8)
    ids = np.array([e.id for e in kept], np.int64)
    if infer_links:
        links = _links_from_geometry(lines, types, has_z)
        left = right = np.full(len(kept), -1, np.int32)
        notes.append(f"inferred {sum(map(len, links))} lane links from geometry")
    else:
        links, left, right = _links_from_ids(kept, lines, types, notes)
    return kept, RoadMap(
        points=np.concatenate([np.zeros((0, 3), np.float32), *lines]).astype(np.float32),
        offsets=_offsets([len(line) for line in lines]),
        type=types,
        id=ids,
        speed_limit=np.array([e.speed_limit for e in kept], np.float32),
        successor_offsets=_offsets([len(x) for x in links]),
        successors=np.array([i for x in links for i in x], np.int32),
        left_neighbor=left,
        right_neighbor=right.copy(),
    )


def _check_extent(lines: list[np.ndarray], source: str) -> None:
    """Refuse more than any surroundings of a drive have."""
    points = sum(map(len, lines))
    length = sum(float(arc_length(line)[-1]) for line in lines)
    if points > MAX_POINTS or length > MAX_LENGTH:
        raise ScenarioError(
            f"{source}: a map of {points} points on {length / 1e3:.6g} km is more than plausible "
            f"(at most {MAX_POINTS} on {MAX_LENGTH / 1e3:g} km)"
        )


def orient_edges(
    raw: list[RawElement], guide: np.ndarray | None, notes: list[str], source: str
) -> None:
    """Reverse, in place, road edges that have the drivable area on their right.

    The dataset directs its edges; files that other tools wrote in its format may not.

    Args:
        raw: elements in source coordinates.
        guide: a path [m, 2] on the drivable side of all edges near it. Without one, lanes vote: if
            less than `DIRECTED_SHARE` of the edges' length has its nearest lane on the left, edges
            that have it on the right nearly all along are reversed. (In directed maps some edges
            have it there too, as around medians without lanes; hence the first condition.)
        notes: gets a clause if edges were reversed.
        source: for messages.

    Raises:
        ScenarioError: more edges than any surroundings of a drive have.
    """
    edges = [e for e in raw if e.type == MapType.ROAD_EDGE and len(e.points) > 1]
    _check_extent([e.points for e in edges], source)
    if guide is None:
        lanes = [e.points[::4, :2] for e in raw if e.type == MapType.LANE]
        guide = np.concatenate([np.zeros((0, 2)), *lanes])
        directed_share = DIRECTED_SHARE
    else:
        directed_share = 1.0
    length = sum(float(arc_length(e.points)[-1]) for e in edges)
    pairs = (sum(len(e.points) for e in edges) + length / MAX_LANE_STEP) / 2 * len(guide)
    if pairs > MAX_VOTES:
        raise ScenarioError(
            f"{source}: {len(edges)} road edges of {length / 1e3:.6g} km beside {len(guide)} "
            "points of lanes are more than plausible"
        )
    votes = np.array([_share_on_left(e.points[:, :2], guide) for e in edges]).reshape(-1, 2)
    total, left = votes.sum(0)
    if total == 0 or left >= directed_share * total:
        return
    turned = 0
    for edge, (length, left) in zip(edges, votes, strict=True):
        if length > 0 and left < 0.1 * length:
            edge.points = edge.points[::-1].copy()
            turned += 1
    if turned:
        notes.append(f"reversed {turned} road edges that had the drivable area on their right")


def _share_on_left(edge: np.ndarray, guide: np.ndarray) -> tuple[float, float]:
    """Length of the edge [n, 2] with a guide point [m, 2] near, and with that on the left [m]."""
    fine = split_long_steps(edge, MAX_LANE_STEP)
    step = np.diff(fine, axis=0)[::2]
    middle = fine[:-1][::2] + 0.5 * step
    if not len(guide):
        return 0.0, 0.0
    gap = squared_distances(middle, guide)
    nearest = gap.argmin(1)
    length = np.hypot(*step.T) * (gap[np.arange(len(gap)), nearest] < EDGE_TO_LANE**2)
    offset = guide[nearest] - middle
    left = step[:, 0] * offset[:, 1] - step[:, 1] * offset[:, 0] > 0
    return float(length.sum()), float(length[left].sum())


def clean_line(points: np.ndarray, map_type: MapType) -> np.ndarray | None:
    """Points [n, 3] of one element without duplicates, polygons closed; None if too few are left.

    The values are rounded to float32, so that what is 1 mm apart here is so in the map as well.
    """
    line = points.astype(np.float32).astype(np.float64)
    if map_type == MapType.STOP_SIGN:
        return line[:1] if len(line) else None
    closed = map_type in CLOSED
    if closed and len(line):
        line = np.concatenate([line, line[:1]])
    line = drop_duplicates(line)
    if closed and len(line) > 2 and not np.array_equal(line[0], line[-1]):
        line[-1] = line[0]  # the last corner lies within 1 mm of the first
    return line if len(line) >= (4 if closed else 2) else None


def _finish_line(line: np.ndarray, map_type: MapType) -> np.ndarray:
    """Float32 points of a simplified line; lanes get their longest step."""
    if map_type == MapType.LANE:
        line = split_long_steps(line, MAX_LANE_STEP)
    return line.astype(np.float32)


def unlinked_map(elements: Sequence[tuple[MapType, np.ndarray]]) -> RoadMap:
    """A map as it is given, without links, limits or neighbors.

    Args:
        elements: kind and points [m], [n, 2 or 3], of each; flat ones are at height 0.
    """
    count = len(elements)
    lines = [np.pad(points, ((0, 0), (0, 3 - points.shape[1]))) for _, points in elements]
    return RoadMap(
        points=np.concatenate([np.zeros((0, 3)), *lines]).astype(np.float32),
        offsets=_offsets([len(line) for line in lines]),
        type=np.array([kind for kind, _ in elements], np.uint8),
        id=np.arange(count, dtype=np.int64),
        speed_limit=np.full(count, np.nan, np.float32),
        successor_offsets=np.zeros(count + 1, np.int32),
        successors=np.zeros(0, np.int32),
        left_neighbor=np.full(count, -1, np.int32),
        right_neighbor=np.full(count, -1, np.int32),
    )


def _offsets(counts: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int32)


def _links_from_ids(
    kept: list[RawElement], lines: list[np.ndarray], types: np.ndarray, notes: list[str]
) -> tuple[list[list[int]], np.ndarray, np.ndarray]:
    """Successors and neighbors of each element by index; ids that lead out of the map drop out."""
    index = {e.id: i for i, e in enumerate(kept) if types[i] == MapType.LANE}
    links = [sorted({index[s] for s in e.successors if s in index}) for e in kept]
    dangling = sum(s not in index for e in kept for s in e.successors)
    if dangling:
        notes.append(f"dropped {dangling} lane links that lead out of the map")

    def neighbor(element: int, candidates: list[int]) -> int:
        for candidate in candidates:
            other = index.get(candidate, element)
            if other != element and _same_way(lines[element], lines[other]):
                return other
        return -1

    left = np.array([neighbor(i, e.left) for i, e in enumerate(kept)], np.int32)
    right = np.array([neighbor(i, e.right) for i, e in enumerate(kept)], np.int32)
    return links, left, right


def _same_way(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two lanes run in the same direction where they are nearest."""
    near = squared_distances(a.astype(np.float64), b.astype(np.float64))
    i, j = np.unravel_index(near.argmin(), near.shape)
    return abs(float(wrap_angle(headings(a)[i] - headings(b)[j]))) < np.pi / 2


def _links_from_geometry(
    lines: list[np.ndarray], types: np.ndarray, has_z: bool
) -> list[list[int]]:
    """Successors by where lanes end and start, for sources without lane links."""
    links: list[list[int]] = [[] for _ in lines]
    lanes = np.flatnonzero(types == MapType.LANE)
    if not len(lanes):
        return links
    ends = np.array([lines[i][-1] for i in lanes], np.float64)
    starts = np.array([lines[i][0] for i in lanes], np.float64)
    end_yaw = np.array([headings(lines[i])[-1] for i in lanes])
    start_yaw = np.array([headings(lines[i])[0] for i in lanes])
    near = squared_distances(ends, starts) < LINK_GAP**2
    near &= np.abs(wrap_angle(end_yaw[:, None] - start_yaw[None])) < LINK_ANGLE
    if has_z:
        near &= np.abs(ends[:, None, 2] - starts[None, :, 2]) < LINK_STEP
    np.fill_diagonal(near, False)
    for i, j in np.argwhere(near):
        links[lanes[i]].append(int(lanes[j]))
    return links
