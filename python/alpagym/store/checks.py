"""Whether the arrays of a shard fit together: looked at before anything is made of them.

Everything is done for all scenarios of a shard at once: opening must cost microseconds a scenario.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from alpagym import _core
from alpagym.scenarios.scenario import MapType, ScenarioError
from alpagym.store.layout import FACTS, FIELDS, POOLS, Field, mask_bytes

MAX_AFTER = 1 << 20
"""Frames after the record that lights may repeat; nothing else bounds them where there is none."""
MIN_FOR_THREADS = 16 << 20
"""Fewer bytes are looked at sooner than threads start."""
MAX_THREADS = 4
"""More read no faster than memory gives."""
DT = (0.01, 1.0)
"""Time between frames [s]; as for readers."""


def checksum(array: np.ndarray) -> int:
    """Sum of the array's 64-bit words, modulo 2^64: any bit that flips changes it."""
    return _core.scan(array.reshape(-1).view(np.uint8), 0, 255, False)[0]


def check_arrays(place: str, arrays: Mapping[str, np.ndarray], sums: Mapping[str, int]) -> None:
    """Check every type, size, value, offset and index of a shard.

    Args:
        place: the file, for messages.
        arrays: by name, as `layout.joined` makes them.
        sums: what `checksum` gave for each when they were written; none to leave that out.

    Raises:
        ScenarioError: the first fault; one sentence with the file and the array.
    """
    offsets, frames = _check_pools(place, arrays)
    _check_facts(place, arrays, sums)
    _check_all_values(place, arrays, sums)
    _check_starts(place, arrays, offsets, frames)
    _check_ragged(place, arrays, offsets)
    _check_indices(place, arrays, offsets)


