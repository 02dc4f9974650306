"""Contact, reward terms and the end of episodes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from alpagym.config import SimConfig
from alpagym.reference.geometry import (
    Box,
    Margin,
    Route,
    cross,
    separation,
    time_to_collision,
    unit,
)
from alpagym.reference.lines import STOP_SIGN
from alpagym.reference.motion import edge_distance
from alpagym.reference.world import World
from alpagym.scenarios.scenario import LightState, MapType
from alpagym.sim import Collision, RewardTerm

LANE_REACH, LANE_HALF_WIDTH, TURN_COST = 6.0, 1.85, 2.0
"""A lane is nobody's own beyond the first, and under an agent within the second; one that runs
across counts as the third farther [m]."""


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
        if b == a or not world.get("valid", b) or not world.heights_overlap(a, b, margin):
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


def crossings(world: World, a: int, margin: Margin) -> tuple[bool, bool]:
    """Whether the front bumper crossed the line of a light that is red now, and of a stop sign.

    A stop sign counts unless the agent had stood before it.
    """
    half, state = 0.5 * world.place.agents[a].length, world.lights
    red_light = stop_sign = False
    for m, (s, light) in enumerate(world.place.agents[a].stops):
        before = margin.reached(world.get("prev_route_s", a) + half - s)
        if before or not margin.reached(world.front_s(a) - s):
            continue
        if light >= 0:
            red_light |= state[light] == LightState.RED
        elif light == STOP_SIGN:
            moving = margin.reached(world.get("speed", a), 0.5)
            stop_sign |= m >= world.get("prev_stops_served", a) and moving
    return red_light, stop_sign


def comfortable(world: World, a: int, dt: float, margin: Margin) -> bool:
    """Within nuPlan's six bounds: acceleration and jerk, along and across, and turning."""

    def motion(before: str) -> tuple[np.ndarray, float]:
        accel, speed, curvature = (
            world.get(before + n, a) for n in ("accel", "speed", "curvature")
        )
        return np.array([accel, speed**2 * curvature]), speed * curvature

    accel, yaw_rate = motion("")
    accel_before, yaw_rate_before = motion("prev_")
    jerk = (accel - accel_before) / dt
    slack = (
        accel[0] + 4.05,
        2.40 - accel[0],
        4.89 - abs(accel[1]),
        8.37 - np.linalg.norm(jerk),
        4.13 - abs(jerk[0]),
        0.95 - abs(yaw_rate),
        1.93 - abs(yaw_rate - yaw_rate_before) / dt,
    )
    return margin.reached(min(slack))


def assign_lane(
    world: World, a: int, choice: Margin, flags: Margin
) -> tuple[int, float, float, bool]:
    """Own lane (-1 for none), distance from it, heading relative to it; and whether wrong way.

    `choice` receives how near another lane or direction was to being chosen.
    """
    place, heading = world.place, unit(world.get("yaw", a))
    found, under = [], []
    for road in place.road[place.road[:, 5] == MapType.LANE]:
        if not place.same_level(world.get("z", a), road[6]):
            continue
        direction = road[2:4]
        start, end = road[:2] - road[4] * direction, road[:2] + road[4] * direction
        on = Route(np.array([[*start, 0, 0], [*end, 0, 0]])).project(world.position(a), 0, 0)
        cosine = float(direction @ heading)
        cost = on.distance + TURN_COST * (1.0 - cosine)
        if choice.reached(LANE_REACH - on.distance):
            angle = np.arctan2(cross(direction, heading), cosine)
            found.append((cost, int(road[7]), np.copysign(on.distance, on.offset), angle))
        if flags.reached(LANE_HALF_WIDTH - on.distance):
            under.append(cosine)
    wrong_way = bool(under) and not flags.reached(max(under), np.cos(np.deg2rad(120.0)))
    if not found:
        return -1, 0.0, 0.0, wrong_way
    found.sort()
    cost, element, offset, angle = found[0]
    for other in found[1:]:
        if other[1] != element or abs(other[3] - angle) > 1e-3 or other[2] * offset < 0.0:
            choice.reached(other[0] - cost)
    return element, offset, angle, wrong_way


