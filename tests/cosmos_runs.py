"""Small runs that wait for Cosmos-RL."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf
from rich.console import Console

from alpagym.command_line import compose, to_config
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
