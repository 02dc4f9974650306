"""What the trainer says when something is wrong: one sentence, with cause and remedy."""

from __future__ import annotations

import pytest

from alpagym.config import RewardConfig
from alpagym.grpo.diagnosis import diagnose
from alpagym.training_config import GrpoConfig
from test_grpo import SMALL, trainer

WELL = {
    "dead_group_fraction": 0.1, "return_mean": 5.0, "return_spread_in_group": 1.0,
    "return_spread_across_groups": 2.0, "clip_fraction": 0.05, "ratio_max": 1.6, "kl": 0.0,
    "grad_norm": 0.8, "spread": 0.4, "refills": 0, "live_groups": 0.9, "term_progress": 30.0,
    "term_comfort": 0.2,
}  # fmt: skip


def findings(*changes, config=None, before=0):
    history = [WELL] * before + [{**WELL, **change} for change in changes]
    return diagnose(history, config or GrpoConfig())


def test_all_is_well():
    assert findings({}, before=30) == {}
    assert diagnose([WELL], GrpoConfig(refills=3)) == {}


@pytest.mark.parametrize(
    ("name", "change", "config", "words"),
    [
        ("dead_groups", {"dead_group_fraction": 0.9}, {}, ("90%", "drawn less often from now on")),
        (
            "dead_groups",
            {"dead_group_fraction": 0.9},
            {"resample_dead": False},
            ("grpo.resample_dead=true",),
        ),
        (
            "large_updates",
            {"clip_fraction": 0.6, "ratio_max": 31.0},
            {"epochs": 4},
            ("60%", "31", "grpo.learning_rate (now 0.0002)", "grpo.epochs (now 4)"),
        ),
        ("far_from_anchor", {"kl": 3.0}, {"kl_weight": 0.01}, ("grpo.kl_weight (now 0.01)",)),
        ("long_gradients", {"grad_norm": 50.0}, {}, ("shortened to 1",)),
        ("no_exploration", {"spread": 0.01}, {}, ("0.01",)),
        (
            "not_filled",
            {"refills": 3, "live_groups": 0.5},
            {"refills": 3},
            ("3 more rollouts", "50%"),
        ),
    ],
)
def test_signs_causes_and_remedies(name, change, config, words):
    found = findings(change, config=GrpoConfig(**config), before=10)
    assert list(found) == [name]
    for word in words:
        assert word in found[name]
    assert "\n" not in found[name]


def test_an_exploding_reward_names_the_term():
    found = findings({"return_mean": 4e4, "term_comfort": 9e5}, before=10)
    assert "comfort" in found["exploding_reward"]
    assert not findings({"return_mean": 4e4}, before=2)  # nothing to compare with yet


def test_returns_that_fall_are_noticed_but_not_noise():
    rise = [{"return_mean": 5.0 + 0.2 * i + (-1) ** i * 0.3} for i in range(20)]
    assert not findings(*rise)
    fall = [{"return_mean": 9.0 - 0.5 * i + (-1) ** i * 0.3} for i in range(12)]
    assert "imitation" in findings(*rise, *fall)["getting_worse"]


def test_clipping_that_never_acts_is_noticed():
    config = GrpoConfig(log_prob="mean", epochs=2)
    still = {"clip_fraction": 0.0}
    assert "grpo.log_prob=sum" in findings(*[still] * 5, config=config)["inert_clipping"]
    assert not findings(*[still] * 5)


def test_a_constant_reward_is_named():
    made = trainer(reward=RewardConfig())  # all weights 0
    found = diagnose([made.iterate(0)], GrpoConfig(**SMALL))
    assert list(found) == ["constant_reward"]
    assert "all rollouts returned the same (0)" in found["constant_reward"]


def test_extremes_carry_what_finds_them_again():
    made = trainer()
    made.iterate(0)
    flight = made.flight
    assert flight["dead_scenarios"] == sorted(set(flight["dead_scenarios"]))
    for name in ("return_min", "return_max", "ratio_max"):
        scenario, _, rest = flight[name].rpartition("@")
        seed, _, rest = rest.partition(".")
        member, _, lead = rest.partition("+")
        assert 0 <= int(scenario) < 4
        assert 0 <= int(seed) < 2**62
        assert 0 <= int(member) < 4
        assert lead == "0"
