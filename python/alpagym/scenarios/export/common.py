"""What every export does: positions in source coordinates, ids that occur once, names of files."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np

from alpagym.scenarios.road_map import CLOSED
from alpagym.scenarios.scenario import Scenario

DECIMALS = 6
"""Of coordinates that are written as text [m]; a scenario's own resolve 10 micrometers."""


def world(scenario: Scenario, points: np.ndarray) -> np.ndarray:
    """Points [..., 2 or 3] of the scenario in source coordinates [m], float64."""
    return points.astype(np.float64) + scenario.origin[: points.shape[-1]]


def outline(scenario: Scenario, element: int) -> np.ndarray:
    """Points of a map element in source coordinates [m], [n, 3]; rings are open, as in WOMD."""
    points = world(scenario, scenario.map.polyline(element))
    return points[:-1] if scenario.map.type[element] in CLOSED else points


def unique_ids(ids: np.ndarray) -> list[int]:
    """The ids, each that repeats an earlier one replaced by a number that none has."""
    taken = set(ids.tolist())
    free = max([0, *(i for i in taken if i < 2**40)]) + 1
    result: list[int] = []
    seen: set[int] = set()
    for given in ids.tolist():
        if given in seen:
            while free in taken:
                free += 1
            given = free
            taken.add(free)
        seen.add(given)
        result.append(given)
    return result


def file_names(names: Sequence[str], suffix: str) -> list[str]:
    """Different file names made of names, of nothing that leads out of a folder."""
    result: list[str] = []
    taken: set[str] = set()
    for given in names:
        name = re.sub(r"[^A-Za-z0-9.-]+", "_", given)[:150].strip("._") or "scenario"
        copies = (f"{name}_copy{k}" for k in itertools.count(2))
        free = next(n for n in itertools.chain([name], copies) if n.lower() not in taken)
        taken.add(free.lower())
        result.append(f"{free}{suffix}")
    return result


def common_losses(scenario: Scenario) -> list[str]:
    """What no exported format holds."""
    road, lights = scenario.map, scenario.lights
    losses = ["routes (found again from lanes)"]
    if scenario.kind:
        losses.append("kinds of scenario")
    if lights.after is not None and lights.after.size:
        losses.append("lights after the record")
    if any(len(set(ids.tolist())) < len(ids) for ids in (scenario.tracks.id, road.id)):
        losses.append("ids that repeat (renumbered)")
    return losses
