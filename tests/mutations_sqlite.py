"""Mutations of SQLite files: rows and schema by statements, pages and geometries by hand."""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import numpy as np

from mutations import draw, mutated

VALUES = [
    "NULL", "''", "'x'", "X''", "X'00'", "-1", "0", "9223372036854775807", "1e308", "-1e300",
    "9e999", "zeroblob(100000)", "zeroblob(4000000)",
    "'nan'", "randomblob(8)", "'../../x'", "char(0)",
    "hex(zeroblob(50000))", "char(55296)", "printf('%.5000c', 'y')",
]  # fmt: skip
MOST_PAGES = 10_000
"""Of a database: a blob of 4 MB in a row that is then repeated 20,000 times would be 80 GB."""
PAGE_TYPES = (2, 5, 10, 13)
FIELDS = [
    (16, ">H"), (18, ">B"), (20, ">B"), (21, ">B"), (28, ">I"), (32, ">I"), (36, ">I"), (44, ">I"),
    (52, ">I"), (56, ">I"),
]  # fmt: skip
"""Of the file's header: sizes of pages and of the file, free pages, versions, the encoding."""
NAN, INF = float("nan"), float("inf")


def change(path: Path, number: int, rng: np.random.Generator) -> None:
    """Put mutation `number` of a database in its place."""
    kind = number % 7
    if kind == 0:
        path.write_bytes(mutated(path.read_bytes(), int(rng.integers(4)), rng))
    elif kind == 1:
        path.write_bytes(_pages(bytearray(path.read_bytes()), rng))
    elif kind == 2:
        _schema(path, rng)
    elif kind in (3, 4) and path.suffix == ".gpkg":
        _geometry(path, rng)
    else:
        _rows(path, rng)


def _opened(path: Path) -> sqlite3.Connection:
    """A database that cannot grow without bounds, and that nobody waits for to be on the disk."""
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA max_page_count = {MOST_PAGES}")
    db.execute("PRAGMA synchronous = OFF")
    return db


def _tables(db: sqlite3.Connection) -> list[str]:
    return [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]


def _columns(db: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in db.execute(f'PRAGMA table_info("{table}")')]


def _rows(path: Path, rng: np.random.Generator) -> None:
    """Values of other types and sizes, rows gone, and rows by the thousand."""
    with closing(_opened(path)) as db:
        for _ in range(int(rng.integers(1, 3))):
            table = draw(rng, _tables(db))
            column = draw(rng, _columns(db, table))
            some = draw(rng, ["1", "rowid % 7 = 3", "rowid = 1", "rowid > 20"])
            value = draw(rng, VALUES)
            if value.startswith("zeroblob(4"):
                some = "rowid = 1"
            other = draw(rng, _columns(db, table))
            statement = draw(rng, [
                f'UPDATE OR IGNORE "{table}" SET "{column}" = {value} WHERE {some}',
                f'UPDATE OR IGNORE "{table}" SET "{column}" = {value} WHERE {some}',
                f'UPDATE OR IGNORE "{table}" SET "{column}" = "{other}" WHERE {some}',
                f'UPDATE OR IGNORE "{table}" SET "{column}" = "{column}" * -1e3 WHERE {some}',
                f'DELETE FROM "{table}" WHERE {some}',
            ])  # fmt: skip
            try:
                db.execute(statement)
                if rng.random() < 0.15:
                    _repeat(db, table, rng)
            except sqlite3.Error:  # a key that cannot be of this type, or too large a file
                db.rollback()
        db.commit()


def _repeat(db: sqlite3.Connection, table: str, rng: np.random.Generator) -> None:
    """A row some ten thousand times, without the keys that would forbid it."""
    names = ", ".join(f'"{name}"' for name in _columns(db, table))
    count = int(rng.choice([100, 20_000]))
    db.execute(f'CREATE TABLE copied AS SELECT * FROM "{table}"')
    db.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?) INSERT INTO "
        f'copied SELECT {names} FROM (SELECT * FROM "{table}" LIMIT 1), n',
        (count,),
    )
    db.execute(f'DROP TABLE "{table}"')
    db.execute(f'ALTER TABLE copied RENAME TO "{table}"')


