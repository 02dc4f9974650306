"""Write docs/parity.md: how near our dynamics, contact, metrics and rewards come to others'.

Each module of tests/parity compares one part with golden outputs of the program it follows (the
folder ../shared/golden beside the repository) or with a written independent check, and gives rows;
tests/test_golden.py computes them again and holds them against the page.

    python scripts/parity_page.py [module ...]
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
PAGE = ROOT / "docs" / "parity.md"
sys.path.insert(0, str(ROOT / "tests"))

from parity.row import Row  # noqa: E402

HEAD = """\
# Parity

Made by `python scripts/parity_page.py`; `tests/test_golden.py` computes every line again: with
`make heavy` as it stands here, with `make test` from an eighth of the recordings. There is a table
for each module of `tests/parity`. *Cases* counts the numbers or decisions compared. For
numbers, *max error* is the largest absolute difference and *tolerance* what it may be, in the
quantity's own unit or that in brackets; `a + b x size` means that each number may be off by `a` and
`b` times what is wanted. For decisions, *flips in band* counts those that fall differently where
the reference itself is undecided (1 cm for boxes, or what the golden data call fragile); none may
differ outside.

Rows called *recorded* are over all 64 scenarios that load from the recordings beside the
repository, of every format that has a reader but PufferDrive's: 38 of the Waymo Open Motion Dataset
(28 GPUDrive and Nocturne JSON, 8 ScenarioNet pickles, a `Scenario` and a `tf.Example` TFRecord), 5
of nuScenes (ScenarioNet pickles), 3 of Argoverse 2 (1 motion, 2 sensor logs), 14 of 12 CommonRoad
files, 1 RDS-HQ clip, and a synthetic junction in 3 formats (GPUDrive JSON, RDS-HQ, ClipGT). Four of
these have an ego alone, and hence no pairs of boxes. What is taken of each: every tenth frame
(`alpasim_metrics`, `nuplan`, `waymax`, there a third of the boxes for off-road), every frame of the
ego for places on the map of `nuplan` and every other one for its `ttc`, up to 60 pairs of moving
agents of every tenth frame (`ttc`), 4 s of the ego and those shifted at random (`navsim`, without
the one scenario that is recorded every 0.5 s).
"""

NOTES = """
## Notes

Where a row lets more pass than its reference promises, or covers less:

- `alpasim.dist_traveled_m`, 1 flip: the ego stands, and its own path passes its center twice.
  Which place on the path is nearest, AlpaSim leaves to float32; its value counts where it is the
  arc length of a place as near as ours, to two roundings of the coordinates.
- `alpasim.offroad`, 5 flips, and `alpasim.overlaps`, 1 flip: boxes 10 mm larger or smaller decide
  otherwise, or two road edges are equally near (`frag_offroad` of the golden data).
- `alpasim.progress [m]` and `progress_rel [m]`: what is left, as meters on the path, once 2e-5 of
  normalized progress is taken off; paths below 2 m are left out, as float32 makes them meaningless.
- `alpamayo.comfort.min` and `.max`: third differences of float32 paths reach 3e3 m/s^3, hence a
  tolerance that grows with the size.
- `alpamayo.tokens.fut_tokens`, 28 flips each: one bin off at most, within the bin margins that the
  golden data give.
- `alpamayo.tokens.fut_decoded_xyz_spinning`: saturated tokens turn the path round and round, and
  one float32 rounding of the yaw, seen over the path, is more than the 0.2 mm measured on drives.
  Such cases are in units of that rounding; upstream's own float32 and float64 are 0.6 apart.
- `ttc.drac overlap`, 3 flips: TwoDimSSM's DRAC names no overlap where its own TTC, and all others
  here, find the boxes overlapping.
- `waymax.offroad, in the simulator`: 599 of 804 boxes. The simulator goes by segments of edges on
  the box's level, Waymax by points with heights counting double; boxes for which the nearest edge
  differs, at gaps and at open ends of edges, are left out.
- `waymax.offroad corners`, 1 and 40 flips: corners within 1 cm of the line, beyond an open end, as
  near to another edge, or within half a meter of a bend, where the side depends on the definition.
"""

TABLE = """\
| metric | reference | cases | max error | tolerance | flips in band |
| --- | --- | --- | --- | --- | --- |
"""


def modules() -> list[str]:
    """Names of the modules that give rows."""
    files = (ROOT / "tests" / "parity").glob("*.py")
    return sorted(p.stem for p in files if "\ndef rows(golden" in p.read_text())


def rows_of(name: str, golden: Path | None, data: Path | None, every: int = 1) -> list[Row]:
    """Everything that one module compares, as far as the data are there.

    Of recordings, and of random cases that take long, one in `every`.
    """
    module = importlib.import_module(f"parity.{name}")
    rows = list(module.rows(golden)) if golden else []
    if hasattr(module, "independent_rows"):
        rows += module.independent_rows(data, every)
    return rows


def cells(row: Row) -> tuple[str, ...]:
    """Metric, reference, cases, largest error, tolerance, flips."""
    error = tolerance = ""
    if row.tolerance > 0:
        error, tolerance = f"{row.max_error:.1e}", f"{row.tolerance:g}"
        tolerance += f" + {row.relative:g} x size" if row.relative else ""
    flips = str(row.flips) if row.tolerance == 0 or row.flips else ""
    return f"`{row.metric}`", row.reference, f"{row.cases:,}", error, tolerance, flips


def line(row: Row) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells(row))} |"


def page(tables: Mapping[str, Iterable[Row]]) -> str:
    """The page, with a table for each module."""
    parts = [
        f"\n## {name}\n\n" + TABLE + "".join(line(row) + "\n" for row in rows)
        for name, rows in tables.items()
    ]
    return HEAD + "".join(parts) + NOTES


def main(names: Sequence[str]) -> int:
    tables: dict[str, list[Row]] = {}
    for name in names or modules():
        tables[name] = rows_of(name, SHARED / "golden", SHARED / "data")
        for row in tables[name]:
            print(line(row), "" if row.ok else " <-- FAILS", flush=True)
    if not names:
        PAGE.write_text(page(tables))
    return int(not all(row.ok for rows in tables.values() for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
