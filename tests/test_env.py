"""The vector environment: episodes, auto-reset, seeds, shapes, errors."""

from __future__ import annotations

import pytest
import torch

import scenario_factory as factory
from alpagym import sim
from alpagym.config import REWARD_PRESETS, ActionType, AutoReset, RewardConfig, SimConfig, Traffic
from alpagym.env import VectorEnv, make
from alpagym.scenarios.scenario import ScenarioError
from alpagym.types import Observation
from simulating import same_bits

SCENARIOS = [factory.random_scenario(s, frames=20) for s in range(5)]
LENGTH = 14
"""Steps that an episode of SCENARIOS lasts."""


def make_env(device="cpu", worlds: int = 6, scenarios=None, **options) -> VectorEnv:
    options = {"reward": "dense", "device": device, "seed": 3} | options
    return make(scenarios or SCENARIOS, worlds, **options)


def drive(env: VectorEnv, steps: int) -> list[tuple]:
    """Copies of everything that `step` returns, with actions that depend on world and time only."""
    seen = []
    for t in range(steps):
        action = torch.stack(
            [torch.sin(torch.arange(64.0) + t), 0.05 * torch.cos(torch.arange(64.0) * t)], -1
        )
        observation, *rest, info = env.step(action[: env.num_worlds].to(env.device))
        info = {
            k: v.clone() if k not in ("terms", "final_observation") else v for k, v in info.items()
        }
        if "final_observation" in info:
            info["final_observation"] = info["final_observation"].clone()
        seen.append((observation.clone(), *(x.clone() for x in rest), info))
    return seen


def test_an_episode_returns_tensors_of_documented_shapes(device) -> None:
    env = make_env(device)
    observation = env.reset()
    assert env.action_shape == (6, 2)
    assert observation.ego.shape == (6, 10)
    assert observation.agents.shape == (6, SimConfig().num_agents, 8)
    observation, reward, terminated, truncated, info = env.step(env.zero_action())
    assert observation.road_mask.shape == (6, SimConfig().num_road_points)
    assert reward.shape == terminated.shape == truncated.shape == env.ego_mask.shape == (6,)
    assert reward.dtype == torch.float32
    assert terminated.dtype == truncated.dtype == torch.bool
    assert set(info["terms"]) == {t.name.lower() for t in sim.RewardTerm}
    for name in ("collision", "progress_fraction", "ttc", "offroad"):
        assert info[name].shape == (6,)
    assert all(t.device.type == torch.device(device).type for t in observation.tensors().values())


def test_rewards_are_the_weighted_terms(device) -> None:
    env = make_env(device, reward=RewardConfig(progress=2.0, comfort=-0.5))
    env.reset()
    _, reward, _, _, info = env.step(env.zero_action())
    want = 2.0 * info["terms"]["progress"] - 0.5 * info["terms"]["comfort"]
    torch.testing.assert_close(reward, want)


@pytest.mark.parametrize("mode", list(AutoReset))
def test_terminated_and_truncated_are_apart(device, mode) -> None:
    wall = factory.straight(factory.Actor(factory.STRAIGHT, 34.0, 0.0), name="wall", frames=31)
    free = factory.straight(name="free", frames=31)
    env = make_env(device, 2, [wall, free], auto_reset=mode)
    env.reset(scenario=[0, 1])
    ends = []
    for t in range(25):
        _, _, terminated, truncated, _ = env.step(env.zero_action())
        assert not (terminated & truncated).any()
        ends += [(t, w, "hit") for w in range(2) if terminated[w]]
        ends += [(t, w, "time") for w in range(2) if truncated[w]]
    hit = next(t for t, w, why in ends if w == 0 and why == "hit")
    assert hit < 10
    assert (24, 1, "time") in ends
    again = [t for t, w, _ in ends if w == 0]
    if mode is AutoReset.same_step:
        assert again[1] == 2 * hit + 1
    elif mode is AutoReset.next_step:
        assert again[1] == 2 * hit + 2
    else:
        assert again == list(range(hit, 25)), "a world that is done stays done"


