"""Closed forms of motion and traffic: what must come out, with the equation beside each test."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import scenario_factory as factory
from alpagym import sim
from alpagym.config import ActionType, Traffic
from scenario_factory import Actor, assemble, line
from simulating import Rig

TERM = sim.RewardTerm
DT = 0.1


def free_rig(device, **options) -> Rig:
    """One car alone on an endless plain at the origin, heading +x, at rest."""
    ego = Actor(line((0.0, 0.0), (400.0, 0.0)), 0.0, 10.0)
    rig = Rig([assemble("free", [], [ego], frames=301, start=0)], device=device, **options)
    rig.state.speed.zero_()
    return rig


def rear_axle(rig: Rig) -> torch.Tensor:
    """[x, y] of the ego's rear axle."""
    arm, s = rig.scenarios.agent[0, 3], rig.state
    return torch.stack([s.x - arm * s.yaw.cos(), s.y - arm * s.yaw.sin()]).flatten().double().cpu()


@pytest.mark.parametrize("kind", [ActionType.unicycle, ActionType.bicycle])
def test_constant_curvature_is_a_circle(device, kind) -> None:
    # The rear axle moves on a circle of radius R = 1 / k, and is back after 2 pi R.
    radius, steps = 20.0, 200
    rig = free_rig(device, action=kind)
    rig.state.speed.fill_(2 * math.pi * radius / (steps * DT))
    turn = 1 / radius
    if kind is ActionType.bicycle:  # k = tan(steering angle) / wheelbase, wheelbase = 2 * rear axle
        turn = math.atan(2 * rig.scenarios.agent[0, 3].item() / radius)
    start, center = rear_axle(rig), rear_axle(rig) + torch.tensor([0.0, radius])
    distances = []
    for _ in range(steps):
        rig.step(rig.same_action(0.0, turn))
        distances.append(torch.dist(rear_axle(rig), center).item())
    assert torch.dist(rear_axle(rig), start) < 2e-3
    # Chords instead of arcs: corners at R (h / 2) / tan(h / 2) from the center, h = 2 pi / n.
    half = math.pi / steps
    assert distances == pytest.approx(
        [radius * half / math.tan(half)] * steps, abs=2 * radius * half**2
    )


def test_the_integrator_is_of_second_order(device) -> None:
    # Against x = int v cos(yaw) dt with v = v0 + a t, yaw = k (v0 t + a t^2 / 2): halving dt
    # quarters the error of the trapezoid rule.
    v0, a, k, time = 8.0, 1.5, 0.05, 2.0
    t = np.linspace(0.0, time, 200_001)
    way = v0 * t + 0.5 * a * t**2
    exact = np.trapezoid(
        np.stack([(v0 + a * t) * np.cos(k * way), (v0 + a * t) * np.sin(k * way)]), t
    )
    errors = []
    for dt in (0.2, 0.1):
        rig = free_rig(device, dt=dt)
        rig.state.speed.fill_(v0)
        start = rear_axle(rig)
        for _ in range(round(time / dt)):
            rig.step(rig.same_action(a, k))
        errors.append(np.linalg.norm((rear_axle(rig) - start).numpy() - exact))
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.1)


def test_stopping_distance(device) -> None:
    # s = v^2 / (2 a), and standing still after: nobody reverses by braking. The last step ends at
    # standstill; it is at most v dt / 2 - v^2 / (2 a) <= a dt^2 / 8 too long.
    speeds = torch.linspace(0.01, 30.0, 2000)
    ego = Actor(line((0.0, 0.0), (400.0, 0.0)), 0.0, 10.0)
    rig = Rig([assemble("free", [], [ego], frames=301, start=0)], 2000, device=device)
    rig.state.speed.copy_(speeds[:, None])
    braking = 4.0
    start = rig.state.x.clone()
    for _ in range(100):
        rig.step(rig.same_action(-braking, 0.0))
        assert (rig.state.speed >= 0).all()
    assert (rig.state.speed == 0).all()
    want = speeds.double() ** 2 / (2 * braking)
    excess = (rig.state.x - start).cpu().double().flatten() - want
    assert excess.min() > -1e-3
    assert excess.max() < braking * DT**2 / 8 + 1e-3
    resting = rig.state.x.clone()
    rig.step(rig.same_action(-8.0, 0.3))
    assert torch.equal(rig.state.x, resting)


