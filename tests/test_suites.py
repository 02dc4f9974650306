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
from alpagym.metrics import alpasim, suites
from alpagym.metrics.drive import drive_of
from alpagym.metrics.suites import SUITES, Measured, measure
from alpagym.scenarios.scenario import MapType
from alpagym.tables import reasons, suite_table
from scenario_factory import Actor

FULL = {  # what a drive that repeats its record gets
    "alpasim": {"scene_score": 1.0, "collision_any": 0.0, "offroad": 0.0, "progress": 1.0},
    "nuplan": {"closed_loop_score": 1.0, "ego_progress_along_expert_route": 1.0},
    "navsim": {"EPDMS": 1.0, "PDMS": 1.0, "EP": 1.0},
    "waymax": {"overlap": 0.0, "offroad": 0.0, "log_divergence": 0.0, "progression": 1.0},
    "ttc": {"min_ttc": np.inf, "min_distance": np.inf, "max_drac": 0.0},
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


def without_last_record_frames(count: int):
    """A straight road whose record lacks the ego in its last frames."""
    scenario = factory.straight(frames=91)
    valid = scenario.tracks.valid.copy()
    valid[scenario.ego, 91 - count :] = False
    return replace(scenario, tracks=replace(scenario.tracks, valid=valid))


@pytest.mark.parametrize("driver", ["log", "idm", "constant_velocity"])
def test_a_drive_ends_with_the_record_of_the_ego(driver) -> None:
    (drive,) = drives_by(driver, without_last_record_frames(1))
    assert drive.times[-1] == pytest.approx(drive.log_times[-1])
    for suite, measured in measure(list(SUITES), [drive]).items():
        assert not measured.unscored, suite
    assert len(drive.pose) == 90


@pytest.mark.parametrize("suite", list(SUITES))
def test_a_record_driven_again_gets_full_marks(suite) -> None:
    measured = measure([suite], drives_by("log", factory.straight(frames=91)))[suite]
    assert not measured.unscored
    for name, value in FULL[suite].items():
        assert measured.rows[0][name] == pytest.approx(value, abs=1e-4), name
        assert measured.total[name] == pytest.approx(value, abs=1e-4), name


@pytest.mark.parametrize("suite", list(SUITES))
def test_a_crash_costs(suite) -> None:
    wall = Actor(factory.STRAIGHT, 60.0, 0.0)
    scenario = factory.straight(wall, frames=91)
    row = measure([suite], drives_by("constant_velocity", scenario))[suite].rows[0]
    judged = {
        "alpasim": row.get("scene_score") == 0.0,
        "nuplan": row.get("closed_loop_score") == 0.0,
        "navsim": row.get("v1_NC") == 0.0,  # NC is filtered: the record hits the wall too
        "waymax": row.get("overlap") == 1.0,
        "ttc": row.get("min_ttc") == row.get("min_distance") == 0.0,
        "alpagym": row.get("metrics", 0.0) < -8.0,
    }
    assert judged[suite], row


def parked(speed: float):
    return factory.straight(ego=Actor(factory.STRAIGHT, 20.0, speed), frames=91)


@pytest.mark.parametrize("suite", ["alpasim", "alpagym"])
def test_a_drive_that_cannot_be_scored_says_why_and_the_others_count(suite) -> None:
    drives = drives_by("log", parked(0.0), parked(0.1), factory.straight(frames=91))
    measured = measure([suite], drives)[suite]
    assert list(measured.unscored) == [0, 1]
    assert measured.unscored[0] == "no scene score: the record, 0.00 m long, has no progress"
    assert "expected a record of 2 m or more" in measured.unscored[1]
    assert set(measured.counts.values()) == {1}
    scene = alpasim.score(drives[1]).scene  # AlpaSim itself does score it
    assert scene is not None
    assert scene.score == 1.0


def test_unknown_suites_are_refused() -> None:
    with pytest.raises(ValueError, match="metrics: expected one of alpasim, nuplan, "):
        measure(["nuplan", "carla"], [])


@pytest.mark.parametrize(
    "features", [[], [(MapType.ROAD_EDGE, factory.STRAIGHT + np.array([0.0, -4.0, 0.0]))]]
)
def test_maps_without_lanes_have_no_scores_of_lanes(features) -> None:
    ego = Actor(factory.STRAIGHT, 20.0, 10.0)
    found = measure(list(SUITES), drives_by("log", factory.assemble("bare", features, [ego])))
    for suite in ("alpasim", "nuplan", "navsim", "alpagym"):
        assert "no lanes in the map" in found[suite].unscored[0]
    assert not found["waymax"].unscored


def test_short_drives_are_not_judged() -> None:
    (drive,) = drives_by("log", factory.straight())
    for states, judged in ((4, False), (5, True)):
        end = drive.start + states
        short = replace(drive, pose=drive.pose[:end], valid=drive.valid[:end])
        for suite, measured in measure(list(SUITES), [short]).items():
            assert bool(measured.rows[0]) == judged, suite
            if not judged:
                assert "5 states or more from the start on, got 4" in measured.unscored[0]


def test_a_drive_of_nothing_but_nan_counts_as_unscored() -> None:
    (drive,) = drives_by("log", factory.straight())
    valid = drive.valid.copy()
    valid[drive.start :, drive.ego] = False
    measured = measure(["waymax"], [replace(drive, valid=valid)])["waymax"]
    assert measured.rows == [{}]
    assert measured.unscored[0].startswith("drive: expected some number, got NaN for overlap, ")


def test_terms_of_epdms_multiply_out() -> None:
    blocked = factory.straight(Actor(factory.STRAIGHT, 45.0, 0.0), frames=91)
    row = measure(["navsim"], drives_by("log", blocked))["navsim"].rows[0]
    product = row["NC"] * row["DAC"] * row["TLC"] * row["DDC"]
    mean = (5 * row["EP"] + 5 * row["TTC"] + 2 * row["LK"] + 2 * row["HC"]) / 14
    assert row["EPDMS"] == pytest.approx(product * mean)
    assert row["NC"] == 1.0  # the record hits too: no penalty
    assert row["v1_NC"] < 1.0


def test_suites_of_one_drive_share_its_map(monkeypatch) -> None:
    asked = []
    known = suites.polygon_map_of
    monkeypatch.setattr(suites, "polygon_map_of", lambda s: asked.append(s.id) or known(s))
    drives = drives_by("log", factory.straight(), factory.straight())
    measure(["nuplan", "navsim"], drives)
    assert len(asked) == 2


def test_tables_tell_every_reason_and_of_how_many_drives_a_number_is() -> None:
    ids = ["a/1", "a/2", "b/3", "b/4"]
    lines = reasons("nuplan", {0: "a/1: got 1.5 m", 2: "b/3: got 0 m", 3: "no lanes"}, ids)
    assert lines == [
        "nuplan: 2 not scored (first a/1): a/1: got 1.5 m",
        "nuplan: 1 not scored (first b/4): no lanes",
    ]
    measured = Measured([{"x": 1.0, "y": np.nan}, {"x": 2.0, "y": 4.0}], {}, {"x": 1.5, "y": 4.0})
    table = suite_table("s", measured.total, 3, 2, measured.counts)
    assert [column.header for column in table.columns] == ["", "value", "drives"]
    assert list(table.columns[2].cells) == ["2", "1"]
    assert len(suite_table("s", {"x": 1.5}, 3, 2, measured.counts).columns) == 2


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
