"""A line of the parity table: how near one of our quantities comes to its reference."""

from __future__ import annotations

from dataclasses import dataclass


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
    """What `max_error` may be; 0 for decisions."""
    flips: int = 0
    """Decisions that differ within the band in which the reference itself is undecided."""
    wrong: int = 0
    """Decisions that differ outside the band; must be 0."""

    @property
    def ok(self) -> bool:
        return self.wrong == 0 and self.max_error <= self.tolerance and self.cases > 0
