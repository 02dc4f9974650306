"""Whether the arrays of a shard fit together: looked at before anything is made of them.

Everything is done for all scenarios of a shard at once: opening must cost microseconds a scenario.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from alpagym.scenarios.scenario import MapType, ScenarioError
from alpagym.store.layout import FACTS, FIELDS, POOLS, Field, mask_bytes

BLOCK = 1 << 18
"""Bytes looked at while they lie in the cache."""
MAX_AFTER = 1 << 20
"""Frames after the record that lights may repeat; nothing else bounds them where there is none."""
DT = (0.01, 1.0)
"""Time between frames [s]; as for readers."""


def checksum(array: np.ndarray) -> int:
    """Sum of the array's 64-bit words, modulo 2^64: any bit that flips changes it."""
    return _scanned(array.reshape(-1), None)[0]


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
    for field in FIELDS:
        _check_values(place, field, arrays[field.name], sums)
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


def _check_values(place: str, field: Field, array: np.ndarray, sums: Mapping[str, int]) -> None:
    found, low, high = _scanned(array.reshape(-1), field)
    _check_sum(place, field.name, found, sums)
    floor = -np.inf if field.low is None else field.low
    ceiling = np.inf if field.high is None else field.high
    if not (floor <= low and high <= ceiling):  # NaN compares false
        raise ScenarioError(
            f"{place}: {field.name}: expected values from {floor:g} to {ceiling:g}, "
            f"got {low:g} to {high:g}"
        )


def _scanned(flat: np.ndarray, field: Field | None) -> tuple[int, float, float]:
    """Sum of words, lowest and highest value where the field bounds them; one pass."""
    total, step = 0, BLOCK // flat.dtype.itemsize
    low = high = 0.0
    bounded = field is not None and (field.low is not None or field.high is not None)
    least, most = np.minimum.reduce, np.maximum.reduce
    if field is not None and field.unknown:
        least, most = np.fmin.reduce, np.fmax.reduce
    for first in range(0, len(flat), step):
        block = flat[first : first + step]
        raw = block.view(np.uint8)
        whole = len(raw) // 8 * 8
        total += int(np.add.reduce(raw[:whole].view(np.uint64)))
        total += int.from_bytes(raw[whole:].tobytes(), "little")
        if bounded:
            ends = float(least(block)), float(most(block))
            if first == 0:
                low, high = ends
            elif not (low <= ends[0] and ends[1] <= high):
                low, high = _lower(low, ends[0]), -_lower(-high, -ends[1])
    if field is not None and field.unknown and np.isnan(low):
        low = high = 0.0  # nothing is known
    return total % 2**64, low, high


def _lower(a: float, b: float) -> float:
    """The lower of two values; NaN if one of them is."""
    return a if a <= b or a != a else b


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
