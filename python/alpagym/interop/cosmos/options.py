"""Options of training on Cosmos-RL."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class CosmosConfig:
    """How Cosmos-RL is started, with `backend=cosmos`: `docs/cosmos.md`."""

    mode: str = "colocated"
    """`colocated`: each process drives and learns; or `disaggregated`: some drive, others learn."""
    policies: int = 1
    """Replicas of what learns, one GPU each; colocated ones drive as well."""
    rollouts: int = 1
    """Replicas of what drives, one GPU each, where they are apart."""
    port: int = 8000
    """Of Cosmos-RL's controller, which all replicas ask."""
    command: str = "cosmos-rl"
    """Program that starts the replicas."""
    launch: bool = True
    """Otherwise everything is prepared and the command is printed, for whoever starts it."""
    options: dict[str, Any] = field(default_factory=dict)
    """Other keys of Cosmos-RL's configuration, e.g. `{train.ckpt.max_keep: 3}`."""
