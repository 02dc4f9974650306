"""AlpaSim's metrics and scene score of a drive, as AlpaSim itself would give them.

The definitions are AlpaSim's with its quirks (repository NVlabs/alpasim at 3032e0c, `src/eval`), so
that numbers compare; they are no advice on what to measure. A start off the road and a jump over
a road edge go unseen, a rear-end collision is nobody's fault, several overlaps in one step are
judged by the northernmost, and scoring ends 4 m beside the recorded path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from alpagym.metrics.alpasim.aggregate import SceneScore, processed, returned, scene_score
from alpagym.metrics.alpasim.episode import Episode, Plan, Reply
from alpagym.metrics.alpasim.lanes import CANDIDATE_RADIUS, LineMap
from alpagym.metrics.alpasim.metric import Metric
from alpagym.metrics.alpasim.scorers import measure
from alpagym.metrics.alpasim.timed_poses import fill_gaps
from alpagym.metrics.drive import Drive
from alpagym.scenarios.scenario import MapType, RoadMap, Scenario

__all__ = ["AlpasimScore", "episode_of", "line_map", "score", "score_episode"]

MAPS_KEPT = 64
"""Maps whose lines, and stretches whose outlines are kept: scenarios are driven again and again."""


@dataclass(frozen=True)
class AlpasimScore:
    """What AlpaSim says of one drive."""

    metrics: dict[str, Metric]
    """Each metric over time, those that AlpaSim's scorers fail to give left out."""
    returned: dict[str, float]
    """Each metric as `RuntimeService` returns it: over all steps."""
    processed: dict[str, float]
    """Each metric after the offline rules; empty if a black image removes the rollout."""
    scene: SceneScore | None
    """The scene score, or None where AlpaSim raises."""
    unscored: str
    """Why there is no scene score; empty if there is one."""


def score(drive: Drive, replies: Sequence[Reply] | None = None) -> AlpasimScore:
    """AlpaSim's metrics of a drive.

    Rows before `drive.start` count as driven by the record. Lanes have no edges here, so AlpaSim's
    stand-in applies: the center line, 1.85 m to each side. Without lanes or road edges off-road is
    absent, and without it there is no scene score; nor is there one if the record does not span
    the drive, or does not move at all: `unscored` names the cause. Below 2 m of record progress is
    AlpaSim's number still, but mostly rounding. Without `replies` the metrics of plans are absent,
    and `img_is_black` always is.

    Args:
        drive: What was driven.
        replies: What the driver answered, in the world frame, times since row 0.

    Raises:
        ValueError: The ego is missing from a row, or a number is not finite.
    """
    found = score_episode(episode_of(drive, replies))
    if found.scene is not None:
        return found
    return replace(found, unscored=_cause(drive, found.metrics) or found.unscored)


def score_episode(episode: Episode) -> AlpasimScore:
    """AlpaSim's metrics of what its scorers read."""
    metrics = measure(episode)
    result = processed(metrics)
    row = {} if result is None else result.row
    scene, unscored = None, ""
    try:
        scene = scene_score(row)
    except ValueError as error:
        unscored = str(error)
    return AlpasimScore(metrics, returned(metrics), row, scene, unscored)


def episode_of(drive: Drive, replies: Sequence[Reply] | None = None) -> Episode:
    """A drive as AlpaSim's scorers see it, times in microseconds since row 0."""
    absent = np.flatnonzero(~drive.ego_there)
    if len(absent):
        raise ValueError(f"drive: expected the ego in every row, row {absent[0]} is without it")
    scenario, tracks = drive.scenario, drive.scenario.tracks
    times = np.round(drive.times * 1e6).astype(np.int64)
    others = drive.others & drive.valid.any(0)
    there, pose = fill_gaps(drive.valid[:, others], times, drive.pose[:, others])
    seen = tracks.valid[drive.ego]
    frames = drive.first_frame + np.arange(len(times))
    z = np.interp(frames, np.flatnonzero(seen), tracks.xyz[drive.ego, seen, 2].astype(np.float64))
    return Episode(
        times_us=times,
        ego_pose=drive.ego_pose,
        ego_z=z,
        ego_size=drive.size[drive.ego, :2],
        actor_pose=pose,
        actor_there=there,
        actor_size=drive.size[others, :2],
        log=Plan(np.round(drive.log_times * 1e6).astype(np.int64), drive.log_pose),
        engaged_us=int(np.round(drive.start * drive.dt * 1e6)),
        lanes=line_map(scenario, np.concatenate([drive.ego_pose[:, :2], z[:, None]], 1)),
        replies=replies,
    )


def _cause(drive: Drive, metrics: Mapping[str, Metric]) -> str:
    """Why AlpaSim's scorers give no scene score; empty if none of the known causes holds."""
    types = drive.scenario.map.type
    if "min_distance_to_lane_boundary_m" not in metrics:
        return "no scene score: AlpaSim's off-road needs lanes, there are no lanes in the map"
    if not (types == MapType.ROAD_EDGE).any():
        return "no scene score: AlpaSim's off-road needs road edges, there are none in the map"
    if "progress" not in metrics:
        first, last = drive.log_times[[0, -1]]
        return (
            f"no scene score: AlpaSim's progress needs a record that spans the drive, the record "
            f"has {first:.1f}..{last:.1f} s of 0.0..{drive.times[-1]:.1f} s"
        )
    if drive.log_length == 0.0:
        return f"no scene score: the record, {drive.log_length:.2f} m long, has no progress"
    return ""


def line_map(scenario: Scenario, path: np.ndarray) -> LineMap | None:
    """Lanes that are candidates somewhere on the path [T, 3], and all road edges."""
    road_map = _Same(scenario.map)
    lanes, edges = _lines(road_map)
    if not lanes:
        return None
    low, high = path[:, :2].min(0) - CANDIDATE_RADIUS, path[:, :2].max(0) + CANDIDATE_RADIUS
    boxed = [
        k
        for k, line in enumerate(lanes)
        if ((line[:, :2] >= low) & (line[:, :2] <= high)).all(1).any()
    ]
    near = np.flatnonzero(_bare([lanes[k] for k in boxed], edges).candidates(path).any(axis=0))
    kept = tuple(boxed[int(k)] for k in near)
    return _line_map_of(road_map, kept or (0,))  # a map with lanes elsewhere is one with lanes


class _Same:
    """A road map, equal to itself alone: what is made of it is kept for its other drives."""

    def __init__(self, road_map: RoadMap) -> None:
        self.map = road_map

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.map is other.map

    def __hash__(self) -> int:
        return id(self.map)


@lru_cache(maxsize=MAPS_KEPT)
def _lines(road_map: _Same) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Center lines and road edges."""
    types = road_map.map.type
    lanes, edges = (
        [road_map.map.polyline(int(k)).astype(np.float64) for k in np.flatnonzero(types == kind)]
        for kind in (MapType.LANE, MapType.ROAD_EDGE)
    )
    return lanes, edges


@lru_cache(maxsize=MAPS_KEPT)
def _line_map_of(road_map: _Same, kept: tuple[int, ...]) -> LineMap:
    lanes, edges = _lines(road_map)
    return _bare([lanes[k] for k in kept], edges)


def _bare(lanes: list[np.ndarray], edges: list[np.ndarray]) -> LineMap:
    """A map of lanes without edges of their own."""
    none = [np.zeros((0, 2))] * len(lanes)
    return LineMap(lanes, none, none, edges)
