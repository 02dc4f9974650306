"""Scores of a predicted trajectory against the recorded one, and its comfort.

As NVlabs/alpamayo-recipes 4bc7677 defines them: `metrics/distance_metrics.py` (ADE, minADE),
`alpamayo1_x_rl/rewards/comfort_reward.py` (nuPlan's thresholds) and
the motion reward made of both. They are rewards as well as metrics, hence torch: batched over any
leading dimensions, on the device of their inputs.

A trajectory is x, y [m] and yaw [rad] every 0.1 s, without the pose of now.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from alpagym.metrics.comfort import BOUNDS

DT = 0.1
"""Time between poses [s]."""

COMFORT_LIMITS = {
    "lon_accel": BOUNDS["lon_accel"],
    "lat_accel": BOUNDS["lat_accel"],
    "jerk": BOUNDS["jerk_mag"],
    "lon_jerk": BOUNDS["lon_jerk"],
    "yaw_accel": BOUNDS["yaw_accel"],
    "yaw_rate": BOUNDS["yaw_rate"],
}
"""What each quantity of `dynamics` must stay strictly between; nuPlan's bounds."""


def displacement(predicted: Tensor, recorded: Tensor) -> Tensor:
    """Distance in the plane at each step [m], [..., T, 2 or 3] twice -> [..., T].

    Leading dimensions broadcast.

    Raises:
        ValueError: The steps differ in number, there are none, or there is no x and y.
    """
    if (
        predicted.ndim < 2
        or recorded.ndim < 2
        or predicted.shape[-2] != recorded.shape[-2]
        or predicted.shape[-2] == 0
        or min(predicted.shape[-1], recorded.shape[-1]) < 2
    ):
        raise ValueError(
            "predicted, recorded: expected shapes [..., T, 2 or 3] with the same T > 0, "
            f"got {list(predicted.shape)} and {list(recorded.shape)}"
        )
    return (predicted[..., :2] - recorded[..., :2]).norm(dim=-1)


def ade(predicted: Tensor, recorded: Tensor) -> Tensor:
    """Average displacement error in the plane [m], [..., T, 2 or 3] twice -> [...]."""
    return displacement(predicted, recorded).mean(-1)


def min_ade(predicted: Tensor, recorded: Tensor, horizons: Sequence[int] | None = None) -> Tensor:
    """ADE of the best of K samples over the first h steps, for each horizon h [m].

    The best is chosen once, by its ADE over all steps: at a short horizon another may be nearer.

    Args:
        predicted: [..., K, T, 2 or 3].
        recorded: [..., T, 2 or 3].
        horizons: Numbers of steps, each in 1 .. T; all steps without it.

    Returns:
        [..., number of horizons].

    Raises:
        ValueError: Shapes that do not fit, no sample, or a horizon out of range.
    """
    error = displacement(predicted, recorded[..., None, :, :])
    num_steps = error.shape[-1]
    horizons = [num_steps] if horizons is None else horizons
    if not all(1 <= horizon <= num_steps for horizon in horizons):
        raise ValueError(f"horizons: expected steps in 1 .. {num_steps}, got {list(horizons)}")
    if error.shape[-2] == 0:
        raise ValueError("predicted: expected at least one sample, got none")
    best = error.mean(-1).argmin(-1)[..., None, None]
    best_error = error.take_along_dim(best, dim=-2)[..., 0, :]
    return torch.stack([best_error[..., :horizon].mean(-1) for horizon in horizons], -1)


def dynamics(xy: Tensor, yaw: Tensor) -> dict[str, Tensor]:
    """The quantities of `COMFORT_LIMITS` at each step, each [..., T].

    Forward differences; the last one is repeated, so jerks end in zeros.

    Args:
        xy: [..., T, 2 or 3] with T >= 2; z is not read.
        yaw: [..., T], wrapped or not as long as it turns less than pi a step.

    Returns:
        Accelerations [m/s^2] along and across the heading, jerk of the speed and of the speed along
        the heading [m/s^3], yaw acceleration [rad/s^2] and yaw rate [rad/s].

    Raises:
        ValueError: Shapes that do not fit, or fewer than two poses.
    """
    if xy.ndim < 2 or xy.shape[-1] < 2 or xy.shape[:-1] != yaw.shape or yaw.shape[-1] < 2:
        raise ValueError(
            "xy, yaw: expected shapes [..., T, 2 or 3] and [..., T] with T >= 2, "
            f"got {list(xy.shape)} and {list(yaw.shape)}"
        )
    rate_x, rate_y = _rate(xy[..., 0]), _rate(xy[..., 1])
    cos, sin = yaw.cos(), yaw.sin()
    along = _rate(rate_x * cos + rate_y * sin)
    across = _rate(rate_y * cos - rate_x * sin)
    turn = yaw.diff(dim=-1)
    turn = torch.where(turn > torch.pi, turn - 2 * torch.pi, turn)
    turn = torch.where(turn < -torch.pi, turn + 2 * torch.pi, turn)
    yaw_rate = _repeat_last(turn) / DT
    return {
        "lon_accel": along,
        "lat_accel": across,
        "jerk": _rate(_rate(torch.hypot(rate_x, rate_y))),
        "lon_jerk": _rate(along),
        "yaw_accel": _rate(yaw_rate),
        "yaw_rate": yaw_rate,
    }


def comfort_flags(xy: Tensor, yaw: Tensor) -> Tensor:
    """Whether all steps keep each of `COMFORT_LIMITS`, in its order, bool [..., 6]."""
    values = dynamics(xy, yaw)
    return torch.stack(
        [
            ((values[name] > low) & (values[name] < high)).all(-1)
            for name, (low, high) in COMFORT_LIMITS.items()
        ],
        -1,
    )


def comfort(flags: Tensor) -> Tensor:
    """The recipes' comfort term, [..., 6] -> [...] in [-1, 0]: minus the fraction that fails."""
    return flags.float().mean(-1) - 1


def motion_reward(
    error: Tensor,
    comfort: Tensor,
    *,
    error_weight: float = 0.4,
    comfort_weight: float = 0.1,
    max_error: float = 3.0,
) -> Tensor:
    """The recipes' reward of a trajectory, [...]: near the record and comfortable.

    Args:
        error: ADE [m], [...].
        comfort: From `comfort`, [...].
        error_weight: Of error / max_error.
        comfort_weight: Of the comfort term.
        max_error: From this ADE on, the reward is -1 [m].
    """
    reward = comfort_weight * comfort - error_weight * error / max_error
    return torch.where(error < max_error, reward, -torch.ones_like(reward))


def _rate(values: Tensor) -> Tensor:
    return _repeat_last(values.diff(dim=-1)) / DT


def _repeat_last(values: Tensor) -> Tensor:
    return torch.cat([values, values[..., -1:]], -1)
