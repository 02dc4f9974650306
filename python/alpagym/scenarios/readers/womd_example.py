"""Waymo Open Motion Dataset: tf.Example records, read with protobuf alone.

A tf.Example holds flat lists of fixed length. Its map is one list of points sampled every 0.5 m,
each with the id of its element and the direction to the next point, which is zero at the last one.
It lacks the lane graph, neighbors and speed limits. Its slots for lights hold other lanes at other
times.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from alpagym.scenarios.assemble import RawLight, RawScenario, RawTracks
from alpagym.scenarios.readers.gpudrive_json import MAP_CODES
from alpagym.scenarios.readers.womd import AGENT_TYPES, LIGHT_STATES, frame_interval
from alpagym.scenarios.road_map import RawElement
from alpagym.scenarios.scenario import AgentType, LightState, ScenarioError

KEYS = (b"roadgraph_samples/", b"state/current/", b"scenario/id")
"""Names of features; a record that holds one of them is a tf.Example of this dataset."""
MOMENTS = ("past", "current", "future")
MAX_BYTES = 1 << 24
"""A longer record is a data fault; those of the dataset have 1 to 2 MB."""
MAX_FEATURES = 1000
"""More named lists than this are a data fault; records of the dataset have 55."""
MAX_AGENTS, MAX_FRAMES, MAX_POINTS, MAX_ELEMENTS, MAX_SLOTS = 256, 250, 200_000, 3000, 512
"""More than this is a data fault; the dataset has 128, 91, 20 000 or 30 000, some 300 and 16."""
MAX_ID = 1 << 53
"""Ids beyond this are data faults: a list of floats cannot hold them."""
SAME_POINT, SAME_LINE = 0.01, 1.0
"""Two points this near are one; this near, they are neighbors on a sampled line [m]."""
ALONG = 0.7
"""Cosine between the direction at a point and the step to one that continues its line."""
FIRST_POLYGON_CODE = 17
"""Map codes from this on are points and polygons."""

Features = dict[str, Any]


def raw_scenario(data: bytes, source: str, default_id: str) -> RawScenario:
    """What one record says.

    Args:
        data: a serialized tf.Example.
        source: for messages.
        default_id: of the scenario, where the record names none.

    Raises:
        ScenarioError: if the record is damaged, or lists in it are absent, of another type, of
            lengths that do not match, or implausibly long.
    """
    notes = ["the tf.Example format has no lane graph, neighbors or speed limits"]
    features = _parse(data, source)
    agents = len(_numbers(features, "state/current/x", source))
    if not agents:
        raise ScenarioError(f"{source}: 'state/current/x' names no agents, so there is no ego")
    frames = {moment: _num_frames(features, moment, agents, source) for moment in MOMENTS}
    tracks, stamps = _raw_tracks(features, agents, frames, source)
    seen = np.flatnonzero(tracks.valid.any(0))
    num_frames = tracks.valid.shape[1]
    last = int(seen[-1]) + 1 if len(seen) else num_frames
    if last < num_frames:
        notes.append(f"left out the last {num_frames - last} frames, in which no agent is valid")
        tracks.xyz, tracks.yaw, tracks.velocity, tracks.size, tracks.valid = (
            a[:, :last]
            for a in (tracks.xyz, tracks.yaw, tracks.velocity, tracks.size, tracks.valid)
        )
    if tracks.valid.any(1).all():
        notes.append(f"all {agents} slots for agents are taken, so there may have been more agents")
    if any(name.startswith("path_samples/") for name in features):
        notes.append("left out its sampled paths of the ego")
    lights = _raw_lights(features, frames, source)
    for light in lights:
        light.state = light.state[:last]
    return RawScenario(
        id=_scenario_id(features) or default_id,
        source=source,
        dataset="womd",
        license="womd-nc",
        tracks=tracks,
        elements=_raw_elements(features, source, notes),
        lights=[light for light in lights if light.state.any()],
        ego=_ego(features, agents, source),
        dt=frame_interval(_common_stamps(stamps[:, :last], tracks.valid)),
        current_frame=frames["past"],
        infer_links=True,
        notes=notes,
    )


def _parse(data: bytes, source: str) -> Features:
    if len(data) > MAX_BYTES:
        raise ScenarioError(
            f"{source}: the tf.Example has {len(data)} bytes, at most {MAX_BYTES} are plausible"
        )
    from google.protobuf.message import DecodeError

    from alpagym.scenarios.readers import womd_example_pb2

    example = womd_example_pb2.Example()
    try:
        example.ParseFromString(data)
    except DecodeError as error:
        raise ScenarioError(f"{source}: the record is a damaged tf.Example ({error})") from error
    entries = example.features.feature
    if len(entries) > MAX_FEATURES:
        raise ScenarioError(
            f"{source}: the tf.Example has {len(entries)} features, "
            f"at most {MAX_FEATURES} are plausible"
        )
    return {entry.key.decode(errors="replace"): entry.value for entry in entries}


def _numbers(features: Features, name: str, source: str, count: int | None = None) -> np.ndarray:
    """A list of `count` numbers, or of as many as the record has, float64 [n]."""
    if name not in features:
        raise ScenarioError(f"{source}: the tf.Example has no feature '{name}'")
    kind = features[name].WhichOneof("kind")
    if kind not in ("float_list", "int64_list"):
        raise ScenarioError(f"{source}: feature '{name}' must be numbers, got {kind}")
    values = getattr(features[name], kind).value
    limit = 3 * MAX_POINTS if count is None else count
    if len(values) > limit or (count is not None and len(values) < count):
        expected = f"at most {limit} are plausible" if count is None else f"not {count}"
        raise ScenarioError(f"{source}: feature '{name}' has {len(values)} values, {expected}")
    return np.array(values, np.float64)


def _scenario_id(features: Features) -> str:
    kind = features["scenario/id"].bytes_list.value if "scenario/id" in features else []
    text = kind[0][:100].decode(errors="replace") if len(kind) else ""
    return text if text.isprintable() else ""


def _num_frames(features: Features, moment: str, agents: int, source: str) -> int:
    """How many frames of each agent a moment has; a record may lack the past or the future."""
    name = f"state/{moment}/valid"
    if moment != "current" and name not in features:
        return 0
    values = len(_numbers(features, name, source))
    frames, rest = divmod(values, agents)
    if rest or (moment == "current" and frames != 1):
        raise ScenarioError(
            f"{source}: feature '{name}' has {values} values, "
            f"but 'state/current/x' names {agents} agents"
        )
    if agents > MAX_AGENTS or frames > MAX_FRAMES:
        raise ScenarioError(
            f"{source}: {agents} agents over {frames} frames, "
            f"at most {MAX_AGENTS} over {MAX_FRAMES} are plausible"
        )
    return frames


def _raw_tracks(
    features: Features, agents: int, frames: dict[str, int], source: str
) -> tuple[RawTracks, np.ndarray]:
    """Tracks, and the time stamps of their states [us], NaN without any, [A, T]."""

    def field(name: str, needed: bool = False) -> np.ndarray:
        if not needed and f"state/current/{name}" not in features:
            return np.full((agents, sum(frames.values())), np.nan)
        parts = [
            _numbers(features, f"state/{moment}/{name}", source, agents * n).reshape(agents, n)
            for moment, n in frames.items()
            if n
        ]
        return np.concatenate(parts, axis=1)

    ids = _numbers(features, "state/id", source, agents)
    types = _numbers(features, "state/type", source, agents)
    tracks = RawTracks(
        xyz=np.stack([field(name, needed=True) for name in "xyz"], -1),
        yaw=field("bbox_yaw", needed=True),
        velocity=np.stack([field("velocity_x"), field("velocity_y")], -1),
        size=np.stack([field(name) for name in ("length", "width", "height")], -1),
        valid=field("valid", needed=True) > 0,
        type=np.array([AGENT_TYPES.get(t, AgentType.UNKNOWN) for t in types.tolist()]),
        id=np.where(np.abs(ids) < MAX_ID, ids, np.arange(agents)).astype(np.int64),
    )
    return tracks, field("timestamp_micros")


def _common_stamps(stamps: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Time stamps of the frames [s], [T]; NaN where no agent is valid."""
    latest = np.where(valid & (stamps >= 0), stamps, -1.0).max(0, initial=-1.0)
    return np.where(latest >= 0, 1e-6 * latest, np.nan)


