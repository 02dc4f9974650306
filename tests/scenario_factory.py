"""Small scenarios for tests: made by hand, or drawn from seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from alpagym.scenarios.polyline import arc_length, wrap_angle
from alpagym.scenarios.road_map import unlinked_map
from alpagym.scenarios.scenario import (
    ROUTE_SPACING,
    AgentFlag,
    AgentType,
    Lights,
    LightState,
    MapType,
    Routes,
    Scenario,
    Tracks,
)

DT = 0.1
CAR = (4.6, 1.9, 1.6)
WALKER = (0.8, 0.7, 1.75)
STOP_SIGN, YIELD_LINE = -1, -2


def line(start: Sequence[float], end: Sequence[float]) -> np.ndarray:
    """A straight path, [2, 3]."""
    return np.array([(*p, 0.0)[:3] for p in (start, end)], np.float64)


def arc(center: Sequence[float], radius: float, begin: float, end: float) -> np.ndarray:
    """A circular path from angle `begin` to `end` (counter-clockwise if it grows), [n, 3]."""
    n = max(int(np.ceil(abs(end - begin) * radius / 1.0)), 2)
    angle = np.linspace(begin, end, n + 1)
    xy = np.asarray(center) + radius * np.stack([np.cos(angle), np.sin(angle)], -1)
    return np.concatenate([xy, np.zeros((n + 1, 1))], 1)


def along(path: np.ndarray, s: np.ndarray | float) -> np.ndarray:
    """Points of the path at arc lengths `s`, [n, 3]."""
    at = arc_length(path)
    return np.stack([np.interp(s, at, path[:, k]) for k in range(3)], -1)


def border(path: np.ndarray, offset: float) -> np.ndarray:
    """The path shifted to the left by `offset`."""
    tangent = np.gradient(path[:, :2], axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    shifted = path.copy()
    shifted[:, :2] += offset * np.stack([-tangent[:, 1], tangent[:, 0]], -1)
    return shifted


def edges_of(path: np.ndarray, half_width: float) -> list[tuple[MapType, np.ndarray]]:
    """Both borders of a road along `path`, with the road on their left."""
    right, left = border(path, -half_width), border(path, half_width)[::-1]
    return [(MapType.ROAD_EDGE, right), (MapType.ROAD_EDGE, left)]


@dataclass
class Actor:
    """One agent that was recorded moving along `path` from arc length `s` at constant speed."""

    path: np.ndarray
    s: float = 0.0
    speed: float = 0.0
    accel: float = 0.0
    type: AgentType = AgentType.VEHICLE
    size: tuple[float, float, float] = CAR
    yaw_offset: float = 0.0
    stops: list[tuple[float, int]] = field(default_factory=list)
    """(arc length on the path, light or STOP_SIGN or YIELD_LINE)."""
    limit: float = np.nan
    absent: tuple[int, int] | None = None
    """Frames in which it is not recorded, from the first to before the last."""
    z: float = 0.0


def assemble(
    name: str,
    elements: list[tuple[MapType, np.ndarray]],
    actors: Sequence[Actor],
    *,
    lights: Sequence[tuple[Sequence[float], Sequence[int] | int]] = (),
    frames: int = 41,
    start: int = 5,
    has_z: bool = False,
) -> Scenario:
    """A validated scenario whose ego is the first actor."""
    time = DT * np.arange(frames)
    count = len(actors)
    xyz, velocity = np.zeros((count, frames, 3)), np.zeros((count, frames, 2))
    yaw, valid = np.zeros((count, frames)), np.ones((count, frames), bool)
    points, limits, log_length, stops = [], [], [], []
    for a, actor in enumerate(actors):
        total = arc_length(actor.path)[-1]
        s = np.clip(actor.s + actor.speed * time + 0.5 * actor.accel * time**2, 0.0, total - 1e-3)
        here, next_ = along(actor.path, s), along(actor.path, np.minimum(s + 1e-3, total))
        tangent = (next_ - here)[:, :2] / np.linalg.norm((next_ - here)[:, :2], axis=1)[:, None]
        xyz[a] = here + np.array([0.0, 0.0, actor.z])
        yaw[a] = np.arctan2(tangent[:, 1], tangent[:, 0]) + actor.yaw_offset
        velocity[a] = (actor.speed + actor.accel * time)[:, None] * tangent
        if actor.absent is not None:
            valid[a, slice(*actor.absent)] = False
        first, last = np.flatnonzero(valid[a])[[0, -1]]
        drives = actor.speed != 0.0
        n = int((total - s[first]) // ROUTE_SPACING) + 1 if drives else 0
        route = along(actor.path, s[first] + ROUTE_SPACING * np.arange(n))
        route[:, 2] += actor.z
        points.append(route)
        limits.append(np.full(n, actor.limit))
        log_length.append(s[last] - s[first] if drives else 0.0)
        stops.append([(at - s[first], light) for at, light in actor.stops if at > s[first]])
    yaw = wrap_angle(yaw)
    for array in (xyz, velocity, yaw):
        array[~valid] = 0.0

    def offsets(parts: Sequence) -> np.ndarray:
        return np.concatenate([[0], np.cumsum([len(p) for p in parts])]).astype(np.int32)

    state = np.full((len(lights), frames), LightState.GREEN, np.uint8)
    for k, (_, shown) in enumerate(lights):
        state[k] = shown
    parked = np.array([a.speed == 0.0 for a in actors])
    return Scenario(
        id=name,
        source=name,
        dataset="test",
        license="synthetic-cc0",
        dt=DT,
        origin=np.zeros(3),
        start_frame=start,
        ego=0,
        tracks=Tracks(
            xyz=xyz.astype(np.float32),
            yaw=yaw.astype(np.float32),
            velocity=velocity.astype(np.float32),
            valid=valid,
            size=np.array([a.size for a in actors], np.float32),
            type=np.array([a.type for a in actors], np.uint8),
            id=np.arange(count, dtype=np.int64),
        ),
        map=unlinked_map([(kind, np.asarray(shape)) for kind, shape in elements]),
        lights=Lights(
            lane=np.full(len(lights), -1, np.int32),
            xy=np.array([xy for xy, _ in lights], np.float32).reshape(-1, 2),
            state=state,
        ),
        routes=Routes(
            points=np.concatenate(points).astype(np.float32),
            offsets=offsets(points),
            speed_limit=np.concatenate(limits).astype(np.float32),
            log_length=np.array(log_length, np.float32),
            stop_offsets=offsets(stops),
            stop_s=np.array([s for part in stops for s, _ in sorted(part)], np.float32),
            stop_light=np.array([m for part in stops for _, m in sorted(part)], np.int32),
        ),
        flags=np.where(parked, AgentFlag.PARKED, 0).astype(np.uint16),
        has_z=has_z,
    ).validate()


STRAIGHT = line((-20.0, 0.0), (300.0, 0.0))


def straight(
    *others: Actor, name: str = "straight", ego: Actor | None = None, **options
) -> Scenario:
    """A road 12 m wide along +x; the ego drives at 10 m/s in its middle unless given."""
    elements = [*edges_of(STRAIGHT, 6.0), (MapType.LANE, STRAIGHT)]
    return assemble(name, elements, [ego or Actor(STRAIGHT, 20.0, 10.0), *others], **options)


def curve(*others: Actor, radius: float = 40.0, name: str = "curve", **options) -> Scenario:
    """Half a circle to the left; the ego drives at 8 m/s in its middle."""
    path = arc((0.0, radius), radius, -np.pi / 2, np.pi / 2)
    elements = [*edges_of(path, 5.0), (MapType.LANE, path)]
    return assemble(name, elements, [Actor(path, 5.0, 8.0), *others], **options)


def crossing_map(half: float = 7.0, reach: float = 120.0) -> list[tuple[MapType, np.ndarray]]:
    """Two roads that cross at the origin: a curb around each corner, and two crosswalks."""
    elements = []
    for sx, sy in ((1, 1), (-1, 1), (-1, -1), (1, -1)):
        a, c, b = (sx * reach, sy * half), (sx * half, sy * half), (sx * half, sy * reach)
        curb = np.array([(*p, 0.0) for p in ((a, c, b) if sx * sy > 0 else (b, c, a))])
        elements.append((MapType.ROAD_EDGE, curb))
    for sx in (-1, 1):
        x = sx * (half + 2.0)
        ring = [(x - 1, -half), (x + 1, -half), (x + 1, half), (x - 1, half), (x - 1, -half)]
        elements.append((MapType.CROSSWALK, np.array([(*p, 0.0) for p in ring])))
    elements += [(MapType.LANE, lane) for lane in (EASTWARD, WESTWARD, NORTHWARD, LEFT_TURN)]
    elements.append((MapType.ROAD_LINE, line((-reach, 0.0), (-half, 0.0))))
    return elements


EASTWARD = line((-120.0, -3.0), (120.0, -3.0))
WESTWARD = line((120.0, 3.0), (-120.0, 3.0))
NORTHWARD = line((3.0, -120.0), (3.0, 120.0))
LEFT_TURN = np.concatenate(
    [
        line((-120.0, -3.0), (-7.0, -3.0)),
        arc((-7.0, 7.0), 10.0, -np.pi / 2, 0.0)[1:],
        line((3.0, 8.0), (3.0, 120.0)),
    ]
)
WALK = line((-9.0, -12.0), (-9.0, 12.0))
EAST_STOP, NORTH_STOP = 110.0, 110.0


def crossing(*actors: Actor, name: str = "crossing", **options) -> Scenario:
    """Two roads at grade; the ego goes east at 9 m/s unless actors are given."""
    return assemble(name, crossing_map(), actors or [Actor(EASTWARD, 60.0, 9.0)], **options)


def overpass(*others: Actor, name: str = "overpass", height: float = 6.0, **options) -> Scenario:
    """A road along +x below one along +y, `height` apart; edges of both cross in the plane."""
    low, high = line((-80.0, 0.0), (80.0, 0.0)), line((0.0, -80.0, height), (0.0, 80.0, height))
    elements = [
        *edges_of(low, 5.0),
        *edges_of(high, 5.0),
        (MapType.LANE, low),
        (MapType.LANE, high),
    ]
    above = Actor(high, 70.0, 8.0)
    return assemble(name, elements, [Actor(low, 70.0, 8.0), above, *others], has_z=True, **options)


def random_scenario(seed: int, *, num_agents: int = 7, frames: int = 31) -> Scenario:
    """A crossing, road, curve or overpass with agents drawn from `seed`: some parked, some walk,
    some come late or vanish in between, some must stop."""
    rng = np.random.default_rng(seed)
    kind = ("crossing", "straight", "curve", "overpass")[seed % 4]
    lights, has_z = [], False
    if kind == "crossing":
        elements, paths = crossing_map(), [EASTWARD, WESTWARD, NORTHWARD, LEFT_TURN]
        switch = rng.integers(3, frames - 3)
        turn = np.where(np.arange(frames) < switch, LightState.GREEN, LightState.RED)
        turn[switch : switch + 5] = rng.choice([LightState.YELLOW, LightState.FLASHING_RED])
        lights = [
            ((-10.0, -3.0), turn),
            ((3.0, -10.0), rng.integers(0, 7, frames)),
            ((10.0, 3.0), 4),
        ]
        controls = [[(EAST_STOP, 0)], [(110.0, 2)], [(NORTH_STOP, 1)], [(EAST_STOP, 0)]]
        if rng.random() < 0.5:
            controls[2] = [(NORTH_STOP, int(rng.choice([STOP_SIGN, YIELD_LINE])))]
    elif kind == "straight":
        paths = [border(STRAIGHT, d) for d in (0.0, 3.0, -3.0)]
        elements = [*edges_of(STRAIGHT, 6.0), *((MapType.LANE, p) for p in paths)]
        controls = [[(80.0, STOP_SIGN)], [], []]
    elif kind == "curve":
        center = arc((0.0, 40.0), 40.0, -np.pi / 2, np.pi / 2)
        paths, controls = [center, border(center, 3.0), border(center, -3.0)[::-1]], [[], [], []]
        elements = [*edges_of(center, 6.0), *((MapType.LANE, p) for p in paths)]
    else:
        low, high = line((-80.0, 0.0), (80.0, 0.0)), line((0.0, -80.0, 6.0), (0.0, 80.0, 6.0))
        paths, controls, has_z = [low, high], [[], []], True
        elements = [*edges_of(low, 5.0), *edges_of(high, 5.0), *((MapType.LANE, p) for p in paths)]
    actors = []
    for a in range(num_agents):
        p = int(rng.integers(len(paths))) if a else 0
        total = arc_length(paths[p])[-1]
        actor = Actor(
            border(paths[p], rng.normal(0.0, 0.3)),
            rng.uniform(0.25, 0.6) * total,
            rng.uniform(2.0, 14.0),
            rng.uniform(-1.0, 1.0),
            stops=controls[p],
            size=(rng.uniform(3.5, 9.0), rng.uniform(1.6, 2.6), 1.6),
            limit=rng.choice([np.nan, 8.0, 13.9]),
        )
        if a and rng.random() < 0.15:
            actor = replace(actor, speed=0.0, accel=0.0, stops=[])
        elif a and kind == "crossing" and rng.random() < 0.25:
            speed = rng.uniform(0.5, 2.0)
            actor = Actor(WALK, rng.uniform(0, 18), speed, type=AgentType.PEDESTRIAN, size=WALKER)
        elif a and rng.random() < 0.15:
            actor = replace(actor, type=AgentType.CYCLIST, size=(1.8, 0.7, 1.7))
        if a and rng.random() < 0.2:
            begin = int(rng.integers(0, frames - 6))
            actor = replace(actor, absent=(begin, begin + int(rng.integers(1, 5))))
        actors.append(actor)
    return assemble(f"random-{seed}", elements, actors, lights=lights, frames=frames, has_z=has_z)


def moved(scenario: Scenario, dx: float, dy: float, angle: float) -> Scenario:
    """The same scenario under a rigid motion: rotated by `angle`, then shifted."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, s], [-s, c]])

    def points(xy: np.ndarray) -> np.ndarray:
        out = xy.astype(np.float64)
        out[..., :2] = out[..., :2] @ turn + [dx, dy]
        return out.astype(np.float32)

    t, valid = scenario.tracks, scenario.tracks.valid
    yaw = wrap_angle(t.yaw.astype(np.float64) + angle)
    tracks = replace(
        t,
        xyz=np.where(valid[..., None], points(t.xyz), 0.0).astype(np.float32),
        yaw=np.where(valid, yaw, 0.0).astype(np.float32),
        velocity=(t.velocity.astype(np.float64) @ turn).astype(np.float32),
    )
    return replace(
        scenario,
        tracks=tracks,
        map=replace(scenario.map, points=points(scenario.map.points)),
        lights=replace(scenario.lights, xy=points(scenario.lights.xy)),
        routes=replace(scenario.routes, points=points(scenario.routes.points)),
    ).validate()


def permuted(scenario: Scenario, order: np.ndarray) -> Scenario:
    """The same scenario with its agents in another order: agent k of the result was `order[k]`."""
    t, r = scenario.tracks, scenario.routes
    names = ("xyz", "yaw", "velocity", "valid", "size", "type", "id")

    def ragged(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        return np.concatenate([values[offsets[a] : offsets[a + 1]] for a in order])

    def offsets(of: np.ndarray) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(np.diff(of)[order])]).astype(np.int32)

    return replace(
        scenario,
        ego=int(np.flatnonzero(order == scenario.ego)[0]),
        flags=scenario.flags[order],
        tracks=Tracks(**{n: getattr(t, n)[order] for n in names}),
        routes=Routes(
            points=ragged(r.points, r.offsets),
            offsets=offsets(r.offsets),
            speed_limit=ragged(r.speed_limit, r.offsets),
            log_length=r.log_length[order],
            stop_offsets=offsets(r.stop_offsets),
            stop_s=ragged(r.stop_s, r.stop_offsets),
            stop_light=ragged(r.stop_light, r.stop_offsets),
        ),
    ).validate()
