"""Layouts with a junction at the origin: signals, all-way stop, T-junction, roundabout.

An arm is a road out of the junction. Seen outward, its outgoing lanes lie on the right of its
middle line and its incoming lanes on the left; traffic keeps to the right.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from alpagym.scenarios.procedural.geometry import Curve, arc, direction, fillet, join, line
from alpagym.scenarios.procedural.layouts_road import BEYOND, RECORD
from alpagym.scenarios.procedural.network import (
    STOP_SIGN,
    YIELD_LINE,
    Flow,
    Layout,
    Network,
    Signals,
    Walk,
)

CROSSWALK = 3.0
"""Width of a crosswalk [m]."""
QUEUE = 75.0
"""Stretch before a junction on which vehicles stand at frame 0 [m]."""


@dataclass
class Arm:
    """One road out of a junction."""

    angle: float
    """Outward direction [rad]."""
    lanes: int
    """Lanes per direction."""
    limit: float
    """[m/s]."""
    setback: float = 0.0
    """Distance of its stop lines from the origin [m]."""
    incoming: list[int] = field(default_factory=list)
    """Lane indices from the inner to the outer lane."""
    outgoing: list[int] = field(default_factory=list)
    """Likewise."""

    @property
    def end(self) -> float:
        """Distance of its far end from the origin [m]."""
        return self.setback + QUEUE + RECORD * self.limit + BEYOND

    def at(self, distance: float, left: float) -> np.ndarray:
        """The point `distance` out along the arm and `left` to the left of its middle [m], [2]."""
        return distance * direction(self.angle) + left * direction(self.angle + 0.5 * np.pi)


def _turn(arm: Arm, other: Arm) -> str:
    """What a vehicle does that comes in on `arm` and leaves on `other`."""
    change = (other.angle - arm.angle) % (2 * np.pi) - np.pi
    return "straight" if abs(change) < np.radians(30) else "left" if change > 0 else "right"


def _lay_arms(net: Network, arms: list[Arm], width: float, shoulder: float, radius: float) -> None:
    """Lay the arms, listed counter-clockwise, with their edges, lines and corners of `radius`."""
    pairs = list(zip(arms, arms[1:] + arms[:1], strict=True))
    bends: list[Curve | None] = []
    for arm, other in pairs:
        side, other_side = arm.lanes * width + shoulder, other.lanes * width + shoulder
        opening = (other.angle - arm.angle) % (2 * np.pi)
        if opening > np.radians(150):
            bends.append(None)
            continue
        tangent = radius / np.tan(0.5 * opening)
        first, last = np.linalg.solve(
            np.stack([direction(arm.angle), -direction(other.angle)], axis=1),
            other.at(0.0, -other_side) - arm.at(0.0, side),
        )
        arm.setback = max(arm.setback, first + tangent + CROSSWALK + 1.5)
        other.setback = max(other.setback, last + tangent + CROSSWALK + 1.5)
        start, end = arm.at(first + tangent, side), other.at(last + tangent, -other_side)
        bends.append(fillet(start, arm.angle + np.pi, end, other.angle, ease=0.0))

    for arm in arms:
        for k in range(arm.lanes):
            left = (k + 0.5) * width
            near, far = arm.setback, arm.end
            arm.incoming.append(
                net.add_lane(line(arm.at(far, left), arm.at(near, left)), arm.limit)
            )
            arm.outgoing.append(
                net.add_lane(line(arm.at(near, -left), arm.at(far, -left)), arm.limit)
            )
        net.beside(arm.incoming)
        net.beside(arm.outgoing)
        for k in range(1 - arm.lanes, arm.lanes):
            net.add_line(line(arm.at(arm.setback, k * width), arm.at(arm.end, k * width)))
    for (arm, other), bend in zip(pairs, bends, strict=True):
        start = arm.at(arm.end, arm.lanes * width + shoulder)
        end = other.at(other.end, -(other.lanes * width + shoulder))
        if bend is None:
            net.add_edge(line(start, end))
        else:
            net.add_edge(join(line(start, bend.points[0]), bend, line(bend.points[-1], end)))


def _connect(net: Network, arms: list[Arm], width: float, shoulder: float, radius: float) -> None:
    """Add the lanes across the junction.

    Left turns leave from the inner lane, right turns from the outer one; on arms of several lanes
    from which one can turn left, the inner lane only turns.
    """
    for arm in arms:
        lefts = any(_turn(arm, other) == "left" for other in arms if other is not arm)
        for other in arms:
            if other is arm:
                continue
            turn = _turn(arm, other)
            tangent = np.inf
            if turn == "left":
                moves = [(0, 0)]
            elif turn == "right":
                moves = [(arm.lanes - 1, other.lanes - 1)]
                opening = (other.angle - arm.angle) % (2 * np.pi)
                # A little longer than the arc that shares the corner's center, since it eases in.
                tangent = 1.15 * (radius + shoulder + 0.5 * width) / np.tan(0.5 * opening)
            else:
                first = 1 if lefts and arm.lanes > 1 else 0
                moves = [(k, k) for k in range(first, arm.lanes)]
            for k, m in moves:
                entry, leave = net.lanes[arm.incoming[k]], net.lanes[other.outgoing[m]]
                start, end = entry.points[-1], leave.points[0]
                path = fillet(start, arm.angle + np.pi, end, other.angle, tangent=tangent)
                lane = net.add_lane(path, min(arm.limit, other.limit), arm.incoming[k])
                net.link(lane, other.outgoing[m])


def _flows(arms: list[Arm]) -> list[Flow]:
    """Vehicles that come in, and fewer that have left the junction."""
    flows = []
    for arm in arms:
        length = arm.end - arm.setback
        flows += [Flow(lane, length - QUEUE, length - 4.0) for lane in arm.incoming]
        flows += [Flow(lane, 8.0, 55.0, 0.35) for lane in arm.outgoing]
    return flows


def _crosswalk(net: Network, arm: Arm, width: float, shoulder: float) -> None:
    """Paint the crosswalk between an arm's stop line and the junction."""
    near, far = arm.setback - 1.0 - CROSSWALK, arm.setback - 1.0
    side = arm.lanes * width + shoulder
    net.add_crosswalk(
        np.array([arm.at(near, -side), arm.at(far, -side), arm.at(far, side), arm.at(near, side)])
    )


