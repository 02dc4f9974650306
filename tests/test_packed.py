"""Packed shards: made of their shard alone, made anew when it changed, refused when damaged."""

from __future__ import annotations

import copy
import gc
import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from alpagym import sim
from alpagym.cli import main
from alpagym.config import SimConfig
from alpagym.scenarios.bank import PARTS, Bank, block_bytes, in_blocks, padded
from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.procedural import generate_many
from alpagym.scenarios.scenario import Scenario, ScenarioError
from alpagym.store import container, kept, packed
from alpagym.store.checks import checksum
from alpagym.store.library import Library, prepare, shards_of
from alpagym.store.shard import write_shard
from scenario_factory import random_scenario, straight
from scenario_files import json_scenario, write_json

NEAR = SimConfig()


@cache
def _made() -> list[Scenario]:
    """Some with lights, and with lanes beside each other."""
    drawn = [random_scenario(seed, num_agents=4 + seed, frames=12) for seed in range(2)]
    return [*drawn, *generate_many(2, 5, kinds=("signal", "merge"))]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "store" / "a.safetensors"
    write_shard(path, copy.deepcopy(_made()))
    prepare([path], near=NEAR)
    return path


def driven(shard: Path) -> Bank:
    """All scenarios of a packed shard in a bank, stepped a few times."""
    library = Library([shard], near=NEAR)
    bank = library.fill(np.arange(len(library)))
    scenarios = bank.tensors(bank.memory)
    params = sim.make_params(NEAR)
    state = sim.make_state(4, int(library.num_agents.max()))
    state.scenario.copy_(sim.torch.arange(4))
    sim.reset(scenarios, state, sim.torch.ones(4, dtype=sim.torch.bool), params)
    outcome, seen = sim.make_outcome(state), sim.make_observation(state, NEAR)
    action = sim.torch.zeros(4, 1, 2)
    weights = sim.torch.zeros(1, len(sim.RewardTerm))
    for _ in range(3):
        sim.observe(scenarios, state, seen, params)
        sim.step(scenarios, state, outcome, action, weights, params)
    return bank


def test_loading_a_store_does_not_see_packed_shards(shard: Path) -> None:
    scenarios, skipped = load_scenarios(shard.parent)
    assert (len(scenarios), skipped) == (4, [])
    assert shards_of(shard.parent) == shards_of(shard) == [shard]


def test_what_is_there_is_not_made_again(shard: Path) -> None:
    files = sorted((shard.parent / packed.FOLDER).iterdir())
    before = [file.stat().st_mtime_ns for file in files]
    told: list[str] = []
    prepare([shard], near=NEAR, progress=lambda what, done, total: told.append(what))
    assert [file.stat().st_mtime_ns for file in files] == before
    assert not told


def test_it_is_made_again_when_the_shard_or_the_lists_wanted_change(shard: Path) -> None:
    write_shard(shard, [straight(name="other")])
    assert packed.open_packed(shard) is None
    assert packed.open_near(shard, NEAR) is None
    prepare([shard], near=NEAR)
    assert Library([shard], near=NEAR).ids == ["other"]
    wider = SimConfig(road_radius=70.0)
    assert packed.open_near(shard, wider) is None
    prepare([shard], near=wider)
    assert packed.open_near(shard, wider) is not None


def test_another_version_is_made_again(shard: Path, monkeypatch) -> None:
    monkeypatch.setattr(packed, "VERSION", packed.VERSION + 1)
    assert packed.open_packed(shard) is None
    prepare([shard])
    assert packed.open_packed(shard) is not None


def test_the_same_shard_gives_the_same_bytes(shard: Path) -> None:
    files = sorted((shard.parent / packed.FOLDER).iterdir())
    before = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    prepare([shard], near=NEAR, workers=2)
    assert [file.read_bytes() for file in files] == before


def test_where_nothing_can_be_written_one_sentence_tells(shard: Path) -> None:
    folder = shard.parent / packed.FOLDER
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    folder.write_text("in the way")
    with pytest.raises(ScenarioError, match="packed scenarios cannot be read or written there"):
        prepare([shard])


def test_convert_packs_and_takes_away_what_is_stale(tmp_path: Path, capsys) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for i in range(3):
        write_json(source / f"{i}.json", json_scenario())
    options = [str(source), f"out={out}", "shard_scenarios=1", "workers=1"]
    assert main(["convert", *options]) == 0, capsys.readouterr().err
    assert len(list((out / packed.FOLDER).iterdir())) == 3
    (source / "2.json").unlink()
    assert main(["convert", *options]) == 0
    assert len(list((out / packed.FOLDER).iterdir())) == 2
    bare = [str(source), f"out={tmp_path / 'bare'}", "workers=1", "pack=false"]
    assert main(["convert", *bare]) == 0
    assert not (tmp_path / "bare" / packed.FOLDER).exists()


