"""Waymax's IDM agents, which follow their own logs (waymax/agents/waypoint_following_agent.py).

Objects are rows x, y [m], yaw [rad], vel_x, vel_y [m/s], length, width [m].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alpagym.interop.waymax.bicycle import DT
from alpagym.interop.waymax.checks import checked_mask
from alpagym.metrics.geometry import checked, direction
from alpagym.metrics.ttc import separation

LEAST_GAP = 0.1
"""What a gap of 0 counts as [m]."""
AT_END = 0.05
"""An object whose nearest log point lies nearer than this to the last one has arrived [m]."""
OFF_LOG = 5.0
"""So has one that is farther than this from its log [m]."""
BOX = [0, 1, 2, 5, 6]
"""Columns of an object's box: x, y, yaw, length, width."""


@dataclass(frozen=True)
class Idm:
    """Parameters of `IDMRoutePolicy`, with its defaults."""

    desired_speed: float = 30.0
    """[m/s]"""
    least_spacing: float = 2.0
    """Gap at standstill [m]."""
    headway: float = 2.0
    """[s]"""
    max_accel: float = 2.0
    """[m/s^2]"""
    max_decel: float = 4.0
    """Comfortable deceleration [m/s^2]."""
    exponent: float = 4.0
    """Of the speed ratio."""
    log_points: int = 10
    """Log points to look at, where the look begins on the log."""
    from_current: bool = True
    """The look begins at the object, not on its log."""
    extra_distance: float = 10.0
    """How far the look goes on straight ahead [m]."""
    extra_points: int = 10
    """In how many points."""


