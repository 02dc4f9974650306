"""Runs cases: one `case.metric value` a line, notes after `#`, and everything in one JSON."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from alpagym import sim
from alpagym.bench import binding, learning, load, memory, step, stream, train
from alpagym.bench.cases import (
    COMMANDS,
    FORMATS,
    BindingCase,
    Case,
    LearningCase,
    LoadCase,
    MemoryCase,
    StepCase,
    StreamCase,
    TrainCase,
)
from alpagym.bench.context import Context, Line
from alpagym.bench.machine import machine
from alpagym.bench.options import BenchConfig, LearningConfig, StepConfig
from alpagym.bench.timing import Measurement
from alpagym.devices import choose_device
from alpagym.option_ranges import check
from alpagym.scenarios.scenario import ScenarioError


def run(command: str, options: BenchConfig, given: Sequence[str] = ()) -> None:
    """Run the cases of a command, or of `all`.

    Args:
        command: a key of `COMMANDS`, or `all`.
        options: its options.
        given: fields of `options.sim` that replace those of the cases.

    Raises:
        ValueError: a name or number that no case has; one sentence.
        ScenarioError: recordings that are not there, where their case was asked for.
        OSError: a JSON file that cannot be written.
    """
    check(options)
    cases = _chosen(command, options.case)
    threads = _numbers("threads", options.threads, least=0)
    context = _context(options, given)
    for case in cases:
        _check_overrides(case, context)
    if options.json and not _folder_of(options.json).is_dir():
        raise ValueError(f"json={options.json}: no such folder: {_folder_of(options.json)}")
    form = ",".join(context.forms) or _form(context.device)
    facts = machine(context.device, options.threads if any(threads) else "all", form)
    metrics: dict[str, Measurement] = {}
    notes: list[str] = []
    for case in cases:
        for line in _over_threads(case, context, threads, skip_absent=not options.case):
            if isinstance(line, str):
                notes.append(line)
                print(f"# {line}", flush=True)
            else:
                name, measured = line
                metrics[name] = measured
                print(f"{name} {measured.value:.6g}", flush=True)
    if options.json:
        _write(options, given, facts, notes, metrics)


def _chosen(command: str, names: str) -> list[Case]:
    known = {
        case.name: case
        for of, cases in COMMANDS.items()
        if command in (of, "all")
        for case in cases
    }
    wanted = [name for name in names.split(",") if name]
    for name in wanted:
        if name not in known:
            raise ValueError(f"case: expected any of {', '.join(known)}, got {name}")
    quick = [case for case in known.values() if not case.by_name] or list(known.values())[:1]
    return [known[name] for name in wanted] or quick


def _numbers(name: str, text: str, *, least: int) -> tuple[int, ...]:
    parts = [part for part in text.split(",") if part]
    if not all(part.isdigit() and least <= int(part) < 2**31 for part in parts):
        raise ValueError(f"{name}: expected whole numbers from {least}, as in 1,2, got {text}")
    return tuple(int(part) for part in parts)


def _context(options: BenchConfig, given: Sequence[str]) -> Context:
    device = choose_device(options.device)
    context = Context(device, Path(options.data), options.quick, options.repeats)
    if isinstance(options, LearningConfig):
        return replace(context, runs=Path(options.runs), jobs=options.jobs)
    if not isinstance(options, StepConfig):
        return context
    formats = tuple(name for name in options.format.split(",") if name)
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"format: expected any of {', '.join(FORMATS)}, got {name}")
    forms = tuple(name for name in options.form.split(",") if name)
    _check_forms(forms, device)
    return replace(
        context,
        forms=forms,
        worlds=_numbers("worlds", options.worlds, least=1),
        formats=formats,
        sim=tuple((name, getattr(options.sim, name)) for name in given),
    )


def _form(device: torch.device) -> str:
    return sim.cpu_form() if device.type == "cpu" else sim.cuda_form()


def _use_form(device: torch.device, name: str) -> None:
    (sim.use_cpu_form if device.type == "cpu" else sim.use_cuda_form)(name)


def _check_forms(forms: tuple[str, ...], device: torch.device) -> None:
    """Refuse an unknown form, and one that the device cannot run, before anything is measured."""
    before = _form(device)
    try:
        for form in forms:
            _use_form(device, form)
    finally:
        if forms:
            _use_form(device, before)


def _check_overrides(case: Case, context: Context) -> None:
    """Refuse what would make a metric's name lie."""
    label = case.label if isinstance(case, StepCase) else ""
    for option, values in (("worlds", context.worlds), ("format", context.formats)):
        if values and f"{{{option}}}" not in label:
            raise ValueError(f"{option}: the case {case.name} has its own, expected none given")


