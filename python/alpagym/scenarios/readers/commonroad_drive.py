"""A plausible drive along a given way: what stands in for the log of a planning problem's ego.

Many drives are simulated side by side with the Intelligent Driver Model (Treiber, Hennecke and
Helbing, 2000) behind the recorded vehicles on the way, each with another desired speed and
acceleration. The one is taken that touches nobody, is at the goal in time and is the most even.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from alpagym.scenarios.flags import box_corners
from alpagym.scenarios.polyline import arc_length, interpolate, project, split_long_steps
from alpagym.scenarios.readers.commonroad_route import (
    LENGTH,
    WIDTH,
    Way,
    box_headings,
    headings_along,
    inside,
)

MARGIN = 0.2
"""Others whose boxes come this near to the ego's side are in its way [m]."""
TIME_GAP, MIN_GAP, BRAKE = 1.0, 1.5, 2.0
"""Of the driver model [s, m, m/s²]."""
HARDEST = -8.0
"""Nobody brakes harder [m/s²]."""
ACCELERATIONS = (1.0, 1.8, 3.0)
"""Of the drives that are tried [m/s²],"""
SPEEDS = 24
"""with so many desired speeds each,"""
SLOWING = (2.0, 5.0)
"""and with these decelerations towards a desired speed that is lower [m/s²]."""
LATERAL = 3.0
"""Bends are driven with this lateral acceleration [m/s²]."""
LONGEST_STEP = 0.1
"""Of the simulation [s]."""
STANDING = 0.5
"""A goal that admits less than this speed is also tried by stopping there [m/s]."""


@dataclass
class Goal:
    """When, how fast and where a planning problem ends."""

    frames: tuple[int, int]
    """First and last frame."""
    speed: tuple[float, float] = (-np.inf, np.inf)
    """[m/s]."""
    polygons: list[np.ndarray] = field(default_factory=list)
    """Corners of the regions, anywhere if there are none [m], [k, 2] each."""


@dataclass
class Others:
    """Everybody else over T frames, and red lights."""

    xy: np.ndarray
    """Box centers [m], [A, T, 2]."""
    yaw: np.ndarray
    """[rad], [A, T]."""
    velocity: np.ndarray
    """[m/s], [A, T, 2]."""
    size: np.ndarray
    """Length and width [m], [A, 2]."""
    valid: np.ndarray
    """[A, T]."""
    stops: list[tuple[np.ndarray, np.ndarray]]
    """Points of stop lines [2] with the frames in which one must stop there, bool [T]."""


@dataclass
class Drive:
    """A made track of T frames."""

    xy: np.ndarray
    """Box centers [m], [T, 2]."""
    yaw: np.ndarray
    """[rad], [T]."""
    velocity: np.ndarray
    """[m/s], [T, 2]."""
    arrives: bool
    """Whether some frame is at the goal within its bounds of time and speed."""
    touches: int
    """Frames in which a recorded box is in its way."""


