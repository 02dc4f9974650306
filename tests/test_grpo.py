"""Rollouts that are the same whatever they are rolled beside, and the loop around them."""

from __future__ import annotations

import math

import pytest
import torch

from alpagym import sim
from alpagym.config import REWARD_PRESETS, RewardConfig, SimConfig
from alpagym.grpo.advantage import group_advantages, reward_to_go
from alpagym.grpo.batches import shuffled_rollouts, shuffled_steps
from alpagym.grpo.critic import Critic, generalized_advantages
from alpagym.grpo.faults import TrainingError
from alpagym.grpo.loss import grpo_loss, reduce_log_prob
from alpagym.grpo.rollout import Roller
from alpagym.grpo.sampler import Sampler
from alpagym.grpo.trainer import GrpoTrainer
from alpagym.imitation import demonstrate
from alpagym.policies.late_fusion import LateFusion
from alpagym.policies.policy import Policy
from alpagym.scenarios.batch import batch, max_agents
from alpagym.training_config import (
    GRPO_PRESETS,
    GrpoConfig,
    ObjectiveConfig,
    PolicyConfig,
    Precision,
)
from scenario_factory import STRAIGHT, Actor, crossing, curve, straight


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

    def surrogate(new):
        there = torch.ones(1, len(new), dtype=torch.bool)
        table = new[None]
        return grpo_loss(table, table.detach(), advantage[None], there, ObjectiveConfig()).total

    plain = gradient(lambda new: -(advantage * new).mean())
    assert plain.norm() > 1e-3
    torch.testing.assert_close(gradient(surrogate), plain, rtol=1e-5, atol=1e-7)


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

    action_of = Policy.action_of

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

SMALL = {"iterations": 1, "group_size": 4, "scenarios_per_iteration": 3, "minibatch_size": 64}
TINY = GrpoConfig(**SMALL)


def trainer(config=TINY, reward=REWARD_PRESETS["dense"], sim_config=CONFIG, seed=0):
    chosen = scenarios()
    policy, packed = make_policy(seed, sim_config), batch(chosen)
    by_critic = config.baseline == "critic"
    shown = config.imitation_weight > 0.0
    return GrpoTrainer(
        policy,
        packed,
        max_agents(chosen),
        config=config,
        sim_config=sim_config,
        reward=reward,
        seed=seed,
        critic=Critic(PolicyConfig(width=8, hidden=16), sim_config) if by_critic else None,
        demonstrations=demonstrate(packed, max_agents(chosen), sim_config) if shown else None,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"credit": "episode", "scale": "group", "log_prob": "mean"},
        {"kl_weight": 0.1, "entropy_weight": 0.01, "scale": "none", "epochs": 2},
        {"scenarios_per_iteration": 9},  # more than there are
        {"precision": Precision.bfloat16},
        {"refills": 2},
        {"branch_within": 20},
        {"forked": False, "baseline": "leave_one_out"},
        {"imitation_weight": 0.5, "imitation_batch": 16},
        {"off_policy_limit": 0.01, "epochs": 2},
        *[{**vars(preset), **SMALL} for preset in GRPO_PRESETS.values()],
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
    if made.learner.anchor is not None:
        anchor = list(made.learner.anchor.parameters())
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


# Options of the loop


def test_groups_fork_in_the_middle_of_a_drive():
    """A lead of 5 steps: members are where the policy was after 5 steps, and part from there."""
    policy, chosen = make_policy(), scenarios()
    made = roller(chosen, 4)
    index, seeds = torch.arange(4, dtype=torch.int32), torch.tensor([11, 12, 13, 14])
    first = made.roll(policy, index, seeds).observation.ego[0].clone()
    branched = made.roll(policy, index, seeds, torch.tensor([0, 5, 10, 10_000]))
    ego = branched.observation.ego[0].view(4, GROUP, -1)
    assert (ego == ego[:, :1]).all()  # one state a group
    moved = (ego[:, 0] != first.view(4, GROUP, -1)[:, 0]).any(1)
    assert moved.tolist() == [False, True, True, False]  # no drive lasts 10,000 steps
    parted = branched.action[0].view(4, GROUP, 2)
    assert (parted[:, 1:] - parted[:, :1]).abs().amin() > 0
    steps = branched.valid.sum(0).view(4, GROUP)
    whole = chosen[1].num_steps
    assert steps[1].tolist() == [min(30, whole - 5)] * GROUP
    again = made.roll(policy, index, seeds, torch.tensor([0, 5, 10, 10_000]))
    assert torch.equal(branched.reward, again.reward)


def test_independent_rollouts_each_have_a_scenario_of_their_own():
    made = trainer(GrpoConfig(**{**SMALL, "forked": False}))
    assert (made.roller.num_groups, made.roller.group_size) == (12, 1)
    assert (made.sampler.weight == 1.0).all()
    made.iterate(0)
    assert (made.sampler.weight == 1.0).all()  # no group of one scenario that could be dead


