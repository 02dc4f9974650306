"""What a training works on: options, scenarios, a policy, a run directory, put together."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from alpagym.checkpoint import check_made_for, load_policy, save_policy
from alpagym.config import SimConfig
from alpagym.devices import choose_device, device_name
from alpagym.evaluation import (
    Results,
    check_simulator,
    evaluate_together,
)
from alpagym.flight import policy_name, stride_of, thin_out
from alpagym.grpo.trainer import GrpoTrainer, check_groups
from alpagym.interop.cosmos.config import refuse
from alpagym.interop.cosmos.entry import find, require
from alpagym.option_ranges import check
from alpagym.policies.policy import Policy
from alpagym.policies.registry import load_weights, make_policy
from alpagym.ranks import Ranks
from alpagym.resume import (
    BEFORE_FILE,
    FLIGHT_FILE,
    STATE_FILE,
    Begun,
    Lock,
    StopRequest,
    launched_run,
    take_up,
)
from alpagym.reward_functions import UserRewards
from alpagym.reward_ranges import Ranges, check_ranges
from alpagym.run_directory import SPLIT_FILE, RunDirectory, free_directory, trained_recordings
from alpagym.run_state import save_state
from alpagym.scenarios.scenario import Scenario
from alpagym.scenarios.sources import PROCEDURAL
from alpagym.tables import plain_printer
from alpagym.training_config import TrainConfig
from alpagym.training_data import TrainingData, resident, streamed
from alpagym.validation import Validation


@dataclass
class Job:
    """What every chapter of the story needs."""

    config: TrainConfig
    device: torch.device
    console: Console
    run: RunDirectory
    data: TrainingData
    policy: Policy
    """The one that learns."""
    learned_from: list[str]
    """Licenses of the scenarios that it learned from before."""
    begun: Begun
    """What an earlier process did of it."""
    stop: StopRequest
    reward_functions: UserRewards
    reward_ranges: Ranges
    ranks: Ranks
    validation: Validation

    @property
    def beginning(self) -> str:
        """What the policy that GRPO begins with is called."""
        return "before" if self.config.checkpoint else "imitation"

    @property
    def licenses(self) -> Counter[str]:
        """Of all scenarios, with how many there are of each."""
        others = [*self.data.held_out, *self.data.validation]
        return self.data.licenses + Counter(s.license for s in others)

    def evaluate(self, driver: Policy | str, scenarios: Sequence[Scenario] = ()) -> Results:
        """Drive scenarios, those held out if none are given; by all ranks."""
        chosen = scenarios or self.data.held_out
        return evaluate_together(self.ranks, driver, chosen, self.config.sim, self.device)

    def checkpoint(self, name: str) -> Path:
        """Where a policy lies."""
        return self.run.path / "checkpoints" / f"{name}.safetensors"

    def save(self, name: str, policy: Policy) -> None:
        """Write a policy into the run's checkpoints."""
        if not self.ranks.first:
            return
        licenses = sorted({*self.data.licenses, *self.learned_from})
        save_policy(self.checkpoint(name), policy, self.config.policy, self.config.sim, licenses)

    def keep(self, name: str, policy: Policy) -> None:
        """The same; where that fails, later may do."""
        self.run.attempt(name.partition("/")[0], lambda: self.save(name, policy))

    def save_all(self, trainer: GrpoTrainer) -> None:
        """Write the policies, and what it takes to go on; where that fails, later may do."""
        self.keep("policy", trainer.policy)
        if self.validation.step >= 0:
            self.keep("best", self.validation.best(trainer.policy))
        state = trainer.state_dict() | {"validation": self.validation.state_dict()}
        if self.ranks.first:
            self.run.attempt("state", lambda: save_state(self.run.path / STATE_FILE, state))

    def between(self, policy: Policy, done: int) -> None:
        """After `done` iterations: keep the policy that drives next, and compare it, where due."""
        limit = self.config.keep_policies if done < self.config.grpo.iterations else 0
        if limit and self.ranks.first and done % (stride := stride_of(done + 1, limit)) == 0:
            thin_out(self.run.path, stride)
            self.keep(policy_name(done), policy)
        if self.validation.due(done) and not self.run.has("validation", step=done):
            values = self.validation.judge(policy, done)
            self.run.log("validation", done, values)
            best = ", the best so far" if self.validation.step == done else ""
            plain_printer(self.console)(
                f"validation after {done} iterations: failure rate {values['failure_rate']:.1%}, "
                f"scene score {values['scene_score']:.3f}{best}"
            )


