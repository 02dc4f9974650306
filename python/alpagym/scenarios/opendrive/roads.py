"""Roads, lanes, links and signals as an OpenDRIVE file has them."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from alpagym.scenarios.files import ReadableFile
from alpagym.scenarios.opendrive import curves
from alpagym.scenarios.opendrive.curves import Piece, Profile
from alpagym.scenarios.scenario import ScenarioError
from alpagym.scenarios.units import KMH, MPH
from alpagym.scenarios.xml_files import Fault, parse, to_number

MAX_LENGTH = 200_000.0
"""Of all roads of a file [m]."""
MAX_PARTS = 100_000
"""Lanes of all sections, and geometry elements, of a file."""
MAX_LANE_LENGTH = 2_000_000.0
"""Of all lanes of a file [m], which bounds the memory that their sides take."""
MAX_COORDINATE = 1e7
LIMIT = 50 * KMH
"""Where a file gives no speed limit [m/s]."""
_UNITS = {"m/s": 1.0, "": 1.0, "km/h": KMH, "mph": MPH}


@dataclass
class LanePart:
    """A lane of one section."""

    id: int
    type: str
    width: Profile
    is_border: bool
    """Whether `width` is the distance of its outer side from the middle instead."""
    limit: float
    """[m/s], NaN where the lane has none of its own."""
    predecessor: int | None
    successor: int | None


@dataclass
class Section:
    """Lanes between two arc lengths of a road."""

    s: float
    end: float
    lanes: dict[int, LanePart]


@dataclass
class Signal:
    """A signal that controls lanes of a road."""

    id: str
    s: float
    t: float
    forward: bool
    """Whether it is for traffic along the reference line."""
    backward: bool
    kind: str
    """`light`, `stop` or `yield`."""
    lanes: tuple[int, int]
    """Lowest and highest id of the lanes that it is valid for."""


@dataclass
class Road:
    """One road."""

    id: str
    length: float
    junction: bool
    """Whether it connects roads inside a junction."""
    left_hand: bool
    pieces: list[Piece]
    offset: Profile
    sections: list[Section]
    limits: list[tuple[float, float]]
    """Speed limits [m/s] from arc lengths [m] on."""
    links: dict[str, tuple[str, str]]
    """`predecessor` and `successor`: the road there, and which of its ends."""
    signals: list[Signal] = field(default_factory=list)

    def at(self, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points [n, 2] and directions [n] of the reference line at ascending arc lengths."""
        starts = np.array([piece.s for piece in self.pieces])
        which = np.clip(np.searchsorted(starts, s + 1e-9, side="right") - 1, 0, None)
        points, heading = np.zeros((len(s), 2)), np.zeros(len(s))
        for number in np.unique(which):
            here = which == number
            points[here], heading[here] = self.pieces[number].at(s[here])
        return points, heading

    def limit(self, s: float) -> float:
        """The road's own limit at an arc length [m/s]; NaN where it has none."""
        known = [limit for start, limit in self.limits if start <= s + 1e-6]
        return known[-1] if known else math.nan


@dataclass
class Drawn:
    """What is drawn of one road, once for all scenarios on it."""

    lines: list[dict[int, np.ndarray]]
    """For each section, middles of the lanes that are driven by their ids [m], [n, 2]."""
    paved: list[np.ndarray]
    """Outlines of what belongs to the drivable area [m], [n, 3]."""
    ends: list[np.ndarray]
    """Both sides of the road at its start and at its end [m], [2, 2]."""


@dataclass
class RoadFile:
    """What a file holds."""

    roads: dict[str, Road]
    connections: list[tuple[str, str, str, list[tuple[int, int]]]]
    """Incoming road, connecting road, its end there, and pairs of lanes."""
    notes: list[str]
    georeference: str = ""
    """The projection of its coordinates, as PROJ writes it; empty where none is named."""
    offset: tuple[float, ...] = ()
    """Of its coordinates from those of the projection: x, y and z [m], and heading [rad]."""
    drawn: dict[str, Drawn] = field(default_factory=dict)
    """Roads that have been drawn."""
    corners: float = 0.0
    """About how many points it took to draw them."""
    edges: dict[frozenset[str], list[np.ndarray]] = field(default_factory=dict)
    """Edges of sets of roads that have been united [m], [n, 2]."""


