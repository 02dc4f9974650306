"""Policies compared while they train: on which scenarios, which is best, and what becomes of it."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load_file

from alpagym import cli
from alpagym.config import SimConfig
from alpagym.policies.policy import Policy
from alpagym.render.charts import charts_of
from alpagym.run_directory import trained_recordings
from alpagym.training_config import DataConfig, TrainConfig
from alpagym.training_data import resident
from alpagym.validation import Validation
from scenario_factory import STRAIGHT, Actor, straight
from test_cli import folder_of, refuse

CPU = torch.device("cpu")


class Steady(Policy):
    """Always the same acceleration, which is its only weight."""

    def __init__(self, accel: float) -> None:
        super().__init__()
        self.accel = torch.nn.Parameter(torch.tensor([accel, 0.0]))

    def mean(self, observation):
        return self.accel.expand(*observation.ego.shape[:-1], 2)

    sample = log_prob = deviation = entropy = None
    __abstractmethods__ = frozenset()


def made(**changes) -> Validation:
    """Twenty roads on which a car stands far ahead: who accelerates hits it."""
    scenarios = [straight(Actor(STRAIGHT, 70.0, 0.0), name=f"road {i}") for i in range(20)]
    options = {"every": 2, "iterations": 5} | changes
    return Validation(scenarios, SimConfig(), CPU, **options)


def test_the_best_is_kept_whatever_follows():
    validation = made()
    assert validation.step == -1
    scores = [validation.judge(Steady(a), n) for n, a in ((0, -4.0), (2, 0.0), (4, 3.0))]
    assert [row["best"] for row in scores] == [0, 2, 2]
    assert scores[0]["scene_score"] < scores[1]["scene_score"] == validation.score
    assert (scores[2]["failure_rate"], validation.failure_rate) == (1.0, 0.0)
    best = validation.best(Steady(3.0))
    assert best.accel.tolist() == [0.0, 0.0]
    assert validation.judge(Steady(0.0), 5)["best"] == 2  # the first of several


def test_the_best_is_a_copy():
    validation, policy = made(), Steady(0.0)
    validation.judge(policy, 0)
    policy.accel.data.fill_(9.0)
    assert validation.best(policy).accel.tolist() == [0.0, 0.0]


def test_a_last_policy_that_is_worse_is_called_so():
    validation = made()
    validation.judge(Steady(-3.0), 2)
    said = validation.verdict(Steady(3.0))
    assert "the last policy has scene score 0.000, that of iteration 2 had" in said
    assert "checkpoints/best.safetensors" in said
    assert validation.verdict(Steady(-3.0)) == ""  # no worse
    validation.judge(Steady(0.0), 5)
    assert validation.step == 5
    assert validation.verdict(Steady(0.0)) == ""


def test_when_it_is_due():
    assert [n for n in range(6) if made().due(n)] == [0, 2, 4, 5]
    assert not any(made(every=0).due(n) for n in range(6))
    nothing = Validation([], SimConfig(), CPU, every=2, iterations=5)
    assert not any(nothing.due(n) for n in range(6))


def test_its_state_goes_there_and_back():
    validation, other = made(), made()
    other.load_state_dict(validation.state_dict())  # nothing yet
    assert other.step == -1
    validation.judge(Steady(0.0), 2)
    other.load_state_dict(validation.state_dict())
    assert (other.step, other.score) == (2, validation.score)
    assert other.judge(Steady(3.0), 4)["best"] == 2
    assert other.best(Steady(3.0)).accel.tolist() == [0.0, 0.0]


# On which scenarios


def data_of(source="procedural", **changes):
    data = DataConfig(train=9, held_out=5, validation=7, procedural=0, workers=1)
    config = TrainConfig(scenarios=str(source), data=data, **changes)
    return resident(config, CPU, print)


def test_generated_ones_are_neither_trained_on_nor_held_out():
    data = data_of()
    sides = [set(data.names), *({s.id for s in side} for side in (data.held_out, data.validation))]
    assert [len(side) for side in sides] == [9, 5, 7]
    assert len(set.union(*sides)) == 21
    without = data_of(eval_every=0)
    assert (without.names, without.validation) == (data.names, [])
    assert [s.id for s in without.held_out] == [s.id for s in data.held_out]


def test_of_recordings_a_share_is_kept_whole(tmp_path):
    folder = folder_of(tmp_path / "many", 30)
    data = data_of(folder)
    held_out, validation = (
        {s.recording for s in side} for side in (data.held_out, data.validation)
    )
    assert (len(held_out), len(validation), len(data.recordings)) == (9, 2, 19)
    assert len(held_out | validation | set(data.recordings)) == 30
    without = data_of(folder, eval_every=0)
    assert set(without.recordings) == validation | set(data.recordings)
    assert {s.recording for s in without.held_out} == held_out


def test_where_recordings_are_few_scenarios_are_generated(tmp_path):
    data = data_of(folder_of(tmp_path / "few", 5))
    assert len(data.recordings) == 3
    assert {s.dataset for s in data.validation} == {"procedural"}
    assert len(data.validation) == 7


# The run

TINY = [
    "data.train=6", "data.held_out=3", "data.workers=1", "data.validation=3", "threads=1",
    "imitation.max_epochs=1", "device=cpu", "policy.width=8", "policy.hidden=16", "num_replays=0",
    "grpo.iterations=3", "grpo.group_size=3", "grpo.scenarios_per_iteration=3", "seed=3",
    "sim.max_steps=20", "keep_policies=0",
]  # fmt: skip


def run(folder, *options):
    assert cli.main(["train", f"runs={folder}", "name=run", *TINY, *options]) == 0
    path = folder / "run"
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return path, json.loads((path / "summary.json").read_text()), rows


def weights_of(path, name):
    return load_file(path / "checkpoints" / f"{name}.safetensors")


def test_comparing_changes_nothing_of_what_is_learned(tmp_path):
    path, summary, rows = run(tmp_path / "with", "eval_every=2")
    other, without, other_rows = run(tmp_path / "without", "eval_every=0")
    last, others = weights_of(path, "policy"), weights_of(other, "policy")
    assert all(torch.equal(last[name], others[name]) for name in last)
    compared = [row for row in rows if row["phase"] == "validation"]
    assert [row["step"] for row in compared] == [0, 2, 3]
    assert not [row for row in other_rows if row["phase"] == "validation"]
    assert summary["iteration"] == without["iteration"] == 3
    assert "best" not in without
    best = max(compared, key=lambda row: row["scene_score"])
    assert summary["best"]["iteration"] == best["step"] == compared[-1]["best"]
    assert summary["best"]["scene_score"] == best["scene_score"]
    names = {name for chart in charts_of(rows)[0] for name in chart.series}
    assert {"failure_rate (validation)", "scene_score (validation)"} <= names
    assert not (other / "checkpoints" / "best.safetensors").exists()
    assert not (path / "checkpoints" / "policies").exists()


def test_a_run_may_end_with_its_best(tmp_path, monkeypatch):
    """The first policy looked at is made the best, though others follow."""
    judge = Validation.judge

    def worse_and_worse(self, policy, done):
        values = judge(self, policy, done)
        self.score = float("inf")
        return values

    monkeypatch.setattr(Validation, "judge", worse_and_worse)
    path, summary, _ = run(tmp_path, "final=best", "eval_every=1")
    first, last = (weights_of(path, name) for name in ("before", "policy"))
    assert summary["iteration"] == summary["best"]["iteration"] == 0
    assert all(torch.equal(first[name], last[name]) for name in first)
    assert summary["after"] == summary["before"]


def test_a_best_policy_needs_a_comparison(capsys):
    assert "final=best: expected eval_every above 0" in refuse(
        capsys, "train", "final=best", "eval_every=0"
    )


def test_validation_scenarios_are_told_apart_in_the_split(tmp_path, capsys):
    folder = folder_of(tmp_path / "many", 30)
    options = [f"scenarios={folder}", "data.procedural=0", "data.validation=1"]
    path, _, rows = run(tmp_path, *options)
    split = json.loads((path / "split.json").read_text())
    assert rows[0]["validation"] == len(split["validation"]) == 1
    assert set(split["validation"]).isdisjoint(split["train"] + split["held_out"])
    for name in ("", "checkpoints/best.safetensors", "checkpoints/policies/0000000.safetensors"):
        assert trained_recordings(path / name) == set(split["train"])
    # Who begins with its policy, and draws other sides, is told; and nothing of it is forgotten.
    capsys.readouterr()
    begun, *_ = run(tmp_path / "again", *options, f"checkpoint={path}", "seed=4")
    later = json.loads((begun / "split.json").read_text())
    known = set(split["train"]) & {*later["held_out"], *later["validation"]}
    told = " ".join(capsys.readouterr().err.split())
    assert f"{len(known)} recordings that are held out here were trained on before" in told
    assert set(split["train"]) <= set(later["train"])
