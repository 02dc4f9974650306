"""A small clip that tests write in both NVIDIA formats: RDS-HQ (tar archives), ClipGT (Parquet).

A road along +x: lanes 11 and 12 one after the other, 21 on their left, 31 oncoming; a stop sign
where 11 ends. The ego drives in lane 11 behind a car, past a pedestrian and a parked car.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

CLIP = "clip-7"
SPEED = 6.0
SECONDS = 4.0
BASE_US = 1_700_000_000_000_000
"""Of the time stamps [us]: far beyond what float32 resolves."""


def road(y: float, first: float = -30.0, last: float = 90.0) -> list[list[float]]:
    return [[x, y, 0.0] for x in np.linspace(first, last, 7)]


def lane(number: int, y: tuple[float, float], first: float, last: float, **about: Any) -> dict:
    rails = [road(y[0], first, last), road(y[1], first, last)]
    return {"id": str(number), "rails": rails} | about


LANES = [
    lane(11, (1.75, -1.75), -30, 40, speed_limit=25.0, next=["12"], left=["21"], signs=["91"]),
    lane(12, (1.75, -1.75), 40, 90, speed_limit=25.0, previous=["11"]),
    lane(21, (5.25, 1.75), -30, 40, right=["11"]),
    lane(31, (5.25, 8.75), 90, -30),
]
BOUNDARIES = [("51", road(-2.25)[::-1]), ("52", road(9.25)[::-1])]
"""The first is drawn with the road on its right, the second with the road on its left."""
LANE_LINES = [("61", road(1.75))]
CROSSWALKS = [("71", [[60, -2, 0], [63, -2, 0], [63, 9, 0], [60, 9, 0]])]
WAIT_LINES = [("81-11", "STOP", [[40, -1.75, 0], [40, 1.75, 0]])]
SIGNS = [
    ("91", "TRAFFIC_SIGN_REGULATORY_R1_STOP", [41.0, -3.0, 2.5]),
    ("92", "TRAFFIC_SIGN_WARNING_W3_STOP_AHEAD", [10.0, -3.0, 2.5]),
]
LIGHTS = [("95", [62.0, -3.0, 5.0])]


def objects(k: int) -> dict[str, tuple[str, list[float], float, list[float]]]:
    """Type, center, heading and size of what is seen 0.1 k seconds into the clip."""
    t, last = 0.1 * k, round(10 * SECONDS)
    seen = {
        "101": ("Automobile", [20 + SPEED * t, 0.0, 0.75], 0.0, [4.5, 1.9, 1.5]),
        "103": ("Trailer", [70 - t, 7.0, 1.5], np.pi, [8.0, 2.4, 3.0]),
        "ego": ("EgoVehicle", [SPEED * t, 0.0, 0.7], 0.0, [5.0, 2.0, 1.5]),
    }
    if not 10 <= k < 20:
        seen["102"] = ("Person", [30.0, -4.0 + t, 0.9], np.pi / 2, [0.7, 0.6, 1.8])
    if k in (0, last):
        seen["parked"] = ("Automobile", [15.0, -4.5, 0.8], 0.1, [4.2, 1.8, 1.6])
    return seen


def pose(xyz: list[float], yaw: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    matrix[:3, 3] = xyz
    return matrix


def write_tar(path: Path, members: dict[str, bytes], clip: str = CLIP) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(f"{clip}.{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def label(shape: dict, about: dict[str, Any]) -> dict:
    """A label of the published layout; each attribute has its value under the name of its type."""
    entries = []
    for name, value in about.items():
        typed = {str: "text", float: "numerical", bool: "flag"}.get(type(value), "textList")
        content = {"textList": value} if typed == "textList" and value else {}
        entries.append({"name": name, typed: content if typed == "textList" else value})
    return {"labelData": {"shape3d": {"attributes": entries, **shape}}}


def layers(attributes: bool = True) -> dict[str, list[dict]]:
    """Labels of the map by attribute."""

    def about(number: str, **more: Any) -> dict:
        return {"feature_id": number, **more} if attributes else {}

    def lane_label(one: dict) -> dict:
        values = about(
            one["id"],
            speed_limit=one.get("speed_limit", 0.0),
            next_lane_ids=one.get("next", []),
            previous_lane_ids=one.get("previous", []),
            left_lane_id=one.get("left", ["-1"])[0],
            right_lane_id=one.get("right", ["-1"])[0],
            associated_traffic_sign_ids=one.get("signs", []),
        )
        rails = [{"vertices": rail} for rail in one["rails"]]
        return label({"polylines3d": {"polylines": rails}}, values)

    def box(xyz: list[float]) -> dict:
        corners = [[i - 0.5, j - 0.5, k - 0.5] for i in (0, 1) for j in (0, 1) for k in (0, 1)]
        return {"cuboid3d": {"vertices": (np.array(corners) + xyz).tolist()}}

    def line(points: list) -> dict:
        return {"polyline3d": {"vertices": points}}

    return {
        "lanes": [lane_label(one) for one in LANES],
        "road_boundaries": [label(line(p), about(i)) for i, p in BOUNDARIES],
        "lanelines": [label(line(p), about(i)) for i, p in LANE_LINES],
        "crosswalks": [label({"surface": {"vertices": p}}, about(i)) for i, p in CROSSWALKS],
        "wait_lines": [label(line(p), about(i, type=kind)) for i, kind, p in WAIT_LINES],
        "traffic_signs": [label(box(p), {"sign_class": kind, **about(i)}) for i, kind, p in SIGNS],
        "traffic_lights": [label(box(p), about(i)) for i, p in LIGHTS],
    }


def write_rds_hq(
    folder: Path,
    clip: str = CLIP,
    *,
    attributes: bool = True,
    stamps: bool = True,
    map_too: bool = True,
) -> Path:
    """The clip as RDS-HQ; the archive of its ego poses."""
    frames = round(30 * SECONDS) + 1
    poses = {
        f"{i:06d}.vehicle_pose.npy": npy(pose([SPEED * i / 30, 0, 0], 0)) for i in range(frames)
    }
    seen = {
        f"{i:06d}.all_object_info.json": json.dumps(
            {
                name: {
                    "object_to_world": pose(xyz, yaw).tolist(),
                    "object_lwh": size,
                    "object_is_moving": True,
                    "object_type": kind,
                }
                for name, (kind, xyz, yaw, size) in objects(i // 3).items()
            }
        ).encode()
        for i in range(0, frames, 3)
    }
    times = {
        f"{i:06d}.timestamp_micros.txt": str(BASE_US + round(i * 1e6 / 30)).encode()
        for i in range(frames)
    }
    path = write_tar(folder / "vehicle_pose" / f"{clip}.tar", poses, clip)
    write_tar(folder / "all_object_info" / f"{clip}.tar", seen, clip)
    if stamps:
        write_tar(folder / "timestamp" / f"{clip}.tar", times, clip)
    for name, labels in layers(attributes).items() if map_too else ():
        data = json.dumps({"labels": labels}).encode()
        write_tar(folder / f"3d_{name}" / f"{clip}.tar", {f"{name}.json": data}, clip)
    return path


def write_table(path: Path, rows: list[dict]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def xyz(point: list[float]) -> dict[str, float]:
    return dict(zip("xyz", map(float, point), strict=True))


def turn(yaw: float) -> dict[str, float]:
    return {"x": 0.0, "y": 0.0, "z": float(np.sin(yaw / 2)), "w": float(np.cos(yaw / 2))}


def write_clipgt(
    folder: Path, clip: str = CLIP, *, prefix: bool = True, text_speeds: bool = False
) -> Path:
    """The clip as ClipGT; the table of its ego poses.

    `text_speeds` is the dialect with texts where the other has numbers, and links in a table.
    """

    def path(element: str) -> Path:
        return folder / (f"{clip}.{element}.parquet" if prefix else f"{element}.parquet")

    def row(element: str, number: str, **payload: Any) -> dict:
        return {"key": {"clip_id": clip, "map_id": number}, element: payload, "version": 1}

    def line(points: list) -> list[dict]:
        return [xyz(p) for p in points]

    limit = {11: 25.0, 12: 25.0}
    lanes = [
        row(
            "lane",
            one["id"],
            left_rail=line(one["rails"][0]),
            right_rail=line(one["rails"][1]),
            speed_limit=str(limit.get(int(one["id"]), "")) if text_speeds
            else limit.get(int(one["id"]), 0.0),
        )
        for one in LANES
    ]  # fmt: skip
    write_table(path("lane"), lanes)
    if text_speeds:
        kinds = {"next": "NEXT_LANE", "previous": "PREVIOUS_LANE", "left": "LEFT_LANE",
                 "right": "RIGHT_LANE", "signs": "LANE_TO_SIGN"}  # fmt: skip
        write_table(
            path("association"),
            [
                {
                    "key": {"clip_id": clip, "kind": kind},
                    "association": {"subjects": [one["id"]], "objects": one[name]},
                }
                for one in LANES
                for name, kind in kinds.items()
                if name in one
            ],
        )
    tables = {
        "road_boundary": [row("road_boundary", i, location=line(p)) for i, p in BOUNDARIES],
        "lane_line": [row("lane_line", i, line_rail=line(p)) for i, p in LANE_LINES],
        "crosswalk": [row("crosswalk", i, location=line(p)) for i, p in CROSSWALKS],
        "wait_line": [
            row("wait_line", i, category=kind, location=line(p)) for i, kind, p in WAIT_LINES
        ],
        "traffic_sign": [
            row("traffic_sign", i, category=kind, center=xyz(p)) for i, kind, p in SIGNS
        ],
        "traffic_light": [row("traffic_light", i, center=xyz(p)) for i, p in LIGHTS],
        "obstacle": [
            {
                "key": {"clip_id": clip, "timestamp_micros": BASE_US + 100_000 * k},
                "obstacle": {
                    "trackline_id": name,
                    "center": xyz(center),
                    "size": xyz(size),
                    "orientation": turn(yaw),
                    "category": kind.lower(),
                },
            }
            for k in range(round(10 * SECONDS) + 1)
            for name, (kind, center, yaw, size) in objects(k).items()
        ],
        "egomotion_estimate": [
            {
                "key": {"clip_id": clip, "timestamp_micros": BASE_US + 100_000 * k},
                "egomotion_estimate": {
                    "location": xyz([SPEED * 0.1 * k, 0, 0]),
                    "orientation": turn(0.0),
                },
            }
            for k in range(round(10 * SECONDS) + 1)
        ],
    }
    for element, rows in tables.items():
        write_table(path(element), rows)
    return path("egomotion_estimate")
