"""A small nuPlan log and map that tests write, in the layout of the dataset.

Meters from a place in Boston: a road along +x with lanes 101 and, on its left, 102, which lead
through a junction (x from 0 to 20) into 103 and 104; from 101 one may turn right into 105, and 106
is oncoming. Connectors in the junction are 201, 202 and 203 (the turn). The ego drives in lane 101
at 8 m/s for 13 s: two scenes of 6 s, and a second that is in none. The map is in degrees.
"""

from __future__ import annotations

import sqlite3
import struct
from pathlib import Path
from typing import Any

import numpy as np

PLACE = np.array([331_000.0, 4_690_000.0])
"""UTM zone 19 north [m]."""
ZONE = "EPSG:32619"
LOCATION, VERSION = "us-ma-boston", "9.12.1817"
BASE_US = 1_620_857_889_651_124
SPEED, START_X, Z = 8.0, -90.0, 50.0
SWEEPS = 261
SCENES = [b"\x01" * 8, b"\x02" * 8]
ROADBLOCKS = {0: "10 302 12", 1: ""}
TRACKS = {
    b"\xa1" * 8: ("vehicle", (4.6, 1.9, 1.6)),
    b"\xa2" * 8: ("pedestrian", (0.7, 0.6, 1.8)),
    b"\xa3" * 8: ("traffic_cone", (0.4, 0.4, 0.8)),
    b"\xa4" * 8: ("pedestrian", (0.7, 0.6, 1.8)),
    b"\xa5" * 8: ("bicycle", (1.8, 0.7, 1.7)),
}
CAR, WALKER, CONE, ON_A_BRIDGE, BICYCLE = TRACKS


def rectangle(x: tuple[float, float], y: tuple[float, float]) -> np.ndarray:
    (a, b), (c, d) = x, y
    return np.array([[a, c], [b, c], [b, d], [a, d], [a, c]])


def line(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, np.float64)


def bend(center: tuple[float, float], radius: float) -> np.ndarray:
    """A quarter to the right, from eastward to southward."""
    angle = np.linspace(np.pi / 2, 0, 9)
    return np.stack(
        [center[0] + radius * np.cos(angle), center[1] + radius * np.sin(angle)], axis=1
    )


CENTERS = {
    101: line((-150, 0), (-50, 0), (0, 0)),
    102: line((-150, 3.5), (0, 3.5)),
    103: line((20, 0), (150, 0)),
    104: line((20, 3.5), (150, 3.5)),
    105: line((10, -10), (10, -120)),
    106: line((0, 7), (-150, 7)),
    900: line((2000, 0), (2100, 0)),
    201: line((0, 0), (20, 0)),
    202: line((0, 3.5), (20, 3.5)),
    203: bend((0, -10), 10),
}
LANES = {  # lane group, index from the left, speed limit
    101: (10, 1, 11.0),
    102: (10, 0, 11.0),
    103: (11, 1, None),
    104: (11, 0, None),
    105: (12, 0, 8.0),
    106: (13, 0, 11.0),
    900: (14, 0, 11.0),
}
CONNECTORS = {201: (101, 103, 301), 202: (102, 104, 301), 203: (101, 105, 302)}
"""The lane that is left, the one that is entered, and the group."""
ISLAND = rectangle((13.5, 16.5), (-9, -6))
"""A hole in the junction."""
AREAS = {
    "road_segments": [[rectangle((-150, 0), (-1.75, 8.75))], [rectangle((20, 150), (-1.75, 8.75))]],
    "intersections": [[rectangle((0, 20), (-10, 8.75)), ISLAND]],
    "generic_drivable_areas": [[rectangle((8, 12), (-120, -10))]],
    "carpark_areas": [[rectangle((-60, -40), (-8, -1.75))]],
}
BOUNDARIES = [(0, line((-150, 1.75), (0, 1.75))), (3, line((-150, -1.75), (0, -1.75)))]
CROSSWALKS = [rectangle((-10, -7), (-1.75, 8.75))]
STOPS = [
    (1, rectangle((-3, -1), (-1.7, 1.7))),
    (2, rectangle((-3, -1), (1.8, 5))),
    (0, rectangle((-13, -12), (-1, 1))),
]


def seconds() -> np.ndarray:
    """Times of the sweeps [s], which are not exactly 50 ms apart."""
    jitter = np.random.default_rng(3).uniform(-0.002, 0.002, SWEEPS)
    jitter[0] = 0
    return 0.05 * np.arange(SWEEPS) + jitter


def pose_of_axle(t: float) -> tuple[float, float, float]:
    return START_X + SPEED * t, 0.0, 0.0


