"""The simulator's functional core: stateless calls, in place.

The only module that calls `_core`. Tensors are allocated here and filled by C++ on their own
device,
on torch's current stream; nothing else is allocated and nothing waits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from alpagym import _core
from alpagym._core import Collision, Controller, EndOn, Params
from alpagym.config import (
    ActionType,
    ObservationKind,
    RewardConfig,
    RewardTerm,
    RowFormat,
    SimConfig,
    SlotOrder,
    Traffic,
    require_sizes,
)
from alpagym.types import (
    AgentFeature,
    EgoFeature,
    Observation,
    Outcome,
    RoadFeature,
    Scenarios,
    State,
    TensorStruct,
)

__all__ = [
    "Collision",
    "Controller",
    "EndOn",
    "Params",
    "RewardTerm",
    "action_size",
    "commit",
    "control_size",
    "cpu_form",
    "cuda_built",
    "cuda_form",
    "fork",
    "inverse",
    "make_observation",
    "make_outcome",
    "make_params",
    "make_state",
    "make_weights",
    "noise",
    "observe",
    "reset",
    "step",
    "traffic_code",
    "use_cpu_form",
    "use_cuda_form",
    "with_near",
]

T = TypeVar("T", bound=TensorStruct)

_DTYPES = {
    "float32": torch.float32,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "uint16": torch.uint16,
    "bool": torch.bool,
}
_ROW_DTYPES = {
    RowFormat.float32: torch.float32,
    RowFormat.float16: torch.float16,
    RowFormat.bfloat16: torch.bfloat16,
    RowFormat.compact: torch.float32,
}


def _allocate(
    cls: type[T],
    device: str | torch.device,
    rows: Mapping[str, torch.dtype] | None = None,
    **sizes: int,
) -> T:
    """A struct of zeros whose shapes follow the core's list of fields; `rows` by field."""

    def size(symbol: str) -> int:
        return int(symbol) if symbol.isdigit() else sizes[symbol]

    dtypes = {**_DTYPES, **(rows or {})}
    return cls(
        **{
            name: torch.zeros(
                [size(d) for d in dims],
                dtype=dtypes[name if dtype == "rows" else dtype],
                device=device,
            )
            for name, dtype, dims in _core.fields[cls.__name__]
        }
    )


def make_state(
    num_worlds: int,
    max_agents: int,
    *,
    num_egos: int = 1,
    config: SimConfig | None = None,
    device: str | torch.device = "cpu",
) -> State:
    """An empty state of W worlds, A agents and E egos; `reset` fills it.

    `config` tells how much of an action the state keeps: nothing without `replan_every`.
    `max_agents` must reach the largest scenario's number of agents. `reset` refuses a smaller one
    on the CPU; on a GPU, where looking would mean waiting, it leaves out the agents beyond.
    """
    kept = action_size(config) if config is not None and config.replan_every > 1 else 0
    return _allocate(State, device, W=num_worlds, A=max_agents, E=num_egos, M=kept)


def make_outcome(state: State) -> Outcome:
    """Room for what a step of `state` produces."""
    w, e = state.ego.shape
    return _allocate(Outcome, state.device, W=w, E=e, R=len(RewardTerm))


def make_observation(state: State, config: SimConfig) -> Observation:
    """Room for what the egos of `state` see.

    Raises:
        ValueError: more slots are asked for than the core holds, or more columns than there are
            features.
    """
    for name in ("num_agents", "num_road_points", "num_lights"):
        if not 0 <= getattr(config, name) <= _core.max_nearest:
            raise ValueError(
                f"sim.{name}: expected 0 to {_core.max_nearest}, got {getattr(config, name)}"
            )
    if config.num_route_points < 0:
        raise ValueError(
            f"sim.num_route_points: expected at least 0, got {config.num_route_points}"
        )
    for name, features in (("ego", EgoFeature), ("agent", AgentFeature), ("road", RoadFeature)):
        columns = getattr(config, f"{name}_columns")
        if not 0 <= columns <= len(features):
            raise ValueError(f"sim.{name}_columns: expected 0 to {len(features)}, got {columns}")
    w, e = state.ego.shape
    dtype, compact = _ROW_DTYPES[config.row_format], config.row_format is RowFormat.compact
    return _allocate(
        Observation,
        state.device,
        {"agents": dtype, "road": torch.int32 if compact else dtype},
        W=w,
        E=e,
        O=config.num_agents,
        B=config.num_road_points,
        H=config.num_route_points,
        I=config.num_lights,
        CE=config.ego_columns,
        CA=config.agent_columns,
        CR=1 if compact else config.road_columns,
    )


