"""Maps of nuPlan: a GeoPackage per city, `<location>/<version>/map.gpkg`.

Lanes lie between junctions and lane connectors in them; the center lines of both are in
`baseline_paths`. A connector leads from its `exit_lane_fid` to its `entry_lane_fid`: the lane that
is left and the one that is entered. The drivable area is the union of several layers of polygons.
Layer and column names are those that the devkit reads (nuplan-devkit, nuplan/common/maps). The maps
have no heights.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alpagym.scenarios.drivable_area import area_edges, refuse_tangles
from alpagym.scenarios.polyline import arc_length, interpolate, split_long_steps
from alpagym.scenarios.readers.geopackage import Feature, features, reference_system
from alpagym.scenarios.readers.sqlite_tables import Database, floats, number, open_database
from alpagym.scenarios.road_map import RawElement
from alpagym.scenarios.scenario import MapType, ScenarioError

RADIUS = 150.0
"""How far from the path of the ego the map reaches [m]."""
MARGIN = 50.0
"""Drivable areas are united so far beyond [m], so that their cuts lie outside the map."""
EDGE_STEP = 10.0
"""Spacing at which road edges are cut to the map's reach [m]."""
MAX_CORNERS, MAX_OWN_CROSSINGS, MAX_CROSSINGS = 60_000, 500, 50_000
"""Of the drivable areas of one scenario."""
MAX_LINE = 5_000
"""Most points of a center line; the longest have some hundreds."""
MAX_POINTS, MAX_LENGTH = 300_000, 2e6
"""Most points of the map of one scenario, and longest total of its lines [m]."""
MAX_ELEMENTS = 4_000
"""Most lanes, lines, crosswalks and signs near the drive of one scenario."""
MAX_LIMIT = 60.0
"""A higher speed limit is none [m/s]."""
CLASH = -1_000_000_000
"""Ids of connectors lie so far below zero where a lane has the same number."""
SIGN_BEFORE, SIGN_BEHIND = 10.0, 5.0
"""A stop line lies so far before the end of a lane, or behind it, at most [m]."""
STOP_SIGN, TRAFFIC_LIGHT = 1, 2
"""Kinds of stop polygons (nuplan-devkit, maps_datatypes.py, StopLineType)."""
UNPAINTED = 3
"""The kind of boundary that is no painted line (as ScenarioNet's converter reads it)."""
AREAS = (
    "road_segments", "lane_groups_polygons", "intersections", "generic_drivable_areas",
    "carpark_areas",
)  # fmt: skip
_LINKS = ("exit_lane_fid", "entry_lane_fid", "lane_group_connector_fid", "speed_limit_mps")
_EPSG = re.compile(r"(?:epsg:)?(\d{4,6})", re.IGNORECASE)


@dataclass
class Shapes:
    """Elements of one kind with their geometry for measuring distances."""

    elements: list[RawElement] = field(default_factory=list)
    geometry: Any = None
    """shapely geometries, [n]."""


@dataclass
class NuplanMap:
    """The part of a city's map that one log passes, in the frame of the log's poses."""

    path: Path
    lanes: Shapes
    """Lanes and lane connectors."""
    others: Shapes
    """Road lines, crosswalks and stop signs."""
    area_lines: list[list[np.ndarray]]
    """Outline and holes of each drivable area [m], [n, 2] each."""
    areas: Any
    """The same in shapely, [n]."""
    blocks: dict[int, int]
    """Roadblock (lane group, or group of connectors) of each lane by its id."""
    connectors: dict[int, int]
    """Id of the lane that each lane connector has become."""
    notes: list[str]

    def around(self, drive: np.ndarray, notes: list[str]) -> list[RawElement]:
        """Elements within `RADIUS` of a drive [m], [n, 2].

        Raises:
            ScenarioError: if the drivable area is absurdly intricate.
        """
        import shapely

        notes += self.notes
        line = shapely.linestrings(drive) if len(drive) > 1 else shapely.points(drive[0])
        found = []
        for shapes in (self.lanes, self.others):
            near = np.flatnonzero(shapely.distance(shapes.geometry, line) <= RADIUS)
            found += [_copy(shapes.elements[i]) for i in near[: MAX_ELEMENTS + 1]]
        if len(found) > MAX_ELEMENTS:
            raise ScenarioError(
                f"{self.path}: more than {MAX_ELEMENTS} lanes and lines near one drive are not read"
            )
        near = np.flatnonzero(shapely.distance(self.areas, line) <= RADIUS + MARGIN)
        areas = [self.area_lines[i] for i in near]
        if not areas:
            notes.append("has no drivable area near the drive, so nothing is off-road")
        rings = [ring for area in areas for ring in area]
        if (corners := sum(map(len, rings))) > MAX_CORNERS:
            raise ScenarioError(
                f"{self.path}: drivable areas of {corners} corners near one drive are more than "
                f"plausible (at most {MAX_CORNERS})"
            )
        _check_length([*(e.points for e in found), *rings], self.path)
        refuse_tangles(rings, str(self.path), MAX_OWN_CROSSINGS, MAX_CROSSINGS)
        flat = [[np.pad(ring, ((0, 0), (0, 1))) for ring in area] for area in areas]
        edges = area_edges(
            [area[0] for area in flat], str(self.path), "nuplan", [area[1:] for area in flat]
        )
        number = min([0, *(e.id for e in self.others.elements)])
        for edge in edges:
            fine = split_long_steps(edge, EDGE_STEP)
            inside = shapely.distance(shapely.points(fine[:, :2]), line) <= RADIUS
            for piece in _runs(fine, inside):
                number -= 1
                found.append(RawElement(MapType.ROAD_EDGE, number, piece))
        return found


