"""How Alpamayo's expert is told of a noisy action and of the time: one vector for each waypoint.

Parameters have the names that checkpoints give them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from alpagym.interop.alpamayo.settings import Settings

EPSILON = 1e-5
"""Of the root mean squares that hidden layers are divided by."""


class Waves(nn.Module):
    """Sines and cosines of a number at frequencies from 1 to the highest, evenly in logarithm."""

    def __init__(self, size: int, highest: float, low_precision: bool) -> None:
        super().__init__()
        self.size, self.highest, self.low_precision = size, highest, low_precision
        self.freqs: Tensor
        self.register_buffer("freqs", self.derived(), persistent=False)

    def derived(self, device: torch.device | str | None = None) -> Tensor:
        """The frequencies that a configuration stands for, float32 [1, size / 2].

        The releases keep them in bfloat16 with the rest of the model.
        """
        exact = torch.logspace(0.0, math.log10(self.highest), self.size // 2, device=device)[None]
        return exact.bfloat16().float() if self.low_precision else exact

    def forward(self, value: Tensor) -> Tensor:
        """[...] -> [..., size], in float32 at least."""
        value = value.to(torch.promote_types(value.dtype, torch.float32))
        phase = value[..., None] * self.freqs[0] * (2.0 * math.pi)
        return torch.cat([phase.sin(), phase.cos()], -1) * math.sqrt(2.0)


class Trunk(nn.Module):
    """Linear layers with SiLU between, each but the first after an RMS norm."""

    def __init__(self, size: int, hidden: int, layers: int, out: int) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Linear(size, hidden)]
        for layer in range(layers):
            wide = out if layer == layers - 1 else hidden
            parts += [nn.SiLU(), nn.RMSNorm(hidden, eps=EPSILON), nn.Linear(hidden, wide)]
        self.trunk = nn.Sequential(*parts)

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.trunk(features)
        return result


class ActionEncoder(nn.Module):
    """An action's waypoints and the time as the expert's input."""

    def __init__(self, settings: Settings, out: int) -> None:
        super().__init__()

        def waves() -> Waves:
            return Waves(settings.features, settings.max_frequency, settings.low_precision)

        self.sinus = nn.ModuleList([waves(), waves()])
        self.timestep_fourier_encoder = waves()
        self.encoder = Trunk(
            3 * settings.features, settings.encoder_hidden, settings.encoder_layers, out
        )
        self.norm = nn.LayerNorm(out)

    def forward(self, action: Tensor, time: Tensor) -> Tensor:
        """One vector for each waypoint.

        Args:
            action: normalized, noisy, [..., 64, 2].
            time: 0 for noise, 1 for data, [...].

        Returns:
            [..., 64, out] in the precision of the weights.
        """
        parts = [waves(action[..., i]) for i, waves in enumerate(self.sinus)]
        when = self.timestep_fourier_encoder(time)[..., None, :]
        features = torch.cat([*parts, when.expand(*parts[0].shape[:-1], -1)], -1)
        result: Tensor = self.norm(self.encoder(features.to(self.norm.weight.dtype)))
        return result