def prepare(
    config: TrainConfig,
    yaml: str,
    console: Console,
    stop: StopRequest,
    locks: ExitStack,
    ranks: Ranks,
) -> Job:
    """Put everything together that training needs; the run directory comes last.

    Args:
        config: what to do.
        yaml: the same, as text.
        console: where progress is shown.
        stop: is told of the run directory.
        locks: gets the lock on it.
        ranks: the processes that train together.

    Raises:
        CheckpointError, ValueError, FileExistsError, ScenarioError, RankError: as `train`.
    """
    started = time.monotonic()
    _refuse(config, ranks)
    device = choose_device(config.device, ranks)
    own_gpu = device.type == "cuda" and (ranks.local_count == 1 or config.device != str(device))
    ranks.connect(device, nccl=own_gpu)
    path, found = take_up(config, yaml, ranks, locks)
    goes_on, begun = found is not None, found or Begun()
    stop.run = path if goes_on else None
    loading = _take_cores(config, ranks)
    torch.manual_seed(config.seed)
    functions, ranges = UserRewards(config.reward_functions), check_ranges(config.reward_ranges)
    say = plain_printer(console)
    source = path / BEFORE_FILE if begun.imitated else config.checkpoint
    policy, learned_from = _first_policy(config, source, ranges, ranks, say)
    config, policy = replace(config, policy=policy.made_of), policy.to(device)
    with console.status("scenarios") as status:
        if config.stream.scenarios:

            def on_progress(what: str, done: int, total: int) -> None:
                status.update(f"scenarios: {what} shards, {done} of {total}")

            data = streamed(loading, device, say, on_progress, ranks)
        else:
            data = resident(loading, device, say)
    ranks.agree("the scenarios", [data.scenarios.key])
    if not goes_on and ranks.first:
        path.mkdir(parents=True, exist_ok=True)
        locks.enter_context(closing(Lock(path)))
        free_directory(str(path.parent), path.name)  # it still is
        ranks.keep(launched_run(yaml), str(path))
    run = RunDirectory(path, yaml, started, begun.history, say, writes=ranks.first)
    stop.run = path
    run.write(FLIGHT_FILE, "".join(json.dumps(row) + "\n" for row in begun.flight))
    every, last = config.eval_every, config.grpo.iterations
    validation = Validation(
        data.validation, config.sim, device, every=every, iterations=last, ranks=ranks
    )
    job = Job(
        *(config, device, console, run, data, policy, learned_from),
        *(begun, stop, functions, ranges, ranks, validation),
    )
    _note_scenarios(job, ranks.told(trained_recordings(Path(source)) if source else set()), say)
    _announce(job, goes_on, say)
    return job


def _refuse(config: TrainConfig, ranks: Ranks) -> None:
    check(config)
    check_simulator(config.sim)
    check_groups(config.grpo, ranks)
    if config.backend == "cosmos":
        refuse(config)
        if not ranks.alone:
            raise ValueError(f"backend=cosmos: expected no torchrun, got {ranks.count} ranks")
        if config.cosmos.launch:
            require()
            find(config.cosmos.command)
    if config.final == "best" and not config.eval_every:
        raise ValueError("final=best: expected eval_every above 0, to compare policies, got 0")
    if config.checkpoint and config.policy.weights:
        raise ValueError("policy.weights: expected none beside checkpoint=, which has its own")


