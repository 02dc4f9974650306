"""What one more world costs in memory: part of `alpagym bench step`."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from alpagym import sim
from alpagym.bench.cases import MemoryCase
from alpagym.bench.context import Context, Line
from alpagym.bench.timing import Measurement
from alpagym.config import SimConfig


def run(case: MemoryCase, context: Context) -> Iterator[Line]:
    """Bytes of a world's state, outcome and action: all that a world has of its own."""
    few, many = (_bytes(case, worlds, context.device) for worlds in (64, 128))
    yield f"{case.name}.bytes_per_world", Measurement((many - few) / 64)


def _bytes(case: MemoryCase, worlds: int, device: torch.device) -> int:
    config = SimConfig()
    state = sim.make_state(worlds, case.agents, num_egos=case.egos, config=config, device=device)
    outcome = sim.make_outcome(state)
    action = torch.zeros(*state.ego.shape, sim.action_size(config), device=device)
    tensors = [*state.tensors().values(), *outcome.tensors().values(), action]
    return sum(tensor.nbytes for tensor in tensors)
