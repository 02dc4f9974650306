"""Polylines in NumPy, float64: clean, simplify, resample, project, and find near segments.

A polyline is an array [n, 2] or [n, 3] of points [m]. Arc length `s` [m] is measured in the x-y
plane from the first point; the signed lateral offset `d` [m] is positive on the left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

MIN_STEP = 1e-3
"""Consecutive points closer than this [m] are one point."""


Angle = TypeVar("Angle", float, np.ndarray, "Tensor")


def wrap_angle(angle: Angle) -> Angle:
    """An angle or many [rad], brought into [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def drop_duplicates(points: np.ndarray, min_step: float = MIN_STEP) -> np.ndarray:
    """Points without those that lie closer than `min_step` in x-y to the one kept before them."""
    if len(points) < 2:
        return points
    steps = np.hypot(*np.diff(points[:, :2], axis=0).T)
    if (steps >= min_step).all():
        return points
    keep = [0]
    places = points[:, :2].tolist()  # to count in Python is faster than in arrays of one number
    for i, place in enumerate(places):
        if math.dist(place, places[keep[-1]]) >= min_step:
            keep.append(i)
    return points[keep]


LEVELS = 64
"""How often a line is split at its farthest point; recorded ones are through after 30 times."""


def simplify(lines: list[np.ndarray], tolerance: float = 0.05) -> list[np.ndarray]:
    """Each line without points that lie within `tolerance` [m] of what is kept (Douglas-Peucker).

    Distances are measured to segments, in as many dimensions as the points have; the ends stay. All
    lines are split side by side, level by level, so the work is a few array operations a level.
    What is left after `LEVELS` levels, which takes a line made for it, is split into halves, where
    points may be kept that need not be.
    """
    if not lines:
        return []
    points = np.concatenate(lines)
    ends = np.cumsum([len(line) for line in lines])
    first, last = ends - [len(line) for line in lines], ends - 1
    keep = np.zeros(len(points), bool)
    keep[first[last >= first]] = True
    keep[last[last >= first]] = True
    for level in count():
        inner = last - first - 1
        first, last, inner = first[inner > 0], last[inner > 0], inner[inner > 0]
        if not len(first):
            break
        span = np.repeat(np.arange(len(first)), inner)
        begins = np.cumsum(inner) - inner
        index = np.arange(len(span)) - begins[span] + first[span] + 1
        chord = points[last] - points[first]
        length_squared = np.einsum("ij,ij->i", chord, chord)
        offset = points[index] - points[first][span]
        along = np.einsum("ij,ij->i", offset, chord[span]) / np.maximum(length_squared, 1e-12)[span]
        offset -= np.minimum(np.maximum(along, 0), 1)[:, None] * chord[span]
        squared = np.einsum("ij,ij->i", offset, offset)
        worst = np.maximum.reduceat(squared, begins)
        _, place = np.unique(span[squared == worst[span]], return_index=True)
        middle = index[squared == worst[span]][place]
        if level >= LEVELS:
            middle = (first + last) // 2
        far = worst > tolerance * tolerance
        first, middle, last = first[far], middle[far], last[far]
        keep[middle] = True
        first, last = np.concatenate([first, middle]), np.concatenate([middle, last])
    return [line[kept] for line, kept in zip(lines, np.split(keep, ends[:-1]), strict=True)]


def split_long_steps(points: np.ndarray, max_step: float) -> np.ndarray:
    """The same line with points added so that no step is longer than `max_step` [m]."""
    if len(points) < 2:
        return points
    steps = np.hypot(*np.diff(points[:, :2], axis=0).T)
    parts = np.maximum(np.ceil(steps / max_step - 1e-9).astype(int), 1)
    if (parts == 1).all():
        return points
    step = np.repeat(np.arange(len(parts)), parts)
    part = np.arange(1, len(step) + 1) - (np.cumsum(parts) - parts)[step]
    index = np.concatenate([[0.0], step + part / parts[step]])
    columns = [np.interp(index, np.arange(len(points)), column) for column in points.T]
    return np.stack(columns, axis=1)


def arc_length(points: np.ndarray) -> np.ndarray:
    """Arc length of each point [m], [n]."""
    return np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points[:, :2], axis=0).T))])


