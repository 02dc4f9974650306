"""TLC: traffic light compliance (NAVSIM v2)."""

from __future__ import annotations

import numpy as np

from alpagym.metrics.navsim.states import Car, ego_corners
from alpagym.metrics.polygon_map import PolygonMap


def traffic_light_compliance(
    states: np.ndarray, polygon_map: PolygonMap, red: np.ndarray, car: Car
) -> np.ndarray:
    """0 if the ego ever meets a lane while that is closed by a red light, else 1, [P].

    Standing there from the start counts.

    Source: NAVSIM v2, `pdm_scorer.py` (`_calculate_traffic_light_compliance`).

    Args:
        states: [P, T, 11].
        polygon_map: Lanes and connectors.
        red: Whether each is closed at each step, bool [T or more, n].
        car: Shape of the ego.
    """
    steps = states.shape[1]
    if red.ndim != 2 or len(red) < steps or red.shape[1] != len(polygon_map.ids):
        raise ValueError(
            f"red lanes: expected [{steps} steps or more, {len(polygon_map.ids)} lanes], "
            f"got {list(red.shape)}"
        )
    ever = np.flatnonzero(red[:steps].any(0))
    meets = polygon_map.polygons.select(ever).meets(ego_corners(states, car))
    return np.where((meets & red[:steps, ever]).any((1, 2)), 0.0, 1.0)
