"""`alpagym bench train`: one GRPO iteration end to end, counted as the learner counts."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Iterator
from dataclasses import replace

import torch

from alpagym import sim
from alpagym.bench import sources
from alpagym.bench.cases import SEED, TrainCase
from alpagym.bench.context import Context, Line
from alpagym.bench.timing import Measurement, measure
from alpagym.config import REWARD_PRESETS
from alpagym.grpo.trainer import GrpoTrainer
from alpagym.policies.late_fusion import LateFusion
from alpagym.scenarios.batch import batch, max_agents
from alpagym.training_config import GrpoConfig, PolicyConfig, TrainConfig


def run(case: TrainCase, context: Context) -> Iterator[Line]:
    """Steps of live egos that reach the learner in a second, and seconds of rollout and update.

    On a GPU rollouts are replayed as one CUDA graph, and then driven eagerly for comparison.
    """
    yield from _iterations(case, context, case.name, capture=True)
    if context.device.type == "cuda":
        yield from _iterations(case, context, f"{case.name}.eager", capture=False)


def _iterations(case: TrainCase, context: Context, label: str, *, capture: bool) -> Iterator[Line]:
    count = 8 if context.quick else case.scenarios
    hosts = sources.kept("procedural", count, context.data).hosts
    sim_config = replace(TrainConfig().sim, max_steps=10 if context.quick else 0)
    torch.manual_seed(SEED)
    policy = LateFusion(PolicyConfig(), sim_config).to(context.device)
    trainer = GrpoTrainer(
        policy,
        sim.with_near(batch(hosts, context.device), sim_config),
        max_agents(hosts),
        config=GrpoConfig(
            scenarios_per_iteration=4 if context.quick else case.groups,
            group_size=case.group_size,
            capture=capture,
        ),
        sim_config=sim_config,
        reward=REWARD_PRESETS["dense"],
        seed=SEED,
    )
    weights = copy.deepcopy(policy.state_dict())
    optimizer = copy.deepcopy(trainer.learner.optimizer.state_dict())
    logged: list[dict[str, float]] = []
    before = 0

    def restore() -> None:
        nonlocal before
        policy.load_state_dict(weights)
        trainer.learner.optimizer.load_state_dict(copy.deepcopy(optimizer))
        trainer.generator.manual_seed(SEED)
        trainer.sampler.weight.fill_(1.0)
        before = trainer.agent_steps

    def iterate() -> None:
        logged.append(trainer.iterate(0))

    repeats = context.repeats_or(2 if context.quick else 3)
    warm_up = 2 if context.device.type == "cuda" else 1  # the second rollout is captured
    whole = measure(iterate, context.device, restore=restore, repeats=repeats, warm_up=warm_up).wall
    steps = trainer.agent_steps - before
    yield f"{label}.agent_steps_per_s", whole.inverse(steps)
    for part in ("rollout_s", "update_s"):
        value = statistics.median(values[part] for values in logged[-repeats:])
        yield f"{label}.{part}", Measurement(value, whole.spread, repeats)
