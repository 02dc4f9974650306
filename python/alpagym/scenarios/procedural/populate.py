"""Agents at frame 0: vehicles with safe gaps, pedestrians, parked cars; and their incidents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alpagym.scenarios.procedural.network import STOP_SIGN, Flow, Layout, Walk
from alpagym.scenarios.procedural.routes import Route, choose_lanes, trace
from alpagym.scenarios.scenario import ROUTE_SPACING, AgentType, LightState

MAX_AGENTS = 36
"""Agents of a scenario at most; the ones farthest from the origin stay away."""
DECEL = 1.5
"""Braking that every agent can rely on at frame 0 [m/s^2]."""
SHARP_TURN = 5.5
"""No truck takes a turn so narrow that it is driven slower than this [m/s]."""
LARGEST_CAR = (5.2, 2.05, 1.9)
"""[m]"""
STANDSTILL = 2.0
"""Bumper to bumper distance at rest [m]."""


@dataclass
class HardBrake:
    """A vehicle that drives at its first speed, then brakes, then keeps what speed is left."""

    time: float
    """When it begins to brake [s]."""
    decel: float
    """[m/s^2]."""
    end_speed: float
    """[m/s]."""


@dataclass
class Agent:
    """One agent at frame 0; its route begins at its center."""

    type: AgentType
    size: np.ndarray
    """Length, width, height [m], [3]."""
    xy: np.ndarray
    """[m], [2]."""
    yaw: float
    speed: float
    route: Route | None
    """None for parked vehicles."""
    brake: HardBrake | None = None
    """Set where the drive is given rather than left to the IDM, which never brakes suddenly."""


def populate(layout: Layout, light_states: np.ndarray, rng: np.random.Generator) -> list[Agent]:
    """Place agents on a layout.

    Args:
        layout: Where agents may stand and what they may do.
        light_states: State of each light at frame 0, [K].
        rng: Source of all choices.

    Returns:
        At most `MAX_AGENTS` agents whose boxes do not overlap.
    """
    gap = rng.uniform(2.0, 12.0)
    walkers = [_pedestrian(walk, rng) for walk in layout.walks]
    vehicles: list[Agent] = []
    for flow in layout.flows:
        _fill(layout, flow, gap / flow.density, light_states, walkers, vehicles, rng)
    vehicles.sort(key=lambda agent: float(np.hypot(*agent.xy)))
    parked = [
        Agent(AgentType.VEHICLE, _car(rng), np.array([x, y]), yaw, 0.0, None)
        for x, y, yaw in layout.parked
    ]
    return walkers + vehicles[: MAX_AGENTS - len(walkers) - len(parked)] + parked


def _fill(
    layout: Layout,
    flow: Flow,
    gap: float,
    light_states: np.ndarray,
    walkers: list[Agent],
    placed: list[Agent],
    rng: np.random.Generator,
) -> None:
    """Place vehicles along one flow, from its far end backward, into `placed`."""
    lane = layout.network.lanes[flow.lane]
    held = lane.stop == STOP_SIGN or (
        lane.stop >= 0 and light_states[lane.stop] != LightState.GREEN
    )
    s = flow.last - (rng.uniform(0.0, 2.0) if held and rng.random() < 0.5 else rng.exponential(gap))
    while s > flow.first:
        agent = _vehicle(layout, flow.lane, s, light_states, walkers, placed, rng)
        if agent is None:
            s -= 8.0
            continue
        placed.append(agent)
        free = STANDSTILL + agent.speed * rng.uniform(0.9, 2.0)
        s -= agent.size[0] + free + rng.exponential(gap if agent.speed > 2.0 else 1.0)


def _vehicle(
    layout: Layout,
    index: int,
    s: float,
    light_states: np.ndarray,
    walkers: list[Agent],
    placed: list[Agent],
    rng: np.random.Generator,
) -> Agent | None:
    """A vehicle at arc length `s` of a lane, or None where it has no room."""
    net = layout.network
    lane = net.lanes[index]
    kind, size = AgentType.VEHICLE, _car(rng)
    factor, top = rng.uniform(0.8, 1.05), np.inf
    if lane.right < 0 and rng.random() < layout.cyclists:
        kind, size, top = AgentType.CYCLIST, np.array([1.8, 0.7, 1.75]), rng.uniform(3.5, 6.0)
    elif rng.random() < layout.trucks:
        size = np.array([rng.uniform(6.5, 9.0), rng.uniform(2.2, 2.4), rng.uniform(2.8, 3.5)])
    elif rng.random() < layout.slow:
        top = lane.speed_limit * rng.uniform(0.4, 0.65)
    xy, yaw = lane.pose_at(s)
    distance, leader = _room(xy, yaw, size, placed)
    crossing = _crossing_ahead(xy, yaw, size, walkers)
    if distance < 0.0 or crossing < 0.0:
        return None

    neighbors = [n for n in (lane.left, lane.right) if n >= 0]
    change = None
    if neighbors and kind == AgentType.VEHICLE and rng.random() < layout.lane_change:
        v = min(lane.speed_limit, top)
        begin, reach = s + rng.uniform(0.3, 3.0) * v, max(25.0, v * rng.uniform(2.2, 3.5))
        neighbor = neighbors[rng.integers(len(neighbors))]
        if begin + reach < lane.s[-1] - 1.0 and _gap_beside(
            xy, yaw, v, net.lanes[neighbor].points, placed
        ):
            change = (neighbor, begin, reach)
    lanes = choose_lanes(net, index if change is None else change[0], rng)
    route = trace(net, [index, *lanes[1:]], s, change)
    if len(route.points) < 10:
        return None
    if route.limit.min() < SHARP_TURN:  # a truck would sweep the lanes beside it
        size = np.minimum(size, LARGEST_CAR)
    route.limit = np.minimum(route.limit, top)

    speed = route.limit[0] * min(1.0, factor)
    for at, light in zip(route.stop_s, route.stop_light, strict=True):
        if light == STOP_SIGN or (light >= 0 and light_states[light] != LightState.GREEN):
            speed = min(speed, _stopping_speed(at - 0.5 * size[0] - 0.5))
    speed = min(speed, np.hypot(leader, _stopping_speed(distance - STANDSTILL)), distance / 0.8)
    speed = min(speed, _stopping_speed(crossing - STANDSTILL))
    agent = Agent(kind, size, xy, yaw, float(speed) if speed > 2.5 else 0.0, route)
    if kind == AgentType.VEHICLE and speed > 6.0 and rng.random() < layout.hard_brake:
        agent.brake = _hard_brake(route, agent.speed, rng)
    return agent


def _stopping_speed(distance: float) -> float:
    return float(np.sqrt(2.0 * DECEL * max(distance, 0.0)))


def _room(xy: np.ndarray, yaw: float, size: np.ndarray, placed: list[Agent]) -> tuple[float, float]:
    """Bumper distance to the vehicle ahead (inf if none, -1 without room) and its speed."""
    if not placed:
        return np.inf, 0.0
    c, s = np.cos(yaw), np.sin(yaw)
    dx, dy = (np.array([other.xy for other in placed]) - xy).T
    length, width = np.array([other.size[:2] for other in placed]).T
    speeds = np.array([other.speed for other in placed])
    along, across = c * dx + s * dy, c * dy - s * dx
    beside = np.abs(across) > 0.5 * (size[1] + width) + 0.3
    free = np.abs(along) - 0.5 * (size[0] + length)
    # A vehicle behind must be able to follow.
    near = free < np.where(along > 0, STANDSTILL, STANDSTILL + speeds)
    if (near & ~beside).any():
        return -1.0, 0.0
    ahead = np.where(~beside & (along > 0) & (along < 80.0), free, np.inf)
    first = int(ahead.argmin())
    if ahead[first] == np.inf:
        return np.inf, 0.0
    leader = placed[first]
    return float(ahead[first]), leader.speed * max(0.0, float(np.cos(leader.yaw - yaw)))


def _crossing_ahead(xy: np.ndarray, yaw: float, size: np.ndarray, walkers: list[Agent]) -> float:
    """Bumper distance to the nearest pedestrian's way across [m]; inf if none, -1 if on one."""
    c, s = np.cos(yaw), np.sin(yaw)
    nearest = np.inf
    for walker in walkers:
        dx, dy = walker.xy - xy
        along, across = c * dx + s * dy, c * dy - s * dx
        sideways = np.sin(walker.yaw - yaw)
        if abs(sideways) < 0.5 or across * np.sign(sideways) > 2.5 or abs(across) > 15.0:
            continue  # walks along the road, or has passed
        if abs(along) < 0.5 * size[0] + 1.5:
            return -1.0
        if along > 0:
            nearest = min(nearest, along - 0.5 * size[0])
    return nearest


