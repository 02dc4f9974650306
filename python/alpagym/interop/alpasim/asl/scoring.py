"""AlpaSim's metrics of logs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from alpagym.interop.alpasim.asl.log import RolloutLog
from alpagym.metrics.alpasim import AlpasimScore, line_map, score_episode
from alpagym.metrics.alpasim.episode import Episode, Plan, Reply
from alpagym.metrics.alpasim.timed_poses import fill_gaps
from alpagym.scenarios.scenario import Scenario, ScenarioError

SAME_PLACE = 1.0
"""The record of a log lies this near to that of its scenario [m]."""


def score_log(log: RolloutLog, scenario: Scenario | None = None) -> AlpasimScore:
    """AlpaSim's metrics of a log, as of the session that it is of.

    Args:
        log: what was driven.
        scenario: whose map it was driven on; None leaves out what needs one, scene score included.

    Raises:
        ScenarioError: the scenario is another one.
        ValueError: numbers that cannot be scored.
    """
    there, pose = fill_gaps(log.there, log.times_us, log.pose[..., [0, 1, 3]])
    ego = log.pose[:, 0]
    others = log.there.any(0) & (np.arange(len(log.names)) > 0)
    start = int(log.times_us[0])
    lanes = None
    shift = np.zeros(3) if scenario is None else place_of(log, scenario)
    if scenario is not None:
        lanes = line_map(scenario, ego[:, :3] - shift)
    return score_episode(
        Episode(
            times_us=log.times_us - start,
            ego_pose=ego[:, [0, 1, 3]] - [*shift[:2], 0.0],
            ego_z=ego[:, 2] - shift[2],
            ego_size=log.size[0, :2],
            actor_pose=pose[:, others] - [*shift[:2], 0.0],
            actor_there=there[:, others],
            actor_size=log.size[others, :2],
            log=_moved(log.record, start, shift),
            engaged_us=log.engaged_us - start,
            lanes=lanes,
            replies=[_since(reply, start, shift) for reply in log.replies],
        )
    )


def place_of(log: RolloutLog, scenario: Scenario) -> np.ndarray:
    """Origin of the scenario in the log's frame [m], [3].

    Our sessions are in the scenario's frame, AlpaSim's in that of its file.

    Raises:
        ScenarioError: neither brings the records together.
    """
    tracks = scenario.tracks
    path = tracks.xyz[scenario.ego, tracks.valid[scenario.ego], :2].astype(np.float64)
    far = []
    for origin in (np.zeros(3), scenario.origin):
        gap = log.record.pose[:, None, :2] - origin[:2] - path[None]
        far.append(float(np.median(np.hypot(gap[..., 0], gap[..., 1]).min(1))))
    best = int(np.argmin(far))
    # Between two recorded poses lies half of what the ego drives in a frame.
    if not far[best] <= SAME_PLACE + 0.5 * float(np.hypot(*np.diff(path, axis=0).T).max(initial=0)):
        raise ScenarioError(
            f"{log.source}: expected the record of {scenario.id}, got one {far[best]:.3g} m beside"
        )
    return (np.zeros(3), scenario.origin)[best]


def _moved(plan: Plan, start: int, shift: np.ndarray) -> Plan:
    return Plan(plan.times_us - start, plan.pose - [*shift[:2], 0.0])


def _since(reply: Reply, start: int, shift: np.ndarray) -> Reply:
    return replace(
        reply,
        now_us=reply.now_us - start,
        query_us=reply.query_us - start,
        plan=_moved(reply.plan, start, shift),
        samples=[_moved(sample, start, shift) for sample in reply.samples],
    )
