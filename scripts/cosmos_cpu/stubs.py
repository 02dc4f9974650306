"""What Cosmos-RL takes for granted and a machine without a GPU has not, for one process at a time.

Nothing here trains or talks to a GPU: the control plane runs as it is, on gloo and the CPU.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
import types
from typing import Any

import gloo
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


def _on_cpu(make: Any) -> Any:
    """The same function, which makes tensors on the CPU where it is told to on a GPU."""

    @functools.wraps(make)
    def made(*args: Any, device: Any = None, **kwargs: Any) -> Any:
        on_gpu = isinstance(device, int) or str(device).startswith("cuda")
        wanted = "cpu" if on_gpu else device
        return make(*args, device=wanted, **kwargs)

    return made


def install_cuda() -> None:
    """Let workers take the CPU for their GPU, and gloo for NCCL; before Cosmos-RL is imported."""
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
    torch.Tensor.cuda = lambda self, *a, **k: self  # type: ignore[method-assign,assignment]
    for name in ("empty", "empty_like", "zeros", "tensor"):
        setattr(torch, name, _on_cpu(getattr(torch, name)))
    gloo.install()
    from cosmos_rl.utils.parallelism import ParallelDims

    whole = ParallelDims.build_mesh

    def on_cpu(self: Any, device_type: Any = None, *args: Any, **kwargs: Any) -> Any:
        return whole(self, "cpu", *args, **kwargs)

    ParallelDims.build_mesh = on_cpu
