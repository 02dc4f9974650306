"""Scenarios, rollouts and pages that the tests of reports and of replays share."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import numpy as np

from alpagym.grpo.report import ReplayGroup
from alpagym.render.replay import Rollout
from alpagym.scenarios.road_map import unlinked_map
from alpagym.scenarios.scenario import Lights, MapType, Routes, Scenario, Tracks

START = 5
DT = 0.1


def make_scenario(name: str = "bend-1", agents: int = 6, steps: int = 20, **fields) -> Scenario:
    """A road that runs straight and then bends left; agents follow it, a few of them on foot."""
    frames = START + steps + 1
    arc = np.concatenate([np.zeros(30), np.linspace(0, np.pi / 2, 40)])
    center = np.cumsum(np.stack([np.cos(arc), np.sin(arc)], axis=1) * 2.0, axis=0)
    normal = np.stack([-np.sin(arc), np.cos(arc)], axis=1)
    square = np.array([[40, -5], [44, -5], [44, 9], [40, 9], [40, -5]], np.float64)
    elements = [
        (MapType.LANE, center),
        (MapType.LANE, (center + 3.7 * normal)),
        (MapType.ROAD_LINE, center + 1.85 * normal),
        (MapType.ROAD_EDGE, center - 2.2 * normal),
        (MapType.ROAD_EDGE, (center + 6.0 * normal)[::-1]),
        (MapType.CROSSWALK, square),
        (MapType.STOP_SIGN, np.array([[36.0, -3.5]])),
    ]
    t = np.arange(frames) * DT
    s = np.clip(10.0 + 11.0 * np.arange(agents)[:, None] + 8.0 * t, 0, 138)
    lane = np.where(np.arange(agents) % 2, 3.7, 0.0)[:, None]
    along = np.minimum(s / 2.0, len(center) - 1.001)
    index = np.floor(along).astype(int)
    x = np.interp(along.ravel(), np.arange(len(center)), center[:, 0]).reshape(along.shape)
    y = np.interp(along.ravel(), np.arange(len(center)), center[:, 1]).reshape(along.shape)
    x, y, yaw = x + lane * normal[index, 0], y + lane * normal[index, 1], arc[index]
    kind = np.ones(agents, np.uint8)
    size = np.tile([4.6, 1.9, 1.6], (agents, 1))
    kind[2::7], kind[4::7] = 2, 3
    size[2::7], size[4::7] = [0.7, 0.7, 1.8], [1.8, 0.6, 1.7]
    valid = np.ones((agents, frames), bool)
    valid[-1, frames // 2 :] = False
    tracks = Tracks(
        xyz=np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.float32),
        yaw=yaw.astype(np.float32),
        velocity=np.zeros((agents, frames, 2), np.float32),
        valid=valid,
        size=size.astype(np.float32),
        type=kind,
        id=np.arange(agents, dtype=np.int64) + 2**60,
    )
    state = np.full((2, frames), 4, np.uint8)
    state[0, frames // 2 :] = 2
    state[1] = 3
    lights = Lights(np.array([0, 1], np.int32), np.array([[39, 0], [39, 3.7]], np.float32), state)
    routes = Routes(
        points=np.pad(center, ((0, 0), (0, 1))).astype(np.float32),
        offsets=np.array([0] + [len(center)] * agents, np.int32),
        speed_limit=np.full(len(center), np.nan, np.float32),
        log_length=np.full(agents, 100.0, np.float32),
        stop_offsets=np.zeros(agents + 1, np.int32),
        stop_s=np.zeros(0, np.float32),
        stop_light=np.zeros(0, np.int32),
    )
    values = {
        "id": name,
        "kind": "bend",
        "dataset": "procedural",
        "license": "synthetic-cc0",
    } | fields
    return Scenario(
        source="test",
        dt=DT,
        origin=np.zeros(3),
        start_frame=START,
        ego=0,
        tracks=tracks,
        map=unlinked_map(elements),
        lights=lights,
        routes=routes,
        flags=np.zeros(agents, np.uint16),
        **values,
    ).validate()


def make_rollout(
    scenario: Scenario, *, fails: bool, label: str = "imitation", drift: float = 0.0
) -> Rollout:
    """The log, with the ego drifting right; a failure is a front hit, then leaving the road."""
    steps = scenario.num_steps
    tracks = scenario.tracks
    x, y = tracks.xyz[:, START:, 0].T.copy(), tracks.xyz[:, START:, 1].T.copy()
    y[:, 0] -= np.linspace(0, 1, steps + 1) ** 2 * drift
    collision, offroad = np.zeros(steps, np.uint8), np.zeros(steps, bool)
    if fails:
        collision[steps // 2 : steps // 2 + 3] = 1
        offroad[steps * 3 // 4 :] = True
    return Rollout(
        scenario=scenario,
        x=x,
        y=y,
        yaw=tracks.yaw[:, START:].T.copy(),
        valid=tracks.valid[:, START:].T.copy(),
        ego=scenario.ego,
        start_frame=START,
        rewards={
            "progress": np.linspace(0, 1, steps, dtype=np.float32),
            "offroad": -offroad.astype(np.float32),
        },
        collision=collision,
        offroad=offroad,
        label=label,
        metrics={"failure": fails, "progress_fraction": 0.83, "scene_score": float(not fails)},
    )


def make_group(
    name: str = "bend-1", before: bool = True, after: bool = False, **fields
) -> ReplayGroup:
    scenario = make_scenario(name, **fields)
    return ReplayGroup(
        [
            make_rollout(scenario, fails=before, drift=4.0),
            make_rollout(scenario, fails=after, label="GRPO", drift=0.5),
        ]
    )


class Page(HTMLParser):
    """What a browser would find: elements with attributes, text of all but scripts, scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.in_script = self.in_style = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.in_script, self.in_style = tag == "script", tag == "style"

    def handle_endtag(self, tag):
        self.in_script = self.in_style = False

    def handle_data(self, data):
        if self.in_script:
            self.scripts.append(data)
        elif not self.in_style:
            self.text += data

    def replays(self) -> list[dict]:
        return json.loads(self.scripts[0])
