"""Plane curves in float64: lines, arcs, curvature profiles, fillets, offsets and resampling.

A `Curve` carries headings beside its points, so that offset curves (lanes, edges, lines of one
road) stay parallel and end with exactly the heading of their neighbor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alpagym.scenarios.polyline import arc_length, wrap_angle

LINE_STEP = 10.0
"""Longest step of a straight line [m]."""
CURVE_STEP = 2.0
"""Longest step of a bend [m]."""
MAX_TURN = 0.07
"""Most that a bend turns in one step [rad]."""


@dataclass
class Curve:
    """A directed polyline with its tangent directions."""

    points: np.ndarray
    """[m], float64 [n, 2]."""
    heading: np.ndarray
    """Tangent direction at each point, continuous (not wrapped) [rad], float64 [n]."""

    @property
    def length(self) -> float:
        return float(arc_length(self.points)[-1])

    def offset(self, left: float | np.ndarray) -> Curve:
        """The parallel curve `left` meters to the left (negative: right); a scalar or [n]."""
        normal = np.stack([-np.sin(self.heading), np.cos(self.heading)], axis=1)
        return Curve(self.points + np.reshape(left, (-1, 1)) * normal, self.heading)

    def reversed(self) -> Curve:
        return Curve(self.points[::-1], self.heading[::-1] + np.pi)

    def moved(self, xy: np.ndarray, angle: float) -> Curve:
        """Rotated by `angle` about the origin, then shifted by `xy`."""
        return Curve(rotate(self.points, angle) + xy, self.heading + angle)


def rotate(points: np.ndarray, angle: float) -> np.ndarray:
    """Rotate points [..., 2] counter-clockwise by `angle` [rad] about the origin."""
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array([[c, s], [-s, c]])


def direction(angle: float) -> np.ndarray:
    """Unit vector at `angle` [rad], float64 [2]."""
    return np.array([np.cos(angle), np.sin(angle)])


def line(start: np.ndarray, end: np.ndarray) -> Curve:
    """A straight line with steps of at most `LINE_STEP`."""
    delta = end - start
    length = np.hypot(*delta)
    n = max(1, int(np.ceil(length / LINE_STEP - 1e-9)))
    points = start + np.linspace(0.0, 1.0, n + 1)[:, None] * delta
    return Curve(points, np.full(n + 1, np.arctan2(delta[1], delta[0])))


def arc(center: np.ndarray, radius: float, start: float, end: float) -> Curve:
    """A circular arc between two polar angles [rad]; counter-clockwise when end > start."""
    step = min(CURVE_STEP, MAX_TURN * radius)
    n = max(1, int(np.ceil(abs(end - start) * radius / step)))
    angle = np.linspace(start, end, n + 1)
    points = center + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return Curve(points, angle + np.copysign(np.pi / 2, end - start))


def from_curvature(segments: list[tuple[float, float, float]], heading: float = 0.0) -> Curve:
    """Integrate (length, first curvature, last curvature) segments from the origin.

    Curvature is linear in each segment, positive to the left [1/m]. The curve is sampled every
    `LINE_STEP` where it is straight and every `CURVE_STEP` or finer where it bends.
    """
    points, headings = [np.zeros((1, 2))], [np.array([heading])]
    for length, first, last in segments:
        bend = max(abs(first), abs(last))
        step = LINE_STEP if bend == 0.0 else min(CURVE_STEP, MAX_TURN / bend)
        n = max(1, int(np.ceil(length / step)))
        fine = np.linspace(0.0, length, 8 * n + 1)
        angle = headings[-1][-1] + first * fine + 0.5 * (last - first) / length * fine**2
        middle = 0.5 * (angle[1:] + angle[:-1])
        steps = np.stack([np.cos(middle), np.sin(middle)], axis=1) * (length / (8 * n))
        points.append(points[-1][-1] + np.cumsum(steps, axis=0)[7::8])
        headings.append(angle[8::8])
    return Curve(np.concatenate(points), np.concatenate(headings))


def join(*curves: Curve) -> Curve:
    """Chain curves that meet end to start; the doubled points go."""
    first, *rest = curves
    return Curve(
        np.concatenate([first.points, *(c.points[1:] for c in rest)]),
        np.unwrap(np.concatenate([first.heading, *(c.heading[1:] for c in rest)])),
    )


def fillet(
    start: np.ndarray,
    start_heading: float,
    end: np.ndarray,
    end_heading: float,
    *,
    tangent: float = np.inf,
    ease: float = 0.25,
) -> Curve:
    """Turn from one directed line into another: straight, a bend, straight.

    Args:
        start: Where the curve begins [m], [2].
        start_heading: Direction there [rad].
        end: Where it ends [m], [2].
        end_heading: Direction there [rad].
        tangent: Longest distance of the bend's ends from the crossing of the two lines [m].
        ease: Share of the bend over which curvature ramps up (and down again); 0 is an arc.

    The lines must cross ahead of `start` and behind `end`.
    """
    turn = wrap_angle(end_heading - start_heading)
    if abs(turn) < 1e-6:
        return line(start, end)
    a, b = direction(start_heading), direction(end_heading)
    ahead, behind = np.linalg.solve(np.stack([a, b], axis=1), end - start)
    reach = min(ahead, behind, tangent)
    peak = turn / (1.0 - ease)
    profile = [(ease, 0.0, peak), (1.0 - 2.0 * ease, peak, peak), (ease, peak, 0.0)]
    if ease == 0.0:
        profile = [(1.0, peak, peak)]
    # A bend of unit length tells the tangent length by which to scale.
    unit = from_curvature(profile).points[-1]
    unit_reach = unit[0] - unit[1] / np.tan(turn)
    length = reach / unit_reach
    scaled = [(n * length, first / length, last / length) for n, first, last in profile]
    bend = from_curvature(scaled, start_heading)
    crossing = start + ahead * a
    begin, finish = crossing - reach * a, crossing + reach * b
    bend = Curve(bend.points + begin, bend.heading)
    # The integration error (well below a millimeter a meter) is spread so that the end is exact.
    bend.points += np.linspace(0.0, 1.0, len(bend.points))[:, None] * (finish - bend.points[-1])
    parts = [bend]
    if ahead - reach > 0.05:
        parts.insert(0, line(start, begin))
    if behind - reach > 0.05:
        parts.append(line(finish, end))
    return join(*parts)


def resample(points: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Points every `spacing` meters and their arc lengths; what is left at the end goes."""
    s = arc_length(points)
    wanted = np.arange(int(s[-1] / spacing + 1e-9) + 1) * spacing
    x, y = np.interp(wanted, s, points[:, 0]), np.interp(wanted, s, points[:, 1])
    return np.stack([x, y], axis=1), wanted


def headings(points: np.ndarray) -> np.ndarray:
    """Directions of the segments of points [n, 2], continuous [rad], float64 [n - 1]."""
    delta = np.diff(points, axis=0)
    return np.unwrap(np.arctan2(delta[:, 1], delta[:, 0]))
