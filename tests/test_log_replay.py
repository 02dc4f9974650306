"""scripts/log_replay.py finds what is there, names it, and finds nothing where nothing is."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import scenario_factory as factory
from alpagym.config import SimConfig
from alpagym.evaluation import evaluate

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "log_replay.py"


@pytest.fixture(scope="module")
def log_replay():
    spec = importlib.util.spec_from_file_location("log_replay", SCRIPT)
    module = sys.modules["log_replay"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def replayed(scenario):
    config = SimConfig(end_on=())
    return evaluate("log", [scenario], config, record="log")[1][0]


def test_penetration_is_the_depth_along_the_best_axis(log_replay) -> None:
    square = np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
    assert log_replay.penetration(square, square + np.array([1.5, 0.25])) == pytest.approx(0.5)
    assert log_replay.penetration(square, square + np.array([2.5, 0.0])) == pytest.approx(-0.5)


def test_a_collision_of_the_record_is_named_with_its_depth(log_replay) -> None:
    slow = factory.Actor(factory.STRAIGHT, 60.0, 2.0)
    fast = factory.Actor(factory.STRAIGHT, 40.0, 10.0)
    rollout = replayed(factory.straight(slow, ego=fast))
    (case,) = log_replay.collisions(rollout, "made")
    assert case.kind == "collision, front"
    # 20 m apart at frame 0 and closing by 0.8 m a frame; boxes are 4.6 m long.
    assert case.frame == 20
    assert "vehicle 1 (4.60 x 1.90 m)" in case.detail
    assert "0.600 m deep" in case.detail
    assert not list(log_replay.departures(rollout, "made"))


def test_leaving_the_road_is_named_with_corner_and_distance(log_replay) -> None:
    aside = factory.line((-20.0, -4.0), (200.0, 40.0))
    rollout = replayed(factory.straight(ego=factory.Actor(aside, 20.0, 15.0)))
    cases = list(log_replay.departures(rollout, "made"))
    assert cases
    assert "left corner" in cases[0].detail
    assert "beyond edge" in cases[0].detail


def test_a_clean_drive_gives_no_case(log_replay) -> None:
    drives = [factory.Actor(factory.STRAIGHT, s, 8.0) for s in (40.0, 60.0)]
    rollout = replayed(factory.straight(drives[1], ego=drives[0]))
    found = (log_replay.starts, log_replay.collisions, log_replay.departures)
    assert not [case for find in found for case in find(rollout, "made")]
    assert log_replay.nearest_gap(rollout) == pytest.approx(20.0 - 4.6, abs=1e-3)
