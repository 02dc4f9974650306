"""Options of the simulator and of rewards, with units: frozen, plain values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum


class ActionType(Enum):
    """What an action means."""

    unicycle = "unicycle"
    """Acceleration [m/s^2], curvature [1/m]: Alpamayo's action space."""
    bicycle = "bicycle"
    """Acceleration [m/s^2], steering angle [rad]."""
    delta = "delta"
    """dx, dy [m], dyaw [rad] in the agent's frame."""
    teleport = "teleport"
    """x, y [m], yaw [rad] in the world frame."""
    jerk = "jerk"
    """Jerk [m/s^3], curvature rate [1/m/s]: what changes the acceleration and curvature of the step
    before, whose bounds hold."""
    trajectory = "trajectory"
    """A plan: `plan_steps` waypoints x, y [m], yaw [rad], 0.1 s, 0.2 s, ... ahead, in the frame of
    the ego's rear axle when the action is given. AlpaSim's linear controller follows it with
    AlpaSim's vehicle; `min_accel` to `max_lateral_accel` do not apply, the controller's bounds do.
    A plan that is not finite, or that the controller cannot follow, coasts."""


class Traffic(Enum):
    """Who drives the agents that are not egos."""

    log = "log"
    idm = "idm"
    constant_velocity = "constant_velocity"
    log_then_idm = "log_then_idm"
    """The log until an ego is off its own by `SimConfig.reactive_distance`, or until the log would
    lead into someone who is off theirs; then IDM, agent by agent, for the rest of the episode."""


class RowFormat(Enum):
    """How the rows of observed agents and road points are stored."""

    float32 = "float32"
    float16 = "float16"
    """11 bits: 3 cm at 50 m."""
    bfloat16 = "bfloat16"
    """8 bits: 25 cm at 50 m."""
    compact = "compact"
    """Road points as indices into the map, from which `alpagym.rows.decode` makes float32 rows of
    all 7 features where they are consumed, whatever `road_columns`; agents as float32."""


class ObservationKind(Enum):
    """What egos see."""

    full = "full"
    """Everything: the ego, its route, agents, road points and lights."""
    alpasim = "alpasim"
    """What AlpaSim tells its drivers and nothing else: speed, acceleration and curvature, and the
    20 waypoints of AlpaSim's route, 80/19 m apart from where the rear axle is on it, in the frame
    of the rear axle; with what follows from these, the route offset and the heading error. Other
    features are 0. Choose it by `alpagym train observation=alpasim`, which sets sizes to fit."""


class SlotOrder(Enum):
    """Which elements fill the slots of an observation, and in which order."""

    nearest_first = "nearest_first"
    """The nearest, sorted by distance."""
    nearest = "nearest"
    """The nearest, in an order that says nothing: faster."""
    bounded = "bounded"
    """About the nearest, for road points on a CPU, where it is fastest; agents, and a GPU, have the
    nearest in any order. None that is left out for want of slots is nearer than one that is there
    by more than 0.71 of a grid cell and 1/255 of `road_radius`: by 6 m up to a radius of 80 m where
    cells are 8 m, as they are unless a map is more than 1,280 m across. Points about as near to the
    rim of the radius may be left out though slots stay empty."""


DRIVES_ON = {"idm", "log_then_idm"}
"""Traffic that changes lanes, and drives on beyond its routes."""


class AutoReset(Enum):
    """When a world that is done starts its next episode."""

    same_step = "same_step"
    """In the step that ended it: that step returns the first observation of the next episode, and
    the last one of the old in `info["final_observation"]`."""
    next_step = "next_step"
    """In the step after, whose action is ignored and whose reward is 0."""
    disabled = "disabled"
    """Never: the world stands still until `reset` is called for it."""


