"""Rewards of episodes, of users, and with weights that vary from episode to episode."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import scenario_factory as factory
from alpagym import cli, sim
from alpagym.checkpoint import load_policy, save_policy
from alpagym.config import REWARD_PRESETS, PolicyConfig, RewardConfig, SimConfig
from alpagym.env import make
from alpagym.evaluation import evaluate
from alpagym.grpo.rollout import Roller
from alpagym.metrics.drive import drive_of
from alpagym.policies.late_fusion import LateFusion
from alpagym.reward_functions import UserRewards, load_reward
from alpagym.reward_ranges import check_ranges, condition, draw_weights
from alpagym.rewards import (
    EPISODE_PRESETS,
    DistanceToGt,
    distance_to_gt,
    drive_distance,
    episode_reward,
    score,
)
from alpagym.scenarios.batch import batch, max_agents

# Episodes

METRICS = {"progress": 0.5, "collision_any": 1.0, "offroad": 0.0}


def test_presets_are_sums_of_named_terms():
    earned = episode_reward("progress_safety", METRICS, DistanceToGt(3.0, 20))
    assert earned.terms == pytest.approx(
        {"progress": 0.5, "collision_any": -10.0, "offroad": 0.0, "distance_to_gt": -0.03}
    )
    assert earned.total == pytest.approx(-9.53)
    assert episode_reward("metrics", METRICS).total == pytest.approx(-9.5)
    assert episode_reward("distance_to_gt", {}, DistanceToGt(3.0, 20)).total == -0.03


@pytest.mark.parametrize(
    ("preset", "metrics", "distance", "words"),
    [
        (
            "dense",
            METRICS,
            None,
            "preset: expected one of distance_to_gt, metrics, progress_safety",
        ),
        ("metrics", {"progress": 1.0}, None, "expected a finite collision_any, got None"),
        ("metrics", METRICS | {"progress": np.nan}, None, "expected a finite progress, got nan"),
        ("progress_safety", METRICS, None, "expected a finite distance_to_gt, got None"),
    ],
)
def test_a_missing_term_is_refused(preset, metrics, distance, words):
    with pytest.raises(ValueError, match=words):
        episode_reward(preset, metrics, distance)


def path(n: int = 11, speed: float = 10.0) -> tuple[np.ndarray, np.ndarray]:
    """Times [us] and poses of a straight drive eastward."""
    t = np.arange(n) * 0.1
    return np.rint(1e6 * t).astype(np.int64), np.stack([speed * t, 0 * t, 0 * t], -1)


def test_a_path_beside_the_record_is_as_far_as_it_lies_beside():
    times, poses = path()
    for yaw in (0.0, 2.0, np.pi):
        c, s = np.cos(yaw), np.sin(yaw)
        turned = poses.copy()
        turned[:, :2] = poses[:, :2] @ [[c, s], [-s, c]]
        turned[:, 2] = yaw
        beside = poses[:, :2] + [0.0, 1.5]
        found = distance_to_gt(times, turned, times, beside, 0)
        assert found.rmse == pytest.approx(1.5)
        assert found.num_paired == len(times)


def test_driving_the_same_path_slower_costs():
    times, poses = path()
    _, slower = path(speed=9.0)
    # 1 m/s too slow: t meters apart after t seconds.
    found = distance_to_gt(times, slower, times, poses[:, :2], 0)
    assert found.rmse == pytest.approx(np.sqrt(np.mean((times / 1e6) ** 2)))


def test_a_turned_anchor_between_two_poses_across_the_seam():
    times = np.array([0, 100_000])
    poses = np.array([[0.0, 0.0, np.pi - 0.1], [0.0, 0.0, -np.pi + 0.1]])
    found = distance_to_gt(times, poses, times, np.array([[1.0, 0.0], [1.0, 0.0]]), 50_000)
    assert found.rmse == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"executed_us": [0]}, "executed: expected at least two poses"),
        ({"executed_us": [0, 0]}, "executed: expected strictly increasing times"),
        ({"truth": [[0.0, np.nan], [1.0, 0.0]]}, "truth: expected finite poses"),
        ({"truth": [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]}, r"truth: expected .* got \[2\] and"),
        ({"anchor_us": 200_000}, r"anchor: expected a time in 0\.\.100000 us, got 200000"),
        ({"truth_us": [300_000, 400_000]}, "truth: expected an executed pose in"),
    ],
)
def test_distance_refuses_bad_input(change, words):
    good = {
        "executed_us": [0, 100_000],
        "executed": [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]],
        "truth_us": [0, 100_000],
        "truth": [[0.0, 0.0], [1.0, 0.0]],
        "anchor_us": 0,
    }
    with pytest.raises(ValueError, match=words):
        distance_to_gt(**(good | change))


def logged_drive(scenario, driver="log"):
    _, rollouts = evaluate(driver, [scenario], SimConfig(end_on=()), record="it")
    return drive_of(rollouts[0])


def test_the_recorded_driver_is_at_no_distance():
    drive = logged_drive(factory.curve())
    found = drive_distance(drive)
    assert found.rmse < 1e-3
    assert found.num_paired == len(drive.pose)
    totals = score(drive, {"progress": 1.0, "collision_any": 0.0, "offroad": 0.0})
    assert set(totals) == set(EPISODE_PRESETS)
    assert totals["progress_safety"].total == pytest.approx(1.0, abs=1e-4)


def test_warm_up_lowers_the_distance():
    drive = logged_drive(factory.curve(), driver="constant_velocity")
    assert drive.start > 0
    whole = drive_distance(drive).rmse
    later = replace(
        drive,
        first_frame=drive.first_frame + drive.start,
        start=0,
        pose=drive.pose[drive.start :],
        valid=drive.valid[drive.start :],
    )
    assert 0.0 < whole < drive_distance(later).rmse


def test_a_drive_without_a_map_has_no_total_that_asks_for_one():
    drive = logged_drive(factory.curve())
    bare = {"progress": 1.0, "collision_any": 0.0}
    with pytest.raises(ValueError, match="preset progress_safety: expected a finite offroad"):
        score(drive, bare)
    assert score(drive, bare, ["metrics"])["metrics"].total == 1.0


# Functions of users


def speed(state, outcome, scenarios):
    """One point for each m/s, per step."""
    return state.speed.gather(1, state.ego.clamp(min=0).long())


SCENARIOS = [factory.random_scenario(s, frames=20) for s in range(4)]


def test_a_function_alone_is_the_reward(device):
    env = make(SCENARIOS, 4, reward=speed, auto_reset="disabled", device=device)
    env.reset(scenario=range(4))
    _, reward, *_ = env.step(env.zero_action())
    torch.testing.assert_close(reward, speed(env.state, None, None).squeeze(1))


def test_functions_are_added_to_the_terms_while_an_ego_drives(device):
    envs = [
        make(SCENARIOS, 4, auto_reset="disabled", device=device, reward_functions=functions)
        for functions in ([], [speed, speed])
    ]
    for env in envs:
        env.reset(scenario=range(4))
    ended = torch.zeros(4, dtype=torch.bool, device=device)
    for _ in range(20):
        plain, added = (env.step(env.zero_action())[1] for env in envs)
        extra = 2 * speed(envs[1].state, None, None).squeeze(1)
        torch.testing.assert_close(added - plain, torch.where(ended, 0.0, extra), atol=1e-4, rtol=0)
        ended = envs[1].state.done.squeeze(1).clone()
    assert ended.all()


def test_several_egos_get_their_own_values(device):
    options = {"multi_agent": True, "auto_reset": "disabled", "device": device}
    env = make(SCENARIOS, 4, reward=speed, **options)
    env.reset(scenario=range(4))
    going = env.ego_mask
    _, reward, *_ = env.step(env.zero_action())
    expected = torch.where(going, speed(env.state, None, None), 0.0)
    torch.testing.assert_close(reward, expected)


def write_module(folder, name="my_rewards"):
    (folder / f"{name}.py").write_text(
        "import torch\n"
        "def gentle(state, outcome, scenarios):\n"
        "    return torch.full_like(outcome.reward, 0.25)\n"
        "NUMBER = 3\n"
    )
    (folder / "broken_rewards.py").write_text("import no_such_module\n")


def register(folder, package, lines):
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[alpagym.rewards]\n" + "\n".join(lines) + "\n")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Two packages with reward functions."""
    write_module(tmp_path)
    register(tmp_path, "one", ["gentle = my_rewards:gentle", "twice = my_rewards:gentle"])
    register(tmp_path, "two", ["twice = my_rewards:NUMBER"])
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["gentle", "my_rewards:gentle"])
def test_functions_are_found_by_name(name):
    env = make(SCENARIOS, 3, reward=name)
    env.reset()
    assert env.step(env.zero_action())[1].tolist() == [0.25] * 3


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gentel", r"reward gentel: expected module:function or .* \(gentle, twice\)"),
        ("twice", "reward twice: expected one entry point, got my_rewards:NUMBER, my_rewards:gen"),
        ("nowhere:f", "cannot import nowhere: ModuleNotFoundError"),
        ("broken_rewards:f", "cannot import broken_rewards: ModuleNotFoundError: No module named"),
        ("my_rewards:f", "expected a function f in my_rewards, got nothing"),
        ("my_rewards:NUMBER", "expected a function NUMBER in my_rewards, got int"),
    ],
)
def test_names_that_lead_nowhere(name, words):
    with pytest.raises(ValueError, match=words):
        load_reward(name)


