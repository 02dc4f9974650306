"""Packed shards: what `scenarios.batch` makes of the scenarios of a shard, kept for streaming.

They lie in the hidden folder `.packed` beside the shard, are made of it alone, and may be deleted
at any time: who has opened them goes on with what they were. Blocks (`scenarios.bank`) are read
when they are wanted, never mapped: what a program holds of a store larger than memory is what it
has asked for. Lists of what is near, for CPUs, are files of their own, for a radius and a number
of road points.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alpagym import __version__, sim
from alpagym.config import SimConfig
from alpagym.scenarios.bank import FACTS, PARTS, POOLS, block_bytes, block_of, sizes_of
from alpagym.scenarios.batch import CELL, batch, ego_order, pack
from alpagym.scenarios.difficulty import difficulty
from alpagym.scenarios.egos import drives_of
from alpagym.scenarios.scenario import Scenario, ScenarioError
from alpagym.store import container
from alpagym.store.checks import checksum
from alpagym.store.kept import KeptFile
from alpagym.store.packed_checks import check_index
from alpagym.store.shard import SUFFIX, TEXTS, Shard

FOLDER = ".packed"
NEAR = ".near-"
"""In the name of a file of lists, before the suffix."""
VERSION = 1
"""Of what packing gives; files of another one are made anew."""
MAX_DRIVES = 32
"""Drives of a scenario that are kept at most, each with another ego."""
BLOCKS = "blocks"
"""The array that holds them; the only one of bytes, so that it comes last in the file."""


def packed_path(shard: Path) -> Path:
    """Where the packed form of a shard lies."""
    return shard.parent / FOLDER / shard.name


def near_path(shard: Path, config: SimConfig) -> Path:
    """Where its lists of what is near lie, for these observations."""
    name = shard.name.removesuffix(SUFFIX)
    served = f"{config.road_radius:g}-{config.num_road_points}"
    return shard.parent / FOLDER / f"{name}{NEAR}{served}{SUFFIX}"


@dataclass(frozen=True)
class Blocks:
    """A file of blocks, one for each scenario of a shard."""

    file: KeptFile
    header: dict[str, Any]
    arrays: dict[str, np.ndarray]
    """All but the blocks, in memory."""
    begin: np.ndarray
    """Where each block begins in the file, int64 [S]."""
    length: np.ndarray
    """Its bytes, int64 [S]."""

    @property
    def path(self) -> Path:
        return self.file.path

    def read(self, chosen: Sequence[int], scratch: np.ndarray) -> Iterator[np.ndarray]:
        """The block of each chosen scenario.

        It lies in `scratch` (uint8, as long as the longest) until the next is asked for.

        Raises:
            ScenarioError: a block is not what was written.
            OSError: the file cannot be read.
        """
        sums = self.arrays["sums"]
        with self.file.opened() as descriptor:
            for s in chosen:
                block = scratch[: self.length[s]]
                got = 0
                while got < len(block):
                    more = os.preadv(descriptor, [block[got:].data], int(self.begin[s]) + got)
                    if more <= 0:
                        raise ScenarioError(f"{self.path}: the file was truncated")
                    got += more
                if int(np.add.reduce(block.view("<i8"))) != sums[s]:
                    told = self.header["scenarios"][s] if "scenarios" in self.header else s
                    name = told["id"] if isinstance(told, dict) else told
                    raise ScenarioError(
                        f"{self.path}: scenario {name}: bytes have changed; delete the file, it is "
                        "made again"
                    )
                yield block


def pack_shard(path: Path) -> None:
    """Write the packed form of a shard, with the lane graph and all drives.

    Raises:
        ScenarioError: the shard is damaged.
        OSError: it cannot be read, or the folder cannot be written.
    """
    shard = Shard(path)
    rows: dict[str, list[Any]] = {name: [] for name in (*FACTS, "sizes", "dt", "drives")}
    drives: dict[str, list[Any]] = {name: [] for name in DRIVE_FACTS}
    blocks = []
    for scenario in shard:
        own = drives_of(scenario, MAX_DRIVES)
        arrays = pack(scenario, lanes=True)
        orders = [ego_order(drive) for drive in own]
        arrays["ego_order"] = np.stack([order for order, _ in orders])
        for name in FACTS:
            rows[name].append(arrays[name])
        rows["sizes"].append(sizes_of(arrays))
        rows["dt"].append(scenario.dt)
        rows["drives"].append(len(own))
        drives["drive_key"] += [drive.key for drive in own]
        drives["drive_ego"] += [drive.ego for drive in own]
        drives["drive_track"] += [int(drive.tracks.id[drive.ego]) for drive in own]
        drives["drive_num_egos"] += [count for _, count in orders]
        drives["difficulty"] += [difficulty(drive) for drive in own]
        blocks.append(block_of(arrays))
    arrays = {name: np.array(rows[name], _stored(dtype)) for name, (dtype, _) in FACTS.items()}
    arrays |= {name: np.array(values, DRIVE_FACTS[name]) for name, values in drives.items()}
    arrays |= {
        "sizes": np.array(rows["sizes"], np.int32).reshape(-1, len(POOLS)),
        "dt": np.array(rows["dt"], np.float64),
        "drives": np.array(rows["drives"], np.int32),
    }
    told = [{name: shard.told(i)[name] for name in TEXTS} for i in range(len(shard))]
    _write(packed_path(path), {"of": digest_of(path), "scenarios": told}, arrays, blocks)


DRIVE_FACTS = {
    "drive_key": "<i8",
    "drive_ego": "<i4",
    "drive_track": "<i8",
    "drive_num_egos": "<i4",
    "difficulty": "<f4",
}
"""Arrays with a row for each drive."""


def _stored(dtype: str) -> str:
    """Type in the file: nothing but blocks is kept as bytes."""
    return "<i4" if dtype == "?" else dtype


def near_config(config: SimConfig) -> SimConfig:
    """What lists for these observations depend on, and nothing else."""
    return SimConfig(road_radius=config.road_radius, num_road_points=config.num_road_points)


def near_limits(config: SimConfig) -> np.ndarray:
    """`Scenarios.near_limits` of lists for these observations, of maps with cells of `CELL`."""
    step = (config.road_radius + 0.25 * np.sqrt(2.0) * CELL) / 255
    return np.array([config.road_radius, config.num_road_points, step], np.float32)


def list_near(path: Path, config: SimConfig) -> None:
    """Write the lists of what is near each place of the maps of a shard (`sim.with_near`).

    Maps so large that their cells are longer than `CELL` get none.

    Raises:
        ScenarioError: the shard is damaged.
        OSError: it cannot be read, or the folder cannot be written.
    """
    shard = Shard(path)
    made = [_near_arrays(scenario, config) for scenario in shard]
    arrays = {
        "sizes": np.array([sizes_of(a, near=True) for a in made], np.int32),
        "near_limits": near_limits(config),
    }
    blocks = [block_of(a, near=True) for a in made]
    _write(near_path(path, config), {"of": digest_of(path)}, arrays, blocks)


def _near_arrays(scenario: Scenario, config: SimConfig) -> dict[str, np.ndarray]:
    packed = batch([scenario])
    listed = sim.with_near(packed, near_config(config))
    found = {n: t.numpy() for n, t in listed.tensors().items() if n.startswith("near_")}
    cells = 4 * (len(packed.cell_road) - 1)
    if float(packed.grid[0, 2]) != CELL or len(found["near_cell"]) != cells:
        found |= {name: array[:0] for name, array in found.items()}
        found |= {part.field: np.zeros(1, "<i4") for part in PARTS if part.near and part.counts}
        found["near_cell"] = np.full(cells, -1, np.int32)
    counted = {part.name: np.diff(found[part.field]) for part in PARTS if part.near and part.counts}
    return found | counted


def _write(
    path: Path,
    header: dict[str, Any],
    arrays: dict[str, np.ndarray],
    blocks: Sequence[np.ndarray],
) -> None:
    arrays["sums"] = np.array([np.add.reduce(b.view("<i8")) for b in blocks], np.int64)
    sums = {name: checksum(array) for name, array in sorted(arrays.items())}
    header = {"packed": VERSION, "converter": __version__, "sums": sums} | header
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(header, separators=(",", ":"))
    container.write(path, text, arrays | {BLOCKS: np.concatenate(blocks)})


def digest_of(shard: Path) -> str:
    """SHA-256 of what a shard's header says, which includes the sums of its arrays."""
    return hashlib.sha256(container.read(shard).text.encode()).hexdigest()


