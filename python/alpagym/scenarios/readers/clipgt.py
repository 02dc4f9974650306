"""NVIDIA ClipGT: a bundle of Parquet tables per clip, `<clip>.<element>.parquet`.

The table of ego poses (`egomotion_estimate`) carries a clip; obstacles, map and calibration lie in
tables of the same prefix beside it, or in tables without a prefix. Rows are `key`, a struct named
after the element, and `version`. The two dialects in use differ in whether a field is a list or a
number a text, so each is taken as it comes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alpagym.scenarios.files import ReadableFile
from alpagym.scenarios.readers.clipgt_tables import (
    read_columns,
    read_rows,
    table_path,
)
from alpagym.scenarios.readers.nvidia_fields import (
    as_list,
    drivable_sides,
    is_line,
    is_stop_line,
    is_stop_sign,
    known_ids,
    open_to_cars,
    points,
    speed,
)
from alpagym.scenarios.readers.nvidia_map import Lane, Line, SourceMap, assemble_clip
from alpagym.scenarios.readers.nvidia_tracks import (
    DEFAULT_BOX,
    TYPES,
    Boxes,
    EgoBox,
    build_tracks,
    no_boxes,
    quaternion_matrices,
)
from alpagym.scenarios.scenario import Scenario, ScenarioError

_EGO = "egomotion_estimate"
ELEMENTS = {
    "association", "buffer_zone", "calibration_estimate", "clip", "crosswalk", "intersection_area",
    "lane", "lane_line", "obstacle", "pole", "road_boundary", "road_island", "road_marking",
    "traffic_light", "traffic_sign", "wait_line",
}  # fmt: skip
"""Kinds of elements, which name the tables of a clip."""
_UNUSED = ("pole", "road_marking", "intersection_area", "road_island", "buffer_zone")


def sniff(head: bytes, path: Path) -> bool:
    """Whether the file is the table of a clip's ego poses, by its name."""
    return path.name == f"{_EGO}.parquet" or path.name.endswith(f".{_EGO}.parquet")


def part(path: Path) -> bool:
    """Whether the file belongs to a clip of which the ego poses lie beside it."""
    prefix, _, element = path.stem.rpartition(".")
    name = f"{prefix}.{_EGO}.parquet" if prefix else f"{_EGO}.parquet"
    known = path.suffix == ".parquet" and element in ELEMENTS
    known |= path.suffix == ".json" and element.startswith("camera_")  # their frames' times
    return known and path.with_name(name).is_file()


def inputs(path: Path) -> list[Path]:
    """The other tables of a clip."""
    return [table_path(path, element) for element in sorted(ELEMENTS)]


def read(path: Path) -> Iterator[Scenario | ScenarioError]:
    """The one scenario of a clip; see `Reader.read`."""
    notes: list[str] = []
    time, poses, clip = _ego_poses(path)
    boxes = _obstacles(table_path(path, "obstacle"), time, notes)
    ego_box = _ego_box(table_path(path, "calibration_estimate"))
    time = time - time[:1]
    tracks = build_tracks(time * 1e-6, poses, ego_box, boxes, str(path), notes)
    tables = {element: table_path(path, element) for element in ELEMENTS}
    made = source_map(tables, notes)
    yield assemble_clip(clip, str(path), tracks, made, notes, dataset="clipgt", license="nvidia-av")


def source_map(tables: Mapping[str, ReadableFile], notes: list[str]) -> SourceMap:
    """The map of a bundle.

    Args:
        tables: the table of each element, by its name; files may be missing.
        notes: gets a clause where a kind of element is missing altogether.

    Raises:
        ScenarioError: if a table is damaged or not of the format.
    """
    result = SourceMap()
    for what, name, lane in _payloads(tables, "lane", notes):
        rails = [points(lane.get(k), f"{what}: '{k}'") for k in ("left_rail", "right_rail")]
        if not all(map(is_line, rails)):
            result.left_out["lanes without two rails"] += 1
            continue
        drivable = open_to_cars(lane.get("use_types"), lane.get("vehicle_types"))
        result.lanes.append(Lane(name, rails, speed(lane.get("speed_limit")), drivable))
    for element, rail, layer in (
        ("lane_line", "line_rail", result.lane_lines),
        ("road_boundary", "location", result.boundaries),
        ("crosswalk", "location", result.crosswalks),
    ):
        for what, name, row in _payloads(tables, element, notes):
            line = points(row.get(rail, row.get("path")), f"{what}: '{rail}'")
            if not is_line(line):
                result.left_out[f"{element.replace('_', ' ')}s of too few points"] += 1
                continue
            layer.append(Line(name, line, *drivable_sides(row)))
    for what, name, row in _payloads(tables, "wait_line", notes):
        line = points(row.get("location"), f"{what}: 'location'")
        if not is_stop_line(row.get("category"), row.get("intersection_subtype")):
            result.left_out["wait lines at which nothing has to stop"] += 1
        elif is_line(line):
            result.stop_lines.append(Line(name, line))
    for element, layer in (("traffic_sign", result.stop_signs), ("traffic_light", result.lights)):
        for what, name, row in _payloads(tables, element, notes):
            if element == "traffic_sign" and not is_stop_sign(row.get("category")):
                result.left_out["traffic signs other than stop signs"] += 1
                continue
            place = points([row.get("center")], f"{what}: 'center'")
            if np.isfinite(place).all():
                layer.append(Line(name, place))
    _associate(result, tables["association"])
    unused = [element.replace("_", " ") for element in _UNUSED if tables[element].is_file()]
    if unused:
        notes.append(f"left out what the map has no type for: {', '.join(unused)}")
    return result


