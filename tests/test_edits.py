"""Edited scenarios: seeded, composed, valid, and tagged as their originals are."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from alpagym.cli import main
from alpagym.scenarios.edits import (
    EDITS,
    Delay,
    Insert,
    Remove,
    Shift,
    ShiftLights,
    ShowLights,
    Size,
    Speed,
    edit,
    named_edits,
)
from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.procedural import generate
from alpagym.scenarios.scenario import AgentFlag, LightState, Scenario
from reading import only
from scenario_files import proto_scenario, write_tfrecord

ROOT = Path(__file__).resolve().parents[1]
ALL = [
    Shift(1.0, 0.3, 0.1),
    Speed(0.7, 1.3),
    Delay(-0.5, 0.5),
    Size(0.9, 1.1, "all"),
    Remove(1),
    Insert(2),
    ShowLights("red", 0.5),
    ShiftLights(-2.0, 2.0),
]


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return generate("signal", 1)


@pytest.fixture
def road(tmp_path) -> Scenario:
    """Two cars on a straight road at 8 m/s, the ego 15 m behind; a light ahead."""
    return only(write_tfrecord(tmp_path / "made.tfrecord", proto_scenario()))


def others(s: Scenario) -> np.ndarray:
    return np.arange(s.tracks.num_agents) != s.ego


# All edits


@pytest.mark.parametrize("step", ALL, ids=lambda s: type(s).__name__)
def test_each_edit_is_valid_seeded_and_traced(scenario, step) -> None:
    before = scenario.tracks.xyz.copy(), scenario.lights.state.copy(), list(scenario.notes)
    one, same, other = (edit(scenario, [step], seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.tracks.xyz, same.tracks.xyz)
    np.testing.assert_array_equal(one.routes.points, same.routes.points)
    assert one.id == same.id != other.id
    assert one.id.startswith(f"{scenario.id}/edit-")
    assert one.recording == scenario.recording
    assert one.license == scenario.license
    assert one.notes[: len(scenario.notes)] == scenario.notes
    assert any(note.startswith("edited: ") for note in one.notes)
    np.testing.assert_array_equal(scenario.tracks.xyz, before[0])  # the original stays
    np.testing.assert_array_equal(scenario.lights.state, before[1])
    assert scenario.notes == before[2]
    assert one.tracks.yaw.min() >= -np.pi
    assert one.tracks.yaw.max() < np.pi
    assert not one.tracks.xyz[~one.tracks.valid].any()


def test_edits_compose(scenario) -> None:
    edited = edit(scenario, ALL, seed=2)
    assert len(edited.notes) >= len(scenario.notes) + len(ALL)
    assert edited.tracks.id[edited.ego] == scenario.tracks.id[scenario.ego]
    twice = edit(edited, [Remove(1)], seed=1)
    assert twice.recording == scenario.recording
    assert edit(scenario, [], seed=1) is scenario


def test_recorded_scenarios_stay_valid(shared_data) -> None:
    for name in ("womd_gpudrive_json/current", "nuscenes_scenarionet_pkl"):
        path = sorted((shared_data / name).iterdir())[0]
        (recorded,), _ = load_scenarios(path)
        edited = edit(recorded, ALL, seed=5)
        assert edited.license == recorded.license
        assert edited.num_steps == recorded.num_steps


def test_agents_that_did_not_change_keep_their_routes(scenario) -> None:
    edited = edit(scenario, [Shift(2.0)], seed=0)
    a, before, after = scenario.ego, scenario.routes, edited.routes
    for routes in (before, after):
        assert routes.offsets[a + 1] > routes.offsets[a]
    np.testing.assert_array_equal(
        before.points[before.offsets[a] : before.offsets[a + 1]],
        after.points[after.offsets[a] : after.offsets[a + 1]],
    )


# Each edit


def test_shift_is_rigid_and_bounded(scenario) -> None:
    edited = edit(scenario, [Shift(1.0, 0.5, 0.2)], seed=1)
    start, kept = scenario.start_frame, others(scenario)
    old, new = scenario.tracks, edited.tracks
    both = old.valid[:, start] & kept
    gap = new.xyz[both, start] - old.xyz[both, start]
    assert 0.1 < np.hypot(gap[:, 0], gap[:, 1]).max() <= np.hypot(1.0, 0.5) + 1e-4
    np.testing.assert_array_equal(new.xyz[scenario.ego], old.xyz[scenario.ego])
    for a in np.flatnonzero(both):
        here = old.valid[a]
        lengths = [np.hypot(*np.diff(t.xyz[a, here, :2], axis=0).T) for t in (old, new)]
        np.testing.assert_allclose(*lengths, rtol=0, atol=1e-4)
        speeds = [np.hypot(*t.velocity[a, here].T) for t in (old, new)]
        np.testing.assert_allclose(*speeds, rtol=0, atol=1e-4)


def test_speed_drives_the_same_path(road) -> None:
    edited = edit(road, [Speed(0.5, 0.5)], seed=0)
    a, start = int(np.flatnonzero(others(road))[0]), road.start_frame
    old, new = road.tracks, edited.tracks
    x0 = old.xyz[a, start, 0]
    np.testing.assert_allclose(new.xyz[a, start + 20, 0] - x0, 8.0, atol=1e-3)
    np.testing.assert_allclose(new.velocity[a, :, 0], 4.0, atol=1e-5)
    fast = edit(road, [Speed(2.0, 2.0)], seed=0).tracks  # the record ends sooner
    np.testing.assert_allclose(fast.xyz[a, start + 10, 0] - x0, 16.0, atol=1e-3)
    assert fast.valid[a].sum() == 5 + (39 - start) // 2 + 1
    assert edited.routes.log_length[a] < road.routes.log_length[a]


def test_delay_moves_records_in_time(road) -> None:
    edited = edit(road, [Delay(0.5, 0.5)], seed=0)
    a = int(np.flatnonzero(others(road))[0])
    assert edited.tracks.valid[a].tolist() == [False] * 5 + [True] * 35
    np.testing.assert_array_equal(edited.tracks.xyz[a, 5:], road.tracks.xyz[a, :-5])
    assert edited.tracks.valid[road.ego].all()


def test_headings_are_interpolated_on_the_circle(road) -> None:
    a = int(np.flatnonzero(others(road))[0])
    road.tracks.yaw[a] = np.where(np.arange(40) % 2, np.float32(-3.1), np.float32(3.1))
    edited = edit(road, [Delay(0.05, 0.05)], seed=0)
    assert np.abs(edited.tracks.yaw[a, 1:]).min() > 3.0


def test_size_is_multiplied(road) -> None:
    a = int(np.flatnonzero(others(road))[0])
    edited = edit(road, [Size(2.0, 2.0)], seed=0)
    np.testing.assert_allclose(edited.tracks.size[a], 2.0 * road.tracks.size[a])
    np.testing.assert_array_equal(edited.tracks.size[road.ego], road.tracks.size[road.ego])
    longest = edit(edited, [Size(10.0, 10.0)], seed=0).tracks.size
    assert longest.max() <= 60.0


def test_remove_spares_the_ego(scenario) -> None:
    edited = edit(scenario, [Remove(1000)], seed=0)
    assert edited.tracks.id.tolist() == [scenario.tracks.id[scenario.ego]]
    assert edited.ego == 0


def test_inserted_cars_follow_lanes_and_touch_nobody(scenario) -> None:
    edited = edit(scenario, [Insert(4, 0.3, 0.8)], seed=3)
    count = edited.tracks.num_agents - scenario.tracks.num_agents
    assert count >= 2
    assert f"inserted {count} cars of 4 wanted" in edited.notes[-1]
    new = slice(-count, None)
    assert not (edited.flags[new] & AgentFlag.OVERLAPS_IN_LOG).any()
    assert not (edited.flags[new] & AgentFlag.STARTS_OFFROAD).any()
    assert len(set(edited.tracks.id.tolist())) == edited.tracks.num_agents
    speed = np.hypot(*np.moveaxis(edited.tracks.velocity[new], 2, 0))
    steps = np.hypot(*np.moveaxis(np.diff(edited.tracks.xyz[new, :, :2], axis=1), 2, 0))
    both = edited.tracks.valid[new][:, 1:] & edited.tracks.valid[new][:, :-1]
    np.testing.assert_allclose(steps[both], 0.1 * speed[:, 1:][both], atol=0.02)


def test_lights(scenario) -> None:
    start = scenario.start_frame
    red = edit(scenario, [ShowLights("red")], seed=0)
    assert (red.lights.state[:, start:] == LightState.RED).all()
    assert (red.lights.after == LightState.RED).all()
    np.testing.assert_array_equal(red.lights.state[:, :start], scenario.lights.state[:, :start])
    later = edit(scenario, [ShiftLights(1.0, 1.0)], seed=0)
    np.testing.assert_array_equal(later.lights.state[:, 10:], scenario.lights.state[:, :-10])
    sooner = edit(scenario, [ShiftLights(-1.0, -1.0)], seed=0)
    np.testing.assert_array_equal(sooner.lights.state[:, :-10], scenario.lights.state[:, 10:])
    np.testing.assert_array_equal(sooner.lights.state[:, -10:], scenario.lights.after[:, :10])


# What is refused


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"fly": 1}, r"edits: expected one of shift, speed, .*, got fly"),
        ({"speed": [0.8]}, "edits: speed takes low, high, who, got"),
        ({"speed": [1.2, 0.8]}, "edits: speed: high: expected a number from 1.2 to 5, got 0.8"),
        ({"speed": [0.0, 1.0]}, "edits: speed: low: expected a number from 0.05 to 5, got 0.0"),
        ({"size": [1, 1, "me"]}, "edits: size: expected one of others, ego, all, got me"),
        ({"remove": "all"}, "edits: remove: count: expected a number from 0"),
        ({"show_lights": "blue"}, "edits: show_lights: expected one of unknown, red, .*, got blue"),
        ({"shift": float("nan")}, "edits: shift: along: expected a number from 0 to 100, got nan"),
        ({"delay": [0, 99]}, "edits: delay: high: expected a number from 0 to 60, got 99"),
    ],
)
def test_bad_edits_are_refused(given, words) -> None:
    with pytest.raises(ValueError, match=words):
        named_edits(given)


# From the command line, and as documented


def test_command_line(tmp_path, capsys) -> None:
    source = write_tfrecord(tmp_path / "in.tfrecord", proto_scenario())
    arguments = [f"scenarios={source}", f"out={tmp_path / 'out'}", "format=gpudrive", "copies=3"]
    assert main(["export", *arguments, "edits={speed:[0.5,0.9],size:[1.1,1.2]}"]) == 0
    assert "license tags, kept in the files' metadata: womd-nc (3)" in capsys.readouterr().out
    scenarios, skipped = load_scenarios(tmp_path / "out")
    assert not skipped
    assert len({s.id for s in scenarios}) == 3
    assert {s.recording for s in scenarios} == {"made-2"}
    assert all("edited: speeds of others times 0.5 to 0.9" in s.notes for s in scenarios)
    assert main(["export", f"out={tmp_path / 'x'}", "edits={fly:1}"]) == 2
    assert main(["export", f"out={tmp_path / 'x'}", "copies=2"]) == 2


def test_the_documented_example_runs_and_every_edit_is_listed(capsys) -> None:
    text = (ROOT / "docs" / "edits.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    exec(compile(example, "edits.md", "exec"), {})
    assert re.match(
        r"procedural/signal/1/edit-[0-9a-f]{8} synthetic-cc0 edited: inserted",
        capsys.readouterr().out,
    )
    assert set(re.findall(r"^\| `\w+\(.*\)` \| `(\w+)` \|", text, flags=re.MULTILINE)) == set(EDITS)
