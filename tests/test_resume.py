"""Runs that are killed, stopped, out of disk, or damaged, and go on to the same result."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

from alpagym import cli
from alpagym.checkpoint import CheckpointError
from alpagym.grpo.trainer import GrpoTrainer
from alpagym.resume import STATE_FILE, Begun, Lock
from alpagym.run_state import load_state, save_state

OPTIONS = [
    "data.train=6", "data.held_out=4", "data.workers=1", "imitation.max_epochs=2", "threads=1",
    "grpo.iterations=6", "grpo.group_size=3", "grpo.scenarios_per_iteration=3", "device=cpu",
    "policy.width=8", "policy.hidden=16", "num_replays=1", "save_every=2", "sim.max_steps=20",
    "data.validation=3", "eval_every=3",
    "grpo.kl_weight=0.1", "grpo.anchor_decay=0.9", "grpo.imitation_weight=0.1",
]  # fmt: skip
PPO = ["grpo=ppo", *[o for o in OPTIONS if "kl" not in o and "anchor" not in o]]
PLANS = ["policy=flow_matching", "policy.history=2", "grpo.branch_within=9", *OPTIONS]
COMMAND = [sys.executable, "-c", "import sys; from alpagym.cli import main; sys.exit(main())"]
TIMINGS = ("wall_s", "agent_steps_per_s", "rollout_s", "update_s")


def arguments(folder: Path, *more: str, options: list[str] = OPTIONS) -> list[str]:
    return ["train", f"runs={folder}", "name=run", "seed=3", *options, *more]


def start(folder: Path, options: list[str] = OPTIONS, **settings) -> subprocess.Popen:
    return subprocess.Popen(
        [*COMMAND, *arguments(folder, options=options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **settings,
    )


def result(run: Path):
    """Weights, and metrics but for timings."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows]
    flight = (run / "flight.jsonl").read_text()
    files = sorted((run / "checkpoints").rglob("*.safetensors"))
    weights = {
        f"{file.relative_to(run)}: {name}": tensor
        for file in files
        for name, tensor in load_file(file).items()
    }
    return weights, rows, flight


def assert_same(run: Path, other: Path) -> None:
    (weights, rows, flight), (others, other_rows, other_flight) = result(run), result(other)
    assert rows == other_rows
    assert flight == other_flight
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor, others[name]), name


def until(what, process: subprocess.Popen) -> None:
    """Wait for something to be there, while the process lives."""
    for _ in range(6000):
        if what() or process.poll() is not None:
            return
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    assert cli.main(arguments(folder)) == 0
    return folder / "run"


def metrics(run: Path, text: str):
    return lambda: (run / "metrics.jsonl").is_file() and text in (run / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    "moment",
    [
        '"step": 2',
        pytest.param('"imitation", "step": 0', marks=pytest.mark.heavy),
        pytest.param('"grpo", "step": 4', marks=pytest.mark.heavy),
    ],
)
def test_a_run_that_is_killed_goes_on_to_the_same_bits(tmp_path, whole, moment):
    process = start(tmp_path)
    until(metrics(tmp_path / "run", moment), process)
    process.kill()
    process.communicate()
    assert not (tmp_path / "run" / "report.html").exists()
    assert cli.main(["train", f"resume={tmp_path / 'run'}"]) == 0
    assert_same(tmp_path / "run", whole)
    assert (tmp_path / "run" / "report.html").is_file()
    assert not list(tmp_path.rglob(".*.part"))


@pytest.mark.parametrize("options", [PPO, PLANS], ids=["critic", "plans"])
def test_critics_and_plans_go_on_too(tmp_path, options, monkeypatch):
    assert cli.main(arguments(tmp_path / "whole", options=options)) == 0
    iterate = GrpoTrainer.iterate

    def interrupted(self, iteration):
        if iteration == 3:  # saved after the second
            raise KeyboardInterrupt
        return iterate(self, iteration)

    with monkeypatch.context() as patch:
        patch.setattr(GrpoTrainer, "iterate", interrupted)
        assert cli.main(arguments(tmp_path, options=options)) == cli.INTERRUPTED
    assert load_state(tmp_path / "run" / STATE_FILE)["iterations"] == 2
    assert cli.main(["train", f"resume={tmp_path / 'run'}"]) == 0
    assert_same(tmp_path / "run", tmp_path / "whole" / "run")


