"""Part of `alpagym bench load`: what streaming a store costs the steps that go on meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from alpagym import sim
from alpagym.bench import sources
from alpagym.bench.cases import SEED, StreamCase
from alpagym.bench.context import Context, Line
from alpagym.bench.timing import Measurement, median_of
from alpagym.config import REWARD_PRESETS, SimConfig
from alpagym.grpo.rollout import Roller
from alpagym.policies.late_fusion import LateFusion
from alpagym.scenarios.scenario import EGO_MARK, Scenario, key_of
from alpagym.store import container, packed
from alpagym.store.checks import checksum
from alpagym.store.library import Library, prepare
from alpagym.store.shard import SUFFIX, write_shard
from alpagym.stream.banks import Stream
from alpagym.stream.curriculum import Curriculum
from alpagym.training_config import PolicyConfig, TrainConfig
from alpagym.types import Scenarios


def run(case: StreamCase, context: Context) -> Iterator[Line]:
    """World-steps a second of a streamed store and of one resident bank, in turns."""
    if context.quick:
        case = replace(
            case, scenarios=24, distinct=6, bank=4, resident=8, groups=2, group_size=2, segments=2
        )
    config = replace(TrainConfig().sim, end_on=(), max_steps=5 if context.quick else 0)
    hosts = sources.kept("procedural", case.distinct, context.data).hosts
    near = config if context.device.type == "cpu" else None
    with TemporaryDirectory() as folder:
        shards = _store(Path(folder), hosts, case.scenarios, near)
        size = sum(file.stat().st_size for file in Path(folder).rglob(f"*{SUFFIX}"))
        yield f"{case.name}.store_mib", Measurement(size / 2**20)
        before = _reset_peak()
        library = Library(shards, near=near)
        drives = np.arange(len(library))
        curriculum = Curriculum(library.key, library.difficulty, weights="uniform", seed=SEED)
        with Stream(
            library,
            drives,
            curriculum,
            scenarios=case.bank,
            per_rollout=case.groups,
            max_bytes=2 * library.capacity(case.bank, drives),
            lanes=False,
            device=context.device,
        ) as stream:
            yield f"{case.name}.banks_mib", Measurement(stream.memory_bytes / 2**20)
            yield from _in_turns(case, stream, library, config)
        if before is not None:
            yield f"{case.name}.peak_growth_mib", Measurement((_status("VmHWM") - before) / 1024)


def _in_turns(
    case: StreamCase, stream: Stream, library: Library, config: SimConfig
) -> Iterator[Line]:
    device = stream.scenarios.device
    bank = library.fill(np.arange(case.resident), lanes=False)
    resident = bank.tensors(bank.memory.to(device))
    drive = (_WithPolicy if case.policy else _Bare)(case, stream, config)
    rollouts = max(case.bank // case.groups, 1)
    banks = max(case.scenarios // case.bank // case.segments, 1)
    fixed = torch.arange(case.groups, dtype=torch.int32)
    times: dict[str, list[float]] = {"resident": [], "streamed": []}
    costs: dict[str, list[float]] = {"resident": [], "streamed": []}
    done = 0
    for segment in range(case.segments + 1):
        stream.wait()  # nothing is filled while the resident case is measured
        for name in times:
            started, busy = time.perf_counter(), time.process_time()
            for _ in range(rollouts * banks if segment else rollouts):  # the first warms up
                if name == "streamed":
                    index = stream.draw()
                    drive(stream.scenarios, index)
                else:
                    drive(resident, (fixed + done) % case.resident)
                    done += case.groups
            stream.wait()  # what was begun while it was measured is measured
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if segment:
                times[name].append(time.perf_counter() - started)
                costs[name].append(time.process_time() - busy)
    steps = drive.steps * case.groups * case.group_size * rollouts * banks
    for name, seconds in times.items():
        rate = median_of(seconds).inverse(steps)
        yield f"{case.name}.{name}_world_steps_per_s", rate
    for kind, taken in (("", times), ("cpu_", costs)):
        turns = [a / b for a, b in zip(taken["resident"], taken["streamed"], strict=True)]
        whole = sum(taken["resident"]) / sum(taken["streamed"])
        yield f"{case.name}.{kind}streamed_over_resident", replace(median_of(turns), value=whole)
    yield f"{case.name}.scenarios", Measurement(banks * case.segments * case.bank)
    waited = stream.waited_s / sum(times["streamed"])
    yield f"{case.name}.waited_share", Measurement(waited)


class _Bare:
    """Rollouts of nothing but reset, observe and step, with actions of zeros."""

    def __init__(self, case: StreamCase, stream: Stream, config: SimConfig) -> None:
        worlds, device = case.groups * case.group_size, stream.scenarios.device
        self.steps = min(stream.num_steps, config.max_steps or stream.num_steps)
        self._group_size = case.group_size
        self._params = sim.make_params(config)
        self._state = sim.make_state(worlds, stream.max_agents, device=device)
        self._outcome = sim.make_outcome(self._state)
        self._seen = sim.make_observation(self._state, config)
        self._all = torch.ones(worlds, dtype=torch.bool, device=device)
        self._action = torch.zeros(worlds, 1, sim.action_size(config), device=device)
        self._weights = torch.zeros(1, len(sim.RewardTerm), device=device)

    def __call__(self, scenarios: Scenarios, index: torch.Tensor) -> None:
        state = self._state
        state.scenario.copy_(index.repeat_interleave(self._group_size))
        sim.reset(scenarios, state, self._all, self._params)
        for _ in range(self.steps):
            sim.observe(scenarios, state, self._seen, self._params)
            sim.step(scenarios, state, self._outcome, self._action, self._weights, self._params)


class _WithPolicy:
    """Rollouts as training makes them: groups that a policy drives."""

    def __init__(self, case: StreamCase, stream: Stream, config: SimConfig) -> None:
        device = stream.scenarios.device
        torch.manual_seed(SEED)
        self._policy = LateFusion(PolicyConfig(), config).to(device).eval()
        self.steps = min(stream.num_steps, config.max_steps or stream.num_steps)
        self._roller = Roller(
            stream.scenarios,
            stream.max_agents,
            num_groups=case.groups,
            group_size=case.group_size,
            num_steps=self.steps,
            config=config,
            weights=sim.make_weights(REWARD_PRESETS["dense"], device),
        )
        self._seed = torch.full((case.groups,), SEED, device=device)

    def __call__(self, scenarios: Scenarios, index: torch.Tensor) -> None:
        self._roller.use(scenarios)
        self._roller.roll(self._policy, index.to(scenarios.device), self._seed)


def _store(
    folder: Path, hosts: Sequence[Scenario], count: int, near: SimConfig | None
) -> list[Path]:
    """Packed shards of `count` scenarios: `hosts` again and again, each time under other ids."""
    shards: list[Path] = []
    for first in range(0, count, len(hosts)):
        named = [replace(s, id=f"{s.id}-{first}") for s in hosts[: count - first]]
        path = folder / f"{first:06d}{SUFFIX}"
        write_shard(path, named)
        if not shards or len(named) < len(hosts):
            prepare([path], near=near)
        else:
            _rename(packed.packed_path(shards[0]), packed.packed_path(path), path, named)
            if near is not None:
                first_lists, lists = (packed.near_path(p, near) for p in (shards[0], path))
                _rename(first_lists, lists, path, named)
        shards.append(path)
    return shards


def _rename(source: Path, target: Path, shard: Path, named: Sequence[Scenario]) -> None:
    """A packed file for another shard, whose scenarios differ in nothing but their ids."""
    found = container.read(source)
    header, arrays = json.loads(found.text), dict(found.arrays)
    header["of"] = packed.digest_of(shard)
    if "key" in arrays:
        arrays["key"] = np.array([s.key for s in named])
        of = np.repeat(np.arange(len(named)), arrays["drives"]).tolist()
        ids = [
            f"{named[i].id}{EGO_MARK}{t}" for i, t in zip(of, arrays["drive_track"], strict=True)
        ]
        arrays["drive_key"] = np.array([key_of(id) for id in ids])
        arrays["drive_key"][np.cumsum(arrays["drives"]) - arrays["drives"]] = arrays["key"]
        for told, scenario in zip(header["scenarios"], named, strict=True):
            told["id"] = scenario.id
        for name in ("key", "drive_key"):
            header["sums"][name] = checksum(arrays[name])
    container.write(target, json.dumps(header), arrays)


def _status(name: str) -> int:
    """A line of the process's memory [KiB]."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _reset_peak() -> int | None:
    """Forget the highest memory so far; returns what is taken now [KiB], None if unknown."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:
        return None