def _ego(features: Features, agents: int, source: str) -> int:
    marked = np.flatnonzero(_numbers(features, "state/is_sdc", source, agents) > 0)
    if len(marked) != 1:
        raise ScenarioError(
            f"{source}: no ego: 'state/is_sdc' must mark one agent, but it marks {len(marked)}"
        )
    return int(marked[0])


def _raw_elements(features: Features, source: str, notes: list[str]) -> list[RawElement]:
    """Map elements, put together from the points that have their id."""
    if "roadgraph_samples/xyz" not in features:
        notes.append("has no map")
        return []
    xyz = _numbers(features, "roadgraph_samples/xyz", source)
    count = len(xyz) // 3
    xyz = _numbers(features, "roadgraph_samples/xyz", source, 3 * count).reshape(-1, 3)
    ids, codes, valid = (
        _numbers(features, f"roadgraph_samples/{name}", source, count)
        for name in ("id", "type", "valid")
    )
    heading = None
    if "roadgraph_samples/dir" in features:
        heading = _numbers(features, "roadgraph_samples/dir", source, 3 * count).reshape(-1, 3)

    used = np.flatnonzero((valid > 0) & (ids >= 0) & (ids < MAX_ID))
    if len(used) == count:
        notes.append(f"all {count} map points are taken, so the map may have been larger")
    rank = np.argsort(ids[used], kind="stable")
    order = used[rank]
    ids, codes, xyz = ids[order], codes[order], xyz[order]
    adjacent = np.diff(rank) == 1
    goes_on = adjacent
    if heading is not None and heading.any():
        goes_on = np.where(codes[:-1] < FIRST_POLYGON_CODE, _goes_on(xyz, heading[order]), adjacent)
    goes_on &= (np.diff(ids) == 0) & (np.diff(codes) == 0)
    starts = np.flatnonzero(~goes_on) + 1
    if len(starts) >= MAX_ELEMENTS:
        raise ScenarioError(
            f"{source}: the map points make up {len(starts) + 1} elements, "
            f"at most {MAX_ELEMENTS} are plausible"
        )
    elements, unknown = [], 0
    for piece in np.split(np.arange(len(order)), starts):
        kind = MAP_CODES.get(codes[piece[0]]) if len(piece) else None
        if kind is not None:
            elements.append(RawElement(kind, int(ids[piece[0]]), xyz[piece]))
        unknown += kind is None and len(piece) > 0
    if unknown:
        notes.append(f"left out {unknown} map elements of unknown type")
    repeated = len(elements) - len({e.id for e in elements})
    if repeated:
        notes.append(f"{repeated} map elements repeat the id of another, from which they lie apart")
    return elements


