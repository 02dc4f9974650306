"""Flags of recorded agents: which boxes lie beyond a road edge, in little memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from alpagym.scenarios import segment_tree
from alpagym.scenarios.flags import LEVEL_HEIGHT, beyond_edge, box_corners, overlapping
from alpagym.scenarios.polyline import Segments, cut_segments, on_segment
from alpagym.scenarios.scenario import Tracks
from alpagym.scenarios.segment_tree import IntricateError

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
    for at_once in (1, 1000):
        monkeypatch.setattr(segment_tree, "AT_ONCE", at_once)
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


@pytest.mark.parametrize("has_z", [False, True])
def test_the_nearest_of_all_segments_decides(has_z) -> None:
    segments, xyz, corners = situation(4000, 100, 60.0)
    every = np.arange(len(segments.owner))
    wanted = np.zeros(corners.shape[:2], bool)
    for i, own in enumerate(corners):
        near = every
        if has_z:
            near = every[np.abs(segments.middle[:, 2] - xyz[i, 2]) <= LEVEL_HEIGHT]
        for c, corner in enumerate(own):
            _, distance = on_segment(segments, near, np.tile(corner, (len(near), 1)))
            tied = near[np.round(distance, 4) == np.round(distance, 4).min()]
            offset, step = corner - segments.start[tied, :2], segments.step[tied, :2]
            side = (step[:, 0] * offset[:, 1] - step[:, 1] * offset[:, 0]) / np.hypot(*step.T)
            wanted[i, c] = side[np.abs(side).argmax()] < 0
    np.testing.assert_array_equal(beyond_edge(segments, xyz, corners, has_z), wanted)


def crowd(agents: int, frames: int, extent: float, size: tuple[float, float], seed: int) -> Tracks:
    """Boxes that lie about anyhow, some of them not there."""
    rng = np.random.default_rng(seed)
    shape = (agents, frames)
    return Tracks(
        xyz=rng.uniform(-extent, extent, (*shape, 3)).astype(np.float32),
        yaw=rng.uniform(-np.pi, np.pi, shape).astype(np.float32),
        velocity=np.zeros((*shape, 2), np.float32),
        valid=rng.random(shape) < 0.8,
        size=np.tile(np.array([*size, 1.5], np.float32), (agents, 1)) * rng.uniform(
            0.5, 2.0, (agents, 1)).astype(np.float32),
        type=np.ones(agents, np.uint8),
        id=np.arange(agents, dtype=np.int64),
    )  # fmt: skip


def touch(tracks: Tracks, i: int, j: int, frame: int) -> bool:
    """Whether two boxes meet, by their corners along the four axes of both."""
    a, b = (
        box_corners(tracks.xyz[[k], frame, :2], tracks.yaw[[k], frame], tracks.size[[k]])[0]
        for k in (i, j)
    )
    for box in (a, b):
        for axis in (box[1] - box[0], box[2] - box[1]):
            p, q = a @ axis, b @ axis
            if p.max() < q.min() or q.max() < p.min():
                return False
    return True


@pytest.mark.parametrize("has_z", [False, True])
@pytest.mark.parametrize("size", [(4.5, 2.0), (40.0, 0.1)])
def test_boxes_that_touch_are_found(has_z, size) -> None:
    tracks = crowd(40, 6, 30.0, size, seed=3)
    wanted = np.zeros_like(tracks.valid)
    for f in range(tracks.num_frames):
        for i in range(40):
            for j in range(i):
                level = not has_z or abs(np.diff(tracks.xyz[[i, j], f, 2])[0]) < LEVEL_HEIGHT
                if level and tracks.valid[i, f] and tracks.valid[j, f] and touch(tracks, i, j, f):
                    wanted[[i, j], f] = True
    assert 0.02 < wanted.mean() < 0.9
    np.testing.assert_array_equal(overlapping(tracks, has_z), wanted)


def test_a_pile_of_boxes_is_told_at_once_and_a_fence_of_slivers_is_refused() -> None:
    tracks = crowd(3000, 20, 0.5, (4.5, 2.0), seed=4)
    assert (overlapping(tracks, False) == tracks.valid).all()
    fence = crowd(3000, 40, 1.0, (30.0, 0.05), seed=5)
    fence.xyz[..., 0] = 0.11 * np.arange(3000)[:, None]
    fence.xyz[..., 1] = 0.11 * np.arange(3000)[:, None]
    fence.yaw[:] = -0.25 * np.pi
    fence.size[:] = 40.0, 0.06, 1.5
    with pytest.raises(IntricateError, match="so many boxes beside each other"):
        overlapping(fence, False)


def test_edges_upon_edges_are_refused() -> None:
    circle = 20 * np.exp(2j * np.pi * np.arange(60_000) / 20)
    line = np.stack([circle.real, circle.imag, 0 * circle.real], 1)
    segments = cut_segments([line], np.zeros(1, int), max_step=10.0)
    xyz = np.zeros((2000, 3))
    corners = box_corners(xyz[:, :2], np.zeros(2000), np.full((2000, 2), [4.5, 2.0]))
    with pytest.raises(IntricateError, match="so many lines of the map"):
        beyond_edge(segments, xyz, corners, False)
