"""What must hold whatever the scenario: invariances, determinism, inverses, and random numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import scenario_factory as factory
from alpagym import sim
from alpagym.config import ActionType, Traffic
from alpagym.scenarios.scenario import AgentType
from alpagym.types import EgoFeature as EGO
from simulating import Rig, error, host, random_rig, same_bits

SEEDS = range(4)
TERM = sim.RewardTerm


def roll(rig: Rig, steps: int, seed: int = 0) -> list:
    """States, outcomes and observations along the way."""
    seen = []
    for t in range(steps):
        rig.step(rig.random_action(seed + t))
        rig.observe()
        seen.append((rig.state.clone(), rig.outcome.clone(), rig.observation.clone()))
    return seen


@pytest.mark.parametrize("traffic", list(Traffic))
@pytest.mark.parametrize("motion", [(130.0, -70.0, 0.7), (-20.0, 15.0, 3.0)])
def test_a_rigid_motion_of_the_scenario_changes_nothing_that_is_relative(
    device, traffic, motion
) -> None:
    scenarios = [factory.random_scenario(s) for s in range(8)]
    turned = [factory.moved(s, *motion) for s in scenarios]
    here, there = (Rig(s, device=device, traffic=traffic) for s in (scenarios, turned))
    flags, flips = 0, 0
    for (_, a, p), (_, b, q) in zip(roll(here, 12), roll(there, 12), strict=True):
        a, b, p, q = host(a), host(b), host(p), host(q)
        continuous = [TERM.PROGRESS, TERM.ROUTE, TERM.LANE, TERM.DISTANCE_TO_GT]
        assert error(a.terms[..., continuous], b.terms[..., continuous]).max() < 5e-3
        yes_or_no = [t for t in TERM if t not in (*continuous, TERM.SPEED_LIMIT, TERM.TTC)]
        wrong = error(a.terms[..., yes_or_no], b.terms[..., yes_or_no]) > 0
        flags, flips = flags + wrong.size, flips + wrong.sum()
        wrong = p.road_mask != q.road_mask
        flags, flips = flags + wrong.size, flips + wrong.sum()
        assert (p.agents_mask == q.agents_mask).all()
        distance = [np.linalg.norm(o.agents[..., :2], axis=-1) for o in (p, q)]
        assert error(*distance).max() < 2e-2
        distance = [np.linalg.norm(o.road[..., :2], axis=-1) for o in (p, q)]
        assert error(*distance)[p.road_mask & q.road_mask].max() < 5e-3
        # These jump between route segments, or from one step to the next.
        jumps = (EGO.ACCEL, EGO.HEADING_ERROR, EGO.SPEED_LIMIT, EGO.STOP_DISTANCE)
        smooth = [column for column in EGO if column not in jumps]
        assert error(p.ego[..., smooth], q.ego[..., smooth]).max() < 5e-3
        both = p.route_mask & q.route_mask
        assert error(p.route[..., :2], q.route[..., :2])[both].max() < 1e-2
    assert flips <= 2e-3 * flags, f"{flips} of {flags}"


@pytest.mark.parametrize("traffic", list(Traffic))
def test_the_order_of_agents_does_not_matter(device, traffic) -> None:
    options = {"device": device, "traffic": traffic, "idm_speed_spread": 0.0}
    for seed in range(8):
        scenario = factory.random_scenario(seed)
        order = np.random.default_rng(seed).permutation(7)
        plain = Rig([scenario], **options)
        mixed = Rig([factory.permuted(scenario, order)], **options)
        moved = torch.as_tensor(order, device=device)
        for t in range(8):
            action = plain.random_action(t)
            for rig in (plain, mixed):
                rig.step(action)
                rig.observe()
            for name in ("x", "y", "yaw", "speed", "valid", "route_s"):
                want, got = getattr(plain.state, name)[:, moved], getattr(mixed.state, name)
                assert torch.equal(got, want), (seed, t, name)
            assert same_bits(plain.outcome, mixed.outcome)
            for name in ("ego", "agents", "agents_mask", "road", "route", "lights"):
                assert torch.equal(
                    getattr(plain.observation, name), getattr(mixed.observation, name)
                )


@pytest.mark.parametrize("traffic", list(Traffic))
def test_a_world_depends_on_nothing_but_itself(device, traffic) -> None:
    """Bit for bit: alone, among others, at another index, in another batch of scenarios."""
    scenarios = [factory.random_scenario(s) for s in range(6)]
    many = Rig(scenarios, 70, device=device, traffic=traffic)
    every = torch.randn(5, 6, 1, 2, generator=torch.Generator().manual_seed(1)).to(device)
    for t in range(5):
        many.step(every[t, torch.arange(70) % 6].contiguous())
        many.observe()
    for s in range(6):
        one = Rig(scenarios[s : s + 1], 1, device=device, traffic=traffic, capacity=7)
        for t in range(5):
            one.step(every[t, s : s + 1].contiguous())
            one.observe()
        for w in (s, s + 60):
            pairs = [
                (one.state, many.state),
                (one.outcome, many.outcome),
                (one.observation, many.observation),
            ]
            for alone, among in pairs:
                for name, tensor in alone.tensors().items():
                    if name != "scenario":
                        got = getattr(among, name)[w : w + 1]
                        assert torch.equal(got, tensor), (s, w, name)


PROGRAM = """
import sys, torch, hashlib
import simulating, scenario_factory as factory
from alpagym import sim
from alpagym.config import Traffic
rig = simulating.Rig([factory.random_scenario(s) for s in range(4)], 100, traffic=Traffic.idm)
noise = torch.zeros(100, 1, 2)
digest = hashlib.sha256()
for t in range(5):
    rig.step(rig.random_action(t)); rig.observe(); sim.noise(rig.scenarios, rig.state, noise)
    for s in (rig.state, rig.outcome, rig.observation):
        for x in s.tensors().values(): digest.update(x.numpy().tobytes())
    digest.update(noise.numpy().tobytes())
