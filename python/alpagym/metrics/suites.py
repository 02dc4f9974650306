"""The metrics of others by name, for `alpagym eval --metrics`: of each drive, and in total."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from alpagym import rewards
from alpagym.metrics import alpasim, navsim, nuplan, waymax
from alpagym.metrics.alpasim.aggregate import run_level
from alpagym.metrics.drive import Drive
from alpagym.metrics.nuplan.aggregate import final_score


@dataclass(frozen=True)
class Measured:
    """One suite over some drives."""

    rows: list[dict[str, float]]
    """Numbers of each drive by name, NaN or missing where there is none; empty if not scored."""
    unscored: dict[int, str]
    """Why a drive has no score, by its index."""
    total: dict[str, float]
    """Of all scored drives together."""


def measure(suite: str, drives: Sequence[Drive]) -> Measured:
    """Score drives by one of `SUITES`.

    Raises:
        ValueError: an unknown suite.
    """
    if suite not in SUITES:
        raise ValueError(f"metrics: expected one of {', '.join(SUITES)}, got {suite}")
    one, total = SUITES[suite]
    rows: list[dict[str, float]] = []
    unscored: dict[int, str] = {}
    for i, drive in enumerate(drives):
        try:
            rows.append(one(drive))
        except ValueError as error:
            rows.append({})
            unscored[i] = str(error)
    scored = [row for row in rows if row]
    return Measured(rows, unscored, total(scored) if scored else {})


def _alpasim(drive: Drive) -> dict[str, float]:
    """Offline aggregates after truncation, and the scene score."""
    result = alpasim.score(drive)
    if result.scene is None:
        raise ValueError(result.unscored)
    return result.processed | {"scene_score": result.scene.score}


def _alpasim_total(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    groups, _ = run_level(rows, [0] * len(rows))
    return {name: value for name, value in groups[0].items() if name != "rollout_uid"}


def _nuplan(drive: Drive) -> dict[str, float]:
    result = nuplan.score(drive)
    return {**result.scores, "closed_loop_score": result.final}


def _nuplan_total(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    scores = np.array([[row[name] for name in nuplan.SCORES] for row in rows])
    return _means(rows) | {"closed_loop_score": float(final_score(scores).mean())}


def _navsim(drive: Drive) -> dict[str, float]:
    result = navsim.score(drive)
    first = {f"v1_{name}": value for name, value in result.terms_v1.items()}
    return {**result.terms, "EPDMS": result.epdms, **first, "PDMS": result.pdms}


def _waymax(drive: Drive) -> dict[str, float]:
    return dict(waymax.score(drive).total)


def _alpagym(drive: Drive) -> dict[str, float]:
    """Episode totals of AlpaGym's three presets."""
    return {
        name: reward.total
        for name, reward in rewards.score(drive, alpasim.score(drive).returned).items()
    }


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of each number over the drives that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    table = np.array([[row.get(name, np.nan) for name in names] for row in rows])
    there = ~np.isnan(table)
    sums = np.where(there, table, 0.0).sum(0)
    means = np.where(there.any(0), sums / np.maximum(there.sum(0), 1), np.nan)
    return dict(zip(names, means.tolist(), strict=True))


Row = Callable[[Drive], dict[str, float]]
Total = Callable[[Sequence[dict[str, float]]], dict[str, float]]
SUITES: dict[str, tuple[Row, Total]] = {
    "alpasim": (_alpasim, _alpasim_total),
    "nuplan": (_nuplan, _nuplan_total),
    "navsim": (_navsim, _means),
    "waymax": (_waymax, _means),
    "alpagym": (_alpagym, _means),
}
"""How each suite scores a drive, and how drives together."""
