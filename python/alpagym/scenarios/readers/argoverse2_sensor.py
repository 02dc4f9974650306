"""Argoverse 2 sensor logs: `annotations.feather`, `city_SE3_egovehicle.feather` and `map/`.

Boxes are annotated at 10 Hz lidar sweeps in the frame of the ego vehicle, whose origin is the
center of the rear axle, about 0.3 m above the ground (av2-api, tests/unit/map/test_map_api.py; the
maps' ground heights agree). Poses lift them to the city frame. The stamps of sweeps are not exactly
0.1 s apart and each track is resampled on a uniform grid; velocities come from positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from alpagym.scenarios.assemble import RawScenario, RawTracks, assemble
from alpagym.scenarios.readers.argoverse2_map import find_map, read_map
from alpagym.scenarios.readers.argoverse2_motion import DT, EGO_REAR_AXLE, EGO_SIZE
from alpagym.scenarios.readers.argoverse2_tables import check_tracks, read_feather, track_number
from alpagym.scenarios.readers.quaternions import rotation_matrices
from alpagym.scenarios.scenario import AgentType, Scenario, ScenarioError

ANNOTATIONS = ("annotations.feather", "annotations_with_ego.feather")
"""Names of the boxes' file, the first preferred; the other also has boxes of the ego."""
POSES = "city_SE3_egovehicle.feather"
EGO_CATEGORY = "EGO_VEHICLE"
"""Boxes of scenario-mining files. They stand at the rear axle, so only their size is right."""
AXLE_HEIGHT = 0.3
"""The rear axle over the ground [m]."""
MAX_SPAN = 200.0
"""A longer log is a data fault [s]; the dataset's have 15."""
MAX_GAP = 0.25
"""A track that is not annotated for longer is absent in between [s]."""
NEAR = 0.001
"""A frame this near to a track's first or last annotation is still within it [s]."""
_VEHICLES = (
    "REGULAR_VEHICLE", "LARGE_VEHICLE", "BUS", "ARTICULATED_BUS", "SCHOOL_BUS", "BOX_TRUCK",
    "TRUCK", "TRUCK_CAB", "VEHICULAR_TRAILER", "RAILED_VEHICLE", "MESSAGE_BOARD_TRAILER",
    "TRAFFIC_LIGHT_TRAILER",
)  # fmt: skip
_RIDERS = ("BICYCLE", "BICYCLIST", "MOTORCYCLE", "MOTORCYCLIST", "WHEELED_RIDER")
_WALKERS = ("PEDESTRIAN", "OFFICIAL_SIGNALER", "WHEELCHAIR")
_TYPES = {
    **dict.fromkeys(_VEHICLES, AgentType.VEHICLE),
    **dict.fromkeys(_RIDERS, AgentType.CYCLIST),
    **dict.fromkeys(_WALKERS, AgentType.PEDESTRIAN),
}
"""Cones, signs, strollers, animals and whatever else is annotated are `OTHER`."""
_FOLDERS = {
    "map": (".json", ".npy"),
    "calibration": (".feather",),
    "sensors": (".feather", ".jpg"),
}
"""Folders of a log, and how the names of their files end."""
_POSE: dict[str, type] = dict.fromkeys(("qw", "qx", "qy", "qz", "tx_m", "ty_m", "tz_m"), float)
_BOX: dict[str, type] = {"length_m": float, "width_m": float, "height_m": float}


def sniff(head: bytes, path: Path) -> bool:
    """Whether the file holds the boxes of a log, or the poses of a log without boxes."""
    if path.name == ANNOTATIONS[1]:
        return not (path.parent / ANNOTATIONS[0]).is_file()
    if path.name == POSES:
        return not any((path.parent / name).is_file() for name in ANNOTATIONS)
    return path.name == ANNOTATIONS[0]


def part(path: Path) -> bool:
    """Whether the file belongs to a log whose boxes lie beside it or above it."""
    if path.name in ANNOTATIONS or path.name == POSES:
        log, is_part = path.parent, True
    else:
        folder = next((p for p in list(path.parents)[:4] if p.name in _FOLDERS), path)
        log, is_part = folder.parent, path.suffix in _FOLDERS.get(folder.name, ())
    return is_part and any((log / name).is_file() for name in ANNOTATIONS) and not sniff(b"", path)


def inputs(path: Path) -> list[Path]:
    """The poses and the map of a log."""
    return [path.parent / POSES, _map_of(path)]