def traffic_code(traffic: Traffic) -> int:
    """The value of `State.traffic` for a world with this traffic."""
    return 1 + list(Traffic).index(traffic)


def make_params(config: SimConfig) -> Params:
    """The scalars that kernels read.

    Raises:
        ValueError: an unknown name in `end_on`, a step length that is not positive and finite, a
            negative `max_steps`, `plan_steps` or `replan_every` outside 1 to 1024, or sizes that
            do not go with `observation`.
    """
    if not config.dt > 0:
        raise ValueError(f"sim.dt: expected a positive step length, got {config.dt}")
    require_sizes(config)
    end_on = 0
    for name in config.end_on:
        if name.upper() not in EndOn.__members__:
            known = ", ".join(EndOn.__members__).lower()
            raise ValueError(f"sim.end_on: expected any of {known}, got {name}")
        end_on |= EndOn[name.upper()]
    return Params(
        dt=config.dt,
        action=list(_core.actions).index(config.action.name),
        traffic=traffic_code(config.traffic),
        lane_changes=int(config.lane_changes),
        end_on=int(end_on),
        bad_action=int(config.bad_action == "terminate"),
        observation=list(ObservationKind).index(config.observation),
        slot_order=list(SlotOrder).index(config.slot_order),
        **{
            name: getattr(config, name)
            for name in (
                "plan_steps",
                "replan_every",
                "max_steps",
                "min_accel",
                "max_accel",
                "max_curvature",
                "max_lateral_accel",
                "ttc_horizon",
                "agent_radius",
                "road_radius",
                "light_radius",
                "route_step",
                "route_horizon",
                "idm_accel",
                "idm_decel",
                "idm_headway",
                "idm_gap",
                "idm_max_decel",
                "idm_speed_spread",
                "idm_politeness",
                "idm_change_threshold",
                "idm_safe_decel",
                "idm_change_wait",
                "reactive_distance",
            )
        },
    )


def make_weights(config: RewardConfig, device: str | torch.device = "cpu") -> Tensor:
    """Reward weights shared by all worlds, [1, R]."""
    return torch.tensor(
        [[getattr(config, t.name.lower()) for t in RewardTerm]], dtype=torch.float32, device=device
    )


def action_size(config: SimConfig) -> int:
    """Numbers in an action: a plan's waypoints, or controls for the steps until the next action."""
    is_plan = config.action is ActionType.trajectory
    return control_size(config) * (config.plan_steps if is_plan else config.replan_every)


def control_size(config: SimConfig) -> int:
    """Numbers in one control, pose or waypoint."""
    return _core.actions[config.action.name]


def reset(scenarios: Scenarios, state: State, mask: Tensor, params: Params) -> None:
    """Put the worlds of `mask` (bool [W]) at the start of `state.scenario`, set by the caller."""
    _core.reset(scenarios, state, mask, params)


def step(
    scenarios: Scenarios,
    state: State,
    outcome: Outcome,
    action: Tensor,
    weights: Tensor,
    params: Params,
) -> None:
    """Advance every world that is not done by one step.

    `action` [W, E, action_size] is in physical units; `weights` is [1, R] or [W, R]. Worlds that
    are done stand still and get zero rewards. With `replan_every` above 1 the action of a world is
    read only where `state.step` is a multiple of it.
    """
    _core.step(scenarios, state, outcome, action, weights, params)


def observe(
    scenarios: Scenarios,
    state: State,
    observation: Observation,
    params: Params,
    *,
    mask: Tensor | None = None,
) -> None:
    """Write what every ego sees now; with `mask` (bool [W]) only in those worlds."""
    _core.observe(scenarios, state, observation, mask, params)


def fork(source: State, target: State, index: Tensor) -> None:
    """Copy world `index[w]` (int32 [W]) of `source` to world w of `target`; -1 leaves it alone."""
    _core.fork(source, target, index)