def _schema(path: Path, rng: np.random.Generator) -> None:
    """Tables and columns gone, renamed or views instead, root pages moved, and odd texts of SQL."""
    with closing(_opened(path)) as db:
        table = draw(rng, _tables(db))
        column = draw(rng, _columns(db, table))
        statements = draw(rng, [
            [f'DROP TABLE "{table}"'],
            [f'ALTER TABLE "{table}" DROP COLUMN "{column}"'],
            [f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO "a""b"'],
            [f'ALTER TABLE "{table}" RENAME TO old', f'CREATE VIEW "{table}" AS SELECT * FROM old'],
            [f'ALTER TABLE "{table}" RENAME TO old',
             f'CREATE VIEW "{table}" AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 '
             f'FROM n) SELECT i AS "{column}" FROM n'],
            [f'CREATE TABLE t{i} (a)' for i in range(400)],
            [f'CREATE INDEX i ON "{table}" ("{column}")'],
            [f'ALTER TABLE "{table}" ADD COLUMN "x{i}"' for i in range(300)],
            ["PRAGMA writable_schema = 1", _schema_edit(table, rng)],
            ["PRAGMA journal_mode = WAL", f'DELETE FROM "{table}"'],
        ])  # fmt: skip
        for statement in statements:
            try:
                db.execute(statement)
            except sqlite3.Error:  # a column that an index needs, say
                db.rollback()
        db.commit()
    for beside in path.parent.glob(f"{path.name}-*"):
        beside.unlink()


def _schema_edit(table: str, rng: np.random.Generator) -> str:
    change = draw(rng, [
        "rootpage = 1", "rootpage = 0", "rootpage = -1", "rootpage = 999999", "rootpage = 3",
        "sql = 'CREATE TABLE'", "sql = 'CREATE VIRTUAL TABLE x USING fts5(a)'", "sql = NULL",
        "sql = 'CREATE TABLE x(' || hex(zeroblob(20000)) || ')'", "name = 'a' || char(10) || 'b'",
        "type = 'view'", "sql = 'CREATE TABLE x(a, b GENERATED ALWAYS AS (randomblob(1e9)))'",
        "sql = 'CREATE TABLE x(token CHECK (load_extension(1)), x, y)'",
    ])  # fmt: skip
    return f"UPDATE sqlite_master SET {change} WHERE name = '{table}'"


def _pages(data: bytearray, rng: np.random.Generator) -> bytes:
    """Headers of the file and of pages changed: kinds, counts, pointers that lead in circles."""
    size = struct.unpack_from(">H", data, 16)[0]
    size = 65536 if size == 1 else size
    pages = len(data) // size
    for _ in range(int(rng.integers(1, 4))):
        page = int(rng.integers(pages))
        begin = page * size + (100 if page == 0 else 0)
        kind = int(rng.integers(9))
        if kind == 0:
            data[begin] = draw(rng, (*PAGE_TYPES, 0, 255))
        elif kind == 1:  # cells
            struct.pack_into(">H", data, begin + 3, int(rng.choice([0, 1, 0xFFFF, 2000])))
        elif kind == 2:  # where the content begins
            struct.pack_into(">H", data, begin + 5, int(rng.integers(65536)))
        elif kind == 3:  # the first free block
            struct.pack_into(">H", data, begin + 1, int(rng.integers(65536)))
        elif kind == 4:  # an inner page of a tree that points to itself or to any other
            data[begin] = 5
            struct.pack_into(">I", data, begin + 8, draw(rng, [page + 1, 1, pages, 2**31]))
            struct.pack_into(">I", data, min(begin + size - 108, len(data) - 4), page + 1)
        elif kind == 5:  # pointers to cells
            struct.pack_into(">H", data, begin + 8 + 2 * int(rng.integers(20)),
                             int(rng.integers(65536)))  # fmt: skip
        elif kind == 6:  # a page in place of another
            other = int(rng.integers(pages))
            data[page * size : (page + 1) * size] = data[other * size : (other + 1) * size]
        elif kind == 7:  # the file's header
            at, form = draw(rng, FIELDS)
            struct.pack_into(form, data, at, int(rng.integers(2 ** (8 * struct.calcsize(form)))))
        else:  # bytes of the cells, lengths of rows among them
            for at in rng.integers(begin, min(begin + size, len(data)), 6):
                data[at] = int(rng.choice([0, 0xFF, 0x7F, 0x80, int(rng.integers(256))]))
    return bytes(data)


def _geometry(path: Path, rng: np.random.Generator) -> None:
    """Another geometry in some rows of a layer."""
    with closing(_opened(path)) as db:
        layers = [t for t in _tables(db) if "geom" in _columns(db, t)]
        table = draw(rng, layers)
        rows = db.execute(f'SELECT fid, geom FROM "{table}"').fetchall()
        chosen = rows if rng.random() < 0.3 else [draw(rng, rows)]
        for fid, blob in chosen:
            value = odd_geometry(blob, rng)
            db.execute(f'UPDATE "{table}" SET geom = ? WHERE fid = ?', (value, fid))
        db.commit()


def odd_geometry(blob: bytes, rng: np.random.Generator) -> bytes:
    """A geometry with odd counts, numbers or nesting, or an absurd one in its place."""
    begin = 8 + (0, 32, 48, 48, 64)[blob[3] >> 1 & 7]
    changed = bytearray(blob)
    kind = int(rng.integers(10))
    if kind == 0:  # counts
        at = begin + int(rng.choice([1, 5, 9, 13]))
        count = int(rng.choice([0, 1, 3, 6, 7, 2**31 - 1, 2**32 - 1, 1000, 3006]))
        struct.pack_into("<I", changed, min(at, len(changed) - 4), count)
    elif kind == 1:  # a number that is none, or one far away
        at = 8 * int(rng.integers(max((len(changed) - begin - 13) // 8, 1))) + begin + 13
        at = min(at, len(changed) - 8)
        struct.pack_into("<d", changed, at, float(rng.choice([NAN, INF, 1e308, 0.0, -71.05, 42.3])))
    elif kind == 2:  # a box that lies
        changed[8:begin] = struct.pack("<d", float(rng.choice([NAN, INF, -INF, 1e9]))) * (
            (begin - 8) // 8
        )
    elif kind == 3:
        return bytes(changed[: int(rng.integers(len(changed)))])
    elif kind == 4:  # collections in collections
        depth = int(rng.choice([1, 3, 2000]))
        head = bytes(changed[:3]) + b"\1" + bytes(changed[4:8])
        return (
            head + struct.pack("<BII", 1, int(rng.choice([4, 5, 6, 7])), 1) * depth + blob[begin:]
        )
    else:
        place = np.frombuffer(blob, "<f8", 2, min(begin + 13, len(blob) - 16))
        place = place if np.isfinite(place).all() and (abs(place) < 180).all() else [-71.05, 42.3]
        return wild(np.array(place), rng)
    return bytes(changed)


def wild(place: np.ndarray, rng: np.random.Generator) -> bytes:
    """A valid geometry of many points about a place: a star, a walk, a spiral, a comb, slivers."""
    count = int(rng.choice([3, 50, 3000, 60_000]))
    t = np.linspace(0.0, 1.0, count)
    scale = float(rng.choice([1e-7, 1e-4, 1e-3, 1e-2, 10.0]))
    shape = int(rng.integers(6))
    if shape == 0:
        angle = np.pi * (count // 2) / count * np.arange(count) * 2
        xy = np.stack([np.cos(angle), np.sin(angle)], 1)
    elif shape == 1:
        xy = np.cumsum(rng.normal(0, 1, (count, 2)), 0) / np.sqrt(count)
    elif shape == 2:
        xy = np.stack([t * np.cos(300 * t), t * np.sin(300 * t)], 1)
    elif shape == 3:
        xy = np.stack([t, np.arange(count) % 2], 1)
    elif shape == 4:
        xy = np.zeros((count, 2))
    else:
        xy = rng.uniform(-1, 1, (count, 2))
    points = (place + scale * xy).astype("<f8")
    head = b"GP\0\0" + struct.pack("<i", 4326)
    form = int(rng.integers(4))
    if form == 0:
        return head + struct.pack("<BII", 1, 2, count) + points.tobytes()
    if form == 1:
        return head + struct.pack("<BIII", 1, 3, 1, count) + points.tobytes()
    if form == 2:  # rings of few points by the thousand
        rings = np.array_split(points, max(count // 4, 1))
        body = b"".join(struct.pack("<I", len(ring)) + ring.tobytes() for ring in rings)
        return head + struct.pack("<BII", 1, 3, len(rings)) + body
    pieces = np.array_split(points, max(count // 5, 1))
    body = b"".join(struct.pack("<BIII", 1, 3, 1, len(p)) + p.tobytes() for p in pieces)
    return head + struct.pack("<BII", 1, 6, len(pieces)) + body
