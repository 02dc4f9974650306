"""Mutations of formats of one file: JSON, PufferDrive, WOMD, ScenarioNet, CommonRoad, the store."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np

import plugin_packages
import test_reader_commonroad as roads
import test_reader_pufferdrive as puffer
import test_reader_scenarionet as scenarionet_tests
from mutations import Mutate, as_json, draw, mutated, odd_tree, odd_xml
from scenario_factory import random_scenario
from scenario_files import json_scenario, proto_scenario, record_bytes
from womd_example_files import INTEGERS, example_of, serialize


def gpudrive(folder: Path) -> tuple[Path, Mutate]:
    return _json(folder / "x.json", as_json(json_scenario()))


def _json(path: Path, data: bytes) -> tuple[Path, Mutate]:
    """Three of four numbers change the tree, the others the bytes."""
    path.write_bytes(data)

    def mutate(number: int, rng: np.random.Generator) -> None:
        changed = mutated(data, number // 4, rng)
        path.write_bytes(as_json(odd_tree(json.loads(data), rng)) if number % 4 else changed)

    return path, mutate


def pufferdrive(folder: Path) -> tuple[Path, Mutate]:
    path = folder / "x.bin"
    whole = [puffer.bin_bytes(json_scenario(), layout) for layout in puffer.LAYOUTS]
    path.write_bytes(whole[0])

    def mutate(number: int, rng: np.random.Generator) -> None:
        data = bytearray(whole[number % 4])
        for _ in range(1 + number % 3):
            at = 4 * int(rng.integers(len(data) // 4))
            if number // 4 % 4 == 0:
                data[at + rng.integers(4)] ^= 1 << rng.integers(8)
            elif number // 4 % 4 == 1:
                odd = rng.choice([-1, 0, 2**31 - 1, 500, 2**20, 0x7FC00000, 0x7F800000])
                struct.pack_into("<i", data, at, odd)
            elif number // 4 % 4 == 2:
                data = data[:at] or data
            else:
                data[:at] = data[at : 2 * at]
        path.write_bytes(data)

    return path, mutate


def womd(folder: Path) -> tuple[Path, Mutate]:
    return _records(folder / "x.tfrecord", proto_scenario().SerializeToString())


def womd_example(folder: Path) -> tuple[Path, Mutate]:
    features = example_of(proto_scenario(), agents=3)
    path, on_bytes = _records(folder / "x.tfrecord", serialize(features))

    def mutate(number: int, rng: np.random.Generator) -> None:
        if number % 2:
            on_bytes(number // 2, rng)
        else:
            path.write_bytes(record_bytes(serialize(_odd_features(features, rng))))

    return path, mutate


def _odd_features(features: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Features with one of them gone, of another type, of another length or with an odd value."""
    features = dict(features)
    name = list(features)[rng.integers(len(features))]
    values = list(features[name])
    kind = rng.integers(5)
    if kind == 0:
        features.pop(name)
    elif kind == 1:
        features[name] = [b"words"] if not isinstance(values[0], bytes) else []
    elif kind == 2:
        features[name] = values * 40 if rng.random() < 0.5 else values[: rng.integers(len(values))]
    elif not isinstance(values[0], bytes):
        odd = [-1, 1e30, 2**62, -(2**63), 0, 3, float("nan"), float("inf")]
        whole = name.split("/")[-1] in INTEGERS
        for i in rng.integers(0, len(values), 3):
            values[i] = odd[rng.integers(6 if whole else 8)]
            values[i] = int(min(values[i], 2**63 - 1)) if whole else float(values[i])
        features[name] = values
    return features


