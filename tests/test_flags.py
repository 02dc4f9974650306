"""Flags of recorded agents: which boxes lie beyond a road edge, in little memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from alpagym.scenarios import flags
from alpagym.scenarios.flags import beyond_edge, box_corners
from alpagym.scenarios.polyline import Segments, cut_segments

ALLOWED = 200e6
"""Of memory, beyond what is given [bytes]."""


def situation(
    points: int, boxes: int, extent: float, step: float = 1.0
) -> tuple[Segments, np.ndarray, np.ndarray]:
    """Winding edges at two heights and boxes about them: segments, centers and corners."""
    rng = np.random.default_rng(5)
    lines = []
    for height in np.repeat([0.0, 8.0], max(1, points // 4000)):
        xy = rng.uniform(-extent, extent, 2) + rng.normal(0.0, step, (2000, 2)).cumsum(0)
        lines.append(np.column_stack([xy, np.full(len(xy), height)]))
    segments = cut_segments(lines, np.arange(len(lines)), max_step=10.0)
    xyz = np.column_stack([rng.uniform(-extent, extent, (boxes, 2)), rng.choice([0.0, 8.0], boxes)])
    corners = box_corners(xyz[:, :2], rng.uniform(-4, 4, boxes), np.full((boxes, 2), [4.5, 2.0]))
    return segments, xyz, corners


@pytest.mark.parametrize("has_z", [False, True])
def test_how_boxes_are_taken_in_parts_changes_nothing(has_z, monkeypatch) -> None:
    segments, xyz, corners = situation(4000, 200, 60.0)
    whole = beyond_edge(segments, xyz, corners, has_z)
    assert 0.2 < whole.mean() < 0.8
    for at_once in (1, 7 * len(segments.owner)):
        monkeypatch.setattr(flags, "BOX_SEGMENTS", at_once)
        np.testing.assert_array_equal(beyond_edge(segments, xyz, corners, has_z), whole)


@pytest.mark.parametrize(("boxes", "extent", "step"), [(64, 3000.0, 1.0), (4, 1.0, 0.01)])
def test_large_maps_take_little_memory(boxes, extent, step) -> None:
    """Also where all segments are about as near as the nearest."""
    segments, xyz, corners = situation(200_000, boxes, extent, step)
    tracemalloc.start()
    beyond_edge(segments, xyz, corners, has_z=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < ALLOWED