def _gap_beside(
    xy: np.ndarray, yaw: float, speed: float, lane: np.ndarray, placed: list[Agent]
) -> bool:
    """Whether no vehicle on `lane` is level with this one, nor faster and close behind."""
    c, s = np.cos(yaw), np.sin(yaw)
    nearest = lane[np.argmin(np.hypot(*(lane - xy).T))] - xy
    side = np.sign(c * nearest[1] - s * nearest[0])
    for other in placed:
        dx, dy = other.xy - xy
        along, across = c * dx + s * dy, side * (c * dy - s * dx)
        closing = max(0.0, other.speed - speed)
        if 1.0 < across < 5.0 and -8.0 - 3.0 * closing < along < 8.0:
            return False
    return True


def _hard_brake(route: Route, speed: float, rng: np.random.Generator) -> HardBrake:
    """A sudden brake during the episode; the route's limit drops where it ends."""
    brake = HardBrake(rng.uniform(0.8, 4.5), rng.uniform(4.0, 7.0), rng.uniform(0.0, 0.35) * speed)
    halt = speed * brake.time + (speed**2 - brake.end_speed**2) / (2.0 * brake.decel)
    here = int(halt / ROUTE_SPACING)
    route.limit[here : here + 8] = np.minimum(
        route.limit[here : here + 8], max(brake.end_speed, 0.5)
    )
    return brake


def _car(rng: np.random.Generator) -> np.ndarray:
    return np.array([rng.uniform(4.1, 5.2), rng.uniform(1.75, 2.05), rng.uniform(1.45, 1.9)])


def _pedestrian(walk: Walk, rng: np.random.Generator) -> Agent:
    delta = walk.end - walk.start
    n = int(np.hypot(*delta) / ROUTE_SPACING)
    unit = delta / np.hypot(*delta)
    pace = rng.uniform(1.0, 1.6)
    points = walk.start + np.arange(n + 1)[:, None] * ROUTE_SPACING * unit
    size = np.array([rng.uniform(0.5, 0.8), rng.uniform(0.5, 0.8), rng.uniform(1.5, 1.9)])
    yaw = float(np.arctan2(unit[1], unit[0]))
    return Agent(
        AgentType.PEDESTRIAN, size, walk.start, yaw, pace, Route(points, np.full(n + 1, pace))
    )
