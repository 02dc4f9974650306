"""One session: AlpaSim's runtime played against a driver, in one world of our simulator."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from alpagym.interop.alpasim import driver_messages as messages
from alpagym.interop.alpasim.asl.recorder import Recorder
from alpagym.interop.alpasim.cameras import Camera, Renderer, View
from alpagym.interop.alpasim.driver_client import DriverClient, DriverError
from alpagym.interop.alpasim.plans import DelayedPlans, action_of, checked_plan
from alpagym.interop.alpasim.poses import Track, center_of, read_trajectory
from alpagym.interop.alpasim.rig import Rig, RigPath, rates
from alpagym.interop.alpasim.route import RouteGenerator, prepare_for_policy, scenario_route
from alpagym.interop.alpasim.session_options import SessionConfig
from alpagym.interop.alpasim.timeline import Timeline
from alpagym.interop.alpasim.wire.messages import egodriver
from alpagym.interop.alpasim.world_pool import Snapshot, World, WorldPool
from alpagym.metrics.alpasim.episode import Plan, Reply
from alpagym.scenarios.scenario import Scenario, ScenarioError

Ends = Callable[[Snapshot], bool]
"""Whether what happened in the step before a state ends a session."""
CLOSE_DEADLINE = 5.0
"""For an answer to `close_session` [s]."""


@dataclass(frozen=True)
class Stage:
    """What sessions of one scenario share."""

    scenario: Scenario
    index: int
    """In the pool."""
    config: SessionConfig
    cameras: Sequence[Camera] = ()
    renderer: Renderer | None = None

    @cached_property
    def rig(self) -> Rig:
        return Rig.of(self.scenario)

    @cached_property
    def record(self) -> RigPath:
        return RigPath.of(self.scenario)

    def recorded(self, time: Timeline) -> np.ndarray:
        """Rigs x, y, z, yaw of the frames until the driver takes over, float64 [n, 4]."""
        first = int(np.searchsorted(self.record.frame, time.context))
        return self.record.pose[first : first + time.engaged + 1 - time.context]

    @cached_property
    def route(self) -> RouteGenerator | None:
        """Of which each session takes a copy; None where it is not from here.

        Raises:
            ScenarioError: the path folds back on itself.
        """
        offset, kind = self.config.route_start_offset, self.config.route
        if kind in ("none", "simulator"):
            return None
        if kind == "map":
            try:
                return scenario_route(self.scenario, start_offset=offset)
            except ValueError:
                pass  # no lanes, or none where the ego was
        try:
            return scenario_route(self.scenario, on_map=False, start_offset=offset)
        except ValueError as error:
            raise ScenarioError(f"{self.scenario.id}: no route: {error}") from error


@dataclass(frozen=True)
class Order:
    """A session that is to be driven."""

    uuid: str
    stage: Stage
    timeline: Timeline
    driver_seed: int
    """What the driver is told."""
    world_seed: int
    """What random numbers of the world are drawn from."""


@dataclass(repr=False)
class Played:
    """What happened in a session."""

    states: list[Snapshot]
    """From the frame in which the driver took over on, T + 1."""
    replies: list[Reply] = field(default_factory=list)
    """All plans, of box centers in the world frame; times are those of the session."""
    ended_by_driver: bool = False
    """It asked for the end."""
    log_error: str = ""
    """Why the log that was asked for was not written; empty if it was."""


async def play(
    borrowed: Callable[[], AbstractAsyncContextManager[DriverClient]],
    pool: WorldPool,
    order: Order,
    ends: Ends | None = None,
) -> Played:
    """Drive a session to its end, as soon as a driver and a world are free.

    If the driver goes away, the session is driven anew, as often as `SessionConfig.retries`.

    Args:
        borrowed: who drives, until the context ends.
        pool: whose worlds are borrowed.
        order: what is driven.
        ends: whether a state ends the session early; None for never.

    Raises:
        DriverError: the driver does not do its part.
        ValueError: the scenario has no route that AlpaSim would give, or the renderer fails.
    """
    tries = order.stage.config.retries
    tried: set[DriverClient] = set()
    while True:
        async with borrowed() as driver, pool.world() as world:
            again = driver in tried
            tried.add(driver)
            try:
                return await _play_once(driver, world, order, ends, pool.config.plan_steps, again)
            except DriverError as error:
                if not error.gone or tries == 0:
                    raise
            tries -= 1
            driver.statistics.restarted += 1


async def _play_once(
    driver: DriverClient,
    world: World,
    order: Order,
    ends: Ends | None,
    plan_steps: int,
    again: bool,
) -> Played:
    """A session that is closed whatever happens, unless somebody else began it.

    One that is there already is ours if this driver was called for it before (`again`).
    """
    stage = order.stage
    route = copy.copy(await asyncio.to_thread(lambda: stage.route))
    log = Recorder(Path(stage.config.log), order) if stage.config.log else None
    session = _Session(driver, order, route, plan_steps, log)
    start = messages.start_session(order.uuid, order.driver_seed, stage.scenario.id, stage.cameras)
    ours = True
    try:
        try:
            await session.call("start_session", start)
        except DriverError as error:
            if error.code is not grpc.StatusCode.ALREADY_EXISTS:
                raise
            ours = again or error.repeated
            if not ours:
                raise
            await _close(driver, order.uuid)
            await driver.call("start_session", start)
        played = await session.drive(world, ends)
        if log is not None:
            await asyncio.to_thread(log.finish)
            played.log_error = log.error
        return played
    finally:
        if log is not None:
            log.discard()
        if ours:
            await _close(driver, order.uuid)


async def _close(driver: DriverClient, uuid: str) -> None:
    """Let the driver forget the session; what is wrong with it by now has been told."""
    try:
        request = egodriver.DriveSessionCloseRequest(session_uuid=uuid)
        await driver.call("close_session", request, deadline=CLOSE_DEADLINE)
    except DriverError:
        pass  # counted by the client


class _Session:
    def __init__(
        self,
        driver: DriverClient,
        order: Order,
        route: RouteGenerator | None,
        plan_steps: int,
        log: Recorder | None,
    ) -> None:
        self._driver, self._order, self._route, self._log = driver, order, route, log
        self._stage, self._time = order.stage, order.timeline
        self._config, self._plan_steps = order.stage.config, plan_steps
        self._plans = DelayedPlans(round(self._config.planner_delay * 1e6))
        self._told_to = order.timeline.context - 1
        self._record = self._stage.recorded(self._time)
        self._played = Played([])

    async def call(self, method: str, request: Any) -> Any:
        """A call of the session, with its entries in the log."""
        if self._log is None:
            return await self._driver.call(method, request)
        self._log.sent(method, request)
        answer = await self._driver.call(method, request)
        if method == "drive":
            self._log.answered(answer)
        return answer

    async def drive(self, world: World, ends: Ends | None) -> Played:
        order, time = self._order, self._time
        looks = self._config.route == "simulator"
        for frame in time.asked:
            forced = frame < time.engaged
            if frame == time.engaged or (forced and looks):
                state = await world.begin(self._stage.index, frame, order.world_seed)
            if frame == time.engaged:
                self._played.states.append(state)
            if frame <= time.engaged:
                self._log_boxes(range(frame, min(frame + time.every, time.engaged)) or [frame])
            assert not looks or state.route is not None  # the pool looks for them
            await self._tell(frame, state.route if looks else None)
            if forced and self._config.skip_driver_during_force_gt:
                continue
            if await self._ask(frame, forced):
                self._played.ended_by_driver = True
                break
            if forced:
                continue
            plan = self._plans.current(time.time_us(frame))
            for now in range(frame, min(frame + time.every, time.last)):
                rig = self._rig(now)[[0, 1, 3]]
                action = action_of(plan, time.time_us(now), rig, self._plan_steps)
                state = await world.step(action)
                self._played.states.append(state)
                self._log_boxes([now + 1])
                if state.done or (ends is not None and ends(state)):
                    return self._played
        return self._played

    async def _tell(self, frame: int, waypoints: np.ndarray | None) -> None:
        """All observations of now, and wait until the driver has them.

        Args:
            frame: that is now.
            waypoints: the route as it is told, None where the generator gives it.
        """
        uuid, now_us = self._order.uuid, self._time.time_us(frame)
        rig, frames = self._rig(frame), range(self._told_to + 1, frame + 1)
        self._told_to = frame
        motion = messages.egomotion(
            uuid,
            [self._time.time_us(f) for f in frames],
            [self._rig(f) for f in frames],
            [self._rates(f) for f in frames],
        )
        sent = [("submit_egomotion_observation", motion)]
        if self._route is not None:
            waypoints = prepare_for_policy(self._route.generate(rig[:3], rig[3]))
        if waypoints is not None:
            sent.append(("submit_route", messages.route(uuid, now_us, waypoints)))
        if self._config.send_ground_truth:
            truth = messages.ground_truth(
                uuid, now_us, self._stage.record, self._time.frame_us, rig
            )
            sent.append(("submit_recording_ground_truth", truth))
        calls = [self.call(method, message) for method, message in sent]
        calls += [self._send_image(frame, camera) for camera in self._stage.cameras]
        for result in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _ask(self, frame: int, forced: bool) -> bool:
        """Ask for a plan and keep it; whether the driver asks for the end instead.

        Raises:
            DriverError: no plan, one that cannot be followed, or an end before it took over.
        """
        now_us = self._time.time_us(frame)
        query_us = self._time.time_us(frame + self._time.every)
        answer = await self.call(
            "drive",
            egodriver.DriveRequest(
                session_uuid=self._order.uuid, time_now_us=now_us, time_query_us=query_us
            ),
        )
        if answer.terminate_session:
            if forced:
                raise DriverError(
                    f"driver {self._driver.address}: ended the session at {now_us * 1e-6:g} s, "
                    "before it took over"
                )
            return True
        if forced and not answer.trajectory.poses:
            return False
        try:
            plan = checked_plan(answer.trajectory, now_us)
            samples = [
                self._centers(read_trajectory(sample, "sampled trajectory"))
                for sample in answer.debug_info.sampled_trajectories
                if sample.poses
            ]
        except ValueError as error:
            raise DriverError(
                f"driver {self._driver.address}: at {now_us * 1e-6:g} s: {error}"
            ) from error
        self._plans.add(now_us, plan)
        self._played.replies.append(Reply(now_us, query_us, self._centers(plan), samples))
        return False

    def _centers(self, track: Track) -> Plan:
        return Plan(track.time_us, center_of(track.pose, self._stage.rig.back))

    def _rig(self, frame: int) -> np.ndarray:
        """x, y, z, yaw in the world frame, float64 [4]."""
        if frame <= self._time.engaged:
            return self._record[frame - self._time.context]
        state = self._state(frame)
        x, y, yaw = state.pose[:, self._stage.scenario.ego]
        return self._stage.rig.of_box(np.array([x, y, state.z]), yaw)

    def _rates(self, frame: int) -> tuple[np.ndarray, ...] | None:
        """None until the driver has driven for a step, as AlpaSim commits none before."""
        if frame > self._time.engaged:
            return rates(self._state(frame).motion)
        if not self._config.recorded_motion:
            return None
        if frame == self._time.engaged:
            return rates(self._state(frame).motion)
        tracks, ego = self._stage.scenario.tracks, self._stage.scenario.ego
        yaw = float(tracks.yaw[ego, frame])
        speed = tracks.velocity[ego, frame].astype(np.float64) @ [np.cos(yaw), np.sin(yaw)]
        return rates(np.array([speed, 0.0, 0.0, 0.0, 0.0]))

    def _state(self, frame: int) -> Snapshot:
        return self._played.states[frame - self._time.engaged]

    def _boxes(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Box centers x, y, yaw [3, A], and who is there, bool [A]."""
        tracks = self._stage.scenario.tracks
        if frame >= self._time.engaged:
            state, count = self._state(frame), tracks.num_agents  # the pool has more rows
            return state.pose[:, :count], state.valid[:count]
        pose = np.stack([*tracks.xyz[:, frame, :2].T, tracks.yaw[:, frame]])
        return pose, tracks.valid[:, frame]

    def _log_boxes(self, frames: Iterable[int]) -> None:
        """Heights of all but the ego are the record's."""
        if self._log is None:
            return
        scenario = self._stage.scenario
        for frame in frames:
            z = scenario.tracks.xyz[:, frame, 2].copy()
            if frame >= self._time.engaged:
                z[scenario.ego] = self._state(frame).z
            pose, valid = self._boxes(frame)
            self._log.boxes(self._time.time_us(frame), pose, z, valid)

    async def _send_image(self, frame: int, camera: Camera) -> None:
        stage, now_us = self._stage, self._time.time_us(frame)
        pose, valid = self._boxes(frame)
        view = View(stage.scenario, now_us, self._rig(frame), pose, valid)
        assert stage.renderer is not None
        try:
            data = await asyncio.to_thread(stage.renderer, view, camera)
        except Exception as error:
            raise ValueError(
                f"renderer {self._config.renderer}: failed for {camera.name} at "
                f"{now_us * 1e-6:g} s with {type(error).__name__}: {error}"
            ) from error
        image = messages.image(self._order.uuid, now_us, camera.name, data)
        await self.call("submit_image_observation", image)
