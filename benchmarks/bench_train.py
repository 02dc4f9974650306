"""End to end: one GRPO iteration, counted as the learner counts."""

from __future__ import annotations

import copy
import statistics

import torch
from bench_step import scenarios
from cases import SEED, TrainCase
from timing import Measurement, measure

from alpagym.config import REWARD_PRESETS, GrpoConfig, PolicyConfig, SimConfig
from alpagym.grpo.trainer import GrpoTrainer
from alpagym.policies.late_fusion import LateFusion
from alpagym.scenarios.batch import batch, max_agents


def run(case: TrainCase, device: torch.device, *, quick: bool) -> dict[str, Measurement]:
    """Seconds of rollout and update, and steps of live egos that reach the learner in a second."""
    hosts = scenarios(8 if quick else case.scenarios)
    sim_config = SimConfig(max_steps=10 if quick else 0)
    torch.manual_seed(SEED)
    policy = LateFusion(PolicyConfig(), sim_config).to(device)
    trainer = GrpoTrainer(
        policy,
        batch(hosts, device),
        max_agents(hosts),
        config=GrpoConfig(
            scenarios_per_iteration=4 if quick else case.groups, group_size=case.group_size
        ),
        sim_config=sim_config,
        reward=REWARD_PRESETS["dense"],
        seed=SEED,
    )
    weights = copy.deepcopy(policy.state_dict())
    optimizer = copy.deepcopy(trainer.optimizer.state_dict())
    logged: list[dict[str, float]] = []
    before = 0

    def restore() -> None:
        nonlocal before
        policy.load_state_dict(weights)
        trainer.optimizer.load_state_dict(copy.deepcopy(optimizer))
        trainer.generator.manual_seed(SEED)
        trainer.sampler.weight.fill_(1.0)
        before = trainer.agent_steps

    def iterate() -> None:
        logged.append(trainer.iterate(0))

    repeats = 2 if quick else 3
    whole = measure(iterate, device, restore=restore, repeats=repeats, warm_up=1)
    steps = trainer.agent_steps - before
    result = {"agent_steps_per_s": whole.inverse(steps)}
    for part in ("rollout_s", "update_s"):
        value = statistics.median(values[part] for values in logged[-repeats:])
        result[part] = Measurement(value, whole.spread, repeats)
    return result
