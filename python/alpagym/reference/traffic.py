"""IDM drivers: what they want, what stands in their way, and to whom they yield."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from alpagym.config import SimConfig
from alpagym.reference.geometry import Foot, Margin, cross, into_frame, left_of, unit
from alpagym.reference.lines import Line, came_from_line, line_before, stop_gap
from alpagym.reference.noise import DESIRED_SPEED, combine, uniform
from alpagym.reference.world import Path, World
from alpagym.scenarios.scenario import ROUTE_SPACING, AgentType
from alpagym.sim import Controller

CLEARANCE = 0.3
"""Room that a driver leaves between its side and others [m]."""
THROUGH = 40.0
"""So far whoever is behind a stop sign looks ahead [m]."""
TIE = 0.8
"""Who comes first by less is not certain: keys decide [s]."""
HASTE = 0.2
"""By so much the gap falls that one takes [s] a second of waiting."""
STANDS, PATIENCE = 0.5, 8.0
"""Slower agents stand [m/s]."""
RETURN_ACCEL = 1.2
"""Lateral acceleration at which drivers return to their route [m/s^2]."""


def idm_accel(c: SimConfig, speed: float, desired: float, gap: float, closing: float) -> float:
    """A [1 - (v / v0)^4 - (s* / s)^2] with s* = s0 + max(0, v T + v dv / (2 sqrt(a b)))."""
    braking = speed * closing / (2.0 * np.sqrt(c.idm_accel * c.idm_decel))
    wanted = c.idm_gap + max(0.0, speed * c.idm_headway + braking)
    free = (speed / max(desired, 0.1)) ** 4
    return max(c.idm_accel * (1.0 - free - (wanted / max(gap, 0.1)) ** 2), -c.idm_max_decel)


def time_to_cover(distance: float, speed: float, accel: float) -> float:
    """T > 0 with v t + a t^2 / 2 = d."""
    d, v = max(distance, 0.0), max(speed, 0.0)
    return (np.sqrt(v**2 + 2.0 * accel * d) - v) / accel


def rank_of(world: World, a: int, margin: Margin) -> int:
    """The lower goes first: straight on 0, turning 1; 2 more for who came from a sign or line."""
    route, s = world.path(a).route, world.get("route_s", a)
    turn = float(route.at(s - 12.0)[1] @ route.at(s + 25.0)[1])
    return int(not margin.reached(turn, 0.8)) + 2 * came_from_line(world, a, margin)


def speed_factor(c: SimConfig, world: World, a: int) -> float:
    """What a driver makes of speed limits, by seed, scenario and agent."""
    key = combine(int(world.state.seed[world.w]), world.place.key, a, DESIRED_SPEED)
    return 1.0 + c.idm_speed_spread * (2.0 * uniform(key) - 1.0)


def follows_route(world: World, a: int) -> bool:
    """Whether an agent's way is a route rather than straight on."""
    return bool(world.get("controller", a) == Controller.IDM and world.path(a).route.drivable)


def offset_from_route(world: World, a: int) -> float:
    """Signed distance from the route, left positive [m]."""
    route, s = world.path(a).route, world.get("route_s", a)
    return route.project_near(world.position(a), s).offset


def pursue(world: World, a: int) -> float:
    """Curvature of the circle from the rear axle to a point ahead on the route (pure pursuit).

    The point is farther ahead the farther off the route the agent is, so that it returns gently.
    """
    agent, yaw = world.place.agents[a], world.get("yaw", a)
    speed = max(world.get("speed", a), 0.0)
    rear = world.position(a) - agent.rear_axle * unit(yaw)
    gentle = speed * np.sqrt(2.0 * abs(offset_from_route(world, a)) / RETURN_ACCEL)
    lookahead = max(2.5 + agent.rear_axle + 0.35 * speed, min(gentle, 60.0))
    target = world.path(a).route.at(world.get("route_s", a) + lookahead - agent.rear_axle)[0]
    toward = into_frame(target - rear, yaw)
    return 2.0 * toward[1] / max(toward @ toward, 1.0)


def swing_out(length: float, bend: float, on: Foot) -> float:
    """How far the nose of a box swings out of a bend toward an oncoming one at `on` [m]."""
    return 0.5 * length * abs(bend) if on.offset * bend < 0.0 else 0.0


