"""Waymax's metrics (waymo-research/waymax, waymax/metrics/): safety, feasibility, route, log.

Boxes are rows x, y [m], yaw [rad], length, width [m]; paths are points in the plane, of which only
the points count, not what lies between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alpagym.interop.waymax.bicycle import inverse
from alpagym.interop.waymax.checks import checked_mask
from alpagym.metrics.drive import Drive
from alpagym.metrics.geometry import ahead, backward_rates, checked, corners, cross, direction
from alpagym.metrics.ttc import LENGTH, Score, checked_boxes, separation
from alpagym.scenarios.polyline import arc_length, headings, interpolate, resample
from alpagym.scenarios.scenario import MapType, RoadMap

MAX_ACCEL, MAX_CURVATURE, SLACK = 10.4, 0.3, 1e-3
"""Beyond these, with the slack, a motion is infeasible [m/s^2, 1/m] (comfort.py)."""
WRONG_WAY = 3.5
"""Distance from every path from which on the way is wrong [m] (roadgraph.py)."""
OFF_ROUTE, OFF_ROUTE_RELATIVE = 5.0, 2.0
"""Distance from the route, and how much more than from other paths, that is off it [m]
(route.py)."""
Z_STRETCH = 2.0
"""Weight of heights among distances to road edges (roadgraph.py)."""
SPACING = 0.5
"""Distance between points of paths and edges of our own maps [m], as in WOMD."""
CHUNK = 1 << 21
"""Distances held in memory at once."""


def overlaps(boxes: np.ndarray) -> np.ndarray:
    """Which boxes [..., N, 5] overlap, touching excluded, [..., N, N] (geometry.py).

    Raises:
        ValueError: wrong shape, NaN or infinity, sizes that are not above 0.
    """
    boxes = checked_boxes("boxes", boxes)
    if boxes.ndim < 2:
        raise ValueError(f"boxes: expected [..., N, 5], got {list(boxes.shape)}")
    apart = separation(boxes[..., :, None, :], boxes[..., None, :, :])
    return (apart < 0.0) & ~np.eye(boxes.shape[-2], dtype=bool)


def overlap(boxes: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Whether some other, valid box overlaps each box, [..., N] (overlap.py).

    A box that is not valid hits none but may be hit: its own entry means nothing. `boxes`
    [..., N, 5], `valid` [..., N]; errors as of `overlaps`.
    """
    valid = checked_mask("valid", valid, np.shape(boxes)[:-1])
    return (overlaps(boxes) & valid[..., :, None]).any(-2)


@dataclass(frozen=True)
class RoadEdgePoints:
    """P points of directed road edges, in the order in which they were drawn."""

    xyz: np.ndarray
    """[m], [P, 3]."""
    direction: np.ndarray
    """Unit vectors of the edge at the points, in the plane, [P, 2]."""
    id: np.ndarray
    """Of the edge that a point belongs to, [P]."""
    counts: np.ndarray
    """Whether a point is valid and of a road edge, [P]; others only lend their direction."""


