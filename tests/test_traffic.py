"""Traffic that behaves: lane changes, takeover from the log, driving on, mixed worlds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scenario_factory as factory
from alpagym import env, sim
from alpagym.config import REWARD_PRESETS, Traffic
from alpagym.scenarios.batch import batch
from alpagym.scenarios.lanes import lanes_of
from alpagym.scenarios.procedural import generate
from alpagym.scenarios.scenario import LightState, MapType, Scenario
from like_reference import Tally, check_step
from simulating import Rig

IDM = int(sim.Controller.IDM)
RIGHT = factory.line((-20.0, -1.75), (600.0, -1.75))
LEFT = factory.line((-20.0, 1.75), (600.0, 1.75))


def two_lanes(*others: factory.Actor, name: str = "two lanes", **options) -> Scenario:
    """A road of two lanes along +x that know each other; agent 1 follows on the right lane.

    The ego is parked far off, so that it is in nobody's way.
    """
    ego = factory.Actor(factory.line((-500.0, 50.0), (-400.0, 50.0)), 0.0, 1.0)
    road = factory.line((-20.0, 0.0), (600.0, 0.0))
    elements = [*factory.edges_of(road, 5.0), (MapType.LANE, RIGHT), (MapType.LANE, LEFT)]
    scenario = factory.assemble(name, elements, [ego, *others], **options)
    scenario.map.left_neighbor[2], scenario.map.right_neighbor[3] = 3, 2
    return scenario


def car(lane: np.ndarray, s: float, speed: float) -> factory.Actor:
    return factory.Actor(lane, s, speed, limit=15.0)


def idm_rig(scenario: Scenario, worlds: int = 1, **options) -> Rig:
    given = {"traffic": Traffic.idm, "lanes": True, "max_steps": 600, "idm_speed_spread": 0.0}
    return Rig([scenario], worlds, **(given | options))


# ---- lane changes


def slow_leader(**options) -> Rig:
    return idm_rig(two_lanes(car(RIGHT, 40.0, 10.0), car(RIGHT, 65.0, 4.0)), **options)


def hold(rig: Rig, agent: int) -> None:
    """Let an agent keep its velocity, as a slow leader that never speeds up."""
    rig.state.controller[:, agent] = int(sim.Controller.CONSTANT_VELOCITY)


def test_a_driver_overtakes_a_slow_leader_where_the_other_lane_is_free(device) -> None:
    rig = slow_leader(device=device)
    hold(rig, 2)
    states = rig.run(120)
    y = torch.stack([s.y[0, 1] for s in states]).cpu()
    assert y[0] == pytest.approx(-1.75, abs=0.05)
    assert (y[-1] - 1.75).abs() < 0.3
    assert states[-1].x[0, 1] > states[-1].x[0, 2] + 10.0
    yaw = torch.stack([s.yaw[0, 1] for s in states]).abs().max()
    lateral = max(float((s.speed[0, 1] ** 2 * s.curvature[0, 1]).abs()) for s in states)
    assert yaw < 0.35
    assert lateral < 3.0


def test_nobody_changes_lanes_without_the_option_or_without_a_lane_graph(device) -> None:
    for options in ({"lane_changes": False}, {"lanes": False}):
        rig = slow_leader(device=device, **options)
        hold(rig, 2)
        assert all((s.route == 0).all() and (s.y[0, 1] + 1.75).abs() < 0.2 for s in rig.run(80))


def test_nobody_changes_lanes_where_a_follower_would_brake_too_hard(device) -> None:
    fast = [car(LEFT, 28.0 - 12.0 * k, 14.0) for k in range(3)]
    rig = idm_rig(two_lanes(car(RIGHT, 40.0, 10.0), car(RIGHT, 65.0, 4.0), *fast), device=device)
    hold(rig, 2)
    first = next(t for t, s in enumerate(rig.run(100)) if s.route[0, 1] != 0)
    bound = slow_leader(device=device)
    hold(bound, 2)
    free = next(t for t, s in enumerate(bound.run(100)) if s.route[0, 1] != 0)
    assert free < 10 < first  # it waits until the others have passed


def test_a_gain_below_the_threshold_is_not_worth_a_lane_change(device) -> None:
    rig = slow_leader(device=device, idm_change_threshold=20.0)
    hold(rig, 2)
    assert all((s.route == 0).all() for s in rig.run(80))


def test_drivers_do_not_swing_between_lanes(device) -> None:
    """Two lanes equally slow: nothing is gained by changing, and no one changes twice in 5 s."""
    slow = [car(lane, 70.0, 5.0) for lane in (RIGHT, LEFT)]
    scenario = two_lanes(*slow, car(RIGHT, 30.0, 9.0), car(LEFT, 40.0, 9.0), car(RIGHT, 5.0, 9.0))
    rig = idm_rig(scenario, device=device)
    hold(rig, 1)
    hold(rig, 2)
    routes = torch.stack([s.route[0] for s in rig.run(200)]).cpu()
    for agent in range(3, 6):
        at = (routes[1:, agent] != routes[:-1, agent]).nonzero().flatten()
        assert len(at) <= 2
        assert (at.diff() >= 49).all()


def test_lanes_beside_are_found_with_their_side_and_lead() -> None:
    lanes = lanes_of(two_lanes(car(RIGHT, 40.0, 10.0), car(LEFT, 90.0, 10.0)))
    assert len(lanes.routes) == 2
    (of_right,) = lanes.beside[1]
    (of_left,) = lanes.beside[2]
    assert of_right.left
    assert not of_left.left
    assert of_right.shift == pytest.approx(40.0, abs=1.0)  # the route begins there
    assert of_left.shift == pytest.approx(90.0, abs=1.0)
    assert of_right.last - of_right.first > 400.0


# ---- driving on


def test_idm_traffic_drives_on_along_the_lane_graph_and_leaves_where_the_map_ends(device) -> None:
    """A route that ends 100 m on continues on the lane's own, which ends after 620 m."""
    short = factory.line((-20.0, -1.75), (180.0, -1.75))
    scenario = two_lanes(car(short, 40.0, 14.0))
    rig = idm_rig(scenario, device=device)
    states = rig.run(450)
    there = torch.stack([s.valid[0, 1] for s in states]).cpu()
    x = torch.stack([s.x[0, 1] for s in states]).cpu()
    assert x[there].max() > 580.0
    assert not there[-1]
    assert (x[there].diff() > 0).all()
    alone = idm_rig(scenario, device=device, lanes=False)
    assert torch.stack([s.x[0, 1] for s in alone.run(200)]).max() < 185.0


