"""EP: ego progress along the centerline."""

from __future__ import annotations

import numpy as np

from alpagym.scenarios.polyline import project

SHORT = 5.0
"""Where no proposal gets further than this, progress does not tell them apart [m]."""


def raw_progress(centers: np.ndarray, centerline: np.ndarray) -> np.ndarray:
    """Distance gained along the centerline from the first to the last step [m], 0 or more.

    Source: NAVSIM, `pdm_scorer.py` (`_calculate_progress`).

    Args:
        centers: Box centers [m], [P, T, 2].
        centerline: [m], [k, 2].

    Returns:
        [P].
    """
    along, _ = project(centerline, centers[:, [0, -1]])
    return np.maximum(along[:, 1] - along[:, 0], 0.0)


def relative_progress(raw: np.ndarray, product: np.ndarray) -> np.ndarray:
    """Progress over that of the best proposal (NAVSIM v2), 0 to 1, [P].

    Source: NAVSIM v2, `pdm_scorer.py` (`_aggregate_scores`).

    Args:
        raw: `raw_progress` [m], [P].
        product: Product of each proposal's multipliers, [P]; the best is the greatest product of
            both.
    """
    best = (raw * product).max()
    return np.clip(raw / best, 0.0, 1.0) if best > SHORT else np.ones(len(raw))


def relative_progress_v1(raw: np.ndarray, product: np.ndarray) -> np.ndarray:
    """Progress over that of the best proposal (NAVSIM v1.1), 0 to 1, [P].

    Here a proposal's own multipliers count too: progress is 0 where their product is.

    Source: NAVSIM v1.1, `pdm_scorer.py` (`_aggregate_scores`); arguments as `relative_progress`.
    """
    weighted = raw * product
    best = weighted.max()
    return weighted / best if best > SHORT else np.where(product == 0.0, 0.0, 1.0)
