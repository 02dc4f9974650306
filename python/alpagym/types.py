"""Dataclasses of tensors that the simulator reads and writes, split by lifetime.

Dimensions: S scenarios, W worlds, A agents per world (capacity), E egos per world (1 in ego mode),
M numbers of an action that goes on (0 where every step has its own), N agents of all scenarios,
U routes, R reward terms; the ragged pools are described in `csrc/scenarios.h`.
All tensors are contiguous and on one device. World frame, SI units, float32 unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import ClassVar, Self

import torch
from torch import Tensor


@dataclass
class TensorStruct:
    """A dataclass whose fields are all tensors."""

    _borrowed: ClassVar[object] = None
    """What the core found when it last read these tensors; it looks whether that still holds."""

    def __getstate__(self) -> dict[str, Tensor]:
        return self.tensors()  # copies and pickles hold the tensors alone

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same struct with `function` applied to every tensor."""
        return type(self)(**{f.name: function(getattr(self, f.name)) for f in fields(self)})

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name, in the order of the fields."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def clone(self) -> Self:
        return self.map(torch.clone)

    def to(self, device: str | torch.device) -> Self:
        return self.map(lambda t: t.to(device))

    @property
    def device(self) -> torch.device:
        return getattr(self, fields(self)[0].name).device


@dataclass
class Scenarios(TensorStruct):
    """What never changes: maps, logs, routes and lights of S scenarios, shared by all worlds."""

    key: Tensor
    """Hash of the scenario's id, for random numbers. int64 [S]"""
    num_frames: Tensor
    """Frames recorded. int32 [S]"""
    start_frame: Tensor
    """Frame of step 0. int32 [S]"""
    light_frames: Tensor
    """Frames of the lights: what follows the record repeats. int32 [S]"""
    has_z: Tensor
    """Whether heights are real. bool [S]"""
    agent_start: Tensor
    """Offsets of each scenario's agents. int32 [S+1]"""
    num_egos: Tensor
    """How many entries of `ego_order` may be policy-controlled. int32 [S]"""
    log_start: Tensor
    """First log cell; cell = log_start + frame * agents + agent. int32 [S]"""
    light_start: Tensor
    """Offsets of each scenario's lights. int32 [S+1]"""
    lane_start: Tensor
    """Offsets of each scenario's lane routes, which follow the agents' own. int32 [S+1]"""
    signal_start: Tensor
    """First light-state cell; cell = signal_start + frame * lights + light. int32 [S]"""
    agent: Tensor
    """Length, width, height, distance from box center back to the rear axle [m]. [N, 4]"""
    type: Tensor
    """`AgentType`. uint8 [N]"""
    id_rank: Tensor
    """Place of each agent's id among those of its scenario: who goes first where nothing else
    tells. int32 [N]"""
    ego_order: Tensor
    """Agent indices of the scenario, the ego first, then others that may be policy-controlled.
    int32 [N]"""
    log_length: Tensor
    """Route arc length at the last logged position [m]. [N]"""
    route_start: Tensor
    """Offsets of each route's points: first each agent's own, then the lane routes. int32 [U+1]"""
    stop_start: Tensor
    """Offsets of each route's stops. int32 [U+1]"""
    beside_start: Tensor
    """Offsets of each route's stretches beside other lanes. int32 [U+1]"""
    next_route: Tensor
    """Lane route of the scenario that goes on beyond this route, -1 for none. int32 [U]"""
    next_shift: Tensor
    """Arc length on the route that goes on less the one here [m]. [U]"""
    log: Tensor
    """x, y [m], yaw [rad], signed speed along yaw [m/s]. [L, 4]"""
    log_z: Tensor
    """Height of the box center [m]. [L]"""
    log_valid: Tensor
    """Whether the agent was observed. bool [L]"""
    route: Tensor
    """x, y, z [m], speed limit [m/s], one point every 2 m of arc length. [Q, 4]"""
    pace: Tensor
    """Speed that the limit and the bends here and ahead allow [m/s]. [Q]"""
    beside: Tensor
    """First and last arc length, arc length on the lane beside less the one here [m], 1 + its lane
    route (negative on the right). [G, 4]"""
    stop_s: Tensor
    """Arc length of a stop line on its route [m]. [M]"""
    stop_light: Tensor
    """Index of its light in the scenario, -1 for a stop sign, -2 for a yield line. int32 [M]"""
    light_xy: Tensor
    """Stop points [m]. [K, 2]"""
    light_state: Tensor
    """`LightState`. uint8 [J]"""
    grid: Tensor
    """x and y of the grid's corner [m], cell size [m], number of columns. [S, 4]"""
    grid_rows: Tensor
    """Number of rows. int32 [S]"""
    cell_start: Tensor
    """First cell of each scenario's grid. int32 [S]"""
    cell_road: Tensor
    """Offsets of the road points whose midpoint lies in a cell. int32 [C+1]"""
    cell_edge: Tensor
    """Offsets of the edge segments that touch a cell. int32 [C+1]"""
    road: Tensor
    """x, y of the midpoint [m], unit direction, half length [m], `MapType`, z of the midpoint [m],
    index of the map element. [P, 8]"""
    edge: Tensor
    """x0, y0, x1, y1, mean z [m], unused; the drivable area is on the left. [D, 8]"""
    near_limits: Tensor
    """Radius [m] and number of road points that the lists of what is near serve, and the step in
    which they tell distances [m]. [3]"""
    near_cell: Tensor
    """The lists of a small cell (a quarter of a grid cell), -1 for none. int32 [V]"""
    near_level: Tensor
    """Lowest and highest z of the road points listed [m]. [F, 2]"""
    near_road_start: Tensor
    """Offsets of the road points near a small cell. int32 [F+1]"""
    near_lane_start: Tensor
    """Offsets of the lane pieces near a small cell. int32 [F+1]"""
    near_edge_start: Tensor
    """Offsets of the edge segments near a small cell. int32 [F+1]"""
    near_road: Tensor
    """By distance from the center of the cell, counted from the scenario's first road point.
    uint16 [NP]"""
    near_step: Tensor
    """That distance in steps, rounded down. uint8 [NP]"""
    near_lane: Tensor
    """Lane pieces, counted likewise. uint16 [NL]"""
    near_edge: Tensor
    """Edge segments, counted from the scenario's first. uint16 [NE]"""


