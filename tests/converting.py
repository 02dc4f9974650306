"""A folder of recordings, and `alpagym convert` as the tests run it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alpagym.cli import main
from scenario_files import json_scenario, proto_scenario, write_json, write_tfrecord

FEW = ["shard_scenarios=2", "workers=1"]


@pytest.fixture
def drives(tmp_path: Path) -> Path:
    """Seven recordings in two formats, and what cannot be read."""
    folder = tmp_path / "drives"
    (folder / "deep").mkdir(parents=True)
    for i in range(5):
        write_drive(folder / "deep" / f"{i}.json", f"made-{i}")
    second = proto_scenario()
    second.scenario_id = "second"
    write_tfrecord(folder / "two.tfrecord", proto_scenario(), second)
    (folder / "cut.json").write_text(json.dumps(json_scenario())[:500])
    (folder / "README.txt").write_text("hello")
    (folder / "LICENSE.txt").write_text("hello")
    return folder


def write_drive(path: Path, name: str) -> Path:
    """A recording with this id."""
    return write_json(path, json_scenario(name=name, scenario_id=name))


def convert(folder: Path, out: Path, *more: str, workers: int = 1) -> dict:
    """Run the command; the report that it leaves."""
    given = [str(folder), f"out={out}", "shard_scenarios=2", f"workers={workers}", *more]
    assert main(["convert", *given]) == 0
    return json.loads((out / "convert.json").read_text())


def bytes_of(out: Path) -> dict[str, bytes]:
    """Everything that a store holds."""
    return {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()}
