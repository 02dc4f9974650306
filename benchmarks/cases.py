"""What is measured: cases are data, `run.py` finds them here."""

from __future__ import annotations

from dataclasses import dataclass

SEED = 20_260
"""Of scenarios, actions and policies: every run measures the same work."""


@dataclass(frozen=True)
class StepCase:
    """Worlds that step in a loop, with the time of each stage."""

    name: str
    worlds: int
    traffic: str
    """Controller of the agents that are not egos: `log`, `idm` or `constant_velocity`."""
    action: str = "unicycle"
    """Kind of action: `unicycle`, or `trajectory` for plans at constant speed."""
    multi_agent: bool = False
    observe: bool = True
    """Whether the observation is written, too."""
    scenarios: int = 64
    """Procedural scenarios of all kinds, shared by the worlds."""
    steps: int = 20
    """Steps in a batch; the state is restored before each batch."""


@dataclass(frozen=True)
class BindingCase:
    """What a call costs before any kernel runs."""

    name: str


@dataclass(frozen=True)
class TrainCase:
    """One GRPO iteration, rollout and update, as `alpagym train` runs it."""

    name: str
    groups: int
    group_size: int
    scenarios: int = 64


Case = StepCase | BindingCase | TrainCase

CASES: list[Case] = [
    BindingCase("binding"),
    StepCase("procedural.log.w256", 256, "log"),
    StepCase("procedural.log.w4096", 4096, "log"),
    StepCase("procedural.idm.w256", 256, "idm"),
    StepCase("procedural.log.w256.blind", 256, "log", observe=False),
    StepCase("procedural.plan.w256", 256, "log", action="trajectory", observe=False),
    StepCase("procedural.multi.w64", 64, "log", multi_agent=True),
    TrainCase("train.g16.w256", groups=16, group_size=16),
]
