"""`alpagym bench binding`: what a call from Python costs, on worlds that are all done."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from alpagym import sim
from alpagym.bench import sources
from alpagym.bench.cases import BindingCase
from alpagym.bench.context import Context, Line
from alpagym.bench.timing import measure
from alpagym.config import SimConfig
from alpagym.scenarios.batch import batch, max_agents


def run(case: BindingCase, context: Context) -> Iterator[Line]:
    """Microseconds of a call: borrowing and checking every tensor, and the launches on a GPU.

    By the clock, and as CPU time, which other programs on the machine disturb less. Worlds that are
    done stand still: what kernels still do is little, and counted.
    """
    device, worlds = context.device, case.worlds
    hosts = sources.kept("procedural", 8, context.data).hosts[:1]
    config = SimConfig()
    params, packed = sim.make_params(config), batch(hosts, device)
    state = sim.make_state(worlds, max_agents(hosts), device=device)
    other = state.clone()
    nothing = torch.zeros(worlds, dtype=torch.bool, device=device)
    nobody = torch.full((worlds,), -1, dtype=torch.int32, device=device)
    sim.reset(packed, state, ~nothing, params)
    state.terminated.fill_(True)
    outcome, seen = sim.make_outcome(state), sim.make_observation(state, config)
    action = torch.zeros(worlds, 1, sim.action_size(config), device=device)
    weights = torch.zeros(1, len(sim.RewardTerm), device=device)
    calls: dict[str, Callable[[], object]] = {
        "step": lambda: sim.step(packed, state, outcome, action, weights, params),
        "observe": lambda: sim.observe(packed, state, seen, params, mask=nothing),
        "reset": lambda: sim.reset(packed, state, nothing, params),
        "fork": lambda: sim.fork(other, state, nobody),
        "noise": lambda: sim.noise(packed, state, action),
    }
    # On a GPU few enough that its queue of launches is never full, which calls would wait for.
    count = 20 if context.quick else 100 if device.type == "cuda" else 1000

    def many(call: Callable[[], object]) -> Callable[[], object]:
        def run_all() -> None:
            for _ in range(count):
                call()

        return run_all

    for name, call in calls.items():
        timing = measure(many(call), device, repeats=context.repeats_or(7), by_host=True)
        yield f"{case.name}.{name}_us_per_call", timing.wall.scaled(1e6 / count)
        if device.type == "cpu":
            yield f"{case.name}.{name}_cpu_us_per_call", timing.cost.scaled(1e6 / count)
