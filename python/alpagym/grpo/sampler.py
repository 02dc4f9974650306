"""Which scenarios an iteration rolls."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Sampler:
    """Draws the scenarios of an iteration; those whose groups are dead are drawn less often."""

    weight: Tensor
    """[S], on the host."""
    generator: torch.Generator

    def draw(self, count: int) -> Tensor:
        """Scenario indices, without repetition while there are enough, int32 [count]."""
        again = count > int((self.weight > 0).sum())
        return torch.multinomial(
            self.weight, count, replacement=again, generator=self.generator
        ).to(torch.int32)

    def report(self, scenario: Tensor, dead: Tensor) -> None:
        """Halve the weight of scenarios whose groups were dead, down to 1/16; restore others."""
        index = scenario.long()
        lower = (0.5 * self.weight[index]).clamp(min=1 / 16)
        self.weight[index] = torch.where(dead, lower, torch.ones_like(lower))
