"""Low-rank adapters (LoRA, Hu et al. 2021) on linear layers of an expert.

Forty lines, without a package that brings a trainer of its own. The layers themselves stay frozen,
so with the adapters off the model is the one that was loaded: the anchor of KL without a copy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
"""Linear layers of a transformer's block, by name."""


class Adapted(nn.Module):
    """A frozen linear layer plus scale B A x, with B zero at first."""

    def __init__(self, layer: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        weight = layer.weight
        self.layer, self.scale, self.active = layer, scale, True
        self.down = nn.Parameter(weight.new_empty(rank, layer.in_features))
        self.up = nn.Parameter(weight.new_zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5.0))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        out: Tensor = self.layer(x)
        return out + self.scale * (x @ self.down.T @ self.up.T) if self.active else out


def add(
    model: nn.Module, rank: int, *, alpha: float | None = None, layers: Sequence[str] = ALL
) -> list[nn.Parameter]:
    """Freeze a model and adapt its linear layers of these names.

    Args:
        model: an expert, say; nothing else of a larger model is touched.
        rank: of each adapter, above 0.
        alpha: the adapter's part counts alpha / rank; None for alpha = rank.
        layers: last parts of names.

    Returns:
        What there is to learn.

    Raises:
        ValueError: a rank below 1, adapters that are there already, or no layer of these names.
    """
    if rank < 1:
        raise ValueError(f"lora rank: expected at least 1, got {rank}")
    if adapters(model):
        raise ValueError("lora: expected a model without adapters, got one that has them")
    model.requires_grad_(False)
    scale = (rank if alpha is None else alpha) / rank
    found = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and name.rpartition(".")[2] in layers
    }
    if not found:
        raise ValueError(f"lora: expected linear layers named {', '.join(layers)}, found none")
    for name, layer in found.items():
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, Adapted(layer, rank, scale))
    return [p for adapter in adapters(model) for p in (adapter.down, adapter.up)]


def adapters(model: nn.Module) -> list[Adapted]:
    """All adapters of a model."""
    return [module for module in model.modules() if isinstance(module, Adapted)]


@contextmanager
def off(model: nn.Module) -> Iterator[None]:
    """Within it, the model is as it was before it was adapted."""
    found = adapters(model)
    for adapter in found:
        adapter.active = False
    try:
        yield
    finally:
        for adapter in found:
            adapter.active = True


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Add adapters to the layers that they adapt, which take their places and names again."""
    for name, adapter in list(model.named_modules()):
        if isinstance(adapter, Adapted):
            parent, _, last = name.rpartition(".")
            change = adapter.scale * (adapter.up.float() @ adapter.down.float())
            weight = adapter.layer.weight
            weight.copy_((weight.float() + change).to(weight.dtype))
            setattr(model.get_submodule(parent), last, adapter.layer)
