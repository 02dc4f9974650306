"""CommonRoad lanelets as our map elements: lanes, lines, crosswalks, stop signs, road edges."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from alpagym.scenarios.drivable_area import area_edges, refuse_tangles
from alpagym.scenarios.polyline import arc_length, interpolate, split_long_steps
from alpagym.scenarios.readers.commonroad_xml import point_list, references, to_id
from alpagym.scenarios.road_map import RawElement
from alpagym.scenarios.scenario import MapType, ScenarioError
from alpagym.scenarios.xml_files import Fault, to_number

MAX_LANELETS = 4_000
MAX_BOUND_POINTS = 150_000
"""A file with more is refused."""
MAX_CROSSING_POINTS = 4_000
"""Lanelets whose bounds cross themselves are part of the road's outline up to so many points."""
MAX_OWN_CROSSINGS, MAX_CROSSINGS = 500, 200_000
"""Places where outlines of lanelets cross themselves, and where they meet; neighbors meet often."""
MAX_LANELET = 20_000.0
"""A longer bound is a data fault [m]."""
MAX_WIDTH = 60.0
"""Bounds farther apart than this are a data fault [m]."""
CAP_REACH = 0.2
"""A piece of an outline this near to where a lanelet leads out of the map is no road edge [m]."""
CAP_STEP, MAX_PIECES = 1.0, 100_000
"""Outlines are cut into pieces of this length for that [m], but into no more than so many."""
NOT_DRIVABLE = {"sidewalk", "crosswalk", "bicycleLane"}
NOT_LANES = NOT_DRIVABLE | {"shoulder", "border", "parking", "restricted"}
ON_FOOT = {"pedestrian", "bicycle"}
MARKINGS = {"solid", "dashed", "broad_solid", "broad_dashed", "solid_solid", "dashed_dashed",
            "solid_dashed", "dashed_solid"}  # fmt: skip


@dataclass
class Lanelet:
    """A piece of road between two bounds; traffic runs in the order of their points."""

    id: int
    left: np.ndarray
    """[m], [n, 2]; as many points as `right`."""
    right: np.ndarray
    successors: list[int]
    left_neighbor: int | None
    """The lanelet beside it that runs the same way."""
    right_neighbor: int | None
    kinds: set[str]
    is_lane: bool
    """Whether cars drive along it."""
    speed_limit: float
    """[m/s], NaN where unknown."""
    markings: tuple[str, str]
    """Of the left and the right bound."""
    stop_line: np.ndarray | None
    """Its two ends [m], [2, 2]."""
    signs: list[int] = field(default_factory=list)
    lights: list[int] = field(default_factory=list)

    @cached_property
    def center(self) -> np.ndarray:
        return 0.5 * (self.left + self.right)

    @cached_property
    def length(self) -> float:
        """Of the center [m]."""
        return float(arc_length(self.center)[-1])

    @cached_property
    def polygon(self) -> np.ndarray:
        return np.concatenate([self.left, self.right[::-1]])

    @property
    def stop_point(self) -> np.ndarray:
        """Where traffic that must not leave it waits [m], [2]."""
        return self.center[-1] if self.stop_line is None else self.stop_line.mean(0)


def read_lanelets(root: ET.Element, path: Path, notes: list[str]) -> dict[int, Lanelet]:
    """All lanelets of a file by id, with links in both of the ways in which files give them."""
    found = root.findall("lanelet")
    if len(found) > MAX_LANELETS:
        raise ScenarioError(f"{path}: {len(found)} lanelets, at most {MAX_LANELETS} are read")
    lanelets: dict[int, Lanelet] = {}
    before: list[tuple[int, int]] = []
    uneven = total = 0
    for element in found:
        try:
            lanelet, resampled = _lanelet(element)
            before += [(p, lanelet.id) for p in references(element, "predecessor")]
        except Fault as error:
            where = f"lanelet {(element.get('id') or 'without id')[:20]}"
            raise ScenarioError(f"{path}: {where}: {error}") from error
        if lanelet.id in lanelets:
            raise ScenarioError(f"{path}: lanelet {lanelet.id} occurs twice")
        total += 2 * len(lanelet.left)
        if total > MAX_BOUND_POINTS:
            raise ScenarioError(
                f"{path}: lanelet {lanelet.id}: more than {MAX_BOUND_POINTS} points in the bounds"
            )
        uneven += resampled
        lanelets[lanelet.id] = lanelet
    for first, second in before:
        if first in lanelets and second not in lanelets[first].successors:
            lanelets[first].successors.append(second)
    for ref in (r for e in root.iter("crossing") for r in e.findall("crossingLanelet")):
        number = ref.get("ref", "")
        if number.isdecimal() and len(number) < 19 and int(number) in lanelets:
            crossing = lanelets[int(number)]
            crossing.kinds.add("crosswalk")
            crossing.is_lane = False
    if uneven:
        notes.append(f"resampled bounds of {uneven} lanelets that differ in their number of points")
    return lanelets


