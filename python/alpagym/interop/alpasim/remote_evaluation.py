"""Closed-loop evaluation of drivers that are reached by AlpaSim's contract."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from alpagym import sim
from alpagym.config import SimConfig
from alpagym.evaluation import Results, results_of
from alpagym.interop.alpasim.address import Address
from alpagym.interop.alpasim.cameras import cameras_of, load_renderer
from alpagym.interop.alpasim.driver_client import (
    CallStatistics,
    DriverClient,
    DriverError,
    tls_of,
)
from alpagym.interop.alpasim.rollouts import rollout_of, since
from alpagym.interop.alpasim.session import Ends, Order, Played, Stage, play
from alpagym.interop.alpasim.session_options import SessionConfig
from alpagym.interop.alpasim.timeline import Timeline, timeline
from alpagym.interop.alpasim.wire.connection import Tls
from alpagym.interop.alpasim.wire.messages import common
from alpagym.interop.alpasim.world_pool import Snapshot, WorldPool
from alpagym.metrics.alpasim.episode import Reply
from alpagym.render.replay import Rollout
from alpagym.scenarios.scenario import Scenario
from alpagym.scenarios.step_length import require_step


@dataclass(frozen=True)
class RemoteDrives:
    """One drive a scenario."""

    results: Results
    rollouts: dict[int, Rollout]
    """Of whole drives, by index of the scenario; nothing ends them but the record."""
    replies: dict[int, list[Reply]]
    """Their plans, of box centers; times are those of `drive_of` the rollout."""
    summary: dict[str, Any]
    """Calls and sessions, as a report shows them."""


def evaluate_driver(
    address: Address,
    scenarios: Sequence[Scenario],
    sim_config: SimConfig,
    config: SessionConfig,
    *,
    device: str | torch.device = "cpu",
    seed: int = 0,
    whole: bool = False,
) -> RemoteDrives:
    """Drive each scenario once, many at a time.

    Args:
        address: of the driver.
        scenarios: what to drive.
        sim_config: the simulator's; its `end_on` decides when a drive is over.
        config: how sessions go.
        device: of the simulator.
        seed: the driver's of scenario k is this + k.
        whole: drive on after what ends a drive, and keep rollouts and plans.

    Raises:
        ValueError, ScenarioError: as `timeline`; a scenario recorded otherwise than every
            `sim_config.dt`; an unknown camera or renderer; TLS files for a driver in the
            clear; a driver that cannot be reached.
    """
    require_step(scenarios, sim_config.dt)
    if tls_of(config) is not None and not address.encrypted:
        raise ValueError(f"alpasim.tls_*: expected a driver at grpcs://, got {address}")
    times = [timeline(s, config, every=sim_config.replan_every) for s in scenarios]
    over, statistics = ends(sim_config), CallStatistics()
    cameras = cameras_of(config.cameras, config.image_height, config.image_width)
    renderer = load_renderer(config.renderer) if cameras else None
    orders = [
        Order(str(uuid.uuid4()), Stage(s, k, config, cameras, renderer), times[k], seed + k, 0)
        for k, s in enumerate(scenarios)
    ]
    worlds, looks = min(config.concurrent, len(scenarios)), config.route == "simulator"
    pool = WorldPool(scenarios, sim_config, worlds, device=device, routes=looks)
    drives: list[_Driven | str] = [""] * len(scenarios)
    going = _drive(address, config, pool, orders, over, whole, statistics, drives)
    version = asyncio.run(going)
    return _gathered(scenarios, times, drives, version, statistics)


@dataclass(frozen=True, repr=False)
class _Driven:
    """What is kept of a session."""

    total: np.ndarray
    """Of raw reward terms, until the drive is over, float32 [R]."""
    happened: np.ndarray
    """Which of them were ever above 0, bool [R]."""
    progress: float
    steps: int
    ended_by_driver: bool
    played: Played | None
    """All of it, where that is asked for."""


def _driven(played: Played, over: Ends, whole: bool) -> _Driven:
    states = _until(played.states, over)
    terms = np.array([s.terms for s in states[1:]]).reshape(-1, len(sim.RewardTerm))
    return _Driven(
        terms.sum(0),
        np.asarray((terms > 0).any(0)),
        states[-1].progress,
        len(states) - 1,
        played.ended_by_driver,
        played if whole else None,
    )


async def _drive(
    address: Address,
    config: SessionConfig,
    pool: WorldPool,
    orders: Sequence[Order],
    over: Ends,
    whole: bool,
    statistics: CallStatistics,
    drives: list[_Driven | str],
) -> str:
    """Fill `drives` with what was driven, or why it was not; the driver's version."""
    calls = asyncio.Semaphore(config.calls)
    tls = tls_of(config) or Tls() if address.encrypted else None
    client = DriverClient(address.target, config, calls, statistics, tls)

    async def drive(k: int) -> None:
        try:
            ends_at = None if whole else over
            played = await play(lambda: nullcontext(client), pool, orders[k], ends_at)
            drives[k] = _driven(played, over, whole)
        except (DriverError, ValueError) as error:
            drives[k] = str(error)

    try:
        version = await client.call("get_version", common.Empty())
        async with pool, asyncio.TaskGroup() as group:
            for k in range(len(orders)):
                group.create_task(drive(k))
    except DriverError as error:
        raise ValueError(f"policy: expected a driver at {address}: {error}") from error
    finally:
        await client.close()
    return str(version.version_id)


def ends(config: SimConfig) -> Ends:
    """Whether what happened in the step before a state ends an episode, by `end_on`."""
    columns = [sim.RewardTerm[name.upper()] for name in config.end_on]
    return lambda state: bool((state.terms[columns] > 0).any())


def _gathered(
    scenarios: Sequence[Scenario],
    times: Sequence[Timeline],
    drives: Sequence[_Driven | str],
    version: str,
    statistics: CallStatistics,
) -> RemoteDrives:
    count, terms = len(scenarios), len(sim.RewardTerm)
    total, happened = np.zeros((count, terms), np.float32), np.zeros((count, terms), bool)
    progress, steps = np.zeros(count, np.float32), np.zeros(count, np.int32)
    for k, drive in enumerate(drives):
        if isinstance(drive, _Driven):
            total[k], happened[k] = drive.total, drive.happened
            progress[k], steps[k] = drive.progress, drive.steps
    results = results_of(scenarios, total, happened, progress, steps)
    undriven = {k: reason for k, reason in enumerate(drives) if isinstance(reason, str)}
    for values in (results.progress, results.scene_score):
        values[list(undriven)] = 0.0
    results.undriven = undriven
    kept = {
        k: drive.played
        for k, drive in enumerate(drives)
        if isinstance(drive, _Driven) and drive.played is not None and drive.steps > 0
    }
    stopped = sum(isinstance(drive, _Driven) and drive.ended_by_driver for drive in drives)
    return RemoteDrives(
        results,
        {k: rollout_of(scenarios[k], times[k], played) for k, played in kept.items()},
        {k: since(times[k].context, times[k], played) for k, played in kept.items()},
        {
            "driver_version": version,
            "num_failed_sessions": len(undriven),
            "num_ended_by_driver": stopped,
            **statistics.summary(),
        },
    )


def _until(states: Sequence[Snapshot], over: Ends) -> Sequence[Snapshot]:
    """The states up to the one in which the drive is over."""
    last = next((t for t, state in enumerate(states) if t > 0 and over(state)), len(states) - 1)
    return states[: last + 1]
