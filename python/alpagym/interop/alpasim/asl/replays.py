"""`alpagym render asl=PATH`: what logs show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from alpagym.interop.alpasim.asl.log import RolloutLog, logs_at, read_log
from alpagym.interop.alpasim.asl.scoring import place_of, score_log
from alpagym.metrics.alpasim import AlpasimScore
from alpagym.render.replay import Rollout
from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.readers.asl import scenario_of
from alpagym.scenarios.scenario import Scenario

EVENTS = {"collision_front": 1, "collision_rear": 2, "collision_lateral": 3}
"""Codes of `Rollout.collision` by AlpaSim's metrics."""


def replays_at(path: Path, scenarios: str) -> tuple[list[Rollout], str]:
    """What a log or a folder of logs shows, and what that is, as a sentence.

    Args:
        path: of the logs.
        scenarios: file or folder with their maps, which are found by scene id; empty for none.

    Raises:
        ValueError: no log.
        ScenarioError: a log that cannot be read, or is of another scenario than it says.
    """
    logs = [read_log(file) for file in logs_at(path)]
    maps = {s.id: s for s in load_scenarios(scenarios)[0]} if scenarios else {}
    known = sum(log.scene in maps for log in logs)
    told = f"{len(logs)} logs, {known} of them with their map"
    return [replay_of(log, maps.get(log.scene)) for log in logs], told


def replay_of(log: RolloutLog, scenario: Scenario | None = None) -> Rollout:
    """What a log shows, from the first plan on, with AlpaSim's events.

    Raises:
        ScenarioError: the log does not last, or `scenario` is another one.
    """
    shown = scenario_of(log)
    if scenario is not None:
        points = scenario.map.points + place_of(log, scenario) - shown.origin
        shown = replace(shown, map=replace(scenario.map, points=points.astype(np.float32)))
    score = score_log(log, scenario)
    tracks = shown.tracks
    seen = _columns(log, score, tracks.num_frames, shown.dt)
    collision = np.zeros(tracks.num_frames, np.uint8)
    for name, code in EVENTS.items():
        collision[seen[name]] = code
    offroad = seen["offroad"]
    return Rollout(
        shown,
        x=tracks.xyz[..., 0].T.copy(),
        y=tracks.xyz[..., 1].T.copy(),
        yaw=tracks.yaw.T.copy(),
        valid=tracks.valid.T.copy(),
        ego=shown.ego,
        start_frame=0,
        rewards={},
        collision=collision[1:],
        offroad=offroad[1:],
        label=log.uuid,
        metrics={} if score.scene is None else {"scene_score": score.scene.score},
    )


def _columns(
    log: RolloutLog, score: AlpasimScore, frames: int, dt: float
) -> Mapping[str, np.ndarray]:
    """Events of each frame, those of the last step up to it, bool [frames]."""
    begin = max(log.render_start_us, int(log.times_us[0])) - int(log.times_us[0])
    now = begin + np.round(np.arange(frames) * dt * 1e6).astype(np.int64)
    found = {}
    for name in (*EVENTS, "offroad"):
        metric = score.metrics.get(name)
        found[name] = np.zeros(frames, bool)
        if metric is not None:
            row = np.searchsorted(metric.times_us, now, side="right") - 1
            found[name] = metric.values[np.maximum(row, 0)] > 0
    return found
