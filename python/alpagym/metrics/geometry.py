"""Geometry in the plane that the metrics share: frames, boxes, motion by differences.

Arrays in, arrays out, float64. A pose is x, y [m] and yaw [rad]. Polylines and the wrapping of
angles are in `alpagym.scenarios.polyline`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def checked(name: str, array: np.ndarray, columns: int) -> np.ndarray:
    """The array in float64.

    Raises:
        ValueError: not `columns` wide, or NaN or infinity in it.
    """
    array = np.asarray(array, np.float64)
    if array.ndim == 0 or array.shape[-1] != columns:
        raise ValueError(f"{name}: expected [..., {columns}], got {list(array.shape)}")
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name}: expected finite numbers, got {array[where]} at {list(where)}")
    return array


def num_leading(flags: np.ndarray) -> int:
    """How many flags [n] hold from the first on."""
    return int(np.append(flags, False).argmin())


def principal_angle(angle: np.ndarray) -> np.ndarray:
    """Angle in [-pi, pi] [rad]; unlike with `wrap_angle`, pi stays and small ones keep digits."""
    return np.arctan2(np.sin(angle), np.cos(angle))


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product of vectors [..., 2], positive where `b` points to the left of `a`, [...]."""
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])


def direction(yaw: np.ndarray) -> np.ndarray:
    """Unit vectors at angles [...] [rad], [..., 2]."""
    return np.stack([np.cos(yaw), np.sin(yaw)], -1)


def rotate(vector: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Vectors [..., 2] turned counter-clockwise by `angle` [...] [rad]."""
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = vector[..., 0], vector[..., 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y], -1)


def to_frame(pose: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Points [..., 2] as seen from poses [..., 3]: how far ahead and to the left [m], [..., 2]."""
    return rotate(point - pose[..., :2], -pose[..., 2])


def ahead(pose: np.ndarray, distance: np.ndarray | float) -> np.ndarray:
    """Poses [..., 3] moved along their yaws by `distance` [...] [m], back where it is negative."""
    moved = pose[..., :2] + np.asarray(distance)[..., None] * direction(pose[..., 2])
    yaw = np.broadcast_to(pose[..., 2:], (*moved.shape[:-1], 1))
    return np.concatenate([moved, yaw], -1)


def corners(pose: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Corners of boxes [m]: front left, rear left, rear right, front right, [..., 4, 2].

    Args:
        pose: Of the centers, [..., 3].
        size: Length along the yaw and width [m], [..., 2].
    """
    x = 0.5 * size[..., 0, None] * np.array([1.0, -1.0, -1.0, 1.0])
    y = 0.5 * size[..., 1, None] * np.array([1.0, 1.0, -1.0, -1.0])
    return pose[..., None, :2] + rotate(np.stack([x, y], -1), pose[..., 2, None])


def _differences(values: np.ndarray, valid: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Rates of change from the row before and to the row after, NaN where one is not valid."""
    step = np.full((len(values) + 1, *values.shape[1:]), np.nan)
    step[1:-1] = np.diff(values, axis=0) / dt
    step[1:-1][~(valid[1:] & valid[:-1])] = np.nan
    return step[:-1], step[1:]


def backward_rates(values: np.ndarray, valid: np.ndarray, dt: float) -> np.ndarray:
    """Derivatives by backward differences; forward ones where something appears.

    Args:
        values: [T, ..., d].
        valid: Which of them are there, bool [T, ...].
        dt: Time between rows [s].

    Returns:
        Per second, [T, ..., d]; NaN where something is absent or there in a single row.
    """
    back, forth = _differences(values, valid, dt)
    found = np.where(np.isfinite(back), back, forth)
    return np.where(valid[..., None], found, np.nan)


def central_rates(values: np.ndarray, valid: np.ndarray, dt: float) -> np.ndarray:
    """Derivatives by the mean of the differences to the valid rows before and after.

    Arguments as `backward_rates`; 0 where neither row is valid.
    """
    both = np.stack(_differences(values, valid, dt))
    known = np.isfinite(both)
    return np.where(known, both, 0.0).sum(0) / np.maximum(known.sum(0), 1)


@dataclass(frozen=True)
class Motion:
    """Of a rear axle over T rows; vectors in its own frame."""

    pose: np.ndarray
    """World frame, yaw without jumps of whole turns, [T, 3]."""
    velocity: np.ndarray
    """[m/s], [T, 2]."""
    acceleration: np.ndarray
    """[m/s^2], [T, 2]."""
    yaw_rate: np.ndarray
    """[rad/s], [T]."""
    yaw_accel: np.ndarray
    """[rad/s^2], [T]."""


def rear_axle_motion(
    pose: np.ndarray, rear_axle: float, dt: float, valid: np.ndarray | None = None
) -> Motion:
    """Motion of a rear axle by `central_rates` of a box's poses.

    Args:
        pose: Of the box's center, [T, 3].
        rear_axle: Distance from the center back to the rear axle [m].
        dt: Time between rows [s].
        valid: Whether the box is there, bool [T]; always if None.
    """
    there = np.ones(len(pose), bool) if valid is None else valid
    yaw = np.unwrap(pose[:, 2])
    axle = ahead(np.concatenate([pose[:, :2], yaw[:, None]], -1), -rear_axle)
    rates = central_rates(axle, there, dt)
    rates_of_rates = central_rates(rates, there, dt)
    return Motion(
        axle,
        velocity=rotate(rates[:, :2], -yaw),
        acceleration=rotate(rates_of_rates[:, :2], -yaw),
        yaw_rate=rates[:, 2],
        yaw_accel=rates_of_rates[:, 2],
    )
