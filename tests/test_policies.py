"""What every policy keeps to, and what those with plans and those of users do besides."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from alpagym import cli, sim
from alpagym.checkpoint import CheckpointError, load_policy, save_policy
from alpagym.config import REWARD_PRESETS, ActionType, RowFormat, SimConfig
from alpagym.evaluation import evaluate
from alpagym.grpo.advantage import between_decisions, group_advantages, reward_to_go
from alpagym.grpo.critic import Critic
from alpagym.grpo.rollout import Roller
from alpagym.grpo.trainer import GrpoTrainer
from alpagym.imitation import demonstrate, imitate, imitation_loss
from alpagym.interop.alpamayo import action_space
from alpagym.policies import GaussianPolicy, Policy
from alpagym.policies.gaussian import ACCEL_SCALE
from alpagym.policies.registry import load_weights, make_policy
from alpagym.policies.trajectory import hat_functions, waypoints
from alpagym.scenarios.batch import batch, max_agents
from alpagym.scenarios.procedural import generate_many
from alpagym.training_config import GRPO_PRESETS, GrpoConfig, ImitationConfig, PolicyConfig
from scenario_factory import STRAIGHT, Actor, crossing, curve, straight
from test_capture import Told

RANGES = {"progress": (0.0, 0.3), "lane": (-2.0, 0.0)}
SMALL = PolicyConfig(width=8, hidden=16)
SIM = SimConfig(num_agents=3, num_road_points=6, num_route_points=5, num_lights=1)
PLAN = replace(SIM, replan_every=4, plan_steps=20)
GAUSSIAN = replace(SMALL, kind="trajectory", knots=6)
FLOW = replace(GAUSSIAN, head="flow_matching", flow_steps=3)


class Mine(GaussianPolicy):
    """Two controls at a time, from the ego's features alone."""

    def __init__(self, config, sim_config, ranges=None):
        super().__init__(steps=sim_config.replan_every, log_std=config.log_std)
        self.net = torch.nn.Linear(10, 2 * sim_config.replan_every)

    def forward(self, seen):
        return self.net(0.1 * seen.ego[..., :10])


KINDS = {
    "late_fusion": (SMALL, SIM),
    "history": (replace(SMALL, history=3), SIM),
    "gaussian": (GAUSSIAN, PLAN),
    "every_step": (replace(GAUSSIAN, knots=20), PLAN),
    "waypoints": (GAUSSIAN, replace(PLAN, action=ActionType.trajectory, plan_steps=40)),
    "flow_matching": (FLOW, PLAN),
    "plans_with_history": (replace(FLOW, history=2), PLAN),
    "user": (replace(SMALL, kind=f"{__name__}:Mine"), replace(SIM, replan_every=2)),
}


def made(name: str, ranges=None, seed: int = 0) -> tuple[Policy, SimConfig]:
    config, sim_config = KINDS[name]
    torch.manual_seed(seed)
    policy = make_policy(config, sim_config, ranges).eval()
    with torch.no_grad():  # as if learned: a last layer that says something
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return policy, sim_config


def sizes_of(policy: Policy, config: SimConfig) -> tuple[int, int, int, int]:
    n = sim.action_size(config)
    if policy.sizes is None:
        return n, n, n, 0
    return tuple(vars(policy.sizes).values())


def seen_by(policy: Policy, config: SimConfig, worlds: int = 5, seed: int = 1):
    """What egos of real scenarios see, with whatever the policy wants behind the features."""
    hosts = generate_many(worlds, seed)
    packed = batch(hosts)
    state = sim.make_state(worlds, max_agents(hosts), config=config)
    state.scenario.copy_(torch.arange(worlds))
    params, seen = sim.make_params(config), sim.make_observation(state, config)
    sim.reset(packed, state, torch.ones(worlds, dtype=torch.bool), params)
    sim.observe(packed, state, seen, params)
    now = seen.map(lambda t: t.squeeze(1))
    behind = sizes_of(policy, config)[3] + len(policy.ranges)
    generator = torch.Generator().manual_seed(seed)
    more = torch.rand(worlds, behind, generator=generator)
    return replace(now, ego=torch.cat([now.ego, more], -1))


