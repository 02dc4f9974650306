"""From what a file says to a `Scenario`: the path that all readers share.

A reader fills the `Raw...` classes with float64 source values, converted to meters, radians and our
enums, and nothing else. `assemble` checks, repairs and completes them; it notes what it repaired.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from alpagym.scenarios.flags import compute_flags
from alpagym.scenarios.polyline import wrap_angle
from alpagym.scenarios.road_map import RawElement, build_map
from alpagym.scenarios.routes import build_routes
from alpagym.scenarios.scenario import (
    AgentType,
    Lights,
    RoadMap,
    Scenario,
    ScenarioError,
    Tracks,
)
from alpagym.scenarios.segment_tree import IntricateError

START_FRAME = 10
"""Frame at which episodes start unless the source names another: one second of history at 10 Hz."""
MIN_FRAMES_AFTER_START = 20
"""A record with fewer frames than this after the start frame is used from its first frame on."""
MAX_AGENTS, MAX_STATES = 5_000, 400_000
"""Most agents of a scenario, and most agents times frames."""
MAX_REACH = 20_000.0
"""Anything farther than this from the origin is a data fault [m]; float32 resolves 2 mm there."""
MAX_SPEED = 200.0
"""A faster agent is a data fault [m/s]."""
MAX_SIZE = 60.0
"""A longer box is a data fault [m]."""
DEFAULT_SIZE = {
    AgentType.UNKNOWN: (4.5, 1.9, 1.6),
    AgentType.VEHICLE: (4.5, 1.9, 1.6),
    AgentType.PEDESTRIAN: (0.8, 0.8, 1.75),
    AgentType.CYCLIST: (1.8, 0.7, 1.7),
    AgentType.OTHER: (1.0, 1.0, 1.0),
}
"""Length, width and height of a box of which the source gives none [m]."""


@dataclass
class RawTracks:
    """Tracks of A agents over T frames as the source has them; NaN where it has nothing."""

    xyz: np.ndarray
    """Box centers [m], float64 [A, T, 3]."""
    yaw: np.ndarray
    """[rad], not necessarily wrapped, float64 [A, T]."""
    velocity: np.ndarray
    """[m/s], float64 [A, T, 2]; where it is NaN throughout, positions give it."""
    size: np.ndarray
    """Length, width, height [m], float64 [A, T, 3] or [A, 1, 3]."""
    valid: np.ndarray
    """bool [A, T]."""
    type: np.ndarray
    """`AgentType`, [A]."""
    id: np.ndarray
    """int64 [A]."""


@dataclass
class RawLight:
    """States of one controlled lane."""

    lane_id: int | None
    xy: np.ndarray
    """Stop point [m], float64 [2]; the lane's start is taken where it is NaN."""
    state: np.ndarray
    """`LightState`, [T]."""


@dataclass
class RawScenario:
    """All that a reader hands over."""

    id: str
    source: str
    dataset: str
    license: str
    tracks: RawTracks
    elements: list[RawElement]
    lights: list[RawLight]
    ego: int
    """Index into `tracks`."""
    dt: float = 0.1
    current_frame: int | None = None
    """Where the source separates history from future."""
    start: int | None = None
    """Where episodes start, if the source fixes that whatever history there is."""
    has_z: bool = True
    infer_links: bool = False
    """Whether lane successors come from geometry because the source has none."""
    mission: set[int] = field(default_factory=set)
    """Ids of the lanes that the ego was sent along, where the source tells; its route takes them
    beyond the record."""
    notes: list[str] = field(default_factory=list)


