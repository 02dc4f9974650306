"""Every line of docs/parity.md, computed again: golden outputs of other programs, and independent
checks."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import parity_page as script  # noqa: E402


def documented() -> dict[tuple[str, str], list[str]]:
    """Cells of the page's table by metric and reference."""
    lines = script.PAGE.read_text().splitlines()
    cells = [re.split(r" *\| *", line.strip("| ")) for line in lines if line.startswith("| `")]
    return {(c[0].strip("`"), c[1]): c[2:] for c in cells}


@pytest.mark.parametrize("name", script.modules())
def test_others_agree(name) -> None:
    """Without the data beside the repository only the random checks run."""
    golden, data = (d if (d := script.SHARED / n).is_dir() else None for n in ("golden", "data"))
    rows = script.rows_of(name, golden, data)
    if not rows:
        pytest.skip(f"no golden data: {script.SHARED / 'golden'} is not a folder")
    page = documented() if golden and data else {}
    for row in rows:
        assert row.ok, row
        if not page:
            continue
        cells = page.get((row.metric, row.reference))
        assert cells is not None, f"{row.metric}: not on the page: run scripts/parity_page.py"
        assert cells[0] == f"{row.cases:,}", f"{row.metric}: {script.PAGE.name} is out of date"


def test_the_page_lists_nothing_that_is_not_compared() -> None:
    assert documented(), "run scripts/parity_page.py"
    text = script.PAGE.read_text()
    assert text.startswith(script.HEAD)
