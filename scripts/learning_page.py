"""Write docs/learning.md and its curve from the trainings that `alpagym bench learning` kept.

alpagym bench learning case=learning,learning.ablations,learning.objectives
alpagym bench learning case=learning.rewards,learning.sweep
python scripts/learning_page.py [runs/learning]

A table is written once all of its trainings are there, on all seeds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from alpagym.bench.cases import COMMANDS, LearningCase
from alpagym.bench.learning import mean_and_interval
from alpagym.run_directory import METRICS_FILE, REPORT_FILE, read_rows

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "learning.md"
CURVE = ROOT / "docs" / "images" / "learning.png"
ORANGE, BLUE, GRAY = "#d55e00", "#0072b2", "#777777"
"""Of Okabe and Ito's palette, told apart by color-blind people."""

HEAD = """\
# Learning

Made by `python scripts/learning_page.py` from the trainings that `alpagym bench learning` leaves in
`runs/learning`; each is one `alpagym train`, whose options the tables name. Failures are at-fault
collisions and leaving the road on 256 held-out procedural scenarios, in closed loop. Brackets hold
95 % intervals over seeds by Student's t; few seeds make them wide. What is compared with `base` has
its seeds, its imitation policies and its scenarios, so differences are taken seed by seed.
"""
TEXTS = {
    "learning": "## Defaults\n\nThe whole of `alpagym train`, imitation included.",
    "learning.ablations": (
        "## What each part does\n\nOne part of the method taken away. Without dead groups, "
        "resampling changes nothing."
    ),
    "learning.objectives": "## Objectives by name\n\nOn the same budget; PPO has a critic.",
    "learning.sweep": "## Around the defaults\n\nOne option changed.",
    "learning.rewards": "## The dense reward\n\nOne of its weights changed.",
}


def main(arguments: Sequence[str]) -> int:
    folder = Path(arguments[0]) if arguments else ROOT / "runs" / "learning"
    parts = [HEAD]
    for case in COMMANDS["learning"]:
        assert isinstance(case, LearningCase)
        results = {name: _results(folder, name) for name in case.variants}
        if all(len(by_seed) >= case.seeds for by_seed in results.values()):
            parts.append(_part(case, results))
            if case.whole:
                _draw(_complete(folder, "default"))
                parts.append(f"![Failures while training, over seeds](images/{CURVE.name})\n")
    PAGE.write_text("\n".join(parts))
    return 0


def _results(folder: Path, variant: str) -> dict[int, dict[str, Any]]:
    """Summaries of complete runs by seed."""
    done = _complete(folder, variant)
    summaries = [json.loads((path / "summary.json").read_text()) for path in done]
    return {summary["seed"]: summary for summary in summaries}


def _complete(folder: Path, variant: str) -> list[Path]:
    return sorted(p for p in folder.glob(f"{variant}-*") if (p / REPORT_FILE).is_file())


def _part(case: LearningCase, found: Mapping[str, Mapping[int, dict[str, Any]]]) -> str:
    first = next(iter(next(iter(found.values())).values()))
    commits = sorted({f"`{s['commit'][:12]}`" for runs in found.values() for s in runs.values()})
    grpo = first["config"]["grpo"]
    said = (
        f"`alpagym bench learning case={case.name}`, commit {', '.join(commits)}, "
        f"{grpo['iterations']} iterations, seeds as many as in the last column."
    )
    base = found.get("base")
    head = "| | options | failures before | after | less `base` | progress | scene score | seeds |"
    rows = [head, "| --- " * (head.count("|") - 1) + "|"]
    for name, runs in found.items():
        options = " ".join(case.variants[name]) or "the defaults"
        after = {seed: s["after"] for seed, s in runs.items()}
        less = ""
        if base is not None and runs is not base:
            both = sorted(runs.keys() & base.keys())
            changes = [after[s]["failure_rate"] - base[s]["after"]["failure_rate"] for s in both]
            less = _told(changes, percent=True)
        cells = [
            name.replace("_", " "),
            f"`{options}`",
            _told([s["before"]["failure_rate"] for s in runs.values()], percent=True),
            _told([a["failure_rate"] for a in after.values()], percent=True),
            less,
            _told([a["progress"] for a in after.values()]),
            _told([a["scene_score"] for a in after.values()]),
            str(len(runs)),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([TEXTS[case.name], "", said, "", *rows, ""])


def _told(values: Sequence[float], *, percent: bool = False) -> str:
    mean, low, high = mean_and_interval(values)
    factor, digits, unit = (100.0, 1, " %") if percent else (1.0, 3, "")
    numbers = [f"{factor * x:.{digits}f}" for x in (mean, low, high)]
    if len(values) < 2:
        return f"{numbers[0]}{unit}"
    return f"{numbers[0]}{unit} [{numbers[1]}, {numbers[2]}]"


def _draw(runs: Sequence[Path]) -> None:
    """Failures of the rollouts that training learns from, and of held-out drives at both ends."""
    rows = [[r for r in read_rows(run / METRICS_FILE) if r["phase"] == "grpo"] for run in runs]
    length = min(len(r) for r in rows)
    rates = 100.0 * np.array([[row["failure_rate"] for row in r[:length]] for r in rows])
    figure = Figure(figsize=(6.4, 3.0), dpi=140, facecolor="white")
    axes = figure.add_subplot()
    step = np.arange(length)
    for rate in rates:
        axes.plot(step, rate, color=BLUE, alpha=0.25, linewidth=0.8)
    axes.plot(step, rates.mean(0), color=BLUE, linewidth=1.8, label="while it explores, mean")
    for when, at in (("before", 0), ("after", length)):
        held = [
            100.0 * json.loads((run / "summary.json").read_text())[when]["failure_rate"]
            for run in runs
        ]
        label = "held out, each seed" if when == "before" else None
        axes.plot([at] * len(held), held, "o", color=ORANGE, markersize=4, label=label)
    axes.axhline(5.0, color=GRAY, linewidth=0.8, linestyle=":")
    axes.set_xlabel("iteration of GRPO")
    axes.set_ylabel("failures [%]")
    axes.set_ylim(bottom=0.0)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    FigureCanvasAgg(figure).print_png(CURVE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
