"""Poses as AlpaSim's messages hold them, and ours.

AlpaSim's are of the rig, the rear axle's center on the ground, with quaternions w, x, y, z, in
float32; ours are x, y [m] and yaw [rad] of a box's center or of its rear axle. Arithmetic is in
float64, so that what float32 on the wire takes away is taken once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

LAST_TIME_US = 2**63 - 1
"""Later times do not fit into 64 bits with a sign."""
UNIT = 1e-2
"""A quaternion's length may be so far from 1: what float32 and a few products leave."""
MOST = 20_000
"""Poses, or points, in a message at most: 200 s at 100 Hz, read in about 0.1 s."""


@dataclass(frozen=True)
class Track:
    """N poses in time."""

    time_us: np.ndarray
    """int64 [N], rising."""
    pose: np.ndarray
    """x, y [m], yaw [rad]. float64 [N, 3]"""
    z: np.ndarray
    """[m], float64 [N]"""


def yaw_of(quaternion: np.ndarray) -> np.ndarray:
    """Heading of unit quaternions w, x, y, z, [..., 4] -> [...], in [-pi, pi]."""
    w, x, y, z = np.moveaxis(np.asarray(quaternion, np.float64), -1, 0)
    yaw: np.ndarray = np.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))
    return yaw


def quaternion_of(yaw: np.ndarray) -> np.ndarray:
    """Upright unit quaternions w, x, y, z, [...] -> [..., 4]."""
    half, zero = 0.5 * np.asarray(yaw, np.float64), np.zeros(np.shape(yaw))
    return np.stack([np.cos(half), zero, zero, np.sin(half)], -1)


def center_of(rig: np.ndarray, rear_axle: np.ndarray | float) -> np.ndarray:
    """Box centers `rear_axle` [m] ahead of rigs, x, y, yaw [..., 3]."""
    x, y, yaw = np.moveaxis(np.asarray(rig, np.float64), -1, 0)
    return np.stack([x + rear_axle * np.cos(yaw), y + rear_axle * np.sin(yaw), yaw], -1)


def rig_of(center: np.ndarray, rear_axle: np.ndarray | float) -> np.ndarray:
    """Rigs `rear_axle` [m] behind box centers, x, y, yaw [..., 3]."""
    return center_of(center, -np.asarray(rear_axle))


def from_frame(frame: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Poses given in frames, in the frame that those are given in; x, y, yaw [..., 3] each."""
    x, y, yaw = np.moveaxis(np.asarray(frame, np.float64), -1, 0)
    px, py, turn = np.moveaxis(np.asarray(pose, np.float64), -1, 0)
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.stack([x + cos * px - sin * py, y + sin * px + cos * py, yaw + turn], -1)


def into_frame(frame: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """The inverse of `from_frame`; yaw is not wrapped."""
    x, y, yaw = np.moveaxis(np.asarray(frame, np.float64), -1, 0)
    px, py, turn = np.moveaxis(np.asarray(pose, np.float64), -1, 0)
    cos, sin, dx, dy = np.cos(yaw), np.sin(yaw), px - x, py - y
    return np.stack([cos * dx + sin * dy, cos * dy - sin * dx, turn - yaw], -1)


def read_trajectory(trajectory: Any, name: str = "trajectory", *, most: int = MOST) -> Track:
    """Poses of a message `common.Trajectory`, checked.

    Raises:
        ValueError: more than `most` poses, numbers that are not finite, a quaternion that is not of
            unit length, a time that is too late, or times that do not rise; the message names the
            first pose at fault.
    """
    poses = trajectory.poses
    if len(poses) > most:
        raise ValueError(f"{name}: expected at most {most} poses, got {len(poses)}")
    times = [p.timestamp_us for p in poses]
    numbers = (
        (v.x, v.y, v.z, q.w, q.x, q.y, q.z) for v, q in ((p.pose.vec, p.pose.quat) for p in poses)
    )
    rows = np.fromiter(numbers, np.dtype((np.float64, 7)), len(poses))
    if times and max(times) > LAST_TIME_US:
        i = next(i for i, t in enumerate(times) if t > LAST_TIME_US)
        raise ValueError(f"{name} pose {i}: expected a time of at most 2^63 - 1 us, got {times[i]}")
    bad = np.flatnonzero(~np.isfinite(rows).all(1))
    if len(bad):
        raise ValueError(f"{name} pose {bad[0]}: expected finite numbers, got NaN or infinity")
    length = np.linalg.norm(rows[:, 3:], axis=1)
    bad = np.flatnonzero(np.abs(length - 1.0) > UNIT)
    if len(bad):
        raise ValueError(
            f"{name} pose {bad[0]}: expected a unit quaternion, got one of length "
            f"{length[bad[0]]:.3g}"
        )
    time_us = np.array(times, np.int64)
    bad = np.flatnonzero(np.diff(time_us) <= 0)
    if len(bad):
        i = int(bad[0])
        raise ValueError(
            f"{name} pose {i + 1}: expected times that rise, got {times[i + 1]} us after "
            f"{times[i]} us"
        )
    yaw = yaw_of(rows[:, 3:] / length[:, None]) if len(rows) else np.zeros(0)
    return Track(time_us, np.stack([rows[:, 0], rows[:, 1], yaw], -1), rows[:, 2])


def write_trajectory(trajectory: Any, track: Track) -> None:
    """Append upright poses to a message `common.Trajectory`."""
    rows = zip(
        track.time_us.tolist(),
        track.pose.tolist(),
        track.z.tolist(),
        quaternion_of(track.pose[:, 2]).tolist(),
        strict=True,
    )
    for time_us, (x, y, _), z, (w, _, _, qz) in rows:
        entry = trajectory.poses.add(timestamp_us=time_us)
        vec, quat = entry.pose.vec, entry.pose.quat
        vec.x, vec.y, vec.z, quat.w, quat.z = x, y, z, w, qz


def read_points(points: Any, name: str = "points", *, most: int = MOST) -> np.ndarray:
    """Messages `common.Vec3` as x, y, z, float32 [N, 3].

    Raises:
        ValueError: more than `most`.
    """
    if len(points) > most:
        raise ValueError(f"{name}: expected at most {most} points, got {len(points)}")
    return np.fromiter(((p.x, p.y, p.z) for p in points), np.dtype((np.float32, 3)), len(points))
