"""Shrunk boxes with rounded corners, as AlpaSim's evaluation draws them (`eval/data.py`, `RAABB`).

Eroding and then dilating a box by rho gives its inner rectangle (half sizes less rho) plus a disk
of radius rho. AlpaSim's disks are polygons, so `reach` is their support: rho at 64 directions, up
to 0.12 % less between them. Everything broadcasts over leading axes; an outline that erosion
empties has NaN half sizes, gives NaN distances and touches nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from alpagym.metrics.geometry import direction, rotate, to_frame
from alpagym.scenarios.polyline import fraction_along

ARC_STEP = np.pi / 32
"""Angle between two vertices of a corner [rad]: 16 chords a quarter circle, shapely's default."""

CORNERS = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]])


@dataclass(frozen=True)
class Outline:
    """Rounded boxes, any leading shape."""

    pose: np.ndarray
    """Box centers x, y [m] and yaw [rad], [..., 3]."""
    half: np.ndarray
    """Half length and half width of the inner rectangles [m], [..., 2]; NaN for empty outlines."""
    radius: np.ndarray
    """Corner radius rho [m], [...]."""

    def __getitem__(self, index: Any) -> Outline:
        return Outline(self.pose[index], self.half[index], self.radius[index])

    @property
    def extent(self) -> np.ndarray:
        """Half sizes of the axis-aligned box around each outline [m], [..., 2]."""
        c, s = np.abs(np.cos(self.pose[..., 2])), np.abs(np.sin(self.pose[..., 2]))
        x, y = self.half[..., 0], self.half[..., 1]
        return np.stack([c * x + s * y, s * x + c * y], -1) + self.radius[..., None]

    @property
    def reversed(self) -> Outline:
        """The same outlines with front and rear exchanged."""
        return Outline(self.pose + np.array([0.0, 0.0, np.pi]), self.half, self.radius)


def outline(pose: np.ndarray, size: np.ndarray, shrink: float, roundness: float) -> Outline:
    """Outlines of boxes.

    Args:
        pose: Box centers x, y [m] and yaw [rad], [..., 3].
        size: Length and width [m], broadcastable to [..., 2].
        shrink: Fraction taken off length and width.
        roundness: Corner radius as a fraction of half the shorter side; 1 empties the outline.
    """
    half = np.broadcast_to(size[..., :2] * (1 - shrink) / 2, (*pose.shape[:-1], 2))
    radius = roundness * half.min(-1)
    inner = half - radius[..., None] if roundness < 1 else np.full_like(half, np.nan)
    return Outline(pose, inner, radius)


