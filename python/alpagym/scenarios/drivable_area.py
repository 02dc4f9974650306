"""Road edges from a drivable area that the source gives as polygons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from alpagym.scenarios.scenario import ScenarioError

MIN_ISLAND = 0.05
"""A smaller hole is a slit between polygons that do not quite meet, not even a post [m^2]."""
GAP = 0.1
"""Polygons nearer than this to each other are one area: sources draw neighbors with slits [m]."""


def area_edges(
    polygons: Iterable[np.ndarray],
    source: str,
    extra: str,
    holes: Sequence[Sequence[np.ndarray]] | None = None,
) -> list[np.ndarray]:
    """Outline of the union of polygons as closed lines with the drivable area on their left.

    Outer rings run counter-clockwise and holes (islands, medians) clockwise.

    Args:
        polygons: corners [m], float64 [n, 3], open or closed, either way round.
        source: for messages.
        extra: the extra of the package that brings shapely, for messages.
        holes: corners of the holes of each polygon, where it has some.

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
    outlines = list(polygons)
    kept = [i for i, p in enumerate(outlines) if len(p) >= 3 and np.isfinite(p).all()]
    if not kept:
        return []
    corners = [outlines[i] for i in kept]
    inner = [[h[:, :2] for h in holes[i] if len(h) >= 3] if holes else [] for i in kept]
    shapes = [
        shapely.make_valid(shapely.Polygon(p[:, :2], own))
        for p, own in zip(corners, inner, strict=True)
    ]
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


def refuse_tangles(areas: list[np.ndarray], source: str, own_limit: int, limit: int) -> None:
    """Refuse outlines that cross so often that to unite them takes long.

    Args:
        areas: corners, [n, 2+].
        source: for messages.
        own_limit: most places where outlines cross themselves.
        limit: most places where outlines meet themselves and each other.

    Raises:
        ScenarioError: naming the source.
    """
    try:
        import shapely
    except ImportError:
        return  # which `area_edges` reports
    rings = [np.concatenate([area, area[:1]])[:, :2] for area in areas]
    pairs = [np.stack([ring[:-1], ring[1:]], axis=1) for ring in rings]
    segments = shapely.linestrings(np.concatenate([np.zeros((0, 2, 2)), *pairs]))
    owner = np.repeat(np.arange(len(areas)), [len(area) for area in areas])
    tree = shapely.STRtree(segments)
    # Each segment meets itself and the two beside it, which is no crossing.
    own, all_meetings = -3 * len(segments), -3 * len(segments)
    for chunk in np.array_split(np.arange(len(segments)), len(segments) // 64 + 1):
        query, other = tree.query(segments[chunk], predicate="intersects")
        own += int((owner[chunk[query]] == owner[other]).sum())
        all_meetings += len(other)
        if own > 2 * own_limit or all_meetings > len(segments) + 2 * limit:
            raise ScenarioError(
                f"{source}: the outlines of drivable areas cross too often to unite"
            )
