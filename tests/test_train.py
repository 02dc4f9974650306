"""The whole story, tiny: what a run leaves behind, and what stays when it is cut short."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from alpagym import cli, sim, training_data
from alpagym.checkpoint import load_policy, save_policy
from alpagym.config import SimConfig
from alpagym.grpo.trainer import GrpoTrainer
from alpagym.policies.registry import make_policy
from alpagym.scenarios.procedural import generate_many
from alpagym.scenarios.sources import HELD_OUT_SEED
from alpagym.training_config import PolicyConfig
from scenario_factory import crossing, curve, straight

OVERRIDES = [
    "data.train=6", "data.held_out=4", "data.workers=1", "imitation.max_epochs=3", "threads=1",
    "grpo.iterations=2", "grpo.group_size=3", "grpo.scenarios_per_iteration=3", "device=cpu",
    "policy.width=8", "policy.hidden=16", "num_replays=2", "data.validation=3",
]  # fmt: skip
RESULTS = (
    "failure_rate", "collision_at_fault_rate", "collision_any_rate", "offroad_rate", "progress",
    "scene_score",
)  # fmt: skip


def rows_of(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a finished run."""
    runs = tmp_path_factory.mktemp("runs")
    assert cli.main(["train", f"runs={runs}", "name=tiny", "seed=3", *OVERRIDES]) == 0
    return runs / "tiny"


def test_a_run_leaves_its_files(run):
    names = {p.name for p in run.iterdir()}
    assert names == {
        "config.yaml", "metrics.jsonl", "checkpoints", "tensorboard",
        "split.json", "summary.json", "report.html", "flight.jsonl",
    }  # fmt: skip
    checkpoints = {p.name for p in (run / "checkpoints").iterdir()}
    names = {f"{n}.safetensors" for n in ("before", "policy", "best", "state")}
    assert checkpoints == names | {"policies"}
    assert any((run / "tensorboard").iterdir())


def test_the_summary_has_what_was_promised(run):
    summary = json.loads((run / "summary.json").read_text())
    for when in ("before", "after"):
        result = summary[when]
        assert result["num_scenarios"] == 4
        for name in RESULTS:
            low, high = result[f"{name}_ci95"]
            assert low <= result[name] <= high, name
        for name in RESULTS[:4]:
            assert 0.0 <= result[name] <= 1.0
        assert result["failure_rate"] >= result["offroad_rate"]
        assert result["collision_any_rate"] >= result["collision_at_fault_rate"]
    assert summary["train"]["agent_steps"] > 0
    assert summary["train"]["agent_steps_per_s"] > 0
    assert 0 < summary["wall_s"] < 300
    assert summary["device"].startswith("cpu")
    assert summary["commit"] == sim.commit()
    assert summary["baselines"]["log"]["num_scenarios"] == 4
    assert summary["licenses"] == {"synthetic-cc0": 13}
    assert sum(summary["outcomes"].values()) == 4
    assert summary["config"]["grpo"]["group_size"] == 3
    assert summary["config"]["sim"]["traffic"] == "log"


def test_the_metrics_tell_the_story_in_order(run):
    rows = rows_of(run)
    phases = [row["phase"] for row in rows]
    assert list(dict.fromkeys(phases)) == ["scenarios", "imitation", "eval", "validation", "grpo"]
    assert phases.count("imitation") == 3
    assert phases.count("grpo") == 2
    assert [row["when"] for row in rows if row["phase"] == "eval"] == ["before", "after"]
    assert [row["step"] for row in rows if row["phase"] == "grpo"] == [0, 1]
    wall = [row["wall_s"] for row in rows]
    assert wall == sorted(wall)
    summary = json.loads((run / "summary.json").read_text())
    last = [row for row in rows if row["phase"] == "grpo"][-1]
    assert last["agent_steps"] == summary["train"]["agent_steps"]
    evaluated = [row for row in rows if row["phase"] == "eval"]
    assert [r["failure_rate"] for r in evaluated] == [
        summary[when]["failure_rate"] for when in ("before", "after")
    ]


def test_the_written_configuration_is_the_one_that_ran(run):
    written = OmegaConf.load(run / "config.yaml")
    again = cli.compose("train", [f"runs={run.parent}", "name=tiny", "seed=3", *OVERRIDES])
    assert written == OmegaConf.create(OmegaConf.to_yaml(again))


def test_the_report_opens_offline(run):
    page = (run / "report.html").read_text()
    assert "tiny" in page
    outside = re.findall(r"""(?:src|href)\s*=\s*["']?(?!#|data:)([^"' >]+)""", page)
    assert not outside
    assert "@import" not in page
    assert not re.search(r"fetch\(|XMLHttpRequest|url\((?!['\"]?(?:data:|#))", page)