def _four_arms(rng: np.random.Generator, limit: float, main: int, cross: int) -> list[Arm]:
    """Two roads that cross at nearly a right angle."""
    skew = np.radians(rng.uniform(75.0, 105.0) if rng.random() < 0.5 else 90.0)
    limits = limit, limit * rng.uniform(0.8, 1.0)
    return [
        Arm(i * np.pi + (skew if crossing else 0.0), cross if crossing else main, limits[crossing])
        for i in (0, 1)
        for crossing in (0, 1)
    ]


def signal(rng: np.random.Generator) -> Layout:
    """A signalized crossing; left turns are protected or each arm has a phase of its own."""
    width, shoulder, radius = rng.uniform(3.2, 3.75), rng.uniform(0.3, 0.6), rng.uniform(7.0, 11.0)
    main, cross = (int(n) for n in rng.choice([1, 2, 3], 2, p=[0.35, 0.45, 0.2]))
    arms = _four_arms(rng, rng.uniform(10.0, 17.0), main, cross)
    net = Network()
    _lay_arms(net, arms, width, shoulder, radius)
    _connect(net, arms, width, shoulder, radius)
    lanes: list[int] = []
    lights: list[list[int]] = []
    for arm in arms:
        lights.append([len(lanes) + k for k in range(arm.lanes)])
        for k, lane in enumerate(arm.incoming):
            net.lanes[lane].stop = lights[-1][k]
        lanes += arm.incoming
        net.add_line(line(arm.at(arm.setback, 0.0), arm.at(arm.setback, arm.lanes * width)))
        _crosswalk(net, arm, width, shoulder)
    if min(main, cross) > 1 and rng.random() < 0.7:
        phases = []
        for a, b in ((lights[0], lights[2]), (lights[1], lights[3])):
            phases += [a[1:] + b[1:], [a[0], b[0]]]
        green = [rng.uniform(7.0, 14.0), rng.uniform(5.0, 8.0)] * 2
    else:
        phases = [lights[i] for i in rng.permutation(4)]
        green = list(rng.uniform(6.0, 11.0, 4))
    yellow, all_red = 3.0, rng.uniform(1.0, 2.0)
    cycle = sum(green) + 4 * (yellow + all_red)
    # Often a phase begins just after the record does, so that a queue starts to move.
    offset = rng.uniform(0.0, cycle)
    if rng.random() < 0.6:
        before = int(rng.integers(4))
        offset = (sum(green[:before]) + before * (yellow + all_red) - rng.uniform(1.0, 4.0)) % cycle
    signals = Signals(lanes, phases, green, yellow, all_red, offset)
    return Layout(net, _flows(arms), signals, trucks=0.03)


def all_way_stop(rng: np.random.Generator) -> Layout:
    """A crossing of small roads where every arm has a stop sign."""
    width, shoulder, radius = rng.uniform(3.2, 3.75), rng.uniform(0.3, 0.6), rng.uniform(6.5, 9.0)
    main, cross = int(rng.choice([1, 2], p=[0.7, 0.3])), 1
    arms = _four_arms(rng, rng.uniform(8.0, 14.0), main, cross)
    net = Network()
    _lay_arms(net, arms, width, shoulder, radius)
    _connect(net, arms, width, shoulder, radius)
    walks = []
    for arm in arms:
        for lane in arm.incoming:
            net.lanes[lane].stop = STOP_SIGN
        net.add_line(line(arm.at(arm.setback, 0.0), arm.at(arm.setback, arm.lanes * width)))
        net.add_stop_sign(arm.at(arm.setback, arm.lanes * width + shoulder + 1.0))
        _crosswalk(net, arm, width, shoulder)
        if rng.random() < 0.25:
            walks.append(_crossing(rng, arm, arm.lanes * width + shoulder))
    return Layout(net, _flows(arms), walks=walks, cyclists=0.05)


