"""Columns of Argoverse 2 tables (Parquet and Feather), read with pyarrow within bounds.

A table says how large it becomes before it is unpacked; what it says is checked first, so that a
damaged or hostile file ends in a sentence instead of filling the memory.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy as np

from alpagym.scenarios.readers.parquet_pages import check_pages
from alpagym.scenarios.scenario import ScenarioError

MAX_FILE = 64 * 2**20
"""Largest table file that is opened; those of the dataset have 0.1 to 3 MB [bytes]."""
MAX_UNPACKED = 256 * 2**20
"""Largest table after decompression [bytes]."""
MAX_ROWS = 500_000
MAX_COLUMNS = 256
MAX_VALUES = 16_000_000
"""Most values of a Parquet table; those of the dataset have 150 000."""
MAX_BATCHES = 1024
MAX_TRACKS, MAX_CELLS = 4000, 1_000_000
"""Most tracks of a scenario, and most tracks times frames."""
_DICTIONARY, _BATCH = 2, 3
"""Kinds of Arrow messages that carry data."""


def read_feather(path: Path, columns: dict[str, type]) -> dict[str, np.ndarray]:
    """The wanted columns of a Feather file (Arrow IPC, compressed or not).

    Args:
        path: the file.
        columns: float, int or str by name; values of other types are converted where they fit.

    Returns:
        Arrays [n] by name: float64, int64, or objects that are Python strings.

    Raises:
        ScenarioError: if pyarrow is missing, or the file is damaged, too large, or lacks a column.
    """
    pa = _pyarrow(path)
    data = _bytes(path)
    if data[:8] != b"ARROW1\0\0":
        raise ScenarioError(f"{path}: no Feather file: it does not begin with the ARROW1 magic")
    try:
        # The file format is the stream format between magics. Reading it as a stream visits the
        # messages that were checked, whatever the index at the file's end points to.
        body = pa.py_buffer(data)[8:]
        _check_messages(pa, body, path)
        with pa.ipc.open_stream(body) as reader:
            batches = list(reader)
            for batch in batches:
                batch.validate(full=True)
            table = pa.Table.from_batches(batches, reader.schema)
    except ScenarioError:
        raise
    except (pa.ArrowException, OSError, ValueError, MemoryError, struct.error) as error:
        raise ScenarioError(f"{path}: damaged Feather file ({_one_line(error)})") from error
    return _columns(pa, table, columns, path)


def read_parquet(path: Path, columns: dict[str, type]) -> dict[str, np.ndarray]:
    """The wanted columns of a Parquet file; see `read_feather`."""
    pa = _pyarrow(path)
    import pyarrow.parquet

    data = _bytes(path)
    limits = {
        "thrift_string_size_limit": MAX_FILE,
        "thrift_container_size_limit": 100_000,
    }
    try:
        check_pages(data, MAX_UNPACKED, MAX_VALUES)
        file = pyarrow.parquet.ParquetFile(pa.BufferReader(data), **limits)
        meta = file.metadata
        groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
        # Not by column: pyarrow ends the process where a column's metadata is damaged.
        size = sum(g.total_byte_size for g in groups)
        rows = max(meta.num_rows, sum(g.num_rows for g in groups))
        _check_size(rows, meta.num_columns, size, path)
        names = {column.path for column in file.schema}
        strings = [name for name, kind in columns.items() if kind is str and name in names]
        file = pyarrow.parquet.ParquetFile(
            pa.BufferReader(data),
            metadata=meta,
            read_dictionary=strings,  # a long string that repeats is kept once
            **limits,
        )
        table = file.read([name for name in columns if name in names], use_threads=False)
        table.validate(full=True)
    except ScenarioError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError) as error:
        raise ScenarioError(f"{path}: damaged Parquet file ({_one_line(error)})") from error
    return _columns(pa, table, columns, path)


def track_number(name: str) -> int:
    """A track's id as an integer: itself where it is one, else 62 bits of its hash."""
    if name.isascii() and name.isdecimal() and len(name) < 18:
        return int(name)
    digest = hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 2


def check_tracks(num_tracks: int, num_frames: int, path: Path) -> None:
    """Refuse more tracks or frames than any drive of seconds has.

    Raises:
        ScenarioError: naming the file and the counts.
    """
    if num_tracks > MAX_TRACKS or num_tracks * num_frames > MAX_CELLS:
        raise ScenarioError(
            f"{path}: {num_tracks} tracks over {num_frames} frames are more than plausible "
            f"(at most {MAX_TRACKS} tracks, and {MAX_CELLS} states)"
        )


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise ScenarioError(
            f"{path}: Argoverse 2 needs pyarrow ({error}): pip install alpagym[av2]"
        ) from error
    return pyarrow


