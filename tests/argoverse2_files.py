"""Small Argoverse 2 logs that tests write: a straight road, and a car that turns off it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

LOG = "0f0e0d0c-0000-3000-8000-000000000001"
ORIGIN = np.array([5000.0, -3000.0, 20.0])
AXLE = 1.339
NS = 315_971_916_960_141_000
"""A stamp of the first sweep [ns]."""


def points(xyz) -> list[dict]:
    return [
        {"x": float(x), "y": float(y), "z": float(z)}
        for x, y, z in np.asarray(xyz, np.float64) + ORIGIN
    ]


def lane(number: int, x, left: float, right: float, **changes) -> dict:
    """A straight lane along x (in the order given) between two values of y; the left is finer."""
    fine = np.linspace(x[0], x[1], 6)
    record = {
        "id": number,
        "is_intersection": False,
        "lane_type": "VEHICLE",
        "left_lane_boundary": points([(v, left, 0.01 * v) for v in fine]),
        "right_lane_boundary": points([(v, right, 0.01 * v) for v in x]),
        "left_lane_mark_type": "NONE",
        "right_lane_mark_type": "UNKNOWN",
        "predecessors": [],
        "successors": [],
        "left_neighbor_id": None,
        "right_neighbor_id": None,
    }
    return record | changes


def city_map(**changes) -> dict:
    """A road along +x: lane 1 and on to 2, lane 3 beside it on the right, 4 oncoming on the left.

    It leaves the map in the east, where the drivable area is cut off at x = 150, and is closed in
    the west at x = -50.
    """
    lanes = [
        lane(1, (-40, 50), 0, -3.5, left_neighbor_id=4, right_neighbor_id=3,
             left_lane_mark_type="DOUBLE_SOLID_YELLOW", right_lane_mark_type="DASHED_WHITE"),
        lane(2, (50, 149), 0, -3.5, predecessors=[1], successors=[99]),
        lane(3, (-40, 50), -3.5, -7, left_neighbor_id=1),
        lane(4, (50, -40), 0, 3.5, left_neighbor_id=1, left_lane_mark_type="DOUBLE_SOLID_YELLOW"),
    ]  # fmt: skip
    area = [(-50, -7, 0), (-50, 3.5, 0), (150, 3.5, 0), (150, -7, 0), (-50, -7, 0)]
    crossing = {
        "edge1": points([(10, -7, 0), (10, 3.5, 0)]),
        "edge2": points([(14, -7, 0), (14, 3.5, 0)]),
        "id": 7,
    }
    record = {
        "lane_segments": {str(record["id"]): record for record in lanes},
        "pedestrian_crossings": {"7": crossing},
        "drivable_areas": {"8": {"area_boundary": points(area), "id": 8}},
    }
    return record | changes


def arc(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions [n, 2] and headings [n] of a rear axle at 5 m/s on a circle of 25 m radius."""
    yaw = 0.2 * t
    return np.stack([25 * np.sin(yaw), 25 * (1 - np.cos(yaw)) - 1.75], axis=1), yaw


def motion_rows() -> list[dict]:
    """The recording car on an arc, a bus with a gap, a rider and a cone; 110 steps."""
    rows = []

    def row(track, kind, step, xy, yaw, velocity):
        place = np.asarray(xy) + ORIGIN[:2]
        rows.append({
            "observed": step < 50, "track_id": track, "object_type": kind, "object_category": 1,
            "timestep": step, "position_x": place[0], "position_y": place[1], "heading": yaw,
            "velocity_x": velocity[0], "velocity_y": velocity[1], "scenario_id": LOG,
            "start_timestamp": float(NS), "num_timestamps": 110, "focal_track_id": "17",
            "city": "austin",
        })  # fmt: skip

    for step in range(110):
        (xy,), (yaw,) = arc(np.array([0.1 * step]))
        row("AV", "vehicle", step, xy, yaw, (5 * np.cos(yaw), 5 * np.sin(yaw)))
        if not 20 <= step < 30:
            row("17", "bus", step, (30 + 0.5 * step, -5.25), 2 * np.pi, (5.0, 0.0))
    for step in range(40, 60):
        row("rider-a", "motorcyclist", step, (-0.3 * step, 1.75), np.pi, (-3.0, 0.0))
    row("9", "construction", 3, (0, 3), 0.0, (0.0, 0.0))
    return rows