def test_controls_are_bounded(device) -> None:
    # a in [min, max]; |k| <= min(k_max, a_lat / v^2).
    rig = free_rig(device)
    rig.state.speed.fill_(20.0)
    rig.step(rig.same_action(50.0, 1.0))
    assert rig.state.accel.item() == pytest.approx(rig.config.max_accel, abs=1e-3)
    assert rig.state.curvature.item() == pytest.approx(
        rig.config.max_lateral_accel / 400.0, rel=1e-5
    )
    rig.state.speed.fill_(1.0)
    rig.step(rig.same_action(-50.0, -1.0))
    assert rig.state.accel.item() == pytest.approx(rig.config.min_accel, abs=1e-3)
    assert rig.state.curvature.item() == pytest.approx(-rig.config.max_curvature, rel=1e-6)


def test_reversing_goes_backward(device) -> None:
    rig = free_rig(device)
    rig.state.speed.fill_(-2.0)
    x = rig.state.x.item()
    rig.step(rig.same_action(-1.0, 0.0))
    # v' = v + a dt, x' = x + (v + v') dt / 2
    assert rig.state.speed.item() == pytest.approx(-2.1, abs=1e-5)
    assert rig.state.x.item() == pytest.approx(x - 0.205, abs=1e-5)


def test_wrap_angle_at_the_seams(device) -> None:
    # Into [-pi, pi): pi becomes -pi, the float below pi stays.
    below = math.nextafter(np.float32(math.pi), 0)
    cases = [
        math.pi,
        -math.pi,
        3 * math.pi,
        -3 * math.pi,
        float(np.float32(below)),
        7.0,
        1e4,
        -1e4,
        0.0,
    ]
    for given in cases:
        rig = free_rig(device, action=ActionType.teleport)
        rig.step(rig.same_action(0.0, 0.0, given))
        got = rig.state.yaw.item()
        assert -math.pi - 2e-7 <= got < math.pi
        exact = float(np.float32(given))
        rounding = 2e-3 if abs(given) > 100 else 2e-6
        assert abs(math.remainder(got - exact, 2 * math.pi)) < rounding
    rig = free_rig(device, action=ActionType.delta)
    for _ in range(700):
        rig.step(rig.same_action(0.0, 0.0, 0.1))
        assert -math.pi - 2e-7 <= rig.state.yaw.item() < math.pi
    # 300 steps are the record's: then the world is done.
    assert math.remainder(
        rig.state.yaw.item() - 0.1 * rig.state.step.item(), 2 * math.pi
    ) == pytest.approx(0, abs=1e-3)


def test_displacements_are_in_the_agents_own_frame(device) -> None:
    rig = free_rig(device, action=ActionType.delta)
    rig.state.yaw.fill_(math.pi / 2)
    x, y = rig.state.x.item(), rig.state.y.item()
    rig.step(rig.same_action(2.0, 0.5, 0.1))
    assert rig.state.x.item() == pytest.approx(x - 0.5, abs=1e-5)
    assert rig.state.y.item() == pytest.approx(y + 2.0, abs=1e-5)
    assert rig.state.yaw.item() == pytest.approx(math.pi / 2 + 0.1, abs=1e-6)
    # speed = |displacement| / dt
    assert rig.state.speed.item() == pytest.approx(math.hypot(2.0, 0.5) / DT, rel=1e-5)


def idm_rig(device, *others: Actor, ego_speed: float = 10.0, **options) -> Rig:
    """A driver that is not the ego, on a long road with a limit of 15 m/s; the ego is far away."""
    road = line((0.0, 0.0), (3000.0, 0.0))
    away = Actor(line((0.0, 500.0), (3000.0, 500.0)), 0.0, 5.0)
    driver = Actor(road, 10.0, ego_speed, limit=15.0)
    scenario = assemble("idm", [], [away, driver, *others], frames=700, start=0)
    return Rig([scenario], device=device, traffic=Traffic.idm, idm_speed_spread=0.0, **options)


def test_idm_accelerates_from_rest_and_reaches_the_limit(device) -> None:
    # On a free road a (1 - (v / v0)^4): a at rest, 0 at v0.
    rig = idm_rig(device)
    rig.state.speed[0, 1] = 0.0
    speeds = [0.0]
    for _ in range(400):
        rig.step()
        v, speed = speeds[-1], rig.state.speed[0, 1].item()
        want = rig.config.idm_accel * (1 - (v / 15.0) ** 4)
        assert (speed - v) / DT == pytest.approx(want, abs=2e-4)
        speeds.append(speed)
    assert speeds[-1] == pytest.approx(15.0, abs=0.1)


