"""The objective by hand, and rollouts that are the same whatever they are rolled beside."""

from __future__ import annotations

import math

import pytest
import torch

from alpagym import sim
from alpagym.config import (
    REWARD_PRESETS,
    GrpoConfig,
    PolicyConfig,
    Precision,
    RewardConfig,
    SimConfig,
)
from alpagym.grpo.advantage import group_advantages
from alpagym.grpo.loss import grpo_loss, reduce_log_prob
from alpagym.grpo.rollout import Roller
from alpagym.grpo.trainer import GrpoTrainer, Sampler, TrainingError
from alpagym.policies.late_fusion import LateFusion
from alpagym.scenarios.batch import batch, max_agents
from scenario_factory import STRAIGHT, Actor, crossing, curve, straight

CLIPS = {"clip_low": 0.2, "clip_high": 0.3}


def loss_of(ratio, advantage, **options):
    new = torch.tensor([math.log(r) for r in ratio], dtype=torch.float64, requires_grad=True)
    old = torch.zeros_like(new)
    return new, grpo_loss(new, old, torch.tensor(advantage).double(), **{**CLIPS, **options})


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


def test_the_loss_is_a_mean_and_its_parts_are_reported():
    _, loss = loss_of([1.0, 1.5, 0.5, 1.1], [1.0, 2.0, -2.0, -1.0])
    assert loss.total.item() == pytest.approx((-1.0 - 2.6 + 1.6 + 1.1) / 4)
    assert loss.policy.item() == pytest.approx(loss.total.item())
    assert loss.kl.item() == 0.0
    assert loss.clip_fraction.item() == pytest.approx(0.5)
    assert loss.ratio_max.item() == pytest.approx(1.5)


def test_k3_estimate_of_kl():
    # d = anchor - new = log 2 and -log 2: exp(d) - d - 1 = 1 - log 2 and log 2 - 1/2.
    anchor = torch.tensor([math.log(2.0), -math.log(2.0)], dtype=torch.float64)
    log_prob, loss = loss_of([1.0, 1.0], [0.0, 0.0], anchor_log_prob=anchor, kl_weight=0.1)
    assert loss.kl.item() == pytest.approx((1.0 - math.log(2.0) + math.log(2.0) - 0.5) / 2)
    assert loss.total.item() == pytest.approx(0.1 * 0.25)
    loss.total.backward()
    # d/d log_prob = 1 - exp(d): the policy is pulled toward the anchor.
    assert log_prob.grad.tolist() == pytest.approx([0.1 * -1.0 / 2, 0.1 * 0.5 / 2])


def test_no_kl_at_the_anchor_and_never_a_negative_one():
    generator = torch.Generator().manual_seed(0)
    new, anchor = torch.randn(2, 1000, generator=generator).double()
    args = (new, new, torch.zeros_like(new))
    assert grpo_loss(*args, **CLIPS, anchor_log_prob=new, kl_weight=1.0).total.item() == 0.0
    assert grpo_loss(*args, **CLIPS, anchor_log_prob=anchor).kl.item() > 0.0


def test_joint_and_mean_log_probability():
    log_prob = torch.tensor([[-1.0, -3.0], [0.5, 0.5]])
    assert reduce_log_prob(log_prob, "sum").tolist() == [-4.0, 1.0]
    assert reduce_log_prob(log_prob, "mean").tolist() == [-2.0, 0.5]
    with pytest.raises(ValueError, match=r"grpo\.log_prob: expected sum or mean, got max"):
        reduce_log_prob(log_prob, "max")


def test_gradient_at_ratio_one_is_that_of_the_weighted_log_probability(recording):
    policy, record = recording
    rows = record.valid.flatten().nonzero().squeeze(1)
    seen = record.observation.map(lambda t: t.flatten(0, 1)[rows])
    action = record.action.flatten(0, 1)[rows]
    advantage = torch.randn(len(rows), generator=torch.Generator().manual_seed(3))

    def gradient(make_loss):
        policy.zero_grad()
        make_loss(reduce_log_prob(policy.log_prob(seen, action), "sum")).backward()
        return torch.cat([p.grad.flatten() for p in policy.parameters()])

    surrogate = gradient(lambda new: grpo_loss(new, new.detach(), advantage, **CLIPS).total)
    plain = gradient(lambda new: -(advantage * new).mean())
    assert plain.norm() > 1e-3
    torch.testing.assert_close(surrogate, plain, rtol=1e-5, atol=1e-7)


