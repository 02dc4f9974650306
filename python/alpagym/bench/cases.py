"""What is measured: cases are data, `runner` finds them here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from alpagym.bench.synthetic import Scene
from alpagym.training_config import GRPO_PRESETS

SEED = 20_260
"""Of scenarios, actions and policies: every run measures the same work."""

FORMATS: dict[str, dict[str, Any]] = {
    "fp32": {"row_format": "float32"},
    "fp16": {"row_format": "float16"},
    "bf16": {"row_format": "bfloat16"},
    "compact": {"row_format": "compact"},
    "sorted": {"slot_order": "nearest_first"},
    "bounded": {"slot_order": "bounded"},
}
"""Observation formats: name in a metric -> fields of `SimConfig`. The first four are the nearest
agents and road points in any order; `sorted` and `bounded` differ from `fp32` only in how slots are
filled, by which the cost of exactness shows."""

DENSE = {
    "multi_agent": True,
    "num_agents": 63,
    "num_road_points": 200,
    "num_route_points": 0,
    "num_lights": 0,
    "ego_columns": 7,
    "agent_columns": 7,
    "road_columns": 7,
    "slot_order": "nearest",
    "agent_radius": 50.0,
    "road_radius": 50.0,
}
"""Observations of PufferDrive's size and content: every agent that may be is an ego, and sees
itself, 63 agents and 200 road points within 50 m, by 7 numbers each, no route, no lights."""


@dataclass(frozen=True)
class StepCase:
    """Worlds that step in a loop, with the time of each stage."""

    name: str
    source: str = "procedural"
    """Where scenarios come from, as in `sources`."""
    worlds: tuple[int, ...] = (64,)
    formats: tuple[str, ...] = tuple(FORMATS)
    sim: dict[str, Any] = field(default_factory=dict)
    """Fields of `SimConfig`, enumerations by name."""
    observe: bool = True
    """Whether the observation is written, too."""
    scenarios: int = 64
    """How many, where the source gives as many as are asked for; shared by the worlds."""
    steps: int = 20
    """Steps in a batch; the state is restored before each batch."""
    repeats: int = 7
    label: str = "{name}.{format}.w{worlds}"
    """What a metric's name begins with; a case that does not name worlds or format has one."""
    per_world: bool = False
    """Whether stages are timed by world [µs], as the older cases are, or by agent [ns]."""
    by_name: bool = False
    """Runs only where it is asked for: it takes minutes."""


@dataclass(frozen=True)
class MemoryCase:
    """What one more world costs in memory, `agents` of which `egos`, and its observation."""

    name: str
    agents: int = 64
    egos: int = 1
    formats: tuple[str, ...] = tuple(FORMATS)[:4]
    """Formats whose observations are counted; the order of slots takes no memory."""
    sim: dict[str, Any] = field(default_factory=dict)
    """Fields of `SimConfig`, enumerations by name."""
    by_name: bool = False


@dataclass(frozen=True)
class BindingCase:
    """What a call costs on worlds that are done; without worlds, before any kernel runs."""

    name: str
    worlds: int = 1
    by_name: bool = False


@dataclass(frozen=True)
class LoadCase:
    """How fast scenarios come from files, or from the generator, to the device."""

    name: str
    source: str
    scenarios: int = 64
    store: bool = False
    """Whether they are read from shards, which is measured, and not made or read otherwise."""
    by_name: bool = False


@dataclass(frozen=True)
class TrainCase:
    """One GRPO iteration, rollout and update, as `alpagym train` runs it."""

    name: str
    groups: int
    group_size: int
    scenarios: int = 64
    by_name: bool = False


@dataclass(frozen=True)
class StreamCase:
    """Worlds that step while banks of a store change, against worlds whose scenarios all stay."""

    name: str
    scenarios: int = 10_000
    """In the store; each is in a bank once."""
    distinct: int = 100
    """Generated; the others are the same under other ids."""
    bank: int = 64
    """Scenarios of a bank."""
    resident: int = 512
    """Scenarios of the resident case: more than caches hold, as a store's would be."""
    groups: int = 16
    """Scenarios of a rollout."""
    group_size: int = 16
    """Worlds of each."""
    segments: int = 78
    """The store is streamed in so many parts, with as many rollouts of the resident case before
    each: turns so short that a machine which changes its speed changes it for both."""
    policy: bool = True
    """Whether rollouts are those of training; else nothing but reset, observe and step."""
    by_name: bool = True


