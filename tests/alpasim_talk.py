"""The other side of a driver: what AlpaSim's runtime would tell it of worlds of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import torch

from alpagym.config import ALPASIM_SIZES, ActionType, ObservationKind, SimConfig
from alpagym.interop.alpasim import poses
from alpagym.interop.alpasim.driver.plans import Planner
from alpagym.interop.alpasim.driver.service import Driver
from alpagym.interop.alpasim.poses import Track
from alpagym.interop.alpasim.told import waypoints_of
from alpagym.interop.alpasim.wire import connection
from alpagym.interop.alpasim.wire.messages import egodriver
from alpagym.interop.alpasim.wire.services import EGODRIVER, Stub, handler_of
from alpagym.policies.policy import Policy
from alpagym.policies.registry import make_policy
from alpagym.training_config import PolicyConfig
from simulating import Rig

TOLD: dict[str, Any] = {"observation": ObservationKind.alpasim, **ALPASIM_SIZES}
START_US = 1_700_000_000_000_000
STEP_US = 100_000
CALL_S = 120.0
HISTORY = 16
"""Poses told before the first drive, at most."""

KINDS: dict[str, tuple[PolicyConfig, SimConfig]] = {
    "actions": (PolicyConfig(width=8, hidden=32, history=4), SimConfig(**TOLD)),
    "controls": (
        PolicyConfig(kind="trajectory", width=8, hidden=32, knots=8),
        SimConfig(**TOLD, plan_steps=30, replan_every=5),
    ),
    "plans": (
        PolicyConfig(kind="trajectory", width=8, hidden=32, knots=8, history=2),
        SimConfig(**TOLD, action=ActionType.trajectory, plan_steps=40),
    ),
    "old_plans": (
        PolicyConfig(kind="trajectory", head="flow_matching", width=8, hidden=32, knots=8),
        SimConfig(**TOLD, action=ActionType.trajectory, plan_steps=40, replan_every=5),
    ),
}


def policy_of(kind: str) -> tuple[Policy, SimConfig]:
    """A policy whose decisions depend on what it sees."""
    config, sim_config = KINDS[kind]
    torch.manual_seed(1)
    policy = make_policy(config, sim_config).eval()
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if name.startswith("trunk.4"):
                weight.mul_(20.0)
    return policy, sim_config


@asynccontextmanager
async def serving(driver: Driver):
    """A stub of a driver that listens on a socket."""
    server = connection.make_server(handler_of(EGODRIVER, driver))
    port = connection.listen(server)
    await server.start()
    try:
        async with connection.dial(f"127.0.0.1:{port}") as channel:
            yield Stub(channel, EGODRIVER)
    finally:
        await server.stop(None)
        driver.batcher.close()


def talk_to(
    conversation: Callable[[Stub, Driver], Awaitable[Any]], kind: str = "actions", **options: Any
) -> Any:
    """What a conversation with a driver over a socket gives."""

    async def run() -> Any:
        sample = options.pop("sample", False)
        policy, sim_config = options.pop("policy", None) or policy_of(kind)
        driver = Driver(Planner(policy, sim_config, sample=sample), **options)
        async with serving(driver) as stub:
            return await asyncio.wait_for(conversation(stub, driver), CALL_S)

    return asyncio.run(run())


def egomotion(uuid: str, track: Track, speed: np.ndarray | None = None) -> Any:
    """Poses, and speeds along them if they are told; without, dynamic states are zeros."""
    message = egodriver.RolloutEgoTrajectory(session_uuid=uuid)
    poses.write_trajectory(message.trajectory, track)
    for i in range(len(track.time_us)):
        state = message.dynamic_states.add()
        if speed is not None:
            state.linear_velocity.x = speed[i]
            state.angular_velocity.z = 1e-6  # not all zeros, even where the car stands
    return message


def route(uuid: str, time_us: int, waypoints: np.ndarray) -> Any:
    message = egodriver.RouteRequest(session_uuid=uuid)
    message.route.timestamp_us = time_us
    for x, y, z in waypoints.tolist():
        message.route.waypoints.add(x=x, y=y, z=z)
    return message


def drive(uuid: str, time_us: int) -> Any:
    return egodriver.DriveRequest(
        session_uuid=uuid, time_now_us=time_us, time_query_us=time_us + STEP_US
    )


def start(uuid: str, seed: int = 7) -> Any:
    return egodriver.DriveSessionRequest(session_uuid=uuid, random_seed=seed)


def planned(answer) -> tuple[np.ndarray, np.ndarray]:
    """Times [us] and poses [N, 3] of an answer, which AlpaSim would accept."""
    track = poses.read_trajectory(answer.trajectory)
    for entry in answer.trajectory.poses:
        q = entry.pose.quat
        assert abs(np.linalg.norm([q.w, q.x, q.y, q.z]) - 1.0) < 1e-6
    assert track.time_us[-1] - track.time_us[0] >= 2_000_000
    assert (track.z == track.z[0]).all()
    assert not answer.terminate_session
    return track.time_us, track.pose


def waypoints(count: int = 20) -> np.ndarray:
    rows = np.full((20, 3), np.nan, np.float32)
    rows[:count] = 0.0
    rows[:count, 0] = 80.0 / 19.0 * np.arange(count)
    return rows


def straight(step: int, speed: float = 8.0):
    """Where a car is that drives along the x axis."""
    way = 0.1 * speed * step
    return Track(np.array([START_US + STEP_US * step]), np.array([[way, 0.0, 0.0]]), np.zeros(1))


async def told_straight(stub, uuid: str, step: int = 0, speed: float = 8.0) -> int:
    """Tell a session of a step of that drive; returns its time."""
    time_us = START_US + STEP_US * step
    await stub.submit_egomotion_observation(egomotion(uuid, straight(step, speed), [speed]))
    await stub.submit_route(route(uuid, time_us, waypoints()))
    return time_us


class Worlds:
    """Worlds of ours, each a session of a driver."""

    def __init__(self, rig: Rig, *, told: bool = True, prefix: str = "world") -> None:
        self.rig, self.told, self.step = rig, told, 0
        self.uuids = [f"{prefix}-{w}" for w in range(len(rig.state.step))]

    @property
    def now_us(self) -> int:
        return START_US + STEP_US * self.step

    def rear_axles(self) -> np.ndarray:
        """x, y, yaw of each ego's rear axle, [W, 3]."""
        state, scenarios = self.rig.state, self.rig.scenarios
        ego = state.ego.long()
        center = torch.cat([getattr(state, n).gather(1, ego) for n in ("x", "y", "yaw")], 1)
        rows = scenarios.agent_start[state.scenario.long()].long() + ego[:, 0]
        return poses.rig_of(center.numpy(), scenarios.agent[rows, 3].numpy())

    def speeds(self) -> np.ndarray:
        return self.rig.state.speed.gather(1, self.rig.state.ego.long())[:, 0].numpy()

    def history(self, w: int) -> tuple[Track, np.ndarray]:
        """What was recorded of the ego before the first step: poses of its rear axle, speeds."""
        scenarios, state = self.rig.scenarios, self.rig.state
        s, a = int(state.scenario[w]), int(state.ego[w, 0])
        begin, end = scenarios.agent_start[s : s + 2].tolist()
        start_frame = int(scenarios.start_frame[s])
        frames = np.arange(max(0, start_frame - HISTORY), start_frame)
        cells = int(scenarios.log_start[s]) + frames * (end - begin) + a
        there = scenarios.log_valid[cells].numpy()
        log = scenarios.log[cells].numpy()[there]
        pose = poses.rig_of(log[:, :3], float(scenarios.agent[begin + a, 3]))
        time_us = START_US + STEP_US * (frames[there] - start_frame)
        return Track(time_us, pose, np.zeros(len(pose))), log[:, 3]

    async def begin(self, stub: Stub) -> None:
        for w, uuid in enumerate(self.uuids):
            await stub.start_session(start(uuid, seed=w))
            track, speed = self.history(w)
            for i in range(len(speed)):
                one = Track(track.time_us[[i]], track.pose[[i]], track.z[[i]])
                await stub.submit_egomotion_observation(
                    egomotion(uuid, one, speed[[i]] if self.told else None)
                )

    async def ask(self, stub: Stub) -> list[Any]:
        """Tell all sessions of now, and give their answers."""
        self.rig.observe()
        waypoints = waypoints_of(self.rig.observation)[:, 0]
        pose, speed = self.rear_axles(), self.speeds()
        told = self.told or self.step > 0

        async def one(w: int) -> Any:
            uuid, time_us = self.uuids[w], np.array([self.now_us])
            track = Track(time_us, pose[w : w + 1], np.array([0.5]))
            await asyncio.gather(
                stub.submit_egomotion_observation(
                    egomotion(uuid, track, speed[w : w + 1] if told else None)
                ),
                stub.submit_route(route(uuid, self.now_us, waypoints[w])),
            )
            return await stub.drive(drive(uuid, self.now_us))

        return list(await asyncio.gather(*map(one, range(len(self.uuids)))))

    def advance(self, action: torch.Tensor) -> None:
        """One step, [W, D]."""
        self.rig.step(action.unsqueeze(1).contiguous())
        self.step += 1
