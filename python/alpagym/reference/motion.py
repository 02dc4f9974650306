"""Reset, control, advance and progress: who is where, and how they get further."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from alpagym.config import ActionType, SimConfig, Traffic
from alpagym.reference import vehicle
from alpagym.reference.geometry import (
    Box,
    Margin,
    into_frame,
    separation,
    signed_edge_distance,
    unit,
    wrap_angle,
)
from alpagym.reference.lines import STOP_SIGN
from alpagym.reference.traffic import Driver, pursue
from alpagym.reference.world import Place, World, worlds
from alpagym.scenarios.scenario import AgentType
from alpagym.sim import Controller, control_size

BEFORE = (
    *("x", "y", "yaw", "speed", "accel", "curvature", "route_s", "route", "valid"),
    "stops_served",
)
"""What is kept from one step earlier, as prev_..."""
MOTION = ("lateral_speed", "yaw_rate", "steering_angle", "lagged_accel")
"""What the vehicle that follows plans has besides a pose and a speed."""


def edge_distance(place: Place, box: Box, z: float) -> float:
    """Signed distance from the road's edge to the box's worst corner, negative off-road [m].

    Of a box that reaches no edge the center tells.
    """
    edges = place.edges_at(z)
    center = signed_edge_distance(edges, box.center)
    if abs(center) > 0.5 * np.hypot(box.length, box.width):
        return center
    return min(signed_edge_distance(edges, corner) for corner in box.corners())


def reset(scenarios: list[Place], state: SimpleNamespace, mask: np.ndarray, c: SimConfig) -> None:
    """Put the worlds of `mask` at the start of their scenarios."""
    for world in worlds(scenarios, state):
        if mask[world.w]:
            _reset_world(world, c)


def _reset_world(world: World, c: SimConfig) -> None:
    place, state, w = world.place, world.state, world.w
    num_egos = min(place.num_egos, state.ego.shape[1])
    chosen = place.ego_order[:num_egos]
    start = place.start_frame
    for a in range(state.x.shape[1]):
        world.set(a, x=0, y=0, z=0, yaw=0, speed=0, accel=0, curvature=0, route_s=0, stops_served=0)
        world.set(a, route=0, change_wait=0, stood=0)
        world.set(
            a, valid=a < world.num_agents and place.log_valid[start, a], controller=Controller.LOG
        )
        if a >= world.num_agents:
            continue
        agent = place.agents[a]
        if world.get("valid", a):
            x, y, yaw, speed = place.log[start, a]
            world.set(a, x=x, y=y, yaw=yaw, speed=speed, z=place.log_z[start, a])
            if start > 0 and place.log_valid[start - 1, a]:
                was = place.log[start - 1, a]
                accel, curvature = replayed(was[3], speed, yaw - was[2], c)
                world.set(a, accel=accel, curvature=curvature)
            if agent.route.drivable:
                on = agent.route.project(np.array([x, y]), 0, len(agent.route.points))
                world.set(a, route_s=on.s)
            traffic = world.traffic(c)
            if world.drives(a) and traffic is not Traffic.log_then_idm:
                world.set(a, controller=Controller[traffic.name.upper()])
        if a in chosen:
            world.set(a, controller=Controller.POLICY)
    for name in BEFORE:
        getattr(state, f"prev_{name}")[w] = getattr(state, name)[w]
    state.step[w] = 0
    for e in range(state.ego.shape[1]):
        a = int(chosen[e]) if e < num_egos else -1
        present = 0 <= a < world.num_agents and world.get("valid", a)
        state.ego[w, e] = a if present else -1
        state.terminated[w, e] = state.truncated[w, e] = False
        z = world.get("z", a)
        state.offroad[w, e] = present and edge_distance(place, world.box(a), z) < 0.0
        turning = 0.0
        if present and start > 0 and place.log_valid[start - 1, a]:
            turning = wrap_angle(place.log[start, a, 2] - place.log[start - 1, a, 2]) / c.dt
        speed = world.get("speed", a) if present else 0.0
        keep_motion(world, e, vehicle.moving(speed, 0.0, turning))
    state.ongoing[w] = 0.0


def keep_motion(world: World, e: int, motion: np.ndarray) -> None:
    """Write what the vehicle of ego slot `e` has besides a pose and a speed."""
    for name, value in zip(MOTION, motion[4:], strict=True):
        getattr(world.state, name)[world.w, e] = value


def take(world: World, action: np.ndarray, c: SimConfig) -> np.ndarray:
    """What each ego goes by now: rows [E, n, D] of `action` [E, n * D] or of what goes on."""
    shape = (len(action), -1, control_size(c))
    if c.replan_every == 1:
        return action.reshape(shape)
    kept, age = world.state.ongoing[world.w], int(world.state.step[world.w]) % c.replan_every
    if age == 0:
        kept[:] = action
        for e in range(len(action) if c.action is ActionType.trajectory else 0):
            if world.ego(e) >= 0:
                plan = action[e].reshape(-1, 3)
                placed = [vehicle.from_frame(rear_axle(world, world.ego(e)), p) for p in plan]
                kept[e] = np.array(placed).flatten()
                kept[e, 2::3] = [wrap_angle(yaw) for yaw in kept[e, 2::3]]
    rows = kept.reshape(shape)
    return rows if c.action is ActionType.trajectory else rows[:, age:]


def rear_axle(world: World, a: int) -> np.ndarray:
    """Pose of the rear axle [3]."""
    yaw = world.get("yaw", a)
    return np.array([*(world.position(a) - world.place.agents[a].rear_axle * unit(yaw)), yaw])


def follow(world: World, plan: np.ndarray, e: int, c: SimConfig) -> None:
    """Move an ego along its plan [n, 3]; in another's hands keep the motion that it is in."""
    a = world.ego(e)
    if a < 0 or not world.get("valid", a):
        return
    if world.get("controller", a) != Controller.POLICY:
        turned = wrap_angle(world.get("yaw", a) - world.get("prev_yaw", a))
        turned = turned if world.get("prev_valid", a) else 0.0
        keep_motion(world, e, vehicle.moving(world.get("speed", a), 0.0, turned / c.dt))
        return
    kept = [getattr(world.state, name)[world.w, e] for name in MOTION]
    v, start = world.get("speed", a), rear_axle(world, a)
    motion = np.array([0.0, 0.0, 0.0, v, *kept])
    if c.replan_every == 1:
        moved, motion = vehicle.follow(plan, np.zeros(3), 0.0, motion, c.dt)
        pose = vehicle.from_frame(start, moved)
    else:
        age = int(world.state.step[world.w]) % c.replan_every * c.dt
        pose, motion = vehicle.follow(plan, start, age, motion, c.dt)
    turn, speed = wrap_angle(pose[2] - world.get("yaw", a)), motion[3]
    accel, curvature = inverse(v, speed, turn, c.dt)
    tightest = 1.0 / vehicle.WHEELBASE
    x, y = pose[:2] + world.place.agents[a].rear_axle * unit(pose[2])
    world.set(a, x=x, y=y, yaw=wrap_angle(pose[2]), speed=speed)
    world.set(a, accel=accel, curvature=min(max(curvature, -tightest), tightest))
    keep_motion(world, e, motion)


