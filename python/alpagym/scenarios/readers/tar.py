"""Plain files of a tar archive, read in place: nothing is unpacked, no link is followed.

Archives are input from anywhere. Names are only ever compared, sizes are checked before anything is
allocated, and members that are not plain files are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from alpagym.scenarios.scenario import ScenarioError

MAX_ARCHIVE = 512 * 2**20
"""Largest archive [bytes]; attributes of one clip take a few megabytes."""
MAX_MEMBERS = 100_000
MAX_NAME = 65_536
"""Largest record that holds a long name [bytes]."""
_BLOCK = 512
_FILE, _FOLDER, _LONG_NAME, _PAX, _PAX_GLOBAL = b"07\0", b"5", b"L", b"x", b"g"


def read_members(path: Path, max_size: int) -> Iterator[tuple[str, bytes]]:
    """Name and content of each plain file of a tar archive (ustar, GNU or pax), uncompressed.

    Args:
        path: the archive.
        max_size: of one member [bytes].

    Raises:
        ScenarioError: if the archive is damaged, cut short, too large, or holds links or devices.
    """
    size = path.stat().st_size
    if size > MAX_ARCHIVE:
        raise ScenarioError(f"{path}: holds {size} bytes, at most {MAX_ARCHIVE} are read")
    with path.open("rb") as file:
        name = ""
        for number in range(MAX_MEMBERS):
            header = file.read(_BLOCK)
            where = f"{path}: member {number}"
            if len(header) < _BLOCK:
                raise ScenarioError(f"{path}: ends before the mark of its end, perhaps truncated")
            if not any(header):
                return
            if _number(header[148:156]) != sum(header) - sum(header[148:156]) + 8 * 0x20:
                raise ScenarioError(f"{where}: damaged, or no tar archive (checksum)")
            kind, length = header[156:157], _number(header[124:136])
            if kind in (_LONG_NAME, _PAX, _PAX_GLOBAL):
                record = _content(file, length, MAX_NAME, where)
                if kind != _PAX_GLOBAL:
                    name = _pax_name(record, where) if kind == _PAX else _text(record)
                continue
            if not name:
                name = "/".join(filter(None, (_text(header[345:500]), _text(header[:100]))))
            if kind in _FILE:
                yield name, _content(file, length, max_size, f"{where} ({name[-80:]!r})")
            elif kind != _FOLDER:
                raise ScenarioError(
                    f"{where} ({name[-80:]!r}): a link or device (type {kind!r}), "
                    "but only plain files are read"
                )
            name = ""
    raise ScenarioError(f"{path}: holds more than {MAX_MEMBERS} members")


def _content(file: BinaryIO, length: int, limit: int, where: str) -> bytes:
    """`length` bytes, and the file moved past the padding that follows them."""
    if not 0 <= length <= limit:
        raise ScenarioError(f"{where}: its size must be 0 to {limit} bytes, got {length}")
    data = file.read(-(-length // _BLOCK) * _BLOCK)
    if len(data) < length:
        raise ScenarioError(
            f"{where}: cut off after {len(data)} of {length} bytes, perhaps truncated"
        )
    return data[:length]


def _number(field: bytes) -> int:
    """An octal or base-256 number of a header; -1 where it is neither."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0") or b"0"
    return int(digits, 8) if not digits.strip(b"01234567") else -1


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")


def _pax_name(record: bytes, where: str) -> str:
    """The name in a pax record of lines `length key=value`; empty where it has none."""
    name = ""
    while record:
        count, _, _ = record.partition(b" ")
        length = int(count) if count.isdigit() and len(count) < 8 else 0
        if not len(count) + 1 < length <= len(record):
            raise ScenarioError(f"{where}: a damaged pax record")
        key, _, value = record[len(count) + 1 : length].rstrip(b"\n").partition(b"=")
        if key == b"path":
            name = value.decode("utf-8", "replace")
        elif key == b"size" or key.startswith(b"GNU.sparse"):
            raise ScenarioError(f"{where}: pax sizes and sparse files are not read")
        record = record[length:]
    return name
