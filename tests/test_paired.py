"""Two drivers on the same scenarios: differences, intervals, and who fails where."""

from __future__ import annotations

import json

import numpy as np
import pytest

from alpagym.cli import main
from alpagym.paired import paired_difference
from test_cli import refuse

EACH = [str(i) for i in range(100)]


def test_a_difference_by_hand():
    first, second = np.array([1.0, 2.0, 3.0, np.nan]), np.array([0.0, 2.0, 1.0, 5.0])
    found = paired_difference(first, second, ["a", "a", "b", "c"])
    assert (found.first, found.second, found.value) == (2.0, 1.0, 1.0)
    assert (found.num_drives, found.num_recordings) == (3, 2)
    # Of two recordings, both draws are a (mean 1/2), or both b (2), each in a quarter of cases.
    assert found.interval == (0.5, 2.0)
    assert found.sure


def test_the_interval_is_that_of_the_mean_where_drives_are_many():
    generator = np.random.default_rng(1)
    second = generator.normal(10.0, 5.0, 400)
    first = second + generator.normal(0.3, 1.0, 400)
    found = paired_difference(first, second, [str(i) for i in range(400)])
    half = 1.96 * (first - second).std(ddof=1) / 20.0
    assert found.interval == pytest.approx((found.value - half, found.value + half), abs=0.01)
    assert found.sure  # though the spread of either driver is far larger than their difference


def test_drives_of_one_recording_count_once():
    generator = np.random.default_rng(2)
    shift = np.repeat(generator.normal(0.0, 1.0, 20), 10)
    apart = paired_difference(shift, np.zeros(200), [str(i) for i in range(200)])
    together = paired_difference(shift, np.zeros(200), [str(i // 10) for i in range(200)])
    assert np.diff(together.interval) > 2.5 * np.diff(apart.interval)


def test_the_interval_covers_as_often_as_it_says():
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(100):
        first, second = generator.random((2, 100)) < np.array([[0.3], [0.2]])
        found = paired_difference(first, second, EACH)
        covered += found.interval[0] <= 0.1 <= found.interval[1]
    assert covered >= 88


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(4).random((2, 100))
    assert paired_difference(*values, EACH) == paired_difference(*values, EACH)
    assert paired_difference(*values, EACH) != paired_difference(*values, EACH, seed=1)


def test_what_cannot_be_compared_has_no_interval():
    alone = paired_difference(np.ones(3), np.zeros(3), ["a"] * 3)
    assert (alone.value, alone.interval, alone.sure) == (1.0, None, False)
    nothing = paired_difference(np.array([np.inf]), np.zeros(1), ["a"])
    assert (nothing.num_drives, nothing.interval) == (0, None)
    with pytest.raises(ValueError, match="expected as many numbers as the 2 recordings"):
        paired_difference(np.ones(3), np.ones(3), ["a", "b"])


# The command

SMALL = ["data.held_out=9", "data.workers=1", "device=cpu", "threads=1"]


def test_two_drivers_are_compared_scenario_by_scenario(capsys):
    assert main(["eval", "policy=constant_velocity", "compare=idm", *SMALL]) == 0
    captured = capsys.readouterr()
    value = json.loads(captured.out)
    assert (value["driver"], value["compared"]["driver"]) == ("constant_velocity", "idm")
    rows, others = value["per_scenario"], value["compared"]["per_scenario"]
    assert [row["id"] for row in rows] == [row["id"] for row in others]
    failed, failed_too = ({row["id"] for row in r if row["failure"]} for r in (rows, others))
    assert value["failed_only_by_first"] == sorted(failed - failed_too) != []
    assert value["failed_only_by_second"] == sorted(failed_too - failed)
    found = value["differences"]["failure_rate"]
    assert found["difference"] == pytest.approx(value["failure_rate"] - found["second"])
    assert found["second"] == value["compared"]["failure_rate"]
    assert found["ci95"][0] <= found["difference"] <= found["ci95"][1]
    assert found["num_recordings"] == 9
    assert "failed only by constant_velocity (" in captured.err
    assert "too narrow" in captured.err


def test_metrics_of_others_are_compared_too(capsys):
    assert main(["eval", "policy=log", "compare=idm", "metrics=ttc", *SMALL]) == 0
    value = json.loads(capsys.readouterr().out)
    rows = (r["metrics"]["ttc"]["min_distance"] for r in value["per_scenario"])
    found = value["differences"]["ttc.min_distance"]
    assert found["first"] == pytest.approx(np.mean(list(rows)))
    assert found["num_drives"] == 9


def test_a_driver_compared_with_itself_does_not_differ(capsys):
    assert main(["eval", "policy=idm", "compare=idm", *SMALL]) == 0
    value = json.loads(capsys.readouterr().out)
    assert all(d["ci95"] == [0.0, 0.0] for d in value["differences"].values())
    assert value["failed_only_by_first"] == value["failed_only_by_second"] == []


def test_nothing_to_compare_with_is_refused(capsys):
    assert "/no/such: no such policy file" in refuse(
        capsys, "eval", "policy=idm", "compare=/no/such", *SMALL
    )
