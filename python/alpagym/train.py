"""The training story: imitate, see it fail in closed loop, improve by GRPO, show the difference."""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from alpagym import sim
from alpagym.checkpoint import load_policy, save_policy
from alpagym.config import DataConfig, EvalConfig, TrainConfig
from alpagym.evaluation import BASELINES, Results, evaluate
from alpagym.grpo.report import ReplayGroup, write_report
from alpagym.grpo.trainer import GrpoTrainer
from alpagym.imitation import demonstrate, imitate
from alpagym.policies.late_fusion import LateFusion
from alpagym.run_directory import RunDirectory
from alpagym.scenarios.batch import batch, max_agents
from alpagym.scenarios.scenario import Scenario, ScenarioError
from alpagym.scenarios.sources import PROCEDURAL, load_recorded, split_by_id
from alpagym.scenarios.procedural import generate_many

HELD_OUT_SEED = 1_000_000_007
"""Procedural held-out scenarios are generated from seeds that training never draws."""


def choose_device(name: str) -> torch.device:
    """`auto` is a GPU that this build can use, else the CPU.

    Raises:
        ValueError: a device that is not there.
    """
    usable = sim.cuda_built() and torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if usable else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device: expected cpu, cuda or cuda:<index>, got {name}") from error
    if device.type == "cuda" and not usable:
        reason = "no NVIDIA driver was found" if sim.cuda_built() else "this build of alpagym has no CUDA backend"
        raise ValueError(f"device={name}: {reason}")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device: expected cpu, cuda or cuda:<index>, got {name}")
    return device


def training_and_held_out(
    source: str, data: DataConfig, seed: int, console: Console
) -> tuple[list[Scenario], list[Scenario]]:
    """Scenarios to train on and others to judge by: never the same drive on both sides.

    Raises:
        ScenarioError: nothing could be loaded, or too few to hold any out.
    """
    if source == PROCEDURAL:
        kinds = list(data.kinds) or None
        train = generate_many(data.train, seed, kinds=kinds)
        return train, generate_many(data.held_out, seed + HELD_OUT_SEED, kinds=kinds)
    loaded = load_recorded(source, data, _say(console))
    train, held_out = split_by_id(loaded, data.held_out_fraction, seed)
    if not train or not held_out:
        raise ScenarioError(
            f"{source}: expected at least 2 usable scenarios, one to train on and one to hold out, got {len(loaded)}"
        )
    return train, held_out


