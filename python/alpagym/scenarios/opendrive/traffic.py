"""Seeded scenarios on an OpenDRIVE map: traffic is placed and driven as on procedural roads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alpagym.scenarios.opendrive.build import Built, add_edges, build
from alpagym.scenarios.opendrive.roads import RoadFile, read_roads
from alpagym.scenarios.polyline import arc_length, interpolate
from alpagym.scenarios.procedural.layouts_road import BEYOND, RECORD
from alpagym.scenarios.procedural.network import Flow, Layout, Signals
from alpagym.scenarios.procedural.plan import plan_layout, random_source
from alpagym.scenarios.procedural.rollout import drive, finish
from alpagym.scenarios.scenario import Scenario, ScenarioError
from alpagym.scenarios.segment_tree import IntricateError

COUNT = 8
"""Scenarios of a map that is loaded like a recording."""
RADIUS = 300.0
"""Roads this near to a scenario's place are its map [m]."""
POPULATED = 120.0
"""Vehicles stand this near to it at frame 0 [m]."""
ATTEMPTS = 30
"""Plans tried for one scenario before giving up."""
MAX_FLOW = 600.0
"""Nobody stands on a lane of which more is that near, for it winds up there [m]."""
SPACING, MAX_PLACES = 5.0, 600
"""Vehicles stand nearer than that where there are more places this far apart on all lanes [m]."""
MAX_WORK = 240_000
"""What may be spent on one file in all attempts at its scenarios, roughly in units of 10 us."""
WORK_OF_SECTION, WORK_OF_DRAWING, WORK_OF_LANE = 120, 12, 10
"""Of a section of a road that no scenario came near before, of each of its lanes, and of each lane
that is near."""
WORK_OF_CORNER, WORK_OF_METER, WORK_OF_AGENT = 2, 0.04, 150
"""Of outlines of the roads near, of their edges, and of who drives there."""
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
    patience = Patience(MAX_WORK * max(count, COUNT) // COUNT)
    for number in range(seed, seed + count):
        yield _scenario(path, file, reference, number, patience)


@dataclass
class Patience:
    """What is left of the work that one file may take; an attempt on intricate roads takes more."""

    left: float


def _reference(path: Path, file: RoadFile, name: str) -> np.ndarray:
    road = file.roads[name]
    s = np.linspace(0.0, road.length, 2 + int(road.length / 20.0))
    points, _ = road.at(s)
    if not np.isfinite(points).all():
        raise ScenarioError(f"{path}: road {name}: its reference line is not finite")
    return points


def _scenario(
    path: Path,
    file: RoadFile,
    reference: dict[str, np.ndarray],
    seed: int,
    patience: Patience,
) -> Scenario:
    kind = f"opendrive/{path.stem}"
    for attempt in range(ATTEMPTS):
        rng = random_source(kind, seed, attempt)
        center = _place(file, reference, rng)
        near = {
            name
            for name, points in reference.items()
            if np.hypot(*(points - center).T).min() < RADIUS
        }
        new = [s for name in near - file.drawn.keys() for s in file.roads[name].sections]
        patience.left -= WORK_OF_SECTION * len(new)
        patience.left -= WORK_OF_DRAWING * sum(len(section.lanes) for section in new)
        if patience.left < 0:
            raise ScenarioError(
                f"{path}: after {attempt} attempts at scenario {seed}, roads so intricate are "
                "given no more"
            )
        built = build(file, near, path)
        patience.left -= WORK_OF_LANE * len(built.network.lanes)
        flows = _flows(built, center)
        if not flows:
            continue
        patience.left -= WORK_OF_CORNER * add_edges(built, file, near, path)
        edges = sum(arc_length(points)[-1] for _, points in built.network.others)
        patience.left -= WORK_OF_METER * edges
        layout = _layout(built, flows, center, rng)
        plan = plan_layout(layout, rng, kind, seed)
        if plan is None:
            continue
        patience.left -= WORK_OF_AGENT * plan.tracks.num_agents
        plan.source, plan.dataset, plan.license = f"{path}", "opendrive", "unknown"
        plan.origin = np.array([*center, 0.0])
        plan.notes = [*built.notes, "traffic is generated on a given map"]
        try:
            scenario = finish(plan, drive(plan), seed, attempt, min_agents=MIN_AGENTS)
        except IntricateError as error:
            raise ScenarioError(f"{path}: {error}") from error
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


def _flows(built: Built, center: np.ndarray) -> list[Flow]:
    """Where vehicles may stand: on lanes outside junctions, with road enough ahead."""
    ahead, last = _room_ahead(built), np.zeros(len(built.network.lanes))
    places: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # by lane, arc lengths and distances
    for i, lane in enumerate(built.network.lanes):
        needed = RECORD * lane.speed_limit + BEYOND
        last[i] = min(lane.s[-1] - 3.0, lane.s[-1] + ahead[i] - needed)
        if i in built.in_junction or last[i] <= 3.0:
            continue
        points = lane.points - center
        gap = np.maximum(np.maximum(points.min(0), -points.max(0)), 0.0)
        if np.hypot(*gap) > POPULATED:
            continue
        s = np.linspace(0.0, lane.s[-1], 2 + int(lane.s[-1] / SPACING))
        distance = np.hypot(*interpolate(points, s).T)
        inside = distance < POPULATED
        if 0 < SPACING * inside.sum() <= MAX_FLOW:
            places[i] = s[inside], distance[inside]
    if not places:
        return []
    every = np.concatenate([distance for _, distance in places.values()])
    radius = np.sort(every)[MAX_PLACES - 1] if len(every) > MAX_PLACES else POPULATED
    found = []
    for i, (s, distance) in places.items():
        inside = s[distance <= radius]
        if len(inside) and min(inside[-1], last[i]) > max(inside[0], 3.0):
            found.append(Flow(i, max(float(inside[0]), 3.0), float(min(inside[-1], last[i]))))
    return found


def _layout(
    built: Built, flows: list[Flow], center: np.ndarray, rng: np.random.Generator
) -> Layout:
    """The network about its center, and what stands and drives on it."""
    net = built.network
    for lane in net.lanes:
        lane.points = lane.points - center
    net.others = [(kind, points - center) for kind, points in net.others]
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
    links = [(i, j) for i, lane in enumerate(lanes) for j in lane.successors]
    start, end = np.array(links, np.int64).reshape(-1, 2).T
    lengths = np.array([lane.s[-1] for lane in lanes])
    room = np.where([bool(lane.successors) for lane in lanes], 2000.0, 0.0)
    for _ in range(200):
        new = np.where(room > 0.0, 2000.0, 0.0)
        np.minimum.at(new, start, lengths[end] + room[end])
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