def control(world: World, action: np.ndarray, c: SimConfig, margin: np.ndarray) -> dict[int, tuple]:
    """(acceleration, curvature) asked of each agent that a vehicle model will move.

    `action` [E, n, D] is the world's; `margin` [A] receives how near each driver's decisions were.
    """
    asked = {}
    for a in range(world.num_agents):
        if not world.get("valid", a):
            continue
        agent, e = world.place.agents[a], world.ego_slot(a)
        controller = world.get("controller", a)
        if controller == Controller.CONSTANT_VELOCITY or (
            controller == Controller.POLICY and e < 0
        ):
            asked[a] = (0.0, 0.0)
        elif controller == Controller.POLICY and c.action is ActionType.unicycle:
            asked[a] = tuple(action[e, 0])
        elif controller == Controller.POLICY and c.action is ActionType.bicycle:
            asked[a] = (action[e, 0, 0], np.tan(action[e, 0, 1]) / agent.wheelbase)
        elif controller == Controller.POLICY and c.action is ActionType.jerk:
            jerk, rate = np.where(np.isnan(action[e, 0]), 0.0, action[e, 0])
            before = world.get("accel", a), world.get("curvature", a)
            asked[a] = (before[0] + jerk * c.dt, before[1] + rate * c.dt)
        elif controller == Controller.IDM:
            if world.path(a).route.drivable:
                decisions = Margin()
                asked[a] = (Driver(c, world, a, decisions).accel(), pursue(world, a))
                margin[a] = min(margin[a], decisions.least)
            else:
                asked[a] = (max(-c.idm_decel, -world.get("speed", a) / c.dt), 0.0)
    return asked


