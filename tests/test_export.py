"""Exported scenarios: read back they are what they were, with their license tags."""

from __future__ import annotations

import json
import os
import pickle
import pickletools
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alpagym.cli import main
from alpagym.scenarios.export import FORMATS, export
from alpagym.scenarios.export.common import file_names, unique_ids
from alpagym.scenarios.export.plain_pickle import dumps
from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.procedural import generate
from alpagym.scenarios.scenario import AgentType, Scenario, ScenarioError
from reading import only, refused
from same_scene import assert_same
from scenario_files import proto_scenario, write_tfrecord

SIMPLIFIED = 0.06
"""Map lines of procedural scenarios are not simplified; those of files are, within 5 cm [m]."""
HELD = {"scenarionet": {}, "gpudrive": {"links": False, "neighbors": False, "limits": False}}
RECORDED = [
    "womd_tfrecord/motion_data_one_scenario.tfrecord",
    "womd_gpudrive_json/old_schema/tfrecord-00000-of-00150_104.json",
    "womd_scenarionet_pkl/sd_waymo_v1.2_eb4b91b10ca94ff2.pkl",
    "nuscenes_scenarionet_pkl/sd_nuscenes_scene-0757.pkl",
    "argoverse2_motion/0a1e6f0a-1817-4a98-b02e-db8c9327d151",
    "commonroad_xml/located/USA_Lanker-2_13_T-1.xml",
]


def round_trip(scenario: Scenario, folder: Path, format: str) -> Scenario:
    report = export([scenario], folder, format)
    assert report.licenses == {scenario.license: 1}
    return only(folder)


def made(tmp_path: Path) -> Scenario:
    return only(write_tfrecord(tmp_path / "made.tfrecord", proto_scenario()))


# Read back


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", ["signal", "roundabout", "all_way_stop", "street"])
def test_procedural_scenarios_come_back(tmp_path, kind, format) -> None:
    scenario = generate(kind, 3)
    back = round_trip(scenario, tmp_path / "out", format)
    assert_same(scenario, back, line=SIMPLIFIED, **HELD[format])
    assert back.license == "synthetic-cc0"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", RECORDED)
def test_recorded_scenarios_come_back(shared_data, tmp_path, name, format) -> None:
    scenarios, _ = load_scenarios(shared_data / name)
    scenario = scenarios[0]
    back = round_trip(scenario, tmp_path / "out", format)
    lights = format == "scenarionet" or bool(scenario.lights.state.any(1).all())
    assert lights or "lights that are never seen" in FORMATS[format].losses(scenario)
    assert_same(scenario, back, lights=lights, **HELD[format])
    assert back.license == scenario.license
    assert set(scenario.notes) <= set(back.notes)
    if format == "scenarionet":  # the same lanes give the same routes
        others = np.arange(scenario.tracks.num_agents) != scenario.ego  # its route may be a plan
        lengths = [s.routes.log_length[others] for s in (back, scenario)]
        np.testing.assert_allclose(*lengths, rtol=0, atol=0.05)
        np.testing.assert_array_equal(back.flags, scenario.flags)


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_odd_comes_back(tmp_path, format) -> None:
    """Ids that repeat or are large, lights without a lane, agents of no type, other time steps."""
    scenario = made(tmp_path)
    road, tracks = scenario.map, scenario.tracks
    road.id[:4] = [2**61 + 7, -5, 3, 3]
    tracks.id[:] = 9
    tracks.type[:] = AgentType.UNKNOWN
    scenario.lights.lane[:] = -1
    scenario.dt = 0.25
    back = round_trip(scenario, tmp_path / "out", format)
    assert back.map.id[:3].tolist() == [2**61 + 7, -5, 3]
    assert len(set(back.map.id.tolist())) == len(road.id)
    assert back.tracks.id.tolist() == [9, 10]
    kind = AgentType.OTHER if format == "scenarionet" else AgentType.UNKNOWN
    assert back.tracks.type.tolist() == [kind, kind]
    assert back.lights.lane.tolist() == [-1]
    np.testing.assert_array_equal(back.lights.state, scenario.lights.state)
    assert back.dt == 0.25
    (losses,) = [FORMATS[format].losses(scenario)]
    assert "ids that repeat (renumbered)" in losses


@pytest.mark.parametrize("format", FORMATS)
def test_start_and_ego_are_kept(tmp_path, format) -> None:
    scenario = replace(made(tmp_path), start_frame=3, ego=0)
    back = round_trip(scenario, tmp_path / "out", format)
    assert (back.start_frame, back.ego) == (3, 0)
    again = round_trip(back, tmp_path / "again", format)
    assert_same(back, again)


