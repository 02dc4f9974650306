"""Progress of the ego along the lanes that the expert drove.

nuPlan: `evaluation_metrics/common/ego_progress_along_expert_route.py` and
`ego_is_making_progress.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alpagym.metrics.nuplan.route import Route, route_along
from alpagym.metrics.polygon_map import PolygonMap
from alpagym.scenarios.polyline import arc_length, project

LEAST_PROGRESS = 2.0
"""Ways shorter than this count as this, and more than this backwards scores 0 [m]."""
MAKING_PROGRESS = 0.2
"""Ratio from which on the ego is making progress."""


@dataclass(frozen=True)
class Chain:
    """The roadblocks that the expert went through, each with the baseline of its first lane."""

    roadblocks: list[int]
    baselines: list[np.ndarray]
    """[m], [k, 2] each."""


def chain_of(polygon_map: PolygonMap, route: Route) -> Chain:
    """The chain of a route; a roadblock in it differs from the one before."""
    simple: Route = []
    for lanes in route:
        if lanes and not (simple and set(simple[-1]) & set(lanes)):
            simple.append(lanes)
    chain = Chain([], [])
    for lanes in simple:
        roadblock = int(polygon_map.roadblock[lanes[0]])
        if not chain.roadblocks or chain.roadblocks[-1] != roadblock:
            chain.roadblocks.append(roadblock)
            chain.baselines.append(polygon_map.baselines[lanes[0]])
    return chain


def progress_along(polygon_map: PolygonMap, chain: Chain, points: np.ndarray) -> np.ndarray:
    """Progress from each sample to the next along a chain [m], 0 at the first, [T].

    In the current roadblock it is the difference of the projections on its baseline. A point that
    left it is looked for in the following ones; on entering one, the rest of the old baseline, the
    skipped ones and the way from where the old one ended count. Elsewhere there is no progress.

    Args:
        polygon_map: n lanes.
        chain: Of m roadblocks, m >= 1.
        points: Box centers [m], [T, 2].
    """
    lines, m = chain.baselines, len(chain.baselines)
    inside = np.stack([polygon_map.in_roadblock(points, block) for block in chain.roadblocks], -1)
    s = np.stack([project(line, points)[0] for line in lines], -1)
    length = [float(arc_length(line)[-1]) for line in lines]
    # What passing a roadblock without a sample in it counts: from where the one before it ends to
    # where the next one begins, both projected on its baseline.
    skipped = [
        float(project(lines[j], lines[j + 1][0])[0] - project(lines[j], lines[j - 1][-1])[0])
        if 0 < j < m - 1
        else 0.0
        for j in range(m)
    ]
    result = np.zeros(len(points))
    current, before = 0, s[0, 0]
    for t in range(1, len(points)):
        if inside[t, current]:
            result[t] = s[t, current] - before
            before = s[t, current]
            continue
        entered = np.flatnonzero(inside[t, current + 1 :])
        if len(entered):
            j = current + 1 + int(entered[0])
            begin = float(project(lines[j], lines[current][-1])[0])
            result[t] = length[current] - before + s[t, j] - begin + sum(skipped[current + 1 : j])
            current, before = j, s[t, j]
    return result


@dataclass(frozen=True)
class Progress:
    """Of the ego and the expert along the expert's route."""

    ego: np.ndarray
    """From each sample to the next [m], [T]."""
    ego_total: float
    expert_total: float
    score: float
    """Ratio of the totals, in [0, 1]."""

    @property
    def is_making_progress(self) -> float:
        return float(self.score >= MAKING_PROGRESS)


def progress(polygon_map: PolygonMap, points: np.ndarray, expert: np.ndarray) -> Progress:
    """How far the ego came on the expert's route against the expert; 1 if that met no lane.

    Args:
        polygon_map: n lanes.
        points: The ego's box centers [m], [T, 2].
        expert: The expert's box centers [m], [F, 2].
    """
    chain = chain_of(polygon_map, route_along(polygon_map, expert))
    if not chain.roadblocks:
        return Progress(np.zeros(len(points)), 0.0, 0.0, 1.0)
    driven = progress_along(polygon_map, chain, points)
    total = float(driven.sum())
    expert_total = float(progress_along(polygon_map, chain, expert).sum())
    if total < -LEAST_PROGRESS:
        ratio = 0.0
    else:
        ratio = min(1.0, max(total, LEAST_PROGRESS) / max(expert_total, LEAST_PROGRESS))
    return Progress(driven, total, expert_total, ratio)
