"""Training on several ranks: the same result as on one, whatever ends one of them."""

from __future__ import annotations

import json
import os
import re
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from omegaconf import OmegaConf

from alpagym import cli, devices
from alpagym.grpo.batches import own_batch, shuffled_rollouts, shuffled_steps
from alpagym.grpo.trainer import check_groups
from alpagym.ranks import Ranks
from alpagym.resume import STATE_FILE, launched_run, take_up
from alpagym.run_state import load_state
from alpagym.training_config import GrpoConfig, TrainConfig
from torchrun import (
    OPTIONS,
    difference,
    finish,
    free_port,
    metrics,
    pid_of_rank,
    rows,
    runs_in,
    sentences,
    start,
    train,
    until,
    weights,
)

TOLERANCE = 1e-5


PLANS = ["policy=trajectory", "policy.history=2", "grpo.minibatch_size=16", "grpo.iterations=6"]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A run on one rank."""
    folder = tmp_path_factory.mktemp("one")
    assert cli.main(["train", f"runs={folder}", "name=run", *OPTIONS]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def launched(tmp_path_factory, one):
    """A folder of runs on two ranks, all of one launch, and what was said."""
    folder = tmp_path_factory.mktemp("two")
    few = [o for o in OPTIONS if not o.startswith(("grpo.iterations", "policy."))]
    trainings = [
        ["name=run", *OPTIONS],
        ["name=shards", "grpo.shard=true", *OPTIONS],
        ["name=plans", *OPTIONS, *PLANS],
        ["name=critic", "grpo=ppo", f"checkpoint={one}", *few, "grpo.iterations=2"],
    ]
    script = str(Path(__file__).parent / "on_one_rank.py")
    given = [json.dumps([f"runs={folder}", *training]) for training in trainings]
    return folder, train(given, program=[script])


@pytest.fixture(scope="module")
def two(launched):
    """The same run on two ranks."""
    return launched[0] / "run"


def assert_alike(run: Path, other: Path) -> None:
    """The same metrics but for rounding."""
    here, there = rows(run), rows(other)
    assert len(here) == len(there)
    for row, wanted in zip(here, there, strict=True):
        assert row.keys() == wanted.keys()
        for name, value in row.items():
            number = isinstance(value, float)
            limit = pytest.approx(wanted[name], rel=1e-3, abs=1e-4) if number else wanted[name]
            assert value == limit, (row["phase"], row["step"], name)


def flight(run: Path) -> list[dict]:
    """Rows of the flight recorder, with the groups of all ranks as one rolls them."""
    found = [json.loads(line) for line in (run / "flight.jsonl").read_text().splitlines()]
    return [row | {"rolls": [g for roll in row["rolls"] for g in roll["groups"]]} for row in found]


def test_two_ranks_learn_what_one_learns(one, two):
    assert len([row for row in rows(two) if row["phase"] == "grpo"]) == 8
    assert difference(two, one) < TOLERANCE
    assert_alike(two, one)
    assert flight(two) == flight(one)


def test_only_the_first_rank_writes_and_prints(launched):
    folder, said = launched
    assert [path.name for path in runs_in(folder)] == ["critic", "plans", "run", "shards"]
    assert said.count("2 ranks, the first on cpu, 1 threads") == 4
    assert said.count("scenarios to train on") == 4
    assert said.count("report: ") == 4


def test_shards_learn_what_whole_weights_learn(launched, one, two):
    run = launched[0] / "shards"
    assert difference(run, one) < TOLERANCE
    state, wanted = (load_state(path / STATE_FILE) for path in (run, two))

    def shapes(of):
        return {
            k: shapes(v) if isinstance(v, dict) else getattr(v, "shape", v) for k, v in of.items()
        }

    assert shapes(state) == shapes(wanted)  # whole, whatever learned them


def test_a_rank_that_is_killed_is_begun_again_to_the_same_bits(tmp_path, two):
    """Without a name: the ranks that begin again find the run that they began."""
    folder = tmp_path / "runs"
    other = folder / "other"  # of another launch, so not theirs
    other.mkdir(parents=True)
    options = cli.compose("train", [f"runs={folder}", *OPTIONS])
    (other / "config.yaml").write_text(OmegaConf.to_yaml(options))
    process = start([f"runs={folder}", *OPTIONS], "--max-restarts", "1")
    until(metrics(folder, '"grpo", "step": 3'), process)
    os.kill(pid_of_rank(process, 1), signal.SIGKILL)
    said = finish(process)
    assert process.returncode == 0, said
    assert re.search("going on after iteration [246]", said), said
    (run,) = (path for path in runs_in(folder) if path != other)
    assert rows(run) == rows(two)
    assert (run / "flight.jsonl").read_text() == (two / "flight.jsonl").read_text()
    for name, tensor in weights(run).items():
        assert torch.equal(tensor, weights(two)[name]), name


def test_a_critic_is_the_same_on_all_ranks_whatever_the_policy_begins_with(launched):
    """Ranks that differ would end with a sentence."""
    state = load_state(launched[0] / "critic" / STATE_FILE)
    assert "critic" in str(state["learner"].keys())


@pytest.mark.heavy
def test_sigterm_to_torchrun_saves_and_fewer_ranks_go_on(tmp_path, one, capsys):
    process = start([f"runs={tmp_path}", "name=run", *OPTIONS])
    until(metrics(tmp_path, '"grpo", "step": 1'), process)
    process.send_signal(signal.SIGTERM)
    said = finish(process)
    assert process.returncode != 0
    run = tmp_path / "run"
    assert sentences(said) == [f"alpagym: stopped; `alpagym train resume={run}` goes on"], said
    state = load_state(run / STATE_FILE)
    assert state["ranks"] == 2
    assert state["iterations"] % 2 != 0 or state["iterations"] > 2  # saved because it was asked to
    assert cli.main(["train", f"resume={run}"]) == 0
    assert "2 before, 1 now" in capsys.readouterr().err
    assert difference(run, one) < TOLERANCE
    assert_alike(run, one)


@pytest.mark.heavy
def test_groups_of_one_are_named_once(tmp_path):
    process = start([f"runs={tmp_path}", *OPTIONS, "grpo.group_size=1"])
    said = finish(process)
    assert process.returncode != 0
    wanted = "alpagym: grpo.group_size: expected at least 2, to compare with, got 1"
    assert sentences(said) == [wanted], said
    assert not runs_in(tmp_path)


def test_what_goes_wrong_on_one_rank_ends_all_with_its_sentence(tmp_path):
    wrong = "reward_functions=[on_one_rank:not_a_number]"
    process = start([f"runs={tmp_path}", "name=run", *OPTIONS, wrong])
    said = finish(process)
    assert process.returncode != 0
    (sentence,) = sentences(said)
    assert "from on_one_rank:not_a_number, which gave nan" in sentence, sentence
    *_, row = ((tmp_path / "run" / "flight.jsonl").read_text()).splitlines()
    noted = json.loads(row)["findings"]["stopped"]
    assert "from on_one_rank:not_a_number, which gave nan" in noted
    assert noted in sentence
    before = said.partition(sentence)[0]
    assert "Traceback" not in before
    after = said.partition(sentence)[2]
    assert after.count("Traceback") == 1  # torchrun's own


def test_ranks_tell_each_other(launched):
    heard = launched[1].partition("heard ")[2].splitlines()[0]
    assert '"sums": [[3.0, 3.0], [[30.0, 30.0]]]' in heard
    assert "[[nan, 1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0, 9.0]]" in heard
    assert '"everyone": [0, 1], "told": ["rank 0", [0.0, 0.0]]' in heard
    assert "numbers: expected the same bits on all ranks, got others on rank 1" in heard
    assert '"in_turn": true' in heard


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_are_all_there_is(count):
    for length in (1, 5, 7, 100):
        things = list(range(length))
        shares = [things[Ranks(rank, count).share(length)] for rank in range(count)]
        assert [thing for share in shares for thing in share] == things
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        rows = torch.arange(length)
        parts = [Ranks(rank, count).part(rows) for rank in range(count)]
        assert sum(share for _, share in parts) == pytest.approx(1.0)
        assert all(len(own) for own, _ in parts)


@pytest.mark.parametrize("shuffled", ["steps", "rollouts"])
def test_parts_of_a_batch_are_the_batch(shuffled):
    """Rollouts of two ranks, and one that has none."""
    generator = torch.Generator().manual_seed(1)
    there = torch.rand(7, 6, generator=generator).sort(0, descending=True).values > 0.4
    columns = [[0, -1, 1, -1, 2, -1], [-1, 2, -1, 0, -1, 1], [-1] * 6]
    held = [[0, 2, 4], [3, 5, 1], [0]]
    values = torch.arange(1.0, 43.0).view(7, 6)
    if shuffled == "steps":
        batches = shuffled_steps(there, 5, generator)
    else:
        batches = shuffled_rollouts(there, there, 5, generator)
    for batch in batches:
        whole, share = batch.table(values.flatten()[batch.rows]), 0.0
        total = torch.zeros_like(whole)
        for column, worlds in zip(columns, held, strict=True):
            own = own_batch(batch, torch.tensor(column), len(worlds))
            recorded = values[:, worlds].flatten()[own.rows]
            total += own.batch.table(recorded) * own.valid()
            assert len(own.rows)  # networks run on every rank
            share += own.share
        assert torch.equal(total, whole)
        assert share == pytest.approx(1.0)


def test_each_rank_has_a_gpu_of_its_own(monkeypatch):
    chosen = []
    monkeypatch.setattr(devices.sim, "cuda_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    ranks = Ranks(3, 4, local_rank=1, local_count=2)
    assert devices.choose_device("auto", ranks) == torch.device("cuda", 1)
    assert devices.choose_device("cuda:0", ranks) == torch.device("cuda", 0)
    assert devices.choose_device("cpu", ranks) == torch.device("cpu")
    assert chosen == [torch.device("cuda", 1), torch.device("cuda", 0)]
    with pytest.raises(ValueError, match="a GPU for each of the 3 ranks on this machine, found 2"):
        devices.choose_device("auto", Ranks(0, 3, local_count=3))


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"WORLD_SIZE=2: expected RANK, .* got no RANK and no MAS"):
        Ranks.of_environment()
    with pytest.raises(ValueError, match="a group for each of 4 ranks, got 3"):
        check_groups(GrpoConfig(scenarios_per_iteration=3), Ranks(0, 4))


def test_only_a_run_of_the_same_launch_is_gone_on_with(tmp_path):
    """Not one of another, though it has the same options and is cut short."""
    config, launch = TrainConfig(runs=str(tmp_path)), dist.HashStore()

    def made(name: str) -> Path:
        run = tmp_path / name
        run.mkdir()
        (run / "config.yaml").write_text("a")
        return run

    def taken(options: str, launch: dist.Store) -> tuple[Path, bool]:
        with ExitStack() as locks:
            path, begun = take_up(config, options, Ranks(launch=launch), locks)
        return path, begun is not None

    there = [made("other")]
    path, goes_on = taken("a", launch)
    assert path not in there
    assert not goes_on
    there.append(own := made("own"))
    Ranks(launch=launch).keep(launched_run("a"), str(own))
    assert taken("a", launch) == (own, True)
    assert taken("b", launch)[0] not in there
    assert taken("a", dist.HashStore())[0] not in there
    (own / "report.html").write_text("")  # complete
    assert taken("a", launch)[0] not in there


def test_two_ranks_learn_to_plan_as_one_does(tmp_path, launched):
    """Also of records that end inside a plan, of which ranks know different parts."""
    assert cli.main(["train", f"runs={tmp_path}", "name=one", *OPTIONS, *PLANS]) == 0
    assert difference(launched[0] / "plans", tmp_path / "one") < TOLERANCE
    assert_alike(launched[0] / "plans", tmp_path / "one")


PRESETS = {
    "flow": [
        "policy=flow_matching", "policy.history=2", "grpo.imitation_weight=0.1",
        "grpo.kl_weight=0.1", "grpo.minibatch_size=16", "grpo.refills=2",
    ],
    "plans_critic": [*PLANS, "grpo=ppo"],
    "ppo": ["grpo=ppo"],
    "whole_rollouts": [
        "grpo=gspo", "grpo.clip_low=0.2", "grpo.clip_high=0.2", "grpo.kl_weight=0.1",
        "grpo.anchor_decay=0.9", "grpo.imitation_weight=0.1", "grpo.refills=2",
    ],
    "branches": ["grpo.branch_within=5", "reward_ranges={offroad: [-20, -5]}", "grpo.epochs=2"],
    "stream": ["stream.scenarios=6", "stream.weights=failure"],
}  # fmt: skip


@pytest.mark.heavy
@pytest.mark.parametrize("shard", ["false", "true"])
@pytest.mark.parametrize("name", PRESETS)
def test_three_ranks_learn_what_one_learns(tmp_path, name, shard):
    chosen = [f"runs={tmp_path}", *PRESETS[name], *OPTIONS]
    assert cli.main(["train", "name=one", *chosen]) == 0
    train(["name=three", f"grpo.shard={shard}", *chosen], ranks=3)
    assert difference(tmp_path / "three", tmp_path / "one") < TOLERANCE
    assert_alike(tmp_path / "three", tmp_path / "one")


@pytest.mark.heavy
def test_two_machines_train_together(tmp_path, one):
    """Two agents, as on two machines; only the one whose rank is killed counts that."""
    where = ["--nnodes", "2", "--rdzv-backend", "c10d", "--max-restarts", "2", "--rdzv-id", "job"]
    where += ["--rdzv-endpoint", f"127.0.0.1:{free_port()}"]
    first, second = (start([f"runs={tmp_path}", *OPTIONS], *where, ranks=1) for _ in range(2))
    until(metrics(tmp_path, '"grpo", "step": 3'), first)
    for rank in (0, 1):
        for process in (first, second):
            try:
                os.kill(pid_of_rank(process, rank), signal.SIGKILL)
            except AssertionError:
                continue  # the other's
        break
    said = finish(first), finish(second)
    assert (first.returncode, second.returncode) == (0, 0), said
    (run,) = runs_in(tmp_path)
    assert difference(run, one) < TOLERANCE
