"""From sub-scores to PDMS (NAVSIM v1.1) and EPDMS (v2), and from two stages to one score."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

PDMS_MULTIPLIERS = ("NC", "DAC")
PDMS_WEIGHTS: Mapping[str, float] = {"EP": 5.0, "TTC": 5.0, "C": 2.0}
EPDMS_MULTIPLIERS = ("NC", "DAC", "TLC", "DDC")
EPDMS_WEIGHTS: Mapping[str, float] = {"EP": 5.0, "TTC": 5.0, "LK": 2.0, "HC": 2.0, "EC": 2.0}

KERNEL = 0.1
"""Variance of the kernel that weighs second-stage scenes by distance [m^2]."""
NOTHING = 1e-8
"""A sum of kernel weights up to this counts as zero."""


def product_of(scores: Mapping[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray:
    """Product of the named sub-scores."""
    return np.prod([scores[name] for name in names], axis=0)


def weighted_mean(scores: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Mean of the sub-scores that are there by their weights."""
    used = [name for name in weights if name in scores]
    return np.average([scores[name] for name in used], axis=0, weights=[weights[n] for n in used])


def pdms(scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """PDM score of NAVSIM v1.1: NC * DAC * (5 EP + 5 TTC + 2 C) / 12.

    Source: NAVSIM v1.1, `pdm_scorer.py` (`PDMScorerConfig`, `_aggregate_scores`). The driving
    direction has weight 0 there.
    """
    return product_of(scores, PDMS_MULTIPLIERS) * weighted_mean(scores, PDMS_WEIGHTS)


def epdms(scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """Extended PDM score of NAVSIM v2.

    NC * DAC * TLC * DDC * (5 EP + 5 TTC + 2 LK + 2 HC + 2 EC) / 16, or over 14 without EC, which
    needs a second trajectory.

    Source: NAVSIM v2, `run_pdm_score.py` (`compute_final_scores`) and `pdm_scorer.py`.
    """
    return product_of(scores, EPDMS_MULTIPLIERS) * weighted_mean(scores, EPDMS_WEIGHTS)


def without_human_penalties(
    scores: Mapping[str, np.ndarray], human: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The sub-scores with 1 wherever the human driver got 0 in the same scene.

    Source: NAVSIM v2, `pdm_score.py` (human penalty filter, for original scenes).
    """
    return {
        name: np.where(human[name] == 0.0, 1.0, value) if name in human else value
        for name, value in scores.items()
    }


def second_stage_weights(endpoint: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """How much each second-stage scene counts, given where the first stage ended.

    Source: NAVSIM v2, `scene_aggregator.py` (`calculate_pseudo_closed_loop_weights`).

    Args:
        endpoint: End point of the first-stage trajectory [m], [..., 2].
        starts: Start points of the n second-stage scenes [m], [..., n, 2].

    Returns:
        Gaussian weights of the distance that sum to 1, equal ones where all starts are far away,
        [..., n].
    """
    endpoint, starts = np.asarray(endpoint, np.float64), np.asarray(starts, np.float64)
    if starts.ndim < 2 or endpoint.shape != (*starts.shape[:-2], 2) or starts.shape[-1] != 2:
        raise ValueError(
            f"second stage: expected an end point [..., 2] and starts [..., n, 2], "
            f"got {list(endpoint.shape)} and {list(starts.shape)}"
        )
    if starts.shape[-2] == 0:
        raise ValueError("second stage: expected one start point or more, got none")
    if not (np.isfinite(endpoint).all() and np.isfinite(starts).all()):
        raise ValueError("second stage: expected finite points, got NaN or infinity")
    squared = np.square(starts - endpoint[..., None, :]).sum(-1)
    kernel = np.exp(-squared / (2 * KERNEL))
    total = kernel.sum(-1, keepdims=True)
    far = total <= NOTHING
    return np.where(far, 1.0 / starts.shape[-2], kernel / np.where(far, 1.0, total))


def two_stage_score(first: float, second: np.ndarray, weights: np.ndarray) -> float:
    """Score of one group: the first-stage score times the weighted second-stage scores.

    Source: NAVSIM v2, `run_pdm_score.py`; a scene's score is the mean over its groups.
    """
    return float(first * np.dot(weights, second))
