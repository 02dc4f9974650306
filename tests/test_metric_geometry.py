"""Geometry that metrics share, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from alpagym.metrics.geometry import (
    ahead,
    central_rates,
    corners,
    cross,
    num_leading,
    principal_angle,
    rear_axle_motion,
    to_frame,
)
from alpagym.scenarios.polyline import arc_length, project, wrap_angle

DT = 0.1


def test_a_rear_axle_on_a_circle_turns_at_constant_rates() -> None:
    speed, radius, back = 8.0, 40.0, 1.4
    rate = speed / radius
    yaw = 3.0 + rate * DT * np.arange(30)  # passes pi on the way
    axle = np.stack([radius * np.sin(yaw), -radius * np.cos(yaw), yaw], -1)
    center = ahead(axle, back)
    center[:, 2] = wrap_angle(center[:, 2])
    motion = rear_axle_motion(center, back, DT)
    np.testing.assert_allclose(motion.pose[:, :2], axle[:, :2], atol=1e-12)
    np.testing.assert_allclose(motion.yaw_rate, rate, atol=1e-12)
    inner = slice(2, -2)  # where differences are central
    np.testing.assert_allclose(motion.velocity[inner, 0], speed, rtol=1e-3)
    np.testing.assert_allclose(motion.velocity[inner, 1], 0.0, atol=1e-9)
    np.testing.assert_allclose(motion.acceleration[inner, 1], speed * rate, rtol=1e-3)
    np.testing.assert_allclose(motion.yaw_accel, 0.0, atol=1e-9)


def test_central_rates_go_by_what_is_there() -> None:
    values = np.array([0.0, 1.0, 4.0, 99.0, 7.0])[:, None]
    valid = np.array([True, True, True, False, True])
    assert central_rates(values, valid, 0.5)[:, 0] == pytest.approx([2.0, 4.0, 6.0, 0.0, 0.0])


def test_corners_begin_front_left_and_go_round() -> None:
    pose, size = np.array([10.0, 20.0, np.pi / 2]), np.array([4.0, 2.0])
    found = corners(pose, size)
    np.testing.assert_allclose(found, [[9, 22], [9, 18], [11, 18], [11, 22]], atol=1e-12)
    np.testing.assert_allclose(
        to_frame(pose, found), [[2, 1], [-2, 1], [-2, -1], [2, -1]], atol=1e-12
    )
    assert (cross(np.roll(found, -1, 0) - found, pose[:2] - found) > 0).all()


@pytest.mark.parametrize(("flags", "count"), [([], 0), ([0, 1], 0), ([1, 1, 0, 1], 2), ([1], 1)])
def test_leading_flags_are_counted(flags, count) -> None:
    assert num_leading(np.array(flags, bool)) == count


def test_the_two_ways_to_wrap_differ_at_pi_alone() -> None:
    angle = np.linspace(-20.0, 20.0, 401)
    np.testing.assert_allclose(principal_angle(angle), wrap_angle(angle), atol=1e-12)
    assert (principal_angle(np.array(np.pi)), wrap_angle(np.pi)) == (np.pi, -np.pi)


def test_a_point_beyond_the_end_projects_on_the_very_end() -> None:
    """What lies beside a line is told from what lies beyond it by comparing with its length."""
    rng = np.random.default_rng(5)
    for _ in range(200):
        steps = rng.uniform(0.3, 4.0, (40, 2))
        line = np.cumsum(steps, 0)
        s, _ = project(line, line[-1:] + steps[-1:])
        assert s[0] == arc_length(line)[-1]