def _check_length(lines: list[np.ndarray], path: Path) -> None:
    """Refuse more than any surroundings of a drive have."""
    points = sum(map(len, lines))
    length = sum(float(arc_length(line)[-1]) for line in lines)
    if points > MAX_POINTS or length > MAX_LENGTH:
        raise ScenarioError(
            f"{path}: the map near one drive has {points} points on {length / 1e3:.6g} km, "
            f"at most {MAX_POINTS} on {MAX_LENGTH / 1e3:g} km are read"
        )


def _copy(e: RawElement) -> RawElement:
    """An element of its own for each scenario that holds it."""
    return RawElement(
        e.type, e.id, e.points, e.speed_limit, e.successors, e.left, e.right, e.stop_lanes
    )


def _runs(line: np.ndarray, inside: np.ndarray) -> list[np.ndarray]:
    """Pieces of a closed line [n, 3] whose points are inside [n]."""
    if inside.all():
        return [line]
    first = int(np.flatnonzero(~inside)[0])
    ring = np.roll(line[:-1], -first, axis=0)
    kept = np.roll(inside[:-1], -first)
    cuts = np.flatnonzero(np.diff(kept)) + 1
    pieces = zip(np.split(ring, cuts), np.split(kept, cuts), strict=True)
    return [piece for piece, whole in pieces if whole[0] and len(piece) > 1]


def is_map(path: Path) -> bool:
    """Whether a GeoPackage, whatever its name, is one of nuPlan's, by its layers."""
    try:
        with open_database(path) as database:
            return {"baseline_paths", "lanes_polygons"} <= database.tables
    except (ScenarioError, OSError):
        return False


def read_map(path: Path, drive: np.ndarray) -> NuplanMap:
    """What a map has around a log.

    Args:
        path: the GeoPackage.
        drive: positions of the ego in the whole log, in UTM [m], float64 [n, 2].

    Raises:
        ScenarioError: naming the file and the place, if the map cannot be read, or pyproj or
            shapely is not installed.
    """
    try:
        import pyproj
        import shapely
    except ImportError as error:
        raise ScenarioError(
            f"{path}: nuPlan maps need pyproj and shapely ({error}): pip install alpagym[nuplan]"
        ) from error
    with open_database(path) as database:
        layers = _Layers(database, drive, pyproj)
        notes: list[str] = []
        lanes, blocks, connectors = _lanes(layers, notes)
        if not lanes:
            raise ScenarioError(
                f"{path}: has no lanes near the drive: a map of another place, or of another zone"
            )
        others = _others(layers, lanes, shapely, notes)
        area_lines = [part for name in AREAS for f in layers.read(name, ()) for part in f.parts]
        area_lines = [
            [ring for ring in part if len(ring) > 3] for part in area_lines if len(part[0]) > 3
        ]  # a ring repeats its first corner
    shapes = [shapely.Polygon(rings[0]) for rings in area_lines]
    return NuplanMap(
        path,
        Shapes(lanes, _lines(lanes, shapely)),
        Shapes(others, _lines(others, shapely)),
        area_lines,
        np.array(shapes, object),
        blocks,
        connectors,
        notes,
    )