@dataclass(frozen=True)
class SimConfig:
    """The simulator's scalars."""

    dt: float = 0.1
    """Step length [s]; the record's."""
    action: ActionType = ActionType.unicycle
    plan_steps: int = 64
    """Waypoints in a plan. The controller looks 1.0 to 2.0 s ahead: a plan that ends sooner stops
    at its last waypoint."""
    replan_every: int = 1
    """Steps from one action to the next, k. Actions are read at steps 0, k, 2 k, ... of an episode
    and ignored in between: a plan goes on, grown older; of other kinds an action is k controls or
    poses one after the other, for the steps to come."""
    traffic: Traffic = Traffic.log
    end_on: tuple[str, ...] = ("collision_at_fault", "offroad")
    """Events that end an episode: any of collision_at_fault, collision_any, offroad, red_light,
    stop_sign, goal."""
    bad_action: str = "raise"
    """What an action of NaN or infinity does: `raise` an error that names world, agent and step
    (looking costs a wait on a GPU), `clamp` (NaN coasts, infinity goes to the bound) or `terminate`
    that ego's episode. `info["bad_action"]` tells in any case."""
    max_steps: int = 0
    """Steps an episode lasts at most; 0 for the record's length. Beyond the record, traffic other
    than `log` drives on along the lane graph, and lights go on as `Lights.after` tells."""
    multi_agent: bool = False
    """Every agent that may be is policy-controlled (observations [W, A, ...]), not the ego
    alone."""
    min_accel: float = -8.0
    """Hardest braking [m/s^2]."""
    max_accel: float = 4.0
    """Hardest acceleration [m/s^2]."""
    max_curvature: float = 0.33
    """Tightest turn [1/m]."""
    max_lateral_accel: float = 8.0
    """Bounds curvature at speed [m/s^2]."""
    ttc_horizon: float = 2.0
    """Collisions further ahead are not counted by the `ttc` term [s]."""
    observation: ObservationKind = ObservationKind.full
    """What egos see."""
    num_agents: int = 16
    """Observed agents."""
    num_road_points: int = 48
    """Observed road points."""
    num_route_points: int = 16
    """Observed route waypoints."""
    num_lights: int = 4
    """Observed traffic lights."""
    row_format: RowFormat = RowFormat.float32
    """Of the rows of agents and road points."""
    slot_order: SlotOrder = SlotOrder.nearest_first
    """Of agents and road points."""
    ego_columns: int = 10
    """Features of the ego; fewer leave out the last of `EgoFeature`."""
    agent_columns: int = 8
    """Likewise of `AgentFeature`."""
    road_columns: int = 7
    """Likewise of `RoadFeature`."""
    agent_radius: float = 60.0
    """Agents farther away are not observed [m]."""
    road_radius: float = 50.0
    """Road points farther away are not observed [m]."""
    light_radius: float = 80.0
    """Lights farther away are not observed [m]."""
    route_step: float = 4.0
    """Arc length between observed waypoints [m]."""
    route_horizon: float = 80.0
    """How far ahead on the route stops are observed [m]."""
    idm_accel: float = 1.5
    """IDM's maximum acceleration [m/s^2]."""
    idm_decel: float = 2.0
    """IDM's comfortable deceleration [m/s^2]."""
    idm_headway: float = 1.2
    """IDM's time headway [s]."""
    idm_gap: float = 2.0
    """IDM's gap at standstill [m]."""
    idm_max_decel: float = 8.0
    """IDM's hardest braking [m/s^2]."""
    idm_speed_spread: float = 0.1
    """IDM drivers want 1 -+ this times the speed limit."""
    lane_changes: bool = True
    """IDM drivers change lanes (MOBIL) where the map knows a lane beside theirs."""
    idm_politeness: float = 0.3
    """MOBIL: what others gain or lose counts by this against the own gain."""
    idm_change_threshold: float = 0.2
    """MOBIL: gain in acceleration that a lane change must bring [m/s^2]."""
    idm_safe_decel: float = 3.0
    """MOBIL: nobody is made to brake harder by a lane change [m/s^2]."""
    idm_change_wait: float = 5.0
    """Time between two lane changes of a driver [s]."""
    reactive_distance: float = 2.0
    """`log_then_idm`: deviation of an ego from its recorded position at which IDM takes over
    [m]."""


