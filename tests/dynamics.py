"""The vehicle and its controller as functions on arrays: tests/cpp/dynamics.cpp, compiled here."""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
TRACKED = 11
"""Targets of a problem: 1.0 s, 1.1 s, ... 2.0 s ahead."""


@cache
def library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dynamics.so"
        command = [os.environ.get("CXX", "g++"), "-std=c++20", "-O2", "-ffp-contract=off"]
        command += ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-shared", "-fPIC"]
        command += [f"-I{ROOT / 'csrc'}", str(ROOT / "tests" / "cpp" / "dynamics.cpp"), "-o"]
        done = subprocess.run([*command, str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return ctypes.CDLL(str(path))


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return array.ctypes.data_as(ctypes.c_void_p)


def advance(
    state: np.ndarray, command: np.ndarray, dt: np.ndarray, dtype: type = np.float64
) -> tuple[np.ndarray, np.ndarray]:
    """State [n, 8] after commands [n, 2] held for dt [n], and rates [n, 3] of its speeds then."""
    given = [np.ascontiguousarray(x, dtype) for x in (state, command, dt)]
    after, rate = np.empty_like(given[0]), np.empty((len(state), 3), dtype)
    name = "advance_double" if dtype is np.float64 else "advance_float"
    getattr(library(), name)(len(state), *map(_pointer, (*given, after, rate)))
    return after, rate


def moving(motion: np.ndarray) -> np.ndarray:
    """Speed, lateral speed and yaw rate [n, 3] -> state [n, 8]."""
    given = np.ascontiguousarray(motion, np.float64)
    state = np.empty((len(given), 8))
    library().moving(len(given), _pointer(given), _pointer(state))
    return state


def solve(
    state: np.ndarray, target: np.ndarray, horizon: np.ndarray | int = 20
) -> tuple[np.ndarray, np.ndarray]:
    """Commands [n, 2] for states [n, 8] and targets [n, 11, 3], and where there are any, bool [n].

    Targets beyond a shorter horizon are not read.
    """
    n = len(state)
    state, target = (np.ascontiguousarray(x, np.float64) for x in (state, target))
    assert target.shape == (n, TRACKED, 3)
    horizon = np.ascontiguousarray(np.broadcast_to(horizon, n), np.int32)
    command, solved = np.empty((n, 2)), np.empty(n, np.int32)
    library().solve(n, *map(_pointer, (state, target, horizon, command, solved)))
    return command, solved.astype(bool)
