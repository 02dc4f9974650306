"""Files that are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Have `write` make a file beside `path`, and put it in its place once it is on the disk.

    What was there before stays until then, and for good if `write` fails.

    Raises:
        OSError: the file could not be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def clear_unfinished(folder: Path) -> None:
    """Take away what processes that were killed left half written."""
    for file in folder.glob(".*.part"):
        file.unlink(missing_ok=True)