def test_sigterm_saves_and_says_how_it_goes_on(tmp_path, whole):
    process = start(tmp_path)
    until(metrics(tmp_path / "run", '"grpo", "step": 0'), process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 143, said
    assert f"alpagym train resume={tmp_path / 'run'}" in said.replace("\n", "")
    state = load_state(tmp_path / "run" / STATE_FILE)
    assert state["iterations"] >= 1  # of this very iteration, though save_every is 2
    assert cli.main(["train", f"resume={tmp_path / 'run'}"]) == 0
    assert_same(tmp_path / "run", whole)


def test_a_disk_that_is_full_loses_nothing_that_was_saved(tmp_path, whole, monkeypatch, capsys):
    """Writes above a size fail, as on a full disk; the state is larger, metrics are not."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    from alpagym import training_job as module

    saves, save = [], module.save_state

    def limited(path, state):
        saves.append(path)
        if len(saves) == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        try:
            save(path, state)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            if len(saves) == 2:
                kept = load_state(path)  # the one before, whole
                assert kept["iterations"] == 2

    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    monkeypatch.setattr(module, "save_state", limited)
    try:
        assert cli.main(arguments(tmp_path)) == 0
    finally:
        signal.signal(signal.SIGXFSZ, ignored)
    assert "could not save" in capsys.readouterr().err
    assert_same(tmp_path / "run", whole)


def test_a_disk_that_is_full_for_some_iterations_does_not_end_a_run(
    tmp_path, whole, monkeypatch, capsys
):
    """No file grows for three iterations: rows are kept, and written when the disk takes them."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    run, iterate, seen = tmp_path / "run", GrpoTrainer.iterate, {}

    def limited(self, iteration):
        if iteration == 1:
            rows = (run / "metrics.jsonl").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (rows + 100, hard))  # cuts a row in two
        elif iteration == 4:
            seen["rows"] = (run / "metrics.jsonl").read_text().splitlines()
            seen["state"] = (run / STATE_FILE).exists()
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        return iterate(self, iteration)

    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    monkeypatch.setattr(GrpoTrainer, "iterate", limited)
    try:
        assert cli.main(arguments(tmp_path)) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert len(seen["rows"][-1]) == 100
    assert not seen["state"]
    said = capsys.readouterr().err.replace("\n", " ")
    assert said.count("could not save") == 1
    assert said.count("everything is saved again") == 1
    weights, rows, flight = result(run)
    others, other_rows, other_flight = result(whole)
    assert (rows, flight) == (other_rows, other_flight)
    missing = {name.partition(": ")[0] for name in others.keys() - weights.keys()}
    assert missing == {f"checkpoints/policies/000000{i}.safetensors" for i in (2, 3, 4)}
    assert all(torch.equal(tensor, others[name]) for name, tensor in weights.items())
    assert curves(run) == curves(whole)


def test_a_report_that_does_not_fit_is_written_later(tmp_path, whole, monkeypatch, capsys):
    import resource

    from alpagym import train as module

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    write = module.write_report

    def limited(*args):
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        return write(*args)

    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    monkeypatch.setattr(module, "write_report", limited)
    try:
        assert cli.main(arguments(tmp_path)) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"`alpagym train resume={tmp_path / 'run'}` goes on" in said
    assert not (tmp_path / "run" / "report.html").exists()
    monkeypatch.setattr(module, "write_report", write)
    assert cli.main(["train", f"resume={tmp_path / 'run'}"]) == 0
    assert (tmp_path / "run" / "report.html").is_file()
    assert_same(tmp_path / "run", whole)


def curves(run: Path) -> dict[str, list[int]]:
    """Steps of each curve that TensorBoard would show."""
    found: dict[str, list[int]] = {}
    for file in sorted((run / "tensorboard").iterdir()):
        for record in RawEventFileLoader(str(file)).Load():
            event = Event.FromString(record)
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
    return found


def test_a_state_goes_there_and_back(tmp_path):
    state = {
        "a": torch.arange(3, dtype=torch.int64),
        "b": {"c": torch.tensor(1.5), "d": {"0": {"e": torch.rand(2, 2)}}, "f": 7},
        "g": "text",
    }
    save_state(tmp_path / "x" / "state.safetensors", state)
    found = load_state(tmp_path / "x" / "state.safetensors")
    assert torch.equal(found["a"], state["a"])
    assert found["b"]["c"] == 1.5
    assert torch.equal(found["b"]["d"]["0"]["e"], state["b"]["d"]["0"]["e"])
    assert (found["b"]["f"], found["g"]) == (7, "text")


