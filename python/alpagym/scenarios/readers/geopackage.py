"""Layers of a GeoPackage: an SQLite file of geometries, read without GDAL.

A geometry is a blob of a small header, which may hold a bounding box, and the geometry itself as
well-known binary (OGC 12-128, GeoPackage Encoding Standard, clause 2.1.3). Heights are passed over.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from alpagym.scenarios.readers.sqlite_tables import Database
from alpagym.scenarios.scenario import ScenarioError

MAX_ROWS = 200_000
"""Most rows of a layer; a city has 20 000 lanes."""
MAX_POINTS = 2_000_000
"""Most points of the features of a layer that are kept."""
MAX_PARTS = 40_000
"""Most lines and polygons of them, of which each takes its time."""
MAX_DEPTH = 2
"""A multi-polygon is of polygons, and neither of collections."""
_ENVELOPE_BYTES = (0, 32, 48, 48, 64)
_POINT, _LINE, _POLYGON, _MULTI = 1, 2, 3, (4, 5, 6)


@dataclass
class Feature:
    """A row of a layer."""

    id: int
    values: tuple[Any, ...]
    """Of the columns asked for; None where the layer has no such column."""
    parts: list[list[np.ndarray]]
    """Each line as a list of it [n, 2]; each polygon as its outline and its holes."""


def features(
    database: Database, layer: str, columns: tuple[str, ...], box: np.ndarray
) -> Iterator[Feature]:
    """Features of a layer that may reach into a box; none where there is no such layer.

    Args:
        database: the GeoPackage.
        layer: name of its table.
        columns: wanted ones; the table need not have them.
        box: least x, greatest x, least y, greatest y, in the layer's coordinates, [4].

    Raises:
        ScenarioError: naming the layer and the row, if the layer is damaged or too large.
    """
    known = database.columns(layer)
    if not known:
        return
    present = [name for name in columns if name in known]
    place = [present.index(name) if name in present else None for name in columns]
    shape = geometry_column(database, layer)
    points = count = 0
    for row, blob, *values in database.rows(layer, ("rowid", shape, *present), limit=MAX_ROWS):
        what = f"{database.path}: layer '{layer}', row {row}"
        if not isinstance(blob, bytes):
            continue  # a row without a geometry
        envelope, body = _header(blob, what)
        if envelope is not None and not _meet(envelope, box):
            continue
        try:
            parts, _ = _geometry(body, 0, 0)
        except struct.error as error:
            raise ScenarioError(f"{what}: damaged geometry (it ends too early)") from error
        except ValueError as error:
            raise ScenarioError(f"{what}: damaged geometry ({error})") from error
        parts = [[line for line in part if len(line)] for part in parts if part and len(part[0])]
        lines = [line for part in parts for line in part]
        if not lines:
            continue
        every = np.concatenate(lines)
        if not np.isfinite(every).all():
            raise ScenarioError(f"{what}: a point is not finite")
        low, high = every.min(0), every.max(0)
        if not _meet(np.array([low[0], high[0], low[1], high[1]]), box):
            continue
        points, count = points + len(every), count + len(lines)
        if points > MAX_POINTS or count > MAX_PARTS:
            raise ScenarioError(
                f"{database.path}: layer '{layer}' has more points near the drive than the "
                f"{MAX_POINTS}, or more lines than the {MAX_PARTS}, that are read"
            )
        yield Feature(row, tuple(None if i is None else values[i] for i in place), parts)


def geometry_column(database: Database, layer: str) -> str:
    """Name of a layer's geometry column: what the file says, or "geom"."""
    found = _geometry_columns(database)
    return found[layer][0] if layer in found else "geom"


def reference_system(database: Database, layer: str) -> int:
    """EPSG number of a layer's coordinates: what the file says, or that of degrees."""
    found = _geometry_columns(database)
    return found[layer][1] if layer in found else 4326


def _geometry_columns(database: Database) -> dict[str, tuple[str, int]]:
    """Geometry column and reference system by layer."""
    table, names = "gpkg_geometry_columns", ("table_name", "column_name", "srs_id")
    if not set(names) <= set(database.columns(table)):
        return {}
    rows = database.rows(table, names, limit=1000)
    known = {layer: set(database.columns(layer)) for layer in database.tables}
    return {
        layer: (column, srs)
        for layer, column, srs in rows
        # The name becomes part of a statement, so it must be that of a column.
        if column in known.get(layer, ()) and '"' not in column and isinstance(srs, int)
    }


def _header(blob: bytes, what: str) -> tuple[np.ndarray | None, bytes]:
    """The bounding box, if there is one, and the well-known binary."""
    if len(blob) < 8 or blob[:2] != b"GP":
        raise ScenarioError(f"{what}: no GeoPackage geometry: it does not begin with 'GP'")
    flags = blob[3]
    code = flags >> 1 & 7
    if code >= len(_ENVELOPE_BYTES) or len(blob) < 8 + _ENVELOPE_BYTES[code]:
        raise ScenarioError(f"{what}: damaged geometry (its bounding box)")
    body = blob[8 + _ENVELOPE_BYTES[code] :]
    if flags >> 5 & 1:
        raise ScenarioError(f"{what}: a geometry of an extension, which is not read")
    if not code:
        return None, body
    box = np.frombuffer(blob, "<f8" if flags & 1 else ">f8", 4, 8).astype(np.float64)
    # NaN marks an empty geometry, which has no box.
    return (box if np.isfinite(box).all() else None), body


def _meet(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(a[0] <= b[1] and b[0] <= a[1] and a[2] <= b[3] and b[2] <= a[3])


def _geometry(data: bytes, at: int, depth: int) -> tuple[list[list[np.ndarray]], int]:
    """Parts of the geometry at a position, and the position behind it."""
    order = "<" if data[at : at + 1] == b"\x01" else ">"
    (code,) = struct.unpack_from(order + "I", data, at + 1)
    kind, extra = code % 1000, code // 1000
    if extra > 3:
        raise ValueError(f"geometry type {code} is not read")
    dims = (2, 3, 3, 4)[extra]
    at += 5
    if kind == _POINT:
        line, at = _points(data, at, 1, dims, order)
        return [[line]], at
    (count,) = struct.unpack_from(order + "I", data, at)
    at += 4
    if kind == _LINE:
        line, at = _points(data, at, count, dims, order)
        return [[line]], at
    if kind == _POLYGON:
        rings = []
        if count > len(data):
            raise ValueError(f"{count} rings in {len(data)} bytes")
        for _ in range(count):
            (size,) = struct.unpack_from(order + "I", data, at)
            ring, at = _points(data, at + 4, size, dims, order)
            rings.append(ring)
        return ([rings] if rings else []), at
    if kind not in _MULTI or depth >= MAX_DEPTH:
        raise ValueError(f"geometry type {code} is not read")
    parts: list[list[np.ndarray]] = []
    if count > len(data):
        raise ValueError(f"{count} parts in {len(data)} bytes")
    for _ in range(count):
        own, at = _geometry(data, at, depth + 1)
        parts += own
    return parts, at


def _points(data: bytes, at: int, count: int, dims: int, order: str) -> tuple[np.ndarray, int]:
    """Places [n, 2] of the points at a position, and the position behind them."""
    end = at + 8 * dims * count
    if end > len(data):
        raise ValueError(f"{count} points in {len(data) - at} bytes")
    values = np.frombuffer(data, order + "f8", count * dims, at).astype(np.float64)
    return values.reshape(count, dims)[:, :2], end