def train(config: TrainConfig, yaml: str, console: Console | None = None) -> Path:
    """Run the whole story; returns the run directory, in which `report.html` shows it.

    Args:
        config: what to do.
        yaml: the same, as text for the run directory.
        console: where progress is shown.
    """
    console = console or Console(stderr=True)
    device = choose_device(config.device)
    if config.threads > 0:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    started = time.monotonic()
    with console.status("scenarios"):
        train_set, held_out = training_and_held_out(config.scenarios, config.data, config.seed, console)
        packed, agents = batch(train_set, device), max_agents(train_set)
    licenses = sorted({s.license for s in (*train_set, *held_out)})
    run = RunDirectory(config.runs, config.name, yaml, started)
    console.print(f"alpagym train on {_device_name(device)}, into {run.path}")
    run.log("scenarios", 0, {"train": len(train_set), "held_out": len(held_out)})
    console.print(f"{len(train_set)} scenarios to train on, {len(held_out)} held out ({', '.join(licenses)})")

    policy = LateFusion(config.policy, config.sim).to(device)
    with _progress(console) as progress:
        bar = progress.add_task("imitation", total=None)
        demonstrations = demonstrate(packed, agents, config.sim)

        def on_epoch(values: dict[str, float]) -> None:
            run.log("imitation", int(values["epoch"]), values)
            note = f"epoch {values['epoch']:.0f}, held-out loss {values['held_out_loss']:.4f}"
            progress.update(bar, advance=1, description=f"imitation: {note}")

        imitate(policy, demonstrations, config.imitation, seed=config.seed, on_epoch=on_epoch)
        del demonstrations
    imitation = copy.deepcopy(policy)
    checkpoints = run.path / "checkpoints"
    save_policy(checkpoints / "imitation.safetensors", policy, config.policy, config.sim, licenses)

    before, _ = _evaluate(run, "before", imitation, held_out, config, device)
    console.print(_headline("imitation", before))

    trainer = GrpoTrainer(
        policy,
        packed,
        agents,
        config=config.grpo,
        sim_config=config.sim,
        reward=config.reward,
        seed=config.seed,
    )
    grpo_started = time.perf_counter()
    with _progress(console) as progress:
        bar = progress.add_task("GRPO", total=config.grpo.iterations)

        def on_iteration(iteration: int, values: dict[str, float]) -> None:
            run.log("grpo", iteration, values)
            note = f"return {values['return_mean']:.2f}, failures {values['failure_rate']:.1%}"
            progress.update(bar, advance=1, description=f"GRPO: {note}")

        trainer.train(on_iteration)
    grpo_s = time.perf_counter() - grpo_started
    policy.eval()
    save_policy(checkpoints / "policy.safetensors", policy, config.policy, config.sim, licenses)

    after, _ = _evaluate(run, "after", policy, held_out, config, device)
    console.print(_headline("GRPO", after))
    on_training = {
        name: evaluate(driver, train_set[: len(held_out)], config.sim, device=device)[0].summary()
        for name, driver in (("before", imitation), ("after", policy))
    }
    summary: dict[str, Any] = {
        "name": run.path.name,
        "before": before.summary(),
        "after": after.summary(),
        "on_training_scenarios": on_training,
        "baselines": {name: evaluate(name, held_out, config.sim, device=device)[0].summary() for name in BASELINES},
        "train": {"agent_steps": trainer.agent_steps, "agent_steps_per_s": trainer.agent_steps / grpo_s},
        "by_kind": _by_kind(held_out, before, after),
        "licenses": dict(Counter(s.license for s in (*train_set, *held_out))),
        "device": _device_name(device),
        "commit": sim.commit(),
        "seed": config.seed,
        "wall_s": round(run.wall_s, 1),
        "config": asdict(config),
    }
    groups = _replays(imitation, policy, held_out, before, after, config, device)
    summary["outcomes"] = dict(Counter(_outcomes(before, after)))
    run.write_json("summary.json", _plain(summary))
    report = write_report(run.path / "report.html", _plain(summary), run.history, groups)
    run.close()
    console.print(_table(summary))
    console.print(f"report: {report}")
    return run.path


def evaluate_command(config: EvalConfig, console: Console | None = None) -> dict[str, Any]:
    """Drive scenarios with a checkpoint or a baseline; print the table and return it.

    Raises:
        ValueError: neither a checkpoint nor a baseline, or both.
    """
    console = console or Console(stderr=True)
    device = choose_device(config.device)
    if config.threads > 0:
        torch.set_num_threads(config.threads)
    if bool(config.checkpoint) == bool(config.policy):
        raise ValueError(f"eval: expected checkpoint=<run> or policy=<{'|'.join(BASELINES)}>, and only one of them")
    driver: Any = config.policy
    sim_config, trained_on = config.sim, []
    if config.checkpoint:
        driver, sim_config, trained_on = load_policy(config.checkpoint, device)
        console.print(f"trained on: {', '.join(trained_on) or 'unknown'}")
    if config.scenarios == PROCEDURAL:
        scenarios = generate_many(
            config.data.held_out,
            config.seed + HELD_OUT_SEED,
            kinds=list(config.data.kinds) or None,
        )
    else:
        scenarios = load_recorded(config.scenarios, config.data, _say(console))
    results, _ = evaluate(driver, scenarios, sim_config, device=device)
    label = config.policy or config.checkpoint
    value = {
        "driver": label,
        "scenarios": config.scenarios,
        "trained_on": trained_on,
        "device": _device_name(device),
        "commit": sim.commit(),
        **results.summary(),
        "per_scenario": [
            {
                "id": s.id,
                "kind": s.kind,
                "failure": bool(results.failure[i]),
                "collision_at_fault": bool(results.collision_at_fault[i]),
                "collision_any": bool(results.collision_any[i]),
                "offroad": bool(results.offroad[i]),
                "progress": float(results.progress[i]),
                "scene_score": float(results.scene_score[i]),
            }
            for i, s in enumerate(scenarios)
        ],
    }
    console.print(_comparison({label: results.summary()}))
    return value


