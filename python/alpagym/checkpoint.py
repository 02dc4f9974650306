"""Policies on disk: weights in safetensors, and beside them what they were made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from alpagym.atomic import write_atomically
from alpagym.config import SimConfig
from alpagym.option_ranges import check
from alpagym.policies.policy import Policy
from alpagym.policies.registry import BUILT_IN, make_policy
from alpagym.reward_ranges import Ranges, check_ranges
from alpagym.training_config import PolicyConfig

FORMAT = "alpagym-policy-2"


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message is one sentence: the file and the reason."""


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], header: object) -> None:
    """Write tensors and a header (JSON) as safetensors, whole or not at all.

    Raises:
        OSError: it could not be written.
    """
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}

    def write(to: Path) -> None:
        try:
            save_file(plain, to, metadata={"alpagym": json.dumps(header)})
        except SafetensorError as error:  # which a full disk gives, too
            raise OSError(str(error)) from error

    write_atomically(path, write)


def save_policy(
    path: Path,
    policy: Policy,
    policy_config: PolicyConfig,
    sim_config: SimConfig,
    licenses: list[str],
) -> None:
    """Write a policy, whole or not at all: a reader never sees half a file.

    Raises:
        OSError: it could not be written.
    """
    header = {
        "format": FORMAT,
        "policy": asdict(replace(policy_config, weights="")),  # they are in here
        "sim": {
            name: value.name if isinstance(value, Enum) else value
            for name, value in asdict(sim_config).items()
        },
        "reward_ranges": policy.ranges,
        "licenses": licenses,
    }
    write_tensors(path, policy.state_dict(), header)


def load_policy(
    path: str | Path, device: str | torch.device = "cpu"
) -> tuple[Policy, SimConfig, list[str]]:
    """A policy, the simulator it was trained in, and the licenses of its training data.

    Args:
        path: a policy file, or a run directory, whose last policy is taken. A policy of a user is
            made by the class that the file names, which is imported.
        device: where the policy is put.

    Raises:
        CheckpointError: no such file, or not a policy of this format.
    """
    path = Path(path)
    file = path / "checkpoints" / "policy.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"{file}: no such policy file")
    try:
        with safe_open(file, "pt", device="cpu") as stored:
            header = json.loads((stored.metadata() or {}).get("alpagym", "null"))
            weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        policy_config, sim_config, ranges, licenses = _parse(header)
        if policy_config.kind in BUILT_IN:  # shapes first, before any memory is taken for them
            with torch.device("meta"):
                _check_weights(make_policy(policy_config, sim_config, ranges), weights)
        policy = make_policy(policy_config, sim_config, ranges)
        _check_weights(policy, weights)
        policy.load_state_dict(weights)
    except (
        SafetensorError,
        OSError,
        TypeError,
        KeyError,
        ValueError,
        RuntimeError,
        AttributeError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{file}: not a policy of format {FORMAT}: {reason}") from error
    return policy.to(device).eval(), sim_config, licenses


def check_made_for(trained_in: SimConfig, asked: SimConfig, policy: Policy) -> None:
    """Refuse a simulator whose actions or observations a policy's network was not made for.

    Raises:
        ValueError: the first option that differs.
    """
    names = ["action", "observation", "num_route_points", "plan_steps", "replan_every"]
    if policy.sizes is not None and policy.sizes.memory:
        names.append("num_agents")  # which are remembered
    for name in names:
        wanted, got = getattr(trained_in, name), getattr(asked, name)
        if wanted != got:
            raise ValueError(f"sim.{name}: the checkpoint was trained for {wanted}, got {got}")


def _parse(header: Any) -> tuple[PolicyConfig, SimConfig, Ranges, list[str]]:
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else None
        raise ValueError(f"expected metadata of format {FORMAT}, got {found}")
    stored = dict(header["sim"])
    for f in fields(SimConfig):
        if isinstance(f.default, Enum) and f.name in stored:  # older ones may lack some
            stored[f.name] = type(f.default)[stored[f.name]]
    stored["end_on"] = tuple(str(event) for event in stored["end_on"])
    policy_config, sim_config = PolicyConfig(**header["policy"]), SimConfig(**stored)
    for part, config in (("policy", policy_config), ("sim", sim_config)):
        for f in fields(config):
            value, kind = getattr(config, f.name), type(f.default)
            if f.default_factory is not MISSING:
                kind = type(f.default_factory())
            if type(value) is not kind and (kind, type(value)) != (float, int):
                raise ValueError(f"{part}.{f.name}: expected {kind.__name__}, got {value!r:.60}")
        check(config, f"{part}.")
    ranges = check_ranges(header.get("reward_ranges", {}))
    licenses = header["licenses"]
    if not isinstance(licenses, list) or not all(isinstance(x, str) for x in licenses):
        raise ValueError(f"licenses: expected a list of names, got {licenses!r:.60}")
    return policy_config, sim_config, ranges, licenses


def _check_weights(policy: Policy, weights: dict[str, torch.Tensor]) -> None:
    """Compare with the shapes that a policy has."""
    wanted = policy.state_dict()
    for name in sorted(wanted.keys() | weights.keys()):
        shapes = [list(d[name].shape) if name in d else "none" for d in (wanted, weights)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"weights {name}: expected {shapes[0]}, got {shapes[1]}")
        if not bool(weights[name].isfinite().all()):
            raise ValueError(f"weights {name} hold NaN or infinity")
