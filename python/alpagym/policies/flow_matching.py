"""Sampling by flow matching, with noise at every step so that what was drawn has a log-probability.

A velocity field v(x, t) carries noise at t = 0 to data at t = 1. Integrating it draws a sample;
adding noise at each step, and correcting the drift so that the marginals stay what they are, makes
the draw a chain of Gaussians (Flow-GRPO, Liu et al. 2025, eq. 9; the schedule is that of Alpamayo's
recipes at 4bc7677, `alpamayo1_x_rl/diffusion/flow_matching.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""v(x [..., D], t, a scalar) -> [..., D]."""


@dataclass
class Schedule:
    """N steps from noise to data: the mean of each is `keep` x + `push` v, its deviation `std`."""

    times: Tensor
    """0 to 1, increasing. [N + 1]"""
    noise: Tensor
    """Standard deviation of the noise per square root of time. [N]"""
    keep: Tensor
    """[N]"""
    push: Tensor
    """[N]"""
    std: Tensor
    """[N]"""

    @classmethod
    def of(cls, times: Tensor, noise_level: float) -> Schedule:
        """The schedule of a noise level.

        With sigma = 1 - t and sigma_max that of the second time:
        s = noise_level sqrt(sigma / (1 - min(sigma, sigma_max))),
        mean = x (1 - s^2 dt / (2 sigma)) + v (1 + s^2 (1 - sigma) / (2 sigma)) dt,
        std = s sqrt(dt).

        Args:
            times: 0 to 1, increasing, [N + 1].
            noise_level: above 0.

        Raises:
            ValueError: fewer than two times, times that do not increase, or no noise.
        """
        if times.ndim != 1 or len(times) < 2 or not bool((times[1:] > times[:-1]).all()):
            raise ValueError(f"times: expected two or more that increase, got {times.tolist()}")
        if not noise_level > 0.0:
            raise ValueError(f"noise_level: expected above 0, got {noise_level}")
        sigma, dt = 1.0 - times[:-1], times[1:] - times[:-1]
        noise = noise_level * (sigma / (1.0 - sigma.clamp(max=float(1.0 - times[1])))).sqrt()
        drift = noise.square() / (2.0 * sigma)
        return cls(
            times=times,
            noise=noise,
            keep=1.0 - drift * dt,
            push=(1.0 + drift * (1.0 - sigma)) * dt,
            std=noise * dt.sqrt(),
        )

    @classmethod
    def even(cls, steps: int, noise_level: float, device: torch.device | str = "cpu") -> Schedule:
        """N equal steps."""
        return cls.of(torch.linspace(0.0, 1.0, steps + 1, device=device), noise_level)

    def __len__(self) -> int:
        return len(self.std)


def draw(velocity: Velocity, start: Tensor, noise: Tensor, schedule: Schedule) -> Tensor:
    """The path of a draw, [N + 1, ..., D]; the last is the sample.

    Args:
        velocity: v(x, t).
        start: noise at t = 0, [..., D].
        noise: standard normals for each step, [N, ..., D].
        schedule: N steps.
    """
    path = [start]
    for n in range(len(schedule)):
        x = path[-1]
        mean = schedule.keep[n] * x + schedule.push[n] * velocity(x, schedule.times[n])
        path.append(mean + schedule.std[n] * noise[n])
    return torch.stack(path)


def path_log_prob(path: Tensor, velocity: Tensor, schedule: Schedule) -> Tensor:
    """Log-density of each number drawn on a path, given where it started, [N, ..., D].

    Alpamayo's recipes take the mean over all, which divides the exponent of probability ratios by
    N D; the sum is the joint log-probability.

    Args:
        path: [N + 1, ..., D].
        velocity: on the path, at all but its last point, [N, ..., D].
        schedule: N steps.
    """
    shape = (-1, *[1] * (path.ndim - 1))
    keep, push, std = (t.view(shape) for t in (schedule.keep, schedule.push, schedule.std))
    z = (path[1:] - keep * path[:-1] - push * velocity) / std
    return -0.5 * z.square() - std.log() - 0.5 * math.log(2.0 * math.pi)


def path_kl(velocity: Tensor, other: Tensor, schedule: Schedule) -> Tensor:
    """KL of each Gaussian of a path to that of another velocity field, exactly, [N, ..., D].

    (push (other - v) / std)^2 / 2.

    Args:
        velocity: on the path, [N, ..., D].
        other: of the other field at the same points, [N, ..., D].
        schedule: N steps.
    """
    shape = (-1, *[1] * (velocity.ndim - 1))
    return 0.5 * ((schedule.push / schedule.std).view(shape) * (other - velocity)).square()


def integrate(velocity: Velocity, start: Tensor, times: Tensor, method: str = "euler") -> Tensor:
    """Where the field carries `start` [..., D] without noise.

    Args:
        velocity: v(x, t).
        start: noise at the first time, [..., D].
        times: [N + 1].
        method: `euler` or `midpoint`.

    Raises:
        ValueError: another method.
    """
    if method not in ("euler", "midpoint"):
        raise ValueError(f"method: expected euler or midpoint, got {method}")
    x = start
    for t, dt in zip(times[:-1], times.diff(), strict=True):
        v = velocity(x, t)
        if method == "midpoint":
            v = velocity(x + 0.5 * dt * v, t + 0.5 * dt)
        x = x + dt * v
    return x
