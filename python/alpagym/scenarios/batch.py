"""Pack host scenarios for the device: join ragged arrays, cut the road up, index it by a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from alpagym.scenarios.bank import FACTS, POOLS, Bank, block_of, sizes_of
from alpagym.scenarios.lanes import Lanes, Stretch, go_on, lanes_of, no_lanes
from alpagym.scenarios.lights import lights_after
from alpagym.scenarios.pace import paces
from alpagym.scenarios.scenario import (
    AgentFlag,
    AgentType,
    MapType,
    RoadMap,
    Scenario,
    Tracks,
)
from alpagym.types import Scenarios

ROAD_PIECE = 10.0
"""Polylines are cut into pieces at most this long [m]."""
CELL = 8.0
"""Side of a grid cell [m]; larger where a map would need more than MAX_CELLS a side."""
MAX_CELLS = 160
REAR_AXLE_FRACTION = 0.28
"""Rear axle behind the box center, over the vehicle's length (Chrysler Pacifica: 1.461 / 5.176)."""
UNKNOWN_LIMIT = 6.7
"""Speed limit where the source has none and the agent was not seen driving faster [m/s]."""
UNKNOWN_LANE_LIMIT = 13.4
"""Speed limit of a lane where the source has none [m/s]."""
AHEAD = 100.0
"""Routes of egos reach this far beyond what can be driven [m]."""


@dataclass
class Pieces:
    """Straight pieces of map elements."""

    start: np.ndarray
    """float32 [P, 3]"""
    end: np.ndarray
    """float32 [P, 3]"""
    type: np.ndarray
    """uint8 [P]"""
    element: np.ndarray
    """Index of the map element, int [P]"""


def cut(road_map: RoadMap, longest: float = ROAD_PIECE) -> Pieces:
    """Cut every element into straight pieces of at most `longest` meters.

    Consecutive pieces share their end points bit for bit, which the side test at corners relies on.
    An element of a single point gives a piece of no length.
    """
    points, offsets = road_map.points, road_map.offsets
    counts = np.diff(offsets)
    last = np.zeros(len(points), bool)
    last[offsets[1:][counts > 0] - 1] = True
    element = np.repeat(np.arange(len(counts)), counts)
    i = np.flatnonzero(~last | (counts[element] == 1))
    j = np.where(last[i], i, i + 1)
    a, b = points[i], points[j]
    n = np.maximum(np.ceil(np.linalg.norm(b - a, axis=1) / longest).astype(int), 1)
    owner = np.repeat(np.arange(len(i)), n)
    k = np.arange(len(owner)) - np.repeat(np.cumsum(n) - n, n)

    def vertex(index: np.ndarray) -> np.ndarray:
        t = (index / n[owner])[:, None]
        between = (a[owner] + (b[owner] - a[owner]) * t).astype(np.float32)
        return np.where((index == n[owner])[:, None], b[owner], between)

    element = element[i][owner]
    return Pieces(vertex(k), vertex(k + 1), road_map.type[element], element)


@dataclass
class _Grid:
    corner: np.ndarray
    cell: float
    columns: int
    rows: int

    def index(self, xy: np.ndarray) -> np.ndarray:
        """Column and row of each point, clamped, int [n, 2]."""
        ij = np.floor((xy - self.corner) / np.float32(self.cell)).astype(int)
        return np.clip(ij, 0, [self.columns - 1, self.rows - 1])


def _grid_over(points: np.ndarray) -> _Grid:
    low, high = (points.min(0), points.max(0)) if len(points) else (np.zeros(2), np.zeros(2))
    corner = (np.floor(low) - 1.0).astype(np.float32)
    extent = high - corner + 1.0
    cell = float(np.float32(max(CELL, extent.max() / MAX_CELLS)))
    columns, rows = np.maximum(np.ceil(extent / cell).astype(int), 1)
    return _Grid(corner, cell, int(columns), int(rows))