def test_rolling_again_fills_up_with_live_groups(monkeypatch):
    """Every second group is dead: three of six are alive after two rollouts."""
    made = trainer(GrpoConfig(**{**SMALL, "refills": 5}))
    compare, lessons = made._compare, []

    def with_dead(*rolled):
        compared, wanted = compare(*rolled)
        compared.dead[:] = torch.tensor([False, True, False])
        compared.advantage.view(-1, 3, 4)[:, 1] = 0.0
        return compared, wanted

    update = made.learner.update
    monkeypatch.setattr(made, "_compare", with_dead)
    monkeypatch.setattr(made.learner, "update", lambda x: lessons.append(x) or update(x))
    values = made.iterate(0)
    assert values["refills"] == 1
    assert lessons[0].action.shape[1] == 3 * 4
    assert (lessons[0].advantage != 0).any(0).view(3, 4).any(1).all()
    assert values["agent_steps"] > lessons[0].valid.sum()  # dead groups were driven, too


def test_an_anchor_may_follow_the_policy():
    config = GrpoConfig(**{**SMALL, "kl_weight": 0.1, "anchor_decay": 0.75})
    made = trainer(config)
    before = [p.clone() for p in made.learner.anchor.parameters()]
    made.iterate(0)
    pairs = zip(before, made.learner.anchor.parameters(), made.policy.parameters(), strict=True)
    for old, anchor, now in pairs:
        torch.testing.assert_close(anchor, 0.75 * old + 0.25 * now)


def test_imitation_pulls_toward_the_record():
    """With nothing to gain, only the record is left to learn from."""
    config = GrpoConfig(**{**SMALL, "imitation_weight": 10.0, "learning_rate": 1e-2})
    made = trainer(config, sim_config=SimConfig(**{**vars(CONFIG), "max_steps": 12}))
    values = [made.iterate(i)["imitation_loss"] for i in range(12)]
    assert values[-1] < 0.5 * values[0]


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match=r"grpo\.baseline=critic: expected a critic"):
        GrpoTrainer(
            make_policy(),
            batch(scenarios()),
            max_agents(scenarios()),
            config=GrpoConfig(baseline="critic"),
            sim_config=CONFIG,
            reward=REWARD_PRESETS["dense"],
            seed=0,
        )
    with pytest.raises(ValueError, match=r"grpo\.imitation_weight: expected demonstrations"):
        GrpoTrainer(
            make_policy(),
            batch(scenarios()),
            max_agents(scenarios()),
            config=GrpoConfig(imitation_weight=1.0),
            sim_config=CONFIG,
            reward=REWARD_PRESETS["dense"],
            seed=0,
        )


def test_generalized_advantages_by_hand():
    """Discount 1/2, lambda 1/2; the second rollout ends after its first step."""
    reward = torch.tensor([[1.0, 3.0], [2.0, 9.0], [4.0, 9.0]])
    value = torch.tensor([[2.0, 1.0], [4.0, 9.0], [1.0, 9.0]])
    there = torch.tensor([[True, True], [True, False], [True, False]])
    found = generalized_advantages(reward * there, value, there, 0.5, 0.5)
    # d_2 = 4 - 1, d_1 = 2 + 1/2 - 4, d_0 = 1 + 4/2 - 2; A_t = d_t + A_{t+1} / 4.
    third, second = 3.0, -1.5 + 3.0 / 4
    wanted = [[1.0 + second / 4, 2.0], [second, 0.0], [third, 0.0]]
    torch.testing.assert_close(found.advantage, torch.tensor(wanted))
    torch.testing.assert_close(found.wanted, (torch.tensor(wanted) + value) * there)
    whole = generalized_advantages(reward * there, value, there, 0.5, 1.0)
    returns = reward_to_go(reward * there, 0.5)
    torch.testing.assert_close(whole.wanted, returns * there)


def test_a_critic_learns_what_to_expect():
    config = GrpoConfig(**{**vars(GRPO_PRESETS["ppo"]), **SMALL, "critic_learning_rate": 1e-2})
    made = trainer(config, sim_config=SimConfig(**{**vars(CONFIG), "max_steps": 12}))
    losses = [made.iterate(i)["critic_loss"] for i in range(12)]
    assert min(losses[-3:]) < 0.5 * losses[0]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_batches_hold_every_step_once(size):
    generator = torch.Generator().manual_seed(1)
    there = torch.rand(9, 6, generator=generator).sort(0, descending=True).values > 0.4
    teaches = there & (torch.arange(6) != 2)
    values = torch.arange(54.0)
    for batches, wanted in (
        (shuffled_steps(teaches, size, generator), teaches),
        (shuffled_rollouts(teaches, there, size, generator), teaches),
    ):
        rows = torch.cat([b.rows for b in batches])
        assert sorted(rows.tolist()) == torch.nonzero(wanted.flatten()).squeeze(1).tolist()
        for b in batches:
            table = b.table(values[b.rows])
            assert table.flatten()[b.place].tolist() == values[b.rows].tolist()
            assert (table != 0).sum() == (values[b.rows] != 0).sum()
    for b in shuffled_rollouts(teaches, there, size, generator):
        step, world = b.rows // 6, b.rows % 6
        place_step, column = b.place // b.shape[1], b.place % b.shape[1]
        assert torch.equal(step, place_step)
        assert len(set(zip(column.tolist(), world.tolist(), strict=True))) == b.shape[1]
    assert shuffled_steps(torch.zeros(3, 3, dtype=torch.bool), 4, generator) == []
    nothing = torch.zeros(3, 3, dtype=torch.bool)
    assert shuffled_rollouts(nothing, ~nothing, 4, generator) == []
