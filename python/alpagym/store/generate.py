"""`alpagym convert procedural`: generated scenarios into shards, once for many runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import alpagym
from alpagym.scenarios.procedural import generate_each
from alpagym.scenarios.scenario import ScenarioError
from alpagym.scenarios.sources import PROCEDURAL
from alpagym.store.layout import SCHEMA
from alpagym.store.options import ConvertConfig
from alpagym.store.packed import FOLDER
from alpagym.store.records import write_json
from alpagym.store.shard import REPORT, SUFFIX, Shard, sha256_of, write_shard


def generate_store(
    config: ConvertConfig, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Write `config.count` procedural scenarios of all kinds; returns what the report says.

    They are those that a run with the same seed generates. Interrupted, it goes on where it was.

    Args:
        config: what `alpagym convert` takes.
        progress: called with how many scenarios are done, of how many.

    Raises:
        ScenarioError: `out` cannot be used; one sentence.
    """
    if not config.out:
        raise ScenarioError("convert: expected out=PATH, a folder to write")
    if config.count < 1:
        raise ScenarioError(f"count: expected at least 1 scenario to generate, got {config.count}")
    out = Path(config.out)
    names = _names(config.count, config.seed, config.shard_scenarios)
    try:
        out.mkdir(parents=True, exist_ok=True)
        others = sorted({p.name for p in out.iterdir()} - {*names.values(), REPORT, FOLDER})
        others = [name for name in others if not name.endswith(".part")]
        if others:
            raise ScenarioError(
                f"out={out}: expected an empty folder or these scenarios, it holds {others[0]}"
            )
        write_generated(
            out,
            config.count,
            config.seed,
            shard_scenarios=config.shard_scenarios,
            workers=config.workers,
            progress=progress,
        )
        report = _report(out, list(names.values()), config.count)
        write_json(out / REPORT, report)
    except OSError as error:
        place = error.filename or out
        raise ScenarioError(f"{place}: cannot be written ({error.strerror})") from error
    return report


def write_generated(
    folder: Path,
    count: int,
    seed: int,
    *,
    kinds: Sequence[str] | None = None,
    shard_scenarios: int = ConvertConfig.shard_scenarios,
    workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Write the shards that are not there as this version makes them; returns all of them.

    In memory are never more than the scenarios of one shard and some that are made meanwhile.

    Args:
        folder: that is there.
        count: how many scenarios.
        seed: as of `generate_many`.
        kinds: as of `generate_many`.
        shard_scenarios: in each shard.
        workers: processes; 0 for all cores.
        progress: called with how many scenarios are done, of how many.

    Raises:
        ScenarioError: as of `generate_many`.
        OSError: the folder cannot be written.
    """
    names = _names(count, seed, shard_scenarios)
    missing = {
        numbers: folder / name
        for numbers, name in names.items()
        if not _is_there(folder / name, len(numbers))
    }
    wanted = [number for numbers in missing for number in numbers]
    made = generate_each(wanted, seed, kinds, workers=workers or os.cpu_count() or 1)
    done = count - len(wanted)
    with closing(made):
        for numbers, path in missing.items():
            progress(done, count)
            write_shard(path, list(islice(made, len(numbers))), version=alpagym.__version__)
            done += len(numbers)
    return [folder / name for name in names.values()]


def _names(count: int, seed: int, shard_scenarios: int) -> dict[range, str]:
    """File names of shards, by the numbers of their scenarios."""
    parts = (
        range(first, min(first + shard_scenarios, count))
        for first in range(0, count, shard_scenarios)
    )
    return {part: f"{PROCEDURAL}-{seed}-{part.start:06d}{SUFFIX}" for part in parts}


def _is_there(path: Path, count: int) -> bool:
    """Whether a shard of so many scenarios of this version is there."""
    if not path.is_file():
        return False
    try:
        found = Shard(path)
    except ScenarioError:
        return False
    return len(found) == count and found.header["converter"] == alpagym.__version__


def _report(out: Path, names: list[str], count: int) -> dict[str, Any]:
    shards = []
    licenses: dict[str, int] = {}
    for name in names:
        shard = Shard(out / name)
        for i in range(len(shard)):
            tag = shard.told(i)["license"]
            licenses[tag] = licenses.get(tag, 0) + 1
        told = {"name": name, "sha256": sha256_of(out / name), "scenarios": len(shard)}
        shards.append(told | {"bytes": (out / name).stat().st_size})
    return {
        "schema": SCHEMA,
        "converter": alpagym.__version__,
        "num_files": 0,
        "num_scenarios": count,
        "num_bytes": sum(shard["bytes"] for shard in shards),
        "datasets": {"procedural": count},
        "licenses": licenses,
        "shards": shards,
        "skipped": [],
    }
