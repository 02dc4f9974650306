"""Waymax's invertible bicycle model (waymax/dynamics/bicycle_model.py)."""

from __future__ import annotations

import numpy as np

from alpagym.interop.waymax.checks import checked_positive
from alpagym.metrics.geometry import checked, direction
from alpagym.scenarios.polyline import wrap_angle

DT = 0.1
"""Length of a step [s]."""
MAX_ACCEL, MAX_CURVATURE = 6.0, 0.3
"""Bounds of the action [m/s^2, 1/m]."""
LEAST_SPEED = 0.6
"""Slower objects tell neither a curvature nor a heading [m/s]."""


def forward(
    states: np.ndarray,
    actions: np.ndarray,
    *,
    dt: float = DT,
    max_accel: float = MAX_ACCEL,
    max_curvature: float = MAX_CURVATURE,
    normalized: bool = False,
) -> np.ndarray:
    """The states one step on.

    With a and k within their bounds and the speed s = |v|, which has no sign:
    p' = p + v dt + a dt^2 / 2 along yaw, yaw' = wrap(yaw + k (s dt + a dt^2 / 2)),
    v' = (s + a dt) along yaw'. Hard braking therefore reverses.

    Args:
        states: [..., 5].
        actions: acceleration [m/s^2] and path curvature [1/m], [..., 2].
        dt: [s]
        max_accel: [m/s^2]
        max_curvature: [1/m]
        normalized: actions are shares of the bounds, held within [-1, 1].

    Raises:
        ValueError: wrong shapes, NaN or infinity, or a bound or dt that is not above 0.
    """
    states, actions = checked("states", states, 5), checked("actions", actions, 2)
    bounds = checked_positive(max_accel=max_accel, max_curvature=max_curvature, dt=dt)[:2]
    if normalized:
        actions = np.clip(actions, -1.0, 1.0) * bounds
    else:
        actions = np.clip(actions, -bounds, bounds)
    accel, curvature = actions[..., 0], actions[..., 1]
    yaw, velocity = states[..., 2], states[..., 3:5]
    speed = np.linalg.norm(velocity, axis=-1)
    way = speed * dt + 0.5 * accel * dt**2
    new_yaw = wrap_angle(yaw + curvature * way)
    pushed = (0.5 * accel * dt**2)[..., None] * direction(yaw)
    position = states[..., :2] + velocity * dt + pushed
    new_velocity = (speed + accel * dt)[..., None] * direction(new_yaw)
    return np.concatenate([position, new_yaw[..., None], new_velocity], -1)


def inverse(
    pairs: np.ndarray, valid: np.ndarray, *, dt: float = DT, yaw_from_velocity: bool = True
) -> np.ndarray:
    """Acceleration [m/s^2] and curvature [1/m] between two states, unbounded, [..., 2].

    a = (|v1| - |v0|) / dt, k = wrap(yaw1 - yaw0) / (|v0| dt + a dt^2 / 2), where yaw1 is the
    direction of v1 above 0.6 m/s. k is 0 where either speed is below 0.6 m/s.

    Args:
        pairs: [..., 2, 5].
        valid: [..., 2]; actions of pairs that are not valid are 0.
        dt: [s]
        yaw_from_velocity: whether the second heading is that of the velocity, not the given one.

    Raises:
        ValueError: wrong shapes, NaN or infinity in a valid pair, or a dt that is not above 0.
    """
    pairs, both = checked_pairs(pairs, valid)
    checked_positive(dt=dt)
    speed = np.linalg.norm(pairs[..., 3:5], axis=-1)
    accel = (speed[..., 1] - speed[..., 0]) / dt
    yaw = wrap_angle(pairs[..., 2])
    after = yaw[..., 1]
    if yaw_from_velocity:
        course = np.arctan2(pairs[..., 1, 4], pairs[..., 1, 3])
        after = np.where(speed[..., 1] <= LEAST_SPEED, after, course)
    way = speed[..., 0] * dt + 0.5 * accel * dt**2
    slow = (speed < LEAST_SPEED).any(-1)
    curvature = np.where(slow, 0.0, wrap_angle(after - yaw[..., 0]) / np.where(slow, 1.0, way))
    return np.where(both[..., None], np.stack([accel, curvature], -1), 0.0)


def model_inverse(
    pairs: np.ndarray,
    valid: np.ndarray,
    *,
    dt: float = DT,
    max_accel: float = MAX_ACCEL,
    max_curvature: float = MAX_CURVATURE,
    normalized: bool = False,
) -> np.ndarray:
    """`inverse` within the model's bounds, or as shares of them, [..., 2]; arguments alike."""
    bounds = checked_positive(max_accel=max_accel, max_curvature=max_curvature, dt=dt)[:2]
    raw = inverse(pairs, valid, dt=dt)
    return np.clip(raw / bounds, -1.0, 1.0) if normalized else np.clip(raw, -bounds, bounds)


def checked_pairs(pairs: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of states [..., 2, 5], zero where either is not valid; whether both are, [...].

    Raises:
        ValueError: wrong shapes, or NaN or infinity in a valid pair.
    """
    pairs, valid = np.asarray(pairs, np.float64), np.asarray(valid, bool)
    if pairs.ndim < 2 or pairs.shape[-2:] != (2, 5):
        raise ValueError(f"pairs: expected [..., 2, 5], got {list(pairs.shape)}")
    if valid.shape != pairs.shape[:-1]:
        raise ValueError(f"valid: expected {list(pairs.shape[:-1])}, got {list(valid.shape)}")
    both = np.asarray(valid.all(-1))
    return checked("pairs", np.where(both[..., None, None], pairs, 0.0), 5), both
