"""NuPlan's closed-loop score of a drive of ours."""

from __future__ import annotations

import numpy as np

from alpagym.metrics.drive import Drive
from alpagym.metrics.geometry import central_rates, num_leading, rear_axle_motion
from alpagym.metrics.nuplan.closed_loop import ClosedLoop, closed_loop
from alpagym.metrics.nuplan.state import Ego, TrackKind, Tracks
from alpagym.metrics.polygon_map import PolygonMap
from alpagym.metrics.scenario_map import polygon_map_of
from alpagym.scenarios.scenario import AgentType

KINDS = {
    AgentType.VEHICLE: TrackKind.VEHICLE,
    AgentType.PEDESTRIAN: TrackKind.PEDESTRIAN,
    AgentType.CYCLIST: TrackKind.BICYCLE,
    AgentType.UNKNOWN: TrackKind.GENERIC_OBJECT,
    AgentType.OTHER: TrackKind.GENERIC_OBJECT,
}
"""What an agent counts as; objects never move in nuPlan."""


def score(drive: Drive, polygon_map: PolygonMap | None = None) -> ClosedLoop:
    """Score a drive from `drive.start` on, up to where the ego vanishes, if it does.

    Reactive and other agents make no difference.

    nuPlan reads velocities and accelerations off its vehicle model. Here those of the ego's rear
    axle are central differences of its poses, those of tracks too; the record before the start
    serves the first samples, the last one is a difference to the one before. A track seen only once
    stands. The expert is the ego's record from the start to its end.

    Args:
        drive: Of the ego among other agents.
        polygon_map: Of the scenario, `polygon_map_of` if None.

    Raises:
        ValueError: The ego is absent at the start, or the map has no lanes, by which nuPlan's
            scores would be 1.
    """
    start = drive.start
    if start >= len(drive.pose) or not drive.ego_there[start]:
        raise ValueError(
            f"{drive.name}: expected the ego at the start, row {start}, got none there"
        )
    polygon_map = polygon_map_of(drive.scenario) if polygon_map is None else polygon_map
    if not polygon_map.ids:
        raise ValueError(f"{drive.name}: expected a map with lanes, got no lanes in the map")
    rows = slice(start, start + num_leading(drive.ego_there[start:]))
    expert = drive.log_pose[drive.log_times >= drive.times[start] - 0.5 * drive.dt]
    pose, valid = drive.pose[:, drive.others], drive.valid[:, drive.others]
    kind = np.array([KINDS[AgentType(t)] for t in drive.type[drive.others]], int)
    tracks = Tracks(
        pose=pose[rows],
        velocity=central_rates(pose[..., :2], valid, drive.dt)[rows],
        size=np.broadcast_to(drive.size[drive.others, :2], (*valid[rows].shape, 2)),
        kind=np.broadcast_to(kind, valid[rows].shape),
        valid=valid[rows],
    )
    back = drive.ego_rear_axle
    length, width, _ = drive.size[drive.ego].tolist()
    motion = rear_axle_motion(drive.ego_pose, back, drive.dt, drive.ego_there)
    ego = Ego(
        motion.pose[rows],
        motion.velocity[rows],
        motion.acceleration[rows],
        motion.yaw_rate[rows],
        motion.yaw_accel[rows],
        length,
        width,
        back,
    )
    return closed_loop(ego, tracks, polygon_map, expert[:, :2], drive.dt)
