"""The way from a CommonRoad planning problem's start to its goal, as one smooth line.

Nobody recorded it: the shortest way through the lane graph is taken, with lane changes where
lanelets lie beside each other, and smoothed so that a car can follow it.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass

import numpy as np

from alpagym.scenarios.flags import beyond_edge, box_corners
from alpagym.scenarios.polyline import (
    Segments,
    arc_length,
    cut_segments,
    drop_duplicates,
    headings,
    interpolate,
    project,
    wrap_angle,
)
from alpagym.scenarios.readers.commonroad_map import Lanelet
from alpagym.scenarios.readers.commonroad_xml import Region

LENGTH, WIDTH, HEIGHT = 4.508, 1.61, 1.6
"""The ego's box [m]; the format gives none, and this is the size of the BMW 320i (vehicle 2) of the
CommonRoad vehicle models."""
REAR = 1.4
"""From its rear axle to the box center [m]."""
SPACING = 2.0
"""Between two points of the line that is smoothed [m]."""
CHANGE_COST = 30.0
"""A lane change costs as much as this way [m]."""
CHANGE_TIME, CHANGE_LENGTH = 3.5, 15.0
"""A lane change takes so long [s], but at least this way [m]."""
MERGE_TIME, MERGE_LENGTH = 1.0, 5.0
"""The line joins its lane over this time at the first speed [s], but at least this way [m]."""
STIFFNESS = (1.0, 0.1, 0.01)
"""Weights of squared third differences against squared distances to the lane, in units of that
which smooths over `SMOOTHING` at the first speed,"""
SMOOTHING = 0.4
"""[s]."""
SHIFTS = (0.0, 0.2, -0.2, 0.4, -0.4)
"""and offsets from the lane's center [m]; the first that keep a car on the road are used."""
BEYOND, MAX_CHECKED = 10.0, 200.0
"""The road is looked at up to so far beyond the goal, but not farther than this [m]."""
EDGE_MARGIN = 0.1
"""The car should be able to be so much longer and wider for that [m]."""
GOAL_OFFSET = 2.5
"""A goal farther beside its lane than this does not bend the line [m]."""
MAX_LENGTH = 2000.0
"""The line is no longer than this [m]."""
BLOCK = 16
"""Points that smoothing solves for at a time."""


@dataclass
class Way:
    """A line to follow."""

    line: np.ndarray
    """[m], [n, 2]."""
    goal_s: float
    """Arc length at the goal [m]; NaN where the goal has no place or cannot be reached."""
    lanes: list[int]
    """Ids of the lanelets along it."""
    reached: bool
    """Whether the lane graph leads to the goal; true for a goal without a place."""


