"""ScenarioNet / MetaDrive pickles: one scenario a file, of WOMD, nuScenes, nuPlan, Argoverse 2.

The layout changed over the years; what a file has is told from its content:

- 2021: `tracks[id]["state"]` is one array [T, 10], the map is `map`, types are enumerations.
- to v0.3.0: `size` [T, 3], headings [T, 1], lanes and stop points of lights by frame.
- since: `length`, `width`, `height`, lights by lane, `metadata` with `sdc_id`.

Formats: `metadrive/scenario/scenario_description.py` and `scenarionet/converter` of those projects.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alpagym.scenarios.assemble import RawScenario, RawTracks, assemble
from alpagym.scenarios.readers import argoverse2_motion
from alpagym.scenarios.readers.export_tag import export_tag
from alpagym.scenarios.readers.safe_pickle import read_pickle
from alpagym.scenarios.readers.scenarionet_map import raw_elements, raw_lights
from alpagym.scenarios.readers.scenarionet_values import column, entries, name, number, table, text
from alpagym.scenarios.readers.womd import frame_interval
from alpagym.scenarios.scenario import AgentType, Scenario, ScenarioError

MAX_AGENTS = 2_000
MAX_CELLS = 300_000
"""Agents times frames of one file; a crowded drive of 20 s has 50 000."""
REAR_AXLE_TO_CENTER = 1.385
"""Of nuScenes's car, a Renault Zoe: 4.084 m long, 0.657 m of it behind the rear axle [m]."""
MAX_JUMP = 0.15
"""A step of the ego may differ so much from those around it [m]: 15 m/s^2 at 10 Hz."""
JUMP_FRAMES = 10
"""Where nuScenes's two sources of ego poses meet: so near to the end of the record."""
_DATASETS = {
    "waymo": ("womd", "womd-nc"),
    "nuscenes": ("nuscenes", "nuscenes-nc"),
    "nuplan": ("nuplan", "nuplan-nc"),
    "av2": ("argoverse2", "argoverse2-nc"),
}
"""Our name and license tag for each of ScenarioNet's."""
_AGENT_TYPES = {
    "VEHICLE": AgentType.VEHICLE,
    "PEDESTRIAN": AgentType.PEDESTRIAN,
    "CYCLIST": AgentType.CYCLIST,
    "OTHER": AgentType.OTHER,
    "TRAFFIC_CONE": AgentType.OTHER,
    "TRAFFIC_BARRIER": AgentType.OTHER,
    "TRAFFIC_OBJECT": AgentType.OTHER,
}
_LINE_STYLES = [
    "BROKEN_SINGLE_WHITE",
    "SOLID_SINGLE_WHITE",
    "SOLID_DOUBLE_WHITE",
    "BROKEN_SINGLE_YELLOW",
    "BROKEN_DOUBLE_YELLOW",
    "SOLID_SINGLE_YELLOW",
    "SOLID_DOUBLE_YELLOW",
    "PASSING_DOUBLE_YELLOW",
]
_ENUMS = {
    "AgentType": dict(enumerate(["UNSET", "VEHICLE", "PEDESTRIAN", "CYCLIST", "OTHER"])),
    "RoadLineType": {i: f"ROAD_LINE_{s}" for i, s in enumerate(["UNKNOWN", *_LINE_STYLES])},
    "RoadEdgeType": dict(
        enumerate(["ROAD_EDGE_UNKNOWN", "ROAD_EDGE_BOUNDARY", "ROAD_EDGE_MEDIAN"])
    ),
}
"""Classes of the 2021 layout, whose members count from 0 like the dataset's."""


def part(path: Path) -> bool:
    """Whether the file only lists the scenarios of its folder."""
    return re.fullmatch(r"dataset_(summary(_worker\d+)?|mapping)\.pkl", path.name) is not None


def sniff(head: bytes, path: Path) -> bool:
    """Whether the file begins like a pickle of protocol 2 to 5, or claims to be one by its name."""
    is_pickle = head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5" and head[2:3] in b"\x95}c"
    return (is_pickle or path.suffix.lower() in (".pkl", ".pickle")) and not part(path)


def read(path: Path) -> Iterator[Scenario | ScenarioError]:
    """The one scenario of a file; see `Reader.read`."""
    data = read_pickle(path, _ENUMS)
    features = ("map_features", "map")
    if not isinstance(data, dict) or "tracks" not in data or not any(k in data for k in features):
        raise ScenarioError(
            f"{path}: a pickle, but no ScenarioNet scenario: it lacks 'tracks' or 'map_features'"
        )
    yield assemble(_raw_scenario(data, path))


