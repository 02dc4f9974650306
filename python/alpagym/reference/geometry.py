"""Boxes, routes and road edges, the long way round: corners, and every segment in turn."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from alpagym.scenarios.scenario import ROUTE_SPACING

SAME_LEVEL = 2.5
"""Things whose heights differ by less meet [m]."""


@dataclass
class Margin:
    """How near the decisions of a computation were to falling the other way.

    Every threshold goes through `reached`: a test can tell a wrong answer from a close call.
    """

    least: float = np.inf

    def reached(self, value: float, threshold: float = 0.0) -> bool:
        """Whether `value >= threshold`."""
        if not np.isnan(value):
            self.least = min(self.least, abs(value - threshold))
        return bool(value >= threshold)


def wrap_angle(angle: float) -> float:
    """The same direction in [-pi, pi)."""
    return (angle + np.pi) % (2.0 * np.pi) - np.pi


def unit(yaw: float) -> np.ndarray:
    """The direction of `yaw`."""
    return np.array([np.cos(yaw), np.sin(yaw)])


def left_of(direction: np.ndarray) -> np.ndarray:
    """Turned by 90 degrees, counter-clockwise."""
    return np.array([-direction[1], direction[0]])


def cross(a: np.ndarray, b: np.ndarray) -> float:
    """Positive if `b` points to the left of `a`."""
    return a[0] * b[1] - a[1] * b[0]


def into_frame(vector: np.ndarray, yaw: float) -> np.ndarray:
    """A world-frame vector in axes that point along and to the left of `yaw`."""
    return np.array([vector @ unit(yaw), vector @ left_of(unit(yaw))])


@dataclass
class Box:
    """An oriented rectangle."""

    center: np.ndarray
    yaw: float
    length: float
    width: float

    def axes(self) -> tuple[np.ndarray, np.ndarray]:
        return unit(self.yaw), left_of(unit(self.yaw))

    def corners(self) -> np.ndarray:
        """Counter-clockwise from front left, [4, 2]."""
        forward, left = self.axes()
        signs = ((1, 1), (-1, 1), (-1, -1), (1, -1))
        return np.array(
            [
                self.center + 0.5 * (i * self.length * forward + j * self.width * left)
                for i, j in signs
            ]
        )

    def end(self, side: float, depth: float) -> Box:
        """The slice `depth` deep at the front (`side` 1) or the rear (-1)."""
        shift = side * 0.5 * (self.length - depth)
        return Box(self.center + shift * unit(self.yaw), self.yaw, depth, self.width)

    def extent_along(self, axis: np.ndarray) -> float:
        """Half its width as seen along `axis`."""
        return float(np.ptp(self.corners() @ axis)) / 2.0


def separation(a: Box, b: Box) -> float:
    """The widest gap between the projections on the boxes' axes, positive when apart [m]."""
    gaps = []
    for axis in (*a.axes(), *b.axes()):
        p, q = a.corners() @ axis, b.corners() @ axis
        gaps.append(max(q.min() - p.max(), p.min() - q.max()))
    return max(gaps)


def time_to_collision(
    a: Box, b: Box, velocity: np.ndarray, horizon: float, margin: Margin
) -> float:
    """When `b`, moving at `velocity` relative to `a`, first touches it; inf if later."""
    enter, leave = 0.0, horizon
    for axis in (*a.axes(), *b.axes()):
        p, q, v = a.corners() @ axis, b.corners() @ axis, float(velocity @ axis)
        # The projections overlap while q.max + v t >= p.min and q.min + v t <= p.max.
        if abs(v) < 1e-6:
            if not margin.reached(min(q.max() - p.min(), p.max() - q.min())):
                return np.inf
            continue
        times = sorted([(p.min() - q.max()) / v, (p.max() - q.min()) / v])
        enter, leave = max(enter, times[0]), min(leave, times[1])
    return enter if margin.reached(leave - enter) else np.inf


