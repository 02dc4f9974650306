"""What Cosmos-RL takes for granted and a machine without a GPU has not, for one process at a time.

Nothing here trains or talks to a GPU: the control plane runs as it is, on gloo and the CPU.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import threading
import types
from typing import Any

import torch
import torch.distributed as dist


def _absent(name: str) -> type:
    def refuse(self: Any, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError(f"torchvision.{name} is not installed in this environment")

    return type(name, (), {"__init__": refuse})


def _module(name: str, **values: Any) -> types.ModuleType:
    """A module in which every other name is a class that cannot be made."""
    module = types.ModuleType(name)
    module.__dict__.update(values)
    module.__path__ = []  # a package, whose submodules may be looked up
    module.__spec__ = importlib.util.spec_from_loader(name, loader=None, is_package=True)

    def missing(attribute: str) -> type:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return _absent(attribute)

    module.__getattr__ = missing  # type: ignore[method-assign]
    sys.modules[name] = module
    return module


def install_packages() -> None:
    """Stand-ins for torchvision, whose wheels need a CUDA torch, and for names that torch dropped.

    Cosmos-RL imports both on its way to models that are not used here.
    """
    if importlib.util.find_spec("torchvision") is None:
        import enum

        names = ("NEAREST", "NEAREST_EXACT", "BILINEAR", "BICUBIC", "BOX", "HAMMING", "LANCZOS")
        mode = enum.Enum("InterpolationMode", {n: n.lower().replace("_", "-") for n in names})
        transforms = "torchvision.transforms"
        functional = _module(f"{transforms}.functional", InterpolationMode=mode)
        v2 = _module(f"{transforms}.v2", functional=_module(f"{transforms}.v2.functional"))
        whole = _module(transforms, InterpolationMode=mode, functional=functional, v2=v2)
        _module("torchvision", __version__="0.0", io=_module("torchvision.io"), transforms=whole)
    import torch.distributed.pipelining.stage as stage

    for name in ("_RootArgPlaceholder", "_RecvInfo", "_make_tensor_from_meta"):
        if not hasattr(stage, name):
            setattr(stage, name, type(name, (), {}))


class _Now:
    """A CUDA stream or event where everything has happened already."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def wait_stream(self, *args: Any) -> None: ...
    def wait_event(self, *args: Any) -> None: ...
    def synchronize(self) -> None: ...
    def record(self, *args: Any) -> None: ...
    def record_event(self, *args: Any) -> _Now:
        return _Now()

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: _Now) -> float:
        return 0.0


class _Peers:
    """The communicator between policy replicas, through gloo in the place of NCCL.

    Replicas find each other at the port COSMOS_PEERS_PORT of loopback.
    """

    def __init__(self, replica_name: str, **kwargs: Any) -> None:
        self.replica_name = replica_name
        self.replica_name_to_rank: dict[str, int] = {}
        self._group: Any = None
        self._built = threading.Event()

    def push_cmd(self, command: Any) -> None:
        """Meet the others in the background, since they may need this thread to get there."""
        self._built.clear()
        threading.Thread(target=self._build, args=(command,), daemon=True).start()

    def _build(self, command: Any) -> None:
        self.replica_name_to_rank = command.replica_name_to_rank
        count, rank = len(self.replica_name_to_rank), self.replica_name_to_rank[self.replica_name]
        if count > 1:
            port = int(os.environ["COSMOS_PEERS_PORT"])
            store = dist.TCPStore("127.0.0.1", port, count, rank == 0)
            mesh = dist.PrefixStore("+".join(sorted(self.replica_name_to_rank)), store)
            self._group = dist.ProcessGroupGloo(mesh, rank, count)
        self._built.set()

    def wait_comm_ready(self, timeout: float = 120.0) -> None:
        if not self._built.wait(timeout):
            raise TimeoutError("policy replicas: not met within two minutes")

    def get_replica_rank(self, name: str) -> int:
        self.wait_comm_ready()
        return self.replica_name_to_rank[name]

    def world_size(self) -> int:
        return len(self.replica_name_to_rank)

    def shutdown(self) -> None: ...

    def allreduce(self, sendbuff: torch.Tensor, recvbuff: torch.Tensor, op: Any) -> None:
        self.wait_comm_ready()
        options = dist.AllreduceOptions()
        options.reduceOp = op
        recvbuff.copy_(sendbuff)
        self._group.allreduce([recvbuff], options).wait()

    def broadcast(self, tensor: torch.Tensor, src_replica: str) -> None:
        options = dist.BroadcastOptions()
        options.rootRank = self.get_replica_rank(src_replica)
        self._group.broadcast([tensor], options).wait()

    def send(self, tensor: torch.Tensor, dst_replica: str) -> None:
        self._group.send([tensor], self.get_replica_rank(dst_replica), 0).wait()

    def recv(self, tensor: torch.Tensor, src_replica: str) -> None:
        self._group.recv([tensor], self.get_replica_rank(src_replica), 0).wait()


def install_cuda() -> None:
    """Let colocated workers take the CPU for their GPU; after `install_packages`."""
    dist.Backend.default_device_backend_map["cuda"] = "gloo"
    nothing = {name: lambda *a, **k: None for name in ("set_device", "synchronize", "empty_cache")}
    stand_ins = nothing | {
        "current_device": lambda: 0,
        "current_stream": lambda *a, **k: _Now(),
        "stream": lambda s: contextlib.nullcontext(),
        "Stream": _Now,
        "Event": _Now,
    }
    for name, value in stand_ins.items():
        setattr(torch.cuda, name, value)
    import cosmos_rl.policy.worker.rl_worker as worker
    import cosmos_rl.utils.distributed as distributed
    from cosmos_rl.utils.parallelism import ParallelDims

    whole = ParallelDims.build_mesh

    def on_cpu(self: Any, device_type: Any = None, *args: Any, **kwargs: Any) -> Any:
        return whole(self, "cpu", *args, **kwargs)

    ParallelDims.build_mesh = on_cpu
    distributed.HighAvailabilitylNccl = worker.HighAvailabilitylNccl = _Peers
    worker.nccl_abort_all = lambda *a, **k: None
