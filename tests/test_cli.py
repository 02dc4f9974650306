"""The command line: what it takes, what it refuses, and how it says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import alpagym
from alpagym import sim
from alpagym.cli import compose, main, to_config
from alpagym.config import REWARD_PRESETS, Traffic
from alpagym.training_config import EvalConfig, TrainConfig
from scenario_files import json_object, json_scenario, write_json

SMALL = ["data.train=2", "data.held_out=1", "threads=1", "device=cpu"]


def refuse(capsys, *arguments: str) -> str:
    """The one sentence with which `alpagym <arguments>` fails."""
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("alpagym: ")
    return lines[0].removeprefix("alpagym: ")


# Help


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"], ["help"]])
def test_help(capsys, arguments):
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "alpagym train" in text
    assert "alpagym eval" in text
    for name in REWARD_PRESETS:
        assert name in text


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"alpagym {alpagym.__version__}\n"


def options_of(capsys, command: str) -> dict[str, str]:
    assert main([*command.split(), "--options"]) == 0
    lines = capsys.readouterr().out.splitlines()
    return dict(line.partition("  # ")[::2] for line in lines)


@pytest.mark.parametrize(
    "command",
    [
        *("train", "eval", "render", "convert", "convert-checkpoint", "export", "doctor data"),
        *("bench", "bench step", "bench learning"),
    ],
)
def test_options_are_listed_as_they_can_be_given(capsys, command):
    options = options_of(capsys, command)
    assert compose(command, [line.strip() for line in options]) == compose(command, [])
    assert all(options.values()), [name for name, meaning in options.items() if not meaning]


def test_options_are_listed_with_their_meanings(capsys):
    options = {k.strip(): v for k, v in options_of(capsys, "train").items()}
    assert options["seed=0"] == "Of everything that is drawn."
    assert options["grpo.epochs=1"] == "Passes over each rollout."
    assert options["reward.collision_at_fault=-20.0"] == "Per front or lateral collision."
    assert options["sim.traffic=log"] == "Any of log, idm, constant_velocity, log_then_idm."
    assert "sim.end_on=[collision_at_fault,offroad]" in options
    assert all(meaning.count("(") == meaning.count(")") for meaning in options.values())


def test_an_unknown_command(capsys):
    known = "train, eval, serve, render, convert, convert-checkpoint, export, doctor or bench"
    assert f"fly: expected {known}" in refuse(capsys, "fly", "seed=1")


# Overrides


def config_of(*overrides: str, command: str = "train"):
    return to_config(compose(command, overrides))


def test_defaults_are_those_of_the_dataclasses():
    assert config_of() == TrainConfig()
    assert config_of(command="eval") == EvalConfig()


def test_overrides_reach_the_configuration():
    config = config_of(
        "seed=7",
        "grpo.group_size=32",
        "sim.traffic=idm",
        "sim.end_on=[goal,offroad]",
        "grpo.learning_rate=1e-3",
        "reward=progress_safety",
        "reward.progress=2",
        "data.kinds=[straight]",
        "name=x",
        "sim.end_on=[]",
    )
    assert config.seed == 7
    assert config.grpo.group_size == 32
    assert config.sim.traffic is Traffic.idm
    assert config.sim.end_on == ()  # the last one counts
    assert config.grpo.learning_rate == 1e-3
    assert config.reward.collision_any == REWARD_PRESETS["progress_safety"].collision_any
    assert config.reward.progress == 2.0
    assert config.data.kinds == ("straight",)
    assert config_of() == TrainConfig()  # nothing is left of it


@pytest.mark.parametrize("name", REWARD_PRESETS)
def test_reward_presets(name):
    assert config_of(f"reward={name}").reward == REWARD_PRESETS[name]


PATHS = ["a b", "it's", 'say "x"', "a=b", "a,b", "[x]", "{x: 1}", "$HOME", "${seed}", "\\${seed}"]
PATHS += ["back\\slash", "end\\", "\\'", "#1", "~/x", "é中", "null", "1", "", "line\nbreak", "a:b"]


def test_paths_may_hold_anything():
    for first, second, third in zip(
        PATHS, PATHS[7:] + PATHS[:7], PATHS[14:] + PATHS[:14], strict=True
    ):
        config = config_of(f"scenarios={first}", f"runs={second}", f"name={third}")
        assert (config.scenarios, config.runs, config.name) == (first, second, third)
    config = config_of("checkpoint=it's ${x}", "output=\\'", command="eval")
    assert (config.checkpoint, config.output) == ("it's ${x}", "\\'")


WRONG = {
    "grpo.grup_size=8": ["grpo.grup_size: no such option; did you mean grpo.group_size?"],
    "xyzzy=1": ["xyzzy: no such option", "--options"],
    "+seed=1": ["+seed: no such option"],
    "grpo=x": ["grpo: expected one of grpo, deepseek, ", "got x"],
    "seed": ["seed: expected key=value"],
    "--fast": ["--fast: expected key=value"],
    "seed=abc": ["seed=abc", "Integer"],
    "seed=1.5": ["seed=1.5"],
    "seed=": ["seed="],
    "seed=1,2": ["seed=1,2"],
    "seed=null": ["seed=null"],
    "seed=[1": ["seed=[1"],
    "seed=${nothing}": ["seed=${nothing}", "nothing"],
    "seed=-1": ["seed: expected a whole number from 0"],
    "seed=99999999999999999999": ["seed"],
    "sim.traffic=foo": ["sim.traffic=foo", "log, idm, constant_velocity"],
    "sim.action=bicycle": ["sim.action=bicycle"],
    "sim.end_on=offroad": ["sim.end_on=offroad"],
    "sim.end_on=[rain]": ["sim.end_on: expected any of", "got rain"],
    "sim.dt=0": ["sim.dt: expected a number above 0, got 0.0"],
    "sim.dt=nan": ["sim.dt: expected a finite number"],
    "sim.dt=0.05": ["sim.dt=0.05"],
    "sim.multi_agent=true": ["sim.multi_agent: expected false"],
    "sim.num_agents=100000": ["sim.num_agents: expected 0 to"],
    "sim.num_route_points=0": ["sim.num_route_points: expected a whole number from 1"],
    "reward=speed": ["reward: expected one of dense, ", "got speed"],
    "reward.progress=fast": ["reward.progress=fast", "Float"],
    "reward.progress=nan": ["reward.progress: expected a finite number, got nan"],
    "grpo.group_size=1": ["grpo.group_size: expected at least 2, to compare with", "got 1"],
    "grpo.minibatch_size=0": ["grpo.minibatch_size: expected a whole number from 1"],
    "grpo.learning_rate=-1": ["grpo.learning_rate: expected a number above 0"],
    "grpo.credit=all": ["grpo.credit: expected one of step, episode, got all"],
    "grpo.scale=std": ["grpo.scale: expected one of group, batch, none, got std"],
    "grpo.log_prob=max": ["grpo.log_prob: expected one of sum, mean, got max"],
    "grpo.discount=1.5": ["grpo.discount: expected a share above 0 and at most 1, got 1.5"],
    "imitation.batch_size=0": ["imitation.batch_size: expected a whole number from 1"],
    "imitation.held_out_fraction=1": ["imitation.held_out_fraction: expected a share"],
    "policy.width=0": ["policy.width: expected a whole number from 1"],
    "data.held_out_fraction=0": ["data.held_out_fraction: expected a share between 0 and 1"],
    "data.held_out_fraction=1.5": ["data.held_out_fraction: expected a share between 0 and 1"],
    "data.train=0": ["data.train: expected a whole number from 1"],
    "data.held_out=-3": ["data.held_out: expected a whole number from 1"],
    "data.kinds=[moon]": ["procedural: expected one of", "got moon"],
    "device=quantum": ["device: expected cpu, cuda or cuda:<index>, got quantum"],
    "device=meta": ["device: expected cpu, cuda or cuda:<index>, got meta"],
    "scenarios=/no/such/path": ["/no/such/path: no such file or folder"],
}


@pytest.mark.parametrize("override", WRONG)
def test_wrong_overrides_get_one_sentence_and_leave_nothing(override, capsys, tmp_path):
    runs = tmp_path / "runs"
    sentence = refuse(capsys, "train", *SMALL, f"runs={runs}", override)
    for word in WRONG[override]:
        assert word in sentence, sentence
    assert not runs.exists()


def test_cuda_on_a_build_without(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(sim, "cuda_built", lambda: False)
    for device in ("cuda", "cuda:1"):
        sentence = refuse(capsys, "train", f"device={device}", f"runs={tmp_path / 'runs'}")
        assert sentence == f"device={device}: this build of alpagym has no CUDA backend"
    assert not list(tmp_path.iterdir())


def test_cuda_without_a_driver(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(sim, "cuda_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    sentence = refuse(capsys, "train", "device=cuda", f"runs={tmp_path / 'runs'}")
    assert sentence == "device=cuda: no NVIDIA driver was found"


def test_the_name_of_an_existing_run(capsys, tmp_path):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "summary.json").write_text("{}")
    # Refused at once: before ten thousand scenarios are generated.
    wrong = ("train", "data.train=10000", "name=mine", f"runs={tmp_path / 'runs'}")
    sentence = refuse(capsys, *wrong)
    assert "mine: a run of this name exists: choose another name=..." in sentence
    assert os.listdir(tmp_path / "runs" / "mine") == ["summary.json"]
    (tmp_path / "file").write_text("")
    refuse(capsys, "train", *SMALL, "name=x", f"runs={tmp_path / 'file'}")


# Recorded scenarios


def folder_of(path: Path, count: int) -> Path:
    path.mkdir(parents=True)
    for i in range(count):
        record = json_scenario(name=f"made-{i}", scenario_id=f"made-{i}")
        write_json(path / f"{i}.json", record)
    return path


def test_folders_that_cannot_be_trained_on(capsys, tmp_path):
    runs = tmp_path / "runs"

    def sentence(path, *more):
        return refuse(capsys, "train", f"scenarios={path}", f"runs={runs}", "data.workers=1", *more)

    empty = tmp_path / "empty"
    empty.mkdir()
    assert "empty: the folder holds no files" in sentence(empty)
    one = folder_of(tmp_path / "one", 1)
    assert "expected at least 2 usable recordings" in sentence(one)
    (one / "0.json").write_text("{")
    assert "0.json" in sentence(one)
    two = folder_of(tmp_path / "two [/b] 'x'", 2)
    assert "max_agents=1" in sentence(two, "data.max_agents=1")
    assert not runs.exists()


def test_scenarios_that_are_too_short_or_of_another_step_are_counted(capsys, tmp_path):
    folder = folder_of(tmp_path / "drives", 2)
    arguments = ["train", f"scenarios={folder}", f"runs={tmp_path / 'runs'}", "data.workers=1"]
    for override, words in {
        "data.min_steps=1000": "fewer than 1000",
        "sim.dt=0.2": "recorded every 0.1 s, not sim.dt=0.2",
    }.items():
        assert main([*arguments, override]) == 2
        lines = capsys.readouterr().err.replace("\n", " ")
        assert "0 scenarios loaded, 2 skipped" in lines
        assert lines.count(words) == 3  # each file, and the reason of failing
    assert not (tmp_path / "runs").exists()


def test_a_broken_file_among_good_ones_does_not_stop_training(capsys, tmp_path):
    folder = folder_of(tmp_path / "drives", 4)
    (folder / "cut.json").write_text(json.dumps(json_scenario())[:500])
    crowd = json_scenario(objects=[json_object(20.0 * i, 8.0) for i in range(6)], scenario_id="c")
    write_json(folder / "crowd.json", crowd)
    arguments = [f"scenarios={folder}", f"runs={tmp_path / 'runs'}", "name=a[/b]", "data.workers=1"]
    tiny = ["imitation.max_epochs=1", "grpo.iterations=1", "grpo.group_size=2", "device=cpu"]
    tiny += ["grpo.scenarios_per_iteration=2", "data.max_agents=5", "threads=1", "eval_every=0"]
    tiny += ["data.procedural=2"]
    assert main(["train", *arguments, *tiny]) == 0
    text = capsys.readouterr().err
    assert "4 scenarios loaded, 2 skipped" in text.replace("\n", " ")
    assert "cut.json" in text
    assert "more than max_agents=5" in text.replace("\n", " ")
    summary = json.loads((tmp_path / "runs" / "a[" / "b]" / "summary.json").read_text())
    assert summary["before"]["num_scenarios"] + 3 == 4


# Evaluation


def test_eval_prints_json(capsys):
    assert main(["eval", "policy=log", "data.held_out=4", "device=cpu", "threads=1"]) == 0
    captured = capsys.readouterr()
    value = json.loads(captured.out)
    assert value["driver"] == "log"
    assert value["num_scenarios"] == len(value["per_scenario"]) == 4
    assert value["failure_rate"] == 0.0
    assert "failure_rate" in captured.err  # the table


def test_eval_writes_json(capsys, tmp_path):
    output = tmp_path / "it's ${x}.json"
    arguments = ["policy=constant_velocity", "data.held_out=2", "data.kinds=[straight]"]
    assert main(["eval", *arguments, f"output={output}"]) == 0
    assert capsys.readouterr().out == ""
    value = json.loads(output.read_text())
    assert {row["kind"] for row in value["per_scenario"]} == {"straight"}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], "expected either checkpoint=<run> or policy=<log|idm|constant_velocity|grpc:"),
        (["policy=log", "checkpoint=x"], "expected either checkpoint=<run> or policy="),
        (
            ["policy=me"],
            "policy: expected one of log, idm, constant_velocity or grpc://host:port, ",
        ),
        (["checkpoint=/no/such"], "/no/such: no such policy file"),
        (["policy=log", "scenarios=/no/such"], "/no/such: no such file or folder"),
        (["policy=log", "device=tpu"], "device: expected cpu"),
        (["policy=log", "grpo.group_size=2"], "grpo.group_size: no such option"),
        (["policy=log", "sim.dt=0.2"], "sim.dt=0.2"),
        (["policy=log", "data.held_out=1", "output=/no/such/folder/x.json"], "/no/such/folder"),
    ],
)
def test_wrong_evaluations(overrides, words, capsys):
    if "output=/no/such/folder/x.json" in overrides:  # fails when all is done, after the table
        assert main(["eval", *overrides]) == 2
        assert words in capsys.readouterr().err.splitlines()[-1]
    else:
        assert words in refuse(capsys, "eval", *overrides)


# The installed command


def test_the_module_runs_as_a_program():
    command = [sys.executable, "-W", "error", "-m", "alpagym"]
    environment = os.environ | {"PYTHONPATH": str(Path(alpagym.__file__).parents[1])}
    options = {"capture_output": True, "text": True, "env": environment, "timeout": 60}
    done = subprocess.run([*command, "train", "grpo.group_size=1"], **options)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "alpagym: grpo.group_size: expected at least 2, to compare with, got 1\n"
    )
