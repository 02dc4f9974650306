"""Members of a zip archive, read in place: nothing is unpacked to a disk.

Archives are input from anywhere. Names are only ever compared, so it does not matter where they
would lead; the list of members is bounded before it is read, and each member before it is unpacked.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from alpagym.scenarios.scenario import ScenarioError

MAX_LIST = 4 * 2**20
"""Largest list of members [bytes], and the most that is read from the archive at a time."""
MAX_RATIO, SMALL = 200, 2**20
"""Most bytes that one byte of a member unpacks to, if it unpacks to more than `SMALL` bytes."""
_CHUNK = 2**20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1


class _Bounded(io.RawIOBase):
    """A file of which never more than `MAX_LIST` bytes are read at a time."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if size > MAX_LIST:
            raise zipfile.BadZipFile(f"its list of members has {size} bytes, at most {MAX_LIST}")
        return self._file.read(size if size >= 0 else MAX_LIST)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


class Archive:
    """An open archive; use `open_archive`."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._zip = zipfile.ZipFile(_Bounded(file))
        self._members: dict[str, list[zipfile.ZipInfo]] = {}
        for info in self._zip.infolist():
            self._members.setdefault(info.filename, []).append(info)

    @property
    def names(self) -> list[str]:
        """Names of the members."""
        return list(self._members)

    def read(self, name: str, limit: int) -> bytes:
        """The content of a member.

        Raises:
            ScenarioError: if there is none of this name, or several, or it is encrypted, packed in
                another way than deflate, or unpacks to more than `limit` bytes.
        """
        what = f"{self.path}: member '{name[-80:]}'"
        found = self._members.get(name, [])
        if len(found) != 1:
            raise ScenarioError(f"{what} must be there once, but is {len(found)} times")
        info = found[0]
        if info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS:
            raise ScenarioError(f"{what} is encrypted, or packed in another way than deflate")
        if info.file_size > limit:
            raise ScenarioError(f"{what} has {info.file_size} bytes, at most {limit} are read")
        if info.file_size > max(SMALL, MAX_RATIO * info.compress_size):
            raise ScenarioError(
                f"{what} unpacks {info.compress_size} bytes to {info.file_size}, which is more "
                f"than plausible (at most {MAX_RATIO} times)"
            )
        with self._zip.open(info) as file:
            return b"".join(iter(lambda: file.read(_CHUNK), b""))


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """An archive whose errors, wherever they come up in the block, become one sentence.

    Raises:
        ScenarioError: naming the file.
    """
    with path.open("rb") as file:
        try:
            yield Archive(path, file)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise ScenarioError(f"{path}: damaged zip archive ({_short(error)})") from error
        except (ValueError, OverflowError, struct.error) as error:
            if isinstance(error, ScenarioError):
                raise
            raise ScenarioError(f"{path}: damaged zip archive ({_short(error)})") from error


def _short(error: Exception) -> str:
    """What an error says, in one line; it may repeat what the archive holds."""
    return " ".join(str(error).split())[:200] or type(error).__name__


class Member:
    """A member as a file that can be read; it may be missing."""

    def __init__(self, archive: Archive, name: str, limit: int) -> None:
        self._archive = archive
        self._name = name
        self._limit = limit

    def is_file(self) -> bool:
        return self._name in self._archive.names

    def read_bytes(self) -> bytes:
        return self._archive.read(self._name, self._limit)

    def __str__(self) -> str:
        return f"{self._archive.path}: member '{self._name}'"
