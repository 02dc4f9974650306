"""Routes against those of AlpaSim's generator, from the golden set `alpasim`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from alpagym.interop.alpasim.lanes import Lanes
from alpagym.interop.alpasim.route import RouteGenerator, arc_lengths, prepare_for_policy, remaining
from parity.row import Row

REFERENCE = "AlpaSim 3032e0c"
TOLERANCE = 1e-3
SPACING = 80.0 / 19.0


def rows(golden: Path) -> list[Row]:
    data = np.load(golden / "alpasim" / "route.npz")
    maps = [_lanes(data, m) for m in range(len(data["lane_map_off"]) - 1)]
    refused = wrong_counts = close_counts = 0
    errors: dict[str, list[float]] = {"stored path": [], "raw": [], "prepared": []}
    for case, kind in enumerate(data["case_kind"]):
        path = data["wp_xyz"][data["wp_off"][case] : data["wp_off"][case + 1]]
        lanes = maps[data["case_map"][case]] if kind == 1 else None
        offset = float(data["case_offset_m"][case])
        try:
            generator = RouteGenerator(path, lanes=lanes, start_offset=offset)
        except ValueError:
            refused += int(not data["case_error"][case])
            continue
        refused += int(data["case_error"][case])
        for q in np.flatnonzero(data["q_case"] == case):
            x, y, yaw, z = data["q_pose_xyyawz"][q].astype(np.float64)
            got = generator.generate(np.array([x, y, z]), yaw)
            count = int(data["q_n_raw"][q])
            want = data["q_raw"][q, :count]
            off = len(got) != count
            tolerated = abs(len(got) - count) == 1 and _close(generator.path, x, y, z)
            close_counts += int(tolerated)
            wrong_counts += int(off and not tolerated)
            both = min(len(got), count)
            errors["raw"].append(_largest(got[:both], want[:both]))
            if not off:
                errors["prepared"].append(_largest(prepare_for_policy(got), data["q_out"][q]))
        want = data["poly_xyz"][data["poly_off"][case] : data["poly_off"][case + 1]]
        errors["stored path"].append(_largest(generator.path, want))
    queries = len(data["q_case"])
    return [
        Row("alpasim.route fold-back", REFERENCE, len(data["case_error"]), wrong=refused),
        Row(
            "alpasim.route waypoints",
            REFERENCE,
            queries,
            flips=close_counts,
            wrong=wrong_counts,
        ),
        *(
            Row(f"alpasim.route {name}", REFERENCE, len(values), max(values), TOLERANCE)
            for name, values in errors.items()
        ),
    ]


def _lanes(data: np.lib.npyio.NpzFile, m: int) -> Lanes:
    first, last = data["lane_map_off"][m : m + 2]
    offsets = data["lane_pt_off"]
    links = data["link_from_to"][data["link_map_off"][m] : data["link_map_off"][m + 1]]
    return Lanes(
        [
            data["lane_center_xyz"][offsets[k] : offsets[k + 1]].astype(np.float64)
            for k in range(first, last)
        ],
        [[int(b) for a, b in links if a == k] for k in range(last - first)],
    )


def _close(path: np.ndarray, x: float, y: float, z: float) -> bool:
    """Whether the path ends within the tolerance of where one more waypoint would lie."""
    ahead = remaining(path, np.array([x, y, z], np.float32))
    length = float(arc_lengths(ahead)[-1]) if len(ahead) else 0.0
    return abs(length - SPACING * round(length / SPACING)) < TOLERANCE


def _largest(got: np.ndarray, want: np.ndarray) -> float:
    """Largest distance [m]; infinity where shapes or NaN differ."""
    if got.shape != want.shape or (np.isnan(got) != np.isnan(want)).any():
        return float("inf")
    apart = np.linalg.norm(got.astype(np.float64) - want, axis=-1)
    return float(np.nanmax(apart, initial=0.0))