def _over_threads(
    case: Case, context: Context, threads: tuple[int, ...], *, skip_absent: bool
) -> Iterator[Line]:
    """The case with each number of threads, and how much faster more of them are."""
    before = torch.get_num_threads()
    rates: dict[str, dict[int, Measurement]] = {}
    try:
        for number in threads or (0,):
            torch.set_num_threads(number or before)
            for line in _over_forms(case, context):
                if isinstance(line, str) or len(threads) < 2:
                    yield line
                    continue
                label, metric = line[0].rsplit(".", 1)
                if metric == "agent_steps_per_s":
                    rates.setdefault(label, {})[number or before] = line[1]
                yield f"{label}.t{number or before}.{metric}", line[1]
    except ScenarioError as error:
        if not skip_absent:
            raise
        yield f"{case.name}: skipped: {error}"
    finally:
        torch.set_num_threads(before)
    for label, rate in rates.items():
        first, *others = rate.items()
        for number, value in others:
            ratio = value.value / first[1].value
            spread = value.spread + first[1].spread
            name = f"{label}.t{number}.speedup_over_t{first[0]}"
            yield name, Measurement(ratio, spread, value.repeats)


def _over_forms(case: Case, context: Context) -> Iterator[Line]:
    """The case with each form of the device's code."""
    before = _form(context.device)
    try:
        for form in context.forms or (before,):
            _use_form(context.device, form)
            for line in _run_case(case, context):
                if isinstance(line, str) or len(context.forms) < 2:
                    yield line
                else:
                    label, metric = line[0].rsplit(".", 1)
                    yield f"{label}.{form}.{metric}", line[1]
    finally:
        _use_form(context.device, before)


def _run_case(case: Case, context: Context) -> Iterator[Line]:
    match case:
        case StepCase():
            return step.run(case, context)
        case MemoryCase():
            return memory.run(case, context)
        case BindingCase():
            return binding.run(case, context)
        case LoadCase():
            return load.run(case, context)
        case StreamCase():
            return stream.run(case, context)
        case TrainCase():
            return train.run(case, context)
        case LearningCase():
            return learning.run(case, context)


def _folder_of(json_path: str) -> Path:
    path = Path(json_path)
    return path if _is_folder(json_path) else path.parent


def _is_folder(json_path: str) -> bool:
    return json_path.endswith("/") or Path(json_path).is_dir()


def _write(
    options: BenchConfig,
    given: Sequence[str],
    facts: dict[str, str | int | bool],
    notes: list[str],
    metrics: dict[str, Measurement],
) -> None:
    path = Path(options.json)
    if _is_folder(options.json):
        slug = re.sub(r"[^a-z0-9]+", "-", str(facts.get("gpu", facts["cpu"])).lower()).strip("-")
        path = path / f"{slug}-{facts['commit']}.json"
    chosen: dict[str, Any] = {
        name: value for name, value in asdict(options).items() if name not in ("json", "sim")
    }
    if isinstance(options, StepConfig):
        chosen |= {f"sim.{name}": str(getattr(options.sim, name)) for name in given}
    stored = {
        "machine": facts,
        "options": chosen,
        "notes": notes,
        "metrics": {name: value.as_dict() for name, value in metrics.items()},
    }
    path.write_text(json.dumps(stored, indent=2) + "\n")
    print(f"bench: wrote {path}", file=sys.stderr)
