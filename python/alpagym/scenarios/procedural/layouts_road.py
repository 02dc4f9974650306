"""Layouts without junctions: straight road, curves, street, merge and lane drop."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from alpagym.scenarios.procedural.geometry import Curve, from_curvature, join, line
from alpagym.scenarios.procedural.network import Flow, Layout, Network, Walk

BEYOND = 150.0
"""Road that lies beyond whatever is driven on within a record [m]."""
RECORD = 9.0
"""Length of a record [s]."""
PARKING = 2.4
"""Width of a parking strip [m]."""
TAPER = 50.0
"""Length over which an ending lane moves into its neighbor [m]."""


def _road(
    net: Network,
    reference: Curve,
    right: int,
    left: int,
    width: float,
    margins: tuple[float, float],
    limit: float,
) -> tuple[list[int], list[int]]:
    """Lay a road around a reference line; return its lanes that run with it and those against it.

    `right` lanes run with the reference on its right, `left` lanes against it on its left;
    `margins` are the widths between the outer lanes and the edges on the right and on the left [m].
    Lanes are listed from the inner to the outer one.
    """
    forward = [net.add_lane(reference.offset(-(i + 0.5) * width), limit) for i in range(right)]
    backward = [
        net.add_lane(reference.offset((i + 0.5) * width).reversed(), limit) for i in range(left)
    ]
    net.beside(forward)
    net.beside(backward)
    net.add_edge(reference.offset(-(right * width + margins[0])))
    net.add_edge(reference.offset(left * width + margins[1]).reversed())
    for i in range(1 - right, left):
        net.add_line(reference.offset(i * width))
    return forward, backward


def _flows(net: Network, lanes: list[int], reach: float) -> list[Flow]:
    """Vehicles on the stretches within `reach` of the middle of each lane."""
    middle = {lane: 0.5 * float(net.lanes[lane].s[-1]) for lane in lanes}
    return [Flow(lane, middle[lane] - reach, middle[lane] + reach) for lane in lanes]


def _straight_reference(limit: float) -> Curve:
    """A line along x, driven on up to 80 m from its middle."""
    half = 80.0 + RECORD * limit + BEYOND
    return line(np.array([-half, 0.0]), np.array([half, 0.0]))


def straight(rng: np.random.Generator) -> Layout:
    """A straight multi-lane road with lane changes, hard braking and slow vehicles."""
    limit = rng.uniform(11.0, 25.0)
    right = int(rng.choice([1, 2, 3], p=[0.15, 0.45, 0.4]))
    left = int(rng.choice([0, right]))
    width, shoulder = rng.uniform(3.2, 3.75), rng.uniform(0.3, 0.6)
    net = Network()
    reference = _straight_reference(limit)
    forward, backward = _road(net, reference, right, left, width, (shoulder, shoulder), limit)
    return Layout(
        net,
        _flows(net, forward + backward, 80.0),
        lane_change=0.3,
        hard_brake=0.12,
        slow=0.1,
        trucks=0.1,
    )


def curve(rng: np.random.Generator) -> Layout:
    """A winding road: arcs that alternate, entered and left along clothoids."""
    limit = rng.uniform(9.0, 17.0)
    right = int(rng.choice([1, 2], p=[0.7, 0.3]))
    left = int(rng.choice([0, right], p=[0.3, 0.7]))
    width, shoulder = rng.uniform(3.2, 3.75), rng.uniform(0.3, 0.6)
    half = 90.0 + RECORD * limit + BEYOND
    segments: list[tuple[float, float, float]] = []
    heading, side = 0.0, float(rng.choice([-1.0, 1.0]))
    while sum(s[0] for s in segments) < 2 * half:
        # The heading swings around zero, so that the road never meets itself.
        target = side * np.radians(rng.uniform(15.0, 58.0))
        radius = rng.uniform(28.0, 120.0)
        bend = abs(target - heading) * radius
        ease = min(0.5 * bend, rng.uniform(0.2, 0.5) * bend)
        k = side / radius
        segments += [(ease, 0.0, k), (bend - ease, k, k), (ease, k, 0.0)]
        if rng.random() < 0.6:
            segments.append((rng.uniform(10.0, 60.0), 0.0, 0.0))
        heading, side = target, -side
    net = Network()
    reference = from_curvature(segments)
    middle = len(reference.points) // 2
    reference.points -= reference.points[middle]
    forward, backward = _road(net, reference, right, left, width, (shoulder, shoulder), limit)
    return Layout(
        net,
        _flows(net, forward + backward, 90.0),
        hard_brake=0.06,
        slow=0.08,
        cyclists=0.05,
    )


def street(rng: np.random.Generator) -> Layout:
    """A slow street with parked cars, crosswalks and pedestrians who cross."""
    limit = rng.uniform(8.0, 12.0)
    lanes = int(rng.choice([1, 2], p=[0.85, 0.15]))
    width, shoulder = rng.uniform(3.2, 3.75), rng.uniform(0.3, 0.6)
    parking = [bool(rng.random() < 0.8), bool(rng.random() < 0.6)]
    margins = [shoulder + PARKING * side for side in parking]
    net = Network()
    reference = _straight_reference(limit)
    forward, backward = _road(net, reference, lanes, lanes, width, (margins[0], margins[1]), limit)
    low, high = -(lanes * width + margins[0]), lanes * width + margins[1]

    clear: list[tuple[float, float]] = []
    walks: list[Walk] = []
    for x in rng.uniform(-45.0, 45.0, rng.integers(1, 3)):
        if any(a - 8.0 < x < b + 8.0 for a, b in clear):
            continue
        net.add_crosswalk(
            np.array([[x - 1.5, low], [x + 1.5, low], [x + 1.5, high], [x - 1.5, high]])
        )
        clear.append((x - 7.0, x + 7.0))
        walks += [
            _crossing(rng, x + rng.uniform(-1.2, 1.2), low, high) for _ in range(rng.integers(1, 4))
        ]
    for x in rng.uniform(-60.0, 60.0, rng.integers(0, 3)):
        clear.append((x - 1.5, x + 1.5))
        walks.append(_crossing(rng, x, low, high))
    for side in (low - 1.5, high + 1.5):
        for x in rng.uniform(-80.0, 80.0, rng.integers(0, 3)):
            way = rng.choice([-1.0, 1.0])
            walks.append(Walk(np.array([x, side]), np.array([x + way * 40.0, side])))

    parked = []
    for here, y, yaw in ((parking[0], low, 0.0), (parking[1], high, np.pi)):
        x = -90.0
        while here and x < 90.0:
            x += rng.choice([rng.uniform(5.8, 8.0), rng.uniform(8.0, 25.0)])
            if not any(a - 2.8 < x < b + 2.8 for a, b in clear):
                inward = -np.sign(y) * (shoulder + 0.5 * PARKING + rng.uniform(-0.05, 0.1))
                parked.append((x, y + inward, yaw + rng.normal(0.0, 0.01)))
    rng.shuffle(parked)
    return Layout(
        net,
        _flows(net, forward + backward, 80.0),
        walks=walks,
        parked=parked[:16],
        cyclists=0.15,
    )


def _crossing(rng: np.random.Generator, x: float, low: float, high: float) -> Walk:
    """Someone on the way across at `x`, or about to step onto the road."""
    start, end = (low - 1.0, high + 1.0) if rng.random() < 0.5 else (high + 1.0, low - 1.0)
    begin = start + (end - start) * max(0.0, rng.uniform(-0.5, 0.5))
    return Walk(np.array([x, begin]), np.array([x, end + np.sign(end - start) * 20.0]))


def merge(rng: np.random.Generator) -> Layout:
    """A one-way road that an on-ramp joins."""
    return _ending_lane(rng, ramp=True)


def lane_drop(rng: np.random.Generator) -> Layout:
    """A one-way road whose right lane ends."""
    return _ending_lane(rng, ramp=False)


def _ending_lane(rng: np.random.Generator, *, ramp: bool) -> Layout:
    """A one-way road along x whose extra right lane ends after x = `end`.

    The extra lane comes from a ramp that joins at x = 0, or from the road's beginning.
    """
    limit = rng.uniform(16.0, 25.0) if ramp else rng.uniform(12.0, 22.0)
    main = int(rng.choice([1, 2, 3], p=[0.3, 0.45, 0.25])) if ramp else int(rng.integers(1, 3))
    width, shoulder = rng.uniform(3.2, 3.75), rng.uniform(0.3, 0.6)
    end = rng.uniform(70.0, 120.0) if ramp else rng.uniform(40.0, 80.0)
    begin, far = -240.0, end + TAPER + RECORD * limit + BEYOND
    cuts = [begin, 0.0, end, end + TAPER, far]
    net = Network()

    def across(y: float, first: float, last: float) -> Curve:
        return line(np.array([first, y]), np.array([last, y]))

    rows: list[list[int]] = []
    for first, last in pairwise(cuts):
        before = rows[-1] if rows else None
        rows.append(
            [
                net.add_lane(
                    across(-(i + 0.5) * width, first, last), limit, *([before[i]] if before else [])
                )
                for i in range(main)
            ]
        )
    y_extra, border = -(main + 0.5) * width, -main * width
    merging = across(y_extra, 0.0, end)
    x = np.linspace(0.0, TAPER, 26)
    u = x / TAPER
    shift = width * u**3 * (10.0 + u * (6.0 * u - 15.0))
    slope = width * 30.0 * u**2 * (1.0 - u) ** 2 / TAPER
    taper = Curve(np.stack([end + x, y_extra + shift], 1), np.arctan(slope))

    ramp_limit = limit
    if ramp:
        angle = np.radians(rng.uniform(8.0, 16.0))
        ramp_limit = rng.uniform(0.65, 0.9) * limit
        # The clothoids mirror each other: each turns half the angle.
        entry = from_curvature(
            [(150.0, 0.0, 0.0), (50.0, 0.0, -angle / 50.0), (50.0, -angle / 50.0, 0.0)], angle
        )
        entry = entry.moved(np.array([0.0, y_extra]) - entry.points[-1], 0.0)
    else:
        entry = across(y_extra, begin, 0.0)
    feeder = net.add_lane(entry, ramp_limit)
    extra = net.add_lane(merging, limit, feeder)
    last_lane = net.add_lane(taper, limit, extra)
    net.link(last_lane, rows[3][-1])
    net.beside([*rows[0], *([] if ramp else [feeder])])
    net.beside([*rows[1], extra])
    net.beside(rows[2])
    net.beside(rows[3])

    side = 0.5 * width + shoulder
    net.add_edge(across(shoulder, begin, far).reversed())
    net.add_edge(
        join(
            entry.offset(-side),
            merging.offset(-side),
            taper.offset(-side),
            across(border - shoulder, end + TAPER, far),
        )
    )
    if ramp:
        # Where the pavements part, an edge runs along the road and back along the ramp.
        inner = entry.offset(side)
        apart = np.flatnonzero(inner.points[:, 1] < border - shoulder - 0.6)[-1]
        nose = inner.points[apart]
        along = across(border - shoulder, begin, nose[0])
        back = Curve(inner.points[: apart + 1], inner.heading[: apart + 1]).reversed()
        net.add_edge(Curve(np.concatenate([along.points, back.points]), np.zeros(0)))
        net.add_line(across(border, nose[0], end))
    else:
        net.add_line(across(border, begin, end))
    for i in range(1, main):
        net.add_line(across(-i * width, begin, far))

    # Vehicles on the lanes that meet, and a few beyond the merge.
    length = entry.length
    flows = [Flow(lane, -begin - 100.0, -begin - 2.0) for lane in rows[0]]
    flows += [Flow(lane, 4.0, end) for lane in rows[1]]
    flows += [Flow(feeder, length - 90.0, length - 2.0), Flow(extra, 4.0, end - 30.0)]
    flows += [Flow(lane, 4.0, 50.0, 0.6) for lane in rows[3]]
    return Layout(net, flows, lane_change=0.1, trucks=0.12, slow=0.05, hard_brake=0.04)
