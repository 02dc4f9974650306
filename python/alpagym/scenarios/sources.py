"""Scenarios by name: generated ones, or a file or folder of recordings."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence

from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.procedural import generate_many
from alpagym.scenarios.procedural.plan import DT
from alpagym.scenarios.scenario import Scenario, ScenarioError
from alpagym.scenarios.selection import held_out as held_out_recordings
from alpagym.scenarios.selection import selected_drives
from alpagym.scenarios.step_length import fits, misfit
from alpagym.training_config import DataConfig

PROCEDURAL = "procedural"
SELECT = "data.select"
HELD_OUT_SEED = 1_000_000_007
"""Procedural held-out scenarios come from seeds that training never draws."""

VALIDATION_SEED = 500_000_003
"""Likewise those that policies are compared on while they are trained."""
Generate = Callable[[DataConfig, float, int, int], list[Scenario]]
"""`generated`, or what gives the same."""


def load_or_generate(source: str, *, count: int, seed: int) -> list[Scenario]:
    """`count` procedural scenarios, or all that a file or folder holds.

    Files that are skipped are named in a warning.

    Raises:
        ScenarioError: nothing could be loaded.
    """
    if source == PROCEDURAL:
        return generate_many(count, seed)
    scenarios, skipped = load_scenarios(source)
    if skipped:
        reasons = "; ".join(s.reason for s in skipped)
        warnings.warn(f"{source}: {len(skipped)} skipped: {reasons}", stacklevel=2)
    return scenarios


def training_and_held_out(
    source: str,
    data: DataConfig,
    dt: float,
    seed: int,
    say: Callable[[str], None],
    generate: Generate,
) -> tuple[list[Scenario], list[Scenario]]:
    """Scenarios to train on and others to judge by: never the same drive on both sides.

    `generate` makes the procedural ones, as `generated` does.

    Raises:
        ScenarioError: nothing could be loaded, or too little to hold any out.
    """
    if source == PROCEDURAL:
        refuse_selection(data)
        train = generate(data, dt, data.train, seed)
        return train, generate(data, dt, data.held_out, seed + HELD_OUT_SEED)
    loaded = load_recorded(source, data, dt, say)
    drives = selected_drives(loaded, SELECT, data.select, data.egos_per_scenario)
    train, held_out = split_by_recording(drives, data.held_out_fraction, seed, named=data.hold_out)
    if not train or not held_out:
        raise ScenarioError(
            f"{source}: expected at least 2 usable recordings, to train on and to hold out, "
            f"got {len({s.recording for s in loaded})}"
        )
    return train + generate(data, dt, data.procedural, seed), held_out


def refuse_selection(data: DataConfig) -> None:
    """Refuse a selection where training generates its scenarios.

    Raises:
        ValueError: there is one.
    """
    for name in ("select", "hold_out"):
        if getattr(data, name):
            raise ValueError(f"data.{name}: expected scenarios=PATH to choose from, got procedural")


def held_out_only(
    source: str, data: DataConfig, dt: float, seed: int, say: Callable[[str], None]
) -> list[Scenario]:
    """Procedural scenarios that training with the same seed never sees, or all recorded ones."""
    if source == PROCEDURAL:
        made = generated(data, dt, data.held_out, seed + HELD_OUT_SEED)
        return selected_drives(made, SELECT, data.select, 1)
    loaded = load_recorded(source, data, dt, say)
    return selected_drives(loaded, SELECT, data.select, data.egos_per_scenario)


def generated(data: DataConfig, dt: float, count: int, seed: int) -> list[Scenario]:
    """Procedural scenarios.

    Raises:
        ScenarioError: they are not made for steps of `dt` [s].
    """
    refuse_steps_of(dt)
    workers = data.workers or os.cpu_count() or 1
    return generate_many(count, seed, kinds=data.kinds or None, workers=workers)


def refuse_steps_of(dt: float) -> None:
    """Refuse steps that generated scenarios are not made for.

    Raises:
        ScenarioError: they are not of `dt` [s].
    """
    if not fits(DT, dt):
        raise ScenarioError(f"procedural: generated every {DT:g} s, not sim.dt={dt:g}")


def load_recorded(
    source: str, data: DataConfig, dt: float, say: Callable[[str], None]
) -> list[Scenario]:
    """All usable scenarios of a file or folder, recorded every `dt`; says what was skipped and why.

    Raises:
        ScenarioError: nothing usable.
    """
    scenarios, skipped = load_scenarios(
        source, max_agents=data.max_agents or None, workers=data.workers or os.cpu_count() or 1
    )
    reasons = [s.reason for s in skipped]
    usable = []
    for scenario in scenarios:
        if scenario.num_steps < data.min_steps:
            reasons.append(
                f"{scenario.source}: lasts {scenario.num_steps} steps, fewer than {data.min_steps}"
            )
        elif (reason := misfit(scenario, dt)) is not None:
            reasons.append(reason)
        else:
            usable.append(scenario)
    if reasons:
        say(f"{source}: {len(usable)} scenarios loaded, {len(reasons)} skipped:")
        for reason in reasons:
            say(f"  {reason}")
    if not usable:
        raise ScenarioError(f"{source}: no usable scenario: {reasons[0]}")
    return usable


def split_by_recording(
    scenarios: Sequence[Scenario], held_out_fraction: float, seed: int, *, named: str = ""
) -> tuple[list[Scenario], list[Scenario]]:
    """Split drives, not files: what shares a recording stays on one side.

    Raises:
        ScenarioError: `named`, of `data.hold_out`, names a recording that is not there.
        ValueError: a fraction outside (0, 1).
    """
    recordings = {s.recording for s in scenarios}
    judged = held_out_recordings(recordings, named=named, fraction=held_out_fraction, seed=seed)
    train = [s for s in scenarios if s.recording not in judged]
    return train, [s for s in scenarios if s.recording in judged]
