"""`alpagym convert`: recordings of any format into a folder of shards.

Files are taken in the order of their paths, in groups that hang on names alone. A group gives one
shard or more and a record of what each file gave, written last. So an interrupted convert goes on
with the first group that has no record, and one that is repeated reads what has changed, what gave
nothing, and nothing else: the rest is taken out of the shards that are there. What is written is
the same as if all had been read anew.
"""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import alpagym
from alpagym.atomic import clear_unfinished
from alpagym.pools import dropping
from alpagym.scenarios.load import files_of, is_taken_in
from alpagym.scenarios.readers.plugins import fingerprint
from alpagym.scenarios.scenario import Scenario, ScenarioError
from alpagym.store.container import MAX_HEADER
from alpagym.store.grouping import grouped
from alpagym.store.layout import SCHEMA
from alpagym.store.options import ConvertConfig
from alpagym.store.reading import Read, reading
from alpagym.store.records import (
    NOTES,
    Earlier,
    Entry,
    Record,
    is_current,
    json_of,
    key_of,
    name_of,
    record_file,
    write_json,
    write_record,
)
from alpagym.store.shard import (
    REPORT,
    SUFFIX,
    SourceFile,
    length_of,
    sha256_of,
    size_of,
    write_shard,
)

SHARD_BYTES = 256 << 20
"""The arrays of a shard take so much at most, unless one scenario alone takes more."""
TEXT_BYTES = MAX_HEADER // 2
"""What a shard's header says of scenarios and files takes so much at most [bytes]."""


@dataclass
class _Group:
    """Files that are converted together."""

    names: list[str]
    todo: list[str]
    """Those that have to be read."""
    record: Record | None
    """Of an earlier convert, if it still holds unless a file in `todo` gives more than it did."""