def advance(world: World, action: np.ndarray, asked: dict[int, tuple], c: SimConfig) -> None:
    """Move every agent by one step; `action` as in `control`."""
    for a in range(world.num_agents):
        e = world.ego_slot(a)
        controller = world.get("controller", a)
        if e >= 0 and world.ego_done(e):
            world.set(a, valid=False)
        elif controller == Controller.LOG:
            _replay(world, a, c)
        elif not world.get("valid", a):
            continue
        elif a in asked:
            accel, curvature = asked[a]
            _drive(world, a, accel, curvature, c)
            route = world.path(a).route
            at_end = route.drivable and world.get("route_s", a) > route.length - 4.0
            if controller == Controller.IDM and at_end:
                world.set(a, valid=False)
        elif c.action is ActionType.trajectory:
            continue
        elif c.action is ActionType.delta:
            dx, dy, turn = np.where(np.isfinite(action[e, 0]), action[e, 0], 0.0)
            yaw = world.get("yaw", a)
            position = world.position(a) + dx * unit(yaw) + dy * unit(yaw + np.pi / 2)
            _place_at(world, a, position, wrap_angle(yaw + turn), c)
        else:
            here = np.array([*world.position(a), world.get("yaw", a)])
            x, y, yaw = np.where(np.isfinite(action[e, 0]), action[e, 0], here)
            _place_at(world, a, np.array([x, y]), wrap_angle(yaw), c)
    for e in range(len(action) if c.action is ActionType.trajectory else 0):
        follow(world, action[e], e, c)


def _within(value: float, low: float, high: float) -> float:
    """Clamped; what is not a number counts as none."""
    return 0.0 if np.isnan(value) else min(max(value, low), high)


def _drive(world: World, a: int, accel: float, curvature: float, c: SimConfig) -> None:
    """Unicycle about the rear axle; braking ends at standstill, curvature is bounded at speed."""
    v, yaw = world.get("speed", a), world.get("yaw", a)
    limit = min(c.max_curvature, c.max_lateral_accel / max(v**2, 1e-3))
    accel = _within(accel, c.min_accel, c.max_accel)
    curvature = _within(curvature, -limit, limit)
    speed = v + accel * c.dt
    if v >= 0:
        speed = max(speed, 0.0)
    turned = yaw + curvature * 0.5 * (v + speed) * c.dt
    arm = world.place.agents[a].rear_axle
    rear = world.position(a) - arm * unit(yaw)
    rear = rear + 0.5 * c.dt * (v * unit(yaw) + speed * unit(turned))
    x, y = rear + arm * unit(turned)
    world.set(a, x=x, y=y, yaw=wrap_angle(turned), speed=speed)
    world.set(a, accel=(speed - v) / c.dt, curvature=curvature)


def inverse(v: float, speed: float, turn: float, dt: float) -> tuple[float, float]:
    """Acceleration and curvature that change speed and heading so; 0 below 1 mm of way."""
    way = 0.5 * (v + speed) * dt
    return (speed - v) / dt, 0.0 if abs(way) < 1e-3 else wrap_angle(turn) / way


def replayed(v: float, speed: float, turn: float, c: SimConfig) -> tuple[float, float]:
    """The same of a record: no curvature where the noise of a slow track makes an absurd one."""
    accel, curvature = inverse(v, speed, turn, c.dt)
    return accel, curvature if abs(curvature) < 2.0 * c.max_curvature else 0.0


def _place_at(world: World, a: int, position: np.ndarray, yaw: float, c: SimConfig) -> None:
    """A pose given outright: speed along the mean heading, controls that would have done it."""
    v, turn = world.get("speed", a), wrap_angle(yaw - world.get("yaw", a))
    moved = position - world.position(a)
    backward = into_frame(moved, world.get("yaw", a) + 0.5 * turn)[0] < 0
    speed = (-1.0 if backward else 1.0) * float(np.linalg.norm(moved)) / c.dt
    accel, curvature = inverse(v, speed, turn, c.dt)
    world.set(
        a, x=position[0], y=position[1], yaw=yaw, speed=speed, accel=accel, curvature=curvature
    )


