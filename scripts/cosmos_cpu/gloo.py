"""gloo in the place of NCCL: what `cosmos_rl.utils.pynccl` offers, for tensors of the CPU.

Functions are put into that module as soon as it has been run, before others import their names.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from datetime import timedelta
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist

MODULE = "cosmos_rl.utils.pynccl"
UID_BYTES = 128
_stores: list[Any] = []  # which end with what refers to them
_groups: dict[int, Any] = {}


def create_nccl_uid() -> list[int]:
    """Begin a place to meet, and say where it is as NCCL's ids are: in bytes."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    _stores.append(store)
    return [*store.port.to_bytes(2, "big"), *bytes(UID_BYTES - 2)]


def create_nccl_comm(
    uid_chars: Sequence[int], rank: int, world_size: int, timeout_ms: int | None = None
) -> int:
    port = int.from_bytes(bytes(b & 0xFF for b in uid_chars[:2]), "big")
    store = dist.TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(minutes=2))
    _stores.append(store)
    index = len(_stores)
    _groups[index] = dist.ProcessGroupGloo(dist.PrefixStore("comm", store), rank, world_size)
    return index


def get_nccl_comm_nranks(comm_idx: int) -> int:
    return int(_groups[comm_idx].size())


def nccl_abort(comm_idx: int) -> None:
    _groups.pop(comm_idx, None)


def nccl_abort_all() -> int:
    count = len(_groups)
    _groups.clear()
    return count


def nccl_group_start(comm_idx: int, timeout_ms: int | None = None) -> None: ...
def nccl_group_end(comm_idx: int, timeout_ms: int | None = None) -> None: ...


def nccl_broadcast(tensor: torch.Tensor, rank: int, comm_idx: int, *_: Any, **kw: Any) -> None:
    options = dist.BroadcastOptions()
    options.rootRank = rank
    whole = tensor.contiguous()
    _groups[comm_idx].broadcast([whole], options).wait()
    tensor.copy_(whole)


def nccl_allreduce(
    sendbuff: torch.Tensor, recvbuff: torch.Tensor, op: Any, comm_idx: int, *_: Any, **kw: Any
) -> None:
    options = dist.AllreduceOptions()
    options.reduceOp = op
    recvbuff.copy_(sendbuff)
    _groups[comm_idx].allreduce([recvbuff], options).wait()


def nccl_send(tensor: torch.Tensor, peer: int, comm_idx: int, *_: Any, **kw: Any) -> None:
    _groups[comm_idx].send([tensor.contiguous()], peer, 0).wait()


def nccl_recv(tensor: torch.Tensor, peer: int, comm_idx: int, *_: Any, **kw: Any) -> None:
    whole = tensor.contiguous()
    _groups[comm_idx].recv([whole], peer, 0).wait()
    tensor.copy_(whole)


OFFERED = {
    f.__name__: f
    for f in (
        *(create_nccl_uid, create_nccl_comm, get_nccl_comm_nranks, nccl_abort, nccl_abort_all),
        *(nccl_group_start, nccl_group_end, nccl_broadcast, nccl_allreduce, nccl_send, nccl_recv),
    )
}


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.loader is not None
        run = spec.loader.exec_module

        def run_and_replace(module: ModuleType) -> None:
            run(module)
            missing = [offered for offered in OFFERED if not hasattr(module, offered)]
            assert not missing, f"{MODULE}: expected {missing}"
            vars(module).update(OFFERED)

        spec.loader.exec_module = run_and_replace  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Have the module replaced when it is imported, which must not have happened yet."""
    assert MODULE not in sys.modules
    sys.meta_path.insert(0, _Finder())
