"""IDM drivers: what they want, what stands in their way, and to whom they yield."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alpagym.config import SimConfig
from alpagym.reference.geometry import Foot, Margin, cross, into_frame, left_of, unit
from alpagym.reference.noise import DESIRED_SPEED, combine, uniform
from alpagym.reference.world import World
from alpagym.scenarios.scenario import ROUTE_SPACING, AgentType, LightState
from alpagym.sim import Controller

STOP_SIGN = -1
CLEARANCE = 0.3
"""Room that a driver leaves between its side and others [m]."""


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


def stop_gap(c: SimConfig, world: World, a: int, horizon: float, margin: Margin) -> float:
    """From the front bumper to the first stop that holds the agent now; inf if none is near.

    Red, flashing red and unserved stop signs hold; yellow holds those who can stop with one and a
    half times the comfortable deceleration. A line up to 1 m behind the bumper still holds.
    """
    speed = world.get("speed", a)
    for s, light in world.place.agents[a].stops[int(world.get("stops_served", a)) :]:
        gap = s - world.front_s(a)
        if not margin.reached(horizon - gap):
            return np.inf
        if not margin.reached(gap, -1.0):
            continue
        state = LightState(world.place.light_state[world.frame, light]) if light >= 0 else None
        yellow = state == LightState.YELLOW
        if (
            light == STOP_SIGN
            or state in (LightState.RED, LightState.FLASHING_RED)
            or (yellow and margin.reached(gap - speed**2 / (3.0 * c.idm_decel)))
        ):
            return gap
    return np.inf


def on_minor_road(world: World, a: int, margin: Margin) -> bool:
    """Whether a stop sign or yield line is near: up to 30 m ahead or 12 m behind the center."""
    ahead = [s - world.get("route_s", a) for s, light in world.place.agents[a].stops if light < 0]
    near = [margin.reached(d, -12.0) and margin.reached(30.0 - d) for d in ahead]
    return any(near)


def desired_speed(c: SimConfig, world: World, a: int) -> float:
    """The limit here, and limits ahead as far as comfortable braking toward them allows."""
    route, s = world.place.agents[a].route, max(world.get("route_s", a), 0.0)
    spread = 2.0 * uniform(combine(world.place.key, a, DESIRED_SPEED)) - 1.0
    factor = 1.0 + c.idm_speed_spread * spread
    horizon = 10.0 + world.get("speed", a) ** 2 / (2.0 * c.idm_decel)
    desired = np.inf
    for k in range(int(s / ROUTE_SPACING), len(route.points)):
        ahead = max(k * ROUTE_SPACING - s, 0.0)
        if ahead < horizon:
            limit = factor * route.points[k, 3]
            desired = min(desired, np.sqrt(limit**2 + 2.0 * c.idm_decel * ahead))
    return desired


def pursue(world: World, a: int) -> float:
    """Curvature of the circle from the rear axle to a point ahead on the route (pure pursuit)."""
    agent, yaw = world.place.agents[a], world.get("yaw", a)
    rear = world.position(a) - agent.rear_axle * unit(yaw)
    lookahead = 2.5 + agent.rear_axle + 0.35 * max(world.get("speed", a), 0.0)
    target = agent.route.at(world.get("route_s", a) + lookahead - agent.rear_axle)[0]
    toward = into_frame(target - rear, yaw)
    return 2.0 * toward[1] / max(toward @ toward, 1.0)


@dataclass
class Driver:
    """One IDM agent as it looks around."""

    config: SimConfig
    world: World
    a: int
    margin: Margin

    def __post_init__(self) -> None:
        self.agent = self.world.place.agents[self.a]
        self.s = self.world.get("route_s", self.a)
        self.speed = self.world.get("speed", self.a)
        self.horizon = min(15.0 + 3.5 * max(self.speed, 0.0), 80.0)
        self.first = int(self.s / ROUTE_SPACING)
        self.last = int((self.s + self.horizon) / ROUTE_SPACING) + 1
        self.desired = desired_speed(self.config, self.world, self.a)
        self.minor = on_minor_road(self.world, self.a, self.margin)

    def respond(self, gap: float, closing: float) -> float:
        return idm_accel(self.config, self.speed, self.desired, gap, closing)

    def accel(self) -> float:
        """The hardest demand of the free road, the next stop and every agent nearby."""
        world = self.world
        stop = stop_gap(self.config, world, self.a, self.horizon, self.margin)
        demands = [self.respond(np.inf, 0.0), self.respond(stop, self.speed)]
        for b in range(world.num_agents):
            if b == self.a or not world.get("valid", b) or not world.same_level(self.a, b):
                continue
            distance = float(np.linalg.norm(world.position(b) - world.position(self.a)))
            reach = self.horizon + 10.0 + 4.0 * abs(world.get("speed", b))
            if self.margin.reached(reach - distance):
                demands.append(self.response_to(b, distance))
        return min(demands)

    def response_to(self, b: int, distance: float) -> float:
        """To a leader: keep the gap. To whom the way crosses: give way, or not."""
        world, box = self.world, self.world.box(b)
        if self.margin.reached(self.horizon + 10.0 - distance):
            on = self.agent.route.project(box.center, self.first, self.last)
            if self.in_lane(on, box.extent_along(left_of(on.direction))):
                along = world.get("speed", b) * float(unit(box.yaw) @ on.direction)
                half = box.extent_along(on.direction)
                return self.respond(
                    on.s - self.s - self.agent.length / 2 - half, self.speed - along
                )
        walks = world.place.agents[b].type == AgentType.PEDESTRIAN
        if not self.margin.reached(world.get("speed", b), 0.3 if walks else 0.5):
            return np.inf  # it waits: its way crosses nobody's
        return self.yield_to(b, walks)

    def in_lane(self, on: Foot, half_width: float) -> bool:
        """Whether something of this half width, met ahead, leaves too little room to pass."""
        room = on.distance - (0.5 * self.agent.width + half_width + CLEARANCE)
        return self.margin.reached(on.s - self.s - 1e-9) and self.margin.reached(-room)

    def yield_to(self, b: int, walks: bool) -> float:
        """Stop before the crossing, fall in behind, or go first (inf)."""
        c, world, m = self.config, self.world, self.margin
        other, speed = world.place.agents[b], world.get("speed", b)
        follows = world.get("controller", b) == Controller.IDM and other.route.drivable
        met = self.crossing_with(b, follows)
        if met is None:
            return np.inf
        enter, leave, at, half, aligned = met
        gap = at - self.s - self.agent.length / 2 - half
        if not m.reached(gap, -0.5):
            return np.inf  # already there: the other one waits
        own_in = time_to_cover(gap, self.speed, c.idm_accel)
        own_out = time_to_cover(gap + self.agent.length + 2 * half, self.speed, c.idm_accel)
        other_in = time_to_cover(enter - other.length / 2, speed, 0.5 * c.idm_accel)
        other_out = time_to_cover(leave + other.length / 2, speed, 0.5 * c.idm_accel)
        if not m.reached(other_out + 1.0 - own_in) or not m.reached(own_out + 1.0 - other_in):
            return np.inf  # one is gone before the other comes
        if not walks:
            other_minor = follows and on_minor_road(world, b, m)
            if self.minor != other_minor:
                first = other_minor
            elif self.a < b:
                first = not m.reached(own_in - other_in, 0.3)
            else:
                first = not m.reached(own_in - other_in, -0.3)
            if first:
                return np.inf
        if aligned > 0.7:  # both go the same way after: keep behind where it will come in
            return self.respond(gap - enter + self.agent.length / 2, self.speed - speed)
        return self.respond(gap, self.speed)

    def crossing_with(
        self, b: int, follows: bool
    ) -> tuple[float, float, float, float, float] | None:
        """Where the other's way first enters mine, None if nowhere.

        The other's way is its own route if it follows one, else straight on; looked at every 2 m,
        up to where it must stop. Returns how far it must go to enter and to leave, the arc length
        on my route, half its extent along my route there, and the cosine between both ways.
        """
        world, m = self.world, self.margin
        other, speed, box = world.place.agents[b], world.get("speed", b), world.box(b)
        reach = min(4.0 * speed + 6.0, 45.0)
        if follows:
            reach = min(reach, stop_gap(self.config, world, b, reach, m) + other.length / 2)
        met = None
        for way in np.arange(0.0, reach + 1e-9, 2.0):
            position, direction = box.center + way * unit(box.yaw), unit(box.yaw)
            if follows:
                position, direction, *_ = other.route.at(world.get("route_s", b) + way)
            near = self.nearest_point(position)
            here = None
            if near is not None:
                on = self.agent.route.project(position, near - 2, near + 1)
                cos, sin = float(direction @ on.direction), abs(cross(direction, on.direction))
                if self.in_lane(on, 0.5 * (other.length * sin + other.width * abs(cos))):
                    here = (on.s, 0.5 * (other.length * abs(cos) + other.width * sin), cos)
            if here is None and met is not None:
                break
            if here is not None:
                met = (met[0], way, *met[2:]) if met is not None else (way, way, *here)
        if met is not None:
            m.reached(met[4], 0.7)
        return met

    def nearest_point(self, q: np.ndarray) -> int | None:
        """The nearest of every other route point ahead, None if none is within 5 m."""
        points = self.agent.route.points
        candidates = np.arange(self.first, min(self.last, len(points) - 1) + 1, 2)
        if len(candidates) == 0:
            return None
        distance = np.linalg.norm(points[candidates, :2] - q, axis=1)
        two = np.sort(distance)[:2]
        self.margin.reached(two[-1] - two[0], 0.0 if len(two) == 2 else -np.inf)
        best = int(np.argmin(distance))
        return int(candidates[best]) if self.margin.reached(5.0 - distance[best]) else None
