"""Alpamayo's action space: 64 steps of (acceleration, curvature), 0.1 s each.

As NVlabs/alpamayo 1cba38c, `alpamayo_r1/action_space/unicycle_accel_curvature.py` and `utils.py`,
computes it with the constants of the released checkpoints.

Everything lives in the ego frame at t = 0 (x forward, y left, z up; meters, radians). The history
is 16 poses, t = -1.5 .. 0 s, the last of them the origin with identity rotation; the future is 64
poses, t = 0.1 .. 6.4 s. The speed at t = 0 is no part of the action: it is estimated from the
history, which decoding therefore needs too.

A rotation is a matrix [..., 3, 3] or a pair (cos yaw, sin yaw) [..., 2]; of a matrix the first
column counts, so pitch and roll do not matter.

Encoding is a regularized fit, not the inverse of decoding: third differences of yaw and speed and
second differences of acceleration and curvature are kept small.

Every function takes float32 or float64 on any device and returns the same. The fits are solved in
float64 for either: float32, in which upstream solves them, costs up to 6e-3 of a normalized
curvature at low speed and makes a batch differ from its members. `check=False` skips the looks at
the values (finite on the way in, solved on the way out) that wait for the device; NaN then gives
NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from alpagym.interop.alpamayo.checks import (
    require,
    require_alike,
    require_broadcast,
    require_finite,
    require_trajectory,
)

DT = 0.1
"""Time between poses, and length of a step [s]."""
NUM_HISTORY = 16
NUM_FUTURE = 64

ACCEL_MEAN, ACCEL_STD = 0.02902694707164455, 0.6810426736454882
"""Of the acceleration [m/s^2]."""
CURVATURE_MEAN, CURVATURE_STD = 0.0002692167976330542, 0.026148280660833106
"""Of the curvature [1/m]."""
MAX_ACCEL = 9.8
"""[m/s^2]; a bound to check against, nothing is clipped."""
MAX_CURVATURE = 0.33
"""[1/m]; a bound to check against, nothing is clipped."""


@dataclass(frozen=True)
class Smoothing:
    """What a fit adds to its squared residuals: `weight` |d^order x / dt^order|^2 + `ridge` x^2."""

    order: int
    weight: float
    ridge: float


YAW = Smoothing(3, 1e-6, 1e-8)
SPEED = Smoothing(3, 1e-6, 1e-4)
ACCEL = Smoothing(2, 1e-4, 1e-4)
CURVATURE = Smoothing(2, 1e-4, 1e-4)


@dataclass(frozen=True)
class Fit:
    """The unicycle motion fitted to a future trajectory; row i holds over step i."""

    control: Tensor
    """Acceleration [m/s^2] and curvature [1/m], [..., 64, 2]."""
    speed: Tensor
    """Speed at the start of each step [m/s], negative in reverse, [..., 64]."""
    yaw: Tensor
    """Yaw at the start of each step, without jumps, the first 0 [rad], [..., 64]."""


def normalize(control: Tensor) -> Tensor:
    """The action of accelerations [m/s^2] and curvatures [1/m], [..., 2] -> [..., 2]."""
    accel, curvature = control.unbind(-1)
    return torch.stack(
        [(accel - ACCEL_MEAN) / ACCEL_STD, (curvature - CURVATURE_MEAN) / CURVATURE_STD], -1
    )


def denormalize(action: Tensor) -> Tensor:
    """Acceleration [m/s^2] and curvature [1/m] of an action, [..., 2] -> [..., 2]."""
    accel, curvature = action.unbind(-1)
    return torch.stack(
        [accel * ACCEL_STD + ACCEL_MEAN, curvature * CURVATURE_STD + CURVATURE_MEAN], -1
    )


def within_bounds(action: Tensor) -> Tensor:
    """Whether all 64 steps keep |acceleration| <= 9.8 m/s^2 and |curvature| <= 0.33 1/m.

    [..., 64, 2] -> bool [...].
    """
    require("action", action, (NUM_FUTURE, 2))
    accel, curvature = denormalize(action).unbind(-1)
    return ((accel.abs() <= MAX_ACCEL) & (curvature.abs() <= MAX_CURVATURE)).all(-1)


def yaw_of(rotation: Tensor) -> Tensor:
    """Yaw in [-pi, pi] of matrices [..., 3, 3] or of (cos, sin) [..., 2]."""
    column = rotation[..., 0] if rotation.shape[-2:] == (3, 3) else rotation
    return torch.atan2(column[..., 1], column[..., 0])


def matrix_of(heading: Tensor) -> Tensor:
    """Rotation matrices about z of (cos, sin), [..., 2] -> [..., 3, 3]."""
    cos, sin = heading.unbind(-1)
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    return torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], -1).unflatten(-1, (3, 3))


def estimate_speed(history_xyz: Tensor, history_rotation: Tensor, *, check: bool = True) -> Tensor:
    """Speed at t = 0 [m/s] by regularized least squares over the history.

    Args:
        history_xyz: [..., 16, 3].
        history_rotation: [..., 16, 3, 3] or [..., 16, 2].
        check: Refuse values that are not finite; waits for the device.

    Returns:
        [...], negative in reverse.

    Raises:
        ValueError: A wrong shape, precision or device, or a value that is not finite.
    """
    require_trajectory("history", history_xyz, history_rotation, NUM_HISTORY)
    if check:
        require_finite(history_xyz=history_xyz, history_rotation=history_rotation)
    with torch.no_grad():
        return _history_speed(history_xyz, history_rotation).to(history_xyz.dtype)


def fit(
    history_xyz: Tensor,
    history_rotation: Tensor,
    future_xyz: Tensor,
    future_rotation: Tensor,
    *,
    check: bool = True,
) -> Fit:
    """Fit a unicycle's accelerations and curvatures to a future trajectory.

    First yaw is smoothed with its start held at 0, then the speeds are fitted to the displacements
    (trapezoid rule) with the first one held, the accelerations to the speeds, and at last the
    curvatures to the turns over the distances driven. The inputs' leading dimensions are the same.

    Args:
        history_xyz: [..., 16, 3].
        history_rotation: [..., 16, 3, 3] or [..., 16, 2].
        future_xyz: [..., 64, 3].
        future_rotation: [..., 64, 3, 3] or [..., 64, 2].
        check: Refuse values that are not finite or admit no fit; waits for the device.

    Raises:
        ValueError: A wrong shape, precision or device, a value that is not finite, or values so
            large that the fit has no solution in this precision.
    """
    require_trajectory("history", history_xyz, history_rotation, NUM_HISTORY)
    require_trajectory("future", future_xyz, future_rotation, NUM_FUTURE)
    require_alike("future_xyz", future_xyz, "history_xyz", history_xyz)
    if future_xyz.shape[:-2] != history_xyz.shape[:-2]:
        raise ValueError(
            f"future_xyz: expected the leading dimensions of history_xyz "
            f"{list(history_xyz.shape)}, got {list(future_xyz.shape)}"
        )
    if check:
        require_finite(
            history_xyz=history_xyz,
            history_rotation=history_rotation,
            future_xyz=future_xyz,
            future_rotation=future_rotation,
        )
    with torch.no_grad():
        fitted = _fit(history_xyz, history_rotation, future_xyz, future_rotation)
    if check and not fitted.control.isfinite().all():
        raise ValueError(
            f"future_xyz: expected distances that {future_xyz.dtype} can fit, "
            f"got up to {future_xyz.abs().max():g} m"
        )
    return fitted


def encode(
    history_xyz: Tensor,
    history_rotation: Tensor,
    future_xyz: Tensor,
    future_rotation: Tensor,
    *,
    check: bool = True,
) -> Tensor:
    """The action of a future trajectory, [..., 64, 2]; arguments and errors are those of `fit`."""
    fitted = fit(history_xyz, history_rotation, future_xyz, future_rotation, check=check)
    return normalize(fitted.control)


def decode(
    action: Tensor,
    history_xyz: Tensor,
    history_rotation: Tensor,
    *,
    check: bool = True,
) -> tuple[Tensor, Tensor]:
    """Drive a unicycle from the origin with yaw 0; differentiable in the action.

    Leading dimensions broadcast: actions [B, K, 64, 2] may share a history [B, 1, 16, 3]. Nothing
    is clipped, and braking goes on into reverse.

    Args:
        action: Normalized, [..., 64, 2].
        history_xyz: [..., 16, 3]; its last z is the z of all waypoints.
        history_rotation: [..., 16, 3, 3] or [..., 16, 2].
        check: Refuse values that are not finite; waits for the device.

    Returns:
        Waypoints [..., 64, 3] and their (cos yaw, sin yaw) [..., 64, 2].

    Raises:
        ValueError: A wrong shape, precision or device, or a value that is not finite.
    """
    require("action", action, (NUM_FUTURE, 2))
    require_trajectory("history", history_xyz, history_rotation, NUM_HISTORY)
    require_alike("action", action, "history_xyz", history_xyz)
    require_broadcast("action", action, "history_xyz", history_xyz)
    if check:
        require_finite(action=action, history_xyz=history_xyz, history_rotation=history_rotation)
    first_speed = estimate_speed(history_xyz, history_rotation, check=False)[..., None]
    accel, curvature = denormalize(action).unbind(-1)
    gain = (accel * DT).cumsum(-1)
    speed = first_speed + torch.nn.functional.pad(gain, (1, 0))
    turn = curvature * speed[..., :-1] * DT + curvature * accel * (0.5 * DT * DT)
    yaw = torch.nn.functional.pad(turn.cumsum(-1), (1, 0))
    heading = torch.stack([yaw.cos(), yaw.sin()], -1)
    velocity = speed[..., None] * heading
    xy = ((velocity[..., :-1, :] + velocity[..., 1:, :]) * (0.5 * DT)).cumsum(-2)
    z = history_xyz[..., -1:, 2:].expand(*xy.shape[:-1], 1)
    return torch.cat([xy, z], -1), heading[..., 1:, :]


def _history_speed(history_xyz: Tensor, history_rotation: Tensor) -> Tensor:
    """Speed at t = 0, float64."""
    yaw = _unwrap(yaw_of(history_rotation.double()))
    system, target = _speed_system(history_xyz[..., :2].double().diff(dim=-2), yaw)
    return _solve(system, target)[..., -1]


def _fit(
    history_xyz: Tensor, history_rotation: Tensor, future_xyz: Tensor, future_rotation: Tensor
) -> Fit:
    yaw = _solve_constant(YAW, _unwrap(yaw_of(future_rotation.double())), start=True)
    yaw = torch.nn.functional.pad(yaw, (1, 0))

    xy = torch.cat([history_xyz[..., -1:, :2], future_xyz[..., :2]], -2).double()
    system, target = _speed_system(xy.diff(dim=-2), yaw)
    # The first speed is known: its column moves to the other side.
    first_speed = _history_speed(history_xyz, history_rotation)[..., None]
    target = target[..., 1:] - system[..., 1:, 0] * first_speed
    speed = torch.cat([first_speed, _solve(system[..., 1:, 1:], target)], -1)

    accel = _solve_constant(ACCEL, speed.diff(dim=-1) / DT, start=False)

    distance = DT * speed[..., :-1] + 0.5 * DT * DT * accel
    system = _penalty(CURVATURE, NUM_FUTURE, distance.device)
    system = system + torch.diag_embed(distance.square())
    curvature = _solve(system, distance * yaw.diff(dim=-1))
    control = torch.stack([accel, curvature], -1)
    dtype = future_xyz.dtype
    return Fit(control.to(dtype), speed[..., :-1].to(dtype), yaw[..., :-1].to(dtype))


def _unwrap(yaw: Tensor) -> Tensor:
    """Yaw [..., T] without jumps of 2 pi; the first stays."""
    turn = yaw.diff(dim=-1)
    turn = torch.atan2(turn.sin(), turn.cos())
    return torch.cat([yaw[..., :1], yaw[..., :1] + turn.cumsum(-1)], -1)


def _speed_system(displacement: Tensor, yaw: Tensor) -> tuple[Tensor, Tensor]:
    """Normal equations for speeds v [..., T] at yaws [..., T].

    2 displacement_i / dt = v_i u_i + v_(i+1) u_(i+1), u = (cos yaw, sin yaw). As |u| = 1, the data
    part is tridiagonal: 1, 2, .., 2, 1 beside cosines of the turns.
    """
    num_poses = yaw.shape[-1]
    base = _speed_base(num_poses, yaw.device)
    system = base.expand(*yaw.shape, num_poses).clone()
    beside = yaw.diff(dim=-1).cos()
    system.diagonal(1, -2, -1).add_(beside)
    system.diagonal(-1, -2, -1).add_(beside)

    pull = displacement * (2 / DT)
    both = torch.nn.functional.pad(pull, (0, 0, 0, 1)) + torch.nn.functional.pad(pull, (0, 0, 1, 0))
    return system, both[..., 0] * yaw.cos() + both[..., 1] * yaw.sin()


@lru_cache(maxsize=32)
def _penalty(smoothing: Smoothing, size: int, device: torch.device) -> Tensor:
    """The symmetric matrix of a smoothing [size, size]."""
    identity = torch.eye(size, dtype=torch.float64, device=device)
    difference = identity.diff(n=smoothing.order, dim=0)
    weight = smoothing.weight / DT ** (2 * smoothing.order)
    return weight * difference.T @ difference + smoothing.ridge * identity


@lru_cache(maxsize=32)
def _speed_base(num_poses: int, device: torch.device) -> Tensor:
    """The part of the speeds' normal equations that depends on no data."""
    count = torch.full((num_poses,), 2.0, dtype=torch.float64, device=device)
    count[:: num_poses - 1] = 1
    return _penalty(SPEED, num_poses, device) + count.diag()


