"""The benchmark runner: one metric a line, one JSON, and two of them compared."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What one quick case prints, and the JSON that it writes."""
    path = tmp_path_factory.mktemp("bench") / "a.json"
    done = run("--quick", "--cases", "procedural.log.w256", "--json", str(path))
    assert done.returncode == 0, done.stderr
    return done.stdout, path


def test_every_line_is_a_metric_and_a_positive_value(result) -> None:
    lines = result[0].splitlines()
    for line in lines:
        found = re.fullmatch(r"(procedural\.log\.w256\.[a-z_]+) ([-+.\deE]+)", line)
        assert found, line
        assert float(found[2]) > 0, line
    measured = {line.split()[0].rsplit(".", 1)[1].split("_")[0] for line in lines}
    assert {"step", "observe", "reset", "fork", "noise", "agent"} <= measured


def test_json_names_the_machine_and_holds_what_was_printed(result) -> None:
    printed, path = result
    stored = json.loads(path.read_text())
    facts = {"device", "cpu", "cores", "threads", "torch", "compiler", "commit"}
    assert facts <= set(stored["machine"])
    assert stored["quick"] is True
    for line in printed.splitlines():
        name, value = line.split()
        metric = stored["metrics"][name]
        assert metric["value"] == pytest.approx(float(value), rel=1e-4)
        assert metric["repeats"] >= 3
        assert metric["spread"] >= 0


def test_compare_prints_ratios_and_what_differs_between_the_machines(result, tmp_path) -> None:
    stored = json.loads(result[1].read_text())
    name = "procedural.log.w256.step_us_per_world_step"
    stored["metrics"][name]["value"] *= 100
    stored["machine"]["cpu"] = "another"
    other = tmp_path / "b.json"
    other.write_text(json.dumps(stored))
    done = run("--compare", str(result[1]), str(other))
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line.split() for line in done.stdout.splitlines()}
    assert lines[name][3] == "100.000"
    assert len(lines) == len(stored["metrics"]) + 1
    unchanged = lines["procedural.log.w256.fork_us_per_world"]
    assert unchanged[3:] == ["1.000", "~"]
    assert done.stdout.splitlines()[-1].endswith("| another")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--cases", "nothing"), "--cases: expected any of .*, got nothing"),
        (("--compare", "missing.json", "missing.json"), "missing.json"),
    ],
)
def test_bad_arguments_get_one_sentence(arguments, sentence) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert re.search(sentence, done.stderr)
    assert "Traceback" not in done.stderr
