"""AlpaSim's `RuntimeService` on our simulator: rollouts on request, for trainers."""

from __future__ import annotations

import asyncio
import secrets
import sys
import traceback
import uuid
from collections.abc import Sequence
from typing import Any

import grpc

from alpagym.interop.alpasim.address import address_of
from alpagym.interop.alpasim.cameras import cameras_of, load_renderer
from alpagym.interop.alpasim.driver_client import (
    CallStatistics,
    DriverClient,
    DriverError,
    tls_of,
)
from alpagym.interop.alpasim.runtime.returns import answer_size, failed, succeeded
from alpagym.interop.alpasim.runtime.slots import DriverSlots
from alpagym.interop.alpasim.session import Order, Stage, play
from alpagym.interop.alpasim.session_options import SessionConfig
from alpagym.interop.alpasim.timeline import timeline
from alpagym.interop.alpasim.wire.connection import MAX_MESSAGE_MIB
from alpagym.interop.alpasim.wire.messages import common, runtime
from alpagym.interop.alpasim.wire.services import Fault
from alpagym.interop.alpasim.wire.version import version
from alpagym.interop.alpasim.world_pool import WorldPool
from alpagym.scenarios.scenario import Scenario, ScenarioError

MOST_ROLLOUTS = 10_000
"""In one request."""
MOST_DRIVERS = 1_000
"""In one request."""
LONGEST_NAME = 256
"""Of a session, in characters."""
MOST_NAMED = 5
"""Unknown scenes in a message."""


