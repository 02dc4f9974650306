"""Who drives an agent from here on, and along which route: takeover from the log, and MOBIL."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alpagym.config import SimConfig, Traffic
from alpagym.reference.geometry import Box, Margin, left_of, separation, unit
from alpagym.reference.traffic import CLEARANCE, idm_accel, speed_factor
from alpagym.reference.world import Path, World
from alpagym.scenarios.scenario import ROUTE_SPACING, AgentType
from alpagym.sim import Controller

CONTINUE = 95.0
"""A route that ends within goes on as another [m]."""
MIN_SPEED = 3.0
"""Slower drivers stay in their lane [m/s]."""
ROOM_TIME = 4.0
"""A lane changed to runs beside for so long [s]."""
STRAIGHTEN, STRAIGHTEN_TIME = 8.0, 4.0
"""A change between leaders takes its own length and so much way [m], while they drive on [s]."""
TURN = 5
"""Each agent looks for a lane change every so many steps."""
PATH_TIME = 2.0
"""How far ahead on its record an agent looks [s]."""
MISPLACED = 0.5
"""Who is farther from its record is off it [m]."""
BEHIND, AHEAD = 60.0, 90.0
"""Reach of the look for a leader and a follower [m]."""


def decide(world: World, c: SimConfig, margins: np.ndarray) -> None:
    """Set controllers and routes of a world; `margins` [A] receives how near each decision was."""
    for a in range(world.num_agents):
        if not world.get("valid", a):
            continue
        margin = Margin()
        if world.get("controller", a) == Controller.LOG:
            _take_over(world, a, c, margin)
        if world.get("controller", a) == Controller.IDM and world.ego_slot(a) < 0:
            _choose_route(world, a, c, margin)
        margins[a] = margin.least


def _take_over(world: World, a: int, c: SimConfig, margin: Margin) -> None:
    """IDM takes over at once, or once the record no longer fits or has ended; never back."""
    traffic = world.traffic(c)
    if not world.drives(a) or world.ego_slot(a) >= 0:
        return
    if traffic not in (Traffic.idm, Traffic.log_then_idm):
        return
    if traffic is Traffic.log_then_idm:
        ended = world.place.start_frame + int(world.state.step[world.w]) + 1
        if (
            ended < world.place.num_frames
            and not _an_ego_deviates(world, c, margin)
            and not _path_blocked(world, a, c, margin)
        ):
            return
    world.set(a, controller=Controller.IDM)
    path = world.place.paths[a]
    s = path.route.project(world.position(a), 0, len(path.route.points)).s
    world.set(a, route_s=s, stops_served=_stops_behind(world, a, path, s))


def _off_record(world: World, b: int) -> float:
    """Distance of an agent from its recorded position, inf where it has none [m]."""
    place = world.place
    if not place.log_valid[world.frame, b]:
        return np.inf
    return float(np.linalg.norm(world.position(b) - place.log[world.frame, b, :2]))


def _an_ego_deviates(world: World, c: SimConfig, margin: Margin) -> bool:
    egos = [world.ego(e) for e in range(world.state.ego.shape[1])]
    there = [b for b in egos if b >= 0 and world.get("valid", b)]
    farthest = max((_off_record(world, b) for b in there), default=0.0)
    return not margin.reached(c.reactive_distance - farthest)


def _path_blocked(world: World, a: int, c: SimConfig, margin: Margin) -> bool:
    """Whether the agent, on its record, soon meets one who is off it and keeps its velocity."""
    place, agent = world.place, world.place.agents[a]
    first = place.start_frame + int(world.state.step[world.w])
    stride, ahead = max(int(0.4 / c.dt), 1), int(PATH_TIME / c.dt)
    for b in range(world.num_agents):
        if b == a or not world.get("valid", b) or not world.same_level(a, b):
            continue
        distance = float(np.linalg.norm(world.position(b) - world.position(a)))
        reach = 15.0 + PATH_TIME * abs(world.get("speed", a))
        if not margin.reached(reach - distance):
            continue
        if not margin.reached(_off_record(world, b), MISPLACED):
            continue
        for k in range(stride, ahead + 1, stride):
            frame = min(first + k, place.num_frames - 1)
            if place.log_valid[frame, a]:
                x, y, yaw, _ = place.log[frame, a]
                size = agent.length + 4 * CLEARANCE, agent.width + 2 * CLEARANCE
                other = world.box(b)
                other.center = other.center + k * c.dt * world.get("speed", b) * unit(other.yaw)
                if margin.reached(-separation(Box(np.array([x, y]), yaw, *size), other)):
                    return True
    return False


def _choose_route(world: World, a: int, c: SimConfig, margin: Margin) -> None:
    wait = max(world.get("change_wait", a) - c.dt, 0.0)
    world.set(a, change_wait=wait)
    path, s = world.path(a), world.get("route_s", a)
    if not path.route.drivable:
        return
    lane, shift = path.next
    if lane >= 0 and not margin.reached(path.route.length - CONTINUE - s):
        _follow(world, a, lane, s + shift)
    elif c.lane_changes and wait == 0.0 and _may_change(world, a, path, margin):
        _change(world, a, c, path, margin)


def _may_change(world: World, a: int, path: Path, margin: Margin) -> bool:
    """It is the agent's turn, and it drives fast enough in the middle of its lane."""
    if (int(world.state.step[world.w]) + a) % TURN != 0:
        return False
    if world.place.agents[a].type != AgentType.VEHICLE:
        return False
    on = path.route.project_near(world.position(a), world.get("route_s", a))
    return (
        margin.reached(world.get("speed", a), MIN_SPEED)
        and not margin.reached(on.distance, 0.5)
        and not margin.reached(0.995 - float(unit(world.get("yaw", a)) @ on.direction))
    )


