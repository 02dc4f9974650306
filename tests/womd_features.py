"""Map features of WOMD Scenario protos, and the codes that other formats give them."""

from __future__ import annotations

from typing import Any

import numpy as np

CODES = {
    "lane": 2,
    "road_line": 6,
    "road_edge": 15,
    "stop_sign": 17,
    "crosswalk": 18,
    "speed_bump": 19,
    "driveway": 20,
}
"""Map element codes of tf.Example and of GPUDrive, by the name of the proto's field."""


def points_of(feature: Any) -> tuple[str, np.ndarray]:
    """Kind and points [n, 3] of a map feature."""
    kind = feature.WhichOneof("feature_data")
    element = getattr(feature, kind)
    if kind == "stop_sign":
        points = [element.position]
    else:
        points = element.polyline if hasattr(element, "polyline") else element.polygon
    return kind, np.array([(p.x, p.y, p.z) for p in points], np.float64).reshape(-1, 3)
