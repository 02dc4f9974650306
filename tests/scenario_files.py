"""Small recorded-scenario files that tests write: a straight road, one car behind another."""

from __future__ import annotations

import copy
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from alpagym.scenarios.readers import womd_scenario_pb2 as pb
from alpagym.scenarios.readers.tfrecord import masked_crc32c

FRAMES = 40
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def json_object(
    x0: float, speed: float, *, valid: list[bool] | None = None, **changes: Any
) -> dict:
    """A vehicle that drives along +x at `speed` from `x0`, far from the origin."""
    x = 5000.0 + x0 + speed * 0.1 * np.arange(FRAMES)
    record = {
        "position": [{"x": float(v), "y": -3000.0, "z": 10.8} for v in x],
        "heading": [0.0] * FRAMES,
        "velocity": [{"x": speed, "y": 0.0}] * FRAMES,
        "valid": valid or [True] * FRAMES,
        "length": 4.6,
        "width": 2.0,
        "height": 1.6,
        "type": "vehicle",
        "id": int(x0) + 100,
    }
    return copy.deepcopy(record | changes)


def json_road(kind: str, points: list[tuple[float, float]], number: int) -> dict:
    return {
        "type": kind,
        "id": number,
        "geometry": [{"x": 5000.0 + x, "y": -3000.0 + y, "z": 10.0} for x, y in points],
    }


def json_scenario(**changes: Any) -> dict:
    """Two cars on a lane of two pieces, edges on both sides, a light where the second begins."""
    states = ["stop"] * 10 + ["go"] * 10
    record = {
        "name": "made",
        "scenario_id": "made-1",
        "objects": [json_object(0, 8.0), json_object(15, 8.0)],
        "roads": [
            json_road("lane", [(-20, 0), (0, 0), (30, 0)], 1),
            json_road("lane", [(30.1, 0), (80, 0), (200, 0)], 2),
            json_road("lane", [(30.1, 0), (40, 5), (60, 20)], 3),
            json_road("road_edge", [(-20, -4), (200, -4)], 4),
            json_road("road_edge", [(200, 4), (-20, 4)], 5),
            json_road("crosswalk", [(20, -4), (23, -4), (23, 4), (20, 4)], 6),
            json_road("lane", [(50, 0)], 7),
        ],
        "tl_states": {
            "2": {"state": states, "x": [5030.1] * 20, "y": [-3000.0] * 20, "z": [10.0] * 20,
                  "time_index": list(range(5, 25))}
        },
        "metadata": {"sdc_track_index": 0, "objects_of_interest": [], "tracks_to_predict": []},
    }  # fmt: skip
    return record | changes


def write_json(path: Path, record: Any) -> Path:
    path.write_text(json.dumps(record))
    return path


def proto_scenario() -> pb.Scenario:
    """The same road as a WOMD Scenario, with links, a neighbor, limits, a light and a stop sign."""
    scenario = pb.Scenario(scenario_id="made-2", current_time_index=10, sdc_track_index=1)
    scenario.timestamps_seconds.extend(0.1 * i + 0.0001 * (i % 2) for i in range(FRAMES))
    for number, x0 in ((7, 15.0), (9, 0.0)):
        track = scenario.tracks.add(id=number, object_type=1)
        for i in range(FRAMES):
            track.states.add(
                center_x=5000 + x0 + 0.8 * i, center_y=-3000, center_z=10.8, length=4.6, width=2.0,
                height=1.6, heading=2 * np.pi, velocity_x=8.0, velocity_y=0.0, valid=True,
            )  # fmt: skip

    def points(target: Any, xy: list[tuple[float, float]]) -> None:
        for x, y in xy:
            target.add(x=5000 + x, y=-3000 + y, z=10.0)

    for number, y, xy in (
        (1, 0, (-20, 30)),
        (2, 0, (30, 200)),
        (3, 3.5, (-20, 30)),
        (4, 7, (30, -20)),
    ):
        feature = scenario.map_features.add(id=number)
        feature.lane.speed_limit_mph = 25.0 if number < 3 else 0.0
        points(feature.lane.polyline, [(x, y) for x in xy])
        if number == 1:
            feature.lane.exit_lanes.extend([2, 999])
            feature.lane.left_neighbors.add(feature_id=3, self_start_index=0, self_end_index=1)
        if number == 3:
            feature.lane.left_neighbors.add(feature_id=4, self_start_index=0, self_end_index=1)
    edge = scenario.map_features.add(id=10)
    points(edge.road_edge.polyline, [(-20, -4), (200, -4)])
    sign = scenario.map_features.add(id=11)
    sign.stop_sign.lane.append(2)
    sign.stop_sign.position.x, sign.stop_sign.position.y = 5030, -3006
    for i in range(FRAMES):
        step = scenario.dynamic_map_states.add()
        if i > 4:
            light = step.lane_states.add(lane=2, state=4 if i < 20 else 6)
            light.stop_point.x, light.stop_point.y, light.stop_point.z = 5030, -3000, 10
    return scenario


def record_bytes(data: bytes) -> bytes:
    """One TFRecord."""
    head = struct.pack("<Q", len(data))
    crcs = [struct.pack("<I", masked_crc32c(part)) for part in (head, data)]
    return head + crcs[0] + data + crcs[1]


def write_tfrecord(path: Path, *protos: pb.Scenario) -> Path:
    path.write_bytes(b"".join(record_bytes(p.SerializeToString()) for p in protos))
    return path