def _raw_scenario(data: dict[Any, Any], path: Path) -> RawScenario:
    notes: list[str] = []
    metadata = data.get("metadata")
    if not isinstance(metadata, dict):
        metadata = {}
    dataset, license_tag = _dataset(data, metadata, path)
    tracks = _raw_tracks(data["tracks"], path)
    ego = _find_ego(data, metadata, path)
    tag = export_tag(metadata, tracks.valid.shape[1], f"{path}")
    if tag is not None:  # a scenario of ours, which needs no repairs
        dataset, license_tag = tag.dataset, tag.license
    elif dataset == "nuscenes":
        _mend_nuscenes(tracks, ego, notes)
    elif dataset == "argoverse2":
        _mend_argoverse2(tracks, ego, notes)
    heights = tracks.xyz[..., 2][tracks.valid]
    elements, has_z = raw_elements(
        data.get("map_features", data.get("map")),
        dataset if tag is None else "",
        tag.has_z if tag is not None else dataset != "nuscenes" and bool(heights.any()),
        f"{path}",
        notes,
    )
    if not has_z:
        notes.append("has no heights")
    if text(metadata.get("coordinate")) == "metadrive":
        notes.append("is in MetaDrive's own frame, which older versions of it mirror")
    has_links = any(e.successors for e in elements)
    current = metadata.get("current_time_index")
    stamps = metadata.get("ts", data.get("ts", []))
    return RawScenario(
        id=_scenario_id(data, metadata, path),
        source=str(path),
        dataset=dataset,
        license=license_tag,
        tracks=tracks,
        elements=elements,
        lights=raw_lights(data.get("dynamic_map_states"), tracks.valid.shape[1], f"{path}", notes),
        ego=ego,
        dt=frame_interval(column(stamps, f"{path}: 'ts'")) if tag is None else tag.dt,
        current_frame=current if type(current) is int else None,
        start=None if tag is None else tag.start_frame,
        has_z=has_z,
        infer_links=not has_links and tag is None,
        notes=notes if tag is None else [*tag.notes, *notes],
    )


def _dataset(data: dict[Any, Any], metadata: dict[Any, Any], path: Path) -> tuple[str, str]:
    """Our name and license tag of the dataset; only WOMD's files were once without metadata."""
    given = metadata.get("dataset")
    if given is not None and not isinstance(given, str):
        raise ScenarioError(f"{path}: 'dataset' must be text, got {type(given).__name__}")
    if not given:
        version = text(data.get("version")).lower()
        given = next((d for d in _DATASETS if version.startswith(d)), "unknown")
        if not metadata or text(metadata.get("coordinate")) == "waymo":
            given = "waymo"
    return _DATASETS.get(given.lower(), (given.lower()[:40], "unknown"))


def _scenario_id(data: dict[Any, Any], metadata: dict[Any, Any], path: Path) -> str:
    for given in (data.get("id"), metadata.get("scenario_id"), metadata.get("id")):
        if isinstance(given, str):
            given = given.split("|")[0]  # WOMD's converter appends the file that it read
            if given and len(given) < 200 and given.isprintable():
                return given
    return path.stem


def _raw_tracks(tracks: Any, path: Path) -> RawTracks:
    columns: list[tuple[np.ndarray, ...]] = []
    types, ids = [], []
    for key, track in entries(tracks, f"{path}: 'tracks'", MAX_AGENTS).items():
        what = f"{path}: track {name(key)}"
        state = _states(track.get("state", track), what)
        frames = len(state[3])
        for part_name, values in zip(("position", "heading", "velocity"), state, strict=False):
            if len(values) != frames:
                raise ScenarioError(
                    f"{what}: '{part_name}' has {len(values)} frames, but 'valid' has {frames}"
                )
        if columns and frames != len(columns[0][3]):
            raise ScenarioError(
                f"{what} has {frames} frames, but the first track has {len(columns[0][3])}"
            )
        if frames * len(tracks) > MAX_CELLS:
            raise ScenarioError(
                f"{path}: {len(tracks)} tracks of {frames} frames, at most {MAX_CELLS} "
                "states are read"
            )
        columns.append(state)
        types.append(_AGENT_TYPES.get(text(track.get("type")).upper(), AgentType.UNKNOWN))
        ids.append(number(key))
    if not columns:
        raise ScenarioError(f"{path}: 'tracks' is empty, so there is no ego to drive")
    xyz, yaw, velocity, valid, size = (np.stack(c) for c in zip(*columns, strict=True))
    return RawTracks(xyz, yaw, velocity, size, valid, np.array(types), np.array(ids, np.int64))


