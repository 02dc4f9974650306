"""`alpagym serve runtime`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress

import grpc
import torch

from alpagym.devices import choose_device, device_name
from alpagym.evaluation import check_simulator
from alpagym.interop.alpasim.address import address_of
from alpagym.interop.alpasim.runtime.options import RuntimeConfig
from alpagym.interop.alpasim.runtime.service import RuntimeService
from alpagym.interop.alpasim.timeline import taken_over
from alpagym.interop.alpasim.wire.connection import (
    Tls,
    listen,
    make_server,
    safety_of,
)
from alpagym.interop.alpasim.wire.services import RUNTIME, handler_of
from alpagym.interop.alpasim.world_pool import WorldPool
from alpagym.scenarios.scenario import Scenario
from alpagym.scenarios.sources import held_out_only
from alpagym.scenarios.step_length import require_step

GRACE = 10.0
"""Requests under way may take so long when the runtime ends [s]."""
CLOSING = 10.0
"""What is given up by then may take so long to close its sessions [s]."""


def serve_runtime(config: RuntimeConfig, say: Callable[[str], None]) -> None:
    """Load scenarios and answer until SIGTERM, Ctrl-C or a client's `shut_down`.

    Args:
        config: of the runtime, in range.
        say: is given lines about what was loaded, when the runtime is ready, and when it has ended.

    Raises:
        ValueError: options that do not go together, half of a pair of TLS files, or an address that
            cannot be had.
        ScenarioError: nothing could be loaded, or nothing is long enough.
        OSError: a TLS file that cannot be read.
    """
    check_simulator(config.sim)
    tls = Tls(config.tls_certificate, config.tls_key, config.tls_authority)
    device = choose_device(config.device)
    if config.threads > 0:
        torch.set_num_threads(config.threads)
    scenarios = held_out_only(config.scenarios, config.data, config.sim.dt, config.seed, say)
    require_step(scenarios, config.sim.dt)
    begun, left_out = taken_over(scenarios, config.alpasim, config.sim.replan_every)
    if left_out:
        say(f"{len(left_out)} left out, the first: {next(iter(left_out.values()))}")
    asyncio.run(_serve(config, begun, device, tls, say))


async def stop(server: grpc.aio.Server, service: RuntimeService, grace: float) -> None:
    """Take no more requests, and see that sessions of those under way are closed at their drivers.

    Args:
        server: what serves.
        service: what is served.
        grace: after which requests are given up [s].
    """
    await server.stop(grace)
    with suppress(TimeoutError):  # requests that are given up close their sessions
        await asyncio.wait_for(service.idle.wait(), CLOSING)


async def _serve(
    config: RuntimeConfig,
    scenarios: Sequence[Scenario],
    device: torch.device,
    tls: Tls,
    say: Callable[[str], None],
) -> None:
    session = config.alpasim
    looks = session.route == "simulator"
    pool = WorldPool(scenarios, config.sim, session.concurrent, device=device, routes=looks)
    every = config.sim.replan_every
    service = RuntimeService(
        scenarios,
        pool,
        session,
        every,
        shut_down=config.shut_down,
        max_message_mib=config.max_message_mib,
    )
    server = make_server(handler_of(RUNTIME, service), max_message_mib=config.max_message_mib)
    port = listen(server, config.host, config.port, tls)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, service.ended.set)
    async with pool:
        await server.start()
        say(
            f"runtime: {address_of(config.host, port)} serves {len(scenarios)} scenarios, "
            f"{session.concurrent} at a time, on {device_name(device)} "
            f"({safety_of(config.host, tls)})"
        )
        await service.ended.wait()
        await stop(server, service, GRACE)
    say(f"runtime: {service.sentence()}")