def _change(world: World, a: int, c: SimConfig, path: Path, margin: Margin) -> None:
    """MOBIL: to the left in even steps, to the right in odd ones."""
    left = int(world.state.step[world.w]) % 2 == 0
    s, speed = world.get("route_s", a), world.get("speed", a)
    for first, last, shift, lane in path.beside:
        if (lane > 0) != left or not margin.reached(s - first):
            continue
        if not margin.reached(last - s - 10.0 - ROOM_TIME * speed):
            continue
        other = world.place.lanes[abs(lane) - 1]
        if not other.route.drivable:
            continue
        there = other.route.project_near(world.position(a), s + shift).s
        if margin.reached(
            _gain(world, a, c, path, s, other, there, margin), c.idm_change_threshold
        ):
            _follow(world, a, abs(lane) - 1, there)
            world.set(a, change_wait=c.idm_change_wait)
            return


@dataclass
class Neighbor:
    """Who drives before or behind a place on a route."""

    gap: float = np.inf
    """Bumper to bumper [m]."""
    speed: float = 0.0
    """Along the route [m/s]."""
    s: float = 0.0
    agent: int = -1


def around(world: World, a: int, path: Path, s: float, margin: Margin) -> tuple[Neighbor, Neighbor]:
    """Leader and follower of agent `a` if it were at arc length `s` of a route.

    An agent counts where its box is, and where the route leads that it followed before this step.
    """
    route, agent = path.route, world.place.agents[a]
    lead, follow = Neighbor(), Neighbor()
    first, last = (
        int(np.clip(x, 0.0, route.length) / ROUTE_SPACING) for x in (s - BEHIND, s + AHEAD)
    )
    for b in range(world.num_agents):
        if b == a or not world.get("valid", b) or not world.same_level(a, b):
            continue
        box = world.box(b)
        on = route.project(box.center, first, last + 1)
        room = 0.5 * agent.width + box.extent_along(left_of(on.direction)) + CLEARANCE
        there = not margin.reached(on.distance - room)
        its = world.path(b, "prev_").route
        near = 0.5 * agent.width + CLEARANCE + 4.0
        near += 0.5 * float(np.hypot(box.length, box.width))
        if not there and its.drivable and on.distance < near:
            foot = its.at(world.get("prev_route_s", b))[0]
            if not margin.reached(float(np.linalg.norm(foot - box.center)), 6.0):
                there = not margin.reached(route.project(foot, first, last + 1).distance, 1.0)
        if not there:
            continue
        gap = abs(on.s - s) - 0.5 * agent.length - box.extent_along(on.direction)
        along = world.get("speed", b) * float(unit(box.yaw) @ on.direction)
        ahead = margin.reached(on.s - s - 1e-9)
        if gap < (lead if ahead else follow).gap:
            found = Neighbor(gap, along, on.s, b)
            lead, follow = (found, follow) if ahead else (lead, found)
    return lead, follow


def _gain(
    world: World,
    a: int,
    c: SimConfig,
    path: Path,
    s: float,
    other: Path,
    there: float,
    margin: Margin,
) -> float:
    """Own gain plus politeness times what both followers gain; -inf where it is unsafe."""
    now, then = around(world, a, path, s, margin), around(world, a, other, there, margin)
    factor = speed_factor(c, world, a)
    speed, length = world.get("speed", a), world.place.agents[a].length

    def desire(follower: Neighbor, on: Path) -> float:
        return speed_factor(c, world, follower.agent) * on.pace_at(follower.s)

    (old_lead, old), (new_lead, new) = now, then
    own_then = idm_accel(
        c, speed, factor * other.pace_at(there), new_lead.gap, speed - new_lead.speed
    )
    own_now = idm_accel(c, speed, factor * path.pace_at(s), old_lead.gap, speed - old_lead.speed)
    if not margin.reached(new_lead.gap, 0.5) or not margin.reached(own_then, -c.idm_safe_decel):
        return -np.inf
    for lead in (old_lead, new_lead):
        way = lead.gap + STRAIGHTEN_TIME * max(lead.speed, 0.0)
        if not margin.reached(way, STRAIGHTEN + length):
            return -np.inf
    others = 0.0
    if new.agent >= 0:
        want, v = desire(new, other), new.speed
        after = idm_accel(c, v, want, new.gap, v - speed)
        if not margin.reached(new.gap, 0.5) or not margin.reached(after, -c.idm_safe_decel):
            return -np.inf
        free = new.gap + length + new_lead.gap
        others += after - idm_accel(c, v, want, free, v - new_lead.speed)
    if old.agent >= 0:
        want, v = desire(old, path), old.speed
        free = old.gap + length + old_lead.gap
        others += idm_accel(c, v, want, free, v - old_lead.speed)
        others -= idm_accel(c, v, want, old.gap, v - speed)
    return own_then - own_now + c.idm_politeness * others


def _follow(world: World, a: int, lane: int, s: float) -> None:
    """Go on along a lane route of the scenario, from about arc length `s` of it."""
    path = world.place.lanes[lane]
    if not path.route.drivable or s < 0.0:
        return
    s = path.route.project_near(world.position(a), s).s
    world.set(a, route=lane + 1, route_s=s, stops_served=_stops_behind(world, a, path, s))


def _stops_behind(world: World, a: int, path: Path, s: float) -> int:
    """Stops of a route that the agent's front bumper has passed."""
    half, served = 0.5 * world.place.agents[a].length, 0
    for at, _ in path.stops:
        if at - s - half >= -1.0 or served == 255:
            break
        served += 1
    return served
