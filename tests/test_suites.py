"""The metrics of others from the command line, and drives made of rollouts."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import scenario_factory as factory
from alpagym import cli
from alpagym.config import SimConfig
from alpagym.evaluation import evaluate
from alpagym.metrics.drive import drive_of
from alpagym.metrics.suites import SUITES, measure
from scenario_factory import Actor

FULL = {  # what a drive that repeats its record gets
    "alpasim": {"scene_score": 1.0, "collision_any": 0.0, "offroad": 0.0, "progress": 1.0},
    "nuplan": {"closed_loop_score": 1.0, "ego_progress_along_expert_route": 1.0},
    "navsim": {"EPDMS": 1.0, "PDMS": 1.0, "EP": 1.0},
    "waymax": {"overlap": 0.0, "offroad": 0.0, "log_divergence": 0.0, "progression": 1.0},
    "alpagym": {"metrics": 1.0, "progress_safety": 1.0, "distance_to_gt": 0.0},
}


def drives_by(driver: str, *scenarios):
    _, rollouts = evaluate(driver, scenarios, SimConfig(end_on=()), record=driver)
    return [drive_of(rollout) for rollout in rollouts]


def test_a_drive_holds_the_record_before_its_start() -> None:
    scenario = factory.straight(start=5)
    (drive,) = drives_by("log", scenario)
    assert (drive.first_frame, drive.start, len(drive.pose)) == (0, 5, 41)
    np.testing.assert_allclose(drive.ego_pose, drive.log_pose, atol=1e-5)
    np.testing.assert_allclose(drive.times, drive.log_times, atol=1e-9)


def test_a_drive_begins_after_the_last_gap_before_its_start_and_ends_where_the_ego_leaves() -> None:
    ego = Actor(factory.STRAIGHT, 20.0, 10.0, absent=(2, 4))
    scenario = factory.straight(ego=ego, start=8)
    valid = scenario.tracks.valid.copy()
    valid[0, 30:] = False
    scenario = replace(scenario, tracks=replace(scenario.tracks, valid=valid))
    (drive,) = drives_by("log", scenario)
    assert (drive.first_frame, drive.start, len(drive.pose)) == (4, 4, 26)
    assert drive.valid[:, drive.ego].all()


@pytest.mark.parametrize("suite", list(SUITES))
def test_a_record_driven_again_gets_full_marks(suite) -> None:
    measured = measure(suite, drives_by("log", factory.straight(frames=91)))
    assert not measured.unscored
    for name, value in FULL[suite].items():
        assert measured.rows[0][name] == pytest.approx(value, abs=1e-4), name
        assert measured.total[name] == pytest.approx(value, abs=1e-4), name


@pytest.mark.parametrize("suite", list(SUITES))
def test_a_crash_costs(suite) -> None:
    wall = Actor(factory.STRAIGHT, 60.0, 0.0)
    scenario = factory.straight(wall, frames=91)
    row = measure(suite, drives_by("constant_velocity", scenario)).rows[0]
    judged = {
        "alpasim": row.get("scene_score") == 0.0,
        "nuplan": row.get("closed_loop_score") == 0.0,
        "navsim": row.get("NC") == 0.0,
        "waymax": row.get("overlap") == 1.0,
        "alpagym": row.get("metrics", 0.0) < -8.0,
    }
    assert judged[suite], row


def test_a_drive_that_cannot_be_scored_says_why_and_the_others_count() -> None:
    parked = factory.straight(ego=Actor(factory.STRAIGHT, 20.0, 0.0), frames=91)
    measured = measure("alpasim", drives_by("log", parked, factory.straight(frames=91)))
    assert list(measured.unscored) == [0]
    assert "progress" in measured.unscored[0]
    assert measured.total["n_clips"] == 1.0
    with pytest.raises(ValueError, match="metrics: expected one of alpasim, nuplan, "):
        measure("carla", [])


def test_eval_measures_all_and_writes_them(tmp_path, capsys) -> None:
    file = tmp_path / "eval.json"
    arguments = ["policy=idm", "data.held_out=3", "data.kinds=[curve]", f"output={file}"]
    assert cli.main(["eval", *arguments, "--metrics", "all"]) == 0
    value = json.loads(file.read_text())
    assert set(value["metrics"]) == set(SUITES)
    for suite, total in value["metrics"].items():
        assert total["num_scored"] == 3
        rows = [row["metrics"][suite] for row in value["per_scenario"]]
        common = set(total) & set(rows[0])
        assert common
    text = capsys.readouterr().err
    assert "nuplan: 3 of 3 drives" in text
    assert "EPDMS" in text


def test_unknown_metrics_are_refused_before_anything_is_driven(capsys) -> None:
    assert cli.main(["eval", "policy=log", "--metrics", "carla"]) == 2
    assert "metrics: expected one of alpasim, nuplan, navsim" in capsys.readouterr().err
    assert cli.main(["eval", "policy=log", "--metrics"]) == 2
