"""Lanes as AlpaSim's route generator asks trajdata for them.

After `VectorMap.get_current_lane`, `get_closest_lane` and `Polyline.project_onto` of
NVlabs/trajdata (branch `alpasim`). Searches go by the vertices of center lines, in 3-D; float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from alpagym.scenarios.polyline import split_long_steps, wrap_angle
from alpagym.scenarios.scenario import MapType, RoadMap

REACH = 4.0
"""A lane may be the current one if a vertex of its center line is this near [m],"""
HEADING_REACH = np.pi / 8
"""and its heading there differs by less than this [rad]."""
HEADING_WEIGHT = 0.1
"""Candidates are ordered by distance plus this times the heading error [m/rad]."""
MAX_STEP = 1.0
"""Center lines of our maps get vertices so near together: they are simplified, and searches go by
vertices [m]."""
CHUNK = 16
"""Queries compared with all vertices at a time."""


@dataclass(frozen=True)
class Near:
    """The vertices around one query."""

    lane: np.ndarray
    """Lane of each vertex within `REACH`. [n]"""
    heading: np.ndarray
    """Of the center line there [rad]. [n]"""
    distance: np.ndarray
    """[m], [n]"""
    closest: int
    """Lane of the closest vertex of all."""

    def agreeing(self, heading: float) -> list[int]:
        """Lanes that run in this direction [rad], the most likely first."""
        error = np.abs(wrap_angle(heading - self.heading))
        cost = np.where(error < HEADING_REACH, self.distance + HEADING_WEIGHT * error, np.inf)
        lanes = np.unique(self.lane[np.isfinite(cost)])
        least = [cost[self.lane == lane].min() for lane in lanes]
        return [int(lane) for lane in lanes[np.argsort(least, kind="stable")]]


@dataclass(frozen=True)
class Lanes:
    """K lanes."""

    centers: list[np.ndarray]
    """Points of each center line in driving order [m], float64 [n, 3], n >= 2."""
    successors: list[list[int]]
    """Lanes that each one leads to."""

    @staticmethod
    def of_map(road_map: RoadMap) -> Lanes:
        """The lanes of a map of ours, in its order, with a vertex each `MAX_STEP` at least.

        Raises:
            ValueError: it has none.
        """
        is_lane = (road_map.type == MapType.LANE) & (np.diff(road_map.offsets) >= 2)
        elements = np.flatnonzero(is_lane)
        if not len(elements):
            raise ValueError(
                f"map: expected at least one lane, got {road_map.num_elements} other elements"
            )
        number = np.full(road_map.num_elements, -1)
        number[elements] = np.arange(len(elements))
        return Lanes(
            [split_long_steps(road_map.polyline(int(e)), MAX_STEP) for e in elements],
            [
                [int(number[k]) for k in road_map.successors_of(int(e)) if number[k] >= 0]
                for e in elements
            ],
        )

    @cached_property
    def _vertices(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points [P, 3], their lanes [P] and headings [P] of all center lines."""
        counts = [len(center) for center in self.centers]
        return (
            np.concatenate(self.centers),
            np.repeat(np.arange(len(counts)), counts),
            np.concatenate([vertex_headings(center) for center in self.centers]),
        )

    def near(self, points: np.ndarray) -> Iterator[Near]:
        """What surrounds each of `points` [n, 3]."""
        vertex, lane, heading = self._vertices
        for first in range(0, len(points), CHUNK):
            step = points[first : first + CHUNK, None] - vertex
            for distance in np.sqrt((step**2).sum(-1)):
                there = np.flatnonzero(distance <= REACH)
                yield Near(
                    lane[there], heading[there], distance[there], int(lane[distance.argmin()])
                )

    def project(self, lane: int, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Closest points of a center line to `points` [n, 3], and which segments hold them [n]."""
        center = self.centers[lane]
        step = np.diff(center, axis=0)
        squared = np.maximum((step**2).sum(-1), 1e-12)
        share = ((points[:, None] - center[:-1]) * step).sum(-1) / squared
        foot = center[:-1] + np.clip(share, 0.0, 1.0)[..., None] * step
        segment = np.linalg.norm(points[:, None] - foot, axis=-1).argmin(1)
        return foot[np.arange(len(points)), segment], segment

    def next_of(self, lane: int) -> int:
        """The successor whose first heading is nearest to this lane's last one; -1 for none."""
        onward = self.successors[lane]
        if not onward:
            return -1
        last = vertex_headings(self.centers[lane])[-1]
        first = np.array([vertex_headings(self.centers[k])[0] for k in onward])
        return onward[int(np.abs(wrap_angle(first - last)).argmin())]


def vertex_headings(points: np.ndarray) -> np.ndarray:
    """Headings at the points of a line [n, 3]: inside, the mean of both segments' [rad], [n]."""
    step = np.diff(points, axis=0)
    heading = np.arctan2(step[:, 1], step[:, 0])
    before, after = heading[:-1], heading[1:]
    inside = np.arctan2(np.sin(before) + np.sin(after), np.cos(before) + np.cos(after))
    return np.concatenate([heading[:1], inside, heading[-1:]])