# Rollouts

CONFIG = SimConfig(num_agents=4, num_road_points=8, num_route_points=6, num_lights=1)
GROUP = 4


def scenarios():
    """Some that end soon (a car stands in the way) and some that do not."""
    blocked = straight(Actor(STRAIGHT, 45.0, 0.0), name="blocked")
    return [blocked, straight(), curve(), crossing()]


def make_policy(seed=0, config=CONFIG):
    torch.manual_seed(seed)
    return LateFusion(PolicyConfig(width=8, hidden=16), config).eval()


def roller(chosen, num_groups, group_size=GROUP, num_steps=30):
    return Roller(
        batch(chosen),
        max_agents(chosen),
        num_groups=num_groups,
        group_size=group_size,
        num_steps=num_steps,
        config=CONFIG,
        weights=sim.make_weights(REWARD_PRESETS["dense"]),
    )


def roll(policy, chosen, index, seeds, **options):
    made = roller(chosen, len(index), **options)
    record = made.roll(policy, torch.tensor(index, dtype=torch.int32), torch.tensor(seeds))
    return made, record


@pytest.fixture(scope="module")
def recording():
    policy = make_policy()
    return policy, roll(policy, scenarios(), [0, 1, 2, 3], [11, 12, 13, 14])[1]


def test_the_same_seeds_give_the_same_bits(recording):
    policy, first = recording
    made, _ = roll(policy, scenarios(), [3, 2, 1, 0], [1, 2, 3, 4])
    again = made.roll(  # also from buffers that hold another rollout
        policy, torch.arange(4, dtype=torch.int32), torch.tensor([11, 12, 13, 14])
    )
    for name in ("reward", "terms", "valid"):
        assert torch.equal(getattr(first, name), getattr(again, name)), name
    going = first.valid
    assert not going.all()
    for name in ("action", "log_prob"):
        assert torch.equal(getattr(first, name)[going], getattr(again, name)[going]), name
    for name, tensor in first.observation.tensors().items():
        found = again.observation.tensors()[name]
        assert torch.equal(tensor[going], found[going]), name
        if name.endswith("_mask"):
            assert not found[~going].any(), name


def test_members_differ_and_so_do_seeds(recording):
    policy, record = recording
    first = record.action[0].view(4, GROUP, 2)
    assert (first[:, 1:] - first[:, :1]).abs().amin() > 0
    other = roll(policy, scenarios(), [0, 1, 2, 3], [11, 12, 13, 15])[1]
    same = (other.action[0] == record.action[0]).all(1).view(4, GROUP).all(1)
    assert same.tolist() == [True, True, True, False]


class Noted(torch.nn.Module):
    """A policy whose actions tell its noise, and that steers by it alone."""

    def sample(self, observation, noise):
        scale = torch.tensor([1.0, 0.001])
        return noise * scale, torch.zeros_like(noise)


def test_noise_is_the_same_in_any_batch():
    chosen = scenarios()
    whole = roll(Noted(), chosen, [0, 1, 2, 3], [11, 12, 13, 14])[1]
    alone = roll(Noted(), [chosen[2]], [0], [13])[1]
    assert torch.equal(whole.valid[:, 8:12], alone.valid)
    going = alone.valid
    assert torch.equal(whole.action[:, 8:12][going], alone.action[going])
    assert torch.equal(whole.reward[:, 8:12], alone.reward)


def test_a_group_rolled_alone_drives_as_among_others(recording, tol):
    policy, whole = recording
    chosen = scenarios()
    alone = roll(policy, [chosen[3], chosen[1]], [1], [12])[1]
    assert torch.equal(whole.valid[:, 4:8], alone.valid)
    # Matrix products of another batch size may round differently, by a few bits a step.
    torch.testing.assert_close(whole.action[:, 4:8], alone.action, rtol=0, atol=tol(1e-4))
    torch.testing.assert_close(whole.reward[:, 4:8], alone.reward, rtol=0, atol=tol(1e-3))