def assemble(raw: RawScenario) -> Scenario:
    """The validated scenario.

    Raises:
        ScenarioError: if the record cannot be used, naming `raw.source`, track and frame.
    """
    notes = list(raw.notes)
    num_agents, num_frames = raw.tracks.valid.shape
    if num_agents == 0 or not raw.tracks.valid.any():
        raise ScenarioError(
            f"{raw.source}: no agent was recorded in any frame, so there is no ego to drive"
        )
    if num_frames < 2:
        raise ScenarioError(f"{raw.source}: a record needs 2 frames or more, got {num_frames}")
    if not 0 <= raw.ego < num_agents:
        raise ScenarioError(f"{raw.source}: no ego: index {raw.ego} of {num_agents} agents")
    if not 0.01 <= raw.dt <= 1.0:
        raise ScenarioError(f"{raw.source}: frames must be 0.01 to 1 s apart, got {raw.dt:.4g} s")
    if num_agents > MAX_AGENTS or num_agents * num_frames > MAX_STATES:
        raise ScenarioError(
            f"{raw.source}: {num_agents} agents over {num_frames} frames are more than plausible "
            f"(at most {MAX_AGENTS} agents, and {MAX_STATES} states)"
        )
    _check_finite(raw)

    start = start_frame(num_frames, raw.current_frame) if raw.start is None else raw.start
    start = _ego_start(raw, start, notes)
    origin = np.round(raw.tracks.xyz[raw.ego, start])
    if not raw.has_z:
        origin[2] = 0.0
    _check_reach(raw, origin)

    tracks, ego = _build_tracks(raw, origin, notes)
    elements, road_map = build_map(
        raw.elements, origin, raw.has_z, raw.infer_links, raw.source, notes
    )
    lights = _build_lights(raw, road_map, origin, notes)
    stop_lanes = _stop_lanes(elements, road_map.id)
    mission = {i for i, e in enumerate(elements) if e.id in raw.mission}
    try:
        routes = build_routes(tracks, road_map, lights, stop_lanes, {ego: mission})
        flags = compute_flags(tracks, road_map, start, raw.has_z)
    except IntricateError as error:
        raise ScenarioError(f"{raw.source}: {error}") from error
    return Scenario(
        id=raw.id,
        source=raw.source,
        dataset=raw.dataset,
        license=raw.license,
        dt=raw.dt,
        origin=origin,
        start_frame=start,
        ego=ego,
        tracks=tracks,
        map=road_map,
        lights=lights,
        routes=routes,
        flags=flags,
        has_z=raw.has_z,
        notes=notes,
    ).validate()


def start_frame(num_frames: int, current: int | None) -> int:
    """The source's current frame, or `START_FRAME`; 0 if too few frames would follow it."""
    if current is None or not 0 < current < num_frames:
        current = START_FRAME
    return current if num_frames - 1 - current >= MIN_FRAMES_AFTER_START else 0


def _ego_start(raw: RawScenario, start: int, notes: list[str]) -> int:
    """The first frame from `start` on at which the ego is there to stay."""
    valid = raw.tracks.valid[raw.ego]
    if valid[start]:
        return start
    missing = np.flatnonzero(~valid)
    later = int(missing[-1]) + 1
    if later >= len(valid) - 1:
        raise ScenarioError(
            f"{raw.source}: the ego (track {raw.ego}) is not valid at start frame {start} "
            "nor from any later frame on"
        )
    notes.append(f"starts at frame {later} because the ego is not valid at frame {start}")
    return later


def _check_finite(raw: RawScenario) -> None:
    """Refuse NaN and infinity in valid frames; a velocity that is missing throughout is fine."""
    t = raw.tracks
    velocity_known = ~np.isnan(t.velocity).all((1, 2))
    for name, values, wanted in (
        ("position", t.xyz if raw.has_z else t.xyz[..., :2], t.valid),
        ("heading", t.yaw[..., None], t.valid),
        ("velocity", t.velocity, t.valid & velocity_known[:, None]),
    ):
        bad = wanted & ~np.isfinite(values).all(-1)
        if bad.any():
            track, frame = np.argwhere(bad)[0]
            raise ScenarioError(
                f"{raw.source}: track {track}, frame {frame}: {name} must be finite, "
                f"got {values[track, frame].tolist()}"
            )


def _check_reach(raw: RawScenario, origin: np.ndarray) -> None:
    """Refuse values that no drive of seconds can have."""
    t = raw.tracks
    dims = 3 if raw.has_z else 2
    for name, values, limit in (
        ("distance from the ego", np.abs(t.xyz[..., :dims] - origin[:dims]).max(-1), MAX_REACH),
        ("speed", np.abs(t.velocity).max(-1), MAX_SPEED),
    ):
        bad = t.valid & (values > limit)
        if bad.any():
            track, frame = np.argwhere(bad)[0]
            raise ScenarioError(
                f"{raw.source}: track {track}, frame {frame}: {name} must be at most {limit:g}, "
                f"got {values[track, frame]:.6g}"
            )


