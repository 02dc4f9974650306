"""Actions of NaN and infinity: caught at the step that received them."""

from __future__ import annotations

import math

import pytest
import torch

import scenario_factory as factory
from alpagym import env
from alpagym.config import ActionType, SimConfig
from alpagym.evaluation import evaluate
from alpagym.policies.policy import Policy
from simulating import Rig, same_bits

BAD = (math.nan, math.inf, -math.inf)


def vector_env(device, mode: str, **options):
    return env.make([factory.straight()], 4, device=device, bad_action=mode, **options)


@pytest.mark.parametrize("value", BAD)
def test_raise_names_world_agent_and_step_and_moves_nothing(device, value) -> None:
    worlds = vector_env(device, "raise")
    worlds.reset()
    for _ in range(3):
        worlds.step(worlds.zero_action())
    before = worlds.state.clone()
    action = worlds.zero_action()
    action[2, 1] = value
    with pytest.raises(ValueError, match=r"finite numbers, got .* world 2, agent 0, step 3 "):
        worlds.step(action)
    assert same_bits(before, worlds.state)
    worlds.step(worlds.zero_action())  # goes on


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("kind", list(ActionType))
def test_clamp_keeps_the_state_finite(device, value, kind) -> None:
    worlds = vector_env(device, "clamp", action=kind)
    worlds.reset()
    action = worlds.zero_action()
    action[1] = value
    _, reward, terminated, _, info = worlds.step(action)
    assert info["bad_action"].tolist() == [False, True, False, False]
    assert not terminated.any() or kind is ActionType.teleport
    assert torch.isfinite(reward).all()
    for name, tensor in worlds.state.tensors().items():
        assert torch.isfinite(tensor.float()).all(), name


def test_terminate_ends_that_episode_alone(device) -> None:
    worlds = vector_env(device, "terminate", auto_reset="disabled")
    worlds.reset()
    action = worlds.zero_action()
    action[3, 0] = math.nan
    _, _, terminated, truncated, info = worlds.step(action)
    assert terminated.tolist() == [False, False, False, True]
    assert not truncated.any()
    assert info["bad_action"].tolist() == [False, False, False, True]


def test_actions_for_who_does_not_drive_are_not_looked_at(device) -> None:
    worlds = vector_env(device, "raise", auto_reset="disabled", max_steps=1)
    worlds.reset()
    worlds.step(worlds.zero_action())
    worlds.step(torch.full(worlds.action_shape, math.nan, device=device))  # all are done
    rig = Rig([factory.straight()], device=device, max_steps=1)
    rig.step()
    rig.step(torch.full((1, 1, 2), math.nan, device=device))
    assert not rig.outcome.bad_action.any()


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sim.bad_action: expected one of raise, clamp, termin"):
        vector_env("cpu", "ignore")


class Broken(Policy):
    """A policy whose action is NaN from its third step on."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def mean(self, seen) -> torch.Tensor:
        self.calls += 1
        return torch.full((len(seen.ego), 2), math.nan if self.calls > 2 else 0.0)

    sample = log_prob = deviation = entropy = None
    __abstractmethods__ = frozenset()


def test_evaluation_names_the_scenario_and_step() -> None:
    scenarios = [factory.straight(name="first"), factory.straight(name="second")]
    with pytest.raises(ValueError, match="NaN or infinity in scenario first, step 2"):
        evaluate(Broken(), scenarios, SimConfig())
    results, _ = evaluate(Broken(), scenarios, SimConfig(bad_action="terminate"))
    assert results.steps.tolist() == [3, 3]
