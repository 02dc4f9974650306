"""Packed scenarios: each a block of bytes, many of them a bank whose tensors are `Scenarios`.

A block holds the arrays of one scenario (`PARTS`) one after the other, each from a multiple of 8
bytes on. How long they are is told apart from it: rows by pool of `POOLS`. A bank is one piece of
memory into which blocks are copied part by part; offsets are the running sums of what was copied.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from alpagym.scenarios.scenario import ScenarioError
from alpagym.types import Scenarios

HUGE = 16 << 20
"""Banks of as many bytes are large."""
ALIGNED = 64
"""Every tensor of a bank begins at a multiple of so many bytes."""


@dataclass(frozen=True)
class Part:
    """One array of a scenario, and where it goes."""

    name: str
    dtype: str
    pool: str
    """That counts its rows."""
    columns: int = 0
    """Of a row; 0 for a number."""
    into: str = ""
    """Field of `Scenarios`, where it is not called like the part."""
    counts: bool = False
    """Whether the field holds offsets, and the part what they grow by."""
    near: bool = False
    """Whether it is of the lists of what is near, which are a block of their own."""

    @property
    def field(self) -> str:
        return self.into or self.name

    @property
    def row(self) -> int:
        """Bytes of a row."""
        return np.dtype(self.dtype).itemsize * max(self.columns, 1)


def _routes(prefix: str, routes: str) -> tuple[Part, ...]:
    """The agents' own routes, or the lane routes, which follow them in the same fields."""
    points, besides, stops = (f"{prefix}{pool}" for pool in ("points", "besides", "stops"))
    columns = (
        *(("route_count", "<i4", routes, 0, "route_start", True),),
        *(("stop_count", "<i4", routes, 0, "stop_start", True),),
        *(("beside_count", "<i4", routes, 0, "beside_start", True),),
        *(("next_route", "<i4", routes, 0), ("next_shift", "<f4", routes, 0)),
        *(("route", "<f4", points, 4), ("pace", "<f4", points, 0), ("beside", "<f4", besides, 4)),
        *(("stop_s", "<f4", stops, 0), ("stop_light", "<i4", stops, 0)),
    )
    return tuple(
        Part(f"{prefix}{name}", dtype, pool, width, *(into or (name,)))
        for name, dtype, pool, width, *into in columns
    )


PARTS = (
    Part("agent", "<f4", "agents", 4),
    Part("type", "u1", "agents"),
    Part("id_rank", "<i4", "agents"),
    Part("ego_order", "<i4", "agents"),
    Part("log_length", "<f4", "agents"),
    Part("log", "<f4", "cells", 4),
    Part("log_z", "<f4", "cells"),
    Part("log_valid", "?", "cells"),
    *_routes("", "agents"),
    *_routes("lane_", "lanes"),
    Part("light_xy", "<f4", "lights", 2),
    Part("light_state", "u1", "signals"),
    Part("road_count", "<i4", "grid_cells", 0, "cell_road", True),
    Part("edge_count", "<i4", "grid_cells", 0, "cell_edge", True),
    Part("road", "<f4", "pieces", 8),
    Part("edge", "<f4", "edges", 8),
    Part("near_cell", "<i4", "small_cells", near=True),
    Part("near_level", "<f4", "lists", 2, near=True),
    Part("near_road_count", "<i4", "lists", 0, "near_road_start", True, near=True),
    Part("near_lane_count", "<i4", "lists", 0, "near_lane_start", True, near=True),
    Part("near_edge_count", "<i4", "lists", 0, "near_edge_start", True, near=True),
    Part("near_road", "<u2", "near_roads", near=True),
    Part("near_step", "u1", "near_roads", near=True),
    Part("near_lane", "<u2", "near_lanes", near=True),
    Part("near_edge", "<u2", "near_edges", near=True),
)
POOLS = tuple(dict.fromkeys(["orders", *(part.pool for part in PARTS)]))
"""What sizes count. `orders` is agents times drives: a block has an `ego_order` for each drive of
its scenario, of which a bank takes one."""
LANES = tuple(POOLS.index(p) for p in ("besides", "lanes", "lane_points", "lane_besides"))
LANES += (POOLS.index("lane_stops"),)
"""Pools that stay out of a bank without the lane graph."""
FACTS: dict[str, tuple[str, int]] = {
    "key": ("<i8", 0),
    "num_frames": ("<i4", 0),
    "start_frame": ("<i4", 0),
    "light_frames": ("<i4", 0),
    "has_z": ("?", 0),
    "num_egos": ("<i4", 0),
    "grid": ("<f4", 4),
    "grid_rows": ("<i4", 0),
}
"""Fields with a row for each scenario: type and columns."""
OFFSETS = tuple(dict.fromkeys(part.field for part in PARTS if part.counts))
"""Fields whose parts are counts."""
STARTS = {
    "agent_start": ("agents", 1),
    "log_start": ("cells", 0),
    "light_start": ("lights", 1),
    "lane_start": ("lanes", 1),
    "signal_start": ("signals", 0),
    "cell_start": ("grid_cells", 0),
}
"""Fields with the offset of each scenario in a pool, and how many more: the end or not."""
NEAR_LIMITS = ("<f4", 3)


