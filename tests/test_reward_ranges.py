"""Reward weights that vary from episode to episode, and policies that observe them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import scenario_factory as factory
from alpagym import cli, sim
from alpagym.checkpoint import load_policy, save_policy
from alpagym.config import REWARD_PRESETS, RewardConfig, SimConfig
from alpagym.env import make
from alpagym.evaluation import evaluate
from alpagym.grpo.rollout import Roller
from alpagym.policies.late_fusion import LateFusion
from alpagym.reward_functions import UserRewards
from alpagym.reward_ranges import check_ranges, condition, draw_weights
from alpagym.scenarios.batch import batch, max_agents
from alpagym.training_config import PolicyConfig

RANGES = check_ranges({"progress": (0.0, 1.0), "lane": [-2.0, -1.0]})
CONFIG = SimConfig(num_agents=4, num_road_points=8, num_route_points=6, num_lights=1)
SCENARIOS = [factory.random_scenario(s, frames=20) for s in range(4)]


def test_ranges_are_checked():
    with pytest.raises(ValueError, match=r"reward_ranges: expected any of progress, .*, got sped"):
        check_ranges({"sped": (0.0, 1.0)})
    for values in ((1.0, 1.0), (1.0, 0.0), (0.0,), (0.0, float("inf")), 1.0, "ab"):
        with pytest.raises(ValueError, match=r"reward_ranges\.lane: expected a low and a higher"):
            check_ranges({"lane": values})


def test_draws_are_uniform_and_leave_other_weights_alone(device):
    base = sim.make_weights(REWARD_PRESETS["dense"], device)
    seed = torch.arange(20_000, device=device)
    drawn = draw_weights(base, RANGES, seed, torch.full_like(seed, 7))
    for name, (low, high) in RANGES.items():
        share = (drawn[:, sim.RewardTerm[name.upper()]] - low) / (high - low)
        assert share.min() >= 0.0
        assert share.max() <= 1.0
        counts = torch.histc(share.cpu(), 10, 0.0, 1.0)
        assert (counts - 2000).abs().max() < 200  # 4.7 standard deviations
    others = [t for t in sim.RewardTerm if t.name.lower() not in RANGES]
    assert (drawn[:, others] == base[:, others]).all()
    seen = condition(drawn, RANGES)
    assert abs(float(torch.corrcoef(seen.T.cpu())[0, 1])) < 0.05
    assert seen.shape == (20_000, 2)
    assert seen.abs().max() <= 1.0 + 1e-6


def test_a_draw_follows_from_seed_scenario_and_term():
    base = sim.make_weights(RewardConfig())
    seed, key = torch.arange(6), torch.tensor([5, 6, 7, 5, 6, 7])
    drawn = draw_weights(base, RANGES, seed, key)
    order = torch.tensor([4, 0, 2])
    assert torch.equal(draw_weights(base, RANGES, seed[order], key[order]), drawn[order])
    alone = draw_weights(base, {"lane": RANGES["lane"]}, seed, key)
    assert torch.equal(alone[:, sim.RewardTerm.LANE], drawn[:, sim.RewardTerm.LANE])
    assert not torch.equal(draw_weights(base, RANGES, seed, key + 1), drawn)


def test_every_episode_of_a_world_draws_its_weights(device):
    options = {"reward_ranges": RANGES, "device": device, "seed": 4, "max_steps": 3}
    env, larger = (make(SCENARIOS, n, observe_weights=True, **options) for n in (3, 5))
    seen = env.reset()
    larger.reset()
    assert env.weights.shape == (3, len(sim.RewardTerm))
    assert torch.equal(larger.weights[:3], env.weights)
    torch.testing.assert_close(seen.ego[:, -2:], condition(env.weights, RANGES))
    before = env.weights.clone()
    for _ in range(3):
        observation, reward, _, truncated, info = env.step(env.zero_action())
        terms = torch.stack(list(info["terms"].values()), -1)
        torch.testing.assert_close(reward, (terms * before).sum(-1), atol=1e-4, rtol=1e-5)
    assert truncated.any()
    torch.testing.assert_close(info["final_observation"].ego[:, -2:], condition(before, RANGES))
    torch.testing.assert_close(observation.ego[:, -2:], condition(env.weights, RANGES))
    changed = (env.weights != before).any(1)
    assert torch.equal(changed, truncated)


def conditioned(seed=0) -> LateFusion:
    torch.manual_seed(seed)
    return LateFusion(PolicyConfig(width=8, hidden=16), CONFIG, RANGES).eval()


def roll(policy, chosen, seed, group_size=3, functions=None, lead=None):
    scenarios = [SCENARIOS[i] for i in chosen]
    roller = Roller(
        batch(scenarios),
        max_agents(scenarios),
        num_groups=len(chosen),
        group_size=group_size,
        num_steps=6,
        config=CONFIG,
        weights=sim.make_weights(REWARD_PRESETS["dense"]),
        functions=functions,
        ranges=RANGES,
        observed=policy.ranges,
    )
    index = torch.arange(len(chosen), dtype=torch.int32)
    return roller, roller.roll(policy, index, torch.tensor(seed), lead)


def test_a_group_shares_its_draw_whatever_it_is_rolled_beside():
    policy = conditioned()
    roller, record = roll(policy, [0, 1, 2], [11, 12, 13])
    groups = roller.weights.unflatten(0, (3, 3))
    assert (groups == groups[:, :1]).all()
    assert len(groups[:, 0].unique(dim=0)) == 3
    torch.testing.assert_close(
        record.observation.ego[..., -2:], condition(roller.weights, RANGES).expand(6, -1, -1)
    )
    weighted = (record.terms * roller.weights).sum(-1)
    torch.testing.assert_close(record.reward, weighted, atol=1e-4, rtol=1e-5)
    alone, other = roll(policy, [2], [13])
    assert torch.equal(alone.weights, groups[2])
    assert torch.equal(other.reward, record.reward[:, 6:])
    assert torch.equal(other.action, record.action[:, 6:])


def test_groups_that_fork_later_drive_there_by_their_own_weights():
    policy, lead = conditioned(), torch.tensor([0, 2, 3])
    roller, record = roll(policy, [0, 1, 2], [11, 12, 13], lead=lead)
    weighted = (record.terms * roller.weights).sum(-1)
    torch.testing.assert_close(record.reward, weighted, atol=1e-4, rtol=1e-5)
    alone, other = roll(policy, [2], [13], lead=lead[2:])
    assert torch.equal(alone.weights, roller.weights[6:])
    assert torch.equal(other.reward, record.reward[:, 6:])


def test_rollouts_add_functions_while_a_world_goes():
    policy = conditioned()
    _, plain = roll(policy, [0, 1], [1, 2])
    plain_reward = plain.reward.clone()
    ones = UserRewards([lambda state, outcome, scenarios: torch.ones_like(outcome.reward)])
    _, added = roll(policy, [0, 1], [1, 2], functions=ones)
    torch.testing.assert_close(added.reward - plain_reward, added.valid.float(), atol=1e-5, rtol=0)


def test_a_fresh_policy_ignores_the_weights_and_a_trained_one_need_not():
    policy = conditioned()
    _, record = roll(policy, [0, 1, 2], [11, 12, 13])
    seen = record.observation.index(0)
    plain = replace(seen, ego=seen.ego[:, :-2])
    torch.testing.assert_close(policy.mean(seen), policy.mean(plain), atol=1e-7, rtol=0)
    with torch.no_grad():
        policy.trunk[0].weight.normal_()
    assert not torch.allclose(policy.mean(seen), policy.mean(plain))
    policy.choose_weights({"progress": 1.0, "lane": -2.0})
    extreme = torch.tensor([1.0, -1.0]).expand(len(seen.ego), -1)
    same = replace(seen, ego=torch.cat([plain.ego, extreme], -1))
    torch.testing.assert_close(policy.mean(plain), policy.mean(same))
    policy.choose_weights({})
    assert policy.chosen.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"expected any of .* \(progress, lane\), got comfort"):
        policy.choose_weights({"comfort": 0.0})
    with pytest.raises(ValueError, match=r"reward_weights\.lane: expected a weight from -2 to -1"):
        policy.choose_weights({"lane": 0.0})


def test_a_conditioned_checkpoint_loads_and_drives(tmp_path):
    policy = conditioned()
    with torch.no_grad():
        policy.trunk[0].weight.normal_()
        policy.trunk[-1].weight.normal_()
    file = tmp_path / "policy.safetensors"
    save_policy(file, policy, PolicyConfig(width=8, hidden=16), CONFIG, [])
    loaded = load_policy(file)[0]
    assert loaded.ranges == policy.ranges
    drives = []
    for chosen in ({}, {"progress": 0.5, "lane": -1.5}, {"progress": 1.0}):
        loaded.choose_weights(chosen)
        _, rollouts = evaluate(loaded, SCENARIOS, CONFIG, record="it")
        drives.append(np.concatenate([r.x[:, r.ego] for r in rollouts]))
    np.testing.assert_array_equal(drives[0], drives[1])
    assert not np.array_equal(drives[0], drives[2])


def test_training_with_functions_and_ranges(tmp_path, capsys, monkeypatch):
    (tmp_path / "trained_rewards.py").write_text(
        "import torch\n"
        "def gentle(state, outcome, scenarios):\n"
        "    return torch.full_like(outcome.reward, 0.25)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    overrides = [
        "data.train=4", "data.held_out=3", "data.workers=1", "imitation.max_epochs=1", "threads=1",
        "grpo.iterations=1", "grpo.group_size=2", "grpo.scenarios_per_iteration=2", "device=cpu",
        "policy.width=8", "policy.hidden=16", "num_replays=0", "sim.max_steps=20", "eval_every=0",
        "reward_functions=[trained_rewards:gentle]", "reward_ranges={progress:[0.05,0.3]}",
    ]  # fmt: skip
    assert cli.main(["train", f"runs={tmp_path}", "name=run", "seed=3", *overrides]) == 0
    capsys.readouterr()
    policy, *_ = load_policy(tmp_path / "run")
    assert policy.ranges == {"progress": (0.05, 0.3)}

    def evaluated(*more):
        given = [f"checkpoint={tmp_path / 'run'}", "data.held_out=3", "data.workers=1"]
        code = cli.main(["eval", *given, "threads=1", "device=cpu", *more])
        return code, capsys.readouterr()

    code, shown = evaluated("reward_weights={progress:0.3}")
    assert code == 0
    assert json.loads(shown.out)["num_scenarios"] == 3
    code, shown = evaluated("reward_weights={progress:3}")
    assert code == 2
    assert "reward_weights.progress: expected a weight from 0.05 to 0.3, got 3" in shown.err
    assert cli.main(["train", f"runs={tmp_path}", "reward_functions=[no_such:f]"]) == 2
    assert "reward no_such:f: cannot import no_such" in capsys.readouterr().err
    assert cli.main(["train", f"runs={tmp_path}", "reward_ranges={sped:[0,1]}"]) == 2
    assert "reward_ranges: expected any of progress" in capsys.readouterr().err
