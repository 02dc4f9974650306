"""How long calls take: percentiles of any number of them, in memory that does not grow."""

from __future__ import annotations

import math

import numpy as np

SHORTEST = 1e-5
"""Everything below counts as this long [s]."""
RATIO = 1.02
"""Between the bounds of a bin: what percentiles are off by at most."""
BINS = 1024
"""The last reaches 1.8 hours."""


class Latencies:
    """Times of calls, counted in bins that grow by `RATIO`."""

    def __init__(self) -> None:
        self._counts = np.zeros(BINS, np.int64)
        self._longest = 0.0

    def __len__(self) -> int:
        return int(self._counts.sum())

    def add(self, seconds: float) -> None:
        """Count a call."""
        self._counts[_bin(seconds)] += 1
        self._longest = max(self._longest, seconds)

    def percentile(self, share: float) -> float:
        """The time [s] that this share of calls, in (0, 1], does not exceed; NaN without calls."""
        total = len(self)
        if total == 0:
            return math.nan
        k = int(np.searchsorted(np.cumsum(self._counts), math.ceil(share * total)))
        return min(SHORTEST * RATIO ** (k + 1), self._longest)

    def share_over(self, seconds: float) -> float:
        """The share of calls that took longer, to within a bin; NaN without calls."""
        total = len(self)
        if total == 0:
            return math.nan
        return float(self._counts[_bin(seconds) + 1 :].sum()) / total

    def summary(self) -> dict[str, float]:
        """How many calls, and p50, p90, p99 and longest in milliseconds."""
        shares = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "max_ms": 1.0}
        return {
            "num_calls": len(self),
            **{name: round(1e3 * self.percentile(share), 3) for name, share in shares.items()},
        }


def _bin(seconds: float) -> int:
    k = int(math.log(max(seconds, SHORTEST) / SHORTEST) / math.log(RATIO))
    return min(k, BINS - 1)
