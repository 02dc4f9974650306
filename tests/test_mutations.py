"""Mutated files of every format: no crash, hang, code run or file written, and one sentence each.

A number that failed is read again alone by `python tests/mutating.py SUBJECT 1 FOLDER NUMBER`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from alpagym.scenarios.readers import READERS
from mutating import run
from mutations import FILES, SUBJECTS, TABLES

GROUPS = {"files": FILES, "tables": TABLES, "nuplan": ["nuplan"], "usdz": ["usdz", "asl"],
          "opendrive": ["opendrive"]}  # fmt: skip
"""Subjects that are read in one process: what it takes to start is more than 50 small files."""


def check(subjects: Sequence[str], count: int, folder: Path) -> None:
    for name, outcome in run(subjects, count, folder).items():
        print(outcome.line(name))
        assert not outcome.faults, f"{name}: " + "\n".join(outcome.faults[:20])
        assert outcome.count == count
        assert outcome.read
        assert outcome.refused


@pytest.mark.parametrize("group", GROUPS)
def test_mutations(group: str, tmp_path: Path) -> None:
    check(GROUPS[group], 50, tmp_path)


@pytest.mark.heavy
@pytest.mark.parametrize("subject", SUBJECTS)
def test_many_mutations(subject: str, tmp_path: Path) -> None:
    check([subject], 2000, tmp_path)


def test_each_reader_has_a_subject() -> None:
    own = {"store", "plugin", "womd_example", "export_gpudrive", "export_scenarionet"}
    assert len(set(SUBJECTS) - own) == len(READERS)
    assert {name for group in GROUPS.values() for name in group} == set(SUBJECTS)
