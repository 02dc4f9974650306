"""Rewards of episodes, and of users."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import scenario_factory as factory
from alpagym.config import SimConfig
from alpagym.env import make
from alpagym.evaluation import evaluate
from alpagym.metrics.drive import drive_of
from alpagym.reward_functions import load_reward
from alpagym.rewards import (
    EPISODE_PRESETS,
    DistanceToGt,
    distance_to_gt,
    drive_distance,
    episode_reward,
    score,
)

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
