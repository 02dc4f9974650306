"""The tensors of `types.py` as float64 arrays and plain objects."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch

from alpagym.config import SimConfig, Traffic
from alpagym.reference.geometry import SAME_LEVEL, Box, Margin, Route
from alpagym.scenarios.scenario import AgentType
from alpagym.types import Scenarios, TensorStruct


def arrays(struct: TensorStruct) -> SimpleNamespace:
    """A copy of every tensor as a NumPy array: float64, int64 or bool."""
    wide = {torch.float32: torch.float64, torch.bool: torch.bool}
    tensors = struct.tensors().items()
    return SimpleNamespace(
        **{
            n: t.detach().cpu().to(wide.get(t.dtype, torch.int64), copy=True).numpy()
            for n, t in tensors
        }
    )


@dataclass
class Path:
    """A route and what a driver meets on it."""

    route: Route
    pace: np.ndarray
    """Speed at each point that the limit and the bends allow, [n]."""
    stops: list[tuple[float, int]]
    """(arc length, light), a negative light for a stop sign or yield line."""
    beside: list[tuple[float, float, float, int]]
    """First and last arc length, shift, 1 + lane route (negative on the right)."""
    next: tuple[int, float]
    """Lane route that goes on, -1 for none, and the shift of arc length."""

    def pace_at(self, s: float) -> float:
        i, t = self.route.segment(s)
        return float(self.pace[i] + t * (self.pace[i + 1] - self.pace[i]))


@dataclass
class Agent:
    """What never changes about one agent."""

    length: float
    width: float
    height: float
    rear_axle: float
    type: int
    id_rank: int
    """Place of its id among those of the scenario."""
    route: Route
    log_length: float
    stops: list[tuple[float, int]]
    """(arc length, light), a negative light for a stop sign or yield line."""

    @property
    def wheelbase(self) -> float:
        return max(2.0 * self.rear_axle if self.rear_axle > 0 else 0.6 * self.length, 0.3)


@dataclass
class Place:
    """One scenario."""

    key: int
    num_frames: int
    start_frame: int
    has_z: bool
    num_egos: int
    ego_order: np.ndarray
    agents: list[Agent]
    paths: list[Path]
    """The agents' own."""
    lanes: list[Path]
    """The lane routes."""
    log: np.ndarray
    """x, y, yaw, speed, [T, A, 4]."""
    log_z: np.ndarray
    """[T, A]."""
    log_valid: np.ndarray
    """[T, A]."""
    light_xy: np.ndarray
    """[K, 2]."""
    light_state: np.ndarray
    """[T, K]; T includes what follows the record and then repeats."""
    road: np.ndarray
    """[P, 8], in the order of `Scenarios.road`."""
    edges: np.ndarray
    """x0, y0, x1, y1, z, each once, [D, 5]."""

    def frame(self, step: int) -> int:
        """The frame that belongs to a step, clamped to the record."""
        return min(max(self.start_frame + step, 0), self.num_frames - 1)

    def lights_at(self, step: int) -> np.ndarray:
        """`LightState` of each light; beyond what is known its end repeats, or its last state."""
        frame, known = max(self.start_frame + step, 0), len(self.light_state)
        if frame >= known:
            period = known - self.num_frames
            frame = self.num_frames + (frame - self.num_frames) % period if period else known - 1
        return self.light_state[frame]

    def same_level(self, z0: float, z1: float) -> bool:
        return not self.has_z or abs(z0 - z1) < SAME_LEVEL

    def edges_at(self, z: float) -> np.ndarray:
        """Segments at this height, [n, 4]."""
        return np.array([e[:4] for e in self.edges if self.same_level(e[4], z)]).reshape(-1, 4)


def places(scenarios: Scenarios) -> list[Place]:
    """Every scenario of the batch as an object."""
    c = arrays(scenarios)
    return [_place(c, s) for s in range(len(c.key))]


def _place(c: SimpleNamespace, s: int) -> Place:
    rows = range(c.agent_start[s], c.agent_start[s + 1])
    lights = slice(c.light_start[s], c.light_start[s + 1])
    frames, num_lights = c.num_frames[s], lights.stop - lights.start
    cells = slice(c.log_start[s], c.log_start[s] + frames * len(rows))
    lit = c.light_frames[s]
    signals = slice(c.signal_start[s], c.signal_start[s] + lit * num_lights)
    first = c.cell_start[s]
    last = first + int(c.grid[s, 3]) * c.grid_rows[s]
    agents = []
    for n in rows:
        stops = slice(c.stop_start[n], c.stop_start[n + 1])
        length, width, height, rear_axle = c.agent[n]
        agents.append(
            Agent(
                length,
                width,
                height,
                rear_axle,
                AgentType(c.type[n]),
                int(c.id_rank[n]),
                Route(c.route[c.route_start[n] : c.route_start[n + 1]]),
                c.log_length[n],
                list(zip(c.stop_s[stops], c.stop_light[stops], strict=True)),
            )
        )
    return Place(
        key=int(c.key[s]),
        num_frames=int(frames),
        start_frame=int(c.start_frame[s]),
        has_z=bool(c.has_z[s]),
        num_egos=int(c.num_egos[s]),
        ego_order=c.ego_order[rows.start : rows.stop],
        agents=agents,
        paths=[_path(c, n) for n in rows],
        lanes=[_path(c, len(c.type) + k) for k in range(c.lane_start[s], c.lane_start[s + 1])],
        log=c.log[cells].reshape(frames, len(rows), 4),
        log_z=c.log_z[cells].reshape(frames, len(rows)),
        log_valid=c.log_valid[cells].reshape(frames, len(rows)),
        light_xy=c.light_xy[lights],
        light_state=c.light_state[signals].reshape(lit, num_lights),
        road=c.road[c.cell_road[first] : c.cell_road[last]],
        edges=np.unique(c.edge[c.cell_edge[first] : c.cell_edge[last], :5], axis=0),
    )


