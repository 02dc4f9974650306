"""The network around a place of an OpenDRIVE map: lanes, links, edges, signs and lights."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from alpagym.scenarios.drivable_area import area_edges, refuse_tangles
from alpagym.scenarios.files import ReadableFile
from alpagym.scenarios.opendrive.roads import LIMIT, Drawn, Road, RoadFile, Section, Signal
from alpagym.scenarios.polyline import drop_duplicates, simplify
from alpagym.scenarios.procedural.network import NO_STOP, STOP_SIGN, YIELD_LINE, Lane, Network
from alpagym.scenarios.scenario import MapType, ScenarioError

STEP = 1.0
"""Lanes are sampled so often before points that are needless are dropped [m]."""
TOLERANCE = 0.02
"""How far a dropped point may lie from its line [m]."""
MAX_DRAWN = 100_000
"""Corners of the sides of all lanes that the scenarios of one file come near to."""
MAX_CORNERS, MAX_OWN_CROSSINGS, MAX_CROSSINGS = 60_000, 2_000, 30_000
"""Of the outlines of the roads of one scenario."""
MAX_SIDE, MAX_STRETCH = 300.0, 20.0
"""A lane farther beside its road [m], or so many times longer than it, is a data fault."""
NARROW = 1.5
"""A lane that is nowhere wider is for nobody [m]."""
LINK_GAP = 1.5
"""A linked lane begins this near to where the other ends [m]."""
END_GAP = 0.3
"""The outline of a road's open end lies this near to its cross-section [m]."""
DRIVING = {
    "driving", "entry", "exit", "onRamp", "offRamp", "connectingRamp", "slipLane", "bidirectional",
    "bus", "taxi", "HOV", "mwyEntry", "mwyExit",
}  # fmt: skip
PAVED = DRIVING | {"shoulder", "stop", "parking", "border", "biking"}
"""Lanes that belong to the drivable area."""

Key = tuple[str, int, int]
"""A lane by road, section and id."""


@dataclass
class Built:
    """A network and what its lanes were in the file."""

    network: Network
    index: dict[Key, int]
    in_junction: set[int]
    """Lanes inside junctions."""
    lights: list[tuple[int, str]]
    """Lanes that a light controls at their end, and the road they belong to."""
    notes: list[str] = field(default_factory=list)


@dataclass
class _Strip:
    """Sides of the lanes of one section, sampled along it."""

    points: np.ndarray
    """Reference line [m], [n, 2]."""
    normal: np.ndarray
    """To its left, [n, 2]."""
    inner: dict[int, np.ndarray]
    """t of the side nearer to the middle, by lane [m], [n]."""
    outer: dict[int, np.ndarray]

    def line(self, t: np.ndarray) -> np.ndarray:
        return self.points + t[:, None] * self.normal


def build(file: RoadFile, names: set[str], path: Path | ReadableFile) -> Built:
    """The network of some roads of a file, in its coordinates, but for the edges of the roads."""
    built = Built(Network(), {}, set(), [], list(file.notes))
    for name in sorted(names):
        road = file.roads[name]
        if name not in file.drawn:
            file.drawn[name] = _draw(file, road, f"{path}: road {name}")
        for number in range(len(road.sections)):
            _add_lanes(built, road, number, file.drawn[name].lines[number])
    _link(built, file, names)
    _add_signals(built, file, names)
    return built


def add_edges(built: Built, file: RoadFile, names: set[str], path: Path | ReadableFile) -> int:
    """Add the edges of the roads of a network; the corners of the outlines they are made of.

    Raises:
        ScenarioError: if the roads are absurdly intricate.
    """
    drawn = [file.drawn[name] for name in sorted(names)]
    polygons = [ring for road in drawn for ring in road.paved]
    ends = [end for road in drawn for end in road.ends]
    corners = sum(map(len, polygons))
    if corners > MAX_CORNERS:
        raise ScenarioError(
            f"{path}: roads of {corners} corners within one scenario are more than plausible "
            f"(at most {MAX_CORNERS})"
        )
    key = frozenset(names)
    if key not in file.edges:
        refuse_tangles(polygons, f"{path}", MAX_OWN_CROSSINGS, MAX_CROSSINGS)
        lines = area_edges(polygons, f"{path}", "opendrive")
        free = [end for end, covered in zip(ends, _covered(ends), strict=True) if not covered]
        file.edges[key] = _without_ends([line[:, :2] for line in lines], free)
    built.network.others += [(MapType.ROAD_EDGE, piece) for piece in file.edges[key]]
    return corners


