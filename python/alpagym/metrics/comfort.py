"""Comfort as nuPlan measures it: six smoothed series of the ego's motion and their bounds.

nuPlan: `planning/metrics/utils/state_extractors.py` and `evaluation_metrics/common/ego_*.py`.
Time runs along the last axis of every series; everything is float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import factorial

import numpy as np

BOUNDS: Mapping[str, tuple[float, float]] = {
    "lon_accel": (-4.05, 2.40),  # [m/s^2]
    "lat_accel": (-4.89, 4.89),  # [m/s^2]
    "jerk_mag": (-8.37, 8.37),  # [m/s^3]
    "lon_jerk": (-4.13, 4.13),  # [m/s^3]
    "yaw_rate": (-0.95, 0.95),  # [rad/s]
    "yaw_accel": (-1.93, 1.93),  # [rad/s^2]
}
"""What each series must stay strictly between, in nuPlan's order."""

DECIMALS = 8
"""Every filtered series is rounded to this many decimals before it is used further."""


@dataclass(frozen=True)
class Windows:
    """Samples per fit, and the degree where programs differ; a window never exceeds the series.

    The defaults are nuPlan's. Its yaw functions name a window of 15 but hand none on, so the
    filter's own 5 is in force.
    """

    acceleration: int = 8
    """Of the series lon_accel and lat_accel."""
    smoothing: int = 8
    """Of the accelerations that jerk is derived from."""
    jerk: int = 15
    yaw: int = 5
    yaw_accel_poly: int = 3


def savgol(
    values: np.ndarray, window: int, poly: int, deriv: int = 0, delta: float = 1.0
) -> np.ndarray:
    """Savitzky-Golay filter along the last axis, as `scipy.signal.savgol_filter` with 'interp'.

    Sample i is the value (or derivative) of the polynomial fitted to the window about it; the first
    and last window // 2 samples are read off the fit to the first and last window. A window of even
    size spans i - window / 2 + 1 to i + window / 2 and is read in its middle, half a step after i.

    Args:
        values: [..., n].
        window: Samples per fit, at most n.
        poly: Degree of the polynomial, below `window`.
        deriv: Order of the derivative.
        delta: Time between samples [s].

    Returns:
        Float64 of the shape of `values`, per `delta` to the power `deriv`.

    Raises:
        ValueError: Too few samples, a degree that the window cannot hold, or values not finite.
    """
    values = np.asarray(values, np.float64)
    n = values.shape[-1] if values.ndim else 0
    if not poly < window <= n:
        raise ValueError(
            f"savgol: expected poly < window <= samples, got poly {poly}, window {window}, "
            f"{n} samples"
        )
    if not np.isfinite(values).all():
        raise ValueError("savgol: expected finite values, got NaN or infinity")
    middle, ends = _weights(window, poly, deriv)
    half = window // 2
    result = np.empty_like(values)
    result[..., :half] = values[..., :window] @ ends[:half].T
    result[..., n - half :] = values[..., n - window :] @ ends[window - half :].T
    inner = np.lib.stride_tricks.sliding_window_view(values, window, axis=-1)
    first = 1 if window % 2 == 0 else 0  # the window of sample `half`
    result[..., half : n - half] = inner[..., first : first + n - 2 * half, :] @ middle
    return result / delta**deriv


