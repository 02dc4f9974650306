"""What travels between those that drive and those that learn: groups of rollouts, whole.

A group is what its advantages come from, so it is never split. Cosmos-RL hands on single
completions; each names the group that it is a member of.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from alpagym.checkpoint import write_tensors
from alpagym.grpo.rollout import Recording
from alpagym.types import Observation

SEEN = "observation."
"""Before names of observations among the tensors of a file."""


@dataclass
class Group:
    """G rollouts of one draw."""

    draw: int
    """Its number: `Draws`."""
    name: str
    """Of the scenario."""
    seed: int
    record: Recording
    """Of these G worlds alone; nobody else has its memory."""

    @property
    def size(self) -> int:
        """G."""
        return self.record.driven.shape[1]

    def returns(self) -> list[float]:
        """Undiscounted return of each member, which Cosmos-RL calls its reward."""
        total = (self.record.reward * self.record.driven).sum(0)
        return [float(value) for value in total.cpu()]

    def write(self, path: Path) -> None:
        """Put it into a file, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        plain = {f.name: getattr(self.record, f.name) for f in fields(Recording)}
        seen = plain.pop("observation").tensors()
        header = {"draw": self.draw, "name": self.name, "seed": self.seed}
        write_tensors(path, plain | {f"{SEEN}{name}": t for name, t in seen.items()}, header)

    @classmethod
    def read(cls, path: Path, device: torch.device) -> Group:
        """Take it from a file of `write`, onto a device.

        Raises:
            ValueError: no such file, or no group in it.
        """
        try:
            with safe_open(path, "pt", device=str(device)) as stored:
                header = json.loads((stored.metadata() or {})["alpagym"])
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            names = [name for name in tensors if name.startswith(SEEN)]
            seen = {name.removeprefix(SEEN): tensors.pop(name) for name in names}
            record = Recording(observation=Observation(**seen), **tensors)
            return cls(header["draw"], header["name"], header["seed"], record)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: expected a group of rollouts: {error}") from error


@dataclass
class Member:
    """One rollout of a group: a completion, as Cosmos-RL calls it."""

    group: Group
    index: int

    @property
    def reward(self) -> float:
        """Its return."""
        return self.group.returns()[self.index]


def columns(record: Recording, at: slice) -> Recording:
    """Some worlds of a recording, copied: the next rollout overwrites it."""

    def of(tensor: Tensor) -> Tensor:
        return tensor[:, at].clone()

    return _each(of, [record])


def side_by_side(groups: Sequence[Group]) -> Recording:
    """One recording of all their worlds."""
    return _each(lambda *parts: torch.cat(parts, 1), [group.record for group in groups])


def _each(function: Any, records: Sequence[Recording]) -> Recording:
    seen = [record.observation.tensors() for record in records]
    observation = Observation(**{k: function(*(s[k] for s in seen)) for k in seen[0]})
    plain = {
        f.name: function(*(getattr(record, f.name) for record in records))
        for f in fields(Recording)
        if f.name != "observation"
    }
    return Recording(observation=observation, **plain)


def whole(members: Sequence[Member]) -> list[Group]:
    """The groups that rollouts are of, in the order of their draws.

    Raises:
        ValueError: not all of a group are there, or a draw was driven twice.
    """
    found: dict[int, tuple[Group, set[int]]] = {}
    for member in members:
        group, indices = found.setdefault(member.group.draw, (member.group, set()))
        if group is not member.group:
            raise ValueError(f"group of draw {group.draw}: expected one in a batch, got two")
        indices.add(member.index)
    for draw, (group, indices) in found.items():
        if len(indices) != group.size:
            raise ValueError(
                f"group of draw {draw}: expected all {group.size} rollouts in one batch, got "
                f"{len(indices)}"
            )
    return [found[draw][0] for draw in sorted(found)]