class _Layers:
    """Layers of one map around a drive, projected to meters."""

    def __init__(self, database: Database, drive: np.ndarray, pyproj: Any) -> None:
        self.database = database
        self.pyproj = pyproj
        self.target = _projection(database)
        low, high = drive.min(0) - RADIUS - MARGIN, drive.max(0) + RADIUS + MARGIN
        along = np.linspace(0.0, 1.0, 9)
        x, y = (low[k] + along * (high[k] - low[k]) for k in (0, 1))
        rim = np.concatenate(
            [np.stack(np.broadcast_arrays(x, e), 1) for e in (low[1], high[1])]
            + [np.stack(np.broadcast_arrays(e, y), 1) for e in (low[0], high[0])]
        )
        self.rim = rim
        self.low, self.high = low, high

    def read(self, layer: str, columns: tuple[str, ...]) -> list[Feature]:
        """Features near the drive, in meters."""
        source = reference_system(self.database, layer)
        path = self.database.path
        try:
            back = self._transform(self.target, source, self.rim)
        except self.pyproj.exceptions.ProjError as error:
            raise ScenarioError(
                f"{path}: layer '{layer}': no way from EPSG:{source} to EPSG:{self.target}"
            ) from error
        if not np.isfinite(back).all():
            raise ScenarioError(f"{path}: the drive lies outside EPSG:{self.target}, its zone")
        box = np.stack([back.min(0), back.max(0)], 1).ravel()
        found = list(features(self.database, layer, columns, box))
        lines = [line for f in found for part in f.parts for line in part]
        every = np.concatenate([np.zeros((0, 2)), *lines])
        placed = self._transform(source, self.target, every)
        if not (np.abs(placed) < 1e8).all():
            raise ScenarioError(f"{path}: layer '{layer}' holds points outside the zone of its map")
        ends = iter(np.split(placed, np.cumsum([len(line) for line in lines])))
        for one in found:
            one.parts = [[next(ends) for _ in part] for part in one.parts]
        return found

    def _transform(self, source: int, target: int, points: np.ndarray) -> np.ndarray:
        if source == target or not len(points):
            return points
        way = self.pyproj.Transformer.from_crs(source, target, always_xy=True)
        return np.stack(way.transform(points[:, 0], points[:, 1]), axis=1)


def _projection(database: Database) -> int:
    """EPSG number of the zone in which poses are given, from the layer `meta`."""
    rows = database.rows("meta", ("key", "value"), limit=1000)
    named = [str(value) for key, value in rows if key == "projectedCoordSystem"]
    match = _EPSG.fullmatch(named[0].strip()) if named else None
    if match is None:
        raise ScenarioError(
            f"{database.path}: layer 'meta' must name the zone of the map as projectedCoordSystem, "
            f"got {named[0][:40]!r}" if named else
            f"{database.path}: layer 'meta' does not name the zone of the map "
            "(projectedCoordSystem)"
        )  # fmt: skip
    return int(match[1])


def _lanes(
    layers: _Layers, notes: list[str]
) -> tuple[list[RawElement], dict[int, int], dict[int, int]]:
    """Lanes and connectors with links, their roadblocks, and the id of each connector's lane."""
    centers: dict[tuple[bool, int], np.ndarray] = {}
    where = f"{layers.database.path}: layer"
    for f in layers.read("baseline_paths", ("lane_fid", "lane_connector_fid")):
        lane, connector = (number(v) for v in f.values)
        line = max((line for part in f.parts for line in part), key=len)
        if len(line) > MAX_LINE:
            raise ScenarioError(
                f"{where} 'baseline_paths', row {f.id}: a line of {len(line)} points is more than "
                f"plausible (at most {MAX_LINE})"
            )
        if len(line) > 1:
            centers[lane < 0, lane if lane >= 0 else connector] = np.pad(line, ((0, 0), (0, 1)))
    lanes: dict[int, RawElement] = {}
    blocks: dict[int, int] = {}
    index: dict[tuple[int, int], int] = {}
    without = 0
    for f in layers.read("lanes_polygons", ("lane_group_fid", "lane_index", "speed_limit_mps")):
        group, place = number(f.values[0]), number(f.values[1])
        if (False, f.id) not in centers:
            without += 1
            continue
        limit = _limit(f.values[2], f"{where} 'lanes_polygons', row {f.id}")
        lanes[f.id] = RawElement(MapType.LANE, f.id, centers[False, f.id], limit)
        blocks[f.id] = group
        if group >= 0 and place >= 0:
            index[group, place] = f.id
    for (group, place), lane in index.items():  # numbered from left to right
        lanes[lane].left = [index[group, place - 1]] if (group, place - 1) in index else []
        lanes[lane].right = [index[group, place + 1]] if (group, place + 1) in index else []
    connectors: dict[int, int] = {}
    crossing: list[RawElement] = []
    for f in layers.read("lane_connectors", _LINKS):
        before, after, group = (number(v) for v in f.values[:3])
        if (True, f.id) not in centers:
            without += 1
            continue
        # Nothing in the file says that both layers number their rows from one sequence.
        own = CLASH - f.id if f.id in lanes else f.id
        limit = _limit(f.values[3], f"{where} 'lane_connectors', row {f.id}")
        crossing.append(RawElement(MapType.LANE, own, centers[True, f.id], limit))
        crossing[-1].successors = [after] if after >= 0 else []
        connectors[f.id], blocks[own] = own, group
        if before in lanes:
            lanes[before].successors.append(own)
    if without:
        notes.append(f"left out {without} lanes without a center line")
    return [*lanes.values(), *crossing], blocks, connectors


