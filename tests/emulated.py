"""The CUDA backend on a CPU: cuda/sim.cu compiled against tests/cpp/emulated, called by ctypes."""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from alpagym import _core, sim
from alpagym.config import SimConfig
from alpagym.types import TensorStruct

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "tests" / "cpp" / "emulated"
FORMATS = (torch.float32, torch.float16, torch.bfloat16, torch.int32)
"""By `RowFormat` of the core."""


def build(path: Path, scheduler: str, *options: str) -> None:
    """Compile the backend to a shared library; `scheduler` is `fibers` or `threads`."""
    command = [os.environ.get("CXX", "g++"), "-std=c++20", "-O1", "-ffp-contract=off"]
    command += ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wno-unknown-pragmas"]
    command += [f"-I{folder}" for folder in (SOURCES, ROOT / "csrc", ROOT / "cuda")]
    command += ["-shared", "-fPIC", "-pthread", *options, "-o", str(path)]
    command += [str(SOURCES / "library.cpp"), str(SOURCES / f"{scheduler}.cpp")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@cache
def fibers() -> ctypes.CDLL:
    """The library whose threads run by turns."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "emulated.so"
        build(path, "fibers")
        return ctypes.CDLL(str(path))


class Backend:
    """`step`, `observe` and `reset` of `alpagym.sim` on an emulated GPU."""

    device = "cpu"

    def __init__(self, library: ctypes.CDLL, *, fused: bool, backward: bool = False) -> None:
        """Choose the form, and whether threads take their turns from the last to the first."""
        self._library = library
        self._order = (int(fused), int(backward))

    def make_params(self, config: SimConfig) -> sim.Params:
        """`sim.make_params`; this backend goes by them from here on."""
        with mock.patch.object(sim, "Params", dict):
            for name, value in sim.make_params(config).items():  # type: ignore[attr-defined]
                self._library.set_param(name.encode(), ctypes.c_double(value))
        return sim.make_params(config)

    def reset(self, scenarios: TensorStruct, state: TensorStruct, mask: Tensor) -> None:
        self._set(scenarios, state)
        self._library.reset(_pointer(mask))

    def step(
        self,
        scenarios: TensorStruct,
        state: TensorStruct,
        outcome: TensorStruct,
        action: Tensor,
        weights: Tensor,
    ) -> None:
        self._set(scenarios, state, outcome)
        self._library.step(_pointer(action), _pointer(weights), len(weights))

    def observe(
        self,
        scenarios: TensorStruct,
        state: TensorStruct,
        seen: TensorStruct,
        mask: Tensor | None = None,
    ) -> None:
        self._set(scenarios, state, seen)
        self._library.observe(None if mask is None else _pointer(mask))

    def _set(self, *structs: TensorStruct) -> None:
        self._library.set_order(*self._order)
        for struct in structs:
            sizes: dict[str, int] = {}
            for name, _, dims in _core.fields[type(struct).__name__]:
                for symbol, size in zip(dims, getattr(struct, name).shape, strict=True):
                    plus = symbol.endswith("+1")
                    sizes.setdefault(symbol.removesuffix("+1"), size - plus)
            tensors = list(struct.tensors().values())
            assert all(t.is_contiguous() for t in tensors)
            formats = [FORMATS.index(t.dtype) if t.dtype in FORMATS else 0 for t in tensors]
            self._library.set(
                type(struct).__name__.encode(),
                (ctypes.c_void_p * len(tensors))(*(t.data_ptr() for t in tensors)),
                (ctypes.c_int * len(tensors))(*formats),
                (ctypes.c_char_p * len(sizes))(*(name.encode() for name in sizes)),
                (ctypes.c_int * len(sizes))(*sizes.values()),
                len(sizes),
            )


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    assert tensor.is_contiguous()
    return ctypes.c_void_p(tensor.data_ptr())


def nearest(distance2: Tensor, k: int, reach2: float, *, ordered: bool) -> Tensor:
    """Indices of the k nearest of a warp's candidates, float32 [n]; those beyond are not there."""
    chosen = torch.full((k,), -1, dtype=torch.int32)
    count = fibers().nearest(
        _pointer(distance2),
        len(distance2),
        k,
        ctypes.c_float(reach2),
        ordered,
        _pointer(chosen),
    )
    return chosen[:count].long()
