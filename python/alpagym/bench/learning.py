"""`alpagym bench learning`: what `alpagym train` reaches, over seeds."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from alpagym.bench.cases import LearningCase
from alpagym.bench.context import Context, Line
from alpagym.bench.timing import Measurement
from alpagym.pools import dropping
from alpagym.resume import BEFORE_FILE
from alpagym.run_directory import REPORT_FILE

QUICK = (
    "data.train=6", "data.held_out=4", "imitation.max_epochs=2", "grpo.iterations=2",
    "grpo.scenarios_per_iteration=3", "policy.width=8", "policy.hidden=16", "sim.max_steps=10",
    "data.validation=3",
)  # fmt: skip
ONLY_IMITATION = ("grpo.iterations=0", "num_replays=0")
METRICS = ("failure_rate", "progress", "scene_score")
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % quantiles of Student's t by degrees of freedom, from 1 on."""


@dataclass(frozen=True)
class Training:
    """One run of `alpagym train`."""

    variant: str
    options: tuple[str, ...]
    seed: int


def run(case: LearningCase, context: Context) -> Iterator[Line]:
    """Failure rates before and after of each variant: means over seeds with 95 % intervals.

    Runs are kept under `context.runs` by variant and seed; those that are there already count, and
    those that were cut short go on.

    Raises:
        ValueError: a run is there that was made with other options, or one fails.
    """
    if context.quick:
        case = replace(case, seeds=2, options=(*case.options, *QUICK))
        context = replace(context, runs=context.runs / "quick")
    seeds = range(context.repeats or case.seeds)
    begin: list[tuple[str, ...]] = [()] * len(seeds)
    with dropping(ThreadPoolExecutor(context.jobs)) as pool:
        if not case.whole:
            own = tuple(option for option in case.options if not option.startswith("grpo."))
            imitation = [Training("imitation", (*own, *ONLY_IMITATION), seed) for seed in seeds]
            paths = pool.map(partial(_train, context), imitation)
            begin = [(f"checkpoint={path / BEFORE_FILE}",) for path in paths]
        trainings = [
            Training(name, (*case.options, *options, *begin[seed]), seed)
            for seed in seeds
            for name, options in case.variants.items()
        ]
        made = list(pool.map(partial(_train, context), trainings))
    for name in case.variants:
        results = [
            json.loads((path / "summary.json").read_text())
            for path, training in zip(made, trainings, strict=True)
            if training.variant == name
        ]
        label = f"{case.name}.{name}"
        for when in ("before", "after"):
            for metric in METRICS:
                values = [float(result[when][metric]) for result in results]
                yield from _over_seeds(f"{label}.{when}_{metric}", values)
        yield from _over_seeds(f"{label}.wall_s", [float(r["wall_s"]) for r in results])


def mean_and_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean and its 95 % interval by Student's t; infinitely wide for a single value."""
    mean, freedom = statistics.fmean(values), len(values) - 1
    if freedom == 0:
        return mean, -math.inf, math.inf
    wide = STUDENT[min(freedom, len(STUDENT)) - 1] * statistics.stdev(values)
    half = wide / math.sqrt(len(values))
    return mean, mean - half, mean + half


def _over_seeds(name: str, values: Sequence[float]) -> Iterator[Line]:
    mean, low, high = mean_and_interval(values)
    yield name, Measurement(mean, repeats=len(values))
    if len(values) > 1:
        yield f"{name}_low", Measurement(low, repeats=len(values))
        yield f"{name}_high", Measurement(high, repeats=len(values))


def _train(context: Context, training: Training) -> Path:
    """Run it, unless it is there; returns its directory."""
    path = context.runs / f"{training.variant}-{training.seed}"
    wanted = [f"device={context.device}", f"seed={training.seed}", *training.options]
    options = path.with_name(f"{path.name}.options.json")
    if path.is_dir():
        found = json.loads(options.read_text()) if options.is_file() else ["others"]
        if found != wanted:
            raise ValueError(
                f"{path}: expected a run with {' '.join(wanted)}, found one with "
                f"{' '.join(found)}; remove it, or choose another runs="
            )
    if not (path / REPORT_FILE).is_file():
        context.runs.mkdir(parents=True, exist_ok=True)
        options.write_text(json.dumps(wanted) + "\n")
        threads = max((os.cpu_count() or 1) // context.jobs, 1)
        command = [sys.executable, "-m", "alpagym", "train", f"threads={threads}"]
        if (path / "config.yaml").is_file():
            command += [f"resume={path}"]
        else:
            command += [f"runs={context.runs}", f"name={path.name}", *wanted]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            said = done.stdout.strip().splitlines() or [f"exit status {done.returncode}"]
            raise ValueError(f"{path}: training failed: {said[-1].removeprefix('alpagym: ')}")
    return path
