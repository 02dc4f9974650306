"""What `alpagym train` trains on: scenarios that all lie on the device, or a stream of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from alpagym import sim
from alpagym.config import DRIVES_ON
from alpagym.imitation import Demonstrations, demonstrate, join
from alpagym.policies.policy import Policy
from alpagym.ranks import ALONE, Ranks
from alpagym.scenarios.batch import batch, max_agents
from alpagym.scenarios.egos import drives_of
from alpagym.scenarios.procedural import generate
from alpagym.scenarios.procedural.plan import DT
from alpagym.scenarios.scenario import Scenario, ScenarioError, recording_of
from alpagym.scenarios.selection import held_out, selected, selected_drives
from alpagym.scenarios.sources import (
    HELD_OUT_SEED,
    PROCEDURAL,
    SELECT,
    VALIDATION_SEED,
    Generate,
    load_recorded,
    refuse_selection,
    refuse_steps_of,
    training_and_held_out,
)
from alpagym.scenarios.step_length import fits
from alpagym.store.library import Library, Progress, prepare, shards_of
from alpagym.store.options import ConvertConfig
from alpagym.store.shard import Shard
from alpagym.store.shared import clear_unused, shared_generated
from alpagym.stream.banks import Stream
from alpagym.stream.curriculum import Curriculum
from alpagym.training_config import DataConfig, TrainConfig
from alpagym.types import Scenarios

SHARD = ConvertConfig().shard_scenarios


@dataclass
class TrainingData:
    """Scenarios to train on, and others to judge by."""

    scenarios: Scenarios
    """On the device; with a stream those of its first bank."""
    max_agents: int
    """Capacity of worlds that hold any of them."""
    names: list[str]
    """Ids of `scenarios`."""
    held_out: list[Scenario]
    """Never the same drive as one that is trained on."""
    validation: list[Scenario]
    """Likewise, and none that is held out: policies are compared on them during training."""
    sample: list[Scenario]
    """Of the training side, as many as are held out, if there are."""
    licenses: Counter[str]
    """Of all that is trained on."""
    recordings: list[str]
    """That are trained on, but generated ones."""
    stream: Stream | None = None
    resources: ExitStack = field(default_factory=ExitStack)
    """What `close` gives back."""

    @property
    def count(self) -> int:
        """Scenarios to train on."""
        return self.licenses.total()

    def close(self) -> None:
        self.resources.close()


def resident(config: TrainConfig, device: torch.device, say: Callable[[str], None]) -> TrainingData:
    """Load or generate everything, and put what is trained on onto the device.

    Raises:
        ScenarioError: as of `training_and_held_out`.
    """
    resources, runs = ExitStack(), Path(config.runs)
    generate = partial(_generated, runs, resources)
    try:
        train_set, judged = training_and_held_out(
            config.scenarios, config.data, config.sim.dt, config.seed, say, generate
        )
        aside = _validation_recordings({s.recording for s in train_set if not _made(s)}, config)
        validation = [s for s in train_set if s.recording in aside]
        validation = [validation[i] for i in _some(len(validation), config.data.validation, config)]
        validation = validation or _generated_validation(config, generate)
        clear_unused(runs)
    except BaseException:
        resources.close()
        raise
    train_set = [s for s in train_set if s.recording not in aside]
    packed = batch(train_set, device, lanes=config.sim.traffic.name in DRIVES_ON)
    return TrainingData(
        sim.with_near(packed, config.sim),
        max_agents(train_set),
        [s.id for s in train_set],
        judged,
        validation,
        train_set[: len(judged)],
        Counter(s.license for s in train_set),
        sorted({s.recording for s in train_set if not _made(s)}),
        resources=resources,
    )


def _generated(
    runs: Path, resources: ExitStack, data: DataConfig, dt: float, count: int, seed: int
) -> list[Scenario]:
    """What `sources.generated` gives, from shards that runs share."""
    refuse_steps_of(dt)
    if not count:
        return []
    kept = shared_generated(runs, count, seed, kinds=data.kinds, workers=data.workers)
    return [scenario for path in resources.enter_context(kept) for scenario in Shard(path)]


def streamed(
    config: TrainConfig,
    device: torch.device,
    say: Callable[[str], None],
    progress: Progress,
    ranks: Ranks = ALONE,
) -> TrainingData:
    """Open a store, or one made of generated scenarios, and begin to stream from it.

    All ranks have the same banks; the first prepares the store for the others.

    Raises:
        ScenarioError: no store, too little in it, or nothing that fits into memory.
        ValueError: an option that cannot be had together with a stream.
    """
    options, data = config.stream, config.data
    resources = ExitStack()
    generate = partial(_generated, Path(config.runs), resources)
    try:
        generating = config.scenarios == PROCEDURAL
        shards = [] if generating else shards_of(Path(config.scenarios))
        own = len(shards)
        count = data.train if generating else data.procedural
        if generating:
            refuse_selection(data)
        if count:
            refuse_steps_of(config.sim.dt)
            shards += resources.enter_context(
                shared_generated(
                    Path(config.runs),
                    count,
                    config.seed,
                    kinds=data.kinds,
                    workers=data.workers,
                    progress=lambda done, total: progress(
                        "generating", done // SHARD, -(-total // SHARD)
                    ),
                )
            )
        near = config.sim if device.type == "cpu" and config.sim.road_radius <= 1000.0 else None
        with ranks.in_turn():
            prepare(shards, near=near, workers=data.workers, progress=progress)
        library = Library(shards, drives=data.egos_per_scenario, near=near)
        train, judged, compared = _sides(library, config, own, say)
        stream = Stream(
            library,
            train,
            Curriculum(
                library.key[train],
                library.difficulty[train],
                weights=options.weights,
                seed=config.seed,
            ),
            scenarios=max(options.scenarios, config.grpo.starts),
            per_rollout=config.grpo.starts,
            max_bytes=options.max_mib << 20,
            lanes=config.sim.traffic.name in DRIVES_ON,
            device=device,
        )
        resources.callback(stream.close)
        held = library.scenarios(judged.tolist()) if len(judged) else []
        if generating:
            seed = config.seed + HELD_OUT_SEED
            held = generate(data, config.sim.dt, data.held_out, seed)
        validation = (
            library.scenarios(compared.tolist())
            if len(compared)
            else _generated_validation(config, generate)
        )
        clear_unused(Path(config.runs))
        sample = library.scenarios(train[: len(held)].tolist())
    except BaseException:
        resources.close()
        raise
    recordings = {library.recordings[i] for i in train if library.datasets[i] != PROCEDURAL}
    return TrainingData(
        stream.scenarios,
        stream.max_agents,
        stream.names,
        held,
        validation,
        sample,
        Counter(library.licenses[i] for i in train),
        sorted(recordings),
        stream,
        resources,
    )


def _made(scenario: Scenario) -> bool:
    return scenario.dataset == PROCEDURAL


def _validation_recordings(recordings: Collection[str], config: TrainConfig) -> set[str]:
    """Recordings that are neither trained on nor held out; none where that would be too few."""
    fraction = config.data.validation_fraction
    if not config.eval_every or not round(fraction * len(recordings)):
        return set()
    return held_out(recordings, fraction=fraction, seed=config.seed + VALIDATION_SEED)


def _generated_validation(config: TrainConfig, generate: Generate) -> list[Scenario]:
    if not config.eval_every or not fits(DT, config.sim.dt):
        return []
    data = config.data
    return generate(data, config.sim.dt, data.validation, config.seed + VALIDATION_SEED)


def _some(count: int, limit: int, config: TrainConfig) -> np.ndarray:
    """At most `limit` indices out of `count`, drawn from the seed, in order."""
    if count <= limit:
        return np.arange(count)
    return np.sort(np.random.default_rng(config.seed).permutation(count)[:limit])


def _sides(
    library: Library, config: TrainConfig, own_shards: int, say: Callable[[str], None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Drives to train on, some of those held out, and some to validate: indices into the library.

    What lies beyond `own_shards` was generated for this run; all of it is trained on.
    """
    data = config.data
    usable, reasons = library.usable(
        dt=config.sim.dt, min_steps=data.min_steps, max_agents=data.max_agents
    )
    if reasons:
        say(f"{config.scenarios}: {len(usable)} drives found, {len(reasons)} scenarios skipped:")
        for reason in reasons:
            say(f"  {reason}")
    if not len(usable):
        raise ScenarioError(f"{config.scenarios}: no usable scenario: {reasons[0]}")
    if config.scenarios == PROCEDURAL:
        return usable, usable[:0], usable[:0]
    own = library.shard[usable] < own_shards
    chosen, extra = usable[own], usable[~own]
    chosen = chosen[selected(SELECT, data.select, [library.ids[i] for i in chosen])]
    of = [library.recordings[i] for i in chosen]
    judged = held_out(of, named=data.hold_out, fraction=data.held_out_fraction, seed=config.seed)
    is_judged = np.array([recording in judged for recording in of], bool)
    train, rest = chosen[~is_judged], chosen[is_judged]
    if not len(train) or not len(rest):
        raise ScenarioError(
            f"{config.scenarios}: expected at least 2 usable recordings, to train on and to hold "
            f"out, got {len(set(of))}"
        )
    rest = rest[_some(len(rest), config.stream.held_out, config)]
    of_train = np.array([library.recordings[i] for i in train])
    aside = np.isin(of_train, sorted(_validation_recordings(set(of_train.tolist()), config)))
    compared = train[aside]
    compared = compared[_some(len(compared), data.validation, config)]
    return np.concatenate([train[~aside], extra]), rest, compared


