"""How fast a route can be driven: its speed limits, its bends, and lower speeds ahead."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from alpagym.scenarios.polyline import headings, wrap_angle
from alpagym.scenarios.scenario import ROUTE_SPACING

LATERAL_ACCEL = 2.0
"""Lateral acceleration at which curves are driven [m/s^2]."""
SLOWEST_TURN = 3.0
"""No curve is driven slower than this [m/s]."""
COMFORT = 1.3
"""Braking with which a lower speed ahead is reached [m/s^2]."""


def curve_speed(points: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Lower a limit [n] where the route [n, 2+] bends, and ahead so that braking is comfortable."""
    speed = np.array(limit, np.float64)
    if len(points) > 3:
        bend = wrap_angle(np.diff(headings(np.asarray(points, np.float64))[:-1])) / ROUTE_SPACING
        # Headings of chords jitter where two point spacings beat; a short mean takes that out.
        bend[1:-1] = (bend[:-2] + bend[1:-1] + bend[2:]) / 3.0
        turn = np.sqrt(LATERAL_ACCEL / np.maximum(np.abs(bend), 1e-6))
        speed[1:-1] = np.minimum(speed[1:-1], np.maximum(turn, SLOWEST_TURN))
    return brake_ahead(speed, COMFORT)


def brake_ahead(limit: np.ndarray, decel: float) -> np.ndarray:
    """Lower a limit at route points [n] so that `decel` suffices to meet every lower one ahead."""
    rise = 2.0 * decel * ROUTE_SPACING * np.arange(len(limit))
    energy = np.minimum.accumulate((limit**2 + rise)[::-1])[::-1] - rise
    return np.sqrt(np.maximum(energy, 0.0))


def paces(points: np.ndarray, limit: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """`curve_speed` of several routes, whose points [Q, 3] and limits [Q] follow each other, [Q].

    Route r owns points `offsets[r]` to `offsets[r + 1]`.
    """
    parts = [curve_speed(points[a:b, :2], limit[a:b]) for a, b in pairwise(offsets.tolist())]
    return np.concatenate([np.zeros(0), *parts]).astype(np.float32)
