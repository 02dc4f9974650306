"""Maps of Argoverse 2: one JSON file per log with lanes, crossings and drivable areas.

Lanes are given by both boundaries and, in the motion files, by a center line too. The layout is
that of the devkit (av2-api, src/av2/map). There are no lights, stop signs or speed limits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from alpagym.scenarios.drivable_area import area_edges, refuse_tangles
from alpagym.scenarios.road_map import RawElement
from alpagym.scenarios.scenario import MapType, ScenarioError

MAX_FILE = 8 * 2**20
"""Largest map file that is opened; those of the dataset have 0.1 to 1 MB [bytes]."""
MAX_LINE = 500
"""Most points of a lane's boundary, center line or crossing; the dataset's have 2 to 50."""
MAX_AREAS, MAX_CORNERS = 500, 10_000
"""Most drivable areas, and most corners of all of them."""
MAX_OWN_CROSSINGS, MAX_CROSSINGS = 200, 1000
"""Most places where outlines cross themselves, and where they cross others."""
MAX_COORDINATE = 1e7
"""A city's coordinates are smaller [m]."""
CENTER_STEP, MAX_CENTER_POINTS = 1.0, 200
"""Spacing of center lines that are made from boundaries [m], and their most points."""
BEYOND = 2.0
"""Lanes that go on outside the map are extended so far when cuts are sought [m]."""
LEVEL = 3.0
"""A lane that crosses an edge higher or lower than this is on another level [m]."""
UNPAINTED = ("NONE", "UNKNOWN")
"""Marks of boundaries that are not painted, or not known to be."""


def read_map(path: Path, notes: list[str]) -> list[RawElement]:
    """All elements of a log's map, in city coordinates.

    Lane boundaries that are painted become road lines, each once even where two lanes share it;
    outlines of the drivable area become road edges. These have negative ids, the
    others their own.

    Args:
        path: `log_map_archive_<...>.json`.
        notes: gets a clause for what was left out.

    Raises:
        ScenarioError: naming the file and the element, if the map cannot be used.
    """
    size = path.stat().st_size
    if size > MAX_FILE:
        raise ScenarioError(f"{path}: has {size} bytes, at most {MAX_FILE} are plausible")
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ScenarioError(f"{path}: not valid JSON, perhaps truncated ({error})") from error
    lanes = [
        _lane(record, f"{path}: lane segment {name}")
        for name, record in _records(data, "lane_segments", path)
    ]
    if not lanes:
        raise ScenarioError(f"{path}: the map has no lane segments")
    crossings = [
        _crossing(record, f"{path}: pedestrian crossing {name}")
        for name, record in _records(data, "pedestrian_crossings", path)
    ]
    elements = [lane for lane, _ in lanes]
    _link_predecessors(elements, [r for _, r in _records(data, "lane_segments", path)], path)
    rest = [
        (MapType.ROAD_LINE, line) for line in _distinct(line for _, own in lanes for line in own)
    ]
    edges = _edges(data, path, notes)
    edges = open_cuts(edges, _courses(data, {lane.id for lane in elements}, path), notes)
    rest += [(MapType.ROAD_EDGE, line) for line in edges]
    numbered = [RawElement(kind, -1 - i, line) for i, (kind, line) in enumerate(rest)]
    return elements + crossings + numbered


def find_map(folder: Path, log: str) -> Path:
    """The map file of a log in a folder: the one that bears the log's id, or the only one.

    Raises:
        ScenarioError: if there is none, or several and none bears the id.
    """
    files = sorted(f for f in folder.glob("log_map_archive_*.json") if f.is_file())
    own = [f for f in files if f.name.startswith(f"log_map_archive_{log}")]
    if len(own) == 1 or len(files) == 1:
        return (own or files)[0]
    found = "none" if not files else f"{len(files)}"
    raise ScenarioError(
        f"{folder}: expected one map, log_map_archive_{log}*.json, but found {found}"
    )