def signed_edge_distance(edges: np.ndarray, point: np.ndarray) -> float:
    """Distance to the nearest of the segments [n, 4], negative on its right, inf without segments.

    Where two segments meet, the corner is nearest to many points, and equally near on both; of them
    that one tells the side which the point is further off.
    """
    if len(edges) == 0:
        return np.inf
    a, ab, ap = edges[:, :2], edges[:, 2:] - edges[:, :2], point - edges[:, :2]
    t = np.clip((ap * ab).sum(1) / (ab**2).sum(1), 0.0, 1.0)
    distance = np.linalg.norm(point - (a + t[:, None] * ab), axis=1)
    offset = (ab[:, 0] * ap[:, 1] - ab[:, 1] * ap[:, 0]) / np.linalg.norm(ab, axis=1)
    nearest = np.flatnonzero(distance <= distance.min() + 1e-9)
    side = offset[nearest[np.argmax(np.abs(offset[nearest]))]]
    return -distance.min() if side < 0 else distance.min()


@dataclass
class Foot:
    """Where a point meets a route."""

    s: float
    distance: float
    offset: float
    """Signed distance from the segment's line, left positive [m]."""
    direction: np.ndarray


@dataclass
class Route:
    """A polyline with a point every `ROUTE_SPACING` of arc length."""

    points: np.ndarray
    """x, y, z, speed limit, [n, 4]."""
    directions: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        span = np.diff(self.points[:, :2], axis=0)
        self.directions = span / np.maximum(np.linalg.norm(span, axis=1, keepdims=True), 1e-6)

    @property
    def drivable(self) -> bool:
        return len(self.points) >= 2

    @property
    def length(self) -> float:
        return ROUTE_SPACING * (len(self.points) - 1)

    def segment(self, s: float) -> tuple[int, float]:
        """Which segment arc length `s` (clamped) lies on, and the fraction of it that is behind."""
        u = np.clip(s / ROUTE_SPACING, 0.0, len(self.points) - 1.0)
        i = min(int(u), len(self.points) - 2)
        return i, u - i

    def at(self, s: float) -> tuple[np.ndarray, np.ndarray, float, float]:
        """Position, direction, height, speed limit at arc length `s`."""
        i, t = self.segment(s)
        a, b = self.points[i], self.points[i + 1]
        between = a + t * (b - a)
        return between[:2], self.directions[i], between[2], a[3]

    def bend_at(self, k: int) -> float:
        """Sine of the angle by which the route turns at point `k`, left positive."""
        if not 1 <= k <= len(self.points) - 2:
            return 0.0
        before, after = np.diff(self.points[k - 1 : k + 2, :2], axis=0)
        return float(cross(before, after)) / ROUTE_SPACING**2

    def project(self, point: np.ndarray, first: int, last: int) -> Foot:
        """The nearest foot among segments `first` to `last`; the earliest of equals."""
        segments = len(self.points) - 1
        first = min(max(first, 0), segments - 1)
        last = min(max(last, first), segments - 1)
        a, b = self.points[first : last + 1, :2], self.points[first + 1 : last + 2, :2]
        ab, ap = b - a, point - a
        t = np.clip((ap * ab).sum(1) / np.maximum((ab**2).sum(1), 1e-12), 0.0, 1.0)
        distance = np.linalg.norm(ap - t[:, None] * ab, axis=1)
        k = int(np.argmin(distance))
        direction = self.directions[first + k]
        s = ROUTE_SPACING * (first + k + t[k])
        return Foot(s, float(distance[k]), cross(direction, ap[k]), direction)

    def project_near(self, point: np.ndarray, s: float) -> Foot:
        """The nearest foot from 10 m behind the segment of `s` to 20 m ahead."""
        i = int(np.clip(s, 0.0, self.length) / ROUTE_SPACING)
        return self.project(point, i - 5, i + 10)
