"""Imitation: what is learned from the logs, on which scenarios, and until when."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from alpagym import sim
from alpagym.config import SimConfig
from alpagym.imitation import Demonstrations, demonstrate, imitate
from alpagym.policies.late_fusion import LateFusion
from alpagym.policies.policy import Policy
from alpagym.scenarios.batch import batch, max_agents
from alpagym.scenarios.scenario import Scenario
from alpagym.training_config import ImitationConfig, PolicyConfig
from alpagym.types import EgoFeature
from scenario_factory import STRAIGHT, Actor, crossing, curve, straight

CONFIG = SimConfig(num_agents=2, num_road_points=8, num_route_points=6, num_lights=1)


def demonstrations_of(*scenarios: Scenario, config=CONFIG, **options) -> Demonstrations:
    return demonstrate(batch(scenarios), max_agents(scenarios), config, **options)


def recorded(scenario: Scenario, controls: torch.Tensor) -> Scenario:
    """The scenario with a record of its ego driven by `controls` [T, 2] in the simulator."""
    packed, params = batch([scenario]), sim.make_params(replace(CONFIG, end_on=()))
    state = sim.make_state(1, max_agents([scenario]))
    outcome = sim.make_outcome(state)
    sim.reset(packed, state, torch.ones(1, dtype=torch.bool), params)
    weights = torch.zeros(1, len(sim.RewardTerm))
    tracks = scenario.tracks
    xyz, yaw, velocity = tracks.xyz.copy(), tracks.yaw.copy(), tracks.velocity.copy()
    for t, control in enumerate(controls):
        sim.step(packed, state, outcome, control.view(1, 1, 2), weights, params)
        frame, angle = scenario.start_frame + t + 1, float(state.yaw[0, 0])
        xyz[0, frame, :2] = [float(state.x[0, 0]), float(state.y[0, 0])]
        yaw[0, frame] = angle
        velocity[0, frame] = float(state.speed[0, 0]) * np.array([np.cos(angle), np.sin(angle)])
    moved = replace(tracks, xyz=xyz, yaw=yaw, velocity=velocity)
    return replace(scenario, tracks=moved).validate()


def test_the_inverse_finds_the_controls_of_a_simulated_drive():
    generator = torch.Generator().manual_seed(0)
    plain = straight()
    controls = torch.randn(plain.num_steps, 2, generator=generator) * torch.tensor([1.0, 0.01])
    shown = demonstrations_of(recorded(plain, controls))
    assert len(shown.action) == plain.num_steps
    torch.testing.assert_close(shown.action[:, 0], controls[:, 0], rtol=0, atol=1e-3)
    torch.testing.assert_close(shown.action[:, 1], controls[:, 1], rtol=0, atol=1e-4)


def test_driving_the_demonstrated_controls_reproduces_the_record():
    plain = curve()
    wave = torch.linspace(0.0, 6.0, plain.num_steps)
    first = recorded(plain, torch.stack([wave.sin(), 0.02 + 0.01 * wave.cos()], 1))
    again = recorded(plain, demonstrations_of(first).action)
    np.testing.assert_allclose(again.tracks.xyz[0], first.tracks.xyz[0], rtol=0, atol=0.01)
    np.testing.assert_allclose(again.tracks.yaw[0], first.tracks.yaw[0], rtol=0, atol=1e-3)


def test_observations_are_those_before_the_action():
    ego = Actor(STRAIGHT, 20.0, 10.0, 2.0)
    shown = demonstrations_of(straight(ego=ego))
    # The ego has driven for 0.5 s when the episode starts: 11 m/s, then 0.2 m/s more each step.
    expected = 11.0 + 0.2 * torch.arange(35)
    torch.testing.assert_close(
        shown.observation.ego[:, EgoFeature.SPEED], expected, rtol=0, atol=1e-3
    )
    torch.testing.assert_close(shown.action[:, 0], torch.full((35,), 2.0), rtol=0, atol=1e-3)


def test_actions_are_within_the_bounds_of_the_vehicle():
    braking = straight(ego=Actor(STRAIGHT, 20.0, 30.0, -6.0))
    shown = demonstrations_of(braking, config=replace(CONFIG, min_accel=-3.5))
    assert shown.action[:, 0].min() == -3.5


def test_steps_that_no_vehicle_could_drive_are_left_out():
    scenario = straight()
    velocity = scenario.tracks.velocity.copy()
    velocity[0, 20] = 0.0  # a broken record: 100 m/s^2 and back
    broken = replace(scenario, tracks=replace(scenario.tracks, velocity=velocity))
    assert len(demonstrations_of(scenario).action) == 35
    assert len(demonstrations_of(broken).action) == 33


def test_steps_where_the_ego_was_not_seen_are_left_out():
    shown = demonstrations_of(straight(ego=Actor(STRAIGHT, 20.0, 10.0, absent=(10, 14))))
    # Frames 10 to 13 are missing: five steps of 35 lack an end.
    assert len(shown.action) == 30
    assert shown.observation.ego[:, EgoFeature.SPEED].min() > 9.0


def test_scenarios_of_different_lengths_and_batches():
    scenarios = [straight(name="a", frames=21), curve(frames=41), crossing(frames=31)]
    together = demonstrations_of(*scenarios)
    assert together.recording.bincount().tolist() == [15, 35, 25]
    apart = demonstrations_of(*scenarios, worlds=1)
    for scenario in range(3):
        first, second = (d.action[d.recording == scenario] for d in (together, apart))
        assert torch.equal(first, second)
    alone = demonstrations_of(scenarios[1])
    chosen = together.recording == 1
    assert torch.equal(alone.action, together.action[chosen])
    assert torch.equal(alone.observation.road, together.observation.road[chosen])


def test_whole_records_teach_whatever_ends_an_episode():
    hit = straight(Actor(STRAIGHT, 30.0, 0.0))  # the record drives through a parked car
    assert len(demonstrations_of(hit).action) == 35
    short = demonstrations_of(straight(), config=replace(CONFIG, max_steps=5))
    assert len(short.action) == 35
    assert (
        len(short.observation.ego[:, EgoFeature.GOAL_DISTANCE].unique()) == 35
    )  # each from another place


def test_nothing_to_learn_from_is_refused():
    scenario = straight(ego=Actor(STRAIGHT, 20.0, 10.0, absent=(6, 41)))
    with pytest.raises(ValueError, match="imitation: expected recorded steps of the ego in 1 sc"):
        demonstrations_of(scenario)


# Training


class Recall(torch.nn.Module):
    """Predicts its weights, whatever it sees."""

    imitation_noise, imitation_knee = Policy.imitation_noise, Policy.imitation_knee

    def __init__(self, value=0.0):
        super().__init__()
        self.value = torch.nn.Parameter(torch.full((2,), value))
        self.seen: list[torch.Tensor] = []

    def forward(self, observation):
        if self.training:
            self.seen.append(observation.ego[:, -1].detach().clone())
        return self.value.expand(len(observation.ego), 2)

    def deviation(self, observation, action):
        # At rest, a normalized action of 1 is 1.5 m/s^2 and 2 / 4^2 1/m.
        return self(observation) - action / torch.tensor([1.5, 0.125])


def marked(targets: torch.Tensor, steps: int) -> Demonstrations:
    """A demonstration for each target [S] and step; the ego's last feature tells the scenario."""
    state = sim.make_state(len(targets) * steps, 1)
    seen = sim.make_observation(state, CONFIG).map(lambda t: t.squeeze(1))
    owner = torch.arange(len(targets)).repeat_interleave(steps)
    seen.ego[:, -1] = owner
    # At rest, a normalized action of 1 is 1.5 m/s^2 and 2 / 4^2 1/m.
    action = targets[owner, None] * torch.tensor([1.5, 0.125])
    return Demonstrations(seen, action, owner)