def _payloads(
    tables: Mapping[str, ReadableFile], element: str, notes: list[str]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name for messages, identifier and payload of each row of one kind of element."""
    path = tables[element]
    if not path.is_file():
        notes.append(f"no {element.replace('_', ' ')}s: the clip has no such table")
    for i, (key, payload) in enumerate(read_rows(path, element)):
        yield f"{path}: row {i}", str(key.get("map_id") or f"{element} {i}"), payload


def _associate(source: SourceMap, path: ReadableFile) -> None:
    """Give lanes the links and neighbors, signs and lights of the association table."""
    lanes = {lane.id: lane for lane in source.lanes}
    fields = {
        "NEXT_LANE": "next",
        "PREVIOUS_LANE": "previous",
        "LEFT_LANE": "left",
        "RIGHT_LANE": "right",
    }
    for key, row in read_rows(path, "association"):
        kind = str(key.get("kind")).upper()
        subjects, objects = (known_ids(as_list(row.get(k))) for k in ("subjects", "objects"))
        name = fields.get(kind)
        if name is None and "LANE" in kind and ("SIGN" in kind or "LIGHT" in kind):
            name = "signs" if "SIGN" in kind else "lights"
            if not any(s in lanes for s in subjects):
                subjects, objects = objects, subjects
        for subject in subjects if name else ():
            if subject in lanes:
                getattr(lanes[subject], str(name)).extend(objects)


def _ego_poses(path: Path) -> tuple[np.ndarray, np.ndarray, str]:
    """Time stamps in order [us], int64 [n]; rig poses [n, 4, 4]; the clip's identifier."""
    names = [f"{_EGO}.location.{axis}" for axis in "xyz"]
    names += [f"{_EGO}.orientation.{axis}" for axis in "xyzw"]
    wanted = {"key.timestamp_micros": int, "key.clip_id": str, **dict.fromkeys(names, float)}
    columns = read_columns(path, wanted, optional=("key.clip_id",))
    values = np.stack([columns[name] for name in names], 1)
    stamps, first = np.unique(columns["key.timestamp_micros"], return_index=True)
    poses = np.zeros((len(stamps), 4, 4))
    poses[:, :3, :3] = quaternion_matrices(values[first, 3:])
    poses[:, :3, 3] = values[first, :3]
    poses[:, 3, 3] = 1.0
    prefix = path.name.removesuffix(f"{_EGO}.parquet").rstrip(".")
    clip_ids = columns.get("key.clip_id", np.zeros(0, object))
    named = str(clip_ids[0]) if len(clip_ids) else ""
    return stamps, poses, named or prefix or path.resolve().parent.name


def _obstacles(path: Path, ego_time: np.ndarray, notes: list[str]) -> Boxes:
    """Observations of all obstacles that are road users, on the clock of the first ego pose."""
    if not path.is_file():
        notes.append("no obstacles: the ego is alone")
        return no_boxes()
    names = [f"obstacle.{part}.{axis}" for part in ("center", "size") for axis in "xyz"]
    names += [f"obstacle.orientation.{axis}" for axis in "xyzw"]
    texts = ("obstacle.trackline_id", "obstacle.category")
    wanted = {"key.timestamp_micros": int, **dict.fromkeys(texts, str)}
    columns = read_columns(path, wanted | dict.fromkeys(names, float), optional=texts[1:])
    values = np.stack([columns[name] for name in names], 1)
    tracks = columns[texts[0]]
    labels = [str(c).lower() for c in columns.get(texts[1], ["unknown"] * len(tracks))]
    matrices = quaternion_matrices(values[:, 6:])
    copy = np.array([t.startswith("labelstore:") for t in tracks], bool)
    user = np.array([label in TYPES for label in labels], bool)
    finite = np.isfinite(values).all(1) & np.isfinite(matrices).all((1, 2))
    for reason, count in (
        ("records of obstacles that are given twice", copy.sum()),
        ("records of obstacles that are no road users", (~copy & ~user).sum()),
        ("records of obstacles with values that are not finite", (~copy & user & ~finite).sum()),
    ):
        if count:
            notes.append(f"left out {count} {reason}")
    kept = np.flatnonzero(~copy & user & finite)
    agents: dict[str, int] = {}
    agent = np.array([agents.setdefault(tracks[i], len(agents)) for i in kept], int)
    first = dict(zip(agent[::-1].tolist(), kept[::-1].tolist(), strict=True))
    start = int(ego_time[0]) if len(ego_time) else 0
    return Boxes(
        agent,
        (columns["key.timestamp_micros"][kept] - start) * 1e-6,
        values[kept, :3],
        np.arctan2(matrices[kept, 1, 0], matrices[kept, 0, 0]),
        values[kept, 3:6],
        list(agents),
        [TYPES[labels[first[i]]] for i in range(len(agents))],
    )


def _ego_box(path: Path) -> EgoBox:
    """The vehicle's body in the calibration, or the default where it has none that is plausible.

    The position of the body is that of the middle of its lower rear edge, from the rear axle.
    """
    for _, row in read_rows(path, "calibration_estimate")[:1]:
        try:
            body = json.loads(row["rig_json"])["rig"]["vehicle"]["value"]["body"]
            length, width, height = (float(body[k]) for k in ("length", "width", "height"))
            rear = float(body["boundingBoxPosition"][0])
        except (ValueError, TypeError, KeyError, IndexError, RecursionError):
            break  # most calibrations hold cameras alone
        if 2 < length < 20 and 1 < width < 4 and 1 < height < 5 and -5 < rear < 0:
            return EgoBox(
                length, width, height, rear, "took the size of the ego from the calibration"
            )
    return DEFAULT_BOX
