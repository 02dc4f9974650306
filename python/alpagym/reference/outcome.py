"""Contact, reward terms and the end of episodes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from alpagym.config import SimConfig
from alpagym.reference.geometry import Box, Margin, separation, time_to_collision, unit
from alpagym.reference.motion import edge_distance
from alpagym.reference.world import World
from alpagym.scenarios.scenario import LightState
from alpagym.sim import Collision, RewardTerm

COMFORT = {"min_accel": -4.05, "max_accel": 2.40, "lateral": 4.89, "yaw_rate": 0.95, "jerk": 4.13}
"""nuPlan's bounds, SI units."""


def touches(a: Box, b: Box, margin: Margin) -> bool:
    """Whether two boxes have a point in common."""
    return margin.reached(-separation(a, b))


def classify(ego: Box, other: Box, margin: Margin) -> Collision:
    """By which end of the ego's box the other one reaches, a quarter of its smaller side deep."""
    depth = 0.25 * min(ego.length, ego.width)
    if touches(ego.end(1.0, depth), other, margin):
        return Collision.FRONT
    return Collision.REAR if touches(ego.end(-1.0, depth), other, margin) else Collision.LATERAL


def contact(world: World, a: int, c: SimConfig, margin: Margin) -> tuple[Collision, float]:
    """The collision that began in this step, and the time to the next one.

    A collision begins when boxes overlap that did not one step earlier; others only come into being
    there. Of several the ego's fault weighs most, then the first. While boxes
    overlap the time is 0.
    """
    ego, began, ttc = world.box(a), [], np.inf
    for b in range(world.num_agents):
        if b == a or not world.get("valid", b) or not world.same_level(a, b):
            continue
        other = world.box(b)
        if touches(ego, other, margin):
            ttc = 0.0
            before = (world.box(a, "prev_"), world.box(b, "prev_"))
            if world.get("prev_valid", b) and not touches(*before, margin):
                began.append(classify(ego, other, margin))
        else:
            velocity = world.get("speed", b) * unit(other.yaw) - world.get("speed", a) * unit(
                ego.yaw
            )
            ttc = min(ttc, time_to_collision(ego, other, velocity, c.ttc_horizon, margin))
    began.sort(key=lambda kind: kind == Collision.REAR)
    return began[0] if began else Collision.NONE, ttc


def runs_red_light(world: World, a: int, margin: Margin) -> bool:
    """Whether the front bumper crossed a stop line whose light is red now."""
    half, state = 0.5 * world.place.agents[a].length, world.lights
    crossed = [
        not margin.reached(world.get("prev_route_s", a) + half - s)
        and margin.reached(world.front_s(a) - s)
        and state[light] == LightState.RED
        for s, light in world.place.agents[a].stops
        if light >= 0
    ]
    return any(crossed)


def comfortable(world: World, a: int, dt: float, margin: Margin) -> bool:
    """Within nuPlan's bounds of acceleration along and across, jerk and yaw rate."""
    accel, speed = world.get("accel", a), world.get("speed", a)
    yaw_rate = abs(speed * world.get("curvature", a))
    jerk = abs(accel - world.get("prev_accel", a)) / dt
    slack = (
        accel - COMFORT["min_accel"],
        COMFORT["max_accel"] - accel,
        COMFORT["lateral"] - yaw_rate * abs(speed),
        COMFORT["yaw_rate"] - yaw_rate,
        COMFORT["jerk"] - jerk,
    )
    return margin.reached(min(slack))


def measure(world: World, e: int, a: int, c: SimConfig, out: SimpleNamespace) -> np.ndarray:
    """All terms of an ego that is there, [R]; writes collision, ttc and State.offroad."""
    terms = np.zeros(len(RewardTerm))
    w, agent, place = world.w, world.place.agents[a], world.place
    near = {name: Margin() for name in ("contact", "offroad", "flags", "comfort", "limit")}
    collision, ttc = contact(world, a, c, near["contact"])
    out.collision[w, e], out.ttc[w, e] = collision, ttc
    terms[RewardTerm.COLLISION_ANY] = collision != Collision.NONE
    terms[RewardTerm.COLLISION_AT_FAULT] = collision in (Collision.FRONT, Collision.LATERAL)
    terms[RewardTerm.TTC] = max(1.0 - ttc / c.ttc_horizon, 0.0)

    edge = edge_distance(place, world.box(a), world.get("z", a))
    offroad = not near["offroad"].reached(edge)
    terms[RewardTerm.OFFROAD] = offroad and not world.state.offroad[w, e]
    world.state.offroad[w, e] = offroad

    if agent.route.drivable:
        s, before, flags = world.get("route_s", a), world.get("prev_route_s", a), near["flags"]
        on = agent.route.project_near(world.position(a), s)
        limit = agent.route.at(s)[3]
        near["limit"].reached(s % 2.0 - 1.0, -1.0)  # limits change between route points
        near["limit"].reached(1.0 - s % 2.0, -1.0)
        terms[RewardTerm.PROGRESS] = s - before
        goal = flags.reached(s - agent.log_length) and not flags.reached(before - agent.log_length)
        terms[RewardTerm.GOAL] = goal
        terms[RewardTerm.LANE] = on.distance
        heading = float(unit(world.get("yaw", a)) @ on.direction)
        terms[RewardTerm.WRONG_WAY] = not flags.reached(heading, np.cos(np.deg2rad(120.0)))
        terms[RewardTerm.SPEED_LIMIT] = max(world.get("speed", a) - limit, 0.0)
        terms[RewardTerm.RED_LIGHT] = runs_red_light(world, a, flags)
    frame = world.frame
    if place.log_valid[frame, a]:
        away = world.position(a) - place.log[frame, a, :2]
        terms[RewardTerm.DISTANCE_TO_GT] = np.linalg.norm(away)
    terms[RewardTerm.COMFORT] = not comfortable(world, a, c.dt, near["comfort"])
    for name, margin in near.items():
        getattr(out, f"margin_{name}")[w, e] = margin.least
    return terms


def reward(world: World, e: int, c: SimConfig, weights: np.ndarray, out: SimpleNamespace) -> None:
    """Judge ego slot `e` after a step, by the world's weights [R]."""
    w, a, state = world.w, world.ego(e), world.state
    out.terms[w, e] = out.reward[w, e] = out.collision[w, e] = out.progress_fraction[w, e] = 0.0
    out.ttc[w, e] = np.inf
    if a < 0:
        return
    length = world.place.agents[a].log_length
    out.progress_fraction[w, e] = world.get("route_s", a) / max(length, 1.0)
    if world.ego_done(e):
        return
    terms = out.terms[w, e]
    if world.get("valid", a):
        terms[:] = measure(world, e, a, c, out)
    out.reward[w, e] = terms @ weights
    ending = any(terms[RewardTerm[name.upper()]] > 0.0 for name in c.end_on)
    state.terminated[w, e] = ending or not world.get("valid", a)
    limit = world.episode_steps(c)
    state.truncated[w, e] = not state.terminated[w, e] and state.step[w] >= limit