# A store that is converted anew while it is in use


def bytes_of(library: Library) -> dict[str, bytes]:
    bank = library.fill(np.arange(len(library)))
    return {name: array.tobytes() for name, array in bank.arrays.items()}


def replaced(shard: Path) -> None:
    write_shard(shard, [straight(name="other")])
    prepare([shard], near=NEAR)


def test_who_has_opened_a_store_goes_on_with_what_it_was(shard: Path) -> None:
    library = Library([shard], near=NEAR)
    before = bytes_of(library)
    replaced(shard)
    assert bytes_of(library) == before
    for file in (shard.parent / packed.FOLDER).iterdir():
        file.unlink()
    assert bytes_of(library) == before


def test_beyond_the_files_that_are_kept_open_another_file_is_not_taken_for_the_same(
    shard: Path, monkeypatch
) -> None:
    monkeypatch.setattr(kept, "most_kept", lambda: 0)
    library = Library([shard], near=NEAR)
    before = bytes_of(library)
    assert bytes_of(library) == before
    replaced(shard)
    with pytest.raises(ScenarioError, match=r"was replaced while it was in use.*ulimit -n"):
        bytes_of(library)


def test_few_files_are_kept_open_and_given_back(tmp_path: Path, monkeypatch) -> None:
    def num_open() -> int:
        return len(os.listdir("/proc/self/fd"))

    for i in range(12):
        write_shard(tmp_path / f"{i:02d}.safetensors", [straight(name=f"s{i}")])
    shards = shards_of(tmp_path)
    prepare(shards)
    gc.collect()
    before = num_open()
    monkeypatch.setattr(kept, "most_kept", lambda: 5)
    library = Library(shards)
    assert 0 < num_open() - before <= 5
    assert len(bytes_of(library))
    assert num_open() - before <= 5
    del library
    gc.collect()
    assert num_open() == before


# Damaged and hostile files