def noise_for(policy: Policy, config: SimConfig, worlds: int = 5, seed: int = 2):
    size = sizes_of(policy, config)[0]
    return torch.randn(worlds, size, generator=torch.Generator().manual_seed(seed))


def assert_alike(found, expected) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("ranges", [None, RANGES], ids=["plain", "weights"])
def test_the_log_probability_of_a_sample_is_the_one_that_came_with_it(name, ranges) -> None:
    policy, config = made(name, ranges)
    seen, noise = seen_by(policy, config), noise_for(policy, config)
    decision, log_prob = policy.sample(seen, noise)
    _, size, dimensions, memory = sizes_of(policy, config)
    assert decision.shape == (5, size)
    assert log_prob.shape == (5, dimensions)
    assert_alike(policy.log_prob(seen, decision), log_prob)
    action = policy.action_of(seen, decision)
    assert action.shape == policy.mean(seen).shape == (5, sim.action_size(config))
    assert action.isfinite().all()
    assert policy.remember(seen).shape == (5, memory)
    assert policy.entropy().shape == ()
    other = policy.sample(seen, noise_for(policy, config, seed=3))[0]
    assert (other != decision).any(1).all()


@pytest.mark.parametrize("name", KINDS)
def test_what_one_world_gets_does_not_depend_on_the_others(name) -> None:
    policy, config = made(name)
    seen, noise = seen_by(policy, config), noise_for(policy, config)
    recorded = torch.randn(5, 2 * policy.imitates) * torch.tensor([1.0, 0.01] * policy.imitates)
    drawn = torch.randn(5, policy.imitation_noise)
    decision, log_prob = policy.sample(seen, noise)
    whole = [decision, log_prob, policy.mean(seen), policy.deviation(seen, recorded, drawn)]
    for w in range(5):
        rows = slice(w, w + 1)
        one = seen.index(rows)
        parts = [*policy.sample(one, noise[rows]), policy.mean(one)]
        parts.append(policy.deviation(one, recorded[rows], drawn[rows]))
        for found, expected in zip(parts, whole, strict=True):
            assert_alike(found, expected[rows])
    # leading dimensions are free: [T, W, ...] as the learner may give it
    twice = seen.map(lambda t: torch.stack([t, t]))
    assert_alike(policy.log_prob(twice, torch.stack([decision, decision]))[1], log_prob)


@pytest.mark.parametrize("name", KINDS)
def test_elements_that_are_masked_do_not_matter(name) -> None:
    policy, config = made(name)
    seen, noise = seen_by(policy, config), noise_for(policy, config)
    seen.agents_mask[:, 1] = seen.road_mask[:, 2] = False
    other = seen.clone()
    other.agents[:, 1], other.road[:, 2] = 3.0, -2.0
    assert torch.equal(policy.sample(seen, noise)[0], policy.sample(other, noise)[0])


@pytest.mark.parametrize("name", KINDS)
def test_gradients_are_those_of_finite_differences(name) -> None:
    policy, config = made(name)
    policy = policy.double()
    seen = seen_by(policy, config, worlds=3).map(
        lambda t: t.double() if t.is_floating_point() else t
    )
    noise = noise_for(policy, config, worlds=3).double()
    recorded = 0.1 * torch.randn(3, 2 * policy.imitates, dtype=torch.float64)
    drawn = torch.randn(3, policy.imitation_noise, dtype=torch.float64)
    decision = policy.sample(seen, noise)[0].detach() + 0.01

    def values() -> torch.Tensor:
        far = policy.deviation(seen, recorded, drawn).square().sum()
        return policy.log_prob(seen, decision).sum() + far + policy.entropy()

    policy.zero_grad()
    values().backward()
    generator = torch.Generator().manual_seed(4)
    for label, parameter in policy.named_parameters():
        assert parameter.grad is not None, label
        if not parameter.grad.any():
            assert "lights" in label, label  # of which there are none here
            continue
        with torch.no_grad():
            way = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            step = 1e-6 / way.norm()
            parameter.add_(step * way)
            above = values()
            parameter.sub_(2 * step * way)
            below = values()
            parameter.add_(step * way)
        slope = float((above - below) / (2 * step))
        expected = float((parameter.grad * way).sum())
        assert slope == pytest.approx(expected, rel=1e-3, abs=1e-3), label


