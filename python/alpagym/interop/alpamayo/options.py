"""Options of `alpagym convert-checkpoint`, the schema of its command line."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CheckpointConfig:
    """`alpagym convert-checkpoint`."""

    checkpoint: str = ""
    """Folder of an Alpamayo checkpoint: a release, one for training, or an export of Cosmos-RL."""
    out: str = ""
    """Folder to write: a new one, or an empty one."""
    to: str = ""
    """Layout to write: alpamayo_r1, alpamayo1_5 (what AlpaSim drives with), training or export."""
    vlm: str = ""
    """Folder of the model's VLM (nvidia/Cosmos-Reason2-8B); training and export need its tokenizer
    where the checkpoint has none."""
    link: bool = False
    """Link to files of weights that stay as they are instead of copying them."""
    check: bool = False
    """Then load what was written, show it a scene of gray frames, and draw from it."""
    device: str = "auto"
    """Where to check: auto, cpu, cuda, cuda:1."""
