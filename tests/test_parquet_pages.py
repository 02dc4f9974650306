"""Parquet pages that claim, or really hold, more than is read: refused before they are unpacked."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from alpagym.scenarios.readers import clipgt_tables
from alpagym.scenarios.readers.argoverse2_tables import read_parquet
from alpagym.scenarios.readers.parquet_pages import _Reader, check_pages
from alpagym.scenarios.scenario import ScenarioError

pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow: pip install alpagym[nvidia]")
pq = pytest.importorskip("pyarrow.parquet")


def packed(table: dict, **options) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(table), file, **options)
    return file.getvalue()


def varint(number: int) -> bytes:
    """A positive number as Thrift writes it."""
    number, parts = 2 * number, []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def claiming(size: int) -> bytes:
    """A table of one page, whose header says that it unpacks to `size` bytes."""
    data = packed({"x": np.arange(3000.0)}, compression="snappy", use_dictionary=False)
    reader = _Reader(data, 4, len(data))
    page = reader.struct(0)
    old, new = varint(page[2]), varint(size)
    header = data[4 : reader.at]
    assert header.count(old) == 1
    total, more = reader.at - 4 + page[3], len(new) - len(old)
    begin = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    index = data[begin:-8].replace(varint(total), varint(total + more))
    assert index != data[begin:-8]
    pages = data[:4] + header.replace(old, new) + data[reader.at : begin]
    return pages + index + len(index).to_bytes(4, "little") + b"PAR1"


@pytest.mark.parametrize("size", [2**31 - 1, 2**28])
def test_a_page_that_claims_gigabytes(tmp_path: Path, size: int) -> None:
    path = tmp_path / "lane.parquet"
    path.write_bytes(claiming(size))
    assert path.stat().st_size < 50_000
    with pytest.raises(ScenarioError, match="claim to unpack to at least") as caught:
        clipgt_tables.read_rows(path, "lane")
    assert str(caught.value).startswith(str(path))
    if size > 2**28:
        with pytest.raises(ScenarioError, match="claim to unpack to at least"):
            read_parquet(path, {"x": float})


@pytest.mark.parametrize("dictionary", [False, True])
def test_a_small_file_that_really_unpacks_to_much(tmp_path: Path, dictionary: bool) -> None:
    path = tmp_path / "lane.parquet"
    path.write_bytes(packed({"lane": np.zeros(9_000_000)}, use_dictionary=dictionary))
    assert path.stat().st_size < 10_000_000
    with pytest.raises(ScenarioError, match="claim to unpack to at least"):
        clipgt_tables.read_rows(path, "lane")


def test_a_list_of_millions_in_one_row(tmp_path: Path) -> None:
    path = tmp_path / "lane.parquet"
    path.write_bytes(packed({"lane": [np.zeros(8_500_000, np.int8)]}))
    assert path.stat().st_size < 50_000
    with pytest.raises(ScenarioError, match="values are the most"):
        clipgt_tables.read_rows(path, "lane")


def test_texts_that_are_differences(tmp_path: Path) -> None:
    path = tmp_path / "lane.parquet"
    data = packed({"lane": ["x" * 4000] * 3000}, use_dictionary=False,
                  column_encoding={"lane": "DELTA_BYTE_ARRAY"})  # fmt: skip
    assert len(data) < 20_000
    path.write_bytes(data)
    with pytest.raises(ScenarioError, match="packed as differences of texts"):
        clipgt_tables.read_rows(path, "lane")


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_headers_of_all_kinds_are_understood(compression: str, version: str) -> None:
    rows = [{"a": {"b": i, "c": "x" * i}, "d": [{"e": 1.0}] * (i % 4)} for i in range(300)]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file, compression=compression,
                   data_page_version=version, data_page_size=500, row_group_size=77)  # fmt: skip
    data = file.getvalue()
    values = 300 + 300 + sum(max(i % 4, 1) for i in range(300))
    check_pages(data, 2**20, values)
    with pytest.raises(ValueError, match="claim"):
        check_pages(data, 2**20, values - 1)


def test_damaged_headers_end_in_an_error() -> None:
    data = packed({"x": np.arange(50.0), "y": ["q"] * 50})
    rng = np.random.default_rng(3)
    failed = 0
    for _ in range(500):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            changed[at] = rng.integers(256)
        try:
            check_pages(bytes(changed), 2**20, 10_000)
        except ValueError:
            failed += 1
    assert 50 < failed < 500
