"""Two drivers on the same scenarios: how much they differ, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
FEW_RECORDINGS = 10
"""Below so many, bootstrap intervals are too narrow to be believed."""
_AT_ONCE = 4_000_000
"""Draws held in memory."""


@dataclass(frozen=True)
class Difference:
    """Of one number between two drivers: the first's mean less the second's."""

    first: float
    second: float
    """Means over the drives that both have the number of; NaN where there is none."""
    interval: tuple[float, float] | None
    """95 % of the difference, or as asked for; None for fewer than two recordings."""
    num_drives: int
    num_recordings: int

    @property
    def value(self) -> float:
        return self.first - self.second

    @property
    def sure(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval is not None and not self.interval[0] <= 0.0 <= self.interval[1]


def paired_difference(
    first: np.ndarray,
    second: np.ndarray,
    recordings: Sequence[str],
    *,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Compare two drivers by a number of each drive.

    The interval is a percentile bootstrap: recordings are drawn with replacement, each with all
    its drives, since drives of one recording are alike, and with both drivers', since what is hard
    for one is hard for the other.

    Args:
        first: of each drive by the first driver; drives without a finite number are left out. [S]
        second: likewise by the second. [S]
        recordings: which recording each is a drive of. [S]
        seed: of the bootstrap.
        level: of the interval.

    Raises:
        ValueError: different lengths.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if not a.shape == b.shape == (len(recordings),):
        raise ValueError(
            f"paired_difference: expected as many numbers as the {len(recordings)} recordings, "
            f"got {list(a.shape)} and {list(b.shape)}"
        )
    there = np.isfinite(a) & np.isfinite(b)
    a, b = a[there], b[there]
    if not len(a):
        return Difference(np.nan, np.nan, None, 0, 0)
    _, group = np.unique(np.asarray(recordings)[there], return_inverse=True)
    count = np.bincount(group).astype(np.float64)
    total = np.bincount(group, a - b)
    interval = _bootstrap(total, count, seed, level) if len(count) > 1 else None
    return Difference(float(a.mean()), float(b.mean()), interval, len(a), len(count))


def _bootstrap(
    total: np.ndarray, count: np.ndarray, seed: int, level: float
) -> tuple[float, float]:
    """The middle `level` of sum(total) / sum(count) over draws of groups with replacement."""
    generator, groups = np.random.default_rng(seed), len(count)
    at_once = max(1, min(RESAMPLES, _AT_ONCE // groups))
    means = []
    for done in range(0, RESAMPLES, at_once):
        drawn = generator.integers(groups, size=(min(at_once, RESAMPLES - done), groups))
        means.append(total[drawn].sum(1) / count[drawn].sum(1))
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(np.concatenate(means), [tail, 100.0 - tail])
    return float(low), float(high)
