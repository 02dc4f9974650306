"""What a call from Python costs: one world that is done, so that kernels return at once."""

from __future__ import annotations

import torch
from bench_step import scenarios
from cases import BindingCase
from timing import Measurement, measure

from alpagym import sim
from alpagym.config import SimConfig
from alpagym.scenarios.batch import batch


def run(case: BindingCase, device: torch.device, *, quick: bool) -> dict[str, Measurement]:
    """Microseconds of a call: borrowing and checking every tensor, and the launches on a GPU."""
    hosts = scenarios(8)[:1]
    config = SimConfig()
    params, packed = sim.make_params(config), batch(hosts, device)
    state = sim.make_state(1, hosts[0].tracks.num_agents, device=device)
    other = state.clone()
    nothing = torch.zeros(1, dtype=torch.bool, device=device)
    nobody = torch.full((1,), -1, dtype=torch.int32, device=device)
    sim.reset(packed, state, ~nothing, params)
    state.terminated.fill_(True)
    outcome, seen = sim.make_outcome(state), sim.make_observation(state, config)
    action = torch.zeros(1, 1, sim.action_size(config), device=device)
    weights = torch.zeros(1, len(sim.RewardTerm), device=device)
    calls = {
        "step": lambda: sim.step(packed, state, outcome, action, weights, params),
        "observe": lambda: sim.observe(packed, state, seen, params, mask=nothing),
        "reset": lambda: sim.reset(packed, state, nothing, params),
        "fork": lambda: sim.fork(other, state, nobody),
        "noise": lambda: sim.noise(packed, state, action),
    }
    count = 200 if quick else 2000

    def many(call) -> None:
        for _ in range(count):
            call()

    return {
        f"{name}_us_per_call": measure(
            lambda call=call: many(call), device, repeats=3 if quick else 7
        ).scaled(1e6 / count)
        for name, call in calls.items()
    }
