"""TTC: time to collision within bound."""

from __future__ import annotations

import numpy as np

from alpagym.metrics.geometry import direction
from alpagym.metrics.navsim.areas import EgoAreas
from alpagym.metrics.navsim.collisions import BEHIND, require_steps
from alpagym.metrics.navsim.states import (
    STEP,
    Car,
    State,
    Traffic,
    ego_corners,
    rear_axle_pose,
    speeds,
)
from alpagym.metrics.polygons import angle_off, convex_intersect

HORIZONS = np.array([0, 3, 6, 9])
"""Steps by which the ego is projected."""
STANDING_SPEED = 0.005
"""Below it nothing is projected [m/s]."""
AHEAD = np.deg2rad(30.0)
"""What lies less off the ego's heading is ahead of its rear axle [rad]."""


def time_to_collision(
    states: np.ndarray, areas: EgoAreas, traffic: Traffic, car: Car, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Project the ego along its heading and meet the traffic where it really is by then.

    The first such meeting with each agent or object decides: it is a violation if its center lies
    ahead of the rear axle, or not behind while the ego is in multiple lanes, off the drivable area
    or with its rear axle in an intersection; else that one is dismissed for good.

    Source: NAVSIM, `pdm_scorer.py` (`_calculate_ttc`).

    Args:
        states: [P, T, 11].
        areas: Of the same states.
        traffic: At `steps` + 9 steps or more.
        car: Shape of the ego.
        steps: Steps that are tested, at most T: T - 9 in NAVSIM v2, all of them in v1.1.

    Returns:
        Score 0 or 1 and the step of the first violation, inf if there is none, [P] each.
    """
    proposals = len(states)
    score, first = np.ones(proposals), np.full(proposals, np.inf)
    if steps <= 0:
        return score, first
    require_steps(traffic, steps + int(HORIZONS[-1]))
    states = states[:, :steps]
    speed = speeds(states)
    velocity = speed[..., None] * direction(states[..., State.HEADING])
    moved = STEP * HORIZONS[:, None] * velocity[:, :, None]
    ego = ego_corners(states, car)[:, :, None] + moved[..., None, :]  # [P, steps, H, 4, 2]
    later = np.arange(steps)[:, None] + HORIZONS
    meets = convex_intersect(ego[:, :, :, None], traffic.boxes()[later]) & traffic.present[later]
    meets &= (speed >= STANDING_SPEED)[..., None, None]

    in_order = meets.reshape(proposals, steps * len(HORIZONS), -1)
    proposal, agent = np.nonzero(in_order.any(1))
    step, horizon = np.divmod(in_order.argmax(1)[proposal, agent], len(HORIZONS))
    center = traffic.pose[later[step, horizon], agent, :2]
    off = angle_off(rear_axle_pose(states[proposal, step]), center)
    wide = (areas.blame | areas.rear_axle_in_intersection)[proposal, step]
    violation = (off < AHEAD) | (wide & (off <= BEHIND))
    score[proposal[violation]] = 0.0
    np.minimum.at(first, proposal[violation], step[violation])
    return score, first