def test_damaged_states_are_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    save_state(path, {"a": torch.rand(100), "b": {"c": torch.rand(10)}, "iterations": 3})
    whole = path.read_bytes()
    generator = random.Random(0)
    for kind in range(60):
        data = bytearray(whole)
        if kind % 2:
            data = data[: generator.randrange(len(data))]
        else:
            data[generator.randrange(min(len(data), 300))] ^= 1 << generator.randrange(8)
        path.write_bytes(data)
        with contextlib.suppress(CheckpointError):  # a flipped bit of a number is not seen
            load_state(path)
    path.write_bytes(whole[:200])
    with pytest.raises(CheckpointError, match=r"not the state of a run: [^\n]*$") as caught:
        load_state(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda run: None, "found no config.yaml there"),
        (lambda run: (run / "config.yaml").write_text("seed: [1"), "config.yaml: "),
        (lambda run: (run / "config.yaml").write_text("sed: 1"), "config.yaml: "),
    ],
)
def test_what_is_no_run_is_refused(tmp_path, make, sentence, capsys):
    make(tmp_path)
    assert cli.main(["train", f"resume={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.splitlines()) == 1


def cut_short(whole: Path, folder: Path) -> Path:
    """A copy of a run as it was before its end."""
    run = folder / "cut"
    shutil.copytree(whole, run)
    (run / "report.html").unlink()
    return run


@pytest.mark.parametrize(
    "changed",
    ["seed=4", "grpo.kl_weight=0.2", "grpo=ppo", "policy.width=16", "stream.scenarios=4", "name=x"],
)
def test_what_a_run_learns_from_cannot_change_in_its_middle(tmp_path, whole, changed, capsys):
    run = cut_short(whole, tmp_path)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert cli.main(["train", f"resume={run}", changed]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert f"got {changed.partition('=')[0]}" in said
    assert before == {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}


def test_a_run_may_go_on_for_longer(tmp_path, whole):
    run = cut_short(whole, tmp_path)
    assert cli.main(["train", f"resume={run}", "grpo.iterations=8", "num_replays=0"]) == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if r["phase"] == "grpo"] == list(range(8))
    summary = json.loads((run / "summary.json").read_text())
    assert summary["train"]["agent_steps_per_s"] > 0


def test_two_processes_do_not_share_a_run(tmp_path, whole, capsys):
    run = cut_short(whole, tmp_path)
    lock = Lock(run)
    before = (run / "metrics.jsonl").read_bytes()
    assert cli.main(["train", f"resume={run}"]) == 2
    assert "another process is at work on this run" in capsys.readouterr().err
    assert (run / "metrics.jsonl").read_bytes() == before
    lock.close()
    assert cli.main(["train", f"resume={run}"]) == 0


def test_a_run_that_another_process_begins_is_left_alone(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    lock = Lock(tmp_path / "run")
    assert cli.main(arguments(tmp_path)) == 2
    assert "another process is at work on this run" in capsys.readouterr().err
    assert not list((tmp_path / "run").iterdir())
    lock.close()


def test_a_state_of_other_scenarios_is_refused(tmp_path, whole, capsys):
    run = cut_short(whole, tmp_path)
    state = load_state(run / STATE_FILE)
    state["key"] = state["key"] + 1
    save_state(run / STATE_FILE, state)
    assert cli.main(["train", f"resume={run}"]) == 2
    assert "expected the scenarios that the run began with" in capsys.readouterr().err


def catches_sigterm(process: subprocess.Popen) -> bool:
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("SigCgt"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False  # a process that has ended


@pytest.mark.parametrize(
    ("workers", "after_s"),
    [
        (2, 1.5),
        pytest.param(1, 0.0, marks=pytest.mark.heavy),
        pytest.param(1, 0.5, marks=pytest.mark.heavy),
    ],
)
def test_sigterm_ends_what_cannot_be_saved_at_once(tmp_path, workers, after_s):
    """While modules load, or scenarios are made: long before there is a run directory."""
    ours = ("data.train", "data.workers")
    kept = [option for option in OPTIONS if not option.startswith(ours)]
    process = start(tmp_path, [*kept, "data.train=100000", f"data.workers={workers}"])
    until(lambda: catches_sigterm(process), process)
    time.sleep(after_s)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 143, said
    assert said.splitlines()[-1] == "alpagym: stopped"
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_complete_is_left_alone(whole, capsys):
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*")}
    assert cli.main(["train", f"resume={whole}"]) == 2
    assert "this run is complete" in capsys.readouterr().err
    assert before == {p: p.stat().st_mtime_ns for p in whole.rglob("*")}


def test_half_a_line_of_metrics_is_forgotten(tmp_path, whole):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text((whole / "config.yaml").read_text())
    rows = (whole / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(rows[: rows.index('"grpo"') + 30])
    begun = Begun.of(run)
    assert not begun.imitated
    assert [row["phase"] for row in begun.history] == ["scenarios"]


@pytest.mark.heavy
def test_fifty_kills_at_random_moments(tmp_path, whole):
    """During training and while files are written: every run ends in the same bits."""
    generator = random.Random(1)
    kills = 0
    while kills < 50:
        folder = tmp_path / str(kills)
        process, run = start(folder), folder / "run"
        while True:
            until(metrics(run, '"imitation"'), process)
            time.sleep(generator.uniform(0.0, 3.0))
            if process.poll() is not None:
                break
            process.kill()
            process.communicate()
            kills += 1
            resume = [*COMMAND, "train", f"resume={run}"]
            process = subprocess.Popen(resume, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        assert process.returncode == 0
        assert_same(run, whole)
