"""Scores of predicted trajectories: ADE, minADE, comfort and the recipes' reward."""

import math

import pytest
import torch

from alpagym.metrics import open_loop

TIME = torch.arange(1, 65, dtype=torch.float64) * 0.1


def circle(speed: float, curvature: float) -> tuple[torch.Tensor, torch.Tensor]:
    yaw = speed * curvature * TIME
    xy = torch.stack([yaw.sin(), 1 - yaw.cos()], -1) / curvature
    return xy, torch.atan2(yaw.sin(), yaw.cos())


def line(accel: float, speed: float = 10.0) -> tuple[torch.Tensor, torch.Tensor]:
    x = speed * TIME + 0.5 * accel * TIME**2
    return torch.stack([x, torch.zeros_like(x)], -1), torch.zeros_like(x)


def flags(xy: torch.Tensor, yaw: torch.Tensor) -> dict[str, bool]:
    return dict(
        zip(open_loop.COMFORT_LIMITS, open_loop.comfort_flags(xy, yaw).tolist(), strict=True)
    )


def test_ade_is_the_mean_distance_in_the_plane(device):
    recorded = torch.zeros(64, 3, device=device)
    predicted = torch.zeros(5, 64, 3, device=device)
    predicted[1, :32] = torch.tensor([3.0, 4.0, 100.0], device=device)
    assert open_loop.ade(predicted, recorded).tolist() == [0, 2.5, 0, 0, 0]


def test_min_ade_chooses_one_sample_for_all_horizons(device):
    recorded = torch.zeros(2, 10, 2, device=device)
    predicted = torch.zeros(2, 3, 10, 2, device=device)
    predicted[:, 0, :, 0] = 3
    predicted[:, 1, 5:, 0] = 8  # the nearest at first, the worst in the end
    predicted[:, 2, :, 1] = 2
    got = open_loop.min_ade(predicted, recorded, [1, 5, 10])
    assert got.tolist() == [[2, 2, 2], [2, 2, 2]]
    assert open_loop.min_ade(predicted[:, :2], recorded).tolist() == [[3], [3]]


def test_comfort_of_closed_forms(tol):
    """A circle turns at v k and bears v^2 k sideways; a line bears its acceleration."""
    values = open_loop.dynamics(*circle(10, 0.05))
    torch.testing.assert_close(values["yaw_rate"], torch.full_like(TIME, 0.5))
    torch.testing.assert_close(values["yaw_accel"], torch.zeros_like(TIME), atol=tol(1e-9), rtol=0)
    for name in ("lon_accel", "lat_accel", "jerk", "lon_jerk"):
        # The chord of a circle turns with its heading: no rate of its parts changes.
        torch.testing.assert_close(
            values[name][:61], torch.zeros(61, dtype=torch.float64), atol=tol(1e-9), rtol=0
        )
    values = open_loop.dynamics(*line(-3))
    torch.testing.assert_close(values["lon_accel"][:62], torch.full_like(TIME[:62], -3))
    assert values["lon_accel"][-1].abs() < tol(1e-9)  # a repeated rate has no change


@pytest.mark.parametrize(
    ("name", "motion"),
    [
        ("lon_accel", line(2.5)),
        ("lon_accel", line(-4.1, 40.0)),
        ("yaw_rate", circle(10, 0.1)),
        ("yaw_rate", circle(10, -0.1)),
    ],
)
def test_one_step_beyond_a_limit_fails_its_test(name, motion):
    assert not flags(*motion)[name]


def test_a_calm_drive_passes_all():
    assert all(flags(*circle(10, 0.03)).values())
    xy, yaw = line(0.0)
    assert open_loop.comfort(open_loop.comfort_flags(xy, yaw)).item() == 0
    xy[32, 0] += 1  # a jump fails the accelerations and jerks along, not the turn
    result = flags(xy, yaw)
    assert [name for name, passed in result.items() if passed] == [
        "lat_accel",
        "yaw_accel",
        "yaw_rate",
    ]
    comfort = open_loop.comfort(open_loop.comfort_flags(xy, yaw))
    assert comfort.item() == pytest.approx(-0.5)


def test_yaw_may_wrap():
    xy, yaw = circle(10, 0.08)
    assert yaw.diff().abs().max() > math.pi
    torch.testing.assert_close(open_loop.dynamics(xy, yaw)["yaw_rate"], torch.full_like(TIME, 0.8))


def test_motion_reward():
    error = torch.tensor([0.0, 1.5, 1.5, 2.999, 3.0, 50.0])
    comfort = torch.tensor([0.0, 0.0, -1.0, -1.0, 0.0, 0.0])
    want = torch.tensor([0, -0.2, -0.3, -0.4 * 2.999 / 3 - 0.1, -1, -1])
    torch.testing.assert_close(open_loop.motion_reward(error, comfort), want)


def test_bad_input():
    path = torch.zeros(64, 2)
    with pytest.raises(ValueError, match=r"predicted, recorded: .* got \[64, 2\] and \[63, 2\]"):
        open_loop.ade(path, path[1:])
    with pytest.raises(ValueError, match="predicted, recorded: expected shapes"):
        open_loop.ade(path[:0], path[:0])
    with pytest.raises(ValueError, match=r"horizons: expected steps in 1 .. 64, got \[65\]"):
        open_loop.min_ade(path[None], path, [65])
    with pytest.raises(ValueError, match="expected at least one sample"):
        open_loop.min_ade(path[None][:0], path)
    with pytest.raises(ValueError, match="xy, yaw: expected shapes"):
        open_loop.comfort_flags(path, torch.zeros(63))
