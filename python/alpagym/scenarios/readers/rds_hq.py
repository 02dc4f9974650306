"""NVIDIA RDS-HQ: a folder with a tar archive per attribute and clip, `<attribute>/<clip>.tar`.

The ego poses (`vehicle_pose`, or `pose` of the front camera where there is no other) carry a clip;
its objects, time stamps and map lie in archives of the same name beside them. Poses come at 30 Hz,
objects at 10 Hz, numbered alike; the world frame is the rig in the first frame.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alpagym.scenarios.readers.nvidia_map import assemble_clip
from alpagym.scenarios.readers.nvidia_tracks import (
    DEFAULT_BOX,
    TYPES,
    Boxes,
    build_tracks,
    no_boxes,
)
from alpagym.scenarios.readers.rds_hq_map import LAYERS, MAX_JSON, beside, parse_json, source_map
from alpagym.scenarios.readers.tar import read_members
from alpagym.scenarios.scenario import AgentType, Scenario, ScenarioError

POSE_RATE = 30.0
"""Of the frame numbers, where no time stamps tell [Hz]."""
MAX_SMALL = 2**16
"""Largest member that holds one pose or time stamp [bytes]."""
MAX_OBSERVATIONS = 200_000
CAMERA = "camera_front_wide_120fov"
CAMERA_AHEAD, CAMERA_HEIGHT = 1.7, 1.45
"""Where the front camera of these vehicles sits from the rear axle on the ground [m]."""
_POSES = ("vehicle_pose", "pose")
_PARTS = re.compile(r"3d_\w+|all_object_info|timestamp|\w*intrinsic\w*|lidar\w*|pose|captions?")
_NPY = re.compile(
    rb"\{'descr': '([<>]f[48])', 'fortran_order': (True|False), 'shape': \(4, 4\), \}\s*"
)


def sniff(head: bytes, path: Path) -> bool:
    """Whether the file is the archive of a clip's ego poses, by its folder or its first member."""
    if path.suffix.lower() == ".tar" and path.parent.name in _POSES:
        return path.parent.name == "vehicle_pose" or not beside(path, "vehicle_pose").is_file()
    return b".vehicle_pose.npy" in head[:100] and head[257:262] == b"ustar"


def part(path: Path) -> bool:
    """Whether the file belongs to a clip of which the ego poses lie beside it."""
    carriers = [name for name in _POSES if name != path.parent.name]
    known = path.suffix.lower() == ".tar" and _PARTS.fullmatch(path.parent.name) is not None
    return known and any(beside(path, name).is_file() for name in carriers)


def inputs(path: Path) -> list[Path]:
    """The other archives of a clip that are read."""
    return [beside(path, name) for name in ("timestamp", "all_object_info", *LAYERS)]


def read(path: Path) -> Iterator[Scenario | ScenarioError]:
    """The one scenario of a clip; see `Reader.read`."""
    notes: list[str] = []
    frames, poses = _ego_poses(path, notes)
    seconds = _frame_times(beside(path, "timestamp"), frames, notes)
    boxes = _boxes(beside(path, "all_object_info"), frames, seconds, notes)
    tracks = build_tracks(seconds, poses, DEFAULT_BOX, boxes, str(path), notes)
    made = source_map(path, notes)
    yield assemble_clip(
        path.stem, str(path), tracks, made, notes, dataset="rds-hq", license="cc-by-4.0"
    )