def test_the_density_of_a_plan_is_that_of_the_knots_that_are_driven() -> None:
    policy, config = made("gaussian")
    seen, noise = seen_by(policy, config), noise_for(policy, config)
    # 20 steps and 6 knots: 3.8 steps apart, so that 4 steps depend on two knots.
    assert policy.sizes.log_prob == policy.deciding == 4
    decision, log_prob = policy.sample(seen, noise)
    later = decision.clone()
    later[:, policy.deciding :] += 1.0
    assert torch.equal(policy.action_of(seen, later), policy.action_of(seen, decision))
    assert torch.equal(policy.log_prob(seen, later), policy.log_prob(seen, decision))
    sooner = decision.clone()
    sooner[:, policy.deciding - 1] += 1.0
    assert (policy.action_of(seen, sooner) != policy.action_of(seen, decision)).any()
    spread = policy.log_std[:4]
    expected = -0.5 * noise[:, :4].square() - spread - 0.5 * math.log(2 * math.pi)
    assert_alike(log_prob, expected)


def test_the_controller_follows_no_knots_but_those() -> None:
    policy, config = made("waypoints")
    # Of 40 steps it may look at 24, and 6 knots are 7.8 steps apart: the first four.
    assert policy.deciding == 8
    seen = seen_by(policy, config)
    decision = policy.sample(seen, noise_for(policy, config))[0].detach()
    drives = []
    for first in (decision.shape[1], policy.deciding, policy.deciding - 2):
        changed = decision.clone()
        changed[:, first:] += 0.5
        hosts = generate_many(5, 1)
        state = sim.make_state(5, max_agents(hosts), config=config)
        state.scenario.copy_(torch.arange(5))
        packed, params, outcome = batch(hosts), sim.make_params(config), sim.make_outcome(state)
        sim.reset(packed, state, torch.ones(5, dtype=torch.bool), params)
        action = policy.action_of(seen, changed).unsqueeze(1)
        for _ in range(config.replan_every):
            sim.step(packed, state, outcome, action, torch.zeros(1, 14), params)
        drives.append(torch.stack([state.x, state.y, state.yaw, state.speed]).clone())
    assert torch.equal(drives[0], drives[1])
    assert not torch.equal(drives[0], drives[2])


def test_with_as_many_knots_as_steps_plans_are_alpamayos() -> None:
    policy, config = made("every_step")
    assert torch.equal(policy.hats, torch.eye(20))
    seen = seen_by(policy, config)
    decision = policy.sample(seen, noise_for(policy, config))[0]
    plan = policy.plan(seen, decision)
    assert_alike(plan[..., 0], ACCEL_SCALE * decision.unflatten(-1, (20, 2))[..., 0])
    assert torch.equal(policy.action_of(seen, decision), plan[:, :4].flatten(1))


@pytest.mark.parametrize(("steps", "knots"), [(64, 16), (64, 1), (1, 1), (20, 20), (64, 64)])
def test_knots_carry_straight_lines_exactly(steps, knots) -> None:
    hats = hat_functions(steps, knots)
    torch.testing.assert_close(hats.sum(1), torch.ones(steps))
    if knots > 1:
        line = torch.linspace(-1.0, 2.0, steps)
        torch.testing.assert_close(hats @ torch.linspace(-1.0, 2.0, knots), line)


