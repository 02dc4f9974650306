"""DDC: driving direction compliance."""

from __future__ import annotations

import numpy as np

HORIZON = 10
"""Steps before each one over which the distance is summed, so 11 distances."""
COMPLIANT = 2.0
"""Less than this against the traffic is fine [m]."""
VIOLATION = 6.0
"""This much or more is a violation [m]."""


def driving_direction_compliance(centers: np.ndarray, against: np.ndarray) -> np.ndarray:
    """Score the distance driven off the route's lanes within a second.

    Source: NAVSIM, `pdm_scorer.py` (`_calculate_driving_direction_compliance`).

    Args:
        centers: Box centers [m], [P, T, 2].
        against: Whether the step that ends here counts, bool [P, T]: the center is in no lane of
            the route and, in NAVSIM v2, in no intersection.

    Returns:
        1, 0.5 or 0, [P].
    """
    moved = np.zeros(against.shape)
    moved[:, 1:] = np.linalg.norm(np.diff(centers, axis=1), axis=-1)
    moved[~against] = 0.0
    padded = np.pad(moved, ((0, 0), (HORIZON, 0)))
    sums = np.lib.stride_tricks.sliding_window_view(padded, HORIZON + 1, axis=1).sum(-1)
    most = sums.max(1)
    return np.where(most < COMPLIANT, 1.0, np.where(most < VIOLATION, 0.5, 0.0))
