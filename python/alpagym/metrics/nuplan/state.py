"""What the score reads of a drive: the ego's motion and the tracks around it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np

from alpagym.metrics.comfort import center_acceleration
from alpagym.metrics.geometry import ahead, corners

LENGTH, WIDTH, REAR_TO_CENTER = 5.176, 2.297, 1.461
"""nuPlan's car, a Pacifica [m] (`common/actor_state/vehicle_parameters.py`)."""


class TrackKind(IntEnum):
    """nuPlan's `TrackedObjectType`s that are scored; from TRAFFIC_CONE on they never move."""

    VEHICLE = 0
    PEDESTRIAN = 1
    BICYCLE = 2
    TRAFFIC_CONE = 3
    BARRIER = 4
    CZONE_SIGN = 5
    GENERIC_OBJECT = 6


@dataclass(frozen=True)
class Ego:
    """T states of the ego."""

    rear_axle: np.ndarray
    """x, y [m] and heading [rad], world frame, [T, 3]."""
    velocity: np.ndarray
    """Of the rear axle, ego frame [m/s], [T, 2]."""
    acceleration: np.ndarray
    """Likewise [m/s^2], [T, 2]."""
    yaw_rate: np.ndarray
    """[rad/s], [T]."""
    yaw_accel: np.ndarray
    """[rad/s^2], [T]."""
    length: float = LENGTH
    width: float = WIDTH
    rear_to_center: float = REAR_TO_CENTER

    def __post_init__(self) -> None:
        t = len(self.rear_axle)
        shapes: dict[str, tuple[int, ...]] = {"rear_axle": (t, 3), "velocity": (t, 2)}
        shapes |= {"acceleration": (t, 2), "yaw_rate": (t,), "yaw_accel": (t,)}
        if t == 0:
            raise ValueError("Ego: expected one state or more, got none")
        _check("Ego", self, shapes)

    @cached_property
    def center(self) -> np.ndarray:
        """Of the box: x, y [m] and heading [rad], [T, 3]."""
        return ahead(self.rear_axle, self.rear_to_center)

    @property
    def size(self) -> np.ndarray:
        return np.array([self.length, self.width])

    @cached_property
    def corners(self) -> np.ndarray:
        """Front left, rear left, rear right, front right [m], [T, 4, 2]."""
        return corners(self.center, self.size)

    @cached_property
    def speed(self) -> np.ndarray:
        """Of the rear axle [m/s], [T]."""
        return np.hypot(self.velocity[:, 0], self.velocity[:, 1])

    @property
    def center_acceleration(self) -> np.ndarray:
        """[m/s^2], [T, 2]."""
        return center_acceleration(
            self.acceleration, self.yaw_rate, self.yaw_accel, self.rear_to_center
        )


@dataclass(frozen=True)
class Tracks:
    """K tracks over the same T states."""

    pose: np.ndarray
    """Box centers x, y [m] and heading [rad], [T, K, 3]."""
    velocity: np.ndarray
    """World frame [m/s], [T, K, 2]."""
    size: np.ndarray
    """Length and width [m], [T, K, 2]."""
    kind: np.ndarray
    """`TrackKind`, int [T, K]."""
    valid: np.ndarray
    """Whether the track is there, bool [T, K]; what stands elsewhere is not read."""

    def __post_init__(self) -> None:
        t, k = self.valid.shape
        shapes: dict[str, tuple[int, ...]] = {"pose": (t, k, 3), "velocity": (t, k, 2)}
        shapes |= {"size": (t, k, 2), "kind": (t, k)}
        _check("Tracks", self, shapes, self.valid)

    @cached_property
    def speed(self) -> np.ndarray:
        """[m/s], 0 for objects that never move, [T, K]."""
        moves = self.kind < TrackKind.TRAFFIC_CONE
        return np.where(moves, np.hypot(self.velocity[..., 0], self.velocity[..., 1]), 0.0)


def _check(
    name: str, data: object, shapes: dict[str, tuple[int, ...]], where: np.ndarray | None = None
) -> None:
    for field, shape in shapes.items():
        array = getattr(data, field)
        if array.shape != shape:
            raise ValueError(f"{name}.{field}: expected {list(shape)}, got {list(array.shape)}")
        if not np.isfinite(array if where is None else array[where]).all():
            raise ValueError(f"{name}.{field}: expected finite values, got NaN or infinity")
