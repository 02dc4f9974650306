"""What AlpaSim asks of a map: lanes near the ego, their union, the nearest road edge.

The border of a union of lanes is found without clipping polygons: all outlines are cut where they
meet, and a piece is border where exactly one of its sides lies in a lane. Which lanes lie on each
side is known once per map, so any set of candidate lanes has its border by a mask. An outline is
in the union if its center is and no piece of border enters it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from alpagym.metrics.alpasim.buffered import buffered
from alpagym.metrics.alpasim.rounded import Outline, segment_gap
from alpagym.metrics.geometry import cross
from alpagym.scenarios.polyline import interpolate, project, wrap_angle

CANDIDATE_RADIUS = 6.0
"""A lane is a candidate if a vertex of its center line is this near in 3-D [m]."""

WRONG_WAY = 2 * np.pi / 3
"""[rad]"""

EDGE_CONTACT = 1e-3
"""Distance below which the ego touches a road edge [m]."""

SIDE = 1e-8
"""How far beside a piece of outline its sides are probed [m]."""

BLOCK = 1 << 22
"""Distances held in memory at a time."""


@dataclass(frozen=True)
class Border:
    """Outlines of all lanes, cut where they meet: S pieces, L lanes."""

    start: np.ndarray
    """[S, 2] [m]."""
    end: np.ndarray
    """[S, 2] [m]."""
    lane: np.ndarray
    """Whose outline a piece belongs to, [S]."""
    left: np.ndarray
    """Which lanes lie on a piece's left, bool [S, L]."""
    right: np.ndarray
    """Likewise on its right, bool [S, L]."""

    def of_unions(self, member: np.ndarray) -> np.ndarray:
        """Pieces that bound the union of the lanes in `member` (bool [T, L]), bool [T, S]."""
        sets, which = np.unique(member, axis=0, return_inverse=True)
        chosen = sets.astype(np.float32).T
        left, right = (side.astype(np.float32) @ chosen > 0 for side in (self.left, self.right))
        return ((left != right) & sets[:, self.lane].T).T[which]