def write_motion(folder: Path, rows=None, **changes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"log_map_archive_{LOG}.json").write_text(json.dumps(city_map(**changes)))
    path = folder / f"scenario_{LOG}.parquet"
    pa.parquet.write_table(pa.Table.from_pylist(motion_rows() if rows is None else rows), path)
    return path


def quaternion(yaw: float, pitch: float = 0.0) -> np.ndarray:
    """Quaternion w, x, y, z of a rotation by pitch about y, then by yaw about z."""
    a, b = yaw / 2, pitch / 2
    return np.array(
        [
            np.cos(a) * np.cos(b),
            -np.sin(a) * np.sin(b),
            np.cos(a) * np.sin(b),
            np.sin(a) * np.cos(b),
        ]
    )


def matrix(yaw: float, pitch: float = 0.0) -> np.ndarray:
    c, s, d, e = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return turn @ np.array([[d, 0, e], [0, 1, 0], [-e, 0, d]])


PITCH = 0.05


def ego_pose(t: float) -> tuple[np.ndarray, float]:
    """Position in the city and heading of the rear axle, 0.3 m over a road that falls by PITCH."""
    (xy,), (yaw,) = arc(np.array([t]))
    return ORIGIN + np.array([*xy, 0.3]), yaw


def sensor_tables(jitter: float = 0.0004) -> tuple[list[dict], list[dict]]:
    """Boxes and poses: a car at 10 m/s along +x, a parked truck, a bicycle with a gap."""
    steps = np.arange(60)
    stamps = NS + (1e8 * steps + 1e9 * jitter * steps).astype(np.int64)
    boxes, poses = [], []
    for stamp in np.unique([*stamps, *(NS + 5_000_000 * np.arange(-3, 1220))]):
        place, yaw = ego_pose((int(stamp) - NS) * 1e-9)
        q = quaternion(yaw, PITCH)
        poses.append(dict(zip(("timestamp_ns", "qw", "qx", "qy", "qz", "tx_m", "ty_m", "tz_m"),
                              (int(stamp), *q, *place), strict=True)))  # fmt: skip
    for k, stamp in zip(steps, stamps, strict=True):
        t = (int(stamp) - NS) * 1e-9
        others = [
            ("car", "REGULAR_VEHICLE", (4.5, 1.9, 1.6), (10 * t, -5.25, 0.8)),
            ("truck", "BOX_TRUCK", (8.0, 2.5, 3.0), (60.0, -5.25, 1.5)),
        ]
        if not 20 <= k < 26:
            others.append(("bike", "BICYCLE", (1.8, 0.6, 1.2), (-5.0, 2.0, 0.6)))
        place, yaw = ego_pose(t)
        for track, kind, size, xyz in others:
            local = matrix(yaw, PITCH).T @ (ORIGIN + xyz - place)
            # The inverse of the ego's rotation: first -yaw about z, then -PITCH about y.
            w, x, y, z = quaternion(yaw, PITCH) * [1, -1, -1, -1]
            boxes.append({
                "timestamp_ns": int(stamp), "track_uuid": track, "category": kind,
                "length_m": size[0], "width_m": size[1], "height_m": size[2],
                "qw": w, "qx": x, "qy": y, "qz": z,
                "tx_m": local[0], "ty_m": local[1], "tz_m": local[2], "num_interior_pts": 9,
            })  # fmt: skip
    return boxes, poses


def write_sensor(
    folder: Path, boxes=None, poses=None, name: str = "annotations.feather", **changes
) -> Path:
    (folder / "map").mkdir(parents=True, exist_ok=True)
    own = sensor_tables() if boxes is None or poses is None else (boxes, poses)
    pa.feather.write_feather(pa.Table.from_pylist(boxes or own[0]), folder / name)
    pa.feather.write_feather(
        pa.Table.from_pylist(poses or own[1]), folder / "city_SE3_egovehicle.feather"
    )
    archive = folder / "map" / f"log_map_archive_{LOG}____PIT_city_47896.json"
    archive.write_text(json.dumps(city_map(**changes)))
    (folder / "map" / f"{LOG}___img_Sim2_city.json").write_text('{"R": [1, 0, 0, 1], "s": 1}')
    return folder / name
