"""Every option of AlpaGym, with units: frozen, plain values, the schema of the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any


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


@dataclass(frozen=True)
class PolicyConfig:
    """The small late-fusion policy."""

    width: int = 32
    """Features per observed element."""
    hidden: int = 128
    """Features of the fused layers."""
    log_std: float = -1.2
    """Initial log standard deviation of the normalized action."""
    observe_weights: bool = True
    """The weights of `reward_ranges` are inputs: one policy for many driving styles."""


@dataclass(frozen=True)
class ImitationConfig:
    """Open-loop learning from the logs."""

    learning_rate: float = 1e-3
    """Adam's, at first."""
    batch_size: int = 512
    """Steps per gradient step."""
    max_epochs: int = 200
    """Passes over the recorded steps at most."""
    patience: int = 6
    """Stop after so many epochs without a lower held-out loss."""
    smoothing: float = 0.5
    """Time over which recorded controls are averaged [s]; 0 for none."""
    held_out_fraction: float = 0.1
    """Share of the training scenarios that only measure the loss."""


class Precision(Enum):
    """Of numbers in matrix products."""

    float32 = "float32"
    bfloat16 = "bfloat16"


@dataclass(frozen=True)
class ObjectiveConfig:
    """What an update minimizes: `alpagym.grpo.loss`. Rollouts are columns of a table of steps."""

    clip_low: float = 0.2
    """How far below 1 the ratio of probabilities still counts, of bad actions; negative for any."""
    clip_high: float = 0.2
    """How far above 1 the ratio of probabilities still counts, of good actions; negative for
    any."""
    ratio: str = "step"
    """Of probabilities: of each `step`, or the geometric mean over a `rollout` (GSPO)."""
    max_log_ratio: float = 20.0
    """Log-ratios farther from 0 (of rollouts: above this) count as this, without gradient."""
    dual_clip: float = 0.0
    """A bad action that became likelier counts at most this often; 0 for no bound."""
    truncate_ratio: float = 0.0
    """Weigh by the ratio up to this and do not clip (truncated importance sampling); 0 for
    clipping."""
    average: str = "step"
    """Over `step`s; over `rollout`s, of means; over rollouts, of sums (`rollout_sum`); over
    rollouts, of sums over a `constant` number of steps (Dr. GRPO); or no mean, the `sum`."""
    constant_steps: int = 90
    """That number."""
    kl_estimate: str = "k3"
    """Of KL to the anchor: `k1` (the log-ratio), `k2` (half its square) or `k3`."""
    kl_weight: float = 0.0
    """Of the estimate of KL to the anchor, which is the imitation policy at first."""
    kl_corrected: bool = False
    """Weigh the estimate by the ratio, which makes its gradient unbiased; k1 always is."""
    off_policy_limit: float = 0.0
    """Rollouts worse than their group whose mean log-ratio fell by more than this are left out; 0
    for none."""
    behavior_cap: float = 0.0
    """Steps that another policy took, less likely than `old` by more than this factor, are left
    out; 0 for none."""

    @property
    def by_rollout(self) -> bool:
        """Whether it needs whole rollouts."""
        return self.ratio == "rollout" or self.average != "step" or self.off_policy_limit > 0.0


