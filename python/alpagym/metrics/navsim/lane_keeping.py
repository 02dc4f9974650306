"""LK: lane keeping (NAVSIM v2)."""

from __future__ import annotations

import numpy as np

from alpagym.scenarios.polyline import project

LIMIT = 0.5
"""Distance from the centerline that counts as leaving it [m]."""
PATIENCE = 20
"""Steps in a row that make it a violation."""


def lane_keeping(
    centers: np.ndarray, in_intersection: np.ndarray, centerline: np.ndarray
) -> np.ndarray:
    """0 if the center is off the centerline for 2 s without a break, else 1, [P].

    Steps in an intersection are left out: they neither count nor end a run.

    Source: NAVSIM v2, `pdm_scorer.py` (`_calculate_lane_keeping`).

    Args:
        centers: Box centers [m], [P, T, 2].
        in_intersection: Whether they are in an intersection, bool [P, T].
        centerline: [m], [k, 2].
    """
    distance = np.abs(project(centerline, centers)[1])
    off = (distance > LIMIT) & ~in_intersection
    on = (distance <= LIMIT) & ~in_intersection
    count = np.cumsum(off, 1)
    # Length of the run that ends at each step: counted since the last step on the centerline.
    run = count - np.maximum.accumulate(np.where(on, count, 0), 1)
    return np.where((run >= PATIENCE).any(1), 0.0, 1.0)
