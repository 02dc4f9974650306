"""The map that nuPlan and NAVSIM read: lanes as polygons with a baseline, and drivable areas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from alpagym.metrics.polygons import Polygons
from alpagym.metrics.road_edges import RoadEdgeSegments

NO_POLYGONS = Polygons.of([])


@dataclass(frozen=True)
class PolygonMap:
    """n lanes and lane connectors (lanes across an intersection, which may overlap) and areas.

    nuPlan's layers: LANE, LANE_CONNECTOR, ROADBLOCK and ROADBLOCK_CONNECTOR, INTERSECTION,
    DRIVABLE_AREA, CARPARK_AREA. World frame [m].
    """

    ids: Sequence[str]
    """Name of each lane, n of them."""
    is_connector: np.ndarray
    """Whether the lane is a connector, bool [n]."""
    polygons: Polygons
    """Outline of each lane, n of them."""
    baselines: Sequence[np.ndarray]
    """Center line of each lane in driving direction [m], float64 [k, 2], k >= 2."""
    outgoing: Sequence[np.ndarray]
    """Indices of the lanes that each lane leads to, int."""
    roadblock: np.ndarray
    """The roadblock (lanes side by side) that holds the lane, or -1, int [n]."""
    speed_limit: np.ndarray
    """[m/s], NaN where unknown, float64 [n]."""
    roadblocks: Polygons
    """Outlines of roadblocks, r of them."""
    roadblock_is_connector: np.ndarray
    """Whether the outline is of a roadblock made of connectors, bool [r]."""
    roadblock_of_outline: np.ndarray | None = None
    """The roadblock that each outline is a part of, int [r]; None if outline i is roadblock i."""
    intersections: Polygons = field(default_factory=lambda: NO_POLYGONS)
    drivable_areas: Polygons = field(default_factory=lambda: NO_POLYGONS)
    car_parks: Polygons = field(default_factory=lambda: NO_POLYGONS)
    edges: RoadEdgeSegments | None = None
    """If given, they bound the drivable area and `drivable_areas` is not asked."""

    def __post_init__(self) -> None:
        n, r = len(self.ids), len(self.roadblocks)
        counts = {
            "is_connector": (len(self.is_connector), n),
            "polygons": (len(self.polygons), n),
            "baselines": (len(self.baselines), n),
            "outgoing": (len(self.outgoing), n),
            "roadblock": (len(self.roadblock), n),
            "speed_limit": (len(self.speed_limit), n),
            "roadblock_is_connector": (len(self.roadblock_is_connector), r),
        }
        for name, (got, expected) in counts.items():
            if got != expected:
                raise ValueError(f"PolygonMap.{name}: expected {expected} entries, got {got}")
        for i, line in enumerate(self.baselines):
            if line.ndim != 2 or line.shape[1] != 2 or len(line) < 2 or not np.isfinite(line).all():
                raise ValueError(
                    f"PolygonMap.baselines[{i}]: expected finite [k, 2] with k >= 2, "
                    f"got shape {list(line.shape)} or NaN"
                )

    @cached_property
    def leads_to(self) -> np.ndarray:
        """Whether lane i leads to lane j, bool [n, n]."""
        result = np.zeros((len(self.ids), len(self.ids)), bool)
        for i, following in enumerate(self.outgoing):
            result[i, following] = True
        return result

    def lanes_at(self, points: np.ndarray) -> np.ndarray:
        """Whether each lane or connector strictly contains each point; [..., 2] to [..., n]."""
        return self.polygons.contains(points)

    def in_intersection(self, points: np.ndarray) -> np.ndarray:
        """Whether an intersection polygon strictly contains the points; [..., 2] to bool [...]."""
        return np.asarray(self.intersections.contains(points).any(-1))

    def in_roadblock(self, points: np.ndarray, roadblock: int) -> np.ndarray:
        """Whether an outline of the roadblock strictly contains the points; [..., 2] to [...]."""
        if self.roadblock_of_outline is None:
            parts = np.array([roadblock])
        else:
            parts = np.flatnonzero(self.roadblock_of_outline == roadblock)
        return np.asarray(self.roadblocks.select(parts).contains(points).any(-1))

    @property
    def knows_drivable_area(self) -> bool:
        """Whether there is anything that bounds the drivable area."""
        return self.edges is not None or len(self.drivable_areas) > 0

    def in_drivable_area(self, points: np.ndarray) -> np.ndarray:
        """Whether the points lie in a drivable area (in a polygon strictly); [..., 2] to [...]."""
        if self.edges is not None:
            return self.edges.signed_distance(points) >= 0
        return np.asarray(self.drivable_areas.contains(points).any(-1))

    def distance_to_drivable_area(self, points: np.ndarray) -> np.ndarray:
        """To the nearest drivable area [m], 0 within, inf if there is none; [..., 2] to [...]."""
        if self.edges is not None:
            return np.maximum(-self.edges.signed_distance(points), 0.0)
        return self.drivable_areas.distance(points).min(-1, initial=np.inf)
