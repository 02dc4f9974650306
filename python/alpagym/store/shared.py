"""Generated scenarios on disk that runs share: made once, found again, cleared away by the next.

They lie in the hidden folder `.generated` of the folder of runs, in a folder named after what is in
it. Whoever uses such a folder holds a shared lock on it, which ends with the process however that
ends. So what a run leaves behind serves the next one that wants the same, a resumed one above all,
and is cleared away by the next that wants something else.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import alpagym
from alpagym import sim
from alpagym.atomic import clear_unfinished
from alpagym.scenarios.procedural import check_kinds
from alpagym.scenarios.scenario import ScenarioError
from alpagym.store.generate import write_generated

FOLDER = ".generated"


@contextmanager
def shared_generated(
    runs: Path,
    count: int,
    seed: int,
    *,
    kinds: Sequence[str] = (),
    workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[list[Path]]:
    """Shards of generated scenarios; nobody clears them away inside of the block.

    Processes that want the same at the same time wait for the one that makes them.

    Args:
        runs: the folder of runs.
        count: how many scenarios.
        seed: as of `generate_many`.
        kinds: all when empty.
        workers: processes; 0 for all cores.
        progress: called with how many scenarios are done, of how many.

    Raises:
        ScenarioError: as of `generate_many`, or `runs` cannot be written; one sentence.
    """
    check_kinds(kinds)  # before anything is written
    folder = runs / FOLDER / _name_of(count, seed, kinds)
    try:
        users = _used(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        try:
            with (folder / "making").open("w") as making:
                fcntl.flock(making, fcntl.LOCK_EX)
                clear_unfinished(folder)
                shards = write_generated(
                    folder, count, seed, kinds=kinds or None, workers=workers, progress=progress
                )
        except OSError as error:
            raise _unwritable(folder, error) from error
        yield shards
    finally:
        os.close(users)


def _unwritable(folder: Path, error: OSError) -> ScenarioError:
    return ScenarioError(
        f"{error.filename or folder}: generated scenarios cannot be written there "
        f"({error.strerror})"
    )


def _name_of(count: int, seed: int, kinds: Sequence[str]) -> str:
    """Stands for what is generated, and for all that decides on it."""
    what = [alpagym.__version__, sim.commit(), _sources(), count, seed, list(kinds)]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


@cache
def _sources() -> str:
    """Digest of this package's own modules: what they generate may change with any of them."""
    package = Path(alpagym.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _used(folder: Path) -> int:
    """The folder, made if need be, as a descriptor that holds a shared lock on it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # cleared away before it was locked
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if folder.is_dir() and os.path.samestat(os.fstat(descriptor), folder.stat()):
                return descriptor
            os.close(descriptor)


def clear_unused(runs: Path) -> None:
    """Remove what no run uses, once a run has all that it wants itself; not what others own."""
    root = runs / FOLDER
    for folder in root.iterdir() if root.is_dir() else ():
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(descriptor)
