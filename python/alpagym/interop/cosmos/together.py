"""Policy replicas of Cosmos-RL as ranks that learn together.

Cosmos-RL's communicator reduces tensors over the replicas there are at the moment; what ranks tell
each other beyond that is made of such sums.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from alpagym.ranks import RankError, Ranks

Value = TypeVar("Value")


class Communicator(Protocol):
    """What is used of `cosmos_rl.utils.distributed.HighAvailabilitylNccl`."""

    replica_name: str
    replica_name_to_rank: dict[str, int]

    def wait_comm_ready(self) -> None: ...
    def allreduce(self, sendbuff: Tensor, recvbuff: Tensor, op: Any) -> None: ...


class Replicas(Ranks):
    """One of several policy replicas, which drives and compares whole groups of its own.

    Only what a learner asks of ranks: sums, joined tensors, and small values of everyone's.
    """

    device: torch.device
    comm: Communicator

    def __init__(self, count: int, device: torch.device) -> None:
        """Not in touch yet: `meet` comes before anything is told."""
        super().__init__(rank=0, count=count)
        object.__setattr__(self, "device", device)

    def meet(self, comm: Communicator) -> None:
        """Talk through a communicator from now on, which may have been built anew.

        Raises:
            RankError: not as many replicas as the run was planned for.
        """
        comm.wait_comm_ready()
        there = len(comm.replica_name_to_rank)
        if there != self.count:
            raise RankError(f"policy replicas: expected {self.count}, as planned, got {there}")
        object.__setattr__(self, "comm", comm)
        object.__setattr__(self, "rank", comm.replica_name_to_rank[comm.replica_name])

    def line_up(self, key: int) -> None:
        """Take ranks by the order of keys, one of each replica, from now on."""
        keys = self.everyone(key)
        object.__setattr__(self, "rank", sorted(keys).index(key))

    def _sum(self, tensor: Tensor) -> Tensor:
        there = tensor.to(self.device).contiguous()
        self.comm.allreduce(there, there, dist.ReduceOp.SUM)
        return there

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        if self.alone or not tensors:
            return
        flat = self._sum(torch.cat([t.flatten() for t in tensors]))
        parts = flat.split([t.numel() for t in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def join(self, tensor: Tensor, dim: int, own: slice, length: int) -> Tensor:
        if self.alone:
            return tensor
        shape = list(tensor.shape)
        shape[dim] = length
        # NCCL knows no sums of bytes that are exact for all; whole numbers travel as 32 bits.
        kind = tensor.dtype if tensor.is_floating_point() else torch.int32
        all_of_it = torch.zeros(shape, dtype=kind, device=tensor.device)
        all_of_it.narrow(dim, own.start, own.stop - own.start).copy_(tensor)
        return self._sum(all_of_it).to(tensor.dtype)

    def everyone(self, value: Value) -> list[Value]:
        """The values that all replicas give, which must be as JSON has them."""
        if self.alone:
            return [value]
        own = torch.tensor(list(json.dumps(value).encode()), dtype=torch.int32)
        lengths = torch.zeros(self.count, dtype=torch.int32)
        lengths[self.rank] = len(own)
        sizes = self._sum(lengths).tolist()
        table = torch.zeros(self.count, max(sizes), dtype=torch.int32)
        table[self.rank, : len(own)] = own
        rows = self._sum(table).cpu()
        texts = [bytes(row[:size].tolist()) for row, size in zip(rows, sizes, strict=True)]
        values: list[Any] = [json.loads(text) for text in texts]
        return values
