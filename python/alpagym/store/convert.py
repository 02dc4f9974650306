"""`alpagym convert`: recordings of any format into a folder of shards.

Files are taken in the order of their paths, in groups. A group gives one shard or more and a record
of what they were made of, written last: an interrupted convert goes on with the first group that
has no record, and one that is repeated reads no group of files whose SHA-256 are as they were.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import alpagym
from alpagym.scenarios.load import Skipped, files_of, is_part, read_file
from alpagym.scenarios.scenario import Scenario, ScenarioError
from alpagym.store.layout import SCHEMA
from alpagym.store.options import ConvertConfig
from alpagym.store.shard import REPORT, SUFFIX, SourceFile, refusal, sha256_of, write_shard

GROUP_BYTES = 1 << 30
"""Files of one group are this large together at most, unless one alone is larger."""
NOTES = ".convert"
"""Folder inside the store with what a later convert needs; not part of the store."""


@dataclass
class Record:
    """What one group was made of and what it gave."""

    files: dict[str, str]
    """SHA-256 by name, parts included."""
    shards: list[dict[str, Any]] = field(default_factory=list)
    """`name`, `sha256`, `bytes` and `scenarios` of each."""
    skipped: list[dict[str, str]] = field(default_factory=list)
    """`path` and `reason` of each."""
    tags: list[tuple[str, str]] = field(default_factory=list)
    """Data set and license of each scenario."""


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
    files = files_of(source)
    parts = [file for file in files if is_part(file)]
    known = set(parts)
    groups = _groups([file for file in files if file not in known], config.shard_scenarios)
    total = sum(map(len, groups))
    try:
        with _owned(out, _settings(config, source)):
            for leftover in out.glob(f".*{SUFFIX}.*.tmp"):
                leftover.unlink()
            (out / REPORT).unlink(missing_ok=True)  # there when all is done, and only then
            kept = {i: _kept(out, i, _named(g, parts, root), root) for i, g in enumerate(groups)}
            done = sum(len(groups[i]) for i, record in kept.items() if record)
            progress(done, total)
            todo = [file for i, group in enumerate(groups) if not kept[i] for file in group]
            workers = config.workers or os.cpu_count() or 1
            with _reading(todo, config.max_agents or None, workers) as results:
                for i, group in enumerate(groups):
                    if not kept[i]:
                        taken = _taken(results, len(group), done, total, progress)
                        done += len(group)
                        kept[i] = _write_group(
                            out, i, _named(group, parts, root), root, taken, config.shard_scenarios
                        )
            records = [kept[i] for i in range(len(groups))]
            return _finish(out, config, [r for r in records if r], total)
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
        earlier = _json_of(file)
        if earlier is not None and earlier != settings:
            name = next(n for n in settings if earlier.get(n) != settings[n])
            raise ScenarioError(
                f"out={out}: was converted with {name}={earlier.get(name)}, not {settings[name]}: "
                "choose another folder"
            )
        write_json(file, settings)
        yield


def _groups(files: Sequence[Path], most: int) -> list[list[Path]]:
    """Files in a row, never more than `most` nor than `GROUP_BYTES` together."""
    groups: list[list[Path]] = []
    room = 0
    for file in files:
        size = file.stat().st_size
        if not groups or len(groups[-1]) == most or size > room:
            groups.append([])
            room = GROUP_BYTES
        groups[-1].append(file)
        room -= size
    return groups


def _named(group: Sequence[Path], parts: Sequence[Path], root: Path) -> dict[str, Path]:
    """All files that decide on what a group gives, by name: its own, and parts that may be theirs.

    Those are the parts in or below the folder of a file, and those beside that folder with the
    same name but for what follows a dot.
    """
    folders = {file.parent for file in group}
    stems = {(file.parent.parent, file.name.split(".")[0]) for file in group}
    mine = [
        part
        for part in parts
        if not folders.isdisjoint(part.parents)
        or any((above, part.name.split(".")[0]) in stems for above in part.parents)
    ]
    return {_name(file, root): file for file in (*group, *mine)}


def _name(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()


def _kept(out: Path, index: int, named: dict[str, Path], root: Path) -> Record | None:
    """The record of a group, if its sources and shards are still those that it tells of."""
    stored = _json_of(_record_file(out, index))
    try:
        record = Record(**(stored or {}))
        intact = record.files.keys() == named.keys() and all(
            sha256_of(file) == record.files[name] for name, file in named.items()
        )
        for shard in record.shards:
            intact = intact and sha256_of(out / shard["name"]) == shard["sha256"]
        return record if intact else None
    except (TypeError, KeyError, AttributeError, OSError):
        return None


def _record_file(out: Path, index: int) -> Path:
    return out / NOTES / f"group-{index:05d}.json"


Read = tuple[str, list[Scenario | Skipped]]


def _read(path: Path, max_agents: int | None) -> Read:
    """SHA-256 of a file, and what it holds as far as it can be stored."""
    try:
        digest = sha256_of(path)
    except OSError as error:
        return "", [Skipped(str(path), f"{path}: cannot be read ({error.strerror})")]
    found: list[Scenario | Skipped] = []
    for result in read_file(path, max_agents):
        reason = refusal(result) if isinstance(result, Scenario) else None
        found.append(Skipped(str(path), str(reason)) if reason else result)
    return digest, found


@contextmanager
def _reading(
    files: Sequence[Path], max_agents: int | None, workers: int
) -> Iterator[Iterator[Read]]:
    """What each file holds, in their order, read ahead by `workers` processes."""
    if workers == 1 or len(files) < 2:
        yield (_read(file, max_agents) for file in files)
        return
    pool = ProcessPoolExecutor(min(workers, len(files)), get_context("spawn"))
    try:
        yield _in_order(pool, files, max_agents, ahead=2 * workers)
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, files: Iterable[Path], max_agents: int | None, ahead: int
) -> Iterator[Read]:
    """Results in the order of the files; never more than `ahead` are waited for or held."""
    waiting: deque[Future[Read]] = deque()
    for file in files:
        waiting.append(pool.submit(_read, file, max_agents))
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _taken(
    results: Iterator[Read],
    count: int,
    done: int,
    total: int,
    progress: Callable[[int, int], None],
) -> Iterator[Read]:
    for k in range(count):
        yield next(results)
        progress(done + k + 1, total)


def _write_group(
    out: Path,
    index: int,
    named: dict[str, Path],
    root: Path,
    results: Iterable[Read],
    most: int,
) -> Record:
    """Shards of a group, then its record."""
    record = Record(files={})
    names = list(named)
    held: list[Scenario] = []
    file_of: list[int] = []
    files: list[SourceFile] = []

    def flush() -> None:
        name = f"shard-{index:05d}-{len(record.shards):03d}{SUFFIX}"
        used = sorted(set(file_of))
        write_shard(
            out / name,
            held,
            files=[files[k] for k in used],
            file_of=[used.index(k) for k in file_of],
            version=alpagym.__version__,
        )
        told = {"name": name, "sha256": sha256_of(out / name), "scenarios": len(held)}
        record.shards.append(told | {"bytes": (out / name).stat().st_size})
        held.clear()
        file_of.clear()

    for k, (digest, found) in enumerate(results):
        files.append(SourceFile(names[k], digest))
        record.files[names[k]] = digest
        for result in found:
            if isinstance(result, Skipped):
                told = {"path": names[k], "reason": _without(root, result.reason)}
                record.skipped.append(told)
                continue
            notes = [_without(root, note) for note in result.notes]
            held.append(replace(result, source=_without(root, result.source), notes=notes))
            file_of.append(k)
            record.tags.append((result.dataset, result.license))
            if len(held) == most:
                flush()
    if held:
        flush()
    for name in names[len(files) :]:
        record.files[name] = sha256_of(named[name])
    write_json(_record_file(out, index), asdict(record))
    return record


def _without(root: Path, text: str) -> str:
    """The text without the path of the folder that was converted: the same on every machine."""
    return text.replace(f"{root}/", "")


def _finish(
    out: Path, config: ConvertConfig, records: Sequence[Record], num_files: int
) -> dict[str, Any]:
    """Take away what no group gives any more, and write the report."""
    shards = [shard for record in records for shard in record.shards]
    skipped = [told for record in records for told in record.skipped]
    names = {shard["name"] for shard in shards}
    for stale in out.glob(f"shard-*{SUFFIX}"):
        if stale.name not in names:
            stale.unlink()
    for stale in (out / NOTES).glob("group-*.json"):
        if int(stale.stem.removeprefix("group-")) >= len(records):
            stale.unlink()
    if not shards:
        if not skipped:
            raise ScenarioError(f"{config.scenarios}: holds only parts of scenarios")
        raise ScenarioError(
            f"{config.scenarios}: none of {num_files} files could be converted, the first: "
            f"{skipped[0]['reason']}"
        )
    tags = [tag for record in records for tag in record.tags]
    report = {
        "schema": SCHEMA,
        "converter": alpagym.__version__,
        "num_files": num_files,
        "num_scenarios": len(tags),
        "num_bytes": sum(shard["bytes"] for shard in shards),
        "datasets": dict(sorted(Counter(dataset for dataset, _ in tags).items())),
        "licenses": dict(sorted(Counter(license for _, license in tags).items())),
        "shards": shards,
        "skipped": skipped,
    }
    write_json(out / REPORT, report)
    return report


def _json_of(file: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(file: Path, value: Any) -> None:
    """Write a file whole or not at all."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(value, indent=1) + "\n")
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
