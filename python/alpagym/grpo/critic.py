"""What a step is worth before its action is known: the baseline of PPO."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alpagym.config import SimConfig
from alpagym.policies.scene_network import SceneNetwork
from alpagym.reward_ranges import Ranges
from alpagym.training_config import PolicyConfig
from alpagym.types import Observation


class Critic(SceneNetwork):
    """Expected discounted reward from here on, in units that the first rollouts set."""

    def __init__(
        self, config: PolicyConfig, sim_config: SimConfig, ranges: Ranges | None = None
    ) -> None:
        super().__init__(config, sim_config, 1, ranges)
        self.unit: Tensor
        self.register_buffer("unit", torch.zeros(()))

    def value(self, observation: Observation) -> Tensor:
        """[...]."""
        return self.forward(observation).squeeze(-1) * self.unit

    def loss(self, observation: Observation, wanted: Tensor) -> Tensor:
        """Half the mean squared error, in units of the returns; a scalar.

        Args:
            observation: [N, ...].
            wanted: discounted rewards from there on, [N].
        """
        error = self.forward(observation).squeeze(-1) - wanted / self.unit
        return 0.5 * error.square().mean()

    @torch.no_grad()
    def set_unit(self, returns: Tensor) -> None:
        """Take the size of returns [N] for the unit, once."""
        if not bool(self.unit):
            self.unit.copy_(returns.square().mean().sqrt().clamp(min=1e-3))


@dataclass
class Expected:
    """What a critic makes of a rollout."""

    advantage: Tensor
    """[T, W]; 0 where not valid."""
    wanted: Tensor
    """What the values should have been, [T, W]."""


def generalized_advantages(
    reward: Tensor, value: Tensor, valid: Tensor, discount: float, gae_lambda: float
) -> Expected:
    """Generalized advantage estimation (Schulman et al. 2016, eq. 16), backward in time.

    A_t = d_t + discount lambda A_{t+1}, d_t = r_t + discount V_{t+1} - V_t. Nothing comes after the
    last valid step of a rollout: a record that ends is an end, as it is for groups.

    Args:
        reward: [T, W].
        value: [T, W].
        valid: bool [T, W]; once false, it stays so.
        discount: per step.
        gae_lambda: 1 for returns, 0 for one step.
    """
    advantage = torch.zeros_like(reward)
    ahead = torch.zeros_like(reward[0])
    next_value = torch.zeros_like(reward[0])
    for t in range(len(reward) - 1, -1, -1):
        surprise = reward[t] + discount * next_value - value[t]
        ahead = (surprise + discount * gae_lambda * ahead) * valid[t]
        next_value = value[t] * valid[t]
        advantage[t] = ahead
    return Expected(advantage, advantage + value * valid)
