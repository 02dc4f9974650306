"""NAVSIM's scores of a drive of ours, with the record as the reference proposal."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from alpagym.metrics.drive import Drive
from alpagym.metrics.geometry import num_leading, rear_axle_motion
from alpagym.metrics.navsim.aggregation import epdms, without_human_penalties
from alpagym.metrics.navsim.comfort import ACCELERATION, SHORTEST
from alpagym.metrics.navsim.scorer import Scene, score_proposals, score_proposals_v1
from alpagym.metrics.navsim.states import STEP, Car, State, Traffic
from alpagym.metrics.navsim.ttc import HORIZONS
from alpagym.metrics.polygon_map import PolygonMap
from alpagym.metrics.polygons import Polygons
from alpagym.metrics.scenario_map import polygon_map_of
from alpagym.scenarios.polyline import arc_length, project
from alpagym.scenarios.scenario import AgentType, LightState, Scenario

PAST_STEPS = 15
"""How far the past that comfort looks at reaches back [steps]; its last one is left out."""
SAME_WAY = np.cos(np.pi / 4)
"""A lane that holds the route and turns away from it by less than 45 degrees belongs to it."""
AGENTS = [AgentType.VEHICLE, AgentType.PEDESTRIAN, AgentType.CYCLIST]
ABSENT_REACH = 1e4
"""Half the side of the square that is drivable where a map does not say what is [m]."""


@dataclass(frozen=True)
class DriveScore:
    """NAVSIM's scores of one drive, each in [0, 1]."""

    pdms: float
    """Of NAVSIM v1.1."""
    epdms: float
    """Of NAVSIM v2, without EC, which compares two plans; the human penalty filter is applied."""
    terms: dict[str, float]
    """NC, DAC, TLC, DDC, EP, TTC, LK and HC of v2, unfiltered."""
    filtered: dict[str, float]
    """`terms` after the human penalty filter (1 where the record got 0): what `epdms` is of."""
    terms_v1: dict[str, float]
    """NC, DAC, EP, TTC, C and DDC of v1.1."""
    record: dict[str, float]
    """`terms` of the recorded drive."""
    steps: int
    """States that were scored, the first included."""


def score(
    drive: Drive, polygon_map: PolygonMap | None = None, *, horizon: float | None = 4.0
) -> DriveScore:
    """Score a drive from `drive.start` on as NAVSIM scores a proposal.

    The drive is a proposal that has been driven already, so NAVSIM's simulator is left out, and the
    ego's record is the reference proposal; see `scene_of`.

    Args:
        drive: Of the ego among other agents, one row every 0.1 s.
        polygon_map: Of the scenario, `polygon_map_of` if None.
        horizon: Time that is scored at most [s], 4 in NAVSIM; None scores the whole drive. It is
            cut to what both the drive and the record hold.

    Raises:
        ValueError: Rows are not 0.1 s apart, fewer than 5 can be scored, or the map has no lanes,
            by which EPDMS would be 1.
    """
    proposals, scene = scene_of(drive, polygon_map, horizon=horizon)
    v2 = score_proposals(proposals, scene)
    v1 = score_proposals_v1(proposals, scene, v2.areas)
    record = {term: value[0] for term, value in v2.terms.items()}
    terms = {term: value[1] for term, value in v2.terms.items()}
    filtered = without_human_penalties(terms, record)
    return DriveScore(
        pdms=float(v1.score[1]),
        epdms=float(epdms(filtered)),
        terms={term: float(value) for term, value in terms.items()},
        filtered={term: float(value) for term, value in filtered.items()},
        terms_v1={term: float(value[1]) for term, value in v1.terms.items()},
        record={term: float(value) for term, value in record.items()},
        steps=proposals.shape[1],
    )