def _sorted_by_cell(cell: np.ndarray, num_cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Order that groups items by cell, and the number of items in each cell."""
    return np.argsort(cell, kind="stable"), np.bincount(cell, minlength=num_cells)


def _road(scenario: Scenario) -> dict[str, np.ndarray]:
    pieces = cut(scenario.map)
    grid = _grid_over(scenario.map.points[:, :2])
    num_cells = grid.columns * grid.rows

    middle, span = 0.5 * (pieces.start + pieces.end), pieces.end - pieces.start
    length = np.linalg.norm(span[:, :2], axis=1)
    direction = np.where(
        length[:, None] > 1e-6, span[:, :2] / np.maximum(length, 1e-6)[:, None], [1.0, 0.0]
    )
    road = np.zeros((len(middle), 8), np.float32)
    road[:, :2], road[:, 2:4], road[:, 4] = middle[:, :2], direction, 0.5 * length
    road[:, 5], road[:, 6], road[:, 7] = pieces.type, middle[:, 2], pieces.element
    ij = grid.index(middle[:, :2])
    order, road_count = _sorted_by_cell(ij[:, 1] * grid.columns + ij[:, 0], num_cells)

    is_edge = (pieces.type == MapType.ROAD_EDGE) & (length > 1e-6)
    start, end = pieces.start[is_edge], pieces.end[is_edge]
    edge = np.zeros((len(start), 8), np.float32)
    edge[:, :2], edge[:, 2:4], edge[:, 4] = (
        start[:, :2],
        end[:, :2],
        0.5 * (start[:, 2] + end[:, 2]),
    )
    low = grid.index(np.minimum(start, end)[:, :2])
    spread = grid.index(np.maximum(start, end)[:, :2]) - low + 1
    covered = spread.prod(
        1
    )  # cells of the bounding box: a superset of those that the segment touches
    owner = np.repeat(np.arange(len(edge)), covered)
    k = np.arange(len(owner)) - np.repeat(np.cumsum(covered) - covered, covered)
    column = low[owner, 0] + k % spread[owner, 0]
    row = low[owner, 1] + k // spread[owner, 0]
    edge_order, edge_count = _sorted_by_cell(row * grid.columns + column, num_cells)
    return {
        "road": road[order],
        "road_count": road_count,
        "edge": edge[owner[edge_order]],
        "edge_count": edge_count,
        "grid": np.array([*grid.corner, grid.cell, grid.columns], np.float32),
        "grid_rows": np.array(grid.rows, np.int32),
    }


def ego_order(scenario: Scenario) -> tuple[np.ndarray, int]:
    """The ego, then the other vehicles that may be controlled, nearest first; then the rest."""
    tracks, start = scenario.tracks, scenario.start_frame
    blocked = AgentFlag.PARKED | AgentFlag.STARTS_IN_COLLISION | AgentFlag.STARTS_OFFROAD
    may = (
        (tracks.type == AgentType.VEHICLE)
        & ((scenario.flags & blocked) == 0)
        & tracks.valid[:, start]
        & (np.diff(scenario.routes.offsets) >= 2)
    )
    may[scenario.ego] = True
    offset = tracks.xyz[:, start, :2] - tracks.xyz[scenario.ego, start, :2]
    distance = np.hypot(offset[:, 0], offset[:, 1])
    distance[scenario.ego] = -1.0
    return np.lexsort((distance, ~may)).astype(np.int32), int(may.sum())


def rear_axles(tracks: Tracks) -> np.ndarray:
    """How far each agent's rear axle lies behind its center [m], float32 [A]; 0 without one."""
    vehicle = tracks.type == AgentType.VEHICLE
    return np.where(vehicle, np.float32(REAR_AXLE_FRACTION) * tracks.size[:, 0], np.float32(0.0))


def _agents(scenario: Scenario) -> np.ndarray:
    info = np.zeros((scenario.tracks.num_agents, 4), np.float32)
    info[:, :3] = scenario.tracks.size
    info[:, 3] = rear_axles(scenario.tracks)
    return info


def _routes(
    scenario: Scenario, speed: np.ndarray, lanes: Lanes, beyond: float
) -> dict[str, np.ndarray]:
    """The agents' own routes, those of possible egos long enough to drive `beyond` the record [s].

    The speed limit is known everywhere: where the source has none, a little above what was driven.
    """
    r = scenario.routes
    driven = np.where(scenario.tracks.valid, np.abs(speed), 0.0).max(1, initial=0.0)
    fallback = np.maximum(1.1 * driven, UNKNOWN_LIMIT)
    order, num_egos = ego_order(scenario)
    egos = set(order[:num_egos].tolist()) if beyond > 0.0 else set()
    stops = [(float(s), int(light)) for s, light in zip(r.stop_s, r.stop_light, strict=True)]
    own_stops = [stops[a:b] for a, b in zip(r.stop_offsets[:-1], r.stop_offsets[1:], strict=True)]
    lines, limits = [], []
    for a in range(scenario.tracks.num_agents):
        own = slice(r.offsets[a], r.offsets[a + 1])
        points, limit = r.points[own], r.speed_limit[own]
        if a in egos:
            top = np.nanmax(limit, initial=fallback[a])
            more, rest, beyond_own = go_on(
                scenario, lanes, a, float(r.log_length[a] + top * beyond + AHEAD)
            )
            points, limit = np.concatenate([points, more]), np.concatenate([limit, rest])
            own_stops[a] = own_stops[a] + beyond_own
        lines.append(points)
        limits.append(np.where(np.isnan(limit), fallback[a], limit))
    return _packed_routes(lines, limits, own_stops, lanes.beside, lanes.next)


def _lane_routes(lanes: Lanes) -> dict[str, np.ndarray]:
    routes = lanes.routes
    limits = [np.where(np.isnan(r.limit), UNKNOWN_LANE_LIMIT, r.limit) for r in routes]
    return _packed_routes(
        [r.points for r in routes],
        limits,
        [r.stops for r in routes],
        [r.beside for r in routes],
        [r.next for r in routes],
    )


def _packed_routes(
    lines: list[np.ndarray],
    limits: list[np.ndarray],
    stops: list[list[tuple[float, int]]],
    beside: list[list[Stretch]],
    continued: list[tuple[int, float]],
) -> dict[str, np.ndarray]:
    """Routes that follow each other in the arrays of `Scenarios`, with counts for the offsets."""
    points = np.concatenate([np.zeros((0, 3)), *lines])
    limit = np.concatenate([np.zeros(0), *limits])
    counts = np.array([len(line) for line in lines], np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    rows = [
        (x.first, x.last, x.shift, (1.0 + x.lane) * (1.0 if x.left else -1.0))
        for own in beside
        for x in own
    ]
    return {
        "route": np.concatenate([points, limit[:, None]], 1).astype(np.float32),
        "pace": paces(points, limit, offsets),
        "route_count": counts,
        "stop_s": np.array([s for own in stops for s, _ in own], np.float32),
        "stop_light": np.array([light for own in stops for _, light in own], np.int32),
        "stop_count": np.array([len(own) for own in stops], np.int64),
        "beside": np.array(rows, np.float32).reshape(-1, 4),
        "beside_count": np.array([len(own) for own in beside], np.int64),
        "next_route": np.array([lane for lane, _ in continued], np.int32),
        "next_shift": np.array([shift for _, shift in continued], np.float32),
    }


def _log(scenario: Scenario) -> tuple[np.ndarray, np.ndarray]:
    """[A, T, 4] x, y, yaw, signed speed; and the speed alone."""
    t = scenario.tracks
    speed = t.velocity[..., 0] * np.cos(t.yaw) + t.velocity[..., 1] * np.sin(t.yaw)
    return np.stack([t.xyz[..., 0], t.xyz[..., 1], t.yaw, speed], -1).astype(np.float32), speed


def batch(
    scenarios: Sequence[Scenario],
    device: str | torch.device = "cpu",
    *,
    lanes: bool = False,
    seconds: float = 0.0,
) -> Scenarios:
    """Pack scenarios into one `Scenarios` on `device`.

    Args:
        scenarios: at least one.
        device: where the tensors lie.
        lanes: pack the lane graph as well, along which IDM traffic changes lanes and drives on
            beyond its routes; without it, agents leave where their routes end.
        seconds: how long episodes last; where that is beyond the record, lights go on, and with
            `lanes` also the routes of egos.

    Raises:
        ScenarioError: no scenarios, or too many cells for 32-bit offsets.
    """
    packed = [pack(scenario, lanes=lanes, seconds=seconds) for scenario in scenarios]
    facts = {name: np.array([arrays[name] for arrays in packed]) for name in FACTS}
    sizes = np.array([sizes_of(arrays) for arrays in packed]).reshape(-1, len(POOLS))
    bank = Bank(sizes, facts)
    for k, arrays in enumerate(packed):
        bank.put(k, block_of(arrays))
    bank.finish()
    return bank.tensors(bank.memory.to(device))


def pack(scenario: Scenario, *, lanes: bool = False, seconds: float = 0.0) -> dict[str, np.ndarray]:
    """One scenario as a bank takes it: `bank.PARTS` but lists of what is near, and `bank.FACTS`.

    Arguments are those of `batch`.
    """
    log, speed = _log(scenario)
    graph = lanes_of(scenario) if lanes else no_lanes(scenario)
    beyond = max(seconds - scenario.num_steps * scenario.dt, 0.0)
    lit = scenario.lights.state
    if beyond > 0.0:
        lit = np.concatenate([lit, lights_after(scenario.lights, scenario.map, scenario.dt)], 1)
    order, num_egos = ego_order(scenario)
    tracks, lights = scenario.tracks, scenario.lights
    own = _routes(scenario, speed, graph, beyond)
    of_lanes = {f"lane_{name}": array for name, array in _lane_routes(graph).items()}
    return (
        _road(scenario)
        | own
        | of_lanes
        | {
            "key": np.array(scenario.key, np.int64),
            "num_frames": np.array(tracks.num_frames, np.int32),
            "start_frame": np.array(scenario.start_frame, np.int32),
            "has_z": np.array(scenario.has_z),
            "num_egos": np.array(num_egos, np.int32),
            "agent": _agents(scenario),
            "type": tracks.type,
            "id_rank": np.argsort(np.argsort(tracks.id, kind="stable")).astype(np.int32),
            "ego_order": order,
            "log_length": scenario.routes.log_length,
            "log": log.transpose(1, 0, 2).reshape(-1, 4),
            "log_z": tracks.xyz[..., 2].T.reshape(-1),
            "log_valid": tracks.valid.T.reshape(-1),
            "light_frames": np.array(lit.shape[1], np.int32),
            "light_xy": lights.xy,
            "light_state": lit.T.reshape(-1),
        }
    )


def max_agents(scenarios: Sequence[Scenario]) -> int:
    """The capacity that holds every one of them."""
    return max((s.tracks.num_agents for s in scenarios), default=0)
