"""Distance to directed road edges, whose left side can be driven on, float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alpagym.metrics.geometry import cross
from alpagym.scenarios.polyline import fraction_along

TIE = 1e-9
"""Two segments whose distances differ by less are equally near, as at a corner they share [m]."""
CHUNK = 1_000_000
"""Point-segment pairs held in memory at once."""


@dataclass(frozen=True)
class RoadEdgeSegments:
    """n segments with the drivable area on their left."""

    start: np.ndarray
    """[m], float64 [n, 2]."""
    end: np.ndarray
    """[m], float64 [n, 2]; no segment is of length 0."""

    def __len__(self) -> int:
        return len(self.start)

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        """Distance to the nearest segment [m], negative beyond it, inf without segments.

        Where two segments tie, the one whose line is farther from the point tells the side: a
        corner that both share is nearest to many points.

        Args:
            points: [m], [..., 2].

        Returns:
            Float64 [...].
        """
        points = np.asarray(points, np.float64)
        flat = points.reshape(-1, 2)
        result = np.full(len(flat), np.inf)
        if len(self):
            rows = max(1, CHUNK // len(self))
            for begin in range(0, len(flat), rows):
                result[begin : begin + rows] = self._signed(flat[begin : begin + rows])
        return result.reshape(points.shape[:-1])

    def _signed(self, points: np.ndarray) -> np.ndarray:
        along = self.end - self.start
        length = np.hypot(along[:, 0], along[:, 1])
        to = points[:, None] - self.start
        offset = to - fraction_along(to, along)[..., None] * along
        distance = np.hypot(offset[..., 0], offset[..., 1])
        least = distance.min(1)
        side = cross(along, to) / length
        tied = np.where(distance <= least[:, None] + TIE, np.abs(side), -1.0).argmax(1)
        return np.where(side[np.arange(len(points)), tied] < 0, -least, least)
