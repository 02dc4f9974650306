"""Which scenarios Cosmos-RL's prompts stand for: the draws of a run, in their order.

The controller hands out numbers of draws. Which scenario and seed a draw is follows from the run's
seed and its number alone, so it is the same on any replica, and nothing else need travel.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from alpagym.keys import mix, purpose

ORDER, SEED = purpose("cosmos order of scenarios"), purpose("cosmos seed of a group")


@dataclass
class Draws:
    """Draw i of a run."""

    seed: int
    num_scenarios: int

    def scenario(self, draw: Tensor) -> Tensor:
        """Indices of scenarios, int32: all in random order, then all in another, and so on."""
        passes = draw // self.num_scenarios
        orders = {int(p): self._order(int(p)) for p in passes.unique()}
        places = (draw % self.num_scenarios).tolist()
        chosen = [orders[int(p)][at] for p, at in zip(passes, places, strict=True)]
        return torch.stack(chosen).to(torch.int32)

    def _order(self, count: int) -> Tensor:
        key = mix(mix(torch.tensor(self.seed ^ ORDER)) + count)
        return mix(key + torch.arange(self.num_scenarios)).argsort(stable=True)

    def group_seed(self, draw: Tensor) -> Tensor:
        """Seeds of groups, int64, non-negative and below 2^62 as everywhere."""
        return mix(mix(torch.tensor(self.seed ^ SEED)) + draw) >> 1


class DrawDataset(Dataset[dict[str, str]]):
    """All draws of a run as Cosmos-RL's dataset: the index of a prompt is the number of a draw."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, str]:
        if not 0 <= int(index) < self.count:
            raise IndexError(f"draw: expected 0 to {self.count - 1}, got {index}")
        return {"prompt": json.dumps({"draw": int(index)})}
