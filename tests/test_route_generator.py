"""AlpaSim's routes: against its own numbers, in closed form, and from our scenarios."""

from __future__ import annotations

import numpy as np
import pytest

import scenario_factory as factory
from alpagym.interop.alpasim.lanes import Lanes
from alpagym.interop.alpasim.route import (
    NUM_WAYPOINTS,
    SPACING,
    RouteGenerator,
    prepare_for_policy,
    scenario_route,
)
from alpagym.scenarios.goals import goal_points
from alpagym.scenarios.load import load_scenarios


def straight_path(length: float, y: float = 0.0) -> np.ndarray:
    x = np.arange(0.0, length + 1e-9, 0.5)
    return np.stack([x, np.full_like(x, y), np.zeros_like(x)], -1)


def ahead(path: np.ndarray, x: float, y: float = 0.0, yaw: float = 0.0, **options) -> np.ndarray:
    return RouteGenerator(path, **options).generate(np.array([x, y, 0.0]), yaw)


def test_twenty_waypoints_from_the_projection_on():
    route = ahead(straight_path(200.0), 10.0, y=3.0)
    assert route.shape == (NUM_WAYPOINTS, 3)
    np.testing.assert_allclose(route[:, 0], np.arange(20) * SPACING, atol=1e-4)
    np.testing.assert_allclose(route[:, 1:], [[-3.0, 0.0]] * 20, atol=1e-6)


def test_waypoints_are_in_the_rig_frame():
    route = ahead(straight_path(200.0), 10.0, yaw=np.pi / 2)
    np.testing.assert_allclose(route[:, 1], -np.arange(20) * SPACING, atol=1e-4)
    np.testing.assert_allclose(route[:, 0], 0.0, atol=1e-5)


def test_a_recorded_route_ends_with_the_record():
    assert len(ahead(straight_path(30.0), 10.0)) == 1 + int(20.0 / SPACING)
    assert len(ahead(straight_path(30.0), 31.0)) == 0
    assert np.isnan(prepare_for_policy(ahead(straight_path(30.0), 31.0))).all()


def test_the_start_offset_drops_near_waypoints():
    whole = ahead(straight_path(200.0), 10.0)
    np.testing.assert_array_equal(ahead(straight_path(200.0), 10.0, start_offset=10.0), whole[3:])
    assert len(ahead(straight_path(12.0), 10.0, start_offset=40.0)) == 0


def test_drivers_get_twenty_rows_cut_at_the_first_irregular_step():
    x = np.array([0.0, 4.0, 8.0, 13.0, 17.0])
    prepared = prepare_for_policy(np.stack([x, 0 * x, 0 * x], -1))
    assert prepared.shape == (NUM_WAYPOINTS, 3)
    np.testing.assert_array_equal(prepared[:3, 0], [0.0, 4.0, 8.0])
    assert np.isnan(prepared[3:]).all()


def test_standing_still_leaves_one_waypoint():
    path = np.full((50, 3), 7.0) + np.linspace(0, 0.1, 50)[:, None]
    route = RouteGenerator(path).generate(path[0], 0.0)
    np.testing.assert_allclose(route, np.zeros((1, 3)), atol=1e-6)


LANES = Lanes(
    [
        factory.line((0.0, 0.0), (50.0, 0.0)),
        factory.arc((50.0, 40.0), 40.0, -np.pi / 2, 0.0),
        np.stack([np.arange(50.0, 120.0), np.zeros(70), np.zeros(70)], -1),
    ],
    [[1, 2], [], []],
)


def dense(lanes: Lanes) -> Lanes:
    """With a vertex a meter, as maps have them."""
    return Lanes([factory.along(c, np.arange(0.0, 51.0)) for c in lanes.centers], lanes.successors)


def test_a_map_route_goes_on_along_the_successor_of_the_nearest_heading():
    path = straight_path(20.0, y=0.8)
    generator = RouteGenerator(path, lanes=dense(LANES))
    np.testing.assert_allclose(generator.path[:, 1], 0.0, atol=1e-6)
    first = generator.generate(np.array([10.0, 0.8, 0.0]), 0.0)
    assert len(first) == 20
    np.testing.assert_allclose(first[:, 1], -0.8, atol=1e-5)
    assert len(generator.generate(np.array([90.0, 0.0, 0.0]), 0.0)) == 1 + int(10.0 / SPACING)


