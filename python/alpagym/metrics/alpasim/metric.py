"""One metric over time, and how AlpaSim reduces each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

REDUCTION = {
    "collision_front": "max",
    "collision_rear": "max",
    "collision_lateral": "max",
    "collision_any": "max",
    "offroad": "max",
    "wrong_lane": "max",
    "min_distance_to_lane_boundary_m": "min",
    "min_distance_to_obstacle_m": "min",
    "open_loop_collision": "mean",
    "progress": "last",
    "progress_rel_to_total": "last",
    "progress_rel": "min",
    "dist_to_gt_trajectory": "max",
    "dist_to_gt_location": "max",
    "dist_traveled_m": "last",
    "gt_dist_traveled_m": "last",
    "min_ade@0.5s(gt)": "mean",
    "min_ade@1.0s(gt)": "mean",
    "min_ade@2.5s(gt)": "mean",
    "min_ade@5.0s(gt)": "mean",
    "plan_deviation": "mean",
    "img_is_black": "max",
    "safety_monitor_triggered": "max",
    "eval_relevant": "max",
    "offroad_or_collision": "max",
    "collision_at_fault": "max",
    "offroad_or_collision_at_fault": "max",
    "duration_frac_20s": "last",
    "progress_clipped_rel": "last",
}
"""How each metric becomes one number (`time_aggregation` of AlpaSim's `MetricReturn`s)."""


@dataclass(frozen=True)
class Metric:
    """Values at K times: steps of the rollout, or replies of the driver."""

    times_us: np.ndarray
    """int64 [K]."""
    values: np.ndarray
    """float64 [K]; decisions are 0 or 1."""
    valid: np.ndarray
    """Whether a value counts in `reduced`, bool [K]."""

    def reduced(self, how: str) -> float:
        """The valid values as one number: their `max`, `min`, `mean` or `last`; NaN if none."""
        values = self.values[self.valid]
        return reduce(values, how) if len(values) else float("nan")


def metric(times_us: np.ndarray, values: np.ndarray, valid: np.ndarray | None = None) -> Metric:
    """A metric that is valid wherever `valid` does not deny it."""
    if valid is None:
        valid = np.ones(len(values), bool)
    return Metric(times_us, np.asarray(values, np.float64), valid)


def reduce(values: np.ndarray, how: str) -> float:
    """A non-empty array as one number; NaN wins."""
    match how:
        case "last":
            return float(values[-1])
        case "max":
            return float(values.max())
        case "min":
            return float(values.min())
        case "mean":
            return float(values.mean())
    raise ValueError(f"reduce: expected last, max, min or mean, got {how}")
