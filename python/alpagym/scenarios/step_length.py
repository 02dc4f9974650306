"""Whether scenarios were recorded at the simulator's step length."""

from __future__ import annotations

from collections.abc import Iterable

from alpagym.scenarios.scenario import Scenario

JITTER = 0.02
"""Recorders' clocks may be off by this share of a step."""


def fits(recorded: float, dt: float) -> bool:
    """Whether frames that are `recorded` [s] apart are one step of `dt` [s] apart."""
    return abs(recorded - dt) <= JITTER * dt


def misfit(scenario: Scenario, dt: float) -> str | None:
    """Why the scenario cannot be driven in steps of `dt` [s]; None if it can."""
    if fits(scenario.dt, dt):
        return None
    return f"{scenario.source}: recorded every {scenario.dt:.3g} s, not sim.dt={dt:g}"


def require_step(scenarios: Iterable[Scenario], dt: float) -> None:
    """Refuse scenarios recorded otherwise than every `dt` [s].

    Raises:
        ValueError: the first that is.
    """
    for scenario in scenarios:
        if (reason := misfit(scenario, dt)) is not None:
            raise ValueError(reason)
