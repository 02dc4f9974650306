"""Small runs that wait for Cosmos-RL."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import OmegaConf
from rich.console import Console
from torch import Tensor

from alpagym.checkpoint import load_policy
from alpagym.command_line import compose, to_config
from alpagym.grpo.trainer import GrpoTrainer
from alpagym.interop.cosmos.draws import Draws
from alpagym.interop.cosmos.engine import Engine
from alpagym.resume import BEFORE_FILE
from alpagym.reward_functions import UserRewards
from alpagym.train import train

OPTIONS = (
    *("backend=cosmos", "device=cpu", "threads=1", "seed=5", "sim.max_steps=30", "save_every=1"),
    *("data.train=6", "data.held_out=3", "data.validation=1", "data.workers=1", "num_replays=0"),
    *("imitation.max_epochs=1", "policy.width=8", "policy.hidden=16", "grpo.iterations=3"),
    *("grpo.group_size=4", "grpo.scenarios_per_iteration=4", "grpo.minibatch_size=128"),
    *("grpo.learning_rate=1e-3", "grpo.epochs=2", "grpo.kl_weight=0.01"),
)


def prepared(folder: Path, name: str, *options: str) -> Path:
    """A run directory in which only GRPO is missing."""
    return go(folder, name, "cosmos.launch=false", *options)


def go(folder: Path, name: str, *options: str) -> Path:
    """`alpagym train` with a few options; returns the run directory."""
    node = compose("train", [*OPTIONS, f"runs={folder}", f"name={name}", *options])
    return train(to_config(node), OmegaConf.to_yaml(node), Console(quiet=True))


class SameDraws(GrpoTrainer):
    """`alpagym train`'s trainer, but for what it draws."""

    draws: Draws

    def _draw(self) -> tuple[Tensor, Tensor, Tensor]:
        count = self.config.starts
        numbers = self.iterations * count + torch.arange(count)
        lead = torch.zeros(count, dtype=torch.int64)
        return self.draws.scenario(numbers), self.draws.group_seed(numbers), lead


def without_cosmos(engine: Engine, run: Path) -> tuple[GrpoTrainer, list[dict[str, float]]]:
    """What `alpagym train` makes of a run with the draws of Cosmos-RL's, and what it logs."""
    options = engine.run_options
    trainer = SameDraws(
        load_policy(run / BEFORE_FILE, engine.scenarios.device)[0],
        engine.scenarios,
        engine.data.max_agents,
        config=engine.config,
        sim_config=options.sim,
        reward=options.reward,
        reward_functions=UserRewards(options.reward_functions),
        seed=options.seed,
        names=engine.data.names,
    )
    trainer.draws = engine.draws
    rows: list[dict[str, float]] = []
    trainer.train(lambda iteration, values: rows.append(values))
    return trainer, rows
