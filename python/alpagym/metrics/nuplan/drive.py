"""NuPlan's closed-loop score of a drive of ours."""

from __future__ import annotations

import numpy as np

from alpagym.metrics.drive import Drive
from alpagym.metrics.lane_map import LaneMap
from alpagym.metrics.nuplan.closed_loop import ClosedLoop, closed_loop
from alpagym.metrics.nuplan.state import Ego, TrackKind, Tracks
from alpagym.metrics.scenario_map import lane_map_of
from alpagym.scenarios.scenario import AgentType

KINDS = {
    AgentType.VEHICLE: TrackKind.VEHICLE,
    AgentType.PEDESTRIAN: TrackKind.PEDESTRIAN,
    AgentType.CYCLIST: TrackKind.BICYCLE,
    AgentType.UNKNOWN: TrackKind.GENERIC_OBJECT,
    AgentType.OTHER: TrackKind.GENERIC_OBJECT,
}
"""What an agent counts as; objects never move in nuPlan."""


def score(drive: Drive, lane_map: LaneMap | None = None) -> ClosedLoop:
    """Score a drive from `drive.start` on, up to where the ego vanishes, if it does.

    Reactive and other agents make no difference.

    nuPlan reads velocities and accelerations off its vehicle model. Here those of the ego's rear
    axle are central differences of its poses, those of tracks too; the record before the start
    serves the first samples, the last one is a difference to the one before. A track seen only once
    stands. The expert is the ego's record from the start to its end.

    Args:
        drive: Of the ego among other agents.
        lane_map: Of the scenario, `lane_map_of` if None.

    Raises:
        ValueError: The ego is absent at the start, or the map has no lanes, by which nuPlan's
            scores would be 1.
    """
    ego, start = drive.ego, drive.start
    name = f"drive of agent {ego} in {drive.scenario.id}"
    if start >= len(drive.pose) or not drive.valid[start, ego]:
        raise ValueError(f"{name}: expected the ego at the start, row {start}, got none there")
    lane_map = lane_map_of(drive.scenario) if lane_map is None else lane_map
    if not lane_map.ids:
        raise ValueError(f"{name}: expected a map with lanes, got no lanes in the map")
    absent = np.flatnonzero(~drive.valid[start:, ego])
    rows = slice(start, start + int(absent[0]) if len(absent) else None)
    expert = drive.log_pose[drive.log_times >= drive.times[start] - 0.5 * drive.dt]
    others = np.arange(drive.pose.shape[1]) != ego
    kind = np.array([KINDS[AgentType(t)] for t in drive.type[others]], int)
    valid = drive.valid[rows, others]
    tracks = Tracks(
        pose=drive.pose[rows, others],
        velocity=_rates(drive.pose[:, others, :2], drive.valid[:, others], drive.dt)[rows],
        size=np.broadcast_to(drive.size[others, :2], (*valid.shape, 2)),
        kind=np.broadcast_to(kind, valid.shape),
        valid=valid,
    )
    return closed_loop(
        _ego_of(drive, rows),
        tracks,
        lane_map,
        expert[:, :2],
        drive.dt,
    )


def _ego_of(drive: Drive, rows: slice) -> Ego:
    """The ego's rear axle in these rows, its motion by differences."""
    back = float(drive.rear_axle[drive.ego])
    length, width = drive.size[drive.ego, :2]
    there = drive.valid[:, drive.ego, None]
    yaw = np.unwrap(drive.ego_pose[:, 2])
    along = np.stack([np.cos(yaw), np.sin(yaw)], -1)
    left = np.stack([-along[:, 1], along[:, 0]], -1)
    axle = drive.ego_pose[:, :2] - back * along

    def rate(values: np.ndarray) -> np.ndarray:
        return _rates(values[:, None], there, drive.dt)[:, 0]

    def in_ego_frame(vector: np.ndarray) -> np.ndarray:
        return np.stack([(vector * along).sum(-1), (vector * left).sum(-1)], -1)

    velocity, yaw_rate = rate(axle), rate(yaw[:, None])
    return Ego(
        rear_axle=np.concatenate([axle, yaw[:, None]], -1)[rows],
        velocity=in_ego_frame(velocity)[rows],
        acceleration=in_ego_frame(rate(velocity))[rows],
        yaw_rate=yaw_rate[rows, 0],
        yaw_accel=rate(yaw_rate)[rows, 0],
        length=float(length),
        width=float(width),
        rear_to_center=back,
    )


def _rates(values: np.ndarray, valid: np.ndarray, dt: float) -> np.ndarray:
    """Derivatives per second [T, A, d]: the mean of the differences to what is there next to it.

    Args:
        values: [T, A, d].
        valid: bool [T, A].
        dt: Time between rows [s].
    """
    both = (valid[1:] & valid[:-1])[..., None]
    step = np.where(both, np.diff(values, axis=0), 0.0) / dt
    total, count = np.zeros_like(values), np.zeros((*valid.shape, 1))
    for part in (slice(1, None), slice(None, -1)):
        total[part] += step
        count[part] += both
    return total / np.maximum(count, 1)