@dataclass(frozen=True)
class LineMap:
    """Lanes and road edges of one map, in world coordinates [m]."""

    center: Sequence[np.ndarray]
    """Center lines, each [n, 3]."""
    left: Sequence[np.ndarray]
    """Left edges, each [n, 2]; without points where the lane has none."""
    right: Sequence[np.ndarray]
    """Right edges likewise."""
    edges: Sequence[np.ndarray]
    """Road edges, each [n, 3]."""

    @cached_property
    def polygons(self) -> list[np.ndarray]:
        """Lane outlines, counter-clockwise: edges, or the buffered center line, each [n, 2]."""
        rings = []
        for center, left, right in zip(self.center, self.left, self.right, strict=True):
            if len(left):
                ring = np.concatenate([left, right[::-1]])
                x, y = (ring - ring[0]).T
                area = x @ np.roll(y, -1) - y @ np.roll(x, -1)
                rings.append(ring if area >= 0 else ring[::-1])
            else:
                rings.append(buffered(center[:, :2]))
        return rings

    @cached_property
    def border(self) -> Border:
        return _border(self.polygons)

    def candidates(self, xyz: np.ndarray) -> np.ndarray:
        """Lanes with a center-line vertex within 6 m of positions [T, 3], bool [T, L]."""
        if not self.center:
            return np.zeros((len(xyz), 0), bool)
        first = np.concatenate([[0], np.cumsum([len(line) for line in self.center])[:-1]])
        nearest = [
            np.minimum.reduceat(d, first, 1) for d in _squares(xyz, np.concatenate(self.center))
        ]
        return np.concatenate(nearest) <= CANDIDATE_RADIUS**2

    def nearest_edge(self, xyz: np.ndarray) -> np.ndarray:
        """Road edge that owns the vertex nearest to positions [T, 3] in 3-D, [T]."""
        owner = np.repeat(np.arange(len(self.edges)), [len(line) for line in self.edges])
        nearest = [d.argmin(1) for d in _squares(xyz, np.concatenate(self.edges))]
        return owner[np.concatenate(nearest)]

    def contain(self, xy: np.ndarray, candidate: np.ndarray) -> np.ndarray:
        """Which candidate lanes (bool [T, L]) hold the points [T, 2], bool [T, L]."""
        inside = np.zeros(candidate.shape, bool)
        for lane in np.flatnonzero(candidate.any(0)):
            asked = candidate[:, lane]
            inside[asked, lane] = _inside(xy[asked], self.polygons[lane])
        return inside

    def wrong_way(self, ego: Outline, inside: np.ndarray) -> np.ndarray:
        """Whether a lane around the center (bool [T, L]) runs against the ego, bool [T].

        The lane's yaw is that from 1 cm before to 1 cm after the projected center; AlpaSim
        compares yaws in (-pi, pi] without wrapping their difference, which errs around pi.
        """
        wrong = np.zeros(len(inside), bool)
        yaw = -wrap_angle(-ego.pose[:, 2])
        for lane in np.flatnonzero(inside.any(0)):
            at, line = inside[:, lane], self.center[int(lane)][:, :2]
            s, _ = project(line, ego.pose[at, :2])
            step = interpolate(line, s + 0.01) - interpolate(line, s - 0.01)
            wrong[at] |= np.abs(np.arctan2(step[:, 1], step[:, 0]) - yaw[at]) > WRONG_WAY
        return wrong

    def union_gap(self, ego: Outline, candidate: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """Distance from inside the union of candidate lanes to its border [m], [T].

        Negative where the union does not contain the outline.
        """
        best = np.full(len(candidate), -1.0)
        held = np.flatnonzero(inside.any(1))
        if not len(held):
            return best
        middle = (self.border.start + self.border.end) / 2
        half_length = np.hypot(*(self.border.end - self.border.start).T) / 2
        for row in np.array_split(held, 1 + len(held) * len(middle) // BLOCK):
            bounds = self.border.of_unions(candidate[row])
            away = np.hypot(*(ego.pose[row, None, :2] - middle).transpose(2, 0, 1))
            away[~bounds] = np.inf
            # The piece with the nearest middle bounds the distance of the nearest piece.
            limit = away.min(1) + ego.extent[row].sum(1)
            step, piece = np.nonzero(away - half_length <= limit[:, None])
            gap = segment_gap(ego[row[step]], self.border.start[piece], self.border.end[piece])
            best[row] = np.inf
            np.minimum.at(best, row[step], gap)
        return np.where(best == 0, -1.0, best)

    def touches_edge(self, ego: Outline, z: np.ndarray) -> np.ndarray:
        """Whether the outline comes within 1 mm of its nearest road edge, bool [T]."""
        touches = np.zeros(len(ego.pose), bool)
        edge = self.nearest_edge(np.concatenate([ego.pose[:, :2], z[:, None]], 1))
        for k in np.unique(edge):
            at, line = np.flatnonzero(edge == k), self.edges[k][:, :2]
            line = np.concatenate([line, line]) if len(line) == 1 else line
            gap = segment_gap(ego[at[:, None]], line[None, :-1], line[None, 1:])
            touches[at] = gap.min(1) < EDGE_CONTACT
        return touches


def _squares(xyz: np.ndarray, points: np.ndarray) -> list[np.ndarray]:
    """Squared distances between positions [T, 3] and points [V, 3], in blocks of rows."""
    blocks = np.array_split(xyz, 1 + len(xyz) * len(points) // BLOCK)
    return [((block[:, None] - points) ** 2).sum(-1) for block in blocks]


def _inside(points: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """Whether points [p, 2] lie where a ring [n, 2] winds counter-clockwise, bool [p]."""
    result = np.zeros(len(points), bool)
    if not len(ring):
        return result
    near = np.flatnonzero(((points >= ring.min(0)) & (points <= ring.max(0))).all(1))
    for part in np.array_split(near, 1 + len(near) * len(ring) // BLOCK):
        a, b = ring, np.roll(ring, -1, 0)
        x, y = points[part, 0, None], points[part, 1, None]
        side = (b[:, 0] - a[:, 0]) * (y - a[:, 1]) - (b[:, 1] - a[:, 1]) * (x - a[:, 0])
        up = (a[:, 1] <= y) & (b[:, 1] > y) & (side > 0)
        down = (a[:, 1] > y) & (b[:, 1] <= y) & (side < 0)
        result[part] = up.sum(1) - down.sum(1) > 0
    return result


def _cuts(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where segments a-b [m, 2] are met by segments c-d [n, 2]: their index and place in [0, 1].

    Ends that lie on a segment cut it too, so that overlapping outlines are cut alike.
    """
    low, high = np.minimum(c, d) - SIDE, np.maximum(c, d) + SIDE
    near = np.ones((len(a), len(c)), bool)
    for k in (0, 1):
        near &= np.minimum(a[:, k], b[:, k])[:, None] <= high[:, k]
        near &= np.maximum(a[:, k], b[:, k])[:, None] >= low[:, k]
    i, j = np.nonzero(near)
    u, v, w = b[i] - a[i], d[j] - c[j], c[j] - a[i]
    turn = cross(u, v)
    safe = np.where(turn == 0, 1.0, turn)
    t, s = cross(w, v) / safe, cross(w, u) / safe
    meet = (turn != 0) & (t > 0) & (t < 1) & (s >= 0) & (s <= 1)
    rows, places = [i[meet]], [t[meet]]
    length2 = (u**2).sum(-1)
    for tip in (c[j], d[j]):
        w = tip - a[i]
        t = (w * u).sum(-1) / np.where(length2 > 0, length2, 1.0)
        on = (((w - t[:, None] * u) ** 2).sum(-1) < SIDE**2) & (t > 0) & (t < 1)
        rows.append(i[on])
        places.append(t[on])
    return np.concatenate(rows), np.concatenate(places)


def _border(rings: list[np.ndarray]) -> Border:
    count = len(rings)
    size = np.array([len(ring) for ring in rings])
    empty = np.zeros((0, 2))
    a = np.concatenate([empty, *rings])
    b = np.concatenate([empty, *[np.roll(ring, -1, 0) for ring in rings]])
    owner = np.repeat(np.arange(count), size)
    origin = a.mean(0) if len(a) else np.zeros(2)
    a, b = a - origin, b - origin
    rings = [ring - origin for ring in rings]
    low, high = np.minimum(a, b) - SIDE, np.maximum(a, b) + SIDE
    rows, places = [np.arange(len(a))], [np.zeros(len(a))]
    for ring in rings:
        if not len(ring):
            continue
        c, d = ring, np.roll(ring, -1, 0)
        near = ((low <= ring.max(0)) & (high >= ring.min(0))).all(1).nonzero()[0]
        for part in np.array_split(near, 1 + len(near) * len(ring) // BLOCK):
            row, place = _cuts(a[part], b[part], c, d)
            rows.append(part[row])
            places.append(place)
    row, place = np.concatenate(rows), np.concatenate(places)
    order = np.lexsort((place, row))
    row, place = row[order], place[order]
    until = np.append(place[1:], 1.0)
    until[np.append(row[1:] != row[:-1], True)] = 1.0
    along_edge = b[row] - a[row]
    length = np.hypot(*along_edge.T)
    kept = (until - place) * length > 2 * SIDE
    row, place, until, along_edge = row[kept], place[kept], until[kept], along_edge[kept]
    start = a[row] + place[:, None] * along_edge
    end = a[row] + until[:, None] * along_edge
    normal = np.stack([-along_edge[:, 1], along_edge[:, 0]], -1) / length[kept, None]
    middle = (start + end) / 2
    left, right = (
        np.stack([_inside(middle + side * SIDE * normal, ring) for ring in rings], 1)
        if count
        else np.zeros((0, 0), bool)
        for side in (1, -1)
    )
    return Border(start + origin, end + origin, owner[row], left, right)
