"""Runs that are cut short, and go on."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from alpagym.atomic import clear_unfinished
from alpagym.checkpoint import CheckpointError
from alpagym.ranks import Ranks
from alpagym.run_directory import (
    METRICS_FILE,
    REPORT_FILE,
    Row,
    free_directory,
    read_rows,
)
from alpagym.run_state import load_state
from alpagym.training_config import TrainConfig

BEFORE_FILE = Path("checkpoints") / "before.safetensors"
"""The policy that GRPO begins with."""
STATE_FILE = Path("checkpoints") / "state.safetensors"
"""Where GRPO stands."""
POLICIES = Path("checkpoints") / "policies"
"""Of single iterations, each as it drove."""
FLIGHT_FILE = "flight.jsonl"
"""What was extreme in each iteration, and what was found wrong."""


class Stopped(KeyboardInterrupt):
    """A run was asked to stop; the message says how it goes on."""


class Lock:
    """One process at a time for a run directory, as long as the process lives."""

    def __init__(self, run: Path, *, shared: bool = False) -> None:
        """Take it; several processes may have it where all of them take it `shared`.

        Raises:
            CheckpointError: no such folder, or another process has it.
        """
        try:
            self._folder = os.open(run, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise CheckpointError(f"{run}: {error.strerror}") from error
        try:
            fcntl.flock(self._folder, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._folder)
            raise CheckpointError(f"{run}: another process is at work on this run") from error

    def close(self) -> None:
        os.close(self._folder)


@dataclass
class Begun:
    """What a run directory holds of a run that was cut short; nothing for a new one."""

    imitated: bool = False
    """Whether what comes before GRPO is done."""
    state: dict[str, Any] | None = None
    """Of the trainer, where it was saved last."""
    history: list[Row] = field(default_factory=list)
    """Metrics up to there."""
    flight: list[Row] = field(default_factory=list)
    """Likewise of `FLIGHT_FILE`."""

    @classmethod
    def of(cls, path: Path) -> Begun:
        """Read it, and clear away files that were being written.

        Raises:
            CheckpointError: no run, one that is complete, or one whose state cannot be read.
        """
        if not (path / "config.yaml").is_file():
            raise CheckpointError(f"{path}: expected a run directory, found no config.yaml there")
        if (path / REPORT_FILE).is_file():
            raise CheckpointError(f"{path}: this run is complete, there is nothing to go on with")
        for folder in (path, path / "checkpoints", path / POLICIES):
            clear_unfinished(folder)
        imitated = (path / BEFORE_FILE).is_file()
        state = load_state(path / STATE_FILE) if (path / STATE_FILE).is_file() else None
        done = state["iterations"] if state is not None else 0

        def stays(row: Row) -> bool:
            if row["phase"] == "grpo":
                return bool(row["step"] < done)
            if row["phase"] == "validation":
                return state is not None and bool(row["step"] <= done)
            return row["phase"] == "scenarios" or (imitated and row.get("when") != "after")

        history = [row for row in read_rows(path / METRICS_FILE) if stays(row)]
        flight = [row for row in read_rows(path / FLIGHT_FILE) if row["iteration"] < done]
        return cls(imitated, state, history, flight)

    @property
    def told(self) -> str:
        """Where the run goes on, as a sentence."""
        if self.state is not None:
            return f"going on after iteration {self.state['iterations']}"
        return "going on after imitation" if self.imitated else "beginning again: nothing was saved"


def launched_run(yaml: str) -> str:
    """Where ranks keep the directory of the run that they have begun: `Ranks.kept`.

    By its options, since a program may train more than once.
    """
    return f"run/{hashlib.sha256(yaml.encode()).hexdigest()}"


def take_up(
    config: TrainConfig, yaml: str, ranks: Ranks, locks: ExitStack
) -> tuple[Path, Begun | None]:
    """Where a run is written, and what is there of it; None for a new one. The same on all ranks.

    Ranks that `torchrun` has begun again go on with what they had begun, but never with a run that
    was begun otherwise. The first rank takes the lock of what is gone on with.

    Raises:
        CheckpointError: nothing to go on with.
        FileExistsError: a run of this name is there already.
    """
    if not ranks.first:
        return ranks.told((Path(), None))
    path, begun = Path(config.resume) if config.resume else None, None
    if path is None and (own := ranks.kept(launched_run(yaml))):
        cut_short = Path(own, "config.yaml").is_file() and not Path(own, REPORT_FILE).exists()
        path = Path(own) if cut_short else None
    if path is not None:
        locks.enter_context(closing(Lock(path)))
        begun = Begun.of(path)
    return ranks.told((path or free_directory(config.runs, config.name), begun))


class StopRequest:
    """SIGTERM as an exception; put off, where asked, to a moment at which everything is saved.

    Attributes:
        asked: it has come.
        run: the run directory, once there is one.
    """

    def __init__(self) -> None:
        self.asked = False
        self.run: Path | None = None
        self._deferred = False
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, it waits for `check`."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def check(self) -> None:
        """Stop here if asked to.

        Raises:
            Stopped: SIGTERM has come.
        """
        if self.asked:
            how = f"; `alpagym train resume={self.run}` goes on" if self.run else ""
            raise Stopped(f"stopped{how}")

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if not self._deferred:
            self.check()
