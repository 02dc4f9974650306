"""Oriented rectangles on straight courses: distance, time to collision, closest approach, DRAC.

All in closed form, float64, for any number of pairs at once. A box is a row x, y [m], yaw [rad],
length along the heading, width across [m]; a velocity is that of `b` relative to `a` [m/s]. Neither
box turns. Touching counts as contact.

Two rectangles meet where their projections meet on all four of their axes (separating axes). The
gap between two projections changes linearly in time, so each axis gives one interval of contact and
the time to collision is where the intersection of the four begins. It equals the corner-to-edge
search of the program Two-Dimensional-Time-To-Collision (Y. Jiao, 2023, src/TwoDimSSM.py), from
which the definition of DRAC is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alpagym.metrics.drive import Drive
from alpagym.metrics.geometry import backward_rates, checked, corners, direction

LENGTH, WIDTH = 3, 4
"""Columns of a box."""

SAME_DISTANCE = 1e-9
"""Distances that differ by less are equal, so that the first of them is reported [m]."""


def checked_boxes(name: str, boxes: np.ndarray) -> np.ndarray:
    """Boxes [..., 5] in float64.

    Raises:
        ValueError: not 5 columns, not finite, or a length or width that is not above 0.
    """
    boxes = checked(name, boxes, 5)
    if not (boxes[..., LENGTH:] > 0).all():
        raise ValueError(f"{name}: expected lengths and widths above 0, got {boxes[..., 3:].min()}")
    return boxes


def axes_of(boxes: np.ndarray) -> np.ndarray:
    """Unit vectors along and to the left of the headings, [..., 2, 2]."""
    along = direction(boxes[..., 2])
    return np.stack([along, np.stack([-along[..., 1], along[..., 0]], -1)], -2)


def _projections(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The four axes [..., 4, 2], the offset of `b` along them and the sum of half extents."""
    axes = np.concatenate(np.broadcast_arrays(axes_of(a), axes_of(b)), -2)
    offset = np.einsum("...i,...ki->...k", b[..., :2] - a[..., :2], axes)
    reach = sum(
        np.abs(axes @ np.swapaxes(axes_of(box), -1, -2)) @ (0.5 * box[..., LENGTH:, None])
        for box in (a, b)
    )
    return axes, offset, np.asarray(reach)[..., 0]


def separation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The widest gap between the projections on the four axes, negative in overlap [m], [...]."""
    a, b = checked_boxes("a", a), checked_boxes("b", b)
    _, offset, reach = _projections(a, b)
    return (np.abs(offset) - reach).max(-1)


def corner_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """From each corner of `a` to the rectangle `b`, 0 inside [m], [..., 4]."""
    offset = corners(a[..., :3], a[..., LENGTH:]) - b[..., None, :2]
    local = np.abs(offset @ np.swapaxes(axes_of(b), -1, -2))
    return np.linalg.norm(np.maximum(local - 0.5 * b[..., None, LENGTH:], 0.0), axis=-1)


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Between the nearest points of two rectangles [..., 5], 0 in contact [m], [...].

    Rectangles apart are nearest at a corner of one of them.
    """
    apart = separation(a, b) > 0.0
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    nearest = np.minimum(corner_distances(a, b).min(-1), corner_distances(b, a).min(-1))
    return np.where(apart, nearest, 0.0)


def _checked_horizon(horizon: float) -> float:
    if not horizon >= 0.0:
        raise ValueError(f"horizon: expected a time of at least 0 s, got {horizon}")
    return float(horizon)


def time_to_collision(
    a: np.ndarray, b: np.ndarray, velocity: np.ndarray, horizon: float = np.inf
) -> np.ndarray:
    """Smallest time within [0, horizon] at which the rectangles touch; inf if none [s].

    Along axis k they overlap while |p_k + v_k t| <= r_k, where p is the offset of the centers, v
    the relative velocity and r the sum of half extents.

    Args:
        a: boxes [..., 5].
        b: boxes [..., 5].
        velocity: of `b` relative to `a` [m/s], [..., 2].
        horizon: later contacts do not count [s].

    Returns:
        [...]; 0 for boxes in contact now.

    Raises:
        ValueError: wrong shapes, values that are not finite, sizes that are not above 0.
    """
    a, b = checked_boxes("a", a), checked_boxes("b", b)
    velocity, horizon = checked("velocity", velocity, 2), _checked_horizon(horizon)
    axes, p, r = _projections(a, b)
    v = np.broadcast_to(np.einsum("...i,...ki->...k", velocity, axes), p.shape)
    still = v == 0.0
    with np.errstate(over="ignore"):  # so slow that it takes forever
        one, other = (-r - p) / np.where(still, 1.0, v), (r - p) / np.where(still, 1.0, v)
    always = still & (np.abs(p) <= r)
    enter = np.where(still, np.where(always, -np.inf, np.inf), np.minimum(one, other)).max(-1)
    leave = np.where(still, np.inf, np.maximum(one, other)).min(-1)
    enter = np.maximum(enter, 0.0)
    return np.where((enter <= np.minimum(leave, horizon)) & np.isfinite(enter), enter, np.inf)


