"""Policies by name: those of this package, and classes that users bring along.

A policy of a user is a class derived from `alpagym.policies.Policy` (of which `GaussianPolicy` is
one), named `module:Class` or by an entry point of `alpagym.policies`, and made by

    Class(config: PolicyConfig, sim_config: SimConfig, ranges: Ranges | None) -> Policy

whose `config.options` are its own. A checkpoint keeps the name, these options and the weights.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from alpagym import sim
from alpagym.config import SimConfig
from alpagym.plugins import load_named, registered
from alpagym.policies.late_fusion import LateFusion
from alpagym.policies.policy import Policy, Sizes
from alpagym.policies.trajectory import make_trajectory
from alpagym.reward_ranges import Ranges
from alpagym.training_config import PolicyConfig

ENTRY_POINTS = "alpagym.policies"
"""Group of entry points that packages register policies in."""

Maker = Callable[[PolicyConfig, SimConfig, Ranges | None], Policy]

BUILT_IN: dict[str, Maker] = {"late_fusion": LateFusion, "trajectory": make_trajectory}


def known_policies() -> list[str]:
    """Kinds that installed packages register."""
    return registered(ENTRY_POINTS)


def make_policy(
    config: PolicyConfig, sim_config: SimConfig, ranges: Ranges | None = None
) -> Policy:
    """A new policy, of `config.kind`.

    Args:
        config: which, and how large.
        sim_config: of the simulator that it drives in.
        ranges: of the reward weights that it observes.

    Raises:
        ValueError: an unknown kind; something that is no policy, fails, or breaks the contract; or
            one that cannot drive with this simulator. One sentence.
    """
    policy = BUILT_IN.get(config.kind, _make_users)(config, sim_config, ranges)
    policy.made_of = config
    return policy


def _make_users(config: PolicyConfig, sim_config: SimConfig, ranges: Ranges | None) -> Policy:
    name = f"policy {config.kind}"
    if ":" not in config.kind and config.kind not in known_policies():
        known = ", ".join([*BUILT_IN, *known_policies()])
        raise ValueError(
            f"policy.kind: expected one of {known}, or module:Class, got {config.kind}"
        )
    found = load_named("policy", "class", config.kind, ENTRY_POINTS)
    if not (isinstance(found, type) and issubclass(found, Policy)):
        raise ValueError(
            f"{name}: expected a class derived from alpagym.policies.Policy, got {found!r:.60}"
        )
    try:
        policy = found(config, sim_config, ranges)
        _try_out(policy, sim_config)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{name}: {type(error).__name__}: {reason}") from error
    return policy


@torch.no_grad()
def _try_out(policy: Policy, config: SimConfig) -> None:
    """Ask two worlds' decisions of it and compare with the shapes of the contract."""
    size = sim.action_size(config)
    sizes = policy.sizes or Sizes(size, size, size)
    seen = sim.make_observation(sim.make_state(2, 1), config).map(lambda t: t.squeeze(1))
    if config.row_format.name == "compact":  # as `alpagym.rows.decode` gives them
        seen.road = torch.zeros(2, config.num_road_points, 7)
    seen = replace(seen, agents=seen.agents.float(), road=seen.road.float())
    behind = torch.zeros(2, sizes.memory + len(policy.ranges))
    seen = replace(seen, ego=torch.cat([seen.ego, behind], -1))
    policy.eval()
    decision, log_prob = policy.sample(seen, torch.zeros(2, sizes.noise))
    recorded, noise = torch.zeros(2, 2 * policy.imitates), torch.zeros(2, policy.imitation_noise)
    given = {
        "mean": (policy.mean(seen), [2, size]),
        "sample": (decision, [2, sizes.decision]),
        "sample's log-probability": (log_prob, [2, sizes.log_prob]),
        "log_prob": (policy.log_prob(seen, decision), [2, sizes.log_prob]),
        "action_of": (policy.action_of(seen, decision), [2, size]),
        "deviation": (policy.deviation(seen, recorded, noise), [2, 2 * policy.imitates]),
        "remember": (policy.remember(seen), [2, sizes.memory]),
        "entropy": (policy.entropy(), []),
    }
    for method, (value, shape) in given.items():
        if not isinstance(value, Tensor) or list(value.shape) != shape:
            got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{method}: expected {shape} for 2 worlds, got {got}")


def load_weights(policy: nn.Module, file: str) -> None:
    """Take the weights of a policy, or of that module in it whose weights they are, from a file.

    Args:
        policy: what they are put into.
        file: of safetensors, or of `torch.save(module.state_dict())`; no code in it is run.

    Raises:
        ValueError: no such file, or one that does not fit; one sentence.
    """
    if not Path(file).is_file():
        raise ValueError(f"policy.weights: {file}: no such file")
    try:
        weights: Any = (
            load_file(file)
            if file.endswith(".safetensors")
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except (OSError, RuntimeError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"policy.weights: {file}: expected weights: {reason}") from error
    if not isinstance(weights, dict) or not all(isinstance(w, Tensor) for w in weights.values()):
        got = type(weights).__name__
        raise ValueError(f"policy.weights: {file}: expected a module's state_dict, got a {got}")
    fitting = [m for m in policy.modules() if _shapes(m.state_dict()) == _shapes(weights)]
    if len(fitting) != 1 or not weights:
        raise ValueError(
            f"policy.weights: {file}: expected the weights of {type(policy).__name__} or of one "
            f"module in it, got {len(weights)} that fit {len(fitting)}: {', '.join(weights):.60}"
        )
    fitting[0].load_state_dict(weights)


def _shapes(weights: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(weight.shape) for name, weight in weights.items()}
