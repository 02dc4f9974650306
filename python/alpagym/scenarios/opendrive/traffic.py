"""Seeded scenarios on an OpenDRIVE map: traffic is placed and driven as on procedural roads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from alpagym.scenarios.opendrive.build import Built, build
from alpagym.scenarios.opendrive.roads import RoadFile, read_roads
from alpagym.scenarios.procedural.layouts_road import BEYOND, RECORD
from alpagym.scenarios.procedural.network import Flow, Layout, Signals
from alpagym.scenarios.procedural.plan import plan_layout, random_source
from alpagym.scenarios.procedural.rollout import drive, finish
from alpagym.scenarios.scenario import Scenario, ScenarioError

COUNT = 8
"""Scenarios of a map that is loaded like a recording."""
RADIUS = 300.0
"""Roads this near to a scenario's place are its map [m]."""
POPULATED = 120.0
"""Vehicles stand this near to it at frame 0 [m]."""
ATTEMPTS = 30
"""Plans tried for one scenario before giving up."""
MIN_AGENTS = 3
"""A record of fewer agents is not kept."""


def scenarios_on(path: str | Path, count: int = COUNT, seed: int = 0) -> Iterator[Scenario]:
    """Scenarios `opendrive/{name}/{seed}` with `count` seeds from `seed` on.

    Raises:
        ScenarioError: a damaged map, or one on which no traffic can be placed.
    """
    path = Path(path)
    file = read_roads(path)
    reference = {name: _reference(path, file, name) for name in file.roads}
    for number in range(seed, seed + count):
        yield _scenario(path, file, reference, number)


def _reference(path: Path, file: RoadFile, name: str) -> np.ndarray:
    road = file.roads[name]
    s = np.linspace(0.0, road.length, 2 + int(road.length / 20.0))
    points, _ = road.at(s)
    if not np.isfinite(points).all():
        raise ScenarioError(f"{path}: road {name}: its reference line is not finite")
    return points


def _scenario(path: Path, file: RoadFile, reference: dict[str, np.ndarray], seed: int) -> Scenario:
    kind = f"opendrive/{path.stem}"
    for attempt in range(ATTEMPTS):
        rng = random_source(kind, seed, attempt)
        center = _place(file, reference, rng)
        near = {
            name
            for name, points in reference.items()
            if np.hypot(*(points - center).T).min() < RADIUS
        }
        built = build(file, near, path)
        layout = _layout(built, center, rng)
        if not layout.flows:
            continue
        plan = plan_layout(layout, rng, kind, seed)
        if plan is None:
            continue
        plan.source, plan.dataset, plan.license = f"{path}", "opendrive", "unknown"
        plan.origin = np.array([*center, 0.0])
        plan.notes = [*built.notes, "traffic is generated on a given map"]
        scenario = finish(plan, drive(plan), seed, attempt, min_agents=MIN_AGENTS)
        if scenario is not None:
            return scenario
    raise ScenarioError(f"{path}: no usable traffic on this map in {ATTEMPTS} attempts")


def _place(
    file: RoadFile, reference: dict[str, np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """A point of the map, longer roads more often; whole meters, for the map is shifted by it."""
    names = sorted(reference)
    lengths = np.array([file.roads[name].length + 1e-3 for name in names])
    points = reference[names[int(rng.choice(len(names), p=lengths / lengths.sum()))]]
    return np.round(points[rng.integers(len(points))])


def _layout(built: Built, center: np.ndarray, rng: np.random.Generator) -> Layout:
    """Where vehicles may stand: on lanes outside junctions, with road enough ahead."""
    net = built.network
    for lane in net.lanes:
        lane.points = lane.points - center
    net.others = [(kind, points - center) for kind, points in net.others]
    ahead = _room_ahead(built)
    flows = []
    for i, lane in enumerate(net.lanes):
        if i in built.in_junction:
            continue
        near = np.linspace(0.0, lane.s[-1], 2 + int(lane.s[-1] / 5.0))
        places = np.array([lane.pose_at(float(s))[0] for s in near])
        inside = near[np.hypot(*places.T) < POPULATED]
        needed = RECORD * lane.speed_limit + BEYOND
        last = min(lane.s[-1] - 3.0, lane.s[-1] + ahead[i] - needed)
        if len(inside) and min(inside[-1], last) > max(inside[0], 3.0):
            flows.append(Flow(i, max(float(inside[0]), 3.0), float(min(inside[-1], last))))
    return Layout(
        net,
        flows,
        _signals(built, rng),
        lane_change=0.2,
        hard_brake=0.1,
        slow=0.1,
        trucks=0.1,
    )


def _room_ahead(built: Built) -> np.ndarray:
    """Length of the shortest way on from the end of each lane, at most 2 km [m], [lanes]."""
    lanes = built.network.lanes
    room = np.where([bool(lane.successors) for lane in lanes], 2000.0, 0.0)
    lengths = np.array([lane.s[-1] for lane in lanes])
    for _ in range(200):
        new = np.array(
            [min((lengths[j] + room[j] for j in lane.successors), default=0.0) for lane in lanes]
        )
        new = np.minimum(new, 2000.0)
        if np.array_equal(new, room):
            break
        room = new
    return room


def _signals(built: Built, rng: np.random.Generator) -> Signals | None:
    """A fixed-time program: the roads whose lanes have lights become green in turn."""
    if not built.lights:
        return None
    roads = sorted({road for _, road in built.lights})
    phases = [[k for k, (_, road) in enumerate(built.lights) if road == name] for name in roads]
    green = [float(rng.uniform(6.0, 14.0)) for _ in phases]
    signals = Signals([lane for lane, _ in built.lights], phases, green, 3.0, 1.5, 0.0)
    signals.offset = float(rng.uniform(0.0, signals.starts[-1]))
    return signals
