"""`alpagym serve driver`: a policy behind AlpaSim's `EgodriverService`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import torch

from alpagym.checkpoint import load_policy
from alpagym.devices import choose_device, device_name
from alpagym.interop.alpasim.driver.plans import Planner
from alpagym.interop.alpasim.driver.service import Driver
from alpagym.interop.alpasim.options import DriverConfig
from alpagym.interop.alpasim.wire import connection
from alpagym.interop.alpasim.wire.services import EGODRIVER, handler_of

GRACE_S = 2.0
"""What is under way may take so long when the driver ends [s]."""


def serve_driver(config: DriverConfig, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM, Ctrl-C or a client's `shut_down`.

    Args:
        config: of the driver, in range.
        say: is given a line when the driver is ready, and one when it has ended.

    Raises:
        ValueError: a policy that AlpaSim's messages are not enough for, weights it does not
            observe, half of a pair of TLS files, or an address that cannot be had.
        CheckpointError: no such policy.
        OSError: a TLS file that cannot be read.
    """
    if not config.checkpoint:
        raise ValueError("serve driver: expected checkpoint=<run>")
    device = choose_device(config.device)
    if config.threads > 0:
        torch.set_num_threads(config.threads)
    tls = connection.Tls(config.tls_certificate, config.tls_key, config.tls_authority)
    policy, sim_config, _ = load_policy(config.checkpoint, device)
    policy.choose_weights(config.reward_weights)
    planner = Planner(policy, sim_config, device, sample=config.sample, name=config.checkpoint)
    asyncio.run(_serve(config, planner, tls, say))


async def _serve(
    config: DriverConfig, planner: Planner, tls: connection.Tls, say: Callable[[str], None]
) -> None:
    driver = Driver(
        planner,
        max_sessions=config.max_sessions,
        idle_s=config.idle_s,
        max_batch=config.max_batch,
        shut_down=config.shut_down,
        say=say,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, driver.ended.set)
    server = connection.make_server(
        handler_of(EGODRIVER, driver), max_message_mib=config.max_message_mib
    )
    port = connection.listen(server, config.host, config.port, tls)
    await server.start()
    say(
        f"driver: {connection.address_of(config.host, port)} serves {config.checkpoint} on "
        f"{device_name(planner.device)} ({connection.safety_of(config.host, tls)})"
    )
    try:
        while not driver.ended.is_set():
            driver.drop_idle()
            try:
                await asyncio.wait_for(
                    driver.ended.wait(), max(min(0.25 * config.idle_s, 30.0), 0.1)
                )
            except TimeoutError:
                continue
    finally:
        await server.stop(GRACE_S)
        driver.batcher.close()
        say(f"driver: {driver.statistics.sentence(driver.batcher.batches)}")
