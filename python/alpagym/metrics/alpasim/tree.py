"""The order in which AlpaSim meets overlapping boxes: a query of shapely's STR tree.

GEOS packs boxes by sort-tile-recursive with ten children a node and visits children in packing
order (`geos/index/strtree/TemplateSTRtree.h`). With up to ten boxes that is ascending y. Which of
several boxes with one center comes first, as in a row on a straight road, is up to `std::sort`:
here that of GNU libstdc++, of which shapely's wheels for Linux are built.
"""

from __future__ import annotations

from math import ceil, sqrt

import numpy as np

NODE_CAPACITY = 10

SHORT = 16
"""Ranges up to this length `std::sort` leaves to an insertion sort, which keeps ties in order."""


def query_order(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Order in which a query meets n boxes.

    Each level is cut into slices by center x, each slice filled into nodes by center y, and the
    nodes are the boxes of the next level, until one is left.

    Args:
        low: Lower corners of the axis-aligned boxes [m], [n, 2].
        high: Upper corners [m], [n, 2].

    Returns:
        Box indices in visiting order, [n].
    """
    leaves = [np.array([i]) for i in range(len(low))]
    while len(leaves) > 1:
        count = len(leaves)
        center = low + high
        slices = ceil(sqrt(ceil(count / NODE_CAPACITY)))
        by_x, width = sorted_by(center[:, 0]), ceil(count / slices)
        nodes = []
        for first in range(0, count, width):
            column = by_x[first : first + width]
            column = column[sorted_by(center[column, 1])]
            nodes += [column[k : k + NODE_CAPACITY] for k in range(0, len(column), NODE_CAPACITY)]
        leaves = [np.concatenate([leaves[i] for i in node]) for node in nodes]
        low = np.stack([low[node].min(0) for node in nodes])
        high = np.stack([high[node].max(0) for node in nodes])
    return leaves[0] if leaves else np.zeros(0, int)


def sorted_by(key: np.ndarray) -> np.ndarray:
    """Indices that sort finite keys [n], ties as the introsort of GNU libstdc++ leaves them.

    Ranges longer than `SHORT` are cut in two about the median of three of their keys, over and
    over, before one insertion sort over all. Its heap sort, for ranges that 2 log2(n) cuts do not
    shorten so far, is left out: there ties come in another order.
    """
    if len(np.unique(key)) == len(key):
        return np.argsort(key)
    keys, order = key.tolist(), list(range(len(key)))
    ranges = [(0, len(key))]
    while ranges:
        first, last = ranges.pop()
        if last - first > SHORT:
            cut = _cut(keys, order, first, last)
            ranges += [(first, cut), (cut, last)]
    return np.array(order)[np.argsort(keys, kind="stable")]


def _cut(keys: list[float], order: list[int], first: int, last: int) -> int:
    """Swap keys until none before the returned place is above the pivot, none from it on below."""

    def swap(i: int, j: int) -> None:
        keys[i], keys[j] = keys[j], keys[i]
        order[i], order[j] = order[j], order[i]

    a, b, c = keys[first + 1], keys[(first + last) // 2], keys[last - 1]
    if (a < b < c) or (c <= b <= a):
        median = (first + last) // 2
    elif (b <= a < c) or (c <= a < b):
        median = first + 1
    else:
        median = last - 1
    swap(first, median)
    pivot, left, right = keys[first], first + 1, last
    while True:
        while keys[left] < pivot:
            left += 1
        right -= 1
        while pivot < keys[right]:
            right -= 1
        if left >= right:
            return left
        swap(left, right)
        left += 1
