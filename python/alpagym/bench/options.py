"""Options of `alpagym bench`, the schema of its command line."""

from __future__ import annotations

from dataclasses import dataclass, field

from alpagym.config import SimConfig


@dataclass(frozen=True)
class BenchConfig:
    """`alpagym bench`, `bench train`, `bench binding` and `bench load`."""

    case: str = ""
    """Cases, comma-separated; empty for all that take less than minutes."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, or `auto`."""
    threads: str = "0"
    """CPU threads, 0 for all cores; several, comma-separated, are compared."""
    data: str = "../shared/data"
    """Folder with recordings: those of WOMD lie in its `womd_gpudrive_json`."""
    json: str = ""
    """JSON file to write, or a folder where it is named by machine and commit; empty for none."""
    quick: bool = False
    """Prove that it runs; not for numbers."""
    repeats: int = 0
    """Repeats of each measurement; 0 for what the case says."""


@dataclass(frozen=True)
class StepConfig(BenchConfig):
    """`alpagym bench step`."""

    worlds: str = ""
    """Numbers of worlds, comma-separated, instead of the case's."""
    format: str = ""
    """Observation formats, comma-separated, instead of the case's."""
    form: str = ""
    """Forms of the code: plain, vector, avx2 or avx512 on a CPU, plain or fused on a GPU; several,
    comma-separated, are compared. Empty for the fastest that the CPU runs, and for fused."""
    sim: SimConfig = field(default_factory=SimConfig)
    """Only what is given replaces the case's."""


@dataclass(frozen=True)
class LearningConfig(BenchConfig):
    """`alpagym bench learning`; `repeats` counts seeds, `jobs` decides on threads."""

    runs: str = "runs/learning"
    """Folder of the trainings; those that are there already are not repeated."""
    jobs: int = 1
    """Trainings side by side, which share the cores."""


SCHEMAS: dict[str, type[BenchConfig]] = {
    "all": BenchConfig,
    "step": StepConfig,
    "train": BenchConfig,
    "binding": BenchConfig,
    "load": BenchConfig,
    "learning": LearningConfig,
}
"""Options by command; `all` is `alpagym bench` with no command."""
PATHS_AND_LISTS = ("case", "device", "threads", "data", "json", "worlds", "format", "form", "runs")
"""Options whose values are taken as they are."""
