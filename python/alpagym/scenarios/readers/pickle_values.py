"""What pickles call by name: the few things that NumPy arrays and plain containers are made of."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

MAX_DIMS = 4
"""Of an array."""
Spend = Callable[[int], None]
"""Accounts for bytes that are about to be copied; raises `Fault` when there have been too many."""
_PLAIN_KEYS = (str, int, float, bool, bytes, type(None))
_DTYPE = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248]|[US][1-9]\d{0,3})")


class Fault(Exception):
    """Why reading cannot go on; the place is added by `loads`."""


class Name:
    """A global that the pickle mentions, e.g. "numpy.dtype"; only `CALLS` gives it a meaning."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        module = module.replace("numpy._core.", "numpy.core.")
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        self.module, self.name = module, name

    @property
    def full(self) -> str:
        return f"{self.module}.{self.name}"


class Dtype:
    """A NumPy dtype on its way; its byte order is set after it is made."""

    __slots__ = ("dtype",)

    def __init__(self, code: str) -> None:
        if not _DTYPE.fullmatch(code):
            raise Fault(f"holds an array of type {code[:20]!r}, only numbers and text are read")
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        """Takes the state that NumPy writes: version, byte order, and what plain types lack."""
        order = state[1] if isinstance(state, tuple) and len(state) > 4 else None
        if order not in ("<", ">", "|", "=") or any(x is not None for x in state[2:5]):
            raise Fault("holds a structured or damaged NumPy type")
        if order in "<>":
            self.dtype = self.dtype.newbyteorder(order)


def fill(spend: Spend, target: np.ndarray, state: Any) -> None:
    """Give an empty array the shape, type and content that NumPy wrote."""
    version, shape, kind, by_columns, content = state
    if version != 1 or type(by_columns) is not bool:
        raise Fault("holds a damaged array")
    shape, dtype = _checked(spend, shape, kind, content)
    set_state: Any = target.__setstate__  # NumPy's annotation asks for its own bool
    set_state((1, shape, dtype, by_columns, content))


def _checked(spend: Spend, shape: Any, kind: Any, content: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array, which must fit its bytes."""
    if not isinstance(kind, Dtype) or not isinstance(content, bytes):
        raise Fault("holds a damaged array, or one of Python objects")
    if not isinstance(shape, tuple) or len(shape) > MAX_DIMS:
        raise Fault(f"holds an array without a shape of at most {MAX_DIMS} dimensions")
    if not all(type(n) is int and n >= 0 for n in shape):
        raise Fault("holds an array whose shape is not made of counts")
    if prod(shape) * kind.dtype.itemsize != len(content):
        raise Fault(
            f"holds an array of shape {_short(shape)} and type '{kind.dtype.str}', "
            f"but {len(content)} bytes for it"
        )
    spend(len(content))
    return shape, kind.dtype


def _short(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{n:g}" if n > 10**9 else str(n) for n in shape) or "()"


def plain(key: Any) -> Any:
    """A key of a dict or member of a set, which must be cheap to hash."""
    if isinstance(key, _PLAIN_KEYS):
        return key
    if isinstance(key, tuple) and len(key) < 10 and all(isinstance(k, _PLAIN_KEYS) for k in key):
        return key
    raise Fault(f"has a key of type {type(key).__name__}, only text and numbers are read")


def new_dict(spend: Spend, *arguments: Any) -> dict[Any, Any]:
    """Dicts of all classes; a default factory is of no use to a reader."""
    if any(not isinstance(a, Name) for a in arguments):
        raise Fault("is damaged: a dict is made of something")
    return {}


def _members(spend: Spend, items: Any = ()) -> list[Any]:
    if not isinstance(items, (list, tuple)):
        raise Fault("is damaged: a container is made of no list")
    spend(100 * len(items))
    return [plain(item) for item in items]


def _new_dtype(spend: Spend, code: Any, *_: Any) -> Dtype:
    if not isinstance(code, str):
        raise Fault("holds a structured or damaged NumPy type")
    return Dtype(code)


def _new_array(spend: Spend, kind: Any, *_: Any) -> np.ndarray:
    if not isinstance(kind, Name) or kind.full != "numpy.ndarray":
        raise Fault("holds an array of a class other than numpy.ndarray")
    return np.zeros(0, np.int8)


def _array_from_buffer(spend: Spend, content: Any, kind: Any, shape: Any, order: Any) -> Any:
    shape, dtype = _checked(spend, shape, kind, content)
    return np.frombuffer(content, dtype).reshape(shape, order="F" if order == "F" else "C")


def _scalar(spend: Spend, kind: Any, content: Any) -> Any:
    _, dtype = _checked(spend, (), kind, content)
    return np.frombuffer(content, dtype)[0].item()


def _encoded(spend: Spend, text: Any, encoding: Any) -> bytes:
    """Bytes as protocol 2 writes them: as the text of the same code points."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Fault("is damaged: bytes are no text")
    spend(len(text))
    return text.encode("latin-1")


def _bytes(spend: Spend, content: Any = b"", *_: Any) -> bytes:
    if not isinstance(content, bytes):
        raise Fault("is damaged: bytes are made of something else")
    return content


CALLS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _new_dtype,
    "numpy.core.multiarray._reconstruct": _new_array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _array_from_buffer,
    "_codecs.encode": _encoded,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "builtins.set": lambda spend, *a: set(_members(spend, *a)),
    "builtins.frozenset": lambda spend, *a: frozenset(_members(spend, *a)),
    "builtins.dict": new_dict,
    "collections.OrderedDict": new_dict,
    "collections.defaultdict": new_dict,
}
"""By the full name under which pickles know them; each takes `Spend` and the arguments."""
