"""A Gaussian around what a network gives: the way to bring a `torch.nn.Module` of one's own."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from alpagym.policies.policy import Policy
from alpagym.types import Observation

ACCEL_SCALE = 1.5
"""A normalized acceleration of 1 [m/s^2]."""
LATERAL_ACCEL_SCALE = 2.0
"""A normalized curvature of 1 bends so that speed^2 * curvature is this [m/s^2]."""
MIN_STEERING_SPEED = 4.0
"""Below this speed curvature is scaled as at it [m/s]."""


class GaussianPolicy(Policy):
    """Unicycle controls, of constant spread in normalized units, around those of `forward`."""

    def __init__(self, steps: int = 1, log_std: float = -1.2) -> None:
        """Start with a spread.

        Args:
            steps: controls in an action, `SimConfig.replan_every`.
            log_std: initial log standard deviation of the normalized action.
        """
        super().__init__()
        self.imitates = steps
        self.log_std = nn.Parameter(torch.full((2 * steps,), log_std))

    @abstractmethod
    def forward(self, observation: Observation) -> Tensor:
        """Normalized acceleration and curvature of each step, [..., 2 steps].

        1 is 1.5 m/s^2, and 2 m/s^2 sideways at the present speed (below 4 m/s: at 4 m/s).
        """

    def mean(self, observation: Observation) -> Tensor:
        return self.forward(observation) * self._unit(observation)

    def sample(self, observation: Observation, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.forward(observation)
        normalized = mean + self.log_std.exp() * noise
        log_prob = gaussian_log_prob(normalized, mean, self.log_std)
        return normalized * self._unit(observation), log_prob

    def log_prob(self, observation: Observation, decision: Tensor) -> Tensor:
        return gaussian_log_prob(
            decision / self._unit(observation), self.forward(observation), self.log_std
        )

    def deviation(
        self, observation: Observation, recorded: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        return self.forward(observation) - recorded / self._unit(observation)

    def entropy(self) -> Tensor:
        return gaussian_entropy(self.log_std)

    def _unit(self, observation: Observation) -> Tensor:
        one = unit(observation)
        return torch.cat([one] * self.imitates, -1) if self.imitates > 1 else one


def unit(observation: Observation) -> Tensor:
    """Physical size of a normalized control of 1 at this speed, [..., 2]."""
    speed = observation.ego[..., 0].abs().clamp(min=MIN_STEERING_SPEED)
    return torch.stack(
        [torch.full_like(speed, ACCEL_SCALE), LATERAL_ACCEL_SCALE / speed.square()], -1
    )


def gaussian_log_prob(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Elementwise log-density of a normal distribution."""
    return -0.5 * ((x - mean) * (-log_std).exp()).square() - log_std - 0.5 * math.log(2 * math.pi)


def gaussian_entropy(log_std: Tensor) -> Tensor:
    """Entropy of independent normals, summed; a scalar."""
    return (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()