def refused(shard: Path, *words: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        driven(shard)
    sentence = str(caught.value)
    assert sentence.startswith(str(shard.parent / packed.FOLDER)), sentence
    assert "\n" not in sentence
    for word in words:
        assert word in sentence, sentence


def resealed(file: Path, change: Callable[[dict, dict], object]) -> None:
    """Change a packed file, and its sums, as someone would who knows about them."""
    found = container.read(file)
    header, arrays = json.loads(found.text), {n: a.copy() for n, a in found.arrays.items()}
    change(header, arrays)
    if arrays[packed.BLOCKS].dtype == np.uint8 and arrays["sizes"].min() >= 0:
        near = "near_limits" in arrays
        length = block_bytes(arrays["sizes"].astype(np.int64), near=near)
        if int(length.sum()) == len(arrays[packed.BLOCKS]):
            blocks = np.split(arrays[packed.BLOCKS], np.cumsum(length)[:-1])
            arrays["sums"] = np.array([np.add.reduce(b.view("<i8")) for b in blocks])
    kept = {name: array for name, array in arrays.items() if name != packed.BLOCKS}
    header["sums"] = {name: checksum(array) for name, array in kept.items()}
    container.write(file, json.dumps(header), arrays)


def in_part(name: str, value: object) -> Callable[[dict, dict], None]:
    """Put a value into an array of the first scenario that has any of it."""
    index = [part.name for part in PARTS].index(name)
    part = PARTS[index]

    def change(header: dict, arrays: dict) -> None:
        sizes = arrays["sizes"].astype(np.int64)
        length = in_blocks(sizes)
        own = [i for i, p in enumerate(PARTS) if p.near == part.near]
        begins = np.cumsum(block_bytes(sizes, near=part.near))
        for s in range(len(sizes)):
            if length[s, index]:
                before = padded(length[s])[[i for i in own if i < index]].sum()
                begin = (begins[s - 1] if s else 0) + before
                raw = arrays[packed.BLOCKS][begin : begin + length[s, index]]
                rows = raw.view(part.dtype).reshape(-1, max(part.columns, 1))
                rows[0, -1] = value
                return
        raise AssertionError(f"no scenario has {name}")

    return change


PARTS_THAT_LIE = {
    "ego_order": 100,
    "id_rank": -1,
    "route_count": 2**31 - 1,
    "stop_count": -1,
    "lane_route_count": 7,
    "next_route": 1000,
    "lane_next_route": -2,
    "beside": np.nan,
    "lane_beside": 1000.0,
    "stop_light": 50,
    "road_count": -5,
    "edge_count": 2**30,
    "near_cell": 10**6,
    "near_road_count": -1,
    "near_road": 65535,
    "near_lane": 65535,
    "near_edge": 65535,
}


@pytest.mark.parametrize("name", PARTS_THAT_LIE)
def test_indices_that_lie(name: str, shard: Path) -> None:
    part = next(part for part in PARTS if part.name == name)
    file = packed.near_path(shard, NEAR) if part.near else packed.packed_path(shard)
    resealed(file, in_part(name, PARTS_THAT_LIE[name]))
    refused(shard, f"{part.field}: points beyond what the scenario has")


def setter(name: str, at: object, value: object) -> Callable[[dict, dict], None]:
    def change(header: dict, arrays: dict) -> None:
        arrays[name][at] = value

    return change


FACTS_THAT_LIE = {
    "a negative size": (setter("sizes", (0, 0), -1), "sizes: wrong for entry 0"),
    "a huge size": (setter("sizes", (1, 3), 2**30), "sizes: wrong for entry 1"),
    "another size": (setter("sizes", (1, 3), 1), ""),
    "more frames": (setter("num_frames", 0, 13), "num_frames: wrong for entry 0"),
    "a start beyond": (setter("start_frame", 1, 12), "start_frame: wrong for entry 1"),
    "more frames of lights": (setter("light_frames", 2, 0), "light_frames: wrong for entry 2"),
    "another grid": (setter("grid", (0, 3), 1e9), "grid: wrong for entry 0"),
    "a grid of no size": (setter("grid", (0, 2), np.nan), "grid: wrong for entry 0"),
    "more rows": (setter("grid_rows", 0, 500), "grid_rows: wrong for entry 0"),
    "an ego beyond": (setter("drive_ego", 0, 50), "drive_ego: wrong for entry 0"),
    "too many egos": (setter("drive_num_egos", 0, 50), "drive_num_egos: wrong for entry 0"),
    "no drive": (setter("drives", 0, 0), "expected int64"),
    "a difficulty": (setter("difficulty", 0, np.nan), "difficulty: wrong for entry 0"),
    "a text": (lambda h, a: h["scenarios"][0].update(license=3), "header: scenarios"),
    "texts": (lambda h, a: h["scenarios"].pop(), "header: scenarios"),
    "no texts": (lambda h, a: h.pop("scenarios"), "header: scenarios"),
    "a missing array": (lambda h, a: a.pop("drives"), "drives: expected"),
    "another type": (lambda h, a: a.update(dt=a["dt"].astype("<f4")), "dt: expected float64"),
    "fewer bytes": (
        lambda h, a: a.update(blocks=a["blocks"][:-8].copy()),
        "blocks: expected",
    ),
}


@pytest.mark.parametrize("name", FACTS_THAT_LIE)
def test_facts_that_lie(name: str, shard: Path) -> None:
    change, words = FACTS_THAT_LIE[name]
    resealed(packed.packed_path(shard), change)
    refused(shard, words)


@pytest.mark.parametrize("count", [50, pytest.param(2000, marks=pytest.mark.heavy)])
def test_mutations(count: int, shard: Path) -> None:
    rng = np.random.default_rng(3)
    files = [packed.packed_path(shard), packed.near_path(shard, NEAR)]
    whole = [file.read_bytes() for file in files]
    for i in range(count):
        file, data = files[i % 2], bytearray(whole[i % 2])
        place = int(rng.integers(len(data) if i % 3 else 4000))
        if i % 5 == 0:
            del data[place:]
        elif i % 5 == 1:
            data[place : place + 64] = rng.integers(0, 256, 64, np.uint8).tobytes()
        else:
            data[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(data)
        try:
            driven(shard)
        except ScenarioError as error:
            sentence = str(error)
            assert str(shard.parent) in sentence
            assert "\n" not in sentence
        file.write_bytes(whole[i % 2])


def test_a_file_that_shrinks_while_it_is_open_is_refused(shard: Path) -> None:
    library = Library([shard], near=NEAR)
    file = packed.packed_path(shard)
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size - 100)
    with pytest.raises(ScenarioError, match="the file was truncated"):
        library.fill(np.arange(4))
