"""Played sessions as rollouts and plans, as metrics and replays read them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from alpagym import sim
from alpagym.interop.alpasim.session import Played
from alpagym.interop.alpasim.timeline import Timeline
from alpagym.metrics.alpasim.episode import Plan, Reply
from alpagym.render.replay import Rollout
from alpagym.scenarios.scenario import Scenario


def rollout_of(scenario: Scenario, time: Timeline, played: Played, label: str = "") -> Rollout:
    """What was driven from where the driver took over on, one step or more."""
    states, driven = played.states, played.states[1:]
    x, y, yaw = np.stack([s.pose for s in states], 1)
    terms = np.stack([s.terms for s in driven])
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


def since_first_row(time: Timeline, played: Played) -> list[Reply]:
    """Replies with times since the first row of `drive_of` the rollout, the first frame told."""
    start = time.time_us(time.context)

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
