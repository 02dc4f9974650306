"""Scenarios by name, and recordings held out whole, in whatever formats they come."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from alpagym.cli import main
from alpagym.scenarios.egos import drives_of
from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.readers import womd_scenario_pb2
from alpagym.scenarios.readers.tfrecord import read_records
from alpagym.scenarios.scenario import ScenarioError
from alpagym.scenarios.selection import held_out, names_in, selected, selected_drives
from alpagym.scenarios.sources import split_by_recording
from alpagym.store.shard import write_shard
from scenario_factory import crossing, curve, straight
from scenario_files import write_json, write_tfrecord
from womd_conversions import gpudrive_of, scenarionet_of

IDS = ["a", "a/ego-7", "b", "c/edit-1", "c"]


def test_names_are_ids_or_recordings() -> None:
    assert selected("data.select", "", IDS).tolist() == [0, 1, 2, 3, 4]
    assert selected("data.select", "b", IDS).tolist() == [2]
    assert selected("data.select", "c, a", IDS).tolist() == [0, 1, 3, 4]
    assert selected("data.select", "a/ego-7,c/edit-1", IDS).tolist() == [1, 3]


def test_a_file_has_one_a_line(tmp_path: Path) -> None:
    file = tmp_path / "chosen.txt"
    file.write_text("# hard ones\nb\n\n  a/ego-7 \n")
    assert names_in("data.select", str(file)) == ["b", "a/ego-7"]
    assert selected("data.select", str(file), IDS).tolist() == [1, 2]
    file.write_text("\n")
    with pytest.raises(ScenarioError, match="expected ids of scenarios, got none"):
        names_in("data.select", str(file))
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ScenarioError, match="cannot be read"):
        names_in("data.select", str(file))


def test_what_is_not_there_is_said() -> None:
    with pytest.raises(ScenarioError, match=r"^data.select: a/ego-8: no such scenario here; did"):
        selected("data.select", "a/ego-8", IDS)
    with pytest.raises(ScenarioError, match=r"^data.hold_out: z: no such scenario here$"):
        held_out(IDS, named="z", fraction=0.3, seed=0)


def test_drives_of_other_vehicles_are_found_by_name(shared_data) -> None:
    files = sorted((shared_data / "womd_gpudrive_json" / "current").glob("*.json"))
    scenarios = (load_scenarios(file)[0][0] for file in files)
    scenario = next(s for s in scenarios if len(drives_of(s, 3)) == 3)
    wanted = drives_of(scenario, 3)[2].id
    assert [d.id for d in selected_drives([scenario], "data.select", wanted, 1)] == [wanted]


def test_named_recordings_are_held_out_whole() -> None:
    scenarios = [straight(name=id) for id in IDS]
    train, judged = split_by_recording(scenarios, 0.3, 0, named="c")
    assert [s.id for s in train] == ["a", "a/ego-7", "b"]
    assert [s.id for s in judged] == ["c/edit-1", "c"]


@pytest.mark.parametrize("stored", [False, True])
def test_a_scene_in_two_formats_is_never_on_both_sides(stored, shared_data, tmp_path) -> None:
    """One WOMD scene as GPUDrive JSON and as ScenarioNet pickle, and others, for many seeds."""
    record = shared_data / "womd_tfrecord" / "motion_data_one_scenario.tfrecord"
    proto = womd_scenario_pb2.Scenario()
    proto.ParseFromString(next(read_records(record))[1])
    folder = tmp_path / "in"
    folder.mkdir()
    write_json(folder / "scene.json", gpudrive_of(proto))
    (folder / "sd_waymo_v1.2_scene.pkl").write_bytes(pickle.dumps(scenarionet_of(proto)))
    write_tfrecord(folder / "scene.tfrecord", proto)
    others = sorted((shared_data / "womd_gpudrive_json" / "current").rglob("*.json"))[:2]
    for file in others:
        shutil.copy(file, folder)
    if stored:
        arguments = [str(folder), f"out={tmp_path / 'store'}", "shard_scenarios=1", "workers=1"]
        assert main(["convert", *arguments, "pack=false"]) == 0
        folder = tmp_path / "store"
    loaded = load_scenarios(folder)[0]
    assert [s.recording for s in loaded].count(proto.scenario_id) == 3
    sides = set()
    for seed in range(8):
        train, judged = split_by_recording(loaded, 0.4, seed)
        assert not {s.recording for s in train} & {s.recording for s in judged}
        sides.add(proto.scenario_id in {s.recording for s in judged})
    assert sides == {True, False}


def test_eval_drives_exactly_what_is_asked_for(tmp_path, capsys) -> None:
    scenarios = [straight(name="a"), curve(name="b"), crossing(name="c")]
    write_shard(tmp_path / "a.safetensors", scenarios)
    chosen = tmp_path / "chosen.txt"
    chosen.write_text("c\na\n")
    given = [f"scenarios={tmp_path / 'a.safetensors'}", "policy=log", "device=cpu"]
    assert main(["eval", *given, f"data.select={chosen}", "data.min_steps=1"]) == 0
    found = json.loads(capsys.readouterr().out)["per_scenario"]
    assert [row["id"] for row in found] == ["a", "c"]
    assert main(["eval", *given, "data.select=b,d", "data.min_steps=1"]) == 2
    assert "data.select: d: no such scenario here" in capsys.readouterr().err


def test_training_on_generated_scenarios_has_nothing_to_choose_from(tmp_path, capsys) -> None:
    for option in ("select", "hold_out"):
        assert main(["train", f"runs={tmp_path}", f"data.{option}=a"]) == 2
        assert f"data.{option}: expected scenarios=PATH to choose from" in capsys.readouterr().err


def test_the_share_held_out_is_that_of_recordings() -> None:
    ids = [f"{i}" for i in range(50)]
    judged = held_out(ids, fraction=0.3, seed=4)
    assert len(judged) == 15
    assert judged == held_out(np.random.default_rng(0).permutation(ids), fraction=0.3, seed=4)
    with pytest.raises(ValueError, match="held_out_fraction: expected a share between 0 and 1"):
        held_out(ids, fraction=1.0, seed=4)
