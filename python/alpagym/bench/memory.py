"""What one more world costs in memory: part of `alpagym bench step`."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from alpagym import sim
from alpagym.bench.cases import FORMATS, MemoryCase
from alpagym.bench.context import Context, Line
from alpagym.bench.sources import sim_config
from alpagym.bench.timing import Measurement
from alpagym.config import SimConfig


def run(case: MemoryCase, context: Context) -> Iterator[Line]:
    """Bytes of a world's state, outcome and action, all it has of its own; and its observation."""
    config = sim_config(case.sim)
    few, many = (_bytes(case, worlds, config, context.device) for worlds in (64, 128))
    yield f"{case.name}.bytes_per_world", Measurement((many - few) / 64)
    world = sim.make_state(1, case.agents, num_egos=case.egos, device=context.device)
    for name in case.formats:
        seen = sim.make_observation(world, sim_config(case.sim | FORMATS[name]))
        size = sum(tensor.nbytes for tensor in seen.tensors().values())
        yield f"{case.name}.{name}.observation_bytes_per_world", Measurement(size)


def _bytes(case: MemoryCase, worlds: int, config: SimConfig, device: torch.device) -> int:
    state = sim.make_state(worlds, case.agents, num_egos=case.egos, config=config, device=device)
    outcome = sim.make_outcome(state)
    action = torch.zeros(*state.ego.shape, sim.action_size(config), device=device)
    tensors = [*state.tensors().values(), *outcome.tensors().values(), action]
    return sum(tensor.nbytes for tensor in tensors)
