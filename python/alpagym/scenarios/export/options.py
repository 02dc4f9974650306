"""Options of `alpagym export`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ExportConfig:
    """`alpagym export`."""

    scenarios: str = "procedural"
    """`procedural`, or a file or folder of recordings."""
    out: str = ""
    """Folder to write to, new or empty."""
    format: str = "scenarionet"
    """`gpudrive` (JSON) or `scenarionet` (pickles)."""
    edits: dict[str, Any] = field(default_factory=dict)
    """Changes to make, in this order, e.g. `{speed: [0.8, 1.2], remove: 2}`: `docs/edits.md`."""
    copies: int = 1
    """Differently edited copies of each scenario."""
    count: int = 16
    """Scenarios to generate, when procedural."""
    seed: int = 0
    """Of everything that is drawn."""
    workers: int = 0
    """Processes that read or generate; 0 for all cores."""
