"""A scenario before its vehicles drive: laid out, populated, packed with their frame 0 alone."""

from __future__ import annotations

import zlib

import numpy as np

from alpagym.scenarios.polyline import wrap_angle
from alpagym.scenarios.procedural import layouts_junction, layouts_road
from alpagym.scenarios.procedural.geometry import headings
from alpagym.scenarios.procedural.network import Layout
from alpagym.scenarios.procedural.populate import Agent, HardBrake, populate
from alpagym.scenarios.scenario import ROUTE_SPACING, AgentType, Lights, Routes, Scenario, Tracks

FRAMES = 91
DT = 0.1
LAYOUTS = {
    "straight": layouts_road.straight,
    "curve": layouts_road.curve,
    "signal": layouts_junction.signal,
    "all_way_stop": layouts_junction.all_way_stop,
    "t_junction": layouts_junction.t_junction,
    "roundabout": layouts_junction.roundabout,
    "merge": layouts_road.merge,
    "lane_drop": layouts_road.lane_drop,
    "street": layouts_road.street,
}


def random_source(kind: str, seed: int, attempt: int) -> np.random.Generator:
    """The generator of one attempt at a scenario; attempts follow until one is good."""
    return np.random.default_rng([zlib.crc32(kind.encode()), seed, attempt])


def lay_out(kind: str, rng: np.random.Generator) -> Layout:
    """The road of one scenario, turned to a random direction."""
    layout = LAYOUTS[kind](rng)
    layout.rotate(rng.uniform(-np.pi, np.pi))
    return layout


def plan(kind: str, seed: int, attempt: int) -> Scenario | None:
    """A scenario whose moving vehicles have frame 0 only; None without such vehicles."""
    rng = random_source(kind, seed, attempt)
    return plan_layout(lay_out(kind, rng), rng, kind, seed)


def plan_layout(layout: Layout, rng: np.random.Generator, kind: str, seed: int) -> Scenario | None:
    """A scenario on a layout, likewise; None without vehicles that move."""
    name = kind if "/" in kind else f"procedural/{kind}"
    if layout.signals is None:
        lights = Lights(
            np.zeros(0, np.int32),
            np.zeros((0, 2), np.float32),
            np.zeros((0, FRAMES), np.uint8),
            np.zeros((0, 0), np.uint8),
        )
    else:
        lanes = layout.signals.lanes
        xy = np.stack([layout.network.lanes[lane].points[-1] for lane in lanes]).astype(np.float32)
        cycle = round(float(layout.signals.starts[-1]) / DT)
        states = layout.signals.states(FRAMES + cycle, DT)
        lights = Lights(
            np.array(lanes, np.int32), xy, states[:, :FRAMES].copy(), states[:, FRAMES:].copy()
        )
    agents = populate(layout, lights.state[:, 0], rng)
    moving = [
        i for i, a in enumerate(agents) if a.route is not None and a.type == AgentType.VEHICLE
    ]
    if not moving:
        return None
    return Scenario(
        id=f"{name}/{seed}",
        source=f"{name}/{seed}",
        dataset="procedural",
        license="synthetic-cc0",
        dt=DT,
        origin=np.zeros(3),
        start_frame=0,
        ego=moving[0],
        tracks=_tracks(agents),
        map=layout.network.pack(),
        lights=lights,
        routes=_routes(agents),
        flags=np.zeros(len(agents), np.uint16),
        has_z=False,
        kind=kind,
    )


def _tracks(agents: list[Agent]) -> Tracks:
    count = len(agents)
    xyz, velocity = (
        np.zeros((count, FRAMES, 3), np.float32),
        np.zeros((count, FRAMES, 2), np.float32),
    )
    yaw, valid = np.zeros((count, FRAMES), np.float32), np.zeros((count, FRAMES), bool)
    heading = np.array([a.yaw for a in agents])
    speed = np.array([a.speed for a in agents])
    toward = speed[:, None] * np.stack([np.cos(heading), np.sin(heading)], axis=1)
    xyz[:, 0, :2] = [a.xy for a in agents]
    velocity[:, 0] = toward
    yaw[:, 0] = wrap_angle(heading)
    valid[:, 0] = True
    # Pedestrians walk straight on and parked vehicles stand: their records are known now.
    known = np.array([a.route is None or a.type == AgentType.PEDESTRIAN for a in agents])
    time = DT * np.arange(FRAMES)
    xyz[known, :, :2] = xyz[known, :1, :2] + time[:, None] * toward[known, None]
    velocity[known] = toward[known, None]
    yaw[known] = yaw[known, :1]
    valid[known] = True
    for i, agent in enumerate(agents):
        if agent.brake is not None and agent.route is not None:
            xyz[i, :, :2], yaw[i], velocity[i] = _braking(
                agent.route.points, agent.speed, agent.brake
            )
            valid[i] = True
    return Tracks(
        xyz,
        yaw,
        velocity,
        valid,
        size=np.array([a.size for a in agents], np.float32),
        type=np.array([a.type for a in agents], np.uint8),
        id=np.arange(count, dtype=np.int64),
    )


def _braking(
    points: np.ndarray, speed: float, brake: HardBrake
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions [T, 2], yaws [T], velocities [T, 2] of a vehicle that brakes hard on its route."""
    time = DT * np.arange(FRAMES)
    v = np.clip(speed - brake.decel * (time - brake.time), brake.end_speed, speed)
    s = np.concatenate([[0.0], np.cumsum(0.5 * (v[1:] + v[:-1]) * DT)])
    at = ROUTE_SPACING * np.arange(len(points))
    xy = np.stack([np.interp(s, at, points[:, 0]), np.interp(s, at, points[:, 1])], axis=1)
    angle = headings(points)
    yaw = np.interp(s, at[:-1] + 0.5 * ROUTE_SPACING, angle)
    velocity = v[:, None] * np.stack([np.cos(yaw), np.sin(yaw)], axis=1)
    return xy, wrap_angle(yaw), velocity


def _routes(agents: list[Agent]) -> Routes:
    routes = [a.route for a in agents]
    points = np.concatenate([r.points for r in routes if r is not None])
    stops = [[] if r is None else r.stop_s for r in routes]
    return Routes(
        points=np.concatenate([points, np.zeros((len(points), 1))], axis=1).astype(np.float32),
        offsets=np.cumsum([0, *(0 if r is None else len(r.points) for r in routes)]).astype(
            np.int32
        ),
        speed_limit=np.concatenate([r.limit for r in routes if r is not None]).astype(np.float32),
        log_length=np.zeros(len(agents), np.float32),
        stop_offsets=np.cumsum([0, *map(len, stops)]).astype(np.int32),
        stop_s=np.array([s for group in stops for s in group], np.float32),
        stop_light=np.array([i for r in routes if r is not None for i in r.stop_light], np.int32),
    )
