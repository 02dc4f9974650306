"""Scenarios in the formats of other programs, so that results can be checked there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from alpagym.scenarios.export import gpudrive_json, scenarionet
from alpagym.scenarios.export.common import file_names
from alpagym.scenarios.scenario import Scenario, ScenarioError

__all__ = ["FORMATS", "ExportReport", "export"]


@dataclass(frozen=True)
class _Format:
    title: str
    suffix: str
    encode: Callable[[Scenario, str], bytes]
    losses: Callable[[Scenario], list[str]]
    prefix: Callable[[Scenario], str]
    """How the name of a scenario's file begins."""
    indices: Callable[[list[Scenario], list[str]], dict[str, bytes]]
    """Further files, from the scenarios and the names of theirs."""


FORMATS = {
    "gpudrive": _Format(
        "GPUDrive JSON",
        ".json",
        gpudrive_json.encode,
        gpudrive_json.losses,
        lambda scenario: "",
        lambda scenarios, names: {},
    ),
    "scenarionet": _Format(
        "ScenarioNet pickle",
        ".pkl",
        scenarionet.encode,
        scenarionet.losses,
        scenarionet.prefix,
        scenarionet.indices,
    ),
}


@dataclass(frozen=True)
class ExportReport:
    """What was written."""

    files: list[Path]
    """One a scenario, in their order."""
    licenses: dict[str, int]
    """Scenarios with each license tag, which stands in their files' metadata as well."""
    losses: dict[str, int]
    """What the format does not hold, and of how many scenarios."""


def export(scenarios: Sequence[Scenario], out: str | Path, format: str) -> ExportReport:
    """Write each scenario into a file of its own.

    Args:
        scenarios: in the order of the files.
        out: a folder that is new or empty.
        format: one of `FORMATS`.

    Raises:
        ValueError: an unknown format, or a folder that holds something.
        OSError: a file cannot be written.
    """
    if format not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {format}")
    chosen, folder = FORMATS[format], Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"out={out}: expected a new or empty folder")
    for scenario in scenarios:
        if not scenario.license:
            raise ScenarioError(f"{scenario.source}: has no license tag to export it with")
    folder.mkdir(parents=True, exist_ok=True)
    names = file_names([chosen.prefix(s) + s.id for s in scenarios], chosen.suffix)
    losses = Counter[str]()
    for scenario, name in zip(scenarios, names, strict=True):
        _write(folder / name, chosen.encode(scenario, name))
        losses.update(chosen.losses(scenario))
    for name, content in chosen.indices(list(scenarios), names).items():
        _write(folder / name, content)
    return ExportReport(
        [folder / name for name in names],
        dict(Counter(s.license for s in scenarios)),
        dict(losses),
    )


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)
