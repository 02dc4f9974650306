"""`alpagym serve runtime`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Sequence

import torch

from alpagym.devices import choose_device
from alpagym.evaluation import check_simulator
from alpagym.interop.alpasim.runtime.options import RuntimeConfig
from alpagym.interop.alpasim.runtime.service import RuntimeService
from alpagym.interop.alpasim.timeline import taken_over
from alpagym.interop.alpasim.wire.connection import Tls, is_loopback, listen, make_server
from alpagym.interop.alpasim.wire.services import RUNTIME, handler_of
from alpagym.interop.alpasim.world_pool import WorldPool
from alpagym.option_ranges import check
from alpagym.scenarios.scenario import Scenario
from alpagym.scenarios.sources import held_out_only
from alpagym.scenarios.step_length import require_step

PATIENCE = 10.0
"""For rollouts to end when the runtime is asked to [s]; then they are cut off."""


def serve_runtime(config: RuntimeConfig, say: Callable[[str], None] = print) -> None:
    """Load scenarios and answer until told to stop: by Ctrl-C, SIGTERM or `shut_down`.

    Raises:
        ValueError: an option out of range, or an address that cannot be had.
        ScenarioError: nothing could be loaded, or nothing is long enough.
    """
    check(config)
    check_simulator(config.sim)
    device = choose_device(config.device)
    if config.threads > 0:
        torch.set_num_threads(config.threads)
    scenarios = held_out_only(config.scenarios, config.data, config.sim.dt, config.seed, say)
    require_step(scenarios, config.sim.dt)
    begun, left_out = taken_over(scenarios, config.alpasim, config.sim.replan_every)
    if left_out:
        say(f"{len(left_out)} left out, the first: {next(iter(left_out.values()))}")
    asyncio.run(_serve(config, begun, device, say))


async def _serve(
    config: RuntimeConfig,
    scenarios: Sequence[Scenario],
    device: torch.device,
    say: Callable[[str], None],
) -> None:
    session = config.alpasim
    looks = session.route == "simulator"
    pool = WorldPool(scenarios, config.sim, session.concurrent, device=device, routes=looks)
    service = RuntimeService(scenarios, pool, session, config.sim.replan_every)
    server = make_server(handler_of(RUNTIME, service), max_message_mib=config.max_message_mib)
    tls = Tls(config.tls_certificate, config.tls_key, config.tls_authority)
    port = listen(server, config.host, config.port, tls)
    if not is_loopback(config.host) and not config.tls_certificate:
        say(f"{config.host} is reached from other machines, without TLS")
    for name in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError, NotImplementedError):  # not on the main thread
            asyncio.get_running_loop().add_signal_handler(name, service.stopping.set)
    async with pool:
        await server.start()
        say(f"{len(scenarios)} scenarios, {session.concurrent} at a time: {config.host}:{port}")
        await service.stopping.wait()
        await server.stop(PATIENCE)