def _say(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(text, markup=False, highlight=False)


def _evaluate(
    run: RunDirectory, name: str, driver: Any, scenarios: Sequence[Scenario], config: TrainConfig, device: torch.device
) -> tuple[Results, list]:
    results, rollouts = evaluate(driver, scenarios, config.sim, device=device)
    numbers = {k: v for k, v in results.summary().items() if not isinstance(v, list)}
    run.log("eval", 0 if name == "before" else config.grpo.iterations, {"when": name, **numbers})
    return results, rollouts


def _outcomes(before: Results, after: Results) -> list[str]:
    names = {(True, False): "fixed", (True, True): "still_failing", (False, True): "newly_broken"}
    pairs = zip(before.failure.tolist(), after.failure.tolist(), strict=True)
    return [names.get(pair, "still_passing") for pair in pairs]


def _replays(
    imitation: Any,
    policy: Any,
    held_out: Sequence[Scenario],
    before: Results,
    after: Results,
    config: TrainConfig,
    device: torch.device,
) -> list[ReplayGroup]:
    """Drives to show: what was fixed, what still fails and what broke, in turn, as many as asked for."""
    outcomes = _outcomes(before, after)
    queues = [
        [i for i, o in enumerate(outcomes) if o == kind] for kind in ("fixed", "still_failing", "newly_broken")
    ]
    shown: list[int] = []
    while any(queues) and len(shown) < config.num_replays:
        for queue in queues:
            if queue and len(shown) < config.num_replays:
                shown.append(queue.pop(0))
    if not shown:
        return []
    chosen = [held_out[i] for i in shown]
    _, first = evaluate(imitation, chosen, config.sim, device=device, record="imitation")
    _, last = evaluate(policy, chosen, config.sim, device=device, record="GRPO")
    return [ReplayGroup([a, b]) for a, b in zip(first, last, strict=True)]


def _by_kind(scenarios: Sequence[Scenario], before: Results, after: Results) -> dict[str, dict[str, float | int]]:
    rows: dict[str, dict[str, float | int]] = {}
    for kind in sorted({s.kind or s.dataset for s in scenarios}):
        chosen = [i for i, s in enumerate(scenarios) if (s.kind or s.dataset) == kind]
        rows[kind] = {
            "num_scenarios": len(chosen),
            "before": float(before.failure[chosen].mean()),
            "after": float(after.failure[chosen].mean()),
        }
    return rows


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"


def _plain(value: Any) -> Any:
    """Enumerations by name, tuples as lists, for JSON."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value.name if hasattr(value, "name") and hasattr(value, "value") else value


def _progress(console: Console) -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console)


def _headline(label: str, results: Results) -> str:
    value = results.summary()
    return f"{label}: failure rate {value['failure_rate']:.1%}, scene score {value['scene_score']:.3f}"


def _table(summary: dict[str, Any]) -> Table:
    columns = {"imitation": summary["before"], "GRPO": summary["after"]} | summary["baselines"]
    return _comparison(columns)


def _comparison(columns: dict[str, dict[str, Any]]) -> Table:
    count = next(iter(columns.values()))["num_scenarios"]
    table = Table(title=f"closed loop on {count} scenarios, with 95 % intervals")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
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