def closest_approach(
    a: np.ndarray, b: np.ndarray, velocity: np.ndarray, horizon: float
) -> tuple[np.ndarray, np.ndarray]:
    """The smallest distance within [0, horizon] [m] and when it is first reached [s], [...] each.

    Boxes that do not meet are nearest at the start, at the end, or when one corner passes another
    or an edge; the latter begins or ends with a corner that passes a corner, seen along the
    relative velocity. Arguments and errors as for `time_to_collision`, but the horizon is finite.
    """
    meet = time_to_collision(a, b, velocity, horizon)
    if not np.isfinite(horizon):
        raise ValueError(f"horizon: expected a finite time, got {horizon}")
    a, b, velocity = (np.asarray(x, np.float64) for x in (a, b, velocity))
    from_a, from_b = (corners(box[..., :3], box[..., LENGTH:]) for box in (a, b))
    between = (from_b[..., None, :, :] - from_a[..., :, None, :]).reshape(*meet.shape, 16, 2)
    speed2 = (velocity**2).sum(-1)
    passing = -np.einsum("...ki,...i->...k", between, velocity)
    passing = passing / np.where(speed2 > 0.0, speed2, 1.0)[..., None]
    ends = np.broadcast_to([0.0, float(horizon)], (*meet.shape, 2))
    times = np.concatenate([ends, np.clip(passing, 0.0, horizon)], -1)
    moved = np.broadcast_to(b, (*meet.shape, 5))[..., None, :].repeat(times.shape[-1], -2)
    moved[..., :2] += times[..., None] * velocity[..., None, :]
    away = distance(a[..., None, :], moved)
    least = away.min(-1)
    first = np.where(away <= least[..., None] + SAME_DISTANCE, times, np.inf).min(-1)
    met = np.isfinite(meet)
    return np.where(met, 0.0, least), np.where(met, meet, first)


def drac(a: np.ndarray, b: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """Deceleration rate to avoid a collision [m/s^2], [...].

    v^2 / (2 d) with the relative speed v and the way d = v * TTC until contact: the constant
    deceleration that ends the relative motion just there. 0 where they never meet, inf where they
    are in contact now. Arguments and errors as for `time_to_collision`.
    """
    time = time_to_collision(a, b, velocity)
    speed = np.linalg.norm(np.asarray(velocity, np.float64), axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(time == 0.0, np.inf, speed / (2.0 * time))


@dataclass(frozen=True)
class Score:
    """What a drive is worth by one definition."""

    steps: dict[str, np.ndarray]
    """Quantities by name, one value for each row after the start, [T - 1 - start]."""
    total: dict[str, float]
    """Their aggregates by name."""


def score(drive: Drive, *, horizon: float = 10.0) -> Score:
    """The ego against every other agent that is there, at constant velocity, heights ignored.

    Steps: `ttc` [s] (inf for none within the horizon), `distance` [m] (inf when alone), `drac`
    [m/s^2]; totals: the smallest, the smallest, the largest. Velocities are differences of box
    centers. An agent in its only row counts as standing.

    Raises:
        ValueError: the horizon is negative or NaN.
    """
    _checked_horizon(horizon)
    rows = np.arange(drive.start + 1, len(drive.pose))
    rates = backward_rates(drive.pose[..., :2], drive.valid, drive.dt)
    velocity, boxes = np.nan_to_num(rates)[rows], drive.boxes[rows]
    t, agent = np.nonzero(drive.valid[rows] & drive.ego_there[rows, None] & drive.others)
    pairs = boxes[t, drive.ego], boxes[t, agent], velocity[t, agent] - velocity[t, drive.ego]
    found = {
        "ttc": (time_to_collision(*pairs, horizon), np.inf, np.minimum),
        "distance": (distance(*pairs[:2]), np.inf, np.minimum),
        "drac": (drac(*pairs), 0.0, np.maximum),
    }
    steps, total = {}, {}
    for name, (values, none, worse) in found.items():
        steps[name] = np.full(len(rows), none)
        worse.at(steps[name], t, values)
        total[name] = float(worse.reduce(steps[name], initial=none))
    return Score(steps, total)
