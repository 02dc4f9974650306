"""Mutations of Parquet tables: other types, nulls, lists, encodings; page headers that lie."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from mutations import draw, odd_tree

ODD_CELLS = [
    None,
    "x",
    -1,
    0,
    1e308,
    float("nan"),
    float("inf"),
    [],
    {},
    True,
    2**62,
    "../../x",
    "y" * 9000,
]


def table_bytes(rows: list[dict[str, Any]], **options: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file, **options)
    return file.getvalue()


def odd_table(data: bytes, rng: np.random.Generator) -> bytes:
    """A table with odd values in some rows, packed in any of the ways that there are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pq.read_table(io.BytesIO(data)).to_pylist()
    options = {
        "compression": draw(rng, ["none", "snappy", "gzip", "zstd", "lz4", "brotli"]),
        "use_dictionary": bool(rng.integers(2)),
        "data_page_version": draw(rng, ["1.0", "2.0"]),
        "data_page_size": int(rng.choice([100, 2**20])),
        "row_group_size": int(rng.choice([1, 3, 2**20])),
    }
    if rng.random() < 0.1:
        rows = rows * int(rng.choice([2, 300]))
    try:
        return table_bytes(odd_tree(rows, rng, ODD_CELLS), **options)
    except (pa.ArrowException, ValueError, TypeError, OverflowError, AttributeError):
        # A column cannot hold both, so every row gets the same odd value.
        name = draw(rng, rows[0])
        value = draw(rng, ODD_CELLS)
        value = value if value != {} else {"a": 1}
        return table_bytes([row | {name: value} for row in rows], **options)
