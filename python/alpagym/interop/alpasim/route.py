"""AlpaSim's route: what its drivers are told of the way ahead, on the host.

After `alpasim_runtime/route_generator.py` and the polylines of `utils_rs` (NVlabs/alpasim,
3032e0c): a path in the local frame, from which each query takes 20 waypoints, 80/19 m apart,
from the ego's projection forward. Paths are float32 and their arithmetic is in the same order, so
that counts of waypoints at the end of a path agree; lane geometry is float64, as in trajdata.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alpagym.interop.alpasim.lanes import Lanes
from alpagym.interop.alpasim.rig import RigPath
from alpagym.scenarios.scenario import Scenario

NUM_WAYPOINTS = 20
"""Waypoints a driver gets."""
LOOKAHEAD = 80.0
"""A route is carried on until it reaches this far ahead of the ego [m]."""
SPACING = LOOKAHEAD / (NUM_WAYPOINTS - 1)
"""Arc length between waypoints [m]."""
MIN_STEP = 0.2
"""Waypoints nearer to the last one kept are left out of the stored path [m]."""
FOLD_BACK = 150.0
"""A path that turns by more than this at a waypoint folds back on itself [deg]."""
MAX_OFFSET = 10.0
"""A recorded position may be so far from its lane's center [m]."""
REGULAR_STEP = (3.5, 4.5)
"""Drivers get waypoints only up to the first that is not so far from the one before [m]."""

_F = np.float32


class RouteGenerator:
    """A recorded path, laid on lane centers and carried on along them where lanes are given.

    Attributes:
        path: waypoints in the local frame [m], float32 [n, 3]; queries may lengthen it.
    """

    def __init__(
        self,
        waypoints: np.ndarray,
        *,
        lanes: Lanes | None = None,
        start_offset: float = 0.0,
    ) -> None:
        """Store the path.

        Args:
            waypoints: recorded rig positions in the local frame [m], [n, 3], at least two.
            lanes: the map, for a route of AlpaSim's kind `MAP`; without it `RECORDED`.
            start_offset: waypoints nearer along the route than this are left out [m].

        Raises:
            ValueError: too few waypoints, one that is not finite, a negative offset, a recorded
                position too far from every lane, or a path that folds back on itself.
        """
        waypoints = np.asarray(waypoints)
        if waypoints.ndim != 2 or waypoints.shape[1] != 3 or len(waypoints) < 2:
            raise ValueError(
                f"waypoints: expected at least two points of x, y, z, got {list(waypoints.shape)}"
            )
        if not np.isfinite(waypoints).all():
            raise ValueError("waypoints: expected finite positions, got NaN or infinity")
        if not start_offset >= 0.0:
            raise ValueError(f"start_offset: expected at least 0 m, got {start_offset}")
        self._start_offset, self._lanes, self._lane = start_offset, lanes, -1
        path = waypoints.astype(_F)
        if lanes is not None:
            path, self._lane = lay_on_lanes(path, lanes)
        self.path = thin(path)
        check_fold_back(self.path)

    def generate(self, position: np.ndarray, yaw: float) -> np.ndarray:
        """Waypoints ahead of the ego, in the rig frame.

        Args:
            position: of the rig in the local frame [m], [3].
            yaw: of the rig [rad].

        Returns:
            float32 [n, 3], n <= 20, z = 0; none if the ego is beyond the end of the path.

        Raises:
            ValueError: the pose is not finite, or a lane that carries the path on folds back.
        """
        point = np.asarray(position).astype(_F)
        if point.shape != (3,) or not np.isfinite(point).all() or not np.isfinite(yaw):
            raise ValueError(f"pose: expected finite x, y, z and yaw, got {position}, {yaw}")
        self._extend(point)
        ahead = resample(remaining(self.path, point))
        c, s = np.cos(float(yaw)), np.sin(float(yaw))
        x, y = (ahead[:, :2].astype(np.float64) - point[:2]).T
        route = np.stack([c * x + s * y, c * y - s * x, np.zeros(len(x))], -1).astype(_F)
        if self._start_offset == 0.0 or not len(route):
            return route
        return route[int(np.searchsorted(arc_lengths(route), self._start_offset)) :]

    def _extend(self, point: np.ndarray) -> None:
        """Carry the path on, lane by lane, until it reaches `LOOKAHEAD` ahead of `point`."""
        while self._lanes is not None and self._lane >= 0:
            ahead = remaining(self.path, point)
            if not len(ahead) or arc_lengths(ahead)[-1] >= LOOKAHEAD:
                return
            center = self._lanes.centers[self._lane]
            _, index = self._lanes.project(self._lane, self.path[-1:].astype(np.float64))
            more = center[index[0] + 1 :].astype(_F)
            self._lane = self._lanes.next_of(self._lane)
            if not len(more):
                return  # the next query goes on with the next lane
            self.path = np.concatenate([self.path, more])
            check_fold_back(self.path)