def test_the_checkpoints_drive_as_in_the_summary(run, capsys):
    summary = json.loads((run / "summary.json").read_text())
    chosen = ["data.held_out=4", "seed=3", "device=cpu", "threads=1"]
    files = {"before": run / "checkpoints" / "before.safetensors", "after": run}
    for when, path in files.items():
        assert cli.main(["eval", f"checkpoint={path}", *chosen]) == 0
        captured = capsys.readouterr()
        value = json.loads(captured.out)
        assert value["trained_on"] == ["synthetic-cc0"]
        assert "trained on: synthetic-cc0" in captured.err
        for name in RESULTS:
            assert value[name] == pytest.approx(summary[when][name], abs=1e-4)
    before, after = (load_policy(path)[0].state_dict() for path in files.values())
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_second_run_finds_what_the_first_has_generated(run):
    """Scenarios to train on, held out and to compare policies on; the result is the same."""

    def shards():
        return {p: p.stat().st_mtime_ns for p in (run.parent / ".generated").rglob("*.safetensors")}

    before = shards()
    assert len(before) == 3
    assert cli.main(["train", f"runs={run.parent}", "name=again", "seed=3", *OVERRIDES]) == 0
    assert shards() == before
    first, second = (load_policy(run.parent / n)[0].state_dict() for n in ("tiny", "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_begins_with_a_checkpoint(run, tmp_path, capsys):
    """It takes the place of imitation, with the size that it has."""
    kept = [o for o in OVERRIDES if not o.startswith("policy.")]
    given = ["train", f"runs={tmp_path}", "seed=3", f"checkpoint={run}", *kept]
    assert cli.main([*given, "name=more"]) == 0
    said = capsys.readouterr().err
    assert f"beginning with {run}, trained on: synthetic-cc0" in said
    more = tmp_path / "more"
    weights = load_policy(run)[0].state_dict()
    before = load_policy(more / "checkpoints" / "before.safetensors")[0].state_dict()
    after = load_policy(more)[0].state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in weights.items())
    assert any(not torch.equal(after[name], tensor) for name, tensor in weights.items())
    assert {r["phase"] for r in rows_of(more)} == {"scenarios", "grpo", "eval", "validation"}
    trained, first = (json.loads((r / "summary.json").read_text()) for r in (run, more))
    assert first["before"] == trained["after"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("sim.num_route_points=5", "sim.num_route_points: the checkpoint was trained for 16"),
        ("checkpoint=nowhere", "no such policy file"),
    ],
)
def test_a_checkpoint_that_cannot_begin_is_refused(run, tmp_path, capsys, given, said):
    assert cli.main(["train", f"runs={tmp_path}", f"checkpoint={run}", *OVERRIDES, given]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert len(told.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_drives_in_its_own_simulator_but_for_what_is_asked(run, capsys):
    chosen = [f"checkpoint={run}", "data.held_out=2", "device=cpu", "threads=1"]

    def evaluated(*overrides):
        assert cli.main(["eval", *chosen, *overrides]) == 0
        return json.loads(capsys.readouterr().out)

    plain = evaluated()
    assert evaluated("sim.traffic=log") == plain
    short = evaluated("sim.max_steps=2")
    assert short["progress"] < plain["progress"]
    assert cli.main(["eval", *chosen, "sim.num_route_points=5"]) == 2
    assert "sim.num_route_points: the checkpoint was trained for 16" in capsys.readouterr().err


@pytest.mark.parametrize(
    "chosen",
    [
        ["policy=trajectory", "sim.action=trajectory", "policy.width=8"],
        ["policy=flow_matching", "grpo=ppo", "policy.width=8", "policy.history=2"],
        ["policy=large"],
    ],
    ids=lambda chosen: chosen[0],
)
def test_other_policies_train_and_drive_too(chosen, tmp_path, capsys):
    given = [option for option in OVERRIDES if not option.startswith("policy")]
    few = ["grpo.iterations=1", "imitation.max_epochs=1", "num_replays=0", "sim.max_steps=20"]
    assert cli.main(["train", f"runs={tmp_path}", "name=it", *given, *few, *chosen]) == 0
    path = tmp_path / "it"
    options = ["data.held_out=4", "device=cpu", "threads=1"]
    capsys.readouterr()
    assert cli.main(["eval", f"checkpoint={path}", *options]) == 0
    value = json.loads(capsys.readouterr().out)
    summary = json.loads((path / "summary.json").read_text())
    assert value["failure_rate"] == summary["after"]["failure_rate"]
    assert value["progress"] == pytest.approx(summary["after"]["progress"])
    policy, sim_config, _ = load_policy(path)
    wanted = {"large": 1, "trajectory": 5, "flow_matching": 5}[chosen[0].partition("=")[2]]
    assert sim_config.replan_every == wanted
    assert policy.encoders["road"][0].out_features == (64 if wanted == 1 else 8)
    refused = {1: "num_route_points=5", 5: "replan_every=1"}[wanted]
    assert cli.main(["eval", f"checkpoint={path}", *options, f"sim.{refused}"]) == 2
    assert "the checkpoint was trained for" in capsys.readouterr().err


def test_plans_go_on_from_a_checkpoint_in_the_simulator_that_they_were_made_for(
    quick, tmp_path, capsys
):
    made_of = PolicyConfig(kind="trajectory", width=8, hidden=16, knots=4)
    sim_config = SimConfig(replan_every=3)
    file = tmp_path / "before.safetensors"
    save_policy(file, make_policy(made_of, sim_config), made_of, sim_config, ["synthetic-cc0"])
    few = [f"runs={tmp_path}", "name=on", *OVERRIDES, "grpo.iterations=1", "sim.max_steps=9"]
    given = ["train", *few, f"checkpoint={file}"]
    assert cli.main(given) == 2
    assert "sim.replan_every: the checkpoint was trained for 3, got 1" in capsys.readouterr().err
    assert cli.main([*given, "policy.weights=other.pt"]) == 2
    assert "policy.weights: expected none beside checkpoint=" in capsys.readouterr().err
    assert not (tmp_path / "on").exists()
    assert cli.main([*given, "sim.replan_every=3"]) == 0
    policy, _, _ = load_policy(tmp_path / "on")
    assert policy.made_of == made_of


def test_training_and_held_out_scenarios_are_not_the_same(run):
    rows = rows_of(run)
    assert (rows[0]["train"], rows[0]["held_out"]) == (6, 4)


def test_hydra_is_left_as_it_was(run):
    assert not GlobalHydra.instance().is_initialized()


# Cut short


@pytest.fixture
def quick(monkeypatch):
    """Hand-made scenarios instead of generated ones."""
    made = [straight(name="a"), curve(name="b"), crossing(name="c")]
    monkeypatch.setattr(training_data, "training_and_held_out", lambda *_: (made, made[:1]))


def failing(capsys, tmp_path, *overrides):
    """The sentence, and the directory, of a run that fails after it began."""
    arguments = ["train", f"runs={tmp_path}", "name=cut", *OVERRIDES, *overrides]
    assert cli.main(arguments) != 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("alpagym: ")]
    assert len(lines) == 1
    path = tmp_path / "cut"
    assert (path / "config.yaml").read_text()
    assert not (path / "summary.json").exists()
    assert not list(path.rglob(".*"))  # no half-written files
    return lines[0], path


def test_an_interrupt_keeps_what_was_written(quick, capsys, tmp_path, monkeypatch):
    iterate = GrpoTrainer.iterate

    def interrupted(self, iteration):
        if iteration == 1:
            raise KeyboardInterrupt
        return iterate(self, iteration)

    monkeypatch.setattr(GrpoTrainer, "iterate", interrupted)
    sentence, path = failing(capsys, tmp_path)
    assert sentence == "alpagym: interrupted"
    assert [r["phase"] for r in rows_of(path)].count("grpo") == 1
    assert load_policy(path / "checkpoints" / "before.safetensors")[2] == ["synthetic-cc0"]


def test_a_reward_that_is_not_finite_names_its_cause(quick, capsys, tmp_path, monkeypatch):
    weights = torch.zeros(1, len(sim.RewardTerm))
    weights[0, sim.RewardTerm.PROGRESS] = math.nan
    monkeypatch.setattr(sim, "make_weights", lambda *_: weights)
    sentence, path = failing(capsys, tmp_path)
    for word in ("reward is not finite", "scenario", "seed", "step 0"):
        assert word in sentence
    assert {r["phase"] for r in rows_of(path)} == {"scenarios", "imitation", "eval", "validation"}
    assert load_policy(path / "checkpoints" / "before.safetensors")


def test_a_learning_rate_that_is_too_high_says_so(quick, capsys, tmp_path):
    sentence, _ = failing(capsys, tmp_path, "imitation.learning_rate=1e25")
    assert "lower imitation.learning_rate" in sentence


def test_scenarios_that_cannot_be_made_leave_no_run(capsys, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise MemoryError

    monkeypatch.setattr("alpagym.store.generate.generate_each", refuse)
    with pytest.raises(MemoryError):
        cli.main(["train", f"runs={tmp_path / 'runs'}", *OVERRIDES])
    assert [p.name for p in (tmp_path / "runs").iterdir()] == [".generated"]


def test_held_out_drives_are_never_trained_on():
    first = {s.id for s in generate_many(8, 0)}
    assert first.isdisjoint(s.id for s in generate_many(8, HELD_OUT_SEED))
