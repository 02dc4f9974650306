"""A rollout of all groups: what each rank recorded of it, and what all of them know."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alpagym import sim
from alpagym.grpo.advantage import Advantages
from alpagym.grpo.learner import Lesson, Origin
from alpagym.grpo.rollout import Recording
from alpagym.ranks import Ranks
from alpagym.rows import decode
from alpagym.types import Scenarios


@dataclass
class Driven:
    """What all ranks know of a rollout of all groups."""

    reward: Tensor
    """[T, W]"""
    going: Tensor
    """`Recording.driven`, bool [T, W]"""
    valid: Tensor
    """`Recording.valid`, of decisions: bool [D, W]"""
    terms: Tensor
    """Raw reward terms, summed over each drive. [W, R]"""

    @classmethod
    def of(cls, record: Recording, ranks: Ranks, own: slice, count: int, every: int) -> Driven:
        """What all ranks are told of what each has recorded.

        Args:
            record: of this rank's worlds.
            ranks: who tells each other.
            own: which of all worlds are this rank's.
            count: W.
            every: steps from one decision to the next.
        """
        terms = (record.terms * record.driven.unsqueeze(-1)).sum(0)
        if ranks.alone:
            return cls(record.reward, record.driven, record.valid, terms)
        going = ranks.join(record.driven.to(torch.uint8), 1, own, count).bool()
        reward = ranks.join(record.reward, 1, own, count)
        return cls(reward, going, going[::every], ranks.join(terms, 0, own, count))

    @property
    def steps(self) -> int:
        """Steps driven by the policy."""
        return int(self.going.sum())

    @property
    def failed(self) -> Tensor:
        """Which worlds met an at-fault collision or left the road, bool [W]."""
        failures = [sim.RewardTerm.COLLISION_AT_FAULT, sim.RewardTerm.OFFROAD]
        return (self.terms[:, failures] > 0).any(1)


@dataclass
class Rolled:
    """A rollout of all groups, compared."""

    record: Recording
    """Of this rank's worlds."""
    driven: Driven
    compared: Advantages
    origin: Origin
    wanted: Tensor | None
    """What a critic should have expected, [D, W]."""

    scenarios: Scenarios
    """That were driven."""
    column: Tensor | None
    """As `Lesson.column`."""

    def described(self) -> dict[str, float]:
        """Numbers of it, to log."""
        driven, compared, term = self.driven, self.compared, sim.RewardTerm
        return {
            "return_mean": float(compared.returns.mean()),
            "return_min": float(compared.returns.min()),
            "return_max": float(compared.returns.max()),
            "return_spread_in_group": float(compared.returns.std(1, correction=0).mean()),
            "return_spread_across_groups": float(compared.returns.mean(1).std())
            if len(compared.returns) > 1
            else 0.0,
            "dead_group_fraction": float(compared.dead.float().mean()),
            "failure_rate": float(driven.failed.float().mean()),
            "episode_steps": float(driven.going.sum(0).float().mean()),
        } | {f"term_{t.name.lower()}": float(driven.terms[:, t].mean()) for t in term}

    def extremes(self) -> dict[str, str | list[str]]:
        """Which rollouts returned least and most, and the scenarios of dead groups."""
        returns, origin = self.compared.returns.flatten(), self.origin
        dead = torch.nonzero(self.compared.dead.cpu()).squeeze(1) * self.compared.returns.shape[1]
        return {
            "return_min": str(origin.token(int(returns.argmin()))),
            "return_max": str(origin.token(int(returns.argmax()))),
            "dead_scenarios": sorted({origin.name[world] for world in dead.tolist()}),
        }

    def lesson(self, worlds: Tensor | None = None) -> Lesson:
        """What it teaches; of some worlds, copied, with rows that need no scenarios."""
        own, column = worlds, self.column
        if worlds is not None and column is not None:
            own = column[worlds]
            here = own >= 0
            column = torch.where(here, here.cumsum(0) - 1, -1)
            own = own[here] if bool(here.any()) else own.new_zeros(1)

        def of(t: Tensor) -> Tensor:
            return t if own is None else t[:, own]

        def of_all(t: Tensor) -> Tensor:
            return t if worlds is None else t[:, worlds]

        seen = self.record.observation.map(of)
        return Lesson(
            observation=seen if worlds is None else decode(seen, self.scenarios),
            action=of(self.record.action),
            log_prob=of(self.record.log_prob),
            advantage=of_all(self.compared.advantage),
            valid=of_all(self.driven.valid),
            origin=self.origin if worlds is None else self.origin.of(worlds),
            wanted=None if self.wanted is None else of_all(self.wanted),
            column=column,
        )