@dataclass
class Meeting:
    """Where the way of another agent first enters that of a driver."""

    enter: float
    """How far the other one must go to enter [m]."""
    leave: float
    """How far to leave [m]."""
    at: float
    """Arc length on the driver's route [m]."""
    half: float
    """Half the other one's extent along the route there [m]."""
    merges: bool
    """Whether both go on the same way from there."""


@dataclass
class Driver:
    """One IDM agent as it looks around."""

    config: SimConfig
    world: World
    a: int
    margin: Margin

    def __post_init__(self) -> None:
        world, a = self.world, self.a
        self.agent = world.place.agents[a]
        self.path: Path = world.path(a)
        self.route = self.path.route
        self.s = world.get("route_s", a)
        self.speed = world.get("speed", a)
        self.line = line_before(self.config, world, a, self.margin)
        self.horizon = min(15.0 + 3.5 * max(self.speed, 0.0), 80.0)
        if self.line.sign:
            self.horizon = max(self.horizon, THROUGH)
        self.first = int(np.clip(self.s, 0.0, self.route.length) / ROUTE_SPACING)
        end = np.clip(self.s + self.horizon, 0.0, self.route.length)
        self.last = int(end / ROUTE_SPACING) + 1
        self.desired = speed_factor(self.config, world, a) * self.path.pace_at(self.s)
        self.offset = offset_from_route(world, a)

    def respond(self, gap: float, closing: float) -> float:
        return idm_accel(self.config, self.speed, self.desired, gap, closing)

    def accel(self) -> float:
        """The hardest demand of the free road, the next stop and every agent nearby.

        Never more than stops it, since drivers do not back up.
        """
        world = self.world
        stop = stop_gap(self.config, world, self.a, self.horizon, self.margin)
        demands = [self.respond(np.inf, 0.0), self.respond(stop, self.speed)]
        for b in range(world.num_agents):
            if b == self.a or not world.get("valid", b) or not world.same_level(self.a, b):
                continue
            distance = float(np.linalg.norm(world.position(b) - world.position(self.a)))
            reach = self.horizon + 10.0 + 4.0 * abs(world.get("speed", b))
            if self.margin.reached(reach - distance):
                demands.append(self.response_to(b))
        return max(min(demands), -self.speed / self.config.dt)

    def response_to(self, b: int) -> float:
        """To a leader: keep the gap. To whom the way crosses: give way, or not."""
        world, box, demand = self.world, self.world.box(b), np.inf
        on = self.route.project(box.center, self.first, self.last)
        room = 0.5 * self.agent.width + box.extent_along(left_of(on.direction)) + CLEARANCE
        ahead = self.margin.reached(on.s - self.s - 1e-9)
        if ahead and not self.margin.reached(self.beside_way(on) - room):
            cos, half = float(unit(box.yaw) @ on.direction), box.extent_along(on.direction)
            closing = self.speed - cos * world.get("speed", b)
            demand = self.respond(on.s - self.s - self.agent.length / 2 - half, closing)
            if self.margin.reached(cos, 0.7):
                return demand
        walks = world.place.agents[b].type == AgentType.PEDESTRIAN
        if walks and not self.margin.reached(world.get("speed", b), 0.3):
            return demand
        return min(demand, self.yield_to(b, walks))

    def beside_way(self, on: Foot) -> float:
        """Distance of something ahead from the way back to the route, which takes three seconds."""
        share = max(1.0 - (on.s - self.s) / (10.0 + 3.0 * max(self.speed, 0.0)), 0.0)
        left, d = share * self.offset, np.copysign(on.distance, on.offset)
        return float(max(d - max(left, 0.0), min(left, 0.0) - d, 0.0))

    def yield_to(self, b: int, walks: bool) -> float:
        """Stop before the crossing, fall in behind, or go first (inf)."""
        c, world, m = self.config, self.world, self.margin
        other, speed = world.place.agents[b], max(world.get("speed", b), 0.0)
        follows = follows_route(world, b)
        waits = not m.reached(world.get("speed", b), STANDS)
        line, its = self.line, line_before(c, world, b, m) if follows else Line()
        both_lights = line.light and its.light
        held = line.gap < np.inf and not both_lights
        if its.gap < np.inf and not both_lights:
            if not held or (line.light and not its.light):
                return np.inf
            if not its.light and not self.waits_longer(b, its.gap):
                return np.inf
        reach = min(4.0 * speed + 6.0, 45.0)
        if follows and line.gap < np.inf:
            reach = max(reach, THROUGH if line.sign else 25.0)
        elif follows and waits:
            reach = 12.0
        if follows:
            reach = min(reach, stop_gap(c, world, b, reach, m) + other.length / 2)
        met = self.meet(b, follows, reach)
        if met is None:
            return np.inf
        gap = met.at - self.s - self.agent.length / 2 - met.half
        rank, its_rank = rank_of(world, self.a, m), rank_of(world, b, m) if follows else 0
        if met.merges and not held and not walks:
            return np.inf if waits else self.fall_in(b, met, gap, rank - its_rank)
        if not m.reached(gap, -0.5) and waits:
            return np.inf
        own_in = time_to_cover(gap, self.speed, c.idm_accel)
        own_out = time_to_cover(gap + self.agent.length + 2 * met.half, self.speed, c.idm_accel)
        its_in = time_to_cover(met.enter, speed, c.idm_accel)
        its_out = time_to_cover(met.leave + other.length / 2, speed, 0.5 * c.idm_accel)
        gone_first = not m.reached(its_out + 1.0 - own_in)
        if held:
            crossing_too = line.sign and follows and came_from_line(world, b, m)
            fast = not m.reached(3.0 - speed)
            haste = HASTE * world.get("stood", self.a)
            needed = max(own_out + 1.0 - haste, own_in + 0.3)
            before_it = not m.reached(needed - its_in)
            if (before_it and not crossing_too) or (gone_first and fast):
                return np.inf
            wait = max(line.gap, 0.0) + 0.5 * c.idm_gap
            return self.respond(min(wait, max(gap, 0.0)), self.speed)
        # Already there, or as good as there: others wait.
        inside = not m.reached(met.enter - min(other.length / 2, ROUTE_SPACING), 0.5)
        if waits and (rank < its_rank or (not inside and rank < 2 + its_rank)):
            return np.inf
        if waits and not walks and self.out_of_patience(b):
            return np.inf
        if not inside and (gone_first or not m.reached(own_out + 1.0 - its_in)):
            return np.inf
        if rank != its_rank:
            first = rank < its_rank
        elif self.ranks_before(b):
            first = not m.reached(own_in - its_in, TIE)
        else:
            first = not m.reached(own_in - its_in, -TIE)
        if first and not inside and not walks:
            return np.inf
        if self.stands_in(b, follows, reach):
            return np.inf  # already there: the other one waits
        return self.respond(gap, self.speed)

    def fall_in(self, b: int, met: Meeting, gap: float, later: int) -> float:
        """Keep behind one whose way becomes the same, unless it is the one behind (inf).

        `later` is the own rank less the other one's.
        """
        world, m, c = self.world, self.margin, self.config
        along = unit(world.get("yaw", self.a)) + unit(world.get("yaw", b))
        lead = met.at - self.s - met.enter
        if m.reached(along @ along, 3.5):
            apart = world.position(b) - world.position(self.a)
            lead = float(apart @ along / np.linalg.norm(along))
        if later != 0 and not m.reached(abs(lead), 3.0):
            lead = max(lead, 0.1) if later > 0 else -1.0
        if not m.reached(lead) or (lead == 0.0 and self.ranks_before(b)):
            return np.inf
        room = lead - 0.5 * self.agent.length - met.half
        demand = self.respond(room, self.speed - max(world.get("speed", b), 0.0))
        return max(demand, -2.0 * c.idm_decel) if not m.reached(10.0 - gap) else demand

    def stands_in(self, b: int, follows: bool, reach: float) -> bool:
        """Whether my box is in the other one's way."""
        world, m = self.world, self.margin
        box, other = world.box(self.a), world.place.agents[b]
        if follows:
            route, s = world.path(b).route, world.get("route_s", b)
            first = self.nearest_to(b)
            on = route.project(box.center, first - 1, first + int(reach / ROUTE_SPACING) + 1)
            ahead, distance, direction = on.s - s, on.distance, on.direction
        else:
            direction = unit(world.get("yaw", b))
            apart = box.center - world.position(b)
            ahead, distance = apart @ direction, abs(cross(direction, apart))
        room = 0.5 * other.width + box.extent_along(left_of(direction)) + CLEARANCE
        return m.reached(ahead - 1e-9) and not m.reached(distance - room)

    def ranks_before(self, b: int) -> bool:
        """Of two whom nothing else tells apart."""
        agents = self.world.place.agents
        return agents[self.a].id_rank < agents[b].id_rank

    def waits_longer(self, b: int, its_gap: float) -> bool:
        """Of two behind their lines: whether the other stands at its own and came there earlier."""
        if not self.margin.reached(4.0 - its_gap):
            return False
        mine, its = self.world.get("stood", self.a), self.world.get("stood", b)
        return bool(its > mine or (its == mine and not self.ranks_before(b)))

    def out_of_patience(self, b: int) -> bool:
        """Of two that wait for each other: whether I have stood long, very long if not longer."""
        mine, its = self.world.get("stood", self.a), self.world.get("stood", b)
        longer = mine > its or (mine == its and self.ranks_before(b))
        return self.margin.reached(mine - 1e-9, PATIENCE if longer else 1.5 * PATIENCE)

    def meet(self, b: int, follows: bool, reach: float) -> Meeting | None:
        """Where the other's way first enters mine, None if nowhere.

        The other's way is its own route if it follows one, else straight on; looked at every 2 m,
        at the points of the route. Of a way that merges, arc length and
        extent are those where they meet, of one that crosses those that begin first.
        """
        world, m = self.world, self.margin
        other = world.place.agents[b]
        met, aligned, nearest = None, -1.0, (np.inf, 0.0)
        for way, position, direction, bend in self.places(b, follows, reach):
            near = self.nearest_point(position)
            on, there = None, False
            if near is not None:
                on = self.route.project(position, near - 2, near + 1)
                cos, sin = float(direction @ on.direction), abs(cross(direction, on.direction))
                side = 0.5 * (other.length * sin + other.width * abs(cos))
                swing = swing_out(self.agent.length, self.route.bend_at(near), on)
                swing = max(-cos, 0.0) * (swing + swing_out(other.length, bend, on))
                room = on.distance - (0.5 * self.agent.width + side + swing + CLEARANCE)
                there = m.reached(on.s - self.s - 1e-9) and m.reached(-room)
            if on is None or not there:
                if met is not None:
                    break
                continue
            half = 0.5 * (other.length * abs(cos) + other.width * sin)
            if met is None:
                met = Meeting(way, way, on.s, half, False)
            met.leave, aligned = way, max(aligned, cos)
            nearest = min(nearest, (on.s - half, half))
        if met is None:
            return None
        if m.reached(aligned, 0.7):
            met.merges, met.leave = True, met.enter
        else:
            met.at, met.half = sum(nearest), nearest[1]
        return met

    def places(self, b: int, follows: bool, reach: float) -> Iterator[tuple]:
        """Where the other will be: how far from now, position, direction, bend of its route."""
        world, box = self.world, self.world.box(b)
        ahead = unit(box.yaw)
        if not follows:
            for way in np.arange(0.0, reach + 1e-9, ROUTE_SPACING):
                yield way, box.center + way * ahead, ahead, 0.0
            return
        route, s = world.path(b).route, world.get("route_s", b)
        for k in range(self.nearest_to(b), len(route.points)):
            way = max(k * ROUTE_SPACING - s, 0.0)
            if not self.margin.reached(reach - way):
                return
            direction = route.directions[min(k, len(route.directions) - 1)]
            yield way, route.points[k, :2], direction, route.bend_at(k)

    def nearest_to(self, b: int) -> int:
        """The point of its route nearest to where an agent is on it."""
        route, s = self.world.path(b).route, self.world.get("route_s", b)
        nearest = np.clip(s + 0.5 * ROUTE_SPACING, 0.0, route.length) / ROUTE_SPACING
        if 0.0 <= s < route.length - ROUTE_SPACING:
            self.margin.reached(abs(nearest - np.round(nearest)))
        return int(nearest)

    def nearest_point(self, q: np.ndarray) -> int | None:
        """The nearest of every other route point ahead, None if none is within 5 m."""
        points = self.route.points
        candidates = np.arange(self.first, min(self.last, len(points) - 1) + 1, 2)
        if len(candidates) == 0:
            return None
        distance = np.linalg.norm(points[candidates, :2] - q, axis=1)
        two = np.sort(distance)[:2]
        self.margin.reached(two[-1] - two[0], 0.0 if len(two) == 2 else -np.inf)
        best = int(np.argmin(distance))
        return int(candidates[best]) if self.margin.reached(5.0 - distance[best]) else None
