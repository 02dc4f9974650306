"""Every kernel against the float64 reference, from random states, into poisoned outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scenario_factory as factory
from alpagym import reference, sim
from alpagym.config import ALPASIM_SIZES, ActionType, ObservationKind, Traffic
from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.procedural import generate
from alpagym.types import EgoFeature
from like_reference import Tally, check_step
from simulating import Rig, error, host, poison, random_rig

SEEDS = pytest.mark.parametrize("seeds", [2, pytest.param(3, marks=pytest.mark.heavy)])
HEADING = EgoFeature.HEADING_ERROR
EGO_CHANGES = [EgoFeature.ROUTE_OFFSET, HEADING, EgoFeature.SPEED_LIMIT, EgoFeature.STOP_DISTANCE]
"""Columns that jump."""


@pytest.mark.parametrize("action", list(ActionType))
@pytest.mark.parametrize("traffic", list(Traffic))
@SEEDS
def test_step(device, action, traffic, seeds, tol) -> None:
    tally = Tally()
    every_end = ("collision_at_fault", "offroad", "red_light", "goal")
    for seed in range(seeds):
        end_on = every_end if seed % 2 else ()
        rig = random_rig(seed, device=device, action=action, traffic=traffic, end_on=end_on)
        terms = len(sim.RewardTerm)
        rig.weights = torch.linspace(-1.0, 2.0, 8 * terms, device=device).reshape(8, terms)
        for t in range(2):
            check_step(rig, rig.random_action(seed + t), tally, tol)
    tally.close()


@pytest.mark.parametrize("traffic", list(Traffic))
@SEEDS
def test_step_of_many_egos_that_end_at_different_times(device, traffic, seeds, tol) -> None:
    tally = Tally()
    for seed in range(seeds):
        rig = random_rig(
            seed, device=device, traffic=traffic, num_egos=7, end_on=("offroad", "collision_any")
        )
        for t in range(3):
            check_step(rig, rig.random_action(seed + t), tally, tol)
        assert rig.state.terminated.any()
    tally.close()


def check_scenarios(scenarios, device, tol) -> None:
    """Two steps among many agents on whole maps, one of them from a disturbed state."""
    tally = Tally()
    rig = Rig(scenarios, device=device, traffic=Traffic.idm)
    for seed in range(2):
        for t in range(3):
            rig.step(rig.random_action(t))
        if seed:
            rig.disturb(seed)
        check_step(rig, rig.random_action(9), tally, tol)
    tally.close()


def test_step_in_procedural_scenarios(device, tol) -> None:
    kinds = ("all_way_stop", "roundabout")
    check_scenarios([generate(kind, 7) for kind in kinds], device, tol)


def test_step_in_recorded_scenarios(device, tol, shared_data) -> None:
    files = sorted((shared_data / "womd_gpudrive_json" / "current").glob("*.json"))[:2]
    check_scenarios([s for file in files for s in load_scenarios(file)[0]], device, tol)


def test_contact_of_many_random_pairs(device, tol) -> None:
    rng = np.random.default_rng(1)
    path = factory.line((0.0, 0.0), (100.0, 0.0))
    cars = [factory.Actor(path, 10.0, 5.0), factory.Actor(path, 30.0, 5.0, size=(7.0, 2.5, 2.0))]
    rig = Rig([factory.assemble("pair", [], cars)], 300, device=device, num_egos=2)
    for name, spread in (("x", 6.0), ("y", 4.0), ("yaw", np.pi), ("speed", 9.0)):
        drawn = torch.as_tensor(rng.uniform(-spread, spread, (300, 2)), dtype=torch.float32)
        getattr(rig.state, name).copy_(drawn)
    tally = Tally()
    seen = set()
    for t in range(2):
        check_step(rig, rig.random_action(t), tally, tol)
        seen |= set(rig.outcome.collision.unique().tolist())
    tally.close()
    assert seen == {0, 1, 2, 3}


def test_stops_and_comfort_around_their_limits(device, tol) -> None:
    """Agents a few meters before and behind stop lines, slow and fast; gentle and hard controls."""
    rng = np.random.default_rng(2)
    lights = [((-10.0, -3.0), [2, 3, 4, 5] * 10 + [2]), ((10.0, 3.0), 4)]
    cars = [
        factory.Actor(factory.EASTWARD, 60.0, 9.0, stops=[(110.0, 0)]),
        factory.Actor(factory.NORTHWARD, 60.0, 9.0, stops=[(110.0, factory.STOP_SIGN)]),
        factory.Actor(factory.WESTWARD, 60.0, 9.0, stops=[(110.0, 1)]),
        factory.Actor(factory.LEFT_TURN, 60.0, 9.0, stops=[(110.0, factory.YIELD_LINE)]),
    ]
    count = 80
    rig = Rig([factory.crossing(*cars, lights=lights)], count, device=device, traffic=Traffic.idm)
    first = rig.scenarios.log[:4].cpu()  # where routes begin
    tally = Tally()
    for t in range(2):
        ahead = torch.as_tensor(rng.uniform(28.0, 66.0, (count, 4)), dtype=torch.float32)
        ahead[:, 1] = 40.0 + 0.2 * (ahead[:, 1] - 28.0)  # where a stop sign counts as served
        rig.state.x.copy_(first[:, 0] + ahead * first[:, 2].cos())
        rig.state.y.copy_(first[:, 1] + ahead * first[:, 2].sin())
        rig.state.yaw.copy_(first[:, 2])
        rig.state.route_s.copy_(ahead)
        speed = rng.uniform(0.0, 1.0, (count, 4)) * rng.choice([0.9, 12.0], (count, 4))
        rig.state.speed.copy_(torch.as_tensor(speed))
        rig.state.accel.zero_()
        rig.state.stops_served.zero_()
        rig.state.step.copy_(torch.arange(count) % 30)
        poison(rig.observation)
        rig.observe()
        want = reference.observe(reference.places(rig.scenarios), host(rig.state), rig.config)
        got = host(rig.observation)
        for name in ("ego", "lights", "lights_mask"):
            wrong = error(getattr(got, name), getattr(want, name)) > tol(3e-4)
            margin = want.margin.reshape(count, 1, *[1] * (wrong.ndim - 2))
            tally.check(name, wrong, margin)
        action = rig.random_action(t)
        action[..., 0] *= 0.2  # jerks of up to about 10 m/s^3
        check_step(rig, action, tally, tol)
    tally.close()


def test_every_event_happens_in_these_tests() -> None:
    """The random states would prove little if nothing ever happened in them."""
    seen = torch.zeros(len(sim.RewardTerm))
    kinds = set()
    for seed in range(12):
        rig = random_rig(seed, traffic=Traffic.idm)
        for t in range(4):
            rig.step(rig.random_action(seed + t))
            seen += (rig.outcome.terms != 0).sum((0, 1))
            kinds |= set(rig.outcome.collision.unique().tolist())
    never = [term.name for term in sim.RewardTerm if seen[term] == 0]
    # Stop lines and the goal are reached by driving there: their own tests do.
    assert set(never) <= {"RED_LIGHT", "STOP_SIGN", "GOAL"}, never
    assert kinds == {0, 1, 2, 3}


def test_red_light_and_goal_like_the_reference(device, tol) -> None:
    stop = factory.EAST_STOP
    lights = [((-10.0, -3.0), 2)]
    ego = factory.Actor(factory.EASTWARD, 96.0, 6.0, stops=[(stop, 0)])
    rig = Rig([factory.crossing(ego, lights=lights, frames=40)], device=device)
    tally, total = Tally(), torch.zeros(len(sim.RewardTerm), device=device)
    for _ in range(rig.scenarios.num_frames[0] - 6):
        check_step(rig, rig.zero_action(), tally, tol)
        total += rig.outcome.terms[0, 0]
    assert total[sim.RewardTerm.RED_LIGHT] == 1
    assert total[sim.RewardTerm.GOAL] == 1


@pytest.mark.parametrize("num_egos", [1, 7])
@pytest.mark.parametrize("traffic", list(Traffic))
def test_reset(device, num_egos, traffic) -> None:
    scenarios = [factory.random_scenario(s) for s in range(12)]
    rig = Rig(scenarios, device=device, num_egos=num_egos, traffic=traffic, capacity=9)
    poison(rig.state)
    rig.state.scenario.copy_(torch.arange(12))
    rig.state.seed.fill_(3)
    rig.state.member.fill_(1)
    mask = torch.arange(12, device=device) % 3 != 0
    before, want = rig.state.clone(), host(rig.state)
    reference.reset(reference.places(rig.scenarios), want, mask.cpu().numpy(), rig.config)
    sim.reset(rig.scenarios, rig.state, mask, rig.params)
    got = host(rig.state)
    chosen = mask.cpu().numpy()
    for name, expected in vars(want).items():
        wrong = error(getattr(got, name)[chosen], expected[chosen]) > 1e-4
        assert not wrong.any(), f"{name}: {np.argwhere(wrong)[:5].tolist()}"
    for name, tensor in before.tensors().items():
        kept = getattr(rig.state, name)[~mask]
        assert torch.equal(kept.view(torch.uint8), tensor[~mask].view(torch.uint8)), name


def check_rows(name: str, got, want, tally: Tally, tol, radius: float | None = None) -> None:
    """Slots in order of distance: rows may trade places with others equally far."""
    actual, expected = getattr(got, name), getattr(want, name)
    mask, wanted = getattr(got, f"{name}_mask"), getattr(want, f"{name}_mask")
    farthest = np.linalg.norm(expected[..., :2], axis=-1)
    beyond = np.full(mask.shape, np.inf)
    if radius is not None:  # the last one may lie on the rim
        rim = np.minimum(
            np.linalg.norm(actual[..., :2], axis=-1), np.where(wanted, farthest, np.inf)
        )
        beyond = np.abs(rim - radius)
    tally.check(f"{name}_mask", mask != wanted, np.where(np.isfinite(beyond), beyond, np.inf))
    both = mask & wanted
    assert not np.isnan(actual).any()
    assert (actual[~mask] == 0).all()
    here, there = np.linalg.norm(actual[..., :2], axis=-1), farthest
    assert (error(here, there)[both] < tol(5e-4)).all(), name
    wrong = (error(actual, expected) > tol(5e-4)).any(-1) & both
    gap = np.full(mask.shape, np.inf)
    step = np.abs(np.diff(farthest, axis=-1))
    gap[..., 1:], gap[..., :-1] = step, np.minimum(step, gap[..., :-1])
    gap[..., -1] = 0.0  # and with the first that found no slot
    tally.check(name, wrong, gap)


@pytest.mark.parametrize("num_egos", [1, 7])
def test_observe(device, num_egos, tol) -> None:
    tally = Tally()
    few = {"num_agents": 4, "num_road_points": 20, "num_lights": 2}
    for seed in range(8):
        options = few if seed % 2 else {"agent_radius": 25.0, "num_road_points": 200}
        rig = random_rig(seed, device=device, num_egos=num_egos, **options)
        poison(rig.observation)
        rig.observe()
        got = host(rig.observation)
        want = reference.observe(reference.places(rig.scenarios), host(rig.state), rig.config)
        wrong = error(got.ego, want.ego) > tol(2e-4)
        heading = error(got.ego[..., HEADING], want.ego[..., HEADING], angle=True) > tol(2e-4)
        wrong[..., HEADING] = heading
        margin = np.full(got.ego.shape, np.inf)
        margin[..., EGO_CHANGES] = want.margin[..., None]
        tally.check("ego", wrong, margin)
        tally.check(
            "route", (error(got.route, want.route) > tol(3e-4)).any(-1), want.margin[..., None]
        )
        tally.check("route_mask", got.route_mask != want.route_mask, want.margin[..., None])
        tally.check(
            "lights", (error(got.lights, want.lights) > tol(3e-4)).any(-1), want.margin[..., None]
        )
        assert (got.lights_mask == want.lights_mask).all()
        check_rows("agents", got, want, tally, tol, rig.config.agent_radius)
        check_rows("road", got, want, tally, tol, rig.config.road_radius)
    tally.close()


@pytest.mark.parametrize("num_egos", [1, 7])
def test_observe_what_drivers_of_alpasim_are_told(device, num_egos, tol) -> None:
    tally = Tally()
    options = {"observation": ObservationKind.alpasim, **ALPASIM_SIZES}
    told = []
    for seed in range(8):
        rig = random_rig(seed, device=device, num_egos=num_egos, **options)
        poison(rig.observation)
        rig.observe()
        got = host(rig.observation)
        want = reference.observe(reference.places(rig.scenarios), host(rig.state), rig.config)
        margin = want.margin[..., None]
        columns = want.ego.shape[-1]
        want.ego = want.ego[..., : got.ego.shape[-1]]
        assert columns > got.ego.shape[-1]
        wrong = error(got.ego, want.ego) > tol(3e-4)
        wrong[..., HEADING] = error(got.ego[..., HEADING], want.ego[..., HEADING], True) > tol(3e-4)
        tally.check("ego", wrong, margin)
        tally.check("route", (error(got.route, want.route) > tol(3e-4)).any(-1), margin)
        tally.check("route_mask", got.route_mask != want.route_mask, margin)
        told += got.route_mask.sum(-1).ravel().tolist()
    tally.close()
    assert 20 in told
    assert any(0 < n < 20 for n in told)


def test_observe_writes_only_what_the_mask_names(device) -> None:
    rig = random_rig(0, device=device)
    poison(rig.observation)
    before = rig.observation.clone()
    mask = torch.arange(8, device=device) % 2 == 0
    sim.observe(rig.scenarios, rig.state, rig.observation, rig.params, mask=mask)
    rest = rig.observation.clone()
    rig.observe()
    for name, tensor in rest.tensors().items():
        full = getattr(rig.observation, name)
        assert torch.equal(tensor[mask], full[mask]), name
        left, old = tensor[~mask], getattr(before, name)[~mask]
        assert torch.equal(left.view(torch.uint8), old.view(torch.uint8)), name


def test_fork(device) -> None:
    rig = random_rig(1, device=device)
    rig.state.seed.copy_(torch.arange(8) * 7)
    target = sim.make_state(11, rig.state.x.shape[1], device=device)
    poison(target)
    want = host(target)
    index = torch.tensor([3, 3, -1, 0, 7, 1, 2, -1, 5, 6, 4], dtype=torch.int32, device=device)
    reference.fork(host(rig.state), want, index.cpu().numpy())
    sim.fork(rig.state, target, index)
    got = host(target)
    for name, expected in vars(want).items():
        assert np.array_equal(getattr(got, name), expected, equal_nan=True), name


def test_noise(device) -> None:
    rig = random_rig(2, device=device, num_egos=7)
    rig.state.seed.copy_(torch.tensor([0, 1, -1, 2**62, 5, 5, 5, -(2**63)]))
    rig.state.member.copy_(torch.arange(8) - 3)
    out = torch.full((8, 7, 3), torch.nan, device=device)
    sim.noise(rig.scenarios, rig.state, out)
    want = reference.noise(reference.places(rig.scenarios), host(rig.state), 3)
    # The cosine is off by its float32 angle's rounding, which the radius (5 at most) multiplies.
    assert error(out.cpu().numpy(), want).max() < 1e-5