def scene_of(
    drive: Drive, polygon_map: PolygonMap | None = None, *, horizon: float | None = 4.0
) -> tuple[np.ndarray, Scene]:
    """The record and the drive as proposals [2, T, 11], and what they are scored against.

    Velocities and accelerations are central differences of the rear axle's poses. The other agents
    are where they were in the drive, for the record too; one seen only once stands, and the last
    lights of the record stay on. The centerline is the ego's route or, if it has none, the nearest
    lane. On the route are the lanes that hold the centerline and run its way, and their neighbors.
    A lane under a red light is closed if it is a connector, else the connectors it leads to are.
    Where a map does not bound its drivable area, everything is drivable.

    Arguments and errors as `score`.
    """
    scenario, ego, name = drive.scenario, drive.ego, drive.name
    if abs(drive.dt - STEP) > 1e-6:
        raise ValueError(f"{name}: expected rows {STEP} s apart, got {drive.dt:g} s")
    driven, recorded = _ego_poses(drive)
    steps = min(len(driven), len(recorded)) - drive.start
    if horizon is not None:
        steps = min(steps, round(horizon / STEP) + 1)
    if steps < SHORTEST:
        raise ValueError(f"{name}: expected {SHORTEST} states to score or more, got {steps}")
    polygon_map = polygon_map_of(scenario) if polygon_map is None else polygon_map
    if not polygon_map.ids:
        raise ValueError(f"{name}: expected a map with lanes, got no lanes in the map")
    polygon_map = _bounded(polygon_map, driven)
    centerline = _centerline(drive, polygon_map, driven[drive.start, :2])

    back = drive.ego_rear_axle
    scored = slice(drive.start, drive.start + steps)
    states = states_of(driven, back)
    scene = Scene(
        polygon_map,
        on_route=_on_route(scenario, polygon_map, centerline),
        centerline=centerline,
        traffic=_traffic(drive, steps),
        red=_red(drive, polygon_map, steps),
        past=states[max(0, drive.start - PAST_STEPS) : max(0, drive.start - 1)],
        car=Car(float(drive.size[ego, 0]), float(drive.size[ego, 1]), back),
    )
    return np.stack([states_of(recorded, back)[scored], states[scored]]), scene


def states_of(pose: np.ndarray, rear_axle: float) -> np.ndarray:
    """States [T, 11] of a box that was at these poses every 0.1 s; steering is 0.

    Args:
        pose: Box centers x, y [m] and yaw [rad], [T, 3], T >= 2.
        rear_axle: Distance from the center back to the rear axle [m].
    """
    motion = rear_axle_motion(pose, rear_axle, STEP)
    states = np.zeros((len(pose), len(State)))
    states[:, : State.HEADING + 1] = motion.pose
    states[:, [State.VELOCITY_X, State.VELOCITY_Y]] = motion.velocity
    states[:, ACCELERATION] = motion.acceleration
    states[:, State.YAW_RATE] = motion.yaw_rate
    states[:, State.YAW_ACCELERATION] = motion.yaw_accel
    return states


def _ego_poses(drive: Drive) -> tuple[np.ndarray, np.ndarray]:
    """The ego's poses in the drive and in the record, from row 0 up to its first absence."""
    tracks, ego, first = drive.scenario.tracks, drive.ego, drive.first_frame
    record = np.concatenate([tracks.xyz[ego, first:, :2], tracks.yaw[ego, first:, None]], -1)
    recorded = record.astype(np.float64)[: num_leading(tracks.valid[ego, first:])]
    return drive.ego_pose[: num_leading(drive.ego_there)], recorded


def _traffic(drive: Drive, steps: int) -> Traffic:
    """Everyone else from the start on, at `steps` + 9 steps, absent beyond the drive's end."""
    others = drive.others
    rows = slice(drive.start, drive.start + steps + int(HORIZONS[-1]))
    pose, present = drive.pose[rows, others], drive.valid[rows, others]
    lacking = steps + int(HORIZONS[-1]) - len(pose)
    pose = np.pad(pose, ((0, lacking), (0, 0), (0, 0)))
    present = np.pad(present, ((0, lacking), (0, 0)))

    # By the way to the next row, or from the row before where there is no next one.
    first = present.argmax(0)
    agent = np.arange(len(first))
    after = np.minimum(first + 1, len(present) - 1)
    follows = present[after, agent] & (after > first)
    before = np.maximum(drive.start + first - 1, 0)
    earlier = drive.pose[:, others][before, agent]
    known = follows | drive.valid[:, others][before, agent]
    moved = np.where(follows[:, None], pose[after, agent], earlier) - pose[first, agent]
    speed = np.where(present.any(0) & known, np.hypot(moved[:, 0], moved[:, 1]) / STEP, 0.0)
    return Traffic(
        pose, drive.size[others, :2], present, speed, np.isin(drive.type[others], AGENTS)
    )


