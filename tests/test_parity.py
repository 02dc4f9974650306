"""Every kernel against the float64 reference, from random states, into poisoned outputs.

Thresholded results (collisions, off-road, red lights, masks, IDM's choices, ...) must be equal
wherever the reference decided by more than BAND; nearer than that float32 may decide otherwise,
but seldom: FLIPS bounds the share of all decisions that do.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

import scenario_factory as factory
from alpagym import reference, sim
from alpagym.config import ActionType, Traffic
from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.procedural import generate
from alpagym.types import EgoFeature, State
from simulating import Rig, error, host, poison, random_rig

BAND = 2e-3
FLIPS = 0.01
SEEDS = range(3)

# What float32 leaves after one step from equal states, at coordinates up to 150 m (where float32
# resolves 1.5e-5 m): positions are sums of a few such terms; a speed from a displacement divides
# them by dt; an acceleration divides twice.
RESIDUAL = {"speed": 4e-4, "accel": 8e-3, "curvature": 2e-3}
POSE_RESIDUAL = 6e-5

TERM_RESIDUAL = {
    sim.RewardTerm.SPEED_LIMIT: 4e-4,
    sim.RewardTerm.TTC: 2e-3,
}
DECIDED_BY = {  # which margin of the reference a term hangs on
    sim.RewardTerm.COLLISION_AT_FAULT: "contact",
    sim.RewardTerm.COLLISION_ANY: "contact",
    sim.RewardTerm.TTC: "contact",
    sim.RewardTerm.OFFROAD: "offroad",
    sim.RewardTerm.RED_LIGHT: "flags",
    sim.RewardTerm.STOP_SIGN: "flags",
    sim.RewardTerm.GOAL: "flags",
    sim.RewardTerm.LANE: "lane",
    sim.RewardTerm.WRONG_WAY: "flags",
    sim.RewardTerm.COMFORT: "comfort",
    sim.RewardTerm.SPEED_LIMIT: "limit",
}
HEADING = EgoFeature.HEADING_ERROR
EGO_CHANGES = [EgoFeature.ROUTE_OFFSET, HEADING, EgoFeature.SPEED_LIMIT, EgoFeature.STOP_DISTANCE]
"""Columns that jump."""


class Tally:
    """Counts close calls that went the other way; fails on any that were not close."""

    def __init__(self) -> None:
        self.flips = self.decisions = 0

    def check(self, name: str, wrong: np.ndarray, margin: np.ndarray) -> None:
        margin = np.broadcast_to(margin, wrong.shape)
        clear = np.argwhere(wrong & (margin > BAND))
        assert len(clear) == 0, f"{name}: wrong at {clear[:5].tolist()} of {wrong.shape}"
        self.flips += int(wrong.sum())
        self.decisions += wrong.size

    def close(self) -> None:
        assert self.flips <= FLIPS * self.decisions, f"{self.flips} of {self.decisions} flipped"


def check_state(got: State, want, tally: Tally, margin: np.ndarray, tol) -> None:
    """Every field of State; `margin` [W, A] is how near each agent's driving decisions were."""
    got = host(got)
    for f in fields(State):
        actual, expected = getattr(got, f.name), getattr(want, f.name)
        if f.name in ("terminated", "truncated", "offroad"):
            continue  # follow from thresholds, which the terms judge
        if actual.dtype == np.float64:
            kind = f.name.removeprefix("prev_")
            wrong = error(actual, expected, kind == "yaw") > tol(RESIDUAL.get(kind, POSE_RESIDUAL))
            if actual.shape == margin.shape:
                wrong &= want.prev_valid if f.name.startswith("prev_") else want.valid
            if actual.shape == margin.shape and not f.name.startswith("prev_"):
                tally.check(f.name, wrong, margin)
                continue
        else:
            wrong = actual != expected
        assert not wrong.any(), f"{f.name}: {np.argwhere(wrong)[:5].tolist()}"


