"""Plans, as `trajectory` actions take them: cut from records, or given at other times."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alpagym.scenarios.batch import rear_axles
from alpagym.scenarios.polyline import wrap_angle
from alpagym.scenarios.scenario import Scenario

PLAN_STEP = 0.1
"""Time between two waypoints of a plan [s]."""


def resample(times: np.ndarray, poses: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Poses [N, 3] given at `times` [N], read at the times `at` [n]: [n, 3].

    x, y [m] and yaw [rad] in any frame, linear in between, yaw the shorter way round and in
    [-pi, pi). Before the first time and after the last the pose is that of the first and last, as
    AlpaSim's controller reads plans.

    Raises:
        ValueError: shapes that do not fit, no pose, times that do not rise, or no numbers.
    """
    times, poses = np.asarray(times, np.float64), np.asarray(poses, np.float64)
    if poses.shape != (len(times), 3) or len(times) == 0:
        raise ValueError(
            f"plan: expected poses [{len(times)}, 3] and at least one, got {list(poses.shape)}"
        )
    if not (np.isfinite(times).all() and np.isfinite(poses).all()):
        raise ValueError("plan: expected finite times and poses, got NaN or infinity")
    if (np.diff(times) <= 0).any():
        k = int(np.argmin(np.diff(times)))
        raise ValueError(
            f"plan: expected times that rise, got {times[k + 1]:g} s after {times[k]:g} s"
        )
    columns = [poses[:, 0], poses[:, 1], np.unwrap(poses[:, 2])]
    x, y, yaw = (np.interp(at, times, column) for column in columns)
    return np.stack([x, y, wrap_angle(yaw)], axis=-1)


def recorded_plans(
    scenarios: Sequence[Scenario], step: int = 0, *, plan_steps: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """What each recorded ego did from a step of its episode on, as a plan.

    Args:
        scenarios: S of them.
        step: steps since the start frame.
        plan_steps: waypoints, `SimConfig.plan_steps`.

    Returns:
        Plans float32 [S, 3 * plan_steps], a `trajectory` action for each scenario, and where they
        are known, bool [S, plan_steps]: between frames in which the ego was observed. Beyond the
        last of them a plan goes straight on at the last recorded speed. Zeros, and nothing known,
        where the ego is absent at that step.
    """
    plans = np.zeros((len(scenarios), plan_steps, 3))
    known = np.zeros((len(scenarios), plan_steps), bool)
    ahead = PLAN_STEP * np.arange(1, plan_steps + 1)
    for s, scenario in enumerate(scenarios):
        tracks, ego, now = scenario.tracks, scenario.ego, scenario.start_frame + step
        if not (now < tracks.num_frames and tracks.valid[ego, now]):
            continue
        frames = now + np.flatnonzero(tracks.valid[ego, now:])
        times = (frames - now) * scenario.dt
        center, yaw = tracks.xyz[ego, frames, :2].astype(np.float64), tracks.yaw[ego, frames]
        heading = np.stack([np.cos(yaw), np.sin(yaw)], axis=-1)
        rig = center - rear_axles(tracks)[ego] * heading
        c, d = heading[0]
        local = (rig - rig[0]) @ np.array([[c, -d], [d, c]])
        poses = np.column_stack([local, yaw - yaw[0]])
        plans[s] = resample(times, poses, ahead)
        speed = float(np.linalg.norm(tracks.velocity[ego, frames[-1]]))
        beyond = np.maximum(ahead - times[-1], 0.0)[:, None]
        plans[s, :, :2] += speed * beyond * [np.cos(yaw[-1] - yaw[0]), np.sin(yaw[-1] - yaw[0])]
        known[s] = ahead <= times[-1] + 1e-6
    return plans.reshape(len(scenarios), -1).astype(np.float32), known
