"""Safetensors files: written whole or not at all, mapped into memory, nothing in them believed.

The layout is that of https://github.com/huggingface/safetensors: 8 bytes with the length of a JSON
header, the header, and the tensors one after the other. Ours hold one text of their own in the
header, `MARK`, and beside it the SHA-256 of that text.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alpagym.atomic import write_atomically
from alpagym.scenarios.scenario import ScenarioError

MARK, DIGEST = "alpagym_store", "sha256"
MAX_HEADER = 16 << 20
"""A longer header is refused [bytes]: parsed JSON takes many times its length."""
DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Container:
    """A mapped file."""

    text: str
    """What the header says for us, not yet parsed."""
    arrays: dict[str, np.ndarray]
    """By name, views of the mapping: copied when written to, so the file stays as it is."""


def is_ours(head: bytes) -> bool:
    """Whether a file that begins with `head` is one that `write` has made."""
    return head[8:9] == b"{" and f'"{MARK}"'.encode() in head[:64]


def write(path: Path, text: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a file whole, or leave what was there; the same bytes for the same input.

    Raises:
        OSError: it cannot be written.
    """
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    digest = hashlib.sha256(text.encode()).hexdigest()
    header: dict[str, Any] = {"__metadata__": {MARK: text, DIGEST: digest}}
    end = 0
    for name in order:
        array = arrays[name]
        begin, end = end, end + array.nbytes
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    if len(encoded) > MAX_HEADER:
        raise ScenarioError(
            f"{path}: its header would take {len(encoded)} bytes, at most {MAX_HEADER} are read"
        )

    def write_whole(to: Path) -> None:
        with to.open("wb") as file:
            file.write(struct.pack("<Q", len(encoded)))
            file.write(encoded)
            for name in order:
                file.write(np.ascontiguousarray(arrays[name]).data)

    write_atomically(path, write_whole)


def read(path: Path) -> Container:
    """Map a file after checking that its header describes it to the byte.

    Raises:
        ScenarioError: it does not.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
    if size < 8:
        raise ScenarioError(f"{path}: header: the file is truncated at byte {size}")
    try:
        # Python's own mmap keeps a descriptor for as long as it lives: a store has thousands.
        mapped = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
    except (RuntimeError, UnicodeError) as error:
        reason = " ".join(str(error).split()).replace(f"<{path}> ", "")
        raise ScenarioError(f"{path}: cannot be mapped into memory ({reason:.100})") from error
    header, begin = _header(path, mapped)
    text = _own_text(path, header.pop("__metadata__", None))
    arrays: dict[str, np.ndarray] = {}
    end = 0
    for name, entry in header.items():
        dtype, shape, length = _described(path, name, entry, end)
        end += length
        if end > size - begin:
            raise ScenarioError(
                f"{path}: {name}: ends at byte {begin + end} of {size}: the file is truncated"
            )
        count = length // dtype.itemsize
        arrays[name] = np.frombuffer(mapped, dtype, count, begin + end - length).reshape(shape)
    if end != size - begin:
        raise ScenarioError(f"{path}: expected {begin + end} bytes by its header, got {size}")
    return Container(text, arrays)


def _header(path: Path, data: np.ndarray) -> tuple[dict[str, Any], int]:
    """The parsed header, and where the data begin."""
    size = len(data)
    (length,) = struct.unpack("<Q", data[:8].tobytes())
    if length > MAX_HEADER:
        raise ScenarioError(f"{path}: header: claims {length} bytes, at most {MAX_HEADER} are read")
    if length > size - 8:
        raise ScenarioError(f"{path}: header: claims {length} bytes, the file has {size}")
    header = parse_json(f"{path}: header", data[8 : 8 + length].tobytes())
    if not isinstance(header, dict):
        raise ScenarioError(f"{path}: header: expected an object, got {type(header).__name__}")
    return header, 8 + length


def parse_json(place: str, text: bytes | str) -> Any:
    """Strict JSON: no NaN, no infinity, nothing nested without end.

    Raises:
        ScenarioError: it is something else.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number of JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ScenarioError(f"{place}: not valid JSON ({reason.splitlines()[0]:.100})") from error


def _own_text(path: Path, metadata: Any) -> str:
    text, digest = (
        (metadata.get(MARK), metadata.get(DIGEST)) if isinstance(metadata, dict) else (None, None)
    )
    if not isinstance(text, str) or not isinstance(digest, str):
        raise ScenarioError(f"{path}: header: expected texts {MARK} and {DIGEST} in its metadata")
    if hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest() != digest:
        raise ScenarioError(
            f"{path}: header: {MARK} was changed: it does not have the {DIGEST} that stands there"
        )
    return text


def _described(path: Path, name: str, entry: Any, begin: int) -> tuple[np.dtype, list[int], int]:
    """Type, shape and length in bytes of an array that must begin at `begin`."""
    known = isinstance(entry, dict) and entry.keys() == {"dtype", "shape", "data_offsets"}
    if not known or entry["dtype"] not in list(DTYPES):
        raise ScenarioError(f"{path}: {name:.80}: not described as one of {', '.join(DTYPES)}")
    dtype, shape, offsets = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    for what, value in (("shape", shape), ("data_offsets", offsets)):
        counts = isinstance(value, list) and all(type(n) is int and 0 <= n < 2**48 for n in value)
        if not counts or len(value) > 3:
            raise ScenarioError(f"{path}: {name}: {what}: expected counts, got {value!s:.60}")
    length = dtype.itemsize
    for n in shape:
        length *= n
    if offsets != [begin, begin + length]:
        raise ScenarioError(
            f"{path}: {name}: data_offsets: expected {[begin, begin + length]} from the shape "
            f"{shape} and what lies before, got {offsets}"
        )
    return dtype, shape, length
