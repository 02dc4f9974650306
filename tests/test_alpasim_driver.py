"""A driver over sockets: it sees what policies saw in training, and plans what they planned."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
import torch

from alpagym.config import ActionType, SimConfig
from alpagym.interop.alpasim.driver.plans import Planner
from alpagym.interop.alpasim.poses import Track
from alpagym.policies.policy import memory_of
from alpagym.scenarios.procedural import KINDS, generate
from alpagym.timed_plans import plan_action
from alpasim_talk import (
    START_US,
    STEP_US,
    TOLD,
    Worlds,
    drive,
    egomotion,
    planned,
    policy_of,
    route,
    start,
    straight,
    talk_to,
    told_straight,
    waypoints,
)
from simulating import Rig

SCENARIOS = [generate(kind, 5) for kind in KINDS[:4]]


def rig_of(config, **changes) -> Rig:
    options = {name: getattr(config, name) for name in ("action", "plan_steps", "replan_every")}
    return Rig(SCENARIOS, **TOLD, **(options | changes))


class InProcess:
    """A policy that drives worlds of ours as evaluation does."""

    def __init__(self, kind: str) -> None:
        self.policy, self.config = policy_of(kind)
        self.rig = rig_of(self.config)
        self.memory = memory_of(self.policy, len(SCENARIOS), torch.device("cpu"))
        self.action = self.rig.zero_action()[:, 0]

    @torch.no_grad()
    def decide(self):
        """What it sees now; the action is kept."""
        self.rig.observe()
        seen = self.rig.observation.map(lambda t: t.squeeze(1).clone())
        seen = replace(seen, ego=torch.cat([seen.ego, self.memory], -1))
        if int(self.rig.state.step[0]) % self.config.replan_every == 0:
            self.memory = self.policy.remember(seen)
            self.action = self.policy.mean(seen)
        return seen


def spied(kind: str):
    """A policy, what it was shown, and its simulator."""
    policy, config = policy_of(kind)
    shown = []
    mean = policy.mean

    def look(seen):
        shown.append(seen.map(torch.clone))
        return mean(seen)

    policy.mean = look
    return policy, config, shown


def joined(batches):
    """One observation of several."""
    parts = [batch.tensors() for batch in batches]
    return type(batches[0])(**{n: torch.cat([part[n] for part in parts]) for n in parts[0]})


def sorted_by_speed(seen):
    """Rows of a batch come in any order."""
    return seen.index(seen.ego[:, 0].argsort())


@pytest.mark.parametrize("told", [True, False], ids=["told", "zeros_at_first"])
def test_it_sees_what_the_simulator_shows(told) -> None:
    policy, config, shown = spied("actions")
    inside = InProcess("actions")
    wanted = []

    async def conversation(stub, driver):
        worlds = Worlds(inside.rig, told=told)
        await worlds.begin(stub)
        for _ in range(12):
            wanted.append(inside.decide())
            before = len(shown)
            await worlds.ask(stub)
            shown[before:] = [joined(shown[before:])]
            worlds.advance(inside.action)

    talk_to(conversation, policy=(policy, config))
    for t, (got, want) in enumerate(zip(shown, wanted, strict=True)):
        got, want = sorted_by_speed(got), sorted_by_speed(want)
        apart = (got.ego - want.ego).abs()
        if told:
            assert apart.max() < 2e-4, (t, apart.max(0).values)
        else:  # first by the poses alone, which are of a record with noise
            assert apart[:, 0].max() < 0.5
            if t >= 2:
                assert apart[:, :7].max() < 2e-4, (t, apart.max(0).values)
        if told or t:
            assert (got.route - want.route).abs().max() < 2e-5
            assert torch.equal(got.route_mask, want.route_mask)


@pytest.mark.parametrize("kind", ["plans", "old_plans"])
def test_a_drive_over_sockets_is_the_drive_in_process(kind) -> None:
    """Trajectory actions, each step from the answer's poses; to float32 on the wire."""
    inside = InProcess(kind)
    outside = rig_of(inside.config, replan_every=1)
    steps = inside.config.plan_steps

    async def conversation(stub, driver):
        worlds = Worlds(outside)
        await worlds.begin(stub)
        for _ in range(25):
            answers = await worlds.ask(stub)
            here = torch.as_tensor(worlds.rear_axles())
            actions = []
            for w, answer in enumerate(answers):
                time_us, pose = planned(answer)
                assert time_us[0] == worlds.now_us
                assert pose[0] == pytest.approx(here[w].numpy(), abs=2e-5)
                seconds = torch.as_tensor((time_us - time_us[0]) * 1e-6)
                actions.append(plan_action(seconds, torch.as_tensor(pose), here[w], steps=steps))
            worlds.advance(torch.stack(actions))
            inside.decide()
            inside.rig.step(inside.action.unsqueeze(1).contiguous())
        return driver.statistics.drives

    assert talk_to(conversation, kind) == 25 * len(SCENARIOS)
    moved = 0.0
    for name in ("x", "y", "yaw", "speed"):
        ego = inside.rig.state.ego.long()
        got, want = (getattr(r.state, name).gather(1, ego) for r in (outside, inside.rig))
        assert (got - want).abs().max() < 2e-3, name
        began = getattr(rig_of(inside.config).state, name).gather(1, ego)
        moved = max(moved, float((want - began).abs().max()))
    assert moved > 5.0


