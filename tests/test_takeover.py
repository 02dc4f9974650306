"""Traffic and its record: when IDM takes over, who appears, and what goes on beyond."""

from __future__ import annotations

import pytest
import torch

import scenario_factory as factory
from alpagym import sim
from alpagym.config import Traffic
from alpagym.scenarios.scenario import AgentType
from simulating import Rig

IDM = int(sim.Controller.IDM)


def follower(**options) -> Rig:
    """The ego at 10 m/s, agent 1 behind it at the same speed."""
    scenario = factory.straight(factory.Actor(factory.STRAIGHT, 8.0, 10.0), frames=80)
    return Rig([scenario], traffic=Traffic.log_then_idm, max_steps=200, **options)


def test_the_log_is_replayed_as_long_as_the_ego_follows_its_own(device) -> None:
    then, log = (
        follower(device=device),
        Rig(
            [factory.straight(factory.Actor(factory.STRAIGHT, 8.0, 10.0), frames=80)], device=device
        ),
    )
    for _ in range(60):
        then.step()
        log.step()
        for name in ("x", "y", "yaw", "speed", "valid", "controller"):
            assert torch.equal(getattr(then.state, name), getattr(log.state, name)), name


def test_idm_takes_over_once_the_ego_deviates_and_never_gives_back(device) -> None:
    rig = follower(device=device)
    brake = rig.zero_action()
    brake[..., 0] = -4.0
    controllers, gaps = [], []
    for t in range(60):
        rig.step(brake if t < 30 else None)
        controllers.append(int(rig.state.controller[0, 1]))
        gaps.append(float(rig.state.x[0, 0] - rig.state.x[0, 1]) - 4.6)
    taken = controllers.index(IDM)
    assert 5 < taken < 20  # 2 m are lost after 1 s of braking at 4 m/s^2
    assert set(controllers[taken:]) == {IDM}
    assert min(gaps) > 0.5


def test_idm_takes_over_from_one_whose_recorded_path_is_blocked(device) -> None:
    rig = follower(device=device, reactive_distance=1e6)
    brake = rig.zero_action()
    brake[..., 0] = -6.0
    for _ in range(40):
        rig.step(brake)
    assert rig.state.controller[0, 1] == IDM
    assert rig.state.x[0, 0] - rig.state.x[0, 1] > 4.6


def test_who_was_taken_over_neither_vanishes_nor_jumps_with_the_record(device) -> None:
    behind = factory.Actor(factory.STRAIGHT, 5.0, 9.0, absent=(30, 45))
    rig = Rig(
        [factory.straight(behind, frames=80)],
        device=device,
        traffic=Traffic.log_then_idm,
        reactive_distance=0.5,
        max_steps=100,
    )
    brake = rig.zero_action()
    brake[..., 0] = -2.0
    states = []
    for _ in range(70):
        rig.step(brake)
        states.append(rig.state.clone())
    x = torch.stack([s.x[0, 1] for s in states])
    assert all(s.valid[0, 1] for s in states)
    assert (x.diff().abs() < 1.5).all()


def test_who_appears_in_the_record_drives_by_idm_from_there_once_there_is_room(device) -> None:
    late = factory.Actor(factory.STRAIGHT, 60.0, 8.0, absent=(0, 20))
    free = Rig([factory.straight(late)], device=device, traffic=Traffic.idm)
    states = free.run(25)
    valid = [bool(s.valid[0, 1]) for s in states]
    assert valid.index(True) == 14  # frame 20 is reached by step 15
    assert states[-1].controller[0, 1] == IDM
    at = float(states[14].x[0, 1])
    on_it = factory.Actor(factory.STRAIGHT, at + 20.0, 0.0)
    blocked = Rig([factory.straight(late, on_it)], device=device, traffic=Traffic.idm)
    first = next(t for t, s in enumerate(blocked.run(35)) if s.valid[0, 1])
    assert first > 14


def test_parked_agents_stay_and_walkers_go_on_beyond_the_record(device) -> None:
    parked = factory.Actor(factory.STRAIGHT, 150.0, 0.0)
    path = factory.line((10.0, -40.0), (10.0, 100.0))
    walker = factory.Actor(path, 0.0, 1.5, type=AgentType.PEDESTRIAN, size=factory.WALKER)
    rig = Rig([factory.straight(parked, walker)], device=device, traffic=Traffic.idm, max_steps=600)
    states = rig.run(450)
    assert all(torch.equal(s.x[:, 1], states[0].x[:, 1]) for s in states)
    y = torch.stack([s.y[0, 2] for s in states])
    there = torch.stack([s.valid[0, 2] for s in states])
    assert y[there].diff().max() == pytest.approx(0.15, abs=1e-4)
    assert not there[-1]
    assert y[there].max() - y[35] == pytest.approx(50.0, abs=0.3)


def test_a_parked_vehicle_that_appears_in_the_record_waits_for_room_too(device) -> None:
    """The record puts it where a driver, that left its own record, stands or drives by."""
    slow = factory.Actor(factory.STRAIGHT, 40.0, 6.0, limit=6.0)
    start = Rig([factory.straight(slow)], device=device, traffic=Traffic.idm)
    at = float(start.run(15)[-1].x[0, 1])
    line = factory.line((at, 0.0), (at + 1.0, 0.0))
    late = factory.Actor(line, 0.0, 0.0, absent=(0, 21))
    rig = Rig([factory.straight(slow, late)], device=device, traffic=Traffic.idm)
    states = rig.run(35)
    first = next(t for t, s in enumerate(states) if s.valid[0, 2])
    assert states[first].x[0, 1] - states[first].x[0, 2] > 4.6
    assert first > 15


def test_drivers_never_back_up(device) -> None:
    """Whatever speed below 0 the record hands over, and whatever stands in the way."""
    ahead = factory.Actor(factory.STRAIGHT, 46.0, 0.0)
    scenario = factory.straight(factory.Actor(factory.STRAIGHT, 40.0, 0.0, limit=10.0), ahead)
    rig = Rig([scenario], device=device, traffic=Traffic.idm)
    rig.step()
    rig.state.controller[0, 1] = IDM
    rig.state.speed[0, 1] = -0.3
    assert all(s.speed[0, 1] > -1e-5 for s in rig.run(20))
