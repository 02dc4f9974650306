"""The run report and the replay page: complete, self-contained, and closed to hostile names."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from alpagym.grpo.report import ReplayGroup, verdict, write_report
from alpagym.render.charts import MAX_POINTS, charts_of
from alpagym.render.frames import draw_frame, write_html
from alpagym.render.replay import NEAR, Rollout, failed, incidents, replay_json
from alpagym.scenarios.scenario import Lights, MapType, RoadMap, Routes, Scenario, Tracks

HOSTILE = (
    "</script><script>alert(1)</script>\" onload='alert(2)' <img src=x onerror=alert(3)>\u2028&amp;"
)
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
    points = np.concatenate([p for _, p in elements])
    offsets = np.cumsum([0] + [len(p) for _, p in elements]).astype(np.int32)
    count = len(elements)
    roads = RoadMap(
        points=np.pad(points, ((0, 0), (0, 1))).astype(np.float32),
        offsets=offsets,
        type=np.array([t for t, _ in elements], np.uint8),
        id=np.arange(count, dtype=np.int64),
        speed_limit=np.full(count, np.nan, np.float32),
        successor_offsets=np.zeros(count + 1, np.int32),
        successors=np.zeros(0, np.int32),
        left_neighbor=np.full(count, -1, np.int32),
        right_neighbor=np.full(count, -1, np.int32),
    )
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
        map=roads,
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


def results(rate: float, **fields) -> dict:
    return {
        "num_scenarios": 256,
        "failure_rate": rate,
        "failure_rate_ci95": [rate * 0.8, rate * 1.2],
        "collision_at_fault_rate": rate * 0.7,
        "collision_any_rate": rate * 0.9,
        "offroad_rate": rate * 0.3,
        "progress": 0.9 - rate,
        "scene_score": 1.0 - rate,
    } | fields


def make_summary(**fields) -> dict:
    return {
        "before": results(0.4),
        "after": results(0.1),
        "train": {"agent_steps": 12_345_678, "agent_steps_per_s": 98_765.4},
        "wall_s": 321.0,
        "device": "cpu",
        "commit": "abc1234",
        "licenses": {"synthetic-cc0": 512},
        "config": {"grpo": {"group_size": 16, "clip": [0.2, 0.28]}, "seed": 1},
        "by_kind": {"bend": {"num_scenarios": 256, "before": 0.4, "after": 0.1}},
    } | fields


HISTORY = [
    *(
        {"phase": "imitation", "step": i, "loss": 1 / (i + 1), "held_out_loss": 1.1 / (i + 1)}
        for i in range(40)
    ),
    *(
        {"phase": "grpo", "step": i, "return": i * 0.1, "reward": {"progress": 0.1 * i}, "kl": 0.01}
        for i in range(30)
    ),
    {"phase": "eval", "step": 0, "failure_rate": 0.4},
    {"phase": "eval", "step": 29, "failure_rate": 0.1},
]


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


def report(tmp_path, summary=None, history=HISTORY, replays=()) -> tuple[str, Page]:
    path = write_report(
        tmp_path / "report.html", make_summary() if summary is None else summary, history, replays
    )
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def running_sum(values: list[int]) -> np.ndarray:
    return np.cumsum(np.array(values, np.int64))


def test_report_tells_the_story(tmp_path):
    groups = [
        make_group("fixed-1"),
        make_group("failing-1", after=True),
        make_group("broken-1", before=False, after=True),
    ]
    _, page = report(tmp_path, replays=groups)
    sentence = (
        "GRPO cut the closed-loop failure rate from 40.0 % to 10.0 % on 256 held-out scenarios"
    )
    assert f"{sentence}; the 95 % intervals do not touch." in page.text
    for words in (
        "[32.0, 48.0 %]",
        "Fixed",
        "Still failing",
        "Newly broken",
        "imitation: front collision at 1.1 s",
    ):
        assert words in page.text
    for words in (
        "5 min 21 s",
        "12,345,678",
        "98.8k",
        "synthetic-cc0 (512 scenarios)",
        "grpo.group_size: 16",
    ):
        assert words in page.text
    assert [r["id"] for r in page.replays()] == ["fixed-1", "failing-1", "broken-1"]
    cards = [attrs for tag, attrs in page.elements if tag == "button" and "data-replay" in attrs]
    # A fixed scenario shows what went wrong before; the others what goes wrong now.
    assert [(c["data-replay"], c["data-run"]) for c in cards] == [
        ("0", "0"),
        ("1", "1"),
        ("2", "1"),
    ]
    charts = [attrs["aria-label"] for tag, attrs in page.elements if "data-chart" in attrs]
    assert [c.split(":")[0] for c in charts] == [
        "Imitation loss",
        "Reward terms",
        "Return",
        "Failures",
        "KL",
    ]


def test_page_asks_for_nothing_outside(tmp_path):
    text, _ = report(tmp_path, replays=[make_group()])
    write_html(make_group().rollouts, tmp_path / "replay.html")
    for source in (text, (tmp_path / "replay.html").read_text(encoding="utf-8")):
        assert not re.search(r"https?://|url\(|@import|\bfetch\(|XMLHttpRequest|import\(", source)
        parsed = Page(source)
        assert not [a for _, a in parsed.elements if {"src", "href", "srcset"} & a.keys()]
        policy = next(
            a["content"]
            for t, a in parsed.elements
            if a.get("http-equiv") == "Content-Security-Policy"
        )
        assert policy.startswith("default-src 'none';")
        assert "script-src 'sha256-" in policy


def test_hostile_names_stay_text(tmp_path):
    group = make_group(HOSTILE, kind=HOSTILE, dataset=HOSTILE, license=HOSTILE, notes=[HOSTILE])
    for rollout in group.rollouts:
        rollout.label = HOSTILE
        rollout.rewards[HOSTILE] = rollout.rewards["progress"]
        rollout.metrics[HOSTILE] = 1.0
    summary = make_summary(
        name=HOSTILE,
        device=HOSTILE,
        commit=HOSTILE,
        licenses={HOSTILE: HOSTILE},
        config={HOSTILE: {HOSTILE: HOSTILE}},
        by_kind={HOSTILE: {"num_scenarios": 1, "before": 1.0, "after": 0.0}},
    )
    summary["before"][HOSTILE] = 0.5
    summary[HOSTILE] = {HOSTILE: HOSTILE}
    history = [
        {"phase": phase, "step": 0, HOSTILE: 1.0, f"reward/{HOSTILE}": 1.0}
        for phase in ("grpo", HOSTILE)
    ]
    _, clean = report(tmp_path, replays=[make_group()])
    text, page = report(tmp_path, summary, history, [group])
    assert len(page.scripts) == len(clean.scripts) == 2
    assert page.scripts[1] == clean.scripts[1]
    assert "img" not in {tag for tag, _ in page.elements}
    assert not [a for _, a in page.elements if any(name.startswith("on") for name in a)]
    assert "alert(1)</script>" not in text
    assert "\u2028" not in page.scripts[0]
    replay = page.replays()[0]
    assert replay["id"] == replay["notes"][0] == replay["rollouts"][0]["label"] == HOSTILE
    write_html(group.rollouts, tmp_path / "replay.html")
    page = Page((tmp_path / "replay.html").read_text(encoding="utf-8"))
    assert len(page.scripts) == 2
    assert "img" not in {tag for tag, _ in page.elements}


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf, np.float32(np.nan)])
def test_missing_values_show_as_dashes(tmp_path, nothing):
    blank = dict.fromkeys(results(0.1), nothing) | {"failure_rate_ci95": [nothing, nothing]}
    summary = make_summary(
        before=blank, after=blank, wall_s=nothing, train={"agent_steps": nothing}
    )
    summary["by_kind"] = {"bend": {"before": nothing}}
    history = [{"phase": "grpo", "step": nothing, "kl": nothing, "return": nothing}, *HISTORY]
    group = make_group()
    group.rollouts[0].rewards["progress"][3] = np.nan
    group.rollouts[0].metrics["scene_score"] = nothing
    group.rollouts[0].x[4, 1] = np.nan
    _, page = report(tmp_path, summary, history, [group])
    assert "–" in page.text
    assert not re.search(r"\b(nan|None|inf)\b", page.text, re.IGNORECASE)
    rollout = page.replays()[0]["rollouts"][0]
    assert rollout["rewards"]["progress"][3] is None
    assert rollout["metrics"]["scene_score"] is None
    assert rollout["tracks"][1]["valid"] == [0, 4, 5, 21]


def test_empty_run_still_reports(tmp_path):
    _, page = report(tmp_path, {}, [])
    assert "no failure rate before and after" in page.text
    assert page.replays() == []


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (
            results(0.2),
            results(0.4, failure_rate_ci95=[0.3, 0.5]),
            "raised the closed-loop failure rate from 20.0 %",
        ),
        (results(0.2), results(0.19), "the 95 % intervals overlap, so this may be chance"),
        (results(0.2), results(0.2), "left the closed-loop failure rate at 20.0 %"),
        (
            results(0.2, failure_rate_ci95=None),
            results(0.1),
            "from 20.0 % to 10.0 % on 256 held-out scenarios.",
        ),
    ],
)
def test_verdict_does_not_flatter(before, after, words):
    assert words in verdict({"before": before, "after": after})


def test_twelve_replays_fit_in_three_megabytes(tmp_path):
    groups = [make_group(f"bend-{i}", agents=40, steps=81) for i in range(12)]
    noise = np.random.default_rng(0)
    for rollout in (r for g in groups for r in g.rollouts):
        rollout.x += noise.normal(0, 0.05, rollout.x.shape)
        rollout.rewards = {f"term_{k}": noise.normal(size=81).astype(np.float32) for k in range(8)}
    text, _ = report(tmp_path, replays=groups)
    assert len(text.encode()) < 3_000_000


def test_replay_returns_the_rollout_to_a_centimeter():
    scenario = make_scenario()
    rollout = make_rollout(scenario, fails=True, drift=3.0)
    rollout.yaw[10:, 0] = -np.pi + 0.01
    rollout.yaw[:10, 0] = np.pi - 0.01
    rollout.valid[3:6, 2] = False
    rollout.x[3:6, 2] = 0.0
    data = replay_json([rollout])
    track = data["rollouts"][0]["tracks"][0]
    assert np.allclose(running_sum(track["x"]) / 100, rollout.x[:, 0], atol=0.0051)
    assert np.allclose(running_sum(track["y"]) / 100, rollout.y[:, 0], atol=0.0051)
    distance = np.hypot(np.diff(rollout.x[:, 0]), np.diff(rollout.y[:, 0]))
    assert np.allclose(data["rollouts"][0]["speed"], distance / DT, rtol=1e-3)
    # Across the seam of yaw the player must turn by 0.02, not by a full circle.
    assert np.abs(np.array(track["yaw"][1:])).max() <= 20
    assert data["rollouts"][0]["tracks"][2]["valid"] == [0, 3, 6, 21]
    assert np.allclose(
        running_sum(data["log"]["x"]) / 100, scenario.tracks.xyz[0, START:, 0], atol=0.0051
    )
    assert data["lights"][0]["state"] == "".join(str(s) for s in scenario.lights.state[0, START:])


def test_replay_map_is_simplified_within_tolerance_and_cropped():
    scenario = make_scenario()
    scenario.map.points[-1] = [5000.0, 0.0, 0.0]
    data = replay_json([make_rollout(scenario, fails=False)])
    assert MapType.STOP_SIGN not in {e["type"] for e in data["map"]}
    lane = np.cumsum(np.array(data["map"][0]["xy"]).reshape(-1, 2), axis=0) / 100
    original = scenario.map.polyline(0)[:, :2]
    assert len(lane) < len(original) / 2
    ego = scenario.tracks.xyz[0, START:, None, :2]
    near = np.hypot(*np.moveaxis(original - ego, -1, 0)).min(axis=0) < NEAR - 2.0
    assert near.any()
    assert not near.all()
    chords = lane[1:] - lane[:-1]
    for point in original[near]:
        along = np.clip(((point - lane[:-1]) * chords).sum(1) / (chords**2).sum(1), 0, 1)
        assert np.hypot(*(point - lane[:-1] - along[:, None] * chords).T).min() < 0.07


def test_far_agents_are_left_out():
    scenario = make_scenario()
    rollout = make_rollout(scenario, fails=False)
    rollout.x[:, 1] += 10 * NEAR
    data = replay_json([rollout])
    assert [a["id"] for a in data["agents"]] == [str(2**60 + i) for i in (0, 2, 3, 4, 5)]


def test_states_after_the_end_are_ignored():
    rollout = make_rollout(make_scenario(), fails=True)
    rollout.done_step = 11
    data = replay_json([rollout, make_rollout(rollout.scenario, fails=False, label="GRPO")])
    assert [r["steps"] for r in data["rollouts"]] == [12, 20]
    assert len(data["rollouts"][0]["tracks"][0]["x"]) == 13
    assert [i.name for i in incidents(rollout)] == ["front collision"]


def test_rear_hit_is_not_a_failure():
    rollout = make_rollout(make_scenario(), fails=False)
    rollout.collision[4:6] = 2
    rollout.metrics = {}
    assert [(i.step, i.name, i.at_fault) for i in incidents(rollout)] == [
        (4, "rear collision", False)
    ]
    assert not failed(rollout)
    rollout.collision[6] = 3
    assert failed(rollout)


def test_misfit_rollouts_are_refused():
    first, other = (
        make_rollout(make_scenario("a"), fails=False),
        make_rollout(make_scenario("b"), fails=False),
    )
    with pytest.raises(ValueError, match=r"expected rollouts of one scenario.* got a .* and b "):
        replay_json([first, other])
    other.yaw = other.yaw[:-1]
    with pytest.raises(ValueError, match=r"yaw: expected \[21, 6\], got \[20, 6\]"):
        replay_json([other])
    with pytest.raises(ValueError, match="at least one rollout"):
        replay_json([])


def test_long_histories_are_thinned_and_every_number_is_shown(tmp_path):
    history = [{"phase": "grpo", "step": i, "kl": float(i), "odd_number": 1.0} for i in range(5000)]
    known, others = charts_of(history)
    assert [c.title for c in known] == ["KL"]
    assert [c.title for c in others] == ["grpo: odd_number"]
    _, page = report(tmp_path, history=history)
    data = [json.loads(a["data-chart"]) for _, a in page.elements if "data-chart" in a]
    assert len(data[0]["series"][0]["x"]) <= MAX_POINTS
    assert np.allclose(np.diff(data[0]["series"][0]["y"]), 13, atol=1.5)
    assert "each point is the mean of 13 rows" in page.text


def test_write_html_plays_rollouts_of_one_scenario_together(tmp_path):
    rollouts = [*make_group("a").rollouts, *make_group("b").rollouts]
    page = Page(write_html(rollouts, tmp_path / "replay.html").read_text(encoding="utf-8"))
    assert [(r["id"], len(r["rollouts"])) for r in page.replays()] == [("a", 2), ("b", 2)]
    assert [a["data-player"] for _, a in page.elements if "data-player" in a] == ["0", "1"]


def test_draw_frame_shows_the_moment():
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    rollout = make_rollout(make_scenario(), fails=True)
    start, end = draw_frame(rollout, 0, inches=2.0), draw_frame(rollout, 20, inches=2.0)
    assert start.startswith(b"\x89PNG")
    assert start != end
    assert draw_frame(rollout, 99, inches=2.0) == end
    with pytest.raises(ValueError, match="got -1"):
        draw_frame(rollout, -1)