def _draw(file: RoadFile, road: Road, where: str) -> Drawn:
    strips = [_strip(road, section, where) for section in road.sections]
    for section, strip in zip(road.sections, strips, strict=True):
        sides = [strip.line(t) for t in (strip.inner | strip.outer).values()]
        file.corners += sum(_corners(side) for side in [strip.points, *sides])
        if file.corners > MAX_DRAWN:
            raise ScenarioError(
                f"{where}: at {section.s:g} m the lanes near one scenario bend so often that to "
                f"draw them takes more than {MAX_DRAWN} points"
            )
    pairs = list(zip(road.sections, strips, strict=True))
    middles = [_center_lines(road, section, strip) for section, strip in pairs]
    paved = [both for section, strip in pairs for both in _paved(section, strip)]
    lines = [line for lanes in middles for line in lanes.values()]
    # all at once, for a call costs more than what one section adds to it
    simple = iter(simplify([*lines, *(line for both in paved for line in both)], TOLERANCE))
    return Drawn(
        [{lane: next(simple) for lane in lanes} for lanes in middles],
        [_ring(next(simple), next(simple)) for _ in paved],
        [_cross_section(strips[0], 0), _cross_section(strips[-1], -1)],
    )


def _corners(line: np.ndarray) -> float:
    """About how many points of a line [n, 2] are left after it is simplified."""
    bend = np.hypot(*np.diff(line, 2, axis=0).T)
    return float(np.minimum(np.sqrt(bend / (8 * TOLERANCE)), 1.0).sum())


def _strip(road: Road, section: Section, where: str) -> _Strip:
    count = max(2, 1 + int(np.ceil((section.end - section.s) / STEP)))
    s = np.linspace(section.s, section.end, count)
    points, heading = road.at(s)
    normal = np.stack([-np.sin(heading), np.cos(heading)], axis=1)
    offset = road.offset.at(s)
    inner, outer = {}, {}
    for sign in (1, -1):
        side = offset
        for number in sorted((i for i in section.lanes if i * sign > 0), key=abs):
            lane = section.lanes[number]
            value = lane.width.at(s)
            if lane.is_border:
                value = sign * (offset + value - side) if sign > 0 else side - (offset + value)
            inner[number] = side
            side = outer[number] = side + sign * np.maximum(value, 0.0)
    strip = _Strip(points, normal, inner, outer)
    bound = MAX_STRETCH * (section.end - section.s) + MAX_SIDE
    for side in (offset, *outer.values()):
        length = float(np.hypot(*np.diff(strip.line(side), axis=0).T).sum())
        if not (np.abs(side).max() <= MAX_SIDE and length <= bound):
            raise ScenarioError(
                f"{where}: at {section.s:g} m a lane is {length:.6g} m long and up to "
                f"{np.abs(side).max():.6g} m beside the middle, which no road is"
            )
    return strip


def _forward(road: Road, lane: int) -> bool:
    """Whether traffic of a lane runs along the reference line."""
    return (lane < 0) != road.left_hand


def _center_lines(road: Road, section: Section, strip: _Strip) -> dict[int, np.ndarray]:
    """Middles of the lanes that are driven [m], [n, 2], in the direction of their traffic."""
    found = {}
    for lane in sorted(section.lanes, reverse=True):  # from left to right along the road
        width = np.abs(strip.outer[lane] - strip.inner[lane])
        if section.lanes[lane].type not in DRIVING or width.max() < NARROW:
            continue
        middle = strip.line(0.5 * (strip.inner[lane] + strip.outer[lane]))
        middle = middle if _forward(road, lane) else middle[::-1]
        clean = drop_duplicates(middle)
        if len(clean) > 1:
            found[lane] = clean
    return found


