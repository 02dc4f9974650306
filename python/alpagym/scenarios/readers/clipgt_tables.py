"""ClipGT tables: Parquet files of nested rows, read with pyarrow within bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from alpagym.scenarios.files import ReadableFile
from alpagym.scenarios.readers.parquet_pages import check_pages
from alpagym.scenarios.scenario import ScenarioError

MAX_FILE = 64 * 2**20
"""Largest table file that is opened [bytes]."""
MAX_UNPACKED = 32 * 2**20
"""Largest table after decompression [bytes]; a busy clip has 3 MB."""
MAX_VALUES = 8_000_000
"""Most values of a table, items of lists included."""
MAX_ROWS, BATCH = 400_000, 4096
"""Most rows of a table, and of what is unpacked at a time."""
MAX_TEXT = 8 * 2**20
"""Longest text [bytes]; calibrations are JSON texts of a megabyte."""
MAX_REPEATED = 4096
"""Longest text in a table of many rows, which may repeat it in each [bytes]."""


def table_path(ego: Path, element: str) -> Path:
    """The table of an element in the bundle that the table of ego poses belongs to."""
    return ego.with_name(ego.name.replace("egomotion_estimate.parquet", f"{element}.parquet"))


def read_rows(path: ReadableFile, element: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Key and payload of each row of a table of map elements; none where there is no such file.

    Raises:
        ScenarioError: if pyarrow is missing or the file is damaged, too large or of another layout.
    """
    if not path.is_file():
        return []
    table = _read(path)
    if element not in table.schema.names:
        raise ScenarioError(f"{path}: the table has no column '{element}'")
    payloads = table.column(element).to_pylist()
    has_key = "key" in table.schema.names
    keys = table.column("key").to_pylist() if has_key else [None] * len(payloads)
    if any(not isinstance(p, dict) for p in payloads):
        raise ScenarioError(f"{path}: column '{element}' must hold structs in every row")
    return [(k if isinstance(k, dict) else {}, p) for k, p in zip(keys, payloads, strict=True)]


def read_columns(
    path: Path, wanted: dict[str, type], optional: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """Columns of nested structs by their dotted names.

    Args:
        path: the table.
        wanted: float, int or str by name, e.g. "obstacle.center.x".
        optional: names that may be missing from the table, and then from the result.

    Returns:
        Arrays [n] by name: float64 with NaN where a value is missing, int64, or objects that are
        strings, empty where one is missing.

    Raises:
        ScenarioError: as `read_rows`.
    """
    table = _read(path)
    import pyarrow as pa

    while any(pa.types.is_struct(f.type) for f in table.schema):
        table = table.flatten()
    arrays = {}
    for name, kind in wanted.items():
        count = table.schema.names.count(name)
        if count == 0 and name in optional:
            continue
        if count != 1:
            raise ScenarioError(f"{path}: the table has no column '{name}', or several")
        column = table.column(name)
        try:
            if kind is str:
                texts = [t if isinstance(t, str) else "" for t in column.to_pylist()]
                arrays[name] = np.array([*texts, ""], object)[:-1]
            else:
                target = pa.float64() if kind is float else pa.int64()
                arrays[name] = column.cast(target).combine_chunks().to_numpy(zero_copy_only=False)
        except (pa.ArrowException, ValueError) as error:
            raise ScenarioError(
                f"{path}: column '{name}' is no {kind.__name__} but {column.type}"
            ) from error
        if kind is int and column.null_count:
            raise ScenarioError(f"{path}: column '{name}' lacks {column.null_count} values")
    return arrays


def _read(path: ReadableFile) -> Any:
    """A table, unpacked piece by piece as long as it stays within bounds."""
    try:
        import pyarrow as pa
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise ScenarioError(
            f"{path}: ClipGT needs pyarrow ({error}): pip install alpagym[nvidia]"
        ) from error
    # Members of archives have their own limit.
    if isinstance(path, Path) and (size := path.stat().st_size) > MAX_FILE:
        raise ScenarioError(f"{path}: has {size} bytes, at most {MAX_FILE} are read")
    data = path.read_bytes()
    try:
        check_pages(data, MAX_UNPACKED, MAX_VALUES)
        # What pyarrow tells of column chunks is not asked for: on damaged ones it ends the process.
        limits = {"thrift_string_size_limit": MAX_FILE, "thrift_container_size_limit": 100_000}
        schema = pyarrow.parquet.ParquetFile(pa.BufferReader(data), **limits).schema
        leaves = [schema.column(i) for i in range(len(schema))]
        # A text that repeats is kept once: a small file may repeat a long one in every row.
        file = pyarrow.parquet.ParquetFile(
            pa.BufferReader(data),
            read_dictionary=[c.path for c in leaves if c.physical_type == "BYTE_ARRAY"],
            **limits,
        )
        batches, unpacked = [], 0
        for batch in file.iter_batches(BATCH, use_threads=False):
            batch.validate(full=True)
            batches.append(batch)
            unpacked += batch.nbytes
            if unpacked > MAX_UNPACKED or len(batches) * BATCH > MAX_ROWS:
                raise ScenarioError(
                    f"{path}: a table of more than {MAX_UNPACKED} bytes or {MAX_ROWS} rows "
                    "is not read"
                )
        table = pa.Table.from_batches(batches, file.schema_arrow)
        chunks = [chunk for column in table.columns for chunk in column.chunks]
        longest = max((_longest_text(pa, chunk) for chunk in chunks), default=0)
    except (pa.ArrowException, OSError, ValueError, LookupError, MemoryError) as error:
        text = " ".join(str(error).split())[:200].rstrip(".")
        text = "".join(c if c.isprintable() else "?" for c in text)
        raise ScenarioError(f"{path}: damaged Parquet file ({text})") from error
    limit = MAX_TEXT if table.num_rows < 4 else MAX_REPEATED
    if longest > limit:
        raise ScenarioError(f"{path}: holds a text of {longest} bytes, at most {limit} are read")
    return table


def _longest_text(pa: Any, array: Any) -> int:
    """Bytes of the longest text in a nested array."""
    kind = array.type
    if pa.types.is_struct(kind):
        return max((_longest_text(pa, part) for part in array.flatten()), default=0)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _longest_text(pa, array.values)
    if pa.types.is_dictionary(kind):
        return _longest_text(pa, array.dictionary)
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return pa.compute.max(pa.compute.binary_length(array)).as_py() or 0
    return 0
