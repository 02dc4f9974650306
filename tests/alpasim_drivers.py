"""Drivers of AlpaSim's contract that do as they are told, served by threads on a socket."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import grpc
import numpy as np

from alpagym.interop.alpasim.poses import Track, from_frame, read_trajectory, write_trajectory
from alpagym.interop.alpasim.wire.connection import limits
from alpagym.interop.alpasim.wire.messages import common, egodriver
from alpagym.interop.alpasim.wire.services import EGODRIVER, methods_of

STEP_US = 100_000


@dataclass
class Session:
    """What a driver was told in one session."""

    uuid: str
    scene: str
    seed: int
    calls: list[tuple[str, Any]] = field(default_factory=list)
    """Method and request, in the order in which they came."""

    def named(self, method: str) -> list[Any]:
        return [request for name, request in self.calls if name == method]

    def rig(self) -> np.ndarray:
        """x, y, yaw of the latest pose."""
        motion = self.named("submit_egomotion_observation")[-1]
        return read_trajectory(motion.trajectory).pose[-1]

    @property
    def drives(self) -> int:
        return len(self.named("drive"))


Answer = Callable[[Session, Any], Any]
"""A `DriveResponse` for a `DriveRequest`."""


def arc(speed: float, curvature: float, count: int = 40) -> np.ndarray:
    """Poses [count, 3] every 0.1 s from the origin on, at constant speed on a circle."""
    way = speed * 0.1 * np.arange(count)
    yaw = curvature * way
    x = way * np.sinc(yaw / (2 * np.pi)) * np.cos(yaw / 2)
    y = way * np.sinc(yaw / (2 * np.pi)) * np.sin(yaw / 2)
    return np.stack([x, y, yaw], -1)


def response(now_us: int, pose: np.ndarray, step_us: int = STEP_US) -> Any:
    """A `DriveResponse` with a plan of x, y, yaw [n, 3] from now on."""
    answer = egodriver.DriveResponse()
    times = now_us + step_us * np.arange(len(pose))
    write_trajectory(answer.trajectory, Track(times, pose, np.zeros(len(pose))))
    return answer


def ahead(session: Session, request: Any, speed: float = 6.0, curvature: float = 0.0) -> Any:
    """Goes on from where the ego is."""
    return response(request.time_now_us, from_frame(session.rig(), arc(speed, curvature)))


class ScriptedDriver:
    """Serves `EgodriverService`; answers `drive` by a function, and keeps what it was told."""

    def __init__(self, answer: Answer = ahead, *, port: int = 0) -> None:
        self._answer, self._port = answer, port
        self.sessions: dict[str, Session] = {}
        self.closed: list[Session] = []
        self.lock = threading.Lock()
        self.released = threading.Event()
        """What hangs waits for this."""
        self.starts_lost = 0
        """So many starts of sessions are heard, but their answers do not arrive."""

    def __enter__(self) -> ScriptedDriver:
        self._server = grpc.server(ThreadPoolExecutor(64), options=limits(256))
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._handler(name), method.request.FromString, _bytes
            )
            for name, method in methods_of(EGODRIVER).items()
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(EGODRIVER, handlers),)
        )
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        self._server.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.released.set()
        self.kill()

    def kill(self) -> None:
        self._server.stop(None).wait()

    def kill_soon(self) -> None:
        """For answers: what they return does not arrive."""
        self._server.stop(None)

    @property
    def address(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def of_scene(self, scene: str) -> Session:
        """The last session of a scene."""
        sessions = [*self.sessions.values(), *self.closed]
        return [s for s in sessions if s.scene == scene][-1]

    def _handler(self, name: str) -> Callable[[Any, Any], Any]:
        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            if name == "get_version":
                return common.VersionId(version_id="scripted 1")
            uuid = request.session_uuid
            with self.lock:
                if name == "start_session":
                    told = request.debug_info.scene_id, request.random_seed
                    if uuid in self.sessions:
                        context.abort(grpc.StatusCode.ALREADY_EXISTS, uuid)
                    self.sessions[uuid] = Session(uuid, *told)
                    if self.starts_lost:
                        self.starts_lost -= 1
                        context.abort(grpc.StatusCode.UNAVAILABLE, "lost")
                session = self.sessions.get(uuid)
                if session is None:
                    context.abort(grpc.StatusCode.NOT_FOUND, f"no session {uuid}")
                session.calls.append((name, request))
                if name == "close_session":
                    self.closed.append(self.sessions.pop(uuid))
            if name != "drive":
                return methods_of(EGODRIVER)[name].response()
            try:
                return self._answer(session, request)
            except Refusal as refusal:
                context.abort(refusal.code, str(refusal))

        return handle


class Refusal(Exception):
    """What an answer ends with instead of a plan."""

    def __init__(self, code: grpc.StatusCode, sentence: str = "as scripted") -> None:
        super().__init__(sentence)
        self.code = code


def _bytes(answer: Any) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()
