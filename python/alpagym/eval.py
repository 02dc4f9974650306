"""`alpagym eval`: drive scenarios with a checkpoint or a baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console

from alpagym import challenge, sim
from alpagym.config import SimConfig
from alpagym.contenders import Contender, contenders_of, simulators_of
from alpagym.devices import choose_device, device_name
from alpagym.evaluation import Results, evaluate
from alpagym.interop.alpasim.address import Address
from alpagym.option_ranges import check
from alpagym.paired import FEW_RECORDINGS, Difference, paired_difference
from alpagym.run_directory import trained_recordings
from alpagym.scenarios.scenario import Scenario
from alpagym.scenarios.sources import held_out_only
from alpagym.tables import (
    calls_table,
    comparison,
    json_numbers,
    paired_table,
    plain_printer,
    reasons,
    suite_table,
)
from alpagym.training_config import EvalConfig

if TYPE_CHECKING:
    from alpagym.interop.alpasim.remote_evaluation import RemoteDrives

RATES = {
    "failure_rate": "failure",
    "collision_at_fault_rate": "collision_at_fault",
    "collision_any_rate": "collision_any",
    "offroad_rate": "offroad",
}
"""Numbers of each scenario whose means are rates."""
MOST_IDS = 20
"""Scenarios named on the terminal at most."""


def evaluate_command(
    config: EvalConfig, given: Sequence[str] = (), console: Console | None = None
) -> dict[str, Any]:
    """Drive scenarios with a checkpoint or a baseline; print the table and return everything.

    A checkpoint brings the simulator's configuration that it was trained in; fields of `SimConfig`
    named in `given` are taken from `config.sim` all the same. What is compared drives the same
    scenarios from the same seeds in the same simulator, seeing and acting as it was trained to.

    Raises:
        ValueError: neither a checkpoint nor a baseline, or both; an option out of range, or one
            that the checkpoint's network was not made for.
    """
    console = console or Console(stderr=True)
    check(config)
    if config.asl:
        from alpagym.interop.alpasim.asl.command import score_command

        return score_command(config, console)
    if config.suite:
        config, given = challenge.rehearsed(config), [*given, *challenge.RULES]
    device = choose_device(config.device)
    if config.threads > 0:
        torch.set_num_threads(config.threads)
    say = plain_printer(console)
    contenders = contenders_of("eval", config, device)
    simulators = simulators_of(contenders, config.sim, given, say)
    scenarios = held_out_only(config.scenarios, config.data, simulators[0].dt, config.seed, say)
    licenses = Counter(s.license for s in scenarios)
    say(f"driving: {', '.join(f'{tag} ({n})' for tag, n in sorted(licenses.items()))}")
    scenarios = _begun(scenarios, contenders, simulators, config, say)
    driven, remote = [], []
    for contender, sim_config in zip(contenders, simulators, strict=True):
        if isinstance(contender.driver, Address):
            far = _drive_remotely(contender.driver, scenarios, sim_config, config, device)
            ids = [s.id for s in scenarios]
            for line in (
                *reasons(contender.label, far.results.undriven, ids, "failed"),
                *reasons(contender.label, far.unlogged, ids, "without a log"),
            ):
                say(line)
            results = far.results
        else:
            far = None
            results, _ = evaluate(contender.driver, scenarios, sim_config, device=device)
        driven.append(results)
        remote.append(far)
    table = comparison({c.label: r.summary() for c, r in zip(contenders, driven, strict=True)})
    console.print(table)
    told = []
    for contender, sim_config, results, far in zip(
        contenders, simulators, driven, remote, strict=True
    ):
        known = set[str]()
        if contender.trained_in is not None:
            known = trained_recordings(Path(contender.label)) & {s.recording for s in scenarios}
        if known:
            say(f"{contender.label}: {len(known)} of these recordings were trained on")
        rows = [_row(s, results, i) for i, s in enumerate(scenarios)]
        if config.metrics and len(contenders) > 1:
            say(f"{contender.label}:")
        suites = _measure(config, contender, far, scenarios, sim_config, device, rows, console)
        if far is not None:
            console.print(calls_table(far.summary["calls"]))
        board = {}
        if config.suite:
            used = challenge.resources_of(contender.driver, far, scenarios[0], sim_config, device)
            board = challenge.report(contender.label, rows, far, used, console)
        told.append(
            {
                "driver": contender.label,
                "trained_on": list(contender.trained_on),
                "num_recordings_trained_on": len(known),
                **results.summary(),
                "metrics": suites,
                **({} if far is None else {"sessions": far.summary}),
                **board,
                "per_scenario": rows,
            }
        )
    paired = _compare(told, [s.recording for s in scenarios], config.seed, console)
    return {
        "scenarios": config.scenarios,
        "licenses": dict(sorted(licenses.items())),
        "device": device_name(device),
        "commit": sim.commit(),
        **told[0],
        **paired,
    }


def _begun(
    scenarios: list[Scenario],
    contenders: Sequence[Contender],
    simulators: Sequence[SimConfig],
    config: EvalConfig,
    say: Callable[[str], None],
) -> list[Scenario]:
    """The scenarios, begun for all contenders where a driver that is far away takes over."""
    pairs = zip(contenders, simulators, strict=True)
    every = [made.replan_every for c, made in pairs if isinstance(c.driver, Address)]
    if not every and not config.suite:
        return scenarios
    from alpagym.interop.alpasim.timeline import taken_over
    from alpagym.interop.alpasim.wire import require

    if every:
        require()
    begun, left_out = taken_over(scenarios, config.alpasim, every[0] if every else 1)
    if left_out:
        say(f"{len(left_out)} left out, the first: {next(iter(left_out.values()))}")
    starts = {s.id: s.start_frame for s in scenarios}
    later = sum(s.start_frame > starts[s.id] for s in begun)
    if later:
        say(f"{later} begin later than usual, so that {config.alpasim.force_gt:g} s come before")
    return begun


def _drive_remotely(
    address: Address,
    scenarios: Sequence[Scenario],
    sim_config: SimConfig,
    config: EvalConfig,
    device: torch.device,
) -> RemoteDrives:
    from alpagym.interop.alpasim.remote_evaluation import evaluate_driver

    return evaluate_driver(
        address,
        scenarios,
        sim_config,
        config.alpasim,
        device=device,
        seed=config.seed,
        whole=bool(config.metrics),
    )


def _compare(
    told: Sequence[dict[str, Any]], recordings: Sequence[str], seed: int, console: Console
) -> dict[str, Any]:
    """How the first differs from the second, if there is one, by the numbers of each scenario."""
    if len(told) < 2:
        return {}
    tables = [_numbers(one["per_scenario"]) for one in told]
    differences = {
        name: paired_difference(values, tables[1][name], recordings, seed=seed)
        for name, values in tables[0].items()
        if name in tables[1]
    }
    labels = [one["driver"] for one in told]
    say = plain_printer(console)
    say(f"first: {labels[0]}\nsecond: {labels[1]}")
    console.print(paired_table(differences))
    few = differences["failure_rate"].num_recordings
    if few < FEW_RECORDINGS:
        say(f"intervals from {few} recordings are too narrow: take more scenarios")
    failing = [{row["id"] for row in one["per_scenario"] if row["failure"]} for one in told]
    only = [sorted(failing[i] - failing[1 - i]) for i in range(2)]
    for label, ids in zip(labels, only, strict=True):
        more = f" and {len(ids) - MOST_IDS} more" if len(ids) > MOST_IDS else ""
        say(f"failed only by {label} ({len(ids)}): {', '.join(ids[:MOST_IDS]) or 'none'}{more}")
    return {
        "compared": told[1],
        "differences": {name: _difference(d) for name, d in differences.items()},
        "failed_only_by_first": only[0],
        "failed_only_by_second": only[1],
    }


def _difference(found: Difference) -> dict[str, Any]:
    numbers = {"first": found.first, "second": found.second, "difference": found.value}
    return {
        **json_numbers(numbers),
        "ci95": None if found.interval is None else list(found.interval),
        "num_drives": found.num_drives,
        "num_recordings": found.num_recordings,
    }


def _numbers(rows: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Numbers of each scenario by name, NaN for none; those of suites as `suite.name`."""
    own = {**RATES, "progress": "progress", "scene_score": "scene_score"}
    found = {name: np.array([float(row[key]) for row in rows]) for name, key in own.items()}
    names = dict.fromkeys(
        (suite, name)
        for row in rows
        for suite, numbers in row.get("metrics", {}).items()
        for name in numbers
    )
    for suite, name in names:
        values = [row.get("metrics", {}).get(suite, {}).get(name) for row in rows]
        found[f"{suite}.{name}"] = np.array([np.nan if v is None else float(v) for v in values])
    return found


