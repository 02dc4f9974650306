"""Changed copies of scenarios: seeded transforms that compose.

    edited = edit(scenario, [Speed(0.8, 1.2), Remove(2), Insert(1)], seed=7)

The license tag, the map and the source stay; the id gets a suffix that tells the edits and the
seed, and `Scenario.recording` is that of the original, so that splits keep both on one side. Routes
of agents that changed and all flags are found again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from alpagym.scenarios.edits.agents import Insert, Remove
from alpagym.scenarios.edits.lights import ShiftLights, ShowLights
from alpagym.scenarios.edits.tracks import Delay, Edit, Shift, Size, Speed
from alpagym.scenarios.flags import compute_flags
from alpagym.scenarios.routes import AgentRoute, build_routes, pack_routes
from alpagym.scenarios.scenario import EDIT_MARK, Routes, Scenario, ScenarioError
from alpagym.scenarios.segment_tree import IntricateError

__all__ = [
    "EDITS", "Delay", "Edit", "Insert", "Remove", "Shift", "ShiftLights", "ShowLights", "Size",
    "Speed", "edit", "named_edits",
]  # fmt: skip

EDITS: dict[str, type[Edit]] = {
    "shift": Shift,
    "speed": Speed,
    "delay": Delay,
    "size": Size,
    "remove": Remove,
    "insert": Insert,
    "show_lights": ShowLights,
    "shift_lights": ShiftLights,
}
"""By the names that the command line has for them."""


def named_edits(given: Mapping[str, Any]) -> list[Edit]:
    """Edits from names and arguments, as `{speed: [0.8, 1.2], remove: 2}`, in this order.

    Raises:
        ValueError: an unknown name, or arguments that the edit does not take; one sentence.
    """
    result = []
    for name, value in given.items():
        if name not in EDITS:
            raise ValueError(f"edits: expected one of {', '.join(EDITS)}, got {name}")
        arguments = list(value) if isinstance(value, (list, tuple)) else [value]
        try:
            result.append(EDITS[name](*arguments))
        except TypeError as error:
            fields = ", ".join(EDITS[name].__dataclass_fields__)
            raise ValueError(f"edits: {name} takes {fields}, got {value}") from error
    return result


def edit(scenario: Scenario, edits: Sequence[Edit], seed: int = 0) -> Scenario:
    """A copy of the scenario, changed by each edit in turn.

    The same scenario, edits and seed give the same bits.

    Raises:
        ScenarioError: an edit made the scenario unusable, naming both.
    """
    if not edits:
        return scenario
    words = "; ".join(map(repr, edits))
    digest = hashlib.blake2b(f"{seed}: {words}".encode(), digest_size=4).hexdigest()
    result = replace(scenario, notes=list(scenario.notes), flags=scenario.flags.copy())
    for number, step in enumerate(edits):
        rng = np.random.default_rng([scenario.key, seed, number])
        result = step.apply(result, rng)
    gone = np.asarray(~result.tracks.valid.any(1))
    if gone.any():
        result = Remove.without(result, gone)
        result.notes.append(f"{gone.sum()} agents are out of the edited record")
    result.id = f"{scenario.id}{EDIT_MARK}{digest}"
    try:
        result.routes = _routes(scenario, result)
        result.flags = compute_flags(result.tracks, result.map, result.start_frame, result.has_z)
    except IntricateError as error:
        raise ScenarioError(f"{result.source}: {error} (after the edits {words})") from error
    try:
        return result.validate()
    except ScenarioError as error:
        raise ScenarioError(f"{error} (after the edits {words})") from error


def _routes(before: Scenario, after: Scenario) -> Routes:
    """Routes found again for agents whose record changed, and those of before for the others."""
    old, new = before.tracks, after.tracks
    routes = _unpacked(build_routes(new, after.map, after.lights))
    known = _unpacked(before.routes)
    index = {int(number): a for a, number in enumerate(old.id)}
    for a, number in enumerate(new.id):
        b = index.get(int(number), -1)
        if b >= 0 and all(
            np.array_equal(getattr(new, name)[a], getattr(old, name)[b])
            for name in ("xyz", "yaw", "valid")
        ):
            routes[a] = known[b]
    return pack_routes(routes)


def _unpacked(routes: Routes) -> list[AgentRoute]:
    result = []
    for a, length in enumerate(routes.log_length):
        points = slice(routes.offsets[a], routes.offsets[a + 1])
        stops = slice(routes.stop_offsets[a], routes.stop_offsets[a + 1])
        pairs = zip(routes.stop_s[stops].tolist(), routes.stop_light[stops].tolist(), strict=True)
        result.append(
            AgentRoute(
                routes.points[points], routes.speed_limit[points], float(length), list(pairs)
            )
        )
    return result
