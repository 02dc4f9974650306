"""`alpagym convert procedural`: generated scenarios into shards, once for many runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import alpagym
from alpagym.scenarios.procedural import generate_many
from alpagym.scenarios.scenario import ScenarioError
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
    out, most = Path(config.out), config.shard_scenarios
    firsts = range(0, config.count, most)
    names = [f"procedural-{config.seed}-{first:06d}{SUFFIX}" for first in firsts]
    try:
        out.mkdir(parents=True, exist_ok=True)
        others = sorted({p.name for p in out.iterdir()} - {*names, REPORT, FOLDER})
        others = [name for name in others if not name.endswith(".part")]
        if others:
            raise ScenarioError(
                f"out={out}: expected an empty folder or these scenarios, it holds {others[0]}"
            )
        for first, name in zip(firsts, names, strict=True):
            progress(first, config.count)
            _write(out / name, config, first, min(most, config.count - first))
        report = _report(out, names, config.count)
        write_json(out / REPORT, report)
    except OSError as error:
        place = error.filename or out
        raise ScenarioError(f"{place}: cannot be written ({error.strerror})") from error
    return report


def _write(path: Path, config: ConvertConfig, first: int, count: int) -> None:
    """One shard, unless it is there as this version makes it."""
    if path.is_file():
        try:
            found = Shard(path)
        except ScenarioError:
            found = None
        if found and len(found) == count and found.header["converter"] == alpagym.__version__:
            return
    workers = config.workers or os.cpu_count() or 1
    scenarios = generate_many(count, config.seed, first=first, workers=workers)
    write_shard(path, scenarios, version=alpagym.__version__)


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
