"""Readers of recorded scenarios. To add one: write its file, its line in `READERS` and its test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from alpagym.scenarios.readers import gpudrive_json, womd
from alpagym.scenarios.scenario import Scenario, ScenarioError


@dataclass(frozen=True)
class Reader:
    """How one format is recognized and read."""

    name: str
    """As users know the format."""
    sniff: Callable[[bytes, Path], bool]
    """Whether a file with this beginning (4 KiB or all of it) and path is of the format."""
    read: Callable[[Path], Iterator[Scenario | ScenarioError]]
    """Yields each scenario of a file, or the reason why that one is left out.

    Raises `ScenarioError` where the file cannot be read further.
    """


READERS = [
    Reader("WOMD Scenario TFRecord", womd.sniff, womd.read),
    Reader("GPUDrive / Nocturne JSON", gpudrive_json.sniff, gpudrive_json.read),
]
