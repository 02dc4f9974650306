"""What names a rollout of training, and what tells whether another is the same."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Self

from alpagym.grpo.rollout import Recording


@dataclass(frozen=True)
class Token:
    """What names a rollout: scenario@seed.member+lead."""

    scenario: str
    seed: int
    member: int
    """Of its group."""
    lead: int
    """Steps that the policy had driven when the group forked."""

    @classmethod
    def of(cls, text: str) -> Self:
        """Read one.

        Raises:
            ValueError: not a token.
        """
        scenario, _, rest = text.strip().rpartition("@")
        seed, _, rest = rest.partition(".")
        member, _, lead = rest.partition("+")
        if not scenario or not all(n.isdecimal() and n.isascii() for n in (seed, member, lead)):
            raise ValueError(f"token: expected scenario@seed.member+lead, got {text:.200}")
        return cls(scenario, int(seed), int(member), int(lead))

    @property
    def group(self) -> str:
        """Of all members: scenario@seed+lead."""
        return f"{self.scenario}@{self.seed}+{self.lead}"

    def __str__(self) -> str:
        return f"{self.scenario}@{self.seed}.{self.member}+{self.lead}"


def digest(record: Recording) -> str:
    """What tells recordings apart bit by bit: of decisions, and of the rewards of all steps."""
    parts = [record.action[record.valid], record.reward[record.driven]]
    code = 0
    for part in parts:
        code = zlib.crc32(part.cpu().numpy().tobytes(), code)
    return f"{code:08x}"
