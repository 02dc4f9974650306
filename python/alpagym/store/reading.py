"""What files hold, read ahead by several processes, and what is to be known of each file later."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from alpagym.pools import dropping, processes
from alpagym.scenarios.load import Skipped, inputs_of, read_file
from alpagym.scenarios.scenario import Scenario
from alpagym.store.records import Entry, digests_of, stamps_of
from alpagym.store.shard import refusal, sha256_of

Read = tuple[Entry, list[Scenario]]


def _read(path: Path, root: Path, max_agents: int | None) -> Read:
    """What a file holds, as far as it can be stored, and what is to be known of it later."""
    entry = Entry()
    scenarios: list[Scenario] = []
    outside = False
    try:
        inputs = inputs_of(path)
        before = stamps_of([path, *inputs])
        for result in read_file(path, max_agents):
            reason = result.reason if isinstance(result, Skipped) else refusal(result)
            if reason is not None:
                entry.skipped.append(_without(root, str(reason)))
                outside |= isinstance(result, Skipped) and result.outside
            elif isinstance(result, Scenario):
                notes = [_without(root, note) for note in result.notes]
                source = _without(root, result.source)
                scenarios.append(replace(result, source=source, notes=notes))
                entry.tags.append((result.dataset, result.license))
        if scenarios:
            entry.sha256, entry.inputs = sha256_of(path), digests_of(inputs, root)
            if stamps_of([path, *inputs]) != before:
                reason = f"{path}: was changed while it was read"
                entry, scenarios = Entry(skipped=[_without(root, reason)]), []
    except OSError as error:
        reason = f"{path}: cannot be read ({error.strerror})"
        entry, scenarios = Entry(skipped=[_without(root, reason)]), []
    entry.again = outside or not scenarios
    return entry, scenarios


@contextmanager
def reading(
    files: Sequence[Path], root: Path, max_agents: int | None, workers: int
) -> Iterator[Iterator[Read]]:
    """What each file holds, in their order, read ahead by `workers` processes."""
    if workers == 1 or len(files) < 2:
        yield (_read(file, root, max_agents) for file in files)
        return
    with dropping(processes(workers, len(files))) as pool:
        yield _in_order(pool, files, root, max_agents, ahead=2 * workers)


def _in_order(
    pool: ProcessPoolExecutor,
    files: Iterable[Path],
    root: Path,
    max_agents: int | None,
    ahead: int,
) -> Iterator[Read]:
    """Results in the order of the files; never more than `ahead` are waited for or held."""
    waiting: deque[Future[Read]] = deque()
    for file in files:
        waiting.append(pool.submit(_read, file, root, max_agents))
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _without(root: Path, text: str) -> str:
    """The text without the path of the folder that was converted: the same on every machine."""
    return text.replace(f"{root}/", "")