def noise(scenarios: Scenarios, state: State, out: Tensor) -> None:
    """Fill `out` [W, E, D] with normals keyed by seed, scenario, member, agent and step."""
    _core.noise(scenarios, state, out)


def inverse(
    scenarios: Scenarios, before: State, after: State, action: Tensor, params: Params
) -> None:
    """Fill `action` [W, E, control_size] with what takes each ego from `before` to `after`.

    `after` is one step later than `before`; the action is of the kind of `params`, in physical
    units, and not bounded. Controls are told by heading and speed, curvature and steering are 0
    where the way is below 1 mm. Zeros for slots without an ego, and for egos absent before or
    after. A plan has no inverse, since two states do not tell what lies further ahead: cut it from
    the record with `alpagym.scenarios.recorded_plans.recorded_plans`.

    Raises:
        ValueError: `params` is for actions that are plans.
    """
    _core.inverse(scenarios, before, after, action, params)


def with_near(scenarios: Scenarios, config: SimConfig) -> Scenarios:
    """The same scenarios with lists of what is near each place of their maps.

    With them the CPU need not search the map at every step. They serve observations of at most
    `config.num_road_points` road points within `config.road_radius`; for others, and where no lane
    is near, the map is searched as before. On a GPU they are not used, and not made; nor where the
    radius is above 1 km, or all lists together exceed 2^31 entries.
    """
    if scenarios.device.type != "cpu" or not config.road_radius <= 1000.0:
        return scenarios
    cells = 4 * (len(scenarios.cell_road) - 1)
    step = (config.road_radius + 0.25 * math.sqrt(2.0) * scenarios.grid[:, 2].max().item()) / 255
    listed = replace(
        scenarios,
        near_limits=torch.tensor([config.road_radius, config.num_road_points, step]),
        near_cell=torch.full((cells,), -1, dtype=torch.int32),
    )
    counts = torch.full((cells, 3), -1, dtype=torch.int32)
    _core.count_near(listed, counts)
    wanted = counts[:, 0] >= 0
    listed.near_cell[wanted] = torch.arange(int(wanted.sum()), dtype=torch.int32)
    ends = counts[wanted].cumsum(0)
    if len(ends) and int(ends[-1].max()) > torch.iinfo(torch.int32).max:
        return scenarios
    starts = torch.nn.functional.pad(ends, (0, 0, 1, 0)).int().T.contiguous()
    roads, lanes, edges = starts[:, -1].tolist()
    listed = replace(
        listed,
        near_level=torch.zeros(int(wanted.sum()), 2),
        near_road_start=starts[0],
        near_lane_start=starts[1],
        near_edge_start=starts[2],
        near_road=torch.zeros(roads, dtype=torch.uint16),
        near_step=torch.zeros(roads, dtype=torch.uint8),
        near_lane=torch.zeros(lanes, dtype=torch.uint16),
        near_edge=torch.zeros(edges, dtype=torch.uint16),
    )
    _core.fill_near(listed)
    return listed


def cpu_form() -> str:
    """How the CPU runs `step` and `observe`: `plain`, `vector`, `avx2` or `avx512`."""
    return str(_core.cpu_form())


def use_cpu_form(name: str) -> None:
    """Run them otherwise, for tests and measurements.

    Forms differ in speed, and in the order of slots where `SlotOrder` leaves it open.

    Raises:
        ValueError: an unknown form, or one that this CPU cannot run.
    """
    _core.use_cpu_form(name)


def cuda_form() -> str:
    """How a GPU runs `step` and `observe`: `fused`, `plain`, or `none` without a CUDA backend."""
    return str(_core.cuda_form())


def use_cuda_form(name: str) -> None:
    """Run them by one kernel for each (`fused`) or one for each stage (`plain`), for measurements.

    What they do is the same, but for the order of slots where `SlotOrder` leaves it open.

    Raises:
        ValueError: an unknown form, or a build without a CUDA backend.
    """
    _core.use_cuda_form(name)


def cuda_built() -> bool:
    """Whether this build of alpagym has a CUDA backend (a driver may still be missing)."""
    return bool(_core.has_cuda)


def commit() -> str:
    """The commit this build was made from, or `unknown`."""
    return str(_core.commit)