@dataclass
class State(TensorStruct):
    """Everything that changes from step to step."""

    x: Tensor
    """Box center [m]. [W, A]"""
    y: Tensor
    """Box center [m]. [W, A]"""
    z: Tensor
    """Box center [m]. [W, A]"""
    yaw: Tensor
    """Heading, counter-clockwise from +x, in [-pi, pi) [rad]. [W, A]"""
    speed: Tensor
    """Along the heading, negative in reverse [m/s]. [W, A]"""
    accel: Tensor
    """Longitudinal acceleration of the last step [m/s^2]. [W, A]"""
    curvature: Tensor
    """Path curvature of the last step, left positive [1/m]. [W, A]"""
    route_s: Tensor
    """Arc length reached on the route followed [m]. [W, A]"""
    route: Tensor
    """Route followed: 0 the agent's own, k > 0 lane route k - 1 of the scenario. int32 [W, A]"""
    change_wait: Tensor
    """Time until the next lane change may begin [s]. [W, A]"""
    stood: Tensor
    """Time since it first stood, or since it stood at its stop sign; 0 above 3 m/s [s]. [W, A]"""
    valid: Tensor
    """Whether the slot holds an agent now. bool [W, A]"""
    controller: Tensor
    """`Controller`. uint8 [W, A]"""
    stops_served: Tensor
    """Stops of the route that no longer hold the agent. uint8 [W, A]"""
    prev_x: Tensor
    """x one step earlier [m]. [W, A]"""
    prev_y: Tensor
    """y one step earlier [m]. [W, A]"""
    prev_yaw: Tensor
    """yaw one step earlier [rad]. [W, A]"""
    prev_speed: Tensor
    """speed one step earlier [m/s]. [W, A]"""
    prev_accel: Tensor
    """accel one step earlier [m/s^2]. [W, A]"""
    prev_curvature: Tensor
    """curvature one step earlier [1/m]. [W, A]"""
    prev_route_s: Tensor
    """route_s one step earlier [m]. [W, A]"""
    prev_route: Tensor
    """route one step earlier. int32 [W, A]"""
    prev_valid: Tensor
    """valid one step earlier. bool [W, A]"""
    slot: Tensor
    """Of the last step: the ego slot that drives the agent, or -1. int32 [W, A]"""
    prev_stops_served: Tensor
    """stops_served one step earlier. uint8 [W, A]"""
    ego: Tensor
    """Agent index of each ego, -1 for none. int32 [W, E]"""
    terminated: Tensor
    """The task ended for this ego; stays until reset. bool [W, E]"""
    truncated: Tensor
    """Time ran out before; stays until reset. bool [W, E]"""
    offroad: Tensor
    """Some corner of the ego's box is off-road now. bool [W, E]"""
    lateral_speed: Tensor
    """Of the vehicle that follows plans: of its center of mass, left positive [m/s]. Like the next
    three as `reset` leaves it for other kinds of actions. [W, E]"""
    yaw_rate: Tensor
    """[rad/s]. [W, E]"""
    steering_angle: Tensor
    """Of the front wheels, lagging behind what is asked [rad]. [W, E]"""
    lagged_accel: Tensor
    """Longitudinal acceleration, lagging behind what is asked [m/s^2]. [W, E]"""
    ongoing: Tensor
    """The action that goes on; a plan's waypoints in the world frame. [W, E, M]"""
    scenario: Tensor
    """Index into `Scenarios`. int32 [W]"""
    still: Tensor
    """Of the last step: no ego was left to drive, and nothing moved. bool [W]"""
    step: Tensor
    """Steps since reset. int32 [W]"""
    seed: Tensor
    """What random numbers are drawn from, with the scenario's key. int64 [W]"""
    member: Tensor
    """Index within a group of forks. int32 [W]"""
    traffic: Tensor
    """What drives the agents that are not egos, as `sim.traffic_code` gives it, or 0 for
    `SimConfig.traffic`. uint8 [W]"""

    @property
    def done(self) -> Tensor:
        """Terminated or truncated, bool [W, E]."""
        return self.terminated | self.truncated