def _add_lanes(built: Built, road: Road, number: int, lines: dict[int, np.ndarray]) -> None:
    net = built.network
    section = road.sections[number]
    for lane, line in lines.items():
        own = section.lanes[lane].limit
        limit = own if np.isfinite(own) else road.limit(section.s)
        key = (road.id, number, lane)
        built.index[key] = len(net.lanes)
        net.lanes.append(Lane(line, limit if np.isfinite(limit) else LIMIT))
        if road.junction:
            built.in_junction.add(built.index[key])
    for left, right in pairwise(sorted(section.lanes, reverse=True)):
        a, b = ((road.id, number, i) for i in (left, right))
        if a not in built.index or b not in built.index or left * right < 0:
            continue
        pair = [built.index[a], built.index[b]]
        net.beside(pair if _forward(road, left) else pair[::-1])


def _paved(section: Section, strip: _Strip) -> list[tuple[np.ndarray, np.ndarray]]:
    """Right and left sides of the drivable area of a section [m], [n, 2].

    There is one such pair for lanes that lie side by side.
    """
    sides: list[tuple[np.ndarray, np.ndarray]] = []  # as t
    for lane in sorted(section.lanes):  # from right to left
        inner, outer = strip.inner[lane], strip.outer[lane]
        if section.lanes[lane].type not in PAVED or np.abs(outer - inner).max() <= 0.05:
            continue
        right, left = (outer, inner) if lane < 0 else (inner, outer)
        if sides and np.array_equal(sides[-1][1], right):
            sides[-1] = (sides[-1][0], left)
        else:
            sides.append((right, left))
    return [(strip.line(right), strip.line(left)) for right, left in sides]


def _ring(right: np.ndarray, left: np.ndarray) -> np.ndarray:
    """The polygon between two lines [n, 2], [n, 3]."""
    return np.pad(np.concatenate([right, left[::-1]]), ((0, 0), (0, 1)))


def _cross_section(strip: _Strip, row: int) -> np.ndarray:
    """Both sides of a road at one of its ends [m], [2, 2]."""
    sides = [t[row] for t in (*strip.inner.values(), *strip.outer.values())] or [0.0]
    return strip.points[row] + np.array([[min(sides)], [max(sides)]]) * strip.normal[row]


def _covered(ends: list[np.ndarray]) -> list[bool]:
    """Whether another road's end lies at each."""
    middle = np.array([end.mean(0) for end in ends])
    half = np.array([0.5 * np.hypot(*(end[1] - end[0])) for end in ends])
    result = []
    for i, place in enumerate(middle):
        near = np.hypot(*(middle - place).T) < np.maximum(half, half[i]) + END_GAP
        near[i] = False
        result.append(bool(near.any()))
    return result


def _without_ends(rings: list[np.ndarray], ends: list[np.ndarray]) -> list[np.ndarray]:
    """Closed lines [n, 2] without their segments across the open ends of roads."""
    import shapely

    ends = [end for end in ends if (end[1] - end[0]).any()]
    if not rings or not ends:
        return rings
    tree = shapely.STRtree(shapely.linestrings(np.array(ends)))
    points = shapely.points(np.concatenate(rings))
    point, end = tree.query(points, predicate="dwithin", distance=END_GAP)
    both = np.isin((point + 1) * len(ends) + end, point * len(ends) + end)
    across = np.zeros(len(points), bool)
    across[point[both]] = True
    pieces = []
    for ring, drop in zip(rings, _parted(across, rings), strict=True):
        drop = drop[:-1]  # nor does the last point begin a segment
        if not drop.any():
            pieces.append(ring)
            continue
        first = int(drop.argmax())
        line = np.concatenate([ring[first + 1 : -1], ring[: first + 1]])
        cut = np.concatenate([drop[first + 1 :], drop[:first]])
        pieces += [p for p in np.split(line, np.flatnonzero(cut) + 1) if len(p) > 1]
    return pieces


def _parted(values: np.ndarray, rings: list[np.ndarray]) -> list[np.ndarray]:
    """The values of the points of each ring."""
    return np.split(values, np.cumsum([len(ring) for ring in rings])[:-1])


