"""Rows of the parity table: nuPlan's closed-loop score."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alpagym.metrics.comfort import BOUNDS, comfort_series, is_comfortable, within_bounds
from alpagym.metrics.nuplan.aggregate import SCORES, by_type, final_score, totals
from alpagym.metrics.nuplan.closed_loop import ClosedLoop, closed_loop
from alpagym.metrics.nuplan.collisions import (
    Collisions,
    CollisionType,
    contacts,
    delta_velocity,
    faults,
    types,
)
from alpagym.metrics.nuplan.state import REAR_TO_CENTER, Ego, Tracks
from alpagym.metrics.nuplan.time_to_collision import LEAST, time_to_collision
from alpagym.metrics.polygon_map import PolygonMap
from alpagym.metrics.polygons import Polygons
from parity import nuplan_shapely
from parity.row import Row

NUPLAN = "nuPlan devkit e924167"
STEP = 0.1


def rows(golden: Path) -> list[Row]:
    folder = golden / "nuplan"
    table = _Table()
    _comfort(table, folder)
    _collision_pairs(table, folder)
    _ttc_single(table, folder)
    _closed_loop(table, folder)
    _aggregation(table, folder)
    return table.rows()


def independent_rows(data: Path | None, every: int = 1) -> list[Row]:
    return nuplan_shapely.rows(data, every)


class _Table:
    """Comparisons by metric, gathered over cases."""

    def __init__(self) -> None:
        self.errors: dict[str, list[np.ndarray]] = defaultdict(list)
        self.wrong: dict[str, list[np.ndarray]] = defaultdict(list)
        self.tolerance: dict[str, float] = {}

    def values(self, metric: str, ours: object, theirs: object, tolerance: float = 1e-6) -> None:
        """Numbers; equal infinities agree, a number and NaN or infinity do not."""
        a, b = np.atleast_1d(np.asarray(ours, float)), np.atleast_1d(np.asarray(theirs, float))
        both = np.isfinite(a) & np.isfinite(b)
        self.errors[metric].append(np.abs(a[both] - b[both]))
        self.wrong[metric].append(~both & ~((a == b) | (np.isnan(a) & np.isnan(b))))
        self.tolerance[metric] = tolerance

    def decisions(self, metric: str, ours: object, theirs: object) -> None:
        self.wrong[metric].append(np.atleast_1d(np.asarray(ours) != np.asarray(theirs)).ravel())

    def rows(self) -> list[Row]:
        result = []
        for metric, parts in self.wrong.items():
            errors = np.concatenate([e.ravel() for e in self.errors[metric]] or [np.zeros(0)])
            wrong = np.concatenate([p.ravel() for p in parts])
            result.append(
                Row(
                    f"nuplan.{metric}",
                    NUPLAN,
                    cases=len(wrong),
                    max_error=float(errors.max(initial=0.0)),
                    tolerance=self.tolerance.get(metric, 0.0),
                    wrong=int(wrong.sum()),
                )
            )
        return result


def lane_fields(entry: dict, blocks: Sequence[str]) -> dict[str, Any]:
    """Fields of a map of maps.json that tell of its lanes, and of these roadblocks."""
    lanes = entry["objects"]
    ids = [lane["id"] for lane in lanes]
    limits = [np.nan if lane["speed_limit"] is None else lane["speed_limit"] for lane in lanes]
    return {
        "ids": ids,
        "is_connector": np.array([lane["kind"] == "lane_connector" for lane in lanes]),
        "polygons": Polygons.of([np.array(lane["polygon"]) for lane in lanes]),
        "baselines": [np.array(lane["baseline"]) for lane in lanes],
        "outgoing": [np.array([ids.index(i) for i in lane["out"]], int) for lane in lanes],
        "roadblock": np.array(
            [blocks.index(b) if (b := lane["roadblock"]) in blocks else -1 for lane in lanes]
        ),
        "speed_limit": np.array(limits, float),
        "roadblocks": Polygons.of([np.array(entry["roadblocks"][name]) for name in blocks]),
    }


def polygon_map(entry: dict) -> PolygonMap:
    """A map of maps.json."""
    lanes, blocks = entry["objects"], list(entry["roadblocks"])
    connectors = {lane["roadblock"] for lane in lanes if lane["kind"] == "lane_connector"}
    return PolygonMap(
        **lane_fields(entry, blocks),
        roadblock_is_connector=np.array([name in connectors for name in blocks]),
        intersections=Polygons.of([np.array(entry["intersection"])]),
        drivable_areas=Polygons.of([np.array(entry["drivable_area"])]),
    )


def ego_of(states: np.ndarray) -> Ego:
    """From the columns of the set, [T, 9]."""
    pose, velocity, acceleration = states[:, :3], states[:, 3:5], states[:, 5:7]
    return Ego(pose, velocity, acceleration, states[:, 7], states[:, 8])


def tracks_of(states: np.ndarray, valid: np.ndarray | None = None) -> Tracks:
    """From the columns of the set, [T, K, 8]."""
    return Tracks(
        pose=states[..., :3],
        velocity=states[..., 3:5],
        size=states[..., 5:7],
        kind=states[..., 7].astype(int),
        valid=np.ones(states.shape[:2], bool) if valid is None else valid,
    )


def _comfort(table: _Table, folder: Path) -> None:
    data = dict(np.load(folder / "comfort.npz"))
    for i, n in enumerate(data["length"]):
        ego = ego_of(data["ego"][i, :n])
        series = comfort_series(
            ego.center_acceleration, ego.acceleration, ego.rear_axle[:, 2], STEP
        )
        within = within_bounds(series)
        for name in BOUNDS:
            table.values(f"comfort {name}", series[name], data[f"series_{name}"][i, :n])
            table.decisions(f"comfort {name} in bounds", within[name], data[f"within_{name}"][i])
        table.decisions("comfortable", is_comfortable(series), data["comfortable"][i])


def _collision_pairs(table: _Table, folder: Path) -> None:
    data = dict(np.load(folder / "collision_pairs.npz"))
    ego, tracks = ego_of(data["ego"]), tracks_of(data["track"][:, None])
    touching = contacts(ego, tracks)
    type = types(ego, tracks, touching)
    yes = np.ones(len(touching), bool)
    change = np.where(touching, delta_velocity(ego, tracks), np.nan)[:, 0]
    table.decisions("collides", touching[:, 0], data["collides"])
    table.decisions("collision type", type[:, 0], data["collision_type"])
    table.values("delta-v", change, data["delta_v"])
    table.decisions("at fault in lane", faults(type, yes)[:, 0], data["at_fault_in_lane"])
    out_of_lane = faults(type, ~yes)[:, 0]
    table.decisions("at fault out of lane", out_of_lane, data["at_fault_not_in_lane"])


def _ttc_single(table: _Table, folder: Path) -> None:
    data = dict(np.load(folder / "ttc_single.npz"))
    valid = np.arange(data["tracks"].shape[1]) < data["num_tracks"][:, None]
    ttc = time_to_collision(
        ego_of(data["ego"]),
        tracks_of(data["tracks"], valid),
        np.zeros(valid.shape, bool),
        data["in_common_or_connected_lane"],
        data["in_intersection"],
        data["at_fault_now"],
    )
    table.values("ttc", ttc, data["ttc"], 1e-9)
    table.decisions("ttc within bound", ttc > LEAST, data["within_bound"])


def scored(folder: Path) -> Iterable[tuple[int, PolygonMap, ClosedLoop]]:
    """Index, map and score of each closed_loop case."""
    data = dict(np.load(folder / "closed_loop.npz"))
    maps = [polygon_map(entry) for entry in json.loads((folder / "maps.json").read_text())]
    time = STEP * np.arange(data["ego"].shape[1])[:, None, None]
    for i, index in enumerate(data["map_index"]):
        tracks = np.repeat(data["tracks"][i][None], len(time), 0)
        tracks[..., :2] += time * tracks[..., 3:5]
        pose = data["expert"][i]
        ahead = np.stack([np.cos(pose[:, 2]), np.sin(pose[:, 2])], -1)
        expert = pose[:, :2] + REAR_TO_CENTER * ahead
        ego = ego_of(data["ego"][i])
        yield i, maps[index], closed_loop(ego, tracks_of(tracks), maps[index], expert, STEP)


def _closed_loop(table: _Table, folder: Path) -> None:
    data = dict(np.load(folder / "closed_loop.npz"))
    ours, finals = [], []
    for i, lanes, result in scored(folder):
        route = [_names(lanes, found) for found in result.route]
        corners = [[_names(lanes, found) for found in row] for row in result.corner_route]
        made = result.progress
        table.decisions("lane of the center", route, data["route_ids"][i])
        table.decisions("lanes of the corners", corners, data["corner_ids"][i])
        table.decisions(
            "in common or connected lane", result.in_lane, data["in_common_or_connected_lane"][i]
        )
        table.decisions(
            "corners on drivable area", result.on_drivable_area, data["corners_in_drivable_area"][i]
        )
        table.decisions("collision counts", _counts(result.collisions), data["collisions"][i])
        table.values("closed loop ttc", result.ttc, data["ttc"][i], 1e-9)
        table.values("overspeed", result.overspeed, data["overspeed"][i])
        table.values(
            "progress along lanes", result.direction, data["progress_along_driving_direction"][i]
        )
        table.values("progress", made.ego, data["ego_progress"][i])
        both = [made.expert_total, made.ego_total]
        table.values("total progress", both, data["expert_ego_total_progress"][i])
        for name in BOUNDS:
            table.values(f"closed loop {name}", result.comfort[name], data[f"series_{name}"][i])
        for name, theirs in zip(SCORES, data["scores"][i], strict=True):
            table.values(f"score {name}", result.scores[name], theirs)
        table.values("final score", result.final, data["final_score"][i])
        ours.append([result.scores[name] for name in SCORES])
        finals.append(result.final)
    stored = json.loads((folder / "closed_loop_aggregate.json").read_text())
    scores = np.array(ours)
    kinds = by_type([f"type{t}" for t in stored["scenario_type"]], scores)
    table.decisions("scenario types", sorted(kinds), sorted(stored["by_type"]))
    for kind, theirs in stored["by_type"].items():
        values = [*kinds[kind].sums.values(), kinds[kind].score, kinds[kind].num_scenarios]
        expected = [*(theirs[name] for name in SCORES), theirs["score"], theirs["num_scenarios"]]
        table.values("totals by type", values, expected)
    total, theirs = totals(scores), stored["final"]["final_score"]
    expected = [*(theirs[name] for name in SCORES), theirs["score"], theirs["num_scenarios"]]
    table.values("totals", [*total.means.values(), total.score, total.num_scenarios], expected)


def _names(lanes: PolygonMap, found: list[int]) -> str:
    return "|".join(lanes.ids[i] for i in found)


def _counts(collisions: Collisions) -> list[int]:
    hit = collisions.type != CollisionType.NONE
    first = int(hit.any(1).argmax()) if hit.any() else -1
    fault = int(collisions.at_fault.sum())
    kinds = [collisions.counts[name] for name in ("vru", "vehicle", "object")]
    return [int(hit.sum()), fault, *kinds, first]


def _aggregation(table: _Table, folder: Path) -> None:
    data = dict(np.load(folder / "aggregation.npz"))
    table.values("aggregation", final_score(data["scores"]), data["final_score"], 1e-12)
