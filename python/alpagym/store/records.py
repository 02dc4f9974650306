"""What an earlier convert into a store has left: what its shards were made of, file by file.

A record tells of one group of files. It is written after the shards of the group and knows them by
their SHA-256, so it holds whatever they are called, and a convert that was killed leaves either all
of a group or nothing that is believed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from alpagym.atomic import write_atomically
from alpagym.scenarios.load import inputs_of
from alpagym.scenarios.scenario import Scenario
from alpagym.store.shard import SUFFIX, Shard, sha256_of

NOTES = ".convert"
"""Folder inside the store with what a later convert needs; not part of the store."""


@dataclass
class Entry:
    """What one file gave."""

    sha256: str = ""
    """Of the file; empty where it gave no scenario."""
    inputs: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the other files that its scenarios depend on, by name."""
    tags: list[tuple[str, str]] = field(default_factory=list)
    """Data set and license of each scenario."""
    skipped: list[str] = field(default_factory=list)
    """Reasons why something in it was left out."""
    again: bool = False
    """Whether another time it may give more: it gave nothing, or failed for a cause outside."""

    @property
    def is_part(self) -> bool:
        """Whether the file only adds to scenarios that others carry."""
        return not self.tags and not self.skipped


@dataclass
class Record:
    """What one group was made of and what it gave."""

    files: dict[str, Entry]
    """By name, in the order of their scenarios."""
    plugins: list[str]
    """Those that were asked."""
    shards: list[dict[str, Any]] = field(default_factory=list)
    """`sha256`, `bytes` and `scenarios` of each."""


class Earlier:
    """The records and shards that a store holds."""

    def __init__(self, out: Path, plugins: list[str], groups: Sequence[Sequence[str]]) -> None:
        """Read the records of which every shard is as it was written, under whatever name.

        Args:
            out: the store.
            plugins: texts that stand for the plug-ins there are; records of others are void.
            groups: names of the files of each group that there is now; what the record of one
                tells of a file is believed before what others do.
        """
        self.shards = {sha256_of(file): file for file in _shards_in(out)}
        """Files by their SHA-256."""
        self.records: dict[str, Record] = {}
        """By the key of their group."""
        self._places: dict[str, tuple[Record, int]] = {}
        self._open: dict[str, Shard] = {}
        now = {record_file(out, names) for names in groups}
        records = sorted((out / NOTES).glob("group-*.json"))
        for file in sorted(records, key=lambda file: file in now):
            record = _record_of(file)
            if record is None or record.plugins != plugins:
                continue
            if not {shard["sha256"] for shard in record.shards} <= self.shards.keys():
                continue
            self.records[key_of(record.files)] = record
            first = 0
            for name, entry in record.files.items():
                self._places[name] = (record, first)
                first += len(entry.tags)

    def entry(self, name: str) -> Entry | None:
        """What a file gave, if that is known."""
        return self._places[name][0].files[name] if name in self._places else None

    def needed(self, names: Iterable[str]) -> set[str]:
        """SHA-256 of the shards that hold scenarios of these files."""
        records = (self._places[name][0] for name in names)
        return {shard["sha256"] for record in records for shard in record.shards}

    def given(self, name: str) -> tuple[Entry, list[Scenario]]:
        """What a file gave, its scenarios out of the shards."""
        record, first = self._places[name]
        last = first + len(record.files[name].tags)
        found: list[Scenario] = []
        begin = 0
        for told in record.shards:
            end = begin + told["scenarios"]
            if begin < last and first < end:
                shard = self._shard(told["sha256"])
                found += [
                    shard.scenario(i) for i in range(max(first - begin, 0), min(last, end) - begin)
                ]
            begin = end
        return record.files[name], found

    def _shard(self, sha256: str) -> Shard:
        if sha256 not in self._open:
            if len(self._open) > 8:  # what lies in a row comes from few
                self._open.clear()
            self._open[sha256] = Shard(self.shards[sha256])
        return self._open[sha256]

    def arrange(self, out: Path, kept: Mapping[str, str], needed: set[str]) -> None:
        """Give shards new names, all at once, and take away those that nobody needs.

        Args:
            out: the store.
            kept: file names of shards that stay, by their SHA-256.
            needed: others that scenarios are still taken from; they are hidden until the end.
        """
        for file in set(_shards_in(out)) - set(self.shards.values()):
            file.unlink()  # a second copy
        for sha256, file in list(self.shards.items()):
            if sha256 not in kept and sha256 not in needed:
                file.unlink()
            elif kept.get(sha256) != file.name:
                self.hide(out, [sha256])
        for sha256, name in kept.items():
            if self.shards[sha256].name != name:
                self.shards[sha256] = self.shards[sha256].rename(out / name)

    def hide(self, out: Path, digests: Iterable[str]) -> None:
        """Take shards out of the way of others that get their names; they can still be read."""
        for sha256 in digests:
            hidden = out / f".shard-{sha256}{SUFFIX}"
            self.shards[sha256] = self.shards[sha256].rename(hidden)