# The formats themselves


def test_gpudrive_files_have_what_its_loader_asks_for(tmp_path) -> None:
    export([made(tmp_path)], tmp_path / "out", "gpudrive")
    (path,) = (tmp_path / "out").iterdir()
    data = json.loads(path.read_text())
    assert data["name"] == path.name == "made-2.json"
    thing = data["objects"][0]
    for field in ("position", "heading", "velocity", "valid"):
        assert len(thing[field]) == 40
    assert thing["type"] == "vehicle"
    assert thing["goalPosition"] == thing["position"][-1]
    np.testing.assert_allclose(thing["position"][0]["x"], 5015.0)
    assert {"width", "length", "height", "id", "mark_as_expert"} <= thing.keys()
    kinds = {road["type"]: road["map_element_id"] for road in data["roads"]}
    assert kinds == {"lane": 2, "road_edge": 15, "stop_sign": 17}
    light = data["tl_states"]["2"]
    assert light["time_index"] == list(range(5, 40))
    assert light["state"] == ["stop"] * 15 + ["go"] * 20
    assert data["metadata"]["sdc_track_index"] == 1
    assert data["metadata"]["license"] == "womd-nc"


def test_scenarionet_files_are_plain(tmp_path) -> None:
    export([made(tmp_path)], tmp_path / "out", "scenarionet")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "sd_waymo_alpagym_made-2.pkl", "dataset_summary.pkl", "dataset_mapping.pkl",
    }  # fmt: skip
    content = (tmp_path / "out" / "sd_waymo_alpagym_made-2.pkl").read_bytes()
    words = {arg for _, arg, _ in pickletools.genops(content) if isinstance(arg, str)}
    assert not {w for w in words if re.match(r"numpy\._core|alpagym\.|builtins", w)}
    data = pickle.loads(content)
    assert data["length"] == 40
    assert {"metadrive_processed", "coordinate", "ts"} <= data["metadata"].keys()
    assert data["metadata"]["ts"].shape == (40,)
    for key, track in data["tracks"].items():
        assert track["metadata"]["object_id"] == key
        assert all(len(values) == 40 for values in track["state"].values())
        hidden = ~track["state"]["valid"]
        assert all(abs(values[hidden]).sum() == 0 for values in track["state"].values())
    lane = data["map_features"]["1"]
    assert lane["exit_lanes"] == ["2"]
    assert data["map_features"]["2"]["entry_lanes"] == ["1"]
    assert lane["left_neighbor"][0]["feature_id"] == "3"
    np.testing.assert_allclose(lane["speed_limit_mph"], 25.0, rtol=1e-6)
    light = data["dynamic_map_states"]["2"]
    assert light["state"]["object_state"][:6] == [None] * 5 + ["LANE_STATE_STOP"]
    summary = pickle.loads((tmp_path / "out" / "dataset_summary.pkl").read_bytes())
    (entry,) = summary.values()
    assert entry["license"] == "womd-nc"
    assert entry["number_summary"]["num_moving_objects"] == 2


EXPORTED = """
import sys
from alpagym.scenarios.export import FORMATS, export
from alpagym.scenarios.load import load_scenarios
for format in FORMATS:
    export(load_scenarios(sys.argv[1])[0], f"{sys.argv[2]}/{format}", format)
"""


def test_every_process_writes_the_same_bytes(tmp_path) -> None:
    proto = proto_scenario()
    for number, kind in enumerate((1, 2, 3, 4)):  # four types of agents: sets have 24 orders
        proto.tracks.add().CopyFrom(proto.tracks[1])
        proto.tracks[-1].id, proto.tracks[-1].object_type = 900 + number, kind
    source = write_tfrecord(tmp_path / "a.tfrecord", proto)
    written = []
    for seed in "123":
        out = tmp_path / seed
        command = [sys.executable, "-c", EXPORTED, str(source), str(out)]
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run(command, env=environment, check=True)
        files = [path for path in out.rglob("*") if path.is_file()]
        written.append({str(path.relative_to(out)): path.read_bytes() for path in files})
    assert {Path(name).parts[0] for name in written[0]} == set(FORMATS)
    assert written[0] == written[1] == written[2]


def test_pickles_hold_plain_values_only() -> None:
    class Thing:
        pass

    array = np.arange(6.0).reshape(2, 3)
    back = pickle.loads(dumps({"a": [array, array], "b": (None, True, {1, 2}, b"x")}))
    np.testing.assert_array_equal(back["a"][1], array)
    assert back["b"] == (None, True, {1, 2}, b"x")
    for bad in (Thing(), [np.float64(1)], {"a": np.array([Thing()])}, np.array(["text"])):
        with pytest.raises(TypeError, match="expected"):
            dumps(bad)


