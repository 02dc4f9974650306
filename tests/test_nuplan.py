"""NuPlan's closed-loop score: the golden set, an independent check, closed forms, bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import scenario_factory as factory
from alpagym.metrics import comfort
from alpagym.metrics.drive import Drive
from alpagym.metrics.geometry import corners
from alpagym.metrics.nuplan import SCORES, by_type, closed_loop, final_score, score, totals
from alpagym.metrics.nuplan.progress import progress
from alpagym.metrics.nuplan.road import (
    driving_direction_score,
    overspeed,
    progress_along_lanes,
    speed_limit_score,
)
from alpagym.metrics.nuplan.route import route_along
from alpagym.metrics.nuplan.state import Ego, TrackKind, Tracks
from alpagym.metrics.polygon_map import PolygonMap
from alpagym.metrics.polygons import Polygons, angle_off, convex_intersect
from alpagym.metrics.road_edges import RoadEdgeSegments
from alpagym.metrics.scenario_map import polygon_map_of
from alpagym.scenarios.polyline import project
from alpagym.scenarios.scenario import AgentType

DT = 0.1


# A straight road of two lanes, 100 m each, then one connector and one lane.


def straight_map(limits=(10.0, 10.0, np.nan, 8.0), **fields) -> PolygonMap:
    def lane(x0, x1, y):
        return np.array([[x0, y - 2], [x1, y - 2], [x1, y + 2], [x0, y + 2]], float)

    rings = [lane(0, 100, 0), lane(0, 100, 4), lane(100, 120, 0), lane(120, 300, 0)]
    lines = [[[0, 0], [100, 0]], [[0, 4], [100, 4]], [[100, 0], [120, 0]], [[120, 0], [300, 0]]]
    both = np.array([[0, -2], [100, -2], [100, 6], [0, 6]], float)
    made = PolygonMap(
        ids=["right", "left", "connector", "after"],
        is_connector=np.array([False, False, True, False]),
        polygons=Polygons.of(rings),
        baselines=[np.array(line, float) for line in lines],
        outgoing=[np.array([2]), np.array([], int), np.array([3]), np.array([], int)],
        roadblock=np.array([0, 0, 1, 2]),
        speed_limit=np.array(limits),
        roadblocks=Polygons.of([both, rings[2], rings[3]]),
        roadblock_is_connector=np.array([False, True, False]),
        drivable_areas=Polygons.of([np.array([[0, -3], [300, -3], [300, 7], [0, 7]], float)]),
    )
    return replace(made, **fields)


def ego_along(speed, samples=50, x=20.0, y=0.0, heading=0.0) -> Ego:
    ahead = speed * DT * np.arange(samples)
    pose = [x + ahead * np.cos(heading), y + ahead * np.sin(heading), np.full(samples, heading)]
    zero = np.zeros((samples, 2))
    velocity = np.stack([np.full(samples, speed), np.zeros(samples)], -1)
    return Ego(np.stack(pose, -1), velocity, zero, zero[:, 0], zero[:, 0])


def one_track(ego, pose, velocity=(0.0, 0.0), kind=TrackKind.VEHICLE) -> Tracks:
    t = len(ego.rear_axle)
    path = np.tile(np.array(pose, float), (t, 1, 1))
    path[:, 0, :2] += DT * np.arange(t)[:, None] * np.array(velocity)
    return Tracks(
        pose=path,
        velocity=np.tile(np.array(velocity, float), (t, 1, 1)),
        size=np.tile([4.6, 1.9], (t, 1, 1)),
        kind=np.full((t, 1), kind),
        valid=np.ones((t, 1), bool),
    )


def no_tracks(ego) -> Tracks:
    t = len(ego.rear_axle)
    return Tracks(
        np.zeros((t, 0, 3)),
        np.zeros((t, 0, 2)),
        np.zeros((t, 0, 2)),
        np.zeros((t, 0), int),
        np.zeros((t, 0), bool),
    )


def result(ego, tracks=None, lanes=None, expert=None):
    tracks = no_tracks(ego) if tracks is None else tracks
    expert = ego.center[:, :2] if expert is None else expert
    return closed_loop(ego, tracks, straight_map() if lanes is None else lanes, expert, DT)


def test_driving_as_the_expert_did_scores_one_everywhere() -> None:
    made = result(ego_along(8.0))
    assert made.scores == dict.fromkeys(SCORES, 1.0)
    assert made.final == 1.0
    assert np.isinf(made.ttc).all()


def test_a_collision_with_a_standing_car_is_at_fault_and_zeroes_the_score() -> None:
    ego = ego_along(8.0)
    made = result(ego, one_track(ego, (50.0, 0.0, 0.0)))
    # Front at 20 + 1.461 + 2.588 m, rear of the track at 47.7 m: 23.651 m at 0.8 m a sample.
    assert np.flatnonzero(made.collisions.at_fault[:, 0]).tolist() == [30]
    assert made.collisions.counts == {"vru": 0, "vehicle": 1, "object": 0}
    assert made.scores["no_ego_at_fault_collisions"] == 0.0
    assert made.final == 0.0


def test_one_cone_costs_half_and_time_to_collision_counts_down() -> None:
    ego = ego_along(8.0)
    made = result(ego, one_track(ego, (50.0, 0.0, 0.0), kind=TrackKind.TRAFFIC_CONE))
    assert made.scores["no_ego_at_fault_collisions"] == 0.5
    assert made.ttc[25:32] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1, 0.0, np.inf])
    assert made.scores["time_to_collision_within_bound"] == 0.0


def test_being_hit_from_behind_is_nobody_else_s_metric() -> None:
    ego = ego_along(2.0)
    made = result(ego, one_track(ego, (10.0, 0.0, 0.0), (8.0, 0.0)))
    assert (made.collisions.type >= 0).sum() == 1
    assert not made.collisions.at_fault.any()
    assert made.scores["no_ego_at_fault_collisions"] == 1.0


def test_leaving_the_drivable_area_by_more_than_the_tolerance() -> None:
    half = 2.297 / 2
    inside = result(ego_along(5.0, y=7.0 + 0.29 - half)).scores
    outside = result(ego_along(5.0, y=7.0 + 0.31 - half)).scores
    assert inside["drivable_area_compliance"] == 1.0
    assert outside["drivable_area_compliance"] == 0.0


def test_road_edges_stand_in_for_drivable_areas() -> None:
    edges = RoadEdgeSegments(
        np.array([[-9.0, -3.0], [400.0, 7.0]]), np.array([[400.0, -3.0], [-9.0, 7.0]])
    )
    for lanes in (straight_map(), straight_map(edges=edges)):
        points = np.array([[50.0, 0.0], [50.0, 7.5], [50.0, -4.0]])
        assert lanes.in_drivable_area(points).tolist() == [True, False, False]
        assert lanes.distance_to_drivable_area(points) == pytest.approx([0.0, 0.5, 1.0])


def test_a_map_without_drivable_area_leaves_that_score_out() -> None:
    made = result(ego_along(5.0), lanes=straight_map(drivable_areas=Polygons.of([])))
    assert np.isnan(made.scores["drivable_area_compliance"])
    assert made.final == 1.0


def test_a_drive_of_three_samples_leaves_comfort_out() -> None:
    made = result(ego_along(5.0, samples=3))
    assert np.isnan(made.scores["ego_is_comfortable"])
    assert not made.comfort


@pytest.mark.parametrize(("speed", "expected"), [(1.5, 1.0), (4.0, 0.5), (7.0, 0.0)])
def test_driving_against_the_lane(speed, expected) -> None:
    # Eleven differences of a tenth of the speed each.
    x = 90.0 - speed * DT * np.arange(50)
    points = np.stack([x, np.zeros(50)], -1)
    lanes = straight_map()
    progress_made = progress_along_lanes(lanes, points, route_along(lanes, points), DT)
    assert progress_made.min() == pytest.approx(-1.1 * speed)
    assert driving_direction_score(progress_made) == expected


def test_speed_limits_of_lanes_and_connectors() -> None:
    route = [[0], [2], [3], []]
    speed = np.full(4, 11.0)
    assert overspeed(straight_map(), speed, route) == pytest.approx([1.0, 1.0, 3.0, 0.0])
    unknown = straight_map(limits=(10.0, 10.0, np.nan, 0.0))
    assert overspeed(unknown, speed, route) == pytest.approx([1.0, 0.0, 0.0, 0.0])


def test_the_speed_limit_score_is_the_mean_overspeed() -> None:
    assert speed_limit_score(np.full(11, 2.23 / 2), DT) == pytest.approx(1 - 0.5 * 11 / 10)
    assert speed_limit_score(np.full(11, 9.0), DT) == 0.0
    assert speed_limit_score(np.full(1, 9.0), DT) == 1.0


def test_progress_goes_on_over_the_lanes_of_the_expert() -> None:
    x = np.linspace(10.0, 210.0, 101)
    expert = np.stack([x, np.full(101, 0.5)], -1)
    made = progress(straight_map(), expert[:51], expert)
    assert made.expert_total == pytest.approx(200.0)
    assert made.ego_total == pytest.approx(100.0)
    assert made.score == pytest.approx(0.5)
    # Samples 25 m apart step over the whole connector.
    skipping = np.stack([np.array([72.0, 97.0, 122.0, 147.0]), np.zeros(4)], -1)
    assert progress(straight_map(), skipping, expert).ego == pytest.approx([0.0, 25.0, 25.0, 25.0])


def test_standing_where_the_expert_drove_is_no_progress() -> None:
    made = result(ego_along(0.0), expert=np.stack([np.linspace(20, 90, 50), np.zeros(50)], -1))
    assert made.scores["ego_progress_along_expert_route"] == pytest.approx(2 / 70)
    assert made.scores["ego_is_making_progress"] == 0.0
    assert made.final == 0.0


def test_an_expert_off_all_lanes_asks_for_no_progress() -> None:
    made = progress(straight_map(), np.zeros((5, 2)), np.full((3, 2), -50.0))
    assert (made.score, made.ego_total, made.expert_total) == (1.0, 0.0, 0.0)


def test_missing_scores_are_left_out() -> None:
    scores = np.array([1.0, 1.0, 1.0, 0.5, 0.8, np.nan, 1.0, np.nan])
    assert final_score(scores) == pytest.approx(0.5 * (5 * 0.8 + 4) / 9)
    assert final_score(np.full(8, np.nan)) == 0.0


def test_types_weighted_by_their_numbers_give_the_total() -> None:
    scores = np.random.default_rng(3).uniform(size=(7, 8))
    kinds = by_type(list("aabbbba"), scores)
    mean = sum(kind.num_scenarios * kind.score for kind in kinds.values()) / 7
    assert totals(scores).score == pytest.approx(mean)
    assert totals(scores).means["ego_is_comfortable"] == pytest.approx(scores[:, 7].mean())


def test_savgol_gives_back_what_its_polynomials_can_be() -> None:
    t = 0.1 * np.arange(40)
    parabola = 3.0 - 2.0 * t + 0.5 * t**2
    assert comfort.savgol(parabola, 9, 2) == pytest.approx(parabola)
    assert comfort.savgol(parabola, 15, 2, 1, 0.1) == pytest.approx(t - 2.0)
    assert comfort.savgol(parabola, 5, 3, 2, 0.1) == pytest.approx(1.0)
    # An even window is read half a sample late, but not at the ends.
    late = t + 0.05 * ((np.arange(40) >= 4) & (np.arange(40) < 36))
    assert comfort.savgol(t, 8, 2) == pytest.approx(late)


def test_bounds_of_comfort_are_strict() -> None:
    series = {name: np.zeros(5) for name in comfort.BOUNDS}
    assert comfort.is_comfortable(series)
    series["lon_accel"] = np.array([0.0, 2.40])
    assert not comfort.is_comfortable(series)
    assert comfort.within_bounds(series)["yaw_rate"]


def test_touching_boxes_meet_and_points_on_a_boundary_are_outside() -> None:
    a = corners(np.array([0.0, 0.0, 0.0]), np.array([4.0, 2.0]))
    b = corners(np.array([4.0, 0.0, 0.0]), np.array([4.0, 2.0]))
    assert convex_intersect(a, b)
    assert not convex_intersect(a, b + np.array([1e-9, 0.0]))
    square = Polygons.of([a])
    assert square.contains(np.array([[2.0, 0.0], [2.0, 1.0], [1.9, 0.9]])).ravel().tolist() == [
        False,
        False,
        True,
    ]
    assert square.meets(b).tolist() == [True]
    assert square.distance(np.array([[5.0, 5.0]])) == pytest.approx(5.0)
    assert angle_off(np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.0])) <= np.pi


def test_projection_clamps_to_the_line() -> None:
    line = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])
    s, d = project(line, np.array([[-1.0, 0.0], [3.0, 2.0], [4.0, 9.0]]))
    assert s == pytest.approx([0.0, 5.0, 7.0])
    assert d == pytest.approx([1.0, 0.0, -np.hypot(1.0, 5.0)])


def drive_of_record(scenario, start=5) -> Drive:
    tracks = scenario.tracks
    pose = np.concatenate([tracks.xyz[..., :2], tracks.yaw[..., None]], -1).swapaxes(0, 1)
    return Drive(scenario, scenario.ego, 0, start, pose.astype(np.float64), tracks.valid.T)


def test_a_recorded_drive_of_ours_scores_one() -> None:
    ego = factory.Actor(factory.STRAIGHT, 20.0, 8.0)
    walker = factory.Actor(
        factory.STRAIGHT, 80.0, 0.0, type=AgentType.PEDESTRIAN, size=factory.WALKER
    )
    scenario = factory.straight(walker, ego=ego)
    made = score(drive_of_record(scenario))
    assert made.scores["no_ego_at_fault_collisions"] == 1.0
    assert made.scores["ego_progress_along_expert_route"] == 1.0
    assert made.scores["drivable_area_compliance"] == 1.0
    assert made.scores["ego_is_comfortable"] == 1.0
    assert made.progress.ego_total == pytest.approx(8.0 * DT * 35, abs=1e-3)


def test_a_drive_into_a_parked_car_is_found_in_ours() -> None:
    ego, parked = factory.Actor(factory.STRAIGHT, 20.0, 8.0), factory.Actor(factory.STRAIGHT, 45.0)
    made = score(drive_of_record(factory.straight(parked, ego=ego)))
    assert made.collisions.counts["vehicle"] == 1
    assert made.final == 0.0


def test_a_drive_counts_up_to_where_the_ego_vanishes() -> None:
    scenario = factory.straight(ego=factory.Actor(factory.STRAIGHT, 20.0, 8.0))
    drive = drive_of_record(scenario)
    valid = drive.valid.copy()
    valid[30:, drive.ego] = False
    made = score(replace(drive, valid=valid))
    assert len(made.ttc) == 25
    valid[5] = False
    with pytest.raises(ValueError, match="expected the ego at the start, row 5, got none there"):
        score(replace(drive, valid=valid))


def test_lanes_of_ours_get_widths_and_borders() -> None:
    scenario = factory.straight(ego=factory.Actor(factory.STRAIGHT, 20.0, 8.0))
    lanes = polygon_map_of(scenario)
    point = scenario.tracks.xyz[0, :1, :2].astype(float)
    assert lanes.lanes_at(point).any()
    assert not lanes.lanes_at(point + np.array([0.0, 50.0])).any()
    assert lanes.knows_drivable_area


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: final_score(np.zeros(7)), r"expected \[..., 8\], got \[7\]"),
        (lambda: totals(np.zeros((0, 8))), "expected one scenario or more, got none"),
        (lambda: Polygons.of([np.zeros((2, 2))]), "polygon 0: expected 3 corners or more, got"),
        (lambda: Polygons.of([np.full((4, 2), np.nan)]), "polygon 0: expected finite"),
        (lambda: comfort.savgol(np.zeros(4), 5, 2), "window 5, 4 samples"),
        (lambda: comfort.savgol(np.full(9, np.inf), 5, 2), "expected finite values"),
        (lambda: ego_along(5.0, samples=0), "expected one state or more, got none"),
        (lambda: ego_along(np.nan), "Ego.rear_axle: expected finite values"),
        (lambda: replace(ego_along(5.0), yaw_rate=np.zeros(3)), r"expected \[50\], got \[3\]"),
        (lambda: result(ego_along(5.0), expert=np.zeros((0, 2))), r"expert: expected \[F, 2\]"),
        (lambda: result(ego_along(5.0), expert=np.full((3, 2), np.nan)), "expert: expected finite"),
        (
            lambda: result(ego_along(5.0), no_tracks(ego_along(5.0, samples=4))),
            "tracks: expected 50 states as the ego has, got 4",
        ),
        (
            lambda: closed_loop(
                ego_along(5.0), no_tracks(ego_along(5.0)), straight_map(), np.zeros((1, 2)), 0.0
            ),
            "dt: expected a time above 0 s, got 0.0",
        ),
        (lambda: straight_map(limits=(1.0,)), "PolygonMap.speed_limit: expected 4 entries, got 1"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