def test_episodes_go_on_beyond_the_record_unless_it_is_replayed(device) -> None:
    for traffic, last in ((Traffic.log, 35), (Traffic.idm, 60), (Traffic.log_then_idm, 60)):
        rig = Rig([factory.straight()], device=device, traffic=traffic, max_steps=60, seconds=6.0)
        while not rig.state.truncated[0, 0]:
            rig.step()
        assert rig.state.step[0] == last


def test_lights_repeat_what_follows_the_record() -> None:
    """The ego's light, as it observes it, for two cycles beyond the record."""
    light = [((60.0, 0.0), LightState.RED)]
    scenario = factory.straight(ego=factory.Actor(factory.STRAIGHT, 20.0, 0.5), lights=light)
    scenario.lights.after = np.repeat([[4, 3, 2]], 4, axis=1).astype(np.uint8)
    rig = Rig([scenario], traffic=Traffic.idm, max_steps=80, seconds=8.0)
    green = []
    for _ in range(72):
        rig.step()
        rig.observe()
        green.append(bool(rig.observation.lights[0, 0, 0, 6]))
    want = [f >= 41 and (f - 41) % 12 < 4 for f in range(6, 78)]
    assert green == want


def test_lights_without_a_source_take_turns() -> None:
    lights = [((-10.0, -3.0), LightState.GREEN), ((3.0, -10.0), LightState.RED)]
    packed = batch([factory.crossing(lights=lights)], seconds=60.0)
    after = packed.light_state.reshape(-1, 2)[41:]
    assert packed.light_frames[0] == 41 + len(after)
    assert not ((after == 4) | (after == 3)).all(1).any()
    assert (after == 4).any(0).all()
    assert (after[0] == torch.tensor([4, 2])).all()


def test_the_route_of_an_ego_grows_with_the_length_of_episodes() -> None:
    scenario = generate("straight", 3)
    short, long = (batch([scenario], lanes=True, seconds=s) for s in (0.0, 60.0))
    ego = scenario.ego
    count = [int(b.route_start[ego + 1] - b.route_start[ego]) for b in (short, long)]
    assert count[1] >= count[0]
    first = short.route[short.route_start[ego] : short.route_start[ego + 1]]
    assert torch.equal(first, long.route[long.route_start[ego] :][: count[0]])


# ---- keys and mixtures


def test_desired_speeds_follow_from_the_seed(device) -> None:
    rig = Rig([factory.random_scenario(1)], 6, device=device, traffic=Traffic.idm)
    rig.state.seed.copy_(torch.tensor([1, 1, 2, 3, 4, 5]))
    rig.state.speed.fill_(14.0)
    rig.step()
    accel = rig.state.accel[:, 1:].cpu()
    assert torch.equal(accel[0], accel[1])
    assert len({tuple(row.tolist()) for row in accel}) == 5


