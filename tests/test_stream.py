"""Streaming: the same scenarios as when all are resident, in an order that the seed decides."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from alpagym import sim
from alpagym.checkpoint import load_policy
from alpagym.cli import main
from alpagym.config import SimConfig
from alpagym.scenarios.batch import batch
from alpagym.scenarios.difficulty import difficulty
from alpagym.scenarios.egos import drives_of
from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.procedural import generate_many
from alpagym.scenarios.scenario import Scenario, ScenarioError
from alpagym.store.library import Library, prepare, shards_of
from alpagym.store.shard import write_shard
from alpagym.stream.banks import Stream
from alpagym.stream.curriculum import FLOOR, Curriculum
from scenario_factory import crossing, random_scenario, straight

COUNT = 24


def made() -> list[Scenario]:
    """Scenarios of different sizes, each its own recording."""
    return [
        replace(
            random_scenario(seed, num_agents=3 + seed % 4, frames=20 + seed % 3),
            id=f"scene-{seed:02d}",
            license=("womd-nc", "synthetic-cc0")[seed % 2],
        )
        for seed in range(COUNT)
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    scenarios = made()
    for first in range(0, COUNT, 10):
        write_shard(folder / f"shard-{first:05d}.safetensors", scenarios[first : first + 10])
    prepare(shards_of(folder), near=SimConfig())
    return folder


def opened(store: Path, near: SimConfig | None = None) -> Library:
    return Library(shards_of(store), near=near)


def stream_of(library: Library, **options) -> Stream:
    """A stream of all drives of a library."""
    kind, seed = options.pop("weights", "uniform"), options.pop("seed", 0)
    curriculum = Curriculum(library.key, library.difficulty, weights=kind, seed=seed)
    options = {"scenarios": 8, "per_rollout": 4, "max_bytes": 64 << 20, "lanes": False} | options
    return Stream(library, np.arange(len(library)), curriculum, **options)


def names_of(stream: Stream, rollouts: int) -> list[list[str]]:
    """Ids that rollouts drive, with nothing failing."""
    drawn = []
    for _ in range(rollouts):
        index = stream.draw()
        drawn.append([stream.names[i] for i in index])
        stream.report(index, torch.zeros(len(index)), torch.zeros(len(index), dtype=torch.bool))
    return drawn


def test_banks_hold_what_batch_makes_of_the_same_scenarios(store, device) -> None:
    hosts = {s.id: s for s in made()}
    near = SimConfig() if device.type == "cpu" else None
    with stream_of(opened(store, near), lanes=True, device=device) as stream:
        for _ in range(4):
            wanted = batch([hosts[name] for name in stream.names], lanes=True)
            wanted = sim.with_near(wanted, SimConfig()) if near else wanted
            for name, tensor in stream.scenarios.tensors().items():
                assert tensor.cpu().equal(wanted.tensors()[name]), name
            stream.advance()


def test_every_scenario_comes_once_before_any_comes_again(store) -> None:
    with stream_of(opened(store)) as stream:
        drawn = names_of(stream, 12)
    first, second = ([name for some in half for name in some] for half in (drawn[:6], drawn[6:]))
    assert sorted(first) == sorted(second) == sorted(s.id for s in made())
    assert first != second


def test_the_sequence_follows_from_the_seed_and_not_from_speed(store, monkeypatch) -> None:
    library = opened(store)
    runs = []
    for seed, delay in ((1, 0.0), (1, 0.05), (2, 0.0)):
        fill = Library.fill

        def slow(self, *args, delay=delay, fill=fill, **options):
            time.sleep(delay)
            return fill(self, *args, **options)

        monkeypatch.setattr(Library, "fill", slow)
        with stream_of(library, seed=seed, weights="failure") as stream:
            runs.append(names_of(stream, 10))
        monkeypatch.undo()
    assert runs[0] == runs[1] != runs[2]


def test_a_stream_goes_on_from_its_state(store) -> None:
    library = opened(store)
    with stream_of(library, weights="failure") as stream:
        names_of(stream, 3)
        state = stream.state_dict()
        wanted = names_of(stream, 8)
    with stream_of(library, weights="failure") as stream:
        names_of(stream, 1)
        stream.load_state_dict(state)
        assert names_of(stream, 8) == wanted
    with (
        stream_of(library, seed=9) as stream,
        pytest.raises(ScenarioError, match=r"^curriculum: expected the state of the same"),
    ):
        stream.load_state_dict(state)


def test_memory_is_bounded_and_taken_once(store) -> None:
    library = opened(store)
    cap = 2 * library.capacity(5, np.arange(COUNT))
    with stream_of(library, scenarios=COUNT, max_bytes=cap) as stream:
        places = set()
        for _ in range(7):
            assert 4 <= len(stream.names) < COUNT
            assert len(stream.names) % 4 == 0
            places.add(stream.scenarios.log.untyped_storage().data_ptr())
            stream.advance()
        assert len(places) == 2
        assert stream.memory_bytes <= cap
    with pytest.raises(ScenarioError, match=r"^stream.max_mib: expected room for two banks"):
        stream_of(library, max_bytes=10_000)


def test_a_bank_smaller_than_a_rollout_is_driven_repeatedly(store) -> None:
    with stream_of(opened(store), scenarios=3, per_rollout=8) as stream:
        assert stream.draw().tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
        before = stream.names
        stream.draw()
        assert stream.names != before


def test_the_next_bank_is_filled_while_one_is_in_use(store, monkeypatch) -> None:
    library = opened(store)
    fill, release, filling = Library.fill, threading.Event(), threading.Event()
    with stream_of(library) as stream:
        stream.wait()

        def held(self, *args, **options):
            filling.set()
            assert release.wait(30)
            return fill(self, *args, **options)

        monkeypatch.setattr(Library, "fill", held)
        stream.advance()  # its bank is there; the one after it is held back
        assert filling.wait(30)
        stream.draw()
        stream.draw()
        release.set()
        stream.draw()
        assert stream.num_banks == 3


def test_weights_decide_how_often(store) -> None:
    library = opened(store)
    keys, hard = library.key, np.linspace(0.0, 1.0, COUNT)

    def often(curriculum: Curriculum, failing: np.ndarray) -> np.ndarray:
        counts = np.zeros(COUNT)
        for _ in range(400):
            drawn = curriculum.due(6)
            curriculum.take(drawn)
            counts[drawn] += 1
            curriculum.report(drawn, failing[drawn], np.zeros(len(drawn), bool))
        return counts / counts.sum()

    none = np.zeros(COUNT)
    by_difficulty = often(Curriculum(keys, hard, weights="difficulty", seed=0), none)
    wanted = FLOOR + (1 - FLOOR) * hard
    np.testing.assert_allclose(by_difficulty, wanted / wanted.sum(), rtol=0.1, atol=2e-3)
    failing = (np.arange(COUNT) < 4).astype(float)
    by_failure = often(Curriculum(keys, hard, weights="failure", seed=0), failing)
    assert by_failure[:4].min() > 5 * by_failure[4:].max()
    uniform = often(Curriculum(keys, hard, weights="uniform", seed=0), failing)
    assert uniform.max() - uniform.min() <= 1.01 / 2400


def test_scenarios_of_dead_groups_come_less_often(store) -> None:
    library = opened(store)
    curriculum = Curriculum(library.key, library.difficulty, weights="uniform", seed=0)
    everyone, dead = np.arange(COUNT), np.arange(COUNT) < 6
    for _ in range(8):
        curriculum.report(everyone, np.ones(COUNT), dead)
    assert np.allclose(curriculum.weight, np.where(dead, 1 / 16, 1.0))
    curriculum.report(everyone, np.ones(COUNT), np.zeros(COUNT, bool))
    assert np.allclose(curriculum.weight, 1.0)


def test_difficulty_tells_turns_and_company_from_an_empty_road() -> None:
    alone = straight(name="alone")
    assert difficulty(alone) == pytest.approx(0.0, abs=0.01)
    assert 0.0 < difficulty(crossing(name="crossing")) <= 1.0
    assert all(0.0 <= difficulty(s) <= 1.0 for s in made())


def test_drives_of_other_vehicles_are_streamed_too(shared_data, tmp_path) -> None:
    files = sorted((shared_data / "womd_gpudrive_json" / "current").glob("*.json"))[:3]
    hosts = [load_scenarios(file)[0][0] for file in files]
    write_shard(tmp_path / "a.safetensors", hosts)
    prepare(shards_of(tmp_path))
    library = Library(shards_of(tmp_path), drives=4)
    drives = [d for s in hosts for d in drives_of(s, 4)]
    assert library.ids == [d.id for d in drives]
    assert len(drives) > len(hosts)
    assert library.recordings == [d.recording for d in drives]
    chosen = np.arange(len(drives))[::-1].copy()
    bank = library.fill(chosen, lanes=False)
    wanted = batch([drives[i] for i in chosen])
    for name, tensor in bank.tensors(bank.memory).tensors().items():
        assert tensor.equal(wanted.tensors()[name]), name
    assert [s.id for s in library.scenarios(chosen.tolist())] == [drives[i].id for i in chosen]


TRAIN = [
    "stream.scenarios=4", "data.procedural=0", "data.egos_per_scenario=1", "data.min_steps=5",
    "imitation.max_epochs=2", "stream.imitation=6", "threads=1", "device=cpu", "data.workers=1",
    "grpo.iterations=4", "grpo.group_size=3", "grpo.scenarios_per_iteration=2",
    "policy.width=8", "policy.hidden=16", "num_replays=1", "data.validation=2",
]  # fmt: skip


def test_training_streams_a_store(store, tmp_path, capsys) -> None:
    for name in ("a", "b"):
        arguments = [f"scenarios={store}", f"runs={tmp_path}", f"name={name}", *TRAIN]
        assert main(["train", *arguments, "stream.weights=failure"]) == 0, capsys.readouterr().err
    assert "streamed in banks of 4" in capsys.readouterr().err
    run = tmp_path / "a"
    split = json.loads((run / "split.json").read_text())
    sides = [set(split[side]) for side in ("train", "held_out", "validation")]
    assert len(set.union(*sides)) == sum(map(len, sides)) == COUNT
    *_, licenses = load_policy(run)
    assert licenses == ["synthetic-cc0", "womd-nc"]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    banks = [row["stream_banks"] for row in rows if row["phase"] == "grpo"]
    assert banks == [2, 2, 3, 3]
    first, second = (load_policy(tmp_path / name)[0].state_dict() for name in ("a", "b"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_streams_generated_scenarios(tmp_path, capsys) -> None:
    arguments = ["data.train=5", "data.held_out=2", "seed=3", f"runs={tmp_path}", "name=a"]
    assert main(["train", *TRAIN, *arguments]) == 0, capsys.readouterr().err
    assert "5 scenarios to train on, 2 held out, 2 to compare" in capsys.readouterr().err
    # What is trained on, held out and compared on: for the next run, and cleared away by another.
    assert len(list((tmp_path / ".generated").glob("*/*.safetensors"))) == 3


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stream.weights=luck", "stream.weights: expected one of uniform, failure, difficulty"),
        ("stream.max_mib=0", "stream.max_mib: expected a whole number from 1"),
        ("data.egos_per_scenario=33", "data.egos_per_scenario: expected at most 32 to stream"),
        ("data.select=nobody", "data.select: nobody: no such scenario here"),
        ("data.hold_out=scene-001", "no such scenario here; did you mean scene-01?"),
    ],
)
def test_options_that_cannot_be_are_refused(override, words, store, tmp_path, capsys) -> None:
    given = [f"scenarios={store}", f"runs={tmp_path}", *TRAIN, override]
    assert main(["train", *given]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert words in told
    assert not list(tmp_path.iterdir())


def test_recordings_are_sent_to_convert_first(shared_data, tmp_path, capsys) -> None:
    folder = shared_data / "womd_gpudrive_json" / "current"
    assert main(["train", f"scenarios={folder}", f"runs={tmp_path}", *TRAIN]) == 2
    assert "streaming needs shards alone" in capsys.readouterr().err


def test_a_store_of_generated_scenarios_is_what_a_run_generates(tmp_path, capsys) -> None:
    given = ["convert", "procedural", f"out={tmp_path}", "count=5", "seed=3", "shard_scenarios=2"]
    assert main([*given, "workers=1", "pack=false"]) == 0, capsys.readouterr().err
    found = [s.id for s in load_scenarios(tmp_path)[0]]
    assert found == [s.id for s in generate_many(5, 3)]
    files = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.safetensors")}
    last = max(files)
    last.write_bytes(last.read_bytes()[:-1])
    assert main([*given, "workers=1"]) == 0
    assert [file for file, at in files.items() if file.stat().st_mtime_ns != at] == [last]
    assert Library(shards_of(tmp_path)).ids == found
    assert main([*given[:3], "count=5", "seed=4", "workers=1"]) == 2
    assert "expected an empty folder or these scenarios" in capsys.readouterr().err