def _records(data: Any, name: str, path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The named table of a map: (key, record) pairs."""
    table = data.get(name) if isinstance(data, dict) else None
    if not isinstance(table, dict):
        raise ScenarioError(f"{path}: no Argoverse 2 map: it lacks the object '{name}'")
    for key, record in table.items():
        if not isinstance(record, dict):
            raise ScenarioError(
                f"{path}: '{name}' {key[:40]} must be an object, got {type(record).__name__}"
            )
    return [(key[:40], record) for key, record in table.items()]


def _points(
    record: dict[str, Any], name: str, what: str, least: int, most: int = MAX_LINE
) -> np.ndarray:
    """A list of {x, y, z} [m] as float64 [n, 3]."""
    try:
        array = np.array([(p["x"], p["y"], p["z"]) for p in record[name]], np.float64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ScenarioError(f"{what}: '{name}' must be a list of points x, y, z") from error
    if not least <= len(array) <= most:
        raise ScenarioError(
            f"{what}: '{name}' must have {least} to {most} points, got {len(array)}"
        )
    if not (np.abs(array) < MAX_COORDINATE).all():
        raise ScenarioError(
            f"{what}: '{name}' must be finite and below {MAX_COORDINATE:g} m, "
            f"got {array[~(np.abs(array) < MAX_COORDINATE)][0]}"
        )
    return array


def _id(value: Any, what: str) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        raise ScenarioError(f"{what}: an id must be an integer, got {str(value)[:40]!r}")
    return value


def _ids(record: dict[str, Any], name: str, what: str) -> list[int]:
    values = record.get(name, [])
    if not isinstance(values, list):
        raise ScenarioError(f"{what}: '{name}' must be a list of ids")
    return [_id(v, f"{what}: '{name}'") for v in values]


def _lane(record: dict[str, Any], what: str) -> tuple[RawElement, list[np.ndarray]]:
    """A lane and its painted boundaries [n, 3]."""
    left = _points(record, "left_lane_boundary", what, 2)
    right = _points(record, "right_lane_boundary", what, 2)
    if "centerline" in record:
        center = _points(record, "centerline", what, 2)
    else:
        center = center_line(left, right)
    neighbors = [
        [] if (n := record.get(f"{side}_neighbor_id")) is None else [_id(n, f"{what}: neighbor")]
        for side in ("left", "right")
    ]
    lane = RawElement(
        MapType.LANE,
        _id(record.get("id"), what),
        center,
        successors=_ids(record, "successors", what),
        left=neighbors[0],
        right=neighbors[1],
    )
    sides = (("left", left), ("right", right))
    painted = [
        line
        for side, line in sides
        if str(record.get(f"{side}_lane_mark_type", "NONE")).upper() not in UNPAINTED
    ]
    return lane, painted


def center_line(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The line midway between two boundaries [n, 3] and [m, 3], at equal shares of their lengths.

    Boundaries have few points, and not equally many.
    """
    shares = [_shares(line) for line in (left, right)]
    length = max(np.hypot(*np.diff(line[:, :2], axis=0).T).sum() for line in (left, right))
    count = int(np.clip(np.ceil(length / CENTER_STEP), 1, MAX_CENTER_POINTS - 1)) + 1
    # Every corner of either boundary is met, so that the middle bends where they do.
    at = np.unique(np.concatenate([np.linspace(0.0, 1.0, count), *shares]))
    sides = [
        np.stack([np.interp(at, share, line[:, k]) for k in range(3)], axis=1)
        for share, line in zip(shares, (left, right), strict=True)
    ]
    return 0.5 * (sides[0] + sides[1])


def _shares(line: np.ndarray) -> np.ndarray:
    """Arc length in x-y at each point [n] as a share of the whole; even where there is none."""
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line[:, :2], axis=0).T))])
    return along / along[-1] if along[-1] > 0 else np.linspace(0.0, 1.0, len(line))


def _link_predecessors(lanes: list[RawElement], records: list[dict[str, Any]], path: Path) -> None:
    """Add, in place, links that only the later lane tells."""
    by_id = {lane.id: lane for lane in lanes}
    if len(by_id) < len(lanes):
        raise ScenarioError(f"{path}: {len(lanes) - len(by_id)} lane segments share an id")
    for lane, record in zip(lanes, records, strict=True):
        for before in _ids(record, "predecessors", f"{path}: lane segment {lane.id}"):
            if before in by_id and lane.id not in by_id[before].successors:
                by_id[before].successors.append(lane.id)


def _distinct(lines: Any) -> list[np.ndarray]:
    """Lines [n, 3], each once: neighbors share a boundary, in either direction."""
    seen: dict[bytes, np.ndarray] = {}
    for line in lines:
        forward, backward = line.tobytes(), line[::-1].tobytes()
        seen.setdefault(min(forward, backward), line)
    return list(seen.values())


