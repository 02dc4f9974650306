"""Rollouts of training, found again by their tokens, and driven again.

The flight recorder of a run (`flight.jsonl`) names for every iteration the groups that were rolled.
Together with the policy of that iteration they are the very rollouts: randomness follows from
scenario, seed, member and step. All groups are rolled again side by side as they were, since a
network's matrix products may differ in their last bits with the batch.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alpagym import sim
from alpagym.checkpoint import CheckpointError, load_policy
from alpagym.config import DRIVES_ON
from alpagym.grpo.rollout import Recording, Roller
from alpagym.grpo.tokens import Token, digest
from alpagym.policies.policy import Policy
from alpagym.render.replay import Rollout
from alpagym.resume import BEFORE_FILE, FLIGHT_FILE, POLICIES
from alpagym.reward_functions import NotFinite, UserRewards
from alpagym.reward_ranges import check_ranges
from alpagym.run_directory import read_rows
from alpagym.scenarios.batch import batch, max_agents
from alpagym.scenarios.scenario import Scenario
from alpagym.training_config import Precision, TrainConfig
from alpagym.training_data import named
from alpagym.types import Outcome, State


def stride_of(done: int, limit: int) -> int:
    """Every how many iterations a policy is kept, so that `done` of them leave at most `limit`."""
    stride = 1
    while -(-done // stride) > limit:
        stride *= 2
    return stride


def policy_name(iteration: int) -> str:
    """Among the checkpoints, of the policy that drove in an iteration."""
    return f"{POLICIES.name}/{iteration:07d}"


def how_to_look(run: Path, token: str, iteration: int) -> str:
    """The end of a sentence: what shows a rollout; empty if no policy of its iteration was kept."""
    kept = (run / "checkpoints" / f"{policy_name(iteration)}.safetensors").is_file()
    show = f"alpagym render --token {shlex.quote(token)} run={run}"
    return f"; `{show}` shows it" if token and kept else ""


def thin_out(run: Path, stride: int) -> None:
    """Remove the policies of iterations that are no multiple of `stride`."""
    for iteration, file in _kept(run).items():
        if iteration % stride:
            file.unlink(missing_ok=True)


def _kept(run: Path) -> dict[int, Path]:
    """Policies of single iterations."""
    files = (run / POLICIES).glob("*.safetensors")
    return {int(file.stem): file for file in files if file.stem.isdecimal()}


@dataclass(frozen=True)
class Found:
    """Where a rollout was."""

    iteration: int
    groups: list[Token]
    """All that were rolled beside it, in their order; member 0 of each."""
    group: int
    """Its own among them."""
    digest: str | None
    """Of the recording; None where training stopped on it."""


def find(run: Path, token: Token) -> Found:
    """Look a rollout up in the flight recorder of a run.

    Raises:
        CheckpointError: there is none, or the run has no such rollout.
    """
    rows = read_rows(run / FLIGHT_FILE)
    if not rows:
        raise CheckpointError(f"{run}: expected rollouts in {FLIGHT_FILE}, found none")
    for row in rows:
        for roll in row.get("rolls", ()):
            if token.group in roll["groups"]:
                groups = [_group(text) for text in roll["groups"]]
                at = roll["groups"].index(token.group)
                return Found(row["iteration"], groups, at, roll.get("digest"))
    raise CheckpointError(f"{run}: no rollout {token} in {FLIGHT_FILE}")


def _group(text: str) -> Token:
    start, _, lead = text.rpartition("+")
    return Token.of(f"{start}.0+{lead}")


@dataclass
class Replayed:
    """A rollout that was driven again: T steps, and the D decisions in them."""

    token: Token
    iteration: int
    """That it was part of."""
    policy_iteration: int
    """Whose policy drove now."""
    same: bool | None
    """Whether all that was rolled has the bits of training; None where training kept no digest."""
    rollout: Rollout
    """From the fork on."""
    action: Tensor
    """What was decided. [D, N]"""
    reward: Tensor
    """[T]"""

    @property
    def told(self) -> str:
        """What it is, and how sure that is, as a sentence."""
        total = f"{self.token}: {len(self.reward)} steps, return {float(self.reward.sum()):.6g}"
        if self.policy_iteration != self.iteration:
            return (
                f"{total}, NOT the rollout of iteration {self.iteration}: its policy was not kept "
                f"(keep_policies), that of iteration {self.policy_iteration} drove instead"
            )
        if self.same is None:
            return f"{total}, by the policy of iteration {self.iteration}, which ended training"
        if self.same:
            return f"{total}: the rollout of iteration {self.iteration}, bit for bit"
        return (
            f"{total}, by the policy of iteration {self.iteration}, but not bit for bit as in "
            "training: another device, number of threads, version, or other scenarios"
        )


def replay(
    run: Path,
    config: TrainConfig,
    token: Token,
    device: torch.device,
    say: Callable[[str], None],
) -> Replayed:
    """Drive a rollout of training again.

    Args:
        run: its directory.
        config: the run's own.
        token: of the rollout.
        device: where to drive; the bits are those of training on the same device only.
        say: told of recordings that cannot be used.

    Raises:
        CheckpointError: no such rollout, or no policy was kept.
        ScenarioError: scenarios are no longer there.
    """
    found = find(run, token)
    size = config.grpo.group_size if config.grpo.forked else 1
    if token.member >= size:
        raise CheckpointError(f"{run}: no rollout {token}: groups have {size} members")
    iteration, file = _nearest_policy(run, found.iteration)
    policy, _, _ = load_policy(file, device)
    scenarios = named(config, {group.scenario for group in found.groups}, say)
    watched = _Watched(found.group * size + token.member)
    functions = UserRewards(config.reward_functions)
    try:
        record = _roll(config, policy, scenarios, found, watched, functions, device)
    except NotFinite:  # training ended on it; the drive does not depend on its reward
        record = _roll(config, policy, scenarios, found, watched, UserRewards(()), device)
    decided, driven = (t[:, watched.world] for t in (record.valid, record.driven))
    return Replayed(
        token,
        found.iteration,
        iteration,
        None if found.digest is None else found.digest == digest(record),
        watched.rollout(scenarios[token.scenario], record, f"policy of iteration {iteration}"),
        record.action[decided, watched.world].cpu(),
        record.reward[driven, watched.world].cpu(),
    )


def _nearest_policy(run: Path, iteration: int) -> tuple[int, Path]:
    """The policy of an iteration, or the last before it that was kept, and of which it is."""
    before = {i: file for i, file in _kept(run).items() if i <= iteration}
    return max(before.items(), default=(0, run / BEFORE_FILE))


def _roll(
    config: TrainConfig,
    policy: Policy,
    scenarios: Mapping[str, Scenario],
    found: Found,
    watched: _Watched,
    functions: UserRewards,
    device: torch.device,
) -> Recording:
    """Roll all groups of an iteration again, as the trainer did."""
    grpo, places = config.grpo, {name: i for i, name in enumerate(scenarios)}
    every = list(scenarios.values())
    packed = batch(every, device, lanes=config.sim.traffic.name in DRIVES_ON)
    horizon = max(s.num_steps for s in every)
    roller = Roller(
        sim.with_near(packed, config.sim),
        max_agents(every),
        num_groups=len(found.groups),
        group_size=grpo.group_size if grpo.forked else 1,
        num_steps=min(horizon, config.sim.max_steps) if config.sim.max_steps > 0 else horizon,
        config=config.sim,
        weights=sim.make_weights(config.reward, device),
        functions=functions,
        ranges=check_ranges(config.reward_ranges),
        observed=policy.ranges,
        sizes=policy.sizes,
    )
    roller.watch = watched
    scenario = torch.tensor([places[g.scenario] for g in found.groups], dtype=torch.int32)
    seed, lead = (torch.tensor([getattr(g, n) for g in found.groups]) for n in ("seed", "lead"))
    ahead = lead.to(device) if grpo.branch_within > 0 else None
    low = grpo.precision is Precision.bfloat16
    with torch.autocast(device.type, torch.bfloat16, enabled=low):
        return roller.roll(policy, scenario.to(device), seed.to(device), ahead)


class _Watched:
    """Keeps the states of one world while all drive."""

    def __init__(self, world: int) -> None:
        self.world = world
        self._states: list[dict[str, np.ndarray]] = []
        self._collision: list[int] = []

    def __call__(self, state: State, outcome: Outcome | None) -> None:
        if outcome is None:
            self._states, self._collision = [], []
        else:
            self._collision.append(int(outcome.collision[self.world, 0]))
        names = ("x", "y", "yaw", "valid", "step", "terminated")
        self._states.append(
            {name: getattr(state, name)[self.world].cpu().numpy().copy() for name in names}
        )

    def rollout(self, scenario: Scenario, record: Recording, label: str) -> Rollout:
        """For the eye: from the fork to the end of the episode."""
        steps = int(record.driven[:, self.world].sum())
        states = self._states[: steps + 1]
        terms = record.terms[:steps, self.world].cpu().numpy()
        reward = record.reward[:steps, self.world].cpu().numpy()
        rewards = {t.name.lower(): terms[:, t] for t in sim.RewardTerm}
        ended = bool(states[-1]["terminated"].any())
        offroad = terms[:, sim.RewardTerm.OFFROAD] > 0
        at_fault = terms[:, sim.RewardTerm.COLLISION_AT_FAULT] > 0
        return Rollout(
            scenario,
            **{name: np.stack([s[name] for s in states]) for name in ("x", "y", "yaw", "valid")},
            ego=scenario.ego,
            start_frame=scenario.start_frame + int(states[0]["step"]),
            rewards=rewards | {"reward": reward},
            collision=np.array(self._collision[:steps], np.uint8),
            offroad=offroad,
            done_step=steps - 1 if ended else None,
            label=label,
            metrics={"failure": bool((offroad | at_fault).any()), "return": float(reward.sum())},
        )
