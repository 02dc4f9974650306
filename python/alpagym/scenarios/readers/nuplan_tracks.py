"""Tracks of a nuPlan scene: poses and boxes at the 20 Hz of its lidar sweeps, on a grid of 0.1 s.

Poses are those of the center of the rear axle; the box of the recording car, a Chrysler Pacifica,
lies about it as the devkit says (nuplan-devkit, vehicle_parameters.py). Velocities of the car are
given in its own frame, those of boxes in the world's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alpagym.scenarios.assemble import RawTracks
from alpagym.scenarios.readers.argoverse2_tables import check_tracks, track_number
from alpagym.scenarios.readers.nvidia_tracks import sample
from alpagym.scenarios.readers.quaternions import rotation_matrices
from alpagym.scenarios.readers.sqlite_tables import Database, floats, token
from alpagym.scenarios.scenario import AgentType, ScenarioError

DT = 0.1
"""Time between frames [s]."""
EGO_SIZE = (5.176, 2.297, 1.777)
"""Length, width and height of the recording car [m]."""
EGO_REAR_AXLE = 1.461
"""How far its rear axle lies behind its box center [m]."""
EGO_NAME = "ego"
MAX_BOXES = 400_000
"""Most boxes of a scene; 20 s of a crowded one have 150 000."""
MAX_KNOWN = 200_000
"""Most tracks, and most poses, of a log."""
LEVEL, LEVEL_REACH = 4.0, 15.0
"""What stands so much higher or lower than the road that the ego drives, where it is this near to
the ego's path, is on a bridge or under one [m]."""
TYPES = {
    "vehicle": AgentType.VEHICLE,
    "bicycle": AgentType.CYCLIST,
    "pedestrian": AgentType.PEDESTRIAN,
}
"""Cones, barriers, signs and whatever else is annotated are `OTHER`."""
_POSE = ("x", "y", "z", "qw", "qx", "qy", "qz", "vx", "vy", "angular_rate_z")
_BOX = ("x", "y", "z", "yaw", "vx", "vy", "length", "width", "height")


@dataclass
class Ego:
    """The recording car at the n lidar sweeps of a log, in order of time."""

    stamps: np.ndarray
    """[us], int64 [n]."""
    xyz: np.ndarray
    """Box centers, but heights of the rear axle [m], [n, 3]."""
    yaw: np.ndarray
    """[rad], [n]."""
    velocity: np.ndarray
    """Of the box center in the world [m/s], [n, 2]; NaN where the source has none."""

    def part(self, rows: np.ndarray) -> Ego:
        return Ego(self.stamps[rows], self.xyz[rows], self.yaw[rows], self.velocity[rows])


def read_ego(database: Database, stamps: np.ndarray, poses: list[str]) -> Ego:
    """The car at all sweeps of a log.

    Args:
        database: the log.
        stamps: times of the sweeps, increasing [us], [n].
        poses: tokens of the poses, [n].

    Raises:
        ScenarioError: if a pose is missing or absurd.
    """
    path = database.path
    where = "token IN (SELECT ego_pose_token FROM lidar_pc)"
    known = {
        token(name): row
        for name, *row in database.rows("ego_pose", ("token", *_POSE), where, limit=MAX_KNOWN)
    }
    if missing := [name for name in poses if name not in known]:
        raise ScenarioError(f"{path}: table 'ego_pose' has no pose '{missing[0][:40]}'")
    columns = zip(*(known[name] for name in poses), strict=True)
    values = np.stack(
        [
            floats(list(c), f"{path}: table 'ego_pose', column '{name}'")
            for name, c in zip(_POSE, columns, strict=True)
        ],
        axis=1,
    )
    place, quaternion = values[:, :3], values[:, 3:7]
    norm = np.linalg.norm(quaternion, axis=1)
    bad = ~(np.abs(place) < 1e8).all(1) | ~(np.abs(norm - 1.0) < 0.1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ScenarioError(
            f"{path}: ego pose '{poses[row][:40]}' must be a finite place and a unit quaternion, "
            f"got {values[row, :7].tolist()}"
        )
    w, x, y, z = (quaternion / norm[:, None]).T
    turn = rotation_matrices(x, y, z, w)
    yaw = np.arctan2(turn[:, 1, 0], turn[:, 0, 0])
    ahead = np.stack([np.cos(yaw), np.sin(yaw)], axis=1)
    left = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)
    vx, vy, rate = values[:, 7:].T
    velocity = vx[:, None] * ahead + (vy + EGO_REAR_AXLE * rate)[:, None] * left
    center = np.column_stack([place[:, :2] + EGO_REAR_AXLE * ahead, place[:, 2]])
    return Ego(stamps, center, yaw, velocity)


def read_types(database: Database) -> dict[str, AgentType]:
    """Type of each track by its token; none where the log does not tell."""
    if not {"track", "category"} <= database.tables:
        return {}
    names = {
        token(key): str(name).lower()
        for key, name in database.rows("category", ("token", "name"), limit=1000)
    }
    rows = database.rows("track", ("token", "category_token"), limit=MAX_KNOWN)
    return {
        token(key): TYPES.get(names.get(token(category), ""), AgentType.OTHER)
        for key, category in rows
    }


