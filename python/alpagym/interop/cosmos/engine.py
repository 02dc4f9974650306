"""Our trainer with Cosmos-RL in the place of its loop: it is told what to drive and what to learn.

Everything that decides numbers is `GrpoTrainer`'s: driving, advantages, losses, steps. Here is only
what comes between, in the two roles that a process of Cosmos-RL may have, or both at once.
"""

from __future__ import annotations

import atexit
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from weakref import finalize

import torch

from alpagym.appending import Appender
from alpagym.checkpoint import load_policy, save_policy
from alpagym.command_line import options_of, to_config
from alpagym.devices import choose_device
from alpagym.flight import how_to_look, policy_name, stride_of, thin_out
from alpagym.grpo.faults import TrainingError, unrewarded
from alpagym.grpo.learner import Origin
from alpagym.grpo.rolled import Rolled
from alpagym.grpo.trainer import GrpoTrainer
from alpagym.interop.cosmos.draws import Draws
from alpagym.interop.cosmos.group import Group, columns, side_by_side
from alpagym.interop.cosmos.together import Communicator, Replicas
from alpagym.policies.policy import Policy
from alpagym.resume import BEFORE_FILE, FLIGHT_FILE
from alpagym.reward_functions import NotFinite, UserRewards
from alpagym.run_directory import finite
from alpagym.training_config import TrainConfig
from alpagym.training_data import TrainingData, resident

STEPS_FILE = "steps.jsonl"
"""In the folder `cosmos` of a run: what each iteration gave, for whoever follows it."""


def run_config(run: Path) -> TrainConfig:
    """The options of a run that was prepared for Cosmos-RL.

    Raises:
        UsageError: no run there.
    """
    config = to_config(options_of(run, "custom.alpagym_run"))
    assert isinstance(config, TrainConfig)
    return config


