"""`alpagym bench step`: the simulator's stages on a batch of worlds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from alpagym import sim
from alpagym.bench import sources
from alpagym.bench.cases import DENSE, FORMATS, SEED, WOMD4_STATISTICS, StepCase
from alpagym.bench.context import Context, Line
from alpagym.bench.sources import sim_config
from alpagym.bench.timing import Measurement, Timing, captured, copy_bytes_per_s, measure
from alpagym.config import ActionType, SimConfig
from alpagym.scenarios.batch import batch, max_agents
from alpagym.types import Observation, Outcome, Scenarios, State, TensorStruct

WARM_STEPS = 10
"""Steps driven before the state is kept, so that traffic moves and accelerations are real."""


@dataclass
class Drive:
    """Worlds under way, ready to be timed."""

    config: SimConfig
    params: sim.Params
    packed: Scenarios
    state: State
    kept: State
    """What `state` is restored to."""
    outcome: Outcome
    seen: Observation
    action: Tensor
    weights: Tensor
    identity: Tensor
    """Each world's own index."""
    live: int
    """Egos that drive."""

    def step(self) -> None:
        sim.step(self.packed, self.state, self.outcome, self.action, self.weights, self.params)

    def observe(self) -> None:
        sim.observe(self.packed, self.state, self.seen, self.params)

    def restore(self) -> None:
        sim.fork(self.kept, self.state, self.identity)


def run(case: StepCase, context: Context) -> Iterator[Line]:
    """Time of each stage, the rate of ego steps, and the bytes they move."""
    loaded = sources.kept(case.source, 8 if context.quick else case.scenarios, context.data)
    if loaded.note:
        yield f"{case.name}: {loaded.note}"
    if case.source.startswith("synthetic"):
        yield f"{case.name}: {_beside(loaded)}"
    packed: Scenarios | None = None
    for name in context.formats or case.formats:
        config = sim_config(case.sim | FORMATS[name] | dict(context.sim))
        if packed is None:  # the lists of what is near serve every format
            packed = batch(loaded.hosts, context.device)
            yield from _near_lists(case, packed, config, context)
            packed = sim.with_near(packed, config)
        cost = {}
        for worlds in context.worlds or case.worlds:
            label = case.label.format(name=case.name, format=name, worlds=worlds)
            drive = under_way(packed, max_agents(loaded.hosts), worlds, config)
            for line in _measured(case, label, drive, context):
                yield line
                if isinstance(line, tuple) and line[0] == f"{label}.ns_per_agent_step":
                    cost[worlds] = line[1]
        yield from _growth(case, name, cost)


def _beside(loaded: sources.Loaded) -> str:
    """The scenes' statistics and those of the recorded ones that they stand for."""
    found = sources.statistics(loaded.hosts, sim_config(DENSE))
    return ", ".join(
        f"{name} {value:.4g} (womd4 {WOMD4_STATISTICS[name]:.4g})" for name, value in found.items()
    )


def _near_lists(
    case: StepCase, packed: Scenarios, config: SimConfig, context: Context
) -> Iterator[Line]:
    """What it takes to list what is near each place of the maps; on a GPU nothing is listed."""
    if context.device.type != "cpu":
        return
    making = measure(
        lambda: sim.with_near(packed, config),
        context.device,
        repeats=context.repeats_or(3),
        warm_up=0,
    )
    size = _bytes(sim.with_near(packed, config)) - _bytes(packed)
    count = len(packed.key)
    yield f"{case.name}.near_lists_ms_per_scenario", making.wall.scaled(1e3 / count)
    yield f"{case.name}.near_lists_bytes_per_scenario", Measurement(size / count)