@dataclass(frozen=True)
class LearningCase:
    """Trainings that differ in a few options, over the same seeds."""

    name: str
    variants: dict[str, tuple[str, ...]]
    """Options of `alpagym train` by name."""
    options: tuple[str, ...] = ()
    """Of all of them."""
    seeds: int = 3
    whole: bool = False
    """Each imitates; else all of a seed begin with the same imitation policy."""
    by_name: bool = True


Case = StepCase | MemoryCase | BindingCase | LoadCase | StreamCase | TrainCase | LearningCase


def _procedural(name: str, worlds: int, traffic: str, **options: Any) -> StepCase:
    sim = {"traffic": traffic} | options.pop("sim", {})
    return StepCase(
        name,
        worlds=(worlds,),
        sim=sim,
        formats=("fp32",),
        label="{name}",
        per_world=True,
        **options,
    )


def _scaling(source: str) -> StepCase:
    return StepCase(
        f"{source}_scaling",
        source,
        (4, 16, 64, 256, 1024),
        formats=("fp32",),
        sim=DENSE,
        steps=4,
        repeats=5,
        by_name=True,
    )


SHORT = ("grpo.iterations=30", "num_replays=0")
"""About two minutes on two cores."""
BASE: dict[str, tuple[str, ...]] = {"base": ()}
SWEEP = BASE | {
    "groups_of_8": ("grpo.group_size=8", "grpo.scenarios_per_iteration=64"),
    "groups_of_32": ("grpo.group_size=32", "grpo.scenarios_per_iteration=16"),
    "credit_by_episode": ("grpo.credit=episode",),
    "clip_0.1": ("grpo.clip_low=0.1", "grpo.clip_high=0.1"),
    "clip_0.2_to_0.28": ("grpo.clip_high=0.28",),
    "clip_0.4": ("grpo.clip_low=0.4", "grpo.clip_high=0.4"),
    "kl_0.01": ("grpo.kl_weight=0.01",),
    "kl_0.1": ("grpo.kl_weight=0.1",),
    "learning_rate_halved": ("grpo.learning_rate=1e-4",),
    "learning_rate_doubled": ("grpo.learning_rate=4e-4",),
    "learning_rate_times_4": ("grpo.learning_rate=8e-4",),
    "imitation_0.03": ("grpo.imitation_weight=0.03",),
    "imitation_0.3": ("grpo.imitation_weight=0.3",),
}
"""One option at a time against the defaults, with as many worlds."""
ABLATIONS = BASE | {
    "credit_by_episode": ("grpo.credit=episode",),
    "mean_log_prob": ("grpo.log_prob=mean",),
    "independent_resets": ("grpo.forked=false",),
    "no_resampling": ("grpo.resample_dead=false",),
}
"""What each part of the default method does."""
OBJECTIVES = BASE | {name: (f"grpo={name}",) for name in GRPO_PRESETS if name != "grpo"}
"""The others by name, PPO with a critic among them, on the same budget."""
REWARDS = BASE | {
    "reward_progress_0.1": ("reward.progress=0.1",),
    "reward_progress_0.2": ("reward.progress=0.2",),
    "reward_failures_-10": ("reward.collision_at_fault=-10", "reward.offroad=-10"),
    "reward_failures_-40": ("reward.collision_at_fault=-40", "reward.offroad=-40"),
    "reward_any_collision_0": ("reward.collision_any=0",),
    "reward_any_collision_-6": ("reward.collision_any=-6",),
    "reward_comfort_0": ("reward.comfort=0",),
    "reward_comfort_-0.05": ("reward.comfort=-0.05",),
    "reward_ttc_0": ("reward.ttc=0",),
    "reward_ttc_-0.6": ("reward.ttc=-0.6",),
    "reward_lane_for_route": ("reward.route=0", "reward.lane=-0.03"),
    "reward_route_0": ("reward.route=0",),
}
"""Weights of the dense reward, one at a time."""

