"""Entries of a log: each after its size, uint32 big-endian."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from google.protobuf.message import DecodeError

from alpagym.interop.alpasim.wire.messages import log
from alpagym.scenarios.scenario import ScenarioError

SIZE = struct.Struct(">I")
MAX_ENTRY = 4 * 2**20
"""Largest entry that is parsed [bytes]; others, images among them, may be of any size."""
MAX_ENTRIES = 2_000_000
READ = {
    f.number: f.name
    for f in log.LogEntry.DESCRIPTOR.fields
    if f.name in ("rollout_metadata", "actor_poses", "driver_request", "driver_return")
}
"""Kinds of entries that are parsed, by field number."""


@dataclass(frozen=True)
class Entry:
    """What stands at one place of a log."""

    place: str
    """File, number and offset, for messages."""
    kind: str
    """Of `READ`; empty for what is passed over."""
    value: Any
    """The message; None for what is passed over."""


def read_entries(path: Path) -> Iterator[Entry]:
    """All entries of a log, in order.

    Raises:
        ScenarioError: the file ends within an entry, or one is too large or no message.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        for number in range(MAX_ENTRIES):
            offset = file.tell()
            if offset == end:
                return
            yield _read(file, f"{path}: entry {number} at byte {offset}", end)
    raise ScenarioError(f"{path}: holds more than {MAX_ENTRIES} entries")


def _read(file: BinaryIO, place: str, end: int) -> Entry:
    head = file.read(SIZE.size)
    left = end - file.tell()
    size = SIZE.unpack(head)[0] if len(head) == SIZE.size else 0
    if len(head) < SIZE.size or size > left:
        raise ScenarioError(f"{place}: expected {size or SIZE.size} bytes, the file ends after "
                            f"{left if size else len(head)}")  # fmt: skip
    start = file.tell()
    kind = _kind(file.read(min(size, 5)))
    if kind not in READ:
        file.seek(start + size)
        return Entry(place, "", None)
    if size > MAX_ENTRY:
        raise ScenarioError(f"{place}: expected at most {MAX_ENTRY} bytes, got {size}")
    file.seek(start)
    try:
        message = log.LogEntry.FromString(file.read(size))
    except DecodeError as error:
        raise ScenarioError(f"{place}: expected a LogEntry, got other bytes") from error
    found = message.WhichOneof("log_entry") or ""
    if found not in READ.values():
        return Entry(place, "", None)
    return Entry(place, found, getattr(message, found))


def _kind(head: bytes) -> int:
    """Number of the first field of a message; 0 for none."""
    tag = 0
    for i, byte in enumerate(head):
        tag |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return tag >> 3
    return 0
