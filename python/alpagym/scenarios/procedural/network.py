"""The road network of a procedural scenario while it is built, and its packing as `RoadMap`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np

from alpagym.scenarios.polyline import arc_length
from alpagym.scenarios.procedural.geometry import Curve, rotate
from alpagym.scenarios.scenario import LightState, MapType, RoadMap

NO_STOP = -3
"""`Lane.stop` of a lane that ends without a stop line."""
YIELD_LINE = -2
"""`Lane.stop` of a lane that ends at a yield line; as in `Routes.stop_light`."""
STOP_SIGN = -1
"""`Lane.stop` of a lane that ends at a stop sign; as in `Routes.stop_light`."""


@dataclass
class Lane:
    """A directed lane; its index in `Network.lanes` is its element index in the packed map."""

    points: np.ndarray
    """Centerline [m], float64 [n, 2]."""
    speed_limit: float
    """[m/s]."""
    successors: list[int] = field(default_factory=list)
    left: int = -1
    right: int = -1
    stop: int = NO_STOP
    """What stands at the end of the lane: a light index or one of the constants above."""

    @cached_property
    def s(self) -> np.ndarray:
        """Arc length at each point [m], float64 [n]; turning the network leaves it as it is."""
        return arc_length(self.points)

    def pose_at(self, s: float) -> tuple[np.ndarray, float]:
        """Position [m], [2], and direction [rad] at an arc length."""
        i = int(np.clip(np.searchsorted(self.s, s, side="right") - 1, 0, len(self.s) - 2))
        step = self.points[i + 1] - self.points[i]
        t = (s - self.s[i]) / (self.s[i + 1] - self.s[i])
        return self.points[i] + t * step, float(np.arctan2(step[1], step[0]))


@dataclass
class Network:
    """Lanes and the other map elements, in world coordinates [m]."""

    lanes: list[Lane] = field(default_factory=list)
    others: list[tuple[MapType, np.ndarray]] = field(default_factory=list)

    def add_lane(self, curve: Curve, speed_limit: float, *after: int) -> int:
        """Add a lane that follows the lanes `after`; return its index."""
        index = len(self.lanes)
        self.lanes.append(Lane(curve.points, speed_limit))
        for lane in after:
            self.lanes[lane].successors.append(index)
        return index

    def link(self, lane: int, successor: int) -> None:
        self.lanes[lane].successors.append(successor)

    def beside(self, lanes: list[int]) -> None:
        """Declare lanes, from left to right, neighbors that run the same way."""
        for a, b in pairwise(lanes):
            self.lanes[a].right = b
            self.lanes[b].left = a

    def add_edge(self, curve: Curve) -> None:
        """Add a road edge; the drivable area lies on its left."""
        self.others.append((MapType.ROAD_EDGE, curve.points))

    def add_line(self, curve: Curve) -> None:
        self.others.append((MapType.ROAD_LINE, curve.points))

    def add_crosswalk(self, corners: np.ndarray) -> None:
        """Add a crosswalk from its corners [4, 2]."""
        self.others.append((MapType.CROSSWALK, np.concatenate([corners, corners[:1]])))

    def add_stop_sign(self, xy: np.ndarray) -> None:
        self.others.append((MapType.STOP_SIGN, np.reshape(xy, (1, 2))))

    def rotate(self, angle: float) -> None:
        for lane in self.lanes:
            lane.points = rotate(lane.points, angle)
        self.others = [(kind, rotate(points, angle)) for kind, points in self.others]

    def pack(self) -> RoadMap:
        """The network as a `RoadMap`: lanes first, then the other elements."""
        lines = [lane.points for lane in self.lanes] + [points for _, points in self.others]
        flat = np.concatenate(lines)
        count, lanes = len(lines), len(self.lanes)

        def of_lanes(values: list[float], rest: float, dtype: type) -> np.ndarray:
            return np.array([*values, *[rest] * (count - lanes)], dtype)

        successors = [lane.successors for lane in self.lanes]
        return RoadMap(
            points=np.concatenate([flat, np.zeros((len(flat), 1))], axis=1).astype(np.float32),
            offsets=np.cumsum([0, *map(len, lines)]).astype(np.int32),
            type=np.array([MapType.LANE] * lanes + [kind for kind, _ in self.others], np.uint8),
            id=np.arange(count, dtype=np.int64),
            speed_limit=of_lanes([lane.speed_limit for lane in self.lanes], np.nan, np.float32),
            successor_offsets=np.cumsum([0, *map(len, successors), *[0] * (count - lanes)]).astype(
                np.int32
            ),
            successors=np.array([s for group in successors for s in group], np.int32),
            left_neighbor=of_lanes([lane.left for lane in self.lanes], -1, np.int32),
            right_neighbor=of_lanes([lane.right for lane in self.lanes], -1, np.int32),
        )


@dataclass
class Signals:
    """A fixed-time program: phases follow each other, each green for some lights."""

    lanes: list[int]
    """Approach lane of each light; the light stands at its end."""
    phases: list[list[int]]
    """Lights that are green in each phase."""
    green: list[float]
    """Length of each phase's green [s]."""
    yellow: float
    all_red: float
    offset: float
    """Time since the first phase turned green, at frame 0 [s]."""

    @property
    def starts(self) -> np.ndarray:
        """Beginning of each phase, and the length of them all [s], float64 [phases + 1]."""
        lengths = np.array(self.green) + self.yellow + self.all_red
        return np.concatenate([[0.0], np.cumsum(lengths)])

    def states(self, frames: int, dt: float) -> np.ndarray:
        """`LightState` of every light, uint8 [K, frames]."""
        starts = self.starts
        time = (self.offset + np.arange(frames) * dt) % starts[-1]
        state = np.full((len(self.lanes), frames), LightState.RED, np.uint8)
        for lights, green, start in zip(self.phases, self.green, starts, strict=False):
            since = time - start
            state[np.ix_(lights, (since >= 0) & (since < green))] = LightState.GREEN
            state[np.ix_(lights, (since >= green) & (since < green + self.yellow))] = (
                LightState.YELLOW
            )
        return state


