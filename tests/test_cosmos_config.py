"""Cosmos-RL's configuration: made of ours, every key checked, read back as it was written."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alpagym.command_line import UsageError, compose, to_config
from alpagym.interop.cosmos.config import (
    IDLE,
    OWN,
    RUN,
    build,
    check_keys,
    pinned,
    refuse,
    to_toml,
)
from alpagym.training_config import TrainConfig

ROOT = Path(__file__).resolve().parents[1]


def options(*given: str) -> TrainConfig:
    config = to_config(compose("train", ["backend=cosmos", *given]))
    assert isinstance(config, TrainConfig)
    return config


def with_keys(**keys: Any) -> TrainConfig:
    config = options()
    return replace(config, cosmos=replace(config.cosmos, options=keys))


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    nested = build(options("cosmos.options={train.ckpt.max_keep: 3}"), tmp_path)
    assert tomllib.loads(to_toml(nested)) == nested
    assert nested["train"]["ckpt"]["max_keep"] == 3


def test_toml_holds_whatever_a_path_may_be_called(tmp_path: Path) -> None:
    odd = tmp_path / "a \"b\" \\ 'c' ä = [d]\x7f\n😀#"
    odd.mkdir()
    nested = build(options(), odd)
    assert tomllib.loads(to_toml(nested))["custom"][RUN] == str(odd)


def test_values_of_all_kinds_survive() -> None:
    nested = {
        "mode": "x",
        "custom": {"f": 1e-5, "n": -3, "b": True, "l": [1, 2.5, "z"], "e": [], "t": {"u": "v"}},
        "train": {"ckpt": {"max_keep": 1}},
    }
    assert tomllib.loads(to_toml(nested)) == nested


def test_what_the_documentation_shows_can_be_given(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "cosmos.md").read_text()
    (shown,) = re.findall(r"`'(cosmos.options=\{.*?\})'`", page)
    nested = build(options(shown), tmp_path)
    assert nested["logging"]["logger"] == ["console", "wandb"]
    assert nested["logging"]["experiment_name"] == tmp_path.name
    named = build(options("cosmos.options={logging.project_name: mine}"), tmp_path)
    assert named["logging"]["project_name"] == "mine"
    source = (ROOT / "python/alpagym/interop/cosmos/options.py").read_text()
    (told,) = re.findall(r"e\.g\. `(\{.*?\})`", source)
    build(options(f"cosmos.options={told}"), tmp_path)


def test_a_batch_is_all_groups_of_an_iteration_in_one_call(tmp_path: Path) -> None:
    grpo = ("grpo.scenarios_per_iteration=24", "grpo.group_size=4")
    one = build(options(*grpo), tmp_path)
    assert one["train"]["train_batch_per_replica"] == 96
    assert one["rollout"]["n_generation"] == 4
    assert one["rollout"]["batch_size"] == 24
    assert one["train"]["train_policy"]["on_policy"] is True
    three = build(options(*grpo, "cosmos.policies=3"), tmp_path)
    assert three["train"]["train_batch_per_replica"] == 32
    assert three["rollout"]["batch_size"] == 8
    for part in ("policy", "rollout"):
        assert three[part]["parallelism"]["n_init_replicas"] == 3


def test_groups_stay_whole_where_several_replicas_learn_apart(tmp_path: Path) -> None:
    apart = options("cosmos.mode=disaggregated", "cosmos.policies=2", "cosmos.rollouts=5")
    nested = build(apart, tmp_path)
    assert nested["train"]["train_policy"]["data_dispatch_as_rank_in_mesh"] is True
    assert nested["train"]["train_policy"]["on_policy"] is False
    assert nested["policy"]["parallelism"]["n_init_replicas"] == 2
    assert nested["rollout"]["parallelism"]["n_init_replicas"] == 5
    assert nested["rollout"]["batch_size"] == 7  # 32 groups on 5 replicas


def test_an_unknown_key_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no such key; did you mean train.ckpt.max_keep\?"):
        check_keys({"train": {"ckpt": {"max_kept": 3}}})
    with pytest.raises(ValueError, match=r"clip_ratio_c: cosmos-rl 0.4.6 has no such key"):
        check_keys({"train": {"train_policy": {"clip_ratio_c": 3.0}}})


@pytest.mark.parametrize(
    "key", ["rollout.backend.name", "mode.x", "custom.alpagym_run.x", "train.ckpt.max_keep.x"]
)
def test_a_key_below_a_value_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match=f"{key}: .*(no such key|nothing can be below)"):
        build(with_keys(**{"train.ckpt.max_keep": 3, key: 1}), tmp_path)


@pytest.mark.parametrize(
    ("nested", "wanted"),
    [
        ({"train": {"train_batch_per_replica": "8"}}, "expected int, got '8'"),
        ({"train": {"train_batch_per_replica": True}}, "expected int, got True"),
        ({"train": {"non_text": 1}}, "expected bool, got 1"),
        ({"mode": 3}, "expected str, got 3"),
        ({"logging": {"logger": "console"}}, "expected list, got 'console'"),
    ],
)
def test_a_value_of_another_kind_is_refused(nested: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        check_keys(nested)


def test_whole_numbers_stand_for_floats_and_custom_takes_anything() -> None:
    check_keys({"train": {"train_policy": {"temperature": 1}}})
    check_keys({"custom": {"anything": {"at": ["all"]}}})


def test_keys_that_would_change_nothing_name_what_does(tmp_path: Path) -> None:
    name = "train.train_policy.epsilon_low"
    with pytest.raises(ValueError, match=r"no effect here, give grpo.clip_low instead"):
        build(with_keys(**{name: 0.1}), tmp_path)
    with pytest.raises(ValueError, match=r"give save_every instead"):
        build(with_keys(**{"train.ckpt.save_freq": 5}), tmp_path)
    with pytest.raises(ValueError, match=r"rollout.n_generation follows from other options: 16"):
        build(with_keys(**{"rollout.n_generation": 4}), tmp_path)


@pytest.mark.parametrize("beginning", IDLE)
def test_keys_without_effect_are_refused(tmp_path: Path, beginning: str) -> None:
    found = [key for key in pinned()[1] if key.startswith(beginning) and key not in OWN]
    assert found
    for key in found:
        with pytest.raises(ValueError, match=rf"{re.escape(key)} has no effect here: "):
            build(with_keys(**{key: 1}), tmp_path)


def test_all_of_them_are_keys_and_their_replacements_options() -> None:
    known = pinned()[1]
    assert not [key for key in OWN if key not in known]
    options_named = sorted({"grpo=grpo" if o == "grpo" else f"{o}=1" for o in OWN.values()})
    compose("train", options_named)  # which refuses what is no option
    with pytest.raises(UsageError):
        compose("train", ["grpo.no_such=1"])


@pytest.mark.parametrize(
    "given",
    [
        "stream.scenarios=64",
        "grpo.forked=false",
        "grpo.branch_within=10",
        "grpo.refills=2",
        "grpo.baseline=critic",
        "grpo.imitation_weight=0.5",
        "grpo.shard=true",
        "final=best",
        "reward_ranges={progress: [0.0, 1.0]}",
        "cosmos.policies=5",
    ],
)
def test_what_cannot_be_had_is_refused_by_name(given: str) -> None:
    name = "grpo.scenarios_per_iteration" if "policies" in given else given.partition("=")[0]
    with pytest.raises(ValueError, match=f"^{name}: backend=cosmos expects"):
        refuse(options(given))


def test_defaults_can_be_had() -> None:
    refuse(options())


def test_the_extra_pins_the_version_that_keys_are_of() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"cosmos-rl=={pinned()[0]}" in project["optional-dependencies"]["cosmos"]