@pytest.mark.usefixtures("installed")
def test_make_lists_what_it_knows():
    words = "expected one of dense, .*, gentle, twice, module:function, got denes"
    with pytest.raises(ValueError, match=words):
        make(SCENARIOS, 1, reward="denes")
    with pytest.raises(ValueError, match="reward: expected a name, a RewardConfig or a function"):
        make(SCENARIOS, 1, reward=3)
    with pytest.raises(ValueError, match="reward_functions: expected names or functions, got int"):
        make(SCENARIOS, 1, reward_functions=[3])


def test_what_functions_return_is_checked(device):
    def step(function):
        env = make(SCENARIOS, 3, reward=function, device=device)
        env.reset()
        env.step(env.zero_action())

    def bad(state, outcome, scenarios):
        value = torch.zeros_like(outcome.reward)
        value[1] = torch.nan
        return value

    wanted = rf"expected float32\[3, 1\] on {device}.*, got "
    with pytest.raises(ValueError, match=wanted + r"float32\[3\] on"):
        step(lambda state, outcome, scenarios: outcome.reward[:, 0])
    with pytest.raises(ValueError, match=wanted + r"float64\[3, 1\] on"):
        step(lambda state, outcome, scenarios: outcome.reward.double())
    with pytest.raises(ValueError, match=wanted + "a float"):
        step(lambda state, outcome, scenarios: 1.0)
    with pytest.raises(ValueError, match=r"bad: expected finite values, got nan in world 1, ego 0"):
        step(bad)


# Weights that vary

RANGES = check_ranges({"progress": (0.0, 1.0), "lane": [-2.0, -1.0]})
CONFIG = SimConfig(num_agents=4, num_road_points=8, num_route_points=6, num_lights=1)


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


def roll(policy, chosen, seed, group_size=3, functions=None):
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
    return roller, roller.roll(policy, index, torch.tensor(seed))


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
    write_module(tmp_path, "trained_rewards")
    monkeypatch.syspath_prepend(tmp_path)
    overrides = [
        "data.train=4", "data.held_out=3", "data.workers=1", "imitation.max_epochs=1", "threads=1",
        "grpo.iterations=1", "grpo.group_size=2", "grpo.scenarios_per_iteration=2", "device=cpu",
        "policy.width=8", "policy.hidden=16", "num_replays=0", "sim.max_steps=20",
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
