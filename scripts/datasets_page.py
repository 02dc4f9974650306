"""Write docs/datasets.md: what each data set gives, read from its files and from a store of ours.

    python scripts/datasets_page.py [FOLDER]

FOLDER has a folder for each data set and format; by default it is ../shared/data beside the
repository. Only numbers are written, no recorded geometry.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np

from alpagym.scenarios.load import Skipped, load_scenarios
from alpagym.scenarios.scenario import MapType, Scenario, ScenarioError
from alpagym.store.commands import grouped
from alpagym.store.convert import convert
from alpagym.store.health import CHECKS, diagnosis, light_coverage
from alpagym.store.options import ConvertConfig
from alpagym.store.shard import SUFFIX, write_shard

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "datasets.md"
STORE_SIZE = 256
"""Scenarios in the shards whose loading is timed: those of a data set, repeated."""
T = TypeVar("T")

HEAD = """\
# Data sets

Made by `python scripts/datasets_page.py`. Everything in the folder of a data set is converted by
`alpagym convert`; what comes out is what loads from the files, bit for bit. *files* counts those
that are not a part of another file's scenario. *agents* and *elements* (of the map): the median and
the largest number. *lights*: controlled lanes in all scenarios, and the share of their frames in
which the state is known. *links* lead from lane to lane. *read*: from the files, by one process;
*store*: from a shard of {size} scenarios, opened, checked to the last byte and made into scenarios;
both are CPU time in ms a scenario, the only figures here that depend on the machine. *MB*: what a
scenario takes in the store.

| data set | files | scenarios | licenses | agents | elements | lights | links | read | store | MB |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Dataset:
    """What one folder gave."""

    name: str
    files: int
    scenarios: list[Scenario]
    skipped: list[dict[str, str]]
    read: float
    """CPU time to read a scenario from its file [ms]."""
    stored: float
    """CPU time to load a scenario from the store [ms]."""
    size: float
    """Of a scenario in the store [MB]."""


def timed(what: Callable[[], T], repeats: int = 1) -> tuple[T, float]:
    """What a call returns, and the least CPU time of some calls [s]."""
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        result = what()
        times.append(time.process_time() - begin)
    return result, min(times)


def measured(folder: Path) -> Dataset:
    """Read a folder, convert it, and load the store."""
    with TemporaryDirectory() as scratch:
        out = Path(scratch) / "store"
        config = ConvertConfig(scenarios=str(folder), out=str(out), workers=1)
        try:
            report = convert(config)
        except ScenarioError as error:
            told = [{"path": folder.name, "reason": str(error).replace(f"{folder.parent}/", "")}]
            return Dataset(folder.name, 0, [], told, np.nan, np.nan, np.nan)
        (direct, skipped), seconds = timed(lambda: load_scenarios(folder))
        scenarios = load_scenarios(out)[0]
        check(direct, scenarios, skipped, report["skipped"])
        many = (scenarios * (STORE_SIZE // len(scenarios) + 1))[:STORE_SIZE]
        file = Path(scratch) / f"many{SUFFIX}"
        write_shard(file, many)
        _, loading = timed(lambda: load_scenarios(file), repeats=25)
        return Dataset(
            folder.name,
            report["num_files"],
            scenarios,
            report["skipped"],
            1e3 * seconds / len(scenarios),
            1e3 * loading / len(many),
            file.stat().st_size / len(many) / 1e6,
        )


def check(
    direct: Sequence[Scenario],
    stored: Sequence[Scenario],
    skipped: Sequence[Skipped],
    told: Sequence[dict[str, str]],
) -> None:
    """The store holds what the files do."""
    assert [s.id for s in direct] == [s.id for s in stored]
    assert len(skipped) == len(told)
    for a, b in zip(direct, stored, strict=True):
        assert np.array_equal(a.tracks.xyz, b.tracks.xyz)
        assert np.array_equal(a.map.points, b.map.points)


def row(d: Dataset) -> str:
    if not d.scenarios:
        return f"| {d.name} | {d.files} | 0 |" + " |" * 8

    def spread(counts: Sequence[int]) -> str:
        return f"{np.median(counts):.0f}, {max(counts)}"

    lit = [s for s in d.scenarios if len(s.lights.lane)]
    lights = str(sum(len(s.lights.lane) for s in lit))
    if lit:
        lights += f" ({np.mean([light_coverage(s) for s in lit]):.0%} known)"
    cells = [
        d.name,
        str(d.files),
        str(len(d.scenarios)),
        ", ".join(sorted({s.license for s in d.scenarios})),
        spread([s.tracks.num_agents for s in d.scenarios]),
        spread([s.map.num_elements for s in d.scenarios]),
        lights,
        str(sum(len(s.map.successors) for s in d.scenarios)),
        f"{d.read:.0f}",
        f"{d.stored:.2f}",
        f"{d.size:.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def page(datasets: Sequence[Dataset]) -> str:
    """The page, in Markdown."""
    lines = [HEAD.format(size=STORE_SIZE) + "\n".join(map(row, datasets))]
    total = sum(len(d.scenarios) for d in datasets)
    lanes = sum(int((s.map.type == MapType.LANE).sum()) for d in datasets for s in d.scenarios)
    lines += ["", f"{total} scenarios with {lanes} lanes in all.", "", "## Health", ""]
    lines += [
        "What `alpagym doctor data` counts: in how many scenarios, and how often in all.",
        "Nothing of it is mended; what readers do mend is in the notes of a scenario, below.",
        "",
        "| check | " + " | ".join(d.name for d in datasets) + " | what is counted |",
        "| --- |" + " --- |" * (len(datasets) + 1),
    ]
    found = [diagnosis(d.scenarios) for d in datasets]
    for name, meaning in CHECKS.items():
        counts = [
            f"{f['checks'][name]['scenarios']} ({f['checks'][name]['count']})"
            if f["checks"][name]["count"]
            else ""
            for f in found
        ]
        lines.append(f"| `{name}` | {' | '.join(counts)} | {meaning} |")
    lines += ["", "## Repairs and omissions", ""]
    for d, f in zip(datasets, found, strict=True):
        lines += [f"- {d.name}, {count} scenarios: {note}" for note, count in f["repairs"].items()]
    lines += ["", "## Skipped", ""]
    for d in datasets:
        lines += [f"- {d.name}: {line}" for line in grouped(d.skipped)]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--output", type=Path, default=PAGE)
    given = parser.parse_args()
    if not given.folder.is_dir():
        parser.error(f"{given.folder}: expected a folder of recordings")
    folders = sorted(p for p in given.folder.iterdir() if p.is_dir())
    given.output.write_text(page([measured(f) for f in folders]))


if __name__ == "__main__":
    main()
