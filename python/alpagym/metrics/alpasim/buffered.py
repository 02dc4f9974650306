"""The outline AlpaSim gives a lane without edges: its center line buffered by half a road width.

AlpaSim buffers with shapely, whose arcs are chords that begin at a segment's normal; the curve
here has the same vertices (GEOS, `operation/buffer/OffsetSegmentGenerator.cpp`).
"""

from __future__ import annotations

import numpy as np

from alpagym.metrics.alpasim.rounded import ARC_STEP
from alpagym.metrics.geometry import cross, direction

HALF_ROAD_WIDTH = 1.85
"""[m], `road_width_m` / 2 in `eval/scorers/offroad.py`."""

NEARLY_STRAIGHT = 1e-3
"""Offset ends closer than this part of the width are one vertex."""

CLOSING = 80
"""Where offsets do not meet in an inner turn, the curve goes 1/81 of the way to the corner."""


def _arc(center: np.ndarray, start: float, end: float, radius: float) -> np.ndarray:
    """Vertices of a clockwise arc, without its end, [n, 2]."""
    count = int((start - end) / ARC_STEP + 0.5)
    angle = start - (start - end) / max(count, 1) * np.arange(count)
    return center + radius * direction(angle)


def _meeting(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """Where segments [2, 2] cross, or None."""
    u, v, w = a[1] - a[0], b[1] - b[0], b[0] - a[0]
    turn = cross(u, v)
    if turn == 0:
        return None
    t, s = cross(w, v) / turn, cross(w, u) / turn
    return a[0] + t * u if 0 <= t <= 1 and 0 <= s <= 1 else None


def _left_side(line: np.ndarray, radius: float) -> list[np.ndarray]:
    """The curve left of a polyline and around its end."""
    step = np.diff(line, axis=0)
    heading = np.arctan2(step[:, 1], step[:, 0])
    normal = radius * np.stack([-step[:, 1], step[:, 0]], -1) / np.hypot(*step.T)[:, None]
    offset = np.stack([line[:-1] + normal, line[1:] + normal], 1)
    curve = []
    for i in range(len(step) - 1):
        corner, ends = line[i + 1], np.stack([offset[i, 1], offset[i + 1, 0]])
        turn = cross(step[i], step[i + 1])
        if turn == 0 and step[i] @ step[i + 1] > 0:
            continue
        close = np.hypot(*(ends[1] - ends[0])) < NEARLY_STRAIGHT * radius
        if turn <= 0:
            if close:
                curve.append(ends[:1])
                continue
            start = heading[i] + np.pi / 2
            end = start - (heading[i] - heading[i + 1]) % (2 * np.pi)
            curve += [ends[:1], _arc(corner, start, end, radius), ends[1:]]
            continue
        meeting = _meeting(offset[i], offset[i + 1])
        if meeting is not None:
            curve.append(meeting[None])
        elif close:
            curve.append(ends[:1])
        else:
            curve += [ends[:1], (CLOSING * ends + corner) / (CLOSING + 1), ends[1:]]
    last, end = line[-1], heading[-1] + np.pi / 2
    curve += [
        offset[-1:, 1],
        _arc(last, end, end - np.pi, radius),
        2 * last - offset[-1:, 1],
    ]
    return curve


def buffered(line: np.ndarray, radius: float = HALF_ROAD_WIDTH) -> np.ndarray:
    """Outline of all points within `radius` of a polyline, arcs drawn as chords.

    The curve may cross itself; the buffer is where it winds counter-clockwise.

    Args:
        line: [n, 2] [m]; points that repeat are dropped.
        radius: [m].

    Returns:
        Vertices, counter-clockwise, not closed, [m, 2]; empty for a line without length.
    """
    moved = np.concatenate([[True], (np.diff(line, axis=0) != 0).any(1)])
    line = line[moved]
    if len(line) < 2:
        return np.zeros((0, 2))
    curve = np.concatenate(_left_side(line, radius) + _left_side(line[::-1], radius))
    return curve[::-1]