def _lanelet(element: ET.Element) -> tuple[Lanelet, bool]:
    """One lanelet, and whether its bounds had to be resampled to as many points."""
    left = point_list(element.find("leftBound"), "leftBound")
    right = point_list(element.find("rightBound"), "rightBound")
    if min(len(left), len(right)) < 2:
        raise Fault(f"bounds need 2 points or more, got {len(left)} and {len(right)}")
    longest = max(float(arc_length(bound)[-1]) for bound in (left, right))
    if longest > MAX_LANELET:
        raise Fault(f"bounds must be at most {MAX_LANELET:g} m long, got {longest:.6g} m")
    uneven = len(left) != len(right)
    if uneven:
        count = max(len(left), len(right))
        left, right = (_with_points(bound, count) for bound in (left, right))
    width = np.hypot(*(left - right).T)
    if width.max() > MAX_WIDTH:
        i = int(width.argmax())
        raise Fault(
            f"bounds must be at most {MAX_WIDTH:g} m apart, got {width[i]:.6g} m at point {i}"
        )
    kinds = {(kind.text or "").strip() for kind in element.findall("laneletType")}
    users = {
        (user.text or "").strip()
        for tag in ("userOneWay", "userBidirectional")
        for user in element.findall(tag)
    }
    limit = element.find("speedLimit")  # in files of before 2020a
    stop = element.find("stopLine")
    ends = None if stop is None else point_list(stop, "stopLine")
    signs, lights = references(element, "trafficSignRef"), references(element, "trafficLightRef")
    if stop is not None:
        signs += references(stop, "trafficSignRef")
        lights += references(stop, "trafficLightRef")
    lanelet = Lanelet(
        id=to_id(element),
        left=left,
        right=right,
        successors=list(dict.fromkeys(references(element, "successor"))),
        left_neighbor=_neighbor(element, "adjacentLeft"),
        right_neighbor=_neighbor(element, "adjacentRight"),
        kinds=kinds,
        is_lane=not kinds & NOT_LANES and not (users and users <= ON_FOOT),
        speed_limit=plausible(math.nan if limit is None else to_number(limit.text, "speedLimit")),
        markings=(_marking(element, "leftBound"), _marking(element, "rightBound")),
        stop_line=ends if ends is not None and len(ends) == 2 else None,
        signs=list(dict.fromkeys(signs)),
        lights=list(dict.fromkeys(lights)),
    )
    return lanelet, uneven


def _with_points(bound: np.ndarray, count: int) -> np.ndarray:
    """The bound with `count` points at even arc lengths."""
    return interpolate(bound, np.linspace(0, arc_length(bound)[-1], count))


def _neighbor(element: ET.Element, tag: str) -> int | None:
    beside = element.find(tag)
    if beside is None or beside.get("drivingDir") != "same":
        return None
    return to_id(beside, "ref")


def _marking(element: ET.Element, bound: str) -> str:
    return (element.findtext(f"{bound}/lineMarking") or "").strip()


def plausible(limit: float) -> float:
    """The speed limit [m/s], or NaN where it can be none."""
    return limit if 0.5 < limit < 100 else math.nan


def map_elements(
    lanelets: dict[int, Lanelet], stop_signs: set[int], path: Path, notes: list[str]
) -> list[RawElement]:
    """Lanes, lines, crosswalks, stop signs and road edges; what is no lanelet has negative ids.

    Args:
        lanelets: of one file.
        stop_signs: ids of the signs at which to stop.
        path: for messages.
        notes: gets what was left out.
    """
    elements = []
    for lanelet in lanelets.values():
        if lanelet.is_lane:
            elements.append(
                RawElement(
                    MapType.LANE,
                    lanelet.id,
                    _flat(lanelet.center),
                    lanelet.speed_limit,
                    [s for s in lanelet.successors if s not in lanelets or lanelets[s].is_lane],
                    [] if lanelet.left_neighbor is None else [lanelet.left_neighbor],
                    [] if lanelet.right_neighbor is None else [lanelet.right_neighbor],
                )
            )
        elif "crosswalk" in lanelet.kinds:
            elements.append(RawElement(MapType.CROSSWALK, lanelet.id, _flat(lanelet.polygon)))
        if lanelet.successors and not stop_signs.isdisjoint(lanelet.signs):
            stop = RawElement(MapType.STOP_SIGN, 0, _flat(lanelet.stop_point[None]))
            stop.stop_lanes = list(lanelet.successors)
            elements.append(stop)
    elements += [RawElement(MapType.ROAD_LINE, 0, _flat(line)) for line in _lines(lanelets)]
    edges = _road_edges(lanelets, path, notes)
    elements += [RawElement(MapType.ROAD_EDGE, 0, line) for line in edges]
    for i, element in enumerate(elements):
        if element.type not in (MapType.LANE, MapType.CROSSWALK):
            element.id = -1 - i
    aside = sum(not v.is_lane and "crosswalk" not in v.kinds for v in lanelets.values())
    if aside:
        notes.append(f"{aside} lanelets are no lanes for cars")
    if edges:
        notes.append("road edges are the outline of all lanelets for cars, open at the map's ends")
    return elements


