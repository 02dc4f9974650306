"""Rewards of whole episodes, with AlpaGym's exact totals.

Three presets, sums of named terms (NVlabs/alpagym 85ed1f5, `runtime/rewards`):

- `distance_to_gt`: -0.01 a meter of RMSE between the executed and the recorded path;
- `metrics`: progress - 10 collision_any;
- `progress_safety`: progress - 10 collision_any - 5 offroad - 0.01 a meter of RMSE.

`progress`, `collision_any` and `offroad` are AlpaSim's aggregates over all steps. What that means:

- Warm-up counts. The steps in which the record drives, before the policy takes over, are in the
  aggregates and in the RMSE, which they lower.
- Being hit from behind costs as much as hitting: `collision_any` asks for no fault.
- Progress after a crash counts: nothing is cut at the first incident.
- Progress is a fraction of the whole recorded path, so an episode that ends before the record does
  cannot reach 1, and a collision outweighs ten complete drives.
- The distance is taken at equal times, so driving the same path faster or slower costs.
- Off-road is AlpaSim's: the box touches the nearest road edge; far beyond the edge it is 0.

The presets of the same names in `config.REWARD_PRESETS` pay by the step instead, for training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from alpagym.metrics.drive import Drive
from alpagym.metrics.geometry import ahead, to_frame

DISTANCE_TO_GT = "distance_to_gt"
"""The term that is a path's RMSE; all others are metrics of the same name."""
EPISODE_PRESETS: dict[str, dict[str, float]] = {
    "distance_to_gt": {DISTANCE_TO_GT: -0.01},
    "metrics": {"progress": 1.0, "collision_any": -10.0},
    "progress_safety": {
        "progress": 1.0,
        "collision_any": -10.0,
        "offroad": -5.0,
        DISTANCE_TO_GT: -0.01,
    },
}
"""Weight of each term, per meter for `distance_to_gt`, by preset."""


@dataclass(frozen=True)
class DistanceToGt:
    """How far the executed path is from the recorded one."""

    rmse: float
    """Root of the mean squared distance in xy at equal times [m]."""
    num_paired: int
    """Executed poses within the recorded time."""


@dataclass(frozen=True)
class EpisodeReward:
    """What an episode earned."""

    total: float
    """Sum of the terms."""
    terms: dict[str, float]
    """Each weighted term by name."""


def yaw_of(quaternion: np.ndarray) -> np.ndarray:
    """Yaw of quaternions w, x, y, z, [..., 4] -> [...] [rad]."""
    w, x, y, z = np.moveaxis(np.asarray(quaternion, np.float64), -1, 0)
    return np.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))


def distance_to_gt(
    executed_us: np.ndarray,
    executed: np.ndarray,
    truth_us: np.ndarray,
    truth: np.ndarray,
    anchor_us: int,
) -> DistanceToGt:
    """AlpaGym's `compute_distance_to_gt_reward`, unscaled.

    The executed pose at `anchor_us` (position and the cosine and sine of yaw interpolated) places
    the recorded path in the world; the recorded position is interpolated at each executed time that
    the record covers.

    Args:
        executed_us: times of the executed poses, strictly increasing [us], int64 [n].
        executed: x, y [m], yaw [rad] of the rig in the world frame, [n, 3].
        truth_us: times of the recorded positions, in any order [us], int64 [m].
        truth: x, y of the rig in the rig frame at `anchor_us` [m], [m, 2].
        anchor_us: time of the frame that `truth` is in [us].

    Raises:
        ValueError: fewer than two poses on either side, times out of order, values that are not
            finite, an anchor outside the executed times, or no executed pose in the recorded time.
    """
    executed_us, truth_us = np.asarray(executed_us, np.int64), np.asarray(truth_us, np.int64)
    executed, truth = np.asarray(executed, np.float64), np.asarray(truth, np.float64)
    for name, times, values, width in (
        ("executed", executed_us, executed, 3),
        ("truth", truth_us, truth, 2),
    ):
        if times.ndim != 1 or values.shape != (len(times), width) or len(times) < 2:
            raise ValueError(
                f"{name}: expected at least two poses, [n] times and [n, {width}] values, "
                f"got {list(times.shape)} and {list(values.shape)}"
            )
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: expected finite poses, got NaN or infinity")
    if (np.diff(executed_us) <= 0).any():
        raise ValueError("executed: expected strictly increasing times, got some that are not")
    if not executed_us[0] <= anchor_us <= executed_us[-1]:
        raise ValueError(
            f"anchor: expected a time in {executed_us[0]}..{executed_us[-1]} us, got {anchor_us}"
        )
    order = np.argsort(truth_us, kind="stable")
    truth_us, truth = truth_us[order], truth[order]
    covered = (executed_us >= truth_us[0]) & (executed_us <= truth_us[-1])
    if not covered.any():
        raise ValueError(
            f"truth: expected an executed pose in {truth_us[0]}..{truth_us[-1]} us, "
            f"got {executed_us[0]}..{executed_us[-1]}"
        )
    t, s = (executed_us - anchor_us).astype(np.float64), (truth_us - anchor_us).astype(np.float64)
    yaw = executed[:, 2]
    x, y, c, s_yaw = (
        np.interp(0.0, t, values)
        for values in (executed[:, 0], executed[:, 1], np.cos(yaw), np.sin(yaw))
    )
    heading = np.arctan2(s_yaw, c)
    c, s_yaw = np.cos(heading), np.sin(heading)
    world = (x + c * truth[:, 0] - s_yaw * truth[:, 1], y + s_yaw * truth[:, 0] + c * truth[:, 1])
    squared = np.zeros(int(covered.sum()))
    for axis in (0, 1):
        squared += (executed[covered, axis] - np.interp(t[covered], s, world[axis])) ** 2
    return DistanceToGt(float(np.sqrt(squared.mean())), len(squared))