def test_waypoints_are_those_of_the_simulators_unicycle() -> None:
    generator = torch.Generator().manual_seed(0)
    plan = torch.randn(40, 2, generator=generator) * torch.tensor([1.5, 0.05])
    plan[10:25, 0] = -6.0  # to a standstill, and on from there
    scenario = straight(ego=Actor(STRAIGHT, 20.0, 5.0), frames=80)
    config = replace(SIM, end_on=(), max_steps=60, min_accel=-9.0)
    packed, params = batch([scenario]), sim.make_params(config)
    state = sim.make_state(1, max_agents([scenario]))
    outcome, weights = sim.make_outcome(state), torch.zeros(1, len(sim.RewardTerm))
    sim.reset(packed, state, torch.ones(1, dtype=torch.bool), params)
    axle = float(packed.agent[0, 3])

    def rear() -> torch.Tensor:
        yaw = state.yaw[0, 0]
        at = torch.stack([state.x[0, 0], state.y[0, 0]])
        return torch.cat([at - axle * torch.stack([yaw.cos(), yaw.sin()]), yaw[None]])

    first, poses = rear().clone(), []
    found = waypoints(plan, state.speed[0, 0])
    for control in plan:
        sim.step(packed, state, outcome, control.view(1, 1, 2), weights, params)
        poses.append(rear() - first)
    assert (state.speed >= 0).all()
    torch.testing.assert_close(found, torch.stack(poses), rtol=0, atol=2e-3)
    # and, while nothing brakes below 0, those of Alpamayo's own decoder
    gentle = torch.randn(64, 2, generator=generator) * torch.tensor([0.5, 0.02])
    history = torch.zeros(16, 3)
    history[:, 0] = 10.0 * 0.1 * torch.arange(-15, 1)
    rotation = torch.tensor([1.0, 0.0]).expand(16, 2)
    theirs, _ = action_space.decode(action_space.normalize(gentle), history, rotation)
    speed = action_space.estimate_speed(history, rotation)
    torch.testing.assert_close(waypoints(gentle, speed)[:, :2], theirs[:, :2], rtol=0, atol=2e-2)


# Rollouts


def roller(policy: Policy, config: SimConfig, hosts, steps: int = 18, group: int = 3, **options):
    return Roller(
        batch(hosts),
        max_agents(hosts),
        num_groups=len(hosts),
        group_size=group,
        num_steps=steps,
        config=config,
        weights=sim.make_weights(REWARD_PRESETS["dense"]),
        observed=policy.ranges,
        sizes=policy.sizes,
        **options,
    )


def hosts_of_rollouts():
    blocked = straight(Actor(STRAIGHT, 38.0, 0.0), name="blocked")
    return [blocked, straight(), curve(), crossing()]


def roll(policy, config, *, index=(0, 1, 2, 3), lead=None, **options):
    hosts = hosts_of_rollouts()
    chosen = [hosts[i] for i in index]
    made_roller = roller(policy, config, chosen, **options)
    return made_roller.roll(
        policy,
        torch.arange(len(chosen), dtype=torch.int32),
        torch.tensor([100 + i for i in index]),
        lead,
    )


class Logged(GaussianPolicy):
    """Coasts, and notes which steps it is asked at by what the simulator shows it."""

    def forward(self, seen):
        self.asked = [*getattr(self, "asked", []), seen.ego[:, 0].clone()]
        return seen.ego.new_zeros(*seen.ego.shape[:-1], 2 * self.imitates)


def test_a_policy_is_asked_at_its_decisions_alone() -> None:
    config = replace(SIM, replan_every=4)
    driver = Logged(steps=4)
    record = roll(driver, config)
    assert len(driver.asked) == 5  # 18 steps: at 0, 4, 8, 12 and 16
    assert record.action.shape == (5, 12, 8)
    assert record.reward.shape == (18, 12)
    assert torch.equal(record.valid, record.driven[::4])
    ended = record.driven.sum(0)
    assert record.steps == int(ended.sum())
    assert ((ended[:3] % 4) != 0).any()  # a car stands in the way: over between two decisions
    assert (record.reward[~record.driven] == 0).all()


@pytest.mark.parametrize("name", ["gaussian", "flow_matching", "waypoints", "plans_with_history"])
def test_what_was_decided_is_what_was_driven(name) -> None:
    """The recorded decisions, as actions of a simulator of its own, give the recorded rewards."""
    policy, config = made(name)
    record = roll(policy, config, index=(1, 2))
    hosts = [hosts_of_rollouts()[i] for i in (1, 2)]
    packed, params = batch(hosts), sim.make_params(config)
    state = sim.make_state(6, max_agents(hosts), config=config)
    state.scenario.copy_(torch.tensor([0, 0, 0, 1, 1, 1]))
    sim.reset(packed, state, torch.ones(6, dtype=torch.bool), params)
    outcome, weights = sim.make_outcome(state), sim.make_weights(REWARD_PRESETS["dense"])
    for t in range(18):
        d = t // config.replan_every
        action = policy.action_of(record.observation.index(d), record.action[d]).detach()
        sim.step(packed, state, outcome, action.unsqueeze(1).contiguous(), weights, params)
        assert_alike(outcome.reward[:, 0], record.reward[t])
    with torch.no_grad():
        again = policy.log_prob(record.observation, record.action)
    going = record.valid
    torch.testing.assert_close(again[going], record.log_prob[going], rtol=0, atol=5e-3)


