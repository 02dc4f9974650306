"""Our `RuntimeService` on a socket, on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import grpc

from alpagym.config import SimConfig
from alpagym.interop.alpasim.runtime.command import stop
from alpagym.interop.alpasim.runtime.options import RuntimeConfig
from alpagym.interop.alpasim.runtime.service import RuntimeService
from alpagym.interop.alpasim.session_options import SessionConfig
from alpagym.interop.alpasim.timeline import taken_over
from alpagym.interop.alpasim.wire.connection import limits, listen, make_server
from alpagym.interop.alpasim.wire.messages import common, runtime
from alpagym.interop.alpasim.wire.services import RUNTIME, Stub, handler_of
from alpagym.interop.alpasim.world_pool import WorldPool
from alpagym.scenarios.scenario import Scenario
from alpasim_drivers import ScriptedDriver

PATIENCE = 120.0
DEFAULT = RuntimeConfig().alpasim


class ServedRuntime:
    """A runtime, and a stub that talks to it."""

    def __init__(self, scenarios: Sequence[Scenario], config: SessionConfig = DEFAULT) -> None:
        self.scenarios = taken_over(scenarios, config, 1)[0]
        self.config = config

    def __enter__(self) -> ServedRuntime:
        begun: Future[int] = Future()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(begun),))
        self._thread.start()
        self.port = begun.result(PATIENCE)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", limits(256))
        self.stub = Stub(self.channel, RUNTIME)
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()
        with suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(self.service.ended.set)
        self._thread.join(PATIENCE)
        assert not self.alive

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    async def _serve(self, begun: Future[int]) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            self.pool = WorldPool(
                self.scenarios,
                SimConfig(),
                self.config.concurrent,
                routes=self.config.route == "simulator",
            )
            self.service = RuntimeService(self.scenarios, self.pool, self.config, 1)
            server = make_server(handler_of(RUNTIME, self.service))
            port = listen(server)
            async with self.pool:
                await server.start()
                begun.set_result(port)
                await self.service.ended.wait()
                await stop(server, self.service, grace=0.2)
            self.tasks_left = len(asyncio.all_tasks()) - 1
        except BaseException as error:
            begun.set_exception(error)
            raise

    def info(self) -> Any:
        return self.stub.get_runtime_info(common.Empty(), timeout=PATIENCE)

    def simulate(self, drivers: Sequence[ScriptedDriver | int], *specs: Any, at_once: int = 1):
        """The answer to a request; drivers by themselves or by their ports."""
        return self.stub.simulate(request(drivers, *specs, at_once=at_once), timeout=PATIENCE)


def request(drivers: Sequence[ScriptedDriver | int], *specs: Any, at_once: int = 1) -> Any:
    ports = [d.port if isinstance(d, ScriptedDriver) else d for d in drivers]
    address = runtime.SimulationRequest.DriverAddress
    return runtime.SimulationRequest(
        available_drivers=[address(ip="127.0.0.1", port=port) for port in ports],
        rollout_specs=specs,
        n_concurrent_per_driver=at_once,
    )


def rollouts(scene: str, count: int = 1, **more: Any) -> Any:
    return runtime.RolloutSpec(scenario_id=scene, nr_rollouts=count, **more)