def check_outcome(rig: Rig, want_state, want, tally: Tally, tol) -> None:
    got, got_state = host(rig.outcome), host(rig.state)
    for term in sim.RewardTerm:
        margin = getattr(want, f"margin_{DECIDED_BY.get(term, 'none')}", np.inf)
        residual = tol(TERM_RESIDUAL.get(term, 2 * POSE_RESIDUAL))
        wrong = error(got.terms[..., term], want.terms[..., term]) > residual
        tally.check(term.name, wrong, margin)
    tally.check("collision", got.collision != want.collision, want.margin_contact)
    ttc = error(np.minimum(got.ttc, 9.0), np.minimum(want.ttc, 9.0)) > tol(4e-3)
    tally.check("lane", got.lane != want.lane, want.margin_lane)
    same_lane = got.lane == want.lane
    for name in ("lane_offset", "lane_heading"):
        wrong = error(getattr(got, name), getattr(want, name), True) > tol(2 * POSE_RESIDUAL)
        tally.check(name, wrong & same_lane, want.margin_lane)
    assert (got.bad_action == want.bad_action).all()
    tally.check("ttc", ttc, want.margin_contact)
    assert (error(got.progress_fraction, want.progress_fraction) < 1e-4).all()
    tally.check("offroad", got_state.offroad != want_state.offroad, want.margin_offroad)
    every = np.minimum.reduce([want.margin_contact, want.margin_offroad, want.margin_flags])
    for name in ("terminated", "truncated"):
        tally.check(name, getattr(got_state, name) != getattr(want_state, name), every)
    # The reward is the weighted sum of the terms, whichever way they fell.
    total = (got.terms * rig.weights.cpu().numpy()[:, None]).sum(-1)
    assert (error(got.reward, total) < 1e-4 * (1 + np.abs(total))).all()


@pytest.mark.parametrize("action", list(ActionType))
@pytest.mark.parametrize("traffic", list(Traffic))
def test_step(device, action, traffic, tol) -> None:
    tally = Tally()
    every_end = ("collision_at_fault", "offroad", "red_light", "goal")
    for seed in SEEDS:
        end_on = every_end if seed % 2 else ()
        rig = random_rig(seed, device=device, action=action, traffic=traffic, end_on=end_on)
        terms = len(sim.RewardTerm)
        rig.weights = torch.linspace(-1.0, 2.0, 8 * terms, device=device).reshape(8, terms)
        for t in range(2):
            poison(rig.outcome)
            action_ = rig.random_action(seed + t)
            state, outcome = rig.reference_step(action_)
            rig.step(action_)
            check_state(rig.state, state, tally, outcome.margin_control, tol)
            check_outcome(rig, state, outcome, tally, tol)
    tally.close()


@pytest.mark.parametrize("traffic", list(Traffic))
def test_step_of_many_egos_that_end_at_different_times(device, traffic, tol) -> None:
    tally = Tally()
    for seed in SEEDS:
        rig = random_rig(
            seed, device=device, traffic=traffic, num_egos=7, end_on=("offroad", "collision_any")
        )
        for t in range(3):
            poison(rig.outcome)
            action = rig.random_action(seed + t)
            state, outcome = rig.reference_step(action)
            rig.step(action)
            check_state(rig.state, state, tally, outcome.margin_control, tol)
            check_outcome(rig, state, outcome, tally, tol)
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
        poison(rig.outcome)
        action = rig.random_action(9)
        state, outcome = rig.reference_step(action)
        rig.step(action)
        check_state(rig.state, state, tally, outcome.margin_control, tol)
        check_outcome(rig, state, outcome, tally, tol)
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
        poison(rig.outcome)
        action = rig.random_action(t)
        state, outcome = rig.reference_step(action)
        rig.step(action)
        check_state(rig.state, state, tally, outcome.margin_control, tol)
        check_outcome(rig, state, outcome, tally, tol)
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
        poison(rig.outcome)
        action = rig.random_action(t)
        action[..., 0] *= 0.2  # jerks of up to about 10 m/s^3
        state, outcome = rig.reference_step(action)
        rig.step(action)
        check_state(rig.state, state, tally, outcome.margin_control, tol)
        check_outcome(rig, state, outcome, tally, tol)
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
        state, outcome = rig.reference_step(rig.zero_action())
        rig.step()
        check_state(rig.state, state, tally, outcome.margin_control, tol)
        check_outcome(rig, state, outcome, tally, tol)
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