def actions(config: SimConfig, state: State) -> Tensor:
    """An action for every ego: small random controls, or the way straight on at its speed."""
    generator = torch.Generator().manual_seed(SEED)
    if config.action is not ActionType.trajectory:
        drawn = torch.randn(*state.ego.shape, sim.action_size(config), generator=generator)
        size = torch.ones(sim.control_size(config))
        size[1:] = 0.01
        return drawn * size.repeat(sim.action_size(config) // len(size))
    speed = state.speed.gather(1, state.ego.clamp(min=0).long()).cpu()
    way = speed.unsqueeze(-1) * 0.1 * torch.arange(1, config.plan_steps + 1)
    still = torch.zeros_like(way)
    return torch.stack([way, still, still], -1).flatten(2).contiguous()


def under_way(packed: Scenarios, agents: int, worlds: int, config: SimConfig) -> Drive:
    """Worlds that have been driven for some steps, with room for all that is timed."""
    device = packed.device
    params = sim.make_params(config)
    egos = int(packed.num_egos.max()) if config.multi_agent else 1
    state = sim.make_state(worlds, agents, num_egos=egos, config=config, device=device)
    state.scenario.copy_(torch.arange(worlds) % len(packed.key))
    sim.reset(packed, state, torch.ones(worlds, dtype=torch.bool, device=device), params)
    drive = Drive(
        config,
        params,
        packed,
        state,
        state,
        sim.make_outcome(state),
        sim.make_observation(state, config),
        actions(config, state).to(device),
        torch.ones(1, len(sim.RewardTerm), device=device),
        torch.arange(worlds, dtype=torch.int32, device=device),
        live=0,
    )
    for _ in range(WARM_STEPS):
        drive.step()
    return replace(drive, kept=state.clone(), live=int((state.ego >= 0).sum()))


def _measured(case: StepCase, label: str, drive: Drive, context: Context) -> Iterator[Line]:
    steps = min(case.steps, 5) if context.quick else case.steps
    worlds = len(drive.state.step)
    every = torch.ones(worlds, dtype=torch.bool, device=context.device)
    noise = torch.zeros_like(drive.action)

    def both() -> None:
        drive.step()
        if case.observe:
            drive.observe()

    def times(body: Callable[[], object]) -> Callable[[], object]:
        def many() -> None:
            for _ in range(steps):
                body()

        return many

    def timed(many: Callable[[], object]) -> Timing:
        return measure(
            many,
            context.device,
            restore=drive.restore,
            repeats=context.repeats_or(case.repeats),
        )

    times(drive.step)()
    ended = drive.live - int(((drive.state.ego >= 0) & ~drive.state.done).sum())
    if ended:
        raise ValueError(
            f"{label}: expected episodes of more than {WARM_STEPS + steps} steps, "
            f"got {ended} of {drive.live} that end sooner"
        )
    stages: dict[str, Callable[[], object]] = {"step": drive.step}
    if case.observe:
        stages["observe"] = drive.observe
    stages["reset"] = lambda: sim.reset(drive.packed, drive.state, every, drive.params)
    stages["fork"] = drive.restore
    stages["noise"] = lambda: sim.noise(drive.packed, drive.state, noise)
    for stage, body in stages.items():
        yield _stage(case, label, stage, timed(times(body)), steps, worlds, drive.live)
    whole = timed(times(both))
    yield from _totals(label, whole, steps, worlds, drive.live)
    yield from _traffic(case, label, drive, whole.wall, steps, context)
    if context.device.type == "cuda":
        yield from _replayed(label, timed, times(both), steps * drive.live, context.device)


def _stage(
    case: StepCase, label: str, stage: str, timing: Timing, steps: int, worlds: int, live: int
) -> Line:
    """By world and clock, as the older cases are, or by agent and CPU time."""
    of_step = "_step" if stage in ("step", "observe") else ""
    if case.per_world:
        value = timing.wall.scaled(1e6 / (steps * worlds))
        return f"{label}.{stage}_us_per_world{of_step}", value
    return f"{label}.{stage}_ns_per_agent{of_step}", timing.cost.scaled(1e9 / (steps * live))


def _totals(label: str, whole: Timing, steps: int, worlds: int, live: int) -> Iterator[Line]:
    yield f"{label}.ns_per_agent_step", whole.cost.scaled(1e9 / (steps * live))
    yield f"{label}.wall_ns_per_agent_step", whole.wall.scaled(1e9 / (steps * live))
    yield f"{label}.agent_steps_per_s", whole.wall.inverse(steps * live)
    yield f"{label}.world_steps_per_s", whole.wall.inverse(steps * worlds)


def _traffic(
    case: StepCase, label: str, drive: Drive, wall: Measurement, steps: int, context: Context
) -> Iterator[Line]:
    """Bytes that cannot be avoided, against what a plain copy moves.

    The state is read and written once a step, the outcome and the rows of egos that drive written
    once, the action read once. What is read of maps and logs is not counted.
    """
    share = drive.live / drive.state.ego.numel()
    moved = 2 * _bytes(drive.state) + share * (_bytes(drive.outcome) + drive.action.nbytes)
    if case.observe:
        moved += share * _bytes(drive.seen)
    rate = wall.inverse(steps * moved)
    copied = copy_bytes_per_s(
        context.device, torch.get_num_threads(), 2**24 if context.quick else 2**28
    )
    yield f"{label}.bytes_per_agent_step", Measurement(moved / drive.live)
    yield f"{label}.gb_per_s", rate.scaled(1e-9)
    yield f"{label}.copy_gb_per_s", Measurement(copied * 1e-9)
    yield f"{label}.share_of_copy", rate.scaled(1 / copied)


def _bytes(struct: TensorStruct) -> int:
    return sum(tensor.nbytes for tensor in struct.tensors().values())


def _replayed(
    label: str,
    timed: Callable[[Callable[[], object]], Timing],
    many: Callable[[], object],
    agent_steps: int,
    device: torch.device,
) -> Iterator[Line]:
    """The same steps as one CUDA graph."""
    try:
        replay = captured(many, device)
    except RuntimeError as error:
        yield f"{label}: not captured as a CUDA graph: {str(error).splitlines()[0]}"
        return
    whole = timed(replay).wall
    yield f"{label}.graph_ns_per_agent_step", whole.scaled(1e9 / agent_steps)
    yield f"{label}.graph_agent_steps_per_s", whole.inverse(agent_steps)


def _growth(case: StepCase, name: str, cost: dict[int, Measurement]) -> Iterator[Line]:
    """How much dearer an agent's step gets from the fewest to the most worlds."""
    if len(cost) > 1:
        few, many = min(cost), max(cost)
        label = case.label.format(name=case.name, format=name, worlds=many)
        spread = cost[few].spread + cost[many].spread
        ratio = cost[many].value / cost[few].value
        yield f"{label}.cost_over_w{few}", Measurement(ratio, spread, cost[many].repeats)