@pytest.mark.parametrize("name", ["history", "plans_with_history"])
def test_memory_holds_what_was_seen_at_the_decisions_before(name) -> None:
    policy, config = made(name, RANGES)
    record = roll(policy, config, ranges=RANGES)
    features, frame = 10, 10 + 3 * 8 + 3 + 1
    memory = record.observation.ego[..., features : -len(RANGES)]
    assert memory.shape[-1] == policy.memory_size
    assert (memory[0] == 0).all()  # nothing before an episode
    going = record.valid
    for d in range(1, len(memory)):
        now, before = memory[d][going[d]], record.observation.index(d - 1)
        assert torch.equal(now[:, :features], before.ego[going[d], :features])
        assert torch.equal(now[:, features : features + 24], before.agents[going[d]].flatten(1))
        assert torch.equal(now[:, frame - 4 : frame - 1].bool(), before.agents_mask[going[d]])
        assert (now[:, frame - 1] == 1).all()
        assert torch.equal(now[:, frame:], memory[d - 1][going[d], :-frame])


def test_memory_is_forked_with_its_world() -> None:
    policy, config = made("plans_with_history")
    lead = torch.tensor([0, 4, 8, 40])  # the last drive has ended by then
    record = roll(policy, config, lead=lead, steps=24)
    memory = record.observation.ego[0, :, 10:].view(4, 3, -1)
    there = memory[..., -1]
    assert (there == torch.tensor([0.0, 1.0, 1.0, 0.0])[:, None]).all()
    assert (memory == memory[:, :1]).all()  # the same for all members
    whole = roll(policy, config, group=5)  # what member 3 saw and did, it saw and did again
    speeds = memory[1, 0, 0], whole.observation.ego[0, 5, 0]
    assert speeds[0] == speeds[1]


@pytest.mark.parametrize("name", ["gaussian", "flow_matching", "history"])
@pytest.mark.parametrize("format", [RowFormat.float32, RowFormat.compact], ids=lambda f: f.name)
def test_a_rollout_waits_for_nothing(name, format, monkeypatch) -> None:
    from alpagym.policies import fused

    monkeypatch.setattr(fused, "fits", lambda rows, features: False)  # as on a GPU
    policy, config = made(name)
    config = replace(config, row_format=format)
    hosts = hosts_of_rollouts()
    driving, told = roller(policy, config, hosts), []
    for seed in (1, 2):
        with torch.no_grad(), Told() as mode:
            driving._drive(policy)
        told.append(mode)
        driving.roll(policy, torch.arange(4, dtype=torch.int32), torch.full((4,), seed))
    assert not told[0].waiting
    assert told[0].operations == told[1].operations


# Learning


def test_credit_is_that_of_the_rewards_from_a_decision_on() -> None:
    generator = torch.Generator().manual_seed(0)
    reward = torch.randn(10, 4, generator=generator)
    valid = torch.ones(10, 4, dtype=torch.bool)
    valid[7:, 1] = False
    options = {"scale": "none", "discount": 0.9, "dead_tolerance": 0.0}
    coarse = group_advantages(reward, valid, 4, every=4, **options)
    fine = group_advantages(reward, valid, 4, **options)
    assert coarse.advantage.shape == (3, 4)
    assert torch.equal(coarse.advantage, fine.advantage[::4])
    assert torch.equal(coarse.returns, fine.returns)
    within = between_decisions(reward * valid, 0.9, 4)
    whole = reward_to_go(reward * valid, 0.9)[::4]
    torch.testing.assert_close(reward_to_go(within, 0.9**4), whole)


