"""What a driver makes of egomotion: speeds that are told, and those that follow from poses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alpagym.interop.alpasim.driver.session import MOST_KEPT, Session
from alpagym.interop.alpasim.poses import Track
from alpasim_talk import START_US, egomotion, waypoints

SPEED, ACCEL, CURVATURE = 9.0, -1.5, 0.02


def driven(spacing_us: int, count: int = 40) -> tuple[Track, np.ndarray]:
    """A bend at constant curvature while braking, that ends now; and speeds along it."""
    t = 1e-6 * spacing_us * np.arange(1 - count, 1)
    way = SPEED * t + 0.5 * ACCEL * t * t
    yaw = 3.1 + CURVATURE * way  # passes pi, where yaw begins anew
    x, y = np.sin(yaw) / CURVATURE, -np.cos(yaw) / CURVATURE
    time_us = START_US + spacing_us * np.arange(count, dtype=np.int64)
    return Track(time_us, np.stack([x, y, yaw], -1), np.zeros(count)), SPEED + ACCEL * t


def session() -> Session:
    return Session(0, torch.zeros(0), 0.33)


def told(track: Track, speed=None, pieces: int = 1) -> Session:
    """The first pose alone, then the others in so many messages."""
    made = session()
    first, *later = np.arange(len(track.time_us))
    for part in [np.array([first]), *np.array_split(np.array(later, int), pieces)]:
        piece = Track(track.time_us[part], track.pose[part], track.z[part])
        message = egomotion("a", piece, None if speed is None else speed[part])
        made.add_egomotion(message.trajectory, message.dynamic_states)
    return made


@pytest.mark.parametrize("spacing_us", [20_000, 50_000, 100_000])
@pytest.mark.parametrize("pieces", [1, 7])
def test_motion_of_poses_and_speeds(spacing_us, pieces) -> None:
    track, speed = driven(spacing_us)
    assert told(track, speed, pieces).motion() == pytest.approx((SPEED, ACCEL, CURVATURE), abs=2e-4)


@pytest.mark.parametrize("spacing_us", [20_000, 50_000, 100_000, 33_333])
@pytest.mark.parametrize("states", ["zeros", "none"])
def test_motion_of_poses_alone(spacing_us, states) -> None:
    """Float32 positions, 50 m away: 4e-6 m."""
    track, _ = driven(spacing_us)
    if states == "zeros":
        found = told(track)
    else:
        found, message = session(), egomotion("a", track)
        found.add_egomotion(message.trajectory, [])
    speed, accel, curvature = found.motion()
    assert speed == pytest.approx(SPEED, abs=5e-3)
    assert accel == pytest.approx(ACCEL, abs=5e-2)
    assert curvature == pytest.approx(CURVATURE, abs=1e-3)


@pytest.mark.parametrize("spacing_us", [20_000, 100_000])
def test_speeds_in_the_local_frame_are_not_taken_for_those_along_the_rig(spacing_us) -> None:
    """What AlpaSim tells before its first step, of a car that heads north."""
    track, speed = driven(spacing_us)
    turned = 0.5 * np.pi - track.pose[-1, 2]
    cos, sin = np.cos(turned), np.sin(turned)
    x, y, yaw = track.pose.T
    north = np.stack([cos * x - sin * y, sin * x + cos * y, yaw + turned], -1)
    message = egomotion("a", Track(track.time_us, north, track.z), speed)
    for state, pose, v in zip(message.dynamic_states, north, speed, strict=True):
        velocity = state.linear_velocity
        velocity.x, velocity.y = v * np.cos(pose[2]), v * np.sin(pose[2])
    found = session()
    found.add_egomotion(message.trajectory, message.dynamic_states)
    assert found.motion() == (
        pytest.approx(SPEED, abs=5e-3),
        pytest.approx(ACCEL, abs=5e-2),
        pytest.approx(CURVATURE, abs=1e-3),
    )


def test_little_is_known_of_few_poses() -> None:
    track, speed = driven(100_000, 1)
    assert told(track).motion() == (0.0, 0.0, 0.0)
    assert told(track, speed).motion() == (SPEED, 0.0, 0.0)
    two, _ = driven(100_000, 2)
    found, accel, curvature = told(two).motion()
    assert (found, accel) == (pytest.approx(SPEED, abs=0.1), 0.0)
    assert curvature == pytest.approx(CURVATURE, abs=1e-3)
    close = Track(np.array([START_US, START_US + 1]), two.pose, two.z)
    assert told(close).motion() == (0.0, 0.0, 0.0), "a jump is no speed"


def test_who_stands_has_no_curvature_and_who_reverses_a_negative_speed() -> None:
    still = Track(driven(100_000)[0].time_us, np.zeros((40, 3)), np.zeros(40))
    still.pose[:, 2] = 0.5 * np.arange(40) % 2
    assert told(still).motion() == (0.0, 0.0, 0.0)
    track, speed = driven(100_000)
    back = Track(track.time_us, track.pose + np.array([0.0, 0.0, np.pi]), track.z)
    for spoken in (-speed, None):
        found = told(back, spoken).motion()
        assert found[0] == pytest.approx(-SPEED, abs=5e-3)
        assert found[2] == pytest.approx(-CURVATURE, abs=1e-3)


def test_only_so_much_is_kept() -> None:
    made = session()
    for i in range(3000):
        pose = np.array([[0.001 * i, 0.0, 0.0]])
        one = egomotion("a", Track(np.array([START_US + 1000 * i]), pose, np.zeros(1)))
        made.add_egomotion(one.trajectory, one.dynamic_states)
    assert len(made._time_us) == MOST_KEPT
    assert made.motion()[0] == pytest.approx(1.0, abs=1e-3)
    track, _ = driven(100_000, 500)
    assert len(told(track)._time_us) == 21


@pytest.mark.parametrize("states", [True, False])
def test_a_long_message_may_be_sent_again(states) -> None:
    """Of 3 s, of which only the last 2 s are kept."""
    track, speed = driven(100_000, 31)
    message = egomotion("a", track, speed if states else None)
    made = session()
    for _ in range(2):
        made.add_egomotion(message.trajectory, message.dynamic_states)
    assert made.motion()[0] == pytest.approx(SPEED, abs=5e-3)
    for age in (0.5, 19.5):  # of a gap between poses that are kept
        between = Track(track.time_us[-1:] - round(age * 1e5), track.pose[-1:], track.z[-1:])
        wrong = egomotion("a", between).trajectory
        with pytest.raises(ValueError, match=r"^egomotion: expected times after \d+ us, got \d+"):
            made.add_egomotion(wrong, [])


def test_plans_begin_now_and_grow_older() -> None:
    track, speed = driven(100_000)
    made = told(track, speed)
    made.set_route(START_US, waypoints())
    now_us = int(track.time_us[-1])
    assert made.decides(500_000)
    made.begin_plan(np.stack([np.arange(1.0, 31.0), np.zeros(30), np.zeros(30)], -1))
    first = made.plan()
    assert first.time_us.tolist() == [now_us + 100_000 * i for i in range(31)]
    assert first.pose[0, :2] == pytest.approx(track.pose[-1, :2])
    assert (np.abs(first.pose[:, 2]) <= np.pi).all()
    for step in range(1, 6):
        later = Track(np.array([now_us + 100_000 * step]), np.zeros((1, 3)), np.ones(1))
        message = egomotion("a", later)
        made.add_egomotion(message.trajectory, message.dynamic_states)
        assert made.decides(500_000) is (step == 5)
        left = made.plan()
        assert left.time_us[0] == now_us + 100_000 * step
        assert np.array_equal(left.pose[1:], first.pose[step + 1 :])
        assert (left.z == 1.0).all()
