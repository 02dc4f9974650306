"""Exports of scenarios whose names and notes are hostile: nothing is written outside the folder."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from alpagym.scenarios.export import FORMATS, export
from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.scenario import Scenario
from reading import only
from scenario_files import json_scenario, write_json

PARTS = [
    "/", "\\", "..", ".", "../../x", "/etc/x", "C:", "\0", "\n", "\r", "\x1b[2J", "\ud800",
    "\udfff", "\u202e", "\u2028", "~", "$(touch x)", "`x`", "%s", "{0}", "CON", "aux.txt", " ", "",
    "-rf", "|", "é" * 300, "x" * 5000, "\U0001f600" * 100, "dataset_summary.pkl", ".part",
    "a/../../b", "\t",
]  # fmt: skip


def odd_text(rng: np.random.Generator) -> str:
    return "".join(PARTS[i] for i in rng.integers(0, len(PARTS), int(rng.integers(1, 5))))


def odd_scenarios(scenario: Scenario, rng: np.random.Generator) -> list[Scenario]:
    """Some scenarios with odd texts in one or all of their fields, now and then the same ones."""
    made: list[Scenario] = []
    for _ in range(3):
        one = copy.copy(scenario)
        one.notes = [odd_text(rng) for _ in range(int(rng.integers(3)))]
        fields = ["id", "dataset", "license", "source", "kind"]
        for name in fields if rng.random() < 0.3 else [fields[int(rng.integers(len(fields)))]]:
            setattr(one, name, odd_text(rng))
        made.append(one)
    return [*made, made[0]] if rng.random() < 0.3 else made


def listing(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("count", [50, pytest.param(2000, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("format", FORMATS)
def test_nothing_is_written_outside(
    format: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    scenario = only(write_json(work / "made.json", json_scenario()))
    written = refused = 0
    for number in range(count):
        given = odd_scenarios(scenario, np.random.default_rng([3, number]))
        out = work / "out" / str(number)
        before = listing(tmp_path)
        report, sentence = None, ""
        try:
            report = export(given, out, format)
        except ValueError as error:
            sentence = str(error)
        if report is None:
            refused += 1
            assert sentence.isprintable(), number
            assert listing(tmp_path) - before <= {work / "out", out}, number
            continue
        written += 1
        new = listing(tmp_path) - before - {work / "out", out}
        assert all(path.parent == out for path in new), number
        assert len(set(report.files)) == len(given), number
        assert set(report.files) <= new, number
        assert not any(path.name.endswith(".part") for path in new), number
        if format == "gpudrive":
            for path in report.files:
                json.loads(path.read_bytes())
        if number % 25 == 0:  # what was exported is read, or refused in a sentence of its own
            load_scenarios(report.files[0].parent)
        shutil.rmtree(out)
    assert written
    assert written + refused == count
