"""A line of the parity table: how near one of our quantities comes to its reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True)
class Row:
    """What was compared, on how many cases, and with what result."""

    metric: str
    """Ours, e.g. `alpasim.offroad`."""
    reference: str
    """The program whose numbers these are, or the independent check, e.g. `AlpaSim 3032e0c`."""
    cases: int
    """Numbers or decisions compared."""
    max_error: float = 0.0
    """Largest absolute difference; 0 for decisions."""
    tolerance: float = 0.0
    """What `max_error` may be, plus `relative` times what is wanted; 0 for decisions."""
    flips: int = 0
    """Decisions that differ within the band in which the reference itself is undecided."""
    wrong: int = 0
    """Decisions that differ outside the band, and numbers beyond what a `relative` tolerance
    allows them; must be 0."""
    relative: float = 0.0
    """Tolerance per unit of what is wanted."""

    @classmethod
    def of(
        cls,
        metric: str,
        reference: str,
        difference: np.ndarray,
        want: np.ndarray,
        tolerance: float,
        relative: float,
    ) -> Self:
        """Numbers that may each be off by `tolerance + relative * |want|`; NaN never agrees."""
        off = np.abs(difference.astype(np.float64))
        agrees = off <= tolerance + relative * np.abs(want.astype(np.float64))
        worst = float(off.max(initial=0.0))
        wrong = int((~agrees).sum())
        return cls(metric, reference, off.size, worst, tolerance, wrong=wrong, relative=relative)

    @classmethod
    def numbers(
        cls, metric: str, reference: str, got: np.ndarray, want: np.ndarray, tolerance: float
    ) -> Self:
        """Numbers that may each be off by `tolerance`; NaN never agrees."""
        assert got.shape == want.shape, (metric, got.shape, want.shape)
        # numpy's maximum hands a NaN on, and no NaN is <= a tolerance.
        worst = float(np.abs(got.astype(np.float64) - want).max(initial=0.0))
        return cls(metric, reference, got.size, worst, tolerance)

    @classmethod
    def decisions(
        cls,
        metric: str,
        reference: str,
        differs: np.ndarray,
        undecided: np.ndarray,
        cases: int | None = None,
    ) -> Self:
        """Decisions that differ, and where the reference is undecided, bool [n] each.

        `cases` are all that were compared, if not n.
        """
        return cls(
            metric,
            reference,
            differs.size if cases is None else cases,
            flips=int((differs & undecided).sum()),
            wrong=int((differs & ~undecided).sum()),
        )

    @property
    def ok(self) -> bool:
        near = self.relative > 0.0 or self.max_error <= self.tolerance
        return self.wrong == 0 and near and self.cases > 0