def test_a_path_that_folds_back_is_refused():
    out = straight_path(20.0)
    with pytest.raises(ValueError, match=r"waypoint 40: expected a turn of at most 150 deg, got"):
        RouteGenerator(np.concatenate([out, out[::-1]]))


@pytest.mark.parametrize(
    ("waypoints", "options", "words"),
    [
        (np.zeros((1, 3)), {}, "waypoints: expected at least two points"),
        (np.zeros((4, 2)), {}, r"waypoints: expected .* got \[4, 2\]"),
        (np.full((3, 3), np.nan), {}, "waypoints: expected finite positions"),
        (straight_path(9.0), {"start_offset": -1.0}, "start_offset: expected at least 0 m, got -1"),
        (straight_path(9.0), {"start_offset": np.nan}, "start_offset: expected"),
        (straight_path(9.0, y=30.0), {"lanes": LANES}, "waypoint 0: expected a lane"),
    ],
)
def test_bad_input_is_refused(waypoints, options, words):
    with pytest.raises(ValueError, match=words):
        RouteGenerator(waypoints, **options)


def test_a_pose_that_is_not_finite_is_refused():
    generator = RouteGenerator(straight_path(20.0))
    with pytest.raises(ValueError, match="pose: expected finite x, y, z and yaw"):
        generator.generate(np.array([np.nan, 0.0, 0.0]), 0.0)
    with pytest.raises(ValueError, match="pose: expected finite x, y, z and yaw"):
        generator.generate(np.zeros(3), np.inf)


def test_scenarios_have_both_kinds_of_route():
    scenario = factory.curve()
    pose = scenario.tracks.xyz[scenario.ego, 0]
    yaw = float(scenario.tracks.yaw[scenario.ego, 0])
    on_map, recorded = (
        scenario_route(scenario, on_map=on_map).generate(pose, yaw) for on_map in (True, False)
    )
    assert len(on_map) == 20  # lanes go on where the record ends
    both = min(len(on_map), len(recorded))
    assert both >= 3
    # The rig is behind the box center, so the record's first waypoints lie behind it.
    assert np.abs(on_map[:both] - recorded[:both]).max() < 2.0


def test_a_scenario_without_lanes_has_no_map_route():
    scenario = factory.assemble(
        "bare", factory.edges_of(factory.STRAIGHT, 5.0), [factory.Actor(factory.STRAIGHT, 0.0, 5.0)]
    )
    with pytest.raises(ValueError, match="map: expected at least one lane"):
        scenario_route(scenario)


def test_goals_lie_on_the_route_and_end_where_the_record_does():
    scenario = factory.curve()
    goal, points = goal_points(scenario, spacing=5.0)
    last = scenario.tracks.xyz[scenario.ego, -1]
    np.testing.assert_allclose(goal[:2], last[:2], atol=0.05)
    np.testing.assert_array_equal(points[-1], goal)
    steps = np.linalg.norm(np.diff(points[:, :2], axis=0), axis=1)
    np.testing.assert_allclose(steps[:-1], 5.0, atol=0.02)  # chords of a 40 m radius
    assert steps[-1] <= 5.0 + 1e-6
    with pytest.raises(ValueError, match="spacing: expected a positive distance"):
        goal_points(scenario, spacing=0.0)


def test_recorded_scenarios_have_routes(shared_data):
    files = sorted((shared_data / "womd_gpudrive_json" / "current").glob("*.json"))[:4]
    found = [s for file in files for s in load_scenarios(file)[0]]
    assert found
    for scenario in found:
        generator = scenario_route(scenario)
        middle = generator.path[len(generator.path) // 2]
        prepared = prepare_for_policy(generator.generate(middle, 0.0))
        assert np.isfinite(prepared[:10]).all(), scenario.id
        assert np.linalg.norm(prepared[0]) < 1e-3