def _link(built: Built, file: RoadFile, names: set[str]) -> None:
    """Successors of lanes: inside roads, from road to road, and through junctions."""
    for name in names:
        road = file.roads[name]
        last = len(road.sections) - 1
        for number, section in enumerate(road.sections):
            for lane, part in section.lanes.items():
                here = (name, number, lane)
                for which, other, at in (
                    ("predecessor", part.predecessor, "start"),
                    ("successor", part.successor, "end"),
                ):
                    if other is None:
                        continue
                    inside = number - 1 if at == "start" else number + 1
                    if 0 <= inside <= last:
                        beside: Key = (name, inside, other)
                        _join(built, file, here, at, beside, "end" if at == "start" else "start")
                    elif which in road.links:
                        next_road, contact = road.links[which]
                        _join_road(built, file, here, at, next_road, contact, other)
    for incoming, connecting, contact, pairs in file.connections:
        if incoming not in names or connecting not in names:
            continue
        road = file.roads[incoming]
        for lane, other in pairs:
            for at, number in (("start", 0), ("end", len(road.sections) - 1)):
                _join_road(built, file, (incoming, number, lane), at, connecting, contact, other)


def _join_road(
    built: Built, file: RoadFile, here: Key, at: str, name: str, contact: str, lane: int
) -> None:
    road = file.roads.get(name)
    if road is not None and contact in ("start", "end"):
        number = 0 if contact == "start" else len(road.sections) - 1
        _join(built, file, here, at, (name, number, lane), contact)


def _join(built: Built, file: RoadFile, a: Key, a_end: str, b: Key, b_end: str) -> None:
    """Link two lanes that meet with these ends, in the direction of their traffic."""
    if a not in built.index or b not in built.index:
        return
    lanes = built.network.lanes
    for first, first_end, second, second_end in ((a, a_end, b, b_end), (b, b_end, a, a_end)):
        leaves = _forward(file.roads[first[0]], first[2]) == (first_end == "end")
        enters = _forward(file.roads[second[0]], second[2]) == (second_end == "start")
        i, j = built.index[first], built.index[second]
        gap = np.hypot(*(lanes[i].points[-1] - lanes[j].points[0]))
        if leaves and enters and i != j and gap < LINK_GAP and j not in lanes[i].successors:
            built.network.link(i, j)


def _add_signals(built: Built, file: RoadFile, names: set[str]) -> None:
    """What stands at the ends of lanes."""
    before: dict[int, list[int]] = {}
    for i, lane in enumerate(built.network.lanes):
        for after in lane.successors:
            before.setdefault(after, []).append(i)
    owners = {i: key for key, i in built.index.items()}
    for name in sorted(names):
        road = file.roads[name]
        for signal in road.signals:
            controlled = _controlled(built, road, signal, before)
            for index in controlled:
                held = built.network.lanes[index]
                if held.stop == NO_STOP:
                    kinds = {"stop": STOP_SIGN, "yield": YIELD_LINE}
                    held.stop = kinds.get(signal.kind, len(built.lights))
                    if signal.kind == "light":
                        built.lights.append((index, owners[index][0]))
            if signal.kind == "stop" and controlled:
                s = np.array([min(max(signal.s, 0.0), road.length)])
                point, heading = road.at(s)
                side = np.array([-np.sin(heading[0]), np.cos(heading[0])])
                built.network.add_stop_sign(point[0] + signal.t * side)


def _controlled(
    built: Built, road: Road, signal: Signal, before: dict[int, list[int]]
) -> list[int]:
    """Lanes at whose end traffic has to mind a signal.

    A signal nearer to where traffic enters its road, as on the roads inside junctions, is for those
    who come in there.
    """
    result = []
    for forward in (True, False):
        if not (signal.forward if forward else signal.backward):
            continue
        rest = road.length - signal.s if forward else signal.s
        leaving = rest <= 0.5 * road.length
        at_end = forward == leaving
        number = len(road.sections) - 1 if at_end else 0
        low, high = signal.lanes
        for lane in road.sections[number].lanes:
            index = built.index.get((road.id, number, lane))
            if index is None or _forward(road, lane) != forward or not low <= lane <= high:
                continue
            result += [index] if leaving else before.get(index, [])
    return result