def test_worlds_of_one_batch_mix_traffic_bit_for_bit(device) -> None:
    scenarios = [factory.random_scenario(s) for s in range(4)]
    kinds = list(Traffic)
    mixed = Rig(scenarios, 16, device=device, traffic=Traffic.log)
    mixed.state.scenario.copy_(torch.arange(16) // 4)
    for w in range(16):
        mixed.state.traffic[w] = sim.traffic_code(kinds[w % 4])
    sim.reset(mixed.scenarios, mixed.state, mixed.all, mixed.params)
    pure = {k: Rig(scenarios, 4, device=device, traffic=k) for k in kinds}
    every = torch.randn(8, 4, 1, 2, generator=torch.Generator().manual_seed(1)).to(device)
    for action in every:
        mixed.step(action.repeat_interleave(4, 0).contiguous())
        for rig in pure.values():
            rig.step(action)
    for k, kind in enumerate(kinds):
        for name, tensor in pure[kind].state.tensors().items():
            if name != "traffic":
                assert torch.equal(getattr(mixed.state, name)[k::4], tensor), (kind, name)


def test_an_environment_mixes_traffic_by_list_and_by_shares() -> None:
    scenarios = [generate("straight", s) for s in range(2)]

    def make(traffic, worlds: int = 4, seed: int = 1):
        return env.VectorEnv(
            scenarios, worlds, reward=REWARD_PRESETS["dense"], traffic=traffic, seed=seed
        )

    listed = make(["log", "idm", "constant_velocity", "log_then_idm"])
    listed.reset()
    assert listed.state.traffic.tolist() == [1, 2, 3, 4]
    drawn = make({"log": 1.0, "idm": 3.0}, 2000)
    drawn.reset()
    share = (drawn.state.traffic == sim.traffic_code(Traffic.idm)).float().mean()
    assert set(drawn.state.traffic.unique().tolist()) == {1, 2}
    assert abs(share - 0.75) < 0.05
    again = make({"log": 1.0, "idm": 3.0}, 2000)
    again.reset()
    assert torch.equal(again.state.traffic, drawn.state.traffic)
    for bad, message in (
        (["log"], "one name for each of 4 worlds"),
        (["log", "idm", "idm", "bus"], "got bus"),
        ({"log": -1.0, "idm": 1.0}, "shares of at least 0"),
        ({"log": 0.0}, "shares of at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            make(bad)
    made = env.make(scenarios, 4, traffic=["idm"] * 4)
    made.reset()
    assert made.state.traffic.tolist() == [2] * 4
    assert env.make(scenarios, 4, traffic="idm").config.traffic is Traffic.idm


# ---- determinism and parity, with lane changes


def lively() -> list[Scenario]:
    """Procedural scenarios in which lanes are changed."""
    return [generate("straight", 0), generate("straight", 9), generate("merge", 6)]


def test_lane_changes_depend_on_nothing_but_keys(device) -> None:
    scenarios = lively()
    many = Rig(scenarios, 30, device=device, traffic=Traffic.idm, lanes=True, max_steps=200)
    many.state.seed.copy_(torch.arange(30) % 3 + 5)
    many.run(80)
    assert (many.state.route != 0).any()
    for s in range(3):
        one = Rig(
            scenarios[s : s + 1],
            1,
            device=device,
            traffic=Traffic.idm,
            lanes=True,
            max_steps=200,
            capacity=many.state.x.shape[1],
        )
        one.state.seed.fill_(s + 5)
        one.run(80)
        for w in (s, s + 27):
            for name, tensor in one.state.tensors().items():
                if name != "scenario":
                    assert torch.equal(getattr(many.state, name)[w : w + 1], tensor), (s, w, name)


@pytest.mark.parametrize("every", [20, pytest.param(4, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("traffic", [Traffic.idm, Traffic.log_then_idm])
def test_lane_changes_and_takeover_like_the_reference(device, traffic, every, tol) -> None:
    """Two steps of each `every`."""
    tally, changed = Tally(), 0
    options = {"device": device, "traffic": traffic, "lanes": True, "max_steps": 200}
    rig = Rig(lively(), seconds=20.0, **options)
    brake = rig.zero_action()
    brake[..., 0] = -2.0
    for t in range(100):
        if t % every < 2:
            before = rig.state.route.clone()
            check_step(rig, brake, tally, tol)
            changed += int((rig.state.route != before).sum())
        else:
            rig.step(brake)
    tally.close()
    assert changed > 0 or traffic is not Traffic.idm
    assert (rig.state.controller == IDM).any()


def test_traffic_stays_finite_from_disturbed_states(device) -> None:
    rig = Rig(lively(), 12, device=device, traffic=Traffic.idm, lanes=True, max_steps=200)
    for seed in range(5):
        rig.disturb(seed)
        for s in rig.run(10):
            for name, tensor in s.tensors().items():
                if tensor.dtype.is_floating_point:
                    assert tensor.isfinite().all(), name