ALPASIM_SIZES = {
    "num_agents": 0,
    "num_road_points": 0,
    "num_lights": 0,
    "ego_columns": 7,
    "num_route_points": 20,
    "route_step": 80.0 / 19.0,
}
"""Options that `SimConfig.observation=alpasim` goes with."""


OBSERVATION_PRESETS: dict[str, dict[str, str | float]] = {
    "full": {},
    "alpasim": {
        "sim.observation": "alpasim",
        **{f"sim.{name}": size for name, size in ALPASIM_SIZES.items()},
        "policy.history": 4,
    },
}
"""Options by name: what policies see. With `alpasim` they can be served by `alpagym serve driver`:
the own motion at the last four decisions, and AlpaSim's route."""


def require_sizes(config: SimConfig) -> None:
    """Look whether sizes go with `config.observation`.

    Raises:
        ValueError: the first that does not.
    """
    if config.observation is not ObservationKind.alpasim:
        return
    for name, size in ALPASIM_SIZES.items():
        if getattr(config, name) != size:
            raise ValueError(
                f"sim.{name}: expected {size:.17g} with sim.observation=alpasim, "
                f"got {getattr(config, name)}"
            )


class RewardTerm(IntEnum):
    """Columns of `Outcome.terms`, in the order of the core."""

    PROGRESS = 0
    COLLISION_AT_FAULT = 1
    COLLISION_ANY = 2
    OFFROAD = 3
    RED_LIGHT = 4
    STOP_SIGN = 5
    GOAL = 6
    ROUTE = 7
    LANE = 8
    WRONG_WAY = 9
    DISTANCE_TO_GT = 10
    SPEED_LIMIT = 11
    COMFORT = 12
    TTC = 13


@dataclass(frozen=True)
class RewardConfig:
    """Weight of each reward term; what each measures is in `csrc/reward_terms.h`."""

    progress: float = 0.0
    """Per meter of route gained."""
    collision_at_fault: float = 0.0
    """Per front or lateral collision."""
    collision_any: float = 0.0
    """Per collision."""
    offroad: float = 0.0
    """Per departure from the drivable area."""
    red_light: float = 0.0
    """Per red light run."""
    stop_sign: float = 0.0
    """Per stop sign run."""
    goal: float = 0.0
    """For reaching the end of the logged path."""
    route: float = 0.0
    """Per meter off the route, each step."""
    lane: float = 0.0
    """Per meter off the center of the own lane, at most 6, each step."""
    wrong_way: float = 0.0
    """Each step in which every lane under the ego runs against it."""
    distance_to_gt: float = 0.0
    """Per meter from the logged position, each step."""
    speed_limit: float = 0.0
    """Per m/s above the limit, each step."""
    comfort: float = 0.0
    """Each step beyond any of nuPlan's six bounds of comfort."""
    ttc: float = 0.0
    """Per fraction of the horizon that the time to collision falls short, each step."""


REWARD_PRESETS = {
    "dense": RewardConfig(
        progress=0.15,
        collision_at_fault=-20.0,
        collision_any=-3.0,
        offroad=-20.0,
        red_light=-10.0,
        stop_sign=-5.0,
        route=-0.03,
        wrong_way=-0.5,
        speed_limit=-0.1,
        comfort=-0.02,
        ttc=-0.3,
    ),
    "progress_safety": RewardConfig(
        progress=0.01, collision_any=-10.0, offroad=-5.0, distance_to_gt=-0.0001
    ),
    "metrics": RewardConfig(progress=0.01, collision_any=-10.0),
    "distance_to_gt": RewardConfig(distance_to_gt=-0.01),
}
"""Presets by name; `progress_safety`, `metrics` and `distance_to_gt` are AlpaGym's, per step."""
