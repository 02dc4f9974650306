"""What files that this package exported say of themselves, beyond what their format holds."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from alpagym.scenarios.scenario import Scenario, ScenarioError

KEY = "alpagym"
"""Where it stands in a file's metadata."""
MAX_TEXT, MAX_NOTE, MAX_NOTES = 100, 2_000, 200
"""Characters of a word and of a note, and notes that are kept."""


@dataclass(frozen=True)
class ExportTag:
    """Properties of an exported scenario; a file without them comes from elsewhere."""

    dataset: str
    license: str
    dt: float
    """[s]."""
    start_frame: int
    has_z: bool
    notes: list[str]
    """What was repaired before, one clause each."""


def tag_of(scenario: Scenario) -> dict[str, Any]:
    """What to write under `KEY`."""
    tag = ExportTag(
        scenario.dataset,
        scenario.license,
        float(scenario.dt),
        int(scenario.start_frame),
        bool(scenario.has_z),
        [str(note)[:MAX_NOTE] for note in scenario.notes[:MAX_NOTES]],
    )
    return asdict(tag)


def export_tag(metadata: Any, num_frames: int, source: str) -> ExportTag | None:
    """What a file's metadata say, or None for a file from elsewhere.

    Raises:
        ScenarioError: a property that is missing or impossible.
    """
    given = metadata.get(KEY) if isinstance(metadata, dict) else None
    if given is None:
        return None
    if not isinstance(given, dict):
        raise ScenarioError(f"{source}: '{KEY}' must be a dict, got {type(given).__name__}")
    dataset, license_tag = given.get("dataset"), given.get("license")
    dt, start, has_z = given.get("dt"), given.get("start_frame"), given.get("has_z")
    for name, value in (("dataset", dataset), ("license", license_tag)):
        if not (isinstance(value, str) and 0 < len(value) <= MAX_TEXT and value.isprintable()):
            raise ScenarioError(f"{source}: '{KEY}': '{name}' must be a word")
    if type(dt) is not float or not math.isfinite(dt):
        raise ScenarioError(f"{source}: '{KEY}': 'dt' must be a number")
    if type(start) is not int or not 0 <= start < num_frames:
        raise ScenarioError(f"{source}: '{KEY}': 'start_frame' must be one of {num_frames} frames")
    if type(has_z) is not bool:
        raise ScenarioError(f"{source}: '{KEY}': 'has_z' must be true or false")
    notes = given.get("notes", [])
    if not isinstance(notes, list) or len(notes) > MAX_NOTES:
        raise ScenarioError(f"{source}: '{KEY}': 'notes' must be at most {MAX_NOTES} clauses")
    if not all(isinstance(note, str) and len(note) <= MAX_NOTE for note in notes):
        raise ScenarioError(f"{source}: '{KEY}': a note must be a clause of text")
    return ExportTag(str(dataset), str(license_tag), dt, start, has_z, list(notes))
