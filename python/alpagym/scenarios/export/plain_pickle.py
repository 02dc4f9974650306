"""Pickles of plain containers and NumPy arrays that old and new versions of NumPy read."""

from __future__ import annotations

import io
import pickle
from typing import Any, ClassVar

import numpy as np

PROTOCOL = 4
_RENAMED = (b"numpy._core.multiarray", b"numpy.core.multiarray")
"""How NumPy 2 calls itself in pickles, and the name that every version finds."""
_PLAIN = (str, bytes, int, float, bool, type(None))


def dumps(value: Any) -> bytes:
    """The pickle of a value; the same bytes in every process.

    Raises:
        TypeError: something that is neither a plain value or container nor an array of numbers, or
            a set of values that have no order.
    """
    _check(value)
    buffer = io.BytesIO()
    _Pickler(buffer, PROTOCOL).dump(value)
    return buffer.getvalue()


class _Pickler(pickle._Pickler):
    """Names NumPy's own function as versions before 2 know it too; writes sets in sorted order.

    A set of texts has another order in every process, and bytes that differ say that data differ.
    """

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def save_sorted(self, values: set[Any]) -> None:
        self.write(pickle.EMPTY_SET)  # type: ignore[attr-defined]
        self.memoize(values)  # type: ignore[attr-defined]
        self.write(pickle.MARK)  # type: ignore[attr-defined]
        for value in sorted(values):
            self.save(value)  # type: ignore[attr-defined]
        self.write(pickle.ADDITEMS)  # type: ignore[attr-defined]

    dispatch[set] = save_sorted

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = getattr(obj, "__module__", "") or ""
        if module.encode() != _RENAMED[0]:
            super().save_global(obj, name)  # type: ignore[misc]
            return
        words = (_RENAMED[1], obj.__name__.encode())
        for word in words:
            self.write(pickle.SHORT_BINUNICODE + bytes([len(word)]) + word)  # type: ignore[attr-defined]
            self.memoize(word.decode())  # type: ignore[attr-defined]
        self.write(pickle.STACK_GLOBAL)  # type: ignore[attr-defined]
        self.memoize(obj)  # type: ignore[attr-defined]


def _check(value: Any) -> None:
    if isinstance(value, dict):
        for key, entry in value.items():
            _check(key)
            _check(entry)
    elif isinstance(value, (list, tuple, set)):
        for entry in value:
            _check(entry)
    elif isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            raise TypeError(f"expected an array of numbers, got {value.dtype}")
    elif type(value) not in _PLAIN:
        raise TypeError(f"expected plain values, got {type(value).__name__}")