DECISIONS = ("contact", "offroad", "flags", "lane", "comfort", "limit")
"""What is decided by thresholds, each with a margin of its own."""


def measure(world: World, e: int, a: int, c: SimConfig, out: SimpleNamespace) -> np.ndarray:
    """All terms of an ego that is there, [R]; writes collision, ttc and State.offroad."""
    terms = np.zeros(len(RewardTerm))
    w, agent, place = world.w, world.place.agents[a], world.place
    near = {name: Margin() for name in DECISIONS}
    collision, ttc = contact(world, a, c, near["contact"])
    out.collision[w, e], out.ttc[w, e] = collision, ttc
    terms[RewardTerm.COLLISION_ANY] = collision != Collision.NONE
    terms[RewardTerm.COLLISION_AT_FAULT] = collision in (Collision.FRONT, Collision.LATERAL)
    terms[RewardTerm.TTC] = max(1.0 - ttc / c.ttc_horizon, 0.0)

    edge = edge_distance(place, world.box(a), world.get("z", a))
    offroad = not near["offroad"].reached(edge)
    terms[RewardTerm.OFFROAD] = offroad and not world.state.offroad[w, e]
    world.state.offroad[w, e] = offroad

    lane, offset, angle, wrong_way = assign_lane(world, a, near["lane"], near["flags"])
    out.lane[w, e], out.lane_offset[w, e], out.lane_heading[w, e] = lane, offset, angle
    terms[RewardTerm.LANE] = abs(offset) if lane >= 0 else LANE_REACH
    terms[RewardTerm.WRONG_WAY] = wrong_way

    if agent.route.drivable:
        s, before, flags = world.get("route_s", a), world.get("prev_route_s", a), near["flags"]
        on = agent.route.project_near(world.position(a), s)
        limit = agent.route.at(s)[3]
        near["limit"].reached(s % 2.0 - 1.0, -1.0)  # limits change between route points
        near["limit"].reached(1.0 - s % 2.0, -1.0)
        terms[RewardTerm.PROGRESS] = s - before
        goal = flags.reached(s - agent.log_length) and not flags.reached(before - agent.log_length)
        terms[RewardTerm.GOAL] = goal
        terms[RewardTerm.ROUTE] = on.distance
        terms[RewardTerm.SPEED_LIMIT] = max(world.get("speed", a) - limit, 0.0)
        red_light, stop_sign = crossings(world, a, flags)
        terms[RewardTerm.RED_LIGHT], terms[RewardTerm.STOP_SIGN] = red_light, stop_sign
    frame = world.frame
    recorded = place.start_frame + int(world.state.step[w]) < place.num_frames
    if recorded and place.log_valid[frame, a]:
        away = world.position(a) - place.log[frame, a, :2]
        terms[RewardTerm.DISTANCE_TO_GT] = np.linalg.norm(away)
    terms[RewardTerm.COMFORT] = not comfortable(world, a, c.dt, near["comfort"])
    for name, margin in near.items():
        getattr(out, f"margin_{name}")[w, e] = margin.least
    return terms


def reward(
    world: World,
    e: int,
    action: np.ndarray,
    c: SimConfig,
    weights: np.ndarray,
    out: SimpleNamespace,
) -> None:
    """Judge ego slot `e` after a step with its action [D], by the world's weights [R]."""
    w, a, state = world.w, world.ego(e), world.state
    out.terms[w, e] = out.reward[w, e] = out.collision[w, e] = out.progress_fraction[w, e] = 0.0
    out.ttc[w, e] = np.inf
    out.lane[w, e], out.lane_offset[w, e], out.lane_heading[w, e] = -1, 0.0, 0.0
    out.bad_action[w, e] = False
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
    was_read = (int(state.step[w]) - 1) % c.replan_every == 0
    out.bad_action[w, e] = was_read and not np.isfinite(action).all()
    ending |= bool(out.bad_action[w, e]) and c.bad_action == "terminate"
    state.terminated[w, e] = ending or not world.get("valid", a)
    limit = world.episode_steps(c)
    state.truncated[w, e] = not state.terminated[w, e] and state.step[w] >= limit