@cache
def _weights(window: int, poly: int, deriv: int) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares weights of a window's samples.

    Returns:
        For the value in its middle [window], and at each of its samples [window, window].
    """
    at = np.arange(window) - (window - 1) / 2
    fit = np.linalg.pinv(np.vander(at, poly + 1, increasing=True))  # samples to coefficients
    power = np.arange(deriv, poly + 1)
    factor = np.array([factorial(p) // factorial(p - deriv) for p in power], np.float64)
    ends = (at[:, None] ** (power - deriv) * factor) @ fit[deriv:]
    middle = factorial(deriv) * fit[deriv] if deriv <= poly else np.zeros(window)
    return middle, ends


def center_acceleration(
    acceleration: np.ndarray, yaw_rate: np.ndarray, yaw_accel: np.ndarray, distance: float
) -> np.ndarray:
    """Acceleration of a point ahead of the rear axle as nuPlan has it, ego frame [m/s^2] [..., 2].

    Both rotation terms are added along x (`DynamicCarState.build_from_rear_axle` via
    `get_acceleration_shifted`), which is not the motion of a rigid body but what nuPlan scores.

    Args:
        acceleration: Of the rear axle in the ego frame [m/s^2], [..., 2].
        yaw_rate: [rad/s], [...].
        yaw_accel: [rad/s^2], [...].
        distance: Rear axle to the point [m].
    """
    shifted = np.array(acceleration, np.float64)
    shifted[..., 0] += distance * (np.square(yaw_rate) + yaw_accel)
    return shifted


def smoothed_acceleration(acceleration: np.ndarray, window: int = 8) -> np.ndarray:
    """An acceleration [m/s^2] [..., n] fitted by quadratics over `window` samples."""
    window = min(window, np.shape(acceleration)[-1])
    return np.round(savgol(acceleration, window, 2), DECIMALS)


def jerk(smoothed: np.ndarray, dt: float, window: int = 15) -> np.ndarray:
    """Derivative [m/s^3] of a smoothed acceleration [m/s^2] [..., n] sampled every `dt` [s]."""
    window = min(window, np.shape(smoothed)[-1])
    return np.round(savgol(smoothed, window, 2, 1, dt), DECIMALS)


def unwrapped(heading: np.ndarray) -> np.ndarray:
    """Headings [rad] [..., n] without jumps of whole turns."""
    heading = np.asarray(heading, np.float64)
    turns = np.zeros_like(heading)
    turns[..., 1:] = np.cumsum(np.round(np.diff(heading) / (2 * np.pi)), -1)
    return heading - 2 * np.pi * turns


def yaw_rate(heading: np.ndarray, dt: float, window: int = 5, poly: int = 2) -> np.ndarray:
    """First derivative [rad/s] of headings [rad] [..., n] sampled every `dt` [s]."""
    window = min(window, np.shape(heading)[-1])
    return np.round(savgol(unwrapped(heading), window, poly, 1, dt), DECIMALS)


def yaw_acceleration(heading: np.ndarray, dt: float, window: int = 5, poly: int = 3) -> np.ndarray:
    """Second derivative [rad/s^2] of headings [rad] [..., n] sampled every `dt` [s]."""
    window = min(window, np.shape(heading)[-1])
    return np.round(savgol(unwrapped(heading), window, poly, 2, dt), DECIMALS)


def comfort_series(
    acceleration: np.ndarray,
    rear_acceleration: np.ndarray,
    heading: np.ndarray,
    dt: float,
    windows: Windows | None = None,
) -> dict[str, np.ndarray]:
    """The six series of `BOUNDS`, each [..., n].

    Args:
        acceleration: What lon_accel, lat_accel and lon_jerk are measured on, ego frame [m/s^2],
            [..., n, 2]: of the center for nuPlan (`center_acceleration`).
        rear_acceleration: Of the rear axle, whose magnitude jerk_mag is the derivative of
            [m/s^2], [..., n, 2].
        heading: [rad], [..., n].
        dt: Mean time between samples [s].
        windows: nuPlan's if None.
    """
    w = windows or Windows()
    along, across = acceleration[..., 0], acceleration[..., 1]
    magnitude = np.hypot(rear_acceleration[..., 0], rear_acceleration[..., 1])
    return {
        "lon_accel": smoothed_acceleration(along, w.acceleration),
        "lat_accel": smoothed_acceleration(across, w.acceleration),
        "jerk_mag": jerk(smoothed_acceleration(magnitude, w.smoothing), dt, w.jerk),
        "lon_jerk": jerk(smoothed_acceleration(along, w.smoothing), dt, w.jerk),
        "yaw_rate": yaw_rate(heading, dt, w.yaw),
        "yaw_accel": yaw_acceleration(heading, dt, w.yaw, w.yaw_accel_poly),
    }


def within_bounds(series: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Whether every sample of each series lies strictly between its `BOUNDS`, each bool [...]."""
    return {
        name: np.asarray(((values > BOUNDS[name][0]) & (values < BOUNDS[name][1])).all(-1))
        for name, values in series.items()
    }


def is_comfortable(series: Mapping[str, np.ndarray]) -> np.ndarray:
    """Whether all the series stay within their bounds, bool [...]."""
    return np.all(list(within_bounds(series).values()), axis=0)
