"""Faults that stop training are named by scenario, seed and term; others by a finding."""

from __future__ import annotations

import math
import re

import pytest
import torch

from alpagym.config import REWARD_PRESETS, RewardConfig
from alpagym.grpo.diagnosis import diagnose
from alpagym.grpo.faults import TrainingError
from alpagym.grpo.tokens import Token
from alpagym.grpo.trainer import GrpoTrainer
from alpagym.reward_functions import UserRewards
from alpagym.scenarios.batch import batch, max_agents
from alpagym.training_config import GrpoConfig
from test_grpo import CONFIG, SMALL, make_policy, scenarios

NAMES = ["blocked", "straight", "curve", "crossing"]


def trainer(function=None, reward=REWARD_PRESETS["dense"], policy=None, **changes):
    chosen = scenarios()
    return GrpoTrainer(
        policy or make_policy(),
        batch(chosen),
        max_agents(chosen),
        config=GrpoConfig(**{**SMALL, **changes}),
        sim_config=CONFIG,
        reward=reward,
        reward_functions=UserRewards([function] if function else []),
        seed=0,
        names=NAMES,
    )


def stopped(made) -> tuple[str, Token]:
    """The sentence with which an iteration ends, and the rollout it is about."""
    with pytest.raises(TrainingError) as caught:
        made.iterate(0)
    sentence = str(caught.value)
    assert "\n" not in sentence
    token = Token.of(caught.value.token)
    for word in (f"scenario {token.scenario}, ", f"seed {token.seed}, ", f"member {token.member}"):
        assert word in sentence, sentence
    assert any(token.group in roll["groups"] for roll in made.flight["rolls"])
    return sentence, token


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reward_function_that_is_not_finite_somewhere(value):
    def spoiled(state, outcome, scenarios):
        bad = (state.scenario == 2) & (state.member == 1) & (state.step == 8)
        return torch.where(bad[:, None], value, torch.zeros_like(outcome.reward))

    sentence, token = stopped(trainer(spoiled, scenarios_per_iteration=4))
    assert (token.scenario, token.member) == ("curve", 1)
    assert "step 7, " in sentence  # the 8th: counted from 0
    assert re.search(r"from .*spoiled, which gave (nan|inf)", sentence)


def spoil_progress(made, monkeypatch) -> None:
    """Let the term `progress` be NaN in the record's step 3 of world 6."""
    roll = made.roller.roll

    def with_nan(*args):
        record = roll(*args)
        record.terms[3, 6, 0] = record.reward[3, 6] = math.nan
        return record

    monkeypatch.setattr(made.roller, "roll", with_nan)


def test_a_term_that_is_not_finite(monkeypatch):
    made = trainer(scenarios_per_iteration=4)
    spoil_progress(made, monkeypatch)
    sentence, token = stopped(made)
    assert token.member == 2
    assert "step 3, from progress" in sentence


def test_steps_are_those_of_the_episode_wherever_groups_fork(monkeypatch):
    """Built-in terms and functions name the same step, though a record begins at the fork."""
    states = []
    made = trainer(scenarios_per_iteration=4, branch_within=9)
    made.roller.watch = lambda state, outcome: states.append(state.step.tolist())
    spoil_progress(made, monkeypatch)
    sentence, token = stopped(made)
    begin = states[0][6]
    assert begin == token.lead > 0
    assert f"step {begin + 3}, from progress" in sentence

    def spoiled(state, outcome, scenarios):
        bad = (state.scenario == NAMES.index(token.scenario)) & (state.step == begin + 4)
        return torch.where(bad[:, None], math.nan, torch.zeros_like(outcome.reward))

    sentence, _ = stopped(trainer(spoiled, scenarios_per_iteration=4, branch_within=9))
    assert f"scenario {token.scenario}, " in sentence
    assert f"step {begin + 3}, from " in sentence


def test_a_reward_too_large_to_compare_names_its_term():
    sentence, _ = stopped(trainer(reward=RewardConfig(progress=1e25)))
    assert re.search(r"returns are too large to compare: .*, mostly progress \(\S+e\+2", sentence)


def test_a_reward_function_too_large_to_compare_is_named():
    def huge(state, outcome, scenarios):
        return torch.where((state.member == 3)[:, None], 1e30, torch.zeros_like(outcome.reward))

    sentence, token = stopped(trainer(huge))
    assert token.member == 3
    assert "mostly reward_functions (" in sentence


def test_a_gradient_that_is_not_finite_names_whose_advantage_is_largest():
    def steep(state, outcome, scenarios):
        return 1e17 * (state.member == 2)[:, None] + torch.zeros_like(outcome.reward)

    policy = make_policy()
    policy.log_std.data.fill_(-8.0)  # probabilities are steep
    made = trainer(steep, policy=policy, scale="none", minibatch_size=10_000)
    sentence, token = stopped(made)
    assert token.member == 2
    assert "grad_norm=" in sentence
    assert "whose reward is mostly reward_functions" in sentence


def test_a_reward_that_explodes_later_is_a_finding_with_its_rollout():
    factor = [1.0]

    def exploding(state, outcome, scenarios):
        return factor[0] * torch.ones_like(outcome.reward)

    made = trainer(exploding)
    history = []
    for i in range(8):
        factor[0] = 1e6 if i == 7 else 1.0
        history.append(made.iterate(i))
        found = diagnose(history, made.config, made.flight)
        assert ("exploding_reward" in found) == (i == 7)
    assert found["exploding_reward"].endswith(f"see rollout {made.flight['return_max']}")


def test_findings_without_a_flight_name_no_rollout():
    made = trainer()
    assert diagnose([made.iterate(0) | {"clip_fraction": 0.9}], made.config)["large_updates"]
