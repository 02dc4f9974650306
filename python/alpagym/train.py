"""The training story: imitate, see it fail in closed loop, improve by GRPO, show the difference."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from alpagym import sim
from alpagym.devices import device_name
from alpagym.evaluation import (
    BASELINES,
    Results,
    evaluate,
)
from alpagym.flight import how_to_look
from alpagym.grpo.critic import Critic
from alpagym.grpo.diagnosis import diagnose
from alpagym.grpo.faults import TrainingError
from alpagym.grpo.report import ReplayGroup, write_report
from alpagym.grpo.trainer import GrpoTrainer
from alpagym.imitation import Demonstrations, imitate
from alpagym.policies.policy import Policy
from alpagym.ranks import ALONE, Ranks
from alpagym.resume import (
    BEFORE_FILE,
    FLIGHT_FILE,
    StopRequest,
)
from alpagym.run_directory import REPORT_FILE
from alpagym.scenarios.scenario import Scenario
from alpagym.tables import comparison, headline, plain_printer
from alpagym.training_config import TrainConfig
from alpagym.training_data import demonstrations
from alpagym.training_job import Job, prepare


def train(
    config: TrainConfig, yaml: str, console: Console | None = None, ranks: Ranks = ALONE
) -> Path:
    """Run the whole story; returns the run directory, in which `report.html` shows it.

    A run that was cut short goes on where it was saved last (`config.resume`), to the same result
    bit for bit, on the same device, with as many threads and as many ranks. So does one that
    `torchrun` has begun again, by itself.

    Args:
        config: what to do.
        yaml: the same, as text for the run directory.
        console: where progress is shown, by the first rank.
        ranks: the processes that train together, each of which calls this.

    Raises:
        Stopped: SIGTERM; iterations that were done have been saved then.
        CheckpointError: nothing to go on with.
        ValueError: an option out of range; nothing has been written then.
        FileExistsError: a run of this name is there already.
        ScenarioError: too little could be loaded; nothing has been written then.
        TrainingError: a reward or gradient is not finite.
        RankError: another rank has ended.
        OSError: what the run ends with cannot be written.
    """
    console = console or Console(stderr=True, quiet=not ranks.first)
    with StopRequest() as stop, ExitStack() as locks:
        job = prepare(config, yaml, console, stop, locks, ranks)
        with closing(job.data), closing(job.run):
            try:
                _tell(job)
            except OSError as error:
                place, how = error.filename or job.run.path, f"resume={job.run.path}"
                raise OSError(
                    f"{place}: {error.strerror or error}; `alpagym train {how}` goes on"
                ) from error
    return job.run.path


def _tell(job: Job) -> None:
    policy = job.policy
    recorded = _begin(job, policy)
    first = copy.deepcopy(policy)
    before = _judge(job, "before", job.beginning, first)
    if job.config.backend == "cosmos":
        from alpagym.interop.cosmos.launch import improve

        trained = improve(job, policy)
        if trained is None:  # whoever starts Cosmos-RL goes on
            return
    else:
        trained = _improve(job, policy, recorded)
    chosen = _choose(job, policy)
    after = _judge(job, "after", "GRPO", policy)
    baselines = {name: job.evaluate(name) for name in BASELINES}
    summary = _summarize(job, before, after, baselines) | {
        "train": trained,
        **chosen,
        "on_training_scenarios": _on_training(job, first, policy),
    }
    job.ranks.close()
    if not job.ranks.first:
        return
    replays = _replays(job, first, policy, before, after)
    summary["wall_s"] = round(job.run.wall_s, 1)
    job.run.write_json("summary.json", summary)
    report = write_report(job.run.path / REPORT_FILE, summary, job.run.history, replays)
    drivers = {job.beginning: before, "GRPO": after} | baselines
    job.console.print(comparison({name: results.summary() for name, results in drivers.items()}))
    plain_printer(job.console)(f"{job.run.wall_s:.0f} s in all; report: {report}")


def _begin(job: Job, policy: Policy) -> Demonstrations | None:
    """Imitation, unless there is a policy already; returns what there is to imitate."""
    config, begun = job.config, job.begun
    to_imitate = not config.checkpoint and begun.state is None  # a stream moves on by it
    recorded = None
    if to_imitate or config.grpo.imitation_weight > 0.0:
        recorded = demonstrations(job.data, config, policy)
    if not begun.imitated:
        if recorded is not None and not config.checkpoint:
            _imitate(job, policy, recorded)
        job.save(BEFORE_FILE.stem, policy)
    return recorded


def _imitate(job: Job, policy: Policy, recorded: Demonstrations) -> None:
    config = job.config
    with _progress(job.console) as progress:
        bar = progress.add_task("imitation", total=None)

        def on_epoch(values: dict[str, float]) -> None:
            job.run.log("imitation", int(values["epoch"]), values)
            note = f"epoch {values['epoch']:.0f}, held-out loss {values['held_out_loss']:.4f}"
            progress.update(bar, advance=1, description=f"imitation: {note}")

        imitate(
            policy,
            recorded,
            config.imitation,
            seed=config.seed,
            on_epoch=on_epoch,
            ranks=job.ranks,
            shard=config.grpo.shard,
        )


def _improve(job: Job, policy: Policy, recorded: Demonstrations | None) -> dict[str, float]:
    """GRPO; returns steps and steps per second, counted as the learner sees them."""
    config, critic = job.config, None
    if config.grpo.baseline == "critic":
        with torch.random.fork_rng(devices=[]):  # the same on all ranks, and when it is resumed
            torch.manual_seed(config.seed)
            critic = Critic(config.policy, config.sim, policy.ranges).to(job.device)
    trainer = GrpoTrainer(
        policy,
        job.data.scenarios,
        job.data.max_agents,
        config=config.grpo,
        sim_config=config.sim,
        reward=config.reward,
        reward_functions=job.reward_functions,
        reward_ranges=job.reward_ranges,
        seed=config.seed,
        names=job.data.names,
        critic=critic,
        demonstrations=recorded,
        stream=job.data.stream,
        ranks=job.ranks,
    )
    if job.begun.state is not None:
        trainer.load_state_dict(job.begun.state)
        job.validation.load_state_dict(job.begun.state.get("validation", {}))
    with job.stop.deferred(), _progress(job.console) as progress:
        bar = progress.add_task("GRPO", total=config.grpo.iterations, completed=trainer.iterations)
        say = plain_printer(progress.console)
        history = [row for row in job.run.history if row["phase"] == "grpo"]
        told = {name for row in job.begun.flight for name in row["findings"]}

        def on_iteration(iteration: int, values: dict[str, float]) -> None:
            job.run.log("grpo", iteration, values)
            history.append(values)
            findings = diagnose(history, config.grpo, trainer.flight)
            for name in findings.keys() - told:
                say(f"iteration {iteration}: {findings[name]}")
            told.update(findings)
            flight = {"iteration": iteration, **trainer.flight, "findings": findings}
            job.run.note(FLIGHT_FILE, flight)
            asked = any(job.ranks.everyone(job.stop.asked))  # all stop after the same iteration
            job.between(policy, iteration + 1)
            if iteration % config.save_every == config.save_every - 1 or asked:
                job.save_all(trainer)
            if asked:
                job.stop.asked = True
                job.stop.check()
            note = f"return {values['return_mean']:.2f}, failures {values['failure_rate']:.1%}"
            progress.update(bar, advance=1, description=f"GRPO: {note}")

        job.between(policy, trainer.iterations)
        try:
            trainer.train(on_iteration)
        except TrainingError as error:
            findings = {"stopped": str(error)}
            stopped = {"iteration": trainer.iterations, **trainer.flight, "findings": findings}
            if job.ranks.speaks():
                job.run.note(FLIGHT_FILE, stopped, by_any=True)
            hint = how_to_look(job.run.path, error.token, trainer.iterations)
            raise TrainingError(f"{error}{hint}", error.token) from error
    policy.eval()
    job.save_all(trainer)
    rows = [row for row in job.run.history if row["phase"] == "grpo"]
    seconds = sum(row["rollout_s"] + row["update_s"] for row in rows)
    rate = trainer.agent_steps / seconds if seconds else 0.0
    return {"agent_steps": trainer.agent_steps, "agent_steps_per_s": rate}


def _choose(job: Job, policy: Policy) -> dict[str, Any]:
    """Make `policy` the one that is judged in the end; returns which that is, and the best."""
    validation, iteration = job.validation, job.config.grpo.iterations
    if validation.step < 0:
        return {"iteration": iteration}
    if job.config.final == "best":
        iteration = validation.step
        policy.load_state_dict(validation.best(policy).state_dict())
        job.keep("policy", policy)
    elif verdict := validation.verdict(policy):
        plain_printer(job.console)(verdict)
    best = {"iteration": validation.step, "scene_score": validation.score}
    return {"iteration": iteration, "best": best | {"failure_rate": validation.failure_rate}}


def _judge(job: Job, when: str, label: str, policy: Policy) -> Results:
    results = job.evaluate(policy)
    numbers = {k: v for k, v in results.summary().items() if not isinstance(v, list)}
    step = 0 if when == "before" else job.config.grpo.iterations
    if not job.run.has("eval", when=when):
        job.run.log("eval", step, {"when": when, **numbers})
    job.console.print(headline(label, results))
    return results


def _summarize(
    job: Job, before: Results, after: Results, baselines: dict[str, Results]
) -> dict[str, Any]:
    return {
        "name": job.run.path.name,
        "before": before.summary(),
        "after": after.summary(),
        "baselines": {name: results.summary() for name, results in baselines.items()},
        "by_kind": _by_kind(job.data.held_out, before, after),
        "outcomes": dict(Counter(_outcomes(before, after))),
        "licenses": dict(job.licenses),
        "device": device_name(job.device),
        "ranks": job.ranks.count,
        "commit": sim.commit(),
        "seed": job.config.seed,
        "config": _plain(asdict(job.config)),
    }


def _on_training(job: Job, first: Policy, policy: Policy) -> dict[str, Any]:
    """The same comparison on scenarios trained on, as many as are held out: shows overfitting."""
    return {
        name: job.evaluate(driver, job.data.sample).summary()
        for name, driver in (("before", first), ("after", policy))
    }


def _outcomes(before: Results, after: Results) -> list[str]:
    names = {(True, False): "fixed", (True, True): "still_failing", (False, True): "newly_broken"}
    pairs = zip(before.failure.tolist(), after.failure.tolist(), strict=True)
    return [names.get(pair, "still_passing") for pair in pairs]


def _replays(
    job: Job, first: Policy, policy: Policy, before: Results, after: Results
) -> list[ReplayGroup]:
    """Drives to show: fixed, still failing and newly broken in turn, as many as asked for."""
    outcomes = _outcomes(before, after)
    queues = [
        [i for i, outcome in enumerate(outcomes) if outcome == kind]
        for kind in ("fixed", "still_failing", "newly_broken")
    ]
    shown: list[int] = []
    while any(queues) and len(shown) < job.config.num_replays:
        shown += [queue.pop(0) for queue in queues if queue]
    chosen = [job.data.held_out[i] for i in shown[: job.config.num_replays]]
    if not chosen:
        return []
    _, old = evaluate(first, chosen, job.config.sim, device=job.device, record=job.beginning)
    _, new = evaluate(policy, chosen, job.config.sim, device=job.device, record="GRPO")
    return [ReplayGroup([a, b]) for a, b in zip(old, new, strict=True)]


def _by_kind(
    scenarios: Sequence[Scenario], before: Results, after: Results
) -> dict[str, dict[str, float | int]]:
    kinds = [s.kind or s.dataset for s in scenarios]
    rows: dict[str, dict[str, float | int]] = {}
    for kind in sorted(set(kinds)):
        chosen = [i for i, k in enumerate(kinds) if k == kind]
        rows[kind] = {
            "num_scenarios": len(chosen),
            "before": float(before.failure[chosen].mean()),
            "after": float(after.failure[chosen].mean()),
        }
    return rows


def _plain(value: Any) -> Any:
    """Enumerations by name and tuples as lists, for JSON."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value.name if hasattr(value, "name") and hasattr(value, "value") else value


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console
    )
