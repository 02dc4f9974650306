"""NuPlan's decisions once more, by shapely and scipy, on random situations and recorded ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import shapely
from scipy.signal import savgol_filter

from alpagym.metrics.comfort import BOUNDS, comfort_series, within_bounds
from alpagym.metrics.geometry import corners
from alpagym.metrics.nuplan.collisions import contacts, types
from alpagym.metrics.nuplan.state import LENGTH, REAR_TO_CENTER, WIDTH, Ego, Tracks
from alpagym.metrics.nuplan.time_to_collision import time_to_collision
from alpagym.metrics.polygons import Polygons, convex_intersect
from alpagym.metrics.scenario_map import polygon_map_of
from alpagym.scenarios.scenario import Scenario
from parity.recorded import recordings
from parity.row import Row

SHAPELY, SCIPY = "shapely, independent", "scipy, independent"
BAND = 0.01
"""Decisions about distances smaller than this may fall either way [m]."""
NEAR = 15.0
"""Recorded boxes farther apart are not compared [m]."""
EVERY = 10
"""Of the recorded frames, one in so many is compared."""


def rows(data: Path | None, every: int) -> list[Row]:
    rng = np.random.default_rng(2026)
    result = [
        *_collision_rows(rng),
        _ttc_row("nuplan.ttc, random", *_situations(rng, 2500)),
        *_polygon_rows(rng),
        *_comfort_rows(rng),
    ]
    if data is not None:
        result += _recorded_rows(recordings(data, every))
    return result


def _decided(
    metric: str, ours: np.ndarray, theirs: np.ndarray, margin: Callable[[np.ndarray], np.ndarray]
) -> Row:
    """`margin` gives the distances [m] that the disputed decisions, a mask, depend on."""
    differ = ours != theirs
    close = margin(differ) < BAND if differ.any() else np.zeros(0, bool)
    flips = int(close.sum())
    return Row(metric, SHAPELY, cases=ours.size, flips=flips, wrong=int(differ.sum()) - flips)


def _situations(rng: np.random.Generator, n: int, k: int = 4) -> tuple[Ego, Tracks]:
    """n unrelated samples of an ego with k tracks about it."""
    pose = np.concatenate([rng.uniform(-50, 50, (n, 2)), rng.uniform(-np.pi, np.pi, (n, 1))], -1)
    speed = rng.choice([0.0, 0.02, 1.0], (n, 1), p=[0.1, 0.1, 0.8]) * rng.uniform(0, 15, (n, 1))
    zero = np.zeros((n, 2))
    ego = Ego(pose, np.concatenate([speed, 0 * speed], -1), zero, zero[:, 0], zero[:, 0])
    shift = rng.normal(size=(n, k, 2)) * rng.choice([2.0, 15.0], (n, k, 1))
    yaw = pose[:, None, 2] + rng.choice([0.0, 0.1, 2.0], (n, k)) * rng.normal(size=(n, k))
    heading = np.stack([np.cos(yaw), np.sin(yaw)], -1)
    fast = rng.choice([0.0, 0.03, 6.0], (n, k), p=[0.1, 0.1, 0.8]) * rng.normal(size=(n, k))
    return ego, Tracks(
        pose=np.concatenate([ego.center[:, None, :2] + shift, yaw[..., None]], -1),
        velocity=fast[..., None] * heading,
        size=rng.uniform(0.4, 1.0, (n, k, 2)) * np.array([5.0, 2.2]),
        kind=rng.integers(0, 7, (n, k)),
        valid=rng.uniform(size=(n, k)) < 0.95,
    )


def _boxes(pose: np.ndarray, length: np.ndarray | float, width: np.ndarray | float) -> np.ndarray:
    """Shapely rectangles turned and moved into place, [...]."""
    half = np.stack(np.broadcast_arrays(length, width, pose[..., 0])[:2], -1) / 2
    corner = half[..., None, :] * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    turn = np.exp(1j * pose[..., 2])[..., None] * (corner[..., 0] + 1j * corner[..., 1])
    place = turn + (pose[..., 0] + 1j * pose[..., 1])[..., None]
    return shapely.polygons(np.stack([place.real, place.imag], -1))


def _margin(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How far a pair is from touching [m]: a gap, or about half the width of a thin overlap."""
    overlap = shapely.intersection(a, b)
    depth = shapely.area(overlap) / np.maximum(shapely.length(overlap), 1e-9)
    return np.maximum(shapely.distance(a, b), 2 * depth)


