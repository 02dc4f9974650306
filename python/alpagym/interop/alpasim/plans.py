"""Plans as drivers answer: what is refused, how old they must be, and the actions they become."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alpagym.interop.alpasim.poses import Track, into_frame, read_trajectory
from alpagym.scenarios.polyline import wrap_angle
from alpagym.scenarios.recorded_plans import PLAN_STEP, resample


def checked_plan(trajectory: Any, now_us: int) -> Track:
    """The plan of a driver's answer, a message `common.Trajectory`: x, y, yaw of the rig.

    Raises:
        ValueError: as `read_trajectory`; no pose, or a first one that is not of the time asked.
    """
    track = read_trajectory(trajectory, "plan")
    if len(track.time_us) == 0:
        raise ValueError("plan: expected at least one pose, got none")
    if track.time_us[0] != now_us:
        raise ValueError(
            f"plan: expected a first pose at the time asked, {now_us} us, got {track.time_us[0]} us"
        )
    return track


@dataclass
class DelayedPlans:
    """Plans that must reach an age before they are followed (AlpaSim's `DelayBuffer`).

    Until the first is that old, the first is followed all the same.
    """

    delay_us: int
    _plans: list[tuple[int, Track]] = field(default_factory=list)

    def add(self, now_us: int, plan: Track) -> None:
        """One that was made now."""
        self._plans.append((now_us, plan))

    def current(self, now_us: int) -> Track:
        """The newest that is old enough.

        Raises:
            ValueError: none was ever added.
        """
        if not self._plans:
            raise ValueError("plan: expected at least one pose, got none")
        while len(self._plans) > 1 and self._plans[1][0] + self.delay_us <= now_us:
            self._plans.pop(0)
        return self._plans[0][1]


def action_of(plan: Track, now_us: int, rig: np.ndarray, steps: int) -> np.ndarray:
    """The action that follows a plan from now on, wherever in it now is.

    Args:
        plan: of the rig in the world frame.
        now_us: of the state.
        rig: x, y, yaw now, [3].
        steps: waypoints of an action.

    Returns:
        float32 [3 * steps].
    """
    ahead = PLAN_STEP * np.arange(1, steps + 1)
    way = resample((plan.time_us - now_us) * 1e-6, plan.pose, ahead)
    local = into_frame(rig, way)
    local[:, 2] = wrap_angle(local[:, 2])
    return local.reshape(-1).astype(np.float32)
