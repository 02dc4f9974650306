"""Observation -> normalised features: fixed scales and bounded distances, no statistics to keep."""

from __future__ import annotations

import torch
from torch import Tensor

from alpagym.types import Observation

EGO_SCALE = (0.1, 0.25, 5.0, 0.2, 0.5, 0.5, 2.0, 0.1, 0.02, 0.05)
"""One over the usual size of each `EgoFeature`."""
AGENT_SCALE = (0.05, 0.05, 1.0, 1.0, 0.1, 0.1, 0.2, 0.5, 1.0, 1.0, 1.0)
ROAD_SCALE = (0.05, 0.05, 1.0, 1.0, 0.2, 1.0, 1.0, 1.0, 1.0)
ROUTE_SCALE = (0.05, 0.05, 1.0, 1.0, 0.1)
LIGHT_SCALE = (0.05, 0.05, 0.05, 1.0, 1.0, 1.0, 1.0)
LIMIT = 5.0
"""Scaled features are clipped to -+ this."""


def scaled(features: Tensor, scale: Tensor) -> Tensor:
    """Features times their scale, clipped; the same shape."""
    return (features * scale).clamp_(-LIMIT, LIMIT)


def flat_size(num_route_points: int) -> int:
    """Numbers in `flat`."""
    return len(EGO_SCALE) + num_route_points * len(ROUTE_SCALE)


def flat(observation: Observation, ego_scale: Tensor, route_scale: Tensor) -> Tensor:
    """Ego and route, whose slots have a fixed meaning, as one vector [..., 10 + 5 H]."""
    route = scaled(observation.route, route_scale)
    return torch.cat([scaled(observation.ego, ego_scale), route.flatten(-2)], -1)
