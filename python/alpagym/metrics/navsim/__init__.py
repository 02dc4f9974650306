"""NAVSIM's PDM scores: `score_proposals` on plain arrays, `score` on a drive of ours.

After NAVSIM v2.2 (EPDMS) and v1.1 (PDMS), `navsim/planning/simulation/planner/pdm_planner`,
float64.
"""

from alpagym.metrics.navsim.aggregation import (
    epdms,
    pdms,
    second_stage_weights,
    two_stage_score,
    without_human_penalties,
)
from alpagym.metrics.navsim.comfort import extended_comfort, resampled_past
from alpagym.metrics.navsim.drive import DriveScore, score
from alpagym.metrics.navsim.scorer import Scene, Scores, score_proposals, score_proposals_v1
from alpagym.metrics.navsim.simulator import Tracking, simulate_proposals
from alpagym.metrics.navsim.states import Car, State, Traffic

__all__ = [
    "Car",
    "DriveScore",
    "Scene",
    "Scores",
    "State",
    "Tracking",
    "Traffic",
    "epdms",
    "extended_comfort",
    "pdms",
    "resampled_past",
    "score",
    "score_proposals",
    "score_proposals_v1",
    "second_stage_weights",
    "simulate_proposals",
    "two_stage_score",
    "without_human_penalties",
]
