"""What every ego sees: all candidates, sorted."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from alpagym.config import ObservationKind, SimConfig
from alpagym.reference.geometry import Margin, cross, into_frame, unit, wrap_angle
from alpagym.reference.lines import stop_gap
from alpagym.reference.world import Place, World, worlds
from alpagym.scenarios.scenario import LightState


def observe(scenarios: list[Place], state: SimpleNamespace, c: SimConfig) -> SimpleNamespace:
    """Every field of `Observation` as an array; unseen slots zero.

    `margin` [W, E] tells how near the ego was to where stops and limits of its route change.
    """
    w, e = state.ego.shape
    slots = {"agents": (c.num_agents, 8), "road": (c.num_road_points, 7)}
    slots |= {"route": (c.num_route_points, 5), "lights": (c.num_lights, 7)}
    out = SimpleNamespace(ego=np.zeros((w, e, 10)), margin=np.full((w, e), np.inf))
    for name, (count, columns) in slots.items():
        setattr(out, name, np.zeros((w, e, count, columns)))
        setattr(out, f"{name}_mask", np.zeros((w, e, count), bool))
    for world in worlds(scenarios, state):
        for slot in range(e):
            a = world.ego(slot)
            if a < 0 or not world.get("valid", a):
                continue
            margin = Margin()
            if c.observation is ObservationKind.alpasim:
                out.ego[world.w, slot], told = told_to_drivers(world, a, c, margin)
                out.route[world.w, slot, : len(told)] = told
                out.route_mask[world.w, slot, : len(told)] = True
                out.margin[world.w, slot] = margin.least
                continue
            out.ego[world.w, slot] = ego_features(world, a, c, margin)
            seen = {
                "agents": agents(world, a, c),
                "road": road(world, a, c),
                "route": route(world, a, c, margin),
                "lights": lights(world, a, c, margin),
            }
            out.margin[world.w, slot] = margin.least
            for name, rows in seen.items():
                rows = rows[: slots[name][0]]
                if rows:
                    getattr(out, name)[world.w, slot, : len(rows)] = rows
                getattr(out, f"{name}_mask")[world.w, slot, : len(rows)] = True
    return out


def ego_features(world: World, a: int, c: SimConfig, margin: Margin) -> list[float]:
    """Speed, accel, curvature, length, width, route offset, heading error, limit, goal, stop."""
    agent, s = world.place.agents[a], world.get("route_s", a)
    own = [world.get(name, a) for name in ("speed", "accel", "curvature")]
    own += [agent.length, agent.width]
    if not agent.route.drivable:
        return [*own, 0.0, 0.0, 0.0, 0.0, 0.0]
    on = agent.route.project_near(world.position(a), s)
    margin.reached(s % 2.0 - 1.0, -1.0)  # limits change between route points
    margin.reached(1.0 - s % 2.0, -1.0)
    if on.distance > abs(on.offset) + 1e-3:  # beyond an end or a corner: the sign jumps
        margin.reached(on.offset)
    error = wrap_angle(world.get("yaw", a) - np.arctan2(on.direction[1], on.direction[0]))
    return [
        *own,
        -on.distance if on.offset < 0 else on.distance,
        error,
        agent.route.at(s)[3],
        max(agent.log_length - s, 0.0),
        min(stop_gap(c, world, a, c.route_horizon, margin), c.route_horizon),
    ]


def _local(world: World, a: int, point: np.ndarray) -> np.ndarray:
    return into_frame(point - world.position(a), world.get("yaw", a))


def _nearest(candidates: list[tuple[float, int]], radius: float) -> list[int]:
    """Indices within `radius`, nearest first; ties to the smaller index."""
    return [i for distance, i in sorted(candidates) if distance <= radius]


def agents(world: World, a: int, c: SimConfig) -> list[list[float]]:
    """Position, heading, speed, size and kind of the other agents, nearest first."""
    here, rows = world.position(a), []
    others = [b for b in range(world.num_agents) if b != a and world.get("valid", b)]
    level = [b for b in others if world.same_level(a, b)]
    distance = [(float(np.linalg.norm(world.position(b) - here)), b) for b in level]
    for b in _nearest(distance, c.agent_radius):
        agent = world.place.agents[b]
        heading = into_frame(unit(world.get("yaw", b)), world.get("yaw", a))
        rows.append(
            [
                *_local(world, a, world.position(b)),
                *heading,
                world.get("speed", b),
                agent.length,
                agent.width,
                float(agent.type),
            ]
        )
    return rows


def road(world: World, a: int, c: SimConfig) -> list[list[float]]:
    """Midpoint, direction, half length, kind and height of the pieces of the map, nearest first."""
    points, here, rows = world.place.road, world.position(a), []
    level = [
        n for n in range(len(points)) if world.place.same_level(world.get("z", a), points[n, 6])
    ]
    distance = [(float(np.linalg.norm(points[n, :2] - here)), n) for n in level]
    for n in _nearest(distance, c.road_radius):
        direction = into_frame(points[n, 2:4], world.get("yaw", a))
        height = points[n, 6] - world.get("z", a)
        rows.append([*_local(world, a, points[n, :2]), *direction, *points[n, 4:6], height])
    return rows


def route(world: World, a: int, c: SimConfig, margin: Margin) -> list[list[float]]:
    """Position, direction and limit of waypoints ahead, as far as the route goes."""
    path, rows = world.place.agents[a].route, []
    for h in range(c.num_route_points if path.drivable else 0):
        s = world.get("route_s", a) + (h + 1) * c.route_step
        if not margin.reached(path.length - s):
            break
        position, direction, _, limit = path.at(s)
        rows.append(
            [*_local(world, a, position), *into_frame(direction, world.get("yaw", a)), limit]
        )
    return rows


def told_to_drivers(
    world: World, a: int, c: SimConfig, margin: Margin
) -> tuple[list[float], list[list[float]]]:
    """Ego features and rows of the route as AlpaSim's drivers know them."""
    agent = world.place.agents[a]
    path, yaw = agent.route, world.get("yaw", a)
    way = 0.5 * c.dt * (world.get("prev_speed", a) + world.get("speed", a))
    curves = margin.reached(abs(way), 0.05)
    ego = [world.get("speed", a), world.get("accel", a)]
    ego += [world.get("curvature", a) if curves else 0.0, *[0.0] * 7]
    rig = world.position(a) - agent.rear_axle * unit(yaw)
    points: list[np.ndarray] = []
    start = path.project_near(rig, world.get("route_s", a)).s if path.drivable else 0.0
    for n in range(c.num_route_points if path.drivable else 0):
        s = start + n * c.route_step
        if not margin.reached(path.length - s):
            break
        point = into_frame(path.at(s)[0] - rig, yaw)
        if points:
            step = float(np.linalg.norm(point - points[-1]))
            if not (margin.reached(step, 3.5) and margin.reached(4.5 - step)):
                break
        points.append(point)
    if len(points) < 2:
        return ego, [[*point, 1.0, 0.0, 0.0] for point in points]
    steps = np.diff(points, axis=0)
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    ahead = [*steps, steps[-1]]
    first, along = points[0], ahead[0]
    ego[5:7] = cross(first, along), -np.arctan2(along[1], along[0])
    return ego, [[*point, *step, 0.0] for point, step in zip(points, ahead, strict=True)]


def lights(world: World, a: int, c: SimConfig, margin: Margin) -> list[list[float]]:
    """Stop point, distance along the route, whether on it, color: those on it first."""
    place, here = world.place, world.position(a)
    ahead = []
    for s, light in place.agents[a].stops:
        gap = s - world.front_s(a)
        if light >= 0 and margin.reached(gap, -1.0) and margin.reached(c.route_horizon - gap):
            ahead.append((light, gap))
    beside = set(range(len(place.light_xy))) - {light for light, _ in ahead}
    distance = [(float(np.linalg.norm(place.light_xy[k] - here)), k) for k in beside]
    shown = [(k, gap, True) for k, gap in ahead]
    shown += [(k, 0.0, False) for k in _nearest(distance, c.light_radius)]
    rows = []
    for light, gap, on_route in shown:
        color = LightState(world.lights[light])
        rows.append(
            [
                *_local(world, a, place.light_xy[light]),
                gap,
                float(on_route),
                float(color in (LightState.RED, LightState.FLASHING_RED)),
                float(color == LightState.YELLOW),
                float(color == LightState.GREEN),
            ]
        )
    return rows
