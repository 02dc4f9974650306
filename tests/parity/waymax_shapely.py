"""Overlap and off-road as Waymax means them, by shapely."""

from __future__ import annotations

import numpy as np
import shapely

from alpagym.metrics import waymax
from alpagym.metrics.geometry import corners
from parity.row import Row
from parity.ttc import polygons

SHAPELY = "shapely, independent"
BAND = 0.01
"""Decisions nearer than this to their threshold may fall either way [m]."""


def overlap_row(kind: str, pairs: np.ndarray) -> Row:
    """Boxes [n, 2, 5] that overlap, by shapely; the band by how deep, or how far they miss."""
    got = waymax.overlaps(pairs)[:, 0, 1]
    a, b = polygons(pairs[:, 0]), polygons(pairs[:, 1])
    want = shapely.intersects(a, b)
    shared = shapely.intersection(a, b)
    depth = shapely.area(shared) / np.maximum(shapely.length(shared), 1e-9)
    near = np.where(want, depth, shapely.distance(a, b)) < BAND
    differs = got != want
    return Row.decisions(f"waymax.overlap, {kind}", SHAPELY, differs, near)


def curved_edge(rng: np.random.Generator) -> np.ndarray:
    """A road edge with a point every 10 cm, [n, 3], far from all others."""
    s = np.arange(0.0, 60.0, 0.1)
    yaw = rng.uniform(-np.pi, np.pi) + rng.uniform(-0.04, 0.04) * s
    xy = np.cumsum(0.1 * np.stack([np.cos(yaw), np.sin(yaw)], -1), 0) + rng.uniform(-5e3, 5e3, 2)
    return np.concatenate([xy, np.zeros((len(s), 1))], 1)


def offroad_row(kind: str, lines: list[np.ndarray], boxes: np.ndarray) -> Row:
    """Corners of boxes [n, 5] on the right of the nearest of the lines, by shapely's projection.

    Undecided are corners near the line, or as near to another line, or nearest to a bend: which
    side that is depends on the definition.
    """
    flat = [np.concatenate([line[:, :2], np.zeros((len(line), 1))], 1) for line in lines]
    edges = waymax.edge_points(flat)
    assert edges is not None
    got = waymax.corner_edge_distances(boxes, np.zeros(len(boxes)), edges).ravel() > 0.0
    xy = np.roll(corners(boxes[:, :3], boxes[:, 3:]), 1, 1)  # front right first
    points = shapely.points(xy.reshape(-1, 2))
    shapes = np.array([shapely.LineString(line[:, :2]) for line in flat])
    tree = shapely.STRtree(shapes)
    nearest = tree.query_nearest(points, all_matches=False)[1]
    away = shapely.distance(points, shapes[nearest])
    at = shapely.line_locate_point(shapes[nearest], points)
    whole, ring = shapely.length(shapes[nearest]), shapely.is_closed(shapes[nearest])
    sides, turn = [], []
    for back, forth in ((-0.6, -0.5), (-0.01, 0.01), (0.5, 0.6)):
        low, high = (np.clip(at + d, 0.0, whole) for d in (back, forth))
        low, high = np.minimum(low, whole - 0.01), np.maximum(high, 0.01)
        low, high = np.where(ring, np.mod([at + back, at + forth], whole), [low, high])
        p, q = (
            shapely.get_coordinates(shapely.line_interpolate_point(shapes[nearest], s))
            for s in (low, high)
        )
        tangent = (q - p) / np.maximum(np.linalg.norm(q - p, axis=-1, keepdims=True), 1e-9)
        offset = xy.reshape(-1, 2) - p
        sides.append(tangent[:, 0] * offset[:, 1] - tangent[:, 1] * offset[:, 0])
        turn.append(tangent)
    along = [(turn[i] * turn[j]).sum(-1) for i, j in ((0, 1), (1, 2), (0, 2))]
    bend = np.min(along, 0) < np.cos(0.2)
    near = np.full(len(points), False)
    beside = tree.query(points, predicate="dwithin", distance=away + 0.1)
    near[beside[0][beside[1] != nearest[beside[0]]]] = True
    # An end's direction is that of the last half meter: what lies far beyond sees it turned.
    near |= (np.abs(sides[1]) < BAND + 0.02 * away) | bend
    differs = got != (sides[1] < 0.0)
    return Row.decisions(f"waymax.offroad corners, {kind}", SHAPELY, differs, near)
