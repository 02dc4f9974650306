"""Advantages worked out by hand, and what must not change them."""

from __future__ import annotations

import pytest
import torch

from alpagym.grpo.advantage import group_advantages, reward_to_go


def advantages(reward, valid=None, group_size=2, **options):
    reward = torch.tensor(reward, dtype=torch.float64)
    valid = torch.ones_like(reward, dtype=torch.bool) if valid is None else torch.tensor(valid)
    return group_advantages(reward, valid, group_size, **{"scale": "none", **options})


def close(actual, expected):
    torch.testing.assert_close(
        actual, torch.tensor(expected, dtype=actual.dtype), rtol=0, atol=1e-5
    )


def test_reward_to_go_is_discounted_from_each_step_on():
    reward = torch.tensor([[1.0, 0.0], [2.0, 4.0], [4.0, 8.0]])
    close(reward_to_go(reward, 0.5), [[3.0, 4.0], [4.0, 8.0], [4.0, 8.0]])
    close(reward_to_go(reward, 1.0), [[7.0, 12.0], [6.0, 12.0], [4.0, 8.0]])
    close(reward_to_go(reward, 0.0), reward.tolist())


def test_step_credit_compares_what_lies_ahead():
    # Rewards to go: (6, 2), (5, 2), (3, 0); their means 4, 3.5, 1.5.
    result = advantages([[1.0, 0.0], [2.0, 2.0], [3.0, 0.0]])
    close(result.advantage, [[2.0, -2.0], [1.5, -1.5], [1.5, -1.5]])
    close(result.returns, [[6.0, 2.0]])
    assert not result.dead.any()


def test_step_credit_with_discount():
    # Rewards to go: (1 + 2/2 + 3/4, 0 + 2/2 + 0), (2 + 3/2, 2), (3, 0).
    result = advantages([[1.0, 0.0], [2.0, 2.0], [3.0, 0.0]], discount=0.5)
    close(result.advantage, [[0.875, -0.875], [0.75, -0.75], [1.5, -1.5]])
    close(result.returns, [[6.0, 2.0]])  # never discounted


def test_step_credit_compares_only_members_that_still_drive():
    # The third member ends after the first step, with -9.
    reward = [[1.0, 3.0, -9.0], [2.0, 4.0, 0.0]]
    valid = [[True, True, True], [True, True, False]]
    result = advantages(reward, valid, 3)
    mean = (3.0 + 7.0 - 9.0) / 3
    close(result.advantage, [[3 - mean, 7 - mean, -9 - mean], [-1.0, 1.0, 0.0]])


def test_a_lone_survivor_has_nobody_to_compare_with():
    result = advantages([[1.0, 0.0], [5.0, 0.0]], [[True, True], [True, False]])
    close(result.advantage, [[3.0, -3.0], [0.0, 0.0]])


@pytest.mark.parametrize("discount", [1.0, 0.5])
def test_episode_credit_gives_every_step_the_return_less_that_of_all_members(discount):
    # Returns 6 and 2; the second member ends early, the first is still better than it afterwards.
    reward = [[1.0, 2.0], [2.0, 0.0], [3.0, 0.0]]
    valid = [[True, True], [True, False], [True, False]]
    result = advantages(reward, valid, credit="episode", discount=discount)
    close(result.advantage, [[2.0, -2.0], [2.0, 0.0], [2.0, 0.0]])


def test_episode_credit_with_group_scale_is_the_standardized_return():
    # Returns 6, 2, 1 of one group: AlpaGym's (r - mean) / (population deviation + 1e-6).
    returns = torch.tensor([6.0, 2.0, 1.0], dtype=torch.float64)
    expected = (returns - 3.0) / (14.0 / 3.0) ** 0.5
    reward = [[6.0, 2.0, 1.0], [0.0, 0.0, 0.0]]
    valid = [[True, True, True], [True, False, True]]
    result = advantages(reward, valid, 3, credit="episode", scale="group")
    close(result.advantage[0], expected.tolist())
    close(result.advantage[1], [float(expected[0]), 0.0, float(expected[2])])


def test_scales_of_two_groups():
    reward = [[3.0, 1.0, 30.0, 10.0]]  # differences 1, -1, 10, -10
    close(advantages(reward).advantage, [[1.0, -1.0, 10.0, -10.0]])
    close(advantages(reward, scale="group").advantage, [[1.0, -1.0, 1.0, -1.0]])
    spread = (202.0 / 4.0) ** 0.5
    expected = [[1 / spread, -1 / spread, 10 / spread, -10 / spread]]
    close(advantages(reward, scale="batch").advantage, expected)