print(digest.hexdigest())
"""


def test_the_number_of_threads_does_not_matter() -> None:
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), *sys.path])
    digests = []
    for threads in ("1", "5"):
        environment = os.environ | {
            "OMP_NUM_THREADS": threads,
            "OMP_DYNAMIC": "false",
            "PYTHONPATH": path,
        }
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        digests.append(done.stdout)
    assert len(set(digests)) == 1


@pytest.mark.parametrize("action", list(ActionType))
def test_the_same_call_twice_gives_the_same_bits(device, action) -> None:
    first, second = (
        roll(random_rig(3, device=device, action=action, traffic=Traffic.idm), 5) for _ in range(2)
    )
    for a, b in zip(first, second, strict=True):
        assert all(same_bits(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("traffic", list(Traffic))
def test_step_after_fork_is_fork_after_step(device, traffic) -> None:
    rig = random_rig(5, device=device, traffic=traffic, num_egos=3)
    other = random_rig(5, device=device, traffic=traffic, num_egos=3)
    index = torch.tensor([4, 4, 0, 7, 7, 7, 1, 2], dtype=torch.int32, device=device)
    sim.fork(rig.state, other.state, index)
    action = rig.random_action(0)
    rig.step(action)
    other.step(action[index.long()].contiguous())
    target = rig.state.clone()
    sim.fork(rig.state, target, index)
    assert same_bits(other.state, target)
    for name, tensor in other.outcome.tensors().items():
        assert torch.equal(tensor, getattr(rig.outcome, name)[index.long()]), name


def test_replay_follows_the_record_exactly(device) -> None:
    scenarios = [factory.random_scenario(s) for s in range(8)]
    rig = Rig(scenarios, device=device)
    policy = rig.state.controller == int(sim.Controller.POLICY)
    assert policy.sum() == 8
    for t in range(1, 26):
        rig.step(rig.random_action(t))
        for w, s in enumerate(scenarios):
            frame, a = s.start_frame + t, ~policy[w].cpu().numpy()
            valid = s.tracks.valid[:, frame]
            assert np.array_equal(rig.state.valid[w].cpu().numpy()[a], valid[a])
            there = a & valid
            for name, record in (
                ("x", s.tracks.xyz[..., 0]),
                ("y", s.tracks.xyz[..., 1]),
                ("yaw", s.tracks.yaw),
            ):
                got = getattr(rig.state, name)[w].cpu().numpy()
                assert np.array_equal(got[there], record[there, frame]), name


def test_an_ego_that_replays_its_record_reaches_the_end_without_events(device) -> None:
    rig = Rig([factory.straight(frames=40)], device=device)
    rig.state.controller.fill_(int(sim.Controller.LOG))
    total = torch.zeros(len(sim.RewardTerm), device=device)
    for _ in range(34):
        rig.step(rig.random_action(0))
        total += rig.outcome.terms[0, 0]
    assert total[TERM.GOAL] == 1
    assert total[TERM.DISTANCE_TO_GT] == 0
    assert rig.outcome.progress_fraction.item() == pytest.approx(1.0, abs=1e-5)
    assert rig.state.truncated.item()
    assert not rig.state.terminated.any()


def test_a_world_that_is_done_stands_still(device) -> None:
    rig = random_rig(2, device=device, traffic=Traffic.idm)
    rig.state.truncated.fill_(True)
    rig.step()
    before = rig.state.clone()
    rig.step(rig.random_action(1))
    assert same_bits(rig.state, before)
    assert (rig.outcome.reward == 0).all()
    assert (rig.outcome.terms == 0).all()


def expressible(rig: Rig, seed: int) -> torch.Tensor:
    """A random action that no bound changes and that brakes nobody to a standstill."""
    action, kind, dt = rig.random_action(seed), rig.config.action, rig.config.dt
    if kind in (ActionType.delta, ActionType.teleport):
        return action
    ego = rig.state.ego.clamp(min=0).long()
    speed, accel, curvature = (
        getattr(rig.state, name).gather(1, ego) for name in ("speed", "accel", "curvature")
    )
    if kind is ActionType.jerk:  # as the control that it leads to
        action = action * dt + torch.stack([accel, curvature], -1)
    action[..., 0] = action[..., 0].clamp(-2.0, 2.0).maximum((0.5 - speed) / dt)
    limit = (0.9 * rig.config.max_lateral_accel / speed**2).clamp(max=0.3)
    if kind is ActionType.bicycle:
        limit = torch.atan(limit * 0.3)  # no wheelbase is shorter
    action[..., 1] = action[..., 1].minimum(limit).maximum(-limit)
    if kind is ActionType.jerk:
        action = (action - torch.stack([accel, curvature], -1)) / dt
    return action


@pytest.mark.parametrize("kind", [k for k in ActionType if k is not ActionType.trajectory])
def test_the_inverse_of_a_step_gives_its_action_back(device, kind) -> None:
    scenarios = [factory.random_scenario(s) for s in range(8)]
    rig = Rig(scenarios, device=device, action=kind, num_egos=3)
    again = Rig(scenarios, device=device, action=kind, num_egos=3)
    every = torch.arange(8, dtype=torch.int32, device=device)
    for t in range(6):
        before, action = rig.state.clone(), expressible(rig, t)
        rig.step(action)
        found = torch.full_like(action, torch.nan)
        sim.inverse(rig.scenarios, before, rig.state, found, rig.params)
        there = before.ego >= 0
        assert there.any()
        assert (found[~there] == 0).all()
        wrong = found[there] - action[there]
        if action.shape[-1] == 3:
            wrong[:, 2] = torch.remainder(wrong[:, 2] + torch.pi, 2 * torch.pi) - torch.pi
        per_step = 1.0 / rig.config.dt if kind is ActionType.jerk else 1.0
        assert wrong.abs().max() < 2e-4 * per_step
        sim.fork(before, again.state, every)
        again.step(found)
        for name in ("x", "y", "yaw", "speed"):
            got, want = (getattr(host(r.state), name) for r in (again, rig))
            assert error(got, want, name == "yaw").max() < 1e-3, name


def test_the_inverse_of_an_absent_ego_is_zero(device) -> None:
    rig = Rig([factory.straight()], 3, device=device)
    before = rig.state.clone()
    rig.step()
    before.valid[0] = False
    rig.state.valid[1] = False
    found = torch.full_like(rig.zero_action(), torch.nan)
    before.speed += 1.0
    sim.inverse(rig.scenarios, before, rig.state, found, rig.params)
    assert (found[:2] == 0).all()
    assert found[2, 0, 0].item() == pytest.approx(-10.0, abs=1e-3)


def test_collisions_are_symmetric(device) -> None:
    """With two egos, one collides with the other exactly when the other does."""
    rng = np.random.default_rng(0)
    begun = 0
    for seed in range(30):
        meeting = factory.Actor(
            factory.STRAIGHT,
            rng.uniform(31.0, 36.0),
            rng.uniform(0.5, 5.0),
            yaw_offset=rng.uniform(-np.pi, np.pi),
        )
        rig = Rig([factory.straight(meeting, name=f"pair-{seed}")], device=device, num_egos=2)
        for _ in range(12):
            rig.step()
            hit = rig.outcome.collision[0] != 0
            assert hit[0] == hit[1]
            begun += int(hit[0])
    assert begun > 10


def noise_of(device, seeds, members=0, steps=0, scenarios=1, agents=0, columns=2) -> torch.Tensor:
    """Noise of one world per seed, [W, columns]."""
    rig = Rig([factory.straight(name=f"n{k}") for k in range(scenarios)], len(seeds), device=device)
    rig.state.seed.copy_(torch.as_tensor(seeds))
    rig.state.member.copy_(torch.as_tensor(members).expand(len(seeds)))
    rig.state.step.copy_(torch.as_tensor(steps).expand(len(seeds)))
    rig.state.ego.copy_(torch.as_tensor(agents).expand(len(seeds), 1))
    out = torch.zeros(len(seeds), 1, columns, device=device)
    sim.noise(rig.scenarios, rig.state, out)
    return out[:, 0].cpu().double()


def test_noise_is_standard_normal(device) -> None:
    n = 100_000
    x = noise_of(device, torch.arange(n // 2)).flatten().sort().values.numpy()
    # Bounds at five standard errors; the last is Kolmogorov and Smirnov's at a chance of 1e-6.
    assert abs(x.mean()) < 5 / np.sqrt(n)
    assert abs(x.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs((x**4).mean() - 3) < 5 * np.sqrt(96 / n)
    cumulative = 0.5 * (1 + torch.erf(torch.from_numpy(x) / np.sqrt(2))).numpy()
    assert np.abs(cumulative - np.arange(1, n + 1) / n).max() < 2.7 / np.sqrt(n)


def test_noise_is_independent_across_keys(device) -> None:
    n = 20_000
    seeds, same = torch.arange(n), torch.full((n,), 11)
    base = noise_of(device, seeds)
    others = {
        "the other column": (base[:, 0], base[:, 1]),
        "the next seed": (base[:-1, 0], base[1:, 0]),
        "the next step": (base[:, 0], noise_of(device, seeds, steps=1)[:, 0]),
        "the next member": (base[:, 0], noise_of(device, seeds, members=1)[:, 0]),
        "the next agent": (base[:, 0], noise_of(device, seeds, agents=1)[:, 0]),
        "successive steps": tuple(
            noise_of(device, same, steps=seeds)[k : n - 1 + k, 0] for k in (0, 1)
        ),
        "successive members": tuple(
            noise_of(device, same, members=seeds)[k : n - 1 + k, 0] for k in (0, 1)
        ),
    }
    for name, (a, b) in others.items():
        for power in (1, 2):
            correlation = torch.corrcoef(torch.stack([a**power, b**power]))[0, 1].item()
            assert abs(correlation) < 5 / np.sqrt(n), name


def test_noise_depends_on_keys_only(device) -> None:
    rig = Rig([factory.straight(name="a"), factory.straight(name="b")], 8, device=device)
    rig.state.seed.fill_(5)
    out = torch.zeros(8, 1, 2, device=device)
    sim.noise(rig.scenarios, rig.state, out)
    assert torch.equal(out[0::2], out[0:1].expand(4, 1, 2))  # not on the world's index
    assert not torch.equal(out[0], out[1])  # but on the scenario's id
    rig.state.x += 3.0
    again = torch.zeros_like(out)
    sim.noise(rig.scenarios, rig.state, again)
    assert torch.equal(out, again)
    swapped = Rig([factory.straight(name="b"), factory.straight(name="a")], 2, device=device)
    swapped.state.seed.fill_(5)
    fresh = torch.zeros(2, 1, 2, device=device)
    sim.noise(swapped.scenarios, swapped.state, fresh)
    assert torch.equal(fresh[[1, 0]], out[:2])


def test_pedestrians_are_replayed_whatever_the_traffic(device) -> None:
    walker = factory.Actor(factory.WALK, 2.0, 1.2, type=AgentType.PEDESTRIAN, size=factory.WALKER)
    scenario = factory.crossing(factory.Actor(factory.EASTWARD, 20.0, 5.0), walker)
    for traffic in Traffic:
        rig = Rig([replace(scenario, id="walk")], device=device, traffic=traffic)
        assert rig.state.controller[0, 1] == sim.Controller.LOG
