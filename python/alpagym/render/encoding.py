"""Numbers as the replay player reads them: whole, and each list as differences.

Positions are in centimeters and yaw in milliradians. Agents that stand still cost two bytes a step
that way, and the text stays readable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alpagym.scenarios.polyline import simplify

SIMPLIFY = 0.05
"""Largest deviation of a simplified polyline from its original [m]."""


def track(x: np.ndarray, y: np.ndarray, yaw: np.ndarray, valid: np.ndarray) -> dict[str, list[int]]:
    """One agent over N states; gaps hold the last valid value, so that differences stay small."""
    valid = valid.astype(bool) & np.isfinite(x) & np.isfinite(y) & np.isfinite(yaw)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], valid.astype(np.int8), [0]])))
    if not valid.any():
        return {"x": [], "y": [], "yaw": [], "valid": []}
    last = np.maximum.accumulate(np.where(valid, np.arange(len(valid)), -1))
    hold = np.where(last < 0, int(np.argmax(valid)), last)
    return {
        "x": _differences(x[hold], 100.0),
        "y": _differences(y[hold], 100.0),
        "yaw": _differences(np.unwrap(yaw[hold].astype(np.float64)), 1000.0),
        "valid": edges.tolist(),
    }


def _differences(values: np.ndarray, scale: float) -> list[int]:
    whole = np.rint(values.astype(np.float64) * scale).astype(np.int64)
    return np.diff(whole, prepend=0).tolist()


def polylines(lines: Sequence[np.ndarray]) -> list[list[int]]:
    """Of each line [n, 2] in meters x0, y0, dx1, dy1, ... in centimeters."""
    simple = simplify([np.asarray(line, np.float64) for line in lines], SIMPLIFY)
    whole = (np.rint(line * 100.0).astype(np.int64) for line in simple)
    return [np.diff(line, axis=0, prepend=0).ravel().tolist() for line in whole]


def pieces(points: np.ndarray, near: np.ndarray) -> list[np.ndarray]:
    """The runs of near points, each with one point more on either side."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], near.astype(np.int8), [0]])))
    runs = zip(edges[::2], edges[1::2], strict=True)
    return [points[max(0, start - 1) : end + 1] for start, end in runs]


def short(value: float) -> float | int | None:
    """Four significant digits; None unless finite."""
    number = float(value)
    if not math.isfinite(number):
        return None
    number = float(f"{number:.4g}")
    return int(number) if number.is_integer() and abs(number) < 1e15 else number


def plain(value: Any) -> Any:
    """A metric as JSON takes it."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, float, np.integer, np.floating)):
        return short(float(value))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    return None if value is None else str(value)
