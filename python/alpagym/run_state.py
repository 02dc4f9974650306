"""Where a run stands, as one file: what it takes to go on as if nothing had happened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from alpagym.checkpoint import CheckpointError, write_tensors

FORMAT = "alpagym-run-1"
State = Mapping[str, Any]
"""Nested dictionaries of tensors and of what JSON holds."""


def save_state(path: Path, state: State) -> None:
    """Write a state, whole or not at all; what was there before is kept until then.

    Raises:
        OSError: it could not be written.
    """
    tensors: dict[str, torch.Tensor] = {}
    plain = _split(state, "", tensors)
    write_tensors(path, tensors, {"format": FORMAT, "state": plain})


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote, on the host.

    Raises:
        CheckpointError: no such file, or not a state of this format.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safe_open(path, "pt", device="cpu") as stored:
            header = json.loads((stored.metadata() or {}).get("alpagym", "null"))
            if not isinstance(header, dict) or header.get("format") != FORMAT:
                raise ValueError(f"expected metadata of format {FORMAT}")
            state: dict[str, Any] = header["state"]
            for name in stored.keys():  # noqa: SIM118
                *groups, last = name.split("/")
                at = state
                for group in groups:
                    at = at[group]
                at[last] = stored.get_tensor(name)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: not the state of a run: {reason}") from error
    return state


def _split(state: State, prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What JSON holds of a state; its tensors go to `tensors`, by names like paths."""
    plain: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, torch.Tensor):
            tensors[f"{prefix}{name}"] = value
        elif isinstance(value, Mapping):
            plain[name] = _split(value, f"{prefix}{name}/", tensors)
        else:
            plain[name] = value
    return plain
