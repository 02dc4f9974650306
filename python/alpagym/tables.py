"""Results as text and tables for the terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from alpagym.evaluation import Results
from alpagym.paired import Difference


def headline(label: str, results: Results) -> str:
    """One line about a driver."""
    value = results.summary()
    return (
        f"{label}: failure rate {value['failure_rate']:.1%}, scene score {value['scene_score']:.3f}"
    )


def comparison(columns: Mapping[str, Mapping[str, Any]]) -> Table:
    """Rates and scores of several drivers, by `Results.summary`, side by side."""
    count = next(iter(columns.values()))["num_scenarios"]
    table = Table(title=f"closed loop on {count} scenarios, with 95 % intervals")
    table.add_column("", no_wrap=True)
    for name in columns:
        table.add_column(Text(name), justify="right")
    for metric in (
        "failure_rate",
        "collision_at_fault_rate",
        "collision_any_rate",
        "offroad_rate",
        "progress",
        "scene_score",
    ):
        cells = []
        for value in columns.values():
            low, high = value[f"{metric}_ci95"]
            show = "{:.1%}" if metric.endswith("_rate") else "{:.3f}"
            cells.append(f"{show.format(value[metric])} [{show.format(low)}, {show.format(high)}]")
        table.add_row(metric, *cells)
    return table


def paired_table(differences: Mapping[str, Difference]) -> Table:
    """Numbers of two drivers on the same scenarios, and their difference with its interval."""
    table = Table(title="first less second; * where the 95 % interval leaves out 0")
    table.add_column("", no_wrap=True)
    for name in ("first", "second", "difference", "95 % interval", ""):
        table.add_column(name, justify="right", no_wrap=True)
    counts = {found.num_drives for found in differences.values()}
    if len(counts) > 1:
        table.add_column("drives", justify="right")
    for name, found in differences.items():
        show, signed = ("{:.1%}", "{:+.1%}") if name.endswith("_rate") else ("{:.3g}", "{:+.2g}")
        interval = "" if found.interval is None else " to ".join(map(signed.format, found.interval))
        numbers = (show.format(found.first), show.format(found.second), signed.format(found.value))
        drives = [str(found.num_drives)] if len(counts) > 1 else []
        table.add_row(Text(name), *numbers, interval, "*" if found.sure else "", *drives)
    return table


def suite_table(
    suite: str,
    total: Mapping[str, float],
    drives: int,
    scored: int,
    counts: Mapping[str, int],
    undriven: int = 0,
) -> Table:
    """The metrics of one suite over all drives.

    A column tells how many drives (by `counts`) a number is of, if some are of others than scored;
    the title how many more there should have been.
    """
    title = f"{suite}: {scored} of {drives} drives"
    if undriven:
        title += f"; {undriven} not driven"
    table = Table(title=title, min_width=len(title))
    table.add_column("", no_wrap=True)
    table.add_column("value", justify="right")
    partly = any(counts.get(name, scored) != scored for name in total)
    if partly:
        table.add_column("drives", justify="right")
    for name, value in total.items():
        count = [str(counts.get(name, scored))] if partly else []
        table.add_row(Text(name), f"{value:.4g}", *count)
    return table


def calls_table(calls: Mapping[str, Mapping[str, float]]) -> Table:
    """How many calls a driver answered and how long that took, by method."""
    table = Table(title="calls to the driver [ms]")
    table.add_column("", no_wrap=True)
    for name in ("calls", "p50", "p90", "p99", "max"):
        table.add_column(name, justify="right")
    for method, found in calls.items():
        times = (f"{found[f'{name}_ms']:.1f}" for name in ("p50", "p90", "p99", "max"))
        table.add_row(Text(method), str(found["num_calls"]), *times)
    return table


def reasons(
    suite: str, unscored: Mapping[int, str], ids: Sequence[str], what: str = "not scored"
) -> list[str]:
    """One line for each reason why drives are not scored: how many, and the first one's.

    Reasons that differ in numbers or in the scenario they name are one.

    Args:
        suite: of metrics.
        unscored: reasons by index of the drive.
        ids: of the scenarios, one for each drive.
        what: they are.
    """
    alike: dict[str, list[int]] = {}
    for i, reason in unscored.items():
        kind = re.sub(r"\d+(\.\d+)?", "#", reason.replace(ids[i], ""))
        alike.setdefault(kind, []).append(i)
    return [
        f"{suite}: {len(which)} {what} (first {ids[which[0]]}): {unscored[which[0]]}"
        for which in alike.values()
    ]


def json_numbers(numbers: dict[str, float]) -> dict[str, float | str | None]:
    """NaN as null and infinity as a word: JSON has neither."""
    return {
        name: value if math.isfinite(value) else None if math.isnan(value) else str(value)
        for name, value in numbers.items()
    }


def plain_printer(console: Console) -> Callable[[str], None]:
    """Print text as it is: names of files may hold what rich takes for markup."""
    return lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)