def test_worlds_that_are_done_record_nothing():
    def full_speed(seen, noise):
        return torch.tensor([2.0, 0.0]).expand(len(seen.ego), 2), noise

    driver = Noted()
    driver.sample = full_speed
    record = roll(driver, scenarios()[:2], [0, 1], [1, 2], num_steps=36)[1]
    blocked, free = record.valid[:, :GROUP], record.valid[:, GROUP:]
    # 15.4 m between the bumpers at 10 m/s and 2 m/s^2: the boxes overlap after 1.37 s.
    assert blocked.sum(0).tolist() == [14] * GROUP
    assert free.sum(0).tolist() == [35] * GROUP  # frames 5 to 40, then time is out
    assert (blocked.int().diff(dim=0) <= 0).all()  # never again
    assert (record.reward[~record.valid] == 0).all()
    assert (record.terms[~record.valid] == 0).all()
    hit = record.terms[13, :GROUP, sim.RewardTerm.COLLISION_AT_FAULT]
    assert hit.tolist() == [1.0] * GROUP
    assert record.steps == 4 * (14 + 35)


def test_recorded_log_probabilities_are_those_of_the_policy(recording, tol):
    policy, record = recording
    with torch.no_grad():
        now = policy.log_prob(record.observation, record.action)
    going = record.valid
    torch.testing.assert_close(now[going], record.log_prob[going], rtol=0, atol=tol(2e-3))


def test_log_probability_of_a_known_action():
    policy = make_policy()
    made = roller(scenarios(), 4)
    record = made.roll(policy, torch.arange(4, dtype=torch.int32), torch.arange(4))
    seen = record.observation.index(0)
    with torch.no_grad():
        action, log_prob = policy.sample(seen, torch.tensor([1.0, -2.0]).expand(4 * GROUP, 2))
        spread = policy.log_std.exp()
    expected = -0.5 * torch.tensor([1.0, 4.0]) - spread.log() - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(log_prob, expected.expand_as(log_prob))
    torch.testing.assert_close(policy.log_prob(seen, action), log_prob, rtol=0, atol=1e-3)
    # One deviation of the first dimension is exp(log_std) * 1.5 m/s^2.
    offset = (action - policy.mean(seen))[:, 0]
    torch.testing.assert_close(offset, 1.5 * spread[0].expand(4 * GROUP))


@pytest.mark.parametrize("none", ["num_agents", "num_road_points", "num_lights"])
def test_a_policy_may_be_blind_to_some_elements(none):
    config = SimConfig(**{none: 0})
    state = sim.make_state(2, 3)
    seen = sim.make_observation(state, config).map(lambda t: t.squeeze(1))
    assert make_policy(config=config).mean(seen).shape == (2, 2)


# The loop

TINY = GrpoConfig(iterations=1, group_size=4, scenarios_per_iteration=3, minibatch_size=64)


def trainer(config=TINY, reward=REWARD_PRESETS["dense"], sim_config=CONFIG, seed=0):
    chosen = scenarios()
    return GrpoTrainer(
        make_policy(seed, sim_config),
        batch(chosen),
        max_agents(chosen),
        config=config,
        sim_config=sim_config,
        reward=reward,
        seed=seed,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"credit": "episode", "scale": "group", "log_prob": "mean"},
        {"kl_weight": 0.1, "entropy_weight": 0.01, "scale": "none", "epochs": 2},
        {"scenarios_per_iteration": 9},  # more than there are
        {"precision": Precision.bfloat16},
    ],
)
def test_an_iteration_changes_the_policy_and_says_what_happened(changes):
    made = trainer(GrpoConfig(**{**vars(TINY), **changes}))
    before = [p.clone() for p in made.policy.parameters()]
    values = made.iterate(0)
    assert any(not torch.equal(a, b) for a, b in zip(before, made.policy.parameters(), strict=True))
    assert all(math.isfinite(v) for v in values.values()), values
    assert values["agent_steps"] == made.agent_steps > 0
    assert 0.0 <= values["failure_rate"] <= 1.0
    if made.anchor is not None:
        anchor = list(made.anchor.parameters())
        assert all(torch.equal(a, b) for a, b in zip(before, anchor, strict=True))


