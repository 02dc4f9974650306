"""A set's elements through two layers and the largest of each feature, in one pass on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from alpagym import _core

FEATURES = (8, 16, 32, 64, 128)
"""Widths that the core is compiled for."""


class _Elements(torch.autograd.Function):
    """Rows, mask, scale and weights -> the largest features, [N, F]."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        mask: Tensor,
        scale: Tensor,
        kinds: tuple[int, int],
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
    ) -> Tensor:
        out = rows.new_empty(len(rows), len(b1))
        largest = torch.empty_like(out, dtype=torch.int32)
        _core.encode(rows, mask, scale, kinds[0], kinds[1], w1, b1, w2, b2, out, largest)
        ctx.kinds = kinds
        ctx.save_for_backward(rows, mask, scale, largest, w1, b1, w2, b2)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, mask, scale, largest, w1, b1, w2, b2 = ctx.saved_tensors
        weights, (first, count) = (w1, b1, w2, b2), ctx.kinds
        sizes = [w.numel() for w in weights]
        parts = rows.new_empty(-(-len(rows) // _core.sets_per_part), sum(sizes))
        given = gradient.contiguous()
        _core.encode_backward(
            rows, mask, scale, first, count, w1, b1, w2, b2, largest, given, parts
        )
        total = parts.sum(0).split(sizes)
        return (
            None,
            None,
            None,
            None,
            *(g.view_as(w) for g, w in zip(total, weights, strict=True)),
        )


def encode_elements(
    rows: Tensor, mask: Tensor, scale: Tensor, kinds: tuple[int, int], *weights: Tensor
) -> Tensor:
    """Largest positive feature over the elements of each set; differentiable in the weights.

    Args:
        rows: float32 [..., K, C]; `len(scale)` columns are multiplied by `scale` and clipped, the
            one after them is the kind.
        mask: whether a slot holds an element, bool [..., K].
        scale: [S].
        kinds: the first kind that has an input of its own, and how many do; (0, 0) for none.
        weights: of the two layers: w1 [F, S + kinds], b1 [F], w2 [F, F], b2 [F].

    Returns:
        [..., F]; 0 where a set is empty. On its way back, gradients are summed in an order that
        does not depend on the number of threads.

    Raises:
        ValueError: a shape, dtype or device that does not fit.
    """
    sets = rows.shape[:-2]
    out: Tensor = _Elements.apply(
        rows.flatten(0, -3).contiguous(), mask.flatten(0, -2).contiguous(), scale, kinds, *weights
    )
    return out.view(*sets, out.shape[-1])


def fits(rows: Tensor, features: int) -> bool:
    """Whether `encode_elements` does this: on the CPU, in float32."""
    return (
        rows.device.type == "cpu"
        and rows.dtype == torch.float32
        and rows.dim() > 2
        and not rows.requires_grad
        and features in FEATURES
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )
