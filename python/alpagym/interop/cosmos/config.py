"""Cosmos-RL's configuration, made of ours and checked key by key.

Cosmos-RL ignores keys that it does not know, and our trainer those that its own would use. So both
are refused here, where a sentence can name them. `keys.json` lists the keys of the version that is
pinned (`scripts/cosmos_keys.py`).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from alpagym.training_config import TrainConfig

BACKEND = "alpagym"
"""Name of our rollout backend among Cosmos-RL's."""
TRAINER = "alpagym_grpo"
"""Name of our trainer."""
RUN = "alpagym_run"
"""Key below `custom`: the run directory, whose `config.yaml` says all that Cosmos-RL does not."""

OWN = {
    "train.seed": "seed",
    "train.epoch": "grpo.iterations",
    "train.max_num_steps": "grpo.iterations",
    "train.optm_lr": "grpo.learning_rate",
    "train.optm_name": "grpo.learning_rate",
    "train.optm_grad_norm_clip": "grpo.max_grad_norm",
    "train.resume": "resume",
    "train.ckpt.save_freq": "save_every",
    "train.train_policy.variant": "grpo",
    "train.train_policy.algo": "grpo.scale",
    "train.train_policy.unbiased_advantage": "grpo.scale",
    "train.train_policy.epsilon_low": "grpo.clip_low",
    "train.train_policy.epsilon_high": "grpo.clip_high",
    "train.train_policy.lower_bound_ratio": "grpo.dual_clip",
    "train.train_policy.aipo_rho": "grpo.truncate_ratio",
    "train.train_policy.off_policy_masking_delta": "grpo.off_policy_limit",
    "train.train_policy.loss_type": "grpo.average",
    "train.train_policy.unbiased_loss_max_tokens": "grpo.constant_steps",
    "train.train_policy.kl_beta": "grpo.kl_weight",
    "train.train_policy.unbiased_kl_estimate": "grpo.kl_corrected",
    "train.train_policy.entropy_coeff": "grpo.entropy_weight",
    "train.train_policy.mu_iterations": "grpo.epochs",
    "train.train_policy.batch_size_per_optimize": "grpo.minibatch_size",
    "train.train_policy.dataloader_shuffle": "seed",
    "train.train_policy.dataloader_seed": "seed",
}
"""Keys that would change nothing, or break the order of draws, and what to give instead."""

IDLE = {
    "train.optm_": "the optimizer is AlpaGym's, whose options are those of grpo",
    "policy.lora.": "policies learn with all of their weights",
    "policy.freeze_pattern": "policies learn with all of their weights",
    "validation.": "policies are evaluated before GRPO and after it",
    "rollout.sampling_config.": "policies sample by themselves",
    "rollout.seed": "draws follow from seed",
    "train.train_policy.temperature": "policies sample by themselves",
}
"""Beginnings of keys that would change nothing and that no option stands for, and why."""


@cache
def pinned() -> tuple[str, dict[str, list[str]]]:
    """The version of Cosmos-RL that is supported, and kinds of values by dotted key."""
    table = json.loads(Path(__file__).with_name("keys.json").read_text())
    return table["cosmos_rl"], table["keys"]


def refuse(config: TrainConfig) -> None:
    """Refuse what cannot be had on Cosmos-RL.

    Raises:
        ValueError: the first such option, with what is expected instead.
    """
    grpo, cosmos = config.grpo, config.cosmos
    wanted = {
        "stream.scenarios": (config.stream.scenarios, "0", config.stream.scenarios == 0),
        "reward_ranges": (config.reward_ranges, "none", not config.reward_ranges),
        "final": (config.final, "last", config.final == "last"),
        "grpo.forked": (grpo.forked, "true", grpo.forked),
        "grpo.branch_within": (grpo.branch_within, "0", grpo.branch_within == 0),
        "grpo.refills": (grpo.refills, "0", grpo.refills == 0),
        "grpo.baseline": (grpo.baseline, "group or leave_one_out", grpo.baseline != "critic"),
        "grpo.imitation_weight": (grpo.imitation_weight, "0", grpo.imitation_weight == 0.0),
        "grpo.shard": (grpo.shard, "false", not grpo.shard),
        "grpo.scenarios_per_iteration": (
            grpo.scenarios_per_iteration,
            f"a multiple of cosmos.policies={cosmos.policies}",
            grpo.scenarios_per_iteration % cosmos.policies == 0,
        ),
    }
    for name, (got, expected, fits) in wanted.items():
        if not fits:
            raise ValueError(f"{name}: backend=cosmos expects {expected}, got {got}")
    build(config, Path())


def build(config: TrainConfig, run: Path) -> dict[str, Any]:
    """The configuration of Cosmos-RL for a run.

    Args:
        config: ours.
        run: its run directory.

    Raises:
        ValueError: a key of `cosmos.options` that Cosmos-RL has not, whose value is of another
            kind, that follows from an option of ours, or that would change nothing.
    """
    grpo, cosmos = config.grpo, config.cosmos
    colocated = cosmos.mode == "colocated"
    groups = grpo.scenarios_per_iteration // cosmos.policies
    drivers = cosmos.policies if colocated else cosmos.rollouts
    batch = groups * grpo.group_size
    values: dict[str, Any] = {
        "mode": cosmos.mode,
        f"custom.{RUN}": str(run.resolve()),
        "train.output_dir": str((run / "cosmos").resolve()),
        "train.train_batch_per_replica": batch,
        "train.epoch": 1,  # of the draws, which are as many as all iterations need
        "train.non_text": True,
        "train.compile": False,
        "train.param_dtype": "float32",
        "train.ckpt.enable_checkpoint": True,
        "train.ckpt.save_freq": config.save_every,
        "train.ckpt.export_safetensors": False,
        "train.train_policy.type": "grpo",
        "train.train_policy.trainer_type": TRAINER,
        "train.train_policy.mini_batch": batch,
        "train.train_policy.on_policy": colocated,
        "train.train_policy.dataloader_shuffle": False,
        # Whole groups reach a replica, which compares them. Colocated ones keep what they drive.
        "train.train_policy.data_dispatch_as_rank_in_mesh": not colocated and cosmos.policies > 1,
        "rollout.backend": BACKEND,
        "rollout.n_generation": grpo.group_size,
        "rollout.batch_size": -(-grpo.scenarios_per_iteration // drivers),  # one batched call
        "policy.model_name_or_path": str((run / "checkpoints" / "before.safetensors").resolve()),
        "policy.model_gradient_checkpointing": False,
    }
    defaults: dict[str, Any] = {
        "logging.logger": ["console"],
        "logging.project_name": "alpagym",
        "logging.experiment_name": run.name,
    }
    for part, count in (("policy", cosmos.policies), ("rollout", drivers)):
        values[f"{part}.parallelism.n_init_replicas"] = count
        for name in ("tp_size", "cp_size", "pp_size", "ep_size", "dp_shard_size"):
            values[f"{part}.parallelism.{name}"] = 1
        values[f"{part}.parallelism.dp_replicate_size"] = 1
    given = dict(_flat(cosmos.options))
    for key in given:
        if key in OWN:
            raise ValueError(f"cosmos.options: {key} has no effect here, give {OWN[key]} instead")
        for beginning, why in IDLE.items():
            if key.startswith(beginning):
                raise ValueError(f"cosmos.options: {key} has no effect here: {why}")
        if key in values:
            raise ValueError(f"cosmos.options: {key} follows from other options: {values[key]}")
    flat = defaults | values | given
    check_keys(flat)
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        place = nested
        *path, last = key.split(".")
        for name in path:
            place = place.setdefault(name, {})
        place[last] = value
    return nested


def check_keys(nested: Mapping[str, Any]) -> None:
    """Look for keys that the pinned version does not have, and for values of another kind.

    Keys may be dotted.

    Raises:
        ValueError: the first one, with the key that comes closest.
    """
    version, kinds = pinned()
    flat = dict(_flat(nested))
    for key, value in flat.items():
        if key.startswith("custom."):
            inside = [above for above in flat if key.startswith(f"{above}.")]
            if inside:
                raise ValueError(f"{key}: {inside[0]} has a value, so nothing can be below it")
            continue
        if key not in kinds:
            near = difflib.get_close_matches(key, kinds, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{key}: cosmos-rl {version} has no such key{hint}")
        if not any(_is(value, kind) for kind in kinds[key]):
            expected = " or ".join(kinds[key])
            raise ValueError(f"{key}: expected {expected}, got {value!r:.60}")


def _is(value: Any, kind: str) -> bool:
    if kind in ("int", "float") and isinstance(value, bool):
        return False
    types: dict[str, tuple[type, ...]] = {
        "bool": (bool,),
        "int": (int,),
        "float": (int, float),
        "str": (str,),
        "list": (list, tuple),
        "dict": (Mapping,),
    }
    return isinstance(value, types[kind])


def _flat(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values by dotted key; tables that are values themselves stay whole."""
    kinds = pinned()[1]
    for name, value in nested.items():
        key = f"{prefix}{name}"
        whole = "dict" in kinds.get(key, []) and key != "custom"
        if isinstance(value, Mapping) and not whole:
            yield from _flat(value, f"{key}.")
        else:
            yield key, value


def to_toml(nested: Mapping[str, Any], prefix: str = "") -> str:
    """The text of a configuration: what is no table first, as TOML asks for."""
    plain = {k: v for k, v in nested.items() if not isinstance(v, Mapping)}
    lines = [f"{json.dumps(k)} = {_value(v)}" for k, v in plain.items() if v is not None]
    text = "".join(f"{line}\n" for line in lines)
    for name, table in nested.items():
        if isinstance(table, Mapping):
            path = f"{prefix}{json.dumps(name)}"
            text += f"\n[{path}]\n{to_toml(table, f'{path}.')}"
    return text


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(v) for v in value)}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(k)} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, float):
        return repr(value)
    # As JSON has it, but that TOML wants the one control character escaped that JSON does not.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
