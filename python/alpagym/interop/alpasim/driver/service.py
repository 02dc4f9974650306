"""AlpaSim's `EgodriverService` around a policy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from grpc import StatusCode

from alpagym.interop.alpasim.driver.batching import Batcher
from alpagym.interop.alpasim.driver.plans import Answer, Planner, Query, seed_of
from alpagym.interop.alpasim.driver.session import SLACK_US, STEP_US, Session
from alpagym.interop.alpasim.latencies import Latencies
from alpagym.interop.alpasim.poses import (
    LAST_TIME_US,
    read_points,
    read_trajectory,
    write_trajectory,
)
from alpagym.interop.alpasim.wire.messages import common, egodriver
from alpagym.interop.alpasim.wire.services import Fault
from alpagym.interop.alpasim.wire.version import version

LONGEST_UUID = 256
"""Characters in a session's name at most."""


@dataclass
class Statistics:
    """What a driver has done."""

    sessions: int = 0
    dropped: int = 0
    """Of them, those that nothing was heard of."""
    drives: int = 0
    refused: int = 0
    """Calls that ended with a fault."""
    latencies: Latencies = field(default_factory=Latencies)
    """Of drives."""

    def sentence(self, batches: int) -> str:
        """One line."""
        text = (
            f"{self.sessions} sessions ({self.dropped} dropped as idle), {self.drives} drives in "
            f"{batches} batches, {self.refused} calls refused"
        )
        if len(self.latencies):
            took = [f"p{p} {1e3 * self.latencies.percentile(p / 100):.1f} ms" for p in (50, 90, 99)]
            text += f"; latency of drives {', '.join(took)}"
        return text


@dataclass
class Seat:
    """A session, and when it was last heard of."""

    session: Session
    heard: float


