"""Scenarios by name: generated ones, or a file or folder of recordings."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from alpagym.config import DataConfig
from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.procedural import generate_many
from alpagym.scenarios.scenario import Scenario, ScenarioError

PROCEDURAL = "procedural"


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


def load_recorded(source: str, data: DataConfig, say: Callable[[str], None]) -> list[Scenario]:
    """All usable scenarios of a file or folder; says what was skipped and why.

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
            reasons.append(f"{scenario.source}: lasts {scenario.num_steps} steps, fewer than {data.min_steps}")
        else:
            usable.append(scenario)
    if reasons:
        say(f"{source}: {len(usable)} scenarios loaded, {len(reasons)} skipped:")
        for reason in reasons:
            say(f"  {reason}")
    if not usable:
        raise ScenarioError(f"{source}: no usable scenario: {reasons[0]}")
    return usable


def split_by_id(
    scenarios: Sequence[Scenario], held_out_fraction: float, seed: int
) -> tuple[list[Scenario], list[Scenario]]:
    """Split drives, not files: scenarios that share an id stay on one side.

    Raises:
        ValueError: a fraction outside (0, 1).
    """
    if not 0.0 < held_out_fraction < 1.0:
        raise ValueError(f"data.held_out_fraction: expected a share between 0 and 1, got {held_out_fraction}")
    ids = sorted({s.id for s in scenarios})
    order = np.random.default_rng(seed).permutation(len(ids))
    count = min(max(round(held_out_fraction * len(ids)), 1), len(ids) - 1)
    held_out = {ids[i] for i in order[:count]}
    return [s for s in scenarios if s.id not in held_out], [s for s in scenarios if s.id in held_out]