def _check_pools(place: str, arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Types and lengths of everything; returns `offsets` [N + 1, pools] and `frames`, int64 [N]."""
    names = {"offsets", *FACTS, *(field.name for field in FIELDS)}
    for name in sorted(names ^ arrays.keys()):
        told = "is missing" if name in names else "is no array of this schema"
        raise ScenarioError(f"{place}: {name:.80}: {told}")
    offsets = arrays["offsets"]
    if offsets.ndim != 2:
        raise ScenarioError(f"{place}: offsets: expected 2 dimensions, got {offsets.ndim}")
    count = len(offsets) - 1
    _expect(place, "offsets", offsets, "<i8", (max(count, 1) + 1, len(POOLS)))
    for name, (dtype, columns) in FACTS.items():
        _expect(place, name, arrays[name], dtype, (count, columns) if columns else (count,))
    if (offsets[0] != 0).any():
        raise ScenarioError(f"{place}: offsets: expected to begin with 0")
    if (offsets < 0).any() or (np.diff(offsets, axis=0) < 0).any():
        raise ScenarioError(f"{place}: offsets: expected to grow from row to row")
    for field in FIELDS:
        rows = int(offsets[-1, POOLS.index(field.pool)]) + count * field.more
        _expect(place, field.name, arrays[field.name], field.dtype, (rows, *field.shape))

    share = dict(zip(POOLS, np.diff(offsets, axis=0).T, strict=True))
    frames = arrays["frames"].astype(np.int64)
    after = arrays["frames_after"].astype(np.int64)
    _expect_all(place, "frames", (frames >= 1) & (frames <= np.maximum(share["cells"], 1)))
    _expect_all(place, "frames_after", (after >= -1) & (after <= MAX_AFTER))
    for pool, wanted in (
        ("cells", share["agents"] * frames),
        ("mask_bytes", share["agents"] * mask_bytes(frames)),
        ("light_cells", share["lights"] * frames),
        ("after_cells", share["lights"] * np.maximum(after, 0)),
    ):
        _expect_all(place, f"offsets: {pool}", share[pool] == wanted)
    return offsets, frames


def _expect(place: str, name: str, array: np.ndarray, dtype: str, shape: tuple[int, ...]) -> None:
    if array.dtype != np.dtype(dtype) or array.shape != shape:
        raise ScenarioError(
            f"{place}: {name}: expected {np.dtype(dtype)}{list(shape)}, "
            f"got {array.dtype}{list(array.shape)}"
        )


def _expect_all(place: str, name: str, fits: np.ndarray) -> None:
    """Refuse the first scenario that does not fit."""
    if not fits.all():
        raise ScenarioError(f"{place}: {name}: wrong for scenario {int(np.argmin(fits))}")


def _check_facts(place: str, arrays: Mapping[str, np.ndarray], sums: Mapping[str, int]) -> None:
    for name in ("offsets", *FACTS):
        _check_sum(place, name, checksum(arrays[name]), sums)
    _expect_all(place, "origin", np.isfinite(arrays["origin"]).all(1))
    _expect_all(place, "dt", (arrays["dt"] >= DT[0]) & (arrays["dt"] <= DT[1]))
    _expect_all(place, "has_z", arrays["has_z"] <= 1)


def _check_sum(place: str, name: str, found: int, sums: Mapping[str, int]) -> None:
    if name in sums and sums[name] != found:
        raise ScenarioError(f"{place}: {name}: does not add up to its checksum: bytes have changed")


def _check_all_values(
    place: str, arrays: Mapping[str, np.ndarray], sums: Mapping[str, int]
) -> None:
    """Look at every byte of `FIELDS`, those of a large shard side by side."""
    flat = {field.name: arrays[field.name].reshape(-1) for field in FIELDS}
    threads = min(torch.get_num_threads(), MAX_THREADS)
    if threads > 1 and sum(array.nbytes for array in flat.values()) >= MIN_FOR_THREADS:
        largest_first = sorted(FIELDS, key=lambda field: -flat[field.name].nbytes)
        with ThreadPoolExecutor(threads) as pool:
            scans = pool.map(lambda field: _scanned(field, flat[field.name]), largest_first)
            found = {field.name: scan for field, scan in zip(largest_first, scans, strict=True)}
    else:
        found = {field.name: _scanned(field, flat[field.name]) for field in FIELDS}
    for field in FIELDS:
        total, fits = found[field.name]
        _check_sum(place, field.name, total, sums)
        if not fits:
            low, high = _limits(field)
            values = flat[field.name]
            least, most = np.min(values), np.max(values)
            if field.unknown:
                least, most = np.fmin.reduce(values), np.fmax.reduce(values)
            raise ScenarioError(
                f"{place}: {field.name}: expected values from {low:g} to {high:g}, "
                f"got {least:g} to {most:g}"
            )


def _scanned(field: Field, flat: np.ndarray) -> tuple[int, bool]:
    """Sum of words, and whether all values are within the limits of the field."""
    low, high = _limits(field)
    if low == -np.inf and high == np.inf:
        return checksum(flat), True
    return _core.scan(flat, low, high, field.unknown)


def _limits(field: Field) -> tuple[float, float]:
    return (
        -np.inf if field.low is None else field.low,
        np.inf if field.high is None else field.high,
    )


def _check_starts(
    place: str, arrays: Mapping[str, np.ndarray], offsets: np.ndarray, frames: np.ndarray
) -> None:
    """Each scenario has an ego, and that is there when the episode starts."""
    agents = np.diff(offsets[:, POOLS.index("agents")])
    ego, start = arrays["ego"].astype(np.int64), arrays["start_frame"].astype(np.int64)
    _expect_all(place, "ego", (ego >= 0) & (ego < agents))
    _expect_all(place, "start_frame", (start >= 0) & (start < frames))
    byte = offsets[:-1, POOLS.index("mask_bytes")] + ego * mask_bytes(frames) + start // 8
    bit = arrays["tracks.valid"][byte] >> (7 - start % 8)
    _expect_all(place, "tracks.valid of the ego at start_frame", (bit & 1).astype(bool))


def _check_ragged(place: str, arrays: Mapping[str, np.ndarray], offsets: np.ndarray) -> None:
    """Offsets inside scenarios begin at 0, never fall, and end where what they cut ends."""
    for name, of, into, least in (
        ("map.offsets", "elements", "points", 1),
        ("map.successor_offsets", "elements", "links", 0),
        ("routes.offsets", "agents", "route_points", 0),
        ("routes.stop_offsets", "agents", "stops", 0),
    ):
        values = arrays[name]
        first = offsets[:-1, POOLS.index(of)] + np.arange(len(offsets) - 1)
        last = offsets[1:, POOLS.index(of)] + np.arange(len(offsets) - 1)
        inside = np.ones(len(values), bool)
        inside[last] = False  # the step from there leads to another scenario
        if (np.diff(values)[inside[:-1]] < least).any():
            raise ScenarioError(f"{place}: {name}: expected to grow inside a scenario")
        fits = (values[first] == 0) & (values[last] == np.diff(offsets[:, POOLS.index(into)]))
        _expect_all(place, name, fits)


def _check_indices(place: str, arrays: Mapping[str, np.ndarray], offsets: np.ndarray) -> None:
    """What points at map elements or lights points at some of the same scenario."""
    share = dict(zip(POOLS, np.diff(offsets, axis=0).T, strict=True))
    for name, pool, into in (
        ("map.successors", "links", "elements"),
        ("map.left_neighbor", "elements", "elements"),
        ("map.right_neighbor", "elements", "elements"),
        ("lights.lane", "lights", "elements"),
        ("routes.stop_light", "stops", "lights"),
    ):
        limit = np.repeat(share[into], share[pool])
        if (arrays[name] >= limit).any():
            raise ScenarioError(f"{place}: {name}: points beyond the {into} of its scenario")
    lanes = arrays["map.type"] == MapType.LANE
    size = np.concatenate([np.diff(arrays["map.offsets"]), [0]])
    points = size[np.arange(len(lanes)) + np.repeat(np.arange(len(offsets) - 1), share["elements"])]
    if (points[lanes] < 2).any():
        raise ScenarioError(f"{place}: map.offsets: a lane has fewer than 2 points")
    of = np.repeat(offsets[:-1, POOLS.index("elements")], share["lights"])
    lit = arrays["lights.lane"]
    if not lanes[(of + lit)[lit >= 0]].all():
        raise ScenarioError(f"{place}: lights.lane: a light controls an element that is no lane")