def _crossing(record: dict[str, Any], what: str) -> RawElement:
    """The quadrangle between the two edges of a pedestrian crossing."""
    first, second = (_points(record, name, what, 2) for name in ("edge1", "edge2"))
    along = (first[-1] - first[0])[:2] @ (second[-1] - second[0])[:2]
    back = second[::-1] if along > 0 else second
    return RawElement(MapType.CROSSWALK, _id(record.get("id"), what), np.concatenate([first, back]))


def _edges(data: Any, path: Path, notes: list[str]) -> list[np.ndarray]:
    """Outlines of the drivable areas, the area on the left."""
    areas = [
        _points(record, "area_boundary", f"{path}: drivable area {name}", 3, MAX_CORNERS)
        for name, record in _records(data, "drivable_areas", path)
    ]
    corners = sum(map(len, areas))
    if len(areas) > MAX_AREAS or corners > MAX_CORNERS:
        raise ScenarioError(
            f"{path}: {len(areas)} drivable areas of {corners} corners are more than plausible "
            f"(at most {MAX_AREAS} of {MAX_CORNERS})"
        )
    if not areas:
        notes.append("has no drivable area, so nothing is off-road")
    refuse_tangles(areas, str(path), MAX_OWN_CROSSINGS, MAX_CROSSINGS)
    return area_edges(areas, str(path), "av2")


def _courses(data: Any, known: set[int], path: Path) -> list[np.ndarray]:
    """Lanes as lines [n, 3] that reach beyond their ends where they go on outside the map."""
    courses = []
    for name, record in _records(data, "lane_segments", path):
        what = f"{path}: lane segment {name}"
        # Center lines of the motion files have no heights, boundaries do.
        sides = (_points(record, f"{side}_lane_boundary", what, 2) for side in ("left", "right"))
        line = center_line(*sides)
        ends = []
        for links, tip, inner in (("predecessors", 0, 1), ("successors", -1, -2)):
            step = line[tip] - line[inner]
            length = np.hypot(*step[:2])
            leads_out = any(i not in known for i in _ids(record, links, what))
            ends.append(
                (line[tip] + BEYOND / length * step)[None]
                if leads_out and length > 0
                else np.zeros((0, 3))
            )
        courses.append(np.concatenate([ends[0], line, ends[1]]))
    return courses


def open_cuts(
    edges: list[np.ndarray], courses: list[np.ndarray], notes: list[str]
) -> list[np.ndarray]:
    """The edges without the segments across which a lane runs.

    Maps end at some distance from the drive, and outlines of the drivable area then run across the
    road; those parts are no edges of it.

    Args:
        edges: closed lines [n, 3].
        courses: lanes, from end to end [m, 3].
        notes: gets a clause if segments were taken out.

    Returns:
        Open pieces of the edges that are cut, and the other edges as they are.
    """
    import shapely

    if not edges or not courses:
        return edges
    starts = np.concatenate([line[:-1] for line in edges])
    ends = np.concatenate([line[1:] for line in edges])
    segments = shapely.linestrings(np.stack([starts[:, :2], ends[:, :2]], axis=1))
    tree = shapely.STRtree(segments)
    lanes = [shapely.linestrings(line[:, :2]) for line in courses]
    lane, segment = tree.query(lanes, predicate="intersects")
    cut = np.zeros(len(segments), bool)
    for a, b in zip(lane, segment, strict=True):
        middle = 0.5 * (starts[b] + ends[b])
        nearest = courses[a][np.hypot(*(courses[a] - middle)[:, :2].T).argmin()]
        cut[b] |= abs(nearest[2] - middle[2]) < LEVEL
    if cut.any():
        notes.append(f"took out {cut.sum()} segments of road edges across which lanes run")
    pieces = []
    for line, own in zip(
        edges, np.split(cut, np.cumsum([len(e) - 1 for e in edges])[:-1]), strict=True
    ):
        pieces += _without(line, own)
    return pieces


def _without(line: np.ndarray, cut: np.ndarray) -> list[np.ndarray]:
    """Pieces [k, 3] of a closed line [n, 3] between the segments [n - 1] that are cut out."""
    if not cut.any():
        return [line]
    first = int(np.flatnonzero(cut)[0]) + 1
    ring = np.roll(line[:-1], -first, axis=0)
    gone = np.flatnonzero(np.roll(cut, -first))
    return [p for p in np.split(ring, gone + 1) if len(p) > 1]