def test_same_step_returns_the_next_episode_and_keeps_the_last_observation(device) -> None:
    env, stay = (make_env(device, end_on=(), auto_reset=mode) for mode in ("same_step", "disabled"))
    first = env.reset(scenario=[0, 1, 2, 3, 4, 0]).clone()
    stay.reset(scenario=[0, 1, 2, 3, 4, 0])
    going, staying = drive(env, LENGTH), drive(stay, LENGTH)
    assert going[-1][3].all()
    assert same_bits(going[-1][4]["final_observation"], staying[-1][0])
    assert same_bits(going[-1][0], first)
    assert (env.state.step == 0).all()
    for mine, theirs in zip(going[:-1], staying[:-1], strict=True):
        assert same_bits(mine[0], theirs[0])
        assert torch.equal(mine[1], theirs[1])


def test_next_step_ignores_the_action_and_rewards_nothing(device) -> None:
    env = make_env(device, end_on=(), auto_reset="next_step")
    first = env.reset(scenario=[0, 1, 2, 3, 4, 0]).clone()
    ended = drive(env, LENGTH)[-1]
    assert ended[3].all()
    assert not same_bits(ended[0], first), "the last observation of the old episode"
    observation, reward, terminated, truncated, _ = env.step(env.zero_action() + 2.0)
    assert same_bits(observation, first)
    assert (reward == 0).all()
    assert not (terminated | truncated).any()
    _, _, _, truncated, _ = drive(env, LENGTH)[-1]
    assert truncated.all()


def test_disabled_waits_for_reset_of_the_worlds_named(device) -> None:
    env = make_env(device, end_on=(), auto_reset="disabled")
    first = env.reset(scenario=[0, 1, 2, 3, 4, 0]).clone()
    drive(env, LENGTH)
    before = env.state.clone()
    _, reward, _, truncated, _ = env.step(env.zero_action())
    assert truncated.all()
    assert (reward == 0).all()
    before.still.copy_(env.state.still)  # what the last step met
    assert same_bits(before, env.state)
    mask = torch.arange(6, device=device) < 2
    observation = env.reset(mask=mask)
    for name, tensor in observation.tensors().items():
        assert torch.equal(tensor[:2], getattr(first, name)[:2])
    assert env.state.truncated[:, 0].tolist() == [False] * 2 + [True] * 4
    assert (env.state.step[2:] == LENGTH).all()


@pytest.mark.parametrize("mode", AutoReset)
def test_a_world_reset_after_its_end_goes_on_from_there(device, mode) -> None:
    scenario = [0, 1, 2, 3, 4, 0]
    env = make_env(device, end_on=(), auto_reset=mode)
    fresh = make_env(device, end_on=(), auto_reset="disabled")
    env.reset(scenario=scenario)
    fresh.reset(scenario=scenario)
    assert drive(env, LENGTH)[-1][3].all()
    mask = torch.arange(6, device=device) < 2
    env.reset(mask=mask)
    for mine, theirs in zip(drive(env, 3), drive(fresh, 3), strict=True):
        assert same_bits(mine[0].index(mask), theirs[0].index(mask))
        assert torch.equal(mine[1][mask], theirs[1][mask])
    assert (env.state.step[mask] == 3).all()
    others = {AutoReset.same_step: 3, AutoReset.next_step: 2, AutoReset.disabled: LENGTH}
    assert (env.state.step[~mask] == others[mode]).all()


