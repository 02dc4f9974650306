"""Options of training, evaluation and export, the schema of the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from alpagym.config import REWARD_PRESETS, RewardConfig, SimConfig, SlotOrder
from alpagym.interop.alpasim.session_options import SessionConfig
from alpagym.interop.cosmos.options import CosmosConfig


@dataclass(frozen=True)
class PolicyConfig:
    """What drives: `docs/policies.md`."""

    kind: str = "late_fusion"
    """`late_fusion`: an action a step; `trajectory`: plans; or a policy of a user: `module:Class`,
    or an entry point of `alpagym.policies`."""
    width: int = 32
    """Features per observed element."""
    hidden: int = 128
    """Features of the fused layers."""
    history: int = 1
    """Observations that are seen together: the present one, and of those at the decisions before it
    the ego and the agents about it."""
    log_std: float = -1.2
    """Initial log standard deviation of the normalized action."""
    head: str = "gaussian"
    """Of a trajectory policy: `gaussian`, or `flow_matching`."""
    knots: int = 16
    """Of a trajectory policy: points in time that accelerations and curvatures are decided at, and
    between which they are interpolated; as many as `sim.plan_steps` for each step."""
    flow_steps: int = 5
    """Of flow matching: steps from noise to a plan."""
    flow_noise: float = 0.5
    """Of flow matching: noise added in them, which makes their log-probability."""
    observe_weights: bool = True
    """The weights of `reward_ranges` are inputs: one policy for many driving styles."""
    weights: str = ""
    """Weights to begin with: a file of `torch.save(module.state_dict())`, or safetensors."""
    options: dict[str, Any] = field(default_factory=dict)
    """What a policy of a user makes of them."""


POLICY_PRESETS: dict[str, dict[str, Any]] = {
    "small": {},
    "large": {"policy.width": 64, "policy.hidden": 256},
    "trajectory": {
        "policy.kind": "trajectory",
        "policy.log_std": -1.8,
        "sim.replan_every": 5,
        "grpo.minibatch_size": 1024,
    },
    "flow_matching": {
        "policy.kind": "trajectory",
        "policy.head": "flow_matching",
        "sim.replan_every": 5,
        "grpo.minibatch_size": 1024,
        "grpo.learning_rate": 1e-4,
    },
}
"""Options by name; policies of two sizes, and with plans, of which a rollout holds fewer than of
actions."""


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
    shard: bool = False
    """Of several ranks each keeps and moves its share of the weights that learn, with gradients and
    moments (FSDP2), imitation included; all keep whole weights to drive with."""
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
    "deepseek": GrpoConfig(
        credit="episode", scale="group", discount=1.0, average="rollout", kl_weight=0.04,
    ),
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
    validation: int = 64
    """Scenarios that policies are compared on while they are trained (`eval_every`); at most, of
    recordings."""
    validation_fraction: float = 0.1
    """Share of the recordings not held out that is kept for it; where that is none, scenarios are
    generated."""
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
    checkpoint: str = ""
    """A run directory or policy file to begin with instead of imitating."""
    resume: str = ""
    """A run directory to go on with, by its own options."""
    runs: str = "runs"
    """Folder of run directories."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, or `auto`."""
    backend: str = "alpagym"
    """What runs GRPO: `alpagym`, or `cosmos` for Cosmos-RL."""
    seed: int = 0
    """Of everything that is drawn."""
    threads: int = 0
    """CPU threads; 0 for all cores."""
    save_every: int = 5
    """Iterations after which everything is saved that it takes to go on."""
    eval_every: int = 20
    """Iterations after which the policy is compared with those before, on scenarios neither trained
    on nor held out, and the best is kept; 0 for never."""
    final: str = "last"
    """Policy that is judged in the end: the `last`, or the `best` of those compared."""
    keep_policies: int = 128
    """Policies of single iterations that are kept for `alpagym render`, at most; of a longer run
    every 2nd, 4th, and so on. 0 for none."""
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
    cosmos: CosmosConfig = field(default_factory=CosmosConfig)


@dataclass(frozen=True)
class EvalConfig:
    """`alpagym eval`."""

    checkpoint: str = ""
    """A run directory, or a policy file in its `checkpoints/`."""
    policy: str = ""
    """A driver that needs no checkpoint: `log`, `idm`, `constant_velocity`, or an AlpaSim driver at
    `grpc://host:port`."""
    compare: str = ""
    """Another checkpoint, or such a driver, to compare with on the same scenarios."""
    scenarios: str = "procedural"
    """`procedural`, or a file or folder of recordings."""
    reward_weights: dict[str, float] = field(default_factory=dict)
    """What checkpoints that observe reward weights drive for; the middle of their ranges where not
    given."""
    metrics: str = ""
    """Metrics of others to measure too: `alpasim`, `nuplan`, `navsim`, `waymax`, `ttc`, `alpagym`
    or `all`. They judge drives that no failure ends."""
    suite: str = ""
    """`challenge` drives and scores by the protocol of AlpaSim's closed-loop challenge of 2026;
    empty for none."""
    asl: str = ""
    """A log of AlpaSim, or a folder of them, to score instead of driving; its scenes are looked up
    by id among `scenarios`, for their maps."""
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
    alpasim: SessionConfig = field(default_factory=SessionConfig)


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