def interpolate(points: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Points at the arc lengths `s`, held at the ends, [len(s), 2 or 3]."""
    own = arc_length(points)
    return np.stack([np.interp(s, own, column) for column in points.T], axis=1)


def resample(points: np.ndarray, spacing: float) -> np.ndarray:
    """Points at s = 0, spacing, 2 spacing, ..., up to the last one that still lies on the line."""
    length = arc_length(points)[-1]
    return interpolate(points, np.arange(int(length / spacing + 1e-6) + 1) * spacing)


def headings(points: np.ndarray) -> np.ndarray:
    """Heading of the segment that begins at each point, at the end of the last one [rad], [n]."""
    step = np.diff(points[:, :2], axis=0)
    yaw = np.arctan2(step[:, 1], step[:, 0])
    return np.append(yaw, yaw[-1])


def fraction_along(offset: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Where on a segment the nearest place to a point lies, from 0 to 1, [...].

    Args:
        offset: From the start of the segment to the point [m], [..., 2].
        step: From its start to its end [m], [..., 2]; leading axes are broadcast.
    """
    squared = np.square(step[..., 0]) + np.square(step[..., 1])
    dot = offset[..., 0] * step[..., 0] + offset[..., 1] * step[..., 1]
    return np.clip(dot / np.where(squared > 0, squared, 1.0), 0, 1)


def project(
    line: np.ndarray, points: np.ndarray, last: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest place on a polyline for each point, the first one among equals.

    Args:
        line: [m], [n, 2+], n >= 1.
        points: [m], [..., 2+].
        last: Index of the point of the line at which it ends for each of `points`, [...]; n - 1 if
            not given.

    Returns:
        s: arc length of the nearest place, within [0, length], [m], [...].
        d: distance to it, signed by the side on which the point lies, [m], [...].
    """
    if len(line) == 1:
        line = np.concatenate([line, line])
    start, shape = line[:-1, :2], points.shape[:-1]
    step = line[1:, :2] - start
    offset = points[..., :2].reshape(-1, 1, 2) - start
    along = fraction_along(offset, step)
    gap = offset - along[..., None] * step
    squared = np.square(gap[..., 0]) + np.square(gap[..., 1])
    if last is not None:
        squared = np.where(np.arange(len(step)) < last.reshape(-1, 1), squared, np.inf)
    rows, nearest = np.arange(len(squared)), squared.argmin(1)
    length = np.hypot(step[:, 0], step[:, 1])
    s = arc_length(line)[nearest] + along[rows, nearest] * length[nearest]
    side = step[nearest, 0] * offset[rows, nearest, 1] - step[nearest, 1] * offset[rows, nearest, 0]
    d = np.where(side >= 0, 1.0, -1.0) * np.sqrt(squared[rows, nearest])
    return s.reshape(shape), d.reshape(shape)


@dataclass
class Segments:
    """S directed segments cut from many polylines."""

    start: np.ndarray
    """[m], [S, 3]."""
    step: np.ndarray
    """End minus start [m], [S, 3]."""
    owner: np.ndarray
    """Index of the polyline it came from, [S]."""
    s: np.ndarray
    """Arc length at which it begins on its polyline [m], [S]."""

    @property
    def middle(self) -> np.ndarray:
        return self.start + 0.5 * self.step

    @property
    def yaw(self) -> np.ndarray:
        return np.arctan2(self.step[:, 1], self.step[:, 0])


def cut_segments(polylines: list[np.ndarray], owners: np.ndarray, max_step: float) -> Segments:
    """Segments of at most `max_step` [m] of all polylines [n, 3], so that midpoints find them."""
    starts, steps, owner, arc = [], [], [], []
    for points, index in zip(polylines, owners, strict=True):
        fine = split_long_steps(points.astype(np.float64), max_step)
        if len(fine) < 2:
            continue
        starts.append(fine[:-1])
        steps.append(np.diff(fine, axis=0))
        owner.append(np.full(len(fine) - 1, index))
        arc.append(arc_length(fine)[:-1])
    if not starts:
        return Segments(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0, int), np.zeros(0))
    return Segments(
        np.concatenate(starts), np.concatenate(steps), np.concatenate(owner), np.concatenate(arc)
    )


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared x-y distances between points a [m, 2+] and b [n, 2+], [m, n], by a matrix product."""
    a, b = a[:, :2], b[:, :2]
    return np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2.0 * (a @ b.T), 0.0)


def on_segment(
    segments: Segments, index: np.ndarray, query: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fraction along [0, 1] and distance [m] for pairs of query point [k, 2+] and segment [k]."""
    step = segments.step[index, :2]
    offset = query[:, :2] - segments.start[index, :2]
    along = fraction_along(offset, step)
    return along, np.hypot(*(offset - along[:, None] * step).T)
