"""`alpagym render`: pictures, videos and pages show what was driven."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageColor
from rerun.chunk import RrdReader

from alpagym.cli import main
from alpagym.config import ActionType, SimConfig
from alpagym.evaluation import evaluate
from alpagym.policies.policy import Policy
from alpagym.render.outputs import HOLD, RADIUS, SIZE, moments, writer_of
from alpagym.render.raster import AGENT_COLORS, EGO, Camera
from alpagym.scenarios.batch import rear_axles
from alpagym.scenarios.procedural import generate
from alpagym.scenarios.scenario import AgentType
from replaying import DT, Page, make_group, make_rollout, make_scenario

SUFFIXES = (".html", ".png", ".gif", ".mp4", ".webm", ".rrd")


def color_at(picture: Image.Image, place, rollout, t: int) -> tuple[int, ...]:
    """Of the pixel that shows a place [m] in an untitled picture about the ego."""
    scale = picture.width / (2 * RADIUS)
    x, y = scale * (np.asarray(place) - [rollout.x[t, 0], rollout.y[t, 0]])
    return picture.getpixel((round(picture.width / 2 + x), round(picture.height / 2 - y)))


def behind(rollout, t: int, a: int) -> np.ndarray:
    """A place inside of an agent's box, beside the mark of its heading."""
    back = rollout.scenario.tracks.size[a, 0] / 4
    direction = np.array([np.cos(rollout.yaw[t, a]), np.sin(rollout.yaw[t, a])])
    return np.array([rollout.x[t, a], rollout.y[t, a]]) - back * direction


@pytest.mark.parametrize("t", [0, 7, 20])
def test_agents_are_where_they_are(t) -> None:
    rollout = make_rollout(make_scenario(), fails=False, drift=1.0)
    picture = Camera(rollout.scenario, 0, SIZE, RADIUS).draw(rollout, t)
    assert picture.size == (SIZE, SIZE)
    assert color_at(picture, behind(rollout, t, 0), rollout, t) == ImageColor.getrgb(EGO)
    gray = ImageColor.getrgb(AGENT_COLORS[AgentType.VEHICLE])
    assert color_at(picture, behind(rollout, t, 1), rollout, t) == gray
    beyond = [rollout.x[t, 0], rollout.y[t, 0] - 30.0]
    assert color_at(picture, beyond, rollout, t) == (255, 255, 255)


def test_what_is_not_there_is_not_drawn() -> None:
    rollout = make_rollout(make_scenario(), fails=False)
    camera, place = Camera(rollout.scenario, 0, SIZE, RADIUS), behind(rollout, 5, 1)
    there = color_at(camera.draw(rollout, 5), place, rollout, 5)
    rollout.valid[5, 1] = False
    assert color_at(camera.draw(rollout, 5), place, rollout, 5) != there


def test_roads_look_the_same_wherever_tiles_meet() -> None:
    """A window is what it would be if it were drawn at once, as a larger window shows."""
    rollout = make_rollout(make_scenario(), fails=False)
    small = Camera(rollout.scenario, 0, 300, 15.0).draw(rollout, 9)
    large = Camera(rollout.scenario, 0, 900, 45.0).draw(rollout, 9)
    middle = large.crop((300, 300, 600, 600))
    assert np.array_equal(np.asarray(small), np.asarray(middle))


def test_states_before_the_start_are_refused_and_those_after_the_end_show_it() -> None:
    rollout = make_rollout(make_scenario(), fails=True)
    camera = Camera(rollout.scenario, 0, 200, RADIUS)
    assert camera.draw(rollout, 99).tobytes() == camera.draw(rollout, 20).tobytes()
    assert camera.draw(rollout, 0).tobytes() != camera.draw(rollout, 20).tobytes()
    with pytest.raises(ValueError, match="got -1"):
        camera.draw(rollout, -1)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_videos_last_as_long_as_the_drive(tmp_path, suffix) -> None:
    rollouts = make_group().rollouts
    path = writer_of(tmp_path / f"both{suffix}")(rollouts)
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert float(stream.average_rate) == pytest.approx(1 / DT)
        frames = [frame.to_image() for frame in file.decode(stream)]
    assert len(frames) == 21 + round(HOLD / DT)
    (wanted,) = moments(rollouts, [20])
    assert frames[-1].size == wanted.size
    first, last = (
        np.abs(np.asarray(frames[k], int) - np.asarray(wanted, int)).mean() for k in (0, -1)
    )
    assert last < 0.4 * first