def boxes(t: float) -> dict[bytes, tuple[float, float, float, float, float, float]]:
    """Track: x, y, height over the ground of the center, yaw, vx, vy."""
    x = START_X + SPEED * t
    seen = {
        CAR: (x + 20, 0.0, 0.8, 0.0, SPEED, 0.0),
        CONE: (-45.0, -6.0, 0.4, 0.0, 0.0, 0.0),
        ON_A_BRIDGE: (-70.0, -5 + t, 8.0, np.pi / 2, 0.0, 1.0),
    }
    if t < 2.0:
        seen[WALKER] = (-60.0 - t, 12.0, 0.9, np.pi, -1.0, 0.0)
    if t > 6.5:
        seen[BICYCLE] = (x - 12, 3.5, 0.9, 0.0, SPEED, 0.0)
    return seen


def light(t: float) -> dict[int, str]:
    shown = {201: "green" if t < 3 else "red"}
    if t > 1:
        shown[203] = "unknown"
    return shown


def fill(db: sqlite3.Connection, name: str, columns: str, rows: list[tuple[Any, ...]]) -> None:
    db.execute(f"CREATE TABLE {name} ({columns})")
    if rows:
        db.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(rows[0]))})", rows)


def write_log(
    path: Path, *, scenes: bool = True, lights: bool = True, map_version: str = LOCATION
) -> Path:
    """The log as a database."""
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path)
    fill(
        db,
        "log",
        "token BLOB PRIMARY KEY, vehicle_name, date, timestamp, logfile, location, map_version",
        [(b"\x0f" * 8, "veh-35", "2021-05-12", BASE_US, path.stem, "boston", map_version)],
    )
    sweeps, poses, seen, shown, tags = [], [], [], [], []
    for i, t in enumerate(seconds()):
        own, pose = struct.pack(">Q", 0x1000 + i), struct.pack(">Q", 0x2000 + i)
        scene = None if not scenes or i > 240 else SCENES[i > 120]
        stamp = BASE_US + round(t * 1e6)
        sweeps.append((own, None, None, scene, pose, b"\x0e" * 8, "", stamp))
        x, y, yaw = pose_of_axle(t)
        q = (float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2)))
        place = (PLACE[0] + x, PLACE[1] + y, Z)
        poses.append((pose, b"\x0f" * 8, stamp, *place, *q, SPEED, 0.0, 0.0, 0.0, 19))
        for track, (bx, by, bz, yaw, vx, vy) in boxes(t).items():
            length, width, height = TRACKS[track][1]
            token = struct.pack(">Q", 0x100000 + len(seen))
            world = (PLACE[0] + bx, PLACE[1] + by, Z - 0.3 + bz)
            seen.append((token, own, track, *world, width, length, height, vx, vy, 0.0, yaw, 0.9))
        for connector, status in light(t).items() if lights else ():
            shown.append((struct.pack(">Q", 0x900000 + len(shown)), own, connector, status))
        if 30 <= i < 90:
            tags.append((struct.pack(">Q", 0xA00000 + i), own, "following_lane_with_lead", None))
        if i == 40:
            tags.append((struct.pack(">Q", 0xB00000 + i), own, "near_construction_zone", None))
    fill(
        db,
        "lidar_pc",
        "token BLOB PRIMARY KEY, next_token, prev_token, scene_token, ego_pose_token, lidar_token, "
        "filename, timestamp INTEGER",
        sweeps,
    )
    fill(
        db,
        "ego_pose",
        "token BLOB PRIMARY KEY, log_token, timestamp, x, y, z, qw, qx, qy, qz, vx, vy, vz, "
        "angular_rate_z, epsg",
        poses,
    )
    fill(
        db,
        "lidar_box",
        "token BLOB PRIMARY KEY, lidar_pc_token, track_token, x, y, z, width, length, height, "
        "vx, vy, vz, yaw, confidence",
        seen,
    )
    fill(
        db,
        "traffic_light_status",
        "token BLOB PRIMARY KEY, lidar_pc_token, lane_connector_id INTEGER, status TEXT",
        shown,
    )
    names = sorted({name for name, _ in TRACKS.values()})
    fill(db, "category", "token BLOB, name, description", [(n.encode(), n, "") for n in names])
    fill(
        db,
        "track",
        "token BLOB PRIMARY KEY, category_token, width, length, height",
        [(t, n.encode(), w, le, h) for t, (n, (le, w, h)) in TRACKS.items()],
    )
    fill(db, "scenario_tag", "token BLOB, lidar_pc_token, type, agent_track_token", tags)
    if scenes:
        rows = [(s, b"\x0f" * 8, f"scene-{i}", None, ROADBLOCKS[i]) for i, s in enumerate(SCENES)]
        fill(db, "scene", "token BLOB, log_token, name, goal_ego_pose_token, roadblock_ids", rows)
    db.commit()
    db.close()
    return path