def _limit(value: Any, what: str) -> float:
    """A speed limit [m/s], NaN where there is none that is plausible."""
    limit = float(floats([value], f"{what}: 'speed_limit_mps'")[0])
    return limit if 0 < limit < MAX_LIMIT else np.nan


def _others(
    layers: _Layers, lanes: list[RawElement], shapely: Any, notes: list[str]
) -> list[RawElement]:
    """Painted lines, crosswalks and stop signs, with negative ids."""
    found: list[RawElement] = []

    def add(kind: MapType, line: np.ndarray, stop_lanes: list[int] | None = None) -> None:
        points = np.column_stack([line, np.zeros(len(line))])
        found.append(RawElement(kind, -1 - len(found), points, stop_lanes=stop_lanes or []))

    unpainted = 0
    for f in layers.read("boundaries", ("boundary_type_fid",)):
        if number(f.values[0]) == UNPAINTED:
            unpainted += 1
            continue
        for part in f.parts:
            add(MapType.ROAD_LINE, part[0])
    if unpainted:
        notes.append(f"left out {unpainted} lane boundaries that are not painted")
    for f in layers.read("crosswalks", ()):
        for part in f.parts:
            ring = part[0]
            closed = len(ring) > 1 and np.array_equal(ring[0], ring[-1])
            add(MapType.CROSSWALK, ring[: -1 if closed else None])
    stops = layers.read("stop_polygons", ("stop_polygon_type_fid",))
    signs = [f for f in stops if number(f.values[0]) == STOP_SIGN and len(f.parts[0][0]) > 3]
    lights = sum(number(f.values[0]) == TRAFFIC_LIGHT for f in stops)
    if rest := len(stops) - len(signs) - lights:
        notes.append(f"left out {rest} stop polygons of other kinds than stop signs and lights")
    polygons = [shapely.make_valid(shapely.Polygon(f.parts[0][0])) for f in signs]
    for polygon, own in zip(polygons, _lanes_behind(polygons, lanes, shapely), strict=True):
        place = shapely.centroid(polygon)
        add(MapType.STOP_SIGN, np.array([[place.x, place.y]]), own)
    return found


def _lanes_behind(polygons: list[Any], lanes: list[RawElement], shapely: Any) -> list[list[int]]:
    """Ids of the lanes that begin where traffic on the lane before has passed a stop polygon."""
    if not polygons:
        return []
    by_id = {lane.id: lane for lane in lanes}
    pieces, begins = [], []
    for lane in lanes:
        s = arc_length(lane.points)
        end = interpolate(lane.points, np.array([max(s[-1] - SIGN_BEFORE, 0.0), s[-1]]))
        for after in lane.successors:
            if after in by_id:
                start = interpolate(by_id[after].points, np.array([0.0, SIGN_BEHIND]))
                pieces.append(np.concatenate([end, start])[:, :2])
                begins.append(after)
    tree = shapely.STRtree(shapely.linestrings(np.array(pieces).reshape(-1, 4, 2)))
    found: list[list[int]] = [[] for _ in polygons]
    for sign, piece in zip(*tree.query(polygons, predicate="intersects"), strict=True):
        if begins[piece] not in found[sign]:
            found[sign].append(begins[piece])
    return found


def _lines(elements: list[RawElement], shapely: Any) -> np.ndarray:
    """Geometries in shapely of elements, [n]."""
    lines = [e.points[:, :2] for e in elements]
    return np.array([shapely.LineString(p) if len(p) > 1 else shapely.Point(p[0]) for p in lines])
