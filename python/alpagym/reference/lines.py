"""Stop lines: those that hold an agent, and those it has before or behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alpagym.config import SimConfig
from alpagym.reference.geometry import Margin
from alpagym.reference.world import World
from alpagym.scenarios.scenario import LightState

STOP_SIGN = -1


def stop_gap(c: SimConfig, world: World, a: int, horizon: float, margin: Margin) -> float:
    """From the front bumper to the first stop that holds the agent now; inf if none is near.

    Red, flashing red and unserved stop signs hold; yellow holds those who can stop with one and a
    half times the comfortable deceleration. A line up to 1 m behind the bumper still holds.
    """
    speed = world.get("speed", a)
    for s, light in world.path(a).stops[int(world.get("stops_served", a)) :]:
        gap = s - world.front_s(a)
        if not margin.reached(horizon - gap):
            return np.inf
        if not margin.reached(gap, -1.0):
            continue
        state = LightState(world.lights[light]) if light >= 0 else None
        yellow = state == LightState.YELLOW
        if (
            light == STOP_SIGN
            or state in (LightState.RED, LightState.FLASHING_RED)
            or (yellow and margin.reached(gap - speed**2 / (3.0 * c.idm_decel)))
        ):
            return gap
    return np.inf


@dataclass
class Line:
    """The line before which an agent still is and can stop."""

    gap: float = np.inf
    """From the front bumper, inf if none is near [m]."""
    light: bool = False
    """A light's, not a sign's or yield line."""
    sign: bool = False
    """A stop sign's."""


def line_before(c: SimConfig, world: World, a: int, margin: Margin) -> Line:
    """The line before which the agent still is and can stop.

    Signs and yield lines count from 30 m on, lights where braking suffices.
    """
    stopping = world.get("speed", a) ** 2 / (3.0 * c.idm_decel)
    for s, light in world.path(a).stops:
        gap = s - world.front_s(a)
        if not margin.reached(30.0 - gap):
            break
        near = margin.reached(gap, -0.5)
        if near and (light < 0 or margin.reached(gap + 0.5 - stopping)):
            return Line(gap, light >= 0, light == STOP_SIGN)
    return Line()


def came_from_line(world: World, a: int, margin: Margin) -> bool:
    """Whether the front bumper has crossed a sign or yield line less than 15 m ago."""
    behind = [world.front_s(a) - s for s, light in world.path(a).stops if light < 0]
    return any(margin.reached(d, 0.5) and margin.reached(15.0 - d) for d in behind)