def _bytes(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MAX_FILE:
        raise ScenarioError(f"{path}: has {size} bytes, at most {MAX_FILE} are plausible")
    return path.read_bytes()


def _check_size(rows: int, columns: int, size: int, path: Path) -> None:
    if not (0 <= rows <= MAX_ROWS and columns <= MAX_COLUMNS and 0 <= size <= MAX_UNPACKED):
        raise ScenarioError(
            f"{path}: a table of {rows} rows, {columns} columns and {size} bytes is not plausible "
            f"(at most {MAX_ROWS}, {MAX_COLUMNS} and {MAX_UNPACKED})"
        )


def _check_messages(pa: Any, body: Any, path: Path) -> None:
    """Add up what the record batches of an Arrow stream unpack to, without unpacking them."""
    rows = size = 0
    reader = pa.ipc.MessageReader.open_stream(pa.BufferReader(body))
    for number, message in enumerate(reader):
        if number > MAX_BATCHES:
            raise ValueError(f"more than {MAX_BATCHES} record batches")
        if message.type == "schema":
            _check_size(0, len(pa.ipc.read_schema(message)), 0, path)
            continue
        batch_rows, batch_size = _unpacked(memoryview(message.metadata), memoryview(message.body))
        rows, size = rows + batch_rows, size + batch_size
        _check_size(rows, 0, size, path)


def _unpacked(meta: memoryview, body: memoryview) -> tuple[int, int]:
    """Rows and bytes of a batch after decompression, from its FlatBuffer header.

    The layout is that of Arrow's Message.fbs: a compressed buffer begins with its length as an
    int64, -1 where it is stored as it is.
    """
    root = _at("I", meta, 0)
    kind = _at("B", meta, _field(meta, root, 1))
    table = _follow(meta, _field(meta, root, 2))
    if kind == _DICTIONARY:
        table = _follow(meta, _field(meta, table, 1))
    elif kind != _BATCH:
        raise ValueError(f"a message of kind {kind} among the record batches")
    rows_at, buffers_at = _field(meta, table, 0), _field(meta, table, 2)
    rows = _at("q", meta, rows_at) if rows_at else 0
    size, compressed = 0, _field(meta, table, 3) > 0
    if buffers_at:
        vector = _follow(meta, buffers_at)
        for i in range(_at("I", meta, vector)):
            offset, length = struct.unpack_from("<qq", meta, vector + 4 + 16 * i)
            unpacked = _at("q", body, offset) if compressed and length >= 8 else -1
            size += length if unpacked == -1 else unpacked
            if length < 0 or unpacked < -1:
                raise ValueError("a buffer of negative length")
    return rows, size


def _at(kind: str, data: memoryview, position: int) -> int:
    """One little-endian integer."""
    if position < 0:
        raise ValueError("an offset that is negative")
    return int(struct.unpack_from("<" + kind, data, position)[0])


def _follow(data: memoryview, position: int) -> int:
    """Where the FlatBuffer offset that stands at a position leads."""
    return position + _at("I", data, position)


def _field(data: memoryview, table: int, index: int) -> int:
    """Position of a FlatBuffer table's field, 0 where the table lacks it."""
    vtable = table - _at("i", data, table)
    if 4 + 2 * index >= _at("H", data, vtable):
        return 0
    offset = _at("H", data, vtable + 4 + 2 * index)
    return table + offset if offset else 0


def _columns(pa: Any, table: Any, columns: dict[str, type], path: Path) -> dict[str, np.ndarray]:
    """Arrays of the wanted columns."""
    arrow = {float: pa.float64(), int: pa.int64(), str: pa.string()}
    try:
        names = table.schema.names
    except ValueError as error:
        raise ScenarioError(f"{path}: the names of columns are no text ({error})") from error
    arrays = {}
    for name, kind in columns.items():
        if names.count(name) != 1:
            raise ScenarioError(f"{path}: the table has no column '{name}', or several")
        column = table.column(name)
        if column.null_count:
            raise ScenarioError(f"{path}: column '{name}' lacks {column.null_count} values")
        try:
            if kind is str:
                arrays[name] = _strings(pa, column)
            else:
                cast = column.cast(arrow[kind]).combine_chunks()
                arrays[name] = cast.to_numpy(zero_copy_only=False)
        except (pa.ArrowException, ValueError, MemoryError) as error:
            raise ScenarioError(
                f"{path}: column '{name}' is no {kind.__name__} but {column.type} "
                f"({_one_line(error)})"
            ) from error
    return arrays


def _strings(pa: Any, column: Any) -> np.ndarray:
    """Strings as objects [n], each distinct one stored once per chunk."""
    parts = [np.zeros(0, object)]
    for chunk in column.chunks:
        if not pa.types.is_dictionary(chunk.type):
            chunk = chunk.cast(pa.string()).dictionary_encode()
        words = np.array([*chunk.dictionary.cast(pa.string()).to_pylist(), ""], object)
        parts.append(words[chunk.indices.to_numpy(zero_copy_only=False)])
    return np.concatenate(parts)


def _one_line(error: BaseException) -> str:
    """The first sentence of what pyarrow says."""
    text = " ".join(str(error).split()).split(". ")[0]
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text[:200].rstrip(".") or type(error).__name__