def _crossing(rng: np.random.Generator, arm: Arm, side: float) -> Walk:
    """Someone on the crosswalk of an arm, or about to step onto it."""
    out = arm.setback - 1.0 - CROSSWALK * rng.uniform(0.2, 0.8)
    way = rng.choice([-1.0, 1.0])
    begin = way * (side + 1.0) * min(1.0, rng.uniform(0.0, 1.6))
    return Walk(arm.at(out, begin), arm.at(out, -way * (side + 21.0)))


def t_junction(rng: np.random.Generator) -> Layout:
    """A side road that ends at a main road; a stop sign stands on it, or it yields."""
    width, shoulder, radius = rng.uniform(3.2, 3.75), rng.uniform(0.3, 0.6), rng.uniform(6.5, 10.0)
    main = int(rng.choice([1, 2], p=[0.65, 0.35]))
    limit = rng.uniform(9.0, 16.0)
    skew = np.radians(rng.uniform(-15.0, 15.0) if rng.random() < 0.5 else 0.0)
    stem = Arm(1.5 * np.pi + skew, 1, min(limit, rng.uniform(8.0, 13.0)))
    arms = [Arm(0.0, main, limit), Arm(np.pi, main, limit), stem]
    net = Network()
    _lay_arms(net, arms, width, shoulder, radius)
    _connect(net, arms, width, shoulder, radius)
    stop = bool(rng.random() < 0.7)
    net.lanes[stem.incoming[0]].stop = STOP_SIGN if stop else YIELD_LINE
    net.add_line(line(stem.at(stem.setback, 0.0), stem.at(stem.setback, width)))
    if stop:
        net.add_stop_sign(stem.at(stem.setback, width + shoulder + 1.0))
    if rng.random() < 0.5:
        _crosswalk(net, stem, width, shoulder)
    return Layout(net, _flows(arms), cyclists=0.04, trucks=0.02)


def roundabout(rng: np.random.Generator) -> Layout:
    """A one-lane roundabout of three to five arms; who enters yields."""
    width, shoulder = rng.uniform(3.3, 3.75), rng.uniform(0.4, 0.6)
    count = int(rng.choice([3, 4, 5], p=[0.35, 0.5, 0.15]))
    ring = rng.uniform(12.0, 17.0) + (4.0 if count == 5 else 0.0)
    bend = rng.uniform(11.0, 16.0)
    limit = rng.uniform(8.0, 13.0)
    # Entry and exit arcs touch the arm's lane and the ring; they meet the ring at +-`touch`.
    middle = 0.5 * width + bend
    touch = np.arcsin(middle / (ring + bend))
    spare = 2 * np.pi - count * (2 * touch + 0.12)
    gaps = 2 * touch + 0.12 + spare * rng.dirichlet(np.full(count, 6.0))
    arms = [Arm(angle, 1, limit) for angle in np.cumsum(gaps)]
    setback = float((ring + bend) * np.cos(touch))
    net = Network()
    entries, exits = [], []
    for arm in arms:
        arm.setback = setback
        entry = arc(np.array([setback, middle]), bend, -0.5 * np.pi, touch - np.pi)
        leave = arc(np.array([setback, -middle]), bend, np.pi - touch, 0.5 * np.pi)
        entries.append(entry.moved(np.zeros(2), arm.angle))
        exits.append(leave.moved(np.zeros(2), arm.angle))
        inbound = line(arm.at(arm.end, 0.5 * width), arm.at(setback, 0.5 * width))
        outbound = line(arm.at(setback, -0.5 * width), arm.at(arm.end, -0.5 * width))
        arm.incoming = [net.add_lane(inbound, limit)]
        arm.outgoing = [net.add_lane(outbound, limit)]
        net.lanes[arm.incoming[0]].stop = YIELD_LINE
        net.add_line(line(arm.at(setback, 0.0), arm.at(arm.end, 0.0)))

    center = np.zeros(2)
    fronts = [
        net.add_lane(arc(center, ring, a.angle - touch, a.angle + touch), limit) for a in arms
    ]
    for i, (arm, gap) in enumerate(zip(arms, np.roll(gaps, -1), strict=True)):
        j = (i + 1) % count
        between = arc(center, ring, arm.angle + touch, arm.angle + gap - touch)
        joining = net.add_lane(entries[i], limit, arm.incoming[0])
        segment = net.add_lane(between, limit, fronts[i], joining)
        net.link(segment, fronts[j])
        net.link(net.add_lane(exits[j], limit, segment), arms[j].outgoing[0])
        # The right-hand path from an arm to the next one, moved to the right, is the outer edge.
        start, end = arm.at(arm.end, 0.5 * width), arms[j].at(arms[j].end, -0.5 * width)
        inward = line(start, entries[i].points[0])
        outward = line(exits[j].points[-1], end)
        path = join(inward, entries[i], between, exits[j], outward)
        net.add_edge(path.offset(-(0.5 * width + shoulder)))
    net.add_edge(arc(center, ring - 0.5 * width - shoulder, 2 * np.pi, 0.0))
    return Layout(net, _flows(arms))