def open_packed(shard: Path) -> Blocks | None:
    """The packed form of a shard; None if there is none that fits the shard and this version.

    Raises:
        ScenarioError: it is damaged; one sentence.
        OSError: it or the shard cannot be read.
    """
    return _open(packed_path(shard), shard, near=False)


def open_near(shard: Path, config: SimConfig) -> Blocks | None:
    """The lists of a shard; None if there are none that serve these observations.

    Raises:
        ScenarioError: they are damaged; one sentence.
        OSError: they or the shard cannot be read.
    """
    blocks = _open(near_path(shard, config), shard, near=True)
    if blocks is None or not np.array_equal(blocks.arrays["near_limits"], near_limits(config)):
        return None
    return blocks


def _mapped(path: Path) -> tuple[KeptFile, container.Container]:
    """A file and what it holds, of one moment."""
    while True:
        file, mapped = KeptFile(path), container.read(path)
        if file.is_at(path):
            return file, mapped


def _open(path: Path, shard: Path, *, near: bool) -> Blocks | None:
    if not path.is_file():
        return None
    file, mapped = _mapped(path)
    header = container.parse_json(f"{path}: header", mapped.text)
    if not isinstance(header, dict) or header.get("packed") != VERSION:
        return None
    if header.get("of") != digest_of(shard):
        return None
    names = {name: array for name, array in mapped.arrays.items() if name != BLOCKS}
    raw = mapped.arrays.get(BLOCKS)
    if raw is None or raw.dtype != np.uint8 or raw.ndim != 1:
        raise ScenarioError(f"{path}: {BLOCKS}: expected bytes")
    arrays = {name: array.copy() for name, array in names.items()}
    check_index(str(path), header, arrays, near=near)
    length = block_bytes(arrays["sizes"].astype(np.int64), near=near)
    if int(length.sum()) != len(raw):
        raise ScenarioError(f"{path}: {BLOCKS}: expected {int(length.sum())} bytes, got {len(raw)}")
    begin = file.size - len(raw) + np.cumsum(length) - length
    return Blocks(file, header, arrays, begin, length)
