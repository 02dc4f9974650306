"""Road edges from polygons of a drivable area."""

from __future__ import annotations

import numpy as np
import pytest

from alpagym.scenarios.drivable_area import area_edges


def around(width: float) -> list[np.ndarray]:
    """Four rectangles that leave a square hole of this width, 2 m up."""
    w = width / 2
    boxes = [(-9, w, 9, 9), (-9, -9, 9, -w), (-9, -w, -w, w), (w, -w, 9, w)]
    return [np.array([(a, b, 2.0), (c, b, 2.0), (c, d, 2.0), (a, d, 2.0)]) for a, b, c, d in boxes]


def enclosed(line: np.ndarray) -> float:
    """Area [m^2], positive if the line runs counter-clockwise."""
    x, y = line[:-1, :2].T
    return 0.5 * float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


@pytest.mark.parametrize("width", [0.3, 2.0])
def test_islands_keep_the_road_on_their_left(width) -> None:
    outer, island = area_edges(around(width), "here", "av2")
    assert enclosed(outer) == pytest.approx(18.0 * 18.0)
    assert enclosed(island) == pytest.approx(-width * width, rel=1e-3)
    assert (outer[0] == outer[-1]).all()
    assert (outer[:, 2] == 2.0).all()


@pytest.mark.parametrize("width", [0.05, 0.2])
def test_slits_are_no_islands(width) -> None:
    (outer,) = area_edges(around(width), "here", "av2")
    assert enclosed(outer) == pytest.approx(18.0 * 18.0)