def test_a_gif_has_every_state(tmp_path) -> None:
    rollout = make_rollout(make_scenario(), fails=True)
    with Image.open(writer_of(tmp_path / "drive.gif")([rollout])) as picture:
        assert picture.n_frames == 21


def test_rerun_has_every_agent_at_its_place(tmp_path) -> None:
    rollout = make_rollout(make_scenario(), fails=True)
    rollout.valid[7, 2] = False
    path = writer_of(tmp_path / "drive.rrd")([rollout])
    chunks = [c for c in RrdReader(path).stream() if c.entity_path == r"/1\ imitation/agents"]
    rows: list[tuple[int, list]] = []
    for batch in (chunk.to_record_batch() for chunk in chunks):
        times = batch["time"].cast("int64").to_pylist()
        rows += zip(times, batch["Boxes3D:centers"].to_pylist(), strict=True)
    assert sorted(time for time, _ in rows) == [round(1e9 * DT * t) for t in range(21)]
    states = [centers for _, centers in sorted(rows, key=lambda row: row[0])]
    assert [len(centers) for centers in states] == [
        int(valid.sum()) for valid in rollout.valid[:, : rollout.scenario.tracks.num_agents]
    ]
    wanted = np.stack([rollout.x[20], rollout.y[20]], axis=1)[rollout.valid[20]]
    assert np.allclose(np.array(states[20])[:, :2], wanted, atol=1e-4)


def test_rerun_tells_all_that_happened_under_each_drive(tmp_path) -> None:
    """Also what happened in the same step, and where two drives have one name."""
    rollout = make_rollout(make_scenario(), fails=True, label="runs/a")
    rollout.offroad[:] = rollout.collision > 0
    path = writer_of(tmp_path / "drive.rrd")([rollout, rollout])
    told: dict[str, list[str]] = {}
    for chunk in RrdReader(path).stream():
        if chunk.entity_path.endswith("/incidents"):
            texts = chunk.to_record_batch()["TextLog:text"].to_pylist()
            told.setdefault(chunk.entity_path, []).extend(text for row in texts for text in row)
    both = ["front collision", "offroad"]
    assert told == {rf"/{n}\ runs\/a/incidents": both for n in (1, 2)}


def test_rerun_holds_heights_where_the_record_ends(tmp_path) -> None:
    scenario = make_scenario()
    scenario.tracks.xyz[:, :, 2] = 7.0
    scenario.tracks.xyz[1, 12:, 2] = -1.0
    scenario.tracks.valid[1, 12:] = False
    path = writer_of(tmp_path / "drive.rrd")([make_rollout(scenario, fails=False)])
    heights = [
        z
        for chunk in RrdReader(path).stream()
        if chunk.entity_path.endswith("/agents")
        for centers in chunk.to_record_batch()["Boxes3D:centers"].to_pylist()
        for _, _, z in centers
    ]
    assert set(heights) == {7.0}


def test_a_picture_is_of_the_first_failure_or_of_the_moment_asked_for(tmp_path) -> None:
    rollout = make_rollout(make_scenario(), fails=True)
    (failing,) = moments([rollout], [11])
    (asked,) = moments([rollout], [4])
    for at, wanted in ((-1.0, failing), (0.4, asked)):
        with Image.open(writer_of(tmp_path / "moment.png", at)([rollout])) as picture:
            assert picture.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_command_writes_every_format(tmp_path, capsys, suffix) -> None:
    out = tmp_path / f"drive{suffix}"
    assert main(["render", "count=1", f"out={out}", "policy=idm", "device=cpu"]) == 0
    assert capsys.readouterr().out.strip() == f"1 scenarios, 0 failures of idm; {out}"
    assert out.stat().st_size > 1000


def test_two_drivers_are_shown_beside_each_other(tmp_path, capsys) -> None:
    out, told = tmp_path / "both.html", tmp_path / "told.json"
    options = ["policy=constant_velocity", "compare=idm", "device=cpu"]
    assert main(["render", "count=3", f"out={out}", *options]) == 0
    replays = Page(out.read_text()).replays()
    labels = ["constant_velocity", "idm"]
    assert [[r["label"] for r in replay["rollouts"]] for replay in replays] == [labels] * 3
    assert main(["eval", f"output={told}", "data.held_out=3", *options]) == 0
    seen = json.loads(told.read_text())
    assert [replay["id"] for replay in replays] == [row["id"] for row in seen["per_scenario"]]
    for k, result in enumerate((seen, seen["compared"])):
        failed = [replay["rollouts"][k]["failed"] for replay in replays]
        assert failed == [row["failure"] for row in result["per_scenario"]]


