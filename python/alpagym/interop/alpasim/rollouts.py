"""Played sessions as rollouts and plans, as metrics and replays read them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from alpagym import sim
from alpagym.interop.alpasim.session import Played
from alpagym.interop.alpasim.timeline import Timeline
from alpagym.metrics.alpasim.episode import Plan, Reply
from alpagym.metrics.drive import Drive, drive_of, from_row
from alpagym.render.replay import Rollout
from alpagym.scenarios.scenario import Scenario


def rollout_of(scenario: Scenario, time: Timeline, played: Played, label: str = "") -> Rollout:
    """What was driven from where the driver took over on."""
    states, driven = played.states, played.states[1:]
    x, y, yaw = np.stack([s.pose for s in states], 1)
    terms = np.array([s.terms for s in driven]).reshape(-1, len(sim.RewardTerm))
    return Rollout(
        scenario,
        x=x,
        y=y,
        yaw=yaw,
        valid=np.stack([s.valid for s in states]),
        ego=scenario.ego,
        start_frame=time.engaged,
        rewards={t.name.lower(): terms[:, t] for t in sim.RewardTerm},
        collision=np.array([s.collision for s in driven], np.uint8),
        offroad=terms[:, sim.RewardTerm.OFFROAD] > 0,
        label=label,
    )


def since(frame: int, time: Timeline, played: Played) -> list[Reply]:
    """The driver's replies with times since the frame that a drive begins with, for its metrics.

    A drive of `drive_of` begins with the first frame told.
    """
    start = time.time_us(frame)

    def moved(plan: Plan) -> Plan:
        return Plan(plan.times_us - start, plan.pose)

    return [
        replace(
            reply,
            now_us=reply.now_us - start,
            query_us=reply.query_us - start,
            plan=moved(reply.plan),
            samples=[moved(sample) for sample in reply.samples],
        )
        for reply in played.replies
    ]


def drive_from_first_plan(scenario: Scenario, time: Timeline, played: Played) -> Drive:
    """What AlpaSim evaluates: from the frame of the first plan on, the record's rows included."""
    drive = drive_of(rollout_of(scenario, time, played))
    return from_row(drive, time.first - drive.first_frame)