def _measure(
    config: EvalConfig,
    contender: Contender,
    far: RemoteDrives | None,
    scenarios: Sequence[Scenario],
    sim_config: SimConfig,
    device: torch.device,
    rows: list[dict[str, Any]],
    console: Console,
) -> dict[str, Any]:
    """Score drives that no failure ends by the metrics of others.

    They are driven here, or are those of a driver that is far away; scenarios that it did not drive
    have the score 0. Adds each scenario's numbers to its row; returns the totals, and prints them.
    """
    from alpagym.metrics.drive import Drive, drive_of
    from alpagym.metrics.suites import SCORES, SUITES, measure

    asked = config.metrics
    names = list(SUITES) if asked == "all" else [asked] if asked else []
    if not names:
        return {}
    which, replies = list(range(len(scenarios))), None
    if far is not None:
        which = sorted(far.rollouts)
        rollouts = [far.rollouts[k] for k in which]
        replies = [far.replies[k] for k in which]
    else:
        assert not isinstance(contender.driver, Address)
        unending = replace(sim_config, end_on=())
        _, rollouts = evaluate(contender.driver, scenarios, unending, device=device, record=asked)
    drives: Sequence[Drive] = [drive_of(rollout) for rollout in rollouts]
    if config.suite:
        drives, replies = challenge.from_first_plan(drives, replies)
    undriven = sorted(set(range(len(scenarios))) - set(which))
    totals = {}
    with console.status(f"metrics of {len(drives)} drives"):
        all_measured = measure(names, drives, replies)
    for name, measured in all_measured.items():
        for k, numbers in zip(which, measured.rows, strict=True):
            rows[k].setdefault("metrics", {})[name] = json_numbers(numbers)
        for i, reason in measured.unscored.items():
            rows[which[i]].setdefault("not_scored", {})[name] = reason
        scored = len(drives) - len(measured.unscored)
        total, counts = dict(measured.total), measured.counts
        for score in SCORES.get(name, ()) if undriven else ():
            driven = counts.get(score, 0)
            counts[score] = driven + len(undriven)
            total[score] = total[score] * driven / counts[score] if driven else 0.0
            for k in undriven:
                rows[k].setdefault("metrics", {}).setdefault(name, {})[score] = 0.0
        totals[name] = {
            "num_scored": scored,
            "num_not_driven": len(undriven),
            "num_drives": counts,
            **json_numbers(total),
        }
        console.print(suite_table(name, total, len(drives), scored, counts, len(undriven)))
        for line in reasons(name, measured.unscored, [scenarios[k].id for k in which]):
            plain_printer(console)(line)
    return totals


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
        **({"not_driven": results.undriven[i]} if i in results.undriven else {}),
    }