class Engine(GrpoTrainer):
    """A trainer whose rollouts are asked for, and come back, by way of Cosmos-RL."""

    def __init__(
        self, config: TrainConfig, data: TrainingData, policy: Policy, learned_from: Sequence[str]
    ) -> None:
        """Begin where the run's imitation ended.

        Args:
            config: the run's.
            data: what it trains on.
            policy: that imitation gave, on the device.
            learned_from: licenses of what it has learned from.
        """
        self.replicas = Replicas(config.cosmos.policies, data.scenarios.device)
        super().__init__(
            policy,
            data.scenarios,
            data.max_agents,
            config=config.grpo,
            sim_config=config.sim,
            reward=config.reward,
            reward_functions=UserRewards(config.reward_functions),
            seed=config.seed,
            names=data.names,
            ranks=self.replicas,
        )
        self.data, self.run_options = data, config
        self.licenses = sorted({*data.licenses, *learned_from})
        self.draws = Draws(config.seed, len(data.names))
        self._given: list[Group] = []
        self._driving_s = 0.0
        self._steps: Appender | None = None

    def drive(self, draws: Sequence[int]) -> list[Group]:
        """Drive the groups of some draws, as many at a time as there are worlds for.

        Raises:
            TrainingError: a reward function gave what is not finite.
        """
        places, size = self.roller.num_groups, self.config.group_size
        groups: list[Group] = []
        started = time.perf_counter()
        self.policy.eval()
        for first in range(0, len(draws), places):
            chunk = list(draws[first : first + places])
            padded = chunk + chunk[:1] * (places - len(chunk))
            scenario = self.draws.scenario(torch.tensor(padded))
            seed = self.draws.group_seed(torch.tensor(padded))
            device = self.scenarios.device
            try:
                with self.learner.precision():
                    record = self.roller.roll(self.policy, scenario.to(device), seed.to(device))
            except NotFinite as error:
                names = [self._name(index) for index in scenario.tolist()]
                origin = Origin.of_groups(names, seed, torch.zeros_like(seed), size)
                self.flight = {"rolls": [{"groups": origin.groups(size)}]}
                raise unrewarded(error, origin, error.world) from error
            for at, draw in enumerate(chunk):
                own = columns(record, slice(at * size, (at + 1) * size))
                name = self._name(int(scenario[at]))
                groups.append(Group(draw, name, int(seed[at]), own))
        self._driving_s += time.perf_counter() - started
        return groups

    def learn(self, groups: Sequence[Group], comm: Communicator | None = None) -> dict[str, float]:
        """One iteration's updates from groups that were driven.

        Args:
            groups: of this replica, in the order of their draws.
            comm: between replicas, where there are several.

        Raises:
            TrainingError: not as many groups as planned, or something is not finite.
            RankError: replicas are missing.
        """
        planned = self._starts.stop - self._starts.start
        if len(groups) != planned:
            raise TrainingError(f"groups: expected {planned} in an iteration, got {len(groups)}")
        if not self.ranks.alone:
            assert comm is not None
            self.replicas.meet(comm)
            # Whoever has driven which: they stand side by side as one replica would have them.
            self.replicas.line_up(min(group.draw for group in groups))
            share = self.ranks.share(self.config.scenarios_per_iteration)
            size = self.config.group_size
            self._starts, self._worlds = share, slice(share.start * size, share.stop * size)
        self._given = list(groups)
        self.learner.set_progress(self.iterations / self.config.iterations)
        before = self.agent_steps
        values = self.iterate(self.iterations)
        values["rollout_s"] += self._driving_s  # where this process has driven
        self._driving_s = 0.0
        elapsed = values["rollout_s"] + values["update_s"]
        values["agent_steps_per_s"] = (self.agent_steps - before) / elapsed
        self.iterations += 1
        return values

    def _roll(self) -> Rolled:
        """The groups that were given, of all replicas."""
        groups, size = self._given, self.config.group_size
        own = [group.name for group in groups], [group.seed for group in groups]
        told = self.ranks.everyone(own)
        names = [name for names, _ in told for name in names]
        seed = torch.tensor([seed for _, seeds in told for seed in seeds])
        lead = torch.zeros(len(names), dtype=torch.int64)
        origin = Origin.of_groups(names, seed, lead, size)
        return self._compared(side_by_side(groups), origin)

    @contextmanager
    def telling(self, run: Path) -> Iterator[None]:
        """Tell the run's flight recorder of what training ends with, and how to look at it."""
        try:
            yield
        except TrainingError as error:
            stopped = {"iteration": self.iterations, **self.flight}
            row = finite(stopped | {"findings": {"stopped": str(error)}})
            recorder = Appender(run / FLIGHT_FILE)
            recorder.write((json.dumps(row) + "\n").encode())
            with suppress(OSError):  # the error says it, too
                recorder.flush()
            recorder.close()
            colocated = self.run_options.cosmos.mode == "colocated"  # drivers count no iterations
            hint = how_to_look(run, error.token, self.iterations) if colocated else ""
            raise TrainingError(f"{error}{hint}", error.token) from error

    def save(self, run: Path, name: str = "policy") -> None:
        """Write the policy into the run's checkpoints.

        Raises:
            OSError: it could not be written.
        """
        path = run / "checkpoints" / f"{name}.safetensors"
        options = self.run_options
        save_policy(path, self.policy, options.policy, options.sim, self.licenses)

    def keep(self, run: Path) -> None:
        """Write the policy that drives next, where `alpagym render` may ask for it."""
        done, limit = self.iterations, self.run_options.keep_policies
        if limit and done < self.config.iterations:
            stride = stride_of(done + 1, limit)
            if done % stride == 0:
                thin_out(run, stride)
                self.save(run, policy_name(done))

    def note(self, run: Path, values: dict[str, float]) -> None:
        """Append what an iteration gave to `STEPS_FILE`, now or when the disk takes it.

        Raises:
            OSError: it was the last one, and could not be written.
        """
        if self._steps is None:
            self._steps = Appender(run / "cosmos" / STEPS_FILE)
            finalize(self, self._steps.close)
        row: dict[str, Any] = {"step": self.iterations - 1, "values": finite(values)}
        row["at"] = time.time()
        self._steps.write((json.dumps(row | {"flight": self.flight}) + "\n").encode())
        try:
            self._steps.flush()
        except OSError:
            if self.iterations >= self.config.iterations:
                raise


@cache
def engine_of(run: Path, device: str = "") -> Engine:
    """The engine of a run, one for a process: those that drive and learn in it share the policy.

    Args:
        run: its directory, which `alpagym train backend=cosmos` has prepared.
        device: instead of the run's.

    Raises:
        CheckpointError, ScenarioError, UsageError, ValueError: nothing to begin with.
    """
    config = run_config(run)
    if config.threads > 0:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    where = choose_device(device or config.device)
    policy, _, learned_from = load_policy(run / BEFORE_FILE)
    say: Callable[[str], None] = print
    data = resident(config, where, say)
    atexit.register(data.close)
    config = replace(config, policy=policy.made_of)
    return Engine(config, data, policy.to(where), learned_from)
