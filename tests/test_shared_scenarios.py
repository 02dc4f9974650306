"""Generated scenarios on disk that runs share, whatever becomes of a run."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from alpagym.scenarios.procedural import generate_each, generate_many
from alpagym.scenarios.scenario import Scenario, ScenarioError
from alpagym.store import generate
from alpagym.store.shard import Shard
from alpagym.store.shared import FOLDER, clear_unused, shared_generated

KINDS = ("straight", "curve")


def ids(shards: list[Path]) -> list[str]:
    return [scenario.id for shard in shards for scenario in Shard(shard)]


def folders(runs: Path) -> list[Path]:
    return sorted((runs / FOLDER).iterdir())


def test_each_is_made_when_its_turn_comes() -> None:
    endless = generate_each(range(10**6), 3, KINDS)
    found = [s.id for s in itertools.islice(endless, 5)]
    endless.close()
    assert found == [s.id for s in generate_many(5, 3, KINDS)]
    assert [s.id for s in generate_each([4, 1], 3, KINDS)] == [found[4], found[1]]


def test_a_shard_is_written_before_the_next_is_made(tmp_path: Path, monkeypatch) -> None:
    events: list[str] = []

    def made(*arguments, **options):
        for scenario in generate_each(*arguments, **options):
            events.append("made")
            yield scenario

    def write(path: Path, scenarios: list[Scenario], **options) -> None:
        events.append("written")
        write_shard(path, scenarios, **options)

    write_shard = generate.write_shard
    monkeypatch.setattr(generate, "generate_each", made)
    monkeypatch.setattr(generate, "write_shard", write)
    shards = generate.write_generated(tmp_path, 5, 0, kinds=KINDS, shard_scenarios=2)
    assert events == ["made", "made", "written"] * 2 + ["made", "written"]
    assert ids(shards) == [s.id for s in generate_many(5, 0, KINDS)]


def test_the_next_run_that_wants_the_same_finds_it_and_what_nobody_uses_is_cleared_away(
    tmp_path: Path,
) -> None:
    with shared_generated(tmp_path, 3, 0, kinds=KINDS) as shards:
        before = [shard.stat().st_mtime_ns for shard in shards]
        assert ids(shards) == [s.id for s in generate_many(3, 0, KINDS)]
    with shared_generated(tmp_path, 3, 0, kinds=KINDS) as again:
        assert again == shards
        assert [shard.stat().st_mtime_ns for shard in again] == before
        with shared_generated(tmp_path, 3, 1, kinds=KINDS) as others:
            assert ids(others) != ids(again)
            clear_unused(tmp_path)
            assert len(folders(tmp_path)) == 2
        clear_unused(tmp_path)
        assert folders(tmp_path) == [shards[0].parent]
        assert ids(again)
    clear_unused(tmp_path)
    assert folders(tmp_path) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from alpagym.store import generate
from alpagym.store.shared import shared_generated
write, count = generate.write_shard, 0
def killing(path, *arguments, **options):
    global count
    count += 1
    if count == 3:
        path.with_name(f".{path.name}.1.part").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, *arguments, **options)
generate.write_shard = killing
of = generate.write_generated
import alpagym.store.shared as shared
shared.write_generated = lambda *a, **o: of(*a, **o, shard_scenarios=2)
with shared_generated(Path(sys.argv[1]), 6, 0, kinds=("straight", "curve")): pass
"""


def test_what_a_killed_run_left_behind_is_gone_on_with_or_cleared_away(
    tmp_path: Path, monkeypatch
) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    killed = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (folder,) = folders(tmp_path)
    first = sorted(folder.glob("*.safetensors"))
    assert len(first) == 2
    assert list(folder.glob(".*.part"))
    before = [file.stat().st_mtime_ns for file in first]
    write = generate.write_generated
    monkeypatch.setattr(
        "alpagym.store.shared.write_generated",
        lambda *arguments, **options: write(*arguments, **options, shard_scenarios=2),
    )
    with shared_generated(tmp_path, 6, 0, kinds=KINDS) as shards:
        assert shards[:2] == first
        assert [file.stat().st_mtime_ns for file in first] == before
        assert ids(shards) == [s.id for s in generate_many(6, 0, KINDS)]
        assert not list(folder.glob(".*.part"))
    clear_unused(tmp_path)
    assert folders(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    with (
        pytest.raises(ScenarioError, match="generated scenarios cannot be written there"),
        shared_generated(tmp_path, 1, 0),
    ):
        pass
