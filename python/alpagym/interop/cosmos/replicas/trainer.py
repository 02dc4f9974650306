"""Cosmos-RL's trainer that is ours."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import finalize

import torch
from cosmos_rl.policy.model.base import IdentityWeightMapper
from cosmos_rl.policy.trainer.base import Trainer, TrainerRegistry

from alpagym.interop.cosmos.config import RUN, TRAINER
from alpagym.interop.cosmos.engine import engine_of
from alpagym.interop.cosmos.group import whole
from alpagym.interop.cosmos.replicas.backend import own_device
from alpagym.resume import Lock


@TrainerRegistry.register(TRAINER)
class AlpagymTrainer(Trainer):
    """Learns as `alpagym train` does; Cosmos-RL tells when, and carries rollouts and weights."""

    def __init__(self, config: Any, parallel_dims: Any, **kwargs: Any) -> None:
        """Take the engine of this process, and show Cosmos-RL the weights it may carry."""
        kwargs.pop("device", None)
        super().__init__(config, parallel_dims, **kwargs)
        self.run = Path(config.custom[RUN])
        finalize(self, Lock(self.run / "cosmos", shared=True).close)  # while it is at work
        self.engine = engine_of(self.run, own_device())
        self.device = self.engine.scenarios.device
        self.data_packer.device = self.device
        model: Any = self.engine.policy
        self.model = model
        weights = list(model.state_dict().items())  # which share memory with what learns
        self.weight_mapper = model.weight_mapper = IdentityWeightMapper(None)
        model.trainable_params = [name for name, _ in model.named_parameters()]
        model.weight_sync_transforms = weights
        self.map_w_from_policy_to_rollout = dict(weights)

    def step_training(
        self,
        rollouts: list[Any],
        current_step: int = 0,
        total_steps: int = 0,
        remain_samples_num: int = 0,
        inter_policy_nccl: Any = None,
        is_master_replica: bool = True,
        do_save_checkpoint: bool = False,
        **kwargs: Any,
    ) -> dict[str, float]:
        """Learn from whole groups; returns what Cosmos-RL reports.

        Raises:
            TrainingError, ValueError: groups are missing, or something is not finite.
        """
        started, engine = time.perf_counter(), self.engine
        unpack = self.data_packer.get_policy_input
        groups = whole([unpack(r.prompt, r.completion) for r in rollouts])
        with engine.telling(self.run):
            values = engine.learn(groups, inter_policy_nccl)
        self.data_packer.forget()
        if is_master_replica:
            engine.keep(self.run)
            if do_save_checkpoint or engine.iterations == engine.config.iterations:
                engine.save(self.run)
            engine.note(self.run, values)  # whoever reads the last one looks for the policy
        loss = values.get("policy_loss", 0.0)
        report = {
            "train/loss_avg": loss,
            "train/loss_max": loss,
            "train/learning_rate": engine.learner.optimizer.param_groups[0]["lr"],
            "train/iteration_time": time.perf_counter() - started,
            "train_step": float(current_step),
        }
        return report | {f"alpagym/{name}": float(value) for name, value in values.items()}

    def sync_all_states(
        self,
        is_send: bool,
        send_hook: Callable[[torch.Tensor], Any],
        recv_hook: Callable[[torch.Tensor], Any],
        reference_model: bool = False,
    ) -> int:
        """Give another policy replica everything that learning depends on, or take it."""
        learner = self.engine.learner
        modules = [learner.policy, *([learner.anchor] if learner.anchor is not None else [])]
        tensors = [t for module in modules for t in module.state_dict().values()]
        learned = [p for group in learner.optimizer.param_groups for p in group["params"]]
        for parameter in learned:
            state = learner.optimizer.state[parameter]
            if not state:
                state["step"] = torch.zeros(())
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            tensors += [state[name] for name in ("step", "exp_avg", "exp_avg_sq")]
        done = torch.tensor(float(self.engine.iterations))
        shuffles = self.engine.generator.get_state()
        for tensor in [*tensors, done, shuffles]:
            there = tensor.to(self.device).contiguous()
            (send_hook if is_send else recv_hook)(there)
            if not is_send:
                tensor.copy_(there)
        if not is_send:
            self.engine.iterations = int(done)
            self.engine.generator.set_state(shuffles)
        return len(tensors)

    def weight_resume(self) -> dict[str, Any]:
        return {}

    def update_lr_schedulers(self, total_steps: int) -> None:
        """Nothing: learning rates fall with our iterations."""

    def save_checkpoint(self, current_step: int, *args: Any, **kwargs: Any) -> None:
        self.engine.save(self.run)

    def invalidate_checkpoint_completion(self, current_step: int) -> None:
        """Nothing: a policy file is whole or not there."""

    def build_optimizers(self) -> torch.optim.Optimizer:
        return self.engine.learner.optimizer

    def build_lr_schedulers(self) -> None:
        """Nothing, as `update_lr_schedulers`."""

    def step_validation(self) -> dict[str, float]:
        return {}

    def export_safetensors(self, *args: Any, **kwargs: Any) -> None:
        self.engine.save(self.run)

    def model_load_from_hf(self) -> None:
        """Nothing: the engine began with the run's policy."""

    def model_resume_from_checkpoint(self) -> None:
        """Nothing, as `model_load_from_hf`."""
