"""The OpenDRIVE map of an AlpaSim scene, in the scene's own frame.

The map names its place on earth (`geoReference` with lat_0 and lon_0), the scene its own as
`T_world_base`, from its frame to earth-centered coordinates. AlpaSim takes the coordinates of the
map for meters to the east and north of its place, and a map without a place for one in the scene's
frame (trajdata, dataset_specific/xodr/geo_transform.py); so does this.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from alpagym.scenarios.files import ReadableFile
from alpagym.scenarios.opendrive.build import Built, add_edges, build
from alpagym.scenarios.opendrive.roads import RoadFile, read_roads
from alpagym.scenarios.procedural.network import STOP_SIGN
from alpagym.scenarios.readers.nvidia_map import Lane, Line, SourceMap
from alpagym.scenarios.scenario import MapType, ScenarioError

REACH = 150.0
"""Roads this near to the drive are its map [m]."""
SPACING = 10.0
"""At which reference lines are compared with the drive [m]."""
MAX_TILT = 0.1
"""The scene's frame and the map's may lean so much against each other [rad]."""
_AXIS, _FLATTENING = 6_378_137.0, 1 / 298.257223563
"""The WGS 84 ellipsoid."""
_TERM = re.compile(r"\+(lat_0|lon_0|alt_0|h_0|x_0|y_0)=(\S+)")


def opendrive_map(
    path: ReadableFile, base: np.ndarray | None, drive: np.ndarray, notes: list[str]
) -> SourceMap:
    """The map around a drive.

    Args:
        path: the OpenDRIVE file.
        base: from the scene's frame to earth-centered coordinates [m], [4, 4], if that is known.
        drive: places of the recording vehicle [m], [n, 3].
        notes: gets what was left out, and why there is no map if there is none.

    Raises:
        ScenarioError: if the file is damaged or not of the format.
    """
    file = read_roads(path)
    to_map = _to_map(file, base, path, notes)
    if to_map is None:
        return SourceMap()
    turn = to_map[:2, :2]
    if np.arccos(np.clip(to_map[2, 2], -1, 1)) > MAX_TILT:
        notes.append("no map: the frame of its OpenDRIVE map does not stand upright in the scene")
        return SourceMap()
    driven = drive @ to_map[:3, :3].T + to_map[:3, 3]
    near = {name for name in file.roads if _distance(file, name, driven[:, :2], path) < REACH}
    if not near:
        notes.append(f"no map: no road of its OpenDRIVE map is within {REACH:g} m of the drive")
        return SourceMap()
    built = build(file, near, path)
    add_edges(built, file, near, path)
    notes += built.notes
    first, start = driven[0, :2], drive[0, :2]

    def placed(points: np.ndarray) -> np.ndarray:
        """Points of the map [n, 2] in the scene's frame, [n, 3]; near the drive both are level."""
        return np.pad((points - first) @ turn + start, ((0, 0), (0, 1)))

    return _source_map(built, placed)


def _to_map(
    file: RoadFile, base: np.ndarray | None, path: ReadableFile, notes: list[str]
) -> np.ndarray | None:
    """From the scene's frame to the map's, [4, 4]; None, and a note, where that is not known."""
    terms: dict[str, float] = {}
    for name, text in _TERM.findall(file.georeference):
        try:
            terms[name] = float(text)
        except ValueError as error:
            raise ScenarioError(f"{path}: geoReference: {name} must be a number") from error
    if not file.georeference:
        notes.append("its OpenDRIVE map names no place: took it to be in the frame of the scene")
        return np.eye(4)
    latitude, longitude = (terms.get(name, np.nan) for name in ("lat_0", "lon_0"))
    if not (abs(latitude) <= 90 and abs(longitude) <= 360) or any(file.offset):
        notes.append("no map: the place of its OpenDRIVE map is not given by lat_0 and lon_0 alone")
        return None
    if base is None:
        notes.append("no map: the scene does not say where on earth it is (T_world_base)")
        return None
    height = terms.get("alt_0", terms.get("h_0", 0.0))
    result = _earth_to_place(latitude, longitude, height) @ base
    result[:2, 3] += terms.get("x_0", 0.0), terms.get("y_0", 0.0)
    turn = result[:3, :3]
    if not np.isfinite(result).all() or not np.allclose(turn @ turn.T, np.eye(3), atol=1e-3):
        notes.append("no map: where on earth the scene is (T_world_base) is no place and rotation")
        return None
    return result


def _earth_to_place(latitude: float, longitude: float, height: float) -> np.ndarray:
    """From earth-centered coordinates to east, north and up of a place [deg, deg, m], [4, 4]."""
    phi, lam = np.radians([latitude, longitude])
    (sp, cp), (sl, cl) = ((np.sin(angle), np.cos(angle)) for angle in (phi, lam))
    squared = _FLATTENING * (2 - _FLATTENING)
    normal = _AXIS / np.sqrt(1 - squared * sp * sp)
    across = (normal + height) * cp
    place = np.array([across * cl, across * sl, (normal * (1 - squared) + height) * sp])
    result = np.eye(4)
    result[:3, :3] = [[-sl, cl, 0], [-sp * cl, -sp * sl, cp], [cp * cl, cp * sl, sp]]
    result[:3, 3] = -result[:3, :3] @ place
    return result


def _distance(file: RoadFile, name: str, driven: np.ndarray, path: ReadableFile) -> float:
    """From a road's reference line to a drive [n, 2] [m], to half of `SPACING`."""
    road = file.roads[name]
    line, _ = road.at(np.linspace(0.0, road.length, 2 + int(road.length / SPACING)))
    if not np.isfinite(line).all():
        raise ScenarioError(f"{path}: road {name}: its reference line is not finite")
    low, high = driven.min(0) - REACH, driven.max(0) + REACH
    line = line[((line >= low) & (line <= high)).all(1)]
    return min((float(np.hypot(*(driven - point).T).min()) for point in line), default=np.inf)


def _source_map(built: Built, placed: Callable[[np.ndarray], np.ndarray]) -> SourceMap:
    """The same in the form of NVIDIA's maps."""
    result = SourceMap()
    for i, lane in enumerate(built.network.lanes):
        line = placed(lane.points)
        result.lanes.append(
            Lane(
                str(i),
                [line],
                lane.speed_limit,
                next=[str(k) for k in lane.successors],
                left=[str(lane.left)] if lane.left >= 0 else [],
                right=[str(lane.right)] if lane.right >= 0 else [],
                lights=[f"light {lane.stop}"] if lane.stop >= 0 else [],
            )
        )
        if lane.stop == STOP_SIGN or lane.stop >= 0:
            result.stop_lines.append(Line(f"line-{i}", line[[-1, -1]]))
        if lane.stop >= 0:
            result.lights.append(Line(f"light {lane.stop}", line[-1:]))
    for i, (kind, points) in enumerate(built.network.others):
        layer = {MapType.ROAD_EDGE: result.boundaries, MapType.STOP_SIGN: result.stop_signs}[kind]
        layer.append(Line(f"element {i}", placed(points)))
    return result
