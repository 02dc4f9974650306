"""Results as text and tables for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from alpagym.evaluation import Results


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


def suite_table(
    suite: str, total: Mapping[str, float], drives: int, unscored: Mapping[int, str]
) -> Table:
    """The metrics of one suite over all drives, and why some have none."""
    caption = (
        f"{len(unscored)} not scored, e.g. {next(iter(unscored.values()))}" if unscored else ""
    )
    title = f"{suite}: {drives - len(unscored)} of {drives} drives"
    table = Table(title=title, caption=Text(caption))
    table.add_column("", no_wrap=True)
    table.add_column("mean", justify="right")
    for name, value in total.items():
        table.add_row(Text(name), f"{value:.4g}")
    return table


def plain_printer(console: Console) -> Callable[[str], None]:
    """Print text as it is: names of files may hold what rich takes for markup."""
    return lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)