def same_runs(a: list[tuple], b: list[tuple], worlds: slice = slice(None)) -> bool:
    return all(
        torch.equal(x[k][worlds], y[k][worlds])
        for x, y in zip(a, b, strict=True)
        for k in (1, 2, 3)
    ) and all(same_bits(x[0].index(worlds), y[0].index(worlds)) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("mode", ["same_step", "next_step"])
def test_seeds_reproduce_episodes(device, mode) -> None:
    options = {"auto_reset": mode, "traffic": "idm"}
    env, other = make_env(device, **options), make_env(device, **options)
    env.reset()
    other.reset()
    runs = drive(env, 3 * LENGTH)
    assert same_runs(runs, drive(other, 3 * LENGTH))
    env.reset(seed=3)
    assert same_runs(runs, drive(env, 3 * LENGTH)), "the same seed again, from the first episode"
    env.reset(seed=4)
    assert not same_runs(runs, drive(env, 3 * LENGTH))


def test_episodes_do_not_depend_on_the_number_of_worlds(device) -> None:
    few, many = make_env(device, 3), make_env(device, 40)
    few.reset()
    many.reset()
    assert same_runs(drive(few, 40), drive(many, 40), slice(0, 3))
    assert torch.equal(few.state.seed, many.state.seed[:3])


def test_scenarios_are_drawn_evenly_and_anew(device) -> None:
    env = make_env(device, 500)
    env.reset()
    counts = torch.bincount(env.state.scenario.long(), minlength=5).tolist()
    assert min(counts) > 60  # of 100 expected, 9 the standard deviation
    before = env.state.scenario.clone()
    env.reset()
    assert 0.1 < (before == env.state.scenario).float().mean() < 0.3
    assert len(env.state.seed.unique()) == 500


def test_scenarios_named_once_are_kept(device) -> None:
    env = make_env(device, 3, end_on=())
    env.reset(scenario=torch.tensor([4, 4, 1]))
    drive(env, 2 * LENGTH)
    assert env.state.scenario.tolist() == [4, 4, 1]
    env.reset()
    assert env.state.scenario.tolist() == [4, 4, 1]


def test_an_observation_outlives_the_next_step(device) -> None:
    env = make_env(device)
    env.reset()
    held = env.step(env.zero_action())[0]
    copy = held.clone()
    env.step(env.zero_action() + 1.0)
    assert same_bits(held, copy)


def test_a_final_observation_outlives_the_next_step(device) -> None:
    env = make_env(device, end_on=(), max_steps=1)
    env.reset()
    held = env.step(env.zero_action())[4]["final_observation"]
    copy = held.clone()
    after = env.step(env.zero_action() + 1.0)[4]["final_observation"]
    assert same_bits(held, copy)
    assert not same_bits(after, copy)


def test_autograd_notices_that_a_final_observation_was_overwritten(device) -> None:
    env = make_env(device, end_on=(), max_steps=1)
    env.reset()
    weight = torch.ones(10, device=device, requires_grad=True)
    loss = (env.step(env.zero_action())[4]["final_observation"].ego * weight).sum()
    for _ in range(2):
        env.step(env.zero_action())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_gradients_stop_at_the_simulator(device) -> None:
    env = make_env(device)
    env.reset()
    action = torch.nn.Parameter(env.zero_action())
    observation, reward, *_ = env.step(action)
    assert not reward.requires_grad
    assert not observation.ego.requires_grad
    # An observation used in a graph and then overwritten is an error, not a wrong gradient.
    used = (observation.ego * torch.nn.Parameter(torch.ones(10, device=device))).sum()
    env.step(env.zero_action())
    env.step(env.zero_action())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        used.backward()


def test_multi_agent_mode_has_a_slot_for_every_agent_that_may_be_driven(device) -> None:
    env = make_env(device, multi_agent=True, end_on=())
    observation = env.reset(scenario=[0, 1, 2, 3, 4, 0])
    slots = int(env.scenarios.num_egos.max())
    assert env.action_shape == (6, slots, 2)
    assert observation.ego.shape == (6, slots, 10)
    mask = env.ego_mask
    assert mask.shape == (6, slots)
    assert mask.sum(1).tolist() == env.scenarios.num_egos[[0, 1, 2, 3, 4, 0]].tolist()
    observation, reward, terminated, truncated, info = env.step(env.zero_action())
    assert reward.shape == terminated.shape == truncated.shape == (6, slots)
    assert info["terms"]["progress"].shape == (6, slots)
    assert (reward[~mask] == 0).all()
    assert (observation.ego[~mask] == 0).all()
    assert (observation.ego[mask][:, 3] > 0).all()
    for _ in range(LENGTH - 1):
        *_, truncated, info = env.step(env.zero_action())
    assert torch.equal(truncated, mask)
    assert (env.state.step == 0).all()


@pytest.mark.parametrize("action", list(ActionType))
def test_every_kind_of_action_drives(device, action) -> None:
    env = make_env(device, action=action.name)
    env.reset()
    assert env.action_shape[-1] == sim.action_size(SimConfig(action=action))
    assert isinstance(env.step(env.zero_action())[0], Observation)


def test_presets_and_traffic_are_found_by_name(device) -> None:
    for preset in REWARD_PRESETS:
        for traffic in Traffic:
            env = make_env(device, 2, reward=preset, traffic=traffic.name)
            env.reset()
            assert env.step(env.zero_action())[1].isfinite().all()


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        ({"worlds": 0}, ValueError, r"num_worlds: expected at least 1, got 0"),
        ({"speed": 3}, ValueError, r"make: expected an option of SimConfig \(dt, .*\), got speed"),
        ({"reward": "fun"}, ValueError, r"reward: expected one of dense, .*, got fun"),
        (
            {"auto_reset": "never"},
            ValueError,
            r"auto_reset: expected one of same_step, .*, got never",
        ),
        ({"action": "jump"}, ValueError, r"action: expected one of unicycle, .*, got jump"),
        ({"traffic": "chaos"}, ValueError, r"traffic: expected one of log, .*, got chaos"),
        ({"end_on": ("rain",)}, ValueError, r"sim.end_on: expected any of .*, got rain"),
        ({"dt": 0.0}, ValueError, r"sim.dt: expected a number above 0, got 0.0"),
        (
            {"max_curvature": -1.0},
            ValueError,
            r"sim.max_curvature: expected a number above 0, got -1.0",
        ),
        ({"idm_accel": 0}, ValueError, r"sim.idm_accel: expected a number above 0, got 0.0"),
        (
            {"road_radius": float("nan")},
            ValueError,
            r"sim.road_radius: expected a finite number, got nan",
        ),
        (
            {"reward": RewardConfig(ttc=float("inf"))},
            ValueError,
            r"reward.ttc: expected a finite number, got inf",
        ),
        ({"num_agents": 1000}, ValueError, r"sim.num_agents: expected 0 to 256, got 1000"),
    ],
)
def test_wrong_options_get_one_sentence(options, kind, sentence) -> None:
    with pytest.raises(kind, match=f"^{sentence}$"):
        make_env(**options)


