"""A run's directory: configuration, metrics (JSON lines, TensorBoard), checkpoints, summary."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

SPLIT_FILE = "split.json"
"""Ids of the recordings that a run trained on and held out."""


def finite(value: Any) -> Any:
    """The same structure with NaN and infinity as None, which JSON can hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value


def free_directory(runs: str, name: str) -> Path:
    """`runs/name`, or a name from date and time, where nothing is yet.

    Raises:
        FileExistsError: a run of this name is there already.
    """
    path = Path(runs) / (name or datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(f"{path}: a run of this name exists: choose another name=...")
    return path


class RunDirectory:
    """`runs/<name>/`, written to while a run goes on; what is there is complete at any moment."""

    def __init__(self, path: Path, config: str, started: float) -> None:
        """Make the directory and write `config` (YAML).

        Wall time counts from `started`, a reading of `time.monotonic`.
        """
        self.path = path
        self.path.mkdir(parents=True, exist_ok=True)
        self.write("config.yaml", config)
        self.history: list[dict[str, Any]] = []
        self._started = started
        self._log = (self.path / "metrics.jsonl").open("a")
        self._board = SummaryWriter(str(self.path / "tensorboard"))

    @property
    def wall_s(self) -> float:
        """Time since the run began [s]."""
        return time.monotonic() - self._started

    def log(self, phase: str, step: int, values: Mapping[str, Any]) -> None:
        """Append one row: phase, step, wall time, values."""
        row = {
            "phase": phase,
            "step": step,
            "wall_s": round(self.wall_s, 3),
            **finite(dict(values)),
        }
        self.history.append(row)
        self._log.write(json.dumps(row) + "\n")
        self._log.flush()
        for key, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(f"{phase}/{key}", value, step)

    def write(self, name: str, text: str) -> Path:
        """Write a file, whole or not at all."""
        path = self.path / name
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(text)
        os.replace(temporary, path)
        return path

    def write_json(self, name: str, value: Any) -> Path:
        return self.write(name, json.dumps(finite(value), indent=2) + "\n")

    def close(self) -> None:
        self._log.close()
        self._board.close()
