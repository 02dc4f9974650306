"""Files of weights: which tensors a checkpoint has, and writing them anew without loading them.

A safetensors file is a table of names, types and places, and behind it the bytes. Renaming changes
the table alone, so 22 GB are copied as they are, whatever their precision.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MAX_TABLE = 100_000_000
"""Bytes of a file's table, as the format limits it."""
CHUNK = 16 * 1024 * 1024
NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float64: "F64",
}
"""Precisions that are written, by their names in files."""
BITS = {
    name: bits
    for bits, names in {
        4: "F4",
        6: "F6_E2M3 F6_E3M2",
        8: "BOOL U8 I8 F8_E4M3 F8_E5M2 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ",
        16: "U16 I16 F16 BF16",
        32: "U32 I32 F32",
        64: "U64 I64 F64 C64",
    }.items()
    for name in names.split()
}
"""Of a number of each type that safetensors have."""


@dataclass(frozen=True)
class Entry:
    """A tensor in a file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    """Of its bytes, counted from the end of the table."""
    end: int


@dataclass(frozen=True)
class Table:
    """What a file says of its tensors."""

    entries: tuple[Entry, ...]
    metadata: Mapping[str, str] | None
    start: int
    """Where the bytes begin in the file."""


def files_of(folder: Path) -> dict[str, list[str]]:
    """Files of weights of a checkpoint and the names of the tensors in each.

    Raises:
        ValueError: no safetensors, an index that does not fit them, or a broken file; one sentence.
    """
    index = folder / INDEX
    if not index.is_file():
        if not (folder / SINGLE).is_file():
            other = sorted(p.name for p in folder.glob("*.bin"))
            note = f"; {other[0]} could run code and is not read" if other else ""
            raise ValueError(f"{folder}: expected {INDEX} or {SINGLE}, found neither{note}")
        return {SINGLE: [e.name for e in table_of(folder / SINGLE).entries]}
    try:
        listed = json.loads(index.read_text())["weight_map"]
        names = sorted({str(file) for file in listed.values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index}: expected a weight_map, got {error!r:.80}") from None
    found: dict[str, list[str]] = {}
    for name in names:
        if Path(name).name != name:
            raise ValueError(f"{index}: expected names of files beside it, got {name}")
        if not (folder / name).is_file():
            raise ValueError(f"{index}: expected {name} beside it, found no such file")
        found[name] = [e.name for e in table_of(folder / name).entries]
    for tensor, file in listed.items():
        if tensor not in found[file]:
            raise ValueError(f"{folder / file}: expected {tensor} in it, as {INDEX} has it")
    return found


def table_of(file: Path) -> Table:
    """The table of a file.

    Raises:
        ValueError: it is broken; one sentence.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
        (length,) = struct.unpack("<Q", head) if len(head) == 8 else (0,)
        if not 2 <= length <= min(MAX_TABLE, size - 8):
            raise ValueError(f"{file}: expected a safetensors file, got a table of {length} bytes")
        text = stream.read(length)
    try:
        rows = dict(json.loads(text))
        metadata = rows.pop("__metadata__", None)
        if not (metadata is None or _texts(metadata)):
            raise ValueError(f"expected texts as __metadata__, got {metadata!r:.40}")
        entries = [_entry(name, row) for name, row in rows.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file}: expected a safetensors table, got {error!r:.200}") from None
    end = 0
    for entry in sorted(entries, key=lambda e: (e.begin, e.end)):
        if entry.begin != end or entry.end < entry.begin:
            raise ValueError(
                f"{file}: expected bytes of {entry.name} from {end} on, got {entry.begin}"
            )
        end = entry.end
    if end != size - 8 - length:
        raise ValueError(
            f"{file}: expected {end} bytes of weights, got {size - 8 - length}: it was cut short "
            "or grew"
        )
    return Table(tuple(entries), metadata, 8 + length)


def _texts(node: Any) -> bool:
    return isinstance(node, dict) and all(isinstance(part, str) for part in node.values())


