"""`alpagym convert` and `alpagym doctor data` as they talk: progress, tables, JSON."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from alpagym.option_ranges import check
from alpagym.scenarios.load import Skipped, load_scenarios
from alpagym.scenarios.readers.plugins import plugins
from alpagym.scenarios.scenario import ScenarioError
from alpagym.scenarios.sources import PROCEDURAL
from alpagym.store.convert import convert
from alpagym.store.generate import generate_store
from alpagym.store.health import diagnosis, summary, without_numbers
from alpagym.store.library import prepare, take_away_stale
from alpagym.store.options import ConvertConfig, DoctorConfig
from alpagym.store.records import write_json
from alpagym.store.shard import REPORT
from alpagym.tables import plain_printer


def convert_command(config: ConvertConfig, console: Console | None = None) -> dict[str, Any]:
    """Convert, with a progress bar and a summary; returns the report.

    Raises:
        ScenarioError: nothing was converted; one sentence.
    """
    check(config)
    console = console or Console(stderr=True)
    say = plain_printer(console)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("convert")
        write = generate_store if config.scenarios == PROCEDURAL else convert
        report = write(config, lambda done, total: bar.update(task, completed=done, total=total))
        out = Path(config.out)
        take_away_stale(out)
        if config.pack:

            def on_packed(what: str, done: int, total: int) -> None:
                bar.update(task, description=what, completed=done, total=total)

            shards = [out / shard["name"] for shard in report["shards"]]
            prepare(shards, workers=config.workers, progress=on_packed)
    say(
        f"{config.out}: {report['num_scenarios']} scenarios of {report['num_files']} files in "
        f"{len(report['shards'])} shards, {report['num_bytes'] / 1e6:.1f} MB"
    )
    if report.get("num_parts"):
        say(f"{report['num_parts']} more files are parts of scenarios that others carry")
    say(f"licenses: {_counts(report['licenses'])}; data sets: {_counts(report['datasets'])}")
    for line in [*grouped(report["skipped"]), *plugins()[1]]:
        say(line)
    if config.check:
        scenarios, skipped = load_scenarios(config.out)
        report["health"] = diagnosis(scenarios) | {"unreadable": _told(skipped)}
        write_json(Path(config.out) / REPORT, report)
        _print_health(report["health"], console)
        for line in grouped(report["health"]["unreadable"]):
            say(f"of the store, {line}")
    return report


def doctor_command(config: DoctorConfig, console: Console | None = None) -> dict[str, Any]:
    """Look at the health of scenarios; print the table and return everything.

    Raises:
        ScenarioError: nothing could be loaded; one sentence.
    """
    check(config)
    console = console or Console(stderr=True)
    if not config.scenarios:
        raise ScenarioError("doctor data: expected scenarios=PATH, a file or folder of recordings")
    scenarios, skipped = load_scenarios(
        config.scenarios,
        max_agents=config.max_agents or None,
        workers=config.workers or os.cpu_count() or 1,
    )
    found = diagnosis(scenarios)
    found["skipped"] = _told(skipped)
    unknown = [s for s in skipped if s.unknown]
    found["unreadable"] = _told([s for s in skipped if s not in unknown])
    _print_health(found, console)
    for line in grouped(found["skipped"]):
        plain_printer(console)(line)
    return found


def _told(skipped: Sequence[Skipped]) -> list[dict[str, str]]:
    """As the reports have it; plug-ins that cannot be had are no files."""
    problems = plugins()[1]
    return [{"path": s.path, "reason": s.reason} for s in skipped if s.reason not in problems]


def grouped(skipped: Sequence[dict[str, str]]) -> list[str]:
    """One line for each reason why something was skipped: how often, the first, why."""
    alike: dict[str, list[dict[str, str]]] = {}
    for told in skipped:
        reason = told["reason"].removeprefix(f"{told['path']}: ")
        alike.setdefault(without_numbers(reason).split(" (known:")[0], []).append(told)
    return [
        f"{len(group)} skipped: {group[0]['reason'].split(' (known:')[0]}"
        for group in sorted(alike.values(), key=len, reverse=True)
    ]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.items())


def _print_health(found: dict[str, Any], console: Console) -> None:
    table = Table(title=f"health of {found['num_scenarios']} scenarios")
    table.add_column("check", no_wrap=True)
    table.add_column("scenarios", justify="right")
    table.add_column("count", justify="right")
    table.add_column("what is counted")
    for name, scenarios, count, meaning in summary(found):
        if scenarios != "0":
            table.add_row(name, scenarios, count, Text(meaning))
    clean = [name for name, scenarios, _, _ in summary(found) if scenarios == "0"]
    console.print(table)
    if clean:
        console.print(f"in no scenario: {', '.join(clean)}", highlight=False)
    if found["repairs"]:
        repairs = Table(title="repaired or left out by the readers")
        repairs.add_column("scenarios", justify="right")
        repairs.add_column("note")
        for note, count in found["repairs"].items():
            repairs.add_row(str(count), Text(note))
        console.print(repairs)