@dataclass(frozen=True)
class GrpoConfig(ObjectiveConfig):
    """Closed-loop learning; what others call by name are choices of these (`GRPO_PRESETS`)."""

    iterations: int = 100
    """Rollouts of all groups, each followed by its updates."""
    group_size: int = 16
    """G rollouts of one scenario from one forked state."""
    scenarios_per_iteration: int = 32
    """Groups in a rollout."""
    forked: bool = True
    """Rollouts of a group begin in the same state; otherwise each in a scenario of its own, and a
    group compares what is not alike."""
    branch_within: int = 0
    """Groups fork at a step of the policy's own drive, drawn from 0 to this."""
    epochs: int = 1
    """Passes over each rollout."""
    minibatch_size: int = 4096
    """Steps per gradient step."""
    precision: Precision = Precision.float32
    """Of the policy's matrix products; bfloat16 is for GPUs, a CPU's fused encoder does without it.
    Weights, log-probabilities and gradients stay float32."""
    capture: bool = True
    """On a GPU, replay rollouts as one CUDA graph; reward functions of users prevent it, and so do
    policies that wait for the GPU, with a warning."""
    learning_rate: float = 2e-4
    """Adam's, at the first iteration; it falls to 0 at the last."""
    credit: str = "step"
    """`step`: reward-to-go against the group at the same step; `episode`: the return, as
    AlpaGym."""
    log_prob: str = "sum"
    """Over action dimensions: `sum`, or `mean` as AlpaGym (which makes clipping inert)."""
    baseline: str = "group"
    """What a rollout is compared with: the mean of its `group`, of the others in it
    (`leave_one_out`), or what a `critic` expects (PPO)."""
    scale: str = "batch"
    """Advantages are divided by the standard deviation inside the `group`, over the `batch`, or not
    (`none`)."""
    discount: float = 0.97
    """Of the reward-to-go, per step."""
    gae_lambda: float = 0.95
    """With a critic: how far advantages look ahead before they trust it."""
    critic_learning_rate: float = 1e-3
    """Adam's, of the critic."""
    anchor_decay: float = 0.0
    """The anchor follows the policy: it keeps this share of itself an iteration; 0 for frozen."""
    entropy_weight: float = 0.0
    """Of the entropy of actions, which is rewarded."""
    imitation_weight: float = 0.0
    """Of the imitation loss on recorded steps, in every update."""
    imitation_batch: int = 1024
    """Recorded steps in it."""
    max_grad_norm: float = 1.0
    """Longer gradients are shortened to this."""
    dead_group_tolerance: float = 0.05
    """Groups whose returns spread less than this share of what is usual are dead."""
    resample_dead: bool = True
    """Draw scenarios of dead groups less often."""
    refills: int = 0
    """Roll up to so many times more until as many groups are alive as were asked for (DAPO)."""

    @property
    def starts(self) -> int:
        """Scenarios that a rollout begins in."""
        return self.scenarios_per_iteration * (1 if self.forked else self.group_size)


GRPO_PRESETS = {
    "grpo": GrpoConfig(),
    "deepseek": GrpoConfig(credit="episode", scale="group", discount=1.0),
    "dr_grpo": GrpoConfig(credit="episode", scale="none", discount=1.0, average="constant"),
    "rloo": GrpoConfig(
        credit="episode", baseline="leave_one_out", scale="none", discount=1.0, clip_low=-1.0,
        clip_high=-1.0,
    ),
    "dapo": GrpoConfig(
        credit="episode", scale="group", discount=1.0, clip_high=0.28, refills=3,
    ),
    "gspo": GrpoConfig(
        credit="episode", scale="group", discount=1.0, ratio="rollout", average="rollout",
        clip_low=3e-4, clip_high=4e-4, max_log_ratio=10.0,
    ),
    "alpagym": GrpoConfig(
        credit="episode", scale="group", discount=1.0, log_prob="mean", max_log_ratio=5.0,
    ),
    "ppo": GrpoConfig(baseline="critic", forked=False, epochs=4, resample_dead=False),
}  # fmt: skip
"""Ours; GRPO as published (Shao et al. 2024); Dr. GRPO (Liu et al. 2025); RLOO (Ahmadian et al.
2024); DAPO (Yu et al. 2025); GSPO (Zheng et al. 2025); NVIDIA's AlpaGym; PPO (Schulman et al.
2017)."""


@dataclass(frozen=True)
class DataConfig:
    """Which scenarios to train on and which to hold out."""

    train: int = 512
    """Training scenarios to generate, when procedural."""
    held_out: int = 256
    """Held-out scenarios to generate, when procedural."""
    held_out_fraction: float = 0.3
    """Share of recorded scenarios that is held out."""
    kinds: tuple[str, ...] = ()
    """Procedural kinds; empty for all."""
    max_agents: int = 0
    """Recorded scenarios with more agents are skipped; 0 for no bound."""
    procedural: int = 256
    """Procedural scenarios that training on recorded ones adds, against overfitting to few."""
    egos_per_scenario: int = 8
    """Drives that a recorded scenario gives at most, each with another of its vehicles as ego."""
    min_steps: int = 20
    """Recorded scenarios that last fewer steps are skipped."""
    workers: int = 0
    """Processes that read or generate; 0 for all cores."""
    select: str = ""
    """Only these: ids of scenarios or recordings, comma-separated, or a file with one a line."""
    hold_out: str = ""
    """Recordings that are held out, given likewise, instead of a drawn share."""