def _states(state: Any, what: str) -> tuple[np.ndarray, ...]:
    """Positions [T, 3], headings [T], velocities [T, 2], valid [T] and sizes [T, 3] of a track."""
    if isinstance(state, np.ndarray):  # x y z length width height heading vx vy valid
        rows = table(state, (10,), f"{what}: 'state'")
        return rows[:, :3], rows[:, 6], rows[:, 7:9], rows[:, 9] > 0.5, rows[:, 3:6]
    if not isinstance(state, dict):
        raise ScenarioError(f"{what}: 'state' must be a dict, got {type(state).__name__}")
    for wanted in ("position", "heading", "valid"):
        if wanted not in state:
            raise ScenarioError(f"{what} has no '{wanted}'")
    valid = column(state["valid"], f"{what}: 'valid'") > 0.5
    frames = len(valid)
    xyz = table(state["position"], (2, 3), f"{what}: 'position'")
    if xyz.shape[1] == 2:
        xyz = np.column_stack([xyz, np.zeros(len(xyz))])
    velocity = np.full((frames, 2), np.nan)
    if state.get("velocity") is not None:
        velocity = table(state["velocity"], (2, 3), f"{what}: 'velocity'")[:, :2]
    size = np.full((frames, 3), np.nan)
    if state.get("size") is not None:
        given = table(state["size"], (3,), f"{what}: 'size'")
        size = given if len(given) == frames else size
    for k, side in enumerate(("length", "width", "height")):
        if state.get(side) is not None:
            values = column(state[side], f"{what}: '{side}'")
            if len(values) == frames:
                size[:, k] = values
    return xyz, column(state["heading"], f"{what}: 'heading'"), velocity, valid, size


def _find_ego(data: dict[Any, Any], metadata: dict[Any, Any], path: Path) -> int:
    """Index of the ego's track.

    `sdc_id` is a key of the tracks. So was `sdc_track_index` before there was metadata, and
    `sdc_index` in 2021; in metadata it is an index.
    """
    keys = {str(key): i for i, key in enumerate(data["tracks"])}
    given = [metadata.get("sdc_id"), data.get("sdc_track_index"), data.get("sdc_index")]
    named = [str(g) for g in given if isinstance(g, (str, int))]
    for key in named:
        if key in keys:
            return keys[key]
    index = metadata.get("sdc_track_index")
    if not named and type(index) is int and 0 <= index < len(keys):
        return index
    raise ScenarioError(
        f"{path}: no ego: "
        + (f"no track is named {name(named[0])!r}" if named else "the file names none")
    )


def _mend_nuscenes(tracks: RawTracks, ego: int, notes: list[str]) -> None:
    """Repair, in place, what the converter makes of nuScenes.

    Its ego has length and width exchanged and stands at the rear axle. The last of its poses come
    from the key frames, the others from a sensor whose clock is not quite theirs. Velocities are
    zero at the end of each stretch.
    """
    size = tracks.size[ego]
    if np.median(size[:, 0]) < np.median(size[:, 1]):
        tracks.size[ego] = size[:, [1, 0, 2]]
        notes.append("exchanged the ego's length and width")
    _mend_jump(tracks.xyz[ego], notes)
    _move_to_center(tracks, ego, REAR_AXLE_TO_CENTER, notes)
    tracks.velocity[:] = np.nan


def _mend_argoverse2(tracks: RawTracks, ego: int, notes: list[str]) -> None:
    """Put the ego's box, in place, where it is; the dataset has no sizes, the converter made some.

    Size and rear axle are those with which `argoverse2_motion` reads the same scenarios.
    """
    tracks.size[ego] = argoverse2_motion.EGO_SIZE
    _move_to_center(tracks, ego, argoverse2_motion.EGO_REAR_AXLE, notes)
    notes.append("box sizes but the ego's are the converter's guesses by type")


def _move_to_center(tracks: RawTracks, ego: int, distance: float, notes: list[str]) -> None:
    yaw = tracks.yaw[ego]
    tracks.xyz[ego, :, 0] += distance * np.cos(yaw)
    tracks.xyz[ego, :, 1] += distance * np.sin(yaw)
    tracks.velocity[ego] = np.nan
    notes.append(f"moved the ego {distance} m from its rear axle to its center")


def _mend_jump(xyz: np.ndarray, notes: list[str]) -> None:
    """Move, in place, the last positions [T, 3] of the ego so that they continue those before."""
    step = np.diff(xyz[:, :2], axis=0)
    first = max(1, len(step) - JUMP_FRAMES)
    for k in range(first, len(step)):
        beside = step[[k - 1, k + 1]] if k + 1 < len(step) else step[[k - 1]]
        jump = step[k] - beside.mean(0)
        if np.hypot(*jump) > MAX_JUMP and np.hypot(*(beside - beside[0]).T).max() < MAX_JUMP:
            xyz[k + 1 :, :2] -= jump
            notes.append(
                f"moved the ego's last {len(step) - k} positions by {np.hypot(*jump):.2f} m, "
                "where the source's clock changes"
            )
            return
