"""Distance, time to collision, closest approach and DRAC of box pairs."""

import numpy as np
import pytest

import scenario_factory as factory
from alpagym.metrics import ttc
from alpagym.metrics.drive import Drive
from alpagym.metrics.geometry import backward_rates
from parity.ttc import random_pairs

CAR = [4.0, 2.0]


def box(x: float, y: float, yaw: float = 0.0, size=CAR) -> np.ndarray:
    return np.array([x, y, yaw, *size])


def test_head_on() -> None:
    """Bumpers 16 m apart that close at 5 m/s meet after 3.2 s; DRAC is v^2 / (2 d)."""
    a, b, velocity = box(0, 0), box(20, 0), np.array([-5.0, 0.0])
    assert ttc.distance(a, b) == 16.0
    assert ttc.time_to_collision(a, b, velocity) == pytest.approx(3.2)
    assert ttc.drac(a, b, velocity) == pytest.approx(25.0 / 32.0)
    assert ttc.closest_approach(a, b, velocity, 10.0) == pytest.approx((0.0, 3.2))
    assert ttc.time_to_collision(a, b, velocity, 3.2) == pytest.approx(3.2)
    assert ttc.time_to_collision(a, b, velocity, 3.19) == np.inf
    assert ttc.closest_approach(a, b, velocity, 2.0) == pytest.approx((6.0, 2.0))


def test_apart_for_good() -> None:
    a, b = box(0, 0), box(20, 0)
    for velocity in ([5.0, 0.0], [0.0, 0.0], [0.0, 3.0]):
        assert ttc.time_to_collision(a, b, np.array(velocity)) == np.inf
        assert ttc.drac(a, b, np.array(velocity)) == 0.0
    assert ttc.closest_approach(a, b, np.array([5.0, 0.0]), 10.0) == pytest.approx((16.0, 0.0))


def test_passing_in_the_next_lane() -> None:
    """Sides 1.5 m apart; equally near from the moment when the bumpers are level."""
    least, when = ttc.closest_approach(box(0, 0), box(20, 3.5), np.array([-4.0, 0.0]), 10.0)
    assert least == pytest.approx(1.5)
    assert when == pytest.approx(4.0)


def test_contact_now() -> None:
    """Touching counts, whichever way they move."""
    for other in (box(4, 0), box(4, 2), box(1, 1, 0.7), box(0, 0, 0.3, (0.5, 0.5))):
        for velocity in ([5.0, 0.0], [0.0, 0.0]):
            assert ttc.time_to_collision(box(0, 0), other, np.array(velocity)) == 0.0
            assert ttc.drac(box(0, 0), other, np.array(velocity)) == np.inf
        assert ttc.distance(box(0, 0), other) == 0.0


def test_corner_first() -> None:
    """A square on its corner reaches half its diagonal."""
    reach = np.sqrt(2.0)
    a, b = box(0, 0), box(10, 0, np.pi / 4, (2.0, 2.0))
    assert ttc.distance(a, b) == pytest.approx(8.0 - reach)
    assert ttc.time_to_collision(a, b, np.array([-2.0, 0.0])) == pytest.approx((8.0 - reach) / 2.0)


def test_same_for_everyone_who_looks() -> None:
    """Neither the order of the two nor a rigid motion of both matters."""
    a, b, velocity = random_pairs(np.random.default_rng(3), 400)
    turn, shift = 0.8, np.array([130.0, -40.0])
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    moved = [np.concatenate([x[:, :2] @ rotation + shift, x[:, 2:]], -1) for x in (a, b)]
    for x in moved:
        x[:, 2] += turn
    want = ttc.time_to_collision(a, b, velocity)
    np.testing.assert_allclose(ttc.time_to_collision(b, a, -velocity), want, rtol=1e-9)
    np.testing.assert_allclose(ttc.time_to_collision(*moved, velocity @ rotation), want, rtol=1e-9)
    assert np.isfinite(want).any()
    assert np.isinf(want).any()


