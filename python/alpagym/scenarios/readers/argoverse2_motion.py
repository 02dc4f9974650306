"""Argoverse 2 motion forecasting: `scenario_<id>.parquet` beside `log_map_archive_<id>.json`.

The table has one row for each track and time step (10 Hz, 50 steps of history and 60 of future).
It has neither heights nor box sizes. The devkit calls every position a box center (av2-api,
motion_forecasting/data_schema.py), but that of the recording car, track "AV", is its rear axle, as
in the other Argoverse data: where it turns, its course stays on its heading, while at a box center
the course leads by (distance to the axle) x (yaw rate) / speed. It is moved to the box center here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from alpagym.scenarios.assemble import RawScenario, RawTracks, assemble
from alpagym.scenarios.readers.argoverse2_map import find_map, read_map
from alpagym.scenarios.readers.argoverse2_tables import check_tracks, read_parquet, track_number
from alpagym.scenarios.scenario import AgentType, Scenario, ScenarioError

DT = 0.1
"""Time between steps [s]."""
MAX_STEPS = 2000
"""More steps than this are a data fault; the dataset has 110."""
EGO_TRACK = "AV"
EGO_SIZE = (4.877, 2.0, 1.473)
"""Length, width and height of the recording car, a Ford Fusion Hybrid, as the EGO_VEHICLE boxes of
the dataset's scenario-mining annotations give them [m]."""
EGO_REAR_AXLE = 1.339
"""How far its rear axle lies behind its box center [m]: estimated from the car's drawing (length
4.869, wheelbase 2.850) and lidar by py123d, get_av2_ford_fusion_hybrid_parameters."""
_VEHICLE = (AgentType.VEHICLE, (4.6, 1.9, 1.6))
_RIDER = (AgentType.CYCLIST, (1.9, 0.8, 1.7))
_THING = (AgentType.OTHER, (1.0, 1.0, 1.0))
_TYPES = {
    "vehicle": _VEHICLE,
    "bus": (AgentType.VEHICLE, (11.0, 2.9, 3.2)),
    "pedestrian": (AgentType.PEDESTRIAN, (0.7, 0.7, 1.75)),
    "cyclist": _RIDER,
    "motorcyclist": _RIDER,
    "riderless_bicycle": _RIDER,
    "static": _THING,
    "background": _THING,
    "construction": _THING,
    "unknown": (AgentType.UNKNOWN, (1.0, 1.0, 1.0)),
}
"""Our type and the box assumed for each of the dataset's types [m]."""
_COLUMNS = {
    "observed": int,
    "track_id": str,
    "object_type": str,
    "timestep": int,
    "position_x": float,
    "position_y": float,
    "heading": float,
    "velocity_x": float,
    "velocity_y": float,
    "scenario_id": str,
}


def sniff(head: bytes, path: Path) -> bool:
    """Whether the file is named as a scenario of the dataset; it may be damaged."""
    return path.suffix.lower() == ".parquet" and path.name.startswith("scenario_")


def part(path: Path) -> bool:
    """Whether the file is the map of a scenario that lies beside it."""
    is_map = path.name.startswith("log_map_archive_") and path.suffix == ".json"
    return is_map and any(path.parent.glob("scenario_*.parquet"))


def inputs(path: Path) -> list[Path]:
    """The map of a scenario."""
    return [_map_of(path)]


def read(path: Path) -> Iterator[Scenario | ScenarioError]:
    """The one scenario of a file; see `Reader.read`."""
    notes: list[str] = []
    table = read_parquet(path, _COLUMNS)
    if not len(table["timestep"]):
        raise ScenarioError(f"{path}: the table has no rows, so there is no ego to drive")
    names = sorted(set(table["scenario_id"]))
    if len(names) != 1 or not names[0]:
        raise ScenarioError(f"{path}: the rows must be of one scenario, got {len(names)} ids")
    elements = read_map(_map_of(path), notes)
    tracks, ego = _raw_tracks(table, path, notes)
    future = table["timestep"][table["observed"] == 0]  # none in the test split
    yield assemble(
        RawScenario(
            id=names[0],
            source=str(path),
            dataset="argoverse2",
            license="argoverse2-nc",
            tracks=tracks,
            elements=elements,
            lights=[],
            ego=ego,
            dt=DT,
            current_frame=int(future.min()) - 1 if len(future) else None,
            has_z=False,
            notes=notes,
        )
    )


def _map_of(path: Path) -> Path:
    return find_map(path.parent, path.stem.removeprefix("scenario_"))


def _raw_tracks(
    table: dict[str, np.ndarray], path: Path, notes: list[str]
) -> tuple[RawTracks, int]:
    """All tracks on one grid of steps, and the index of the ego."""
    step = table["timestep"]
    if step.min() < 0 or step.max() >= MAX_STEPS:
        raise ScenarioError(
            f"{path}: time steps must be 0 to {MAX_STEPS - 1}, got {step.min()} to {step.max()}"
        )
    names, first, track = np.unique(table["track_id"], return_index=True, return_inverse=True)
    if EGO_TRACK not in names:
        raise ScenarioError(f"{path}: no ego: none of the {len(names)} tracks is '{EGO_TRACK}'")
    num_frames = int(step.max()) + 1
    check_tracks(len(names), num_frames, path)
    valid = np.zeros((len(names), num_frames), bool)
    valid[track, step] = True
    if (repeated := len(step) - int(valid.sum())) > 0:
        notes.append(f"left out {repeated} rows that repeat a track and a time step")
    states = np.zeros((len(names), num_frames, 5))
    fields = ("position_x", "position_y", "heading", "velocity_x", "velocity_y")
    states[track, step] = np.stack([table[f] for f in fields], axis=1)

    kinds = [str(k).lower() for k in table["object_type"][first]]
    if unknown := sum(k not in _TYPES for k in kinds):
        notes.append(f"took {unknown} agents of unlisted types as unknown")
    types, sizes = zip(*(_TYPES.get(k, _TYPES["unknown"]) for k in kinds), strict=True)
    ego = int(np.flatnonzero(names == EGO_TRACK)[0])
    size = np.array(sizes, np.float64)
    size[ego] = EGO_SIZE
    _move_to_center(states[ego], valid[ego])
    notes.append("assumed the sizes of all boxes but the ego's by type: the source has none")
    notes.append("moved the ego from its rear axle to its box center")
    kind = np.array(types)
    kind[ego] = AgentType.VEHICLE
    tracks = RawTracks(
        xyz=np.pad(states[..., :2], ((0, 0), (0, 0), (0, 1))),
        yaw=states[..., 2],
        velocity=states[..., 3:5],
        size=size[:, None],
        valid=valid,
        type=kind,
        id=np.array([track_number(n) for n in names], np.int64),
    )
    return tracks, ego


def _move_to_center(states: np.ndarray, valid: np.ndarray) -> None:
    """Shift x, y, heading and velocity [T, 5] of a rear axle to the box center, in place."""
    frames = np.flatnonzero(valid)
    if not np.isfinite(states[frames]).all():
        return  # refused later, with track and frame
    yaw = np.unwrap(states[frames, 2])
    yaw_rate = np.gradient(yaw, frames * DT) if len(frames) > 1 else np.zeros(len(frames))
    ahead = np.stack([np.cos(yaw), np.sin(yaw)], axis=1)
    left = np.stack([-np.sin(yaw), np.cos(yaw)], axis=1)
    states[frames, :2] += EGO_REAR_AXLE * ahead
    states[frames, 3:5] += EGO_REAR_AXLE * yaw_rate[:, None] * left
