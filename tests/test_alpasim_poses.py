"""Poses between AlpaSim's messages and ours."""

from __future__ import annotations

import numpy as np
import pytest

from alpagym.interop.alpasim import poses
from alpagym.interop.alpasim.poses import Track
from alpagym.interop.alpasim.wire.messages import common

Trajectory = common.Trajectory


def some_track(count: int = 5) -> Track:
    rng = np.random.default_rng(0)
    pose = rng.uniform(-200.0, 200.0, (count, 3))
    pose[:, 2] = np.linspace(-3.1, 3.1, count)
    time_us = 1_700_000_000_000_000 + np.arange(count, dtype=np.int64) * 100_000
    return Track(time_us, pose, rng.uniform(-5.0, 5.0, count))


def test_a_track_comes_back_to_float32s_precision() -> None:
    track, message = some_track(), Trajectory()
    poses.write_trajectory(message, track)
    back = poses.read_trajectory(Trajectory.FromString(message.SerializeToString()))
    assert (back.time_us == track.time_us).all()
    assert np.abs(back.pose[:, :2] - track.pose[:, :2]).max() < 1e-5
    assert np.abs(back.pose[:, 2] - track.pose[:, 2]).max() < 3e-7
    assert np.abs(back.z - track.z).max() < 1e-6
    for p in message.poses:
        q = p.pose.quat
        assert abs(np.linalg.norm([q.w, q.x, q.y, q.z]) - 1.0) < 1e-7
        assert (q.x, q.y) == (0.0, 0.0)


def test_no_poses() -> None:
    track = poses.read_trajectory(Trajectory())
    assert track.time_us.shape == (0,)
    assert track.pose.shape == (0, 3)


def test_no_more_than_asked_for() -> None:
    message = Trajectory()
    poses.write_trajectory(message, some_track(5))
    assert len(poses.read_trajectory(message, most=5).time_us) == 5
    with pytest.raises(ValueError, match=r"^plan: expected at most 4 poses, got 5$"):
        poses.read_trajectory(message, "plan", most=4)
    points = [p.pose.vec for p in message.poses]
    assert poses.read_points(points, most=5).shape == (5, 3)
    with pytest.raises(ValueError, match=r"^route: expected at most 4 points, got 5$"):
        poses.read_points(points, "route", most=4)


def test_yaw_of_tilted_quaternions() -> None:
    """Roll and pitch as on a slope do not change where the x axis points, seen from above."""
    yaw, pitch, roll = 2.0, 0.2, -0.1
    half = 0.5 * np.array([yaw, pitch, roll])
    (cy, cp, cr), (sy, sp, sr) = np.cos(half), np.sin(half)
    tilted = [
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    ]
    assert poses.yaw_of(np.array(tilted)) == pytest.approx(yaw)
    assert poses.yaw_of(-np.array(tilted)) == pytest.approx(yaw)


def test_frames() -> None:
    frame, pose = some_track().pose, some_track(5).pose[::-1]
    inside = poses.into_frame(frame, pose)
    assert poses.from_frame(frame, inside) == pytest.approx(pose)
    quarter = np.array([1.0, 2.0, np.pi / 2])
    assert poses.into_frame(quarter, np.array([1.0, 5.0, np.pi])) == pytest.approx(
        [3.0, 0.0, np.pi / 2]
    )
    assert poses.center_of(quarter, 1.4) == pytest.approx([1.0, 3.4, np.pi / 2])
    assert poses.rig_of(poses.center_of(frame, 1.4), 1.4) == pytest.approx(frame)


def spoil(change) -> str:
    message = Trajectory()
    poses.write_trajectory(message, some_track())
    change(message.poses)
    with pytest.raises(ValueError, match="pose") as caught:
        poses.read_trajectory(message, "egomotion")
    return str(caught.value)


def test_poses_that_are_refused() -> None:
    def set_x(value):
        return lambda p: setattr(p[3].pose.vec, "x", value)

    for value in (np.nan, np.inf, -np.inf):
        assert spoil(set_x(value)) == (
            "egomotion pose 3: expected finite numbers, got NaN or infinity"
        )
    assert spoil(lambda p: p[1].pose.ClearField("quat")) == (
        "egomotion pose 1: expected a unit quaternion, got one of length 0"
    )
    assert "length 2" in spoil(lambda p: setattr(p[0].pose.quat, "x", np.sqrt(3.0)))
    later = spoil(lambda p: setattr(p[2], "timestamp_us", 5))
    assert later == (
        "egomotion pose 2: expected times that rise, got 5 us after 1700000000100000 us"
    )
    assert "times that rise" in spoil(lambda p: p[4].CopyFrom(p[3]))
    assert "2^63 - 1" in spoil(lambda p: setattr(p[4], "timestamp_us", 2**63))
