"""Values in ScenarioNet's dicts, whose types differ between versions, brought to one form."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import numpy as np

from alpagym.scenarios.scenario import ScenarioError

MAX_ROWS = 100_000
"""Of one list or array; the longest known polyline has 7770 points."""
MAX_LISTED = 1000
"""Identifiers that one list may name; the rest is left out."""


def table(value: Any, widths: tuple[int, ...], what: str) -> np.ndarray:
    """Numbers as float64 [n, w], w one of `widths`.

    Args:
        value: An array, or a list of numbers or of rows of numbers.
        widths: Allowed numbers of columns; a flat list is one column.
        what: File and place for messages.
    """
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            raise ScenarioError(f"{what} must be numbers, got an array of '{value.dtype.str}'")
        array = value
    else:
        array = _from_rows(value, what)
    if array.ndim == 1:
        array = array.reshape(-1, 1) if len(array) or 1 in widths else np.zeros((0, widths[-1]))
    if array.ndim != 2 or array.shape[1] not in widths or len(array) > MAX_ROWS:
        wanted = " or ".join(str(w) for w in widths)
        shape = " x ".join(str(n) for n in array.shape)
        raise ScenarioError(
            f"{what} must have {wanted} columns and at most {MAX_ROWS} rows, got {shape}"
        )
    return array.astype(np.float64)


def _from_rows(value: Any, what: str) -> np.ndarray:
    """An array of a list of numbers or of short rows; checked first, for rows may nest."""
    if not isinstance(value, (list, tuple)) or len(value) > MAX_ROWS:
        raise ScenarioError(f"{what} must be a list of at most {MAX_ROWS} rows of numbers")
    rows = [row.tolist() if _is_short(row) else row for row in value]
    width = len(rows[0]) if rows and isinstance(rows[0], (list, tuple)) else None
    for row in rows:
        if width is None:
            fine = isinstance(row, (int, float))
        else:
            fine = isinstance(row, (list, tuple)) and len(row) == width <= 4
            fine = fine and all(isinstance(x, (int, float)) for x in row)
        if not fine:
            raise ScenarioError(f"{what} must be numbers in rows of one length")
    return np.array(rows, np.float64)


def _is_short(row: Any) -> bool:
    return isinstance(row, np.ndarray) and row.ndim == 1 and row.size <= 4


def column(value: Any, what: str) -> np.ndarray:
    """Numbers as float64 [n], from [n] or [n, 1]."""
    return table(value, (1,), what)[:, 0]


def entries(value: Any, what: str, at_most: int) -> dict[Any, Any]:
    """A dict of dicts, checked."""
    if not isinstance(value, dict):
        raise ScenarioError(f"{what} must be a dict, got {type(value).__name__}")
    if len(value) > at_most:
        raise ScenarioError(f"{what} has {len(value)} entries, at most {at_most} are read")
    for key, entry in value.items():
        if not isinstance(entry, dict):
            raise ScenarioError(f"{what}: {name(key)} must be a dict, got {type(entry).__name__}")
    return value


def name(key: Any) -> str:
    """A key as messages show it."""
    text = str(key)[:60]
    return text if text.isprintable() else ascii(text)


def number(key: Any) -> int:
    """A key as an integer: itself if it is one, else a hash in [2^61, 2^62)."""
    text = str(key)
    if re.fullmatch(r"-?[0-9]{1,19}", text) and abs(int(text)) < 2**62:
        return int(text)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 3) | 2**61


def listed(value: Any, kinds: tuple[type, ...] = (int, str)) -> list[Any]:
    """Members of these kinds of a list, tuple or flat array; a single one is a list of one."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
        value = value.ravel()[:MAX_LISTED].tolist()
    if isinstance(value, kinds):
        value = [value]
    members = value[:MAX_LISTED] if isinstance(value, (list, tuple)) else []
    return [v for v in members if isinstance(v, kinds)]


def text(value: Any) -> str:
    """The value if it is text; anything else is as good as none."""
    return value if isinstance(value, str) else ""