def inside(polygon: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Whether points [m, 2] lie in a polygon [k, 2], by counting crossings, bool [m]."""
    a, b = polygon, np.roll(polygon, -1, axis=0)
    x, y = query[:, 0, None], query[:, 1, None]
    spans = (a[:, 1] > y) != (b[:, 1] > y)
    rise = np.where(b[:, 1] == a[:, 1], 1.0, b[:, 1] - a[:, 1])
    return ((spans & (x < a[:, 0] + (y - a[:, 1]) * (b[:, 0] - a[:, 0]) / rise)).sum(1) % 2) == 1


def find_way(
    lanelets: dict[int, Lanelet],
    start: np.ndarray,
    yaw: float,
    speed: float,
    goal: Region,
    length: float,
    edges: list[np.ndarray],
) -> Way:
    """The line from a start to a goal, and on along the lanes.

    Args:
        lanelets: of the file, by id; only lanes are used.
        start: box center at the start [m], [2].
        yaw: heading there [rad].
        speed: there [m/s], from which the length of lane changes follows.
        goal: where to get.
        length: how long the line has to be at least [m].
        edges: directed road edges that the ego's box should not cross [m], [n, 3] each.
    """
    lanes = {i: v for i, v in lanelets.items() if v.is_lane and v.length > 0.1}
    place = _locate(lanes, start, yaw)
    ahead = np.array([np.cos(yaw), np.sin(yaw)])
    if place is None:
        line = start + np.array([[0.0], [length + SPACING]]) * ahead
        return Way(line, np.nan, [], not (goal.polygons or goal.lanelets))
    lane, s = place
    targets = _targets(lanes, goal)
    found = _search(lanes, lane, s, targets) if targets else None
    chain = [(lane, False)] if found is None else found
    last = chain[-1][0]
    end, goal_point = targets[last] if found is not None else (np.nan, None)
    rough, changes, goal_s = _centers(lanes, chain, s, end)
    line, more = _carried_on(lanes, rough, last, length)
    segments = _near_segments(edges, line)
    rough, line, fewest = line, line, np.inf
    until = min(goal_s + BEYOND if np.isfinite(goal_s) else length, MAX_CHECKED)
    # Third differences smooth over their weight to the power 1/6, in steps.
    unit = (SMOOTHING * max(speed, SPACING / SMOOTHING) / SPACING) ** 6
    for shift, stiffness in itertools.product(SHIFTS, STIFFNESS):
        beside = _shifted(rough, shift)
        option = _smooth(beside, start, ahead, speed, changes, goal_s, goal_point, unit * stiffness)
        off = _off_road(option, segments, EDGE_MARGIN, until)
        if off:  # else the car itself crosses no edge either
            off += 1000 * _off_road(option, segments, 0.0, until)
        if off < fewest:
            line, fewest = option, off
        if not off:
            break
    if goal_point is not None:
        goal_s = float(project(line, goal_point[None])[0][0])
    names = [i for i, _ in chain] + more
    return Way(line, goal_s, names, found is not None or not (goal.polygons or goal.lanelets))


def _locate(lanes: dict[int, Lanelet], xy: np.ndarray, yaw: float) -> tuple[int, float] | None:
    """The lane that a pose is on or nearest to, and the arc length there; None without lanes."""
    best, cost = None, np.inf
    for i, lane in lanes.items():
        gap = np.maximum(lane.polygon.min(0) - xy, xy - lane.polygon.max(0)).max()
        if gap > 50.0:
            continue
        center = drop_duplicates(lane.center)
        if len(center) < 2:
            continue
        (s,), (d,) = project(center, xy[None])
        step = interpolate(center, np.array([s - 0.5, s + 0.5]))
        angle = abs(float(wrap_angle(np.arctan2(*(step[1] - step[0])[::-1]) - yaw)))
        beside = 0.0 if inside(lane.polygon, xy[None])[0] else 5.0 + 5.0 * abs(d)
        if (own := beside + 3.0 * angle + 0.3 * abs(d)) < cost:
            best, cost = (i, float(s)), own
    return best


def _targets(lanes: dict[int, Lanelet], goal: Region) -> dict[int, tuple[float, np.ndarray | None]]:
    """Lanes on which the goal lies: the arc length there, and the point that the line must pass."""
    targets: dict[int, tuple[float, np.ndarray | None]] = {}
    for i in goal.lanelets:
        if i in lanes:
            targets[i] = (0.5 * lanes[i].length, None)
    for polygon in goal.polygons:
        middle = 0.5 * (polygon.min(0) + polygon.max(0))
        near: list[tuple[float, int, float]] = []
        for i, lane in lanes.items():
            (s,), (d,) = project(lane.center, middle[None])
            near.append((0.0 if inside(lane.polygon, middle[None])[0] else abs(d), i, float(s)))
        nearest = min((gap for gap, _, _ in near), default=0.0)
        for gap, i, s in near:
            if gap <= nearest:
                targets[i] = (s, middle)
    return targets


def _search(
    lanes: dict[int, Lanelet], lane: int, s: float, targets: dict
) -> list[tuple[int, bool]] | None:
    """The shortest chain of lanes to one of the targets; True where a lane is changed into."""
    queue = [(-s, lane)]
    cost, came = {lane: -s}, {lane: (lane, False)}
    best: tuple[float, int] | None = None
    while queue:
        so_far, i = heapq.heappop(queue)
        if so_far > cost[i] or (best is not None and so_far > best[0]):
            continue
        if i in targets and so_far + targets[i][0] > -1.0:
            total = so_far + targets[i][0]
            if best is None or total < best[0]:
                best = (total, i)
        length = lanes[i].length
        options = [(n, length, False) for n in lanes[i].successors]
        # A little more for what is changed late, so that of equal ways the early change wins.
        for n in (lanes[i].left_neighbor, lanes[i].right_neighbor):
            if n is not None:
                options.append((n, CHANGE_COST + 0.01 * max(so_far, 0.0), True))
        for n, way, change in options:
            if n in lanes and so_far + way < cost.get(n, np.inf):
                cost[n], came[n] = so_far + way, (i, change)
                heapq.heappush(queue, (cost[n], n))
    if best is None:
        return None
    chain, i = [], best[1]
    while i != lane:
        before, change = came[i]
        chain.append((i, change))
        i = before
    return [(lane, False), *chain[::-1]]


def _centers(
    lanes: dict[int, Lanelet], chain: list[tuple[int, bool]], s: float, end: float
) -> tuple[np.ndarray, list[float], float]:
    """The centers of a chain of lanes from `s` on its first one, [n, 2].

    Returns:
        The points; arc lengths at which a lane is changed [m]; the arc length of the place `end` of
        the last lane [m].
    """
    parts, changes, travelled, goal = [], [], 0.0, np.nan
    first = s / max(lanes[chain[0][0]].length, 1e-6)
    k = 0
    while k < len(chain):
        # Lanes k to j lie beside each other: all changes happen halfway along what is left of them.
        j = k
        while j + 1 < len(chain) and chain[j + 1][1]:
            j += 1
        lengths = [lanes[i].length for i, _ in chain[k : j + 1]]
        begin = first if k == 0 else 0.0
        stop = min(end / lengths[-1], 1.0) if j + 1 == len(chain) and np.isfinite(end) else 1.0
        cut = 0.5 * (begin + max(stop, begin)) if j > k else 1.0
        pieces = [(chain[k][0], lengths[0], begin, cut)]
        if j > k:
            pieces.append((chain[j][0], lengths[-1], cut, 1.0))
        for number, (i, length, low, high) in enumerate(pieces):
            if number:
                changes += [travelled] * (j - k)
            center = lanes[i].center
            count = max(int(length * (high - low)) + 2, 2)
            parts.append(interpolate(center, np.linspace(low, high, count) * length))
            travelled = float(arc_length(np.concatenate(parts))[-1])
        if j + 1 == len(chain) and np.isfinite(end):
            goal = travelled - max(lengths[-1] - end, 0.0)
        k = j + 1
    return np.concatenate(parts), changes, goal


def _carried_on(
    lanes: dict[int, Lanelet], line: np.ndarray, lane: int, length: float
) -> tuple[np.ndarray, list[int]]:
    """The line led on along the straightest successors, then straight, to `length` [m]."""
    length = min(length, MAX_LENGTH)
    more, seen = [], {lane}
    parts, total = [line], float(arc_length(line)[-1])
    while total < length:
        center = drop_duplicates(lanes[lane].center)
        yaw = headings(center)[-1] if len(center) > 1 else 0.0
        options = [n for n in lanes[lane].successors if n in lanes and n not in seen]
        if not options:
            break
        turn = []
        for n in options:
            chord = np.diff(interpolate(lanes[n].center, np.array([0.0, 15.0])), axis=0)[0]
            turn.append(abs(float(wrap_angle(np.arctan2(chord[1], chord[0]) - yaw))))
        lane = options[int(np.argmin(turn))]
        seen.add(lane)
        more.append(lane)
        parts.append(lanes[lane].center)
        total += float(arc_length(parts[-1])[-1])
    line = drop_duplicates(np.concatenate(parts), 0.05)
    missing = length - float(arc_length(line)[-1])
    if missing > 0 or len(line) < 2:
        if len(line) > 1:
            yaw = headings(line)[-1]
        else:
            whole = drop_duplicates(lanes[lane].center)
            yaw = headings(whole)[-1] if len(whole) > 1 else 0.0
        line = np.concatenate(
            [line, line[-1:] + (missing + SPACING) * np.array([[np.cos(yaw), np.sin(yaw)]])]
        )
    return line, more


def _near_segments(edges: list[np.ndarray], line: np.ndarray) -> Segments:
    """Road edges around a line."""
    low, high = line.min(0) - 20.0, line.max(0) + 20.0
    near = [e for e in edges if (e[:, :2].max(0) > low).all() and (e[:, :2].min(0) < high).all()]
    return cut_segments(near, np.arange(len(near)), max_step=10.0)


def _off_road(line: np.ndarray, segments: Segments, margin: float, until: float) -> int:
    """How many boxes up to arc length `until`, grown by `margin` [m], cross a road edge."""
    if not len(segments.owner):
        return 0
    fine = interpolate(line, np.arange(0.0, until, 0.5))
    size = np.broadcast_to([LENGTH + margin, WIDTH + margin], fine.shape)
    middle = np.column_stack([fine, np.zeros(len(fine))])
    corners = box_corners(fine, box_headings(fine), size)
    return int(beyond_edge(segments, middle, corners, has_z=False).any(1).sum())


def box_headings(line: np.ndarray) -> np.ndarray:
    """Heading of a car whose box center follows a line: in bends the rear axle cuts in [rad], [n].

    The kinematic single-track model: the center moves at asin(REAR * curvature) to the heading.
    """
    s, yaw = arc_length(line), headings_along(line)
    curvature = (np.interp(s + 2.0, s, yaw) - np.interp(s - 2.0, s, yaw)) / 4.0
    # It begins with the heading of the line, whatever bend follows.
    return yaw - np.arcsin(np.clip(REAR * curvature * np.minimum(s / 3.0, 1.0), -0.7, 0.7))


def _shifted(line: np.ndarray, shift: float) -> np.ndarray:
    """The line moved to its left [m]."""
    if not shift or len(line) < 2:
        return line
    yaw = headings_along(line)
    return line + shift * np.stack([-np.sin(yaw), np.cos(yaw)], axis=1)


def headings_along(line: np.ndarray) -> np.ndarray:
    """Heading of a line at its points, without jumps of 2 pi [rad], [n]."""
    step = np.gradient(line, arc_length(line), axis=0)
    return np.unwrap(np.arctan2(step[:, 1], step[:, 0]))


def _smooth(
    line: np.ndarray,
    start: np.ndarray,
    ahead: np.ndarray,
    speed: float,
    changes: list[float],
    goal_s: float,
    goal: np.ndarray | None,
    stiffness: float,
) -> np.ndarray:
    """The line that begins at `start` towards `ahead`, passes the goal and changes lanes smoothly.

    Least squares: near to the lanes' centers except where it joins or changes them, with small
    third differences; the begin is fixed.
    """
    total = min(float(arc_length(line)[-1]), MAX_LENGTH)
    s = np.arange(0.0, max(total, 3 * SPACING), SPACING)
    target = interpolate(line, s)
    weight = np.ones(len(s))
    offset = float(np.hypot(*(target[0] - start)))
    weight[s < min(MERGE_LENGTH + MERGE_TIME * speed + 6.0 * offset, 40.0)] = 0.0
    for place in set(changes):
        way = max(CHANGE_LENGTH, CHANGE_TIME * speed) * changes.count(place)
        weight[np.abs(s - place) < 0.5 * way] = 0.0
    if not weight.any():
        weight[-1] = 1.0
    if goal is not None and np.isfinite(goal_s):
        i = min(round(goal_s / SPACING), len(s) - 1)
        if np.hypot(*(target[i] - goal)) < GOAL_OFFSET + SPACING:
            weight[np.abs(s - goal_s) < max(8.0, 1.5 * speed)] = 0.0
            # The nearest point stands for the goal, moved along the line as far as it is off.
            step = interpolate(line, np.array([goal_s, s[i]]))
            target[i] = goal + step[1] - step[0]
            weight[i] = 100.0
    n = len(s)
    matrix = np.diag(weight + 1e-9)
    rows, third = np.arange(n - 3), (-1.0, 3.0, -3.0, 1.0)
    for j, k in itertools.product(range(4), range(4)):
        matrix[rows + j, rows + k] += stiffness * third[j] * third[k]
    value = weight[:, None] * target
    fixed = np.array([start, start + SPACING * ahead])
    value = value[2:] - matrix[2:, :2] @ fixed
    return np.concatenate([fixed, _solve_banded(matrix[2:, 2:], value)])


def _solve_banded(matrix: np.ndarray, value: np.ndarray) -> np.ndarray:
    """`np.linalg.solve`, where nothing lies farther than `BLOCK` from the diagonal."""
    cuts = np.arange(BLOCK, len(matrix), BLOCK)
    parts = np.split(value, cuts)
    slices = [slice(int(f), int(f) + BLOCK) for f in (0, *cuts)]
    diagonals = [matrix[own, own] for own in slices]
    for b in range(1, len(parts)):  # each block is freed from the one before
        beside = matrix[slices[b - 1], slices[b]]
        factor = np.linalg.solve(diagonals[b - 1], beside).T
        diagonals[b] = diagonals[b] - factor @ beside
        parts[b] = parts[b] - factor @ parts[b - 1]
    parts[-1] = np.linalg.solve(diagonals[-1], parts[-1])
    for b in reversed(range(len(parts) - 1)):
        beside = matrix[slices[b], slices[b + 1]]
        parts[b] = np.linalg.solve(diagonals[b], parts[b] - beside @ parts[b + 1])
    return np.concatenate(parts)
