"""The simulator: kernels over torch tensors, in place. Call it through `alpagym.sim`."""

from enum import IntEnum, IntFlag
from typing import final

import numpy as np
from torch import Tensor

from alpagym.types import Observation, Outcome, Scenarios, State

has_cuda: bool
"""Whether this build has a CUDA backend."""
commit: str
"""The commit that this build was made from."""
sets_per_part: int
"""Sets whose gradients `encode_backward` sums into one part."""
max_nearest: int
"""Slots that an observation may ask for."""
route_spacing: float
"""Arc length between two points of a route [m]."""
fields: dict[str, list[tuple[str, str, tuple[str, ...]]]]
"""For each struct its fields as (name, dtype, dimensions)."""
actions: dict[str, int]
"""Kinds of actions in the core's order, and the numbers in one control, pose or waypoint."""
reward_terms: tuple[str, ...]
"""Reward terms in the core's order."""

class Controller(IntEnum):
    """Who drives an agent."""

    POLICY = 0
    LOG = 1
    IDM = 2
    CONSTANT_VELOCITY = 3

class EndOn(IntFlag):
    """Events that end an episode."""

    COLLISION_AT_FAULT = 1
    COLLISION_ANY = 2
    OFFROAD = 4
    RED_LIGHT = 8
    GOAL = 16
    STOP_SIGN = 32

class Collision(IntEnum):
    """How a collision began, seen from the ego."""

    NONE = 0
    FRONT = 1
    REAR = 2
    LATERAL = 3

@final
class Params:
    """The scalars that kernels read."""

    def __init__(
        self,
        *,
        dt: float,
        action: int,
        plan_steps: int,
        replan_every: int,
        traffic: int,
        end_on: int,
        bad_action: int,
        max_steps: int,
        min_accel: float,
        max_accel: float,
        max_curvature: float,
        max_lateral_accel: float,
        ttc_horizon: float,
        observation: int,
        slot_order: int,
        agent_radius: float,
        road_radius: float,
        light_radius: float,
        route_step: float,
        route_horizon: float,
        idm_accel: float,
        idm_decel: float,
        idm_headway: float,
        idm_gap: float,
        idm_max_decel: float,
        idm_speed_spread: float,
        lane_changes: int,
        idm_politeness: float,
        idm_change_threshold: float,
        idm_safe_decel: float,
        idm_change_wait: float,
        reactive_distance: float,
    ) -> None: ...

def reset(scenarios: Scenarios, state: State, mask: Tensor, params: Params) -> None: ...
def step(
    scenarios: Scenarios,
    state: State,
    outcome: Outcome,
    action: Tensor,
    weights: Tensor,
    params: Params,
) -> None: ...
def observe(
    scenarios: Scenarios,
    state: State,
    observation: Observation,
    mask: Tensor | None,
    params: Params,
) -> None: ...
def fork(source: State, target: State, index: Tensor) -> None: ...
def noise(scenarios: Scenarios, state: State, noise: Tensor) -> None: ...
def inverse(
    scenarios: Scenarios, before: State, after: State, action: Tensor, params: Params
) -> None: ...
def count_near(scenarios: Scenarios, counts: Tensor) -> None: ...
def fill_near(scenarios: Scenarios) -> None: ...
def scan(array: np.ndarray, low: float, high: float, nan: bool) -> tuple[int, bool]: ...
def encode(
    rows: Tensor,
    mask: Tensor,
    scale: Tensor,
    first_kind: int,
    num_kinds: int,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    out: Tensor,
    largest: Tensor,
) -> None: ...
def encode_backward(
    rows: Tensor,
    mask: Tensor,
    scale: Tensor,
    first_kind: int,
    num_kinds: int,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    largest: Tensor,
    gradient: Tensor,
    parts: Tensor,
) -> None: ...
def cpu_form() -> str: ...
def use_cpu_form(name: str) -> None: ...
def cuda_form() -> str: ...
def use_cuda_form(name: str) -> None: ...