def signed_edge_distance(points: np.ndarray, edges: RoadEdgePoints) -> np.ndarray:
    """Distance in the plane to the nearest road edge point, positive off-road [m], [...].

    The nearest is found with heights counting double. Off-road is to the right of the edge: the
    cross product of the offset with the edge's direction is positive, there and with the direction
    of the point before, if that one has the same id. Without any edge the first point is taken for
    the nearest, as Waymax does (roadgraph.py: compute_signed_distance_to_nearest_road_edge_point).

    Args:
        points: x, y, z [m], [..., 3].
        edges: at least one point.

    Raises:
        ValueError: wrong shapes, NaN or infinity, no points of edges.
    """
    points = checked("points", points, 3)
    xyz = checked("edges.xyz", edges.xyz, 3)
    along = checked("edges.direction", edges.direction, 2)
    if len(xyz) == 0 or not len(xyz) == len(along) == len(edges.id) == len(edges.counts):
        sizes = [len(xyz), len(along), len(edges.id), len(edges.counts)]
        raise ValueError(f"edges: expected equally many points, at least 1, got {sizes}")
    stretch = np.array([1.0, 1.0, Z_STRETCH])
    query, pool = points.reshape(-1, 3), np.flatnonzero(edges.counts)
    nearest = np.zeros(len(query), np.int64)
    if len(pool):
        target, size = xyz[pool] * stretch, max(CHUNK // len(pool), 1)
        for first in range(0, len(query), size):
            own = query[first : first + size] * stretch
            apart = own[:, None] - target
            nearest[first : first + size] = pool[np.einsum("qpk,qpk->qp", apart, apart).argmin(1)]
    before = np.maximum(nearest - 1, 0)
    offset = query[:, :2] - xyz[nearest, :2]
    side = cross(offset, along[nearest])
    side_before = np.where(
        np.asarray(edges.id)[before] == np.asarray(edges.id)[nearest],
        cross(offset, along[before]),
        np.inf,
    )
    away = np.linalg.norm(offset, axis=-1) * np.sign(np.minimum(side, side_before))
    return np.asarray(away).reshape(points.shape[:-1])


def corner_edge_distances(boxes: np.ndarray, z: np.ndarray, edges: RoadEdgePoints) -> np.ndarray:
    """`signed_edge_distance` of front right, front left, rear left, rear right [m], [..., 4].

    `boxes` [..., 5], `z` heights of their centers [m], [...]; a box is off-road where any of its
    corners is. Errors as of `signed_edge_distance`.
    """
    boxes = checked_boxes("boxes", boxes)
    xy = np.roll(corners(boxes[..., :3], boxes[..., LENGTH:]), 1, -2)  # Waymax's first is ours last
    height = np.broadcast_to(np.asarray(z, np.float64)[..., None, None], (*xy.shape[:-1], 1))
    return signed_edge_distance(np.concatenate([xy, height], -1), edges)


def kinematically_infeasible(
    pairs: np.ndarray, valid: np.ndarray, *, dt: float = 0.1, yaw_from_velocity: bool = True
) -> np.ndarray:
    """Whether a motion asks for more than 10.4 m/s^2 or 0.3 1/m, [...] (comfort.py).

    `pairs` of states x, y, yaw, vel_x, vel_y [..., 2, 5], `valid` [..., 2]; what is not valid is
    feasible. Errors as of `alpagym.interop.waymax.bicycle.inverse`.
    """
    action = np.abs(inverse(pairs, valid, dt=dt, yaw_from_velocity=yaw_from_velocity))
    return (action > np.array([MAX_ACCEL, MAX_CURVATURE]) + SLACK).any(-1)


def log_divergence(xy: np.ndarray, log_xy: np.ndarray) -> np.ndarray:
    """Distance from the logged position of the same time [m], [...] (imitation.py).

    Raises:
        ValueError: wrong shapes, NaN or infinity.
    """
    apart = checked("xy", xy, 2) - checked("log_xy", log_xy, 2)
    return np.asarray(np.linalg.norm(apart, axis=-1))


@dataclass(frozen=True)
class Paths:
    """N paths of P points that may be driven from where the ego started, padded."""

    xy: np.ndarray
    """[m], [..., N, P, 2]."""
    valid: np.ndarray
    """[..., N, P]"""
    arc_length: np.ndarray
    """Of each point along its path [m], [..., N, P]."""
    on_route: np.ndarray
    """Whether the path is where the log went, [..., N]."""

    def distances(self, xy: np.ndarray) -> np.ndarray:
        """From `xy` [..., 2] to every point, inf where a point is not valid [m], [..., N, P].

        Raises:
            ValueError: wrong shapes, NaN or infinity.
        """
        points, xy = checked("paths.xy", self.xy, 2), checked("xy", xy, 2)
        valid = checked_mask("paths.valid", self.valid, points.shape[:-1])
        away = np.linalg.norm(xy[..., None, None, :] - points, axis=-1)
        return np.where(valid, away, np.inf)


def wrong_way(paths: Paths, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the nearest path, 0 below 3.5 m [m]; whether there is a path (roadgraph.py)."""
    away = paths.distances(xy).min((-2, -1))
    valid = np.isfinite(away)
    return np.where(valid & (away >= WRONG_WAY), away, 0.0), valid


def off_route(paths: Paths, xy: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the nearest path of the route where that is off it, else 0 [m] (route.py).

    Off it is more than 5 m, or over 2 m more than to a path that is not of the route. The second
    value is false where the ego at `xy` [..., 2] is not valid [...] or has no route.
    """
    away = np.where(np.asarray(valid)[..., None, None], paths.distances(xy), np.inf)
    on = np.where(paths.on_route[..., None], away, np.inf).min((-2, -1))
    other = np.where(paths.on_route[..., None], np.inf, away).min((-2, -1))
    known = np.isfinite(on)
    near = np.where(known, on, 0.0)
    off = (near > OFF_ROUTE) | (near - other > OFF_ROUTE_RELATIVE)
    return np.where(known & off, near, 0.0), known


def progression(
    paths: Paths, xy: np.ndarray, valid: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How far along the log the ego has come: 0 at its start, 1 at its end, [...] (route.py).

    (s(xy) - s(start)) / (s(end) - s(start)), with s the arc length at the nearest point of the
    path of the route that is nearest to the ego; 1 where start and end are at the same point. The
    second value is false, and the first 0, where the ego is not valid or has no route.

    Args:
        paths: where the log went and elsewhere.
        xy: the ego [m], [..., 2].
        valid: whether it exists, [...].
        start: where the log begins [m], [..., 2].
        end: where it ends [m], [..., 2].
    """
    away = paths.distances(xy)
    mine = np.where(np.asarray(valid)[..., None] & paths.on_route, away.min(-1), np.inf)
    chosen = mine.argmin(-1)[..., None, None]

    lengths = np.take_along_axis(
        np.broadcast_to(np.asarray(paths.arc_length, np.float64), away.shape), chosen, -2
    )[..., 0, :]

    def s(to: np.ndarray) -> np.ndarray:
        along = np.take_along_axis(np.broadcast_to(to, away.shape), chosen, -2)[..., 0, :]
        return np.take_along_axis(lengths, along.argmin(-1)[..., None], -1)[..., 0]

    here, first, last = s(away), s(paths.distances(start)), s(paths.distances(end))
    still = first == last
    share = np.where(still, 1.0, (here - first) / np.where(still, 1.0, last - first))
    known = np.isfinite(mine.min(-1))
    return np.where(known, share, 0.0), known


def _begun_at_longest_step(line: np.ndarray) -> np.ndarray:
    """A closed line [n, 3] that begins and ends in the middle of its longest step; others as is."""
    if len(line) < 4 or not np.array_equal(line[0, :2], line[-1, :2]):
        return line
    k = int(np.hypot(*np.diff(line[:, :2], axis=0).T).argmax()) + 1
    middle = 0.5 * (line[k - 1 : k] + line[k : k + 1])
    return np.concatenate([middle, line[k:], line[1:k], middle])


def edge_points(lines: Sequence[np.ndarray]) -> RoadEdgePoints | None:
    """Points every 0.5 m of directed lines [n, 3], each with an id; None if none has a length.

    A closed line begins in the middle of its longest step: for Waymax nothing comes before a first
    point, so at a bend there only one of two steps would tell off-road.
    """
    found = []
    for line in lines:
        line = _begun_at_longest_step(np.asarray(line, np.float64))
        length = arc_length(line)[-1]
        if length > 0.0:
            found.append(interpolate(line, np.append(np.arange(0.0, length, SPACING), length)))
    if not found:
        return None
    yaw = np.concatenate([headings(line) for line in found])
    return RoadEdgePoints(
        xyz=np.concatenate(found),
        direction=direction(yaw),
        id=np.repeat(np.arange(len(found)), [len(line) for line in found]),
        counts=np.ones(len(yaw), bool),
    )


def edges_of(road_map: RoadMap) -> RoadEdgePoints | None:
    """The road edges of our map, whose drivable side is the left; None if it has none."""
    edges = np.flatnonzero(road_map.type == MapType.ROAD_EDGE)
    return edge_points([road_map.polyline(int(element)) for element in edges])


def route_of(drive: Drive) -> Paths | None:
    """The ego's route as the one path, a point every 0.5 m; None if it has no route."""
    if len(drive.route) < 2:
        return None
    line = resample(drive.route, SPACING)
    along = SPACING * np.arange(len(line))
    return Paths(line[None], np.ones((1, len(line)), bool), along[None], np.ones(1, bool))


def score(drive: Drive) -> Score:
    """The ego of a drive, after each step of its driver.

    Steps: `overlap`, `offroad` and `kinematic_infeasibility` (0 or 1), `log_divergence` [m] (NaN
    where the log lacks the ego) and `progression` (NaN without a route); where the ego is not
    there all are NaN. Totals: whether the first two ever held, the share of steps of the third,
    the mean and the largest log divergence, and the last progression.

    A drive has no velocities: the way of the ego's rear axle from row to row gives its speed, and
    the infeasibility goes by the yaw itself. The height of the ego is the log's at that time. A map
    without road edges is nowhere off-road.
    """
    rows = np.arange(drive.start + 1, len(drive.pose))
    ego, here = drive.ego, drive.ego_there[rows]
    tracks = drive.scenario.tracks
    frames = np.minimum(drive.first_frame + rows, tracks.num_frames - 1)
    logged = tracks.valid[ego, frames] & (drive.first_frame + rows < tracks.num_frames)
    boxes = drive.boxes[rows]
    t, agent = np.nonzero(drive.valid[rows] & drive.others)
    steps: dict[str, np.ndarray] = {name: np.zeros(len(rows)) for name in ("overlap", "offroad")}
    np.maximum.at(steps["overlap"], t, separation(boxes[t, ego], boxes[t, agent]) < 0.0)
    edges = edges_of(drive.scenario.map)
    if edges is not None:
        z = _last_known(tracks.xyz[ego, :, 2].astype(np.float64), tracks.valid[ego])[frames]
        off = (corner_edge_distances(boxes[:, ego], z, edges) > 0.0).any(-1)
        steps["offroad"] = np.asarray(off, np.float64)
    pairs, both = _pairs(drive)
    infeasible = kinematically_infeasible(pairs, both, dt=drive.dt, yaw_from_velocity=False)
    steps["kinematic_infeasibility"] = np.asarray(infeasible[rows - 1], np.float64)
    away = log_divergence(drive.pose[rows, ego, :2], tracks.xyz[ego, frames, :2].astype(np.float64))
    steps["log_divergence"] = np.where(logged, away, np.nan)
    steps["progression"] = np.full(len(rows), np.nan)
    route = route_of(drive)
    if route is not None:
        start, end = drive.log_pose[0, :2], drive.log_pose[-1, :2]
        share, known = progression(route, drive.pose[rows, ego, :2], here, start, end)
        steps["progression"] = np.where(known, share, np.nan)
    steps = {name: np.where(here, values, np.nan) for name, values in steps.items()}
    total = {
        "overlap": _over(np.max, steps["overlap"]),
        "offroad": _over(np.max, steps["offroad"]),
        "kinematic_infeasibility": _over(np.mean, steps["kinematic_infeasibility"]),
        "log_divergence": _over(np.mean, steps["log_divergence"]),
        "max_log_divergence": _over(np.max, steps["log_divergence"]),
        "progression": _over(lambda known: known[-1], steps["progression"]),
    }
    return Score(steps, total)


def _pairs(drive: Drive) -> tuple[np.ndarray, np.ndarray]:
    """The ego's states of consecutive rows [T - 1, 2, 5] and whether it is there [T - 1, 2]."""
    pose, there = drive.ego_pose, drive.ego_there
    axle = ahead(pose, -drive.ego_rear_axle)[:, :2]
    velocity = np.nan_to_num(backward_rates(axle, there, drive.dt))
    speed = np.linalg.norm(velocity, axis=-1, keepdims=True)
    states = np.concatenate([pose, speed * direction(pose[:, 2])], -1)
    return np.stack([states[:-1], states[1:]], 1), np.stack([there[:-1], there[1:]], 1)


def _last_known(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Each value, or where it is not known the last one before, or the first one, [F]."""
    index = np.maximum.accumulate(np.where(known, np.arange(len(known)), -1))
    return values[np.where(index < 0, known.argmax(), index)]


def _over(reduce: Callable[[np.ndarray], Any], values: np.ndarray) -> float:
    """The aggregate of what is known, NaN where nothing is."""
    known = values[~np.isnan(values)]
    return float(reduce(known)) if len(known) else float("nan")