def _shards_in(out: Path) -> list[Path]:
    return sorted([*out.glob(f"shard-*{SUFFIX}"), *out.glob(f".shard-*{SUFFIX}")])


def key_of(names: Iterable[str]) -> str:
    """Stands for a group of files, by their names."""
    return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()[:32]


def record_file(out: Path, names: Iterable[str]) -> Path:
    """Where the record of a group lies."""
    return out / NOTES / f"group-{key_of(names)}.json"


def _record_of(file: Path) -> Record | None:
    stored = json_of(file)
    try:
        record = Record(**(stored or {}))
        record.files = {name: Entry(**told) for name, told in (stored or {})["files"].items()}
        for entry in record.files.values():
            entry.tags = [(str(dataset), str(license)) for dataset, license in entry.tags]
    except (TypeError, ValueError, KeyError, AttributeError):
        return None
    kinds = {"sha256": str, "bytes": int, "scenarios": int}
    told = [{key: type(value) for key, value in shard.items()} for shard in record.shards]
    if any(found != kinds for found in told):
        return None
    given = sum(len(entry.tags) for entry in record.files.values())
    return record if given == sum(shard["scenarios"] for shard in record.shards) else None


def stamps_of(files: Sequence[Path]) -> list[tuple[int, int, int]]:
    """What changes when a file does; no digest is needed to see it.

    Raises:
        OSError: one cannot be looked at.
    """
    stats = [file.stat() for file in files]
    return [(stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats]


def digests_of(inputs: Sequence[Path], root: Path) -> dict[str, str]:
    """SHA-256 of each of the files that a scenario depends on, by name.

    Raises:
        OSError: one cannot be read.
    """
    stamps = stamps_of(inputs)
    return {
        name_of(file, root): _digest(file, stamp)
        for file, stamp in zip(inputs, stamps, strict=True)
    }


@lru_cache(maxsize=4096)
def _digest(file: Path, stamp: tuple[int, int, int]) -> str:
    """SHA-256 of a file; the map of a city serves thousands of logs."""
    return sha256_of(file)


def name_of(file: Path, root: Path) -> str:
    """The path below what is converted, the same on every machine; the whole path of others."""
    if not file.is_relative_to(root):
        file, root = file.resolve(), root.resolve()
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)


def is_current(entry: Entry | None, file: Path, root: Path) -> bool:
    """Whether a file would give what it gave, as far as files decide on that."""
    if entry is None or entry.again:
        return False
    try:
        inputs = digests_of(inputs_of(file), root)
        return inputs == entry.inputs and sha256_of(file) == entry.sha256
    except OSError:
        return False


def write_record(out: Path, record: Record) -> None:
    """Write the record of a group whole or not at all."""
    write_json(record_file(out, record.files), asdict(record))


def json_of(file: Path) -> dict[str, Any] | None:
    """The object of a JSON file; None where there is none."""
    try:
        value = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(file: Path, value: Any) -> None:
    """Write a file whole or not at all."""
    write_atomically(file, lambda to: to.write_text(json.dumps(value, indent=1) + "\n"))