def convert(
    config: ConvertConfig, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Convert all that a file or folder holds; returns what the report beside the shards says.

    Args:
        config: what `alpagym convert` takes.
        progress: called with how many files are done, of how many.

    Raises:
        ScenarioError: nothing to convert, or `out` cannot be used; one sentence.
    """
    source, out = _checked_paths(config)
    root = source if source.is_dir() else source.parent
    found = files_of(source)
    paths = {name_of(file, root): file for file in found if not is_taken_in(file)}
    groups = grouped(
        [(name, file.stat().st_size) for name, file in paths.items()], config.shard_scenarios
    )
    workers = config.workers or os.cpu_count() or 1
    try:
        with _owned(out, _settings(config, source)):
            for folder in (out, out / NOTES):
                clear_unfinished(folder)
            (out / REPORT).unlink(missing_ok=True)  # there when all is done, and only then
            plugins = fingerprint()
            earlier = Earlier(out, plugins, groups)
            plan = _plan(out, groups, earlier, paths, root, workers)
            todo = [paths[name] for group in plan for name in group.todo]
            done = len(paths) - len(todo)
            progress(done, len(paths))
            with reading(todo, root, config.max_agents or None, workers) as results:
                records = []
                for i, group in enumerate(plan):
                    taken = _taken(results, len(group.todo), done, len(paths), progress)
                    done += len(group.todo)
                    records.append(_group_record(out, i, group, earlier, plugins, taken, config))
            return _finish(out, config, records, len(found) - len(paths))
    except OSError as error:
        name = error.filename or out
        raise ScenarioError(f"{name}: cannot be written ({error.strerror})") from error
    except BrokenProcessPool as error:
        raise ScenarioError(f"{source}: a process that read it was killed") from error


def _checked_paths(config: ConvertConfig) -> tuple[Path, Path]:
    for name, value, told in (
        ("scenarios", config.scenarios, "a file or folder of recordings"),
        ("out", config.out, "a folder to write"),
    ):
        if not value:
            raise ScenarioError(f"convert: expected {name}=PATH, {told}")
    source, out = Path(config.scenarios), Path(config.out)
    if out.exists() and not out.is_dir():
        raise ScenarioError(f"out={out}: expected a folder, found a file")
    if source.is_dir() and (
        out.resolve().is_relative_to(source.resolve())
        or source.resolve().is_relative_to(out.resolve())
    ):
        raise ScenarioError(f"out={out}: expected a folder apart from scenarios={source}")
    return source, out


def _settings(config: ConvertConfig, source: Path) -> dict[str, Any]:
    """What must be the same for a convert to go on with what another wrote."""
    return {
        "scenarios": str(source.resolve()),
        "max_agents": config.max_agents,
        "shard_scenarios": config.shard_scenarios,
        "schema": SCHEMA,
        "converter": alpagym.__version__,
    }


@contextmanager
def _owned(out: Path, settings: dict[str, Any]) -> Iterator[None]:
    """The folder, made if need be, for this process alone.

    Raises:
        ScenarioError: another convert has it, or it holds something else.
    """
    file = out / NOTES / "settings.json"
    if out.is_dir() and not file.is_file():
        others = sorted(p.name for p in out.iterdir() if p.name != NOTES)
        if others:
            raise ScenarioError(
                f"out={out}: expected an empty folder or one of an earlier convert, "
                f"it holds {others[0]}"
            )
    file.parent.mkdir(parents=True, exist_ok=True)
    with (file.parent / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ScenarioError(f"out={out}: another convert is writing there") from error
        earlier = json_of(file)
        if earlier is not None and earlier != settings:
            name = next(n for n in settings if earlier.get(n) != settings[n])
            raise ScenarioError(
                f"out={out}: was converted with {name}={earlier.get(name)}, not {settings[name]}: "
                "choose another folder"
            )
        write_json(file, settings)
        yield


def _plan(
    out: Path,
    groups: Sequence[list[str]],
    earlier: Earlier,
    paths: dict[str, Path],
    root: Path,
    workers: int,
) -> list[_Group]:
    """What has to be read for each group; gives the shards that stay the names they get now."""

    def current(name: str) -> bool:
        return is_current(earlier.entry(name), paths[name], root)

    with dropping(ThreadPoolExecutor(workers)) as pool:  # hashing leaves Python's lock alone
        known = {
            name for name, is_known in zip(paths, pool.map(current, paths), strict=True) if is_known
        }
    plan = []
    kept: dict[str, str] = {}
    needed: set[str] = set()
    for i, names in enumerate(groups):
        todo = [name for name in names if name not in known]
        record = earlier.records.get(key_of(names))
        if record is not None and not all(record.files[name].again for name in todo):
            record = None
        if record is not None:
            kept |= {shard["sha256"]: _shard_name(i, k) for k, shard in enumerate(record.shards)}
        else:
            needed |= earlier.needed(name for name in names if name in known)
        plan.append(_Group(names, todo, record))
    earlier.arrange(out, kept, needed)
    return plan


def _shard_name(group: int, shard: int) -> str:
    return f"shard-{group:05d}-{shard:03d}{SUFFIX}"


def _taken(
    results: Iterator[Read],
    count: int,
    done: int,
    total: int,
    progress: Callable[[int, int], None],
) -> Iterator[Read]:
    for k in range(count):
        result = next(results)
        progress(done + k + 1, total)
        yield result


def _group_record(
    out: Path,
    index: int,
    group: _Group,
    earlier: Earlier,
    plugins: list[str],
    results: Iterator[Read],
    config: ConvertConfig,
) -> Record:
    """The record of a group: the one there is if it holds, else of shards that are written now."""
    asked: list[Read] = []
    if group.record is not None:
        for name in group.todo:
            asked.append(next(results))
            if asked[-1][1] or asked[-1][0] != group.record.files[name]:
                break
        else:
            return group.record
        earlier.hide(out, [shard["sha256"] for shard in group.record.shards])
    reads = chain(asked, results)
    todo = set(group.todo)
    files = (
        (name, *(next(reads) if name in todo else earlier.given(name))) for name in group.names
    )
    return _write_group(out, index, files, plugins, config.shard_scenarios)


def _write_group(
    out: Path,
    index: int,
    files: Iterable[tuple[str, Entry, list[Scenario]]],
    plugins: list[str],
    most: int,
) -> Record:
    """Shards of a group, then its record."""
    record = Record(files={}, plugins=plugins)
    held: list[Scenario] = []
    sources: list[SourceFile] = []
    file_of: list[int] = []
    taken = [0, 0]

    def flush() -> None:
        path = out / _shard_name(index, len(record.shards))
        write_shard(path, held, files=sources, file_of=file_of, version=alpagym.__version__)
        record.shards.append(
            {"sha256": sha256_of(path), "scenarios": len(held), "bytes": path.stat().st_size}
        )
        for values in (held, sources, file_of):
            values.clear()
        taken[:] = 0, 0

    for name, entry, scenarios in files:
        record.files[name] = entry
        source = SourceFile(name, entry.sha256)
        for scenario in scenarios:
            arrays, texts = size_of(scenario)
            texts += length_of([name, entry.sha256])
            full = len(held) == most or taken[0] + arrays > SHARD_BYTES
            if held and (full or taken[1] + texts > TEXT_BYTES):
                flush()
            if not sources or sources[-1] != source:
                sources.append(source)
            held.append(scenario)
            file_of.append(len(sources) - 1)
            taken[:] = taken[0] + arrays, taken[1] + texts
    if held:
        flush()
    write_record(out, record)
    return record


def _finish(
    out: Path, config: ConvertConfig, records: Sequence[Record], num_taken_in: int
) -> dict[str, Any]:
    """Take away what no group gives any more, and write the report."""
    shards = [
        {"name": _shard_name(i, k)} | shard
        for i, record in enumerate(records)
        for k, shard in enumerate(record.shards)
    ]
    names = {shard["name"] for shard in shards}
    for stale in (*out.glob(f"shard-*{SUFFIX}"), *out.glob(f".shard-*{SUFFIX}")):
        if stale.name not in names:
            stale.unlink()
    told = {record_file(out, record.files) for record in records}
    for stale in (out / NOTES).glob("group-*.json"):
        if stale not in told:
            stale.unlink()
    entries = [item for record in records for item in record.files.items()]
    skipped = [{"path": name, "reason": r} for name, entry in entries for r in entry.skipped]
    num_parts = num_taken_in + sum(entry.is_part for _, entry in entries)
    num_files = num_taken_in + len(entries) - num_parts
    if not shards:
        if not skipped:
            raise ScenarioError(f"{config.scenarios}: holds only parts of scenarios")
        raise ScenarioError(
            f"{config.scenarios}: none of {num_files} files could be converted, the first: "
            f"{skipped[0]['reason']}"
        )
    tags = [tag for _, entry in entries for tag in entry.tags]
    report = {
        "schema": SCHEMA,
        "converter": alpagym.__version__,
        "num_files": num_files,
        "num_parts": num_parts,
        "num_scenarios": len(tags),
        "num_bytes": sum(shard["bytes"] for shard in shards),
        "datasets": dict(sorted(Counter(dataset for dataset, _ in tags).items())),
        "licenses": dict(sorted(Counter(license for _, license in tags).items())),
        "shards": shards,
        "skipped": skipped,
    }
    write_json(out / REPORT, report)
    return report
