"""Who drives: checkpoints, baselines and drivers far away, each in a simulator that fits it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import torch

from alpagym.checkpoint import check_made_for, load_policy
from alpagym.config import SimConfig
from alpagym.evaluation import BASELINES, check_simulator
from alpagym.interop.alpasim.address import Address, is_address, parse_address
from alpagym.policies.policy import Policy

OWN = (
    *("action", "plan_steps", "replan_every", "observation", "row_format", "slot_order"),
    *("num_agents", "num_road_points", "num_route_points", "num_lights"),
    *("ego_columns", "agent_columns", "road_columns"),
    *("agent_radius", "road_radius", "light_radius", "route_step", "route_horizon"),
)
"""Options of the simulator that belong to a driver: what it sees, and how it acts."""


@dataclass(frozen=True)
class Contender:
    """Who drives."""

    label: str
    driver: Policy | str | Address
    trained_in: SimConfig | None = None
    """Of a checkpoint."""
    trained_on: tuple[str, ...] = ()
    """Licenses, likewise."""


class Asked(Protocol):
    """Options that choose who drives."""

    @property
    def checkpoint(self) -> str: ...
    @property
    def policy(self) -> str: ...
    @property
    def compare(self) -> str: ...
    @property
    def reward_weights(self) -> Mapping[str, float]: ...


def contenders_of(
    command: str, config: Asked, device: torch.device, *, far: bool = True
) -> list[Contender]:
    """The driver, and what it is compared with, if anything.

    Args:
        command: for messages.
        config: its options.
        device: where checkpoints are loaded.
        far: whether drivers of AlpaSim may drive.

    Raises:
        ValueError: neither a checkpoint nor another driver, or both; or none of that name.
        CheckpointError: a checkpoint that cannot be read.
    """
    names = f"{', '.join(BASELINES)} or {'grpc://host:port' if far else 'checkpoint='}"
    for option in ("policy", "compare") if not far else ():
        if is_address(getattr(config, option)):
            raise ValueError(
                f"{option}: expected one of {names}, got {getattr(config, option)}: alpagym eval "
                f"with alpasim.log=FOLDER keeps its drives, and {command} asl=FOLDER shows them"
            )
    if bool(config.checkpoint) == bool(config.policy):
        known = "|".join([*BASELINES, *(["grpc://host:port"] if far else [])])
        raise ValueError(f"{command}: expected either checkpoint=<run> or policy=<{known}>")
    if config.policy and not (config.policy in BASELINES or is_address(config.policy)):
        raise ValueError(f"policy: expected one of {names}, got {config.policy}")
    asked = [config.policy or config.checkpoint, *filter(None, [config.compare])]
    if config.reward_weights and all(name in BASELINES or is_address(name) for name in asked):
        raise ValueError("reward_weights: expected a checkpoint that observes them, got policy=")
    found = []
    for option, name in zip(("checkpoint", "compare"), asked, strict=False):
        if is_address(name):
            at = parse_address("policy" if option == "checkpoint" else option, name)
            found.append(Contender(str(at), at))
            continue
        if name in BASELINES and (config.policy or option == "compare"):
            found.append(Contender(name, name))
            continue
        driver, trained_in, trained_on = load_policy(name, device)
        driver.choose_weights(config.reward_weights)
        found.append(Contender(name, driver, trained_in, tuple(trained_on)))
    return found


def simulators_of(
    contenders: Sequence[Contender],
    asked: SimConfig,
    given: Sequence[str],
    say: Callable[[str], None],
) -> list[SimConfig]:
    """The first checkpoint's, or what is asked for; each contender's own in what is `OWN`.

    Args:
        contenders: who drives.
        asked: the options as they are given.
        given: names of those that replace a checkpoint's.
        say: told how each checkpoint was trained, and what is otherwise now.

    Raises:
        ValueError: a simulator that the checkpoint's network was not made for, or that no one ego
            a world is driven in.
    """
    trained = [c.trained_in for c in contenders if c.trained_in is not None]
    changes = {name: getattr(asked, name) for name in given}
    common = replace(trained[0] if trained else asked, **changes)
    result = []
    for contender in contenders:
        own, made = contender.trained_in, common
        if own is not None:
            say(f"{contender.label}: trained on: {', '.join(contender.trained_on) or 'unknown'}")
            mine = {name: getattr(own, name) for name in OWN if name not in changes}
            made = replace(common, **mine)
            assert isinstance(contender.driver, Policy)
            check_made_for(own, made, contender.driver)
            others = [f.name for f in fields(SimConfig) if f.name not in changes]
            differing = [n for n in others if getattr(own, n) != getattr(made, n)]
            for name in differing:
                now, then = (getattr(s, name) for s in (made, own))
                say(f"{contender.label}: drives with sim.{name}={now}, was trained with {then}")
        check_simulator(made)
        result.append(made)
    return result
