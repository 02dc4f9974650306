"""Draws of Alpamayo's actions whose probabilities are known, and what a draw was worth to a model.

A draw is a path of N steps from noise to an action, each step a Gaussian; the schedule and its
densities are those of `alpagym.policies.flow_matching`. Densities and divergences are of each of
the N 128 numbers drawn: `alpagym.grpo.loss.reduce_log_prob` adds them up (`sum`), or takes their
mean as AlpaGym's trainers do (`mean`), which makes ratios' exponents smaller by N 128.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alpagym.interop.alpamayo.action_space import NUM_FUTURE
from alpagym.interop.alpamayo.model import Alpamayo, Prefix
from alpagym.policies.flow_matching import Schedule, draw, integrate, path_kl, path_log_prob


@dataclass
class Draws:
    """K draws in each of B situations."""

    path: Tensor
    """From noise to action. [N + 1, B, K, 64, 2]"""
    log_prob: Tensor
    """Of each number drawn, given the noise begun with. [B, K, N 128]"""

    @property
    def action(self) -> Tensor:
        """Normalized, [B, K, 64, 2]."""
        return self.path[-1]


@torch.no_grad()
def sample(
    model: Alpamayo,
    prefix: Prefix,
    count: int,
    schedule: Schedule,
    generator: torch.Generator | None = None,
) -> Draws:
    """Draw `count` actions for each prefix.

    Args:
        model: on the prefix's device.
        prefix: of B situations.
        count: K.
        schedule: N steps, on the model's device (`Schedule.even(steps, noise_level, device)`).
        generator: of the noise, on the model's device.
    """
    shape = (len(schedule) + 1, len(prefix), count, NUM_FUTURE, 2)
    start, *noise = torch.randn(shape, generator=generator, device=model.device)
    velocities: list[Tensor] = []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        velocities.append(model.velocity(prefix, x, t.expand(x.shape[:2])))
        return velocities[-1]

    path = draw(velocity, start, torch.stack(noise), schedule)
    return Draws(path, _in_rows(path_log_prob(path, torch.stack(velocities), schedule)))


@torch.no_grad()
def integrated(
    model: Alpamayo, prefix: Prefix, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """Actions without noise on the way, as the releases draw them: Euler, in their own steps.

    Returns:
        Normalized, [B, K, 64, 2].
    """
    shape = (len(prefix), count, NUM_FUTURE, 2)
    start = torch.randn(shape, generator=generator, device=model.device)
    times = torch.linspace(0.0, 1.0, model.settings.steps + 1, device=model.device)
    return integrate(lambda x, t: model.velocity(prefix, x, t.expand(x.shape[:2])), start, times)


def velocities(model: Alpamayo, prefix: Prefix, path: Tensor, schedule: Schedule) -> Tensor:
    """The field on given paths, all steps in one pass; differentiable.

    Args:
        model: any, not necessarily the one that drew.
        prefix: of B situations.
        path: [N + 1, B, K, 64, 2].
        schedule: N steps.

    Returns:
        [N, B, K, 64, 2].

    Raises:
        ValueError: a path that is not of these situations or of this schedule.
    """
    steps, batch = len(schedule), len(prefix)
    if path.ndim != 5 or path.shape[:2] != (steps + 1, batch) or path.shape[3:] != (NUM_FUTURE, 2):
        raise ValueError(
            f"path: expected shape [{steps + 1}, {batch}, K, {NUM_FUTURE}, 2], "
            f"got {list(path.shape)}"
        )
    count = path.shape[2]
    points = path[:-1].transpose(0, 1).flatten(1, 2)
    times = schedule.times[:-1].repeat_interleave(count).expand(batch, -1)
    field = model.velocity(prefix, points, times)
    return field.unflatten(1, (steps, count)).transpose(0, 1)


def log_prob(model: Alpamayo, prefix: Prefix, path: Tensor, schedule: Schedule) -> Tensor:
    """Log-density of each number drawn on given paths, [B, K, N 128]; differentiable.

    Arguments and errors are those of `velocities`.
    """
    return densities(velocities(model, prefix, path, schedule), path, schedule)


def divergence(field: Tensor, anchor: Tensor, schedule: Schedule) -> Tensor:
    """KL of each step of a draw to that of another model, exactly, [B, K, N 128].

    Args:
        field: `velocities` of the model, [N, B, K, 64, 2].
        anchor: of the other one on the same paths, [N, B, K, 64, 2].
        schedule: N steps.
    """
    return _in_rows(path_kl(field, anchor, schedule))


def densities(field: Tensor, path: Tensor, schedule: Schedule) -> Tensor:
    """`log_prob` where `velocities` are known already."""
    return _in_rows(path_log_prob(path, field, schedule))


def _in_rows(numbers: Tensor) -> Tensor:
    """[N, B, K, 64, 2] -> [B, K, N 128]."""
    return numbers.movedim(0, 2).flatten(2)
