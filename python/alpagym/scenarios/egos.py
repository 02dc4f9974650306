"""More drives from one recording: the same scenario seen by other vehicles in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from alpagym.scenarios.scenario import EGO_MARK, AgentFlag, AgentType, Scenario

MIN_TRAVEL = 10.0
"""A vehicle that drives less after the start frame is no ego [m]."""
MIN_SECONDS = 4.0
"""Nor is one that is recorded for less time after the start frame [s]."""


def drives_of(scenario: Scenario, count: int) -> list[Scenario]:
    """The scenario itself, and up to `count` - 1 more whose ego is another vehicle in it.

    Chosen are vehicles recorded without gaps from the start frame on, that drive somewhere and
    whose recorded drive neither touches another agent nor leaves the road; those that drive
    farthest first. The map, the tracks and the license are shared; the id names the vehicle.
    """
    tracks, start = scenario.tracks, scenario.start_frame
    after = tracks.valid[:, start:]
    seen = after.sum(axis=1)
    unbroken = np.array([row[:n].all() for row, n in zip(after, seen, strict=True)])
    step = np.diff(tracks.xyz[:, start:, :2], axis=1)
    travel = (np.hypot(step[..., 0], step[..., 1]) * (after[:, 1:] & after[:, :-1])).sum(axis=1)
    blocked = (
        AgentFlag.PARKED
        | AgentFlag.STARTS_IN_COLLISION
        | AgentFlag.STARTS_OFFROAD
        | AgentFlag.OVERLAPS_IN_LOG
        | AgentFlag.OFFROAD_IN_LOG
    )
    may = (
        (tracks.type == AgentType.VEHICLE)
        & after[:, 0]
        & unbroken
        & (seen * scenario.dt > MIN_SECONDS)
        & (travel > MIN_TRAVEL)
        & ((scenario.flags & blocked) == 0)
        & (np.diff(scenario.routes.offsets) >= 2)
    )
    may[scenario.ego] = False
    order = np.argsort(-travel, kind="stable")
    chosen = [int(a) for a in order if may[a]][: max(count - 1, 0)]
    return [scenario] + [
        replace(scenario, id=f"{scenario.id}{EGO_MARK}{tracks.id[a]}", ego=a) for a in chosen
    ]