def _flat(points: np.ndarray) -> np.ndarray:
    return np.column_stack([points, np.zeros(len(points))])


def _lines(lanelets: dict[int, Lanelet]) -> list[np.ndarray]:
    """Painted bounds; one that two lanelets share is taken once."""
    lines: dict[tuple[tuple[float, ...], ...], np.ndarray] = {}
    for lanelet in lanelets.values():
        for bound, marking in zip((lanelet.left, lanelet.right), lanelet.markings, strict=True):
            if marking in MARKINGS:
                ends = sorted((tuple(np.round(bound[0], 2)), tuple(np.round(bound[-1], 2))))
                lines.setdefault(tuple(ends), bound)
    return list(lines.values())


def _road_edges(lanelets: dict[int, Lanelet], path: Path, notes: list[str]) -> list[np.ndarray]:
    """The outline of the drivable lanelets without the ends at which the map was cut."""
    area = {i: v for i, v in lanelets.items() if not v.kinds & NOT_DRIVABLE}
    _drop_tangles(area, path, notes)
    outlines = [_flat(v.polygon) for v in area.values()]
    refuse_tangles(outlines, str(path), MAX_OWN_CROSSINGS, MAX_CROSSINGS)
    rings = area_edges(outlines, str(path), "commonroad")
    if not rings:
        return []
    import shapely

    followed = {s for v in area.values() for s in v.successors if s in area}
    ends = [v for v in area.values() if not any(s in area for s in v.successors)]
    caps = [(v.left[-1], v.right[-1]) for v in ends]
    caps += [(v.left[0], v.right[0]) for i, v in area.items() if i not in followed]
    if not caps:
        return rings
    tree = shapely.STRtree(shapely.linestrings(np.array(caps)))
    step = max(CAP_STEP, sum(arc_length(ring)[-1] for ring in rings) / MAX_PIECES)
    edges = []
    for ring in rings:
        fine = split_long_steps(ring, step)
        middle = shapely.points(0.5 * (fine[:-1, :2] + fine[1:, :2]))
        keep = np.ones(len(fine) - 1, bool)
        keep[tree.query(middle, predicate="dwithin", distance=CAP_REACH)[0]] = False
        edges += _runs(fine, keep)
    return edges


def _drop_tangles(area: dict[int, Lanelet], path: Path, notes: list[str]) -> None:
    """Remove lanelets, in place, that cross themselves so often that their area takes too long."""
    try:
        import shapely
    except ImportError as error:
        raise ScenarioError(
            f"{path}: CommonRoad maps need shapely ({error}): pip install alpagym[commonroad]"
        ) from error
    crossing = [i for i, v in area.items() if not shapely.is_valid(shapely.Polygon(v.polygon))]
    points = np.cumsum([len(area[i].polygon) for i in crossing])
    tangled = [i for i, n in zip(crossing, points, strict=True) if n > MAX_CROSSING_POINTS]
    for i in tangled:
        del area[i]
    if tangled:
        notes.append(f"left {len(tangled)} lanelets that cross themselves out of the road's area")


def _runs(ring: np.ndarray, keep: np.ndarray) -> list[np.ndarray]:
    """Unbroken pieces of a closed line [n + 1, 3] of those of its n segments that are kept."""
    if keep.all():
        return [ring]
    if not keep.any():
        return []
    first = int(np.flatnonzero(~keep)[0]) + 1  # begins after a gap, so that no piece is cut in two
    keep = np.roll(keep, -first)
    points = np.roll(ring[:-1], -first, axis=0)
    points = np.concatenate([points, points[:1]])
    edge = np.diff(np.concatenate([[0], keep.astype(int), [0]]))
    starts, stops = np.flatnonzero(edge == 1), np.flatnonzero(edge == -1)
    return [points[a : b + 1] for a, b in zip(starts, stops, strict=True)]
