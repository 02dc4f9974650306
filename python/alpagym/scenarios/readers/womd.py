"""Waymo Open Motion Dataset: TFRecord files of Scenario protos, read with protobuf alone.

Records may as well be tf.Examples, the dataset's other format: see `womd_example`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alpagym.scenarios.assemble import RawLight, RawScenario, RawTracks, assemble
from alpagym.scenarios.readers.tfrecord import looks_like_tfrecord, read_records
from alpagym.scenarios.road_map import RawElement
from alpagym.scenarios.scenario import AgentType, LightState, MapType, Scenario, ScenarioError
from alpagym.scenarios.units import MPH

NOMINAL_DT = 0.1
"""Time stamps jitter around this [s]."""
AGENT_TYPES = {
    1: AgentType.VEHICLE,
    2: AgentType.PEDESTRIAN,
    3: AgentType.CYCLIST,
    4: AgentType.OTHER,
}
LIGHT_STATES = {
    0: LightState.UNKNOWN,
    1: LightState.RED,
    2: LightState.YELLOW,
    3: LightState.GREEN,
    4: LightState.RED,
    5: LightState.YELLOW,
    6: LightState.GREEN,
    7: LightState.FLASHING_RED,
    8: LightState.FLASHING_YELLOW,
}
"""Our state for each of the dataset's; arrows count as what they show."""
_LINES = {"road_line": MapType.ROAD_LINE, "road_edge": MapType.ROAD_EDGE}
_POLYGONS = {
    "crosswalk": MapType.CROSSWALK,
    "speed_bump": MapType.SPEED_BUMP,
    "driveway": MapType.DRIVEWAY,
}


def sniff(head: bytes, path: Path) -> bool:
    """Whether the file is framed as TFRecord, or claims to be by its name (perhaps damaged)."""
    return looks_like_tfrecord(head) or path.suffix.lower().startswith(".tfrecord")


def read(path: Path) -> Iterator[Scenario | ScenarioError]:
    """Each scenario of a TFRecord file; see `Reader.read`."""
    try:
        from google.protobuf.message import DecodeError

        from alpagym.scenarios.readers import womd_example, womd_scenario_pb2
    except ImportError as error:
        raise ScenarioError(
            f"{path}: WOMD files need protobuf 4.25 or newer ({error}): pip install alpagym[womd]"
        ) from error

    for number, (_, data) in enumerate(read_records(path)):
        source = f"{path}" if number == 0 else f"{path}#{number}"
        name = path.stem if number == 0 else f"{path.stem}#{number}"
        try:
            if any(key in data for key in womd_example.KEYS):
                raw = womd_example.raw_scenario(data, source, name)
            else:
                proto = womd_scenario_pb2.Scenario()
                proto.ParseFromString(data)
                raw = _raw_scenario(proto, source, name)
            yield assemble(raw)
        except DecodeError as error:
            yield ScenarioError(f"{source}: the record is no WOMD Scenario proto ({error})")
        except ScenarioError as error:
            yield error


def _raw_scenario(proto: Any, source: str, default_id: str) -> RawScenario:
    if not proto.tracks:
        reason = "has no tracks" if proto.map_features else "is empty or no WOMD Scenario proto"
        raise ScenarioError(f"{source}: the record {reason}, so there is no ego to drive")
    tracks = _raw_tracks(proto, source)
    num_frames = tracks.valid.shape[1]
    if not proto.HasField("sdc_track_index") and len(proto.tracks) > 1:
        raise ScenarioError(f"{source}: no ego: the record has no sdc_track_index")
    return RawScenario(
        id=proto.scenario_id or default_id,
        source=source,
        dataset="womd",
        license="womd-nc",
        tracks=tracks,
        elements=[e for feature in proto.map_features if (e := _raw_element(feature)) is not None],
        lights=_raw_lights(proto.dynamic_map_states, num_frames),
        ego=proto.sdc_track_index,
        dt=frame_interval(np.array(proto.timestamps_seconds)),
        current_frame=proto.current_time_index if proto.HasField("current_time_index") else None,
    )


