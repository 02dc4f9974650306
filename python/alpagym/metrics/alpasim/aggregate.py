"""From metrics over time to AlpaSim's numbers: per rollout, scene score, run.

Two roads lead there, and they differ: what its `RuntimeService` returns reduces all steps
(`returned`), the offline aggregation first drops steps (`processed`) (`eval/aggregation/*.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from alpagym.metrics.alpasim.metric import REDUCTION, Metric, reduce

MAX_DIST_TO_GT = 4.0
"""Distance from the recorded path at which scoring ends [m]."""

FULL_PROGRESS = 0.8
"""Progress that counts as all (`progress_saturation_threshold`)."""

SHORT_RECORD = 5.0
"""Recorded path below which progress counts as all [m]."""


@dataclass(frozen=True)
class SceneScore:
    """The score of one rollout, in [0, 1]."""

    score: float
    progress: float
    """What the score is without a failure."""
    failure: str | None
    """`collision_at_fault`, `offroad` or None."""


@dataclass(frozen=True)
class Processed:
    """What the offline rules leave of a rollout."""

    row: dict[str, float]
    """Each metric as one number, NaN where no value is left."""
    times_us: np.ndarray
    """The steps that are left, int64 [K]."""


def returned(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """What `RuntimeService` returns: each metric over all its valid values.

    Includes what happened before the driver took over and after a crash.
    """
    return {k: m.reduced(REDUCTION[k]) for k, m in metrics.items() if k != "eval_relevant"}


def processed(metrics: Mapping[str, Metric], max_dist: float = MAX_DIST_TO_GT) -> Processed | None:
    """Offline aggregation of one rollout; None if an image is black, which removes the rollout.

    In this order: steps before the driver took over go (none do if it never does); events are
    combined, a collision being at fault unless it is from behind; a rollout with a black image
    goes; steps after the first off-road or collision go; steps after the first at `max_dist`
    meters or more from the recorded path go. Validity is ignored: a plan that could not be judged
    counts as free of collisions. Without a map off-road is 0 in these rules, yet missing from the
    row. A missing `img_is_black`, at which AlpaSim fails, counts as no black image.
    """
    times = np.unique(np.concatenate([m.times_us for m in metrics.values()]))
    columns = {}
    for name, values in metrics.items():
        if len(values.times_us):
            column = columns[name] = np.ma.masked_all(len(times))
            column[np.searchsorted(times, values.times_us)] = values.values
    off = columns["offroad"] if "offroad" in columns else np.zeros(len(times))
    kept = _from_first(_happens(columns["eval_relevant"] > 0))
    any_collision = _happens(columns["collision_any"] > 0)
    fault = _happens(columns["collision_front"] > 0) | _happens(columns["collision_lateral"] > 0)
    offroad = _happens(off > 0)
    columns["offroad_or_collision"] = np.ma.array(any_collision | offroad, float)
    columns["collision_at_fault"] = np.ma.array(fault, float)
    columns["offroad_or_collision_at_fault"] = np.ma.array(fault | offroad, float)
    columns["duration_frac_20s"] = np.ma.array((times - times[kept][0]) / 20e6)
    if "img_is_black" in columns and _happens(columns["img_is_black"] > 0)[kept].any():
        return None
    kept &= _to_first((any_collision | offroad) & kept)
    if "dist_to_gt_trajectory" in columns:
        distance = columns["dist_to_gt_trajectory"]
        # NaN is the largest number to AlpaSim's data frames.
        far = _happens(distance >= max_dist) | _happens(np.ma.array(np.isnan(distance)))
        kept &= _to_first(far & kept)
    if "progress" in columns:
        columns["progress_clipped_rel"] = columns["progress"]
    row = {name: _over_rows(column[kept], REDUCTION[name]) for name, column in columns.items()}
    return Processed(row, times[kept])


def scene_score(row: Mapping[str, float]) -> SceneScore:
    """AlpaSim's score of a processed rollout (`scene_score.py`).

    Raises:
        ValueError: A number that the score needs is missing or not finite.
    """
    needed = ("progress_clipped_rel", "gt_dist_traveled_m", "collision_at_fault", "offroad")
    for name in needed:
        if not np.isfinite(row.get(name, np.nan)):
            raise ValueError(f"no scene score: {name} is {row.get(name, 'missing')}")
    progress = min(float(np.clip(row["progress_clipped_rel"], 0.0, 1.0)) / FULL_PROGRESS, 1.0)
    if row["gt_dist_traveled_m"] < SHORT_RECORD:
        progress = 1.0
    failure = None
    if row["offroad"]:
        failure = "offroad"
    if row["collision_at_fault"]:
        failure = "collision_at_fault"
    return SceneScore(0.0 if failure else progress, progress, failure)


def run_level(
    rows: Sequence[Mapping[str, float]], rollout: Sequence[int]
) -> tuple[list[dict[str, float]], dict[str, float]]:
    """A run's numbers: means over clips for each rollout index, then over those.

    Args:
        rows: Processed rollouts of a run; NaN marks what a rollout lacks.
        rollout: Which rollout of its clip each one is.

    Returns:
        For each rollout index in rising order the mean of every metric, `n_clips` and
        `avg_dist_between_incidents(_at_fault)` in km (infinite without incidents); and the means
        of those, their standard deviations between rollout indices (`_std`, NaN for a single one)
        and `n_rollouts`.

    Raises:
        ValueError: No rollouts, or not one index for each.
    """
    if not rows or len(rows) != len(rollout):
        raise ValueError(
            f"run_level: expected one index for each of at least one rollout, "
            f"got {len(rollout)} for {len(rows)}"
        )
    names = sorted(set().union(*rows))
    table = np.array([[row.get(name, np.nan) for name in names] for row in rows])
    groups = []
    for index in np.unique(rollout):
        part = table[np.asarray(rollout) == index]
        group = {name: _mean(part[:, k]) for k, name in enumerate(names)}
        group["n_clips"] = float(len(part))
        for suffix in ("", "_at_fault"):
            incidents = part[:, names.index(f"offroad_or_collision{suffix}")].sum()
            km = np.nansum(part[:, names.index("dist_traveled_m")]) / 1000
            group[f"avg_dist_between_incidents{suffix}"] = km / incidents if incidents else np.inf
        groups.append(group)
    overall = {}
    for name in groups[0]:
        values = np.array([group[name] for group in groups])
        overall[name] = _mean(values)
        finite = len(values) > 1 and np.isfinite(values).all()
        overall[f"{name}_std"] = float(np.std(values, ddof=1)) if finite else float("nan")
    overall["n_rollouts"] = float(len(groups))
    return groups, overall


def _happens(event: np.ma.MaskedArray | np.ndarray) -> np.ndarray:
    """An event per row, not happening where its metric has no value."""
    return np.ma.filled(event, False).astype(bool)


def _from_first(event: np.ndarray) -> np.ndarray:
    """Rows from the first event on; all where there is none."""
    return np.logical_or.accumulate(event) | ~event.any()


def _to_first(event: np.ndarray) -> np.ndarray:
    """Rows up to the first event, that one included."""
    return np.cumsum(event) - event == 0


def _over_rows(column: np.ma.MaskedArray, how: str) -> float:
    """A column of kept rows as one number, as polars reduces: blanks and, in extremes, NaN skip."""
    if how == "last":
        return float(np.ma.filled(column, np.nan)[-1])
    values = column.compressed()
    if how in ("max", "min"):
        values = values[~np.isnan(values)]
    return reduce(values, how) if len(values) else float("nan")


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