def _ego_boxes(ego: Ego) -> np.ndarray:
    heading = ego.rear_axle[:, 2]
    center = ego.rear_axle.copy()
    center[:, 0] += REAR_TO_CENTER * np.cos(heading)
    center[:, 1] += REAR_TO_CENTER * np.sin(heading)
    return _boxes(center, LENGTH, WIDTH)


def _off_axis(ego: Ego, tracks: Tracks) -> np.ndarray:
    """Degrees between the heading and the way from the rear axle to each track, [T, K]."""
    way = tracks.pose[..., :2] - ego.rear_axle[:, None, :2]
    heading = np.stack([np.cos(ego.rear_axle[:, 2]), np.sin(ego.rear_axle[:, 2])], -1)[:, None]
    cosine = (way * heading).sum(-1) / np.linalg.norm(way, axis=-1)
    return np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))


def _collision_rows(rng: np.random.Generator) -> list[Row]:
    ego, tracks = _situations(rng, 2500)
    mine = _ego_boxes(ego)
    theirs = _boxes(tracks.pose, tracks.size[..., 0], tracks.size[..., 1])
    touch = shapely.intersects(mine[:, None], theirs) & tracks.valid
    ring = shapely.get_coordinates(mine).reshape(-1, 5, 2)
    bumper = shapely.linestrings(ring[:, [0, 3]])[:, None]
    expected = np.full(touch.shape, 4)
    expected[shapely.intersects(bumper, theirs)] = 2
    angle = _off_axis(ego, tracks)
    expected[angle > 150] = 3
    moving = (np.linalg.norm(tracks.velocity, axis=-1) > 0.05) & (tracks.kind <= 2)
    expected[~moving] = 1
    expected[np.linalg.norm(ego.velocity, axis=-1) <= 0.05] = 0
    expected[~touch] = -1
    mine = np.broadcast_to(mine[:, None], touch.shape)
    bumper = np.broadcast_to(bumper, touch.shape)

    def gap(disputed: np.ndarray) -> np.ndarray:
        return _margin(mine[disputed], theirs[disputed])

    def decided_by(disputed: np.ndarray) -> np.ndarray:
        front, box = bumper[disputed], theirs[disputed]
        # A bumper that cuts off a corner by less than the band is as undecided as one that misses.
        cut = np.maximum(
            shapely.distance(front, box), shapely.length(shapely.intersection(front, box))
        )
        return np.minimum(np.minimum(gap(disputed), cut), np.abs(angle[disputed] - 150))

    ours = contacts(ego, tracks)
    return [
        _decided("nuplan.contact, random", ours, touch, gap),
        _decided("nuplan.collision type, random", types(ego, tracks, ours), expected, decided_by),
    ]