def _centerline(drive: Drive, polygon_map: PolygonMap, at: np.ndarray) -> np.ndarray:
    """The ego's route or, where it has none, the nearest lane's baseline [m], [k, 2]."""
    if len(drive.route) >= 2:
        return drive.route
    d = [float(project(line, at)[1]) for line in polygon_map.baselines]
    return polygon_map.baselines[int(np.abs(d).argmin())]


def _elements(scenario: Scenario, polygon_map: PolygonMap) -> dict[int, int]:
    """Lane of the map that each element of the scenario is."""
    lane = {name: i for i, name in enumerate(polygon_map.ids)}
    names = map(str, scenario.map.id)
    return {element: lane[name] for element, name in enumerate(names) if name in lane}


def _on_route(scenario: Scenario, polygon_map: PolygonMap, route: np.ndarray) -> np.ndarray:
    """Whether each lane belongs to the route, bool [n]."""
    middle, step = 0.5 * (route[1:] + route[:-1]), np.diff(route, axis=0)
    held = polygon_map.lanes_at(middle)
    result = np.zeros(len(polygon_map.ids), bool)
    for lane in np.flatnonzero(held.any(0)):
        line = polygon_map.baselines[int(lane)]
        along = np.diff(line, axis=0)
        ends = arc_length(line)[1:]
        inside = held[:, lane]
        at = np.minimum(np.searchsorted(ends, project(line, middle[inside])[0]), len(along) - 1)
        dot = (along[at] * step[inside]).sum(-1)
        norm = np.hypot(*along[at].T) * np.hypot(*step[inside].T)
        result[lane] = (dot > SAME_WAY * norm).any()

    element_lane = _elements(scenario, polygon_map)
    ahead = [e for e, lane in element_lane.items() if result[lane]]
    while ahead:
        element = ahead.pop()
        for links in (scenario.map.left_neighbor, scenario.map.right_neighbor):
            beside = element_lane.get(int(links[element]))
            if beside is not None and not result[beside]:
                result[beside] = True
                ahead.append(int(links[element]))
    return result


def _red(drive: Drive, polygon_map: PolygonMap, steps: int) -> np.ndarray:
    """Whether each lane is a connector closed by a red light at each step, bool [steps, n]."""
    lights = drive.scenario.lights
    red = np.zeros((steps, len(polygon_map.ids)), bool)
    frames = drive.first_frame + drive.start + np.arange(steps)
    shown = lights.state[:, np.minimum(frames, lights.state.shape[1] - 1)] == LightState.RED
    element_lane = _elements(drive.scenario, polygon_map)
    for light in np.flatnonzero(shown.any(1)):
        controlled = element_lane.get(int(lights.lane[light]))
        if controlled is None:
            continue
        is_connector = polygon_map.is_connector[controlled]
        held = [controlled] if is_connector else polygon_map.outgoing[controlled]
        closed = [i for i in held if polygon_map.is_connector[i]]
        red[:, closed] |= shown[light, :, None]
    return red


def _bounded(polygon_map: PolygonMap, driven: np.ndarray) -> PolygonMap:
    """The map, with everything around the drive drivable if it does not know what is."""
    if polygon_map.knows_drivable_area:
        return polygon_map
    square = ABSENT_REACH * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return replace(polygon_map, drivable_areas=Polygons.of([driven[0, :2] + square]))