def host_memory(size: int) -> Tensor:
    """Memory for a bank, uint8; a large one in huge pages where the system has any.

    Worlds read maps here and there, and small pages would have to be looked up each time.
    """
    if size < HUGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(size, dtype=torch.uint8)
    pages = mmap.mmap(-1, size)
    with contextlib.suppress(OSError):  # a kernel without them
        pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=torch.uint8)


def padded(length: np.ndarray) -> np.ndarray:
    """Bytes that arrays of these lengths take in a block."""
    return (length + 7) // 8 * 8


def in_blocks(sizes: np.ndarray) -> np.ndarray:
    """Bytes of each part in the blocks of scenarios with these sizes, int64 [N, parts]."""
    pools = [POOLS.index("orders" if p.name == "ego_order" else p.pool) for p in PARTS]
    return sizes[..., pools] * [part.row for part in PARTS]


def block_bytes(sizes: np.ndarray, *, near: bool = False) -> np.ndarray:
    """Lengths of the blocks, or of those with lists of what is near, int64 [N]."""
    return padded(in_blocks(sizes))[..., [part.near == near for part in PARTS]].sum(-1)


def block_of(arrays: Mapping[str, np.ndarray], *, near: bool = False) -> np.ndarray:
    """The block of a scenario, uint8; `arrays` has its parts by name."""
    pieces = []
    for part in PARTS:
        if part.near == near:
            array = arrays[part.name].astype(part.dtype, copy=False)
            raw = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
            pieces += [raw, np.zeros(-len(raw) % 8, np.uint8)]
    return np.concatenate(pieces)


def sizes_of(arrays: Mapping[str, np.ndarray], *, near: bool = False) -> np.ndarray:
    """Rows of the scenario's parts by pool, int64 [pools]; 0 for pools of the other block."""
    sizes = np.zeros(len(POOLS), np.int64)
    for part in PARTS:
        if part.near == near and part.name != "ego_order":
            sizes[POOLS.index(part.pool)] = len(arrays[part.name])
    if not near:
        sizes[POOLS.index("orders")] = arrays["ego_order"].size
    return sizes


def bank_bytes(sizes: np.ndarray) -> np.ndarray:
    """Memory that each scenario takes in a bank, int64 [N]; for a bank also `BANK_BYTES`."""
    rows = sum(sizes[..., POOLS.index(part.pool)] * part.row for part in PARTS)
    facts = sum(np.dtype(dtype).itemsize * max(columns, 1) for dtype, columns in FACTS.values())
    return np.asarray(rows + facts + 4 * len(STARTS))


_FIELDS = [field.name for field in fields(Scenarios)]
BANK_BYTES = 2 * ALIGNED * len(_FIELDS)
"""Memory of a bank beside its scenarios', at most."""