def test_shapes_broadcast() -> None:
    ahead = np.stack([box(20, 0), box(30, 0), box(40, 0)])
    found = ttc.time_to_collision(box(0, 0), ahead, np.array([-5.0, 0.0]))
    np.testing.assert_allclose(found, [3.2, 5.2, 7.2])
    assert ttc.distance(np.zeros((0, 5)), np.zeros((0, 5))).shape == (0,)
    least, _ = ttc.closest_approach(box(0, 0), ahead, np.array([-5.0, 0.0]), 1.0)
    np.testing.assert_allclose(least, [11.0, 21.0, 31.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": np.zeros(4)}, r"a: expected \[..., 5\], got \[4\]"),
        ({"b": box(np.nan, 0)}, r"b: expected finite numbers, got nan at \[0\]"),
        ({"b": box(20, 0, 0, (4.0, 0.0))}, "b: expected lengths and widths above 0, got 0.0"),
        ({"velocity": np.zeros(3)}, r"velocity: expected \[..., 2\], got \[3\]"),
        ({"velocity": np.array([np.inf, 0])}, r"velocity: expected finite numbers, got inf"),
        ({"horizon": -1.0}, "horizon: expected a time of at least 0 s, got -1.0"),
        ({"horizon": np.nan}, "horizon: expected a time of at least 0 s, got nan"),
    ],
)
def test_bad_input(change: dict, message: str) -> None:
    given = {"a": box(0, 0), "b": box(20, 0), "velocity": np.zeros(2), "horizon": 5.0} | change
    for function in (ttc.time_to_collision, ttc.closest_approach):
        with pytest.raises(ValueError, match=message):
            function(**given)


def test_closest_approach_needs_an_end() -> None:
    with pytest.raises(ValueError, match="horizon: expected a finite time, got inf"):
        ttc.closest_approach(box(0, 0), box(20, 0), np.zeros(2), np.inf)


def log_drive(scenario) -> Drive:
    tracks = scenario.tracks
    pose = np.concatenate([tracks.xyz[..., :2], tracks.yaw[..., None]], -1).transpose(1, 0, 2)
    start = scenario.start_frame
    return Drive(scenario, scenario.ego, 0, start, pose.astype(np.float64), tracks.valid.T.copy())


def test_score_of_a_drive() -> None:
    """The ego at 10 m/s comes up behind a car at 4 m/s, 30 m ahead."""
    leader = factory.Actor(factory.STRAIGHT, 50.0, 4.0)
    drive = log_drive(factory.straight(leader, frames=31))
    found = ttc.score(drive)
    time = drive.times[drive.start + 1 :]
    gap = 30.0 - factory.CAR[0] - 6.0 * time
    np.testing.assert_allclose(found.steps["distance"], gap, atol=1e-4)
    np.testing.assert_allclose(found.steps["ttc"], gap / 6.0, atol=1e-3)
    np.testing.assert_allclose(found.steps["drac"], 18.0 / gap, rtol=1e-3)
    assert found.total["ttc"] == found.steps["ttc"][-1]
    assert found.total["drac"] == found.steps["drac"][-1]
    assert np.isinf(ttc.score(drive, horizon=1.0).total["ttc"])


def test_score_alone() -> None:
    found = ttc.score(log_drive(factory.straight(frames=11)))
    assert found.total == {"ttc": np.inf, "distance": np.inf, "drac": 0.0}


def test_velocities_where_agents_come_and_go() -> None:
    pose = np.zeros((5, 1, 3))
    pose[:, 0, 0] = [0.0, 1.0, 3.0, 0.0, 9.0]
    valid = np.array([[True], [True], [True], [False], [True]])
    found = backward_rates(pose, valid, 0.1)[:, 0, 0]
    np.testing.assert_allclose(found[:3], [10.0, 10.0, 20.0])
    assert np.isnan(found[3:]).all()
