"""C, HC and EC: comfort of one trajectory, with what came before it, and of two in a row."""

from __future__ import annotations

import numpy as np

from alpagym.metrics.comfort import (
    Windows,
    center_acceleration,
    comfort_series,
    is_comfortable,
    jerk,
    smoothed_acceleration,
    yaw_acceleration,
    yaw_rate,
)
from alpagym.metrics.geometry import principal_angle
from alpagym.metrics.navsim.states import STEP, Car, State

ACCELERATION = [State.ACCELERATION_X, State.ACCELERATION_Y]
SHORTEST = 5
"""Fewest states whose yaw acceleration is a fit rather than an interpolation."""

EXTENDED_BOUNDS = np.array([0.7, 0.5, 0.1, 0.1])
"""Largest root mean square difference of acceleration [m/s^2], jerk [m/s^3], yaw rate [rad/s] and
yaw acceleration [rad/s^2]."""

PAST_INTERVAL = 0.5
"""Time between samples of the human past [s]."""


def series(states: np.ndarray, car: Car) -> dict[str, np.ndarray]:
    """NAVSIM v2's six comfort series, each [P, T]: nuPlan's, with center accelerations.

    Source: NAVSIM v2, `pdm_comfort_metrics.py`.
    """
    rear = states[..., ACCELERATION]
    center = center_acceleration(
        rear, states[..., State.YAW_RATE], states[..., State.YAW_ACCELERATION], car.center
    )
    return comfort_series(center, rear, states[..., State.HEADING], STEP)


def series_v1(states: np.ndarray) -> dict[str, np.ndarray]:
    """NAVSIM v1.1's six comfort series, each [P, T].

    Rear-axle accelerations; longitudinal and lateral acceleration are one quadratic over the whole
    trajectory, and so is what jerk is derived from, after a first filter of 8.

    Source: NAVSIM v1.1, `pdm_comfort_metrics.py`.
    """
    rear = states[..., ACCELERATION]
    whole = states.shape[1]
    windows = Windows(acceleration=whole, jerk=whole)
    return comfort_series(rear, rear, states[..., State.HEADING], STEP, windows)


def comfort_v1(states: np.ndarray) -> np.ndarray:
    """C: 1 if all six series of NAVSIM v1.1 stay within nuPlan's bounds, else 0, [P]."""
    return is_comfortable(series_v1(states)).astype(np.float64)


def history_comfort(states: np.ndarray, past: np.ndarray | None, car: Car) -> np.ndarray:
    """HC: 1 if all six series stay within nuPlan's bounds, the past included, else 0, [P].

    Source: NAVSIM v2, `pdm_scorer.py` (`_calculate_history_comfort`).

    Args:
        states: [P, T, 11].
        past: States put in front of every proposal as if one `STEP` apart, [H, 11]; see
            `resampled_past`. None scores 1.
        car: Where the box center is.
    """
    if past is None:
        return np.ones(len(states))
    before = np.broadcast_to(past, (len(states), *past.shape))
    return is_comfortable(series(np.concatenate([before, states], 1), car)).astype(np.float64)


def resampled_past(samples: np.ndarray) -> np.ndarray:
    """The past as NAVSIM puts it in front of a proposal: every 0.1 s, without its last two samples.

    Values are interpolated linearly, headings the short way round. The last row is 0.2 s before the
    proposal's first, a gap that NAVSIM takes for 0.1 s.

    Source: NAVSIM v2, `pdm_scorer.py` (`_calculate_history_comfort`).

    Args:
        samples: States every 0.5 s up to the proposal's first one, [n, 11], n >= 2; four in
            NAVSIM, from -1.5 s on.

    Returns:
        [5 (n - 1) - 1, 11]; headings in [-pi, pi].
    """
    samples = np.asarray(samples, np.float64)
    if samples.ndim != 2 or samples.shape[1] != len(State) or len(samples) < 2:
        raise ValueError(f"past: expected [2 or more, 11], got {list(samples.shape)}")
    if not np.isfinite(samples).all():
        raise ValueError("past: expected finite numbers, got NaN or infinity")
    each = round(PAST_INTERVAL / STEP)
    at = np.arange(each * (len(samples) - 1) - 1)
    begin, share = at // each, (at % each / each)[:, None]
    samples = samples.copy()
    samples[:, State.HEADING] = np.unwrap(samples[:, State.HEADING])
    result = (1 - share) * samples[begin] + share * samples[begin + 1]
    result[:, State.HEADING] = principal_angle(result[:, State.HEADING])
    return result


def extended_features(states: np.ndarray) -> np.ndarray:
    """Acceleration, jerk, yaw rate and yaw acceleration as EC compares them, [..., T, 4].

    Acceleration is the magnitude at the rear axle, jerk its derivative; yaw acceleration is read
    off quadratics.

    Source: NAVSIM v2, `pdm_comfort_metrics.py` (`ego_is_two_frame_extended_comfort`).
    """
    magnitude = smoothed_acceleration(np.hypot(*np.moveaxis(states[..., ACCELERATION], -1, 0)))
    heading = states[..., State.HEADING]
    return np.stack(
        [
            magnitude,
            jerk(magnitude, STEP),
            yaw_rate(heading, STEP),
            yaw_acceleration(heading, STEP, poly=2),
        ],
        -1,
    )


def extended_comfort(
    previous: np.ndarray, current: np.ndarray, delay: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """EC: whether two trajectories that overlap in time agree.

    Source: NAVSIM v2, `scene_aggregator.py` (`_compute_two_frame_comfort`).

    Args:
        previous: States, [..., T, 11].
        current: States of the trajectory that starts `delay` steps later, [..., T, 11].
        delay: [steps], between 1 and T - 5.

    Returns:
        1 or 0, [...], and the root mean square differences that `EXTENDED_BOUNDS` limits, [..., 4].
    """
    previous, current = np.asarray(previous, np.float64), np.asarray(current, np.float64)
    if previous.shape != current.shape or previous.ndim < 2 or previous.shape[-1] != len(State):
        raise ValueError(
            f"extended comfort: expected two [..., steps, 11] of one shape, "
            f"got {list(previous.shape)} and {list(current.shape)}"
        )
    overlap = previous.shape[-2] - delay
    if delay < 1 or overlap < SHORTEST:
        raise ValueError(
            f"extended comfort: expected a delay of 1 to {previous.shape[-2] - SHORTEST} steps, "
            f"got {delay}"
        )
    ours, theirs = current[..., :overlap, :], previous[..., delay:, :]
    difference = extended_features(ours) - extended_features(theirs)
    rms = np.sqrt(np.square(difference).mean(-2))
    return (rms <= EXTENDED_BOUNDS).all(-1).astype(np.float64), rms