def scene_tracks(
    database: Database,
    ego: Ego,
    sweeps: dict[str, int],
    types: dict[str, AgentType],
    notes: list[str],
) -> RawTracks:
    """All tracks of a scene, the ego first.

    Args:
        database: the log.
        ego: the car at the sweeps of the scene, [n].
        sweeps: index of each sweep of the scene by its token.
        types: as of `read_types`.
        notes: gets a clause for what was left out.

    Raises:
        ScenarioError: if boxes are missing or absurd.
    """
    path = database.path
    start = ego.stamps[0]
    seconds = (ego.stamps - start) * 1e-6
    grid = DT * np.arange(int(seconds[-1] / DT + 0.01) + 1)
    names, track, time, box = _boxes(database, ego.stamps, sweeps, seconds, notes)
    order = np.lexsort((time, track))
    groups = np.split(order, np.cumsum(np.bincount(track, minlength=len(names)))[:-1])
    check_tracks(len(names) + 1, len(grid), path)
    rows = [_resampled(seconds, ego.xyz, ego.yaw, ego.velocity, grid)]
    sizes, kept, repeated, elsewhere = [list(EGO_SIZE)], [], 0, 0
    for name, every in zip(names, groups if names else [], strict=True):
        own = every[np.concatenate([[True], np.diff(time[every]) > 0])]
        repeated += len(every) - len(own)
        if _on_another_level(box[own], ego):
            elsewhere += 1
            continue
        kept.append(name)
        b = box[own]
        rows.append(_resampled(time[own], b[:, :3], b[:, 3], b[:, 4:6], grid))
        sizes.append(np.median(b[:, 6:], axis=0).tolist())
    if repeated:
        notes.append(f"left out {repeated} boxes that repeat a track and a sweep")
    if elsewhere:
        notes.append(f"left out {elsewhere} agents that are on a bridge or under one")
    if unknown := sum(name not in types for name in kept):
        notes.append(f"took {unknown} agents without a category as unknown")
    xyz, yaw, velocity, valid = (np.stack(column) for column in zip(*rows, strict=True))
    kinds = [types.get(name, AgentType.UNKNOWN) for name in kept]
    return RawTracks(
        xyz=xyz,
        yaw=yaw,
        velocity=velocity,
        size=np.array(sizes, np.float64)[:, None],
        valid=valid,
        type=np.array([AgentType.VEHICLE, *kinds]),
        id=np.array([track_number(name) for name in (EGO_NAME, *kept)], np.int64),
    )


def _boxes(
    database: Database,
    stamps: np.ndarray,
    sweeps: dict[str, int],
    seconds: np.ndarray,
    notes: list[str],
) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Tokens of the tracks; track [n], time [s], [n], and values [n, 9] of each box."""
    where = "lidar_pc_token IN (SELECT token FROM lidar_pc WHERE timestamp BETWEEN ? AND ?)"
    span = (int(stamps[0]), int(stamps[-1]))
    names = ("lidar_pc_token", "track_token", *_BOX)
    rows = [
        (sweeps[sweep], *rest)
        for key, *rest in database.rows("lidar_box", names, where, span, limit=MAX_BOXES)
        if (sweep := token(key)) in sweeps
    ]
    columns = list(zip(*rows, strict=True)) or [()] * (2 + len(_BOX))
    what = f"{database.path}: table 'lidar_box', column"
    values = [
        floats(list(c), f"{what} '{name}'") for name, c in zip(_BOX, columns[2:], strict=True)
    ]
    box = np.stack(values, axis=1)
    index: dict[str, int] = {}
    track = np.array([index.setdefault(token(t), len(index)) for t in columns[1]], np.int64)
    good = np.isfinite(box[:, :4]).all(1) & (np.abs(box[:, :4]) < 1e8).all(1)
    if not good.all():
        notes.append(f"left out {(~good).sum()} boxes without a finite place")
    time = seconds[np.array(columns[0], np.int64)]
    tracks, track = np.unique(track[good], return_inverse=True)
    known = list(index)
    return [known[i] for i in tracks], track, time[good], box[good]


def _resampled(
    time: np.ndarray, xyz: np.ndarray, yaw: np.ndarray, velocity: np.ndarray, grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Places [T, 3], headings [T], velocities [T, 2] and validity [T] at the times of a grid."""
    place, heading, valid = sample(time, xyz, yaw, grid)
    if not np.isfinite(velocity).all():
        return place, heading, np.full((len(grid), 2), np.nan), valid
    return place, heading, np.stack([np.interp(grid, time, v) for v in velocity.T], 1), valid


def _on_another_level(box: np.ndarray, ego: Ego) -> bool:
    """Whether boxes [n, 9] stand far above or below the road, as far as they come near to it."""
    # The axle is low enough over the road, and the middle of a box over its foot.
    gap = np.hypot(*(box[:, None, :2] - ego.xyz[None, ::10, :2]).transpose(2, 0, 1))
    nearest = gap.argmin(1)
    near = gap[np.arange(len(box)), nearest] < LEVEL_REACH
    rise = np.abs(box[near, 2] - ego.xyz[::10, 2][nearest[near]])
    return bool(near.any()) and float(np.median(rise)) > LEVEL
