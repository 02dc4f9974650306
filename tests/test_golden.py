"""Every line of docs/parity.md, computed again: golden outputs of other programs, and independent
checks."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from alpagym.metrics.alpasim.episode import Episode, Plan, Reply
from alpagym.metrics.alpasim.scorers import measure
from parity import alpasim_metrics
from parity.alpasim_shapely import Tally
from parity.row import Row

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import parity_page as script  # noqa: E402


def documented() -> dict[str, dict[tuple[str, ...], tuple[str, ...]]]:
    """Of each module's table on the page, cells by metric and reference."""
    tables: dict[str, dict[tuple[str, ...], tuple[str, ...]]] = {}
    for text in script.PAGE.read_text().split("\n## ")[1:]:
        name, *lines = text.splitlines()
        rows = [re.split(r" ?\| ?", line)[1:-1] for line in lines if line.startswith("| `")]
        if rows:
            tables[name] = {tuple(row[:2]): tuple(row[2:]) for row in rows}
            assert len(tables[name]) == len(rows), f"{name}: two rows of one name"
    return tables


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("name", script.modules())
def test_others_agree_as_the_page_says(name, every) -> None:
    """Without the data beside the repository only the random checks run, and not against it.

    Errors may have shrunk, or doubled at most: another machine rounds otherwise. Of the independent
    checks, all cases of the page or an eighth of them.
    """
    golden, data = (d if (d := script.SHARED / n).is_dir() else None for n in ("golden", "data"))
    rows = script.rows_of(name, golden, data, every)
    if not rows:
        pytest.skip(f"no golden data: {script.SHARED / 'golden'} is not a folder")
    for row in rows:
        assert row.ok, row
    if not (golden and data):
        return
    page, found = documented()[name], {script.cells(row)[:2]: row for row in rows}
    assert found.keys() <= page.keys(), "run scripts/parity_page.py"
    assert every > 1 or found.keys() == page.keys(), "run scripts/parity_page.py"
    for key, row in found.items():
        cases, error, tolerance, flips = page[key]
        now = script.cells(row)
        assert now[4] == tolerance, f"{key}: the page is out of date"
        if every == 1 or not re.search("shapely|scipy", row.reference):
            assert (now[2], now[5]) == (cases, flips), f"{key}: the page is out of date"
        if error:
            assert row.max_error <= max(2.0 * float(error), 1e-12), f"{key}: not {error} any more"


def test_the_page_has_a_table_for_each_module_and_no_other() -> None:
    assert list(documented()) == script.modules(), "run scripts/parity_page.py"
    text = script.PAGE.read_text()
    assert text.startswith(script.HEAD)
    assert text.endswith(script.NOTES)


def test_a_relative_tolerance_is_that_of_each_number() -> None:
    want = np.array([0.0, 1000.0])
    for off, ok in (([0.9e-3, 0.1], True), ([2e-3, 0.0], False), ([0.0, 0.2], False)):
        row = Row.of("m", "r", np.array(off), want, 1e-3, 1e-4)
        assert row.ok == ok
        assert row.max_error == max(off)
    assert not Row.of("m", "r", np.array([np.nan, 0.0]), want, 1e-3, 1e-4).ok


TIMES = 100_000 * np.arange(21)


def driven(x: float, speed: float) -> np.ndarray:
    """Poses along +x."""
    return np.stack([x + 1e-6 * speed * TIMES, *np.zeros((2, len(TIMES)))], -1)


def grazing_episode() -> Episode:
    """A plan that comes to 2 mm before the actor ahead, which the ego itself does not reach."""
    ego = driven(0.0, 1.0)
    return Episode(
        times_us=TIMES,
        ego_pose=ego,
        ego_z=np.zeros(len(TIMES)),
        ego_size=np.array([4.0, 2.0]),
        actor_pose=driven(12.0, 0.0)[:, None],
        actor_there=np.ones((len(TIMES), 1), bool),
        actor_size=np.full((1, 2), 2.0),
        log=Plan(TIMES, ego),
        engaged_us=0,
        replies=[
            Reply(int(TIMES[k]), int(TIMES[k]), Plan(TIMES[k:], pose[k:]))
            for k, pose in ((0, ego), (4, driven(0.0, 8.998 / 2.0)))
        ],
        shrink=0.0,
        roundness=0.0,
    )


class OneRollout(alpasim_metrics.Golden):
    """Three replies, of which the second is empty and the third grazes."""

    def __init__(self, recorded: float) -> None:
        self.arrays = {
            "d_off": np.array([0, 3]),
            "d_now_us": TIMES[[0, 2, 4]],
            "dp_off": np.array([0, 21, 21, 38]),
        }
        nothing = np.full(3, np.nan)
        names = (*alpasim_metrics.REPLIES, "safety_monitor_triggered")
        self.arrays |= {f"dm_{name}": nothing for name in names}
        self.arrays["dm_open_loop_collision"] = np.array([0.0, np.nan, recorded])

    def episode(self, r: int) -> Episode:
        assert r == 0
        return grazing_episode()


@pytest.mark.parametrize("recorded", [0.0, 1.0])
def test_a_grazing_plan_after_an_empty_reply_is_undecided(recorded) -> None:
    found = {"open_loop_collision": measure(grazing_episode())["open_loop_collision"]}
    assert found["open_loop_collision"].values.tolist() == [0.0, 0.0]
    tallies: dict[str, Tally] = defaultdict(Tally)
    alpasim_metrics._compare_replies(OneRollout(recorded), 0, found, tallies.__getitem__)
    tally = tallies["open_loop_collision"]
    assert (tally.cases, tally.flips, tally.wrong) == (3, int(recorded), 0)