def read_roads(path: Path | ReadableFile) -> RoadFile:
    """The roads of a file.

    Raises:
        ScenarioError: if it is damaged or holds more than can be read; names file and road.
    """
    root = parse(path, "OpenDRIVE", "OpenDRIVE")
    notes: list[str] = []
    roads: dict[str, Road] = {}
    total, lanes, parts = 0.0, 0.0, 0
    for element in root.findall("road"):
        name = (element.get("id") or "")[:60]
        where = f"{path}: road {name if name.isprintable() else ascii(name)}"
        try:
            road = _road(element, name)
        except Fault as fault:
            raise ScenarioError(f"{where}: {fault}") from fault
        if name in roads:
            raise ScenarioError(f"{where}: its id occurs more than once")
        total += max(road.length, sum(piece.length for piece in road.pieces))
        parts += len(road.pieces) + sum(1 + len(s.lanes) for s in road.sections)
        if total > MAX_LENGTH or parts > MAX_PARTS:
            raise ScenarioError(
                f"{where}: {total:.6g} m of roads and {parts} lanes or pieces up to here, at most "
                f"{MAX_LENGTH:g} m and {MAX_PARTS} are read"
            )
        lanes += sum((s.end - s.s) * len(s.lanes) for s in road.sections)
        if lanes > MAX_LANE_LENGTH:
            raise ScenarioError(
                f"{where}: {lanes:.6g} m of lanes up to here, at most {MAX_LANE_LENGTH:g} are read"
            )
        if road.pieces and road.sections:
            roads[name] = road
    if not roads:
        raise ScenarioError(f"{path}: OpenDRIVE without any road that has lanes")
    for tag, what in (("elevationProfile", "heights"), ("lateralProfile", "slopes")):
        if any(len(profile) for profile in root.iter(tag)):
            notes.append(f"left out {what}")
    try:
        connections = [_connection(c) for c in root.findall("junction/connection")]
    except Fault as fault:
        raise ScenarioError(f"{path}: a junction's connection: {fault}") from fault
    georeference = (root.findtext("header/geoReference") or "").strip()
    given = root.find("header/offset")
    try:
        offset = tuple(_number(given, n, 0.0) for n in ("x", "y", "z", "hdg") if given is not None)
    except Fault as fault:
        raise ScenarioError(f"{path}: header: offset: {fault}") from fault
    return RoadFile(roads, connections, notes, georeference=georeference, offset=offset)


def _number(element: ET.Element, name: str, default: float | None = None) -> float:
    text = element.get(name)
    if text is None and default is not None:
        return default
    value = to_number(text, f"{element.tag}: {name}")
    if abs(value) > MAX_COORDINATE:
        raise Fault(f"{element.tag}: {name} must be at most {MAX_COORDINATE:g}, got {value:g}")
    return value


def _lane_id(text: str | None) -> int:
    try:
        value = int(text or "")
    except ValueError:
        value = 1000
    if abs(value) >= 1000:
        raise Fault(f"a lane's id must be an integer, got '{(text or '')[:20]}'")
    return value


def _road(element: ET.Element, name: str) -> Road:
    length = _number(element, "length")
    if length < 0.0:
        raise Fault(f"length must not be negative, got {length:g}")
    sections = _sections(element, length)
    links = {}
    for which in ("predecessor", "successor"):
        link = element.find(f"link/{which}")
        if link is not None and link.get("elementType", "road") == "road":
            links[which] = (link.get("elementId", ""), link.get("contactPoint", ""))
    return Road(
        id=name,
        length=length,
        junction=element.get("junction", "-1") not in ("-1", ""),
        left_hand=element.get("rule", "RHT").upper() == "LHT",
        pieces=_pieces(element),
        offset=_profile(element.findall("lanes/laneOffset"), "s", 0.0),
        sections=sections,
        limits=_limits(element.findall("type")),
        links=links,
        signals=[s for e in element.findall("signals/signal") if (s := _signal(e)) is not None],
    )


def _pieces(road: ET.Element) -> list[Piece]:
    result, total = [], 0.0
    for element in road.findall("planView/geometry"):
        s, x, y, heading, length = (_number(element, k) for k in ("s", "x", "y", "hdg", "length"))
        total += abs(length)
        if length < 0.0 or total > MAX_LENGTH:
            raise Fault(f"geometry: lengths must be 0 to {MAX_LENGTH:g} m in all, got {length:g}")
        if length < 1e-6:
            continue
        result.append(Piece(s, x, y, heading, length, _shape(element, length)))
    return sorted(result, key=lambda piece: piece.s)


