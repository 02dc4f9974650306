"""What all cases of a run share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from alpagym.bench.timing import Measurement


@dataclass(frozen=True)
class Context:
    """Device, data and what the command line replaces."""

    device: torch.device
    data: Path = Path()
    quick: bool = False
    repeats: int = 0
    """0 for the case's."""
    worlds: tuple[int, ...] = ()
    """Instead of the case's, where given."""
    formats: tuple[str, ...] = ()
    """Instead of the case's, where given."""
    forms: tuple[str, ...] = ()
    """Forms of the device's code to compare (`sim.cpu_form`, `sim.cuda_form`); none for the one it
    runs."""
    runs: Path = Path()
    """Folder of trainings."""
    jobs: int = 1
    """Trainings side by side."""
    sim: tuple[tuple[str, Any], ...] = ()
    """Fields of `SimConfig` that replace the case's."""

    def repeats_or(self, repeats: int) -> int:
        return self.repeats or (min(repeats, 3) if self.quick else repeats)


Line = tuple[str, Measurement] | str
"""A metric and its name, or a note."""