def test_batch_scale_counts_valid_steps_only():
    reward, valid = [[3.0, 1.0], [0.0, 0.0]], [[True, True], [False, False]]
    close(advantages(reward, valid, scale="batch").advantage, [[1.0, -1.0], [0.0, 0.0]])


def test_rewards_where_not_valid_are_ignored():
    valid = [[True, True], [True, False]]
    clean = advantages([[1.0, 0.0], [2.0, 0.0]], valid)
    dirty = advantages([[1.0, 0.0], [2.0, 99.0]], valid)
    assert torch.equal(clean.advantage, dirty.advantage)
    assert torch.equal(clean.returns, dirty.returns)


@pytest.mark.parametrize("credit", ["step", "episode"])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_groups_of_equal_returns_are_dead(credit, scale):
    # The first group's steps differ, its returns do not.
    reward = [[1.0, 2.0, 5.0, 1.0], [2.0, 1.0, 0.0, 0.0]]
    result = advantages(reward, credit=credit, scale=scale)
    assert result.dead.tolist() == [True, False]
    assert (result.advantage[:, :2] == 0).all()
    assert (result.advantage[0, 2:] != 0).all()
    assert advantages([[1.0, 1.0 + 1e-8]]).dead.all()
    assert not advantages([[1.0, 1.0 + 1e-3]]).dead.any()


def test_all_dead_groups_give_finite_zeros():
    result = advantages([[13 * -7.3] * 4], scale="group")
    assert result.dead.all()
    assert (result.advantage == 0).all()


def drawn(seed=0, steps=12, groups=3, group_size=4):
    generator = torch.Generator().manual_seed(seed)
    worlds = groups * group_size
    reward = torch.randn(steps, worlds, generator=generator, dtype=torch.float64)
    length = torch.randint(3, steps + 1, (worlds,), generator=generator)
    valid = torch.arange(steps)[:, None] < length
    return reward * valid, valid, group_size


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_a_bonus_that_all_members_get_at_a_step_changes_nothing(scale, discount):
    reward, valid, size = drawn()
    before = group_advantages(reward, valid, size, scale=scale, discount=discount)
    assert valid[2].all()
    reward[2, :size] += 100.0  # the first group, while all of it drives
    after = group_advantages(reward, valid, size, scale=scale, discount=discount)
    torch.testing.assert_close(before.advantage, after.advantage, rtol=0, atol=1e-9)


@pytest.mark.parametrize("credit", ["step", "episode"])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_permuting_members_and_groups_permutes(credit, scale):
    reward, valid, size = drawn(1)
    order = torch.tensor([5, 7, 4, 6, 1, 0, 3, 2, 8, 10, 11, 9])
    options = {"credit": credit, "scale": scale}
    straight = group_advantages(reward, valid, size, **options)
    permuted = group_advantages(reward[:, order], valid[:, order], size, **options)
    torch.testing.assert_close(permuted.advantage, straight.advantage[:, order])
    assert torch.equal(permuted.dead, straight.dead[[1, 0, 2]])


@pytest.mark.parametrize("scale", ["group", "batch"])
def test_scaling_all_rewards_changes_nothing_when_scaled(scale):
    reward, valid, size = drawn(2)
    small = group_advantages(reward, valid, size, scale=scale).advantage
    large = group_advantages(1000.0 * reward, valid, size, scale=scale).advantage
    torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"credit": "future"}, "grpo.credit: expected step or episode, got future"),
        ({"scale": "std"}, "grpo.scale: expected group, batch or none, got std"),
    ],
)
def test_unknown_words_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        advantages([[1.0, 2.0]], **options)


def test_a_group_that_differs_only_by_noise_is_dead_beside_one_that_matters():
    # Two of four members crash in the first group; the second's returns differ by comfort noise.
    reward = torch.tensor([[10.0, 10.0, -10.0, -10.0, 8.0, 8.05, 8.1, 8.02]])
    valid = torch.ones_like(reward, dtype=torch.bool)
    compared = group_advantages(reward, valid, 4)
    assert compared.dead.tolist() == [False, True]
    assert (compared.advantage[0, 4:] == 0).all()
    alone = group_advantages(reward[:, 4:], valid[:, 4:], 4)  # beside nothing that matters more
    assert alone.dead.tolist() == [False]
