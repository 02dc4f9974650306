"""The small policy: one acceleration and curvature a step, from what the ego sees."""

from __future__ import annotations

import torch
from torch import nn

from alpagym.config import SimConfig
from alpagym.policies.gaussian import GaussianPolicy
from alpagym.policies.policy import Sizes
from alpagym.policies.scene_network import SceneNetwork
from alpagym.reward_ranges import Ranges
from alpagym.training_config import PolicyConfig


class LateFusion(SceneNetwork, GaussianPolicy):
    """A Gaussian policy on unicycle actions, of constant spread in normalized units."""

    def __init__(
        self, config: PolicyConfig, sim_config: SimConfig, ranges: Ranges | None = None
    ) -> None:
        if sim_config.action.name != "unicycle":
            raise ValueError(
                f"LateFusion drives with unicycle actions, got sim.action={sim_config.action.name}"
            )
        if sim_config.replan_every != 1:
            raise ValueError(
                "LateFusion drives with an action a step, "
                f"got sim.replan_every={sim_config.replan_every}"
            )
        super().__init__(config, sim_config, 2, ranges)
        self.log_std = nn.Parameter(torch.full((2,), config.log_std))
        self.sizes = Sizes(2, 2, 2, self.memory_size)
