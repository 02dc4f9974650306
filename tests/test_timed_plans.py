"""Plans with times into actions."""

from __future__ import annotations

import math

import pytest
import torch

from alpagym.timed_plans import plan_action


def straight(speed: float, times: torch.Tensor, ego: torch.Tensor) -> torch.Tensor:
    """Poses of driving straight on from `ego`."""
    way = speed * (times - times[0])
    x, y, yaw = ego
    return torch.stack([x + way * yaw.cos(), y + way * yaw.sin(), yaw.expand_as(way)], -1)


EGO = torch.tensor([1000.0, -2000.0, 2.5], dtype=torch.float64)


@pytest.mark.parametrize("period", [0.05, 0.1, 0.25, 0.5])
def test_waypoints_lie_where_the_plan_is_at_each_tenth_of_a_second(device, period) -> None:
    # x = v t, y = 0, yaw = 0 in the rig frame; times near 2^31 s, as epochs are.
    times = 1.7e9 + period * torch.arange(int(6.5 / period) + 2, dtype=torch.float64)
    action = plan_action(times.to(device), straight(12.0, times, EGO).to(device), EGO.to(device))
    assert action.shape == (192,)
    assert action.device.type == device.type
    want = torch.zeros(64, 3)
    want[:, 0] = 12.0 * 0.1 * torch.arange(1, 65)
    torch.testing.assert_close(action.cpu().reshape(64, 3), want, atol=2e-4, rtol=0)


def test_a_plan_that_ends_early_stays_at_its_end_and_batches_agree() -> None:
    times = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    pose = straight(5.0, times, EGO)
    one = plan_action(times, pose, EGO, steps=30).reshape(30, 3)
    assert one[-1, 0] == pytest.approx(10.0, abs=1e-4)
    assert one[19, 0] == pytest.approx(10.0, abs=1e-4)
    assert one[9, 0] == pytest.approx(5.0, abs=1e-4)
    many = plan_action(
        times.expand(2, 3, 3), pose.expand(2, 3, 3, 3), EGO.expand(2, 3, 3), steps=30
    )
    assert torch.equal(many, one.flatten().expand(2, 3, 90))


def test_yaw_goes_the_shorter_way_round() -> None:
    ego = torch.tensor([0.0, 0.0, math.pi - 0.05])
    pose = torch.tensor([[0.0, 0.0, math.pi - 0.05], [-1.0, 0.0, -math.pi + 0.05]])
    action = plan_action(torch.tensor([0.0, 0.2]), pose, ego, steps=2).reshape(2, 3)
    assert action[0, 2] == pytest.approx(0.05, abs=1e-5)
    assert action[1, 2] == pytest.approx(0.10, abs=1e-5)


TIMES = torch.arange(65) * 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, p: (t[:-1], p), r"time \[..., N\], pose \[..., N, 3\].* got \[64\], \[65, 3\]"),
        (lambda t, p: (t, p[:, :2]), r"got \[65\], \[65, 2\]"),
        (lambda t, p: (t[:1], p[:1]), "at least 2 poses, got 1"),
        (lambda t, p: (t[:0], p[:0]), "at least 2 poses, got 0"),
        (lambda t, p: (t.flip(0), p), r"times that rise, got 0 s and then -0.0999"),
        (lambda t, p: (t * 0, p), "times that rise, got 0 s and then 0 s"),
        (lambda t, p: (t, p * math.nan), "finite numbers"),
        (lambda t, p: (t * math.inf, p), "finite numbers"),
        (lambda t, p: (t, p + torch.tensor([3.0, 4.0, 0.0])), "5 m and 0 rad away"),
        (lambda t, p: (t, p + torch.tensor([0.0, 0.0, 0.5])), "0 m and 0.5 rad away"),
    ],
)
def test_bad_plans_are_refused_with_the_reason(change, message) -> None:
    ego = torch.zeros(3)
    time, pose = change(TIMES, straight(10.0, TIMES, ego))
    with pytest.raises(ValueError, match=message):
        plan_action(time, pose, ego)


def test_the_plan_at_fault_is_named() -> None:
    ego = torch.zeros(4, 3)
    pose = straight(10.0, TIMES, ego[0]).repeat(4, 1, 1)
    pose[2, 5, 1] = math.nan
    with pytest.raises(ValueError, match="plan 2: expected finite"):
        plan_action(TIMES.expand(4, -1), pose, ego)
