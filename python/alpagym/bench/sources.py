"""Scenarios that cases run on, and what they hold."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import torch

from alpagym import sim
from alpagym.bench.cases import SEED, SYNTHETIC4, WOMD4
from alpagym.bench.synthetic import build
from alpagym.config import SimConfig
from alpagym.scenarios.batch import batch, cut, max_agents
from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.procedural import generate_many
from alpagym.scenarios.scenario import Scenario, ScenarioError

WOMD_FOLDER = "womd_gpudrive_json"
REPEATED = {"womd64": WOMD_FOLDER, "scenarionet64": "womd_scenarionet_pkl"}
"""Sources of `MANY` scenarios, and the folder of their recordings. Those of ScenarioNet are large:
20 s with all agents."""
MANY = 64
MIN_STEPS = 40
"""Recordings that last fewer steps are not among them: a batch would outlast them."""


@dataclass(frozen=True)
class Loaded:
    """Scenarios on the host."""

    hosts: list[Scenario]
    note: str = ""
    """What a reader of the numbers must know; empty for nothing."""


def scenarios(source: str, count: int, data: Path) -> Loaded:
    """What a source gives: `womd4`, `synthetic4`, of `REPEATED`, or `count` of `procedural`.

    Raises:
        ScenarioError: recordings that are not there.
    """
    if source == "procedural":
        return Loaded(generate_many(count, SEED))
    if source == "synthetic4":
        return Loaded([build(scene, f"{i}") for i, scene in enumerate(SYNTHETIC4)])
    folder = data / REPEATED.get(source, WOMD_FOLDER)
    if not folder.is_dir():
        raise ScenarioError(
            f"{folder}: no such folder of WOMD recordings; data=FOLDER names the one around it"
        )
    if source == "womd4":
        files = (folder / "current" / f"{name}.json" for name in WOMD4)
        return Loaded([load_scenarios(file)[0][0] for file in files])
    long_enough = (s for s in load_scenarios(folder)[0] if s.num_steps >= MIN_STEPS)
    different = list({s.recording: s for s in long_enough}.values())[:MANY]
    hosts = [different[i % len(different)] for i in range(MANY)]
    return Loaded(
        hosts, f"{len(different)} recorded maps, repeated to {MANY} that each lie in memory apart"
    )


kept = cache(scenarios)
"""The same, read once."""


def sim_config(options: dict[str, Any]) -> SimConfig:
    """The simulator's options, enumerations by name or value.

    Nothing ends an episode, so that every repeat drives as many egos.
    """
    values = {"end_on": ()} | options
    for f in fields(SimConfig):
        kind = type(getattr(SimConfig(), f.name))
        if issubclass(kind, Enum) and isinstance(values.get(f.name), str):
            values[f.name] = kind[values[f.name]]
    return replace(SimConfig(), **values)


def statistics(hosts: list[Scenario], config: SimConfig) -> dict[str, float]:
    """How crowded scenes are: a mean over scenes, of what is seen over egos at the start."""
    packed, params = batch(hosts, "cpu"), sim.make_params(config)
    count = len(hosts)
    egos = int(packed.num_egos.max()) if config.multi_agent else 1
    state = sim.make_state(count, max_agents(hosts), num_egos=egos)
    state.scenario.copy_(torch.arange(count))
    sim.reset(packed, state, torch.ones(count, dtype=torch.bool), params)
    seen = sim.make_observation(state, config)
    sim.observe(packed, state, seen, params)
    egos = int((state.ego >= 0).sum())
    return {
        "agents": sum(s.tracks.num_agents for s in hosts) / count,
        "present": sum(int(s.tracks.valid[:, s.start_frame].sum()) for s in hosts) / count,
        "egos": egos / count,
        "road_points": sum(len(cut(s.map).type) for s in hosts) / count,
        "seen_agents": int(seen.agents_mask.sum()) / egos,
        "seen_road_points": int(seen.road_mask.sum()) / egos,
    }
