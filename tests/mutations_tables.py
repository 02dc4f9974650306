"""Mutations of formats of several files: Argoverse 2, RDS-HQ, ClipGT."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

import argoverse2_files
import nvidia_files
from mutations import Mutate, as_json, draw, mutated, odd_tree
from mutations_parquet import ODD_CELLS, odd_table
from mutations_usdz import NAMES


def argoverse2_motion(folder: Path) -> tuple[Path, Mutate]:
    path = argoverse2_files.write_motion(folder)
    return path, _files(folder)


def argoverse2_sensor(folder: Path) -> tuple[Path, Mutate]:
    path = argoverse2_files.write_sensor(folder)
    return path, _files(folder)


def clipgt(folder: Path) -> tuple[Path, Mutate]:
    path = nvidia_files.write_clipgt(folder)
    return path, _files(folder)


def rds_hq(folder: Path) -> tuple[Path, Mutate]:
    path = nvidia_files.write_rds_hq(folder)
    return path, _files(folder)


def _files(folder: Path) -> Mutate:
    """Changes one file of a folder, in one of the ways that there are for its format."""
    whole = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    odd = {".parquet": odd_table, ".feather": _odd_feather, ".json": _odd_json, ".tar": _odd_tar}

    def mutate(number: int, rng: np.random.Generator) -> None:
        for path, data in whole.items():
            path.write_bytes(data)
        target = draw(rng, whole)
        if number % 2:
            target.write_bytes(odd[target.suffix](whole[target], rng))
        else:
            target.write_bytes(mutated(whole[target], number // 2, rng))

    return mutate


def _odd_json(data: bytes, rng: np.random.Generator) -> bytes:
    return as_json(odd_tree(json.loads(data), rng))


def _odd_feather(data: bytes, rng: np.random.Generator) -> bytes:
    """A column of another type, with odd cells, gone, or the rows many times."""
    import pyarrow as pa
    from pyarrow import feather

    table = feather.read_table(io.BytesIO(data))
    for _ in range(int(rng.integers(1, 3))):
        at = int(rng.integers(table.num_columns))
        name, cells = table.schema.names[at], table.column(at).to_pylist()
        kind = int(rng.integers(6))
        if kind == 0:
            table = table.drop_columns([name])
            continue
        if kind == 1 and table.num_rows < 5000:
            table = pa.concat_tables([table] * int(rng.choice([2, 300])))
            continue
        if kind == 2:
            value = draw(rng, ODD_CELLS)
            cells = [value if value != {} else {"a": 1}] * len(cells)
        elif kind == 3 and isinstance(cells[0], int | float):
            scale = float(rng.choice([-1.0, 1e3, 1e9, 0.0, np.nan]))
            cells = [float(cell) * scale for cell in cells]
        else:
            for k in rng.integers(len(cells), size=3):
                cells[k] = draw(rng, [None, 0, -1, 2**40, np.nan, np.inf, 1e300, "x"])
        try:
            column = pa.array(cells)
        except (pa.ArrowException, OverflowError):
            column = pa.array([str(cell) for cell in cells])
        table = table.set_column(at, name, column)
    file = io.BytesIO()
    packing = draw(rng, ["uncompressed", "lz4", "zstd"])
    chunk = max(int(rng.choice([7, 10**6])), table.num_rows // 500)
    feather.write_feather(table, file, compression=packing, chunksize=chunk)
    return file.getvalue()


def _odd_tar(data: bytes, rng: np.random.Generator) -> bytes:
    """Members gone, twice, with other names or kinds, with odd content, or of absurd sizes."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = [(m.name, archive.extractfile(m).read()) for m in archive]  # type: ignore[union-attr]
    made: list[tuple[tarfile.TarInfo, bytes]] = []
    for name, content in members:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        made.append((info, content))
    at = int(rng.integers(len(made)))
    info, content = made[at]
    kind = int(rng.integers(9))
    if kind == 0:
        del made[at]
    elif kind == 1:
        made.append((info, content))
    elif kind == 2:
        info.name = draw(rng, [n for n in NAMES if "\0" not in n])
    elif kind == 3:
        info.type = draw(rng, [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE,
                               tarfile.CHRTYPE, tarfile.XHDTYPE, b"S"])  # fmt: skip
        info.linkname = draw(rng, ["/etc/passwd", "../../x", info.name])
    elif kind == 4:
        return _tar(made) + bytes(int(rng.choice([512, 10_000_000])))
    elif kind == 5:
        info.size = int(rng.choice([0, len(content) // 2]))
        made[at] = (info, content[: info.size])
    else:
        changed = _odd_member(info.name, content, rng)
        info.size = len(changed)
        made[at] = (info, changed)
    packed = bytearray(_tar(made))
    if rng.random() < 0.15:  # the size that the first header claims, its sum corrected
        packed[124:136] = draw(rng, [b"77777777777\0", b"\x80" + b"\xff" * 11, b"00000000000\0"])
        packed[148:156] = b" " * 8
        packed[148:156] = b"%06o\0 " % sum(packed[:512])
    return bytes(packed)


def _odd_member(name: str, content: bytes, rng: np.random.Generator) -> bytes:
    if name.endswith(".json") and rng.random() < 0.8:
        return _odd_json(content, rng)
    if name.endswith(".npy"):
        values: Any = draw(rng, [
            np.full((4, 4), np.nan), np.eye(3), np.zeros((0, 4)), np.eye(4) * 1e300,
            np.array([["x"] * 4] * 4), np.eye(4, dtype=np.complex128), np.zeros((4, 4), np.int8),
        ])  # fmt: skip
        return draw(rng, [
            nvidia_files.npy(values), mutated(content, int(rng.integers(4)), rng),
            content.replace(b"'<f8'", b"'|O'  "[:5]), content.replace(b"(4, 4)", b"(9**9)"),
        ])  # fmt: skip
    if name.endswith(".txt"):
        return draw(rng, [b"", b"-1", b"1e9", b"nan", b"9" * 400, "\u0663".encode(), b"\xff"])
    return mutated(content, int(rng.integers(4)), rng)


def _tar(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()
