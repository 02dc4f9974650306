"""CommonRoad XML scenarios, 2017a to 2020a: one scenario for each planning problem of a file.

Format: the CommonRoad XML documentation and schema (https://commonroad.in.tum.de). A planning
problem gives the ego's first state and a goal, but nobody drove it: the ego's track is made, and a
note says so.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alpagym.scenarios.assemble import RawScenario, RawTracks, assemble
from alpagym.scenarios.polyline import interpolate, project
from alpagym.scenarios.readers.commonroad_drive import (
    Drive,
    Goal,
    Others,
    make_drive,
)
from alpagym.scenarios.readers.commonroad_map import Lanelet, map_elements, read_lanelets
from alpagym.scenarios.readers.commonroad_route import HEIGHT, LENGTH, WIDTH, Way, find_way
from alpagym.scenarios.readers.commonroad_signals import (
    Light,
    apply_signs,
    controlled_lanes,
    light_states,
    read_lights,
)
from alpagym.scenarios.readers.commonroad_tracks import (
    MAX_FRAMES,
    Clock,
    read_clock,
    read_obstacles,
)
from alpagym.scenarios.readers.commonroad_xml import (
    Region,
    interval,
    place,
    region,
    sniff_xml,
    to_id,
    value,
)
from alpagym.scenarios.road_map import RawElement
from alpagym.scenarios.scenario import (
    EGO_MARK,
    AgentType,
    LightState,
    MapType,
    Scenario,
    ScenarioError,
)
from alpagym.scenarios.xml_files import Fault, parse

LONGEST_DRIVE = 60.0
"""A made track ends this long after the record at the latest [s]."""
MAX_PROBLEMS = 100
MAX_SPEED = 80.0
"""A faster ego is a data fault [m/s]."""
_COUNTRY = re.compile(r"^(?:C-)?([A-Z]{3})_")


@dataclass
class Problem:
    """A planning problem."""

    id: int
    xy: np.ndarray
    """Of the first state [m], [2]."""
    yaw: float
    speed: float
    frame: int
    goal: Goal
    region: Region


@dataclass
class _File:
    """What the scenarios of a file share."""

    path: Path
    id: str
    clock: Clock
    tracks: RawTracks
    lanelets: dict[int, Lanelet]
    elements: list[RawElement]
    lights: list[tuple[Light, int, np.ndarray]]
    notes: list[str]


def sniff(head: bytes, path: Path) -> bool:
    """Whether the file begins like CommonRoad XML."""
    return sniff_xml(head)


def read(path: Path) -> Iterator[Scenario | ScenarioError]:
    """The scenarios of a file; see `Reader.read`."""
    root = parse(path, "commonRoad", "CommonRoad XML")
    notes: list[str] = []
    name = (root.get("benchmarkID") or "").strip() or path.stem
    country = _COUNTRY.match(name)
    clock = read_clock(root, path, notes)
    lanelets = read_lanelets(root, path, notes)
    signs = apply_signs(root, lanelets, country[1] if country else "ZAM", path, notes)
    file = _File(
        path,
        name,
        clock,
        read_obstacles(root, clock, path, notes),
        lanelets,
        map_elements(lanelets, {i for i, s in signs.items() if s.stop}, path, notes),
        controlled_lanes(root, lanelets, read_lights(root, path, notes)),
        notes,
    )
    found = root.findall("planningProblem")
    if len(found) > MAX_PROBLEMS:
        raise ScenarioError(f"{path}: {len(found)} planning problems, at most {MAX_PROBLEMS}")
    if not found:
        yield _recorded_scenario(file)
    ids: set[int] = set()
    for element in found:
        try:
            problem = _problem(element, clock)
            if problem.id in ids:
                raise Fault("its id occurs more than once")
            ids.add(problem.id)
            yield _made_scenario(file, problem, len(found))
        except Fault as error:
            where = f"planningProblem {(element.get('id') or 'without id')[:20]}"
            yield ScenarioError(f"{path}: {where}: {error}")
        except ScenarioError as error:
            yield error


def _problem(element: ET.Element, clock: Clock) -> Problem:
    """A planning problem; of several goals the first."""
    state = element.find("initialState")
    goals = element.findall("goalState") + element.findall("goalRegion/state")
    if state is None or not goals:
        raise Fault("initialState and goalState are needed")
    goal, time, speed = goals[0], state.find("time"), state.find("velocity")
    yaw = state.find("orientation")
    if yaw is None:
        raise Fault("initialState has no orientation")
    first = 0 if time is None else clock.frame(value(time))
    frames, speeds = (first, MAX_FRAMES), (-math.inf, math.inf)
    if (time := goal.find("time")) is not None:
        low, high = interval(time)
        frames = (clock.frame(low), clock.frame(high))
    if (velocity := goal.find("velocity")) is not None:
        speeds = interval(velocity)
    first_speed = 0.0 if speed is None else max(value(speed), 0.0)
    if first_speed > MAX_SPEED:
        raise Fault(f"velocity must be at most {MAX_SPEED:g} m/s, got {first_speed:g}")
    if frames[1] <= first:
        raise Fault(f"the goal's time must end after step {first}, got {frames[1]}")
    return Problem(
        id=to_id(element),
        xy=np.array(place(state.find("position"))),
        yaw=value(yaw),
        speed=first_speed,
        frame=first,
        goal=Goal(frames, speeds),
        region=region(goal.find("position")),
    )


def _made_scenario(file: _File, problem: Problem, count: int) -> Scenario:
    """The scenario of one of `count` planning problems."""
    notes, tracks, dt = list(file.notes), file.tracks, file.clock.dt
    record = tracks.valid.shape[1]
    goal = problem.goal
    goal.polygons = problem.region.polygons + [
        file.lanelets[i].polygon for i in problem.region.lanelets if i in file.lanelets
    ]
    num_frames = max(record, problem.frame + 2) + int(LONGEST_DRIVE / dt)
    if problem.frame > MAX_FRAMES:
        raise Fault(f"its time must be at most step {MAX_FRAMES}, got {problem.frame}")
    seconds = (num_frames - problem.frame) * dt
    length = 20.0 + min(1.5 * max(problem.speed, 10.0) * seconds, 600.0)
    edges = [e.points for e in file.elements if e.type == MapType.ROAD_EDGE]
    way = find_way(
        file.lanelets, problem.xy, problem.yaw, problem.speed, problem.region, length, edges
    )
    stops = [
        (xy, np.isin(light.at(np.arange(num_frames)), (LightState.RED, LightState.YELLOW)))
        for light, lane, xy in file.lights
        if lane in way.lanes
    ]
    others = Others(
        tracks.xyz[..., :2], tracks.yaw, tracks.velocity, tracks.size[:, 0], tracks.valid, stops
    )
    drive = make_drive(way, problem.speed, problem.frame, num_frames, dt, goal, others)
    notes.append(_made_note(problem, way, drive))
    if count > 1:
        notes.append(f"{count - 1} other planning problems of the file are scenarios of their own")
    tracks, ego = _with_ego(tracks, drive, problem)
    name = file.id if count == 1 else f"{file.id}{EGO_MARK}{problem.id}"
    scenario = _assemble(file, tracks, ego, name, notes, problem.frame)
    _set_goal(scenario, way)
    return scenario


def _made_note(problem: Problem, way: Way, drive: Drive) -> str:
    text = f"the ego's track is made from planning problem {problem.id}, not recorded"
    if not way.reached:
        text += "; no lanes lead to its goal"
    elif not drive.arrives:
        text += "; it does not meet all bounds of the goal"
    if drive.touches:
        text += f"; a recorded box is in its way in {drive.touches} frames"
    return text


def _with_ego(tracks: RawTracks, drive: Drive, problem: Problem) -> tuple[RawTracks, int]:
    """The tracks with the made one as the last, over all frames of both."""
    agents, record = tracks.valid.shape
    first, stop = problem.frame, problem.frame + len(drive.xy)
    frames = max(record, stop)

    def extended(values: np.ndarray) -> np.ndarray:
        out = np.zeros((agents + 1, frames, *values.shape[2:]), values.dtype)
        out[:agents, :record] = values
        return out

    xyz, yaw, velocity, valid = map(
        extended, (tracks.xyz, tracks.yaw, tracks.velocity, tracks.valid)
    )
    # What has no velocity at all must stay so.
    velocity[:agents, record:][np.isnan(tracks.velocity).all((1, 2))] = np.nan
    xyz[agents, first:stop, :2] = drive.xy
    yaw[agents, first:stop] = drive.yaw
    velocity[agents, first:stop] = drive.velocity
    valid[agents, first:stop] = True
    size = np.concatenate([tracks.size, [[[LENGTH, WIDTH, HEIGHT]]]])
    kind = np.append(tracks.type, AgentType.VEHICLE)
    return RawTracks(
        xyz, yaw, velocity, size, valid, kind, np.append(tracks.id, problem.id)
    ), agents


def _recorded_scenario(file: _File) -> Scenario:
    """The scenario of a file without a planning problem: the ego is the vehicle seen longest."""
    tracks = file.tracks
    travel = np.zeros(len(tracks.valid))
    for a in np.flatnonzero(tracks.type == AgentType.VEHICLE):
        path = tracks.xyz[a, tracks.valid[a], :2]
        travel[a] = np.hypot(*np.diff(path, axis=0).T).sum()
    seen = tracks.valid.sum(1) * (travel > 1.0)
    if not seen.any():
        raise ScenarioError(
            f"{file.path}: no planning problem and no vehicle that moves, "
            "so there is no ego to drive"
        )
    ego = int(np.lexsort((np.arange(len(seen))[::-1], travel, seen))[-1])
    note = f"has no planning problem; took vehicle {tracks.id[ego]}, seen longest, as the ego"
    return _assemble(file, tracks, ego, file.id, [*file.notes, note], None)


def _assemble(
    file: _File, tracks: RawTracks, ego: int, name: str, notes: list[str], start: int | None
) -> Scenario:
    lights, after = light_states(file.lights, tracks.valid.shape[1])
    if after is None:
        notes.append("what its lights show after the record is not the file's")
    scenario = assemble(
        RawScenario(
            id=name,
            source=str(file.path),
            dataset="commonroad",
            license="commonroad-mixed",
            tracks=tracks,
            elements=file.elements,
            lights=lights,
            ego=ego,
            dt=file.clock.dt,
            start=start,
            has_z=False,
            notes=notes,
        )
    )
    if lights and after is not None:
        scenario.lights.after = after
    return scenario


def _set_goal(scenario: Scenario, way: Way) -> None:
    """Let progress be complete at the goal instead of at the end of the made track."""
    routes, ego = scenario.routes, scenario.ego
    route = routes.points[routes.offsets[ego] : routes.offsets[ego + 1]].astype(np.float64)
    if not np.isfinite(way.goal_s) or len(route) < 2:
        return
    goal = interpolate(way.line, np.array([way.goal_s]))[0] - scenario.origin[:2]
    (s,), (d,) = project(route, goal[None])
    if abs(d) < 5.0 and s > 0.0:
        routes.log_length[ego] = s
