"""What readers need of a file, whether it lies in a folder or in an archive."""

from __future__ import annotations

from typing import Protocol


class ReadableFile(Protocol):
    """A file, or a member of an archive, named in messages by its text."""

    def is_file(self) -> bool: ...

    def read_bytes(self) -> bytes: ...
