"""Lanes of a map that follow each other, as lines."""

from __future__ import annotations

import numpy as np

from alpagym.scenarios.polyline import drop_duplicates, squared_distances
from alpagym.scenarios.routes import route_along, straightest
from alpagym.scenarios.scenario import RoadMap

OVERLAP = 120.0
"""A lane route runs on along the one that continues it for this long [m]."""


def chains_of(road: RoadMap, use: np.ndarray) -> list[list[int]]:
    """Lanes in driving order, each used lane first met in exactly one chain.

    Where a chain meets a lane of another (or comes around to its own), that lane is its last.
    """
    onward = {int(e): straightest(int(e), road) for e in np.flatnonzero(use)}
    led_to = set(onward.values())
    chains, taken = [], set()
    for start in [e for e in onward if e not in led_to] + list(onward):
        if start in taken:
            continue
        chain, lane = [], start
        while lane in onward and lane not in taken:
            taken.add(lane)
            chain.append(lane)
            lane = onward[lane]
        chains.append([*chain, lane] if lane in onward else [*chain, -1])
    return chains


class Chain:
    """A chain of lanes as one line, with where each lane begins and ends on it."""

    def __init__(self, road: RoadMap, chain: list[int]) -> None:
        *own, beyond = chain
        lanes, rest, seen = list(own), OVERLAP, set()
        while beyond >= 0 and rest > 0 and beyond not in seen:
            seen.add(beyond)
            lanes.append(beyond)
            rest -= _length(road, beyond)
            beyond = straightest(beyond, road)
        parts = [road.polyline(e).astype(np.float64) for e in lanes]
        line = np.concatenate([parts[0], *(part[1:] for part in parts[1:])])
        element = np.concatenate(
            [np.full(len(parts[0]), lanes[0])]
            + [np.full(len(p) - 1, e) for p, e in zip(parts[1:], lanes[1:], strict=True)]
        )
        ends = np.cumsum([0.0, *(_length(road, e) for e in lanes)])
        self.own_spans = {e: (float(ends[k]), float(ends[k + 1])) for k, e in enumerate(own)}
        self.spans = [(e, float(ends[k]), float(ends[k + 1])) for k, e in enumerate(lanes)]
        self.goes_on_at = (
            (lanes[len(own)], float(ends[len(own)])) if len(lanes) > len(own) else None
        )
        keep = drop_duplicates(line, 0.01)
        if len(keep) != len(line):
            element = element[squared_distances(keep, line).argmin(1)]
        self.points, at = route_along(keep, element.astype(np.float64))
        self.element = at.astype(int)
        if len(self.points) < 2:  # too short to be driven along
            self.points, self.element = self.points[:0], self.element[:0]
        self.limit = road.speed_limit[self.element].astype(np.float64)


def _length(road: RoadMap, element: int) -> float:
    return float(
        np.hypot(*np.diff(road.polyline(element)[:, :2].astype(np.float64), axis=0).T).sum()
    )
