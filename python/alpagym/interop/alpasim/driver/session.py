"""What a driver knows of one rollout."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from alpagym.interop.alpasim.poses import Track, from_frame, into_frame, read_trajectory
from alpagym.interop.alpasim.told import curvature_of, route_told
from alpagym.scenarios.polyline import wrap_angle
from alpagym.timed_plans import STEP

KEPT_S, MOST_KEPT = 2.0, 512
"""Poses older than this [s], or more of them, are forgotten."""
FITTED_S, LEAST_FITTED_S = 0.5, 0.02
"""Where speeds are not told they follow from the poses of so long [s], if they are of that."""
STEP_US = round(STEP * 1e6)
SLACK_US = STEP_US // 100
"""Two times between decisions that are closer are the same."""


class Session:
    """Poses, route and plan of one rollout; methods raise `ValueError` in one sentence.

    Attributes:
        seed: of its decisions.
        memory: what the policy remembers, [M].
        decisions: made so far.
        driving: whether an answer is being made.
        answered_us: when the last answer begins, None before the first.
        answer: that answer.
    """

    def __init__(self, seed: int, memory: Tensor, max_curvature: float) -> None:
        self.seed, self.memory, self.decisions, self.driving = seed, memory, 0, False
        self.answered_us: int | None = None
        self.answer: Any = None
        self._max_curvature = max_curvature
        self._time_us = np.zeros(0, np.int64)
        self._forgotten_us = -1  # the last that is not kept
        self._pose = np.zeros((0, 3))  # x, y, yaw, which goes on beyond pi
        self._z = np.zeros(0)
        self._speed = np.zeros(0)  # NaN where it was not told
        self._route: tuple[int, np.ndarray] | None = None
        self._plan: Track | None = None

    # What is told

    def add_egomotion(self, trajectory: Any, states: Any) -> None:
        """Take poses of the rig, and a dynamic state for each or none.

        Poses that were told before are passed over, those that are forgotten too. A dynamic state
        of zeros tells nothing: AlpaSim sends it as long as the record drives. Nor do those of
        several poses that a session begins with: AlpaSim gives them in the local frame, by
        differences over times in float32.

        Raises:
            ValueError: poses or states that cannot be, times that go back, or another number of
                states than of poses.
        """
        track = read_trajectory(trajectory, "egomotion")
        if len(states) not in (0, len(track.time_us)):
            raise ValueError(
                f"egomotion: expected a dynamic state for each of {len(track.time_us)} poses or "
                f"none, got {len(states)}"
            )
        speed = _speeds_told(states) if len(states) else np.full(len(track.time_us), np.nan)
        if not len(self._time_us) and len(speed) > 1:
            speed[:] = np.nan
        last = int(self._time_us[-1]) if len(self._time_us) else -1
        new = track.time_us > last
        known = (track.time_us <= self._forgotten_us) | np.isin(track.time_us, self._time_us)
        back = track.time_us[~new & ~known]
        if len(back):
            raise ValueError(f"egomotion: expected times after {last} us, got {back[0]} us")
        pose, before = track.pose[new], self._pose[-1:, 2]
        pose[:, 2] = np.unwrap(np.concatenate([before, pose[:, 2]]))[len(before) :]
        self._time_us = np.concatenate([self._time_us, track.time_us[new]])
        self._pose = np.concatenate([self._pose, pose])
        self._z = np.concatenate([self._z, track.z[new]])
        self._speed = np.concatenate([self._speed, speed[new]])
        if len(self._time_us):
            old = np.searchsorted(self._time_us, self._time_us[-1] - round(KEPT_S * 1e6))
            first = max(int(old), len(self._time_us) - MOST_KEPT)
            if first:
                self._forgotten_us = int(self._time_us[first - 1])
            young = slice(first, None)
            self._time_us, self._pose = self._time_us[young], self._pose[young]
            self._z, self._speed = self._z[young], self._speed[young]

    def set_route(self, time_us: int, points: np.ndarray) -> None:
        """Take a route, x, y, z in the rig frame at that time, float32 [N, 3].

        Raises:
            ValueError: a waypoint is infinite.
        """
        self._route = time_us, route_told(points)

    # What is known

    def check(self, now_us: int) -> None:
        """Look whether all is there for a decision.

        Raises:
            ValueError: what is missing.
        """
        if not len(self._time_us):
            raise ValueError("drive: expected egomotion first, got none in this session")
        last = int(self._time_us[-1])
        if last != now_us:
            raise ValueError(
                f"drive: expected egomotion up to time_now_us={now_us}, got it up to {last}"
            )
        if self._route is None:
            raise ValueError("drive: expected a route first, got none in this session")

    def motion(self) -> tuple[float, float, float]:
        """Speed [m/s], acceleration [m/s^2] and curvature [1/m] of the last 0.1 s."""
        since_us = self._time_us - self._time_us[-1]
        reaches = since_us[0] <= -STEP_US
        speed = float(self._speed[-1])
        before = float(np.interp(-STEP_US, since_us, self._speed)) if reaches else np.nan
        if np.isfinite(speed) and np.isfinite(before):
            accel = (speed - before) / STEP
        else:
            fitted, accel = _fitted(since_us * 1e-6, self._pose)
            speed = speed if np.isfinite(speed) else fitted
            before = speed - STEP * accel
        if not reaches:
            return speed, accel, 0.0
        turn = float(self._pose[-1, 2] - np.interp(-STEP_US, since_us, self._pose[:, 2]))
        way = 0.5 * STEP * (speed + before)
        return speed, accel, curvature_of(turn, way, self._max_curvature)

    def waypoints(self) -> np.ndarray:
        """The route in the rig frame now, float32 [20, 2].

        Raises:
            ValueError: the route is of a time whose pose is not known.
        """
        assert self._route is not None
        then_us, points = self._route
        if then_us == self._time_us[-1]:
            return points
        if not self._time_us[0] <= then_us <= self._time_us[-1]:
            raise ValueError(
                f"drive: expected a route of a time between {self._time_us[0]} and "
                f"{self._time_us[-1]} us, got one of {then_us} us"
            )
        since_us = self._time_us - then_us
        then = np.array([np.interp(0, since_us, column) for column in self._pose.T])
        flat = np.concatenate([points, np.zeros((len(points), 1))], 1)
        now = into_frame(self._pose[-1], from_frame(then, flat))
        return now[:, :2].astype(np.float32)

    # Plans

    def begin_plan(self, waypoints: np.ndarray) -> None:
        """Follow waypoints 0.1 s, 0.2 s, ... from now on, in the rig frame now, [P, 3]."""
        ahead = STEP_US * np.arange(1, len(waypoints) + 1, dtype=np.int64)
        z = np.full(len(waypoints), self._z[-1])
        self._plan = Track(self._time_us[-1] + ahead, from_frame(self._pose[-1], waypoints), z)
        self.decisions += 1

    def decides(self, interval_us: int) -> bool:
        """Whether the plan that is followed began so long ago, or there is none."""
        age_us = self.plan_age_us()
        return age_us is None or age_us >= interval_us - SLACK_US

    def plan_age_us(self) -> int | None:
        """How long ago the plan that is followed began, None without one."""
        if self._plan is None:
            return None
        return int(self._time_us[-1]) - int(self._plan.time_us[0]) + STEP_US

    def plan(self) -> Track:
        """Where the rig is now, and what is left of the plan, in the local frame."""
        assert self._plan is not None
        left = self._plan.time_us > self._time_us[-1]
        pose = np.concatenate([self._pose[-1:], self._plan.pose[left]])
        pose[:, 2] = wrap_angle(pose[:, 2])
        return Track(
            np.concatenate([self._time_us[-1:], self._plan.time_us[left]]),
            pose,
            np.full(len(pose), self._z[-1]),
        )


def _speeds_told(states: Any) -> np.ndarray:
    """Speeds of messages `common.DynamicState` [m/s], NaN where all is zero, [N].

    Raises:
        ValueError: NaN or infinity in a state.
    """
    numbers = np.fromiter(
        (
            (v.x, v.y, v.z, w.x, w.y, w.z, a.x, a.y, a.z)
            for v, w, a in (
                (s.linear_velocity, s.angular_velocity, s.linear_acceleration) for s in states
            )
        ),
        np.dtype((np.float64, 9)),
        len(states),
    )
    bad = np.flatnonzero(~np.isfinite(numbers).all(1))
    if len(bad):
        raise ValueError(f"egomotion state {bad[0]}: expected finite numbers, got NaN or infinity")
    return np.where(numbers.any(1), numbers[:, 0], np.nan)


def _fitted(t: np.ndarray, pose: np.ndarray) -> tuple[float, float]:
    """Speed [m/s] and acceleration [m/s^2] now, by a parabola through the last positions.

    Args:
        t: of each pose [s], the last is 0. [N]
        pose: x, y, yaw, [N, 3].
    """
    inside = t >= -FITTED_S - 1e-6
    t, pose = t[inside], pose[inside]
    if len(t) < 2 or t[0] > -LEAST_FITTED_S:
        return 0.0, 0.0
    step, heading = np.diff(pose[:, :2], axis=0), 0.5 * (pose[:-1, 2] + pose[1:, 2])
    forward = step[:, 0] * np.cos(heading) + step[:, 1] * np.sin(heading)
    way = np.concatenate([[0.0], np.cumsum(np.copysign(np.hypot(*step.T), forward))])
    powers = np.stack([np.ones_like(t), t, t * t], -1)[:, : min(len(t), 3)]
    found = np.linalg.lstsq(powers, way, rcond=None)[0]
    return float(found[1]), 2.0 * float(found[2]) if len(found) > 2 else 0.0
