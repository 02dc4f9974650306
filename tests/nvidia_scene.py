"""What every reader of NVIDIA's formats makes of the drive that `nvidia_files` writes."""

from __future__ import annotations

import numpy as np

from alpagym.scenarios.scenario import AgentFlag, Scenario
from reading import agent

IDS = (101, 102, 103)
"""Of the car ahead, the pedestrian and the trailer that backs up."""


def check_boxes(scenario: Scenario) -> tuple[int, int, int]:
    """Places, sizes, types and headings are those that were written; the agents' indices."""
    t = scenario.tracks
    car, walker, trailer = (agent(scenario, i) for i in IDS)
    x = t.xyz[car, :, 0] + scenario.origin[0]
    assert np.allclose(x, 20 + 0.6 * np.arange(41), atol=2e-3)
    assert np.allclose(t.size[car], [4.5, 1.9, 1.5])
    assert list(t.type[[car, walker, trailer]]) == [1, 2, 1]
    assert np.allclose(np.abs(t.yaw[trailer]), np.pi, atol=1e-5)
    return car, walker, trailer


def check_parked(scenario: Scenario) -> None:
    """The one further agent is there in every frame, and stands."""
    t = scenario.tracks
    (parked,) = set(range(t.num_agents)) - {scenario.ego, *(agent(scenario, i) for i in IDS)}
    assert t.valid[parked].all()
    assert scenario.flags[parked] & AgentFlag.PARKED
