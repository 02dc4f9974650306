"""A run's directory: configuration, metrics (JSON lines, TensorBoard), checkpoints, summary."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from alpagym.appending import Appender, Events
from alpagym.atomic import write_atomically

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


METRICS_FILE = "metrics.jsonl"
REPORT_FILE = "report.html"
"""Written last: a run that has it is complete."""
Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Lines of JSON; none where there is no file, and not one that was cut short."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def trained_recordings(checkpoint: Path) -> set[str]:
    """Recordings that the run of a checkpoint has learned from, as far as it lies around it."""
    for folder in (checkpoint, *checkpoint.parents[:3]):
        file = folder / SPLIT_FILE
        if file.is_file():
            return set(json.loads(file.read_text())["train"])
    return set()


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

    def __init__(
        self,
        path: Path,
        config: str,
        started: float,
        history: Sequence[Row] = (),
        say: Callable[[str], None] = print,
        *,
        writes: bool = True,
    ) -> None:
        """Make the directory, or go on with one, and write `config` (YAML).

        Args:
            path: of the directory.
            config: YAML.
            started: when this process began, a reading of `time.monotonic`.
            history: rows that stay, of one that is gone on with; their wall time counts.
            say: told, once, that something cannot be written.
            writes: otherwise nothing is made or written, though rows are kept in `history`.
        """
        self.path, self._writes = path, writes
        if writes:
            self.path.mkdir(parents=True, exist_ok=True)
        self.write("config.yaml", config)
        self.history: list[Row] = list(history)
        self.write(METRICS_FILE, "".join(json.dumps(row) + "\n" for row in self.history))
        self._started = started - (self.history[-1]["wall_s"] if self.history else 0.0)
        self._say, self._failing = say, set[str]()
        self._files: dict[str, Appender] = {}
        if writes:
            self._events = Events(self.path / "tensorboard")
            self._files["tensorboard"] = self._events

    @property
    def wall_s(self) -> float:
        """Time since the run began [s]."""
        return time.monotonic() - self._started

    def has(self, phase: str, **values: Any) -> bool:
        """Whether a row of a phase, with some values, is there already."""
        return any(
            row["phase"] == phase and all(row.get(k) == v for k, v in values.items())
            for row in self.history
        )

    def log(self, phase: str, step: int, values: Mapping[str, Any]) -> None:
        """Append one row: phase, step, wall time, values."""
        row = {
            "phase": phase,
            "step": step,
            "wall_s": round(self.wall_s, 3),
            **finite(dict(values)),
        }
        self.history.append(row)
        if not self._writes:
            return
        self.note(METRICS_FILE, row)
        numbers = {k: float(v) for k, v in values.items() if isinstance(v, int | float)}
        self._events.add(step, {f"{phase}/{k}": v for k, v in numbers.items()})
        self.attempt("tensorboard", self._events.flush)

    def note(self, name: str, value: Mapping[str, Any], *, by_any: bool = False) -> None:
        """Append a line of JSON to a file of the directory, now or when the disk takes it.

        With `by_any` whoever calls does, if the directory is there: who writes else must wait.
        """
        if not self._writes and not (by_any and self.path.is_dir()):
            return
        file = self._files.setdefault(name, Appender(self.path / name))
        file.write((json.dumps(finite(dict(value))) + "\n").encode())
        self.attempt(name, file.flush)

    def attempt(self, what: str, write: Callable[[], object]) -> bool:
        """Write something that later may be written, too; whether that worked.

        A full disk does not end a run: what was saved before stays, and it is said once.
        """
        try:
            write()
        except OSError as error:
            if not self._failing:
                self._say(
                    f"{self.path}: could not save {what} ({error.strerror or error}); what was "
                    "saved before stays, the run goes on and tries again"
                )
            self._failing.add(what)
            return False
        if what in self._failing:
            self._failing.remove(what)
            if not self._failing:
                self._say(f"{self.path}: everything is saved again")
        return True

    def write(self, name: str, text: str) -> Path:
        """Write a file, whole or not at all."""
        if not self._writes:
            return self.path / name
        return write_atomically(self.path / name, lambda to: to.write_text(text))

    def write_json(self, name: str, value: Any) -> Path:
        return self.write(name, json.dumps(finite(value), indent=2) + "\n")

    def close(self) -> None:
        """Write what waits, if the disk takes it by now."""
        for name, file in self._files.items():
            if file.waiting and not self.attempt(name, file.flush):
                self._say(f"{file.path}: its last rows are lost")
            file.close()
