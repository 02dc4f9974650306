"""Observation -> normalized features: fixed scales and bounded distances, no statistics to keep."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from alpagym.scenarios.scenario import AgentType, MapType

EGO_SCALE = (0.1, 0.25, 5.0, 0.2, 0.5, 0.5, 2.0, 0.1, 0.02, 0.05)
"""One over the usual size of each `EgoFeature`."""
AGENT_SCALE = (0.05, 0.05, 1.0, 1.0, 0.1, 0.2, 0.5)
"""Likewise of each `AgentFeature` but the kind."""
ROAD_SCALE = (0.05, 0.05, 1.0, 1.0, 0.2)
"""Likewise of each `RoadFeature` before the kind; the height is left out."""
ROUTE_SCALE = (0.05, 0.05, 1.0, 1.0, 0.1)
"""Likewise of each `RouteFeature`."""
LIGHT_SCALE = (0.05, 0.05, 0.05, 1.0, 1.0, 1.0, 1.0)
"""Likewise of each `LightFeature`."""
AGENT_KINDS = (AgentType.VEHICLE, AgentType.PEDESTRIAN, AgentType.CYCLIST)
"""Kinds of agents that are told apart."""
ROAD_KINDS = (MapType.LANE, MapType.ROAD_LINE, MapType.ROAD_EDGE)
"""Likewise of road points."""
LIMIT = 5.0
"""Scaled features are clipped to -+ this."""


class Scale(nn.Module):
    """Features times a fixed scale, clipped, and the kind in a column of its own for each.

    Nothing of it is learned or stored.
    """

    def __init__(self, scale: tuple[float, ...], kinds: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.scale: Tensor
        self.kinds: Tensor
        self.register_buffer("scale", torch.tensor(scale), persistent=False)
        self.register_buffer("kinds", torch.tensor(kinds, dtype=torch.float32), persistent=False)

    @property
    def size(self) -> int:
        """Columns of the result."""
        return len(self.scale) + len(self.kinds)

    def forward(self, features: Tensor) -> Tensor:
        """[..., columns] -> [..., size]; with kinds, the column after the scaled ones is theirs."""
        numbers = features[..., : len(self.scale)]
        scaled = (numbers * self.scale).clamp_(-LIMIT, LIMIT)
        if not len(self.kinds):
            return scaled
        kind = features[..., len(self.scale), None]
        return torch.cat([scaled, (kind == self.kinds).to(scaled.dtype)], -1)
