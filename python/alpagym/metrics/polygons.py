"""Polygons in the plane, float64: what contains, meets or lies near what.

Containment is strict (a point on the boundary is outside) and contact counts touching, as
shapely's `contains` and `intersects`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from alpagym.metrics.geometry import cross, to_frame
from alpagym.scenarios.polyline import fraction_along


@dataclass(frozen=True)
class Polygons:
    """n simple polygons, convex or not, as rings over one pool of corners."""

    points: np.ndarray
    """Corners [m], float64 [P, 2]; the last of a ring is not its first repeated."""
    offsets: np.ndarray
    """Polygon i owns points[offsets[i]:offsets[i + 1]], [n + 1]."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @staticmethod
    def of(rings: Sequence[np.ndarray]) -> Polygons:
        """Pack rings [k, 2], closed by a repeated first point or not.

        Raises:
            ValueError: A ring that is not of three or more finite points.
        """
        packed = []
        for i, given in enumerate(rings):
            ring = np.asarray(given, np.float64)
            if ring.ndim != 2 or ring.shape[1] != 2 or not np.isfinite(ring).all():
                raise ValueError(
                    f"polygon {i}: expected finite [k, 2], got shape {list(ring.shape)} or NaN"
                )
            if len(ring) > 1 and (ring[0] == ring[-1]).all():
                ring = ring[:-1]
            if len(ring) < 3:
                raise ValueError(f"polygon {i}: expected 3 corners or more, got {len(ring)}")
            packed.append(ring)
        offsets = np.cumsum([0] + [len(ring) for ring in packed])
        return Polygons(np.concatenate(packed) if packed else np.zeros((0, 2)), offsets)

    def select(self, index: np.ndarray) -> Polygons:
        """The polygons of these indices, in this order."""
        return Polygons.of([self.ring(i) for i in index])

    def ring(self, i: int) -> np.ndarray:
        """Corners of one polygon [m], [k, 2]."""
        return self.points[self.offsets[i] : self.offsets[i + 1]]

    @cached_property
    def ends(self) -> np.ndarray:
        """Where the edge that begins at each corner ends [m], [P, 2]."""
        following = np.arange(1, len(self.points) + 1)
        following[self.offsets[1:] - 1] = self.offsets[:-1]
        return self.points[following]

    @cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest coordinates of each polygon [m], [n, 2] each."""
        if not len(self):
            return np.zeros((0, 2)), np.zeros((0, 2))
        begins = self.offsets[:-1]
        return np.minimum.reduceat(self.points, begins), np.maximum.reduceat(self.points, begins)

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Whether each polygon strictly contains each point.

        Args:
            points: [m], [..., 2].

        Returns:
            Bool [..., n].
        """
        points, shape = _rows(points)
        inside = np.zeros((len(points), len(self)), bool)
        low, high = self.bounds
        near = (points[:, None] > low).all(-1) & (points[:, None] < high).all(-1)
        point, polygon = np.nonzero(near)
        if len(point):
            edge, begins = _ragged(self.offsets, polygon)
            owner = np.repeat(point, np.diff(self.offsets)[polygon])
            a, b, p = self.points[edge], self.ends[edge], points[owner]
            turn = cross(b - a, p - a)
            on_edge = (
                (turn == 0) & (np.minimum(a, b) <= p).all(-1) & (p <= np.maximum(a, b)).all(-1)
            )
            up = (a[:, 1] <= p[:, 1]) & (p[:, 1] < b[:, 1])
            down = (b[:, 1] <= p[:, 1]) & (p[:, 1] < a[:, 1])
            crossed = (up & (turn > 0)) | (down & (turn < 0))  # by the ray from p towards +x
            odd = np.add.reduceat(crossed.astype(int), begins) % 2 == 1
            inside[point, polygon] = odd & ~np.logical_or.reduceat(on_edge, begins)
        return inside.reshape(*shape, len(self))

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Distance from each point to each polygon [m], 0 within; [..., 2] to float64 [..., n]."""
        points, shape = _rows(points)
        if not len(self) or not len(points):
            return np.zeros((*shape, len(self)))
        a, along = self.points, self.ends - self.points
        least = np.empty((len(points), len(self)))
        chunk = max(1, 2_000_000 // len(a))  # bounds the memory of points x edges
        for begin in range(0, len(points), chunk):
            offset = points[begin : begin + chunk, None] - a
            offset -= fraction_along(offset, along)[..., None] * along
            squared = np.square(offset).sum(-1)
            least[begin : begin + chunk] = np.minimum.reduceat(squared, self.offsets[:-1], axis=1)
        within = self.contains(points)
        return np.where(within, 0.0, np.sqrt(least)).reshape(*shape, len(self))

    def meets(self, convex: np.ndarray) -> np.ndarray:
        """Whether each polygon and each convex polygon share a point, boundaries included.

        Args:
            convex: Corners in order [m], [..., k, 2].

        Returns:
            Bool [..., n].
        """
        convex = np.asarray(convex, np.float64)
        shape, k = convex.shape[:-2], convex.shape[-2]
        convex = convex.reshape(-1, k, 2)
        result = np.zeros((len(convex), len(self)), bool)
        low, high = self.bounds
        near = (convex.max(1)[:, None] >= low).all(-1) & (convex.min(1)[:, None] <= high).all(-1)
        one, polygon = np.nonzero(near)
        if len(one):
            edge, begins = _ragged(self.offsets, polygon)
            owner = np.repeat(one, np.diff(self.offsets)[polygon])
            sides = np.stack([self.points[edge], self.ends[edge]], -2)
            touch = convex_intersect(sides, convex[owner])  # also where the polygon lies within
            result[one, polygon] = np.logical_or.reduceat(touch, begins)
            result |= self.contains(convex[:, 0])  # where it lies within the polygon
        return result.reshape(*shape, len(self))


def convex_intersect(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether two convex polygons (boxes, segments) share a point, touching included.

    Args:
        a: Corners in order [m], [..., k, 2]; 2 corners are a segment.
        b: Likewise [..., m, 2]; leading axes are broadcast.

    Returns:
        Bool [...].
    """
    apart = np.zeros(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), bool)
    for shape in (a, b):
        k = shape.shape[-2]
        for i in range(k if k > 2 else 1):
            along = shape[..., (i + 1) % k, :] - shape[..., i, :]
            origin = shape[..., i, :]
            # Measured from a point on the edge, so that far coordinates cost no digits.
            of_a = cross(along[..., None, :], a - origin[..., None, :])
            of_b = cross(along[..., None, :], b - origin[..., None, :])
            apart |= (of_a.max(-1) < of_b.min(-1)) | (of_b.max(-1) < of_a.min(-1))
    return ~apart


def angle_off(pose: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Angle between where a pose looks and where a point lies from it [rad], in [0, pi].

    Args:
        pose: x, y [m] and yaw [rad], [..., 3].
        point: [m], [..., 2]; leading axes are broadcast.
    """
    to = to_frame(pose, point)
    return np.abs(np.arctan2(to[..., 1], to[..., 0]))


def _rows(points: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    points = np.asarray(points, np.float64)
    return points.reshape(-1, 2), points.shape[:-1]


def _ragged(offsets: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pool indices of what each owner owns, one after another, and where each one's begin."""
    counts = np.diff(offsets)[owners]
    begins = np.cumsum(counts) - counts
    index = np.arange(counts.sum()) + np.repeat(offsets[owners] - begins, counts)
    return index, begins
