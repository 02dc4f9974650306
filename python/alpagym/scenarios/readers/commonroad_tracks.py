"""CommonRoad obstacles as tracks: boxes at their centers on the file's own time grid."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alpagym.scenarios.assemble import MAX_SIZE, RawTracks, central_difference
from alpagym.scenarios.readers.commonroad_xml import Box, FarAway, place, shape_box, to_id, value
from alpagym.scenarios.scenario import AgentType, ScenarioError
from alpagym.scenarios.xml_files import Fault, to_number

MAX_FRAMES = 5_000
MAX_OBSTACLES = 1_000
MAX_CELLS = 1_000_000
"""Obstacles times frames; a file with more of any is refused."""
MIN_DT, MAX_DT = 0.01, 1.0
"""[s]."""
IN_SECONDS = ("2016", "2017", "2018a")
"""How versions begin whose times are in seconds; later ones count steps."""
TYPES = {
    "car": AgentType.VEHICLE,
    "truck": AgentType.VEHICLE,
    "bus": AgentType.VEHICLE,
    "taxi": AgentType.VEHICLE,
    "vehicle": AgentType.VEHICLE,
    "motorcycle": AgentType.VEHICLE,
    "priorityVehicle": AgentType.VEHICLE,
    "parkedVehicle": AgentType.VEHICLE,
    "bicycle": AgentType.CYCLIST,
    "pedestrian": AgentType.PEDESTRIAN,
    "train": AgentType.OTHER,
    "constructionZone": AgentType.OTHER,
    "pillar": AgentType.OTHER,
}
NO_AGENTS = {"roadBoundary", "building", "medianStrip", "median_strip"}
"""Types of static obstacles that are no road users."""


@dataclass(frozen=True)
class Clock:
    """The time grid of a file."""

    dt: float
    """[s]."""
    unit: float
    """What one frame is in the file's times: 1 where they are steps, dt where they are seconds."""

    def frame(self, time: float) -> int:
        """The frame nearest to a time of the file."""
        frame = time / self.unit
        if not -0.5 <= frame <= 1e9:
            raise Fault(f"time must not be negative, got {time:g}")
        return round(frame)


def read_clock(root: ET.Element, path: Path, notes: list[str]) -> Clock:
    """The time grid, and whether times are in seconds, which the version and the times tell."""
    try:
        dt = to_number(root.get("timeStepSize"), "timeStepSize")
    except Fault as error:
        raise ScenarioError(f"{path}: {error}") from error
    if not MIN_DT <= dt <= MAX_DT:
        raise ScenarioError(
            f"{path}: timeStepSize must be {MIN_DT:g} to {MAX_DT:g} s, got {dt:g} s"
        )
    version = root.get("commonRoadVersion") or ""
    seconds = version.startswith(IN_SECONDS)
    fractions = neighbors = False
    before = math.nan
    for element in root.iter("state"):
        try:
            time = float(element.findtext("time/exact") or "nan")
        except ValueError:
            continue  # refused with its place when the obstacle is read
        fractions |= math.isfinite(time) and time != math.floor(time)
        neighbors |= time - before == 1.0
        before = time
    told = True if fractions else (False if neighbors and dt < 0.9 else seconds)
    if told != seconds:
        notes.append(
            f"times are in {'seconds' if told else 'steps'}, unlike version {version[:10]} has them"
        )
    return Clock(dt, dt if told else 1.0)


@dataclass
class _Obstacle:
    id: int
    type: AgentType
    box: Box
    frames: np.ndarray
    """[n]."""
    states: np.ndarray
    """x, y, yaw, velocity, lateral velocity of each frame, [n, 5]; NaN where not given."""
    static: bool


def read_obstacles(root: ET.Element, clock: Clock, path: Path, notes: list[str]) -> RawTracks:
    """Tracks of all obstacles that have states; the others are left out with a note."""
    left_out: Counter[str] = Counter()
    obstacles: list[_Obstacle] = []
    for element in root:
        if element.tag in ("environmentObstacle", "phantomObstacle"):
            left_out["buildings, hidden or phantom obstacles"] += 1
        if element.tag not in ("obstacle", "dynamicObstacle", "staticObstacle"):
            continue
        try:
            obstacle, reason = _obstacle(element, clock, left_out)
        except Fault as error:
            where = f"{element.tag} {(element.get('id') or 'without id')[:20]}"
            raise ScenarioError(f"{path}: {where}: {error}") from error
        if obstacle is None:
            left_out[reason] += 1
        else:
            obstacles.append(obstacle)
    notes += [f"left out {count} {reason}" for reason, count in left_out.items()]

    if len(obstacles) > MAX_OBSTACLES:
        raise ScenarioError(f"{path}: {len(obstacles)} obstacles, at most {MAX_OBSTACLES} are read")
    moving = [o for o in obstacles if not o.static]
    num_frames = max((int(o.frames.max()) + 1 for o in moving), default=0)
    if num_frames > MAX_FRAMES:
        raise ScenarioError(f"{path}: {num_frames} frames, at most {MAX_FRAMES} are read")
    if len(obstacles) * num_frames > MAX_CELLS:
        raise ScenarioError(
            f"{path}: {len(obstacles)} obstacles over {num_frames} frames, at most {MAX_CELLS} "
            "states are read"
        )
    num_frames = max(num_frames, 1)
    return _tracks(obstacles, num_frames, clock.dt, notes)