@dataclass
class Outcome(TensorStruct):
    """What one step produced."""

    reward: Tensor
    """Weighted sum of terms. [W, E]"""
    terms: Tensor
    """Raw quantities by `RewardTerm`. [W, E, R]"""
    collision: Tensor
    """`Collision` that began this step. uint8 [W, E]"""
    progress_fraction: Tensor
    """Route arc length over the logged path's, 1 at its end. [W, E]"""
    ttc: Tensor
    """Time to collision at constant velocities, +inf if none [s]. [W, E]"""
    lane: Tensor
    """Map element of the own lane, -1 if none is within 6 m. int32 [W, E]"""
    lane_offset: Tensor
    """Distance from the own lane's center line, left positive [m]. [W, E]"""
    lane_heading: Tensor
    """Heading relative to the own lane [rad]. [W, E]"""
    bad_action: Tensor
    """Whether the action held NaN or infinity. bool [W, E]"""


class EgoFeature(IntEnum):
    """Columns of `Observation.ego`, in the order of the core."""

    SPEED = 0
    """[m/s]"""
    ACCEL = 1
    """[m/s^2]"""
    CURVATURE = 2
    """[1/m]"""
    LENGTH = 3
    """[m]"""
    WIDTH = 4
    """[m]"""
    ROUTE_OFFSET = 5
    """Signed distance from the route, left positive [m]"""
    HEADING_ERROR = 6
    """Heading relative to the route [rad]"""
    SPEED_LIMIT = 7
    """[m/s]"""
    GOAL_DISTANCE = 8
    """Arc length left to the end of the logged path [m]"""
    STOP_DISTANCE = 9
    """From the front bumper to the next stop that holds now, or `SimConfig.route_horizon` [m]"""


class AgentFeature(IntEnum):
    """Columns of `Observation.agents`, in the order of the core."""

    X = 0
    """Box center [m]"""
    Y = 1
    COS = 2
    """Heading relative to the ego's."""
    SIN = 3
    SPEED = 4
    """Along its heading [m/s]"""
    LENGTH = 5
    """[m]"""
    WIDTH = 6
    """[m]"""
    KIND = 7
    """`AgentType`"""


class RoadFeature(IntEnum):
    """Columns of `Observation.road`, in the order of the core."""

    X = 0
    """Midpoint [m]"""
    Y = 1
    COS = 2
    """Direction."""
    SIN = 3
    HALF_LENGTH = 4
    """[m]"""
    KIND = 5
    """`MapType`"""
    HEIGHT = 6
    """Above the ego [m]"""


class RouteFeature(IntEnum):
    """Columns of `Observation.route`, in the order of the core."""

    X = 0
    """Waypoint ahead on the route [m]"""
    Y = 1
    COS = 2
    """Direction."""
    SIN = 3
    SPEED_LIMIT = 4
    """[m/s]"""


class LightFeature(IntEnum):
    """Columns of `Observation.lights`, in the order of the core."""

    X = 0
    """Stop point [m]"""
    Y = 1
    DISTANCE = 2
    """Along the route, 0 if not on it [m]"""
    ON_ROUTE = 3
    IS_RED = 4
    IS_YELLOW = 5
    IS_GREEN = 6


@dataclass
class Observation(TensorStruct):
    """What each ego sees, in its own frame (x forward, y left), SI units, unseen slots zero.

    `EgoFeature` and the like name the columns; where CE, CA or CR is smaller, the last ones are
    left out. In ego mode the environment drops E.
    """

    pose: Tensor
    """x, y, z [m] and yaw [rad] in the world: no feature, but what turns compact road rows into the
    ego's frame (`alpagym.rows.decode`). [W, E, 4]"""
    ego: Tensor
    """Speed, accel, curvature, size, place on the route, limit, goal, next stop. [W, E, CE]"""
    agents: Tensor
    """Nearest other agents: position, heading, speed, size, kind; float32, float16 or bfloat16.
    rows [W, E, O, CA]"""
    agents_mask: Tensor
    """Whether the slot is filled. bool [W, E, O]"""
    road: Tensor
    """Nearest road points: midpoint, direction, half length, kind, height; likewise, or compact:
    int32 indices into `Scenarios.road` in one column, whatever the features asked for.
    rows [W, E, B, CR]"""
    road_mask: Tensor
    """Whether the slot is filled. bool [W, E, B]"""
    route: Tensor
    """Waypoints ahead on the route: position, direction, speed limit. [W, E, H, 5]"""
    route_mask: Tensor
    """Whether the slot is filled. bool [W, E, H]"""
    lights: Tensor
    """Traffic lights, those on the route first: stop point, distance, state. [W, E, I, 7]"""
    lights_mask: Tensor
    """Whether the slot is filled. bool [W, E, I]"""

    def index(self, selection: Tensor | int) -> Observation:
        """The same rows of every tensor: `observation.index(mask)`."""
        return self.map(lambda t: t[selection])