@dataclass
class Flow:
    """A stretch of a lane on which vehicles stand at frame 0."""

    lane: int
    first: float
    """Arc length of the stretch's begin [m]."""
    last: float
    """Arc length of its end [m]."""
    density: float = 1.0
    """Against the scenario's own density; below 1 the gaps are longer."""


@dataclass
class Walk:
    """The straight path of a pedestrian, who stands at its first point at frame 0."""

    start: np.ndarray
    """[m], [2]."""
    end: np.ndarray
    """[m], [2]."""


@dataclass
class Layout:
    """All that a kind lays out before traffic is placed."""

    network: Network
    flows: list[Flow]
    signals: Signals | None = None
    walks: list[Walk] = field(default_factory=list)
    parked: list[tuple[float, float, float]] = field(default_factory=list)
    """Center and yaw of parked vehicles [m, m, rad]."""
    lane_change: float = 0.0
    """Probability that a vehicle with a neighbor lane changes into it."""
    hard_brake: float = 0.0
    """Probability that a vehicle brakes hard at some point ahead."""
    slow: float = 0.0
    """Probability that a vehicle drives far below the limit."""
    trucks: float = 0.0
    """Probability that a vehicle is a truck."""
    cyclists: float = 0.0
    """Probability that a vehicle on a rightmost lane is a cyclist instead."""

    def rotate(self, angle: float) -> None:
        """Turn everything about the origin by `angle` [rad]."""
        self.network.rotate(angle)
        self.walks = [Walk(rotate(w.start, angle), rotate(w.end, angle)) for w in self.walks]
        self.parked = [(*rotate(np.array([x, y]), angle), yaw + angle) for x, y, yaw in self.parked]
