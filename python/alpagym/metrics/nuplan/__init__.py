"""NuPlan's closed-loop score: `closed_loop` on plain arrays, `score` on a drive of ours.

After nuplan-devkit 1.2 (`nuplan/planning/metrics`), float64.
"""

from alpagym.metrics.nuplan.aggregate import SCORES, Totals, by_type, final_score, totals
from alpagym.metrics.nuplan.closed_loop import ClosedLoop, closed_loop
from alpagym.metrics.nuplan.drive import score

__all__ = [
    "SCORES",
    "ClosedLoop",
    "Totals",
    "by_type",
    "closed_loop",
    "final_score",
    "score",
    "totals",
]
