"""Mutations of the files of every format, by number: what `mutating` reads.

A subject writes its intact files into a folder and returns the path to load and a function that
puts mutation `number`, drawn from a generator, in their place. It starts from the intact files each
time, so every number stands for itself.
"""

from __future__ import annotations

import copy
import importlib
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Mutate = Callable[[int, np.random.Generator], None]
Subject = Callable[[Path], tuple[Path, Mutate]]

ODD_VALUES = [
    None, "x", -1, 0, 1e308, -1e-308, float("nan"), float("inf"), [], {}, [[]], True, 10**400,
    2**31, -(2**63), "-10000", [None], {"x": 1}, "\ud800", "a\0b", "a\nb", "../../x", "é" * 5000,
]  # fmt: skip
ODD_WORDS = [
    "", "nan", "-inf", "-1", "0", "1e9", "1e300", "1e-300", "text", "-999", "999", "1000", "2.5",
    "1e5", "199999", "99999999999999999999", "0x10", "1_000", "\u0663", "true", "../../x",
    "é" * 3000,
]  # fmt: skip


def mutated(data: bytes, number: int, rng: np.random.Generator) -> bytes:
    """Cut short, with flipped bits, a run of one byte, or a digit or sign put for another."""
    place = int(rng.integers(len(data)))
    if number % 4 == 0:
        return data[:place]
    changed = bytearray(data)
    if number % 4 == 1:
        for i in rng.integers(len(data), size=8):
            changed[i] ^= 1 << int(rng.integers(8))
    elif number % 4 == 2:
        changed[place : place + 16] = bytes([int(rng.integers(256))]) * 16
    else:
        digits = [i for i, b in enumerate(data) if b in b'0123456789[]{}":,'] or [place]
        for i in rng.choice(digits, size=20):
            changed[i] = b'0123456789[]{}":,'[int(rng.integers(17))]
    return bytes(changed)


def draw(rng: np.random.Generator, items: Any) -> Any:
    """One of the items, as it is."""
    items = list(items)
    return items[int(rng.integers(len(items)))]


def bytes_of_files(files: list[Path], number: int, rng: np.random.Generator) -> None:
    """Put a mutation of its bytes in place of one of the files."""
    target = draw(rng, files)
    target.write_bytes(mutated(target.read_bytes(), number, rng))


def odd_tree(value: Any, rng: np.random.Generator, odd: list[Any] = ODD_VALUES) -> Any:
    """A nested value with one to three parts replaced, removed, repeated or nested."""
    value = copy.deepcopy(value)
    for _ in range(int(rng.integers(1, 4))):
        node = value
        if not isinstance(node, dict | list) or not node:
            return draw(rng, odd)
        while True:
            key = draw(rng, node) if isinstance(node, dict) else int(rng.integers(len(node)))
            child = node[key]
            if not (isinstance(child, dict | list) and child) or rng.random() < 0.12:
                break
            node = child
        kind = int(rng.integers(8))
        if kind == 0:
            del node[key]
        elif kind == 1 and isinstance(child, list) and child:
            node[key] = child * int(rng.choice([2, 100, 3000]) if len(child) < 200 else 2)
        elif kind == 2:
            for _ in range(int(rng.choice([1, 50]))):
                child = [child]
            node[key] = child
        elif kind == 3 and _is_number(child):
            node[key] = child * float(rng.choice([-1, 1e3, 1e6, 1e12, 0.0]))
        else:
            node[key] = draw(rng, odd)
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not abs(value) > 1e300


def as_json(value: Any) -> bytes:
    """The value as JSON, lone surrogates escaped."""
    return json.dumps(value).encode()


def odd_xml(text: str, number: int, rng: np.random.Generator) -> bytes:
    """A document with odd attributes and texts, or elements removed, repeated, moved or nested."""
    root = ET.fromstring(text)
    parents = [(parent, child) for parent in root.iter() for child in parent]
    for _ in range(int(rng.integers(1, 4))):
        parent, child = draw(rng, parents)
        kind = int(rng.integers(8))
        if kind < 3 and child.attrib:
            child.set(draw(rng, child.attrib), draw(rng, ODD_WORDS))
        elif kind < 4 and child.attrib:
            del child.attrib[draw(rng, child.attrib)]
        elif kind < 5:
            for _ in range(int(rng.choice([1, 20, 300]))):
                parent.append(copy.copy(child))
        elif kind < 6 and child in list(parent):
            parent.remove(child)
        elif kind < 7:
            draw(rng, parents)[0].append(copy.deepcopy(child))
        else:
            child.text = draw(rng, ODD_WORDS)
    return ET.tostring(root)


def _opendrive(folder: Path) -> tuple[Path, Mutate]:
    """Half of the numbers begin with a crossing, the others with a straight road and a bend."""
    from mutations_opendrive import hostile, intact

    path = folder / "map.xodr"
    texts = intact(folder)
    path.write_text(texts[1])

    def mutate(number: int, rng: np.random.Generator) -> None:
        text = texts[0 if number % 6 == 0 else 1 + number % (len(texts) - 1)]
        kind = number // 6 % 4
        if kind == 0:
            path.write_bytes(mutated(text.encode(), int(rng.integers(4)), rng))
        elif kind == 1:
            path.write_bytes(hostile(rng))
        else:
            path.write_bytes(odd_xml(text, number, rng))

    return path, mutate


def _usdz(folder: Path) -> tuple[Path, Mutate]:
    from mutations_usdz import change, intact

    path = folder / "scene.usdz"
    members = intact(folder)
    change(path, members, -1, np.random.default_rng(0))
    return path, lambda number, rng: change(path, members, number, rng)


def _nuplan(folder: Path) -> tuple[Path, Mutate]:
    import nuplan_files
    from mutations_sqlite import change

    log = nuplan_files.write_dataset(folder)
    city = folder / "maps" / nuplan_files.LOCATION / nuplan_files.VERSION / "map.gpkg"
    whole = {path: path.read_bytes() for path in (log, city)}

    def mutate(number: int, rng: np.random.Generator) -> None:
        for path, data in whole.items():
            path.write_bytes(data)
        change((log, city)[number % 2], number // 2, rng)

    return log, mutate


def _of(module: str, name: str) -> Subject:
    """A subject of a module that is imported when it is wanted."""
    return lambda folder: getattr(importlib.import_module(module), name)(folder)


FILES = (
    *("gpudrive", "pufferdrive", "womd", "womd_example", "scenarionet", "commonroad", "store"),
    *("plugin", "export_gpudrive", "export_scenarionet"),
)
TABLES = ("argoverse2_motion", "argoverse2_sensor", "rds_hq", "clipgt")
SUBJECTS: dict[str, Subject] = {
    "nuplan": _nuplan,
    "opendrive": _opendrive,
    "usdz": _usdz,
    "asl": _of("mutations_asl", "subject"),
    **{name: _of("mutations_files", name) for name in FILES},
    **{name: _of("mutations_tables", name) for name in TABLES},
}