@lru_cache(maxsize=32)
def _factor(smoothing: Smoothing, start: bool, device: torch.device) -> Tensor:
    """Cholesky factor of I + smoothing over 64 values, with or without a leading value held at 0.

    Once per device.
    """
    penalty = _penalty(smoothing, NUM_FUTURE + start, device)[start:, start:]
    return torch.linalg.cholesky(
        penalty + torch.eye(NUM_FUTURE, dtype=torch.float64, device=device)
    )


def _solve_constant(smoothing: Smoothing, target: Tensor, *, start: bool) -> Tensor:
    """Smooth values [..., 64]: one factor serves the whole batch as columns."""
    factor = _factor(smoothing, start, target.device)
    columns = target.reshape(-1, NUM_FUTURE).T
    return torch.cholesky_solve(columns, factor).T.reshape(target.shape)


def _solve(system: Tensor, target: Tensor) -> Tensor:
    """Solve symmetric systems [..., N, N] for [..., N]; NaN where one has no Cholesky factor.

    `cholesky_ex` reports failure on the device, so nothing waits here.
    """
    factor, failed = torch.linalg.cholesky_ex(system)
    solution = torch.cholesky_solve(target[..., None], factor)[..., 0]
    return solution.masked_fill(failed[..., None] != 0, torch.nan)