def _goes_on(xyz: np.ndarray, heading: np.ndarray) -> np.ndarray:
    """Whether each point but the last [n, 3] leads to the one after it, bool [n - 1].

    Long steps are no gaps (straight borders have few points) if they follow the direction.
    """
    step = np.diff(xyz, axis=0)
    length = np.linalg.norm(step, axis=1)
    size = np.linalg.norm(heading[:-1], axis=1)
    along = (step * heading[:-1]).sum(1) > ALONG * length * size
    return (length < SAME_POINT) | ((size > 0) & (along | (length < SAME_LINE)))


def _raw_lights(features: Features, frames: dict[str, int], source: str) -> list[RawLight]:
    """Lights by lane; frames in which one was not seen stay `ABSENT`."""
    lights: dict[int, RawLight] = {}
    total, before = sum(frames.values()), 0
    for moment, count in frames.items():
        name = f"traffic_light_state/{moment}"
        if count and f"{name}/id" in features:
            values = len(_numbers(features, f"{name}/id", source))
            slots, rest = divmod(values, count)
            if rest or slots > MAX_SLOTS:
                raise ScenarioError(
                    f"{source}: feature '{name}/id' has {values} values for {count} frames, "
                    f"not up to {MAX_SLOTS} for each"
                )
            ids, valid, states, x, y = (
                _numbers(features, f"{name}/{field}", source, values).reshape(count, slots)
                for field in ("id", "valid", "state", "x", "y")
            )
            for frame, slot in np.argwhere((valid > 0) & (ids >= 0) & (ids < MAX_ID)):
                lane = int(ids[frame, slot])
                light = lights.get(lane)
                if light is None:
                    xy = np.array([x[frame, slot], y[frame, slot]])
                    light = lights[lane] = RawLight(lane, xy, np.zeros(total, np.uint8))
                state = LIGHT_STATES.get(states[frame, slot], LightState.UNKNOWN)
                light.state[before + frame] = state
        before += count
    return list(lights.values())
