"""AlpaSim's rig: the center of the rear axle, on the ground below it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alpagym.interop.alpasim.poses import rig_of
from alpagym.reference import vehicle
from alpagym.scenarios.batch import rear_axles
from alpagym.scenarios.scenario import Scenario


@dataclass(frozen=True)
class Rig:
    """Where the rig of an agent lies in its box."""

    back: float
    """Distance from the box center back to it [m]."""
    down: float
    """Distance from the box center down to it [m]; 0 where heights are not real."""

    @staticmethod
    def of(scenario: Scenario, agent: int | None = None) -> Rig:
        """Of an agent, the ego by default."""
        agent = scenario.ego if agent is None else agent
        tracks = scenario.tracks
        height = float(tracks.size[agent, 2]) if scenario.has_z else 0.0
        return Rig(float(rear_axles(tracks)[agent]), 0.5 * height)

    def of_box(self, center: np.ndarray, yaw: np.ndarray) -> np.ndarray:
        """Rigs x, y, z, yaw, float64 [..., 4], of boxes with centers [..., 3] and yaws [...]."""
        x, y, z = np.moveaxis(np.asarray(center, np.float64), -1, 0)
        pose = rig_of(np.stack([x, y, np.asarray(yaw, np.float64)], -1), self.back)
        return np.insert(pose, 2, z - self.down, -1)


@dataclass(frozen=True)
class RigPath:
    """The recorded rig at n frames."""

    frame: np.ndarray
    """Rising, int64 [n]."""
    pose: np.ndarray
    """x, y, z [m] and yaw [rad] in the world frame, float64 [n, 4]."""

    @staticmethod
    def of(scenario: Scenario, agent: int | None = None) -> RigPath:
        """Of an agent where it was observed, the ego by default."""
        agent = scenario.ego if agent is None else agent
        tracks = scenario.tracks
        there = np.flatnonzero(tracks.valid[agent])
        rig = Rig.of(scenario, agent)
        return RigPath(there, rig.of_box(tracks.xyz[agent, there], tracks.yaw[agent, there]))


def rates(motion: np.ndarray) -> tuple[np.ndarray, ...]:
    """What AlpaSim tells of a vehicle's motion, in the rig's frame.

    Args:
        motion: speed and lateral speed of the center of mass [m/s], yaw rate [rad/s], steering
            angle [rad] and lagged acceleration [m/s^2], [5].

    Returns:
        Angular velocity [rad/s], velocity [m/s], acceleration [m/s^2] and angular acceleration
        [rad/s^2], [3] each.
    """
    speed, lateral, turn = motion[:3]
    change = vehicle.rate_of(np.concatenate([np.zeros(3), motion]), np.zeros(2))
    return (
        np.array([0.0, 0.0, turn]),
        np.array([speed, lateral - vehicle.REAR * turn, 0.0]),
        np.array([change[3] + vehicle.REAR * turn**2, change[4] - vehicle.REAR * change[5], 0.0]),
        np.array([0.0, 0.0, change[5]]),
    )