def read(path: Path) -> Iterator[Scenario | ScenarioError]:
    """The one scenario of a log; see `Reader.read`."""
    if path.name == POSES:
        raise ScenarioError(
            f"{path}: a log without {ANNOTATIONS[0]}: it was recorded, but no agent was annotated"
        )
    notes: list[str] = []
    poses_path = path.parent / POSES
    if not poses_path.is_file():
        raise ScenarioError(f"{path}: the poses of the ego, {POSES}, are missing beside it")
    boxes = read_feather(
        path, {"timestamp_ns": int, "track_uuid": str, "category": str} | _POSE | _BOX
    )
    poses = _Poses(read_feather(poses_path, {"timestamp_ns": int} | _POSE), poses_path)
    map_path = _map_of(path)
    elements = read_map(map_path, notes)
    name = map_path.stem.removeprefix("log_map_archive_").split("____")[0]
    yield assemble(
        RawScenario(
            id=name or path.parent.name,
            source=str(path),
            dataset="argoverse2",
            license="argoverse2-nc",
            tracks=_raw_tracks(boxes, poses, path, notes),
            elements=elements,
            lights=[],
            ego=0,
            dt=DT,
            notes=notes,
        )
    )


def _map_of(path: Path) -> Path:
    return find_map(path.parent / "map", path.parent.name)