class Driver:
    """Coroutines for the methods of `EgodriverService`; each raises `Fault` with a sentence.

    Attributes:
        statistics: so far.
        ended: set when a client has asked for the end.
    """

    def __init__(
        self,
        planner: Planner,
        *,
        max_sessions: int = 1024,
        idle_s: float = 600.0,
        max_batch: int = 256,
        shut_down: bool = False,
        say: Callable[[str], None] = print,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """No sessions yet.

        Args:
            planner: decides.
            max_sessions: at a time.
            idle_s: after so long without a call a session is dropped by `drop_idle` [s].
            max_batch: decisions made together, at most.
            shut_down: whether clients may end the driver.
            say: is given a line, once, if decisions are further apart than in training.
            clock: tells time [s].
        """
        self._planner, self._max_sessions, self._idle_s = planner, max_sessions, idle_s
        self._may_shut_down, self._clock = shut_down, clock
        self._say, self._warned = say, False
        self._seats: dict[str, Seat] = {}
        self.batcher: Batcher[Query, Answer] = Batcher(planner, max_batch)
        self.statistics, self.ended = Statistics(), asyncio.Event()

    def __len__(self) -> int:
        """Sessions now."""
        return len(self._seats)

    def drop_idle(self) -> int:
        """Drop sessions of clients that have vanished; returns how many."""
        last = self._clock() - self._idle_s
        gone = [u for u, s in self._seats.items() if s.heard < last and not s.session.driving]
        for uuid in gone:
            del self._seats[uuid]
        self.statistics.dropped += len(gone)
        return len(gone)

    async def get_version(self, request: Any) -> Any:
        return version()

    async def start_session(self, request: Any) -> Any:
        uuid = request.session_uuid
        if not 1 <= len(uuid) <= LONGEST_UUID:
            raise self._fault(
                StatusCode.INVALID_ARGUMENT,
                f"start_session: expected a session_uuid of 1 to {LONGEST_UUID} characters, "
                f"got {len(uuid)}",
            )
        if uuid in self._seats:
            raise self._fault(
                StatusCode.ALREADY_EXISTS, f"session {uuid}: expected a new one, it has begun"
            )
        if len(self._seats) >= self._max_sessions:
            self.drop_idle()
        if len(self._seats) >= self._max_sessions:
            raise self._fault(
                StatusCode.RESOURCE_EXHAUSTED,
                f"start_session: expected at most {self._max_sessions} sessions at a time, "
                "close one first",
            )
        planner = self._planner
        session = Session(request.random_seed, planner.no_memory(), planner.config.max_curvature)
        self._seats[uuid] = Seat(session, self._clock())
        self.statistics.sessions += 1
        return common.SessionRequestStatus()

    async def close_session(self, request: Any) -> Any:
        self._session(request)
        del self._seats[request.session_uuid]
        return common.Empty()

    async def submit_image_observation(self, request: Any) -> Any:
        """Images are taken and dropped: no policy of ours looks at them."""
        self._session(request)
        image = request.camera_image
        if image.frame_end_us < image.frame_start_us:
            raise self._fault(
                StatusCode.INVALID_ARGUMENT,
                f"image of {image.logical_id:.40}: expected a frame that ends after it starts, "
                f"got {image.frame_start_us} to {image.frame_end_us} us",
            )
        return common.Empty()

    async def submit_egomotion_observation(self, request: Any) -> Any:
        session = self._session(request)
        if session.driving:
            raise self._fault(
                StatusCode.FAILED_PRECONDITION,
                "egomotion: expected it before or after a drive, got it while one is under way",
            )
        with self._refusing(StatusCode.INVALID_ARGUMENT):
            session.add_egomotion(request.trajectory, request.dynamic_states)
        return common.Empty()

    async def submit_route(self, request: Any) -> Any:
        session = self._session(request)
        with self._refusing(StatusCode.INVALID_ARGUMENT):
            waypoints = read_points(request.route.waypoints, "route")
            session.set_route(request.route.timestamp_us, waypoints)
        return common.Empty()

    async def submit_recording_ground_truth(self, request: Any) -> Any:
        """What was recorded is looked at and dropped: it is for learning, not for driving."""
        self._session(request)
        with self._refusing(StatusCode.INVALID_ARGUMENT):
            read_trajectory(request.ground_truth.trajectory, "ground truth")
        return common.Empty()

    async def drive(self, request: Any) -> Any:
        begun = time.perf_counter()
        session, now_us = self._session(request), request.time_now_us
        if session.driving:
            raise self._fault(
                StatusCode.FAILED_PRECONDITION,
                f"drive: expected one at a time, session {request.session_uuid} waits for another",
            )
        if session.answered_us == now_us:
            return session.answer  # asked again: the first answer was lost
        last_us = session.answered_us
        rise = now_us <= request.time_query_us and (last_us is None or last_us < now_us)
        if not rise or now_us > LAST_TIME_US:
            before = "" if last_us is None else f"{last_us} us before, then "
            raise self._fault(
                StatusCode.INVALID_ARGUMENT,
                f"drive: expected times that rise and are below 2^63 us, {before}time_now_us and "
                f"time_query_us, got {now_us} and {request.time_query_us} us",
            )
        session.driving = True
        try:
            await self._decide(session, now_us)
        except ValueError as error:
            raise self._fault(StatusCode.INTERNAL, f"drive: {error}") from error
        finally:
            session.driving = False
        response = egodriver.DriveResponse()
        write_trajectory(response.trajectory, session.plan())
        session.answered_us, session.answer = now_us, response
        self._touch(request.session_uuid)
        self.statistics.drives += 1
        self.statistics.latencies.add(time.perf_counter() - begun)
        return response

    async def shut_down(self, request: Any) -> Any:
        if not self._may_shut_down:
            raise self._fault(
                StatusCode.PERMISSION_DENIED,
                "shut_down: this driver ends by SIGTERM, or serves with shut_down=true",
            )
        self.ended.set()
        return common.Empty()

    async def _decide(self, session: Session, now_us: int) -> None:
        """Begin a new plan where it is time for one."""
        with self._refusing(StatusCode.FAILED_PRECONDITION):
            session.check(now_us)
            if not session.decides(self._planner.interval_us):
                return
            self._warn_of_spacing(session)
            query = Query(
                session.motion(),
                session.waypoints(),
                session.memory,
                seed_of(session.seed, session.decisions),
            )
        answer = await self.batcher.ask(query)
        session.memory = answer.memory
        session.begin_plan(answer.waypoints)

    def _warn_of_spacing(self, session: Session) -> None:
        """Say, once, that decisions are further apart than in training."""
        age_us, interval_us = session.plan_age_us(), self._planner.interval_us
        if self._warned or age_us is None or age_us <= interval_us + SLACK_US:
            return
        self._warned = True
        self._say(
            f"driver: warning: expected drives that make {interval_us} us from one decision to the "
            f"next, as the policy was trained, got {age_us} us; set AlpaSim's control_timestep_us "
            f"to {STEP_US}, or train with a sim.replan_every of so many steps of 0.1 s"
        )

    def _session(self, request: Any) -> Session:
        uuid = request.session_uuid
        if uuid not in self._seats:
            raise self._fault(
                StatusCode.NOT_FOUND,
                f"session {uuid:.80}: expected one that has begun, got none: it was never "
                f"started, is closed, or was not heard of for {self._idle_s:g} s",
            )
        self._touch(uuid)
        return self._seats[uuid].session

    def _fault(self, code: StatusCode, sentence: str) -> Fault:
        self.statistics.refused += 1
        return Fault(code, " ".join(sentence.split()))  # names of sessions may hold anything

    @contextmanager
    def _refusing(self, code: StatusCode) -> Iterator[None]:
        """A `ValueError` inside as a fault of this code."""
        try:
            yield
        except ValueError as error:
            raise self._fault(code, str(error)) from error

    def _touch(self, uuid: str) -> None:
        if uuid in self._seats:
            self._seats[uuid].heard = self._clock()
