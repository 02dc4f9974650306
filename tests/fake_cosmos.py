"""As much of Cosmos-RL as our replicas import, so that what they register can be looked at."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass
from typing import Any

import pytest
import torch


class Registry:
    """Classes by name."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def register(self, name: str) -> Any:
        def keep(cls: Any) -> Any:
            self.found[name] = cls
            return cls

        return keep


class RolloutBase:
    def __init__(self, config: Any, parallel_dims: Any = None, device: Any = None, **kw: Any):
        self.config, self.device, self._engine_initialized = config, device, False
        self.post_init_hook(**kw)


class Trainer:
    def __init__(self, config: Any, parallel_dims: Any, **kw: Any) -> None:
        self.config, self.local_rank = config, 0
        self.data_packer = kw["data_packer"]


class BaseDataPacker: ...


class IdentityWeightMapper:
    def __init__(self, config: Any) -> None: ...


class ModelRegistry:
    models: list[type] = []  # noqa: RUF012

    @classmethod
    def register_model(cls, model: type, mapper: type) -> None:
        cls.models.append(model)


@dataclass
class RolloutResult:
    prompt: Any
    completions: list[Any]


def install(patch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Put it among the modules; returns the registries and what `launch_worker` was called with."""
    for name in [m for m in sys.modules if m.startswith("alpagym.interop.cosmos.replicas")]:
        patch.delitem(sys.modules, name)
    rollouts, trainers = Registry(), Registry()
    launched: dict[str, Any] = {}
    tokenizers: list[Any] = []
    configs: list[Any] = []

    def register_tokenizer_loader(predicate: Any, loader: Any) -> None:
        tokenizers.append((predicate, loader))

    def register_local_model_config(predicate: Any, factory: Any) -> None:
        configs.append((predicate, factory))

    contents: dict[str, dict[str, Any]] = {
        "rollout.rollout_base": {"RolloutBase": RolloutBase, "RolloutRegistry": rollouts},
        "rollout.schema": {"RolloutResult": RolloutResult},
        "dispatcher.data.packer.base": {"BaseDataPacker": BaseDataPacker},
        "policy.model.base": {
            "IdentityWeightMapper": IdentityWeightMapper,
            "ModelRegistry": ModelRegistry,
        },
        "policy.trainer.base": {"Trainer": Trainer, "TrainerRegistry": trainers},
        "utils.model_config": {"register_local_model_config": register_local_model_config},
        "utils.no_op_tokenizer": {"NoOpTokenizer": object},
        "utils.util": {"register_tokenizer_loader": register_tokenizer_loader},
        "launcher.worker_entry": {"main": lambda **kw: launched.update(kw)},
    }
    for path, values in contents.items():
        parts = ["cosmos_rl", *path.split(".")]
        for count in range(1, len(parts) + 1):
            name = ".".join(parts[:count])
            if name not in sys.modules:
                module = types.ModuleType(name)
                module.__path__ = []
                patch.setitem(sys.modules, name, module)
        vars(sys.modules[".".join(parts)]).update(values)
    transformers = types.ModuleType("transformers")
    vars(transformers)["PretrainedConfig"] = type("PretrainedConfig", (), {})
    patch.setitem(sys.modules, "transformers", transformers)
    return types.SimpleNamespace(
        rollouts=rollouts.found, trainers=trainers.found, launched=launched, configs=configs
    )


def payload(index: int) -> types.SimpleNamespace:
    return types.SimpleNamespace(prompt_idx=index, prompt=None)


def rollout(index: int, completion: Any) -> types.SimpleNamespace:
    return types.SimpleNamespace(prompt_idx=index, prompt=None, completion=completion)


def tensors(model: torch.nn.Module) -> list[torch.Tensor]:
    return [t.clone() for t in model.state_dict().values()]
