"""AlpaSim scenes that tests write: the drive and the map of `nvidia_files` in one archive."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import nvidia_files as files

SCENE = "clipgt-01d503d4-449b-46fc-8d78-9085e70d3554"
BOX = {"centroid": [1.4, 0.1, 0.8], "dim": [5.0, 2.0, 1.5], "rot": [0.0, 0.0, 0.0]}
YAML = f"""# written by a trainer
scene_id: {SCENE}
version_string: 26.02
sensors:
  camera_ids: [camera_front_wide_120fov]
time_range: {{start: 0.0, end: 4.0}}
"""


def rigs(box: dict | None = BOX, count: int = 1) -> dict:
    """Poses of the rear axle at 10 Hz, the first off the rhythm."""
    stamps = [files.BASE_US + 100_000 * k for k in range(round(10 * files.SECONDS) + 1)]
    poses = [files.pose([files.SPEED * 0.1 * k, 0, 0], 0).tolist() for k in range(len(stamps))]
    rig = {
        "sequence_id": "clip",
        "T_rig_world_timestamps_us": stamps,
        "T_rig_worlds": poses,
        "cameras_frame_timestamps_us": {"camera@clip": [[stamps[0], stamps[0] + 30_000]]},
        "rig_bbox": None if box is None else dict(box),
    }
    return {
        "world_to_nre": {"matrix": np.eye(4).tolist()},
        "T_world_base": np.eye(4).tolist(),
        "camera_calibrations": {"camera@clip": {"logical_sensor_name": "camera"}},
        "rig_trajectories": [rig] * count,
    }


def tracks(label: Callable[[str], str] = str.lower) -> dict:
    """The other agents of `nvidia_files`, each at its own times."""
    ids, labels, stamps, poses, sizes = [], [], [], [], []
    for name in ("101", "102", "103", "parked"):
        seen = [(k, files.objects(k)[name]) for k in range(41) if name in files.objects(k)]
        shift = {"101": 0, "102": 3_000}.get(name, 0)
        ids.append(name)
        labels.append(label(seen[0][1][0]))
        stamps.append([files.BASE_US + 100_000 * k + shift for k, _ in seen])
        poses.append([[*at, *files.turn(yaw).values()] for _, (_, at, yaw, _) in seen])
        sizes.append(seen[0][1][3])
    return {
        "dummy_chunk_id": {
            "tracks_data": {
                "tracks_id": ids,
                "tracks_label_class": labels,
                "tracks_flags": ["DYNAMIC|CONTROLLABLE"] * len(ids),
                "tracks_timestamps_us": stamps,
                "tracks_poses": poses,
            },
            "cuboidtracks_data": {"cuboids_dims": sizes},
        }
    }


def tables(folder: Path, prefix: bool = False) -> dict[str, bytes]:
    """Map tables by name, and those of ego and obstacles, which are not read."""
    files.write_clipgt(folder, prefix=prefix, text_speeds=True)
    found = {p.name: p.read_bytes() for p in sorted(folder.iterdir())}
    shutil.rmtree(folder)
    return found


def members(map_tables: dict[str, bytes], folder: str = "map_data") -> dict[str, bytes | str]:
    return {
        "metadata.yaml": YAML,
        "rig_trajectories.json": json.dumps(rigs()),
        "sequence_tracks.json": json.dumps(tracks()),
        "mesh.ply": b"ply" * 1000,
        "checkpoint.ckpt": b"\x80\x04evil",
        **{f"{folder}/{name}": data for name, data in map_tables.items()},
    }


def write(path: Path, content: dict[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path