def frame_interval(stamps: np.ndarray) -> float:
    """Time between frames [s] from their time stamps [T], which may be NaN or absent."""
    known = np.flatnonzero(~np.isnan(stamps))
    if len(known) < 2:
        return NOMINAL_DT
    dt = float(np.median(np.diff(stamps[known]) / np.diff(known)))
    return NOMINAL_DT if abs(dt - NOMINAL_DT) < 0.002 else dt


def _raw_tracks(proto: Any, source: str) -> RawTracks:
    num_frames = len(proto.tracks[0].states)
    for i, track in enumerate(proto.tracks):
        if len(track.states) != num_frames:
            raise ScenarioError(
                f"{source}: track {i} has {len(track.states)} states, but track 0 has {num_frames}"
            )
    states = np.array(
        [
            (
                s.center_x, s.center_y, s.center_z, s.heading, s.velocity_x, s.velocity_y,
                s.length, s.width, s.height, s.valid,
            )
            for track in proto.tracks
            for s in track.states
        ],
        np.float64,
    ).reshape(len(proto.tracks), num_frames, 10)  # fmt: skip
    return RawTracks(
        xyz=states[..., 0:3],
        yaw=states[..., 3],
        velocity=states[..., 4:6],
        size=states[..., 6:9],
        valid=states[..., 9] > 0,
        type=np.array([AGENT_TYPES.get(t.object_type, AgentType.UNKNOWN) for t in proto.tracks]),
        id=np.array([t.id for t in proto.tracks], np.int64),
    )


def _points(points: Iterable[Any]) -> np.ndarray:
    """Map points as an array [m], float64 [n, 3]."""
    return np.array([(p.x, p.y, p.z) for p in points], np.float64).reshape(-1, 3)


def _raw_element(feature: Any) -> RawElement | None:
    kind = feature.WhichOneof("feature_data")
    if kind == "lane":
        lane = feature.lane
        return RawElement(
            MapType.LANE,
            feature.id,
            _points(lane.polyline),
            speed_limit=lane.speed_limit_mph * MPH if 0 < lane.speed_limit_mph < 200 else np.nan,
            successors=list(lane.exit_lanes),
            left=_longest_first(lane.left_neighbors),
            right=_longest_first(lane.right_neighbors),
        )
    if kind in _LINES:
        return RawElement(_LINES[kind], feature.id, _points(getattr(feature, kind).polyline))
    if kind in _POLYGONS:
        return RawElement(_POLYGONS[kind], feature.id, _points(getattr(feature, kind).polygon))
    if kind == "stop_sign":
        sign = feature.stop_sign
        return RawElement(
            MapType.STOP_SIGN, feature.id, _points([sign.position]), stop_lanes=list(sign.lane)
        )
    return None


def _longest_first(neighbors: Iterable[Any]) -> list[int]:
    """Ids of the neighbors, that which lies alongside for the most points first."""
    ordered = sorted(neighbors, key=lambda n: n.self_start_index - n.self_end_index)
    return [n.feature_id for n in ordered]


def _raw_lights(steps: Any, num_frames: int) -> list[RawLight]:
    """Lights by lane; steps in which one was not seen stay `ABSENT`."""
    lights: dict[int, RawLight] = {}
    for frame, step in enumerate(steps[:num_frames]):
        for seen in step.lane_states:
            light = lights.get(seen.lane)
            if light is None:
                has_place = seen.HasField("stop_point")
                xy = (
                    np.array([seen.stop_point.x, seen.stop_point.y])
                    if has_place
                    else np.full(2, np.nan)
                )
                light = lights[seen.lane] = RawLight(seen.lane, xy, np.zeros(num_frames, np.uint8))
            light.state[frame] = LIGHT_STATES.get(seen.state, LightState.UNKNOWN)
    return list(lights.values())
