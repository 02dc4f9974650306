"""Lanes, driving direction, stop signs and heights: closed forms and an independent check."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import shapely
import torch

import scenario_factory as factory
from alpagym import sim
from alpagym.config import ActionType
from alpagym.scenarios.procedural import generate
from alpagym.scenarios.scenario import MapType
from scenario_factory import Actor
from simulating import Rig

TERM = sim.RewardTerm
WEST, EAST = factory.line((300.0, 3.5), (-20.0, 3.5)), factory.STRAIGHT


def two_way(*others: Actor, **options):
    """A lane along +x at y = 0 (element 2) and one back at y = 3.5 (element 3)."""
    elements = [*factory.edges_of(EAST, 8.0), (MapType.LANE, EAST), (MapType.LANE, WEST)]
    return factory.assemble("two way", elements, [Actor(EAST, 20.0, 10.0), *others], **options)


def place(rig: Rig, y: float, degrees: float) -> None:
    rig.state.y[:, 0] = y
    rig.state.yaw[:, 0] = math.radians(degrees)
    rig.state.speed[:, 0] = 0.0
    rig.step()


@pytest.mark.parametrize(
    ("y", "degrees", "lane", "offset", "wrong_way"),
    [
        (0.0, 0.0, 2, 0.0, False),
        (0.5, 10.0, 2, 0.5, False),
        (3.0, 180.0, 3, 0.5, False),  # left of a lane that runs west is south
        (3.5, 0.0, 2, 3.5, True),  # on the oncoming lane: 3.5 m is less than 0 + 2 (1 + 1) m
        (0.0, 180.0, 3, 3.5, True),
        (1.75, 0.0, 2, 1.75, False),  # astride: one of the lanes under it runs its way
        (-2.5, 180.0, 3, 6.0, False),  # beside the road: no lane under it
        (-7.0, 0.0, -1, 0.0, False),
    ],
)
def test_own_lane_and_direction(device, y, degrees, lane, offset, wrong_way) -> None:
    rig = Rig([two_way()], device=device)
    place(rig, y, degrees)
    out = rig.outcome
    assert out.lane.item() == lane
    assert out.lane_offset.item() == pytest.approx(offset, abs=1e-4)
    distance = 6.0 if lane < 0 else abs(offset)
    assert out.terms[0, 0, TERM.LANE].item() == pytest.approx(distance, abs=1e-4)
    assert out.terms[0, 0, TERM.WRONG_WAY].item() == wrong_way
    if lane >= 0:
        turned = math.radians(degrees if lane == 2 else degrees - 180.0)
        assert out.lane_heading.item() == pytest.approx(turned, abs=1e-5)


def test_wrong_way_begins_at_120_degrees(device) -> None:
    for degrees, wrong in ((0, 0.0), (119, 0.0), (121, 1.0), (180, 1.0), (-121, 1.0)):
        rig = Rig([factory.straight()], device=device)
        place(rig, 0.0, degrees)
        assert rig.outcome.terms[0, 0, TERM.WRONG_WAY] == wrong


def test_lanes_of_another_height_are_not_ones_own(device) -> None:
    # Below the bridge at (0, 0): the lane along +x (element 4) is there, the one 6 m above is not.
    rig = Rig([factory.overpass()], device=device)
    rig.state.x[:, 0] = rig.state.y[:, 0] = 0.0
    rig.state.yaw[:, 0] = math.pi / 2
    rig.state.speed[:, 0] = 0.0
    rig.step()
    assert rig.outcome.lane.item() == 4


def test_the_own_lane_is_the_nearest_by_shapely(device) -> None:
    """2,000 random places in procedural scenarios, judged with the costs of lanes.h."""
    rng = np.random.default_rng(0)
    scenarios = [generate(kind, 3) for kind in ("roundabout", "signal")]
    worlds = 1000
    flips = 0
    for scenario in scenarios:
        road = scenario.map
        lanes = np.flatnonzero(road.type == MapType.LANE)
        lines = [road.polyline(int(i))[:, :2].astype(np.float64) for i in lanes]
        rig = Rig([scenario], worlds, device=device)
        ego, points = scenario.ego, np.concatenate(lines)
        at = points[rng.integers(len(points), size=worlds)] + rng.normal(0.0, 2.5, (worlds, 2))
        yaw = rng.uniform(-np.pi, np.pi, worlds)
        for name, values in (("x", at[:, 0]), ("y", at[:, 1]), ("yaw", yaw)):
            getattr(rig.state, name)[:, ego] = torch.as_tensor(values, dtype=torch.float32).to(
                device
            )
        rig.state.speed[:, ego] = 0.0
        rig.step()
        got, offset = rig.outcome.lane[:, 0].tolist(), rig.outcome.lane_offset[:, 0].tolist()
        for w in range(worlds):
            point, costs = shapely.Point(at[w]), {}
            for i, line in zip(lanes, lines, strict=True):
                if shapely.LineString(line).distance(point) > 6.0:
                    continue
                best = math.inf
                for a, b in itertools.pairwise(line):
                    distance = shapely.LineString([a, b]).distance(point)
                    if distance <= 6.0:
                        direction = (b - a) / np.linalg.norm(b - a)
                        cosine = direction @ [math.cos(yaw[w]), math.sin(yaw[w])]
                        best = min(best, distance + 2.0 * (1.0 - cosine))
                        if int(i) == got[w] and abs(distance - abs(offset[w])) < 1e-3:
                            costs[-2] = 0.0  # the offset is to a piece of this lane
                costs[int(i)] = best
            judged = {i: c for i, c in costs.items() if i >= 0}
            if not judged:
                assert got[w] == -1
                continue
            least = min(judged.values())
            assert got[w] in judged, (w, got[w])
            assert judged[got[w]] < least + 0.01, (w, got[w], judged)
            flips += judged[got[w]] > least + 1e-6
            assert -2 in costs
    assert flips < 20  # choices within 1 cm of a tie


def approach_stop(device, speed: float, wait: int, line_ahead: float = 3.0) -> float:
    """Times that a stop sign counted as run; the agent stands before it for `wait` steps first."""
    ego = Actor(factory.STRAIGHT, 20.0, 10.0, stops=[(20.0 + 10.0 * 0.5 + 2.3 + line_ahead, -1)])
    rig = Rig([factory.straight(ego=ego, frames=91)], device=device)
    total = 0.0
    for t in range(80):
        rig.state.speed[:, 0] = 0.0 if t < wait else speed
        rig.step()
        total += rig.outcome.terms[0, 0, TERM.STOP_SIGN].item()
    return total


def test_a_stop_sign_is_run_by_who_did_not_stand_before_it(device) -> None:
    assert approach_stop(device, 10.0, 0) == 1.0
    assert approach_stop(device, 25.0, 0) == 1.0  # 2.5 m a step: past the line in one
    assert approach_stop(device, 10.0, 3) == 0.0
    assert approach_stop(device, 10.0, 3, line_ahead=6.0) == 1.0  # stood too far away
    assert approach_stop(device, 0.4, 0, line_ahead=2.0) == 0.0  # rolls slower than 0.5 m/s


def test_running_a_stop_sign_ends_the_episode_only_if_asked(device) -> None:
    ego = Actor(factory.STRAIGHT, 20.0, 10.0, stops=[(40.0, factory.STOP_SIGN)])
    for end_on in ((), ("stop_sign",)):
        rig = Rig([factory.straight(ego=ego)], device=device, end_on=end_on)
        while not rig.state.done.all():
            rig.step()
        assert rig.state.terminated.item() == bool(end_on)


def test_boxes_touch_only_where_their_heights_overlap(device) -> None:
    # Heights 1.6 m and 1.6 m: centers less than 1.6 m apart.
    for dz, hit in ((0.0, True), (1.55, True), (1.65, False), (-1.55, True), (-1.65, False)):
        wall = Actor(factory.STRAIGHT, 31.0, 0.0, z=dz)
        elements = [*factory.edges_of(EAST, 6.0), (MapType.LANE, EAST)]
        ego = Actor(EAST, 20.0, 10.0)
        scenario = factory.assemble("step", elements, [ego, wall], has_z=True)
        rig = Rig([scenario], device=device)
        hits = 0.0
        for _ in range(15):
            rig.step()
            hits += rig.outcome.terms[0, 0, TERM.COLLISION_ANY].item()
        assert hits == hit, dz


def test_starting_off_road_and_jumping_an_edge_are_seen(device) -> None:
    """AlpaSim's test, whether the box touches the nearest edge, misses both."""
    rig = Rig([factory.straight()], device=device, action=ActionType.teleport)
    rig.state.y[:, 0] = 30.0
    sim.reset(rig.scenarios, rig.state, rig.all, rig.params)
    jump = torch.tensor([[[60.0, 20.0, 0.0]]], device=device)
    rig.step(jump)
    assert rig.outcome.terms[0, 0, TERM.OFFROAD] == 1.0
    assert rig.state.offroad.item()

    ego = Actor(factory.border(factory.STRAIGHT, 20.0), 20.0, 10.0)
    rig = Rig([factory.straight(ego=ego)], device=device)
    assert rig.state.offroad.item()
    for _ in range(5):
        rig.step()
        assert rig.state.offroad.item()
