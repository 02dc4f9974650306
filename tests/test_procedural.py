"""Procedural scenarios: consistent maps, traffic that neither collides nor leaves the road."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import shapely

from alpagym.scenarios.flags import compute_flags
from alpagym.scenarios.polyline import wrap_angle
from alpagym.scenarios.procedural import KINDS, generate, generate_many
from alpagym.scenarios.procedural.plan import lay_out, random_source
from alpagym.scenarios.scenario import (
    ROUTE_SPACING,
    AgentFlag,
    AgentType,
    LightState,
    MapType,
    Scenario,
    ScenarioError,
)

PER_KIND = 4
LAYOUT_SEEDS = range(10)
HARD_EDGE = 1.3
"""Half the width of the widest car, and some room [m]."""


@pytest.fixture(scope="module")
def scenarios() -> dict[str, list[Scenario]]:
    some = generate_many(PER_KIND * len(KINDS), 5)
    return {kind: some[i :: len(KINDS)] for i, kind in enumerate(KINDS)}


def packed_maps(kind: str) -> list:
    return [lay_out(kind, random_source(kind, seed, 0)).network.pack() for seed in LAYOUT_SEEDS]


def lanes_of(road) -> list[int]:
    return [int(e) for e in np.flatnonzero(road.type == MapType.LANE)]


def direction(points: np.ndarray) -> np.ndarray:
    step = points[1, :2] - points[0, :2]
    return np.arctan2(step[1], step[0])


def boxes(scenario: Scenario, agent: int, frames: np.ndarray) -> np.ndarray:
    """Boxes of an agent as polygons, [len(frames)]."""
    t = scenario.tracks
    length, width = 0.5 * t.size[agent, :2].astype(float)
    yaw = t.yaw[agent, frames].astype(float)
    ahead = np.stack([np.cos(yaw), np.sin(yaw)], 1) * length
    left = np.stack([-np.sin(yaw), np.cos(yaw)], 1) * width
    center = t.xyz[agent, frames, :2].astype(float)
    corners = [
        center + ahead + left,
        center - ahead + left,
        center - ahead - left,
        center + ahead - left,
    ]
    return shapely.polygons(np.stack(corners, 1))


def test_the_same_seed_gives_the_same_bits_in_any_company() -> None:
    for kind in ("straight", "signal", "street"):
        alone, again = generate(kind, 7_000_001), generate(kind, 7_000_001)
        many = generate_many(3, 7, [kind])[1]
        for other in (again, many):
            assert (other.id, other.ego) == (alone.id, alone.ego)
            for part in ("tracks", "map", "lights", "routes"):
                for name, array in vars(getattr(alone, part)).items():
                    assert array.tobytes() == getattr(getattr(other, part), name).tobytes(), (
                        part,
                        name,
                    )


def test_scenarios_differ_by_seed_and_kinds_rotate() -> None:
    some, others = generate_many(4, 3, ["curve", "merge"]), generate_many(2, 4, ["curve", "merge"])
    assert [s.kind for s in some] == ["curve", "merge"] * 2
    assert len({s.id for s in some + others}) == 6
    first, second = some[0], some[2]
    assert first.map.points.tobytes() != second.map.points.tobytes()


def test_bad_requests_are_refused_by_name() -> None:
    with pytest.raises(ScenarioError, match=r"expected one of straight, .*, got motorway"):
        generate("motorway", 0)
    with pytest.raises(ScenarioError, match="seed of at least 0, got -1"):
        generate("curve", -1)
    with pytest.raises(ScenarioError, match="at least one kind"):
        generate_many(1, 0, [])


@pytest.mark.parametrize("kind", KINDS)
def test_scenarios_are_valid_and_free(kind: str, scenarios: dict[str, list[Scenario]]) -> None:
    for scenario in scenarios[kind]:
        scenario.validate()
        assert (scenario.kind, scenario.license) == (kind, "synthetic-cc0")
        assert (scenario.start_frame, scenario.tracks.num_frames) == (10, 91)
        assert 8 <= scenario.tracks.num_agents <= 40
        assert scenario.tracks.type[scenario.ego] == AgentType.VEHICLE
        assert scenario.tracks.valid[scenario.ego].all()


@pytest.mark.parametrize("kind", KINDS)
def test_lanes_join_end_to_start(kind: str) -> None:
    for road in packed_maps(kind):
        for lane in lanes_of(road):
            line = road.polyline(lane)
            steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
            assert steps.min() > 1e-3
            assert steps.max() < 10.01
            for successor in road.successors_of(lane):
                after = road.polyline(successor)
                assert np.linalg.norm(line[-1] - after[0]) < 1e-3
                turn = wrap_angle(direction(after[:2]) - direction(line[-2:]))
                assert abs(turn) < np.radians(5)
            for neighbor, back in (
                (road.left_neighbor[lane], road.right_neighbor),
                (road.right_neighbor[lane], road.left_neighbor),
            ):
                if neighbor >= 0:
                    assert back[neighbor] == lane
                    same = wrap_angle(direction(line[:2]) - direction(road.polyline(neighbor)[:2]))
                    assert abs(same) < np.radians(5)


@pytest.mark.parametrize("kind", KINDS)
def test_edges_keep_their_distance_and_have_lanes_on_the_left(kind: str) -> None:
    for road in packed_maps(kind):
        edges = [
            road.polyline(int(e))[:, :2] for e in np.flatnonzero(road.type == MapType.ROAD_EDGE)
        ]
        start = np.concatenate([e[:-1] for e in edges]).astype(float)
        step = np.concatenate([np.diff(e, axis=0) for e in edges]).astype(float)
        lines = shapely.multilinestrings([shapely.linestrings(e) for e in edges])
        assert all(not shapely.crosses(*pair) for pair in combinations(shapely.get_parts(lines), 2))
        assert shapely.is_simple(shapely.get_parts(lines)).all()
        for lane in lanes_of(road):
            centers = shapely.segmentize(shapely.linestrings(road.polyline(lane)[:, :2]), 3.0)
            points = shapely.get_coordinates(centers)
            assert shapely.distance(lines, shapely.points(points)).min() > HARD_EDGE
            offset = points[:, None] - start[None]
            along = np.clip((offset * step).sum(-1) / (step**2).sum(-1), 0, 1)
            gap = np.linalg.norm(offset - along[..., None] * step, axis=-1)
            nearest = gap.argmin(1)
            rows = np.arange(len(points))
            inside = (along[rows, nearest] > 1e-6) & (along[rows, nearest] < 1 - 1e-6)
            o, d = offset[rows, nearest], step[nearest]
            assert (d[:, 0] * o[:, 1] - d[:, 1] * o[:, 0] > 0)[inside].all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_car_on_any_lane_stays_between_the_edges(kind: str) -> None:
    ahead, left = np.array([2.6, 0.0]), np.array([0.0, 1.05])
    for road in packed_maps(kind)[:6]:
        edges = [
            road.polyline(int(e))[:, :2] for e in np.flatnonzero(road.type == MapType.ROAD_EDGE)
        ]
        lines = shapely.multilinestrings([shapely.linestrings(e) for e in edges])
        shapely.prepare(lines)
        for lane in lanes_of(road):
            points = road.polyline(lane)[:, :2].astype(float)
            yaw = np.arctan2(*np.diff(points, axis=0).T[::-1])
            c, s = np.cos(yaw), np.sin(yaw)
            rotation = np.stack([np.stack([c, s], -1), np.stack([-s, c], -1)], 1)
            corners = np.stack([ahead + left, left - ahead, -ahead - left, ahead - left]) @ rotation
            middles = 0.5 * (points[1:] + points[:-1])
            cars = shapely.polygons(middles[:, None] + corners)
            assert not shapely.intersects(lines, cars).any(), lane


def test_greens_do_not_conflict() -> None:
    """Lanes across the junction that may be driven at once do not cross, wherever they start."""
    for seed in LAYOUT_SEEDS:
        layout = lay_out("signal", random_source("signal", seed, 0))
        lanes, signals = layout.network.lanes, layout.signals
        states = signals.states(1500, 0.1)
        assert (states == LightState.GREEN).any(1).all()
        assert (states == LightState.RED).any(1).all()
        onward = {
            k: [shapely.linestrings(lanes[i].points) for i in lanes[lane].successors]
            for k, lane in enumerate(signals.lanes)
        }
        moving = (states == LightState.GREEN) | (states == LightState.YELLOW)
        for a, b in combinations(onward, 2):
            if (moving[a] & moving[b]).any():
                for one in onward[a]:
                    for other in onward[b]:
                        assert shapely.distance(one, other) > 1.0, (seed, a, b)


def test_yellow_follows_green_and_red_follows_yellow() -> None:
    states = lay_out("signal", random_source("signal", 1, 0)).signals.states(2000, 0.1)
    for row in states:
        change = np.flatnonzero(np.diff(row))
        after = {LightState.GREEN: LightState.YELLOW, LightState.YELLOW: LightState.RED}
        after[LightState.RED] = LightState.GREEN
        assert all(row[i + 1] == after[LightState(row[i])] for i in change)
        yellow = [i for i in change if row[i] == LightState.YELLOW and i > 40]
        assert all((row[i - 28 : i + 1] == LightState.YELLOW).all() for i in yellow)


@pytest.mark.parametrize("kind", KINDS)
def test_no_boxes_overlap_in_the_record(kind: str, scenarios: dict[str, list[Scenario]]) -> None:
    for scenario in scenarios[kind]:
        t = scenario.tracks
        reach = 0.5 * np.hypot(t.size[:, 0], t.size[:, 1])
        for a, b in combinations(range(t.num_agents), 2):
            gap = np.linalg.norm(t.xyz[a] - t.xyz[b], axis=-1)
            frames = np.flatnonzero((gap < reach[a] + reach[b]) & t.valid[a] & t.valid[b])
            if len(frames):
                assert not shapely.intersects(
                    boxes(scenario, a, frames), boxes(scenario, b, frames)
                ).any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_logged_ego_stays_on_the_road(kind: str, scenarios: dict[str, list[Scenario]]) -> None:
    for scenario in scenarios[kind]:
        road = scenario.map
        edges = [
            road.polyline(int(e))[:, :2] for e in np.flatnonzero(road.type == MapType.ROAD_EDGE)
        ]
        lines = shapely.multilinestrings([shapely.linestrings(e) for e in edges])
        assert not shapely.intersects(lines, boxes(scenario, scenario.ego, np.arange(91))).any()


@pytest.mark.parametrize("kind", KINDS)
def test_flags_agree_with_those_of_the_readers(
    kind: str, scenarios: dict[str, list[Scenario]]
) -> None:
    for scenario in scenarios[kind][:2]:
        expected = compute_flags(
            scenario.tracks, scenario.map, scenario.start_frame, scenario.has_z
        )
        walks = scenario.tracks.type == AgentType.PEDESTRIAN
        assert (scenario.flags[~walks] == expected[~walks]).all()
        at_start = np.uint16(AgentFlag.STARTS_OFFROAD | AgentFlag.STARTS_IN_COLLISION)
        assert (scenario.flags[walks] & at_start == expected[walks] & at_start).all()


@pytest.mark.parametrize("kind", KINDS)
def test_routes_hold_the_record(kind: str, scenarios: dict[str, list[Scenario]]) -> None:
    for scenario in scenarios[kind]:
        r, t = scenario.routes, scenario.tracks
        for agent in range(t.num_agents):
            points = r.points[r.offsets[agent] : r.offsets[agent + 1], :2].astype(float)
            if len(points) == 0:
                continue
            length = ROUTE_SPACING * (len(points) - 1)
            assert length > r.log_length[agent] + 10.0
            assert np.linalg.norm(points[0] - t.xyz[agent, 0, :2]) < 0.01
            steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
            assert np.abs(steps - ROUTE_SPACING).max() < 0.05
            line = shapely.linestrings(points)
            driven = shapely.points(t.xyz[agent, t.valid[agent], :2].astype(float))
            assert shapely.distance(line, driven).max() < 0.6
            s_last = shapely.line_locate_point(line, driven[-1])
            assert abs(s_last - r.log_length[agent]) < 1.5
            limit = r.speed_limit[r.offsets[agent] : r.offsets[agent + 1]]
            assert limit.min() > 0.2
            assert limit.max() < 26.0


def test_stops_lie_at_the_ends_of_their_lanes(scenarios: dict[str, list[Scenario]]) -> None:
    for scenario in scenarios["signal"]:
        r = scenario.routes
        for agent in range(scenario.tracks.num_agents):
            points = r.points[r.offsets[agent] : r.offsets[agent + 1], :2].astype(float)
            for m in range(r.stop_offsets[agent], r.stop_offsets[agent + 1]):
                line = shapely.linestrings(points)
                at = shapely.get_coordinates(
                    shapely.line_interpolate_point(line, float(r.stop_s[m]))
                )
                assert np.linalg.norm(at - scenario.lights.xy[r.stop_light[m]]) < 0.1


def test_egos_have_something_to_do(scenarios: dict[str, list[Scenario]]) -> None:
    some = [scenario for group in scenarios.values() for scenario in group]
    turned, slowed, travel = [], [], []
    for scenario in some:
        t, e = scenario.tracks, scenario.ego
        yaw = np.unwrap(t.yaw[e, scenario.start_frame :])
        turned.append(yaw[-1] - yaw[0])
        speed = np.linalg.norm(t.velocity[e, scenario.start_frame :], axis=-1)
        slowed.append(np.diff(speed).min() / scenario.dt < -1.0)
        travel.append(speed.sum() * scenario.dt)
    assert np.mean(np.array(turned) > 0.6) > 0.05
    assert np.mean(np.array(turned) < -0.6) > 0.05
    assert np.mean(slowed) > 0.3
    assert np.mean(np.array(travel) > 10.0) > 0.9