def named(
    config: TrainConfig, names: Collection[str], say: Callable[[str], None]
) -> dict[str, Scenario]:
    """Scenarios that a run trained on, by id, in order of their ids.

    Raises:
        ScenarioError: one that is no longer there.
    """
    found: dict[str, Scenario] = {}
    data = config.data
    if config.scenarios != PROCEDURAL and config.stream.scenarios:
        shards = shards_of(Path(config.scenarios))
        prepare(shards, workers=data.workers)
        library = Library(shards, drives=data.egos_per_scenario)
        at = [i for i, name in enumerate(library.ids) if name in names]
        found = {s.id: s for s in library.scenarios(at)} if at else {}
    elif config.scenarios != PROCEDURAL:
        loaded = load_recorded(config.scenarios, data, config.sim.dt, say)
        drives = selected_drives(loaded, SELECT, data.select, data.egos_per_scenario)
        found = {s.id: s for s in drives if s.id in names}
    for name in set(names) - found.keys():
        source, *rest = recording_of(name).split("/")
        drives = []
        if source == PROCEDURAL and len(rest) == 2 and rest[1].isdecimal():
            made = generate(rest[0], int(rest[1]))
            drives = drives_of(made, made.tracks.num_agents)
        found |= {s.id: s for s in drives if s.id == name}
        if name not in found:
            raise ScenarioError(f"{config.scenarios}: expected scenario {name}, which is not there")
    return dict(sorted(found.items()))


def demonstrations(data: TrainingData, config: TrainConfig, policy: Policy) -> Demonstrations:
    """What the egos recorded in the training scenarios did; of a stream, of its first banks."""
    stream, smoothing = data.stream, config.imitation.smoothing
    if stream is None:
        recordings = [recording_of(name) for name in data.names]
        return demonstrate(
            data.scenarios,
            data.max_agents,
            config.sim,
            recordings=recordings,
            smoothing=smoothing,
            policy=policy,
        )
    number: dict[str, int] = {}
    parts: list[Demonstrations] = []
    seen = 0
    while True:
        part = demonstrate(
            stream.scenarios, data.max_agents, config.sim, smoothing=smoothing, policy=policy
        )
        of = [number.setdefault(recording_of(name), len(number)) for name in stream.names]
        part.recording = torch.tensor(of, device=part.recording.device)[part.recording]
        parts.append(part)
        seen += len(stream.names)
        if seen >= min(config.stream.imitation, data.count):
            break
        stream.advance()
    return join(parts)