def _take_cores(config: TrainConfig, ranks: Ranks) -> TrainConfig:
    """Set the threads of this process; returns options by which ranks share cores in loading."""
    cores = max((os.cpu_count() or 1) // ranks.local_count, 1)
    if config.threads > 0 or ranks.local_count > 1:
        torch.set_num_threads(config.threads or cores)
    if config.data.workers == 0 and ranks.local_count > 1:
        return replace(config, data=replace(config.data, workers=cores))
    return config


def _first_policy(
    config: TrainConfig,
    source: str | Path,
    ranges: Ranges,
    ranks: Ranks,
    say: Callable[[str], None],
) -> tuple[Policy, list[str]]:
    """A policy on the CPU, of a file or new, and the licenses of what it has learned from."""
    observed = ranges if config.policy.observe_weights else {}
    if source:
        policy, licenses = _beginning_with(source, config.sim, observed, ranks)
        say(f"beginning with {source}, trained on: {', '.join(licenses)}")
        return policy, licenses
    policy = make_policy(config.policy, config.sim, observed)
    if config.policy.weights:
        if ranks.first:
            load_weights(policy, config.policy.weights)
        ranks.tell_(list(policy.state_dict().values()))
    return policy, []


def _note_scenarios(job: Job, seen: set[str], say: Callable[[str], None]) -> None:
    """Write down which recordings are on which side; `seen` taught the policy before."""
    data, run = job.data, job.run
    aside = {"held_out": data.held_out, "validation": data.validation}
    counts = {"train": data.count} | {side: len(chosen) for side, chosen in aside.items()}
    recordings = {
        side: sorted({s.recording for s in chosen if s.dataset != PROCEDURAL})
        for side, chosen in aside.items()
    }
    if known := seen & {recording for side in recordings.values() for recording in side}:
        say(
            f"{len(known)} recordings that are held out here were trained on before, "
            f"{min(known)} among them: what is measured on them is no test; data.hold_out chooses"
        )
    run.write_json(SPLIT_FILE, {"train": sorted({*data.recordings, *seen}), **recordings})
    if not run.has("scenarios"):
        run.log("scenarios", 0, counts)


def _announce(job: Job, goes_on: bool, say: Callable[[str], None]) -> None:
    data, begun, ranks = job.data, job.begun, job.ranks
    together = "" if ranks.alone else f"{ranks.count} ranks, the first on "
    say(f"alpagym train on {together}{device_name(job.device)}, into {job.run.path}")
    if goes_on:
        say(begun.told)
        before = ranks.count if begun.state is None else begun.state.get("ranks", 1)
        if before != ranks.count:
            say(f"ranks: {before} before, {ranks.count} now, so numbers are the same but rounding")
    say(
        f"{data.count} scenarios to train on, {len(data.held_out)} held out, "
        f"{len(data.validation)} to compare policies on while training "
        f"({', '.join(sorted(job.licenses))})"
    )
    if data.stream is not None:
        say(
            f"streamed in banks of {len(data.names)}, "
            f"{data.stream.memory_bytes / 2**20:.0f} MiB for two"
        )


def _beginning_with(
    source: str | Path, config: SimConfig, observed: Ranges, ranks: Ranks
) -> tuple[Policy, list[str]]:
    """A policy that is there, on the CPU, and the licenses of what it learned from.

    Raises:
        CheckpointError: there is none.
        ValueError: it was made for another simulator, or other weights of rewards.
    """
    loaded = ranks.told(load_policy(source) if ranks.first else None)
    assert loaded is not None
    policy, trained_in, licenses = loaded
    check_made_for(trained_in, config, policy)
    if policy.ranges and policy.ranges != observed:
        raise ValueError(f"reward_ranges: the checkpoint observes {policy.ranges}, got {observed}")
    return policy, licenses
