"""Poses at given times: between them, and between the sightings of an actor."""

from __future__ import annotations

import numpy as np

from alpagym.scenarios.polyline import wrap_angle


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
    step[..., 2] = wrap_angle(step[..., 2])
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