def run(policy, shown, **changes):
    rows = []
    config = replace(ImitationConfig(learning_rate=0.05, batch_size=64), **changes)
    imitate(policy, shown, config, seed=0, on_epoch=rows.append)
    return rows


def test_whole_scenarios_are_held_out():
    policy, shown = Recall(), marked(torch.zeros(10), 20)
    run(policy, shown, held_out_fraction=0.3, max_epochs=1)
    seen = torch.cat(policy.seen)
    assert len(seen) == 7 * 20
    assert seen.unique(return_counts=True)[1].tolist() == [20] * 7


def test_it_stops_when_the_held_out_loss_stops_falling_and_keeps_the_best():
    # All scenarios want 1: the loss falls until it is there, then patience runs out.
    policy = Recall()
    rows = run(policy, marked(torch.ones(10), 20), patience=3, max_epochs=500)
    losses = [row["held_out_loss"] for row in rows]
    best = int(np.argmin(losses))
    assert len(rows) < 500
    assert len(rows) == best + 1 + 3
    assert losses[best] < 1e-3 < losses[0]
    assert rows[-1]["best"] == losses[best]
    assert [row["epoch"] for row in rows] == list(range(len(rows)))
    error = (policy.value.detach() - 1.0).abs()
    assert float((0.5 * error.square()).mean()) == pytest.approx(losses[best], abs=1e-6)


def test_the_best_weights_come_back_when_training_only_harms():
    # The training scenarios pull away from the held-out one, which likes the start best.
    shown = marked(torch.zeros(4), 10)
    generator = torch.Generator().manual_seed(0)
    held_out = int(torch.randperm(4, generator=generator)[0])
    shown.action[shown.recording != held_out] = torch.tensor([1.5, 0.125])
    policy = Recall()
    rows = run(policy, shown, patience=4, max_epochs=100, held_out_fraction=0.25)
    losses = [row["held_out_loss"] for row in rows]
    assert len(rows) == 5
    assert losses == sorted(losses)
    kept = float(0.5 * policy.value.detach().square().mean())
    assert kept == pytest.approx(losses[0], abs=1e-6)


def test_at_most_max_epochs():
    assert len(run(Recall(), marked(torch.ones(4), 5), max_epochs=2)) == 2
    assert run(Recall(), marked(torch.ones(4), 5), max_epochs=0) == []


@pytest.mark.parametrize("fraction", [0.0, 0.99])
def test_there_is_always_something_on_either_side(fraction):
    rows = run(Recall(), marked(torch.ones(3), 5), held_out_fraction=fraction, max_epochs=2)
    assert all(math.isfinite(v) for row in rows for v in row.values())


def test_a_single_scenario_is_judged_by_itself():
    rows = run(Recall(), marked(torch.ones(1), 5), max_epochs=30)
    assert rows[-1]["best"] < rows[0]["held_out_loss"]


def test_a_loss_that_is_not_finite_stops():
    with pytest.raises(ValueError, match=r"imitation: held-out loss nan in epoch 0: lower"):
        run(Recall(math.nan), marked(torch.ones(4), 5))


def test_the_same_seed_gives_the_same_policy():
    shown = demonstrations_of(straight(), curve(), crossing())
    weights = []
    for _ in range(2):
        torch.manual_seed(1)
        policy = LateFusion(PolicyConfig(width=8, hidden=16), CONFIG)
        run(policy, shown, max_epochs=2, learning_rate=1e-3)
        weights.append(policy.state_dict())
    assert all(torch.equal(v, weights[1][k]) for k, v in weights[0].items())
