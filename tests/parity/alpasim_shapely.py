"""AlpaSim's geometry once more with shapely, in float64: an oracle that shares no code with ours.

Decisions may differ where boxes 1 cm longer and wider, or shorter and narrower, decide otherwise.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from alpagym.metrics.alpasim import episode_of
from alpagym.metrics.alpasim.episode import Episode, Plan
from alpagym.metrics.alpasim.lanes import LineMap
from alpagym.metrics.alpasim.rounded import gap, outline, touches_front
from alpagym.metrics.alpasim.scorers import measure
from alpagym.metrics.drive import Drive
from alpagym.scenarios.scenario import Scenario
from parity.recorded import recordings
from parity.row import Row

BAND = 0.01
"""How much longer and wider boxes may be for a decision to count as undecided [m]."""

CRACK = 1e-9
"""Holes of a union smaller than this [m^2] are not there: GEOS leaves some, of no area, where a
third lane crosses the shared edge of two."""


@dataclass
class Tally:
    """What is known of one row while cases come in."""

    cases: int = 0
    error: float = 0.0
    flips: int = 0
    wrong: int = 0

    def values(self, ours: np.ndarray, theirs: np.ndarray, scale: float = 1.0) -> None:
        """Numbers; one that is missing or infinite on one side only is wrong."""
        ours, theirs = np.atleast_1d(ours).astype(float), np.atleast_1d(theirs).astype(float)
        self.cases += len(ours)
        finite = np.isfinite(ours) & np.isfinite(theirs)
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        self.wrong += int((~finite & ~same).sum())
        if finite.any():
            self.error = max(self.error, float(np.abs(ours - theirs)[finite].max()) * scale)

    def decisions(self, ours: np.ndarray, theirs: np.ndarray, undecided: np.ndarray) -> None:
        differ = np.atleast_1d(ours) != np.atleast_1d(theirs)
        self.cases += len(differ)
        self.flips += int((differ & undecided).sum())
        self.wrong += int((differ & ~undecided).sum())

    def row(self, name: str, reference: str, tolerance: float = 0.0) -> Row:
        return Row(
            f"alpasim.{name}",
            reference,
            self.cases,
            self.error,
            tolerance,
            flips=self.flips,
            wrong=self.wrong,
        )


def independent_rows(data: Path | None, every: int = 1) -> list[Row]:
    """Overlap, zones, road and distances on 4000 random pairs of boxes and 2000 random places.

    With `data` also at every tenth step of the ego's log in every recorded scenario that can be
    read, with all agents within 15 m.
    """
    rng = np.random.default_rng(20261122)
    counts: dict[str, Tally] = defaultdict(Tally)
    for shrink, roundness in ((0.02, 0.5), (0.02, 0.0), (0.0, 0.5), (0.1, 0.9)):
        _pairs(rng, 1000, shrink, roundness, counts)
    for _ in range(20 // every):
        _places(random_map(rng), rng, counts)
    rows = [_row(name, "random", count) for name, count in counts.items()]
    if data is not None:
        counts = defaultdict(Tally)
        for scenario in recordings(data, every):
            _replayed(scenario, counts)
        rows += [_row(name, "recorded", count) for name, count in counts.items() if count.cases]
    return rows


def _row(name: str, where: str, tally: Tally) -> Row:
    return tally.row(name, f"shapely, {where}", 1e-3 if name.endswith("[m]") else 0.0)


def _decide(tally: Tally, ours: np.ndarray, theirs: list[np.ndarray]) -> None:
    """`theirs`: with boxes as they are, smaller, larger."""
    tally.decisions(ours, theirs[0], theirs[1] != theirs[2])


@dataclass
class Drawn:
    """Boxes as shapely draws them, [n] geometries each."""

    shape: np.ndarray
    front: np.ndarray
    rear: np.ndarray
    """Edges, not buffered yet."""
    rho: np.ndarray

    def zone(self, name: str, where: np.ndarray) -> np.ndarray:
        edge = getattr(self, name)[where]
        if not self.rho.any():
            return edge
        around = shapely.buffer(edge, self.rho[where], quad_segs=16)
        return shapely.intersection(around, self.shape[where])


def boxes(
    pose: np.ndarray, size: np.ndarray, shrink: float, roundness: float, by: float = 0.0
) -> Drawn:
    """Shrunk and rounded boxes, `by` meters longer and wider before that."""
    length, width = (np.maximum(size + by, 1e-3) * (1 - shrink)).T
    c, s = np.cos(pose[:, 2]), np.sin(pose[:, 2])
    ahead, aside = np.stack([c, s], -1), np.stack([-s, c], -1)
    corner = [
        pose[:, :2] + a * length[:, None] / 2 * ahead + b * width[:, None] / 2 * aside
        for a, b in ((1, 1), (1, -1), (-1, -1), (-1, 1))
    ]
    shape, rho = shapely.polygons(np.stack(corner, 1)), roundness * np.minimum(length, width) / 2
    if roundness:
        shape = shapely.buffer(shapely.buffer(shape, -rho, quad_segs=16), rho, quad_segs=16)
    front, rear = (shapely.linestrings(np.stack(corner[k : k + 2], 1)) for k in (0, 2))
    return Drawn(shape, front, rear, rho)


def _pairs(
    rng: np.random.Generator, count: int, shrink: float, roundness: float, counts: dict
) -> None:
    def draw() -> tuple[np.ndarray, np.ndarray]:
        pose = rng.uniform([-4, -3, -np.pi], [4, 3, np.pi], (count, 3))
        return pose, rng.uniform([0.6, 0.5], [8.0, 2.8], (count, 2))

    (pose_a, size_a), (pose_b, size_b) = draw(), draw()
    # Some stand parallel or square to each other, bumper to bumper.
    square = rng.random(count) < 0.2
    pose_b[square, 2] = pose_a[square, 2] + np.pi / 2 * rng.integers(0, 4, square.sum())
    a, b = (outline(p, s, shrink, roundness) for p, s in ((pose_a, size_a), (pose_b, size_b)))
    drawn = [
        (boxes(pose_a, size_a, shrink, roundness, by), boxes(pose_b, size_b, shrink, roundness, by))
        for by in (0.0, -BAND, BAND)
    ]
    _compare_pairs(gap(a, b), touches_front(a, b), touches_front(a.reversed, b), drawn, counts)


def _compare_pairs(
    distance: np.ndarray,
    front: np.ndarray,
    rear: np.ndarray,
    drawn: list[tuple[Drawn, Drawn]],
    counts: dict[str, Tally],
) -> None:
    hit = [shapely.intersects(a.shape, b.shape) for a, b in drawn]
    _decide(counts["overlap"], distance <= 0, hit)
    apart = shapely.distance(drawn[0][0].shape, drawn[0][1].shape)
    counts["distance of boxes [m]"].values(distance, apart)
    both = hit[0] & (distance <= 0)
    for name, ours in (("front", front), ("rear", rear)):
        touched = [shapely.intersects(b.shape[both], a.zone(name, both)) for a, b in drawn]
        _decide(counts[f"{name} zone"], ours[both], touched)


def random_map(rng: np.random.Generator) -> LineMap:
    """Two crossing roads of two to four bent lanes, some without edges, with road edges."""
    center, left, right, edges = [], [], [], []
    for heading in rng.uniform(0, np.pi, 2):
        bends, width = rng.uniform(-0.02, 0.02), rng.uniform(3.0, 3.8)
        s = np.arange(-45.0, 45.1, rng.choice([1.0, 2.5, 5.0]))
        yaw = heading + bends * s
        path = np.cumsum(np.stack([np.cos(yaw), np.sin(yaw)], -1), 0) * (s[1] - s[0])
        path -= path[len(path) // 2]
        aside = np.stack([-np.sin(yaw), np.cos(yaw)], -1)
        count = int(rng.integers(2, 5))
        offset = (np.arange(count + 1) - count / 2) * width
        bare = rng.random() < 0.3
        for k in range(count):
            lane = [
                path + o * aside
                for o in (offset[k + 1], (offset[k] + offset[k + 1]) / 2, offset[k])
            ]
            lane = [line[:: 1 if k % 2 else -1] for line in lane][:: 1 if k % 2 else -1]
            left.append(np.zeros((0, 2)) if bare else lane[0])
            center.append(np.column_stack([lane[1], np.zeros(len(s))]))
            right.append(np.zeros((0, 2)) if bare else lane[2])
        for o in offset[[0, -1]]:
            edges.append(np.column_stack([path + o * aside, np.zeros(len(s))]))
    return LineMap(center, left, right, edges)


def _places(lanes: LineMap, rng: np.random.Generator, counts: dict, steps: int = 100) -> None:
    pose = rng.uniform([-25, -25, -np.pi], [25, 25, np.pi], (steps, 3))
    # Most stand on a lane, along it or nearly so.
    for t in np.flatnonzero(rng.random(steps) < 0.7):
        line = lanes.center[rng.integers(len(lanes.center))][:, :2]
        k = rng.integers(len(line) - 1)
        step = line[k + 1] - line[k]
        pose[t, :2] = line[k] + rng.normal(0, 1, 2)
        pose[t, 2] = np.arctan2(step[1], step[0]) + rng.normal(0, 0.15)
    size = rng.uniform([1.5, 0.6], [5.5, 2.1])
    episode = _still(pose, size, lanes)
    _compare_road(episode, np.arange(steps), counts)


def _still(pose: np.ndarray, size: np.ndarray, lanes: LineMap) -> Episode:
    times = np.arange(len(pose)) * 100_000
    return Episode(
        times_us=times,
        ego_pose=pose,
        ego_z=np.full(len(pose), 0.7),
        ego_size=size,
        actor_pose=np.zeros((len(pose), 0, 3)),
        actor_there=np.zeros((len(pose), 0), bool),
        actor_size=np.zeros((0, 2)),
        log=Plan(times, pose),
        engaged_us=0,
        lanes=lanes,
    )


def _compare_road(episode: Episode, steps: np.ndarray, counts: dict) -> None:
    lanes = episode.lanes
    assert lanes is not None
    metrics = measure(episode)
    shapes = lane_shapes(lanes)
    off: list[list[bool]] = [[], [], []]
    held: list[list[bool]] = [[], [], []]
    border, wrong = [], []
    unions: dict[tuple[int, ...], shapely.Geometry] = {}
    vertices = np.concatenate(lanes.edges) if lanes.edges else np.zeros((0, 3))
    owner = np.repeat(np.arange(len(lanes.edges)), [len(e) for e in lanes.edges])
    for t in steps:
        at = np.append(episode.ego_pose[t, :2], episode.ego_z[t])
        near = [k for k, c in enumerate(lanes.center) if np.linalg.norm(c - at, axis=1).min() <= 6]
        if tuple(near) not in unions:
            unions[tuple(near)] = _union([shapes[k] for k in near])
        union = unions[tuple(near)]
        edge = None
        if lanes.edges:
            line = lanes.edges[owner[np.linalg.norm(vertices - at, axis=1).argmin()]]
            edge = shapely.LineString(line[:, :2])
        for k, by in enumerate((0.0, -BAND, BAND)):
            ego = boxes(
                episode.ego_pose[t : t + 1],
                episode.ego_size[None],
                episode.shrink,
                episode.roundness,
                by,
            ).shape[0]
            inside = bool(near) and bool(union.contains(ego))
            held[k].append(inside)
            off[k].append(not inside and edge is not None and edge.distance(ego) < 1e-3)
            if k == 0:
                border.append(union.boundary.distance(ego) if inside else 0.0)
        wrong.append(
            _against(episode, t, [k for k in near if shapes[k].contains(shapely.Point(at))])
        )
    ours = metrics["min_distance_to_lane_boundary_m"].values[steps]
    agree = (ours > 0) == np.array(held[0])
    _decide(counts["lanes contain the ego"], ours > 0, [np.array(h) for h in held])
    counts["distance to lane border [m]"].values(ours[agree], np.array(border)[agree])
    if lanes.edges:
        decided = metrics["offroad"].values[steps] == 1
        _decide(counts["offroad"], decided, [np.array(o) for o in off])
        same = [np.array(wrong)] * 3
        _decide(counts["wrong_lane"], metrics["wrong_lane"].values[steps] == 1, same)


def lane_shapes(lanes: LineMap) -> list[shapely.Polygon]:
    return [
        shapely.Polygon(np.concatenate([left, right[::-1]]))
        if len(left)
        else shapely.LineString(line[:, :2]).buffer(1.85)
        for line, left, right in zip(lanes.center, lanes.left, lanes.right, strict=True)
    ]


def cracked(lanes: LineMap, candidate: np.ndarray) -> bool:
    """Whether GEOS leaves a crack in the union of candidate lanes (bool [L])."""
    shapes = lane_shapes(lanes)
    raw = shapely.union_all([shapes[k] for k in np.flatnonzero(candidate)])
    return any(
        shapely.Polygon(hole).area < CRACK
        for part in shapely.get_parts(raw)
        for hole in getattr(part, "interiors", ())
    )


def _union(shapes: list[shapely.Polygon]) -> shapely.Geometry:
    parts = shapely.get_parts(shapely.union_all(shapes))
    whole = []
    for part in parts:
        holes = [h for h in part.interiors if shapely.Polygon(h).area > CRACK]
        whole.append(shapely.Polygon(part.exterior, holes))
    return shapely.MultiPolygon(whole)


def _against(episode: Episode, t: int, around: list[int]) -> bool:
    assert episode.lanes is not None
    point, yaw = shapely.Point(episode.ego_pose[t, :2]), episode.ego_pose[t, 2]
    for k in around:
        line = shapely.LineString(episode.lanes.center[k][:, :2])
        s = line.project(point)
        ahead = line.interpolate(min(s + 0.01, line.length))
        behind = line.interpolate(max(s - 0.01, 0.0))
        lane_yaw = np.arctan2(ahead.y - behind.y, ahead.x - behind.x)
        if abs(lane_yaw - np.arctan2(np.sin(yaw), np.cos(yaw))) > 2 * np.pi / 3:
            return True
    return False


def replay(scenario: Scenario) -> Drive:
    """The ego's log as a drive, from its first valid frame to the one before its first gap."""
    tracks = scenario.tracks
    here = np.flatnonzero(tracks.valid[scenario.ego])
    gap_at = np.flatnonzero(np.diff(here) > 1)
    last = here[gap_at[0]] if len(gap_at) else here[-1]
    rows = slice(here[0], last + 1)
    pose = np.concatenate([tracks.xyz[:, rows, :2], tracks.yaw[:, rows, None]], -1)
    return Drive(
        scenario,
        ego=scenario.ego,
        first_frame=int(here[0]),
        start=max(0, scenario.start_frame - int(here[0])),
        pose=pose.transpose(1, 0, 2).astype(np.float64),
        valid=tracks.valid[:, rows].T.copy(),
    )


def _replayed(scenario: Scenario, counts: dict) -> None:
    episode = episode_of(replay(scenario))
    steps = np.arange(0, len(episode.times_us), 10)
    there = np.argwhere(episode.actor_there[steps])
    step, actor = steps[there[:, 0]], there[:, 1]
    apart = np.hypot(*(episode.actor_pose[step, actor] - episode.ego_pose[step])[:, :2].T)
    step, actor = step[apart < 15], actor[apart < 15]
    if len(step):
        drawn = []
        for by in (0.0, -BAND, BAND):
            ego = boxes(
                episode.ego_pose[step],
                np.repeat(episode.ego_size[None], len(step), 0),
                episode.shrink,
                episode.roundness,
                by,
            )
            other = boxes(
                episode.actor_pose[step, actor],
                episode.actor_size[actor],
                episode.shrink,
                episode.roundness,
                by,
            )
            drawn.append((ego, other))
        a, b = episode.ego[step], episode.actors[step, actor]
        _compare_pairs(gap(a, b), touches_front(a, b), touches_front(a.reversed, b), drawn, counts)
    if episode.lanes is not None:
        _compare_road(episode, steps, counts)
