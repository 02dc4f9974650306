"""Which device to run on, and what to call it."""

from __future__ import annotations

import torch

from alpagym import sim
from alpagym.ranks import ALONE, Ranks


def choose_device(name: str, ranks: Ranks = ALONE) -> torch.device:
    """`auto` is a GPU that this build can use, else the CPU.

    Of several ranks on a machine each takes a GPU of its own, unless `name` tells which.

    Raises:
        ValueError: a device that is not there, or fewer GPUs than ranks.
    """
    device = _named(name)
    if ranks.alone or device.type != "cuda":
        return device
    if device.index is None:
        if ranks.local_count > torch.cuda.device_count():
            raise ValueError(
                f"device={name}: expected a GPU for each of the {ranks.local_count} ranks on this "
                f"machine, found {torch.cuda.device_count()}"
            )
        device = torch.device("cuda", ranks.local_rank)
    torch.cuda.set_device(device)
    return device


def _named(name: str) -> torch.device:
    usable = sim.cuda_built() and torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if usable else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device: expected cpu, cuda or cuda:<index>, got {name}") from error
    if device.type == "cuda" and not usable:
        reason = (
            "no NVIDIA driver was found"
            if sim.cuda_built()
            else "this build of alpagym has no CUDA backend"
        )
        raise ValueError(f"device={name}: {reason}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device={name}: found {torch.cuda.device_count()} GPUs, counted from 0")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device: expected cpu, cuda or cuda:<index>, got {name}")
    return device


def device_name(device: torch.device) -> str:
    """The GPU's name, or the number of CPU threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"