def test_plans_are_imitated_as_far_as_the_record_tells() -> None:
    policy, config = made("gaussian")
    hosts = [straight(name="a", frames=31), curve(frames=41)]
    packed = batch(hosts)
    plain = demonstrate(packed, 2, config)
    shown = demonstrate(packed, 2, config, policy=policy)
    assert shown.action.shape == (len(plain.action), 40)
    ahead = shown.action.unflatten(1, (20, 2))
    assert torch.equal(ahead[:, 0], plain.action)
    for scenario, steps in ((0, 25), (1, 35)):
        rows = shown.recording == scenario
        known, controls = shown.known[rows], plain.action[plain.recording == scenario]
        assert known.sum(1).tolist() == [min(20, steps - t) for t in range(steps)]
        assert torch.equal(ahead[rows][0], controls[:20])
        assert (ahead[rows][~known] == 0).all()
    # what is not known does not count
    rows, generator = torch.arange(len(shown.action)), torch.Generator()
    loss = imitation_loss(policy, shown, rows, generator)
    shown.action[~shown.known.repeat_interleave(2, 1)] = 7.0
    assert torch.equal(imitation_loss(policy, shown, rows, generator), loss)


@pytest.mark.parametrize("name", ["gaussian", "flow_matching", "user", "history"])
def test_imitation_brings_a_policy_near_the_record(name) -> None:
    policy, config = made(name)
    ego = Actor(STRAIGHT, 20.0, 10.0, 2.0)
    packed = batch([straight(ego=ego), straight(ego=ego, name="other")])
    shown = demonstrate(packed, 1, config, policy=policy)
    options = ImitationConfig(learning_rate=3e-3, batch_size=16, max_epochs=150, patience=150)
    torch.manual_seed(0)
    imitate(policy, shown, options, seed=0, on_epoch=lambda values: None)
    seen = shown.observation.index(torch.arange(0, 60, 7))
    with torch.no_grad():
        control = policy.mean(seen).unflatten(-1, (-1, 2))
    assert (control[..., 0] - 2.0).abs().mean() < 0.5
    assert control[..., 1].abs().max() < 0.02


def test_the_same_seed_draws_the_same_imitation() -> None:
    weights = []
    for _ in range(2):
        policy, config = made("flow_matching")
        shown = demonstrate(batch([curve(), crossing()]), 3, config, policy=policy)
        torch.randn(3)  # nothing hangs on what others draw
        options = ImitationConfig(max_epochs=2, batch_size=16)
        imitate(policy, shown, options, seed=5, on_epoch=lambda values: None)
        weights.append(policy.state_dict())
    assert all(torch.equal(v, weights[1][k]) for k, v in weights[0].items())


def trainer(name: str, **changes) -> GrpoTrainer:
    policy, config = made(name)
    hosts, packed = hosts_of_rollouts(), batch(hosts_of_rollouts())
    options = {"iterations": 1, "group_size": 4, "scenarios_per_iteration": 3} | changes
    grpo = GrpoConfig(**{**vars(GrpoConfig()), **options})
    shown = demonstrate(packed, max_agents(hosts), config, policy=policy)
    return GrpoTrainer(
        policy,
        packed,
        max_agents(hosts),
        config=grpo,
        sim_config=config,
        reward=REWARD_PRESETS["dense"],
        seed=0,
        critic=Critic(SMALL, config) if grpo.baseline == "critic" else None,
        demonstrations=shown if grpo.imitation_weight > 0.0 else None,
    )


CHANGES = {
    "held": {"kl_weight": 0.1, "imitation_weight": 0.5, "imitation_batch": 16},
    "branched": {"branch_within": 20, "refills": 1},
}


@pytest.mark.parametrize("preset", [*GRPO_PRESETS, *CHANGES])
@pytest.mark.parametrize("name", ["gaussian", "flow_matching", "history", "waypoints", "user"])
def test_every_objective_moves_every_policy(name, preset) -> None:
    changes = CHANGES.get(preset) or vars(GRPO_PRESETS[preset])
    small = {"iterations": 1, "group_size": 4, "scenarios_per_iteration": 3, "minibatch_size": 32}
    learning = trainer(name, **{**changes, **small})
    before = [p.clone() for p in learning.policy.parameters()]
    values = learning.iterate(0)
    assert all(math.isfinite(v) for v in values.values()), values
    after = learning.policy.parameters()
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert values["agent_steps"] > learning.roller.every