def episode_reward(
    preset: str, metrics: Mapping[str, float], distance: DistanceToGt | None = None
) -> EpisodeReward:
    """The total of a preset, AlpaGym's `compute_reward`.

    Args:
        preset: one of `EPISODE_PRESETS`.
        metrics: AlpaSim's aggregates by name, at least those that the preset asks for.
        distance: to the recorded path, if the preset asks for it.

    Raises:
        ValueError: an unknown preset, or a term without a finite value.
    """
    if preset not in EPISODE_PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(EPISODE_PRESETS)}, got {preset}")
    terms = {}
    for name, weight in EPISODE_PRESETS[preset].items():
        if name == DISTANCE_TO_GT:
            value = None if distance is None else distance.rmse
        else:
            value = metrics.get(name)
        if value is None or not np.isfinite(value):
            raise ValueError(f"preset {preset}: expected a finite {name}, got {value}")
        terms[name] = weight * float(value)
    return EpisodeReward(sum(terms.values()), terms)


def drive_distance(drive: Drive) -> DistanceToGt:
    """Distance of a drive's rear axle from the record's, anchored where the driver took over.

    All rows count, those before the driver took over too.

    Raises:
        ValueError: as `distance_to_gt`.
    """
    there, back = drive.ego_there, drive.ego_rear_axle
    executed, record = ahead(drive.ego_pose[there], -back), ahead(drive.log_pose, -back)
    times, log_times = (np.rint(1e6 * t).astype(np.int64) for t in (drive.times, drive.log_times))
    anchor = int(times[drive.start])
    at = np.flatnonzero(log_times == anchor)
    if not len(at):
        raise ValueError(
            f"{drive.scenario.source}: expected a recorded pose of the ego where the driver took "
            "over, got none"
        )
    in_rig = to_frame(record[at[0]], record[:, :2])
    return distance_to_gt(times[there], executed, log_times, in_rig, anchor)


def score(
    drive: Drive, metrics: Mapping[str, float], presets: Iterable[str] = tuple(EPISODE_PRESETS)
) -> dict[str, EpisodeReward]:
    """What a drive of ours earns by each preset.

    Args:
        drive: its poses.
        metrics: its AlpaSim aggregates over all rows, nothing cut: `progress`, `collision_any`,
            `offroad` (missing without a map).
        presets: which; all by default.

    Raises:
        ValueError: as `episode_reward` and `distance_to_gt`.
    """
    chosen = list(presets)
    asks = any(DISTANCE_TO_GT in EPISODE_PRESETS.get(name, {}) for name in chosen)
    distance = drive_distance(drive) if asks else None
    return {name: episode_reward(name, metrics, distance) for name in chosen}
