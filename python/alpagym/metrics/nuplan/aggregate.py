"""From sub-scores to the final score.

nuPlan: `metrics/aggregator/weighted_average_metric_aggregator.py` with the weights of
`closed_loop_nonreactive_agents_weighted_average.yaml`, which reactive agents share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MULTIPLIERS = (
    "no_ego_at_fault_collisions",
    "drivable_area_compliance",
    "ego_is_making_progress",
    "driving_direction_compliance",
)
WEIGHTS = {
    "ego_progress_along_expert_route": 5.0,
    "time_to_collision_within_bound": 5.0,
    "speed_limit_compliance": 4.0,
    "ego_is_comfortable": 2.0,
}
SCORES = (*MULTIPLIERS, *WEIGHTS)
"""Names of the sub-scores, in the order of columns."""


def final_score(scores: np.ndarray) -> np.ndarray:
    """Product of the multipliers times the weighted mean of the others.

    Args:
        scores: Columns as `SCORES`, NaN where missing: those count in neither, [..., 8].

    Returns:
        [...]; 0 where no weighted score is left.

    Raises:
        ValueError: Another number of columns.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim == 0 or scores.shape[-1] != len(SCORES):
        raise ValueError(f"final_score: expected [..., {len(SCORES)}], got {list(scores.shape)}")
    factors, terms = np.split(scores, [len(MULTIPLIERS)], -1)
    weights = np.where(np.isnan(terms), 0.0, np.array(list(WEIGHTS.values())))
    total = weights.sum(-1)
    mean = (weights * np.nan_to_num(terms)).sum(-1) / np.where(total > 0, total, 1.0)
    return np.where(np.isnan(factors), 1.0, factors).prod(-1) * mean


@dataclass(frozen=True)
class Totals:
    """Of several scenarios."""

    num_scenarios: int
    sums: dict[str, float]
    """Of each sub-score over the scenarios that have it, NaN if none has."""
    score: float
    """Mean final score."""

    @property
    def means(self) -> dict[str, float]:
        """The sums over the number of all scenarios, as nuPlan's table shows them."""
        return {name: value / self.num_scenarios for name, value in self.sums.items()}


def totals(scores: np.ndarray) -> Totals:
    """Sums and the mean final score of n scenarios, [n, 8] with NaN where missing.

    Raises:
        ValueError: No scenario.
    """
    if len(scores) == 0:
        raise ValueError("totals: expected one scenario or more, got none")
    sums = np.where(np.isnan(scores).all(0), np.nan, np.nansum(scores, 0))
    mean = float(final_score(scores).mean())
    return Totals(len(scores), dict(zip(SCORES, sums.tolist(), strict=True)), mean)


def by_type(types: Sequence[str], scores: np.ndarray) -> dict[str, Totals]:
    """`totals` of each type of scenario; weighted by their numbers they give those of all."""
    kinds = np.array(list(types))
    return {str(kind): totals(scores[kinds == kind]) for kind in np.unique(kinds)}
