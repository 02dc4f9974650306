"""Road edges from a drivable area that the source gives as polygons."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from alpagym.scenarios.scenario import ScenarioError

MIN_ISLAND = 0.05
"""A smaller hole is a slit between polygons that do not quite meet, not even a post [m^2]."""
GAP = 0.1
"""Polygons nearer than this to each other are one area: sources draw neighbors with slits [m]."""


def area_edges(polygons: Iterable[np.ndarray], source: str, extra: str) -> list[np.ndarray]:
    """Outline of the union of polygons as closed lines with the drivable area on their left.

    Outer rings run counter-clockwise and holes (islands, medians) clockwise.

    Args:
        polygons: corners [m], float64 [n, 3], open or closed, either way round.
        source: for messages.
        extra: the extra of the package that brings shapely, for messages.

    Returns:
        Lines [m], float64 [k, 3], their first point repeated at the end; z is that of the nearest
        polygon corner.

    Raises:
        ScenarioError: if shapely is not installed.
    """
    try:
        import shapely
    except ImportError as error:
        raise ScenarioError(
            f"{source}: drivable areas need shapely ({error}): pip install alpagym[{extra}]"
        ) from error
    corners = [p for p in polygons if len(p) >= 3 and np.isfinite(p).all()]
    if not corners:
        return []
    shapes = [shapely.make_valid(shapely.Polygon(p[:, :2])) for p in corners]
    union = shapely.union_all([s.buffer(GAP / 2, join_style="mitre") for s in shapes])
    union = union.buffer(-GAP / 2, join_style="mitre")
    every = np.concatenate(corners)
    tree = shapely.STRtree(shapely.points(every[:, :2]))
    lines = []
    for part in shapely.get_parts(union):
        if part.geom_type != "Polygon" or part.is_empty:
            continue
        outline = shapely.geometry.polygon.orient(part)
        islands = [r for r in outline.interiors if shapely.Polygon(r).area >= MIN_ISLAND]
        for ring in (outline.exterior, *islands):
            xy = np.asarray(ring.coords)[:, :2]
            z = every[tree.nearest(shapely.points(xy)), 2]
            lines.append(np.column_stack([xy, z]))
    return lines
