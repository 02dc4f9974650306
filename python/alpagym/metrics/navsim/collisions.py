"""NC: no at-fault collision."""

from __future__ import annotations

import numpy as np

from alpagym.metrics.navsim.areas import EgoAreas
from alpagym.metrics.navsim.states import (
    Car,
    Traffic,
    ego_corners,
    rear_axle_pose,
    speeds,
)
from alpagym.metrics.polygons import angle_off, convex_intersect

STOPPED_SPEED = 0.05
"""At or below it the ego, or another agent, counts as stopped [m/s]."""
BEHIND = np.deg2rad(150.0)
"""What lies further off the ego's heading is behind its rear axle [rad]."""
OBJECT_SCORE = 0.5
"""Score of an at-fault collision with something that is no agent."""


def no_at_fault_collision(
    states: np.ndarray, areas: EgoAreas, traffic: Traffic, car: Car
) -> tuple[np.ndarray, np.ndarray]:
    """Score the first contact with each agent or object; one not at fault dismisses it for good.

    At fault is a moving ego that meets something stopped (objects always are), touches something
    with its front edge that is not behind it, or meets something from the side while it is in
    multiple lanes or off the drivable area.

    Source: NAVSIM, `pdm_scorer.py` (`_calculate_no_at_fault_collision`) and `pdm_scorer_utils.py`
    (`get_collision_type`).

    Args:
        states: [P, T, 11].
        areas: Of the same states.
        traffic: At T steps or more.
        car: Shape of the ego.

    Returns:
        Score 0 (with an agent), 0.5 (with objects only) or 1, and the step of the first at-fault
        contact, inf if there is none, [P] each.
    """
    proposals, steps = states.shape[:2]
    require_steps(traffic, steps)
    ego = ego_corners(states, car)
    boxes = traffic.boxes()[:steps]
    contact = convex_intersect(ego[:, :, None], boxes) & traffic.present[:steps]
    proposal, agent = np.nonzero(contact.any(1))
    step = contact.argmax(1)[proposal, agent]

    here = states[proposal, step]
    moving = speeds(here) > STOPPED_SPEED
    stands = ~traffic.is_agent[agent] | (traffic.speed[agent] <= STOPPED_SPEED)
    behind = angle_off(rear_axle_pose(here), traffic.pose[step, agent, :2]) > BEHIND
    front = convex_intersect(ego[proposal, step][:, [0, 3]], boxes[step, agent])
    at_fault = moving & (stands | (~behind & (front | areas.blame[proposal, step])))

    score, first = np.ones(proposals), np.full(proposals, np.inf)
    cost = np.where(traffic.is_agent[agent], 0.0, OBJECT_SCORE)
    np.minimum.at(score, proposal[at_fault], cost[at_fault])
    np.minimum.at(first, proposal[at_fault], step[at_fault])
    return score, first


def require_steps(traffic: Traffic, steps: int) -> None:
    """Raise `ValueError` where the traffic is shorter than `steps`."""
    if len(traffic.pose) < steps:
        raise ValueError(f"traffic: expected {steps} steps or more, got {len(traffic.pose)}")
