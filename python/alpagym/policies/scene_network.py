"""What an ego sees: elements through shared networks, the largest features kept, fused late."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from alpagym.config import ALPASIM_SIZES, ObservationKind, SimConfig
from alpagym.policies import features, fused
from alpagym.policies.history import History
from alpagym.reward_ranges import Ranges
from alpagym.training_config import PolicyConfig
from alpagym.types import Observation


def encoder(inputs: int, width: int) -> nn.Sequential:
    """A two-layer network for one element."""
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(inplace=True), nn.Linear(width, width))


def masked_max(x: Tensor, mask: Tensor) -> Tensor:
    """Largest positive value over elements [..., n, f] -> [..., f]; 0 where none is present."""
    if not x.shape[-2]:
        return x.sum(-2)
    return (torch.relu(x) * mask.unsqueeze(-1)).max(-2).values


class SceneNetwork(nn.Module):
    """What an ego sees -> a few numbers.

    Attributes:
        ranges: of the reward weights that are observed, as `Policy.ranges`.
        chosen: stand for them where the observation holds none.
        history: how earlier observations are kept, None for not at all.
        features: of the ego that are read; those of the observation that AlpaSim's drivers have
            are fewer, and there are no agents, road points or lights in it.
    """

    def __init__(
        self,
        config: PolicyConfig,
        sim_config: SimConfig,
        outputs: int,
        ranges: Ranges | None = None,
    ) -> None:
        super().__init__()
        self.ranges = dict(ranges or {})
        self.chosen: Tensor
        self.register_buffer("chosen", torch.zeros(len(self.ranges)), persistent=False)
        is_told = sim_config.observation is ObservationKind.alpasim
        ego_scale = features.EGO_SCALE[: int(ALPASIM_SIZES["ego_columns"]) if is_told else None]
        self.features = len(ego_scale)
        for name, wanted in (("ego", self.features), ("agent", 8), ("road", 6)):
            columns = getattr(sim_config, f"{name}_columns")
            if columns < wanted:
                raise ValueError(
                    f"the network reads {wanted} features, got sim.{name}_columns={columns}"
                )
        self.history = History.of(config.history, sim_config, self.features)
        scales = {
            "ego": features.Scale(ego_scale + (1.0,) * len(self.ranges)),
            "agents": features.Scale(features.AGENT_SCALE, features.AGENT_KINDS),
            "road": features.Scale(features.ROAD_SCALE, features.ROAD_KINDS),
            "route": features.Scale(features.ROUTE_SCALE),
            "lights": features.Scale(features.LIGHT_SCALE),
        }
        self.scales = nn.ModuleDict(scales)
        sets = () if is_told else ("agents", "road", "lights")
        self.encoders = nn.ModuleDict(
            {name: encoder(scales[name].size, config.width) for name in sets}
        )
        route_size = sim_config.num_route_points * len(features.ROUTE_SCALE)
        past = 0
        if self.history is not None:
            self.past_scale = features.Scale(ego_scale)
            agents = config.width if "agents" in sets else 0
            past = self.history.frames * (self.features + 1 + agents)
        last = nn.Linear(config.hidden, outputs)
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
        first = nn.Linear(
            self.features + len(self.ranges) + route_size + len(sets) * config.width + past,
            config.hidden,
        )
        with torch.no_grad():  # reward weights mean nothing until closed-loop learning says so
            first.weight[:, self.features :][:, : len(self.ranges)] = 0.0
        self.trunk = nn.Sequential(
            first,
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(inplace=True),
            last,
        )

    def forward(self, observation: Observation) -> Tensor:
        """[..., outputs]."""
        ego, memory = self._split(observation.ego)
        parts = [self.scales["ego"](ego), self.scales["route"](observation.route).flatten(-2)]
        for name in self.encoders:
            rows, mask = getattr(observation, name), getattr(observation, f"{name}_mask")
            parts.append(self.encode(name, rows, mask))
        if self.history is not None:
            past = self.history.read(memory)
            parts.append(self.past_scale(past.ego).flatten(-2))
            parts.append(past.there)
            if "agents" in self.encoders:
                parts.append(self.encode("agents", past.agents, past.agents_mask).flatten(-2))
        numbers: Tensor = self.trunk(torch.cat(parts, -1))
        return numbers

    def remember(self, observation: Observation) -> Tensor:
        """What the next observation finds in its columns of memory, [..., M]."""
        if self.history is None:
            return observation.ego[..., :0]
        _, memory = self._split(observation.ego)
        return self.history.after(observation, memory)

    @property
    def memory_size(self) -> int:
        """M."""
        return 0 if self.history is None else self.history.size

    def _split(self, ego: Tensor) -> tuple[Tensor, Tensor]:
        """Features with reward weights behind them, and memory: own ones where they are missing.

        Columns of memory of another kind than the own stand for nothing remembered.
        """
        seen, end = self.features, ego.shape[-1]
        if end - seen in (0, self.memory_size):
            weights = self.chosen.expand(*ego.shape[:-1], -1)
        else:
            end -= len(self.ranges)
            weights = ego[..., end:]
        memory = ego[..., seen:end]
        if memory.shape[-1] != self.memory_size:
            memory = ego.new_zeros(*ego.shape[:-1], self.memory_size)
        return torch.cat([ego[..., :seen], weights], -1), memory

    def encode(self, name: str, rows: Tensor, mask: Tensor) -> Tensor:
        """Largest features of a set of elements, [..., n, columns] -> [..., width]."""
        network, scale = self.encoders[name], self.scales[name]
        assert isinstance(network, nn.Sequential)
        assert isinstance(scale, features.Scale)
        first, last = network[0], network[2]
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        if not fused.fits(rows, len(first.bias)):
            return masked_max(network(scale(rows)), mask)
        kinds = (int(scale.kinds[0]), len(scale.kinds)) if len(scale.kinds) else (0, 0)
        weights = (first.weight, first.bias, last.weight, last.bias)
        return fused.encode_elements(rows, mask, scale.scale, kinds, *weights)

    def choose_weights(self, weights: Mapping[str, float]) -> None:
        """Drive for these reward weights where the observation holds none.

        Args:
            weights: by term; the middle of its range for each that is not given.

        Raises:
            ValueError: a term that the policy does not observe, or a weight out of its range.
        """
        for term, weight in weights.items():
            if term not in self.ranges:
                known = ", ".join(self.ranges) or "none"
                raise ValueError(
                    f"reward_weights: expected any of those the policy observes ({known}), "
                    f"got {term}"
                )
            low, high = self.ranges[term]
            if not low <= weight <= high:
                raise ValueError(
                    f"reward_weights.{term}: expected a weight from {low:g} to {high:g}, "
                    f"got {weight:g}"
                )
        for i, (term, (low, high)) in enumerate(self.ranges.items()):
            middle = 0.5 * (low + high)
            self.chosen[i] = 2.0 * (weights.get(term, middle) - middle) / (high - low)