def _shape(geometry: ET.Element, length: float) -> curves.Shape:
    for child in geometry:
        if child.tag == "line":
            return curves.line()
        if child.tag == "arc":
            return curves.arc(_number(child, "curvature"))
        if child.tag == "spiral":
            ends = (_number(child, "curvStart"), _number(child, "curvEnd"))
            return curves.spiral(*ends, length)
        if child.tag == "poly3":
            return curves.poly3(np.array([_number(child, k) for k in "abcd"]), length)
        if child.tag == "paramPoly3":
            u, v = (np.array([_number(child, k + axis) for k in "abcd"]) for axis in "UV")
            normalized = child.get("pRange", "normalized") != "arcLength"
            return curves.param_poly3(u, v, 1.0 / length if normalized else 1.0)
    raise Fault("geometry: expected line, arc, spiral, poly3 or paramPoly3")


def _profile(elements: list[ET.Element], start: str, shift: float) -> Profile:
    rows = sorted(
        [shift + _number(e, start, 0.0), *(_number(e, k, 0.0) for k in "abcd")] for e in elements
    )
    table = np.array(rows, np.float64).reshape(-1, 5)
    return Profile(table[:, 0], table[:, 1:])


def _limits(types: list[ET.Element]) -> list[tuple[float, float]]:
    found = [(_number(e, "s", 0.0), _speed(e.find("speed"))) for e in types]
    return sorted((s, limit) for s, limit in found if math.isfinite(limit))


def _speed(element: ET.Element | None) -> float:
    """A limit [m/s]; NaN for none, unknown units, and what no road allows."""
    if element is None:
        return math.nan
    try:
        value = float(element.get("max", "")) * _UNITS.get(element.get("unit", ""), math.nan)
    except ValueError:  # "no limit"
        return math.nan
    return value if 0.5 < value < 100.0 else math.nan


def _sections(road: ET.Element, length: float) -> list[Section]:
    elements = sorted(road.findall("lanes/laneSection"), key=lambda e: _number(e, "s"))
    starts = [_number(e, "s") for e in elements]
    result = []
    for element, (start, end) in zip(elements, pairwise([*starts, length]), strict=True):
        lanes = {}
        for side in ("left", "right"):
            for lane in element.findall(f"{side}/lane"):
                part = _lane(lane, start)
                if part.id == 0 or (part.id > 0) != (side == "left") or part.id in lanes:
                    raise Fault(f"lane {part.id} stands twice or on the wrong side")
                lanes[part.id] = part
        if end - start > 1e-3:
            result.append(Section(start, end, lanes))
    return result


def _lane(element: ET.Element, start: float) -> LanePart:
    widths, borders = element.findall("width"), element.findall("border")
    ends = []
    for which in ("predecessor", "successor"):
        link = element.find(f"link/{which}")
        ends.append(None if link is None else _lane_id(link.get("id")))
    limits = [limit for e in element.findall("speed") if math.isfinite(limit := _speed(e))]
    return LanePart(
        id=_lane_id(element.get("id")),
        type=element.get("type", "none"),
        width=_profile(widths or borders, "sOffset", start),
        is_border=bool(borders) and not widths,
        limit=limits[0] if limits else math.nan,
        predecessor=ends[0],
        successor=ends[1],
    )


def _signal(element: ET.Element) -> Signal | None:
    """A light, stop or yield sign; None for other signals."""
    kind = (element.get("type") or "").upper()
    subtype = (element.get("subtype") or "").upper()
    if element.get("dynamic") == "yes":
        what = "light"
    elif kind in ("206", "R1-1") or (kind == "R1" and subtype == "1"):
        what = "stop"
    elif kind in ("205", "R1-2") or (kind == "R1" and subtype == "2"):
        what = "yield"
    else:
        return None
    validity = [
        (_lane_id(v.get("fromLane")), _lane_id(v.get("toLane")))
        for v in element.findall("validity")
    ]
    ids = [i for pair in validity for i in pair] or [-1000, 1000]
    side = element.get("orientation", "none")
    return Signal(
        id=(element.get("id") or "")[:40],
        s=_number(element, "s"),
        t=_number(element, "t"),
        forward=side != "-",
        backward=side != "+",
        kind=what,
        lanes=(min(ids), max(ids)),
    )


def _connection(element: ET.Element) -> tuple[str, str, str, list[tuple[int, int]]]:
    pairs = [
        (_lane_id(link.get("from")), _lane_id(link.get("to")))
        for link in element.findall("laneLink")
    ]
    return (
        element.get("incomingRoad", ""),
        element.get("connectingRoad", ""),
        element.get("contactPoint", "start"),
        pairs,
    )
