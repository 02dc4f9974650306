"""Observation -> normalized features: fixed scales and bounded distances, no statistics to keep."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EGO_SCALE = (0.1, 0.25, 5.0, 0.2, 0.5, 0.5, 2.0, 0.1, 0.02, 0.05)
"""One over the usual size of each `EgoFeature`."""
AGENT_SCALE = (0.05, 0.05, 1.0, 1.0, 0.1, 0.1, 0.2, 0.5, 1.0, 1.0, 1.0)
"""Likewise of each `AgentFeature`."""
ROAD_SCALE = (0.05, 0.05, 1.0, 1.0, 0.2, 1.0, 1.0, 1.0, 1.0)
"""Likewise of each `RoadFeature`."""
ROUTE_SCALE = (0.05, 0.05, 1.0, 1.0, 0.1)
"""Likewise of each `RouteFeature`."""
LIGHT_SCALE = (0.05, 0.05, 0.05, 1.0, 1.0, 1.0, 1.0)
"""Likewise of each `LightFeature`."""
LIMIT = 5.0
"""Scaled features are clipped to -+ this."""


class Scale(nn.Module):
    """Features times a fixed scale, clipped; nothing of it is learned or stored."""

    def __init__(self, scale: tuple[float, ...]) -> None:
        super().__init__()
        self.scale: Tensor
        self.register_buffer("scale", torch.tensor(scale), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """[..., n] -> [..., n]."""
        return (features * self.scale).clamp_(-LIMIT, LIMIT)