def test_without_a_driver_the_record_is_shown(tmp_path) -> None:
    out = tmp_path / "log.html"
    assert main(["render", "count=1", f"out={out}", "device=cpu"]) == 0
    (replay,) = Page(out.read_text()).replays()
    (rollout,) = replay["rollouts"]
    ego = rollout["tracks"][replay["ego"]]
    assert (rollout["label"], ego["x"]) == ("log", replay["log"]["x"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["out=drive.pdf"], "out=drive.pdf: expected a file that ends in one of .html, .png"),
        (["out=drive"], "expected a file that ends in"),
        (["out=drive.png", "count=2"], "shows one scenario, got 2: choose one by count=1"),
        (["policy=idm", "asl=logs"], "expected either asl= or policy=, got both"),
        (["sim.traffic=idm", "asl=logs"], "expected either asl= or sim=, got both"),
        (["run=runs/some"], "expected --token scenario@seed.member"),
        (["token=a@1.0+0"], "and run=; got only token"),
        (["policy=grpc://127.0.0.1:1"], "policy: expected one of log, idm, constant_velocity or"),
        (["policy=idm", "compare=grpc://127.0.0.1:1"], "compare: expected one of log, idm"),
        (["policy=nobody"], "policy: expected one of log, idm"),
    ],
)
def test_what_cannot_be_shown_is_told(tmp_path, monkeypatch, capsys, options, words) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["render", "device=cpu", *options]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in said
    assert not list(tmp_path.glob("drive*"))


def test_a_missing_library_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"needs av: pip install 'alpagym\[video\]'"):
        writer_of(tmp_path / "drive.mp4")


def test_drives_that_end_early_are_shown_to_their_end(tmp_path) -> None:
    scenarios = [generate("street", seed) for seed in range(4)]
    _, rollouts = evaluate("constant_velocity", scenarios, SimConfig(), record="drive")
    short = [r for r in rollouts if r.done_step is not None]
    assert short
    with Image.open(writer_of(tmp_path / "drive.gif")(short[:1])) as picture:
        assert picture.n_frames == short[0].num_steps + 1


class Bending(Policy):
    """Plans 4 m/s along an arc to the left, whatever it sees."""

    def mean(self, observation):
        k = torch.arange(1, 65) * 0.1
        waypoints = torch.stack([4.0 * k, 0.05 * k * k, 0.02 * k], -1).flatten()
        return waypoints.expand(len(observation.ego), -1)

    sample = log_prob = deviation = entropy = None
    __abstractmethods__ = frozenset()


def test_plans_are_shown_where_they_lead(tmp_path) -> None:
    """Waypoints are of the rear axle, whose center lies `back` ahead of it."""
    scenario = generate("merge", 0)
    config = SimConfig(action=ActionType.trajectory, replan_every=2, end_on=())
    _, (rollout,) = evaluate(Bending(), [scenario], config, record="plan")
    back = float(rear_axles(scenario.tracks)[scenario.ego])
    k = 0.1 * np.arange(1, 65)
    waypoint, turn = 4.0 * k + 0.05j * k * k, 0.02 * k
    for t in (0, 1, 5, 40):
        decided = t - t % 2
        x, y, yaw = (v[decided, rollout.ego] for v in (rollout.x, rollout.y, rollout.yaw))
        rear = x + 1j * y - back * np.exp(1j * yaw)
        center = rear + np.exp(1j * yaw) * waypoint + back * np.exp(1j * (yaw + turn))
        wanted = np.stack([center.real, center.imag], axis=1)
        assert np.allclose(rollout.plans[t], wanted, atol=1e-3)
    page = Page(writer_of(tmp_path / "plan.html")([rollout]).read_text())
    (shown,) = page.replays()[0]["rollouts"]
    line = np.cumsum(np.reshape(shown["plans"][5], (-1, 2)), axis=0) / 100
    assert np.allclose(line[0], [rollout.x[5, rollout.ego], rollout.y[5, rollout.ego]], atol=0.01)
    assert np.allclose(line[-1], rollout.plans[5, -1], atol=0.01)
    camera = Camera(scenario, scenario.ego, SIZE, RADIUS)
    with_plan, without = (camera.draw(replace(rollout, plans=p), 5) for p in (rollout.plans, None))
    assert with_plan.tobytes() != without.tobytes()
    assert writer_of(tmp_path / "plan.rrd")([rollout]).stat().st_size > 1000
