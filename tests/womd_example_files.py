"""WOMD tf.Example files that tests write, from Scenario protos or from given map lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from alpagym.scenarios.readers import womd_example_pb2 as pb
from scenario_files import record_bytes
from womd_features import CODES, points_of

AGENTS, SLOTS = 6, 16
STATE = {
    "x": "center_x",
    "y": "center_y",
    "z": "center_z",
    "bbox_yaw": "heading",
    "velocity_x": "velocity_x",
    "velocity_y": "velocity_y",
    "length": "length",
    "width": "width",
    "height": "height",
    "valid": "valid",
}
MOMENTS = {"past": slice(0, 10), "current": slice(10, 11), "future": slice(11, None)}
INTEGERS = ("valid", "id", "type", "state", "is_sdc", "timestamp_micros")


def example_of(proto: Any, agents: int = AGENTS, points: int | None = None) -> dict[str, Any]:
    """The features that the dataset's tf.Example of a Scenario has."""
    frames = len(proto.timestamps_seconds)
    padding = [-1] * (agents - len(proto.tracks))
    features: dict[str, Any] = {
        "scenario/id": [proto.scenario_id.encode()],
        "state/id": [float(t.id) for t in proto.tracks] + padding,
        "state/type": [float(t.object_type) for t in proto.tracks] + padding,
        "state/is_sdc": [int(i == proto.sdc_track_index) for i in range(len(proto.tracks))]
        + padding,
    }
    stamps = np.round(1e6 * np.array(proto.timestamps_seconds)).astype(np.int64)
    for name, field in STATE.items():
        values = np.full((agents, frames), 0.0 if name == "valid" else -1.0, np.float32)
        for row, track in zip(values, proto.tracks, strict=False):
            row[:] = [getattr(s, field) if s.valid or name == "valid" else -1 for s in track.states]
        for moment, part in MOMENTS.items():
            features[f"state/{moment}/{name}"] = values[:, part].ravel().tolist()
    for moment, part in MOMENTS.items():
        features[f"state/{moment}/timestamp_micros"] = np.tile(stamps[part], agents).tolist()
        add_lights(features, moment, list(proto.dynamic_map_states)[part])
    lines = [(f.id, *points_of(f)) for f in proto.map_features]
    add_map(features, [(number, CODES[kind], line) for number, kind, line in lines], points)
    return features


def add_lights(features: dict[str, Any], moment: str, steps: list[Any]) -> None:
    """Lights of some frames, in each from the first slot on."""
    rows = [[(s.lane, s.state, s.stop_point) for s in step.lane_states] for step in steps]
    name = f"traffic_light_state/{moment}"

    def column(pick: Any, empty: float) -> list[Any]:
        return [
            pick(row[slot]) if slot < len(row) else empty for row in rows for slot in range(SLOTS)
        ]

    features[f"{name}/id"] = column(lambda s: s[0], -1)
    features[f"{name}/state"] = column(lambda s: s[1], -1)
    features[f"{name}/valid"] = column(lambda s: 1, 0)
    features[f"{name}/x"] = column(lambda s: s[2].x, -1.0)
    features[f"{name}/y"] = column(lambda s: s[2].y, -1.0)


def add_map(features: dict[str, Any], lines: list[tuple], points: int | None = None) -> None:
    """Map points of lines (id, type code, [n, 3]), padded to `points`, by default with a few."""
    xyz = np.concatenate([line for _, _, line in lines])
    count = points or len(xyz) + 5
    heading = []
    for _, _, line in lines:
        step = np.diff(line, axis=0)
        length = np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-9)
        heading.append(np.concatenate([step / length, np.zeros((min(1, len(line)), 3))]))
    ids = np.concatenate([np.full(len(line), number) for number, _, line in lines])
    codes = np.concatenate([np.full(len(line), code) for _, code, line in lines])
    for name, values, empty in (
        ("xyz", xyz, -1.0),
        ("dir", np.concatenate(heading), -1.0),
        ("id", ids, -1),
        ("type", codes, -1),
        ("valid", np.ones(len(xyz), np.int64), 0),
    ):
        padded = np.full((count, *values.shape[1:]), empty, values.dtype)
        padded[: len(values)] = values[:count]
        features[f"roadgraph_samples/{name}"] = padded.ravel().tolist()


def serialize(features: dict[str, Any]) -> bytes:
    example = pb.Example()
    for name, values in features.items():
        entry = example.features.feature.add(key=name.encode())
        if values and isinstance(values[0], bytes):
            entry.value.bytes_list.value.extend(values)
        elif name.split("/")[-1] in INTEGERS and name not in ("state/id", "state/type"):
            entry.value.int64_list.value.extend(int(v) for v in values)
        else:
            entry.value.float_list.value.extend(values)
    return example.SerializeToString()


def write_examples(path: Path, *features: dict[str, Any]) -> Path:
    path.write_bytes(b"".join(record_bytes(serialize(f)) for f in features))
    return path
