"""Routes through a network: the lanes ahead, lane changes, speed limits and stop lines."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from alpagym.scenarios.pace import curve_speed
from alpagym.scenarios.polyline import arc_length
from alpagym.scenarios.procedural.geometry import resample
from alpagym.scenarios.procedural.network import NO_STOP, Network
from alpagym.scenarios.scenario import ROUTE_SPACING

MAX_ROUTE = 2000.0
"""A route ends so far ahead, which is beyond whatever is driven within a record [m]."""


@dataclass
class Route:
    """A path resampled every `ROUTE_SPACING`."""

    points: np.ndarray
    """[m], float64 [n, 2]."""
    limit: np.ndarray
    """Speed to drive at each point [m/s], float64 [n]."""
    stop_s: list[float] = field(default_factory=list)
    """Arc length of each stop line [m]."""
    stop_light: list[int] = field(default_factory=list)
    """The light that stands there, -1 for a stop sign, -2 for a yield line."""


def choose_lanes(net: Network, lane: int, rng: np.random.Generator) -> list[int]:
    """A random walk along successors to where the network or a route ends; none is taken twice."""
    lanes, length = [lane], 0.0
    while True:
        ahead = [s for s in net.lanes[lanes[-1]].successors if s not in lanes]
        if not ahead or length > MAX_ROUTE:
            return lanes
        lanes.append(ahead[rng.integers(len(ahead))] if len(ahead) > 1 else ahead[0])
        length += net.lanes[lanes[-1]].s[-1]


def trace(
    net: Network, lanes: list[int], start: float, change: tuple[int, float, float] | None = None
) -> Route:
    """The route along `lanes` from arc length `start` on the first one.

    Args:
        net: The network.
        lanes: Lanes that follow each other.
        start: Where the route begins on the first lane [m].
        change: A lane change on the first lane: (neighbor, arc length of its begin, its length);
            `lanes[1:]` then follow the neighbor.
    """
    first = net.lanes[lanes[0]]
    points = first.points
    if change is not None:
        points = _change(points, net.lanes[change[0]].points, change[1], change[2])
    pieces, limits, stops = [points], [np.full(len(points), first.speed_limit)], []
    last = change[0] if change is not None else lanes[0]
    length = arc_length(points)[-1]
    for lane in lanes[1:]:
        if net.lanes[last].stop != NO_STOP:
            stops.append((length, net.lanes[last].stop))
        more = net.lanes[lane].points
        pieces.append(more[1:])
        limits.append(np.full(len(more) - 1, net.lanes[lane].speed_limit))
        length += net.lanes[lane].s[-1]
        last = lane
    path = np.concatenate(pieces)
    s = arc_length(path)
    end = int(np.searchsorted(s, start + MAX_ROUTE)) + 1
    begin = int(np.searchsorted(s, start, side="right"))
    origin = np.array([np.interp(start, s, path[:, 0]), np.interp(start, s, path[:, 1])])
    if begin < len(s) and s[begin] - start < 1e-6:
        begin += 1
    path = np.concatenate([origin[None], path[begin:end]])
    route, at = (
        line[: int(MAX_ROUTE / ROUTE_SPACING) + 1] for line in resample(path, ROUTE_SPACING)
    )
    limit = np.interp(at + start, s, np.concatenate(limits))
    ahead = [(float(d - start), light) for d, light in stops if 0.0 < d - start <= MAX_ROUTE]
    return Route(
        route, curve_speed(route, limit), [d for d, _ in ahead], [light for _, light in ahead]
    )


def _change(a: np.ndarray, b: np.ndarray, start: float, length: float) -> np.ndarray:
    """A path that leaves lane `a` for the lane `b` beside it, [n, 2] and [m, 2], along a quintic.

    Lanes of as many points have them side by side; of others the same shares of both lengths are.
    """
    s = beside = arc_length(a)
    if len(b) != len(a):
        beside = arc_length(b)
        beside = beside * (s[-1] / beside[-1])
    fine = np.unique(np.concatenate([s, np.arange(start, start + length, 1.0), [start + length]]))
    u = np.clip((fine - start) / length, 0.0, 1.0)
    weight = (u**3 * (10.0 + u * (6.0 * u - 15.0)))[:, None]
    on_a, on_b = (
        np.stack([np.interp(fine, at, line[:, 0]), np.interp(fine, at, line[:, 1])], 1)
        for line, at in ((a, s), (b, beside))
    )
    return (1.0 - weight) * on_a + weight * on_b
