"""AlpaSim drivers in our simulator: what they are told, in which order, and what they cause."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

import scenario_factory as factory
from alpagym.config import ActionType, SimConfig
from alpagym.interop.alpasim.address import parse_address
from alpagym.interop.alpasim.poses import from_frame, read_trajectory
from alpagym.interop.alpasim.remote_evaluation import RemoteDrives, evaluate_driver
from alpagym.interop.alpasim.rig import Rig as RigOfBox
from alpagym.interop.alpasim.session_options import SessionConfig
from alpagym.interop.alpasim.timeline import taken_over
from alpagym.scenarios.scenario import Scenario
from alpagym.timed_plans import plan_action
from alpasim_drivers import ScriptedDriver, Session, ahead, arc, response
from simulating import Rig

CONFIG = SessionConfig()
FREE = SimConfig(action=ActionType.trajectory, end_on=())


def scenarios_of(count: int = 3, frames: int = 50) -> list[Scenario]:
    made = [
        factory.curve(frames=frames),
        *(factory.straight(frames=frames, name=f"straight {k}") for k in range(count - 1)),
    ]
    return taken_over(made, CONFIG, 1)[0]


def drive(
    driver: ScriptedDriver,
    scenarios: Sequence[Scenario],
    config: SessionConfig = CONFIG,
    sim_config: SimConfig = FREE,
    **options,
) -> RemoteDrives:
    address = parse_address("policy", driver.address)
    return evaluate_driver(address, scenarios, sim_config, config, whole=True, **options)


def recorded_rig(scenario: Scenario) -> np.ndarray:
    """x, y, yaw of each frame, [T, 3]."""
    tracks, ego = scenario.tracks, scenario.ego
    yaw = tracks.yaw[ego].astype(np.float64)
    back = RigOfBox.of(scenario).back
    heading = np.stack([np.cos(yaw), np.sin(yaw)], -1)
    return np.column_stack([tracks.xyz[ego, :, :2] - back * heading, yaw])


def test_a_session_goes_in_alpasims_order() -> None:
    (scenario,) = scenarios_of(1, frames=30)
    config = replace(CONFIG, send_ground_truth=True, cameras=("camera_front_tele_30fov",))
    with ScriptedDriver() as driver:
        found = drive(driver, [scenario], config, seed=5)
    assert found.results.undriven == {}
    assert not driver.sessions
    (session,) = driver.closed
    names = [name for name, _ in session.calls]
    assert names[0] == "start_session"
    assert names[-1] == "close_session"
    told = {
        "submit_egomotion_observation",
        "submit_image_observation",
        "submit_recording_ground_truth",
        "submit_route",
    }
    assert len(names) == 2 + 5 * 29
    for k in range(29):
        group = names[1 + 5 * k : 6 + 5 * k]
        assert set(group[:4]) == told, k  # in any order
        assert group[4] == "drive"
    start = session.named("start_session")[0]
    assert start.debug_info.scene_id == scenario.id
    assert start.random_seed == 5
    assert start.rollout_spec.vehicle.available_cameras[0].logical_id == config.cameras[0]


def test_what_is_told_of_the_egos_motion() -> None:
    (scenario,) = scenarios_of(1, frames=40)
    scenario = replace(scenario, start_frame=22)
    with ScriptedDriver(lambda s, r: ahead(s, r, 9.0, 0.02)) as driver:
        found = drive(driver, [scenario])
    (session,) = driver.closed
    motions = session.named("submit_egomotion_observation")
    tracks = [read_trajectory(m.trajectory) for m in motions]
    # The first has all that was before the first plan, later ones what is new.
    assert [len(t.time_us) for t in tracks] == [6] + 33 * [1]
    times = np.concatenate([t.time_us for t in tracks])
    assert times.tolist() == list(range(0, 39 * 100_000, 100_000))
    drives = session.named("drive")
    assert [d.time_now_us for d in drives] == times[5:].tolist()
    assert [d.time_query_us for d in drives] == (times[5:] + 100_000).tolist()
    pose = np.concatenate([t.pose for t in tracks])
    recorded = recorded_rig(scenario)
    assert pose[:23] == pytest.approx(recorded[:23], abs=1e-5)
    # Then what was driven; its box centers are the rollout's.
    rollout, back = found.rollouts[0], RigOfBox.of(scenario).back
    x = rollout.x[:17, 0] - back * np.cos(rollout.yaw[:17, 0])
    assert pose[22:, 0] == pytest.approx(x, abs=1e-5)
    # Rates are zero until a step was driven by the driver, as AlpaSim has it.
    states = [state for m in motions for state in m.dynamic_states]
    assert len(states) == len(times)
    speeds = np.array([s.linear_velocity.x for s in states])
    turns = np.array([s.angular_velocity.z for s in states])
    assert (speeds[:23] == 0).all()
    assert (turns[:23] == 0).all()
    moved = np.linalg.norm(np.diff(pose[22:, :2], axis=0), axis=1) / 0.1
    assert speeds[23:] == pytest.approx(moved, abs=0.3)
    assert (turns[25:] > 0.01).all()


def test_the_route_begins_at_the_ego_and_ground_truth_is_the_record() -> None:
    (scenario,) = scenarios_of(1, frames=45)
    config = replace(CONFIG, send_ground_truth=True)
    with ScriptedDriver() as driver:
        drive(driver, [scenario], config)
    (session,) = driver.closed
    routes, truths = (
        session.named(f"submit_{name}") for name in ("route", "recording_ground_truth")
    )
    recorded = recorded_rig(scenario)
    motions = session.named("submit_egomotion_observation")
    for k in (0, 20, 40):
        route = np.array([(p.x, p.y, p.z) for p in routes[k].route.waypoints])
        assert route.shape == (20, 3)
        assert k > 17 or abs(route[0, 0]) < 0.5
        steps = np.linalg.norm(np.diff(route, axis=0), axis=1)
        assert steps[np.isfinite(steps)] == pytest.approx(80 / 19, abs=0.05)
        truth = read_trajectory(truths[k].ground_truth.trajectory)
        assert truth.time_us.tolist() == [100_000 * f for f in range(45)]
        now = read_trajectory(motions[k].trajectory).pose[-1]
        assert from_frame(now, truth.pose) == pytest.approx(recorded, abs=2e-4)
        assert truths[k].ground_truth.timestamp_us == routes[k].route.timestamp_us


def test_other_routes() -> None:
    (scenario,) = scenarios_of(1, frames=24)
    with ScriptedDriver() as driver:
        drive(driver, [scenario], replace(CONFIG, route="none"))
        assert not driver.closed[0].named("submit_route")
        drive(driver, [scenario], replace(CONFIG, route="simulator"))
        route = driver.closed[1].named("submit_route")
        assert len(route) == 23
        assert all(len(r.route.waypoints) == 20 for r in route)
        assert abs(route[9].route.waypoints[0].x) < 0.5


def by_turns(rig: np.ndarray, step: int) -> np.ndarray:
    """A plan from where the rig is, another in each step: x, y, yaw in the world [40, 3]."""
    return from_frame(rig, arc(7.0 + 2.0 * math.sin(0.4 * step), 0.015 * math.cos(0.3 * step)))


def in_process(scenario: Scenario, every: int, delay: int) -> np.ndarray:
    """Box centers [T + 1, 3] with the plans of `by_turns`, followed without any wire."""
    rig = Rig([scenario], action=ActionType.trajectory)
    state, ego = rig.state, scenario.ego
    back = float(rig.scenarios.agent[ego, 3])
    recorded, start = recorded_rig(scenario), scenario.start_frame
    plans = {step: by_turns(recorded[start + step], step) for step in range(-delay, 0)}
    poses = []
    for step in range(scenario.num_steps + 1):
        x, y, yaw = (float(getattr(state, n)[0, ego]) for n in ("x", "y", "yaw"))
        poses.append((x, y, yaw))
        here = np.array([x - back * math.cos(yaw), y - back * math.sin(yaw), yaw])
        if step % every == 0:
            plans[step] = by_turns(here, step)
        made = max(k for k in plans if k <= step - delay)
        ahead = 0.1 * (np.arange(40) - (step - made))
        later = ahead > 1e-9
        action = plan_action(
            torch.tensor([0.0, *ahead[later]]),
            torch.tensor(np.concatenate([here[None], plans[made][later]])),
            torch.tensor(here),
        )
        rig.step(action.reshape(1, 1, -1))
    return np.array(poses)


def by_wire(session: Session, request, first: int = 17) -> object:
    step = request.time_now_us // 100_000 - first
    return response(request.time_now_us, by_turns(session.rig(), step))


@pytest.mark.parametrize(("every", "delay"), [(1, 0), (5, 0), (1, 3)])
def test_closed_loop_is_that_of_the_same_plans_in_process(every, delay) -> None:
    scenarios = scenarios_of(4, frames=67)
    config = replace(CONFIG, planner_delay=0.1 * delay, force_gt=0.5 if every == 5 else 1.7)
    with ScriptedDriver(by_wire) as driver:
        found = drive(driver, scenarios, config, replace(FREE, replan_every=every))
    assert found.results.undriven == {}
    for k, scenario in enumerate(scenarios):
        rollout = found.rollouts[k]
        got = np.stack([rollout.x, rollout.y, rollout.yaw], -1)[:, scenario.ego]
        want = in_process(scenario, every, delay)
        assert got.shape == want.shape
        # Poses go through float32 in each step, there and back.
        assert np.abs(got - want).max() < 2e-3, scenario.id
