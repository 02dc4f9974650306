"""The objective worked out by hand, option by option."""

from __future__ import annotations

import math

import pytest
import torch

from alpagym.grpo.loss import (
    behavior_weight,
    grpo_loss,
    kl_estimate,
    log_ratio,
    on_policy_mask,
    reduce_log_prob,
    step_weights,
)
from alpagym.training_config import ObjectiveConfig

CLIPS = {"clip_low": 0.2, "clip_high": 0.3}


def loss_of(ratios, advantage, valid=None, anchor=None, behavior=None, total=None, **options):
    """Log-probabilities and the loss of a table whose ratios are given; `old` is all zeros."""
    new = torch.tensor(ratios, dtype=torch.float64).log()
    new = (new if new.ndim == 2 else new[None]).requires_grad_()
    advantage = torch.tensor(advantage, dtype=torch.float64).expand_as(new)
    there = torch.ones_like(new, dtype=torch.bool) if valid is None else torch.tensor(valid)
    objective = ObjectiveConfig(**{**CLIPS, **options})
    old = torch.zeros_like(new)
    return new, grpo_loss(
        new, old, advantage, there, objective, anchor=anchor, behavior=behavior, total=total
    )


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "moves"),
    [
        (1.0, 2.0, -2.0, True),
        (1.1, 2.0, -2.2, True),
        (1.5, 2.0, -2.6, False),  # above the high clip: no more gain from a good action
        (1.5, -2.0, 3.0, True),  # but a bad one that became likelier is still pushed back
        (0.5, 2.0, -1.0, True),
        (0.5, -2.0, 1.6, False),  # below the low clip: bad enough
        (0.9, -2.0, 1.8, True),
    ],
)
def test_clipped_surrogate(ratio, advantage, expected, moves):
    log_prob, loss = loss_of([ratio], [advantage])
    assert loss.total.item() == pytest.approx(expected)
    loss.total.backward()
    # d(-r A)/d log_prob = -r A where not clipped.
    assert log_prob.grad.item() == pytest.approx(-ratio * advantage if moves else 0.0)
    assert loss.clip_fraction.item() == (0.0 if moves else 1.0)


@pytest.mark.parametrize(
    ("options", "ratio", "advantage", "expected"),
    [
        ({"clip_high": -1.0}, 9.0, 2.0, -18.0),  # no bound above
        ({"clip_low": -1.0}, 0.1, -2.0, 0.2),  # none below
        ({"dual_clip": 3.0}, 9.0, -2.0, 6.0),  # a bad action counts thrice at most
        ({"dual_clip": 3.0}, 2.0, -2.0, 4.0),
        ({"dual_clip": 3.0}, 9.0, 2.0, -2.6),  # and good ones are clipped as ever
        ({"truncate_ratio": 2.0}, 9.0, 2.0, -4.0),  # no clipping, no bound below
        ({"truncate_ratio": 2.0}, 0.1, -2.0, 0.2),
        ({"max_log_ratio": 1.0, "clip_high": -1.0}, 9.0, 1.0, -math.e),
    ],
)
def test_bounds_of_the_ratio(options, ratio, advantage, expected):
    assert loss_of([ratio], [advantage], **options)[1].total.item() == pytest.approx(expected)


def test_the_loss_is_a_mean_and_its_parts_are_reported():
    _, loss = loss_of([1.0, 1.5, 0.5, 1.1], [1.0, 2.0, -2.0, -1.0])
    assert loss.total.item() == pytest.approx((-1.0 - 2.6 + 1.6 + 1.1) / 4)
    assert loss.policy.item() == pytest.approx(loss.total.item())
    assert loss.kl.item() == 0.0
    assert loss.clip_fraction.item() == pytest.approx(0.5)
    assert loss.ratio_mean.item() == pytest.approx(4.1 / 4)
    assert loss.ratio_max.item() == pytest.approx(1.5)


TWO = [[1.0, 1.0], [1.1, 7.0]]
"""Ratios of two rollouts; the second lasts one step."""
THERE = [[True, True], [True, False]]


@pytest.mark.parametrize(
    ("average", "expected"),
    [
        ("step", -(1.0 + 1.1 + 1.0) / 3),
        ("rollout", -(2.1 / 2 + 1.0) / 2),
        ("rollout_sum", -(2.1 + 1.0) / 2),
        ("constant", -(2.1 / 5 + 1.0 / 5) / 2),
        ("sum", -3.1),
    ],
)
def test_averages(average, expected):
    options = {"average": average, "constant_steps": 5}
    log_prob, loss = loss_of(TWO, 1.0, THERE, **options)
    assert loss.total.item() == pytest.approx(expected)
    loss.total.backward()
    assert log_prob.grad[1, 1] == 0.0  # nothing is there
    # Parts of a batch add up to it, if each divides by what the whole does.
    _, total = step_weights(torch.tensor(THERE), average, 5, torch.float64)
    parts = [
        loss_of([[r[w]] for r in TWO], 1.0, [[t[w]] for t in THERE], total=total, **options)[1]
        for w in range(2)
    ]
    assert sum(p.total.item() for p in parts) == pytest.approx(expected)


