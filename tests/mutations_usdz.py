"""Mutations of AlpaSim's archives: members, the tables in them, and the archive about them."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np

import test_reader_alpasim as scenes
from mutations import as_json, draw, mutated, odd_tree
from mutations_parquet import odd_table

Members = dict[str, bytes | str]
NAMES = [
    "../../evil.json", "/etc/evil", "C:\\evil", "map_data/../../lane.parquet", "a\nb", "x" * 60_000,
    "rig_trajectories.json/", "map_data/evil.lane.parquet", "clipgt/lane.parquet",
    "\u202elane.parquet", "map_data//lane.parquet", " ", ".", "map_data/lane.parquet\0.txt",
]  # fmt: skip


def intact(folder: Path) -> Members:
    return scenes.members(scenes.tables(folder / "tables"))


def change(path: Path, members: Members, number: int, rng: np.random.Generator) -> None:
    """Put mutation `number` in place of the archive; the intact one for -1."""
    kind = number % 6
    content = dict(members)
    if number < 0:
        path.write_bytes(packed(content))
    elif kind == 0:
        path.write_bytes(mutated(packed(content), int(rng.integers(4)), rng))
    elif kind == 1:
        path.write_bytes(_directory(bytearray(packed(content)), rng))
    elif kind == 2:
        path.write_bytes(_members(content, rng))
    elif kind == 3:
        name = draw(rng, content)
        data = content[name]
        data = data.encode() if isinstance(data, str) else data
        path.write_bytes(packed(content | {name: mutated(data, int(rng.integers(4)), rng)}))
    elif kind == 4:
        name = draw(rng, [n for n in content if n.endswith(".parquet")])
        path.write_bytes(packed(content | {name: odd_table(bytes(content[name]), rng)}))
    else:
        name = draw(rng, ["rig_trajectories.json", "sequence_tracks.json"])
        value = odd_tree(json.loads(content[name]), rng)
        path.write_bytes(packed(content | {name: as_json(value)}))


def packed(content: Members, extra: list[tuple[str, bytes]] = (), method: int = 8) -> bytes:
    """An archive, with further members that may have the names of others."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")  # of names that occur twice
        for name, data in [*content.items(), *extra]:
            archive.writestr(name, data)
    return file.getvalue()


def _members(content: Members, rng: np.random.Generator) -> bytes:
    """Members gone, twice, with names that lead elsewhere, archives in archives, and bombs."""
    name = draw(rng, content)
    kind = int(rng.integers(9))
    if kind == 0:
        del content[name]
        return packed(content)
    if kind == 1:
        return packed(content, [(name, content[name])])
    if kind == 2:
        content[draw(rng, NAMES)] = content.pop(name)
        return packed(content)
    if kind == 3:
        return packed(content | {name: packed(content)})
    if kind == 4:  # a bomb, of a kind of archive in an archive or of spaces
        size = int(rng.choice([2**20, 2**24, 3 * 2**26]))
        filling = draw(rng, [b" ", b"[", b"\0", b"0,", b'{"a":', b"PAR1"])
        return packed(content | {name: filling * (size // len(filling))})
    if kind == 5:
        data = content[name]
        return packed(content | {name: data * int(rng.choice([2, 50]))})
    if kind == 6:
        return packed(content, method=int(rng.choice([0, 12, 14])))
    if kind == 7:
        return packed(content, [(f"n{i}", b"") for i in range(int(rng.choice([100, 20_000])))])
    swapped = dict(zip(content, reversed(content.values()), strict=True))
    return packed(swapped)


def _directory(data: bytearray, rng: np.random.Generator) -> bytes:
    """Fields of the headers of members and of the archive's end changed."""
    marks = {b"PK\1\2": [(8, "<H"), (10, "<H"), (16, "<I"), (20, "<I"), (24, "<I"), (28, "<H"),
                         (30, "<H"), (32, "<H"), (42, "<I")],
             b"PK\3\4": [(6, "<H"), (8, "<H"), (14, "<I"), (18, "<I"), (22, "<I"), (26, "<H"),
                         (28, "<H")],
             b"PK\5\6": [(8, "<H"), (10, "<H"), (12, "<I"), (16, "<I"), (20, "<H")]}  # fmt: skip
    for _ in range(int(rng.integers(1, 4))):
        mark = draw(rng, marks)
        places = []
        at = data.find(mark)
        while at >= 0:
            places.append(at)
            at = data.find(mark, at + 4)
        at, (offset, form) = draw(rng, places), draw(rng, marks[mark])
        size = struct.calcsize(form)
        (old,) = struct.unpack_from(form, data, at + offset)
        new = draw(
            rng, [0, 1, old // 2, old + 1, old ^ 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 1)]
        )
        struct.pack_into(form, data, at + offset, new % 2 ** (8 * size))
    return bytes(data)