def prepare_for_policy(route: np.ndarray) -> np.ndarray:
    """The route as a driver gets it: regular steps only, then NaN.

    Args:
        route: [n, 3].

    Returns:
        float32 [20, 3]: waypoints up to the first step outside `REGULAR_STEP`, padded with NaN.
    """
    route = np.asarray(route, _F).reshape(-1, 3)
    steps = segment_lengths(route)
    irregular = np.flatnonzero((steps < REGULAR_STEP[0]) | (steps > REGULAR_STEP[1]))
    kept = route[: irregular[0] + 1] if len(irregular) else route
    kept = kept[:NUM_WAYPOINTS]
    return np.concatenate([kept, np.full((NUM_WAYPOINTS - len(kept), 3), np.nan, _F)])


def scenario_route(
    scenario: Scenario, agent: int | None = None, *, on_map: bool = True, start_offset: float = 0.0
) -> RouteGenerator:
    """The generator for an agent of ours, the ego by default; its local frame is the world frame.

    The rig stands on the ground below the rear axle.

    Args:
        scenario: whose record and lanes it follows.
        agent: index of the agent.
        on_map: AlpaSim's kind `MAP`, else `RECORDED`.
        start_offset: as of `RouteGenerator` [m].

    Raises:
        ValueError: as `RouteGenerator`; or no lanes, where the map is asked for.
    """
    rig = RigPath.of(scenario, agent).pose[:, :3]
    lanes = Lanes.of_map(scenario.map) if on_map else None
    return RouteGenerator(rig, lanes=lanes, start_offset=start_offset)


def lay_on_lanes(path: np.ndarray, lanes: Lanes) -> tuple[np.ndarray, int]:
    """Project each waypoint on the center of the lane it is taken to be in.

    Args:
        path: float32 [n, 3].
        lanes: the map.

    Returns:
        path: float32 [n, 3].
        lane: of the last waypoint.

    Raises:
        ValueError: a waypoint is too far from its lane.
    """
    heading, candidates = 0.0, []
    steps = np.diff(path[:, :2], axis=0)
    for i, near in enumerate(lanes.near(path.astype(np.float64))):
        if i < len(steps) and np.linalg.norm(steps[i]) > 1e-2:
            heading = float(np.arctan2(steps[i, 1], steps[i, 0]))
        candidates.append(near.agreeing(heading) or [near.closest])
    chosen = np.array(_lane_sequence(candidates, lanes))
    laid = np.zeros((len(path), 3))
    for lane in np.unique(chosen):
        on = np.flatnonzero(chosen == lane)
        laid[on], _ = lanes.project(int(lane), path[on].astype(np.float64))
    offset = np.linalg.norm(path - laid, axis=1)
    if offset.max() > MAX_OFFSET:
        i = int(np.flatnonzero(offset > MAX_OFFSET)[0])
        raise ValueError(
            f"waypoint {i}: expected a lane within {MAX_OFFSET:g} m, got {offset[i]:.2f} m"
        )
    return laid.astype(_F), int(chosen[-1])


def _lane_sequence(candidates: list[list[int]], lanes: Lanes) -> list[int]:
    """One lane a waypoint: the last one as long as it fits, then its only fitting successor."""
    chosen = [_lasting(candidates)]
    for i, here in enumerate(candidates[1:], 1):
        if chosen[-1] in here:
            chosen.append(chosen[-1])
            continue
        onward = set(here) & set(lanes.successors[chosen[-1]])
        chosen.append(onward.pop() if len(onward) == 1 else _lasting(candidates[i:]))
    return chosen


