"""NAVSIM's PDM scores: golden numbers of NAVSIM itself, shapely, closed forms and bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alpagym.metrics.navsim import (
    Car,
    Scene,
    State,
    Traffic,
    epdms,
    extended_comfort,
    pdms,
    resampled_past,
    score,
    score_proposals,
    score_proposals_v1,
    second_stage_weights,
    simulate_proposals,
    two_stage_score,
    without_human_penalties,
)
from alpagym.metrics.navsim.direction import driving_direction_compliance
from alpagym.metrics.navsim.lane_keeping import lane_keeping
from alpagym.metrics.navsim.progress import relative_progress, relative_progress_v1
from alpagym.metrics.polygon_map import PolygonMap
from alpagym.metrics.polygons import Polygons
from alpagym.metrics.scenario_map import polygon_map_of
from alpagym.scenarios.scenario import LightState
from parity.navsim import recorded_drive
from replaying import make_scenario

STEPS = 41


def states_along(speed: float, x: float = 0.0, y: float = 0.0, steps: int = STEPS) -> np.ndarray:
    """Straight east at constant speed, the box center at x, y first, [1, steps, 11]."""
    states = np.zeros((1, steps, len(State)))
    states[0, :, State.X] = x - Car().center + speed * 0.1 * np.arange(steps)
    states[0, :, State.Y] = y
    states[0, :, State.VELOCITY_X] = speed
    return states


def others(*agents: tuple[float, float, float, bool], steps: int = STEPS + 9) -> Traffic:
    """Cars [4.6 x 1.9] that head east, each from x, y at a speed; or objects where False."""
    pose = np.zeros((steps, len(agents), 3))
    for i, (x, y, speed, _) in enumerate(agents):
        pose[:, i, 0] = x + 0.1 * speed * np.arange(steps)
        pose[:, i, 1] = y
    return Traffic(
        pose,
        size=np.tile([4.6, 1.9], (len(agents), 1)),
        present=np.ones(pose.shape[:2], bool),
        speed=np.array([abs(agent[2]) for agent in agents]),
        is_agent=np.array([agent[3] for agent in agents], bool),
    )


def road(traffic: Traffic | None = None, **fields) -> Scene:
    """A lane east, 100 m before and 200 m after the origin, and one west to its left."""
    rings = [
        np.array([[-100, -2], [200, -2], [200, 2], [-100, 2]]),
        np.array([[-100, 2], [200, 2], [200, 6], [-100, 6]]),
    ]
    lines = [np.array([[-100.0, 0], [200, 0]]), np.array([[200.0, 4], [-100, 4]])]
    polygon_map = PolygonMap(
        ids=["east", "west"],
        is_connector=np.zeros(2, bool),
        polygons=Polygons.of(rings),
        baselines=lines,
        outgoing=[np.zeros(0, int)] * 2,
        roadblock=np.arange(2),
        speed_limit=np.full(2, np.nan),
        roadblocks=Polygons.of(rings),
        roadblock_is_connector=np.zeros(2, bool),
    )
    scene = Scene(
        polygon_map,
        on_route=np.array([True, False]),
        centerline=lines[0],
        traffic=others() if traffic is None else traffic,
        red=np.zeros((STEPS, 2), bool),
    )
    return replace(scene, **fields)


def test_a_drive_along_the_lane_is_perfect() -> None:
    result = score_proposals(states_along(10.0), road())
    assert all((value == 1).all() for value in result.terms.values())
    assert result.score == pytest.approx(1.0)
    assert result.progress == pytest.approx(40.0)
    assert score_proposals_v1(states_along(10.0), road()).score == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("agent", "speed", "expected"),
    [
        ((15.0, 0.0, 0.0, True), 10.0, 0.0),  # into a standing car
        ((15.0, 0.0, 0.0, False), 10.0, 0.5),  # into a standing object
        ((15.0, 0.0, 2.0, True), 10.0, 0.0),  # into a slower car, front first
        ((-15.0, 0.0, 14.0, True), 8.0, 1.0),  # hit from behind
        ((15.0, 0.0, -5.0, True), 0.0, 1.0),  # hit while standing
        ((15.0, 5.0, 0.0, True), 10.0, 1.0),  # past a car in the other lane
    ],
)
def test_collisions(agent, speed: float, expected: float) -> None:
    result = score_proposals(states_along(speed), road(others(agent)))
    assert result.terms["NC"] == expected
    assert np.isfinite(result.collision_step[0]) == (expected < 1)


def test_a_hit_from_the_side_counts_between_lanes_only() -> None:
    beside = (-0.5, 2.0, 10.0, True)
    inside = score_proposals(states_along(10.0), road(others(beside)))
    between = score_proposals(states_along(10.0, y=1.5), road(others(beside)))
    assert inside.terms["NC"] == 1
    assert between.terms["NC"] == 0
    assert between.areas.multiple_lanes.all()


def test_a_dismissed_agent_stays_dismissed() -> None:
    states = states_along(10.0)
    states[0, :10, State.VELOCITY_X] = 0.0  # touched while it says it stands
    touching = road(others((4.5, 0.0, 10.0, True)))
    assert score_proposals(states, touching).terms["NC"] == 1
    assert score_proposals(states_along(10.0), touching).terms["NC"] == 0


def test_time_to_collision() -> None:
    # From a gap of 5 m, 6 m/s faster than the car ahead: 5.4 m closer after 0.9 s.
    gap = 5.0
    lead = others((Car().length / 2 + gap + 4.6 / 2, 0.0, 4.0, True))
    close = score_proposals(states_along(10.0), road(lead))
    assert close.terms["TTC"] == 0
    assert close.ttc_step == 0
    assert close.collision_step == 9
    assert score_proposals(states_along(9.0), road(lead)).ttc_step == 2
    assert score_proposals(states_along(4.0), road(lead)).terms["TTC"] == 1
    assert score_proposals(states_along(0.0), road(others((3.0, 0, 0, True)))).terms["TTC"] == 1


def test_leaving_the_road() -> None:
    result = score_proposals(states_along(10.0, y=-1.0), road())
    assert result.terms["DAC"] == 0
    assert result.score == 0
    assert result.terms["LK"] == 0


def test_red_lights_close_lanes() -> None:
    red = np.zeros((STEPS, 2), bool)
    red[30:, 0] = True
    assert score_proposals(states_along(5.0), road(red=red)).terms["TLC"] == 0
    red[:, 0], red[:, 1] = False, True
    assert score_proposals(states_along(5.0), road(red=red)).terms["TLC"] == 1


def test_the_past_counts_for_comfort() -> None:
    rough = states_along(10.0, steps=14)[0]
    rough[::2, State.ACCELERATION_X] = -12.0
    assert score_proposals(states_along(10.0), road(past=rough)).terms["HC"] == 0
    smooth = states_along(10.0, steps=14)[0]
    assert score_proposals(states_along(10.0), road(past=smooth)).terms["HC"] == 1


@pytest.mark.parametrize(("speed", "expected"), [(1.8, 1.0), (1.9, 0.5), (5.4, 0.5), (5.5, 0.0)])
def test_driving_direction_sums_eleven_steps(speed: float, expected: float) -> None:
    centers = np.zeros((1, 20, 2))
    centers[0, :, 0] = 0.1 * speed * np.arange(20)
    assert driving_direction_compliance(centers, np.ones((1, 20), bool)) == expected
    assert driving_direction_compliance(centers, np.zeros((1, 20), bool)) == 1


def test_lane_keeping_bridges_intersections() -> None:
    line = np.array([[0.0, 0], [100, 0]])

    def kept(*runs: tuple[int, float, bool]) -> float:
        counts = [run[0] for run in runs]
        y = np.repeat([run[1] for run in runs], counts)
        inside = np.repeat([run[2] for run in runs], counts)
        centers = np.stack([np.full(len(y), 50.0), y], -1)
        return float(lane_keeping(centers[None], inside[None], line)[0])

    assert kept((19, 0.6, False), (1, 0.4, False), (19, 0.6, False)) == 1
    assert kept((20, 0.6, False), (1, 0.4, False)) == 0
    assert kept((10, 0.6, False), (5, 9.0, True), (10, 0.6, False)) == 0
    assert kept((40, 0.6, True)) == 1
    assert kept((40, 0.5, False)) == 1


def test_progress_is_compared_with_the_best() -> None:
    raw, product = np.array([20.0, 10.0, 30.0]), np.array([1.0, 0.5, 0.0])
    np.testing.assert_allclose(relative_progress(raw, product), [1.0, 0.5, 1.0])
    np.testing.assert_allclose(relative_progress_v1(raw, product), [1.0, 0.25, 0.0])
    short = np.array([4.0, 1.0, 3.0])
    np.testing.assert_allclose(relative_progress(short, product), [1.0, 1.0, 1.0])
    np.testing.assert_allclose(relative_progress_v1(short, product), [1.0, 1.0, 0.0])


def test_extended_comfort_compares_the_overlap() -> None:
    states = states_along(10.0, steps=46)[0]
    states[:, State.ACCELERATION_X] = np.sin(0.1 * np.arange(46))
    same, rms = extended_comfort(states[:41], states[5:])
    assert same == 1
    np.testing.assert_allclose(rms, 0.0, atol=1e-12)
    harder = states[5:].copy()
    harder[:, State.ACCELERATION_X] += 5.0
    assert extended_comfort(states[:41], harder)[0] == 0


def test_aggregates() -> None:
    ones = dict.fromkeys(("NC", "DAC", "TLC", "DDC", "EP", "TTC", "LK", "HC", "EC", "C"), 1.0)
    assert epdms({**ones, "EC": 0.0}) == pytest.approx(14 / 16)
    assert epdms({**ones, "EP": 0.0, "DDC": 0.5}) == pytest.approx(0.5 * 11 / 16)
    assert pdms({**ones, "C": 0.0, "NC": 0.5}) == pytest.approx(0.5 * 10 / 12)
    ones.pop("EC")
    assert epdms({**ones, "LK": 0.0}) == pytest.approx(12 / 14)
    filtered = without_human_penalties({"NC": 0.0, "LK": 0.0}, {"NC": 1.0, "LK": 0.0})
    assert filtered == {"NC": 0.0, "LK": 1.0}
    assert two_stage_score(0.5, np.array([1.0, 0.0]), np.array([0.25, 0.75])) == 0.125


def test_second_stage_weights() -> None:
    starts = np.array([[0.0, 0.0], [0.3, 0.0], [0.0, -0.3]])
    near = second_stage_weights(np.zeros(2), starts)
    assert near.sum() == pytest.approx(1.0)
    assert near[1] == pytest.approx(near[2])
    assert near[1] / near[0] == pytest.approx(np.exp(-0.09 / 0.2))
    np.testing.assert_allclose(second_stage_weights(np.full(2, 1e3), starts), 1 / 3)


def test_a_straight_drive_is_followed_exactly() -> None:
    poses = np.zeros((2, STEPS, 3))
    poses[:, :, 0] = np.array([[0.8], [0.0]]) * np.arange(STEPS)
    initial = np.zeros((2, len(State)))
    initial[0, State.VELOCITY_X] = 8.0
    driven = simulate_proposals(poses, initial)
    np.testing.assert_allclose(driven[..., :3], poses, atol=1e-9)
    np.testing.assert_allclose(driven[:, -1, State.VELOCITY_X], [8.0, 0.0], atol=1e-9)


def test_the_simulator_steers_back_to_the_path() -> None:
    poses = np.zeros((1, 81, 3))
    poses[0, :, 0] = np.arange(81)
    initial = np.zeros(len(State))
    initial[State.Y], initial[State.VELOCITY_X] = 1.0, 10.0
    driven = simulate_proposals(poses, initial)
    assert abs(driven[0, -1, State.Y]) < 0.1
    assert np.abs(driven[0, :, State.STEERING_ANGLE]).max() <= np.pi / 3


def test_the_past_lacks_its_last_two_samples() -> None:
    samples = np.zeros((4, len(State)))
    samples[:, State.X] = [0.0, 5.0, 10.0, 15.0]
    samples[:, State.HEADING] = [3.1, -3.1, -3.1, -3.1]
    past = resampled_past(samples)
    np.testing.assert_allclose(past[:, State.X], np.arange(14.0))
    assert abs(past[2, State.HEADING]) > 3.1  # the short way round


def test_bad_input_is_refused() -> None:
    broken = states_along(10.0)
    broken[0, 3, State.X] = np.nan
    for call, message in [
        (lambda: score_proposals(broken, road()), "NaN"),
        (lambda: score_proposals(broken[:, :, :10], road()), r"\[proposals, steps, 11\]"),
        (lambda: score_proposals(broken[:, :0], road()), r"\[proposals, steps, 11\]"),
        (lambda: score_proposals(states_along(10.0, steps=4), road()), "5 steps or more"),
        (lambda: score_proposals(states_along(1.0), road(on_route=np.ones(3, bool))), "on_route"),
        (lambda: score_proposals(states_along(1.0), road(red=np.zeros((5, 2), bool))), "red"),
        (lambda: score_proposals(states_along(1.0), road(others(steps=20))), "41 steps or more"),
        (lambda: score_proposals_v1(states_along(1.0), road(others(steps=45))), "50 steps"),
        (lambda: road(centerline=np.zeros((1, 2))), "centerline"),
        (lambda: road(past=np.zeros((3, 5))), "past"),
        (lambda: replace(others((0, 0, 0, True)), speed=np.zeros(3)), "speed"),
        (lambda: replace(others((0, 0, 0, True)), speed=np.array([np.nan])), "NaN"),
        (lambda: simulate_proposals(np.zeros((1, 3, 3)), np.zeros(11)), "steps >= 4"),
        (lambda: simulate_proposals(np.zeros((1, 9, 3)), np.zeros(9)), "initial state"),
        (lambda: simulate_proposals(np.full((1, 9, 3), np.nan), np.zeros(11)), "NaN"),
        (lambda: simulate_proposals(np.zeros((1, 9, 3)), np.zeros(11), dt=0.0), "dt"),
        (lambda: resampled_past(np.zeros((1, 11))), "2 or more"),
        (lambda: extended_comfort(np.zeros((41, 11)), np.zeros((40, 11))), "one shape"),
        (lambda: extended_comfort(np.zeros((41, 11)), np.zeros((41, 11)), 40), "delay"),
        (lambda: second_stage_weights(np.zeros(2), np.zeros((0, 2))), "none"),
        (lambda: second_stage_weights(np.zeros(3), np.zeros((4, 2))), "end point"),
        (lambda: second_stage_weights(np.full(2, np.nan), np.zeros((4, 2))), "NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_the_record_of_a_scenario_keeps_to_the_road() -> None:
    scenario = make_scenario(steps=60)
    result = score(recorded_drive(scenario))
    assert result.steps == STEPS
    assert result.terms == result.record
    assert [result.terms[name] for name in ("NC", "DAC", "DDC", "EP", "TTC", "LK")] == [1] * 6


def test_a_drive_into_traffic_is_worse_than_the_record() -> None:
    scenario = make_scenario(steps=60)
    drive = recorded_drive(scenario)
    faster = drive.pose.copy()
    after = slice(drive.start, None)
    ahead = faster[after, drive.ego, 0] - faster[drive.start, drive.ego, 0]
    faster[after, drive.ego, 0] += 0.8 * ahead
    result = score(replace(drive, pose=faster))
    assert result.terms["NC"] == 0
    assert result.epdms == result.pdms == 0
    assert result.record["NC"] == 1


def test_red_lights_of_a_scenario_close_connectors() -> None:
    scenario = make_scenario(steps=60)
    scenario.lights.state[:] = LightState.RED
    drive = recorded_drive(scenario)
    polygon_map = polygon_map_of(scenario)
    closed = replace(polygon_map, is_connector=np.ones_like(polygon_map.is_connector))
    open_lanes = replace(polygon_map, is_connector=np.zeros_like(polygon_map.is_connector))
    assert score(drive, closed).terms["TLC"] == 0
    assert score(drive, open_lanes).terms["TLC"] == 1


def test_drives_that_cannot_be_scored_are_refused() -> None:
    drive = recorded_drive(make_scenario(steps=60))
    with pytest.raises(ValueError, match=r"0\.1 s apart, got 0\.2 s"):
        score(replace(drive, scenario=replace(drive.scenario, dt=0.2)))
    short = replace(drive, pose=drive.pose[: drive.start + 3], valid=drive.valid[: drive.start + 3])
    with pytest.raises(ValueError, match="5 states to score or more, got 3"):
        score(short)
