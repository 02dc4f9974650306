"""One driven episode on the host, in float64: what every metric reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from alpagym.metrics.geometry import num_leading
from alpagym.render.replay import Rollout
from alpagym.scenarios.batch import REAR_AXLE_FRACTION
from alpagym.scenarios.polyline import arc_length
from alpagym.scenarios.scenario import AgentType, Scenario


@dataclass(frozen=True)
class Drive:
    """T consecutive poses of all A agents of one world, one every `dt`.

    Rows before `start` are the record's: what was there before the driver took over.
    """

    scenario: Scenario
    ego: int
    """Index of the ego."""
    first_frame: int
    """Recorded frame of row 0."""
    start: int
    """Row of the state in which the driver took over."""
    pose: np.ndarray
    """Box centers x, y [m] and yaw [rad], world frame, float64 [T, A, 3]."""
    valid: np.ndarray
    """Whether the agent is there, bool [T, A]."""

    @property
    def dt(self) -> float:
        """Time between rows [s]."""
        return self.scenario.dt

    @property
    def times(self) -> np.ndarray:
        """Time of each row since row 0 [s], [T]."""
        return self.dt * np.arange(len(self.pose))

    @property
    def size(self) -> np.ndarray:
        """Length, width, height of each agent [m], [A, 3]."""
        return self.scenario.tracks.size.astype(np.float64)

    @property
    def type(self) -> np.ndarray:
        """`AgentType` of each agent, [A]."""
        return self.scenario.tracks.type

    @property
    def rear_axle(self) -> np.ndarray:
        """Distance from box center back to the rear axle [m], [A]; 0 for all but vehicles."""
        return np.where(self.type == AgentType.VEHICLE, REAR_AXLE_FRACTION * self.size[:, 0], 0.0)

    @property
    def ego_pose(self) -> np.ndarray:
        """[T, 3]."""
        return self.pose[:, self.ego]

    @property
    def ego_there(self) -> np.ndarray:
        """Whether the ego is there, bool [T]."""
        return self.valid[:, self.ego]

    @property
    def ego_rear_axle(self) -> float:
        """Distance from the ego's center back to its rear axle [m]."""
        return float(self.rear_axle[self.ego])

    @property
    def others(self) -> np.ndarray:
        """Whether each agent is another than the ego, bool [A]."""
        return np.arange(self.pose.shape[1]) != self.ego

    @property
    def boxes(self) -> np.ndarray:
        """Poses, lengths and widths, [T, A, 5]."""
        size = np.broadcast_to(self.size[:, :2], (*self.valid.shape, 2))
        return np.concatenate([self.pose, size], -1)

    @property
    def name(self) -> str:
        """For messages."""
        return f"drive of agent {self.ego} in {self.scenario.id}"

    @property
    def route(self) -> np.ndarray:
        """Points of the ego's route [m], [k, 2]; none if it has no route."""
        routes = self.scenario.routes
        first, last = routes.offsets[self.ego : self.ego + 2]
        return routes.points[first:last, :2].astype(np.float64)

    @cached_property
    def log_pose(self) -> np.ndarray:
        """The ego's recorded box centers and yaw over the whole record, valid frames, [F, 3]."""
        tracks = self.scenario.tracks
        there = tracks.valid[self.ego]
        pose = [tracks.xyz[self.ego, :, 0], tracks.xyz[self.ego, :, 1], tracks.yaw[self.ego]]
        return np.stack(pose, -1)[there].astype(np.float64)

    @cached_property
    def log_times(self) -> np.ndarray:
        """Time of each row of `log_pose` since row 0 of the drive [s], [F]."""
        frames = np.flatnonzero(self.scenario.tracks.valid[self.ego])
        return self.dt * (frames - self.first_frame)

    @property
    def log_length(self) -> float:
        """Length of the ego's recorded path [m]."""
        return float(arc_length(self.log_pose[:, :2])[-1])


def from_row(drive: Drive, row: int) -> Drive:
    """A drive without what was before a row, which is not after its start."""
    return replace(
        drive,
        first_frame=drive.first_frame + row,
        start=drive.start - row,
        pose=drive.pose[row:],
        valid=drive.valid[row:],
    )


def drive_of(rollout: Rollout) -> Drive:
    """The drive of a rollout up to the state in which its episode ended or the ego left.

    The record before the start is put in front, as far back as it holds the ego without a gap. The
    drive ends with the ego's last recorded frame at the latest, even if the scenario goes on: what
    compares with the record has nothing beyond it (AlpaSim always ends inside its recording).
    """
    scenario, start = rollout.scenario, rollout.start_frame
    tracks = scenario.tracks
    agents, states = tracks.num_agents, rollout.num_steps + 1
    states = num_leading(rollout.valid[:states, rollout.ego])
    states = min(states, int(np.flatnonzero(tracks.valid[rollout.ego])[-1]) - start + 1)
    absent = np.flatnonzero(~tracks.valid[rollout.ego, :start])
    first = int(absent[-1]) + 1 if len(absent) else 0
    before = np.stack(
        [tracks.xyz[:, first:start, 0], tracks.xyz[:, first:start, 1], tracks.yaw[:, first:start]],
        -1,
    ).transpose(1, 0, 2)
    driven = np.stack([rollout.x, rollout.y, rollout.yaw], -1)[:states, :agents]
    return Drive(
        scenario,
        ego=rollout.ego,
        first_frame=first,
        start=start - first,
        pose=np.concatenate([before, driven]).astype(np.float64),
        valid=np.concatenate([tracks.valid[:, first:start].T, rollout.valid[:states, :agents]]),
    )
