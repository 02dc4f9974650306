"""Polylines and timed poses: projection, arc length, interpolation."""

from __future__ import annotations

import numpy as np


def wrap(angle: np.ndarray) -> np.ndarray:
    """Angle in [-pi, pi) [rad]."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def arc_length(line: np.ndarray) -> np.ndarray:
    """Arc length at each point of a polyline [n, 2] [m], [n]."""
    steps = np.hypot(*np.diff(line, axis=0).T)
    return np.concatenate([[0.0], np.cumsum(steps)])


def project(
    points: np.ndarray, line: np.ndarray, last: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest place on a polyline, the first one among equals.

    Args:
        points: [p, 2] [m].
        line: [n, 2] [m], n >= 1.
        last: Index of the polyline's last point for each of `points`, [p]; n - 1 if not given.

    Returns:
        Arc length at that place [m], [p], and distance to it [m], [p].
    """
    if len(line) == 1:
        line = np.concatenate([line, line])
    s = arc_length(line)
    start, step = line[:-1], np.diff(line, axis=0)
    length2 = (step**2).sum(-1)
    t = ((points[:, None] - start) * step).sum(-1) / np.where(length2 > 0, length2, 1.0)
    t = np.clip(t, 0.0, 1.0)
    away = points[:, None] - start - t[..., None] * step
    distance2 = (away**2).sum(-1)
    if last is not None:
        distance2 = np.where(np.arange(len(step)) < last[:, None], distance2, np.inf)
    k = distance2.argmin(-1)
    row = np.arange(len(points))
    return s[k] + t[row, k] * np.sqrt(length2[k]), np.sqrt(distance2[row, k])


def along(line: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Points of a polyline [n, 2] at arc lengths `s` [p], clamped to its ends, [p, 2]."""
    at = arc_length(line)
    return np.stack([np.interp(s, at, line[:, 0]), np.interp(s, at, line[:, 1])], -1)


def interpolate(times: np.ndarray, pose: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Poses [n, ..., 3] at `times` [n] brought to `at` [k]: straight lines, shortest turns.

    Times are integers [us]. Those before the first or after the last give the pose of that end.
    """
    after = np.clip(np.searchsorted(times, at), 1, max(len(times) - 1, 1))
    if len(times) == 1:
        return np.repeat(pose, len(at), 0)
    before = after - 1
    t = (at - times[before]) / (times[after] - times[before])
    t = np.clip(t, 0.0, 1.0).reshape(-1, *[1] * (pose.ndim - 1))
    step = pose[after] - pose[before]
    step[..., 2] = wrap(step[..., 2])
    return pose[before] + t * step


def interpolate_single(times: np.ndarray, xy: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Positions [n, 2] at `times` [n] brought to `at` [k] in float32, as AlpaSim holds poses.

    Projecting from far onto short steps magnifies this rounding to millimeters.
    """
    if len(times) == 1:
        return np.repeat(xy, len(at), 0)
    after = np.clip(np.searchsorted(times, at), 1, len(times) - 1)
    t = ((at - times[after - 1]) / (times[after] - times[after - 1])).astype(np.float32)[:, None]
    before, behind = xy.astype(np.float32)[after - 1], xy.astype(np.float32)[after]
    return (before * (1 - t) + behind * t).astype(np.float64)


def fill_gaps(
    there: np.ndarray, times: np.ndarray, pose: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Poses of actors between their sightings.

    Args:
        there: Whether an actor is seen, bool [T, N].
        times: [us], int64 [T].
        pose: [T, N, 3]; only seen rows are read.

    Returns:
        Whether an actor counts (from its first to its last sighting), bool [T, N], and its poses
        [T, N, 3], interpolated where it is not seen.
    """
    seen_before = np.logical_or.accumulate(there, 0)
    seen_after = np.logical_or.accumulate(there[::-1], 0)[::-1]
    counts = seen_before & seen_after
    filled = np.where(there[..., None], pose, 0.0)
    for actor in np.flatnonzero((counts & ~there).any(0)):
        seen, lost = there[:, actor], counts[:, actor] & ~there[:, actor]
        filled[lost, actor] = interpolate(times[seen], pose[seen, actor], times[lost])
    return counts, filled