@pytest.mark.parametrize("name", ["gaussian", "flow_matching"])
@pytest.mark.parametrize("log_prob", ["sum", "mean"])
def test_the_first_update_begins_at_ratio_one(name, log_prob) -> None:
    values = trainer(name, minibatch_size=100_000, log_prob=log_prob).iterate(0)
    assert values["ratio_max"] == pytest.approx(1.0, abs=0.02)
    assert values["ratio_mean"] == pytest.approx(1.0, abs=0.01)


def test_an_anchor_of_plans_is_at_no_distance_at_first() -> None:
    assert trainer("flow_matching", kl_weight=1.0, minibatch_size=10**6).iterate(0)["kl"] < 1e-4


def test_evaluation_drives_by_decisions_too() -> None:
    """With the controls of a record k at a time, the record's end is reached."""

    class Recorded(GaussianPolicy):
        def mean(self, seen):
            return torch.tensor([2.0, 0.0] * 4).expand(len(seen.ego), 8)

        forward = mean

    ego = Actor(STRAIGHT, 20.0, 10.0, 2.0)
    config = replace(SIM, replan_every=4)
    results, _ = evaluate(Recorded(steps=4), [straight(ego=ego)], config)
    assert results.progress.tolist() == pytest.approx([1.0], abs=0.01)
    assert results.steps.tolist() == [35]


@pytest.mark.parametrize("name", KINDS)
def test_policies_come_back_from_disk(name, tmp_path) -> None:
    policy, config = made(name, RANGES)
    path = tmp_path / "policy.safetensors"
    save_policy(path, policy, KINDS[name][0], config, ["synthetic-cc0"])
    found, sim_config, _ = load_policy(path)
    assert sim_config == config
    assert type(found) is type(policy)
    seen, noise = seen_by(policy, config), noise_for(policy, config)
    assert torch.equal(found.mean(seen), policy.mean(seen))
    assert torch.equal(found.sample(seen, noise)[1], policy.sample(seen, noise)[1])
    hosts = generate_many(3, 5)
    drives = [evaluate(p, hosts, config)[0] for p in (policy, found)]
    assert np.array_equal(drives[0].progress, drives[1].progress)


@pytest.mark.parametrize(
    ("config", "changes", "words"),
    [
        (GAUSSIAN, {"action": ActionType.bicycle}, "got sim.action=bicycle"),
        (GAUSSIAN, {"dt": 0.2}, "plans in steps of 0.1 s, got sim.dt=0.2"),
        (GAUSSIAN, {"plan_steps": 5}, "policy.knots: expected at most sim.plan_steps, 5, got 6"),
        (GAUSSIAN, {"replan_every": 21}, "sim.replan_every: expected at most .* got 21"),
        (SMALL, {}, "LateFusion drives with an action a step"),
        (replace(SMALL, kind="no_such"), {}, "policy.kind: expected one of late_fusion, traj"),
    ],
)
def test_what_cannot_drive_here_says_so(config, changes, words) -> None:
    with pytest.raises(ValueError, match=words):
        make_policy(config, replace(PLAN, **changes))


# Policies of users


class Wide(Mine):
    """Gives more than an action holds."""

    def action_of(self, seen, decision):
        return torch.cat([decision, decision], -1)


class Failing(Mine):
    def __init__(self, config, sim_config, ranges=None):
        raise KeyError("no weights here")


class Forgetful(Mine):
    forward = None