def test_the_ratio_of_a_rollout_is_a_geometric_mean():
    new = torch.tensor([[0.2, -0.3], [0.4, 9.0]], dtype=torch.float64)
    there = torch.tensor(THERE)
    mean = log_ratio(new, torch.zeros_like(new), there, "rollout", 20.0)
    torch.testing.assert_close(mean, torch.tensor([[0.3, -0.3]] * 2).double())
    high = log_ratio(new + 50.0, torch.zeros_like(new), there, "rollout", 10.0)
    assert (high == 10.0).all()
    log_prob, loss = loss_of(TWO, 1.0, THERE, ratio="rollout", average="rollout")
    assert loss.total.item() == pytest.approx(-(math.sqrt(1.1) + 1.0) / 2)
    loss.total.backward()
    # Each of a rollout's steps moves its mean by one over their number.
    assert log_prob.grad[:, 0].tolist() == pytest.approx([-math.sqrt(1.1) / 4] * 2)


@pytest.mark.parametrize(
    ("kind", "expected", "slope"),
    [
        ("k1", [-math.log(2.0), math.log(2.0)], [1.0, 1.0]),
        ("k2", [0.5 * math.log(2.0) ** 2] * 2, [-math.log(2.0), math.log(2.0)]),
        ("k3", [1.0 - math.log(2.0), math.log(2.0) - 0.5], [-1.0, 0.5]),
    ],
)
def test_estimates_of_kl(kind, expected, slope):
    # d = anchor - new = log 2 and -log 2.
    anchor = torch.tensor([math.log(2.0), -math.log(2.0)], dtype=torch.float64)
    new = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    estimate = kl_estimate(new, anchor, kind)
    assert estimate.tolist() == pytest.approx(expected)
    estimate.sum().backward()
    assert new.grad.tolist() == pytest.approx(slope)


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_corrected_estimates_have_the_gradient_of_kl(kind):
    """Of two Gaussians of one spread: KL = (mean - other)^2 / 2, slope mean - other.

    Over draws of a third, weighed by the ratio to it.
    """
    mean = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(400_000, generator=torch.Generator().manual_seed(0)).double()

    def log_prob(center):
        return -0.5 * (x - center).square()

    new, old, anchor = log_prob(mean), log_prob(0.0), log_prob(-0.2)
    estimate = kl_estimate(new, anchor, kind, (new - old).exp()).mean()
    estimate.backward()
    assert estimate.item() == pytest.approx(0.125, abs=0.005)
    assert mean.grad.item() == pytest.approx(0.5, abs=0.01)


def test_kl_is_added_by_its_weight_and_pulls_toward_the_anchor():
    anchor = torch.tensor([[math.log(2.0), -math.log(2.0)]], dtype=torch.float64)
    log_prob, loss = loss_of([1.0, 1.0], [0.0, 0.0], anchor=anchor, kl_weight=0.1)
    assert loss.kl.item() == pytest.approx((1.0 - math.log(2.0) + math.log(2.0) - 0.5) / 2)
    assert loss.total.item() == pytest.approx(0.1 * 0.25)
    loss.total.backward()
    assert log_prob.grad[0].tolist() == pytest.approx([0.1 * -1.0 / 2, 0.1 * 0.5 / 2])


def test_no_kl_at_the_anchor_and_never_a_negative_one():
    generator = torch.Generator().manual_seed(0)
    new, anchor = torch.randn(2, 1000, generator=generator).double()
    assert (kl_estimate(new, new) == 0.0).all()
    assert (kl_estimate(new, anchor) >= 0.0).all()


def test_rollouts_that_moved_on_are_left_out_if_they_were_worse():
    behavior = torch.zeros(2, 3, dtype=torch.float64)
    new = torch.tensor([[-0.4, -0.4, -0.1], [-0.2, -0.2, -0.1]], dtype=torch.float64)
    advantage = torch.tensor([[-1.0, 1.0, -1.0]], dtype=torch.float64).expand(2, 3)
    there = torch.ones(2, 3, dtype=torch.bool)
    counts = on_policy_mask(new, behavior, advantage, there, 0.25)
    assert counts.tolist() == [[False, True, True]] * 2


def test_weights_of_the_behavior_policy():
    old = torch.tensor([0.0, 0.5, 1.0]).double()
    assert behavior_weight(old, torch.zeros(3).double(), 2.0).tolist() == pytest.approx(
        [1.0, math.exp(0.5), 0.0]  # e is above the cap
    )
    behavior = torch.full((1, 1), -0.5, dtype=torch.float64)
    _, loss = loss_of([1.0], [2.0], behavior=behavior)
    assert loss.total.item() == pytest.approx(-2.0 * math.exp(0.5))


def test_joint_and_mean_log_probability():
    log_prob = torch.tensor([[-1.0, -3.0], [0.5, 0.5]])
    assert reduce_log_prob(log_prob, "sum").tolist() == [-4.0, 1.0]
    assert reduce_log_prob(log_prob, "mean").tolist() == [-2.0, 0.5]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda t: reduce_log_prob(t, "max"), r"grpo\.log_prob: expected sum or mean, got max"),
        (
            lambda t: log_ratio(t, t, t > 0, "token", 1.0),
            r"grpo\.ratio: expected step or rollout, got token",
        ),
        (lambda t: kl_estimate(t, t, "k4"), r"grpo\.kl_estimate: expected k1, k2 or k3, got k4"),
        (lambda t: step_weights(t > 0, "token-mean"), r"grpo\.average: .* got token-mean"),
        (lambda t: step_weights(t > 0, "constant"), r"grpo\.constant_steps: .*, got 0"),
    ],
)
def test_what_is_not_there_is_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(torch.zeros(2, 2))
