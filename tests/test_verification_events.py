"""Closed forms of contact, observation and reward, with the equation beside each test."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import scenario_factory as factory
from alpagym import sim
from alpagym.config import ActionType
from alpagym.scenarios.scenario import AgentType, MapType
from alpagym.types import LightFeature
from scenario_factory import Actor, assemble, line
from simulating import Rig

TERM = sim.RewardTerm
DT = 0.1


def ttc_of(device, other: Actor, speed: float = 10.0) -> float:
    rig = Rig(
        [factory.straight(other, ego=Actor(factory.STRAIGHT, 20.0, speed), start=0)], device=device
    )
    rig.step()
    return rig.outcome.ttc.item()


def test_time_to_collision_is_gap_over_closing_speed(device) -> None:
    # following: t = gap / (v - u); head-on: t = gap / (v + u); after one step of 0.1 s.
    length = factory.CAR[0]
    gap = 18.0 - length
    following = Actor(factory.STRAIGHT, 38.0, 2.0)
    assert ttc_of(device, following) == pytest.approx((gap - 0.8) / 8.0, abs=1e-4)
    oncoming = Actor(factory.STRAIGHT[::-1], 320.0 - 38.0, 4.0)
    assert ttc_of(device, oncoming) == pytest.approx((gap - 1.4) / 14.0, abs=1e-4)
    assert ttc_of(device, Actor(factory.STRAIGHT, 38.0, 12.0)) == math.inf  # drives away
    beside = Actor(factory.border(factory.STRAIGHT, 3.0), 38.0, 2.0)
    assert ttc_of(device, beside) == math.inf  # passes by
    crossing = Actor(line((18.0, -20.0), (18.0, 20.0)), 6.0, 8.0)
    # from 14 m right of the ego's line: reaches its side at (14 - 0.8 - (length + width) / 2) / 8 s
    arrival = (14.0 - 0.8 - (length + factory.CAR[1]) / 2) / 8.0
    nose = (18.0 - 1.0 - factory.CAR[1] / 2 - length / 2) / 10.0  # ego reaches its lane
    assert ttc_of(device, crossing) == pytest.approx(max(arrival, nose), abs=1e-4)


def test_time_to_collision_is_zero_while_boxes_overlap(device) -> None:
    # Both at 5 m/s, the other 3 m ahead: they overlap from the start, which is no collision that
    # begins. The other leaves at 25 m/s: 2 m a step, and their length of 4.6 m is made up in one.
    rig = Rig([factory.straight(Actor(factory.STRAIGHT, 34.0, 5.0), start=0)], device=device)
    rig.state.x[0, 1] = rig.state.x[0, 0] + 3.0
    rig.state.y[0, 1] = rig.state.y[0, 0]
    rig.state.controller[0, 1] = int(sim.Controller.CONSTANT_VELOCITY)
    rig.state.speed.fill_(5.0)
    for _ in range(3):
        rig.step()
        assert rig.outcome.collision[0, 0] == sim.Collision.NONE
        assert rig.outcome.ttc.item() == 0.0
        assert rig.outcome.terms[0, 0, TERM.TTC] == 1.0  # 1 - 0 / horizon
    rig.state.speed[0, 1] = 25.0
    rig.step()
    assert rig.outcome.ttc.item() == math.inf
    assert rig.outcome.terms[0, 0, TERM.TTC] == 0.0


def offroad_at(device, elements, points: np.ndarray, size=(0.02, 0.02, 1.0)) -> np.ndarray:
    """Whether a tiny box at each of the points is off-road, bool [n]."""
    ego = replace(Actor(line((0.0, 0.0), (1.0, 0.0)), 0.0, 0.5), size=size)
    scenario = assemble("edges", elements, [ego], frames=3, start=0)
    rig = Rig([scenario], len(points), device=device, action=ActionType.teleport)
    rig.state.offroad.zero_()
    target = torch.zeros(len(points), 1, 3)
    target[:, 0, :2] = torch.as_tensor(points)
    rig.step(target.to(device))
    return rig.state.offroad[:, 0].cpu().numpy()


def polyline(*points: tuple[float, float]) -> tuple[MapType, np.ndarray]:
    return MapType.ROAD_EDGE, np.array([(*p, 0.0) for p in points])


RNG = np.random.default_rng(7)
CLOUD = RNG.uniform(-30.0, 30.0, (20_000, 2))


def away_from(shapely_line, points: np.ndarray, distance: float = 0.03) -> np.ndarray:
    shapely = pytest.importorskip("shapely")
    return shapely.distance(shapely_line, shapely.points(points)) > distance


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "corners",
    [
        [(-20, -20), (20, -20), (20, 20), (-20, 20)],
        [(-20, -20), (20, -20), (20, 20), (0, -15), (-20, 20)],  # a notch: one reflex, acute corner
        [(-20, -20), (20, -20), (20, -5), (-10, 0), (20, 5), (20, 20), (-20, 20)],  # a wedge
        [(-20, 0), (0, -1), (20, 0), (0, 1)],  # hairpins: 6 degrees
        [(0, -20), (5, -5), (20, 0), (5, 5), (0, 20), (-5, 5), (-20, 0), (-5, -5)],  # a star
    ],
    ids=["square", "notch", "wedge", "needle", "star"],
)
def test_offroad_is_being_outside_a_counterclockwise_border(device, corners, reverse) -> None:
    # The drivable area is on the left: inside of a border that runs counter-clockwise.
    shapely = pytest.importorskip("shapely")
    ring = [*corners, corners[0]]
    elements = [polyline(*(ring[::-1] if reverse else ring))]
    off = offroad_at(device, elements, CLOUD)
    inside = shapely.contains_xy(shapely.Polygon(corners), CLOUD)
    clear = away_from(shapely.LineString(ring), CLOUD)
    assert np.array_equal(off[clear], (inside if reverse else ~inside)[clear])
    assert clear.mean() > 0.9


def test_a_box_is_offroad_when_a_corner_is(device) -> None:
    shapely = pytest.importorskip("shapely")
    size = (4.0, 2.0, 1.0)
    points = CLOUD[:800] * 0.8
    corners = [(-20, -20), (20, -20), (20, 20), (-20, 20)]
    off = offroad_at(device, [polyline(*corners, corners[0])], points, size)
    boxes = shapely.box(points[:, 0] - 2, points[:, 1] - 1, points[:, 0] + 2, points[:, 1] + 1)
    road = shapely.Polygon(corners)
    assert np.array_equal(off, ~shapely.contains(road, boxes))


def test_roads_above_and_below_have_their_own_edges(device) -> None:
    rig = Rig(
        [factory.overpass(start=0, frames=60)],
        device=device,
        num_egos=2,
        end_on=("collision_any", "offroad"),
    )
    for _ in range(40):  # both reach the crossing at the same time
        rig.step()
    assert not rig.state.terminated.any()
    assert rig.outcome.ttc.isinf().all()
    flat = replace(factory.overpass(start=0, frames=60), has_z=False)
    rig = Rig([flat], device=device, num_egos=2, end_on=("collision_any", "offroad"))
    for _ in range(40):
        rig.step()
    assert rig.state.terminated.all()


def test_overlap_is_shapelys(device) -> None:
    shapely = pytest.importorskip("shapely")
    rng = np.random.default_rng(3)
    n, ego, other = 2000, (4.6, 1.9, 1.6), (7.0, 2.4, 2.0)
    path = line((0.0, 0.0), (100.0, 0.0))
    elsewhere = Actor(line((0.0, 300.0), (100.0, 300.0)), 0.0, 1.0, size=other)
    scenario = assemble("pair", [], [Actor(path, 0.0, 1.0, size=ego), elsewhere], frames=3, start=0)
    rig = Rig([scenario], n, device=device, action=ActionType.teleport, num_egos=2)
    pose = np.concatenate(
        [rng.uniform(-5, 5, (n, 2, 2)), rng.uniform(-np.pi, np.pi, (n, 2, 1))], -1
    )
    given = torch.as_tensor(pose, dtype=torch.float32)
    rig.step(given.to(device))
    got = (rig.outcome.collision[:, 0] != 0).cpu().numpy()
    boxes = []
    for k, size in enumerate((ego, other)):
        x, y, yaw = given[:, k].double().numpy().T
        c, s = np.cos(yaw), np.sin(yaw)
        local = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) * np.array(size[:2]) / 2
        corners = np.stack(
            [
                x[:, None] + c[:, None] * local[:, 0] - s[:, None] * local[:, 1],
                y[:, None] + s[:, None] * local[:, 0] + c[:, None] * local[:, 1],
            ],
            -1,
        )
        boxes.append(shapely.polygons(corners))
    wrong = got != shapely.intersects(*boxes)
    band = (shapely.distance(*boxes) < 1e-4) & (shapely.area(shapely.intersection(*boxes)) < 1e-4)
    assert not (wrong & ~band).any()
    assert 0.2 < got.mean() < 0.9
    assert np.array_equal(got, (rig.outcome.collision[:, 1] != 0).cpu().numpy())


@pytest.mark.parametrize(
    ("x", "y", "yaw", "kind"),
    [
        (4.5, 0.0, 0.0, sim.Collision.FRONT),
        (4.5, 1.5, math.pi, sim.Collision.FRONT),
        (-4.5, 0.0, 0.0, sim.Collision.REAR),
        (-4.5, -1.5, 0.5, sim.Collision.REAR),
        (0.0, 3.0, math.pi / 2, sim.Collision.LATERAL),
        (0.0, -1.8, 0.0, sim.Collision.FRONT),  # the whole side, front corner included
        (0.3, -3.0, -math.pi / 2, sim.Collision.LATERAL),
    ],
)
def test_collisions_are_told_apart_by_the_side_that_is_hit(device, x, y, yaw, kind) -> None:
    path = line((0.0, 0.0), (100.0, 0.0))
    other = Actor(line((0.0, 300.0), (100.0, 300.0)), 0.0, 1.0)
    rig = Rig(
        [assemble("hit", [], [Actor(path, 0.0, 1.0), other], frames=5, start=0)],
        device=device,
        action=ActionType.teleport,
        num_egos=2,
    )
    targets = torch.tensor([[[0.0, 0.0, 0.0], [x, y, yaw]]], device=rig.device)
    rig.step(targets)
    assert rig.outcome.collision[0, 0] == kind
    at_fault = kind in (sim.Collision.FRONT, sim.Collision.LATERAL)
    assert rig.outcome.terms[0, 0, TERM.COLLISION_AT_FAULT] == at_fault
    rig.step(targets)  # it lasts, but began before
    assert rig.outcome.collision[0, 0] == sim.Collision.NONE


def test_an_agent_that_appears_on_top_of_the_ego_begins_no_collision(device) -> None:
    ghost = Actor(factory.STRAIGHT, 20.0, 10.0, absent=(0, 8))
    rig = Rig([factory.straight(ghost, start=0)], device=device)
    for _ in range(20):
        rig.step()
        assert rig.outcome.collision.item() == 0
    assert rig.state.valid.all()


def test_nearest_agents_and_road_points_are_the_first_of_all_sorted(device) -> None:
    rng = np.random.default_rng(5)
    actors = [
        Actor(line((0.0, float(y)), (300.0, float(y))), float(s), 3.0)
        for y, s in rng.uniform((-60, 0), (60, 120), (300, 2))
    ]
    points = rng.uniform(-10.0, 130.0, (2000, 2))
    elements = [(MapType.ROAD_LINE, line(p, p + rng.uniform(-3, 3, 2))) for p in points]
    scenario = assemble(
        "many", elements, [Actor(line((0, 0), (300, 0)), 50.0, 5.0), *actors], frames=8
    )
    rig = Rig(
        [scenario],
        device=device,
        num_agents=100,
        num_road_points=200,
        agent_radius=1e3,
        road_radius=1e3,
    )
    rig.observe()
    here = np.array([rig.state.x[0, 0].item(), rig.state.y[0, 0].item()])
    others = torch.stack([rig.state.x[0, 1:], rig.state.y[0, 1:]], -1).cpu().numpy()
    road = rig.scenarios.road[:, :2].cpu().numpy()
    for name, all_of, count in (("agents", others, 100), ("road", road, 200)):
        seen = getattr(rig.observation, name)[0, 0, :, :2].norm(dim=-1).cpu().numpy()
        want = np.sort(np.linalg.norm(all_of - here, axis=1))[:count]
        np.testing.assert_allclose(seen, want, atol=2e-4)
        assert getattr(rig.observation, f"{name}_mask").all()


def test_observation_is_in_the_egos_frame(device) -> None:
    # The ego at (7, 0) heading +y sees what lies at (7 + 3, 0 + 5) 5 m ahead and 3 m to the right.
    ego = Actor(factory.STRAIGHT, 27.0, 10.0)
    other = Actor(line((10.0, 5.0), (60.0, 5.0)), 0.0, 2.0)
    rig = Rig([factory.straight(other, ego=ego, start=0)], device=device)
    rig.state.yaw[0, 0] = math.pi / 2
    rig.observe()
    seen = rig.observation.agents[0, 0, 0].cpu()
    want = [5.0, -3.0, 0.0, -1.0, 2.0, 4.6, 1.9, 1.0]
    torch.testing.assert_close(seen, torch.tensor(want), atol=1e-5, rtol=0)
    waypoint = rig.observation.route[0, 0, 0, :4].cpu()
    torch.testing.assert_close(waypoint, torch.tensor([0.0, -4.0, 0.0, -1.0]), atol=1e-5, rtol=0)


def test_ego_features_of_a_straight_drive(device) -> None:
    ego = Actor(factory.STRAIGHT, 20.0, 10.0, limit=12.0, stops=[(70.0, 0)])
    scenario = factory.straight(ego=ego, lights=[((50.0, 0.0), 2)], start=0)
    rig = Rig([scenario], device=device)
    rig.state.y += 1.5
    rig.state.yaw += 0.1
    rig.observe()
    want = [10.0, 0.0, 0.0, 4.6, 1.9, 1.5, 0.1, 12.0, 40.0, 50.0 - 2.3]
    torch.testing.assert_close(
        rig.observation.ego[0, 0].cpu(), torch.tensor(want), atol=1e-4, rtol=0
    )
    # stop point, distance along the route, on the route, red
    light = rig.observation.lights[0, 0, 0].cpu()
    torch.testing.assert_close(
        light[LightFeature.DISTANCE :], torch.tensor([47.7, 1.0, 1.0, 0.0, 0.0]), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("kind", list(AgentType))
@pytest.mark.parametrize("speed", [0.0, 0.5])
def test_a_collision_counts_whatever_is_hit(device, kind, speed) -> None:
    """Vehicles, pedestrians, cyclists and objects, standing or moving."""
    size = factory.WALKER if kind == AgentType.PEDESTRIAN else (1.0, 1.0, 1.0)
    other = Actor(factory.STRAIGHT, 32.0, speed, type=kind, size=size)
    rig = Rig([factory.straight(other)], device=device)
    total = torch.zeros(len(TERM), device=device)
    for _ in range(15):
        rig.step()
        total += rig.outcome.terms[0, 0]
    assert total[TERM.COLLISION_ANY] == total[TERM.COLLISION_AT_FAULT] == 1.0


def test_terms_of_one_step(device) -> None:
    # progress = ds; speed_limit = v - limit; route = lane = |y|; ttc = 1 - t / horizon.
    ego = Actor(factory.STRAIGHT, 20.0, 10.0, limit=8.0)
    wall = Actor(factory.STRAIGHT, 34.0, 0.0)
    rig = Rig([factory.straight(wall, ego=ego, start=0)], device=device)
    rig.state.y[0, 0] = 0.5
    rig.step(rig.same_action(1.0, 0.0))
    terms = rig.outcome.terms[0, 0].cpu()
    speed, x = 10.1, 1.005
    ttc = (14.0 - x - 4.6) / speed
    want = dict.fromkeys(TERM, 0.0) | {
        TERM.PROGRESS: x,
        TERM.ROUTE: 0.5,
        TERM.LANE: 0.5,
        TERM.DISTANCE_TO_GT: math.hypot(0.5, x - 1.0),
        TERM.SPEED_LIMIT: speed - 8.0,
        TERM.COMFORT: 1.0,  # jerk 10 m/s^3
        TERM.TTC: 1 - ttc / 2.0,
    }
    torch.testing.assert_close(terms, torch.tensor(list(want.values())), atol=2e-4, rtol=0)
    assert rig.outcome.reward.item() == pytest.approx(sum(want.values()), abs=1e-3)


@pytest.mark.parametrize(
    ("event", "options"),
    [("offroad", {"yaw": 0.6}), ("collision_at_fault", {"wall": True}), ("goal", {})],
)
def test_an_event_ends_the_episode_only_if_asked(device, event, options) -> None:
    others = [Actor(factory.STRAIGHT, 40.0, 0.0)] if options.get("wall") else []
    for end_on in ((), (event,)):
        rig = Rig([factory.straight(*others, frames=41, start=0)], device=device, end_on=end_on)
        rig.state.yaw[:, 0] += options.get("yaw", 0.0)
        rig.state.speed[:, 0] += 0.5  # the goal before the record ends
        while not rig.state.done.all():
            rig.step()
        assert rig.state.terminated.item() == bool(end_on)
        assert rig.state.truncated.item() == (not end_on)
        assert (rig.state.step.item() == 40) == (not end_on)


def test_max_steps_bounds_the_episode(device) -> None:
    for limit, want in ((7, 7), (0, 35), (1000, 35)):
        rig = Rig([factory.straight(frames=41, start=5)], device=device, max_steps=limit)
        while not rig.state.done.all():
            rig.step()
        assert rig.state.step.item() == want
