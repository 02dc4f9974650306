"""`alpagym convert` and `alpagym doctor data`: whole, resumable, the same whatever the workers."""

from __future__ import annotations

import fcntl
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from alpagym.checkpoint import load_policy
from alpagym.cli import main
from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.scenario import AgentFlag, AgentType, LightState, MapType
from alpagym.store import container
from alpagym.store.health import CHECKS, diagnosis, health
from alpagym.store.shard import Shard, sha256_of, write_shard
from converting import FEW, bytes_of, convert, drives
from reading import same
from scenario_factory import STRAIGHT, Actor, assemble, line, straight
from scenario_files import json_object, json_scenario, write_json

__all__ = ["drives"]


def refuse(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one sentence with which `alpagym <arguments>` fails."""
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (last,) = [x for x in captured.err.splitlines() if x.startswith("alpagym: ")]
    return last.removeprefix("alpagym: ")


# Convert


def test_what_loads_from_the_store_is_what_loads_from_the_files(drives, tmp_path, capsys) -> None:
    report = convert(drives, tmp_path / "out")
    before, skipped = load_scenarios(drives)
    after, none = load_scenarios(tmp_path / "out", workers=2)
    assert not none
    assert len(before) == report["num_scenarios"] == 7
    for a, b in zip(before, after, strict=True):
        assert a.source == str(drives / b.source)
        b.source = a.source
        same(a, b)
    assert report["licenses"] == {"womd-nc": 7}
    assert [s["path"] for s in report["skipped"]] == ["LICENSE.txt", "README.txt", "cut.json"]
    for told, reason in zip(report["skipped"], skipped, strict=True):
        assert told["reason"] == reason.reason.replace(f"{drives}/", "")
    printed = " ".join(capsys.readouterr().err.split())
    assert "7 scenarios of 9 files" in printed
    assert "2 skipped: LICENSE.txt: of no known format" in printed
    assert "1 skipped: cut.json: not valid JSON" in printed
    assert "womd-nc (7)" in printed


def test_shards_say_what_they_were_made_of(drives, tmp_path) -> None:
    report = convert(drives, tmp_path / "out")
    made = [Shard(tmp_path / "out" / shard["name"]) for shard in report["shards"]]
    assert [len(shard) for shard in made] == [s["scenarios"] for s in report["shards"]]
    assert max(map(len, made)) == 2
    for shard in made:
        for i, scenario in enumerate(shard):
            file = shard.files[shard.told(i)["file"]]
            assert scenario.source.startswith(file.name)
            assert sha256_of(drives / file.name) == file.sha256
    for told in report["shards"]:
        assert sha256_of(tmp_path / "out" / told["name"]) == told["sha256"]
        assert (tmp_path / "out" / told["name"]).stat().st_size == told["bytes"]


def test_two_workers_write_what_one_does(drives, tmp_path) -> None:
    convert(drives, tmp_path / "one")
    convert(drives, tmp_path / "two", workers=2)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_the_place_of_the_recordings_does_not_matter(drives, tmp_path) -> None:
    convert(drives, tmp_path / "one")
    drives.rename(tmp_path / "moved")
    convert(tmp_path / "moved", tmp_path / "two")
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_a_store_can_be_converted_again(drives, tmp_path) -> None:
    convert(drives, tmp_path / "one")
    report = convert(tmp_path / "one", tmp_path / "two", "max_agents=2")
    assert report["num_scenarios"] == 7
    pairs = zip(*(load_scenarios(tmp_path / n)[0] for n in ("one", "two")), strict=True)
    for a, b in pairs:
        same(a, b)


def test_mistakes_get_one_sentence(drives, tmp_path, capsys, monkeypatch) -> None:
    out = f"out={tmp_path / 'out'}"
    assert "expected scenarios=PATH" in refuse(capsys, "convert", out)
    assert "expected out=PATH" in refuse(capsys, "convert", str(drives))
    assert "no such file or folder" in refuse(capsys, "convert", "/no/such", out)
    (tmp_path / "empty").mkdir()
    assert "holds no files" in refuse(capsys, "convert", str(tmp_path / "empty"), out)
    file = drives / "README.txt"
    assert "found a file" in refuse(capsys, "convert", str(drives), f"out={file}")
    inside = refuse(capsys, "convert", str(drives), f"out={drives / 'x'}")
    assert "expected a folder apart from scenarios=" in inside
    full = refuse(capsys, "convert", str(file), f"out={drives / 'deep'}")
    assert "expected an empty folder or one of an earlier convert, it holds 0.json" in full
    nothing = refuse(capsys, "convert", str(file), f"out={tmp_path / 'nothing'}")
    assert "none of 1 files could be converted, the first: README.txt: of no known" in nothing
    for number in (0, 4097):
        sentence = refuse(capsys, "convert", str(drives), out, f"shard_scenarios={number}")
        wanted = f"shard_scenarios: expected a whole number from 1 to 4096, got {number}"
        assert sentence == wanted
    assert "worker: no such option; did you mean workers?" in refuse(capsys, "convert", "worker=2")
    convert(drives, tmp_path / "out")
    other = refuse(capsys, "convert", str(drives), out, "max_agents=1", *FEW)
    assert "was converted with max_agents=0, not 1: choose another folder" in other
    for number, words in ((28, "No space left on device"), (13, "Permission denied")):

        def fail(*_: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number), "shard")

        monkeypatch.setattr(container.os, "fsync", fail)
        fresh = f"out={tmp_path / str(number)}"
        sentence = refuse(capsys, "convert", str(drives), fresh, *FEW)
        assert sentence == f"shard: cannot be written ({words})"
        assert not list((tmp_path / str(number)).glob("*"))[1:]


def test_two_at_once_are_one_too_many(drives, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    convert(drives, out)
    with (out / ".convert" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another convert is writing" in refuse(
            capsys, "convert", str(drives), f"out={out}", *FEW
        )


def test_license_tags_go_from_a_store_into_checkpoints_and_evaluations(
    drives, tmp_path, capsys
) -> None:
    report = convert(drives, tmp_path / "out")
    given = [f"scenarios={tmp_path / 'out'}", "data.workers=1", "device=cpu", "threads=1"]
    tiny = ["imitation.max_epochs=1", "grpo.iterations=1", "grpo.group_size=2", "num_replays=0"]
    tiny += ["eval_every=0"]
    tiny += ["grpo.scenarios_per_iteration=2", "data.procedural=0", f"runs={tmp_path / 'runs'}"]
    assert main(["train", *given, *tiny, "name=x"]) == 0
    assert load_policy(tmp_path / "runs" / "x")[2] == ["womd-nc"]
    capsys.readouterr()
    assert main(["eval", f"checkpoint={tmp_path / 'runs' / 'x'}", *given]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["licenses"] == report["licenses"]
    assert "trained on: womd-nc" in captured.err
    assert "driving: womd-nc (7)" in captured.err


# Health


def found(scenario) -> dict[str, int]:
    return {name: count for name, count in health(scenario).items() if count}


CLEAN = {"no_heights": 1, "lone_lanes": 1}
"""What holds of `straight()`: one lane and no heights."""


def test_a_clean_scenario() -> None:
    assert health(straight()).keys() == CHECKS.keys()
    assert found(straight()) == CLEAN


def test_each_check_finds_what_it_is_for() -> None:
    gap = straight(Actor(STRAIGHT, 60.0, 8.0, absent=(10, 14)))
    gap.flags[1] |= AgentFlag.HAS_GAPS
    assert found(gap) == CLEAN | {"gaps": 1}

    start = straight(Actor(STRAIGHT, 22.0, 10.0))
    start.flags[:] |= AgentFlag.STARTS_IN_COLLISION | AgentFlag.OVERLAPS_IN_LOG
    wanted = {"ego_overlaps_at_start": 1, "overlaps_at_start": 2, "overlaps": 2}
    assert found(start) == CLEAN | wanted

    off = straight()
    off.flags[0] |= AgentFlag.STARTS_OFFROAD | AgentFlag.OFFROAD_IN_LOG
    assert found(off) == CLEAN | {"ego_offroad_at_start": 1, "ego_offroad": 1, "offroad": 1}

    missing = straight(ego=Actor(STRAIGHT, 20.0, 10.0, absent=(30, 33)))
    assert found(missing) == CLEAN | {"ego_missing": 3}

    fast = straight(Actor(STRAIGHT, 60.0, 71.0), frames=20)
    assert found(fast) == CLEAN | {"speeds": 1, "position_jumps": 1}

    jump = straight(Actor(STRAIGHT, 60.0, 8.0))
    jump.tracks.xyz[1, 20:, 0] += 7.0
    assert found(jump) == CLEAN | {"position_jumps": 1}

    hard = straight(Actor(STRAIGHT, 60.0, 8.0))
    hard.tracks.velocity[1, 20, 0] += 1.6
    assert found(hard) == CLEAN | {"accelerations": 1}
    hard.tracks.type[1] = AgentType.PEDESTRIAN
    assert found(hard) == CLEAN

    turned = straight(Actor(STRAIGHT, 60.0, 8.0), Actor(STRAIGHT, 90.0, 8.0))
    turned.tracks.yaw[1, 20:] = 1.6
    turned.tracks.yaw[2] = 2 * np.pi
    assert found(turned) == CLEAN | {"heading_jumps": 1, "unwrapped_headings": 1}

    dark = straight(lights=[((30.0, 0.0), LightState.UNKNOWN), ((30.0, 3.0), LightState.RED)])
    assert found(dark) == CLEAN | {"dark_lights": 1, "unplaced_lights": 2}
    assert diagnosis([dark])["scenarios"][0]["light_coverage"] == 0.5


def test_links_that_the_graph_lacks() -> None:
    parts = [(MapType.LANE, line((x, 0.0), (x + 50.0, 0.0))) for x in (0.0, 50.2, 100.4)]
    parts += [(MapType.LANE, line((50.0, 0.0), (50.0, 50.0)))]  # crosses: no link
    scenario = assemble("a", parts, [Actor(STRAIGHT, 30.0, 8.0)])
    counts = found(scenario)
    assert counts == {"no_road_edges": 1, "no_heights": 1, "lone_lanes": 4, "missing_links": 2}
    scenario.map.successors = np.array([1], np.int32)
    scenario.map.successor_offsets[1:] = 1
    assert found(scenario) == counts | {"lone_lanes": 2, "missing_links": 1}
    empty = assemble("b", [(MapType.ROAD_LINE, STRAIGHT)], [Actor(STRAIGHT, 30.0, 8.0)])
    assert found(empty) == {"no_road_edges": 1, "no_heights": 1, "no_lanes": 1}


def test_doctor_prints_a_table_and_json(drives, tmp_path, capsys) -> None:
    path = tmp_path / "doctor.json"
    assert main(["doctor", "data", str(drives), f"output={path}", "workers=1"]) == 1
    table = capsys.readouterr().err
    assert "health of 7 scenarios" in table
    assert "2 skipped: " in table
    stored = json.loads(path.read_text())
    assert stored["checks"].keys() == CHECKS.keys()
    assert len(stored["scenarios"]) == 7
    assert len(stored["skipped"]) == 3
    assert [Path(told["path"]).name for told in stored["unreadable"]] == ["cut.json"]
    assert stored["repairs"]["dropped # lane links that lead out of the map"] == 2
    report = convert(drives, tmp_path / "out", "--check")
    assert report["health"]["checks"] == stored["checks"]
    assert main(["doctor", "data", f"scenarios={tmp_path / 'out'}", "workers=1"]) == 0
    assert json.loads(capsys.readouterr().out)["checks"] == stored["checks"]


def test_doctor_refuses_mistakes(tmp_path, capsys) -> None:
    known = "doctor: expected data, as in doctor data scenarios=PATH"
    assert f"{known}, got nothing" in refuse(capsys, "doctor")
    assert f"{known}, got gpu" in refuse(capsys, "doctor", "gpu")
    assert "expected scenarios=PATH" in refuse(capsys, "doctor", "data")
    assert "no such file" in refuse(capsys, "doctor", "data", "/no/such")
    write_shard(tmp_path / "a.safetensors", [straight()])
    lost = refuse(capsys, "doctor", "data", str(tmp_path), f"output={tmp_path / 'x' / 'y'}")
    assert "no such folder" in lost


def test_a_shard_that_cannot_be_opened_is_counted(drives, tmp_path, capsys, monkeypatch) -> None:
    out = tmp_path / "out"
    convert(drives, out)
    opened = []
    real = container.torch.from_file

    def scarce(name: str, **options: object) -> object:
        opened.append(name)
        if len(opened) == 2:
            raise RuntimeError(f"unable to mmap 9 bytes from file <{name}>: Cannot allocate memory")
        return real(name, **options)

    monkeypatch.setattr(container.torch, "from_file", scarce)
    given = [str(drives), f"out={out}", "--check", "pack=false", *FEW]
    assert main(["convert", *given]) == 1
    printed = capsys.readouterr().err
    assert "of the store, 1 skipped: " in printed
    assert "cannot be mapped into memory" in printed
    (told,) = json.loads((out / "convert.json").read_text())["health"]["unreadable"]
    assert told["path"] == opened[1]
    opened.clear()
    assert main(["doctor", "data", str(out), f"output={tmp_path / 'x.json'}"]) == 1
    assert "1 skipped: " in capsys.readouterr().err
    assert main(["convert", *given]) == 0
    assert main(["doctor", "data", str(out), f"output={tmp_path / 'x.json'}"]) == 0


@pytest.mark.parametrize("command", [["convert"], ["doctor", "data"]])
def test_options_are_listed(command, capsys) -> None:
    assert main([*command, "--help"]) == 0
    text = capsys.readouterr().out
    for option in ("scenarios=", "workers=0"):
        assert re.search(rf"^{option} +# \w", text, re.MULTILINE), option


def test_agents_of_more_than_allowed_are_skipped(tmp_path, capsys) -> None:
    crowd = json_scenario(objects=[json_object(20.0 * i, 8.0) for i in range(6)])
    folder = tmp_path / "in"
    folder.mkdir()
    write_json(folder / "a.json", crowd)
    write_json(folder / "b.json", json_scenario())
    report = convert(folder, tmp_path / "out", "max_agents=5")
    assert [s["path"] for s in report["skipped"]] == ["a.json"]
    assert "more than max_agents=5" in capsys.readouterr().err
