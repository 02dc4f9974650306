"""`alpagym train backend=cosmos` starts a program, follows it, and tells what came of it."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest
import torch

from alpagym.checkpoint import load_policy
from alpagym.cli import FAILED, main
from alpagym.grpo.faults import TrainingError
from alpagym.interop.cosmos.config import RUN, check_keys
from alpagym.interop.cosmos.engine import STEPS_FILE, engine_of
from alpagym.interop.cosmos.launch import LOG_FILE, TOML_FILE
from alpagym.resume import Stopped
from alpagym.run_directory import REPORT_FILE, read_rows
from cosmos_runs import go, prepared

DOES_IT_ALL = """
import sys, tomllib
from pathlib import Path
from alpagym.interop.cosmos.engine import engine_of

given = dict(zip(sys.argv[1:-1:2], sys.argv[2:-1:2]))
assert sys.argv[-1] == "alpagym.interop.cosmos.entry", sys.argv
assert given["--policy"] == "1" and given["--port"] == "8123", given
run = Path(tomllib.loads(Path(given["--config"]).read_text())["custom"]["alpagym_run"])
engine = engine_of(run)
for step in range(3):
    values = engine.learn(engine.drive(range(4 * step, 4 * step + 4)))
    engine.note(run, values)
    engine.keep(run)
engine.save(run)
"""


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alpagym.training_job.require", lambda: None)


def program(folder: Path, text: str) -> str:
    """An option: something that stands for the program cosmos-rl."""
    path = folder / "cosmos-rl"
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return f"cosmos.command={path}"


def test_options_without_effect_are_told_where_they_are_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = prepared(tmp_path, "idle", program(tmp_path, ""), "eval_every=0")
    assert main(["train", f"resume={run}", "cosmos.launch=true"]) == FAILED
    told = " ".join(capsys.readouterr().err.split())
    assert "grpo.resample_dead has no effect there" in told
    assert "eval_every" not in told


def test_a_run_is_told_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    run = go(tmp_path, "whole", program(tmp_path, DOES_IT_ALL), "cosmos.port=8123")
    assert (run / REPORT_FILE).is_file()
    rows = [row for row in read_rows(run / "metrics.jsonl") if row["phase"] == "grpo"]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert all(row["agent_steps"] > 0 for row in rows)
    flight = read_rows(run / "flight.jsonl")
    assert [len(row["rolls"][0]["groups"]) for row in flight] == [4, 4, 4]
    assert len(list((run / "checkpoints" / "policies").iterdir())) == 2
    token = flight[1]["return_max"]
    page = tmp_path / "page.html"
    assert main(["render", f"token={token}", f"run={run}", f"out={page}"]) == 0
    assert page.is_file()


def test_what_is_prepared_is_started_by_hand_and_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = prepared(tmp_path, "by_hand")
    nested = tomllib.loads((run / "cosmos" / TOML_FILE).read_text())
    check_keys(nested)
    assert Path(nested["custom"][RUN]) == run.resolve()
    assert not (run / REPORT_FILE).exists()
    stale = run / "checkpoints" / "policy.safetensors"
    stale.touch()
    twice = [{"step": step, "values": {}, "flight": {}} for step in (0, 1, 1)]
    (run / "cosmos" / STEPS_FILE).write_text("".join(json.dumps(row) + "\n" for row in twice))
    assert main(["train", f"resume={run}", "cosmos.port=8200"]) == 0  # nobody has started it yet
    assert not stale.exists()
    told = "".join(capsys.readouterr().err.split())  # wherever lines were broken
    assert f"--config{run}/cosmos/{TOML_FILE}--port8200" in told
    engine = engine_of(run)
    for step in range(3):
        engine.note(run, engine.learn(engine.drive(range(4 * step, 4 * step + 4))))
    engine.save(run)
    file = run / "cosmos" / STEPS_FILE
    rows = [row | {"at": 10.0 * row["step"]} for row in read_rows(file)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["train", f"resume={run}"]) == 0
    done = [row["values"]["agent_steps"] for row in rows]
    pace = json.loads((run / "summary.json").read_text())["train"]["agent_steps_per_s"]
    assert pace == pytest.approx((done[2] - done[0]) / 20.0, rel=1e-3)
    logged = [row for row in read_rows(run / "metrics.jsonl") if row["phase"] == "grpo"]
    assert logged[2]["agent_steps_per_s"] == pytest.approx((done[2] - done[1]) / 10.0)
    assert (run / REPORT_FILE).is_file()
    learned = load_policy(run)[0].state_dict()
    for name, weight in engine.policy.state_dict().items():
        assert torch.equal(weight, learned[name]), name


def test_an_early_end_is_told_with_its_cause(tmp_path: Path) -> None:
    broken = program(tmp_path, "raise SystemExit('RuntimeError: No GPUs available')")
    with pytest.raises(TrainingError, match=r"ended with status 1 after 0 of 3 iter.*No GPUs"):
        go(tmp_path, "broken", broken)
    idle = program(tmp_path, "")
    with pytest.raises(TrainingError, match=r"ended with status 0 after 0 of 3 iterations: \S+log"):
        go(tmp_path, "idle", idle)
    assert (tmp_path / "idle" / "cosmos" / LOG_FILE).is_file()
    assert not (tmp_path / "idle" / "cosmos" / STEPS_FILE).exists()


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cosmos.command: expected a program, .*no_such_program"):
        go(tmp_path, "none", "cosmos.command=no_such_program")
    assert not (tmp_path / "none").exists()


def test_options_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"max_kept: cosmos-rl 0.4.6 has no such key"):
        prepared(tmp_path, "early", "cosmos.options={train.ckpt.max_kept: 3}")
    assert not (tmp_path / "early").exists()


CLEANS_UP = """
import os, signal, sys, time

def end(*_):
    time.sleep(0.5)
    open(sys.argv[1] + ".cleaned", "w").close()
    os._exit(0)

signal.signal(signal.SIGTERM, end)
open(sys.argv[1] + ".part", "w").write(f"{os.getppid()} {os.getpid()}")
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(600)
"""


def test_sigterm_ends_all_processes_and_lets_them_clean_up(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    text = f"import subprocess, sys\ncode = {CLEANS_UP!r}\n"
    text += (
        f"subprocess.run([sys.executable, '-c', code, {str(pid_file)!r}], start_new_session=True)\n"
    )
    waits = program(tmp_path, text)

    def stop() -> None:
        while not pid_file.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    with pytest.raises(Stopped, match="goes on"):
        go(tmp_path, "stopped", waits)
    thread.join()
    assert Path(f"{pid_file}.cleaned").exists()
    for pid in map(int, pid_file.read_text().split()):
        stat = Path(f"/proc/{pid}/stat")
        gone_or_zombie = not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"
        assert gone_or_zombie, pid
