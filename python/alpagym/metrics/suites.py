"""The metrics of others by name, for `alpagym eval --metrics`: of each drive, and in total.

Metrics of plans (AlpaSim's min_ade, plan deviation and open-loop collision) are among them only
where plans are given: a drive holds where the ego went, not what its driver planned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from alpagym import rewards
from alpagym.metrics import alpasim, navsim, nuplan, ttc, waymax
from alpagym.metrics.alpasim.aggregate import run_level
from alpagym.metrics.alpasim.episode import Reply
from alpagym.metrics.drive import Drive
from alpagym.metrics.nuplan.aggregate import final_score
from alpagym.metrics.polygon_map import PolygonMap
from alpagym.metrics.scenario_map import polygon_map_of

FEWEST_STATES = 5
"""Drives of fewer states, the start included, are not judged by any suite."""
SHORTEST_RECORD = 2.0
"""AlpaSim's progress along shorter records is mostly rounding [m]."""


@dataclass(frozen=True)
class Measured:
    """One suite over some drives."""

    rows: list[dict[str, float]]
    """Numbers of each drive by name, NaN or missing where there is none; empty if not scored."""
    unscored: dict[int, str]
    """Why a drive has no score, by its index."""
    total: dict[str, float]
    """Of all scored drives together; what a name says, else the mean over those that have it."""

    @property
    def counts(self) -> dict[str, int]:
        """How many drives have each number of `rows`."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return {
            name: sum(not np.isnan(row.get(name, np.nan)) for row in self.rows) for name in names
        }


class Shared:
    """A drive, and what several suites ask of it, found once."""

    def __init__(self, drive: Drive, replies: Sequence[Reply] | None = None) -> None:
        self.drive, self.replies = drive, replies

    @cached_property
    def polygon_map(self) -> PolygonMap:
        return polygon_map_of(self.drive.scenario)

    @cached_property
    def alpasim(self) -> alpasim.AlpasimScore:
        return alpasim.score(self.drive, self.replies)


def measure(
    suites: Sequence[str],
    drives: Sequence[Drive],
    replies: Sequence[Sequence[Reply] | None] | None = None,
) -> dict[str, Measured]:
    """Score drives by some of `SUITES`; drives that cannot be scored say why.

    Args:
        suites: their names.
        drives: what is scored.
        replies: what the driver of each answered, as of `alpasim.score`.

    Raises:
        ValueError: an unknown suite.
    """
    for suite in suites:
        if suite not in SUITES:
            raise ValueError(f"metrics: expected one of {', '.join(SUITES)}, got {suite}")
    rows: dict[str, list[dict[str, float]]] = {suite: [] for suite in suites}
    unscored: dict[str, dict[int, str]] = {suite: {} for suite in suites}
    for i, drive in enumerate(drives):
        shared = Shared(drive, None if replies is None else replies[i])
        for suite in suites:
            try:
                rows[suite].append(_row(SUITES[suite][0], shared))
            except ValueError as error:
                rows[suite].append({})
                unscored[suite][i] = str(error)
    result = {}
    for suite in suites:
        scored = [row for row in rows[suite] if row]
        total = SUITES[suite][1](scored) if scored else {}
        result[suite] = Measured(rows[suite], unscored[suite], total)
    return result


def _row(one: Row, shared: Shared) -> dict[str, float]:
    states = len(shared.drive.pose) - shared.drive.start
    if states < FEWEST_STATES:
        raise ValueError(
            f"drive: expected {FEWEST_STATES} states or more from the start on, got {states}"
        )
    row = one(shared)
    if all(np.isnan(value) for value in row.values()):
        raise ValueError(f"drive: expected some number, got NaN for {', '.join(row)}")
    return row


def judged(result: alpasim.AlpasimScore, length: float) -> alpasim.AlpasimScore:
    """AlpaSim's score if it has one and its progress along `length` [m] of record means something.

    Raises:
        ValueError: it has none, or means nothing.
    """
    if result.unscored:
        raise ValueError(result.unscored)
    if length < SHORTEST_RECORD:
        raise ValueError(
            f"progress: expected a record of {SHORTEST_RECORD:g} m or more, below which AlpaSim's "
            f"is rounding, got {length:.2f} m"
        )
    return result


def _judged_by_alpasim(shared: Shared) -> alpasim.AlpasimScore:
    return judged(shared.alpasim, shared.drive.log_length)


def _alpasim(shared: Shared) -> dict[str, float]:
    return alpasim_row(_judged_by_alpasim(shared))


def alpasim_row(result: alpasim.AlpasimScore) -> dict[str, float]:
    """Offline aggregates after truncation, and the scene score."""
    score = np.nan if result.scene is None else result.scene.score
    return result.processed | {"scene_score": score}


def alpasim_total(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of all drives together, one of each scenario."""
    groups, _ = run_level(rows, [0] * len(rows))
    return {k: v for k, v in groups[0].items() if k not in ("rollout_uid", "n_clips")}


