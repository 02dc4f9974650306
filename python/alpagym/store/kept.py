"""Files that are read as they were when they were opened, whatever takes their names later."""

from __future__ import annotations

import os
import resource
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alpagym.scenarios.scenario import ScenarioError

_counting = threading.RLock()
_kept = 0


def most_kept() -> int:
    """Files that are kept open at most: half of those that a process may open (`ulimit -n`)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**31 if soft == resource.RLIM_INFINITY else soft // 2


class KeptFile:
    """A file whose bytes are read when they are wanted.

    It stays open until nobody refers to it, so that writing a new one of its name, as
    `write_atomically` does, changes nothing for who reads this one. Beyond `most_kept` such files,
    it is opened each time, and refused if it is another one by then.
    """

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            OSError: it cannot be opened.
        """
        self.path = path
        self._descriptor: int | None = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._stamp = _stamp_of(os.fstat(self._descriptor))
        if _take():
            weakref.finalize(self, _give_back, self._descriptor)
        else:
            os.close(self._descriptor)
            self._descriptor = None

    def is_at(self, path: Path) -> bool:
        """Whether this is the file that has a name now."""
        return _stamp_of(path.stat()) == self._stamp

    @property
    def size(self) -> int:
        """In bytes."""
        return self._stamp[2]

    @contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor to read from.

        Raises:
            ScenarioError: the file had to be opened again, and is another one.
            OSError: it cannot be opened.
        """
        if self._descriptor is not None:
            yield self._descriptor
            return
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _stamp_of(os.fstat(descriptor)) != self._stamp:
                raise ScenarioError(
                    f"{self.path}: was replaced while it was in use, and only {most_kept()} files "
                    "are kept open: a higher ulimit -n keeps more"
                )
            yield descriptor
        finally:
            os.close(descriptor)


def _take() -> bool:
    global _kept
    with _counting:
        if _kept >= most_kept():
            return False
        _kept += 1
        return True


def _give_back(descriptor: int) -> None:
    global _kept
    os.close(descriptor)
    with _counting:
        _kept -= 1


def _stamp_of(stat: os.stat_result) -> tuple[int, int, int, int]:
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