class RuntimeService:
    """What `handler_of(RUNTIME, ...)` serves."""

    def __init__(
        self,
        scenarios: Sequence[Scenario],
        pool: WorldPool,
        config: SessionConfig,
        every: int,
        *,
        shut_down: bool = True,
        max_message_mib: int = MAX_MESSAGE_MIB,
    ) -> None:
        """Nothing runs before the first request.

        Args:
            scenarios: what can be asked for, by id.
            pool: holds them in this order.
            config: how sessions go.
            every: steps from plan to plan.
            shut_down: whether clients may end the runtime.
            max_message_mib: largest answer [MiB].

        Raises:
            ValueError: an unknown camera or renderer, or half of a pair of TLS files.
            OSError: a TLS file that cannot be read.
        """
        cameras = cameras_of(config.cameras, config.image_height, config.image_width)
        renderer = load_renderer(config.renderer) if cameras else None
        self._stages = {
            s.id: Stage(s, k, config, cameras, renderer) for k, s in enumerate(scenarios)
        }
        self._pool, self._config, self._every = pool, config, every
        self._max_message_mib = max_message_mib
        self._tls = tls_of(config)
        if self._tls is not None:
            self._tls.read()
        self._open_calls = asyncio.Semaphore(config.calls)
        self.statistics = CallStatistics()
        self.ended = asyncio.Event()
        """Set when the runtime is to end."""
        self.num_open = 0
        """Rollouts that go on, or wait for a driver or a world."""
        self.idle = asyncio.Event()
        """Set while no request is under way."""
        self.idle.set()
        self._num_requests = 0
        self._in_use: set[str] = set()
        self._may_end = shut_down
        self._num_done = self._num_failed = self._num_unlogged = 0

    def sentence(self) -> str:
        """What has been done so far."""
        drive = self.statistics.latencies["drive"]
        text = f"{self._num_done} rollouts, {self._num_failed} of them failed"
        if self._num_unlogged:
            text += f", {self._num_unlogged} without the log that was asked for"
        text += f"; {len(drive)} plans"
        if len(drive):
            for percent in (50, 90, 99):
                text += f", p{percent} {1e3 * drive.percentile(percent / 100):.1f} ms"
        return text

    async def get_runtime_info(self, _: Any) -> Any:
        """What can be asked for, and how much of it at a time."""
        info = runtime.RuntimeInfo(
            max_supported_concurrent_rollouts=self._config.concurrent,
            nr_workers=1,
            renderer_type=self._config.renderer if self._config.cameras else "none",
            runtime_version=version(),
            physics_version=version(),
            traffic_version=version(),
        )
        for name, stage in self._stages.items():
            scenario = stage.scenario
            scene = info.scenes.add(scene_id=name, provider_kind="alpagym")
            scene.metadata.version_string = scenario.dataset
            scene.metadata.uuid = name
            scene.metadata.camera_ids.extend(self._config.cameras)
            scene.metadata.end_time_us = round((scenario.tracks.num_frames - 1) * scenario.dt * 1e6)
        for service, skipped in (
            ("driver", False),
            ("controller", False),
            ("physics", True),
            ("trafficsim", False),
            ("renderer", not self._config.cameras),
        ):
            info.service_capacities.add(
                service_name=service, total_capacity=self._config.concurrent, skipped=skipped
            )
        return info

    async def prefetch_scene(self, request: Any) -> Any:
        """All scenes are loaded already."""
        self._known([request.scene_id])
        return common.Empty()

    async def shut_down(self, _: Any) -> Any:
        """End; requests under way have a while to finish."""
        if not self._may_end:
            raise Fault(grpc.StatusCode.PERMISSION_DENIED, "shut_down: not allowed here")
        self.ended.set()
        return common.Empty()

    async def simulate(self, request: Any) -> Any:
        """Drive all rollouts of a request; returns when the last one has ended.

        Raises:
            Fault: a request that makes no sense. A rollout that fails is no fault.
        """
        self._check(request)
        asked = [one for spec in request.rollout_specs for one in _orders(spec)]
        names = {name for _, name, _ in asked}
        self._in_use |= names
        self._num_requests += 1
        self.idle.clear()
        try:
            returns = await self._drive_all(request, asked)
        finally:
            self._in_use -= names
            self._num_requests -= 1
            if not self._num_requests:
                self.idle.set()
        return runtime.SimulationReturn(
            runtime_version=version(),
            physics_version=version(),
            traffic_version=version(),
            rollout_returns=returns,
        )

    async def _drive_all(self, request: Any, asked: Sequence[tuple[Any, str, int]]) -> list[Any]:
        """A `RolloutReturn` for each spec, name and seed."""
        drivers = [
            DriverClient(
                address_of(d.ip, d.port),
                self._config,
                self._open_calls,
                self.statistics,
                self._tls,
            )
            for d in request.available_drivers
        ]
        slots = DriverSlots(drivers, min(request.n_concurrent_per_driver, len(asked)))
        try:
            async with asyncio.TaskGroup() as group:
                rollouts = [group.create_task(self._rollout(*one, slots)) for one in asked]
        finally:
            await asyncio.gather(*(driver.close() for driver in drivers))
        return [rollout.result() for rollout in rollouts]

    async def _rollout(self, spec: Any, name: str, seed: int, slots: DriverSlots) -> Any:
        """A `RolloutReturn`, whatever happens."""
        self.num_open += 1
        try:
            answer = await self._driven(spec, name, seed, slots)
        finally:
            self.num_open -= 1
        self._num_done += 1
        self._num_failed += not answer.success
        return answer

    async def _driven(self, spec: Any, name: str, seed: int, slots: DriverSlots) -> Any:
        stage = self._stages[spec.scenario_id]
        try:
            offset = spec.start_time_offset_us
            time = timeline(stage.scenario, self._config, every=self._every, offset_us=offset)
            order = Order(name, stage, time, seed, seed % 2**63)
            played = await play(slots.borrowed, self._pool, order)
            if played.log_error:
                print(f"runtime: {played.log_error}", file=sys.stderr, flush=True)
                self._num_unlogged += 1
            return await asyncio.to_thread(succeeded, spec, order, played)
        except ScenarioError as error:
            return failed(spec, name, str(error), scene=True)
        except (DriverError, ValueError) as error:
            return failed(spec, name, str(error))
        except Exception as error:  # of our own making; the others go on
            traceback.print_exc()
            return failed(spec, name, f"rollout: failed with {type(error).__name__}: {error}")

    def _check(self, request: Any) -> None:
        """Refuse a request that makes no sense, before anything is driven."""
        if not request.available_drivers:
            raise _refused("available_drivers: expected at least one, got none")
        if len(request.available_drivers) > MOST_DRIVERS:
            raise _refused(
                f"available_drivers: expected at most {MOST_DRIVERS}, "
                f"got {len(request.available_drivers)}"
            )
        for driver in request.available_drivers:
            if not driver.ip or not 0 < driver.port < 65536:
                raise _refused(
                    "available_drivers: expected an ip and a port from 1 to 65535, "
                    f"got {driver.ip!r} and {driver.port}"
                )
        if request.n_concurrent_per_driver < 1:
            raise _refused("n_concurrent_per_driver: expected at least 1, got 0")
        count = sum(spec.nr_rollouts for spec in request.rollout_specs)
        if not 0 < count <= MOST_ROLLOUTS:
            raise _refused(f"rollout_specs: expected 1 to {MOST_ROLLOUTS} rollouts, got {count}")
        self._known([spec.scenario_id for spec in request.rollout_specs])
        self._check_size(request.rollout_specs)
        for spec in request.rollout_specs:
            if spec.session_uuids and len(spec.session_uuids) != spec.nr_rollouts:
                raise _refused(
                    f"session_uuids: expected none or {spec.nr_rollouts}, one for each rollout of "
                    f"{spec.scenario_id}, got {len(spec.session_uuids)}"
                )
        names = [name for spec in request.rollout_specs for name in spec.session_uuids]
        longest = max(map(len, names), default=0)
        if longest > LONGEST_NAME:
            raise _refused(
                f"session_uuids: expected names of at most {LONGEST_NAME} characters, got {longest}"
            )
        if len(set(names)) < len(names) or "" in names:
            raise _refused("session_uuids: expected names that are not empty and all different")
        used = next((name for name in names if name in self._in_use), None)
        if used is not None:
            raise _refused(
                f"session_uuids: expected names that no request under way uses, got {used:.100}"
            )

    def _check_size(self, specs: Sequence[Any]) -> None:
        """Refuse what could be driven, but not be answered in one message."""
        size = 0
        for spec in specs:
            stage = self._stages[spec.scenario_id]
            begun = timeline(stage.scenario, self._config, every=self._every)
            size += spec.nr_rollouts * answer_size(begun.last - begun.first + 1)
        if size > self._max_message_mib * 2**20:
            raise _refused(
                f"rollout_specs: expected an answer of at most {self._max_message_mib} MiB "
                f"(max_message_mib), got rollouts whose metrics take {size / 2**20:.0f} MiB; ask "
                "for fewer at a time"
            )

    def _known(self, scenes: Sequence[str]) -> None:
        unknown = list(dict.fromkeys(scene for scene in scenes if scene not in self._stages))
        if unknown:
            named = ", ".join(scene[:100] or "''" for scene in unknown[:MOST_NAMED])
            more = f" and {len(unknown) - MOST_NAMED} more" if len(unknown) > MOST_NAMED else ""
            raise _refused(
                f"scenario_id: expected any of the {len(self._stages)} of get_runtime_info, "
                f"such as {next(iter(self._stages))}, got {named}{more}"
            )


def _orders(spec: Any) -> list[tuple[Any, str, int]]:
    """Of each rollout the spec as it is returned, without names of others; its name; its seed."""
    names = list(spec.session_uuids) or [str(uuid.uuid4()) for _ in range(spec.nr_rollouts)]
    first = spec.random_seed or secrets.randbits(63)
    orders = []
    bare = runtime.RolloutSpec()
    bare.CopyFrom(spec)
    bare.ClearField("session_uuids")
    for k, name in enumerate(names):
        own = runtime.RolloutSpec()
        own.CopyFrom(bare)
        if spec.session_uuids:
            own.session_uuids.append(name)
        orders.append((own, name, (first + k) % 2**64))
    return orders


def _refused(sentence: str) -> Fault:
    return Fault(grpc.StatusCode.INVALID_ARGUMENT, sentence)
