"""What NAVSIM's PDM scorer reads: the ego's states, its box, and the traffic around it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from alpagym.metrics.geometry import ahead, corners
from alpagym.metrics.nuplan.state import LENGTH, REAR_TO_CENTER, WIDTH

STEP = 0.1
"""Time between two states [s]; every count of steps in these metrics rests on it."""


class State(IntEnum):
    """Columns of a state, all at the rear axle; velocity and acceleration are in the ego frame.

    Source: NAVSIM, `pdm_enums.py` (`StateIndex`).
    """

    X = 0
    Y = 1
    HEADING = 2
    VELOCITY_X = 3
    VELOCITY_Y = 4
    ACCELERATION_X = 5
    ACCELERATION_Y = 6
    STEERING_ANGLE = 7
    STEERING_RATE = 8
    YAW_RATE = 9
    YAW_ACCELERATION = 10


@dataclass(frozen=True)
class Car:
    """Shape of the ego, by default nuPlan's Chrysler Pacifica."""

    length: float = LENGTH
    """[m]."""
    width: float = WIDTH
    """[m]."""
    center: float = REAR_TO_CENTER
    """Distance from the rear axle forward to the box center [m]."""
    wheel_base: float = 3.089
    """[m]."""


@dataclass(frozen=True)
class Traffic:
    """N agents and objects besides the ego at S steps, the first at the first ego state."""

    pose: np.ndarray
    """Box centers x, y [m] and yaw [rad], float64 [S, N, 3]."""
    size: np.ndarray
    """Length and width [m], [N, 2]."""
    present: np.ndarray
    """Whether it is there, bool [S, N]; poses of absent ones are ignored."""
    speed: np.ndarray
    """Where it first appears [m/s], [N]."""
    is_agent: np.ndarray
    """Whether it is a vehicle, a pedestrian or a cyclist, bool [N]."""

    def __post_init__(self) -> None:
        steps, n = self.present.shape
        shapes = {
            "pose": (self.pose, (steps, n, 3)),
            "size": (self.size, (n, 2)),
            "speed": (self.speed, (n,)),
            "is_agent": (self.is_agent, (n,)),
        }
        for name, (array, expected) in shapes.items():
            if array.shape != expected:
                raise ValueError(
                    f"traffic {name}: expected {list(expected)}, got {list(array.shape)}"
                )
        finite = np.isfinite(self.pose[self.present]).all()
        if not (finite and np.isfinite(self.size).all() and np.isfinite(self.speed).all()):
            raise ValueError("traffic: expected finite numbers, got NaN or infinity")

    def boxes(self) -> np.ndarray:
        """Corners of every box [m], [S, N, 4, 2]; an absent one is a point at the origin."""
        return corners(
            np.where(self.present[..., None], self.pose, 0.0),
            np.where(self.present[..., None], self.size, 0.0),
        )


def checked_states(states: np.ndarray, name: str = "states") -> np.ndarray:
    """`states` as float64 [P, T, 11]; raises `ValueError` for another shape, NaN or infinity."""
    states = np.asarray(states, np.float64)
    if states.ndim != 3 or states.shape[2] != len(State) or 0 in states.shape:
        raise ValueError(f"{name}: expected [proposals, steps, 11], got {list(states.shape)}")
    if not np.isfinite(states).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    return states


def speeds(states: np.ndarray) -> np.ndarray:
    """Magnitude of the rear-axle velocity [m/s], [..., 11] to [...]."""
    return np.hypot(states[..., State.VELOCITY_X], states[..., State.VELOCITY_Y])


def rear_axle_pose(states: np.ndarray) -> np.ndarray:
    """x, y [m] and heading [rad], [..., 11] to [..., 3]."""
    return states[..., : State.HEADING + 1]


def ego_centers(states: np.ndarray, car: Car) -> np.ndarray:
    """Box centers [m], [..., 11] to [..., 2]."""
    return ahead(rear_axle_pose(states), car.center)[..., :2]


def ego_corners(states: np.ndarray, car: Car) -> np.ndarray:
    """Corners of the ego [m]: front left, rear left, rear right, front right, [..., 4, 2]."""
    return corners(ahead(rear_axle_pose(states), car.center), np.array([car.length, car.width]))
