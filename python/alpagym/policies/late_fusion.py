"""The small policy: elements through shared networks, the largest features kept, fused late."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from alpagym.config import SimConfig
from alpagym.policies import features, fused
from alpagym.policies.policy import Policy
from alpagym.reward_ranges import Ranges
from alpagym.training_config import PolicyConfig
from alpagym.types import Observation

ACCEL_SCALE = 1.5
"""A normalized acceleration of 1 [m/s^2]."""
LATERAL_ACCEL_SCALE = 2.0
"""A normalized curvature of 1 bends so that speed^2 * curvature is this [m/s^2]."""
MIN_STEERING_SPEED = 4.0
"""Below this speed curvature is scaled as at it [m/s]."""


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
        config: what it was made of.
        ranges: of the reward weights that are observed, as `Policy.ranges`.
        chosen: stand for them where the observation holds none.
    """

    def __init__(
        self,
        config: PolicyConfig,
        sim_config: SimConfig,
        outputs: int,
        ranges: Ranges | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.ranges = dict(ranges or {})
        self.chosen: Tensor
        self.register_buffer("chosen", torch.zeros(len(self.ranges)), persistent=False)
        for name, wanted in (("ego", 10), ("agent", 8), ("road", 6)):
            columns = getattr(sim_config, f"{name}_columns")
            if columns < wanted:
                raise ValueError(
                    f"the network reads {wanted} features, got sim.{name}_columns={columns}"
                )
        scales = {
            "ego": features.Scale(features.EGO_SCALE + (1.0,) * len(self.ranges)),
            "agents": features.Scale(features.AGENT_SCALE, features.AGENT_KINDS),
            "road": features.Scale(features.ROAD_SCALE, features.ROAD_KINDS),
            "route": features.Scale(features.ROUTE_SCALE),
            "lights": features.Scale(features.LIGHT_SCALE),
        }
        self.scales = nn.ModuleDict(scales)
        self.encoders = nn.ModuleDict(
            {
                name: encoder(scales[name].size, config.width)
                for name in ("agents", "road", "lights")
            }
        )
        route_size = sim_config.num_route_points * len(features.ROUTE_SCALE)
        last = nn.Linear(config.hidden, outputs)
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
        first = nn.Linear(
            len(features.EGO_SCALE) + len(self.ranges) + route_size + 3 * config.width,
            config.hidden,
        )
        with torch.no_grad():  # reward weights mean nothing until closed-loop learning says so
            first.weight[:, len(features.EGO_SCALE) :][:, : len(self.ranges)] = 0.0
        self.trunk = nn.Sequential(
            first,
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(inplace=True),
            last,
        )

    def forward(self, observation: Observation) -> Tensor:
        """[..., outputs]."""
        if self.ranges and observation.ego.shape[-1] == len(features.EGO_SCALE):
            chosen = self.chosen.expand(*observation.ego.shape[:-1], -1)
            observation = replace(observation, ego=torch.cat([observation.ego, chosen], -1))
        parts = [
            self.scales["ego"](observation.ego),
            self.scales["route"](observation.route).flatten(-2),
        ]
        for name in self.encoders:
            rows, mask = getattr(observation, name), getattr(observation, f"{name}_mask")
            parts.append(self.encode(name, rows, mask))
        numbers: Tensor = self.trunk(torch.cat(parts, -1))
        return numbers

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


class LateFusion(SceneNetwork, Policy):
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

    def mean(self, observation: Observation) -> Tensor:
        return self.forward(observation) * _unit(observation)

    def sample(self, observation: Observation, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.forward(observation)
        normalized = mean + self.log_std.exp() * noise
        return normalized * _unit(observation), gaussian_log_prob(normalized, mean, self.log_std)

    def log_prob(self, observation: Observation, action: Tensor) -> Tensor:
        return gaussian_log_prob(
            action / _unit(observation), self.forward(observation), self.log_std
        )

    def deviation(self, observation: Observation, action: Tensor) -> Tensor:
        return self.forward(observation) - action / _unit(observation)

    def entropy(self) -> Tensor:
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()


def _unit(observation: Observation) -> Tensor:
    """Physical size of a normalized action of 1 at this speed, [..., 2]."""
    speed = observation.ego[..., 0].abs().clamp(min=MIN_STEERING_SPEED)
    return torch.stack(
        [torch.full_like(speed, ACCEL_SCALE), LATERAL_ACCEL_SCALE / speed.square()], -1
    )


def gaussian_log_prob(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Elementwise log-density of a normal distribution."""
    return -0.5 * ((x - mean) * (-log_std).exp()).square() - log_std - 0.5 * math.log(2 * math.pi)