def make_drive(
    way: Way, speed: float, first: int, num_frames: int, dt: float, goal: Goal, others: Others
) -> Drive:
    """A drive along a way from frame `first` on.

    Args:
        way: to follow from its begin.
        speed: at the begin [m/s].
        first: frame of the begin.
        num_frames: frames to drive at most; the drive ends at the goal, but not before the record.
        dt: between frames [s].
        goal: to reach.
        others: to keep away from.

    Returns:
        Its arrays begin at frame `first`.
    """
    line = split_long_steps(way.line, 0.5)
    s_line = arc_length(line)
    at_goal = np.ones(len(line), bool)
    if goal.polygons:
        at_goal = np.any([inside(p, line) for p in goal.polygons], axis=0)
    course, headings = headings_along(line), box_headings(line)
    cap = _bend_speeds(course, s_line)
    blocks = _on_way(line, others, num_frames)
    record = others.valid.shape[1]

    fastest = max(speed, 5.0)
    if np.isfinite(way.goal_s):
        # Twice the mean speed that is asked for is enough to speed up from standing.
        seconds = max(goal.frames[0] - first, min(goal.frames[1], record - 1) - first, 1) * dt
        fastest = max(fastest, min(2.0 * way.goal_s / seconds, 40.0))
    if np.isfinite(goal.speed[1]):
        fastest = max(fastest, min(goal.speed[1], 40.0))
    wanted = np.append(np.linspace(1.0, 1.2 * fastest, SPEEDS), max(speed, 1.0))
    may_stop = np.isfinite(way.goal_s) and goal.speed[0] <= STANDING
    obeys = (True, False) if others.stops else (False,)
    options = np.array(
        [
            (v, a, stop, red, slow)
            for v in wanted
            for a in ACCELERATIONS
            for slow in (SLOWING if v < speed else SLOWING[:1])
            for stop in ((False, True) if may_stop else (False,))
            for red in obeys
        ]
    )
    halt = np.where(options[:, 2] > 0, way.goal_s + MIN_GAP + 0.5 * LENGTH, np.inf)
    last = min(max(record, goal.frames[0] + 2), num_frames)
    enough = way.goal_s - 1.0 if np.isfinite(way.goal_s) else -np.inf
    s, v = _simulate(
        options,
        halt,
        speed,
        range(first, num_frames - 1),
        dt,
        blocks,
        (s_line, cap),
        len(others.stops),
        (last, enough),
    )

    frames = np.arange(first, first + s.shape[1])
    in_time = (frames >= goal.frames[0]) & (frames <= goal.frames[1])
    there = np.interp(s, s_line, at_goal.astype(float)) > 0.5
    fits = (v >= goal.speed[0]) & (v <= goal.speed[1])
    success = there & fits & in_time
    touching = _touching(s, frames, blocks, (line, s_line, headings), others)
    late = np.zeros(len(s))
    if np.isfinite(way.goal_s) and in_time.any():
        late = np.abs(s - way.goal_s)[:, in_time].min(1)
        late += np.where((s >= way.goal_s).any(1), 0.0, 50.0)
    pace = np.diff(v, axis=1) / dt
    # Touching nobody counts most, then being at the goal, while others are there too, then comfort.
    used = min(max(record - first, goal.frames[0] - first + 1, 2), s.shape[1])
    cost = 100.0 * np.minimum(touching[:, :used].sum(1), 50)
    cost += np.where(success.any(1), 0.0, 20.0 + np.minimum(late, 1000.0))
    cost += np.where(success[:, : max(record - first, 1)].any(1), 0.0, 5.0)
    cost += np.where((options[:, 3] > 0) | (not others.stops), 0.0, 5.0)
    cost += (pace[:, :used] ** 2).mean(1) + 0.02 * np.abs(options[:, 0] - speed)
    best = int(cost.argmin())
    end = s.shape[1]
    there = success[best] if success[best].any() else s[best] >= way.goal_s
    if there.any():
        end = min(end, max(int(there.argmax()) + 1, record - first))
    elif not np.isfinite(way.goal_s):
        end = min(end, used)
    at = s[best, :end]
    angle = np.interp(at, s_line, course)
    velocity = v[best, :end, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return Drive(
        interpolate(line, at),
        np.interp(at, s_line, headings),
        velocity,
        bool(success[best].any()),
        int(touching[best, :end].sum()),
    )


def _bend_speeds(yaw: np.ndarray, s_line: np.ndarray) -> np.ndarray:
    """The speed from which bends ahead can be entered with `LATERAL`, braking gently [m/s]."""
    # Over 4 m, so that the joints of short lanelets do not count as bends.
    curvature = np.abs(np.interp(s_line + 2, s_line, yaw) - np.interp(s_line - 2, s_line, yaw)) / 4
    cap = np.sqrt(LATERAL / np.maximum(curvature, 1e-4))
    squared = cap**2
    for i in range(len(cap) - 2, -1, -1):
        squared[i] = min(squared[i], squared[i + 1] + 2 * BRAKE * (s_line[i + 1] - s_line[i]))
    return np.sqrt(squared)


@dataclass
class _Blocks:
    """Who stands or drives on the way in each frame; NaN where nobody does. Stop lines come last.

    Beyond the record everybody stays away.
    """

    rear: np.ndarray
    """Arc length at which the box begins [m], [K, T]."""
    front: np.ndarray
    """Where it ends [m], [K, T]."""
    speed: np.ndarray
    """Along the way [m/s], [K, T]."""


def _on_way(line: np.ndarray, others: Others, num_frames: int) -> _Blocks:
    """The boxes of others in the way of an ego that follows a line."""
    count, record = others.valid.shape
    shape = (count + len(others.stops), num_frames)
    rear, front, speed = (np.full(shape, np.nan) for _ in range(3))
    coarse = line[:: max(len(line) // 400, 1)]
    low, high = line.min(0) - 20.0, line.max(0) + 20.0
    near = others.valid & ((others.xy > low) & (others.xy < high)).all(-1)
    agent, frame = np.nonzero(near[:, : min(record, num_frames)])
    for begin in range(0, len(agent), 512):
        a, t = agent[begin : begin + 512], frame[begin : begin + 512]
        _, d = project(coarse, others.xy[a, t])
        reach = 0.5 * np.hypot(*others.size[a].T) + 0.5 * WIDTH + 1.0
        a, t = a[np.abs(d) < reach], t[np.abs(d) < reach]
        if not len(a):
            continue
        corners = box_corners(others.xy[a, t], others.yaw[a, t], others.size[a])
        # Points along the outline, since a long box may cross the line between its corners.
        sides = np.concatenate([corners, 0.5 * (corners + np.roll(corners, -1, axis=1))], axis=1)
        s, d = project(coarse, sides.reshape(-1, 2))
        s, d = s.reshape(len(a), -1), d.reshape(len(a), -1)
        crosses = (d.min(1) < 0) & (d.max(1) > 0)
        hit = crosses | (np.abs(d).min(1) < 0.5 * WIDTH + MARGIN)
        # What only passes the begin or the end of the line is projected onto one point of it.
        hit &= s.max(1) > s.min(1)
        a, t, s = a[hit], t[hit], s[hit]
        rear[a, t], front[a, t] = s.min(1), s.max(1)
        ends = interpolate(coarse, np.concatenate([s.min(1), s.max(1)]))
        tangent = ends[len(a) :] - ends[: len(a)]
        tangent /= np.maximum(np.hypot(*tangent.T), 1e-6)[:, None]
        speed[a, t] = (others.velocity[a, t] * tangent).sum(1)
    for k, (xy, stop) in enumerate(others.stops):
        s, d = project(coarse, xy[None])
        if abs(d[0]) < 2.0:
            row, shown = count + k, np.zeros(num_frames, bool)
            shown[: min(len(stop), num_frames)] = stop[:num_frames]
            rear[row, shown], front[row, shown], speed[row, shown] = s[0], s[0] + 0.1, 0.0
    return _Blocks(rear, front, speed)


def _simulate(
    options: np.ndarray,
    halt: np.ndarray,
    speed: float,
    frames: range,
    dt: float,
    blocks: _Blocks,
    cap: tuple[np.ndarray, np.ndarray],
    num_stops: int,
    until: tuple[int, float],
) -> tuple[np.ndarray, np.ndarray]:
    """Arc lengths and speeds of all drives, [C, F] each.

    From frame `until[0]` on it ends when most drives are beyond arc length `until[1]` [m].
    """
    count = len(options)
    wanted, accel, _, obeys, slow = options.T
    s, v = np.zeros(count), np.full(count, speed)
    every_s, every_v = [s], [v]
    parts = max(int(np.ceil(dt / LONGEST_STEP - 1e-6)), 1)
    h = dt / parts
    is_stop = np.arange(len(blocks.rear)) >= len(blocks.rear) - num_stops
    for frame in frames:
        if frame >= until[0] and (s > until[1]).mean() >= 0.9:
            break
        here = np.flatnonzero(np.isfinite(blocks.rear[:, frame]))
        rear, front, pace = (x[here, frame] for x in (blocks.rear, blocks.front, blocks.speed))
        stop = is_stop[here]
        for part in range(parts):
            moved = pace * (part * h)
            gap = rear + moved - (s[:, None] + 0.5 * LENGTH)
            # A box counts while its middle is ahead, a stop line until the bumper is beyond it.
            ahead = 0.5 * (rear + front) + moved > s[:, None]
            ahead = np.where(stop, (gap > -0.5) & (obeys > 0)[:, None], ahead)
            gap = np.where(ahead, np.maximum(gap, 0.1), np.inf)
            needed = TIME_GAP * v[:, None] + v[:, None] * (v[:, None] - pace) / (
                2 * np.sqrt(accel * BRAKE)[:, None]
            )
            ratio = ((MIN_GAP + np.maximum(needed, 0.0)) / gap).max(1, initial=0.0)
            to_halt = np.maximum(halt - s - 0.5 * LENGTH, 0.1)
            brake = TIME_GAP * v + v * v / (2 * np.sqrt(accel * BRAKE))
            ratio = np.maximum(ratio, (MIN_GAP + brake) / to_halt)
            desired = np.maximum(np.minimum(wanted, np.interp(s, *cap)), 0.5)
            free = np.maximum(1.0 - (v / desired) ** 4, -slow / accel)
            rate = np.clip(accel * (free - ratio**2), HARDEST, None)
            after = np.maximum(v + rate * h, 0.0)
            s, v = s + 0.5 * (v + after) * h, after
        every_s.append(s)
        every_v.append(v)
    return np.stack(every_s, axis=1), np.stack(every_v, axis=1)


def _touching(
    s: np.ndarray,
    frames: np.ndarray,
    blocks: _Blocks,
    course: tuple[np.ndarray, ...],
    others: Others,
) -> np.ndarray:
    """Whether each drive's box overlaps another's, grown by `MARGIN`, bool [C, F].

    Args:
        s: arc lengths [m], [C, F].
        frames: [F].
        blocks: only boxes that are on the way are looked at.
        course: points of the line, their arc lengths and the box's headings.
        others: whose boxes.
    """
    line, s_line, headings = course
    result = np.zeros(s.shape, bool)
    count = len(others.valid)
    for i, frame in enumerate(frames):
        rear, front = blocks.rear[:count, frame], blocks.front[:count, frame]
        here = np.flatnonzero(np.isfinite(rear))
        low, high = s[:, i, None] - LENGTH, s[:, i, None] + LENGTH
        drive, k = np.nonzero((rear[here] < high) & (front[here] > low))
        if not len(drive):
            continue
        agent, at = here[k], s[drive, i]
        own = np.array([LENGTH + 2 * MARGIN, WIDTH + 2 * MARGIN])
        hit = _overlap(
            np.stack([np.interp(at, s_line, c) for c in line.T], axis=1),
            np.interp(at, s_line, headings),
            np.broadcast_to(own, (len(at), 2)),
            others.xy[agent, frame],
            others.yaw[agent, frame],
            others.size[agent, :2],
        )
        result[drive[hit], i] = True
    return result


def _overlap(
    xy: np.ndarray,
    yaw: np.ndarray,
    size: np.ndarray,
    other_xy: np.ndarray,
    other_yaw: np.ndarray,
    other_size: np.ndarray,
) -> np.ndarray:
    """Whether pairs of boxes overlap: no side of either parts them, bool [n]."""
    a, b = box_corners(xy, yaw, size), box_corners(other_xy, other_yaw, other_size)
    result = np.ones(len(a), bool)
    for angle in (yaw, other_yaw):
        for axis in (angle, angle + 0.5 * np.pi):
            along = np.stack([np.cos(axis), np.sin(axis)], axis=1)[:, :, None]
            p, q = (a @ along)[..., 0], (b @ along)[..., 0]
            result &= (p.min(1) < q.max(1)) & (q.min(1) < p.max(1))
    return result
