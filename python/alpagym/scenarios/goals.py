"""Where an agent is meant to go: the end of its recorded path, and points on the way there."""

from __future__ import annotations

import numpy as np

from alpagym.scenarios.polyline import interpolate
from alpagym.scenarios.scenario import Scenario


def goal_points(
    scenario: Scenario, agent: int | None = None, *, spacing: float = 20.0
) -> tuple[np.ndarray, np.ndarray]:
    """The goal of an agent, and points along its route that lead to it.

    Args:
        scenario: whose route it follows.
        agent: index of the agent; the ego by default.
        spacing: arc length between two points [m].

    Returns:
        goal: the point of the route at the end of the recorded path, world frame [m], [3]; an agent
            without a route is at its goal, the last recorded position.
        points: every `spacing` from the start of the route on and the goal as the last, [n, 3].

    Raises:
        ValueError: a spacing that is not positive and finite.
    """
    if not 0.0 < spacing < np.inf:
        raise ValueError(f"spacing: expected a positive distance, got {spacing}")
    agent = scenario.ego if agent is None else agent
    routes, tracks = scenario.routes, scenario.tracks
    route = routes.points[routes.offsets[agent] : routes.offsets[agent + 1]].astype(np.float64)
    if len(route) < 2:
        last = tracks.xyz[agent, np.flatnonzero(tracks.valid[agent])[-1:]].astype(np.float64)
        return last[0], last
    length = float(routes.log_length[agent])
    points = interpolate(route, np.append(np.arange(0.0, length - 1e-6, spacing), length))
    return points[-1], points