# License tags


@pytest.mark.parametrize("format", FORMATS)
def test_a_tag_survives_two_exports(tmp_path, format) -> None:
    other = next(name for name in FORMATS if name != format)
    scenario = replace(made(tmp_path), dataset="nuscenes", license="nuscenes-nc")
    once = round_trip(scenario, tmp_path / "once", format)
    twice = round_trip(once, tmp_path / "twice", other)
    assert (twice.dataset, twice.license) == ("nuscenes", "nuscenes-nc")
    np.testing.assert_allclose(twice.tracks.size, scenario.tracks.size)  # nothing is "repaired"


def test_without_a_tag_nothing_is_written(tmp_path) -> None:
    with pytest.raises(ScenarioError, match="has no license tag to export it with"):
        export([replace(made(tmp_path), license="")], tmp_path / "out", "gpudrive")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"license": ""}, "'alpagym': 'license' must be a word"),
        ({"dataset": 3}, "'alpagym': 'dataset' must be a word"),
        ({"dt": "fast"}, "'alpagym': 'dt' must be a number"),
        ({"start_frame": 40}, "'alpagym': 'start_frame' must be one of 40 frames"),
        ({"has_z": 1}, "'alpagym': 'has_z' must be true or false"),
        ({"notes": "many"}, "'alpagym': 'notes' must be at most 200 clauses"),
        ({"notes": [1]}, "'alpagym': a note must be a clause of text"),
    ],
)
def test_damaged_tags_are_refused(tmp_path, change, words) -> None:
    export([made(tmp_path)], tmp_path / "out", "gpudrive")
    path = tmp_path / "out" / "made-2.json"
    data = json.loads(path.read_text())
    data["metadata"]["alpagym"] |= change
    path.write_text(json.dumps(data))
    assert refused(path) == words
    data["metadata"]["alpagym"] = []
    path.write_text(json.dumps(data))
    assert refused(path) == "'alpagym' must be a dict, got list"


# Names and ids


def test_names_stay_inside_the_folder_and_differ() -> None:
    given = ["a/b", "../../etc/passwd", "a_b", "A_B", "a_b_copy2", "", "x" * 500]
    names = file_names(given, ".json")
    assert names[:2] == ["a_b.json", "etc_passwd.json"]
    assert len({name.lower() for name in names}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,170}", name) for name in names)


def test_ids_are_kept_unless_they_repeat() -> None:
    assert unique_ids(np.array([5, 7, 5, -1, 5])) == [5, 7, 8, -1, 9]


# The command


@pytest.mark.parametrize("format", FORMATS)
def test_command(tmp_path, capsys, format) -> None:
    source = write_tfrecord(tmp_path / "in.tfrecord", proto_scenario())
    out = tmp_path / "new" / "out"
    assert main(["export", f"scenarios={source}", f"out={out}", f"format={format}"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{out}: 1 scenario as {FORMATS[format].title}"
    assert said[1] == "license tags, kept in the files' metadata: womd-nc (1)"
    assert said[2].startswith("not held by the format: routes (found again from lanes), ")
    assert len(said) == 3
    assert only(out).license == "womd-nc"


def test_command_generates_and_names_what_was_skipped(tmp_path, capsys) -> None:
    assert main(["export", "count=2", "seed=4", f"out={tmp_path / 'a'}", "workers=1"]) == 0
    assert "synthetic-cc0 (2)" in capsys.readouterr().out
    (folder := tmp_path / "in").mkdir()
    write_tfrecord(folder / "a.tfrecord", proto_scenario())
    (folder / "b.bin").write_text("odd")
    assert main(["export", f"scenarios={folder}", f"out={tmp_path / 'b'}", "workers=1"]) == 0
    said = capsys.readouterr().out
    assert f"{folder}: 1 skipped:" in said
    assert "b.bin: of no known format" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["format=xml", "out=x"], "format: expected one of gpudrive, scenarionet, got xml"),
        ([], "out: expected a folder to write to, e.g. out=exported"),
        (["out=x", "count=0"], "count: expected at least 1 scenario, got 0"),
        (["out=.", "count=1"], "out=.: expected a new or empty folder"),
        (["out=x", "scenarios=nowhere"], "nowhere: no such file or folder"),
        (["out=x", "licence=free"], "licence: no such option; alpagym export --options lists all"),
    ],
)
def test_command_refuses(tmp_path, monkeypatch, capsys, arguments, words) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").touch()
    assert main(["export", *arguments]) == 2
    assert capsys.readouterr().err == f"alpagym: {words}\n"
    assert not (tmp_path / "x").exists()