def _obstacle(
    element: ET.Element, clock: Clock, left_out: Counter[str]
) -> tuple[_Obstacle | None, str]:
    """One obstacle, or None and why it is left out; counts states that are left out."""
    role = (element.findtext("role") or "").strip()
    static = element.tag == "staticObstacle" or role == "static"
    kind = (element.findtext("type") or "unknown").strip()
    if kind in NO_AGENTS:
        return None, "buildings, hidden or phantom obstacles"
    shape = element.find("shape")
    box = None if shape is None else shape_box(shape, free=static)
    if box is None:
        return None, "obstacles without a shape"
    if max(box.length, box.width) >= MAX_SIZE:
        return None, f"obstacles of {MAX_SIZE:g} m or more"
    if element.find("occupancySet") is not None:
        return None, "obstacles that are given as sets of occupancies"
    trajectory = element.find("trajectory")
    states = element.findall("initialState") + (
        [] if trajectory is None else trajectory.findall("state")
    )
    if static:
        states = states[:1]
    rows = []
    for state in states:
        try:
            rows.append(_state(state))
        except FarAway:  # some tools park what has left far outside of the map
            left_out["states of obstacles that are far from everything"] += 1
    if not rows:
        return None, "obstacles without states"
    frames = np.array([0 if static else clock.frame(row[0]) for row in rows])
    return _Obstacle(
        to_id(element),
        TYPES.get(kind, AgentType.UNKNOWN),
        box,
        frames,
        np.array([row[1:] for row in rows]),
        static,
    ), ""


def _state(state: ET.Element) -> tuple[float, float, float, float, float, float]:
    """Time, x, y, yaw, velocity and lateral velocity."""
    children = {child.tag: child for child in state}
    time = children.get("time")
    x, y = place(children.get("position"))
    yaw, speed, lateral = (
        value(children[tag]) if tag in children else math.nan
        for tag in ("orientation", "velocity", "velocityY")
    )
    if abs(yaw) > 1e4:
        raise Fault(f"orientation must be an angle in radians, got {yaw:g}")
    return 0.0 if time is None else value(time), x, y, yaw, speed, lateral


def _tracks(obstacles: list[_Obstacle], num_frames: int, dt: float, notes: list[str]) -> RawTracks:
    shape = (len(obstacles), num_frames)
    xyz, yaw, velocity = np.zeros((*shape, 3)), np.zeros(shape), np.zeros((*shape, 2))
    valid, size = np.zeros(shape, bool), np.zeros((len(obstacles), 1, 3))
    turned = 0
    for a, obstacle in enumerate(obstacles):
        states = np.zeros((num_frames, 5))
        at = slice(None) if obstacle.static else obstacle.frames
        states[at] = obstacle.states
        valid[a, at] = True
        x, y, angle, speed, lateral = states.T
        if np.isnan(angle).any():
            turned += not obstacle.static
            angle, speed, lateral = _without_heading(states, valid[a], dt)
        if obstacle.static:
            speed, lateral = np.zeros(num_frames), np.zeros(num_frames)
        c, s = np.cos(angle), np.sin(angle)
        # The shape may lie beside the point that moves.
        cx, cy = obstacle.box.center
        xyz[a, :, 0], xyz[a, :, 1] = x + c * cx - s * cy, y + s * cx + c * cy
        yaw[a] = angle + obstacle.box.turn
        lateral = np.nan_to_num(lateral)
        velocity[a] = np.stack([c * speed - s * lateral, s * speed + c * lateral], axis=1)
        if np.isnan(speed[valid[a]]).any():
            velocity[a] = np.nan
        size[a, 0] = obstacle.box.length, obstacle.box.width, np.nan
    if turned:
        notes.append(f"took the headings of {turned} obstacles from their motion")
    types = np.array([o.type for o in obstacles], np.int64)
    ids = np.array([o.id for o in obstacles], np.int64)
    return RawTracks(xyz, yaw, velocity, size, valid, types, ids)


def _without_heading(
    states: np.ndarray, valid: np.ndarray, dt: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Headings, speeds and no lateral speeds of a point mass, whose velocity has x and y [T, 5]."""
    velocity = states[:, 3:5].copy()
    if np.isnan(velocity[valid]).any():
        velocity = central_difference(states[:, :2], valid, dt)
    speed = np.hypot(*velocity.T)
    known = np.flatnonzero(valid & (speed > 0.1))
    angle = np.zeros(len(states))
    if len(known):
        course = np.unwrap(np.arctan2(velocity[known, 1], velocity[known, 0]))
        angle = np.interp(np.arange(len(states)), known, course)
    return angle, speed, np.zeros(len(states))
