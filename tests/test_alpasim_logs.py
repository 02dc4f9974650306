"""AlpaSim's logs: what sessions write, what is read of it, and logs that are broken."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from alpagym import cli
from alpagym.eval import evaluate_command
from alpagym.interop.alpasim.asl.log import read_log
from alpagym.interop.alpasim.asl.recorder import log_path
from alpagym.interop.alpasim.asl.replays import replay_of
from alpagym.interop.alpasim.asl.scoring import score_log
from alpagym.interop.alpasim.remote_evaluation import RemoteDrives
from alpagym.interop.alpasim.wire.messages import common, log
from alpagym.metrics import alpasim
from alpagym.metrics.drive import drive_of
from alpagym.render.replay import Rollout
from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.scenario import Scenario, ScenarioError
from alpagym.training_config import DataConfig, EvalConfig
from alpasim_drivers import ScriptedDriver, ahead
from alpasim_runtimes import DEFAULT, ServedRuntime, rollouts
from test_alpasim_eval import CONFIG, drive, scenarios_of


def entries(path: Path) -> list:
    """All entries of a log, read by hand."""
    data, found = path.read_bytes(), []
    while data:
        (size,) = struct.unpack(">I", data[:4])
        found.append(log.LogEntry.FromString(data[4 : 4 + size]))
        assert len(data) >= 4 + size
        data = data[4 + size :]
    return found


def write(path: Path, found: list) -> Path:
    """A log of entries; bytes stand for themselves."""
    blobs = [e if isinstance(e, bytes) else e.SerializeToString() for e in found]
    path.write_bytes(b"".join(struct.pack(">I", len(b)) + b for b in blobs))
    return path


def with_sample(session, request):
    """A plan beside which another was considered, and a pickle that must stay closed."""
    answer = ahead(session, request, 9.0, 0.02)
    answer.debug_info.sampled_trajectories.add().CopyFrom(answer.trajectory)
    answer.debug_info.unstructured_debug_info = b"cos\nsystem\n(S'touch /tmp/evil'\ntR."
    return answer


@pytest.fixture(scope="module")
def driven(tmp_path_factory) -> tuple[Path, list[Scenario], RemoteDrives]:
    folder = tmp_path_factory.mktemp("logs")
    scenarios = scenarios_of(2, frames=48)
    config = replace(
        CONFIG, log=str(folder), cameras=("camera_front_tele_30fov",), send_ground_truth=True
    )
    with ScriptedDriver(with_sample) as driver:
        found = drive(driver, scenarios, config)
    assert found.results.undriven == found.unlogged == {}
    return folder, scenarios, found


def logged(folder: Path, scenario: Scenario) -> Path:
    (path,) = log_path(folder, scenario.id, "x").parent.parent.glob("*/rollout.asl")
    return path


def test_entries_are_what_alpasims_evaluation_reads(driven) -> None:
    folder, scenarios, _ = driven
    assert not list(folder.rglob("*.part"))
    found = entries(logged(folder, scenarios[0]))
    kinds = [e.WhichOneof("log_entry") for e in found]
    assert kinds[:3] == [
        "rollout_metadata", "driver_session_request", "available_cameras_return"
    ]  # fmt: skip
    about = found[0].rollout_metadata
    assert about.actor_definitions.actor_aabb[0].actor_id == "EGO"
    assert about.session_metadata.scene_id == scenarios[0].id
    assert about.force_gt_duration == 1_700_000
    poses = [e.actor_poses for e in found if e.WhichOneof("log_entry") == "actor_poses"]
    assert [p.timestamp_us for p in poses] == list(range(0, 4_800_000, 100_000))
    assert all("EGO" in {a.actor_id for a in p.actor_poses} for p in poses)
    asked = [k for k in kinds if k in ("driver_request", "driver_return")]
    assert asked == ["driver_request", "driver_return"] * 47
    for kind in ("driver_camera_image", "driver_ego_trajectory", "route_request",
                 "ground_truth_request"):  # fmt: skip
        assert kinds.count(kind) == 47


def test_metrics_of_a_log_are_those_of_its_session(driven) -> None:
    folder, scenarios, found = driven
    for k, scenario in enumerate(scenarios):
        session = alpasim.score(drive_of(found.rollouts[k]), found.replies[k])
        told = score_log(read_log(logged(folder, scenario)), scenario)
        assert told.returned.keys() == session.returned.keys()
        assert told.returned == pytest.approx(session.returned, abs=2e-4, nan_ok=True)
        assert told.processed == pytest.approx(session.processed, abs=2e-4, nan_ok=True)
        assert told.scene is not None
        assert told.scene.score == pytest.approx(session.scene.score, abs=1e-5)


def test_metrics_of_a_log_are_what_the_runtime_returned(tmp_path) -> None:
    scenarios = scenarios_of(1, frames=48)
    config = replace(DEFAULT, log=str(tmp_path), concurrent=2)
    with ServedRuntime(scenarios, config) as served, ScriptedDriver() as driver:
        answer = served.simulate([driver], rollouts(scenarios[0].id, session_uuids=["../up"]))
    (answer,) = answer.rollout_returns
    assert answer.success
    path = log_path(tmp_path, scenarios[0].id, "../up")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]
    told = score_log(read_log(path), scenarios[0]).returned
    assert told == pytest.approx(dict(answer.aggregated_metrics), abs=2e-4, nan_ok=True)


def test_a_scenario_from_a_log_replays_the_drive(driven) -> None:
    folder, scenarios, found = driven
    for k, scenario in enumerate(scenarios):
        (read,), skipped = load_scenarios(logged(folder, scenario))
        assert not skipped
        rollout: Rollout = found.rollouts[k]
        start, ego = rollout.start_frame, scenario.ego
        assert read.start_frame == start
        assert (read.license, read.dataset) == (scenario.license, "asl")
        assert read.recording == scenario.recording
        origin = read.origin
        driven_xy = np.stack([rollout.x[:, ego], rollout.y[:, ego]], -1) - origin[:2]
        tracks = read.tracks
        assert tracks.xyz[0, start:, :2] == pytest.approx(driven_xy, abs=2e-5)
        turned = tracks.yaw[0, start:] - rollout.yaw[:, ego]
        assert np.angle(np.exp(1j * turned)) == pytest.approx(0.0, abs=1e-6)
        assert tracks.num_agents == scenario.tracks.num_agents
        assert sorted(tracks.type.tolist()) == sorted(scenario.tracks.type.tolist())


def test_a_log_of_another_scenario_is_refused(driven) -> None:
    folder, scenarios, _ = driven
    with pytest.raises(ScenarioError, match=r"expected the record of straight 0, got one"):
        score_log(read_log(logged(folder, scenarios[0])), scenarios[1])


def test_a_log_that_the_disk_refuses_is_told(tmp_path) -> None:
    (scenario,) = scenarios_of(1, frames=30)
    (tmp_path / "rollouts").write_text("no folder")
    with ScriptedDriver() as driver:
        found = drive(driver, [scenario], replace(CONFIG, log=str(tmp_path)))
    assert found.results.undriven == {}
    assert found.summary["num_logs_not_written"] == 1
    assert found.unlogged[0].endswith("rollout.asl: not written: Not a directory")


def test_a_full_disk_is_told(tmp_path, monkeypatch) -> None:
    class Full:
        def __init__(self, file) -> None:
            self.file, self.left = file, 50_000

        def write(self, data: bytes) -> int:
            self.left -= len(data)
            if self.left < 0:
                raise OSError(28, "No space left on device")
            return self.file.write(data)

        def __getattr__(self, name: str):
            return getattr(self.file, name)

    (scenario,) = scenarios_of(1, frames=40)
    opened = Path.open
    monkeypatch.setattr(
        Path, "open", lambda p, *a, **k: Full(opened(p, *a, **k)) if ".part" in p.name
        else opened(p, *a, **k),
    )  # fmt: skip
    with ScriptedDriver() as driver:
        found = drive(driver, [scenario], replace(CONFIG, log=str(tmp_path)))
    assert found.unlogged[0].endswith("not written: No space left on device")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def nan(found: list) -> None:
    found[20].actor_poses.actor_poses[0].actor_pose.vec.x = float("nan")


def gone(found: list) -> None:
    step = next(e.actor_poses for e in found if e.HasField("actor_poses"))
    del step.actor_poses[:]


def back(found: list) -> None:
    steps = [e.actor_poses for e in found if e.HasField("actor_poses")]
    steps[5].timestamp_us = steps[3].timestamp_us


def unanswered(found: list) -> None:
    del found[next(k for k, e in enumerate(found) if e.HasField("driver_return"))]


def unasked(found: list) -> None:
    del found[next(k for k, e in enumerate(found) if e.HasField("driver_request"))]


def not_first(found: list) -> None:
    found[0], found[1] = found[1], found[0]


def twice(found: list) -> None:
    found.append(found[0])


def no_ego(found: list) -> None:
    found[0].rollout_metadata.actor_definitions.actor_aabb[0].actor_id = "7"


def plan_back(found: list) -> None:
    answer = next(e.driver_return for e in found if e.HasField("driver_return"))
    answer.trajectory.poses[3].timestamp_us = 0


BROKEN = {
    nan: "expected a pose of finite numbers",
    gone: "actor_poses: expected a pose of EGO at 0 us, got none",
    back: "actor_poses: expected times that rise, got 300000 us after 400000 us",
    unanswered: "driver_request: expected an answer to what was asked at 0 us first",
    unasked: "driver_return: expected a driver_request before it, got none",
    not_first: "entry 0 at byte 0: expected rollout_metadata first, got another entry",
    twice: "rollout_metadata: expected once, at the beginning, got it again",
    no_ego: "rollout_metadata: expected EGO as the first actor, got 7",
    plan_back: "driver_return: trajectory pose 3: expected times that rise",
}


@pytest.mark.parametrize("damage", BROKEN, ids=lambda f: f.__name__)
def test_broken_logs_are_refused_with_their_place(driven, tmp_path, damage) -> None:
    folder, scenarios, _ = driven
    found = entries(logged(folder, scenarios[0]))
    if damage is nan:
        kept = ("rollout_metadata", "actor_poses")
        found = [e for e in found if e.WhichOneof("log_entry") in kept]
    damage(found)
    path = write(tmp_path / "a.asl", found)
    with pytest.raises(ScenarioError) as refused:
        read_log(path)
    assert str(refused.value).startswith(f"{path}: entry ")
    assert BROKEN[damage] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_logs_that_end_early_or_lie_about_sizes_are_refused(driven, tmp_path) -> None:
    folder, scenarios, _ = driven
    whole = logged(folder, scenarios[0]).read_bytes()
    path = tmp_path / "a.asl"
    for data, sentence in (
        (b"", "entry 0 at byte 0: expected rollout_metadata first, got the end of the file"),
        (whole[:-3], "the file ends after"),
        (whole + b"\0\0", "expected 4 bytes, the file ends after 2"),
        (b"\xff\xff\xff\xff" + whole[4:], "entry 0 at byte 0: expected 4294967295 bytes"),
    ):
        path.write_bytes(data)
        with pytest.raises(ScenarioError, match=r"a\.asl: entry \d+ at byte \d+: ") as refused:
            read_log(path)
        assert sentence in str(refused.value)


def test_unknown_entries_are_passed_over(driven, tmp_path) -> None:
    folder, scenarios, _ = driven
    path = logged(folder, scenarios[0])
    found = entries(path)
    poses = common.PoseAtTime(timestamp_us=3)
    more = [found[0], log.LogEntry(egomotion_estimate_error=poses), b"\xda\x02\x01x", b""]
    read = read_log(write(tmp_path / "a.asl", more + found[1:]))
    assert np.array_equal(read.pose, read_log(path).pose)


def score(**options) -> tuple[dict, str]:
    shown = io.StringIO()
    data = DataConfig(held_out=3, egos_per_scenario=1, workers=1)
    value = evaluate_command(EvalConfig(data=data, **options), [], Console(file=shown, width=200))
    json.dumps(value, allow_nan=False)
    return value, shown.getvalue()


def test_the_command_scores_logs_as_the_drive_that_wrote_them(tmp_path) -> None:
    sessions = replace(CONFIG, log=str(tmp_path))
    with ScriptedDriver() as driver:
        drove, _ = score(policy=driver.address, metrics="alpasim", alpasim=sessions, device="cpu")
    told, shown = score(asl=str(tmp_path))
    ours, theirs = drove["metrics"]["alpasim"], told["metrics"]["alpasim"]
    assert theirs["num_scored"] == 3, shown
    for name, value in ours.items():
        if isinstance(value, float):
            assert theirs[name] == pytest.approx(value, abs=2e-4), name
    assert "alpasim: 3 of 3 drives" in shown
    # A log that is cut short is told, and the others are scored.
    broken = next(tmp_path.rglob("*.asl"))
    broken.write_bytes(broken.read_bytes()[:-5])
    told, shown = score(asl=str(tmp_path))
    assert told["metrics"]["alpasim"]["num_scored"] == 2
    assert list(told["not_read"]) == [str(broken)]
    assert f"not read: {broken}: entry " in shown


def test_logs_without_a_map_have_no_scene_score(driven) -> None:
    folder, *_ = driven
    told, _ = score(asl=str(folder))
    assert told["metrics"]["alpasim"]["num_scored"] == 0
    row = told["per_rollout"][0]
    assert row["not_scored"] == f"no map: {row['scene']} is not among the scenarios"
    assert row["returned"]["collision_any"] == 0.0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"policy": "log"}, "policy: expected none with asl=, which drives nothing"),
        ({"metrics": "nuplan"}, "metrics: expected alpasim with asl=, got nuplan"),
        ({}, "asl: expected a log or a folder of logs, found none at /nowhere"),
    ],
)
def test_what_cannot_be_scored_is_refused(options, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        score(asl="/nowhere", **options)


def test_logs_are_shown(driven, tmp_path) -> None:
    folder, scenarios, found = driven
    path = logged(folder, scenarios[0])
    shown, rollout = replay_of(read_log(path), scenarios[0]), found.rollouts[0]
    begin = rollout.start_frame
    driven_x = rollout.x[:, rollout.ego] - shown.scenario.origin[0]
    assert shown.x[begin:, 0] == pytest.approx(driven_x, abs=2e-5)
    moved = scenarios[0].map.points - shown.scenario.origin
    assert shown.scenario.map.points == pytest.approx(moved, abs=1e-4)
    assert shown.offroad.any() == bool(score_log(read_log(path), scenarios[0]).returned["offroad"])
    page = tmp_path / "page.html"
    assert cli.main(["render", f"asl={folder}", f"out={page}"]) == 0
    assert scenarios[0].id in page.read_text()
