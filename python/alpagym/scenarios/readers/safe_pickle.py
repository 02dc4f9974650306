"""Pickles of plain data, read without running code: a small machine in place of `pickle`.

It knows the opcodes of protocols 2 to 5 and makes numbers, text, bytes, lists, tuples, dicts, sets
and NumPy arrays of numbers or text, nothing else. What a pickle calls by name must be on a short
list (how NumPy and the standard containers write themselves); anything else ends the reading. Sizes
are compared with the bytes at hand before memory is taken.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alpagym.scenarios.readers.pickle_values import CALLS, Dtype, Fault, Name, fill, new_dict, plain
from alpagym.scenarios.scenario import ScenarioError

MAX_FILE_BYTES = 64 << 20
"""A larger file is refused; a scenario of 20 s takes a few MiB [bytes]."""
MAX_ARRAY_BYTES = 128 << 20
"""All arrays and byte strings of a pickle together; one may be named many times [bytes]."""
MAX_OPCODES = 600_000
"""Bounds time and memory, for each makes at most one small object; real files have 140 000."""
MAX_INT_BYTES = 9
"""Of one integer: 64 bits and a sign."""


def read_pickle(path: Path, enums: Mapping[str, Mapping[int, str]] | None = None) -> Any:
    """What a pickle file holds.

    Args:
        path: The file.
        enums: Classes of enumerations by name, whatever their module, each with the text that
            stands in for a member of a given value.

    Raises:
        ScenarioError: if it is too large, damaged, or holds more than plain data; names the byte.
        OSError: if it cannot be read.
    """
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ScenarioError(f"{path}: a pickle may have {MAX_FILE_BYTES} bytes, this has {size}")
    return loads(path.read_bytes(), str(path), enums)


def loads(data: bytes, source: str, enums: Mapping[str, Mapping[int, str]] | None = None) -> Any:
    """What the bytes of a pickle say; see `read_pickle`. `source` is named in messages."""
    machine = _Machine(data, enums or {})
    try:
        return machine.run()
    except Fault as fault:
        reason = str(fault)
    except (IndexError, KeyError, struct.error):
        reason = "is damaged or cut off: an instruction lacks what it works on"
    except UnicodeDecodeError:
        reason = "is damaged: a text is not valid UTF-8"
    except (TypeError, ValueError, AttributeError, OverflowError):
        reason = "is damaged: an instruction got a value of the wrong kind"
    raise ScenarioError(f"{source}: the pickle {reason} (byte {machine.at})")


class _Machine:
    """Reads opcodes; `stack` holds the values since the last mark, `marked` those before it."""

    def __init__(self, data: bytes, enums: Mapping[str, Mapping[int, str]]) -> None:
        self.data, self.enums = data, enums
        self.pos = self.at = 0
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.bytes_left = MAX_ARRAY_BYTES

    def run(self) -> Any:
        data = self.data
        if len(data) < 2 or data[0] != 0x80 or not 2 <= data[1] <= 5:
            raise Fault("does not begin as protocol 2 to 5 does")
        operations = _OPERATIONS
        for _ in range(MAX_OPCODES):
            self.at = self.pos
            if self.pos >= len(data):
                raise Fault("is cut off: it has no end")
            code = data[self.pos]
            self.pos += 1
            if code == 0x2E:
                return self.stack.pop()
            operation = operations.get(code)
            if operation is None:
                raise Fault(f"has the instruction {code:#04x}, which plain data do not need")
            operation(self)
        raise Fault(f"has more than {MAX_OPCODES} instructions")

    def take(self, count: int) -> bytes:
        """The next bytes, which must be there."""
        end = self.pos + count
        if not 0 <= count <= len(self.data) - self.pos:
            raise Fault(f"is cut off: {count} bytes should follow")
        part = self.data[self.pos : end]
        self.pos = end
        return part

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def line(self) -> str:
        end = self.data.find(b"\n", self.pos, self.pos + 200)
        if end < 0:
            raise Fault("is cut off: a name has no end")
        text = self.data[self.pos : end].decode()
        self.pos = end + 1
        return text

    def frame(self) -> None:
        size = self.number(8)
        if size > len(self.data) - self.pos:
            raise Fault(f"is cut off: a frame of {size} bytes should follow")

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.marked.pop()
        return values

    def spend(self, count: int) -> None:
        """Account for bytes that are about to be copied."""
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise Fault(f"holds more than {MAX_ARRAY_BYTES} bytes of arrays")

    def integer(self, width: int) -> None:
        if width > MAX_INT_BYTES:
            raise Fault(f"holds an integer of {width} bytes, at most {MAX_INT_BYTES} are read")
        self.stack.append(int.from_bytes(self.take(width), "little", signed=True))

    def small_integer(self) -> None:
        self.stack.append(self.data[self.pos])
        self.pos += 1

    def recall(self) -> None:
        self.stack.append(self.memo[self.data[self.pos]])
        self.pos += 1

    def recall_far(self) -> None:
        self.stack.append(self.memo[self.number(4)])

    def short_text(self) -> None:
        start = self.pos + 1
        self.pos = start + self.data[self.pos]
        if self.pos > len(self.data):
            raise Fault("is cut off in a text")
        self.stack.append(self.data[start : self.pos].decode("utf-8", "surrogatepass"))

    def real(self) -> None:
        if self.pos + 8 > len(self.data):
            raise Fault("is cut off: 8 bytes should follow")
        self.stack.append(_REAL.unpack_from(self.data, self.pos)[0])
        self.pos += 8

    def text(self, width: int) -> None:
        self.stack.append(self.take(self.number(width)).decode("utf-8", "surrogatepass"))

    def push_since_mark(self, make: Callable[[list[Any]], Any]) -> None:
        value = make(self.since_mark())
        self.stack.append(value)

    def memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def extend(self) -> None:
        values = self.since_mark()
        self.list_on_top().extend(values)

    def append(self) -> None:
        value = self.stack.pop()
        self.list_on_top().append(value)

    def list_on_top(self) -> list[Any]:
        if type(self.stack[-1]) is not list:
            raise Fault("is damaged: it appends to what is no list")
        return self.stack[-1]

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(values) % 2:
            raise Fault("is damaged: it sets items of what is no dict")
        for i in range(0, len(values), 2):
            target[plain(values[i])] = values[i + 1]

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def add_items(self) -> None:
        values = self.since_mark()
        if type(self.stack[-1]) is not set:
            raise Fault("is damaged: it adds to what is no set")
        self.stack[-1].update(map(plain, values))

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError
        values = tuple(self.stack[-count:])
        self.stack[-count:] = [values]

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise Fault("is damaged: a name is no text")
        self.stack.append(Name(module[:100], name[:100]))

    def reduce(self) -> None:
        arguments, callee = self.stack.pop(), self.stack.pop()
        if not isinstance(callee, Name) or not isinstance(arguments, tuple):
            raise Fault("is damaged: it calls what has no name")
        enum = self.enums.get(callee.name)
        if enum is not None:
            if len(arguments) != 1 or type(arguments[0]) is not int:
                raise Fault(f"is damaged: a {callee.name} is no number")
            self.stack.append(enum.get(arguments[0], ""))
            return
        call = CALLS.get(callee.full, new_dict if callee.name == "ScenarioDescription" else None)
        if call is None:
            raise Fault(f"calls {callee.full!r}, but only plain data and NumPy arrays are read")
        self.stack.append(call(self.spend, *arguments))

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Dtype):
            target.build(state)
        elif isinstance(target, np.ndarray):
            fill(self.spend, target, state)
        elif not (type(target) is dict and (state is None or type(state) is dict)):
            raise Fault("is damaged: it sets the state of plain data")


_REAL = struct.Struct(">d")
_OPERATIONS: dict[int, Callable[[_Machine], object]] = {
    0x80: lambda m: m.take(1),  # PROTO
    0x95: _Machine.frame,
    ord("("): _Machine.mark,
    ord("0"): lambda m: m.stack.pop(),
    ord("1"): _Machine.since_mark,
    ord("N"): lambda m: m.stack.append(None),
    0x88: lambda m: m.stack.append(True),
    0x89: lambda m: m.stack.append(False),
    ord("K"): _Machine.small_integer,
    ord("M"): lambda m: m.stack.append(m.number(2)),
    ord("J"): lambda m: m.integer(4),
    0x8A: lambda m: m.integer(m.number(1)),
    0x8B: lambda m: m.integer(m.number(4)),
    ord("G"): _Machine.real,
    0x8C: _Machine.short_text,
    ord("X"): lambda m: m.text(4),
    0x8D: lambda m: m.text(8),
    ord("C"): lambda m: m.stack.append(m.take(m.number(1))),
    ord("B"): lambda m: m.stack.append(m.take(m.number(4))),
    0x8E: lambda m: m.stack.append(m.take(m.number(8))),
    0x96: lambda m: m.stack.append(m.take(m.number(8))),  # BYTEARRAY8
    ord("}"): lambda m: m.stack.append({}),
    ord("]"): lambda m: m.stack.append([]),
    ord(")"): lambda m: m.stack.append(()),
    0x8F: lambda m: m.stack.append(set()),
    0x85: lambda m: m.tuple_of(1),
    0x86: lambda m: m.tuple_of(2),
    0x87: lambda m: m.tuple_of(3),
    ord("t"): lambda m: m.push_since_mark(tuple),
    0x91: lambda m: m.push_since_mark(lambda values: frozenset(map(plain, values))),
    ord("a"): _Machine.append,
    ord("e"): _Machine.extend,
    ord("s"): _Machine.set_item,
    ord("u"): lambda m: m.set_items(m.since_mark()),
    0x90: _Machine.add_items,
    0x94: _Machine.memoize,
    ord("q"): lambda m: m.memo.__setitem__(m.number(1), m.stack[-1]),
    ord("r"): lambda m: m.memo.__setitem__(m.number(4), m.stack[-1]),
    ord("h"): _Machine.recall,
    ord("j"): _Machine.recall_far,
    ord("c"): lambda m: m.stack.append(Name(m.line(), m.line())),
    0x93: _Machine.stack_global,
    ord("R"): _Machine.reduce,
    0x81: _Machine.reduce,  # NEWOBJ: for the classes on the list, the same
    ord("b"): _Machine.build,
}
"""What each opcode of protocols 2 to 5 does, but for those that plain data never need."""