def blob(kind: int, parts: list[np.ndarray], *, envelope: bool = True, z: bool = False) -> bytes:
    """A GeoPackage geometry in degrees: a line (2), or a polygon (3) with holes."""
    from pyproj import Transformer

    way = Transformer.from_crs(ZONE, 4326, always_xy=True)
    degrees = [np.stack(way.transform(*(part + PLACE).T), axis=1) for part in parts]
    every = np.concatenate(degrees)
    head = b"GP\0" + bytes([1 | 2 * envelope]) + struct.pack("<i", 4326)
    if envelope:
        low, high = every.min(0), every.max(0)
        head += struct.pack("<4d", low[0], high[0], low[1], high[1])
    body = struct.pack("<BI", 1, kind + 1000 * z)
    if kind == 3:
        body += struct.pack("<I", len(parts))
    for part in degrees:
        points = np.column_stack([part, np.full(len(part), 7.0)]) if z else part
        body += struct.pack("<I", len(points)) + points.astype("<f8").tobytes()
    return head + body


def multi(parts: list[np.ndarray]) -> bytes:
    """A multi-polygon without a bounding box, big-endian inside as writers may do."""
    own = [blob(3, [part], envelope=False)[8:] for part in parts]
    return b"GP\0\0" + struct.pack(">i", 4326) + struct.pack(">BII", 0, 6, len(own)) + b"".join(own)


def write_map(path: Path, *, zone: str = "epsg:32619") -> Path:
    """The map as a GeoPackage."""
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA application_id = {int.from_bytes(b'GPKG', 'big')}")
    layers: list[str] = []

    def layer(name: str, columns: str, rows: list[tuple[Any, ...]]) -> None:
        layers.append(name)
        fill(db, name, f"fid INTEGER PRIMARY KEY, geom BLOB{columns}", rows)

    layer(
        "baseline_paths",
        ", lane_fid REAL, lane_connector_fid REAL",
        [
            (
                1000 + i,
                blob(2, [points], z=fid == 101),
                fid if fid in LANES else None,
                None if fid in LANES else fid,
            )
            for i, (fid, points) in enumerate(CENTERS.items())
        ],
    )  # fmt: skip
    layer(
        "lanes_polygons",
        ", lane_fid INTEGER, lane_group_fid INTEGER, lane_index INTEGER, speed_limit_mps REAL",
        [
            (fid, blob(3, [_around(CENTERS[fid])]), fid, *about) for fid, about in LANES.items()
        ],
    )  # fmt: skip
    layer(
        "lane_connectors",
        ", exit_lane_fid, entry_lane_fid, lane_group_connector_fid, speed_limit_mps",
        [(fid, blob(3, [_around(CENTERS[fid])]), *about, 6.0) for fid, about in CONNECTORS.items()],
    )
    for name, polygons in AREAS.items():
        rows = [(50 + i, blob(3, rings)) for i, rings in enumerate(polygons)]
        if name == "road_segments":
            rows = [(50, multi([rings[0] for rings in polygons]))]
        layer(name, "", rows)
    layer(
        "boundaries",
        ", boundary_type_fid INTEGER",
        [(i + 1, blob(2, [points]), kind) for i, (kind, points) in enumerate(BOUNDARIES)],
    )
    layer("crosswalks", "", [(101 + i, blob(3, [ring])) for i, ring in enumerate(CROSSWALKS)])
    layer(
        "stop_polygons",
        ", stop_polygon_type_fid INTEGER",
        [(i + 1, blob(3, [ring]), kind) for i, (kind, ring) in enumerate(STOPS)],
    )
    fill(db, "meta", "fid INTEGER PRIMARY KEY, key TEXT, value TEXT",
         [(1, "mapVersion", VERSION), (2, "projectedCoordSystem", zone)])  # fmt: skip
    fill(
        db,
        "gpkg_geometry_columns",
        "table_name TEXT, column_name TEXT, geometry_type_name TEXT, srs_id INTEGER, z, m",
        [(name, "geom", "GEOMETRY", 4326, 0, 0) for name in layers],
    )
    db.commit()
    db.close()
    return path


def _around(center: np.ndarray) -> np.ndarray:
    low, high = center.min(0) - 1.7, center.max(0) + 1.7
    return rectangle((low[0], high[0]), (low[1], high[1]))


def write_dataset(folder: Path, **options: Any) -> Path:
    """Log and map in the tree of the dataset; the log."""
    maps = folder / "maps"
    write_map(maps / LOCATION / VERSION / "map.gpkg")
    (maps / "nuplan-maps-v1.0.json").write_text("{}")
    splits = folder / "nuplan-v1.1" / "splits" / "mini"
    return write_log(splits / "2021.05.12.22.00.38_veh-35_01008_01518.db", **options)