NUMBER = 3


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("nowhere:Mine", "policy nowhere:Mine: cannot import nowhere: ModuleNotFoundError: No mod"),
        (f"{__name__}:Absent", "expected a class Absent in .*test_policies, got nothing"),
        (f"{__name__}:NUMBER", "expected a class NUMBER in .*test_policies, got int"),
        (f"{__name__}:roll", "expected a class derived from alpagym.policies.Policy, got <func"),
        ("os:system", "expected a class derived from alpagym.policies.Policy"),
        (f"{__name__}:Failing", "policy .*test_policies:Failing: KeyError: 'no weights here'"),
        (f"{__name__}:Forgetful", "TypeError: 'NoneType' object is not callable"),
        (f"{__name__}:Wide", r"ValueError: action_of: expected \[2, 4\] for 2 worlds, got \[2, 8"),
    ],
)
def test_policies_of_users_that_cannot_be_had(kind, words) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        make_policy(replace(SMALL, kind=kind), replace(SIM, replan_every=2))
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_a_policy_that_is_gone_is_refused(tmp_path, monkeypatch) -> None:
    policy, config = made("user")
    path = tmp_path / "policy.safetensors"
    save_policy(path, policy, replace(SMALL, kind="gone:Mine"), config, [])
    with pytest.raises(CheckpointError, match=r"policy gone:Mine: cannot import gone[^\n]*$"):
        load_policy(path)


@pytest.mark.parametrize("form", ["module", "policy", "safetensors"])
def test_weights_are_taken_from_a_module_or_a_policy(form, tmp_path) -> None:
    from safetensors.torch import save_file

    source, _ = made("user", seed=1)
    policy, _ = made("user", seed=2)
    file = str(tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt"))
    if form == "safetensors":
        save_file(source.net.state_dict(), file)
    else:
        torch.save((source.net if form == "module" else source).state_dict(), file)
    load_weights(policy, file)
    assert torch.equal(policy.net.weight, source.net.weight)
    assert torch.equal(policy.log_std, source.log_std) == (form == "policy")


class Evil:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        (b"not weights", "expected weights: "),
        ([1, 2], "expected a module's state_dict, got a list"),
        (Evil(), "expected weights: "),
        ({"weight": torch.zeros(1)}, "got 1 that fit 0: weight"),
        ({}, "got 0 that fit"),
    ],
)
def test_weights_that_do_not_fit_are_refused(content, words, tmp_path, capsys) -> None:
    policy, _ = made("user")
    before = copy.deepcopy(policy.state_dict())
    file = tmp_path / "w.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(ValueError, match=words) as caught:
        load_weights(policy, str(file))
    assert str(caught.value).startswith(f"policy.weights: {file}: ")
    assert len(str(caught.value).splitlines()) == 1
    assert not capsys.readouterr().out
    assert all(torch.equal(v, before[k]) for k, v in policy.state_dict().items())


def test_packages_register_policies(tmp_path, monkeypatch) -> None:
    info = tmp_path / "drivers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: drivers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[alpagym.policies]\nmine = {__name__}:Mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    policy = make_policy(replace(SMALL, kind="mine"), replace(SIM, replan_every=2))
    assert type(policy).__name__ == "Mine"
    with pytest.raises(ValueError, match=r"late_fusion, trajectory, mine, or module:Class, got m"):
        make_policy(replace(SMALL, kind="main"), SIM)
    node = cli.compose("train", ["policy=mine", "policy.options={size: 3}"])
    assert (node.policy.kind, node.policy.options.size) == ("mine", 3)


def test_policies_are_chosen_by_name() -> None:
    chosen = cli.to_config(
        cli.compose("train", ["policy=trajectory", "grpo=ppo", "policy.knots=8"])
    )
    assert (chosen.policy.kind, chosen.policy.knots) == ("trajectory", 8)
    assert chosen.sim.replan_every == 5
    assert chosen.grpo.baseline == "critic"
    assert cli.compose("train", ["policy=trajectory", "sim.replan_every=2"]).sim.replan_every == 2
    large = cli.to_config(cli.compose("train", ["policy=large"])).policy
    assert (large.kind, large.width, large.hidden) == ("late_fusion", 64, 256)
    assert cli.to_config(cli.compose("train", ["policy=mine:Mine"])).policy.kind == "mine:Mine"
    assert cli.to_config(cli.compose("train", [])).policy == PolicyConfig()
    with pytest.raises(cli.UsageError, match=r"policy: expected one of small, .* got tiny"):
        cli.compose("train", ["policy=tiny"])
