"""`alpagym bench learning`: trainings over seeds, kept and compared."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from alpagym.bench import learning
from alpagym.bench.cases import COMMANDS, LearningCase
from alpagym.bench.context import Context
from alpagym.checkpoint import load_policy
from alpagym.cli import compose

CASE = LearningCase("learning.x", {"base": (), "other": ("grpo.credit=episode",)})


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Where runs are kept, and what was measured; seed 0 only."""
    runs = tmp_path_factory.mktemp("runs")
    context = Context(torch.device("cpu"), quick=True, repeats=1, runs=runs, jobs=2)
    return context, list(learning.run(CASE, context))


def test_every_variant_begins_with_the_same_imitation(measured):
    context, lines = measured
    names = ("imitation-0", "base-0", "other-0")
    first, *others = (
        load_policy(context.runs / "quick" / n / "checkpoints" / "before.safetensors")[0]
        for n in names
    )
    for other in others:
        for name, tensor in first.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name])
    summary = json.loads((context.runs / "quick" / "other-0" / "summary.json").read_text())
    assert summary["config"]["grpo"]["credit"] == "episode"
    values = {name: value.value for name, value in lines}
    assert values["learning.x.other.after_progress"] == summary["after"]["progress"]


def test_what_is_there_is_not_trained_again(measured):
    context, lines = measured
    files = {p: p.stat().st_mtime_ns for p in context.runs.rglob("*")}
    assert list(learning.run(CASE, context)) == lines
    assert files == {p: p.stat().st_mtime_ns for p in context.runs.rglob("*")}


def test_a_run_of_other_options_is_refused(measured):
    other = replace(CASE, variants={"other": ("grpo.credit=step",)})
    with pytest.raises(ValueError, match=r"other-0: expected .*credit=step.*, found one with"):
        list(learning.run(other, measured[0]))


def test_a_training_that_fails_is_named(measured):
    broken = replace(CASE, variants={"broken": ("grpo.group_size=1",)})
    with pytest.raises(ValueError, match=r"broken-0: training failed: grpo.group_size: expected"):
        list(learning.run(broken, measured[0]))


def test_an_interval_by_hand():
    """t(0.975, 2) = 4.303; of 1, 2, 3 the deviation is 1 and the standard error 1 / sqrt(3)."""
    mean, low, high = learning.mean_and_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert high - mean == pytest.approx(4.303 / math.sqrt(3.0))
    assert mean - low == pytest.approx(4.303 / math.sqrt(3.0))
    assert learning.mean_and_interval([5.0]) == (5.0, -math.inf, math.inf)


@pytest.mark.parametrize("case", COMMANDS["learning"], ids=lambda case: case.name)
def test_variants_are_options_of_training(case):
    for options in case.variants.values():
        compose("train", [*case.options, *options])