def _build_tracks(raw: RawScenario, origin: np.ndarray, notes: list[str]) -> tuple[Tracks, int]:
    """Tracks of the agents seen at least once, and the ego's index among them."""
    t = raw.tracks
    seen = np.asarray(t.valid.any(1))
    if not seen.all():
        notes.append(f"left out {(~seen).sum()} agents that are never valid")
    valid = t.valid[seen]
    xyz = np.where(valid[..., None], t.xyz[seen] - origin, 0.0)
    if not raw.has_z:
        xyz[..., 2] = 0.0
    velocity = t.velocity[seen]
    unknown = np.asarray(np.isnan(velocity).all((1, 2)))
    if unknown.any():
        notes.append(f"computed velocities of {unknown.sum()} agents from their positions")
        velocity = velocity.copy()
        for a in np.flatnonzero(unknown):
            velocity[a] = central_difference(xyz[a, :, :2], valid[a], raw.dt)
    types = t.type[seen].astype(np.uint8)
    tracks = Tracks(
        xyz=xyz.astype(np.float32),
        yaw=wrapped_float32(np.where(valid, t.yaw[seen], 0.0)),
        velocity=np.where(valid[..., None], velocity, 0.0).astype(np.float32),
        valid=valid,
        size=_box_sizes(np.broadcast_to(t.size[seen], (*valid.shape, 3)), valid, types, notes),
        type=types,
        id=t.id[seen].astype(np.int64),
    )
    return tracks, int(seen[: raw.ego].sum())


def wrapped_float32(yaw: np.ndarray) -> np.ndarray:
    """Headings in [-pi, pi) that are still so after rounding to float32."""
    wrapped = wrap_angle(yaw).astype(np.float32)
    return np.where(wrapped >= np.float32(np.pi), np.float32(-3.1415925), wrapped)


def central_difference(xy: np.ndarray, valid: np.ndarray, dt: float) -> np.ndarray:
    """Velocity [m/s] of one agent from positions [T, 2], one-sided beside holes, [T, 2]."""
    velocity = np.zeros_like(xy)
    frame = np.arange(len(valid))
    before = np.where(np.concatenate([[False], valid[:-1]]), frame - 1, frame)
    after = np.where(np.concatenate([valid[1:], [False]]), frame + 1, frame)
    known = valid & (after > before)
    elapsed = ((after - before)[known] * dt)[:, None]
    velocity[known] = (xy[after[known]] - xy[before[known]]) / elapsed
    return velocity


def _box_sizes(
    size: np.ndarray, valid: np.ndarray, types: np.ndarray, notes: list[str]
) -> np.ndarray:
    """Median over valid frames, defaults by type where the source has none, float32 [A, 3]."""
    known = valid[..., None] & (size > 0.05) & (size < MAX_SIZE)  # NaN compares false
    ordered = np.sort(np.where(known, size, np.inf), axis=1)
    count = known.sum(1)
    middle = np.stack([np.maximum(count - 1, 0) // 2, np.minimum(count // 2, size.shape[1] - 1)], 1)
    sizes = np.take_along_axis(ordered, middle, axis=1).mean(1)
    default = np.array([DEFAULT_SIZE[AgentType(int(kind))] for kind in types]).reshape(-1, 3)
    filled = int((count[:, :2] == 0).sum())
    if filled:
        notes.append(f"filled {filled} missing box lengths or widths with defaults")
    return np.where(count > 0, sizes, default).astype(np.float32)


def _build_lights(
    raw: RawScenario, road_map: RoadMap, origin: np.ndarray, notes: list[str]
) -> Lights:
    index = {int(e): i for i, e in reversed(list(enumerate(road_map.id)))}
    lane, xy, state, unplaced = [], [], [], 0
    for light in raw.lights:
        element = -1 if light.lane_id is None else index.get(light.lane_id, -1)
        place = light.xy - origin[:2]
        if not np.isfinite(place).all() or np.abs(place).max() > MAX_REACH:
            if element < 0:
                unplaced += 1
                continue
            place = road_map.polyline(element)[0, :2]
        lane.append(element)
        xy.append(place)
        state.append(light.state)
    if unplaced:
        notes.append(f"left out {unplaced} lights without a place")
    if (missing := sum(i < 0 for i in lane)) > 0:
        notes.append(f"{missing} lights control no lane of the map")
    return Lights(
        lane=np.array(lane, np.int32),
        xy=np.array(xy, np.float32).reshape(-1, 2),
        state=np.array(state, np.uint8).reshape(-1, raw.tracks.valid.shape[1]),
    )


def _stop_lanes(elements: list[RawElement], element_ids: np.ndarray) -> dict[int, list[int]]:
    """For each stop sign that names lanes of the map: element index -> indices of those lanes."""
    index = {int(e): i for i, e in enumerate(element_ids)}
    named = {
        i: [index[lane] for lane in e.stop_lanes if lane in index] for i, e in enumerate(elements)
    }
    return {i: lanes for i, lanes in named.items() if lanes}
