"""Tables of an SQLite file that comes from anywhere, read within bounds.

The file is opened read-only and as immutable: nothing is written beside it, and no journal is
played back. Only plain tables are read, by statements made here; views, virtual tables and
functions, which could run for long, are refused. What a statement may cost is counted in SQLite's
own instructions, which takes a damaged file to its end as surely as a clock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from alpagym.scenarios.scenario import ScenarioError

MAGIC = b"SQLite format 3\0"
SCHEMA_INSTRUCTIONS = 2_000_000
"""Most instructions to list the tables; a hundred of them take a few thousand."""
BASE_INSTRUCTIONS, INSTRUCTIONS_PER_BYTE = 50_000_000, 4
"""Most instructions of one statement: to look at each row takes less than one a byte."""
MAX_VALUE = 4 * 2**20
"""Longest text or blob [bytes]."""
_STEP = 10_000
_CHUNK = 4096
_ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ)


class Database:
    """An open file; use `open_database`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._left = 0
        self._budget = BASE_INSTRUCTIONS + INSTRUCTIONS_PER_BYTE * path.stat().st_size
        address = path.resolve().as_uri() + "?mode=ro&immutable=1"
        self._file = sqlite3.connect(address, uri=True, isolation_level=None)
        self._file.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
        self._file.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        self._file.text_factory = lambda data: data.decode("utf-8", "replace")
        self._file.execute("PRAGMA trusted_schema = OFF").close()
        self._file.execute("PRAGMA cell_size_check = ON").close()
        self._file.set_authorizer(
            lambda action, *_: sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY
        )
        self._file.set_progress_handler(self._tick, _STEP)

    def close(self) -> None:
        self._file.close()

    def list_tables(self) -> None:
        """Find the plain tables; to be called once, before anything is read."""
        rows = self._run("SELECT type, name, sql FROM sqlite_master", (), SCHEMA_INSTRUCTIONS)
        self.tables = {
            str(name)
            for kind, name, text in rows
            if kind == "table" and not str(text).upper().lstrip().startswith("CREATE VIRTUAL")
        }

    def columns(self, table: str) -> list[str]:
        """Names of a table's columns; none if there is no such table."""
        if table not in self.tables:
            return []
        cursor = self._file.execute(f'SELECT * FROM "{table}" LIMIT 0')
        return [column[0] for column in cursor.description]

    def rows(
        self,
        table: str,
        names: tuple[str, ...],
        where: str = "",
        values: tuple[Any, ...] = (),
        *,
        limit: int,
    ) -> Iterator[tuple[Any, ...]]:
        """Rows of a table, one by one.

        Args:
            table: its name, from the program and not from a file, as `names` and `where`.
            names: columns; "rowid" is the integer key.
            where: condition, with "?" for each of `values`.
            values: bound to the condition.
            limit: of rows.

        Raises:
            ScenarioError: if the table or a column is missing, or there are more rows.
        """
        known = {*self.columns(table), "rowid"}
        if table not in self.tables:
            raise ScenarioError(f"{self.path}: the database has no table '{table}'")
        if missing := [name for name in names if name not in known]:
            raise ScenarioError(f"{self.path}: table '{table}' has no column '{missing[0]}'")
        listed = ", ".join(f'"{name}"' for name in names)
        text = f'SELECT {listed} FROM "{table}"' + (f" WHERE {where}" if where else "")
        for count, row in enumerate(self._run(text, values, self._budget)):
            if count >= limit:
                raise ScenarioError(
                    f"{self.path}: table '{table}' has more rows than the {limit} that are read"
                )
            yield row

    def _run(self, text: str, values: tuple[Any, ...], budget: int) -> Iterator[tuple[Any, ...]]:
        self._left = budget
        cursor = self._file.execute(text, values)
        while rows := cursor.fetchmany(_CHUNK):
            yield from rows

    def _tick(self) -> bool:
        """Whether the statement that runs has cost too much."""
        self._left -= _STEP
        return self._left < 0


@contextmanager
def open_database(path: Path) -> Iterator[Database]:
    """A database whose errors, wherever they come up in the block, become one sentence.

    Raises:
        ScenarioError: naming the file.
    """
    database = None
    try:
        database = Database(path)
        database.list_tables()
        yield database
    except (sqlite3.Error, sqlite3.Warning, UnicodeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if reason == "interrupted":
            reason = "reading it takes more steps than a database of this size needs"
        raise ScenarioError(f"{path}: damaged SQLite database ({reason})") from error
    finally:
        if database is not None:
            database.close()


def token(value: Any) -> str:
    """A token, which is a blob, in hexadecimal as tools write it; empty where there is none."""
    if isinstance(value, bytes):
        return value.hex()
    return value.lower() if isinstance(value, str) else ""


def number(value: Any) -> int:
    """An identifier, which some tables keep as a float or a text; -1 where there is none."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 18:
        return int(value)
    return value if isinstance(value, int) else -1


def floats(column: list[Any], what: str) -> np.ndarray:
    """Numbers as float64 [n], NaN where there is none.

    Raises:
        ScenarioError: naming `what` if there is something else among them.
    """
    if not set(map(type, column)) <= {float, int, type(None)}:
        bad = next(v for v in column if not isinstance(v, float | int | None))
        raise ScenarioError(f"{what} must be numbers, got {str(bad)[:40]!r}")
    return np.array(column, np.float64)
