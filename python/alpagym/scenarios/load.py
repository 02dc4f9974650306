"""Load recorded scenarios from a file or a folder, whatever formats lie there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from alpagym.pools import dropping, processes
from alpagym.scenarios.readers import READERS, Reader
from alpagym.scenarios.readers.plugins import PluginError, plugins
from alpagym.scenarios.scenario import Scenario, ScenarioError
from alpagym.store import shard

STORE = Reader("AlpaGym store", shard.sniff, shard.read, shard.part)
REPEATED = "its id occurs more than once in this load"


@dataclass(frozen=True)
class Skipped:
    """A file, or one record of a file, that was not loaded."""

    path: str
    reason: str
    """One sentence that names the file."""
    unknown: bool = False
    """Whether the file is of no known format, rather than damaged or unfit."""
    outside: bool = False
    """Whether the cause may lie outside of the file, so that another time it may be read."""


class UnknownFormatError(ScenarioError):
    """No reader takes the file for one of its format."""


def load_scenarios(
    path: str | Path, *, max_agents: int | None = None, workers: int = 1
) -> tuple[list[Scenario], list[Skipped]]:
    """All scenarios of a file, or of a folder and its subfolders in the order of their paths.

    Formats are told by content. Scenarios that share an id (one drive in several formats) are all
    kept, with a note.

    Args:
        path: file or folder; hidden files in it are passed over.
        max_agents: scenarios with more agents are skipped.
        workers: processes that read files side by side.

    Returns:
        The scenarios, and what was skipped and why.

    Raises:
        ScenarioError: if nothing can be loaded; one sentence with the path and the first reason.
    """
    path = Path(path)
    files = files_of(path)
    read = partial(_read_file, max_agents=max_agents)
    # What shards hold is mapped, not read: to send it between processes would be to copy it.
    foreign = [file for file in files if file.suffix != shard.SUFFIX]
    if workers > 1 and len(foreign) > 1:
        with dropping(processes(workers, len(foreign))) as pool:
            chunk = max(1, min(16, len(foreign) // workers))
            by_file = dict(zip(foreign, pool.map(read, foreign, chunksize=chunk), strict=True))
    else:
        by_file = {}
    results = [by_file[file] if file in by_file else read(file) for file in files]
    scenarios = [s for loaded, _ in results for s in loaded]
    skipped = [s for _, left_out in results for s in left_out]
    if not scenarios:
        if not skipped:
            raise ScenarioError(f"{path}: holds only parts of scenarios; load the folder above it")
        if len(skipped) == 1 and len(files) == 1:
            raise ScenarioError(skipped[0].reason)
        raise ScenarioError(
            f"{path}: none of {len(files)} files could be loaded, the first: {skipped[0].reason}"
        )
    skipped += [Skipped(reason.split(":")[0], reason) for reason in plugins()[1]]
    repeated = {i for i, count in Counter(s.id for s in scenarios).items() if count > 1}
    for scenario in scenarios:
        if scenario.id in repeated and REPEATED not in scenario.notes:
            scenario.notes.append(REPEATED)
    return scenarios, skipped


def files_of(path: Path) -> list[Path]:
    """The file itself, or all files of a folder and its subfolders but hidden ones.

    Raises:
        ScenarioError: there is none.
    """
    try:
        if path.is_dir():
            files = sorted(
                file
                for file in path.rglob("*")
                if file.is_file() and not _is_hidden(file.relative_to(path))
            )
            if not files:
                raise ScenarioError(f"{path}: the folder holds no files")
            return files
        if path.is_file():
            return [path]
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read ({error.strerror})") from error
    raise ScenarioError(
        f"{path}: no such file or folder" if not path.exists() else f"{path}: not a file or folder"
    )


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _read_file(path: Path, max_agents: int | None) -> tuple[list[Scenario], list[Skipped]]:
    """Scenarios of one file and what was left out of it; never raises for what the file holds."""
    loaded: list[Scenario] = []
    skipped: list[Skipped] = []
    for result in read_file(path, max_agents):
        if isinstance(result, Skipped):
            skipped.append(result)
        else:
            loaded.append(result)
    return loaded, skipped


def is_part(path: Path) -> bool:
    """Whether a file is read when another file of the same scenario is."""
    return any(r.part(path) for r in (STORE, *READERS))


def is_taken_in(path: Path) -> bool:
    """Whether a file can give no scenario of its own: a part, of which nobody else is asked."""
    try:
        return is_part(path) and not plugins()[0] and not STORE.sniff(_head(path), path)
    except OSError:
        return False


def inputs_of(path: Path) -> list[Path]:
    """Other files on which the scenarios of a file depend, of those that there are, in order.

    Raises:
        OSError: the file cannot be read.
    """
    head = _head(path)
    if STORE.sniff(head, path):
        return []
    asked: list[Callable[[Path], Iterable[Path]]] = [p.inputs for p in plugins()[0]]
    if not is_part(path):
        asked += [reader.inputs for reader in READERS if reader.sniff(head, path)][:1]
    named: set[Path] = set()
    for inputs in asked:
        with suppress(ScenarioError, OSError):  # reading the file will tell
            named.update(inputs(path))
    return sorted(file for file in named if file != path and file.is_file())


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4096)


def read_file(path: Path, max_agents: int | None = None) -> Iterator[Scenario | Skipped]:
    """Each scenario of one file, or why it is left out; nothing for a part of other scenarios."""
    empty = True
    try:
        head = _head(path)
        if not head:
            raise ScenarioError(f"{path}: the file is empty")
        for result in _quietly(_results(path, head)):
            empty = False
            if isinstance(result, ScenarioError):
                yield Skipped(str(path), str(result), outside=isinstance(result, PluginError))
            elif max_agents is not None and result.tracks.num_agents > max_agents:
                agents = result.tracks.num_agents
                reason = f"{result.source}: has {agents} agents, more than max_agents={max_agents}"
                yield Skipped(str(path), reason)
            else:
                yield result
        if empty and not is_part(path):
            raise ScenarioError(f"{path}: holds no records")
    except ScenarioError as error:
        yield Skipped(str(path), str(error), unknown=isinstance(error, UnknownFormatError))
    except OSError as error:
        yield Skipped(str(path), f"{path}: cannot be read ({error.strerror})", outside=True)


def _results(path: Path, head: bytes) -> Iterator[Scenario | ScenarioError]:
    """What a file holds: of the first plug-in that finds something in it, else of our readers."""
    if STORE.sniff(head, path):
        yield from STORE.read(path)
        return
    failures: list[ScenarioError] = []
    for plugin in plugins()[0]:
        found = False
        for result in plugin.read(path):
            if isinstance(result, ScenarioError):
                failures.append(result)
            else:
                found = True
                yield result
        if found:
            yield from failures
            return
    if not failures:
        yield from _own_results(path, head)
        return
    own: list[Scenario | ScenarioError] = []
    try:
        own.extend(_own_results(path, head))
    except ScenarioError as error:
        own.append(error)
    if not any(isinstance(result, Scenario) for result in own) and not is_part(path):
        own = list(failures)
    for result in own:
        if isinstance(result, Scenario):
            result.notes.extend(str(failure) for failure in failures)
        yield result


def _own_results(path: Path, head: bytes) -> Iterator[Scenario | ScenarioError]:
    """What a file of a format of this package holds; nothing for a part of a scenario."""
    if is_part(path):
        return
    reader = next((r for r in READERS if r.sniff(head, path)), None)
    if reader is None:
        found, problems = plugins()
        known = ", ".join([*(r.name for r in (*READERS, STORE)), *(p.name for p in found)])
        raise UnknownFormatError(
            "; ".join([f"{path}: of no known format (known: {known})", *problems])
        )
    yield from reader.read(path)


def _quietly(results: Iterator[Scenario | ScenarioError]) -> Iterator[Scenario | ScenarioError]:
    """The same results, without NumPy warnings: absurd values are refused by explicit checks."""
    while True:
        with np.errstate(over="ignore", invalid="ignore"):
            result = next(results, None)
        if result is None:
            return
        yield result