class _Poses:
    """Poses of the ego vehicle in the city frame over time."""

    def __init__(self, table: dict[str, np.ndarray], path: Path) -> None:
        order = np.argsort(table["timestamp_ns"], kind="stable")
        order = order[_first_of_equal(table["timestamp_ns"][order])]
        if not len(order):
            raise ScenarioError(f"{path}: the table has no poses")
        self.stamps = table["timestamp_ns"][order]
        self.place = _places(table, path)[order]
        quaternion = _quaternions(table, path)[order]
        # Neighbors on one side of the sphere, so that values between them are rotations too.
        flips = np.cumprod(np.where((quaternion[1:] * quaternion[:-1]).sum(1) < 0, -1, 1))
        quaternion[1:] *= flips[:, None]
        self.quaternion = quaternion

    def at(self, stamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions [n, 3] and rotations [n, 3, 3] at stamps [ns], exact where one was recorded."""
        base = self.stamps[0]
        t, known = (stamps - base).astype(np.float64), (self.stamps - base).astype(np.float64)
        place = np.stack([np.interp(t, known, self.place[:, k]) for k in range(3)], axis=1)
        quaternion = np.stack([np.interp(t, known, self.quaternion[:, k]) for k in range(4)], 1)
        return place, _rotations(quaternion)


def _first_of_equal(ordered: np.ndarray) -> np.ndarray:
    """Which values [n] differ from the one before."""
    return np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)]


def _places(table: dict[str, np.ndarray], path: Path) -> np.ndarray:
    """Translations [n, 3], finite."""
    place = np.stack([table[name] for name in ("tx_m", "ty_m", "tz_m")], axis=1)
    if not (np.abs(place) < 1e7).all():
        row = int(np.flatnonzero(~(np.abs(place) < 1e7).all(1))[0])
        raise ScenarioError(
            f"{path}: row {row}: a position must be finite and below 1e7 m, "
            f"got {place[row].tolist()}"
        )
    return place


def _quaternions(table: dict[str, np.ndarray], path: Path) -> np.ndarray:
    """Unit quaternions w, x, y, z [n, 4]."""
    quaternion = np.stack([table[name] for name in ("qw", "qx", "qy", "qz")], axis=1)
    norm = np.linalg.norm(quaternion, axis=1)
    bad = ~(np.abs(norm - 1.0) < 0.1)  # NaN too
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ScenarioError(
            f"{path}: row {row}: a rotation must be a unit quaternion, "
            f"got {quaternion[row].tolist()}"
        )
    return quaternion / norm[:, None]


def _rotations(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrices [n, 3, 3] of quaternions w, x, y, z [n, 4] of any length."""
    w, x, y, z = (quaternion / np.linalg.norm(quaternion, axis=1, keepdims=True)).T
    return rotation_matrices(x, y, z, w)


def _raw_tracks(
    boxes: dict[str, np.ndarray], poses: _Poses, path: Path, notes: list[str]
) -> RawTracks:
    """Tracks on a uniform grid of frames, the ego first."""
    stamps = boxes["timestamp_ns"]
    if not len(stamps):
        raise ScenarioError(f"{path}: the table has no boxes")
    # Differences of arbitrary int64 overflow; floats are exact enough to refuse those.
    span = (float(stamps.max()) - float(stamps.min())) * 1e-9
    if span > MAX_SPAN:
        raise ScenarioError(f"{path}: stamps must span {MAX_SPAN:g} s or less, got {span:.6g} s")
    inside = (stamps >= poses.stamps[0]) & (stamps <= poses.stamps[-1])
    if not inside.any():
        raise ScenarioError(f"{path}: no box was annotated while the poses of the ego are known")
    if not inside.all():
        notes.append(f"left out {(~inside).sum()} boxes at times without an ego pose")
    start = int(stamps[inside].min())
    # Stamps of whole milliseconds may miss the last frame by rounding.
    num_frames = int((int(stamps[inside].max()) - start) * 1e-9 / DT + 0.01) + 1
    grid = DT * np.arange(num_frames)

    kept, size = _without_ego(boxes, inside)
    names, first, track = np.unique(
        boxes["track_uuid"][kept], return_index=True, return_inverse=True
    )
    check_tracks(len(names) + 1, num_frames, path)
    xyz, yaw = _lift(boxes, poses, path)
    time = (stamps - start) * 1e-9
    all_xyz = np.zeros((len(names) + 1, num_frames, 3))
    all_yaw = np.zeros((len(names) + 1, num_frames))
    valid = np.zeros((len(names) + 1, num_frames), bool)
    sizes = np.zeros((len(names) + 1, 1, 3))
    all_xyz[0], all_yaw[0] = _ego_boxes(poses, start, grid, size[2])
    valid[0], sizes[0] = True, size
    box = np.stack([boxes[name] for name in _BOX], axis=1)
    order = kept[np.lexsort((stamps[kept], track))]
    repeated = 0
    ends = np.cumsum(np.bincount(track, minlength=len(names)))
    for a, rows in enumerate(np.split(order, ends[:-1]), start=1):
        own = rows[_first_of_equal(stamps[rows])]
        repeated += len(rows) - len(own)
        valid[a] = _covered(time[own], grid)
        all_xyz[a] = np.stack([np.interp(grid, time[own], xyz[own, k]) for k in range(3)], 1)
        all_yaw[a] = np.interp(grid, time[own], np.unwrap(yaw[own]))
        sizes[a] = np.median(box[own], axis=0)
    if repeated:
        notes.append(f"left out {repeated} boxes that repeat a track and a time")
    kinds = [_TYPES.get(c, AgentType.OTHER) for c in boxes["category"][kept][first]]
    return RawTracks(
        xyz=all_xyz,
        yaw=all_yaw,
        velocity=np.full((len(names) + 1, num_frames, 2), np.nan),
        size=sizes,
        valid=valid,
        type=np.array([AgentType.VEHICLE, *kinds]),
        id=np.array([track_number(EGO_CATEGORY), *map(track_number, names)], np.int64),
    )


def _without_ego(boxes: dict[str, np.ndarray], inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of all boxes but the ego's, and the ego's size [3]."""
    is_ego = boxes["category"] == EGO_CATEGORY
    size = np.array(EGO_SIZE)
    own = np.stack([boxes[name][is_ego] for name in _BOX], axis=1)
    if len(own) and (own > 0.5).all() and (own < 20).all():
        size = np.median(own, axis=0)
    return np.flatnonzero(inside & ~is_ego), size


def _lift(boxes: dict[str, np.ndarray], poses: _Poses, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Centers [n, 3] and headings [n] of boxes in the city frame."""
    place, rotation = poses.at(boxes["timestamp_ns"])
    center = place + np.einsum("nij,nj->ni", rotation, _places(boxes, path))
    turned = rotation @ _rotations(_quaternions(boxes, path))
    return center, np.arctan2(turned[:, 1, 0], turned[:, 0, 0])


def _ego_boxes(
    poses: _Poses, start: int, grid: np.ndarray, height: float
) -> tuple[np.ndarray, np.ndarray]:
    """Box centers [T, 3] and headings [T] of the ego from the poses of its rear axle."""
    place, rotation = poses.at(start + np.round(grid * 1e9).astype(np.int64))
    offset = np.array([EGO_REAR_AXLE, 0.0, 0.5 * height - AXLE_HEIGHT])
    return place + rotation @ offset, np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])


def _covered(time: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Which frames [T] lie between two annotations of a track that are not far apart."""
    after = np.searchsorted(time, grid)
    near = np.abs(time[np.clip(after, 0, len(time) - 1)] - grid) < NEAR
    near |= np.abs(time[np.clip(after - 1, 0, len(time) - 1)] - grid) < NEAR
    between = (after > 0) & (after < len(time))
    gap = time[np.clip(after, 0, len(time) - 1)] - time[np.clip(after - 1, 0, len(time) - 1)]
    return near | (between & (gap < MAX_GAP))