def _nuplan(shared: Shared) -> dict[str, float]:
    result = nuplan.score(shared.drive, shared.polygon_map)
    return {**result.scores, "closed_loop_score": result.final}


def _nuplan_total(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    scores = np.array([[row[name] for name in nuplan.SCORES] for row in rows])
    return _means(rows) | {"closed_loop_score": float(final_score(scores).mean())}


def _navsim(shared: Shared) -> dict[str, float]:
    """Terms of v2 after the human penalty filter, of which EPDMS is the product and mean; of v1."""
    result = navsim.score(shared.drive, shared.polygon_map)
    first = {f"v1_{name}": value for name, value in result.terms_v1.items()}
    return {**result.filtered, "EPDMS": result.epdms, **first, "PDMS": result.pdms}


def _waymax(shared: Shared) -> dict[str, float]:
    return dict(waymax.score(shared.drive).total)


def _ttc(shared: Shared) -> dict[str, float]:
    """The worst moment of a drive: least time to collision [s], gap [m], largest DRAC [m/s^2]."""
    total = ttc.score(shared.drive).total
    return {
        "min_ttc": total["ttc"],
        "min_distance": total["distance"],
        "max_drac": total["drac"],
    }


def _ttc_total(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The worst of all drives, and the medians: means would be infinite."""
    worst = {
        name: float((max if name.startswith("max") else min)(row[name] for row in rows))
        for name in rows[0]
    }
    # The lower of the middle two: halfway to infinity is no number to show.
    half = (len(rows) - 1) // 2
    return worst | {
        f"median_{name}": float(sorted(row[name] for row in rows)[half]) for name in rows[0]
    }


def _alpagym(shared: Shared) -> dict[str, float]:
    """Episode totals of AlpaGym's three presets, which read AlpaSim's progress."""
    metrics = _judged_by_alpasim(shared).returned
    return {name: reward.total for name, reward in rewards.score(shared.drive, metrics).items()}


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each number over the drives that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    table = np.array([[row.get(name, np.nan) for name in names] for row in rows])
    there = ~np.isnan(table)
    sums = np.where(there, table, 0.0).sum(0)
    means = np.where(there.any(0), sums / np.maximum(there.sum(0), 1), np.nan)
    return dict(zip(names, means.tolist(), strict=True))


Row = Callable[[Shared], dict[str, float]]
Total = Callable[[Sequence[dict[str, float]]], dict[str, float]]
SUITES: dict[str, tuple[Row, Total]] = {
    "alpasim": (_alpasim, alpasim_total),
    "nuplan": (_nuplan, _nuplan_total),
    "navsim": (_navsim, _means),
    "waymax": (_waymax, _means),
    "ttc": (_ttc, _ttc_total),
    "alpagym": (_alpagym, _means),
}
"""How each suite scores a drive, and how drives together."""
SCORES = {
    "alpasim": ("scene_score",),
    "nuplan": ("closed_loop_score",),
    "navsim": ("EPDMS", "PDMS"),
}
"""Numbers that sum a drive up, the higher the better, and 0 at worst."""
