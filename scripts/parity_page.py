"""Write docs/parity.md: how near our dynamics, contact, metrics and rewards come to others'.

Each module of tests/parity compares one part with golden outputs of the program it follows (the
folder ../shared/golden beside the repository) or with a written independent check, and gives rows;
tests/test_golden.py computes them again and holds them against the page.

    python scripts/parity_page.py [module ...]
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
PAGE = ROOT / "docs" / "parity.md"
sys.path.insert(0, str(ROOT / "tests"))

from parity.row import Row  # noqa: E402

HEAD = """\
# Parity

Made by `python scripts/parity_page.py`; `tests/test_golden.py` computes every line again. *Cases*
counts the numbers or decisions compared. For numbers, *max error* is the largest absolute
difference and *tolerance* what it may be, in the quantity's own unit. For decisions, *flips in
band* counts those that fall differently where the reference itself is within its band of
undecidedness (1 cm for boxes, or what the golden data call fragile); none may differ outside.

| metric | reference | cases | max error | tolerance | flips in band |
| --- | --- | --- | --- | --- | --- |
"""


def modules() -> list[str]:
    """Names of the modules that give rows."""
    files = (ROOT / "tests" / "parity").glob("*.py")
    return sorted(p.stem for p in files if "\ndef rows(golden" in p.read_text())


def rows_of(name: str, golden: Path | None, data: Path | None) -> list[Row]:
    """Everything that one module compares, as far as the data are there."""
    module = importlib.import_module(f"parity.{name}")
    rows = list(module.rows(golden)) if golden else []
    if hasattr(module, "independent_rows"):
        rows += module.independent_rows(data)
    return rows


def line(row: Row) -> str:
    """A row of the page's table."""
    numbers = ("", "") if row.tolerance == 0 else (f"{row.max_error:.1e}", f"{row.tolerance:g}")
    flips = str(row.flips) if row.tolerance == 0 or row.flips else ""
    cells = (f"`{row.metric}`", row.reference, f"{row.cases:,}", *numbers, flips)
    return f"| {' | '.join(cells)} |"


def page(rows: Iterable[Row]) -> str:
    return HEAD + "\n".join(line(row) for row in rows) + "\n"


def main(names: Sequence[str]) -> int:
    rows = []
    for name in names or modules():
        for row in rows_of(name, SHARED / "golden", SHARED / "data"):
            rows.append(row)
            print(line(row), "" if row.ok else " <-- FAILS", flush=True)
    if not names:
        PAGE.write_text(page(rows))
    return int(not all(row.ok for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