def _records(path: Path, data: bytes) -> tuple[Path, Mutate]:
    """One number in five changes the framing; of the others the checksums fit what they change."""
    path.write_bytes(record_bytes(data))

    def mutate(number: int, rng: np.random.Generator) -> None:
        changed = bytearray(data)
        kind = number % 5
        if kind == 0:
            path.write_bytes(mutated(record_bytes(data), number // 5, rng))
            return
        if kind == 1:
            for at in rng.integers(len(data), size=1 + number % 7):
                changed[at] = int(rng.integers(256))
        elif kind == 2:
            del changed[int(rng.integers(len(data))) :]
        elif kind == 3:  # a part of the message again and again, lengths with it
            at, size = int(rng.integers(len(data))), int(rng.integers(1, 400))
            changed[at:at] = changed[at : at + size] * int(rng.choice([1, 20, 2000]))
        else:  # a length or number of many bytes
            at = int(rng.integers(len(data)))
            changed[at : at + 1] = draw(
                rng, [b"\xff" * 9 + b"\1", b"\xff\xff\xff\xff\7", b"\x80" * 40]
            )
        path.write_bytes(record_bytes(bytes(changed)))

    return path, mutate


ODD_ARRAYS = [
    None, -1, 10**18, "x", b"y", [], {}, [[]], {"a": {}}, float("nan"), (1, "2"), np.zeros(0),
    np.zeros((2, 0)), np.full((40, 3), np.inf), np.full(40, 1e300), np.array(["q"] * 40),
    np.zeros((1, 1, 1)),
]  # fmt: skip


def _overwritten(rng: np.random.Generator, data: bytes) -> bytes:
    i = int(rng.integers(0, len(data)))
    return data[:i] + rng.bytes(int(rng.integers(1, 20))) + data[i + int(rng.integers(0, 40)) :]


def _swapped(rng: np.random.Generator, data: bytes) -> bytes:
    """Another value somewhere in the tree."""
    record = pickle.loads(data)
    target, chosen = record, None
    while isinstance(target, dict) and target:
        chosen = target
        key = list(target)[int(rng.integers(len(target)))]
        target = target[key]
        if rng.random() < 0.15:
            break
    chosen[key] = ODD_ARRAYS[int(rng.integers(len(ODD_ARRAYS)))]
    return pickle.dumps(record, 4)


class _Code:
    """What a pickle runs when it is loaded by a loader that runs code."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        import os
        import shutil
        import subprocess

        evil = str(folder / "written")
        self.call = draw(rng, [
            (os.system, (f"touch {evil}",)), (eval, (f"open({evil!r}, 'w')",)),
            (exec, (f"open({evil!r}, 'w')",)), (open, (evil, "w")), (os.mkdir, (evil,)),
            (subprocess.Popen, (["touch", evil],)), (shutil.copy, ("/etc/passwd", evil)),
            (getattr, ("", "__class__")), (__import__, ("antigravity",)),
        ])  # fmt: skip

    def __reduce__(self) -> Any:
        return self.call


def scenarionet(folder: Path) -> tuple[Path, Mutate]:
    made = [scenarionet_tests.scenario(), scenarionet_tests.nuscenes()]
    return _pickles(folder / "sd_waymo_v1.2_0.pkl", made)


def _pickles(path: Path, records: list[dict]) -> tuple[Path, Mutate]:
    whole = [pickle.dumps(record, 4) for record in records]
    path.write_bytes(whole[0])

    def mutate(number: int, rng: np.random.Generator) -> None:
        data = whole[number // 5 % len(whole)]
        kind = number % 5
        if kind == 0:
            changed = mutated(data, int(rng.integers(4)), rng)
        elif kind == 1:
            changed = _overwritten(rng, data)
        elif kind == 2:
            changed = _swapped(rng, data)
        elif kind == 3:  # code somewhere in the tree
            record = pickle.loads(data)
            node, key = record, draw(rng, record)
            while isinstance(node[key], dict) and node[key] and rng.random() < 0.8:
                node, key = node[key], draw(rng, node[key])
            node[key] = _Code(path.parent, rng)
            changed = pickle.dumps(record, int(rng.integers(6)))
        else:  # instructions that call, or claim absurd lengths, before, within or after the rest
            hostile = draw(rng, scenarionet_tests.HOSTILE.values())
            at = draw(rng, [2, len(data) - 1, int(rng.integers(2, len(data)))])
            changed = data[:at] + hostile + data[at:]
        path.write_bytes(changed)

    return path, mutate


def commonroad(folder: Path) -> tuple[Path, Mutate]:
    path = folder / "x.xml"
    text = roads.document(
        roads.ROADS, roads.SIGNS, roads.LIGHT, roads.obstacle(7, 40.0, 10.0, frames=8),
        roads.STATIC, roads.problem(goal=roads.between("time", 3, 7)),
    )  # fmt: skip
    path.write_text(text)

    def mutate(number: int, rng: np.random.Generator) -> None:
        if number % 3:
            path.write_bytes(odd_xml(text, number, rng))
        else:
            path.write_bytes(mutated(text.encode(), number // 3, rng))

    return path, mutate


def store(folder: Path) -> tuple[Path, Mutate]:
    """Bytes changed, and headers and arrays changed by someone who knows about checksums."""
    from alpagym.store import container, layout
    from alpagym.store.checks import checksum
    from alpagym.store.shard import write_shard

    path = folder / "x.safetensors"
    scenarios = [random_scenario(seed, num_agents=4, frames=12) for seed in range(2)]
    write_shard(path, scenarios)
    data, text = path.read_bytes(), container.read(path).text
    whole = layout.joined(scenarios)

    def mutate(number: int, rng: np.random.Generator) -> None:
        if number % 3 == 0:
            path.write_bytes(mutated(data, number // 3, rng))
            return
        arrays = {name: array.copy() for name, array in whole.items()}
        own = json.loads(text)
        if number % 3 == 1:
            own = odd_tree(own, rng)
        else:
            name = draw(rng, [name for name in arrays if arrays[name].size])
            flat = arrays[name].reshape(-1).view(np.uint8)
            flat[rng.integers(0, len(flat), 3)] = rng.integers(0, 256, 3, np.uint8)
            own["sums"] = {name: checksum(array) for name, array in arrays.items()}
        path.unlink()
        container.write(path, json.dumps(own), arrays)

    return path, mutate


PLUGIN = """
import json
import numpy as np
from alpagym.scenarios.build import build_scenario
from alpagym.scenarios.road_map import RawElement
from alpagym.scenarios.scenario import MapType

def read(path):
    if path.suffix != ".drive":
        return
    for number, told in enumerate(json.loads(path.read_text())):
        elements = [
            RawElement(MapType(kind), k, np.array(points, float))
            for k, (kind, points) in enumerate(told.pop("elements"))
        ]
        for name in ("xy", "yaw", "velocity", "size"):
            told[name] = np.array(told[name], float)
        yield build_scenario(f"{path.stem}-{number}", path, elements=elements, **told)
"""
"""A reader of a user that believes everything: what it passes on or raises is what is tested."""


def plugin(folder: Path) -> tuple[Path, Mutate]:
    import sys

    from alpagym.scenarios.readers.plugins import plugins

    site = folder / "site"
    site.mkdir()
    (site / "believing.py").write_text(PLUGIN)
    plugin_packages.register(site, "believing", ["believing = believing:read"])
    sys.path.insert(0, str(site))
    plugins.cache_clear()
    sys.dont_write_bytecode = True
    t = np.arange(30.0)
    drives = [
        {
            "xy": np.stack([np.stack([t, 0 * t], 1), np.stack([t, 4 + 0 * t], 1)]).tolist(),
            "yaw": np.zeros((2, 30)).tolist(),
            "velocity": np.tile([10.0, 0.0], (2, 30, 1)).tolist(),
            "size": [[4.5, 1.9, 1.6], [4.5, 1.9, 1.6]],
            "dt": 0.1,
            "ids": [3, 4],
            "license": "own",
            "elements": [[0, [[-10, 0, 0], [50, 0, 0]]], [2, [[-10, -3, 0], [50, -3, 0]]]],
        }
    ]
    return _json(folder / "x.drive", json.dumps(drives).encode())


def export_gpudrive(folder: Path) -> tuple[Path, Mutate]:
    path = _exported(folder, "gpudrive")
    return _json(path, path.read_bytes())


def export_scenarionet(folder: Path) -> tuple[Path, Mutate]:
    path = _exported(folder, "scenarionet")
    return _pickles(path, [pickle.loads(path.read_bytes())])


def _exported(folder: Path, format: str) -> Path:
    """The file of a scenario, with its tag."""
    from alpagym.scenarios.export import export

    export([random_scenario(1, num_agents=4, frames=20)], folder, format)
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
