"""GPUDrive and Nocturne JSON, both schema generations.

The generations differ in units, sentinels and fields, and files of either lie in folders named
after the other, so everything is told from the data: degrees from how headings agree with
velocities, heights from whether positions have a z. What stands under an invalid frame is never
looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alpagym.scenarios.assemble import RawLight, RawScenario, RawTracks, assemble
from alpagym.scenarios.polyline import wrap_angle
from alpagym.scenarios.readers.export_tag import export_tag
from alpagym.scenarios.road_map import RawElement, orient_edges
from alpagym.scenarios.scenario import AgentType, LightState, MapType, Scenario, ScenarioError

NOMINAL_DT = 0.1
"""The format has no time stamps [s]."""
MAX_RADIANS = 7.0
"""No heading in radians of this format exceeds it; used where nothing moves."""
EGO_LENGTH, EGO_WIDTH = 5.286, 2.332
"""The box of the recording car, the same in every record of the dataset [m]."""
_AGENT_TYPES = {
    "vehicle": AgentType.VEHICLE,
    "pedestrian": AgentType.PEDESTRIAN,
    "cyclist": AgentType.CYCLIST,
    "other": AgentType.OTHER,
}
_MAP_TYPES = {
    "lane": MapType.LANE,
    "road_line": MapType.ROAD_LINE,
    "road_edge": MapType.ROAD_EDGE,
    "crosswalk": MapType.CROSSWALK,
    "stop_sign": MapType.STOP_SIGN,
    "speed_bump": MapType.SPEED_BUMP,
    "driveway": MapType.DRIVEWAY,
}
MAP_CODES = {
    **dict.fromkeys(range(4), MapType.LANE),
    **dict.fromkeys(range(5, 14), MapType.ROAD_LINE),
    **dict.fromkeys(range(14, 17), MapType.ROAD_EDGE),
    17: MapType.STOP_SIGN,
    18: MapType.CROSSWALK,
    19: MapType.SPEED_BUMP,
    20: MapType.DRIVEWAY,
}
_LIGHTS = {
    "stop": LightState.RED,
    "caution": LightState.YELLOW,
    "go": LightState.GREEN,
    "arrow_stop": LightState.RED,
    "arrow_caution": LightState.YELLOW,
    "arrow_go": LightState.GREEN,
    "flashing_stop": LightState.FLASHING_RED,
    "flashing_caution": LightState.FLASHING_YELLOW,
}


def sniff(head: bytes, path: Path) -> bool:
    """Whether the file begins like a JSON object or array."""
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def read(path: Path) -> Iterator[Scenario | ScenarioError]:
    """The one scenario of a file; see `Reader.read`."""
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ScenarioError(f"{path}: not valid JSON, perhaps truncated ({error})") from error
    if not isinstance(data, dict) or not all(
        isinstance(data.get(k), list) for k in ("objects", "roads")
    ):
        raise ScenarioError(
            f"{path}: JSON, but no GPUDrive or Nocturne scenario: "
            "it lacks the lists 'objects' and 'roads'"
        )
    yield assemble(_raw_scenario(data, path))


def _raw_scenario(data: dict[str, Any], path: Path) -> RawScenario:
    notes: list[str] = []
    if not data["objects"]:
        raise ScenarioError(f"{path}: the list 'objects' is empty, so there is no ego to drive")
    tracks = _raw_tracks(data["objects"], path, notes)
    metadata = data.get("metadata")
    tag = export_tag(metadata, tracks.valid.shape[1], f"{path}")
    heights = tracks.xyz[..., 2][tracks.valid]
    has_z = bool(np.isfinite(heights).any()) and (tag is None or tag.has_z)
    elements = _raw_elements(data["roads"], path, has_z, notes)
    if has_z and elements and not any(np.isfinite(e.points[:, 2]).any() for e in elements):
        has_z = False
    if not has_z:
        notes.append("has no heights")
    name = data.get("scenario_id")
    index = metadata.get("sdc_track_index") if isinstance(metadata, dict) else None
    if tag is None:
        orient_edges(elements, _corridor(data.get("route"), path, notes), notes, str(path))
    if tag is None or type(index) is not int or not 0 <= index < len(tracks.id):
        index = find_ego(index, tracks, path, notes)
    return RawScenario(
        id=name if isinstance(name, str) and name else path.stem,
        source=str(path),
        dataset="womd" if tag is None else tag.dataset,
        license="womd-nc" if tag is None else tag.license,
        tracks=tracks,
        elements=elements,
        lights=_raw_lights(data.get("tl_states"), tracks.valid.shape[1], path, notes),
        ego=index,
        dt=NOMINAL_DT if tag is None else tag.dt,
        start=None if tag is None else tag.start_frame,
        has_z=has_z,
        infer_links=True,
        notes=notes if tag is None else [*tag.notes, *notes],
    )


def _corridor(route: Any, path: Path, notes: list[str]) -> np.ndarray | None:
    """The ego's route [n, 2] in files whose only road edges are a corridor's borders around it."""
    if not isinstance(route, list) or len(route) < 2:
        return None
    points = _vectors(route, f"{path}: 'route'")[:, :2]
    if not np.isfinite(points).all():
        return None
    notes.append("road edges are the borders of a corridor around the ego's route")
    return points


def _fields(record: Any, names: tuple[str, ...], what: str) -> list[Any]:
    """The named fields of a JSON object."""
    if not isinstance(record, dict):
        raise ScenarioError(f"{what} must be a JSON object, got {type(record).__name__}")
    for name in names:
        if name not in record:
            raise ScenarioError(f"{what} has no '{name}'")
    return [record[name] for name in names]


def _numbers(value: Any, what: str) -> np.ndarray:
    """A flat list of numbers as float64 [n]; null becomes NaN."""
    try:
        array = np.array(value if isinstance(value, list) else [value], np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.zeros((0, 0))
    if array.ndim != 1:
        raise ScenarioError(f"{what} must be numbers")
    return array


def _vectors(value: Any, what: str) -> np.ndarray:
    """Points [n, 3] from [{x, y, z}], {x: [], y: []} or [[x, y, z]]; absent values are NaN."""
    if isinstance(value, dict):
        lists = [_numbers(value[axis], what) for axis in "xyz" if axis in value]
        if len(lists) < 2 or len({len(x) for x in lists}) != 1:
            raise ScenarioError(f"{what} must have lists x and y of one length")
        rows: Any = np.stack(lists, axis=1)
    elif isinstance(value, list) and all(isinstance(p, dict) for p in value):
        rows = [(p.get("x"), p.get("y"), p.get("z")) for p in value]
    else:
        rows = value
    try:
        array = np.array(rows, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.zeros(())
    if array.size == 0 and array.ndim > 0:
        return np.zeros((0, 3))
    if array.ndim != 2 or array.shape[1] not in (2, 3):
        raise ScenarioError(f"{what} must be a list of points with x and y")
    if array.shape[1] == 2:
        array = np.column_stack([array, np.full(len(array), np.nan)])
    return array


def _raw_tracks(objects: list[Any], path: Path, notes: list[str]) -> RawTracks:
    columns: list[tuple[np.ndarray, ...]] = []
    types, ids = [], []
    for i, record in enumerate(objects):
        what = f"{path}: object {i}"
        position, heading, flags = _fields(record, ("position", "heading", "valid"), what)
        valid = _numbers(flags, f"{what}: 'valid'") > 0
        xyz = _vectors(position, f"{what}: 'position'")
        yaw = _numbers(heading, f"{what}: 'heading'")
        velocity = np.full((len(valid), 2), np.nan)
        if record.get("velocity") is not None:
            velocity = _vectors(record["velocity"], f"{what}: 'velocity'")[:, :2]
        for name, values in (("position", xyz), ("heading", yaw), ("velocity", velocity)):
            if len(values) != len(valid):
                raise ScenarioError(
                    f"{what}: '{name}' has {len(values)} frames, but 'valid' has {len(valid)}"
                )
        if columns and len(valid) != len(columns[0][3]):
            raise ScenarioError(
                f"{what} has {len(valid)} frames, but object 0 has {len(columns[0][3])}"
            )
        box = [
            _size(record.get(name), valid, f"{what}: '{name}'")
            for name in ("length", "width", "height")
        ]
        columns.append((xyz, yaw, velocity, valid, np.array(box)))
        types.append(_AGENT_TYPES.get(str(record.get("type")).lower(), AgentType.UNKNOWN))
        number = record.get("id", i)
        ids.append(number if isinstance(number, int) and abs(number) < 2**62 else i)
    xyz, yaw, velocity, valid, size = (np.stack(column) for column in zip(*columns, strict=True))
    if in_degrees(yaw[valid], velocity[valid]):
        yaw = np.deg2rad(yaw)
        notes.append("headings are in degrees")
    return RawTracks(
        xyz, yaw, velocity, size[:, None], valid, np.array(types), np.array(ids, np.int64)
    )


def _size(value: Any, valid: np.ndarray, what: str) -> float:
    """One dimension of a box: a number, or the median of a list by frame; NaN if absent."""
    if value is None:
        return np.nan
    numbers = _numbers(value, what)
    if len(numbers) == len(valid):
        numbers = numbers[valid]
    known = numbers[np.isfinite(numbers) & (numbers > 0)]
    return float(np.median(known)) if len(known) else np.nan


def in_degrees(yaw: np.ndarray, velocity: np.ndarray) -> bool:
    """Whether headings [n] agree better with the velocities [n, 2] as degrees than as radians."""
    if not np.isfinite(yaw).all():
        return False  # refused later, with track and frame
    fast = np.nan_to_num(np.hypot(velocity[:, 0], velocity[:, 1])) > 2.0
    if fast.sum() < 10:
        return bool(len(yaw)) and float(np.abs(yaw).max()) > MAX_RADIANS
    course = np.arctan2(velocity[fast, 1], velocity[fast, 0])
    as_radians = np.median(np.abs(wrap_angle(yaw[fast] - course)))
    as_degrees = np.median(np.abs(wrap_angle(np.deg2rad(yaw[fast]) - course)))
    return bool(as_degrees < as_radians)


def _raw_elements(roads: list[Any], path: Path, has_z: bool, notes: list[str]) -> list[RawElement]:
    elements, unknown = [], 0
    for i, road in enumerate(roads):
        what = f"{path}: road {i}"
        (geometry,) = _fields(road, ("geometry",), what)
        kind = _MAP_TYPES.get(str(road.get("type")).lower())
        code = road.get("map_element_id")
        if kind is None and type(code) is int:
            kind = MAP_CODES.get(code)
        if kind is None:
            unknown += 1
            continue
        if isinstance(geometry, dict) and not isinstance(geometry.get("x"), list):
            geometry = [geometry]  # a stop sign given as one point
        points = _vectors(geometry, f"{what}: 'geometry'")
        number = road.get("id")
        if not isinstance(number, int) or abs(number) >= 2**62:
            number = -1 - i  # no source id equals it
        if not has_z:
            points[:, 2] = 0.0
        elements.append(RawElement(kind, number, points))
    if unknown:
        notes.append(f"left out {unknown} map elements of unknown type")
    return elements


def _raw_lights(states: Any, num_frames: int, path: Path, notes: list[str]) -> list[RawLight]:
    """Lights by lane; `time_index` says to which frames the entries of the lists belong."""
    if not states:
        return []
    if not isinstance(states, dict):
        raise ScenarioError(
            f"{path}: 'tl_states' must be a JSON object, got {type(states).__name__}"
        )
    lights, misplaced = [], 0
    for name, record in states.items():
        what = f"{path}: light {name}"
        (seen,) = _fields(record, ("state",), what)
        if not isinstance(seen, list):
            raise ScenarioError(f"{what}: 'state' must be a list")
        frames = _numbers(record.get("time_index", list(range(len(seen)))), f"{what}: 'time_index'")
        if len(frames) != len(seen):
            raise ScenarioError(
                f"{what}: 'time_index' has {len(frames)} entries, but 'state' has {len(seen)}"
            )
        state = np.zeros(num_frames, np.uint8)
        for frame, value in zip(frames, seen, strict=True):
            if 0 <= frame < num_frames:  # NaN compares false
                state[int(frame)] = _LIGHTS.get(str(value).lower(), LightState.UNKNOWN)
            else:
                misplaced += 1
        x, y = (_numbers(record.get(axis, []), f"{what}: '{axis}'") for axis in "xy")
        xy = np.array([x[0] if len(x) else np.nan, y[0] if len(y) else np.nan])
        lane = int(name) if re.fullmatch(r"-?[0-9]{1,19}", name) else None
        lights.append(RawLight(lane, xy, state))
    if misplaced:
        notes.append(f"left out {misplaced} light states outside the record")
    return lights


def find_ego(index: Any, tracks: RawTracks, path: Path, notes: list[str]) -> int:
    """Index of the ego.

    The index in the file counts tracks before the writer filtered them, so it may be out of range
    or, worse, name another agent. It is believed if it names a vehicle seen as long as any
    and no other has the box of the recording car. Otherwise the recording car is known by its box,
    and failing that the vehicle that gets farthest of those seen longest is taken.
    """
    seen = tracks.valid.sum(1)
    vehicles = (tracks.type == AgentType.VEHICLE) & (seen > 0)
    if not vehicles.any():
        raise ScenarioError(
            f"{path}: no ego: none of the {len(seen)} objects is a vehicle seen in any frame"
        )
    candidates = vehicles & (seen == seen[vehicles].max())
    length, width = tracks.size[:, 0, 0], tracks.size[:, 0, 1]
    with np.errstate(invalid="ignore"):
        is_car = (
            (np.abs(length - EGO_LENGTH) < 0.01) & (np.abs(width - EGO_WIDTH) < 0.01) & candidates
        )

    if (
        type(index) is int
        and 0 <= index < len(seen)
        and candidates[index]
        and (is_car[index] or not is_car.any())
    ):
        return index
    cars = np.flatnonzero(is_car if is_car.any() else candidates)
    travel = [_travel(tracks.xyz[i, tracks.valid[i], :2]) for i in cars]
    ego = int(cars[int(np.argmax(travel))])
    reason = (
        "has the recording car's box" if is_car.any() else "travels farthest of those seen longest"
    )
    given = (
        "names no ego" if index is None else f"names track {index} as the ego, which it cannot be"
    )
    notes.append(f"the file {given}; took track {ego}, which {reason}")
    return ego


def _travel(xy: np.ndarray) -> float:
    """How far a path [n, 2] gets from its start [m]; 0 where it is not finite."""
    return float(np.nan_to_num(np.hypot(*(xy - xy[0]).T), posinf=0.0).max())
