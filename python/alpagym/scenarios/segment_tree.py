"""Which of many segments may be the nearest to a place, without looking at all of them."""

from __future__ import annotations

import numpy as np

from alpagym.scenarios.polyline import Segments
from alpagym.scenarios.scenario import ScenarioError

FAN = 8
"""Children of a node."""
AT_ONCE = 1 << 18
"""Of how many pairs of places and nodes distances are taken at once, which bounds the memory."""


class IntricateError(ScenarioError):
    """More than is looked at in the seconds that a file may take; who raises knows no file."""


class SegmentTree:
    """Boxes about segments, boxes about `FAN` neighboring boxes, and so on.

    Neighbors are neighbors on a Z-order curve, so that to build the tree is to sort once.
    """

    def __init__(self, segments: Segments) -> None:
        middle, ends = segments.middle, segments.start + segments.step
        self.order = np.argsort(_z_order(middle[:, :2]), kind="stable")
        low, high = np.minimum(segments.start, ends), np.maximum(segments.start, ends)
        low[:, 2] = high[:, 2] = middle[:, 2]  # the height of a segment is that of its middle
        self._levels = [(low[self.order], high[self.order], middle[self.order])]
        while len(self._levels[0][0]) > FAN:
            low, high, middle = self._levels[0]
            first = np.arange(0, len(low), FAN)
            # Any of the middles bounds how far the nearest is: one from between the others.
            some = np.minimum(first + FAN // 2, len(low) - 1)
            self._levels.insert(
                0,
                (
                    np.minimum.reduceat(low, first),
                    np.maximum.reduceat(high, first),
                    middle[some],
                ),
            )

    def near(
        self,
        places: np.ndarray,
        slack: np.ndarray,
        level: float | None,
        limit: int,
        *,
        nearest: bool = True,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pairs of a place and a segment that is hardly farther from it than the nearest.

        Args:
            places: [m], [n, 3].
            slack: how much farther than the nearest middle of a segment it may be [m], [n].
            level: segments more than this above or below a place do not count [m]; None if all do.
            limit: most pairs.
            nearest: False to find all that are nearer than `slack`.

        Returns:
            Indices of places, ascending, and of segments, in blocks that have no place in common.

        Raises:
            IntricateError: if there are more pairs.
        """
        blocks: list[tuple[np.ndarray, np.ndarray]] = []
        waiting = [np.arange(k, min(k + 4096, len(places))) for k in range(0, len(places), 4096)]
        waiting.reverse()
        total = work = 0
        while waiting:
            rows = waiting.pop()
            pairs, visited = self._descend(places[rows], slack[rows], level, nearest)
            work += visited
            if pairs is None:
                half = len(rows) // 2
                waiting += [rows[half:], rows[:half]]
            else:
                blocks.append((rows[pairs[0]], self.order[pairs[1]]))
                total += len(pairs[0])
            if total > limit or work > 2 * FAN * limit:
                raise IntricateError(
                    "has so many lines of the map beside or upon each other that to find those "
                    "near to each agent takes too long"
                )
        return blocks

    def _descend(
        self, places: np.ndarray, slack: np.ndarray, level: float | None, nearest: bool
    ) -> tuple[tuple[np.ndarray, np.ndarray] | None, int]:
        """Pairs of place and leaf, None if they are too many at once; and nodes looked at."""
        best = np.full(len(places), np.inf if nearest else 0.0)
        count = len(self._levels[0][0])
        place = np.repeat(np.arange(len(places)), count)
        node = np.tile(np.arange(count), len(places))
        visited = 0
        for depth, (low, high, middle) in enumerate(self._levels):
            if depth:
                place = np.repeat(place, FAN)
                node = (FAN * node[:, None] + np.arange(FAN)).ravel()
                if node.size and node.max() >= len(low):
                    there = node < len(low)
                    place, node = place[there], node[there]
            visited += len(node)
            if len(places) > 1 and len(node) > AT_ONCE:
                return None, visited
            at = places[place]
            outside = np.maximum(np.maximum(low[node] - at, at - high[node]), 0.0)
            to_middle = np.hypot(*(middle[node, :2] - at[:, :2]).T)
            kept = np.ones(len(node), bool)
            if level is not None:
                kept = outside[:, 2] <= level
                to_middle[np.abs(middle[node, 2] - at[:, 2]) > level] = np.inf
            np.minimum.at(best, place, to_middle)
            kept &= np.hypot(outside[:, 0], outside[:, 1]) <= (best + slack)[place]
            place, node = place[kept], node[kept]
        return (place, node), visited


def _z_order(xy: np.ndarray) -> np.ndarray:
    """Places [n, 2] as numbers on a curve through all cells of a grid, uint64 [n]."""
    low = xy.min(0) if len(xy) else np.zeros(2)
    extent = max(float((xy - low).max(initial=0.0)), 1e-9)
    cell = ((xy - low) * (65535.0 / extent)).astype(np.uint64)
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        cell = (cell | cell << np.uint64(shift)) & np.uint64(mask)
    return np.asarray(cell[:, 0] | cell[:, 1] << np.uint64(1))
