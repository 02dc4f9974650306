"""`alpagym eval`: drive scenarios with a checkpoint or a baseline."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from alpagym import sim
from alpagym.checkpoint import check_made_for, load_policy
from alpagym.config import SimConfig
from alpagym.devices import choose_device, device_name
from alpagym.evaluation import BASELINES, Results, check_simulator, evaluate
from alpagym.option_ranges import check
from alpagym.policies.policy import Policy
from alpagym.run_directory import SPLIT_FILE
from alpagym.scenarios.scenario import Scenario
from alpagym.scenarios.sources import held_out_only
from alpagym.tables import comparison, plain_printer, reasons, suite_table
from alpagym.training_config import EvalConfig


def evaluate_command(
    config: EvalConfig, given: Sequence[str] = (), console: Console | None = None
) -> dict[str, Any]:
    """Drive scenarios with a checkpoint or a baseline; print the table and return everything.

    A checkpoint brings the simulator's configuration that it was trained in; fields of `SimConfig`
    named in `given` are taken from `config.sim` all the same.

    Raises:
        ValueError: neither a checkpoint nor a baseline, or both; an option out of range, or one
            that the checkpoint's network was not made for.
    """
    console = console or Console(stderr=True)
    check(config)
    device = choose_device(config.device)
    if config.threads > 0:
        torch.set_num_threads(config.threads)
    if bool(config.checkpoint) == bool(config.policy):
        names = "|".join(BASELINES)
        raise ValueError(f"eval: expected either checkpoint=<run> or policy=<{names}>")
    if config.policy and config.reward_weights:
        raise ValueError("reward_weights: expected a checkpoint that observes them, got policy=")
    if config.policy and config.policy not in BASELINES:
        raise ValueError(f"policy: expected one of {', '.join(BASELINES)}, got {config.policy}")
    say = plain_printer(console)
    driver: Policy | str = config.policy
    sim_config = config.sim
    trained_on: list[str] = []
    if config.checkpoint:
        driver, trained_in, trained_on = load_policy(config.checkpoint, device)
        sim_config = replace(trained_in, **{name: getattr(config.sim, name) for name in given})
        check_made_for(trained_in, sim_config, driver)
        driver.choose_weights(config.reward_weights)
        say(f"trained on: {', '.join(trained_on) or 'unknown'}")
    check_simulator(sim_config)
    scenarios = held_out_only(config.scenarios, config.data, sim_config.dt, config.seed, say)
    known = _trained_recordings(config.checkpoint) & {s.recording for s in scenarios}
    if known:
        console.print(f"{len(known)} of these recordings were trained on")
    licenses = Counter(s.license for s in scenarios)
    say(f"driving: {', '.join(f'{tag} ({n})' for tag, n in sorted(licenses.items()))}")
    results, _ = evaluate(driver, scenarios, sim_config, device=device)
    label = config.policy or config.checkpoint
    console.print(comparison({label: results.summary()}))
    rows = [_row(s, results, i) for i, s in enumerate(scenarios)]
    suites = _measure(config.metrics, driver, scenarios, sim_config, device, rows, console)
    return {
        "driver": label,
        "scenarios": config.scenarios,
        "licenses": dict(sorted(licenses.items())),
        "trained_on": trained_on,
        "num_recordings_trained_on": len(known),
        "device": device_name(device),
        "commit": sim.commit(),
        **results.summary(),
        "metrics": suites,
        "per_scenario": rows,
    }


def _measure(
    asked: str,
    driver: Policy | str,
    scenarios: Sequence[Scenario],
    sim_config: SimConfig,
    device: torch.device,
    rows: list[dict[str, Any]],
    console: Console,
) -> dict[str, Any]:
    """Drive again, without an end on failures, and score that by the metrics of others.

    Adds each scenario's numbers to its row; returns the totals, and prints them.
    """
    from alpagym.metrics.drive import drive_of
    from alpagym.metrics.suites import SUITES, measure

    names = list(SUITES) if asked == "all" else [asked] if asked else []
    if not names:
        return {}
    unending = replace(sim_config, end_on=())
    _, rollouts = evaluate(driver, scenarios, unending, device=device, record=asked)
    drives = [drive_of(rollout) for rollout in rollouts]
    totals = {}
    with console.status(f"metrics of {len(drives)} drives"):
        all_measured = measure(names, drives)
    for name, measured in all_measured.items():
        for row, numbers in zip(rows, measured.rows, strict=True):
            row.setdefault("metrics", {})[name] = _json_numbers(numbers)
        for i, reason in measured.unscored.items():
            rows[i].setdefault("not_scored", {})[name] = reason
        scored = len(drives) - len(measured.unscored)
        totals[name] = {
            "num_scored": scored,
            "num_drives": measured.counts,
            **_json_numbers(measured.total),
        }
        console.print(suite_table(name, measured.total, len(drives), scored, measured.counts))
        for line in reasons(name, measured.unscored, [s.id for s in scenarios]):
            plain_printer(console)(line)
    return totals


def _json_numbers(numbers: dict[str, float]) -> dict[str, float | str | None]:
    """NaN as null and infinity as a word: JSON has neither."""
    return {
        name: value if math.isfinite(value) else None if math.isnan(value) else str(value)
        for name, value in numbers.items()
    }


def _trained_recordings(checkpoint: str) -> set[str]:
    """Recordings that the run of a checkpoint trained on, as far as it lies beside it."""
    path = Path(checkpoint)
    run = path if path.is_dir() else path.parent.parent
    file = run / SPLIT_FILE
    return set(json.loads(file.read_text())["train"]) if checkpoint and file.is_file() else set()


def _row(scenario: Scenario, results: Results, i: int) -> dict[str, Any]:
    return {
        "id": scenario.id,
        "kind": scenario.kind,
        "failure": bool(results.failure[i]),
        "collision_at_fault": bool(results.collision_at_fault[i]),
        "collision_any": bool(results.collision_any[i]),
        "offroad": bool(results.offroad[i]),
        "progress": float(results.progress[i]),
        "scene_score": float(results.scene_score[i]),
    }
