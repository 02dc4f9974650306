"""Reference lines of roads: ASAM OpenDRIVE 1.4 to 1.8, geometry elements of the plan view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

FINE = 0.25
"""Clothoids are integrated, and cubic curves measured, in steps of at most this [m]."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(4)

Shape = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Positions u, v and directions [rad] in the frame of a piece's start, for arc lengths [n]."""


@dataclass(frozen=True)
class Piece:
    """One geometry element."""

    s: float
    """Where it begins on the road [m]."""
    x: float
    y: float
    heading: float
    length: float
    shape: Shape

    def at(self, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points [n, 2] and directions [n] at arc lengths of the road that it covers."""
        u, v, angle = self.shape(np.clip(s - self.s, 0.0, self.length))
        c, w = np.cos(self.heading), np.sin(self.heading)
        points = np.stack([self.x + c * u - w * v, self.y + w * u + c * v], axis=1)
        return points, self.heading + angle


def line() -> Shape:
    """A straight piece."""
    return lambda s: (s, np.zeros_like(s), np.zeros_like(s))


def arc(curvature: float) -> Shape:
    """A piece of constant curvature [1/m]."""
    return spiral(curvature, curvature, 1.0)


def spiral(start: float, end: float, length: float) -> Shape:
    """A clothoid; curvatures at its ends [1/m]."""
    rate = (end - start) / length

    def heading(s: np.ndarray) -> np.ndarray:
        return s * (start + 0.5 * rate * s)

    def shape(s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        last = float(s.max(initial=0.0))
        fine = np.unique(np.concatenate([np.linspace(0.0, last, 2 + int(last / FINE)), s]))
        half = 0.5 * np.diff(fine)[:, None]
        angle = heading(fine[:-1, None] + half * (1.0 + _NODES))
        u, v = (
            np.concatenate([[0.0], np.cumsum((half * f(angle)) @ _WEIGHTS)])
            for f in (np.cos, np.sin)
        )
        at = np.searchsorted(fine, s)
        return u[at], v[at], heading(s)

    return shape


def _summed(values: np.ndarray) -> np.ndarray:
    """Integrals from the first step's begin to each step's end, of values at its nodes [k, 4]."""
    return np.concatenate([[0.0], np.cumsum(values @ _WEIGHTS)])


def poly3(coefficients: np.ndarray, length: float) -> Shape:
    """V is a cubic of u; the arc length is measured along it."""
    slope = np.polynomial.polynomial.polyder(coefficients)
    u = np.linspace(0.0, length, 2 + int(length / FINE))
    half = 0.5 * np.diff(u)[:, None]
    speed = np.hypot(
        1.0, np.polynomial.polynomial.polyval(u[:-1, None] + half * (1 + _NODES), slope)
    )
    reached = np.concatenate([[0.0], np.cumsum((half * speed) @ _WEIGHTS)])

    def shape(s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = np.interp(s, reached, u)
        rise = np.polynomial.polynomial.polyval(at, slope)
        return at, np.polynomial.polynomial.polyval(at, coefficients), np.arctan(rise)

    return shape


def param_poly3(u: np.ndarray, v: np.ndarray, scale: float) -> Shape:
    """U and v are cubics of a parameter that is `scale` times the arc length."""
    slopes = [np.polynomial.polynomial.polyder(c) for c in (u, v)]

    def shape(s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        p = scale * s
        x, y, dx, dy = (np.polynomial.polynomial.polyval(p, c) for c in (u, v, *slopes))
        return x, y, np.unwrap(np.arctan2(dy, dx))

    return shape


@dataclass(frozen=True)
class Profile:
    """Cubics that follow each other along a road: widths, offsets."""

    starts: np.ndarray
    """Arc length at which each begins [m], ascending, [k]."""
    coefficients: np.ndarray
    """Of powers 0 to 3 of the arc length since then, [k, 4]."""

    def at(self, s: np.ndarray) -> np.ndarray:
        """Values [n]; zero where there are no cubics."""
        if not len(self.starts):
            return np.zeros_like(s)
        which = np.clip(np.searchsorted(self.starts, s + 1e-9, side="right") - 1, 0, None)
        since = s - self.starts[which]
        a, b, c, d = self.coefficients[which].T
        return np.asarray(a + since * (b + since * (c + since * d)))
