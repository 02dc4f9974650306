"""The processes that train together: which one this is, and what they tell each other.

`torchrun` starts them and sets their environment; without it there is one, which tells nobody
anything. Every rank runs the same program on the same scenarios and draws the same numbers; ranks
share the driving out, and put together what they saw.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = timedelta(days=1)
"""How long a rank waits for the others. Those that end are noticed at once."""

HEARING = timedelta(seconds=10)
"""How long a rank that ends waits for another to tell why."""

Value = TypeVar("Value")


class RankError(RuntimeError):
    """The ranks cannot go on together; the message is one sentence."""


@contextmanager
def _heard() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0].partition(". This is typically")[0]  # gloo's advice
        raise RankError(f"another rank has ended or is out of reach: {reason}") from error


def _meet(store: dist.Store, rank: int, count: int) -> int:
    """Wait for all ranks; returns which attempt of theirs it is, the same for all, from 1 on.

    What earlier attempts have left in the store may still be there, so the first rank answers
    whoever asks, until all that are there now have said so.
    """
    if rank > 0:
        asked = uuid4().hex
        store.set(f"asks/{rank}", asked)
        store.wait([f"answer/{asked}"], PATIENCE)
        attempt = int(store.get(f"answer/{asked}"))
        store.set(f"here/{attempt}/{rank}", "")
        return attempt
    attempt, missing = store.add("attempts", 1), set(range(1, count))
    while missing:
        for other in sorted(missing):
            if store.check([f"asks/{other}"]):
                store.set(f"answer/{store.get(f'asks/{other}').decode()}", str(attempt))
            if store.check([f"here/{attempt}/{other}"]):
                missing.remove(other)
        time.sleep(0.01)
    return int(attempt)


@dataclass(frozen=True)
class Ranks:
    """One of `count` processes."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    """Among those on this machine."""
    local_count: int = 1
    store: Any = None
    """Where they find each other: a `torch.distributed.Store`."""
    launch: Any = None
    """Likewise, of all ranks that one `torchrun` begins, again and again."""

    @classmethod
    def of_environment(cls) -> Ranks:
        """As `torchrun` tells, or one rank alone.

        Raises:
            ValueError: half of what `torchrun` sets is missing.
            RankError: the other ranks are out of reach.
        """
        known = os.environ
        count = int(known.get("WORLD_SIZE") or "1")
        if count == 1 and not known.get("TORCHELASTIC_RUN_ID"):
            return cls()
        missing = [n for n in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not known.get(n)]
        if missing:
            raise ValueError(
                f"WORLD_SIZE={count}: expected RANK, MASTER_ADDR and MASTER_PORT beside it, as "
                f"torchrun sets them, got no {' and no '.join(missing)}"
            )
        with _heard():
            store, rank, _ = next(dist.rendezvous("env://", timeout=PATIENCE))
            launch = dist.PrefixStore("alpagym", store)
            attempt = _meet(launch, rank, count)
        return cls(
            rank,
            count,
            int(known.get("LOCAL_RANK", rank)),
            int(known.get("LOCAL_WORLD_SIZE", count)),
            dist.PrefixStore(str(attempt), launch),
            launch,
        )

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        return self.count == 1

    def keep(self, key: str, value: str) -> None:
        """Keep a text for ranks that `torchrun` begins again."""
        if self.launch is not None:
            with _heard():
                self.launch.set(f"kept/{key}", value)

    def kept(self, key: str) -> str:
        """What was kept since `torchrun` was started, by whatever rank; empty for nothing."""
        if self.launch is None:
            return ""
        with _heard():
            there = self.launch.check([f"kept/{key}"])
            return self.launch.get(f"kept/{key}").decode() if there else ""

    def speaks(self) -> bool:
        """Whether it is for this rank to tell why all of them end: for the first that asks."""
        if self.store is None:
            return True
        own = str(self.rank)
        try:
            return bool(self.store.compare_set("speaks", "", own) == own.encode())
        except RuntimeError:  # who kept the store has ended, and has told why
            return False

    @contextmanager
    def speaking(self) -> Iterator[bool]:
        """Whether this rank `speaks`, inside, where it tells.

        The others wait until it has told: `torchrun` stops all of them when one has ended.
        """
        if speaks := self.speaks():
            yield True
        else:
            with suppress(RuntimeError):
                self.store.wait(["told"], HEARING)
            yield False
        if speaks and self.store is not None:
            self.store.set("told", "")

    def connect(self, device: torch.device, *, nccl: bool) -> None:
        """Begin to talk: through NCCL for tensors on GPUs, or else through gloo.

        Raises:
            RankError: the others are out of reach.
        """
        if self.alone:
            return
        with _heard():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if nccl else "gloo",
                store=dist.PrefixStore("group", self.store),
                rank=self.rank,
                world_size=self.count,
                timeout=PATIENCE,
                device_id=device if nccl else None,
            )

    def close(self) -> None:
        """End talking, when all is said."""
        if not self.alone and dist.is_initialized():
            dist.destroy_process_group()

    def share(self, count: int) -> slice:
        """Which of `count` things are this rank's: as many as the others', or one more or less."""
        return slice(self.rank * count // self.count, (self.rank + 1) * count // self.count)

    def part(self, rows: Tensor) -> tuple[Tensor, float]:
        """This rank's rows of a batch, and what share of the batch they are.

        One row, and a share of 0, where there are none: networks run on all ranks or on none.
        """
        own = rows[self.share(len(rows))]
        return (own, len(own) / len(rows)) if len(own) else (rows[:1], 0.0)

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one type and device by their sums over all ranks."""
        if self.alone or not tensors:
            return
        flat = torch.cat([t.flatten() for t in tensors])
        with _heard():
            dist.all_reduce(flat)
        parts = flat.split([t.numel() for t in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def join(self, tensor: Tensor, dim: int, own: slice, length: int) -> Tensor:
        """What all ranks have, side by side, on every one of them.

        Args:
            tensor: floats, `own` along a dimension.
            dim: which.
            own: this rank's place.
            length: of the dimension in all.
        """
        if self.alone:
            return tensor
        shape = list(tensor.shape)
        shape[dim] = length
        whole = tensor.new_zeros(shape)
        whole.narrow(dim, own.start, own.stop - own.start).copy_(tensor)
        with _heard():
            dist.all_reduce(whole)  # with zeros, so every number stays what it is
        return whole

    def everyone(self, value: Value) -> list[Value]:
        """The values that all ranks give, in their order."""
        if self.alone:
            return [value]
        values: list[Any] = [None] * self.count
        with _heard():
            dist.all_gather_object(values, value)
        return values

    def told(self, value: Value) -> Value:
        """The value that the first rank gives."""
        if self.alone:
            return value
        values = [value]
        with _heard():
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def tell_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by those of the first rank."""
        for tensor in () if self.alone else tensors:
            with _heard():
                dist.broadcast(tensor, src=0)

    def agree(self, what: str, tensors: Sequence[Tensor]) -> None:
        """Make sure that all ranks have the same bits.

        Raises:
            RankError: one has not.
        """
        if self.alone:
            return
        parts = [t.detach().contiguous().flatten().view(torch.uint8) for t in tensors]
        bits = torch.cat(parts)
        found = self.everyone([len(bits), *(int(bits[i::4].sum()) for i in range(4))])
        for rank, sums_there in enumerate(found):
            if sums_there != found[0]:
                raise RankError(
                    f"{what}: expected the same bits on all ranks, got others on rank {rank} than "
                    "on rank 0: ranks need the same files, versions and kind of processor"
                )

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """First the first rank, then the first of each other machine, then all others at once.

        For what is written once and found by the others.
        """
        turn = 0 if self.first else 1 if self.local_rank == 0 else 2
        for now in range(3):
            if now == turn:
                yield
            self.everyone(None)


ALONE = Ranks()
"""A process that trains by itself."""