def test_whole_numbers_serve_as_floats(device) -> None:
    reward = RewardConfig(progress=1, offroad=-5)
    env = VectorEnv(SCENARIOS, 2, sim_config=SimConfig(min_accel=-6), reward=reward, device=device)
    assert env.config.min_accel == -6.0


def test_no_scenarios_are_refused() -> None:
    with pytest.raises(ScenarioError, match="expected at least one scenario"):
        VectorEnv([], 4, reward=RewardConfig())


def test_a_device_that_the_build_lacks_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(sim, "cuda_built", lambda: False)
    with pytest.raises(ValueError, match=r"^device=cuda: this build of alpagym has no CUDA"):
        make_env("cuda")


def test_wrong_calls_get_one_sentence(device) -> None:
    env = make_env(device)
    with pytest.raises(RuntimeError, match=r"^step: expected reset\(\) first$"):
        env.step(env.zero_action())
    with pytest.raises(
        RuntimeError, match=r"^reset\(mask=...\): expected an earlier reset\(\) of all worlds"
    ):
        env.reset(mask=torch.ones(6, dtype=torch.bool, device=device))
    with pytest.raises(IndexError, match=r"^scenario: expected indices in 0..4, got 0..5$"):
        env.reset(scenario=[0, 1, 2, 3, 4, 5])
    with pytest.raises(IndexError, match=r"^scenario: expected 6 integers, got torch.int64 \[2\]$"):
        env.reset(scenario=[0, 1])
    env.reset()
    before = env.state.clone()
    with pytest.raises(
        ValueError,
        match=r"^action: expected contiguous float32\[W=6, E=1, D=2\], got float32\[6, 1, 3\]",
    ):
        env.step(torch.zeros(6, 3, device=device))
    with pytest.raises(TypeError, match=r"^action: expected torch.Tensor, got list$"):
        env.step([[0.0, 0.0]] * 6)
    assert same_bits(env.state, before)