def waypoints(
    objects: np.ndarray, valid: np.ndarray, log: np.ndarray, log_valid: np.ndarray, idm: Idm
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes that an object may come to fill, [..., O, K, 5], and whether they count [..., O, K].

    They begin with the object's own box; or with `log_points` rows of its log from the nearest
    valid one on, moved back so as to end within the log. `extra_points` more follow straight on
    from the last one, evenly over `extra_distance`.
    """
    if idm.from_current:
        boxes, there = objects[..., None, BOX], valid[..., None]
    else:
        rows = log.shape[-2]
        if not 0 < idm.log_points <= rows:
            raise ValueError(f"log_points: expected 1 to {rows}, got {idm.log_points}")
        first = np.minimum(_nearest(objects[..., :2], log, log_valid)[0], rows - idm.log_points)
        window = first[..., None] + np.arange(idm.log_points)
        boxes = np.take_along_axis(log, window[..., None], -2)[..., BOX]
        there = np.take_along_axis(log_valid, window, -1)
    if idm.extra_points > 0:
        last = boxes[..., -1:, :]
        ahead = idm.extra_distance * np.arange(1, idm.extra_points + 1) / idm.extra_points
        more = np.repeat(last, idm.extra_points, -2)
        more[..., :2] += ahead[:, None] * direction(last[..., 2])
        boxes = np.concatenate([boxes, more], -2)
        there = np.concatenate([there, np.repeat(there[..., -1:], idm.extra_points, -1)], -1)
    return boxes, there


def accelerations(
    objects: np.ndarray,
    valid: np.ndarray,
    log: np.ndarray,
    log_valid: np.ndarray,
    idm: Idm | None = None,
) -> np.ndarray:
    """What the intelligent driver model asks of every object [m/s^2], [..., O].

    a (1 - (v / v0)^delta - (s* / d)^2) with s* = s0 + max(0, v T + v (v - v_l) / (2 sqrt(a b))),
    and s* = 0 on a free road. d is the distance from the object's center to the nearest waypoint at
    which its box would overlap another object's present one (0.1 m for 0), v_l the speed of the
    slowest object that overlaps the first such waypoint. The result is not bounded.

    Args:
        objects: [..., O, 7].
        valid: [..., O]; accelerations of objects that are not valid mean nothing.
        log: the objects' logs, [..., O, T, 7].
        log_valid: [..., O, T].
        idm: parameters; the defaults if not given.

    Raises:
        ValueError: wrong shapes, NaN or infinity in a valid row, a log shorter than the look.
    """
    idm = idm or Idm()
    objects, valid, log, log_valid = _checked(objects, valid, log, log_valid)
    boxes, there = waypoints(objects, valid, log, log_valid, idm)
    gap = separation(boxes[..., None, :, :], objects[..., None, :, None, BOX])
    hit = (gap < 0.0) & there[..., None, :] & valid[..., None, :, None]
    hit &= ~np.eye(objects.shape[-2], dtype=bool)[:, :, None]
    speed = np.linalg.norm(objects[..., 3:5], axis=-1)
    slowest = np.where(hit, speed[..., None, :, None], np.inf).min(-2)
    blocked = hit.any(-2)
    led = blocked.any(-1)
    first = blocked.argmax(-1)[..., None]
    leader = np.where(led, np.take_along_axis(slowest, first, -1)[..., 0], 0.0)
    away = np.linalg.norm(boxes[..., :2] - objects[..., None, :2], axis=-1)
    distance = np.where(blocked, away, np.inf).min(-1)
    distance = np.where(distance == 0.0, LEAST_GAP, distance)
    brake = speed * (speed - leader) / (2.0 * np.sqrt(idm.max_accel * idm.max_decel))
    spacing = idm.least_spacing + np.maximum(0.0, speed * idm.headway + brake)
    interaction = np.where(led, spacing / distance, 0.0) ** 2
    return idm.max_accel * (1.0 - (speed / idm.desired_speed) ** idm.exponent - interaction)


def advance(
    objects: np.ndarray,
    valid: np.ndarray,
    log: np.ndarray,
    log_valid: np.ndarray,
    accel: np.ndarray,
    *,
    dt: float = DT,
) -> tuple[np.ndarray, np.ndarray]:
    """The objects' new speeds [m/s], [..., O], and next states, [..., O, 5].

    v' = max(0, v + a dt). The object moves by (v + v') dt / 2 along its yaw and onto the tangent of
    its nearest log point, whose yaw it takes; its velocity is v' along the yaw it had, unless it
    has arrived (within 0.05 m of the log's end, or over 5 m off the log): then it stays as it was.
    The states of objects that are not valid are -1. Arguments and errors as in `accelerations`.
    """
    objects, valid, log, log_valid = _checked(objects, valid, log, log_valid)
    speed = np.linalg.norm(objects[..., 3:5], axis=-1)
    new_speed = np.maximum(0.0, speed + dt * np.asarray(accel, np.float64))
    heading = direction(objects[..., 2])
    moved = objects[..., :2] + (0.5 * (speed + new_speed) * dt)[..., None] * heading
    nearest, off = _nearest(moved, log, log_valid)
    foot = np.take_along_axis(log, nearest[..., None, None], -2)[..., 0, :]
    index = np.where(log_valid, np.arange(log.shape[-2]), 0).max(-1)
    last = np.take_along_axis(log, index[..., None, None], -2)[..., 0, :2]
    arrived = (np.linalg.norm(last - foot[..., :2], axis=-1) < AT_END) | (off > OFF_LOG)
    tangent = direction(foot[..., 2])
    along = ((moved - foot[..., :2]) * tangent).sum(-1, keepdims=True)
    velocity = np.where(arrived[..., None], objects[..., 3:5], new_speed[..., None] * heading)
    states = np.concatenate([foot[..., :2] + along * tangent, foot[..., 2:3], velocity], -1)
    return new_speed, np.where(valid[..., None], states, -1.0)


def _nearest(
    xy: np.ndarray, log: np.ndarray, log_valid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Index of the nearest valid log point and its distance [m], [..., O] each."""
    away = np.linalg.norm(log[..., :2] - xy[..., None, :], axis=-1)
    away = np.where(log_valid, away, np.inf)
    return away.argmin(-1), away.min(-1)


def _checked(
    objects: np.ndarray, valid: np.ndarray, log: np.ndarray, log_valid: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Whatever stands under an invalid row is replaced: it is neither read nor refused."""
    objects, log = np.asarray(objects, np.float64), np.asarray(log, np.float64)
    if objects.ndim < 2 or log.shape[:-2] != objects.shape[:-1] or log.shape[-2] == 0:
        wanted = [*objects.shape[:-1], "T", 7]
        raise ValueError(f"log: expected {wanted} for the objects, got {list(log.shape)}")
    valid = checked_mask("valid", valid, objects.shape[:-1])
    log_valid = checked_mask("log_valid", log_valid, log.shape[:-1])
    blank = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0])
    objects = checked("objects", np.where(valid[..., None], objects, blank), 7)
    return objects, valid, checked("log", np.where(log_valid[..., None], log, blank), 7), log_valid
