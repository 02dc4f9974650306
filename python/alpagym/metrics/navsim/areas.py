"""Where the ego stands at each step: which lanes and areas hold its corners and its center."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alpagym.metrics.navsim.states import Car, State, ego_centers, ego_corners
from alpagym.metrics.polygon_map import PolygonMap


@dataclass(frozen=True)
class EgoAreas:
    """Flags of P proposals at T steps, bool [P, T] each."""

    multiple_lanes: np.ndarray
    """Corners lie in more than one lane or connector, and no single one holds all four."""
    non_drivable: np.ndarray
    """A corner lies in no drivable polygon."""
    oncoming: np.ndarray
    """The center lies in no lane or connector of the route."""
    center_in_intersection: np.ndarray
    rear_axle_in_intersection: np.ndarray

    @property
    def blame(self) -> np.ndarray:
        """Whether the ego answers for what comes from the side, bool [P, T]."""
        return self.multiple_lanes | self.non_drivable


def ego_areas(
    states: np.ndarray, polygon_map: PolygonMap, on_route: np.ndarray, car: Car
) -> EgoAreas:
    """Locate the ego in the map; a point on a boundary is outside.

    Drivable are the roadblocks of lanes (not those of connectors, which NAVSIM does not load),
    intersections, drivable areas and car parks.

    Source: NAVSIM, `pdm_scorer.py` (`_calculate_ego_area`).

    Args:
        states: [P, T, 11].
        polygon_map: Lanes and areas.
        on_route: Whether each lane or connector of the map belongs to the route, bool [n].
        car: Shape of the ego.
    """
    if on_route.shape != (len(polygon_map.ids),):
        raise ValueError(
            f"on_route: expected one flag for each of {len(polygon_map.ids)} lanes, "
            f"got shape {list(on_route.shape)}"
        )
    corner, center = ego_corners(states, car), ego_centers(states, car)
    held = polygon_map.lanes_at(corner).sum(-2)  # corners in each lane, [P, T, n]
    drivable = (
        polygon_map.in_intersection(corner)
        | polygon_map.in_drivable_area(corner)
        | polygon_map.car_parks.contains(corner).any(-1)
    )
    # Outlines of roadblocks are many: ask them for the rest only.
    blocks = polygon_map.roadblocks.select(np.flatnonzero(~polygon_map.roadblock_is_connector))
    drivable[~drivable] = blocks.contains(corner[~drivable]).any(-1)
    route = polygon_map.polygons.select(np.flatnonzero(on_route))
    return EgoAreas(
        multiple_lanes=((held > 0).sum(-1) > 1) & (held != 4).all(-1),
        non_drivable=~drivable.all(-1),
        oncoming=np.asarray(~route.contains(center).any(-1)),
        center_in_intersection=polygon_map.in_intersection(center),
        rear_axle_in_intersection=polygon_map.in_intersection(states[..., : State.HEADING]),
    )


def drivable_area_compliance(areas: EgoAreas) -> np.ndarray:
    """DAC: 0 if a corner ever leaves the drivable area, else 1, [P].

    Source: NAVSIM, `pdm_scorer.py` (`_calculate_drivable_area_compliance`); unlike nuPlan there
    is no tolerance of 0.3 m.
    """
    return np.where(areas.non_drivable.any(-1), 0.0, 1.0)
