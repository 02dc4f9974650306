"""Closed-loop results of scenarios whose outcome is known."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from alpagym import sim
from alpagym.config import SimConfig
from alpagym.evaluation import BASELINES, Results, check_simulator, evaluate, wilson_interval
from alpagym.policies.late_fusion import LateFusion
from alpagym.policies.policy import Policy
from alpagym.scenarios.procedural import KINDS, generate
from alpagym.training_config import PolicyConfig
from scenario_factory import STRAIGHT, Actor, border, crossing, curve, line, straight

CONFIG = SimConfig()
FREE = replace(CONFIG, end_on=())


def drive(driver, *scenarios, config=CONFIG, **options):
    return evaluate(driver, scenarios, config, **options)


class Constant(Policy):
    """Always the same control."""

    def __init__(self, accel: float, curvature: float = 0.0) -> None:
        super().__init__()
        self.action = torch.tensor([accel, curvature])

    def mean(self, observation):
        return self.action.expand(*observation.ego.shape[:-1], 2)

    sample = log_prob = deviation = entropy = None
    __abstractmethods__ = frozenset()


def parked(x, **options):
    return Actor(STRAIGHT, x, 0.0, **options)


# Known outcomes


def test_driving_into_a_parked_car_is_a_front_collision_and_a_failure():
    # The ego starts at 25 m with 10 m/s; 15.4 m between the bumpers are gone after 1.54 s.
    results, (rollout,) = drive("constant_velocity", straight(parked(45.0)), record="cv")
    assert results.collision_at_fault.tolist() == results.collision_any.tolist() == [True]
    assert results.offroad.tolist() == [False]
    assert results.failure.tolist() == [True]
    assert results.scene_score.tolist() == [0.0]
    assert results.steps.tolist() == [16]
    assert rollout.done_step == 15
    assert rollout.collision[:16].tolist() == [0] * 15 + [int(sim.Collision.FRONT)]
    # It stands where it hit: (20 + 5 + 16 - 20) of the 20 m that were recorded before frame 40.
    assert results.progress[0] == pytest.approx(21.0 / 40.0, abs=1e-3)


def test_being_hit_from_behind_is_not_at_fault():
    slow = Actor(STRAIGHT, 40.0, 5.0)
    chaser = Actor(STRAIGHT, 20.0, 15.0)
    results, (rollout,) = drive("constant_velocity", straight(chaser, ego=slow), record="cv")
    assert results.collision_any.tolist() == [True]
    assert results.collision_at_fault.tolist() == [False]
    assert results.failure.tolist() == [False]
    assert int(sim.Collision.REAR) in rollout.collision
    assert rollout.done_step is None
    assert results.steps.tolist() == [35]
    assert results.scene_score[0] == pytest.approx(1.0)


def test_being_hit_from_the_side_is_at_fault():
    # From the left at 15 m/s, so that its bumper meets the middle of the ego's side at x = 20.
    side = Actor(line((20.0, 60.0), (20.0, -60.0)), 26.9, 15.0)
    results, (rollout,) = drive("constant_velocity", straight(side), record="cv")
    assert results.collision_at_fault.tolist() == [True]
    assert int(sim.Collision.LATERAL) in rollout.collision


def test_leaving_a_curve_is_offroad():
    results, (rollout,) = drive("constant_velocity", curve(), record="cv")
    assert results.offroad.tolist() == results.failure.tolist() == [True]
    assert results.collision_any.tolist() == [False]
    # Straight on from 9 m along a circle of 40 m, a corner leaves the road, 5 m wide at either
    # side, when the outer front corner is 45 m from the center.
    step = rollout.done_step
    assert rollout.offroad[: step + 1].tolist() == [False] * step + [True]

    def corner(t):
        forward, left = (
            np.array([np.cos(9 / 40), np.sin(9 / 40)]),
            [-np.sin(9 / 40), np.cos(9 / 40)],
        )
        start = 40.0 * np.array([np.sin(9 / 40), -np.cos(9 / 40)])
        return start + (0.8 * t + 2.3) * forward - 0.95 * np.array(left)

    assert np.linalg.norm(corner(step + 1)) > 45.0 > np.linalg.norm(corner(step - 1))


def test_a_policy_drives_by_its_mean():
    free, blocked = straight(), straight(parked(60.0))
    results, _ = drive(Constant(-4.0), free, blocked)
    assert results.failure.tolist() == [False, False]
    # 10 m/s at 4 m/s^2 stop after 12.5 m: 5 m before the start, then that, of 40 m.
    expected = 17.5 / 40.0
    assert results.progress == pytest.approx([expected, expected], abs=2e-3)
    assert results.scene_score == pytest.approx([expected / 0.8] * 2, abs=3e-3)
    assert drive(Constant(0.0), blocked)[0].failure.tolist() == [True]


def test_a_policy_steers():
    assert drive(Constant(0.0, 1 / 40.0), curve())[0].failure.tolist() == [False]
    assert drive(Constant(0.0, -0.1), straight())[0].offroad.tolist() == [True]


def test_short_records_do_not_ask_for_progress():
    # Recorded moving 1 m and 8 m; a policy stops at once.
    scenarios = [straight(ego=Actor(STRAIGHT, 20.0, v)) for v in (0.25, 2.0)]
    results, _ = drive(Constant(-8.0), *scenarios)
    assert results.progress[1] == pytest.approx((1.0 + 0.25) / 8.0, abs=0.02)
    assert results.scene_score.tolist() == [1.0, pytest.approx(results.progress[1] / 0.8)]


def test_failures_count_whether_they_end_the_episode_or_not():
    scenarios = [straight(parked(45.0)), curve(), straight()]
    ending, going_on = (drive("constant_velocity", *scenarios, config=c)[0] for c in (CONFIG, FREE))
    assert ending.failure.tolist() == going_on.failure.tolist() == [True, True, False]
    assert going_on.steps.tolist() == [35, 35, 35]
    assert (ending.steps[:2] < 35).all()


def test_reward_terms_are_summed_over_the_episode():
    results, _ = drive("constant_velocity", straight(), straight(parked(45.0)))
    assert set(results.terms) == {t.name.lower() for t in sim.RewardTerm}
    assert results.terms["progress"] == pytest.approx([35.0, 16.0], abs=1e-2)
    assert results.terms["collision_at_fault"].tolist() == [0.0, 1.0]


# Drivers


def test_the_log_driver_reproduces_the_record():
    scenarios = [generate(kind, 7) for kind in KINDS] + [curve(), crossing(frames=25)]
    results, rollouts = drive("log", *scenarios, config=FREE, record="log")
    assert results.steps.tolist() == [s.num_steps for s in scenarios]
    for scenario, rollout in zip(scenarios, rollouts, strict=True):
        first, agents = scenario.start_frame, scenario.tracks.num_agents
        valid = scenario.tracks.valid[:, first:].T
        assert np.array_equal(rollout.valid[:, :agents], valid)
        assert not rollout.valid[:, agents:].any()
        assert np.array_equal(
            rollout.x[:, :agents][valid], scenario.tracks.xyz[:, first:, 0].T[valid]
        )
        assert np.array_equal(
            rollout.y[:, :agents][valid], scenario.tracks.xyz[:, first:, 1].T[valid]
        )
        assert np.array_equal(
            rollout.yaw[:, :agents][valid], scenario.tracks.yaw[:, first:].T[valid]
        )
    assert results.progress == pytest.approx(1.0, abs=0.05)
    assert (results.terms["distance_to_gt"] == 0).all()


@pytest.mark.parametrize("driver", BASELINES)
def test_baselines_drive(driver):
    results, _ = drive(driver, straight(), crossing())
    assert results.failure.tolist() == [False, False]
    assert (results.progress > 0.5).all()


def test_idm_brakes_where_constant_velocity_hits():
    scenario = straight(parked(70.0), frames=91)
    assert drive("idm", scenario)[0].failure.tolist() == [False]
    assert drive("constant_velocity", scenario)[0].failure.tolist() == [True]


def test_an_unknown_driver_is_refused():
    with pytest.raises(
        ValueError, match=r"policy: expected a checkpoint or one of log, idm, .* got me"
    ):
        drive("me", straight())


# Layout


@cache
def mixed():
    return [
        straight(parked(45.0), name="hit"),
        curve(name="off"),
        straight(name="free", frames=31),
        crossing(name="crossing"),
        generate(KINDS[0], 3),
        straight(Actor(STRAIGHT, 80.0, 5.0), Actor(border(STRAIGHT, 3.0), 10.0, 12.0), name="more"),
    ]


def test_results_are_in_the_order_of_the_scenarios_whatever_the_batch():
    scenarios = mixed()
    together, _ = drive("constant_velocity", *scenarios)
    for worlds in (1, 4):
        apart, _ = drive("constant_velocity", *scenarios, worlds=worlds)
        for name in ("collision_at_fault", "collision_any", "offroad", "progress", "steps"):
            assert np.array_equal(getattr(together, name), getattr(apart, name)), name
        for name, values in together.terms.items():
            assert np.array_equal(values, apart.terms[name]), name
    backwards, _ = drive("constant_velocity", *scenarios[::-1])
    assert np.array_equal(backwards.progress[::-1], together.progress)
    assert together.failure.tolist()[:3] == [True, True, False]


@pytest.mark.parametrize(
    ("config", "worlds"), [(CONFIG, 256), (FREE, 4), (replace(CONFIG, max_steps=9), 256)]
)
def test_recorded_rollouts_are_whole(config, worlds):
    scenarios = mixed()
    torch.manual_seed(0)
    policy = LateFusion(PolicyConfig(width=8, hidden=16), config).eval()
    for driver in (policy, "log"):
        results, rollouts = drive(driver, *scenarios, config=config, worlds=worlds, record="me")
        for i, (scenario, rollout) in enumerate(zip(scenarios, rollouts, strict=True)):
            rollout.validate()
            assert rollout.scenario is scenario
            assert rollout.num_steps == results.steps[i]
            assert rollout.label == "me"
            assert rollout.metrics["failure"] == results.failure[i]
            assert rollout.metrics["scene_score"] == results.scene_score[i]
            start = scenario.tracks.xyz[scenario.ego, scenario.start_frame]
            assert (rollout.x[0, rollout.ego], rollout.y[0, rollout.ego]) == tuple(start[:2])
            for name, values in rollout.rewards.items():
                total = values[: rollout.num_steps].sum()
                assert total == pytest.approx(results.terms[name][i], abs=1e-3), name


def test_nothing_is_recorded_unasked():
    assert drive("log", straight())[1] == []


# Statistics


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # From the closed form; 1 of 10 also in Newcombe (1998), table I, as 0.0179 to 0.4042.
        (1, 10, 0.0179, 0.4042),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),  # Newcombe (1998), table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_interval(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx([low, high], abs=1e-4)


def test_summary_by_formula():
    results = Results(
        collision_at_fault=np.array([True, False, False, False]),
        collision_any=np.array([True, True, False, False]),
        offroad=np.array([True, False, True, False]),
        progress=np.array([0.2, 0.4, 0.6, 1.0], np.float32),
        scene_score=np.array([0.0, 0.5, 0.0, 1.0], np.float32),
        terms={},
        steps=np.array([3, 4, 5, 6]),
        recordings=["a", "b", "c", "d"],
    )
    summary = results.summary()
    assert summary["num_scenarios"] == 4
    assert summary["failure_rate"] == 0.5  # either event, counted once
    assert summary["collision_at_fault_rate"] == 0.25
    assert summary["collision_any_rate"] == 0.5
    assert summary["offroad_rate"] == 0.5
    assert summary["failure_rate_ci95"] == wilson_interval(2, 4)
    assert summary["progress"] == pytest.approx(0.55)
    # Deviation 0.3416 of four: 0.55 -+ 1.96 * 0.1708.
    assert summary["progress_ci95"] == pytest.approx([0.2153, 0.8847], abs=1e-3)
    for value in summary.values():
        for number in value if isinstance(value, list) else [value]:
            assert type(number) in (int, float)  # JSON takes no NumPy numbers


def test_one_scenario_has_no_spread():
    summary = drive("log", straight())[0].summary()
    assert summary["progress_ci95"] == [summary["progress"]] * 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"multi_agent": True}, "sim.multi_agent: expected false"),
        ({"end_on": ("rain",)}, "sim.end_on: expected any of .*, got rain"),
        ({"num_agents": 10_000}, "sim.num_agents: expected 0 to"),
        ({"dt": 0.0}, "sim.dt"),
    ],
)
def test_simulators_that_cannot_be_driven_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        check_simulator(replace(CONFIG, **changes))


def test_scenarios_recorded_at_another_step_length_are_refused():
    slow = replace(straight(), dt=0.2, source="slow.json")
    with pytest.raises(ValueError, match=r"^slow.json: recorded every 0.2 s, not sim.dt=0.1$"):
        drive("log", straight(), slow)
    drive("log", slow, config=replace(CONFIG, dt=0.2))
    drive("log", replace(straight(), dt=0.101))  # a recorder's clock jitters


def test_drives_of_one_recording_count_once_in_intervals():
    def interval(recordings):
        flags = np.array([True, False] * 8)
        return Results(
            collision_at_fault=flags,
            collision_any=flags,
            offroad=flags,
            progress=np.linspace(0.0, 1.0, 16),
            scene_score=np.linspace(0.0, 1.0, 16),
            terms={},
            steps=np.ones(16, int),
            recordings=recordings,
        ).summary()

    apart = interval([str(i) for i in range(16)])
    together = interval([str(i // 4) for i in range(16)])
    assert (apart["num_recordings"], together["num_recordings"]) == (16, 4)
    assert apart["num_scenarios"] == together["num_scenarios"] == 16
    assert apart["failure_rate"] == together["failure_rate"]
    assert together["failure_rate_ci95"] == wilson_interval(2, 4)
    low, high = together["progress_ci95"]
    assert low < apart["progress_ci95"][0] < apart["progress_ci95"][1] < high