@dataclass(frozen=True)
class StreamConfig:
    """Training on a store that need not fit into memory: `docs/streaming.md`."""

    scenarios: int = 0
    """Scenarios of a bank: what rollouts draw from until the next bank, filled meanwhile, takes its
    place. 0 keeps all scenarios in memory."""
    max_mib: int = 1024
    """Memory of the two banks together [MiB]; where that is too little, banks are smaller."""
    weights: str = "uniform"
    """How often a scenario is drawn: `uniform`, by `failure` or by `difficulty`."""
    held_out: int = 256
    """Held-out scenarios that are driven at most."""
    imitation: int = 512
    """Scenarios that imitation learns from at most."""


@dataclass(frozen=True)
class TrainConfig:
    """`alpagym train`."""

    scenarios: str = "procedural"
    """`procedural`, or a file or folder of recordings."""
    name: str = ""
    """Run directory under `runs`; empty for a name from date and time."""
    resume: str = ""
    """A run directory to go on with, by its own options but for those given here."""
    runs: str = "runs"
    """Folder of run directories."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, or `auto`."""
    seed: int = 0
    """Of everything that is drawn."""
    threads: int = 0
    """CPU threads; 0 for all cores."""
    save_every: int = 5
    """Iterations after which everything is saved that it takes to go on."""
    num_replays: int = 12
    """Scenarios shown in the report."""
    data: DataConfig = field(default_factory=DataConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    sim: SimConfig = field(default_factory=lambda: SimConfig(slot_order=SlotOrder.nearest))
    reward: RewardConfig = field(default_factory=lambda: REWARD_PRESETS["dense"])
    reward_functions: tuple[str, ...] = ()
    """Reward functions of users, added to the terms: `module:function`, or entry points of
    `alpagym.rewards`."""
    reward_ranges: dict[str, Any] = field(default_factory=dict)
    """Weights that each episode draws instead of `reward`'s: term -> lowest and highest."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    imitation: ImitationConfig = field(default_factory=ImitationConfig)
    grpo: GrpoConfig = field(default_factory=lambda: GRPO_PRESETS["grpo"])


@dataclass(frozen=True)
class EvalConfig:
    """`alpagym eval`."""

    checkpoint: str = ""
    """A run directory, or a policy file in its `checkpoints/`."""
    policy: str = ""
    """A driver that needs no checkpoint: `log`, `idm` or `constant_velocity`."""
    scenarios: str = "procedural"
    """`procedural`, or a file or folder of recordings."""
    reward_weights: dict[str, float] = field(default_factory=dict)
    """What a checkpoint that observes reward weights drives for; the middle of their ranges where
    not given."""
    metrics: str = ""
    """Metrics of others to measure too: `alpasim`, `nuplan`, `navsim`, `waymax`, `ttc`, `alpagym`
    or `all`. They judge drives that no failure ends."""
    output: str = ""
    """JSON file to write; empty for none."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, or `auto`."""
    seed: int = 0
    """Of everything that is drawn."""
    threads: int = 0
    """CPU threads; 0 for all cores."""
    data: DataConfig = field(default_factory=lambda: DataConfig(egos_per_scenario=1))
    sim: SimConfig = field(default_factory=SimConfig)


@dataclass(frozen=True)
class ExportConfig:
    """`alpagym export`."""

    scenarios: str = "procedural"
    """`procedural`, or a file or folder of recordings."""
    out: str = ""
    """Folder to write to, new or empty."""
    format: str = "scenarionet"
    """`gpudrive` (JSON) or `scenarionet` (pickles)."""
    edits: dict[str, Any] = field(default_factory=dict)
    """Changes to make, in this order, e.g. `{speed: [0.8, 1.2], remove: 2}`: `docs/edits.md`."""
    copies: int = 1
    """Differently edited copies of each scenario."""
    count: int = 16
    """Scenarios to generate, when procedural."""
    seed: int = 0
    """Of everything that is drawn."""
    workers: int = 0
    """Processes that read or generate; 0 for all cores."""
