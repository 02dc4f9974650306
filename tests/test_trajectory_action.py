"""Plans and how they are followed, actions that last several steps, and jerk."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

import alpagym
import dynamics
import scenario_factory as factory
from alpagym import sim
from alpagym.config import ActionType, SimConfig
from alpagym.reference import vehicle
from alpagym.scenarios.recorded_plans import recorded_plans, resample
from like_reference import Tally, check_step
from parity.alpasim_dynamics import rows
from simulating import Rig, error, host, poison, random_rig, same_bits

PLAN = ActionType.trajectory
AHEAD = 0.1 * np.arange(1, 65)


def free_rig(speed: float, device="cpu", worlds: int = 1, **options) -> Rig:
    """One car alone on an endless plain at the origin, heading +x."""
    ego = factory.Actor(factory.line((0.0, 0.0), (900.0, 0.0)), 0.0, speed)
    scenario = factory.assemble("plain", [], [ego], frames=301, start=0)
    return Rig([scenario], worlds, device=device, **({"action": PLAN} | options))


def arc(speed: float, curvature: float = 0.0, ahead: np.ndarray = AHEAD) -> np.ndarray:
    """Poses [n, 3] of a constant speed on an exact arc that begins here."""
    way = speed * ahead
    yaw = curvature * way
    if curvature == 0.0:
        return np.stack([way, 0.0 * way, yaw], -1)
    return np.stack([np.sin(yaw) / curvature, (1.0 - np.cos(yaw)) / curvature, yaw], -1)


def as_action(rig: Rig, plan: np.ndarray) -> torch.Tensor:
    """One plan for every ego."""
    return rig.same_action(*plan.reshape(-1))


@pytest.fixture(scope="module")
def table(shared_golden) -> list:
    return rows(shared_golden)


def test_alpasims_numbers_are_met(table) -> None:
    assert len(table) == 18
    for row in table:
        assert row.ok, row


# AlpaSim's own answers (`linear_mpc.py`, `vehicle_model.py` at 3032e0c): speed now, speed and
# curvature of the plan, offset to the left [m]; command; speed, yaw rate and steering 0.1 s later.
ANSWERS = [
    ((10.0, 10.0, 0.0, 0.0), (0.0, 0.0), (10.0, 0.0, 0.0)),
    ((10.0, 12.0, 0.0, 0.0), (0.0, 2.9451), (10.10854, 0.0, 0.0)),
    ((10.0, 0.0, 0.0, 0.0), (0.0, -8.9995), (9.66833, 0.0, 0.0)),
    ((10.0, 10.0, 0.02, 0.0), (0.10124, -0.2510), (9.99075, 0.132787, 0.063927)),
    ((10.0, 10.0, 0.0, 1.0), (0.12678, 0.0), (10.0, 0.166338, 0.080054)),
    ((3.0, 3.0, 0.1, 0.0), (0.34812, -0.1682), (2.993802, 0.096976, 0.219821)),
    ((0.0, 4.0, 0.0, 0.0), (0.0, 5.8902), (0.217079, 0.0, 0.0)),
]


@pytest.mark.parametrize(("case", "command", "after"), ANSWERS)
def test_commands_and_motion_are_alpasims(case, command, after) -> None:
    now, speed, curvature, offset = case
    plan = arc(speed, curvature) + np.array([0.0, offset, 0.0])
    state = vehicle.moving(now, 0.0, 0.0)
    u, solved = dynamics.solve(state[None], plan[None, 9:20])
    assert solved.all()
    assert u[0] == pytest.approx(command, abs=1e-3)
    rig = free_rig(now)
    rig.state.speed.fill_(now)
    rig.step(as_action(rig, plan))
    got = [rig.state.speed, rig.state.yaw_rate, rig.state.steering_angle]
    assert [x.item() for x in got] == pytest.approx(after, abs=2e-4)


def random_problems(count: int) -> tuple[np.ndarray, np.ndarray]:
    """States slow and fast, some that brake or turn hard; plans near, off and absurd."""
    rng = np.random.default_rng(5)
    state = np.zeros((count, 8))
    state[:, 3] = rng.uniform(0.0, 34.0, count) * rng.choice([0.0, 0.15, 1.0], count)
    state[:, 4:] = rng.normal(0.0, [0.2, 0.15, 0.08, 2.0], (count, 4))
    speed = np.maximum(state[:, 3] + rng.normal(0.0, 4.0, count), 0.0)
    turn = rng.normal(0.0, 0.03, count)
    target = np.stack([arc(v, k)[9:20] for v, k in zip(speed, turn, strict=True)])
    target += rng.normal(0.0, [0.5, 1.0, 0.1], (count, 1, 3)) * rng.choice(
        [0, 1, 6, 60], (count, 1, 1)
    )
    return state, target


def test_commands_are_those_of_an_exact_solver() -> None:
    state, target = random_problems(300)
    command, solved = dynamics.solve(state, target)
    for n in range(len(state)):
        want = vehicle.solve(state[n], target[n])
        assert solved[n] == (want is not None), n
        assert command[n] == pytest.approx([0.0, 0.0] if want is None else want, abs=1e-5), n
    assert 3 < (~solved).sum() < 100
    at_bounds = np.isclose(command, [[2.0, 6.0]], atol=1e-6).any(1)
    assert at_bounds.sum() > 10


def test_problems_that_are_no_numbers_coast() -> None:
    state, target = random_problems(40)
    for n, value in enumerate([np.nan, np.inf, -np.inf, 1e300]):
        state[n, 3 + n] = value
        target[4 + n, 3, n % 3] = value
    command, solved = dynamics.solve(state[:8], target[:8])
    assert not solved[:3].any()
    assert not solved[4:7].any()
    assert (command[~solved] == 0.0).all()
    assert np.isfinite(command).all()


@pytest.mark.parametrize("speed", [2.0, 12.0, 30.0])
def test_a_plan_at_constant_speed_is_kept(device, speed) -> None:
    rig = free_rig(speed, device)
    start = rig.state.x.item()
    for _ in range(20):
        rig.step(as_action(rig, arc(speed)))
    assert rig.state.x.item() - start == pytest.approx(2.0 * speed, abs=1e-3)
    assert abs(rig.state.y.item()) < 1e-5
    assert rig.state.accel.abs().item() < 1e-3


@pytest.mark.parametrize("speed", [3.0, 15.0])
def test_a_circle_is_driven_as_a_circle(device, speed) -> None:
    # The controller's view is linear and its costs pull both ways: a circle near the plan's.
    curvature = 0.02
    rig = free_rig(speed, device)
    rates = []
    for _ in range(60):
        rig.step(as_action(rig, arc(speed, curvature)))
        rates.append(rig.state.yaw_rate.item())
    assert rates[-1] == pytest.approx(rates[-10], rel=1e-2)
    assert 0.7 < rates[-1] / (rig.state.speed.item() * curvature) < 1.3
    turned = rig.state.curvature.item() * rig.state.speed.item()
    assert turned == pytest.approx(rates[-1], rel=2e-2)


def test_a_plan_of_zeros_stops_and_nobody_reverses(device) -> None:
    rig = free_rig(10.0, device)
    for _ in range(80):
        before = rig.state.x.clone()
        rig.step(rig.zero_action())
        assert rig.state.speed.item() >= 0.0
        assert (rig.state.x >= before - 1e-4).all()
    assert rig.state.speed.item() < 0.05


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_a_plan_that_cannot_be_followed_coasts(device, value) -> None:
    rig = free_rig(10.0, device)
    plan = arc(10.0)
    plan[12, 1] = value
    for _ in range(3):
        rig.step(as_action(rig, plan))
    if not math.isfinite(value):
        assert rig.state.speed.item() == pytest.approx(10.0, abs=1e-4)
    for name, tensor in rig.state.tensors().items():
        assert tensor.isfinite().all(), name


def test_a_plan_shorter_than_two_seconds_ends_at_its_last_waypoint(device) -> None:
    short, full = free_rig(10.0, device, plan_steps=12), free_rig(10.0, device)
    plan = arc(10.0)
    short.step(as_action(short, plan[:12]))
    full.step(as_action(full, np.concatenate([plan[:12], np.repeat(plan[11:12], 52, 0)])))
    assert short.state.speed.item() == pytest.approx(full.state.speed.item(), abs=1e-6)
    assert short.state.speed.item() < 9.9


def test_a_step_of_half_a_second_is_five_steps(device) -> None:
    long, short = (free_rig(8.0, device, dt=dt, replan_every=n) for dt, n in ((0.5, 1), (0.1, 5)))
    plan = arc(9.0, 0.03)
    for _ in range(4):
        long.step(as_action(long, plan))
        for n in range(5):
            short.step(as_action(short, plan) if n == 0 else short.zero_action())
    for name in ("x", "y", "yaw", "speed", "yaw_rate", "lateral_speed"):
        got, want = (getattr(rig.state, name).item() for rig in (long, short))
        assert got == pytest.approx(want, abs=1e-4), name


def test_a_plan_that_goes_on_is_one_given_anew_where_the_ego_is(device) -> None:
    once, anew = free_rig(8.0, device, replan_every=12), free_rig(8.0, device)
    plan = arc(9.0, 0.04, 0.1 * np.arange(1, 101))
    for step in range(12):
        once.step(as_action(once, plan[:64]))
        arm = anew.scenarios.agent[0, 3].item()
        yaw = anew.state.yaw.item()
        rig = np.array([anew.state.x.item(), anew.state.y.item()])
        rig = rig - arm * np.array([math.cos(yaw), math.sin(yaw)]) + [arm, 0.0]
        left = [vehicle.seen_from(np.array([*rig, yaw]), p) for p in plan[step : step + 64]]
        anew.step(as_action(anew, np.array(left)))
    for name in ("x", "y", "yaw", "speed", "yaw_rate"):
        got, want = (getattr(rig.state, name).item() for rig in (once, anew))
        assert got == pytest.approx(want, abs=3e-4), name


@pytest.mark.parametrize("kind", [k for k in ActionType if k is not PLAN])
def test_a_chunk_of_controls_is_its_controls_one_by_one(device, kind) -> None:
    options = {"device": device, "action": kind, "num_egos": 3}
    scenarios = [factory.random_scenario(s) for s in range(4)]
    chunked, single = Rig(scenarios, replan_every=3, **options), Rig(scenarios, **options)
    size = sim.control_size(single.config)
    assert sim.action_size(chunked.config) == 3 * size
    for step in range(7):
        if step % 3 == 0:
            action = chunked.random_action(step)
            parts = action.unflatten(2, (3, size))
        ignored = torch.full_like(action, 9.0)
        chunked.step(action if step % 3 == 0 else ignored)
        single.step(parts[:, :, step % 3].contiguous())
        for name in ("x", "y", "yaw", "speed", "accel", "curvature"):
            assert torch.equal(getattr(chunked.state, name), getattr(single.state, name)), name


def test_worlds_at_different_steps_read_their_actions_at_their_own(device) -> None:
    scenarios = [factory.straight(frames=40), factory.straight(frames=9, name="short")]
    env = alpagym.make(
        scenarios, 2, replan_every=4, end_on=(), device=device, auto_reset="disabled"
    )
    env.reset(scenario=[0, 1])
    assert env.action_shape == (2, 8)
    assert env.replans.tolist() == [True, True]
    env.step(env.zero_action())
    assert env.replans.tolist() == [False, False]
    env.reset(mask=torch.tensor([False, True], device=device))
    assert env.replans.tolist() == [False, True]
    before = env.state.speed[:, 0].clone()
    env.step(env.zero_action() + torch.tensor([2.0, 0.0], device=device).repeat(4))
    gained = (env.state.speed[torch.arange(2), env.state.ego[:, 0].long()] - before).tolist()
    assert gained == pytest.approx([0.0, 0.2], abs=1e-5)


@pytest.mark.parametrize("kind", [ActionType.jerk, ActionType.unicycle, PLAN])
@pytest.mark.parametrize("every", [1, 3])
def test_step_agrees_with_the_reference(device, kind, every, tol) -> None:
    tally = Tally()
    for seed in range(2):
        rig = random_rig(seed, device=device, action=kind, replan_every=every, num_egos=3)
        rig.state.step.copy_(torch.arange(8) % 4)
        if every > 1:  # something that goes on
            rig.state.ongoing.copy_(rig.random_action(7))
        for t in range(4):
            check_step(rig, rig.random_action(seed + t), tally, tol)
    tally.close()


@pytest.mark.parametrize("every", [1, 4])
def test_a_world_depends_on_nothing_but_itself(device, every) -> None:
    scenarios = [factory.random_scenario(s) for s in range(3)]
    options = {"device": device, "action": PLAN, "replan_every": every}
    many = Rig(scenarios, 70, **options)
    alone = [Rig([s], 1, capacity=7, **options) for s in scenarios]
    for t in range(6):
        plans = [rig.random_action(t) for rig in alone]
        many.step(torch.cat([plans[w % 3] for w in range(70)]))
        for rig, plan in zip(alone, plans, strict=True):
            rig.step(plan)
    for w in (0, 1, 2, 65):
        for name, tensor in alone[w % 3].state.tensors().items():
            if name != "scenario":
                assert torch.equal(getattr(many.state, name)[w : w + 1], tensor), (w, name)


@pytest.mark.parametrize("kind", [ActionType.unicycle, PLAN])
def test_step_after_fork_is_fork_after_step(device, kind) -> None:
    options = {"device": device, "action": kind, "replan_every": 5, "num_egos": 3}
    rig, other = random_rig(4, **options), random_rig(4, **options)
    poison(other.state)
    index = torch.tensor([4, 4, 0, 7, 7, 7, 1, 2], dtype=torch.int32, device=device)
    sim.fork(rig.state, other.state, index)
    for t in range(6):
        action = rig.random_action(t)
        rig.step(action)
        other.step(action[index.long()].contiguous())
    target = rig.state.clone()
    sim.fork(rig.state, target, index)
    assert same_bits(other.state, target)


def test_another_controller_keeps_the_vehicles_motion(device) -> None:
    rig = Rig([factory.curve(frames=60)], device=device, action=PLAN)
    assert abs(rig.state.yaw_rate.item()) > 0.02
    rig.state.controller.fill_(int(sim.Controller.LOG))
    for _ in range(5):
        rig.step()
        turned = (rig.state.yaw - rig.state.prev_yaw)[0, rig.state.ego[0, 0]].item()
        assert rig.state.yaw_rate.item() == pytest.approx(turned / 0.1, abs=1e-5)
    speed = rig.state.speed[0, rig.state.ego[0, 0]].item()
    steering = math.atan(rig.state.yaw_rate.item() / speed * vehicle.WHEELBASE)
    assert rig.state.steering_angle.item() == pytest.approx(steering, abs=1e-5)


def test_the_plan_of_the_record_leads_along_the_record(device) -> None:
    for scenario in (factory.curve(frames=80), factory.straight(frames=80)):
        rig = Rig([scenario], device=device, action=PLAN, replan_every=40)
        ego, tracks = scenario.ego, scenario.tracks
        plans, known = recorded_plans([scenario])
        assert known.all()
        for step in range(40):
            rig.step(torch.as_tensor(plans, device=device).unsqueeze(1))
            recorded = tracks.xyz[ego, scenario.start_frame + step + 1, :2]
            here = torch.stack([rig.state.x, rig.state.y], -1)[0, ego].cpu().numpy()
            assert np.linalg.norm(here - recorded) < 0.3, (scenario.id, step)


def test_a_recorded_plan_ends_with_its_record() -> None:
    scenario = factory.straight(frames=30)
    step = scenario.num_steps - 5
    plans, known = recorded_plans([scenario], step, plan_steps=20)
    assert plans.shape == (1, 60)
    assert plans.dtype == np.float32
    assert known[0].tolist() == [True] * 5 + [False] * 15
    way = plans.reshape(20, 3)[:, 0]
    assert np.diff(way) == pytest.approx(way[0], rel=1e-3)  # straight on at the last speed
    plans, known = recorded_plans([scenario], scenario.num_steps + 1, plan_steps=20)
    assert not known.any()
    assert (plans == 0).all()


def test_resampling_is_linear_and_holds_the_ends() -> None:
    poses = np.array([[0.0, 0.0, 3.0], [2.0, 1.0, -3.0]])
    got = resample(np.array([0.5, 1.0]), poses, np.array([0.0, 0.75, 2.0]))
    assert got[:, :2].tolist() == [[0.0, 0.0], [1.0, 0.5], [2.0, 1.0]]
    assert got[1, 2] == pytest.approx(-math.pi)  # the shorter way round


@pytest.mark.parametrize(
    ("times", "poses", "sentence"),
    [
        ([0.0, 1.0], [[0.0, 0.0, 0.0]], "plan: expected poses [2, 3] and at least one, got [1, 3]"),
        ([], np.zeros((0, 3)), "plan: expected poses [0, 3] and at least one, got [0, 3]"),
        ([0.0, 0.0], np.zeros((2, 3)), "plan: expected times that rise, got 0 s after 0 s"),
        ([0.0], [[0.0, np.nan, 0.0]], "plan: expected finite times and poses, got NaN or infinity"),
    ],
)
def test_bad_plans_get_one_sentence(times, poses, sentence) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        resample(np.array(times), np.array(poses), np.array([0.5]))


def test_sizes_that_do_not_fit_get_one_sentence(device) -> None:
    rig = free_rig(5.0, device, replan_every=2)
    with pytest.raises(ValueError, match=r"action: expected .*\[W=1, E=1, D=192\], got"):
        rig.step(torch.zeros(1, 1, 189, device=device))
    with pytest.raises(ValueError, match=r"^inverse: expected actions for one step, got plans"):
        sim.inverse(rig.scenarios, rig.state, rig.state, torch.zeros(1, 1, 3), rig.params)
    rig.params = sim.make_params(SimConfig(action=PLAN))
    with pytest.raises(ValueError, match=r"^State.ongoing: expected M=0 \(.*\), got M=192$"):
        rig.step()
    with pytest.raises(ValueError, match=r"^fork target: expected M=192 "):
        sim.fork(rig.state, sim.make_state(1, 1, device=device), rig.state.scenario)
    with pytest.raises(ValueError, match=r"^sim.replan_every: expected a whole number from 1"):
        alpagym.make([factory.straight()], 1, replan_every=0)


def test_jerk_and_curvature_rate_add_up_within_bounds(device) -> None:
    rig = free_rig(5.0, device, action=ActionType.jerk, max_accel=2.0)
    rig.state.accel.zero_()
    speed, accel, given = 5.0, 0.0, torch.tensor([[[5.0, 0.01]]], device=device)
    for step in range(1, 11):
        rig.step(given)
        accel = min(accel + 0.5, 2.0)  # a' = a + j dt
        speed += accel * 0.1
        assert rig.state.accel.item() == pytest.approx(accel, abs=1e-4)
        assert rig.state.speed.item() == pytest.approx(speed, abs=1e-4)
        assert rig.state.curvature.item() == pytest.approx(0.001 * step, abs=1e-6)
    rig.step(torch.full_like(given, torch.nan))
    assert rig.state.accel.item() == pytest.approx(2.0, abs=1e-4)  # goes on as it was


def test_poisoned_outcomes_are_written_in_full(device) -> None:
    rig = random_rig(1, device=device, action=PLAN, num_egos=3)
    twin = rig.state.clone()
    action = rig.random_action(0)
    poison(rig.outcome)
    rig.step(action)
    first, want = rig.outcome.clone(), rig.state
    rig.state = twin
    rig.step(action)
    assert same_bits(rig.outcome, first)
    assert same_bits(rig.state, want)
    assert error(host(want).speed, host(twin).speed).max() == 0.0