def _ego_poses(path: Path, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Frame numbers in order [n] and rig poses [n, 4, 4] of a clip."""
    from_camera = path.parent.name == "pose"
    suffix = rf"pose\.{CAMERA}" if from_camera else "vehicle_pose"
    found = {}
    for number, what, data in _frames(path, rf"{suffix}\.npy", MAX_SMALL):
        found[number] = _pose(data, what)
    if not found:
        raise ScenarioError(f"{path}: holds no members named <clip>.<frame>.{suffix}.npy")
    frames = np.array(sorted(found))
    poses = np.stack([found[i] for i in frames])
    if from_camera:
        # Camera axes: right, down, forward. The rig stands level below it: its pitch is ignored.
        forward = poses[:, :3, 2] * [1, 1, 0]
        length = np.linalg.norm(forward, axis=1, keepdims=True)
        forward /= np.where(length > 1e-3, length, np.nan)
        up = np.tile([0.0, 0.0, 1.0], (len(frames), 1))
        left = np.cross(up, forward)
        place = poses[:, :3, 3] - CAMERA_AHEAD * forward - CAMERA_HEIGHT * up
        poses[:, :3] = np.stack([forward, left, up, place], 2)
        notes.append(
            "no vehicle poses: took those of the front camera, "
            f"{CAMERA_AHEAD} m ahead of the rear axle and {CAMERA_HEIGHT} m high"
        )
    return frames, poses


def _frames(path: Path, suffix: str, max_size: int) -> Iterator[tuple[int, str, bytes]]:
    """Frame number, name for messages and content of the members `<clip>.<frame>.<suffix>`."""
    pattern = re.compile(rf"(?:.*[./])?(\d{{1,9}})\.{suffix}", re.DOTALL)
    seen = set()
    for name, data in read_members(path, max_size):
        match = pattern.fullmatch(name)
        if match is None:
            continue
        number = int(match[1])
        if number in seen:
            raise ScenarioError(f"{path}: holds frame {number} twice")
        seen.add(number)
        yield number, f"{path}: frame {number}", data


def _pose(data: bytes, what: str) -> np.ndarray:
    """A 4 x 4 matrix of a .npy file, which is parsed here lest it asks for memory or runs code."""
    match, body = None, b""
    if data[:6] == b"\x93NUMPY" and len(data) > 12:
        begin = 10 if data[6] == 1 else 12
        end = begin + int.from_bytes(data[8:begin], "little")
        match, body = _NPY.fullmatch(data[begin:end]), data[end:]
    if match is None or len(body) != 16 * int(match[1][2:]):
        raise ScenarioError(f"{what}: must be a .npy file of 4 x 4 floats")
    pose = np.frombuffer(body, match[1].decode()).reshape(4, 4).astype(np.float64)
    return pose.T if match[2] == b"True" else pose


def _frame_times(path: Path, frames: np.ndarray, notes: list[str]) -> np.ndarray:
    """Time of each frame [s], from the first one on, [n]."""
    stamps: dict[int, int] = {}
    if path.is_file():
        for number, what, data in _frames(path, r"timestamp_micros\.txt", MAX_SMALL):
            text = data.strip()
            if not text.lstrip(b"-").isdigit() or len(text) > 18:
                raise ScenarioError(f"{what}: must be a time in microseconds, got {text[:20]!r}")
            stamps[number] = int(text)
    if len(stamps) < 2:
        notes.append(f"no time stamps: frames are taken to be {POSE_RATE:g} Hz")
        return (frames - frames[0]) / POSE_RATE
    numbers = np.array(sorted(stamps))
    first = stamps[int(numbers[0])]
    seconds = np.array([(stamps[int(i)] - first) * 1e-6 for i in numbers])
    if (np.diff(seconds) <= 0).any():
        frame = int(numbers[np.flatnonzero(np.diff(seconds) <= 0)[0] + 1])
        raise ScenarioError(f"{path}: the time stamp of frame {frame} is not after the one before")
    outside = (frames < numbers[0]) | (frames > numbers[-1])
    times = np.interp(frames, numbers, seconds)
    times += np.where(outside, frames - np.clip(frames, numbers[0], numbers[-1]), 0) / POSE_RATE
    return times - times[0]


def _boxes(path: Path, frames: np.ndarray, seconds: np.ndarray, notes: list[str]) -> Boxes:
    """Observations of all objects that are road users."""
    if not path.is_file():
        notes.append("no objects: the ego is alone")
        return no_boxes()
    agents: dict[str, int] = {}
    types: list[AgentType] = []
    order: list[int] = []
    numbers: list[int] = []
    places, sizes = [np.zeros((0, 4, 4))], [np.zeros((0, 3))]
    own = others = 0
    for number, what, data in _frames(path, r"all_object_info\.json", MAX_JSON):
        record = parse_json(data, what)
        if not isinstance(record, dict):
            raise ScenarioError(f"{what}: must be a JSON object, got {type(record).__name__}")
        users = {}
        for name, entry in record.items():
            label = str(entry.get("object_type")).lower() if isinstance(entry, dict) else "none"
            own += label in ("ego", "egovehicle")
            others += label not in ("ego", "egovehicle", *TYPES)
            if label in TYPES:
                users[name] = entry
                if name not in agents:
                    agents[name] = len(types)
                    types.append(TYPES[label])
        order += [agents[name] for name in users]
        numbers += [number] * len(users)
        if len(order) > MAX_OBSERVATIONS:
            raise ScenarioError(f"{path}: holds more than {MAX_OBSERVATIONS} observations")
        if users:
            places.append(_field(users, "object_to_world", (4, 4), what))
            sizes.append(_field(users, "object_lwh", (3,), what))
    if own:
        notes.append(f"left out {own} records of the ego among the objects")
    if others:
        notes.append(f"left out {others} records of objects that are no road users")
    if not order:
        notes.append("no objects: the ego is alone")
        return no_boxes()
    agent, number_of = np.array(order), np.array(numbers)
    place, size = np.concatenate(places), np.concatenate(sizes)
    inside = (number_of >= frames[0]) & (number_of <= frames[-1])
    if not inside.all():
        notes.append(f"left out {(~inside).sum()} observations before or after the ego poses")
    place = place[inside]
    return Boxes(
        agent[inside],
        np.asarray(np.interp(number_of[inside], frames, seconds)),
        place[:, :3, 3],
        np.arctan2(place[:, 1, 0], place[:, 0, 0]),
        size[inside],
        list(agents),
        types,
    )


def _field(
    entries: dict[str, dict[str, Any]], key: str, shape: tuple[int, ...], what: str
) -> np.ndarray:
    """One field of all objects of a frame, finite float64 [n, *shape]."""
    values = [entry.get(key) for entry in entries.values()]
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.zeros(0)
    if array.shape == (len(values), *shape) and np.isfinite(array).all():
        return array
    return np.stack(
        [
            _array(value, shape, f"{what}, object {name[:40]!r}: '{key}'")
            for name, value in zip(entries, values, strict=True)
        ]
    )


def _array(value: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Finite numbers of a JSON list as float64 of the given shape."""
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.zeros(0)
    if array.shape != shape or not np.isfinite(array).all():
        raise ScenarioError(f"{what} must be {list(shape)} finite numbers")
    return array