class Bank:
    """Memory for some scenarios, laid out for their sizes, to be filled block by block."""

    def __init__(
        self,
        sizes: np.ndarray,
        facts: Mapping[str, np.ndarray],
        *,
        lanes: bool = True,
        drive: np.ndarray | None = None,
        near_limits: Sequence[float] | None = None,
        memory: Tensor | None = None,
    ) -> None:
        """Lay out; nothing is copied but `facts`.

        Args:
            sizes: of each scenario, int64 [N, pools].
            facts: `FACTS` by name, [N, ...].
            lanes: whether the lane graph is taken.
            drive: which `ego_order` of its block each scenario takes, int [N]; the first of all
                if not given.
            near_limits: of the lists of what is near; without them there are none.
            memory: host memory, uint8, `bank_bytes(sizes).sum() + BANK_BYTES` of it; its own if not
                given.

        Raises:
            ScenarioError: no scenarios, or too many rows for 32-bit offsets.
        """
        if not len(sizes):
            raise ScenarioError("batch: expected at least one scenario, got none")
        source = np.array(sizes, np.int64)
        if near_limits is None:
            source[:, [POOLS.index(part.pool) for part in PARTS if part.near]] = 0
        self.sizes = source.copy()
        self.lanes = lanes
        if not lanes:
            self.sizes[:, LANES] = 0
        ends = np.cumsum(self.sizes, 0)
        self.first = ends - self.sizes
        """Where each scenario begins in each pool, int64 [N, pools]."""
        total = ends[-1]
        if max(total[POOLS.index(part.pool)] for part in PARTS) > np.iinfo(np.int32).max:
            raise ScenarioError(
                f"batch: expected fewer than 2^31 cells, got {total.max()}: load fewer scenarios"
            )
        self.arrays: dict[str, np.ndarray] = {}
        self._places = self._lay_out(total, memory)
        for name in FACTS:
            self.arrays[name][:] = facts[name]
        for name, (pool, more) in STARTS.items():
            column = POOLS.index(pool)
            self.arrays[name][: len(sizes)] = self.first[:, column]
            self.arrays[name][len(sizes) : len(sizes) + more] = total[column]
        if near_limits is not None:
            self.arrays["near_limits"][:] = near_limits
        self._prepare(source, np.zeros(len(sizes), np.int64) if drive is None else drive)

    def _lay_out(self, total: np.ndarray, memory: Tensor | None) -> dict[str, int]:
        """Take memory for every field; returns where each part begins in it [bytes]."""
        shapes: dict[str, tuple[str, int, int]] = {}
        count = len(self.sizes)
        for name, (dtype, columns) in FACTS.items():
            shapes[name] = (dtype, count, columns)
        for name, (_, more) in STARTS.items():
            shapes[name] = ("<i4", count + more, 0)
        shapes["near_limits"] = (NEAR_LIMITS[0], NEAR_LIMITS[1], 0)
        inside: dict[str, int] = {}
        for part in PARTS:
            dtype, rows, columns = shapes.get(part.field, (part.dtype, int(part.counts), 0))
            inside[part.name] = rows * part.row
            shapes[part.field] = (dtype, rows + int(total[POOLS.index(part.pool)]), part.columns)
        begin: dict[str, int] = {}
        end = 0
        for name in _FIELDS:
            dtype, rows, columns = shapes[name]
            begin[name] = end
            length = rows * max(columns, 1) * np.dtype(dtype).itemsize
            end += -(-length // ALIGNED) * ALIGNED
        self.num_bytes = end
        self.memory = host_memory(end) if memory is None else memory
        if len(self.memory) < end:
            raise ScenarioError(f"bank: expected {end} bytes of memory, got {len(self.memory)}")
        self._shapes = shapes
        self._begin = begin
        raw = self._raw = self.memory.numpy()
        for name, (dtype, rows, columns) in shapes.items():
            length = rows * max(columns, 1) * np.dtype(dtype).itemsize
            flat = raw[begin[name] : begin[name] + length].view(dtype)
            self.arrays[name] = flat.reshape(rows, columns) if columns else flat
        for name in OFFSETS:
            self.arrays[name][0] = 0
        self.arrays["near_limits"][:] = 0.0
        return {part.name: begin[part.field] + inside[part.name] for part in PARTS}

    def _prepare(self, source: np.ndarray, drive: np.ndarray) -> None:
        """Where parts of each scenario lie in its blocks and in the bank, int64 [N, parts]."""
        lengths = in_blocks(source)
        self._copies: dict[bool, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        for near in (False, True):
            chosen = [i for i, part in enumerate(PARTS) if part.near == near]
            spans = padded(lengths[:, chosen])
            offset = np.cumsum(spans, 1) - spans
            rows = np.array([PARTS[i].row for i in chosen])
            pools = [POOLS.index(PARTS[i].pool) for i in chosen]
            if not near:
                order = [PARTS[i].name for i in chosen].index("ego_order")
                offset[:, order] += drive * self.sizes[:, POOLS.index("agents")] * rows[order]
            begin = self.first[:, pools] * rows + [self._places[PARTS[i].name] for i in chosen]
            self._copies[near] = begin, begin + self.sizes[:, pools] * rows, offset

    def put(self, k: int, block: np.ndarray, *, near: bool = False) -> None:
        """Copy scenario `k` in from its block, or its lists from the block that has them."""
        raw = self._raw
        copies = (places[k].tolist() for places in self._copies[near])
        for begin, end, offset in zip(*copies, strict=True):
            if end > begin:
                raw[begin:end] = block[offset : offset + end - begin]
        if near:
            first, size = self.first[k], self.sizes[k]
            cells = POOLS.index("small_cells")
            own = self.arrays["near_cell"][first[cells] : first[cells] + size[cells]]
            shift = ~(own >> 31)  # all bits where there is a list, none where there is not
            shift &= np.int32(first[POOLS.index("lists")])
            own += shift

    def finish(self) -> Scenarios:
        """Sum up the offsets, and give everything as tensors on the host: views of `memory`."""
        if not self.lanes:
            for name, value in (("next_route", -1), ("next_shift", 0.0), ("beside_start", 0)):
                self.arrays[name][:] = value
        for name in OFFSETS:
            grown = self.arrays[name][1:]
            np.cumsum(grown, out=grown)
        return self.tensors(self.memory)

    def tensors(self, memory: Tensor) -> Scenarios:
        """The fields as views of `memory`, which holds what the bank's own does."""
        found = {}
        for name in _FIELDS:
            dtype, rows, columns = self._shapes[name]
            length = rows * max(columns, 1) * np.dtype(dtype).itemsize
            flat = memory[self._begin[name] : self._begin[name] + length].view(_TORCH[dtype])
            found[name] = flat.view(rows, columns) if columns else flat
        return Scenarios(**found)


_TORCH = {
    "<i8": torch.int64,
    "<i4": torch.int32,
    "<f4": torch.float32,
    "<u2": torch.uint16,
    "u1": torch.uint8,
    "?": torch.bool,
}
