"""What Cosmos-RL must know of before it starts: names, and a policy that is no language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from cosmos_rl.launcher.worker_entry import main as launch_worker
from cosmos_rl.policy.model.base import IdentityWeightMapper, ModelRegistry
from cosmos_rl.utils.model_config import register_local_model_config
from cosmos_rl.utils.no_op_tokenizer import NoOpTokenizer
from cosmos_rl.utils.util import register_tokenizer_loader
from transformers import PretrainedConfig

from alpagym.interop.cosmos.config import RUN
from alpagym.interop.cosmos.draws import DrawDataset
from alpagym.interop.cosmos.engine import run_config
from alpagym.interop.cosmos.replicas.backend import AlpagymRollout, reward
from alpagym.interop.cosmos.replicas.packer import GroupPacker
from alpagym.interop.cosmos.replicas.trainer import AlpagymTrainer

REGISTERED = (AlpagymRollout, AlpagymTrainer)
"""By being imported."""


class AlpagymConfig(PretrainedConfig):
    """Says of a policy no more than that it is one of ours."""

    model_type = "alpagym"


class AlpagymModel(torch.nn.Module):
    """Stands for our policies among Cosmos-RL's models; the trainer makes them."""

    @staticmethod
    def supported_model_types() -> list[str]:
        return [AlpagymConfig.model_type]


def is_policy(path: str) -> bool:
    """Whether a model's path is a policy file of ours."""
    return path.endswith(".safetensors")


def dataset(config: Any) -> DrawDataset:
    """All draws that the iterations of a run need."""
    grpo = run_config(Path(config.custom[RUN])).grpo
    return DrawDataset(grpo.iterations * grpo.scenarios_per_iteration)


def packer(config: Any) -> GroupPacker:
    """A packer; between processes groups travel through `cosmos/groups` of the run."""
    apart = config.mode != "colocated"
    return GroupPacker(Path(config.custom[RUN]) / "cosmos" / "groups" if apart else None)


def main() -> None:
    """Be the controller or a replica, as Cosmos-RL's environment says."""
    register_tokenizer_loader(predicate=is_policy, loader=lambda path: NoOpTokenizer())
    register_local_model_config(predicate=is_policy, factory=lambda path: AlpagymConfig())
    ModelRegistry.register_model(AlpagymModel, IdentityWeightMapper)
    launch_worker(dataset=dataset, data_packer=packer, reward_fns=[reward])
