"""The map of an RDS-HQ clip: one archive per kind of element, each with one JSON of labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

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
from alpagym.scenarios.readers.nvidia_map import Lane, Line, SourceMap
from alpagym.scenarios.readers.tar import read_members
from alpagym.scenarios.scenario import ScenarioError

MAX_JSON = 16 * 2**20
"""Largest JSON member [bytes]; it takes about twenty times as much memory."""


LAYERS = (
    "3d_lanes", "3d_lanelines", "3d_road_boundaries", "3d_crosswalks", "3d_wait_lines",
    "3d_traffic_signs", "3d_traffic_lights", "3d_poles", "3d_road_markings",
)  # fmt: skip
"""Archives of a clip that its map is made of; of the last two only whether they are there."""


def beside(path: Path, attribute: str) -> Path:
    """The archive of another attribute of the same clip."""
    return path.parent.parent / attribute / path.name


def parse_json(data: bytes, what: str) -> Any:
    """The JSON value in `data`; a `ScenarioError` that names `what` if there is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ScenarioError(f"{what}: not valid JSON ({error})") from error


def source_map(path: Path, notes: list[str]) -> SourceMap:
    """The map beside the ego poses of a clip.

    Args:
        path: archive of the ego poses.
        notes: gets a clause where a kind of element is missing altogether.

    Raises:
        ScenarioError: if an archive is damaged or not of the format.
    """
    result = SourceMap()
    for what, shape, about in _labels(path, "lanes", notes):
        rails = _lines(shape, what)[:2]
        if not rails or not all(map(is_line, rails)):
            result.left_out["lanes without a line"] += 1
            continue
        result.lanes.append(
            Lane(
                _id(about, what),
                rails,
                speed(about.get("speed_limit")),
                open_to_cars(about.get("use_types"), about.get("vehicle_types")),
                next=_ids(about, "next_lane_ids"),
                previous=_ids(about, "previous_lane_ids"),
                left=_ids(about, "left_lane_id"),
                right=_ids(about, "right_lane_id"),
                signs=_ids(about, "associated_traffic_sign_ids"),
                lights=_ids(about, "associated_traffic_light_ids"),
            )
        )
    for attribute, layer in (
        ("lanelines", result.lane_lines),
        ("road_boundaries", result.boundaries),
        ("crosswalks", result.crosswalks),
    ):
        for what, shape, about in _labels(path, attribute, notes):
            for line in _lines(shape, what):
                if not is_line(line):
                    result.left_out[f"{attribute.replace('_', ' ')} of too few points"] += 1
                    continue
                layer.append(Line(_id(about, what), line, *drivable_sides(about)))
    for what, shape, about in _labels(path, "wait_lines", notes):
        lines = [line for line in _lines(shape, what) if is_line(line)]
        if not is_stop_line(about.get("type"), about.get("intersection_subtype")):
            result.left_out["wait lines at which nothing has to stop"] += 1
        else:
            result.stop_lines += [Line(_id(about, what), line) for line in lines]
    for attribute, layer in (
        ("traffic_signs", result.stop_signs),
        ("traffic_lights", result.lights),
    ):
        for what, shape, about in _labels(path, attribute, notes):
            if attribute == "traffic_signs" and not is_stop_sign(about.get("sign_class")):
                result.left_out["traffic signs other than stop signs"] += 1
                continue
            corners = [box for box in _lines(shape, what) if len(box) and np.isfinite(box).all()]
            layer += [Line(_id(about, what), box.mean(0, keepdims=True)) for box in corners]
    unused = [name for name in ("poles", "road_markings") if beside(path, f"3d_{name}").is_file()]
    if unused:
        notes.append(f"left out what the map has no type for: {', '.join(unused)}")
    return result


def _labels(
    path: Path, attribute: str, notes: list[str]
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name for messages, shape and attributes of each label of one kind of element."""
    archive = beside(path, f"3d_{attribute}")
    if not archive.is_file():
        notes.append(f"no {attribute.replace('_', ' ')}: the clip has no such archive")
        return
    for name, data in read_members(archive, MAX_JSON):
        if not name.endswith(f"{attribute}.json"):
            continue
        record = parse_json(data, f"{archive}")
        labels = record.get("labels") if isinstance(record, dict) else None
        if not isinstance(labels, list):
            raise ScenarioError(f"{archive}: must be a JSON object with a list 'labels'")
        for i, label in enumerate(labels):
            what = f"{archive}: label {i}"
            body = label.get("labelData") if isinstance(label, dict) else None
            if not isinstance(body, dict):
                raise ScenarioError(f"{what}: must be a JSON object with an object 'labelData'")
            shape = body.get("shape3d")
            if isinstance(shape, dict):  # a clip without such elements has one empty label
                yield what, shape, _attributes(shape.get("attributes"), what)


def _attributes(entries: Any, what: str) -> dict[str, Any]:
    """Attributes by name; each entry has a name and one value under a key that tells its type."""
    if not isinstance(entries, list | None) or any(not isinstance(e, dict) for e in entries or ()):
        raise ScenarioError(f"{what}: 'attributes' must be a list of JSON objects")
    result: dict[str, Any] = {}
    for entry in entries or ():
        values = [value for key, value in entry.items() if key != "name"]
        value = values[0] if values else None
        if isinstance(value, dict):  # {"textList": [...]}, or {} where the list is empty
            value = next(iter(value.values()), [])
        result[str(entry.get("name"))] = value
    return result


def _lines(shape: dict[str, Any], what: str) -> list[np.ndarray]:
    """Points of the polylines, the polygon or the box of a label [m], [n, 3] each."""
    group = shape.get("polylines3d")
    parts = group.get("polylines") if isinstance(group, dict) else None
    if not isinstance(parts, list):
        parts = [shape[key] for key in ("polyline3d", "surface", "cuboid3d") if key in shape]
    if any(not isinstance(p, dict) for p in parts):
        raise ScenarioError(f"{what}: its shape must be a JSON object with 'vertices'")
    return [points(p.get("vertices", []), f"{what}: 'vertices'") for p in parts]


def _ids(about: dict[str, Any], name: str) -> list[str]:
    return known_ids(as_list(about.get(name)))


def _id(about: dict[str, Any], what: str) -> str:
    """The source's identifier, or the place in the archive, which is as unique."""
    return str(about.get("feature_id", what))