COMMANDS: dict[str, tuple[Case, ...]] = {
    "step": (
        StepCase("womd4", "womd4", sim=DENSE),
        StepCase("womd64", "womd64", sim=DENSE),
        StepCase("synthetic4", "synthetic4", sim=DENSE),
        StepCase(
            "synthetic4_ego",
            "synthetic4",
            (4096,),
            formats=("fp32",),
            observe=False,
            label="{name}.w{worlds}",
        ),
        _scaling("womd4"),
        _scaling("synthetic4"),
        _procedural("procedural.log.w256", 256, "log"),
        _procedural("procedural.log.w4096", 4096, "log"),
        _procedural("procedural.idm.w256", 256, "idm"),
        _procedural("procedural.log.w256.blind", 256, "log", observe=False),
        _procedural(
            "procedural.plan.w256", 256, "log", sim={"action": "trajectory"}, observe=False
        ),
        _procedural("procedural.multi.w64", 64, "log", sim={"multi_agent": True}),
        MemoryCase("memory.a64"),
        MemoryCase("memory.a64.multi", egos=64, sim=DENSE),
    ),
    "train": (
        TrainCase("train.g16.w256", groups=16, group_size=16),
        TrainCase("train.g256.w4096", groups=256, group_size=16, scenarios=256, by_name=True),
    ),
    "binding": (
        BindingCase("binding.w0", worlds=0),
        BindingCase("binding"),
        BindingCase("binding.w64", worlds=64),
    ),
    "load": (
        LoadCase("load.womd4", "womd4"),
        LoadCase("load.synthetic4", "synthetic4"),
        LoadCase("load.procedural", "procedural"),
        LoadCase("load.procedural.store", "procedural", store=True),
        LoadCase("load.womd64.store", "womd64", store=True),
        LoadCase("load.scenarionet64.store", "scenarionet64", store=True),
        StreamCase("load.stream"),
        StreamCase("load.stream.bare", policy=False),
    ),
    "learning": (
        LearningCase("learning", {"default": ()}, seeds=5, whole=True),
        LearningCase("learning.sweep", SWEEP, SHORT),
        LearningCase("learning.ablations", ABLATIONS, SHORT),
        LearningCase("learning.objectives", OBJECTIVES, SHORT),
        LearningCase("learning.rewards", REWARDS, SHORT),
    ),
}
"""Cases by the command that runs them."""

WOMD4 = (
    "tfrecord-00000-of-01000_325",
    "tfrecord-00000-of-01000_4",
    "tfrecord-00000-of-01000_402",
    "tfrecord-00002-of-01000_407",
)
"""The recordings that others have published speeds on, in `womd_gpudrive_json/current`."""

WOMD4_STATISTICS = {
    "agents": 62.25,
    "present": 39.25,
    "egos": 17.75,
    "road_points": 1482.5,
    "seen_agents": 25.197,
    "seen_road_points": 196.986,
}
"""What `sources.statistics` says of them, so that `synthetic4` can be held against it anywhere."""

SYNTHETIC4 = (
    Scene(
        (("street", 1, 0, 0), ("signal", 3, 100, 0)),
        agents=62,
        present=41,
        egos=8,
        radius=85,
        spacing=2.8,
    ),
    Scene(
        (("street", 2, 0, 0), ("street", 3, 55, 0), ("street", 4, 0, 55)),
        agents=81,
        present=57,
        egos=12,
        radius=80,
        spacing=4.0,
    ),
    Scene(
        (("signal", 3, 0, 0), ("signal", 4, 36, 0), ("signal", 5, 0, 36)),
        agents=91,
        present=50,
        egos=48,
        radius=130,
        spacing=5.5,
    ),
    Scene(
        (("t_junction", 1, 0, 0), ("lane_drop", 1, 100, 0)),
        agents=15,
        present=9,
        egos=3,
        radius=100,
        spacing=1.8,
    ),
)
"""Scene by scene as many agents and egos as in `WOMD4`; the rest tuned to its statistics."""
