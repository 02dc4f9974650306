"""Mutated files of every format: no crash, hang, code run or file written, and one sentence each.

A number that failed is read again alone by `python tests/mutating.py SUBJECT 1 FOLDER NUMBER`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mutating import run
from mutations import SUBJECTS


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("count", [50, pytest.param(2000, marks=pytest.mark.heavy)])
def test_mutations(subject: str, count: int, tmp_path: Path) -> None:
    outcome = run(subject, count, tmp_path)
    print(outcome.line(subject))
    assert not outcome.faults, "\n".join(outcome.faults[:20])
    assert outcome.count == count
    assert outcome.read
    assert outcome.refused