@pytest.mark.parametrize("kind", ["actions", "controls"])
def test_actions_become_plans_that_begin_as_the_simulator_drives(kind) -> None:
    """k steps as the policy's controls move the rear axle; then on, to 2 s at least."""
    inside = InProcess(kind)
    worlds = Worlds(inside.rig)
    executed = inside.config.replan_every

    async def conversation(stub, driver):
        await worlds.begin(stub)
        for t in range(2 * executed):
            inside.decide()
            answers = await worlds.ask(stub)
            ahead = [planned(answer) for answer in answers]
            assert all(time_us[0] == worlds.now_us for time_us, _ in ahead)
            worlds.advance(inside.action)
            if t % executed == 0:
                reached = worlds.rear_axles()
                for w, (time_us, pose) in enumerate(ahead):
                    assert time_us[1] == worlds.now_us
                    assert pose[1] == pytest.approx(reached[w], abs=2e-4)

    talk_to(conversation, kind)


# Sessions


def test_many_sessions_are_answered_together_and_each_as_alone() -> None:
    count = 48

    async def conversation(stub, driver):
        speeds = np.linspace(0.0, 20.0, count)
        for i, speed in enumerate(speeds):
            await stub.start_session(start(f"s{i}"))
            await told_straight(stub, f"s{i}", speed=float(speed))
        answers = await asyncio.gather(
            *(stub.drive(drive(f"s{i}", START_US)) for i in range(count))
        )
        batches = driver.batcher.batches
        alone = []
        for i, speed in enumerate(speeds):
            await stub.start_session(start(f"alone{i}"))
            await told_straight(stub, f"alone{i}", speed=float(speed))
            alone.append(await stub.drive(drive(f"alone{i}", START_US)))
        return [planned(a)[1] for a in answers], [planned(a)[1] for a in alone], batches

    together, alone, batches = talk_to(conversation)
    assert batches < count / 3
    assert np.abs(np.stack(together) - np.stack(alone)).max() < 1e-4
    assert len({float(pose[-1, 0].round(3)) for pose in together}) > count / 2


def test_seeds() -> None:
    async def plan(stub, uuid, seed):
        await stub.start_session(start(uuid, seed))
        time_us = await told_straight(stub, uuid)
        return planned(await stub.drive(drive(uuid, time_us)))[1]

    async def conversation(stub, driver):
        first, again, other = [
            await plan(stub, name, seed) for name, seed in (("a", 3), ("b", 3), ("c", 2**64 - 1))
        ]
        together = await asyncio.gather(*(plan(stub, f"t{i}", i) for i in range(8)))
        return first, again, other, together[3]

    first, again, other, batched = talk_to(conversation, sample=True)
    assert np.array_equal(first, again)
    assert np.abs(first - batched).max() < 1e-4
    assert np.abs(first - other).max() > 1e-2
    first, again, other, _ = talk_to(conversation)
    assert np.array_equal(first, again)
    assert np.array_equal(first, other), "the mean does not depend on seeds"