def test_idm_keeps_the_equilibrium_gap(device) -> None:
    # At equal speeds and no acceleration s = (s0 + v T) / sqrt(1 - (v / v0)^4).
    speed = 10.0
    leader = Actor(line((0.0, 0.0), (3000.0, 0.0)), 60.0, speed)
    rig = idm_rig(device, leader)
    rig.state.controller[0, 2] = int(sim.Controller.CONSTANT_VELOCITY)
    for _ in range(600):
        rig.step()
    c = rig.config
    want = (c.idm_gap + speed * c.idm_headway) / math.sqrt(1 - (speed / 15.0) ** 4)
    gap = (rig.state.x[0, 2] - rig.state.x[0, 1]).item() - factory.CAR[0]
    assert rig.state.speed[0, 1].item() == pytest.approx(speed, abs=0.02)
    assert gap == pytest.approx(want, abs=0.1)


def test_idm_stops_behind_a_standing_car_and_before_a_red_light(device) -> None:
    # At rest s -> s0, from above; the red line is met like a leader at rest.
    road = line((0.0, 0.0), (3000.0, 0.0))
    rig = idm_rig(device, Actor(road, 120.0, 0.0))
    for _ in range(400):
        rig.step()
    assert rig.state.speed[0, 1].item() < 0.05
    gap = 120.0 - rig.state.x[0, 1].item() - factory.CAR[0]
    assert 0.9 * rig.config.idm_gap < gap < 1.5 * rig.config.idm_gap
    away = Actor(line((0.0, 500.0), (3000.0, 500.0)), 0.0, 5.0)
    driver = Actor(road, 10.0, 10.0, limit=15.0, stops=[(100.0, 0)])
    for state, stops in ((2, True), (5, True), (4, False), (0, False)):
        scenario = assemble(
            "red", [], [away, driver], lights=[((100.0, 0.0), state)], frames=400, start=0
        )
        rig = Rig([scenario], device=device, traffic=Traffic.idm)
        for _ in range(300):
            rig.step()
        front = rig.state.x[0, 1].item() + factory.CAR[0] / 2
        assert (front < 100.0) == stops
    assert front > 150.0


def test_idm_stops_at_a_stop_sign_once(device) -> None:
    away = Actor(line((0.0, 500.0), (3000.0, 500.0)), 0.0, 5.0)
    driver = Actor(
        line((0.0, 0.0), (3000.0, 0.0)), 10.0, 10.0, limit=15.0, stops=[(100.0, factory.STOP_SIGN)]
    )
    scenario = assemble("sign", [], [away, driver], frames=400, start=0)
    rig = Rig([scenario], device=device, traffic=Traffic.idm)
    slowest = math.inf
    for _ in range(350):
        rig.step()
        if rig.state.x[0, 1] < 101.0:
            slowest = min(slowest, rig.state.speed[0, 1].item())
    assert slowest < 0.5
    assert rig.state.x[0, 1].item() > 150.0


def test_idm_takes_a_driver_without_a_route_to_go_straight_on(device) -> None:
    driver = Actor(line((0.0, 0.0), (3000.0, 0.0)), 10.0, 10.0, limit=13.0)
    walker = Actor(
        line((40.0, -3.0), (40.0, 40.0)),
        0.0,
        1.4,
        type=factory.AgentType.PEDESTRIAN,
        size=factory.WALKER,
    )
    scenario = assemble("lost", [], [driver, walker], frames=30, start=0)
    asked = []
    for controller in (sim.Controller.IDM, sim.Controller.CONSTANT_VELOCITY):
        rig = Rig([scenario], device=device)
        route_start = rig.scenarios.route_start
        route_start[2] = route_start[1]  # the walker, last of all, loses its route
        rig.state.controller[0] = torch.tensor([sim.Controller.IDM, controller], device=device)
        rig.step()
        asked.append(rig.state.accel[0, 0].item())
    assert asked[0] == asked[1] < -0.5  # gives way to both


def test_idm_lets_pedestrians_cross(device) -> None:
    away = Actor(line((0.0, 500.0), (3000.0, 500.0)), 0.0, 5.0)
    driver = Actor(line((0.0, 0.0), (3000.0, 0.0)), 10.0, 10.0, limit=13.0)
    walk = line((60.0, -12.0), (60.0, 40.0))
    walker = Actor(walk, 0.0, 1.4, type=factory.AgentType.PEDESTRIAN, size=factory.WALKER)
    scenario = assemble("walk", [], [away, driver, walker], frames=300, start=0)
    rig = Rig([scenario], device=device, traffic=Traffic.idm, num_egos=3)
    rig.state.ego[0] = torch.tensor([0, 1, -1], device=rig.device)
    rig.state.controller[0, 1] = int(sim.Controller.IDM)
    for _ in range(250):
        rig.step()
        assert rig.outcome.collision[0, 1] == 0
    assert rig.state.x[0, 1].item() > 100.0
