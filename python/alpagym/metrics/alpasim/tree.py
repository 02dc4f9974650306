"""The order in which AlpaSim meets overlapping boxes: a query of shapely's STR tree.

GEOS packs boxes by sort-tile-recursive with ten children a node and visits children in packing
order (`geos/index/strtree/TemplateSTRtree.h`). With up to ten boxes that is ascending y.
"""

from __future__ import annotations

from math import ceil, sqrt

import numpy as np

NODE_CAPACITY = 10


def query_order(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Order in which a query meets n boxes.

    Each level is cut into slices by center x, each slice filled into nodes by center y, and the
    nodes are the boxes of the next level, until one is left. Equal centers keep their order here;
    GEOS leaves theirs to `std::sort`.

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
        by_x, width = np.argsort(center[:, 0], kind="stable"), ceil(count / slices)
        nodes = []
        for first in range(0, count, width):
            column = by_x[first : first + width]
            column = column[np.argsort(center[column, 1], kind="stable")]
            nodes += [column[k : k + NODE_CAPACITY] for k in range(0, len(column), NODE_CAPACITY)]
        leaves = [np.concatenate([leaves[i] for i in node]) for node in nodes]
        low = np.stack([low[node].min(0) for node in nodes])
        high = np.stack([high[node].max(0) for node in nodes])
    return leaves[0] if leaves else np.zeros(0, int)
