"""Cosmos-RL's rollout backend that is our simulator."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from cosmos_rl.rollout.rollout_base import RolloutBase, RolloutRegistry
from cosmos_rl.rollout.schema import RolloutResult

from alpagym.interop.cosmos.config import BACKEND, RUN
from alpagym.interop.cosmos.engine import Engine, engine_of
from alpagym.interop.cosmos.group import Member


def own_device() -> str:
    """The GPU that Cosmos-RL means this process to take; the run's device where there is none."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else ""


@RolloutRegistry.register(BACKEND)
class AlpagymRollout(RolloutBase):
    """Drives all groups of a call in one batch of worlds."""

    def post_init_hook(self, **kwargs: Any) -> None:
        self._model_param_map = None
        self._run = Path(self.config.custom[RUN])

    def init_engine(
        self,
        quantization: str | None = None,
        seed: int | None = None,
        load_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        self._engine: Engine = engine_of(self._run, own_device())
        self._engine_initialized = True

    def rollout_generation(
        self, payloads: list[Any], *args: Any, is_validation: bool = False, **kwargs: Any
    ) -> list[RolloutResult]:
        """One batched call of the simulator for all payloads times the group size.

        Raises:
            TrainingError: a reward is not finite.
        """
        with self._engine.telling(self._run):
            groups = self._engine.drive([p.prompt_idx for p in payloads])
        return [
            RolloutResult(prompt=p.prompt, completions=[Member(g, i) for i in range(g.size)])
            for p, g in zip(payloads, groups, strict=True)
        ]

    def get_underlying_model(self) -> torch.nn.Module:
        return self._engine.policy

    def set_underlying_model(self, model: torch.nn.Module) -> None:
        """Take what the trainer of this process learns on: the same object, of the same engine.

        Raises:
            ValueError: it is another.
        """
        if model is not self._engine.policy:
            raise ValueError("policy: expected that of this process's engine, got another")

    def shutdown(self) -> None:
        self._engine_initialized = False


def reward(completion: Member, *args: Any, **kwargs: Any) -> float:
    """What Cosmos-RL shows as reward, and makes advantages of that nobody uses: the return."""
    return completion.reward