def _entry(name: str, row: Any) -> Entry:
    """A row of a table.

    Raises:
        ValueError: numbers that are none, or bytes that are not those of its type and shape.
        KeyError, TypeError: other things than a row has.
    """
    dtype, shape, places = row["dtype"], row["shape"], row["data_offsets"]
    numbers = [*shape, *places]
    if len(places) != 2 or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError(f"{name:.60}: expected whole numbers as shape and places, got {numbers}")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"{name:.60}: expected a type of numbers, got {dtype!r:.20}")
    begin, end = places
    if math.prod(shape) * BITS[dtype] != (end - begin) * 8:
        raise ValueError(f"{name:.60}: expected bytes of {dtype} {shape}, got {end - begin}")
    return Entry(name, dtype, tuple(shape), begin, end)


def raw(tensor: Tensor) -> tuple[str, tuple[int, ...], bytes]:
    """Type, shape and bytes of a tensor."""
    whole = tensor.detach().cpu().contiguous()
    data = whole.reshape(-1).view(torch.uint8).numpy().tobytes()
    return NAMES[whole.dtype], tuple(whole.shape), data


def rewrite(
    source: Path,
    target: Path,
    rename: Callable[[str], str | None],
    *,
    replaced: Mapping[str, Tensor] | None = None,
    added: Mapping[str, Tensor] | None = None,
) -> dict[str, int]:
    """Write a file's tensors under other names, in the order in which they are there.

    Args:
        source: a safetensors file.
        target: to write.
        rename: the name in the target, None to leave a tensor out.
        replaced: what takes the place of tensors, by their names in the target; in the precision
            that the source has.
        added: what comes after them.

    Returns:
        Bytes of each tensor written.

    Raises:
        ValueError: two tensors of one name, or one in place of a tensor of another shape.
    """
    table, swapped = table_of(source), replaced or {}
    rows: dict[str, dict[str, Any]] = {}
    parts: list[tuple[Entry, bytes | None]] = []
    sizes: dict[str, int] = {}
    for entry in table.entries:
        name = rename(entry.name)
        if name is None:
            continue
        if name in rows:
            raise ValueError(f"{source}: expected one tensor named {name}, got two")
        data = None
        if name in swapped:
            data = _as(swapped[name], entry, name)
        rows[name] = {"dtype": entry.dtype, "shape": list(entry.shape)}
        parts.append((entry, data))
        sizes[name] = entry.end - entry.begin
    names = list(sizes)
    order = sorted(range(len(parts)), key=lambda i: parts[i][0].begin)
    end = 0
    for i in order:
        rows[names[i]]["data_offsets"] = [end, end + sizes[names[i]]]
        end += sizes[names[i]]
    for name, tensor in (added or {}).items():
        dtype, shape, data = raw(tensor)
        rows[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + len(data)]}
        end, sizes[name] = end + len(data), len(data)
    with source.open("rb") as read, target.open("wb") as write:
        _write_table(write, rows, table.metadata)
        for i in order:
            entry, data = parts[i]
            write.writelines(_copied(read, table, entry) if data is None else [data])
        write.writelines(raw(tensor)[2] for tensor in (added or {}).values())
    return sizes


def _as(tensor: Tensor, entry: Entry, name: str) -> bytes:
    """The bytes of a tensor in the precision of the one that it replaces."""
    dtype = next((d for d, n in NAMES.items() if n == entry.dtype), None)
    if dtype is None or tuple(tensor.shape) != entry.shape:
        raise ValueError(
            f"{name}: expected {entry.dtype} {list(entry.shape)}, as in the file that it is "
            f"written into, got {list(tensor.shape)}"
        )
    return raw(tensor.to(dtype))[2]


def _write_table(
    stream: BinaryIO, rows: Mapping[str, Any], metadata: Mapping[str, str] | None
) -> None:
    """As the safetensors library writes it: without spaces but those that fill it to 8 bytes."""
    whole = ({} if metadata is None else {"__metadata__": dict(metadata)}) | dict(rows)
    text = json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    stream.write(struct.pack("<Q", len(text)) + text)


def _copied(stream: BinaryIO, table: Table, entry: Entry) -> Iterator[bytes]:
    stream.seek(table.start + entry.begin)
    left = entry.end - entry.begin
    while left:
        data = stream.read(min(CHUNK, left))
        if not data:
            raise ValueError(f"{stream.name}: it was cut short while it was read")
        left -= len(data)
        yield data