def test_the_same_seed_trains_the_same_policy():
    runs = [trainer(seed=5), trainer(seed=5)]
    for made in runs:
        made.train(lambda iteration, values: None)
    weights = [made.policy.state_dict() for made in runs]
    assert all(torch.equal(v, weights[1][k]) for k, v in weights[0].items())


def test_bfloat16_updates_begin_near_ratio_one_and_weights_stay_float32():
    once = {**vars(TINY), "minibatch_size": 100_000}
    del once["precision"]
    full, low = (trainer(GrpoConfig(**once, precision=p)) for p in Precision)
    values = low.iterate(0)
    full.iterate(0)
    assert values["ratio_max"] == pytest.approx(1.0, abs=0.03)
    pairs = list(zip(low.policy.parameters(), full.policy.parameters(), strict=True))
    assert all(a.dtype == torch.float32 for a, _ in pairs)
    assert any(not torch.equal(a, b) for a, b in pairs)  # it did compute otherwise


def test_nothing_is_learned_from_dead_groups_alone():
    made = trainer(reward=RewardConfig())  # all weights 0
    before = [p.clone() for p in made.policy.parameters()]
    values = made.iterate(0)
    assert values["dead_group_fraction"] == 1.0
    assert all(torch.equal(a, b) for a, b in zip(before, made.policy.parameters(), strict=True))


def test_a_shorter_episode_is_asked_for_by_max_steps():
    sim_config = SimConfig(**{**vars(CONFIG), "max_steps": 7})
    made = trainer(sim_config=sim_config)
    assert made.roller.num_steps == 7
    assert made.iterate(0)["episode_steps"] <= 7


def test_a_reward_that_is_not_finite_stops_with_its_cause():
    made = trainer(reward=RewardConfig(progress=math.nan))
    with pytest.raises(TrainingError) as caught:
        made.iterate(0)
    sentence = str(caught.value)
    for word in ("reward is not finite", "scenario", "seed", "member 0", "step 0", "the weights"):
        assert word in sentence, sentence
    assert "\n" not in sentence


def test_an_action_that_is_not_finite_stops_with_its_cause():
    made = trainer()
    made.policy.log_std.data.fill_(math.nan)
    with pytest.raises(
        TrainingError, match=r"action is not finite in scenario .* step 0, got .*nan"
    ):
        made.iterate(0)


def test_a_group_of_one_is_refused():
    with pytest.raises(ValueError, match=r"grpo\.group_size: expected at least 2.*got 1"):
        trainer(GrpoConfig(group_size=1))


def test_scenarios_of_dead_groups_are_drawn_less_often():
    sampler = Sampler(torch.ones(4), torch.Generator().manual_seed(0))
    for _ in range(10):
        sampler.report(torch.tensor([2], dtype=torch.int32), torch.tensor([True]))
    assert sampler.weight.tolist() == [1.0, 1.0, 1 / 16, 1.0]
    drawn = torch.cat([sampler.draw(1) for _ in range(600)])
    assert drawn.dtype == torch.int32
    assert 0 < (drawn == 2).sum() < 30  # 1/49 of 600 are expected, not 1/4
    sampler.report(torch.tensor([2], dtype=torch.int32), torch.tensor([False]))
    assert sampler.weight.tolist() == [1.0] * 4
    assert sorted(sampler.draw(4).tolist()) == [0, 1, 2, 3]
    assert len(sampler.draw(9)) == 9


def test_advantages_of_a_real_rollout_are_centered(recording):
    _, record = recording
    result = group_advantages(record.reward, record.valid, GROUP, scale="none")
    torch.testing.assert_close(
        result.advantage.view(-1, 4, GROUP).sum(-1), torch.zeros(30, 4), rtol=0, atol=1e-3
    )
