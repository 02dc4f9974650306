"""`alpagym eval asl=PATH`: AlpaSim's metrics of logs, whoever wrote them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from alpagym.interop.alpasim.asl.log import RolloutLog, logs_at, read_log
from alpagym.interop.alpasim.asl.scoring import score_log
from alpagym.interop.alpasim.wire import require
from alpagym.metrics.suites import alpasim_row, alpasim_total, judged
from alpagym.scenarios.polyline import arc_length
from alpagym.scenarios.scenario import Scenario, ScenarioError
from alpagym.scenarios.sources import PROCEDURAL, held_out_only
from alpagym.tables import json_numbers, plain_printer, reasons, suite_table
from alpagym.training_config import EvalConfig

DRIVING = ("checkpoint", "policy", "compare", "suite")
"""Options of `alpagym eval` that choose who drives."""


def score_command(config: EvalConfig, console: Console) -> dict[str, Any]:
    """Score logs; print the table and return everything.

    Raises:
        ValueError: options that ask for a drive besides; no log.
        ScenarioError: scenarios that cannot be loaded.
    """
    require()
    for option in DRIVING:
        if getattr(config, option):
            raise ValueError(f"{option}: expected none with asl=, which drives nothing")
    if config.metrics not in ("", "alpasim"):
        raise ValueError(f"metrics: expected alpasim with asl=, got {config.metrics}")
    say = plain_printer(console)
    paths = logs_at(Path(config.asl))
    logs, unread = [], {}
    for path in paths:
        try:
            logs.append(read_log(path))
        except (ScenarioError, OSError) as error:
            unread[str(path)] = str(error)
            say(f"not read: {error}")
    maps = _maps(config, logs, console)
    rows = [_row(log, maps.get(log.scene)) for log in logs]
    scored = [row["numbers"] for row in rows if row["numbers"]]
    unscored = {i: row["not_scored"] for i, row in enumerate(rows) if row["not_scored"]}
    for line in reasons("alpasim", unscored, [log.scene for log in logs]):
        say(line)
    total = alpasim_total(scored) if scored else {}
    names = dict.fromkeys(name for row in scored for name in row)
    counts = {n: sum(not np.isnan(row.get(n, np.nan)) for row in scored) for n in names}
    console.print(suite_table("alpasim", total, len(logs), len(scored), counts))
    return {
        "asl": config.asl,
        "scenarios": config.scenarios,
        "written_by": dict(sorted(Counter(log.runtime for log in logs).items())),
        "num_logs": len(paths),
        "not_read": unread,
        "metrics": {"alpasim": {"num_scored": len(scored), **json_numbers(total)}},
        "per_rollout": [
            {
                **row,
                "numbers": json_numbers(row["numbers"]),
                "returned": json_numbers(row["returned"]),
            }
            for row in rows
        ],
    }


def _maps(config: EvalConfig, logs: list[RolloutLog], console: Console) -> dict[str, Scenario]:
    """Scenarios that the logs are of, by id."""
    asked = {log.scene for log in logs}
    if config.scenarios == PROCEDURAL and not any(s.startswith(PROCEDURAL) for s in asked):
        return {}
    say = plain_printer(console)
    scenarios = held_out_only(config.scenarios, config.data, config.sim.dt, config.seed, say)
    return {s.id: s for s in scenarios if s.id in asked}


def _row(log: RolloutLog, scenario: Scenario | None) -> dict[str, Any]:
    """Numbers of one rollout; empty, with the reason, where it has none."""
    row: dict[str, Any] = {
        "log": log.source,
        "scene": log.scene,
        "session": log.uuid,
        "terminated": log.ended_by_driver,
        "not_scored": "",
        "numbers": {},
        "returned": {},
    }
    try:
        score = score_log(log, scenario)
    except ValueError as error:
        return row | {"not_scored": str(error)}
    row["returned"] = score.returned
    if scenario is None:
        return row | {"not_scored": f"no map: {log.scene} is not among the scenarios"}
    try:
        length = float(arc_length(log.record.pose[:, :2])[-1])
        return row | {"numbers": alpasim_row(judged(score, length))}
    except ValueError as error:
        return row | {"not_scored": str(error)}
