"""Whether packed scenarios fit together: no index that the simulator uses is believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from alpagym.scenarios.bank import FACTS, POOLS, Bank
from alpagym.scenarios.scenario import ScenarioError
from alpagym.store.checks import checksum
from alpagym.store.shard import TEXTS

MAX_ROWS = 1 << 30


def check_index(
    place: str, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], *, near: bool
) -> None:
    """Check what a packed file says of its blocks.

    Args:
        place: the file, for messages.
        header: the parsed text of the file.
        arrays: all but the blocks.
        near: whether it has lists of what is near.

    Raises:
        ScenarioError: the first fault; one sentence with the file and the array.
    """
    count = len(arrays["sizes"]) if "sizes" in arrays and arrays["sizes"].ndim == 2 else 0
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {
        "sizes": ("<i4", (count, len(POOLS))),
        "sums": ("<i8", (count,)),
    }
    if near:
        wanted["near_limits"] = ("<f4", (3,))
    else:
        for name, (dtype, columns) in FACTS.items():
            wanted[name] = (
                "<i4" if dtype == "?" else dtype,
                (count, columns) if columns else (count,),
            )
        wanted |= {"dt": ("<f8", (count,)), "drives": ("<i4", (count,))}
        drives = arrays.get("drives")
        total = int(drives.sum(dtype=np.int64)) if drives is not None else 0
        kinds = {"drive_key": "<i8", "drive_ego": "<i4", "drive_track": "<i8"}
        kinds |= {"drive_num_egos": "<i4", "difficulty": "<f4"}
        wanted |= {name: (dtype, (total,)) for name, dtype in kinds.items()}
    for name in sorted(wanted.keys() ^ arrays.keys()):
        raise ScenarioError(f"{place}: {name:.80}: expected {', '.join(wanted)}")
    for name, (dtype, shape) in wanted.items():
        if arrays[name].dtype != np.dtype(dtype) or arrays[name].shape != shape:
            raise ScenarioError(
                f"{place}: {name}: expected {np.dtype(dtype)}{list(shape)}, "
                f"got {arrays[name].dtype}{list(arrays[name].shape)}"
            )
    sums = header.get("sums")
    for name, array in arrays.items():
        if not isinstance(sums, dict) or sums.get(name) != checksum(array):
            raise ScenarioError(
                f"{place}: {name}: does not add up to its checksum: bytes have changed"
            )
    sizes = arrays["sizes"]
    _expect(place, "sizes", count > 0 and ((sizes >= 0) & (sizes < MAX_ROWS)).all(1))
    if not near:
        _check_facts(place, header, arrays)


def _check_facts(place: str, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    size = {pool: arrays["sizes"][:, i].astype(np.int64) for i, pool in enumerate(POOLS)}
    frames, start = arrays["num_frames"].astype(np.int64), arrays["start_frame"]
    grid, rows = arrays["grid"], arrays["grid_rows"].astype(np.int64)
    drives, agents = arrays["drives"].astype(np.int64), size["agents"]
    fine = np.isfinite(grid).all(1)
    columns = np.where(fine & (np.abs(grid[:, 3]) < 2**20), grid[:, 3], 0).astype(np.int64)
    _expect(place, "start_frame", (start >= 0) & (start < frames))
    _expect(place, "num_frames", frames * agents == size["cells"])
    lit = arrays["light_frames"].astype(np.int64)
    _expect(place, "light_frames", (lit >= 1) & (lit * size["lights"] == size["signals"]))
    _expect(place, "grid", fine & (grid[:, 2] > 0) & (columns >= 1) & (columns == grid[:, 3]))
    _expect(place, "grid_rows", (rows >= 1) & (rows * columns == size["grid_cells"]))
    _expect(place, "drives", (drives >= 1) & (drives * agents == size["orders"]))
    of = np.repeat(agents, drives)
    ego, egos = arrays["drive_ego"], arrays["drive_num_egos"]
    _expect(place, "drive_ego", (ego >= 0) & (ego < of))
    _expect(place, "drive_num_egos", (egos >= 1) & (egos <= of))
    known = arrays["difficulty"]
    _expect(place, "difficulty", (known >= 0) & (known <= 1))
    _expect(place, "dt", (arrays["dt"] > 0) & np.isfinite(arrays["dt"]))
    told = header.get("scenarios")
    texts = isinstance(told, list) and len(told) == len(frames)
    if not texts or not all(
        isinstance(t, dict) and t.keys() == set(TEXTS) and all(type(x) is str for x in t.values())
        for t in told or []
    ):
        raise ScenarioError(f"{place}: header: scenarios: expected {', '.join(TEXTS)} of each")


def _expect(place: str, name: str, fits: Any) -> None:
    if not np.all(fits):
        raise ScenarioError(f"{place}: {name}: wrong for entry {int(np.argmin(fits))}")


def check_bank(bank: Bank, place_of: Callable[[int], str]) -> None:
    """Check what was copied into a bank, after `Bank.finish`.

    Args:
        bank: all of whose scenarios have been put in.
        place_of: the file and id of a scenario, for messages.

    Raises:
        ScenarioError: the first fault; one sentence.
    """
    size = {pool: bank.sizes[:, i] for i, pool in enumerate(POOLS)}
    first = {pool: bank.first[:, i] for i, pool in enumerate(POOLS)}
    arrays, num = bank.arrays, len(bank.sizes)
    own = int(size["agents"].sum())

    def expect(name: str, fits: np.ndarray) -> None:
        """Refuse the first scenario that does not fit."""
        if not fits.all():
            place = place_of(int(np.argmin(fits)))
            raise ScenarioError(f"{place}: {name}: points beyond what the scenario has")

    def within(name: str, values: np.ndarray, low: int, high: np.ndarray, pool: str) -> None:
        """Each scenario's values from `low` to below its `high`."""
        if len(values):
            owner = np.repeat(np.arange(num), size[pool])
            bad = owner[~((values >= low) & (values < high[owner]))]
            expect(name, ~np.isin(np.arange(num), bad))

    def adds_up(name: str, pool: str, into: str, skipped: int = 0, begin: int = 0) -> None:
        """Offsets grow inside each scenario, from where its share of a pool begins to its end."""
        offsets = arrays[name][skipped : skipped + int(size[pool].sum()) + 1]
        starts = begin + first[into]
        fits = offsets[first[pool]] == starts
        fits &= offsets[first[pool] + size[pool]] == starts + size[into]
        falls = offsets[1:] < offsets[:-1]
        if falls.any():
            at = int(np.argmax(falls))
            fits[np.searchsorted(first[pool] + size[pool], at, side="right")] = False
        expect(name, fits)

    within("ego_order", arrays["ego_order"], 0, size["agents"], "agents")
    within("id_rank", arrays["id_rank"], 0, size["agents"], "agents")
    for name, of, of_lanes in (
        ("route_start", "points", "lane_points"),
        ("stop_start", "stops", "lane_stops"),
        ("beside_start", "besides", "lane_besides"),
    ):
        adds_up(name, "agents", of)
        adds_up(name, "lanes", of_lanes, own, int(size[of].sum()))
    adds_up("cell_road", "grid_cells", "pieces")
    adds_up("cell_edge", "grid_cells", "edges")
    if bank.lanes:
        within("next_route", arrays["next_route"][:own], -1, size["lanes"], "agents")
        within("next_route", arrays["next_route"][own:], -1, size["lanes"], "lanes")
        lane, split = np.abs(arrays["beside"][:, 3]), int(size["besides"].sum())
        within("beside", lane[:split], 1, size["lanes"] + 1, "besides")
        within("beside", lane[split:], 1, size["lanes"] + 1, "lane_besides")
    split = int(size["stops"].sum())
    within("stop_light", arrays["stop_light"][:split], -2, size["lights"], "stops")
    within("stop_light", arrays["stop_light"][split:], -2, size["lights"], "lane_stops")
    for name, of, into in (
        ("road", "near_roads", "pieces"),
        ("lane", "near_lanes", "pieces"),
        ("edge", "near_edges", "edges"),
    ):
        adds_up(f"near_{name}_start", "lists", of)
        highest = _of_each(np.maximum, arrays[f"near_{name}"], first[of], size[of])
        expect(f"near_{name}", highest < size[into])
    cells = arrays["near_cell"], first["small_cells"], size["small_cells"]
    highest = _of_each(np.maximum, *cells)
    expect(
        "near_cell",
        (_of_each(np.minimum, *cells) >= -1) & (highest < first["lists"] + size["lists"]),
    )


def _of_each(
    extreme: np.ufunc, values: np.ndarray, first: np.ndarray, size: np.ndarray
) -> np.ndarray:
    """An extreme value of each scenario, -1 where it has none, int64 [N]."""
    found = np.full(len(first), -1, np.int64)
    for k in np.flatnonzero(size):
        found[k] = extreme.reduce(values[first[k] : first[k] + size[k]])
    return found