def _lasting(candidates: Sequence[list[int]]) -> int:
    """The lane of the first waypoint that fits the longest; of equals, the first listed."""
    left = list(candidates[0])
    for here in candidates[1:]:
        for lane in list(left):
            if len(left) == 1:
                return left[0]
            if lane not in here:
                left.remove(lane)
    return left[0]


def thin(path: np.ndarray) -> np.ndarray:
    """Leave out waypoints nearer than `MIN_STEP` to the last one kept, [n, 3] -> [m, 3]."""
    kept = [0]
    for i in range(1, len(path)):
        step = path[i] - path[kept[-1]]
        if np.sqrt(_dot(step, step)) >= _F(MIN_STEP):
            kept.append(i)
    return path[kept]


def check_fold_back(path: np.ndarray) -> None:
    """Refuse a path [n, 3] that turns by more than `FOLD_BACK` at a waypoint.

    Raises:
        ValueError: with the waypoint and the angle.
    """
    steps = np.diff(path, axis=0)
    length = np.linalg.norm(steps, axis=1)
    safe = np.maximum(length, 1e-3)[:, None]
    cosine = ((steps / safe)[:-1] * (steps / safe)[1:]).sum(1)
    angle = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
    moves = (length[:-1] >= 1e-3) & (length[1:] >= 1e-3)
    bad = np.flatnonzero(moves & (angle > FOLD_BACK))
    if len(bad):
        raise ValueError(
            f"waypoint {bad[0] + 1}: expected a turn of at most {FOLD_BACK:g} deg, "
            f"got a fold-back of {angle[bad[0]]:.1f} deg"
        )


def segment_lengths(path: np.ndarray) -> np.ndarray:
    """[n, 3] -> [n - 1] [m]."""
    steps = np.diff(path, axis=0)
    return np.sqrt(_dot(steps, steps))


def arc_lengths(path: np.ndarray) -> np.ndarray:
    """Arc length at each point, [n, 3] -> [n] [m]."""
    return np.concatenate([np.zeros(1, path.dtype), np.cumsum(segment_lengths(path))])


def remaining(path: np.ndarray, point: np.ndarray) -> np.ndarray:
    """The path from the projection of `point` [3] on, float32 [m, 3]; none beyond its end."""
    if len(path) == 1:
        return path
    steps = np.diff(path, axis=0)
    length = np.sqrt(_dot(steps, steps))
    short = length < _F(1e-6)
    direction = steps * (_F(1.0) / np.where(short, _F(1.0), length))[:, None]
    direction[short] = 0.0
    along = np.clip(_dot(point - path[:-1], direction), _F(0.0), length)
    foot = path[:-1] + along[:, None] * direction
    away = foot - point
    i = int(np.argmin(np.sqrt(_dot(away, away))))
    if i < len(steps) - 1:
        return np.concatenate([foot[i : i + 1], path[i + 1 :]])
    if length[i] > 0.0:
        beyond = _dot(point - path[i], steps[i] / length[i])
        if beyond > length[i] + _F(1e-6):
            return path[:0]
    gap = foot[i] - path[-1]
    if np.sqrt(_dot(gap, gap)) < _F(1e-10):
        return path[-1:]
    return np.stack([foot[i], path[-1]])


def resample(path: np.ndarray) -> np.ndarray:
    """Up to `NUM_WAYPOINTS` points every `SPACING` from the path's start on, [n, 3] -> [m, 3]."""
    if len(path) < 2:
        return path
    s = arc_lengths(path)
    at = np.arange(NUM_WAYPOINTS, dtype=_F) * _F(SPACING)
    at = at[at <= s[-1]]
    i = np.clip(np.searchsorted(s, at, side="right") - 1, 0, len(path) - 2)
    gap = s[i + 1] - s[i]
    flat = gap < _F(1e-10)
    share = np.where(flat, _F(0.0), (at - s[i]) / np.where(flat, _F(1.0), gap))
    return path[i] + share[:, None] * (path[i + 1] - path[i])


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sum over the last axis, term by term: the order decides float32's last bit."""
    products = a * b
    result: np.ndarray = products[..., 0] + products[..., 1] + products[..., 2]
    return result
