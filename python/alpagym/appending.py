"""Files that grow while a run goes on, and outlive a disk that is full for a while."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class Appender:
    """Bytes at the end of a file; those that the disk refuses wait until it takes them.

    Nothing is written twice, and nothing that comes later gets ahead of what waits.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._waiting = b""

    @property
    def waiting(self) -> bool:
        """Whether something is not written yet."""
        return bool(self._waiting)

    def write(self, data: bytes) -> None:
        """Add to what waits; `flush` writes it."""
        self._waiting += data

    def flush(self) -> None:
        """Write what waits, as far as that is possible.

        Raises:
            OSError: something waits on.
        """
        if not self._waiting:
            return
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
        while self._waiting:
            self._waiting = self._waiting[self._file.write(self._waiting) :]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Events(Appender):
    """Curves for TensorBoard, in a file of their own in `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / f"events.out.tfevents.{time.time():.6f}.{os.getpid()}")
        self._records = RecordWriter(self)
        self._records.write(_event(0, file_version="brain.Event:2"))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Points of curves at one step, by name."""
        points = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._records.write(_event(step, summary=Summary(value=points)))


def _event(step: int, **content: object) -> bytes:
    event = Event(wall_time=time.time(), step=step, **content)
    serialized: bytes = event.SerializeToString()
    return serialized