def reach(radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """How far a corner's polygonal disk reaches towards `angle` in the box frame [m]."""
    return radius * np.cos(angle - ARC_STEP * np.round(angle / ARC_STEP))


def _nearest(candidates: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shortest of the vectors [..., K, 2], and the end point [..., K, 2] it belongs to."""
    k = (candidates**2).sum(-1).argmin(-1)[..., None, None]
    return (
        np.take_along_axis(candidates, k, -2)[..., 0, :],
        np.take_along_axis(ends, k, -2)[..., 0, :],
    )


def _rectangles(
    at: np.ndarray, turn: np.ndarray, half_a: np.ndarray, half_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Shortest vector from rectangle A to rectangle B and its end on B, in A's frame.

    B stands at `at`, turned by `turn`. The vector is zero where they overlap (separating axes);
    otherwise a corner of one of them is an end of it.
    """
    corner_b = at[..., None, :] + rotate(CORNERS * half_b[..., None, :], turn[..., None])
    to_b = corner_b - np.clip(corner_b, -half_a[..., None, :], half_a[..., None, :])
    corner_a = np.broadcast_to(CORNERS * half_a[..., None, :], corner_b.shape)
    seen = rotate(corner_a - at[..., None, :], -turn[..., None])
    foot = np.clip(seen, -half_b[..., None, :], half_b[..., None, :])
    foot = at[..., None, :] + rotate(foot, turn[..., None])
    vector, end = _nearest(
        np.concatenate([to_b, foot - corner_a], -2), np.concatenate([corner_b, foot], -2)
    )
    c, s = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    (ax, ay), (bx, by) = np.moveaxis(half_a, -1, 0), np.moveaxis(half_b, -1, 0)
    back = rotate(at, -turn)
    apart = np.abs(at[..., 0]) > ax + c * bx + s * by
    apart |= np.abs(at[..., 1]) > ay + s * bx + c * by
    apart |= np.abs(back[..., 0]) > bx + c * ax + s * ay
    apart |= np.abs(back[..., 1]) > by + s * ax + c * ay
    apart |= np.isnan(ax + bx)
    return np.where(apart[..., None], vector, 0.0), end


def _support(half: np.ndarray, radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """How far an outline reaches from its center towards `angle` in its frame [m]."""
    x, y = np.abs(np.cos(angle)) * half[..., 0], np.abs(np.sin(angle)) * half[..., 1]
    return x + y + reach(radius, angle)


def _around(angle: np.ndarray) -> list[np.ndarray]:
    """Directions of the chords next to `angle` [rad]."""
    step = np.floor(angle / ARC_STEP)
    return [(step - 0.5) * ARC_STEP, (step + 0.5) * ARC_STEP, (step + 1.5) * ARC_STEP]


def _vertex(radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """The vertex of a polygonal disk that lies furthest towards `angle` [m], [..., 2]."""
    at = ARC_STEP * np.round(angle / ARC_STEP)
    return radius[..., None] * direction(at)


def gap(a: Outline, b: Outline) -> np.ndarray:
    """Distance between outlines [m], 0 where they touch or overlap, NaN where one is empty.

    The distance of convex shapes is their largest separation along any direction. Between polygons
    that is the normal of a side or the line between two vertices, and close to the direction
    between the inner rectangles: those few are tried.
    """
    at, turn = to_frame(a.pose, b.pose[..., :2]), b.pose[..., 2] - a.pose[..., 2]
    half_a, half_b = np.broadcast_arrays(a.half, b.half)
    radius_a, radius_b = np.broadcast_arrays(a.radius, b.radius)
    vector, _ = _rectangles(at, turn, half_a, half_b)
    away = np.arctan2(vector[..., 1], vector[..., 0])
    vertex_b = rotate(_vertex(radius_b, away - turn + np.pi), turn)
    between = vector - _vertex(radius_a, away) + vertex_b
    directions = [away, np.arctan2(between[..., 1], between[..., 0]), *_around(away)]
    directions += [angle + turn for angle in _around(away - turn)]
    distance = np.zeros(away.shape)
    for angle in directions:
        apart = at[..., 0] * np.cos(angle) + at[..., 1] * np.sin(angle)
        apart = apart - _support(half_a, radius_a, angle) - _support(half_b, radius_b, angle - turn)
        distance = np.maximum(distance, apart)
    return distance


def segment_gap(box: Outline, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distance between outlines and the segments [..., 2] to [..., 2] (world) [m], 0 on contact."""
    p, q = to_frame(box.pose, start), to_frame(box.pose, end)
    half = box.half
    corner = CORNERS * half[..., None, :]
    along = q - p
    start, step = p[..., None, :], along[..., None, :]
    from_corner = start + fraction_along(corner - start, step)[..., None] * step - corner
    ends = np.stack([p, q], -2)
    from_side = ends - np.clip(ends, -half[..., None, :], half[..., None, :])
    vectors = np.concatenate([from_corner, from_side], -2)
    vector, _ = _nearest(vectors, vectors)
    away = np.arctan2(vector[..., 1], vector[..., 0])
    between = vector - _vertex(box.radius, away)
    crossing = np.arctan2(along[..., 0], -along[..., 1])  # the normal, for segments across the box
    distance = np.zeros(away.shape)
    for angle in [
        away,
        np.arctan2(between[..., 1], between[..., 0]),
        *_around(away),
        crossing,
        crossing + np.pi,
    ]:
        c, s = np.cos(angle), np.sin(angle)
        near = np.minimum(p[..., 0] * c + p[..., 1] * s, q[..., 0] * c + q[..., 1] * s)
        distance = np.maximum(distance, near - _support(half, box.radius, angle))
    return distance


def _span(
    x: np.ndarray, at: np.ndarray, turn: np.ndarray, half: np.ndarray, radius: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest y at which the line x = `x` meets a rounded box; infinite if nowhere.

    The rounded box is convex and the union of two rectangles and four disks.
    """
    low, high = np.full(x.shape, np.inf), np.full(x.shape, -np.inf)
    for grow in (np.array([1.0, 0.0]), np.array([0.0, 1.0])):
        corner = CORNERS * (half + radius[..., None] * grow)[..., None, :]
        corner = at[..., None, :] + rotate(corner, turn[..., None])
        following = np.roll(corner, -1, -2)
        run = following[..., 0] - corner[..., 0]
        t = (x[..., None] - corner[..., 0]) / np.where(run == 0, 1.0, run)
        y = corner[..., 1] + t * (following[..., 1] - corner[..., 1])
        meets = (run != 0) & (t >= 0) & (t <= 1)
        low = np.minimum(low, np.where(meets, y, np.inf).min(-1))
        high = np.maximum(high, np.where(meets, y, -np.inf).max(-1))
    center = at[..., None, :] + rotate(CORNERS * half[..., None, :], turn[..., None])
    room = radius[..., None] ** 2 - (x[..., None] - center[..., 0]) ** 2
    rise = np.sqrt(np.maximum(room, 0.0))
    low = np.minimum(low, np.where(room >= 0, center[..., 1] - rise, np.inf).min(-1))
    high = np.maximum(high, np.where(room >= 0, center[..., 1] + rise, -np.inf).max(-1))
    return low, high


def touches_front(a: Outline, b: Outline) -> np.ndarray:
    """Whether outlines `b` touch the front zones of `a`.

    AlpaSim's zone is the front edge of the shrunk box, buffered by rho and cut with the outline:
    the part of the outline ahead of the inner rectangle's front edge S. `b` touches it if, ahead
    of S's line, it comes within rho of S: its nearest point to S does if it lies ahead, otherwise
    where it meets the line. Without rounding the zone is the bare front edge. The rear zone is the
    front zone of `a.reversed`.
    """
    at, turn = to_frame(a.pose, b.pose[..., :2]), b.pose[..., 2] - a.pose[..., 2]
    half_a, half_b = np.broadcast_arrays(a.half, b.half)
    radius_a, radius_b = np.broadcast_arrays(a.radius, b.radius)
    front, side = half_a[..., 0], half_a[..., 1]
    edge = np.stack([np.zeros_like(front), side], -1)
    base = np.stack([front, np.zeros_like(front)], -1)
    vector, end = _rectangles(at - base, turn, edge, half_b)
    distance = np.hypot(vector[..., 0], vector[..., 1])
    pull = radius_b / np.where(distance > 0, distance, 1.0)
    ahead = end[..., 0] - pull * vector[..., 0] >= 0
    near = (distance <= radius_b) | (ahead & (distance <= radius_a + radius_b))
    low, high = _span(front, at, turn, half_b, radius_b)
    return near | ((low <= side + radius_a) & (high >= -side - radius_a))
