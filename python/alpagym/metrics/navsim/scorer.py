"""NAVSIM's PDM scorer: every sub-score of the proposals for one scene, and their aggregate."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from alpagym.metrics.navsim import aggregation
from alpagym.metrics.navsim.areas import EgoAreas, drivable_area_compliance, ego_areas
from alpagym.metrics.navsim.collisions import no_at_fault_collision
from alpagym.metrics.navsim.comfort import SHORTEST, comfort_v1, history_comfort
from alpagym.metrics.navsim.direction import driving_direction_compliance
from alpagym.metrics.navsim.lane_keeping import lane_keeping
from alpagym.metrics.navsim.lights import traffic_light_compliance
from alpagym.metrics.navsim.progress import (
    raw_progress,
    relative_progress,
    relative_progress_v1,
)
from alpagym.metrics.navsim.states import Car, State, Traffic, checked_states, ego_centers
from alpagym.metrics.navsim.ttc import HORIZONS, time_to_collision
from alpagym.metrics.polygon_map import PolygonMap


@dataclass(frozen=True)
class Scene:
    """What proposals are scored against."""

    polygon_map: PolygonMap
    on_route: np.ndarray
    """Whether each lane or connector of the map belongs to the route, bool [n]."""
    centerline: np.ndarray
    """Center of the route [m], float64 [k, 2]."""
    traffic: Traffic
    """At as many steps as the proposals have, or more; NAVSIM v1.1 looks 9 steps further."""
    red: np.ndarray
    """Whether each lane or connector is closed by a red light at each step, bool [T, n]."""
    past: np.ndarray | None = None
    """States that the human drove before, as `comfort.resampled_past` gives them, [H, 11]; None
    scores HC 1."""
    car: Car = field(default_factory=Car)

    def __post_init__(self) -> None:
        line = self.centerline
        if line.ndim != 2 or line.shape[1] != 2 or len(line) < 2 or not np.isfinite(line).all():
            raise ValueError(
                f"centerline: expected finite [2 or more, 2], got {list(line.shape)} or NaN"
            )
        past = self.past
        if past is not None and (past.ndim != 2 or past.shape[1] != len(State)):
            raise ValueError(f"past: expected [rows, 11], got {list(past.shape)}")
        if past is not None and not np.isfinite(past).all():
            raise ValueError("past: expected finite numbers, got NaN or infinity")


@dataclass(frozen=True)
class Scores:
    """Sub-scores of P proposals by NAVSIM's abbreviations, each in [0, 1] and [P]."""

    terms: dict[str, np.ndarray]
    """NC, DAC, DDC, EP, TTC and, in v1.1, C or, in v2, TLC, LK, HC."""
    score: np.ndarray
    """Product of the multipliers times the weighted mean of the rest; in v2 without EC."""
    progress: np.ndarray
    """Progress along the centerline [m]."""
    collision_step: np.ndarray
    """First at-fault contact, inf if there is none [steps]."""
    ttc_step: np.ndarray
    """First TTC violation, inf if there is none [steps]."""
    areas: EgoAreas


def score_proposals(states: np.ndarray, scene: Scene) -> Scores:
    """Score proposals as NAVSIM v2 does (`pdm_scorer.py`, `score_proposals`).

    Args:
        states: Driven states of P proposals, one every 0.1 s, [P, T, 11]; NAVSIM's first proposal
            is the reference that progress is compared with, and T is 41.
        scene: What they are scored against.
    """
    states = _proposals(states)
    areas, centers = _areas(states, scene), ego_centers(states, scene.car)
    collision, collision_step = no_at_fault_collision(states, areas, scene.traffic, scene.car)
    ttc, ttc_step = time_to_collision(
        states, areas, scene.traffic, scene.car, steps=states.shape[1] - int(HORIZONS[-1])
    )
    against = areas.oncoming & ~areas.center_in_intersection
    terms = {
        "NC": collision,
        "DAC": drivable_area_compliance(areas),
        "TLC": traffic_light_compliance(states, scene.polygon_map, scene.red, scene.car),
        "DDC": driving_direction_compliance(centers, against),
        "TTC": ttc,
        "LK": lane_keeping(centers, areas.center_in_intersection, scene.centerline),
        "HC": history_comfort(states, scene.past, scene.car),
    }
    progress = raw_progress(centers, scene.centerline)
    product = aggregation.product_of(terms, aggregation.EPDMS_MULTIPLIERS)
    terms["EP"] = relative_progress(progress, product)
    score = aggregation.epdms(terms)
    return Scores(terms, score, progress, collision_step, ttc_step, areas)


def score_proposals_v1(states: np.ndarray, scene: Scene, areas: EgoAreas | None = None) -> Scores:
    """Score proposals as NAVSIM v1.1 does; `score` is the PDM score.

    The scene's red lights and past are not looked at; its traffic must reach 9 steps beyond the
    proposals'. Arguments as `score_proposals`; `areas`, if known from there, are not found again.
    """
    states = _proposals(states)
    areas = _areas(states, scene) if areas is None else areas
    centers = ego_centers(states, scene.car)
    collision, collision_step = no_at_fault_collision(states, areas, scene.traffic, scene.car)
    ttc, ttc_step = time_to_collision(
        states, areas, scene.traffic, scene.car, steps=states.shape[1]
    )
    terms = {
        "NC": collision,
        "DAC": drivable_area_compliance(areas),
        "DDC": driving_direction_compliance(centers, areas.oncoming),
        "TTC": ttc,
        "C": comfort_v1(states),
    }
    progress = raw_progress(centers, scene.centerline)
    product = aggregation.product_of(terms, aggregation.PDMS_MULTIPLIERS)
    terms["EP"] = relative_progress_v1(progress, product)
    score = aggregation.pdms(terms)
    return Scores(terms, score, progress, collision_step, ttc_step, areas)


def _proposals(states: np.ndarray) -> np.ndarray:
    states = checked_states(states)
    if states.shape[1] < SHORTEST:
        raise ValueError(f"states: expected {SHORTEST} steps or more, got {states.shape[1]}")
    return states


def _areas(states: np.ndarray, scene: Scene) -> EgoAreas:
    return ego_areas(states, scene.polygon_map, scene.on_route, scene.car)