def _replay(world: World, a: int, c: SimConfig) -> None:
    """The record's next frame; its controls where it was there before too."""
    place = world.place
    frame = place.start_frame + int(world.state.step[world.w]) + 1
    if frame >= place.num_frames:
        _walk_on(world, a, c)
        return
    was, now = bool(world.get("valid", a)), bool(place.log_valid[frame, a])
    world.set(a, valid=now)
    if not now:
        return
    x, y, yaw, speed = place.log[frame, a]
    if not was and not _has_room(world, a, Box(np.array([x, y]), yaw, 0.0, 0.0), speed, c):
        world.set(a, valid=False)
        return
    accel, curvature = 0.0, 0.0
    if was:
        accel, curvature = replayed(world.get("speed", a), speed, yaw - world.get("yaw", a), c)
    world.set(a, x=x, y=y, z=place.log_z[frame, a], yaw=yaw, speed=speed)
    world.set(a, accel=accel, curvature=curvature)


def _walk_on(world: World, a: int, c: SimConfig) -> None:
    """Beyond the record: who stands stays, who moves goes straight on for 50 m and leaves.

    A vehicle leaves as soon as something is in its way.
    """
    if not world.get("valid", a):
        return
    world.set(a, accel=0, curvature=0)
    speed = world.get("speed", a)
    if abs(speed) < 0.5:
        world.set(a, speed=0)
        return
    x, y = world.position(a) + speed * c.dt * unit(world.get("yaw", a))
    world.set(a, x=x, y=y)
    gone = float(np.linalg.norm(world.position(a) - world.place.log[-1, a, :2]))
    walks = world.place.agents[a].type == AgentType.PEDESTRIAN
    world.set(a, valid=gone <= 50.0 and (walks or not _meets(world, a, world.box(a), False)))


def _meets(world: World, a: int, own: Box, off_record: bool) -> bool:
    """Whether a box overlaps where others were; `off_record`: those that do not replay theirs."""
    others = [b for b in range(world.num_agents) if b != a and world.get("prev_valid", b)]
    if off_record:
        others = [b for b in others if world.get("controller", b) != Controller.LOG]
    return any(separation(own, world.box(b, "prev_")) <= 0.0 for b in others)


def _has_room(world: World, a: int, at: Box, speed: float, c: SimConfig) -> bool:
    """Whether a vehicle that appears where IDM may drive stands clear of where others were.

    One that IDM will not drive keeps clear of those alone that have left the record.
    """
    traffic, agent = world.traffic(c), world.place.agents[a]
    if traffic not in (Traffic.idm, Traffic.log_then_idm):
        return True
    if agent.type == AgentType.PEDESTRIAN or world.ego_slot(a) >= 0:
        return True
    drives = world.drives(a)
    more = 1.0 + 0.5 * abs(speed) if drives and traffic is Traffic.idm else 0.5
    own = Box(at.center, at.yaw, agent.length + 2 * more, agent.width + 0.6)
    return not _meets(world, a, own, off_record=not drives)


def progress(world: World, c: SimConfig, margins: np.ndarray) -> None:
    """Where egos and simulated traffic are on their routes; heights follow the route.

    `margins` [A] receives how near each agent was to standing, or to no longer doing so.
    """
    for a in range(world.num_agents):
        agent, logged = world.place.agents[a], world.get("controller", a) == Controller.LOG
        if not world.get("valid", a) or not agent.route.drivable:
            continue
        if logged and world.ego_slot(a) < 0:
            continue
        speed, path = world.get("speed", a), world.path(a)
        margins[a] = min(margins[a], abs(speed - 3.0), abs(speed - 0.5))
        if speed > 3.0:
            world.set(a, stood=0)
        elif speed < 0.5 or world.get("stood", a) > 0.0:
            world.set(a, stood=world.get("stood", a) + c.dt)
        s = path.route.project_near(world.position(a), world.get("route_s", a)).s
        world.set(a, route_s=s)
        if not logged:
            world.set(a, z=path.route.at(s)[2])
        served = int(world.get("stops_served", a))
        if served < min(len(path.stops), 255):
            at, light = path.stops[served]
            gap = at - world.front_s(a)
            stood = light == STOP_SIGN and world.get("speed", a) < 0.5 and gap < 4.0
            if stood:
                world.set(a, stood=c.dt)
            if gap < -1.0 or stood:
                world.set(a, stops_served=served + 1)
