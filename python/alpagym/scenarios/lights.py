"""What traffic lights show once the record has ended."""

from __future__ import annotations

import numpy as np

from alpagym.scenarios.scenario import Lights, LightState, MapType, RoadMap

GREEN, YELLOW, ALL_RED = 10.0, 3.0, 2.0
"""Phases of a program that nobody recorded [s]."""


def lights_after(lights: Lights, road: RoadMap, dt: float) -> np.ndarray:
    """`LightState` of the frames after the record, which then repeat, uint8 [K, P].

    The source's own where it tells (`Lights.after`). Otherwise a program of fixed times: lights
    that showed the same in every frame of the record, on lanes along one axis, form a group, and
    the groups become green in turn, first those that were green at its end. Lights that were never
    red, yellow or green keep what they showed last.
    """
    if lights.after is not None:
        return lights.after
    count = len(lights.lane)
    colors = (LightState.RED, LightState.YELLOW, LightState.GREEN)
    colored = np.isin(lights.state, colors).any(1)
    if not colored.any():
        return np.zeros((count, 0), np.uint8)
    last = np.zeros(count, np.uint8)
    for k in range(count):  # the last state seen; a light that goes unseen shows nothing
        seen = np.flatnonzero(lights.state[k] > LightState.UNKNOWN)
        last[k] = lights.state[k, seen[-1]] if len(seen) else lights.state[k, -1]
    across = np.array([_runs_across(road, int(lane)) for lane in lights.lane[colored]], np.uint8)
    series = np.column_stack([lights.state[colored], across])
    _, group = np.unique(series, axis=0, return_inverse=True)
    group = group.reshape(-1)
    rank = {LightState.GREEN: 0, LightState.YELLOW: 1}
    order = sorted(
        set(group.tolist()),
        key=lambda g: (
            min(rank.get(LightState(x), 2) for x in last[colored][group == g]),
            int(np.flatnonzero(group == g)[0]),
        ),
    )
    green, yellow, red = (round(t / dt) for t in (GREEN, YELLOW, ALL_RED))
    phase = green + yellow + red
    after = np.repeat(last[:, None], phase * len(order), axis=1)
    lit = np.flatnonzero(colored)
    after[lit] = LightState.RED
    for turn, g in enumerate(order):
        members, begin = lit[group == g], turn * phase
        after[members, begin : begin + green] = LightState.GREEN
        after[members, begin + green : begin + green + yellow] = LightState.YELLOW
    return after


def _runs_across(road: RoadMap, lane: int) -> bool:
    """Whether a controlled lane begins closer to the y axis than to the x axis of its junction.

    The axes are turned to the first lane of the map, so that turning the map changes nothing.
    """
    if lane < 0:
        return False
    lanes = np.flatnonzero(road.type == MapType.LANE)
    first, step = (np.diff(road.polyline(int(i))[:2, :2], axis=0)[0] for i in (lanes[0], lane))
    return bool(abs(first @ step) < abs(first[0] * step[1] - first[1] * step[0]))
