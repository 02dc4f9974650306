"""Scenes of our own making as crowded as recorded ones, free of any license.

The procedural generator gives one junction or street with the traffic on it. Several of them,
cropped and laid side by side, reach the numbers of agents, egos and road points of a recording.
They are for timing alone: roads cross or end abruptly, and agents come and go.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from alpagym.scenarios.procedural import generate
from alpagym.scenarios.road_map import unlinked_map
from alpagym.scenarios.scenario import (
    AgentFlag,
    AgentType,
    Lights,
    MapType,
    RoadMap,
    Routes,
    Scenario,
    Tracks,
)

BLOCKED = AgentFlag.PARKED | AgentFlag.STARTS_IN_COLLISION | AgentFlag.STARTS_OFFROAD


@dataclass(frozen=True)
class Scene:
    """How a scene is put together, and how crowded it is."""

    parts: tuple[tuple[str, int, float, float], ...]
    """Kind, seed, and where the middle of its traffic is laid: x, y [m]."""
    agents: int
    present: int
    """Agents that are there at the start; the others come and go, one after the other."""
    egos: int
    """Agents that may be policy-controlled."""
    radius: float
    """Roads are kept this far from the middle of their part's traffic [m]."""
    spacing: float
    """Arc length between the points of roads [m]."""


def build(scene: Scene, name: str) -> Scenario:
    """The scenario `synthetic/{name}`: the same bits each time.

    Raises:
        ValueError: the parts have too few agents for what is asked.
    """
    parts = [generate(kind, seed) for kind, seed, _, _ in scene.parts]
    first = parts[0]
    frame = first.start_frame
    shifts = []
    for part, (_, _, x, y) in zip(parts, scene.parts, strict=True):
        there = part.tracks.valid[:, frame]
        middle = part.tracks.xyz[there, frame, :2].mean(0)
        shifts.append(np.array([x - middle[0], y - middle[1], 0.0], np.float32))
    chosen = _choose(parts, scene, name)
    return Scenario(
        id=f"synthetic/{name}",
        source=f"synthetic/{name}",
        dataset="procedural",
        license=first.license,
        dt=first.dt,
        origin=np.zeros(3),
        start_frame=frame,
        ego=0,
        tracks=_tracks(parts, shifts, chosen, scene.present, frame),
        map=_map(parts, shifts, scene),
        lights=Lights(
            lane=np.zeros(0, np.int32),
            xy=np.zeros((0, 2), np.float32),
            state=np.zeros((0, first.tracks.num_frames), np.uint8),
        ),
        routes=_routes(parts, shifts, chosen),
        flags=np.where(np.arange(scene.agents) < scene.egos, 0, AgentFlag.PARKED).astype(np.uint16),
        has_z=first.has_z,
    ).validate()


def _choose(parts: list[Scenario], scene: Scene, name: str) -> list[tuple[int, int]]:
    """Part and index of each agent of the scene, egos first, each time nearest to the middle."""
    ranked = []
    for p, part in enumerate(parts):
        tracks, frame = part.tracks, part.start_frame
        may = (
            (tracks.type == AgentType.VEHICLE)
            & ((part.flags & BLOCKED) == 0)
            & (np.diff(part.routes.offsets) >= 2)
        )
        there = np.flatnonzero(tracks.valid[:, frame])
        xy = tracks.xyz[there, frame, :2]
        distance = np.linalg.norm(xy - xy.mean(0), axis=1)
        ranked += [
            (float(d), p, int(a), bool(may[a])) for d, a in zip(distance, there, strict=True)
        ]
    ranked.sort()
    egos = [(p, a) for _, p, a, may in ranked if may][: scene.egos]
    others = [(p, a) for _, p, a, _ in ranked if (p, a) not in egos]
    if len(egos) < scene.egos or len(ranked) < scene.agents:
        raise ValueError(
            f"{name}: expected parts of {scene.agents} agents with {scene.egos} egos, "
            f"got {len(ranked)} with {len(egos)}"
        )
    return egos + others[: scene.agents - scene.egos]


def _tracks(
    parts: list[Scenario],
    shifts: list[np.ndarray],
    chosen: list[tuple[int, int]],
    present: int,
    frame: int,
) -> Tracks:
    def of(name: str) -> np.ndarray:
        return np.stack([getattr(parts[p].tracks, name)[a] for p, a in chosen])

    valid = of("valid")
    edges = np.linspace(frame + 1, valid.shape[1], len(chosen) - present + 1).astype(int)
    for i, (begin, end) in enumerate(pairwise(edges)):
        valid[present + i, :begin] = False
        valid[present + i, end:] = False
    shift = np.stack([shifts[p] for p, _ in chosen])
    seen = valid[:, :, None]
    return Tracks(
        xyz=np.where(seen, of("xyz") + shift[:, None], np.float32(0)),
        yaw=np.where(valid, of("yaw"), np.float32(0)),
        velocity=np.where(seen, of("velocity"), np.float32(0)),
        valid=valid,
        size=of("size"),
        type=of("type"),
        id=np.arange(len(chosen), dtype=np.int64),
    )


def _map(parts: list[Scenario], shifts: list[np.ndarray], scene: Scene) -> RoadMap:
    """All parts' elements within the radius, their points `spacing` apart, not linked."""
    elements = []
    for part, shift, (_, _, *middle) in zip(parts, shifts, scene.parts, strict=True):
        for element in range(part.map.num_elements):
            line = part.map.polyline(element) + shift
            line = line[np.linalg.norm(line[:, :2] - middle, axis=1) <= scene.radius]
            if len(line) >= 2:
                kind = MapType(int(part.map.type[element]))
                elements.append((kind, _resampled(line, scene.spacing)))
    return unlinked_map(elements)


def _resampled(line: np.ndarray, spacing: float) -> np.ndarray:
    s = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    at = np.linspace(0.0, s[-1], max(round(s[-1] / spacing), 1) + 1)
    return np.stack([np.interp(at, s, line[:, i]) for i in range(3)], 1).astype(np.float32)


def _routes(
    parts: list[Scenario], shifts: list[np.ndarray], chosen: list[tuple[int, int]]
) -> Routes:
    """The agents' own routes, without stops, since the scene has no lights."""
    points, limits = [], []
    for p, a in chosen:
        routes = parts[p].routes
        own = slice(routes.offsets[a], routes.offsets[a + 1])
        points.append(routes.points[own] + shifts[p])
        limits.append(routes.speed_limit[own])
    return Routes(
        points=np.concatenate(points),
        offsets=np.cumsum([0, *map(len, points)]).astype(np.int32),
        speed_limit=np.concatenate(limits),
        log_length=np.array([parts[p].routes.log_length[a] for p, a in chosen], np.float32),
        stop_offsets=np.zeros(len(chosen) + 1, np.int32),
        stop_s=np.zeros(0, np.float32),
        stop_light=np.zeros(0, np.int32),
    )