def test_an_answer_that_was_lost_is_given_again() -> None:
    async def conversation(stub, driver):
        await stub.start_session(start("a"))
        time_us = await told_straight(stub, "a")
        answers = [await stub.drive(drive("a", time_us)) for _ in range(2)]
        return answers, driver.statistics.drives

    (first, again), drives = talk_to(conversation)
    assert first == again
    assert drives == 1


def test_a_route_of_an_earlier_time_is_moved_along() -> None:
    async def conversation(stub, driver):
        found = []
        for uuid, told_at in (("now", 3), ("before", 1)):
            await stub.start_session(start(uuid))
            for step in range(4):
                await stub.submit_egomotion_observation(egomotion(uuid, straight(step), [8.0]))
            rows = waypoints() + np.float32([0.8 * (3 - told_at), 0.0, 0.0])
            await stub.submit_route(route(uuid, START_US + STEP_US * told_at, rows))
            found.append(planned(await stub.drive(drive(uuid, START_US + 3 * STEP_US)))[1])
        return found

    now, before = talk_to(conversation)
    assert np.abs(now - before).max() < 1e-3


@pytest.mark.parametrize(
    ("kind", "spacing_us", "found_us"),
    [
        ("actions", 100_000, None),
        ("actions", 50_000, None),
        ("actions", 33_333, None),
        ("actions", 500_000, 500_000),
        ("actions", 30_000, 120_000),
        ("old_plans", 100_000, None),
        ("old_plans", 500_000, None),
        ("old_plans", 200_000, 600_000),
    ],
)
def test_decisions_further_apart_than_in_training_are_told_once(kind, spacing_us, found_us) -> None:
    said: list[str] = []

    async def conversation(stub, driver):
        for uuid in ("a", "b"):
            await stub.start_session(start(uuid))
            for k in range(16):
                time_us = START_US + spacing_us * k
                track = Track(np.array([time_us]), np.zeros((1, 3)), np.zeros(1))
                await stub.submit_egomotion_observation(egomotion(uuid, track))
                await stub.submit_route(route(uuid, time_us, waypoints()))
                await stub.drive(drive(uuid, time_us))

    talk_to(conversation, kind, say=said.append)
    if found_us is None:
        assert said == []
    else:
        (line,) = said
        assert f", got {found_us} us; set AlpaSim's control_timestep_us to 100000" in line


def test_the_end_of_a_route_is_no_error() -> None:
    async def conversation(stub, driver):
        await stub.start_session(start("a"))
        for step, count in enumerate((5, 1, 0)):
            time_us = await told_straight(stub, "a", step)
            await stub.submit_route(route("a", time_us, waypoints(count)))
            planned(await stub.drive(drive("a", time_us)))

    talk_to(conversation)


# Policies that AlpaSim's messages are not enough for


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (SimConfig(), "one that also observes 16 agents, 48 road points, 4 lights, its own size"),
        (SimConfig(num_agents=0, num_lights=0), "also observes 48 road points, its own size"),
        (SimConfig(**TOLD, action=ActionType.bicycle), "got sim.action=bicycle"),
        (SimConfig(**TOLD, dt=0.2), "expected sim.dt=0.1, got 0.2"),
        (
            SimConfig(**TOLD, action=ActionType.trajectory, plan_steps=22, replan_every=5),
            "expected plans of at least 24 waypoints",
        ),
    ],
)
def test_policies_that_are_refused(config, words) -> None:
    with pytest.raises(ValueError, match="runs/x: expected") as caught:
        Planner(policy_of("actions")[0], config, name="runs/x")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    if config.observation is not TOLD["observation"]:
        assert "train one with observation=alpasim" in str(caught.value)
