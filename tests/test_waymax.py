"""Waymax's dynamics, IDM agents and metrics."""

from dataclasses import replace

import numpy as np
import pytest

import scenario_factory as factory
from alpagym.interop.waymax import bicycle, dynamics, idm
from alpagym.metrics import waymax
from alpagym.metrics.drive import Drive

# Dynamics


def random_states(count: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    yaw, speed = rng.uniform(-np.pi, np.pi, count), rng.uniform(2.0, 20.0, count)
    xy = rng.uniform(-100.0, 100.0, (2, count))
    return np.stack([*xy, yaw, speed * np.cos(yaw), speed * np.sin(yaw)], -1)


def test_bicycle_inverse_undoes_forward() -> None:
    states = random_states(200)
    actions = np.random.default_rng(6).uniform([-6.0, -0.3], [6.0, 0.3], (200, 2))
    pairs = np.stack([states, bicycle.forward(states, actions)], 1)
    there = np.ones((200, 2), bool)
    np.testing.assert_allclose(bicycle.inverse(pairs, there), actions, atol=1e-9)
    shares = bicycle.model_inverse(pairs, there, normalized=True)
    np.testing.assert_allclose(shares, actions / [6.0, 0.3], atol=1e-9)


def test_bicycle_closed_forms() -> None:
    ahead = np.array([0.0, 0.0, 0.0, 10.0, 0.0])
    straight = bicycle.forward(ahead, np.array([2.0, 0.0]), dt=0.5)
    np.testing.assert_allclose(straight, [5.25, 0.0, 0.0, 11.0, 0.0])
    turned = bicycle.forward(ahead, np.array([0.0, 0.2]))
    np.testing.assert_allclose(turned[2:], [0.2, 10 * np.cos(0.2), 10 * np.sin(0.2)])
    beyond = bicycle.forward(ahead, np.array([99.0, -9.0]))
    np.testing.assert_array_equal(beyond, bicycle.forward(ahead, np.array([6.0, -0.3])))
    shares = bicycle.forward(ahead, np.array([99.0, -9.0]), normalized=True)
    np.testing.assert_array_equal(shares, beyond)
    stopping = bicycle.forward(np.array([0.0, 0.0, 0.0, 0.3, 0.0]), np.array([-6.0, 0.0]))
    assert stopping[3] == pytest.approx(-0.3)  # it brakes into reverse


def test_bicycle_inverse_of_what_is_slow_or_absent() -> None:
    pair = np.array([[0.0, 0.0, 0.0, 0.5, 0.0], [0.1, 0.0, 1.0, 5.0, 0.0]])
    np.testing.assert_allclose(bicycle.inverse(pair, np.array([True, True])), [45.0, 0.0])
    pair[1] = np.nan
    np.testing.assert_array_equal(bicycle.inverse(pair, np.array([True, False])), [0.0, 0.0])


def test_delta_models_agree_along_the_axes() -> None:
    states = random_states(50)
    states[:, 2] = 0.0
    action = np.array([1.0, -0.5, 0.1])
    local = dynamics.delta_forward(states, np.broadcast_to(action, (50, 3)), local=True)
    np.testing.assert_allclose(
        local, dynamics.delta_forward(states, np.broadcast_to(action, (50, 3)))
    )
    north = dynamics.delta_forward(np.array([0, 0, np.pi / 2, 0, 0]), action, local=True)
    np.testing.assert_allclose(north, [0.5, 1.0, np.pi / 2 + 0.1, 5.0, 10.0])


@pytest.mark.parametrize("local", [False, True])
def test_delta_inverse_undoes_forward(local: bool) -> None:
    states = random_states(50)
    actions = np.random.default_rng(7).uniform([-3, -3, -3], [3, 3, 3], (50, 3))
    pairs = np.stack([states, dynamics.delta_forward(states, actions, local=local)], 1)
    got = dynamics.delta_inverse(pairs, np.ones((50, 2), bool), local=local)
    np.testing.assert_allclose(got, actions, atol=1e-9)


def test_who_exists_after_a_step() -> None:
    """Rows: controlled and there; controlled and absent; logged, there in both; gone; new."""
    exists = np.array([True, False, True, True, False])
    known = np.array([False, True, True, False, True])
    controlled = np.array([True, True, False, False, False])
    updates, reference = np.ones((5, 5)), np.zeros((5, 5))
    states, valid = dynamics.step(updates, exists, reference, known, controlled)
    np.testing.assert_array_equal(states[:, 0], [1, 1, 0, 0, 0])
    np.testing.assert_array_equal(valid, [True, False, True, False, False])
    _, injected = dynamics.step(updates, exists, reference, known, controlled, inject=True)
    np.testing.assert_array_equal(injected, [True, True, True, False, True])


# IDM


def line_log(length: int = 60, speed: float = 10.0) -> np.ndarray:
    log = np.zeros((length, 7))
    log[:, 0] = 0.1 * speed * np.arange(length)
    log[:, 3], log[:, 5:] = speed, [4.0, 2.0]
    return log


@pytest.mark.parametrize("from_current", [True, False])
def test_idm_follows_a_leader(from_current: bool) -> None:
    """The free road, and the interaction of the formula with a leader ahead."""
    objects = line_log()[[10, 22]]
    objects[1, 3] = 6.0
    log, there = np.stack([line_log(), line_log()]), np.ones((2, 60), bool)
    model = idm.Idm(from_current=from_current)
    alone = idm.accelerations(objects, np.array([True, False]), log, there, model)
    assert alone[0] == pytest.approx(2.0 * (1.0 - (1.0 / 3.0) ** 4))
    both = idm.accelerations(objects, np.array([True, True]), log, there, model)
    gap = 9.0  # the first waypoint at which boxes 4 m long, 12 m apart, overlap
    wanted = 2.0 + 10.0 * 2.0 + 10.0 * 4.0 / (2.0 * np.sqrt(8.0))
    assert both[0] == pytest.approx(2.0 * (1.0 - 3.0**-4 - (wanted / gap) ** 2))
    assert both[1] == pytest.approx(2.0 * (1.0 - 0.2**4))


def test_idm_moves_along_its_log() -> None:
    objects, log = line_log()[[10]], line_log()[None]
    objects[0, 1] = 0.4  # off the log, onto which the step brings it back
    speed, states = idm.advance(
        objects, np.array([True]), log, np.ones((1, 60), bool), np.array([2.0])
    )
    assert speed[0] == pytest.approx(10.2)
    np.testing.assert_allclose(states, [[11.01, 0.0, 0.0, 10.2, 0.0]])
    objects[0, 0] = 59.0  # at the end: it keeps its velocity
    _, states = idm.advance(objects, np.array([True]), log, np.ones((1, 60), bool), np.array([2.0]))
    assert states[0, 3] == 10.0


def test_idm_ignores_what_is_absent() -> None:
    objects, log = line_log()[[10, 14]], np.stack([line_log(), line_log()])
    objects[1], log[1] = np.nan, -1.0
    valid, known = np.array([True, False]), np.array([[True] * 60, [False] * 60])
    accel = idm.accelerations(objects, valid, log, known)
    assert accel[0] == pytest.approx(2.0 * (1.0 - 3.0**-4))
    _, states = idm.advance(objects, valid, log, known, accel)
    assert np.isfinite(states[0]).all()
    assert (states[1] == -1.0).all()


# Metrics


def test_overlap_is_strict_and_one_sided() -> None:
    boxes = np.array([[0, 0, 0, 4, 2], [4, 0, 0, 4, 2], [5, 0.5, 1.0, 4, 2]], float)
    got = waymax.overlaps(boxes)
    assert not got[0, 1]  # touching
    assert got[1, 2]
    assert got[2, 1]
    valid = np.array([True, True, False])
    np.testing.assert_array_equal(waymax.overlap(boxes, valid), [False, False, True])


def straight_edge(z: float = 0.0) -> waymax.RoadEdgePoints:
    """Along +x: drivable to its left."""
    x = np.arange(0.0, 50.0, 0.5)
    xyz = np.stack([x, np.zeros(len(x)), np.full(len(x), z)], -1)
    direction = np.tile([1.0, 0.0], (len(x), 1))
    return waymax.RoadEdgePoints(xyz, direction, np.zeros(len(x)), np.ones(len(x), bool))


def test_offroad_is_to_the_right_of_an_edge() -> None:
    points = np.array([[10.0, 2.0, 0.0], [10.0, -2.0, 0.0]])
    np.testing.assert_allclose(waymax.signed_edge_distance(points, straight_edge()), [-2.0, 2.0])
    box = np.array([10.0, 1.5, 0.0, 4.0, 2.0])
    got = waymax.corner_edge_distances(box, np.array(0.0), straight_edge())
    np.testing.assert_allclose(got, [-0.5, -2.5, -2.5, -0.5])  # the front right one first


@pytest.mark.parametrize("first", range(4))
def test_around_an_island_every_place_is_on_the_road(first) -> None:
    """Wherever its outline begins; inside is off the road."""
    ring = np.array([[0.0, 0.0], [0.0, 3.0], [8.0, 3.0], [8.0, 0.0]])  # clockwise
    ring = np.roll(ring, -first, 0)
    line = np.column_stack([np.concatenate([ring, ring[:1]]), np.zeros(5)])
    edges = waymax.edge_points([line])
    assert edges is not None
    angle = np.linspace(0.0, 2 * np.pi, 100, endpoint=False)
    about = np.stack([4.0 + 7.0 * np.cos(angle), 1.5 + 5.0 * np.sin(angle), 0 * angle], -1)
    assert (waymax.signed_edge_distance(about, edges) < 0.0).all()
    assert waymax.signed_edge_distance(np.array([4.0, 1.5, 0.0]), edges) == pytest.approx(1.5, 0.1)


def test_heights_count_double_among_edges() -> None:
    """An edge 3 m off and level loses to one 2 m off and 1 m up, but not to one 2 m up."""
    for z, nearest in ((1.0, 2.0), (2.0, -3.0)):
        up, level = straight_edge(z), straight_edge()
        level.xyz[:, 1] = -5.0
        both = [np.concatenate([getattr(e, n) for e in (up, level)]) for n in ("xyz", "direction")]
        ids = np.repeat([0, 1], len(up.id))
        edges = waymax.RoadEdgePoints(*both, ids, np.ones(len(ids), bool))
        got = waymax.signed_edge_distance(np.array([10.0, -2.0, 0.0]), edges)
        assert got == pytest.approx(nearest)


def paths(*on_route: bool) -> waymax.Paths:
    """Along +x, 10 m apart."""
    n = len(on_route)
    xy = np.zeros((n, 101, 2))
    xy[..., 0], xy[..., 1] = np.arange(101), 10.0 * np.arange(n)[:, None]
    along = np.broadcast_to(np.arange(101.0), (n, 101))
    return waymax.Paths(xy, np.ones((n, 101), bool), along, np.array(on_route))


def test_route_metrics() -> None:
    two = paths(True, False)
    assert waymax.wrong_way(two, np.array([50.0, 3.4])) == (0.0, True)
    assert waymax.wrong_way(two, np.array([50.0, -4.0])) == (4.0, True)
    there = np.array(True)
    assert waymax.off_route(two, np.array([50.0, 4.9]), there) == (0.0, True)
    assert waymax.off_route(two, np.array([50.0, 6.5]), there) == (6.5, True)
    assert waymax.off_route(two, np.array([50.0, -5.5]), there) == (5.5, True)
    assert waymax.off_route(two, np.array([50.0, 0.0]), np.array(False)) == (0.0, False)
    ends = np.array([20.0, 0.0]), np.array([80.0, 0.0])
    for x, share in ((20.0, 0.0), (50.0, 0.5), (80.0, 1.0), (95.0, 1.25), (5.0, -0.25)):
        got = waymax.progression(two, np.array([x, 1.0]), there, *ends)
        assert got == (pytest.approx(share), True)
    assert waymax.progression(two, np.array([50.0, 0.0]), there, ends[0], ends[0]) == (1.0, True)
    nowhere = paths(False, False)
    assert waymax.progression(nowhere, np.array([50.0, 0.0]), there, *ends) == (0.0, False)
    assert waymax.off_route(nowhere, np.array([50.0, 0.0]), there) == (0.0, False)


def log_drive(scenario, shift: float = 0.0) -> Drive:
    """The record replayed, with the ego `shift` to the left after the start."""
    tracks, start = scenario.tracks, scenario.start_frame
    pose = np.concatenate([tracks.xyz[..., :2], tracks.yaw[..., None]], -1).transpose(1, 0, 2)
    pose = pose.astype(np.float64)
    pose[start + 1 :, scenario.ego, 1] += shift
    return Drive(scenario, scenario.ego, 0, start, pose, tracks.valid.T.copy())


def test_score_of_the_record() -> None:
    found = waymax.score(log_drive(factory.straight(factory.Actor(factory.STRAIGHT, 90.0, 10.0))))
    for name in ("overlap", "offroad", "kinematic_infeasibility", "log_divergence"):
        assert found.total[name] == 0.0, name
    progress = found.steps["progression"]
    assert (np.diff(progress) > 0.0).all()
    assert found.total["progression"] == pytest.approx(1.0)
    assert progress[0] == pytest.approx(6.0 / 40.0, abs=0.02)
    assert {len(values) for values in found.steps.values()} == {35}


def test_score_of_a_bad_drive() -> None:
    """The ego jumps 6 m aside, over the edge and into a car that stands there."""
    parked = factory.Actor(factory.line((30.0, 6.0), (31.0, 6.0)))
    found = waymax.score(log_drive(factory.straight(parked), shift=6.0))
    assert found.total["offroad"] == 1.0
    assert found.steps["offroad"].all()
    assert found.total["overlap"] == 1.0
    assert not found.steps["overlap"].all()
    # The jump aside is a way of 6 m in one step: it takes hundreds of m/s^2 to get to that speed,
    # and as many to get back to 10 m/s.
    assert found.steps["kinematic_infeasibility"].sum() == 2
    assert found.total["log_divergence"] == pytest.approx(6.0, abs=1e-5)


def test_score_without_ego_route_or_edges() -> None:
    scenario = factory.assemble("bare", [], [factory.Actor(factory.STRAIGHT, 10.0, 0.0)])
    drive = log_drive(scenario)
    found = waymax.score(drive)
    assert found.total["offroad"] == 0.0
    assert np.isnan(found.total["progression"])
    gone = replace(drive, valid=drive.valid & (drive.times < 2.0)[:, None])
    assert np.isnan(waymax.score(gone).steps["overlap"][-1])
    assert waymax.score(gone).total["overlap"] == 0.0


# Bad input

PAIR, BOTH = np.zeros((3, 2, 5)), np.ones((3, 2), bool)
OBJECTS, LOG = line_log()[[10]], line_log()[None]
HERE, KNOWN = np.ones(1, bool), np.ones((1, 60), bool)
NAN_STATE = np.array([0.0, np.nan, 0.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bicycle.forward(np.zeros(4), np.zeros(2)), r"states: expected \[..., 5\]"),
        (lambda: bicycle.forward(NAN_STATE, np.zeros(2)), r"states: .* got nan at \[1\]"),
        (lambda: bicycle.forward(np.zeros(5), np.zeros(2), dt=0.0), "dt: .* above 0, got 0.0"),
        (lambda: bicycle.inverse(PAIR[:, 0], BOTH), r"pairs: expected \[..., 2, 5\]"),
        (lambda: bicycle.inverse(PAIR, BOTH[:2]), r"valid: expected \[3, 2\], got \[2, 2\]"),
        (lambda: bicycle.inverse(PAIR * np.nan, BOTH), "pairs: expected finite numbers"),
        (lambda: dynamics.delta_forward(np.zeros(5), np.zeros(2)), r"actions: expected \[..., 3\]"),
        (lambda: dynamics.state_forward(np.zeros((2, 5)), BOTH), r"action_valid: expected \[2\]"),
        (
            lambda: dynamics.step(np.zeros((2, 5)), HERE, np.zeros((3, 5)), HERE, HERE),
            r"reference: expected \[2, 5\], got \[3, 5\]",
        ),
        (lambda: idm.accelerations(OBJECTS, HERE, LOG[0], KNOWN), r"log: expected \[1, 'T', 7\]"),
        (
            lambda: idm.accelerations(
                OBJECTS, HERE, LOG, KNOWN, idm.Idm(log_points=61, from_current=False)
            ),
            "log_points: expected 1 to 60, got 61",
        ),
        (lambda: idm.accelerations(OBJECTS * np.nan, HERE, LOG, KNOWN), "objects: expected finite"),
        (lambda: waymax.overlaps(np.ones(5)), r"boxes: expected \[..., N, 5\], got \[5\]"),
        (lambda: waymax.overlaps(np.zeros((2, 5))), "boxes: expected lengths and widths above 0"),
        (
            lambda: waymax.signed_edge_distance(
                np.zeros(3),
                waymax.RoadEdgePoints(np.zeros((0, 3)), np.zeros((0, 2)), np.zeros(0), np.zeros(0)),
            ),
            "edges: expected equally many points, at least 1, got",
        ),
        (lambda: waymax.log_divergence(np.zeros(2), np.zeros(3)), r"log_xy: expected \[..., 2\]"),
        (lambda: waymax.wrong_way(paths(True), np.array([np.nan, 0.0])), "xy: expected finite"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
