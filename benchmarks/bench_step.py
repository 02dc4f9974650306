"""The simulator's stages on a batch of worlds."""

from __future__ import annotations

from functools import cache

import torch
from cases import SEED, StepCase
from timing import Measurement, measure
from torch import Tensor

from alpagym import sim
from alpagym.config import ActionType, SimConfig, Traffic
from alpagym.scenarios.batch import batch, max_agents
from alpagym.scenarios.procedural import generate_many
from alpagym.scenarios.scenario import Scenario
from alpagym.types import State

WARM_STEPS = 10
"""Steps driven before the state is kept, so that traffic moves and accelerations are real."""


@cache
def scenarios(count: int) -> list[Scenario]:
    """The same procedural scenarios for every case that wants as many."""
    return generate_many(count, SEED)


def actions(config: SimConfig, state: State) -> Tensor:
    """An action for every ego: small random controls, or the way straight on at its speed."""
    generator = torch.Generator().manual_seed(SEED)
    if config.action is not ActionType.trajectory:
        drawn = torch.randn(*state.ego.shape, sim.action_size(config), generator=generator)
        return drawn * torch.tensor([1.0, 0.01])
    speed = state.speed.gather(1, state.ego.clamp(min=0).long()).cpu()
    way = speed.unsqueeze(-1) * 0.1 * torch.arange(1, config.plan_steps + 1)
    still = torch.zeros_like(way)
    return torch.stack([way, still, still], -1).flatten(2).contiguous()


def run(case: StepCase, device: torch.device, *, quick: bool) -> dict[str, Measurement]:
    """Microseconds of each stage, by world and step, and the rate of ego steps."""
    hosts = scenarios(8 if quick else case.scenarios)
    traffic = Traffic[case.traffic]
    config = SimConfig(
        action=ActionType[case.action], traffic=traffic, multi_agent=case.multi_agent, end_on=()
    )
    params = sim.make_params(config)
    packed = batch(hosts, device)
    egos = int(packed.num_egos.max()) if case.multi_agent else 1
    state = sim.make_state(case.worlds, max_agents(hosts), num_egos=egos, device=device)
    state.scenario.copy_(torch.arange(case.worlds) % len(hosts))
    every = torch.ones(case.worlds, dtype=torch.bool, device=device)
    outcome = sim.make_outcome(state)
    seen = sim.make_observation(state, config)
    weights = torch.ones(1, len(sim.RewardTerm), device=device)
    sim.reset(packed, state, every, params)
    action = actions(config, state).to(device)
    noise = torch.zeros_like(action)

    for _ in range(WARM_STEPS):
        sim.step(packed, state, outcome, action, weights, params)
    kept = state.clone()
    identity = torch.arange(case.worlds, dtype=torch.int32, device=device)
    steps, repeats = (5, 3) if quick else (case.steps, 7)
    num_egos = int((kept.ego >= 0).sum())

    def restore() -> None:
        sim.fork(kept, state, identity)

    def step() -> None:
        for _ in range(steps):
            sim.step(packed, state, outcome, action, weights, params)

    def observe() -> None:
        for _ in range(steps):
            sim.observe(packed, state, seen, params)

    def step_and_observe() -> None:
        for _ in range(steps):
            sim.step(packed, state, outcome, action, weights, params)
            if case.observe:
                sim.observe(packed, state, seen, params)

    def reset() -> None:
        for _ in range(steps):
            sim.reset(packed, state, every, params)

    def fork() -> None:
        for _ in range(steps):
            sim.fork(kept, state, identity)

    def draw() -> None:
        for _ in range(steps):
            sim.noise(packed, state, noise)

    stages = {
        "step_us_per_world_step": step,
        "reset_us_per_world": reset,
        "fork_us_per_world": fork,
        "noise_us_per_world": draw,
    }
    if case.observe:
        stages["observe_us_per_world_step"] = observe
    micro = 1e6 / (steps * case.worlds)
    result = {
        name: measure(body, device, restore=restore, repeats=repeats).scaled(micro)
        for name, body in stages.items()
    }
    whole = measure(step_and_observe, device, restore=restore, repeats=repeats)
    result["agent_steps_per_s"] = whole.inverse(steps * num_egos)
    return result