def _path(c: SimpleNamespace, u: int) -> Path:
    points = slice(c.route_start[u], c.route_start[u + 1])
    stops = slice(c.stop_start[u], c.stop_start[u + 1])
    beside = c.beside[c.beside_start[u] : c.beside_start[u + 1]]
    return Path(
        Route(c.route[points]),
        c.pace[points],
        list(zip(c.stop_s[stops], c.stop_light[stops], strict=True)),
        [(first, last, shift, int(lane)) for first, last, shift, lane in beside],
        (int(c.next_route[u]), float(c.next_shift[u])),
    )


@dataclass
class World:
    """One world: its scenario and its slice of the state; writing to it writes to the state."""

    place: Place
    state: SimpleNamespace
    w: int

    @property
    def num_agents(self) -> int:
        """Agents that the state has room for."""
        return min(len(self.place.agents), self.state.x.shape[1])

    @property
    def frame(self) -> int:
        return self.place.frame(int(self.state.step[self.w]))

    @property
    def lights(self) -> np.ndarray:
        """`LightState` of each light now."""
        return self.place.lights_at(int(self.state.step[self.w]))

    def path(self, a: int, before: str = "") -> Path:
        """What the agent follows now, or one step earlier with `before="prev_"`."""
        k = int(self.get(before + "route", a))
        return self.place.lanes[k - 1] if 0 < k <= len(self.place.lanes) else self.place.paths[a]

    def drives(self, a: int) -> bool:
        """Whether the agent can drive by itself: not if parked, nor on foot."""
        agent = self.place.agents[a]
        return agent.route.drivable and agent.type != AgentType.PEDESTRIAN

    def traffic(self, c: SimConfig) -> Traffic:
        """What drives the world's agents that are not egos."""
        own = int(self.state.traffic[self.w])
        kinds = list(Traffic)
        return kinds[own - 1] if 1 <= own <= len(kinds) else c.traffic

    def episode_steps(self, c: SimConfig) -> int:
        """Steps that an episode lasts at most: a log cannot be replayed beyond its end."""
        recorded = self.place.num_frames - 1 - self.place.start_frame
        if c.max_steps == 0:
            return recorded
        return min(recorded, c.max_steps) if self.traffic(c) is Traffic.log else c.max_steps

    def get(self, name: str, a: int) -> float:
        return getattr(self.state, name)[self.w, a]

    def set(self, a: int, **values: float) -> None:
        for name, value in values.items():
            getattr(self.state, name)[self.w, a] = value

    def position(self, a: int) -> np.ndarray:
        return np.array([self.get("x", a), self.get("y", a)])

    def box(self, a: int, before: str = "") -> Box:
        """The agent's box now, or one step earlier with `before="prev_"`."""
        agent, at = self.place.agents[a], [self.get(before + n, a) for n in ("x", "y", "yaw")]
        return Box(np.array(at[:2]), at[2], agent.length, agent.width)

    def front_s(self, a: int) -> float:
        """Arc length of the front bumper on the agent's route [m]."""
        return self.get("route_s", a) + 0.5 * self.place.agents[a].length

    def same_level(self, a: int, b: int) -> bool:
        return self.place.same_level(self.get("z", a), self.get("z", b))

    def heights_overlap(self, a: int, b: int, margin: Margin) -> bool:
        """Whether their boxes share a height; touching counts."""
        reach = 0.5 * (self.place.agents[a].height + self.place.agents[b].height)
        apart = abs(self.get("z", a) - self.get("z", b))
        return not self.place.has_z or margin.reached(reach - apart)

    def ego(self, e: int) -> int:
        """Agent index of ego slot `e`, -1 for none."""
        a = int(self.state.ego[self.w, e])
        return a if a < self.num_agents else -1

    def ego_slot(self, a: int) -> int:
        """The ego slot that drives agent `a`, -1 for none."""
        slots = np.flatnonzero(self.state.ego[self.w] == a)
        return int(slots[0]) if len(slots) else -1

    def ego_done(self, e: int) -> bool:
        return bool(self.state.terminated[self.w, e] or self.state.truncated[self.w, e])

    def done(self) -> bool:
        """No ego is left: the world stands still."""
        egos = range(self.state.ego.shape[1])
        return all(self.state.ego[self.w, e] < 0 or self.ego_done(e) for e in egos)


def worlds(scenarios: list[Place], state: SimpleNamespace) -> list[World]:
    """All worlds; a scenario index out of range means the nearest in range."""
    last = len(scenarios) - 1
    return [World(scenarios[min(max(s, 0), last)], state, w) for w, s in enumerate(state.scenario)]
