"""Packing scenarios for the device: pieces, grid, offsets, and what is filled in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import scenario_factory as factory
from alpagym import _core
from alpagym.scenarios.batch import MAX_CELLS, ROAD_PIECE, UNKNOWN_LIMIT, batch, cut, max_agents
from alpagym.scenarios.scenario import ROUTE_SPACING, AgentFlag, MapType, ScenarioError

SCENARIOS = [factory.random_scenario(s) for s in range(6)]


def test_pieces_are_short_and_join_bit_for_bit() -> None:
    for scenario in SCENARIOS:
        pieces, road_map = cut(scenario.map), scenario.map
        length = np.linalg.norm(pieces.end - pieces.start, axis=1)
        assert length.max() <= ROAD_PIECE * (1 + 1e-6)
        total = sum(
            np.linalg.norm(np.diff(road_map.polyline(k), axis=0), axis=1).sum()
            for k in range(road_map.num_elements)
        )
        assert length.sum() == pytest.approx(total, rel=1e-5)
        joined = (pieces.end[:-1] == pieces.start[1:]).all(1)
        assert len(pieces.type) - joined.sum() == road_map.num_elements


def test_pieces_of_many_long_segments_lie_on_them() -> None:
    path = np.cumsum(np.random.default_rng(0).uniform(-40, 40, (30, 3)), axis=0)
    scenario = factory.assemble(
        "long", [(MapType.LANE, path)], [factory.Actor(factory.STRAIGHT, 0, 5)]
    )
    pieces = cut(scenario.map)
    ends = np.concatenate([pieces.start, pieces.end[-1:]])
    for point in scenario.map.points:
        assert (ends == point).all(1).any()


def test_a_piece_is_found_in_the_cell_of_every_point_on_it() -> None:
    c = batch(SCENARIOS)
    for s, scenario in enumerate(SCENARIOS):
        x, y, cell, columns = c.grid[s].numpy()
        first, rows = int(c.cell_start[s]), int(c.grid_rows[s])

        def cell_of(point, grid=(x, y, cell, int(columns), rows, first)):
            gx, gy, size, nx, ny, start = grid
            i = min(max(int(np.floor((point[0] - gx) / size)), 0), nx - 1)
            j = min(max(int(np.floor((point[1] - gy) / size)), 0), ny - 1)
            return start + j * nx + i

        pieces = cut(scenario.map)
        is_edge = pieces.type == MapType.ROAD_EDGE
        for a, b in zip(pieces.start[is_edge], pieces.end[is_edge], strict=True):
            for t in np.linspace(0.0, 1.0, 9):
                at = cell_of(a + t * (b - a))
                listed = c.edge[c.cell_edge[at] : c.cell_edge[at + 1], :4].numpy()
                assert (listed == [*a[:2], *b[:2]]).all(1).any()
        last = first + int(columns) * rows
        for at in range(first, last):
            for point in c.road[c.cell_road[at] : c.cell_road[at + 1]].numpy():
                assert cell_of(point) == at
        assert int(c.cell_road[last] - c.cell_road[first]) == len(pieces.type)


def test_scenarios_keep_their_own_share_of_every_array() -> None:
    together = batch(SCENARIOS)
    alone = [batch([s]) for s in SCENARIOS]
    for name, _, dims in _core.fields["Scenarios"]:
        packed = getattr(together, name)
        parts = [getattr(one, name) for one in alone]
        if dims[0].endswith("+1"):
            parts = [p.diff() for p in parts]
            packed = packed.diff()
        elif name in ("log_start", "signal_start", "cell_start", "near_limits"):
            continue
        assert torch.equal(packed, torch.cat(parts)), name
    for s, scenario in enumerate(SCENARIOS):
        cells = int(together.log_start[s])
        frame, agents = 3, scenario.tracks.num_agents
        row = together.log[cells + frame * agents : cells + (frame + 1) * agents]
        assert np.array_equal(row[:, :2], scenario.tracks.xyz[:, frame, :2])
        assert int(together.key[s]) == scenario.key


def test_routes_have_a_limit_everywhere() -> None:
    slow = factory.Actor(factory.STRAIGHT, 0.0, 2.0)
    fast = factory.Actor(factory.STRAIGHT, 0.0, 20.0)
    known = factory.Actor(factory.STRAIGHT, 0.0, 5.0, limit=3.0)
    c = batch([factory.straight(fast, known, ego=slow)])
    limits = [c.route[c.route_start[a] : c.route_start[a + 1], 3].unique() for a in range(3)]
    assert [round(v.item(), 3) for v in limits] == [UNKNOWN_LIMIT, 22.0, 3.0]


def test_speed_is_signed_along_the_heading() -> None:
    backward = factory.Actor(factory.STRAIGHT, 50.0, 4.0, yaw_offset=np.pi)
    c = batch([factory.straight(backward)])
    assert c.log[:, 3].reshape(-1, 2)[5].tolist() == pytest.approx([10.0, -4.0], abs=1e-5)


def test_the_ego_comes_first_then_vehicles_that_may_be_driven_by_distance() -> None:
    far, near = (factory.Actor(factory.STRAIGHT, s, 9.0) for s in (90.0, 40.0))
    parked = factory.Actor(factory.border(factory.STRAIGHT, 4.0), 30.0, 0.0)
    walker = factory.Actor(factory.STRAIGHT, 35.0, 1.0, type=factory.AgentType.PEDESTRIAN)
    late = factory.Actor(factory.STRAIGHT, 60.0, 9.0, absent=(0, 20))
    scenario = factory.straight(far, parked, near, walker, late)
    c = batch([scenario])
    assert c.num_egos.item() == 3
    assert c.ego_order[:3].tolist() == [0, 3, 1]
    assert sorted(c.ego_order.tolist()) == list(range(6))
    flags = scenario.flags.copy()
    flags[3] |= AgentFlag.STARTS_OFFROAD
    flags[0] |= AgentFlag.STARTS_IN_COLLISION  # the ego stays one
    assert batch([replace(scenario, flags=flags)]).ego_order[:2].tolist() == [0, 1]


def test_only_vehicles_have_a_rear_axle_behind_the_center() -> None:
    walker = factory.Actor(factory.STRAIGHT, 35.0, 1.0, type=factory.AgentType.PEDESTRIAN)
    c = batch([factory.straight(walker)])
    assert c.agent[0, 3].item() == pytest.approx(0.28 * factory.CAR[0])
    assert c.agent[1, 3].item() == 0.0


def test_large_maps_get_larger_cells() -> None:
    far = factory.line((-9000.0, 0.0), (9000.0, 0.0))
    c = batch([factory.assemble("far", [(MapType.LANE, far)], [factory.Actor(far, 0.0, 10.0)])])
    assert c.grid[0, 3] <= MAX_CELLS + 1
    assert c.grid[0, 2] > 100


def test_scenarios_without_a_map_can_be_packed() -> None:
    c = batch([factory.assemble("empty", [], [factory.Actor(factory.STRAIGHT, 0.0, 10.0)])])
    assert len(c.road) == len(c.edge) == 0
    assert c.route_start[1] == (320 // ROUTE_SPACING) + 1


def test_no_scenarios_is_an_error() -> None:
    with pytest.raises(ScenarioError, match=r"^batch: expected at least one scenario, got none$"):
        batch([])


def test_capacity_holds_the_largest_scenario() -> None:
    assert max_agents([factory.straight(), factory.random_scenario(0)]) == 7
    assert max_agents([]) == 0
