"""What of a recording an update learns from, cut into minibatches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Batch:
    """N steps of a recording of [T, W], and the table that they stand in.

    Whole rollouts are columns, [T, w]; steps of no rollout in particular are one row, [1, N].
    """

    rows: Tensor
    """Where they are in the recording, flattened. int64 [N]"""
    place: Tensor
    """Where they are in the table, flattened. int64 [N]"""
    shape: tuple[int, int]
    """Of the table."""

    def table(self, values: Tensor) -> Tensor:
        """Values of the steps, [N], in their places; 0 elsewhere. Differentiable."""
        empty = values.new_zeros(self.shape[0] * self.shape[1])
        return empty.index_put((self.place,), values).view(self.shape)


@dataclass
class OwnBatch:
    """What of a batch one rank has, in the same table; nowhere else is anything there."""

    batch: Batch
    whole: Batch
    """Of all ranks."""
    rows: Tensor
    """Where the steps are in the rank's own recording, flattened. int64 [n]"""
    share: float
    """Of the whole batch; 0 where the one step that is here belongs to another rank."""

    def valid(self) -> Tensor:
        """Where the table holds steps of this rank, bool."""
        there = self.batch.rows.new_full(self.batch.rows.shape, self.share > 0.0, dtype=torch.bool)
        return self.batch.table(there)


def own_batch(batch: Batch, column: Tensor | None, width: int) -> OwnBatch:
    """Take from a batch what one rank has.

    Args:
        batch: of the steps of W rollouts on all ranks.
        column: where each rollout is in the rank's own recording, -1 for elsewhere, int64 [W]; None
            where all are as they are in the batch.
        width: rollouts in that recording.
    """
    if column is None:
        return OwnBatch(batch, batch, batch.rows, 1.0)
    step, at = batch.rows // len(column), column[batch.rows % len(column)]
    chosen = torch.nonzero(at >= 0).squeeze(1)
    share = len(chosen) / len(batch.rows)
    rows = step[chosen] * width + at[chosen]
    if not len(chosen):  # networks run on all ranks or on none
        chosen, rows = chosen.new_zeros(1), rows.new_zeros(1)
    return OwnBatch(Batch(batch.rows[chosen], batch.place[chosen], batch.shape), batch, rows, share)


def shuffled_steps(teaches: Tensor, size: int, generator: torch.Generator) -> list[Batch]:
    """Steps in random order, about `size` in each batch; none if nothing teaches.

    Args:
        teaches: which steps of the recording, bool [T, W].
        size: of a batch.
        generator: on the host.
    """
    chosen = torch.nonzero(teaches.flatten()).squeeze(1)
    if not len(chosen):
        return []
    order = torch.randperm(len(chosen), generator=generator).to(chosen.device)
    return [
        Batch(rows, torch.arange(len(rows), device=rows.device), (1, len(rows)))
        for rows in chosen[order].tensor_split(math.ceil(len(chosen) / size))
    ]


def shuffled_rollouts(
    teaches: Tensor, valid: Tensor, size: int, generator: torch.Generator
) -> list[Batch]:
    """Whole rollouts in random order, about `size` steps in each batch.

    Args:
        teaches: a rollout is taken if one of its steps does, bool [T, W].
        valid: the steps of a rollout, bool [T, W].
        size: of a batch, in steps.
        generator: on the host.
    """
    steps, worlds = valid.shape
    chosen = torch.nonzero((teaches & valid).any(0)).squeeze(1)
    if not len(chosen):
        return []
    order = torch.randperm(len(chosen), generator=generator).to(chosen.device)
    count = math.ceil(int(valid[:, chosen].sum()) / size)
    batches = []
    for columns in chosen[order].tensor_split(min(count, len(chosen))):
        step, place = torch.nonzero(valid[:, columns], as_tuple=True)
        rows = step * worlds + columns[place]
        batches.append(Batch(rows, step * len(columns) + place, (steps, len(columns))))
    return batches