def _ttc_row(metric: str, ego: Ego, tracks: Tracks) -> Row:
    """Projects every pair one step after another; the flags of half of the samples widen."""
    n, k = tracks.valid.shape
    in_lane, crossing = np.arange(n) % 2 == 0, np.arange(n) % 5 == 0
    no = np.zeros(n, bool)
    ours = time_to_collision(ego, tracks, np.zeros((n, k), bool), in_lane, crossing, no)
    angle = _off_axis(ego, tracks)
    wide = (~in_lane | crossing)[:, None]
    speed = np.linalg.norm(ego.velocity, axis=-1)
    counts = tracks.valid & ((angle < 30) | (wide & (angle <= 150))) & (speed > 0.005)[:, None]
    t, j = np.nonzero(counts)
    fast = np.where(tracks.kind <= 2, np.linalg.norm(tracks.velocity, axis=-1), 0.0)[t, j]
    theirs, mine = tracks.pose[t, j], ego.rear_axle[t]
    ahead = np.stack([np.cos(mine[:, 2]), np.sin(mine[:, 2])], -1)
    other = np.stack([np.cos(theirs[:, 2]), np.sin(theirs[:, 2])], -1)
    expected, size = np.full(n, np.inf), tracks.size[t, j]

    def boxes(step: int, some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a, b = mine[some], theirs[some]
        a[:, :2] += ahead[some] * (ego.rear_to_center + 0.1 * step * speed[t[some], None])
        b[:, :2] += other[some] * (0.1 * step * fast[some, None])
        return _boxes(a, ego.length, ego.width), _boxes(b, *size[some].T)

    for step in range(29, 0, -1):
        hit = shapely.intersects(*boxes(step, np.ones(len(t), bool)))
        expected[t[hit]] = 0.1 * step
    differ = ~np.isclose(ours, expected, rtol=0, atol=1e-9)
    # The two differ about the earlier of their times: there, some pair must be within the band.
    flips = 0
    for i in np.flatnonzero(differ):
        pairs = boxes(round(10 * min(ours[i], expected[i])), t == i)
        flips += int((_margin(*pairs) < BAND).any())
    return Row(metric, SHAPELY, cases=n, flips=flips, wrong=int(differ.sum()) - flips)


def _polygon_rows(rng: np.random.Generator) -> list[Row]:
    """Stars of 5 to 12 corners, of which most are not convex; points on their corners too."""
    rings = []
    for count in rng.integers(5, 13, 60):
        # Angles that differ by less than half a turn make a ring that meets itself nowhere.
        angle = np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.uniform(0, 0.3, count)
        radius = rng.uniform(2, 12, (count, 1))
        ring = rng.uniform(-30, 30, 2) + radius * np.stack([np.cos(angle), np.sin(angle)], -1)
        rings.append(ring)
    ours, theirs = Polygons.of(rings), np.array([shapely.Polygon(ring) for ring in rings])
    points = np.concatenate([rng.uniform(-40, 40, (2500, 2)), *rings])
    dots, areas = np.broadcast_arrays(shapely.points(points)[:, None], theirs)
    distance = shapely.distance(dots, areas)
    pose = np.concatenate([rng.uniform(-40, 40, (2500, 2)), rng.uniform(-4, 4, (2500, 1))], -1)
    size = rng.uniform(0.5, 8, (2500, 2))
    boxes, rims = np.broadcast_arrays(_boxes(pose, size[:, 0], size[:, 1])[:, None], theirs)
    error = float(np.abs(ours.distance(points) - distance).max())
    return [
        _decided(
            "nuplan.contains, random",
            ours.contains(points),
            shapely.contains(areas, dots),
            lambda d: shapely.distance(dots[d], shapely.boundary(areas[d])),
        ),
        _decided(
            "nuplan.box meets polygon, random",
            ours.meets(corners(pose, size)),
            shapely.intersects(boxes, rims),
            lambda d: _margin(boxes[d], rims[d]),
        ),
        Row("nuplan.distance to polygon, random", SHAPELY, distance.size, error, 1e-9),
    ]


def _comfort_rows(rng: np.random.Generator) -> list[Row]:
    """Drives in groups of one length and one time step."""
    group, errors, flips, wrong, cases = 25, [], 0, 0, 0
    for _ in range(100):
        n, dt = int(rng.integers(4, 82)), float(rng.choice([0.05, 0.1, 0.2]))
        center = rng.normal(size=(group, n, 2)).cumsum(1) * rng.uniform(0.1, 1.0, (group, 1, 1))
        rear = center + 0.1 * rng.normal(size=(group, n, 2))
        heading = rng.normal(size=(group, n)).cumsum(1) * rng.choice([0.01, 0.1], (group, 1))
        wrapped = (heading + np.pi) % (2 * np.pi) - np.pi
        ours = comfort_series(center, rear, wrapped, dt)
        wide, wider, narrow = min(8, n), min(15, n), min(5, n)
        smooth = {
            "lon_accel": savgol_filter(center[..., 0], wide, 2),
            "lat_accel": savgol_filter(center[..., 1], wide, 2),
            "jerk_mag": savgol_filter(np.linalg.norm(rear, axis=-1), wide, 2),
            "yaw_rate": savgol_filter(heading, narrow, 2, deriv=1, delta=dt),
            "yaw_accel": savgol_filter(heading, narrow, 3, deriv=2, delta=dt),
        }
        smooth["lon_jerk"] = savgol_filter(smooth["lon_accel"], wider, 2, deriv=1, delta=dt)
        smooth["jerk_mag"] = savgol_filter(smooth["jerk_mag"], wider, 2, deriv=1, delta=dt)
        within = within_bounds(ours)
        for name, theirs in smooth.items():
            low, high = BOUNDS[name]
            inside = ((theirs > low) & (theirs < high)).all(-1)
            edge = np.minimum(np.abs(theirs - low), np.abs(theirs - high)).min(-1)
            differ = inside != within[name]
            flips += int((differ & (edge < 1e-6)).sum())
            wrong += int((differ & (edge >= 1e-6)).sum())
            errors.append(float(np.abs(ours[name] - theirs).max()))
            cases += group
    return [
        Row("nuplan.comfort series, random", SCIPY, cases, max(errors), 1e-6),
        Row("nuplan.comfort in bounds, random", SCIPY, cases, flips=flips, wrong=wrong),
    ]


def _recorded_rows(scenarios: list[Scenario]) -> list[Row]:
    """Every pair of near boxes in one of `EVERY` frames, and the ego's centers on the map."""
    ours, first, second = [], [], []
    inside, areas, dots = [], [], []
    gaps, count = [0.0], 0
    for scenario in scenarios:
        tracks, lanes = scenario.tracks, polygon_map_of(scenario)
        shapes = np.array([shapely.Polygon(lanes.polygons.ring(i)) for i in range(len(lanes.ids))])
        for frame in range(0, tracks.num_frames, EVERY):
            there = np.flatnonzero(tracks.valid[:, frame])
            xy = tracks.xyz[there, frame, :2].astype(float)
            pose = np.concatenate([xy, tracks.yaw[there, frame, None]], -1).astype(float)
            size = tracks.size[there, :2].astype(float)
            apart = np.linalg.norm(xy[:, None] - xy, axis=-1)
            a, b = np.nonzero(np.triu(apart < NEAR, 1))
            box, shape = corners(pose, size), _boxes(pose, size[:, 0], size[:, 1])
            ours.append(convex_intersect(box[a], box[b]))
            first.append(shape[a])
            second.append(shape[b])
        ego = np.flatnonzero(tracks.valid[scenario.ego])
        points = tracks.xyz[scenario.ego, ego, :2].astype(float)
        valid = shapely.is_valid(
            shapes
        )  # shapely answers nothing about rings that cross themselves
        inside.append(lanes.lanes_at(points)[:, valid].ravel())
        dot, area = np.broadcast_arrays(shapely.points(points)[:, None], shapes[valid])
        dots.append(dot.ravel())
        areas.append(area.ravel())
        if lanes.edges is not None:
            lines = np.stack([lanes.edges.start, lanes.edges.end], 1)
            edges = shapely.multilinestrings(shapely.linestrings(lines))
            shapely.prepare(edges)
            distance = np.abs(lanes.edges.signed_distance(points))
            gaps.append(np.abs(distance - shapely.distance(shapely.points(points), edges)).max())
            count += len(points)
    one, two = np.concatenate(first), np.concatenate(second)
    dot, area = np.concatenate(dots), np.concatenate(areas)
    return [
        _decided(
            "nuplan.contact, recorded",
            np.concatenate(ours),
            shapely.intersects(one, two),
            lambda d: _margin(one[d], two[d]),
        ),
        _decided(
            "nuplan.contains, recorded",
            np.concatenate(inside),
            shapely.contains(area, dot),
            lambda d: shapely.distance(dot[d], shapely.boundary(area[d])),
        ),
        Row("nuplan.distance to road edge, recorded", SHAPELY, count, float(max(gaps)), 1e-3),
        _recorded_ttc(scenarios),
    ]


def _recorded_ttc(scenarios: list[Scenario]) -> Row:
    """Of the recorded ego against all agents, in every other frame."""
    parts = []
    for scenario in scenarios:
        tracks, ego = scenario.tracks, scenario.ego
        frames = np.flatnonzero(tracks.valid[ego])[::2]
        pose = np.concatenate([tracks.xyz[..., :2], tracks.yaw[..., None]], -1)[:, frames]
        pose, velocity = pose.astype(float), tracks.velocity[:, frames].astype(float)
        length, width = tracks.size[ego, :2].astype(float)
        axle = pose[ego].copy()
        axle[:, 0] -= 0.3 * length * np.cos(axle[:, 2])
        axle[:, 1] -= 0.3 * length * np.sin(axle[:, 2])
        zero = np.zeros((len(frames), 2))
        others = np.arange(len(pose)) != ego
        shape = (len(frames), int(others.sum()))
        parts.append(
            _ttc_row(
                "",
                Ego(
                    axle,
                    velocity[ego],
                    zero,
                    zero[:, 0],
                    zero[:, 0],
                    length=length,
                    width=width,
                    rear_to_center=0.3 * length,
                ),
                Tracks(
                    pose=pose[others].swapaxes(0, 1),
                    velocity=velocity[others].swapaxes(0, 1),
                    size=np.broadcast_to(tracks.size[others, :2].astype(float), (*shape, 2)),
                    kind=np.zeros(shape, int),
                    valid=tracks.valid[others][:, frames].T,
                ),
            )
        )
    return Row(
        "nuplan.ttc, recorded",
        SHAPELY,
        cases=sum(row.cases for row in parts),
        flips=sum(row.flips for row in parts),
        wrong=sum(row.wrong for row in parts),
    )
