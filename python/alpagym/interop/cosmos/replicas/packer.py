"""How rollouts get from those that drive to those that learn."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import torch
from cosmos_rl.dispatcher.data.packer.base import BaseDataPacker

from alpagym.interop.cosmos.group import Group, Member


class GroupPacker(BaseDataPacker):
    """Colocated: completions are handed on as they are.

    Apart: groups go through files of a folder that all replicas see, and completions, which
    Cosmos-RL sends as JSON, say in which file and which member they are. A file is taken away when
    its group is read.
    """

    def __init__(self, folder: Path | None) -> None:
        """`folder` is for groups that travel; None where they need not."""
        super().__init__()
        self.folder = folder
        self.device = torch.device("cpu")
        self._read: dict[str, Group] = {}

    def get_rollout_input(self, item: Any, **kwargs: Any) -> Any:
        return item

    def get_rollout_output(
        self,
        completions: list[Member],
        completed_conversations: Any,
        logprobs: Any,
        token_ids: Any,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """What is posted of the rollouts of one group."""
        sent: list[Any] = list(completions)
        if self.folder is not None and completions:
            group = completions[0].group
            path = self.folder / f"{group.draw:08d}-{uuid.uuid4().hex}.safetensors"
            group.write(path)
            sent = [json.dumps({"file": path.name, "member": m.index}) for m in completions]
        return sent, completed_conversations, logprobs, token_ids, kwargs

    def get_policy_input(
        self, sample: Any = None, rollout_output: Any = None, *args: Any, **kwargs: Any
    ) -> Member:
        """The rollout that a completion stands for."""
        if isinstance(rollout_output, Member):
            return rollout_output
        assert self.folder is not None
        at = json.loads(rollout_output)
        name = str(at["file"])
        if name not in self._read:
            path = self.folder / Path(name).name
            self._read[name] = Group.read(path, self.device)
            path.unlink()
        return Member(self._read[name], int(at["member"]))

    def forget(self) -> None:
        """Give back groups that were learned from."""
        self._read.clear()

    def policy_compute_max_len(self, processed_samples: list[Any]) -> int:
        return 1

    def policy_collate_fn(self, processed_samples: list[Any], computed_max_len: int) -> Any:
        return {"rollouts": processed_samples}
