"""Routes of recorded agents: along the record, on along the lanes, with the right stops."""

from __future__ import annotations

import numpy as np
import pytest

from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.routes import NO_ROUTE, AgentRoute, pack_routes, route_along
from alpagym.scenarios.scenario import ROUTE_SPACING
from scenario_files import (
    FRAMES,
    SHARED,
    json_object,
    json_road,
    json_scenario,
    proto_scenario,
    write_json,
    write_tfrecord,
)


def route_of(s, agent):
    r = s.routes
    return r.points[r.offsets[agent] : r.offsets[agent + 1]]


def stops_of(s, agent):
    r = s.routes
    span = slice(r.stop_offsets[agent], r.stop_offsets[agent + 1])
    return list(zip(r.stop_s[span].tolist(), r.stop_light[span].tolist(), strict=True))


def load_json(tmp_path, **changes):
    return load_scenarios(write_json(tmp_path / "made.json", json_scenario(**changes)))[0][0]


def test_points_lie_every_spacing_from_the_first_position(tmp_path):
    s = load_json(tmp_path)
    points = route_of(s, 0)
    assert np.allclose(points[0], s.tracks.xyz[0, 0], atol=1e-3)
    assert np.allclose(
        np.linalg.norm(np.diff(points[:, :2], axis=0), axis=1), ROUTE_SPACING, atol=1e-3
    )
    assert s.routes.log_length[0] == pytest.approx(0.8 * (FRAMES - 1), abs=0.01)
    assert (len(points) - 1) * ROUTE_SPACING >= s.routes.log_length[0] + 100 - ROUTE_SPACING


def test_extension_takes_the_straightest_successor_and_returns_to_the_lane(tmp_path):
    offset = json_object(-15, 8.0)
    for point in offset["position"]:
        point["y"] += 1.0
    s = load_json(tmp_path, objects=[offset])
    y = route_of(s, 0)[:, 1] + s.origin[1] + 3000
    assert y.max() == pytest.approx(1.0, abs=0.01)
    assert np.abs(y[-20:]).max() < 0.01
    assert (np.diff(y[8:]) <= 1e-5).all()


def test_extension_is_straight_without_a_lane_and_on_foot(tmp_path):
    bend = [json_road("lane", [(-20, 0), (20, 0), (35, 15), (35, 300)], 1)]
    objects = [json_object(0, 2.0), json_object(0, 2.0, type="pedestrian")]
    s = load_json(tmp_path, roads=bend, objects=objects)
    assert route_of(s, 0)[-1, 1] > 50
    assert np.abs(route_of(s, 1)[:, 1] - s.tracks.xyz[1, 0, 1]).max() < 1e-3
    s = load_json(tmp_path, roads=[], objects=objects)
    assert np.abs(route_of(s, 0)[:, 1] - s.tracks.xyz[0, 0, 1]).max() < 1e-3


def test_parked_agents_have_no_route(tmp_path):
    jitter = json_object(10, 0.0)
    for i, point in enumerate(jitter["position"]):
        point["x"] += 0.1 * (-1) ** i
    s = load_json(tmp_path, objects=[json_object(-10, 3.0), jitter])
    assert len(route_of(s, 1)) == 0
    assert s.routes.log_length[1] == 0


def test_jitter_and_holes_do_not_bend_the_route(tmp_path):
    rng = np.random.default_rng(1)
    slow = json_object(0, 0.0, valid=[i % 7 != 5 for i in range(FRAMES)])
    for i, point in enumerate(slow["position"]):
        point["x"] += 0.2 * max(i - 15, 0) + rng.normal(0, 0.03)
        point["y"] += rng.normal(0, 0.03)
    s = load_json(tmp_path, objects=[slow])
    step = np.diff(route_of(s, 0)[:, :2], axis=0)
    assert np.abs(np.arctan2(step[:, 1], step[:, 0])).max() < 0.12


def test_light_stops_only_those_who_follow_its_lane(tmp_path):
    s = load_json(tmp_path)
    assert stops_of(s, 0) == [(pytest.approx(30.1, abs=0.05), 0)]
    assert stops_of(s, 1) == [(pytest.approx(15.1, abs=0.05), 0)]
    record = json_scenario()
    record["tl_states"] = {"3": record["tl_states"]["2"]}  # the lane that turns off
    s = load_scenarios(write_json(tmp_path / "b.json", record))[0][0]
    assert stops_of(s, 0) == []
    s = load_json(tmp_path, objects=[json_object(40, 8.0)])  # begins beyond the stop
    assert stops_of(s, 0) == []


def test_stop_sign_with_and_without_lanes(tmp_path):
    proto = proto_scenario()
    del proto.dynamic_map_states[:]
    (s,), _ = load_scenarios(write_tfrecord(tmp_path / "a", proto))
    assert stops_of(s, 1) == [(pytest.approx(30, abs=0.05), -1)]
    signs = [json_road("stop_sign", [(30, -3)], 8), json_road("stop_sign", [(-20, 9)], 9)]
    s = load_json(tmp_path, roads=json_scenario()["roads"] + signs, tl_states={})
    assert stops_of(s, 0) == [(pytest.approx(30.1, abs=0.05), -1)]


def test_light_and_sign_at_one_place_are_one_stop(tmp_path):
    (s,), _ = load_scenarios(write_tfrecord(tmp_path / "a", proto_scenario()))
    assert [light for _, light in stops_of(s, 1)] == [0]


def test_route_along_carries_limits():
    line = np.array([[0.0, 0], [5, 0], [5, 6]])
    points, limits = route_along(line, np.array([10.0, 20.0, 30.0]))
    assert points.shape == (6, 3)
    assert np.allclose(points[:, :2], [[0, 0], [2, 0], [4, 0], [5, 1], [5, 3], [5, 5]])
    assert list(limits) == [10, 10, 10, 20, 20, 20]
    assert np.isnan(route_along(line)[1]).all()


def test_pack_routes_keeps_agents_apart():
    points, limits = route_along(np.array([[0.0, 0], [10, 0]]), 5.0)
    packed = pack_routes(
        [NO_ROUTE, AgentRoute(points, limits, 4.0, [(2.0, -1), (6.0, 3)]), NO_ROUTE]
    )
    assert packed.offsets.tolist() == [0, 0, 6, 6]
    assert packed.stop_offsets.tolist() == [0, 0, 2, 2]
    assert packed.stop_light.tolist() == [-1, 3]
    assert packed.log_length.tolist() == [0, 4, 0]


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="the recorded data are not beside the repository")
def test_recorded_positions_lie_on_their_routes():
    from alpagym.scenarios.polyline import project

    (s,), _ = load_scenarios(SHARED / "womd_tfrecord" / "motion_data_one_scenario.tfrecord")
    off = []
    for a in range(s.tracks.num_agents):
        points = route_of(s, a).astype(float)
        if len(points):
            _, d = project(points, s.tracks.xyz[a, s.tracks.valid[a]].astype(float))
            off.append(np.abs(d).max() if s.tracks.type[a] == 1 else 0.0)
            step = np.diff(points[:, :2], axis=0)
            turn = np.abs(np.diff(np.unwrap(np.arctan2(step[:, 1], step[:, 0]))))
            vehicle = s.tracks.type[a] == 1
            assert not vehicle or turn.max() < 1.0, a  # at most 29 degrees a meter
    assert len(off) == 51
    assert np.median(off) < 0.15
    assert max(off) < 0.3
