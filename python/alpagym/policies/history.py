"""What a policy keeps of earlier observations: the ego, and the agents about it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alpagym.config import SimConfig
from alpagym.policies.features import AGENT_SCALE
from alpagym.types import Observation


@dataclass
class Past:
    """F earlier observations, the latest first, each in the ego's frame of its own time."""

    ego: Tensor
    """[..., F, features]"""
    agents: Tensor
    """[..., F, n, columns]"""
    agents_mask: Tensor
    """bool [..., F, n]"""
    there: Tensor
    """1 where an episode was under way, else 0. [..., F]"""


@dataclass(frozen=True)
class History:
    """How F observations lie in one row of numbers; what is static is seen now, and not kept."""

    frames: int
    """F."""
    agents: int
    """Observed agents, n."""
    features: int
    """Of the ego, that are kept."""

    @classmethod
    def of(cls, observations: int, config: SimConfig, features: int) -> History | None:
        """Room for all of `observations` but the present one; None where that is none."""
        return cls(observations - 1, config.num_agents, features) if observations > 1 else None

    @property
    def size(self) -> int:
        """Numbers in a row, M."""
        return self.frames * self._frame

    @property
    def _frame(self) -> int:
        return self.features + self.agents * (len(AGENT_SCALE) + 2) + 1

    def read(self, memory: Tensor) -> Past:
        """Numbers [..., M] as observations."""
        frames = memory.unflatten(-1, (self.frames, self._frame))
        rows, columns = self.agents, len(AGENT_SCALE) + 1
        ego, agents, mask, there = frames.split([self.features, rows * columns, rows, 1], -1)
        return Past(ego, agents.unflatten(-1, (rows, columns)), mask > 0.5, there.squeeze(-1))

    def after(self, observation: Observation, memory: Tensor) -> Tensor:
        """The memory [..., M] that follows an observation and the memory at that time."""
        now = [
            observation.ego[..., : self.features],
            observation.agents[..., : len(AGENT_SCALE) + 1].flatten(-2),
            observation.agents_mask.to(memory.dtype),
            torch.ones_like(memory[..., :1]),
        ]
        return torch.cat([*now, memory[..., : self.size - self._frame]], -1)
