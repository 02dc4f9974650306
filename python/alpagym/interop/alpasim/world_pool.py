"""Worlds of one simulator that sessions borrow; those with an action at hand step together.

A session waits for its own world alone. While the simulator steps, on a thread of its own, further
actions gather; all that are there step next. So batches grow with the load, a driver that is slow
holds up nobody else, and what a world does depends on its own actions only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from alpagym import sim
from alpagym.config import ALPASIM_SIZES, DRIVES_ON, ActionType, ObservationKind, SimConfig
from alpagym.interop.alpasim.driver.plans import LOOKED_AT
from alpagym.interop.alpasim.told import waypoints_of
from alpagym.scenarios.batch import batch, max_agents
from alpagym.scenarios.scenario import Scenario
from alpagym.types import State

MOTION = ("speed", "lateral_speed", "yaw_rate", "steering_angle", "lagged_accel")
"""What `Snapshot.motion` holds, in this order."""


@dataclass(frozen=True, repr=False)
class Snapshot:
    """One world after a step, on the host."""

    pose: np.ndarray
    """x, y [m] and yaw [rad] of the box centers, float32 [3, A]."""
    z: float
    """Height of the ego's box center [m]."""
    valid: np.ndarray
    """Whether the agent is there, bool [A]."""
    motion: np.ndarray
    """Of the vehicle that follows plans, by `MOTION`, float64 [5]."""
    terms: np.ndarray
    """Raw reward terms of the step, float32 [R]."""
    collision: int
    """`Collision` that began in the step."""
    progress: float
    """`Outcome.progress_fraction`."""
    done: bool
    """The ego has left, or the record is over."""
    route: np.ndarray | None
    """Waypoints of the simulator's route in the frame of the rear axle, NaN behind the last,
    float32 [20, 3]; None where the pool does not look for them."""


class World:
    """One borrowed world."""

    def __init__(self, ask: Callable[..., Any], slot: int) -> None:
        self._ask, self._slot = ask, slot

    async def begin(self, scenario: int, frame: int, seed: int) -> Snapshot:
        """Put it at a frame of a scenario, by its index."""
        return await self._ask(_Begin(self._slot, scenario, frame, seed))

    async def step(self, action: np.ndarray) -> Snapshot:
        """Advance by one step; `action` is a plan, float32 [3 * plan_steps]."""
        return await self._ask(_Step(self._slot, action))


@dataclass(frozen=True)
class _Begin:
    slot: int
    scenario: int
    frame: int
    seed: int


@dataclass(frozen=True)
class _Step:
    slot: int
    action: np.ndarray


class WorldPool:
    """As many worlds as sessions may go on at a time; `async with` it."""

    def __init__(
        self,
        scenarios: Sequence[Scenario],
        config: SimConfig,
        worlds: int,
        *,
        device: str | torch.device = "cpu",
        routes: bool = False,
    ) -> None:
        """Pack the scenarios onto the device.

        Args:
            scenarios: what sessions choose from, by index.
            config: the simulator's; its actions are plans here, given anew in every step, and no
                event ends an episode.
            worlds: how many there are, W.
            device: where they are.
            routes: look for the simulator's route as well.

        Raises:
            ValueError: actions too short for the controller.
        """
        if config.plan_steps < LOOKED_AT:
            raise ValueError(
                f"sim.plan_steps: expected at least {LOOKED_AT}, the 2 s that AlpaSim's controller "
                f"looks ahead, got {config.plan_steps}"
            )
        config = replace(config, action=ActionType.trajectory, replan_every=1, end_on=())
        if routes:
            sizes: dict[str, Any] = {**ALPASIM_SIZES}
            config = replace(config, observation=ObservationKind.alpasim, **sizes)
        self.config = config
        self._params = sim.make_params(config)
        self._packed = batch(scenarios, device, lanes=config.traffic.name in DRIVES_ON)
        self._starts = [s.start_frame for s in scenarios]
        self._state: State = sim.make_state(
            worlds, max_agents(scenarios), config=config, device=device
        )
        self._state.terminated.fill_(True)  # worlds without an action stand still
        self._outcome = sim.make_outcome(self._state)
        self._seen = sim.make_observation(self._state, config) if routes else None
        self._action = torch.zeros(worlds, 1, sim.action_size(config), device=device)
        self._weights = torch.zeros(1, len(sim.RewardTerm), device=device)
        self._free: asyncio.Queue[int] = asyncio.Queue()
        for slot in range(worlds):
            self._free.put_nowait(slot)
        self._asked: list[tuple[_Begin | _Step, asyncio.Future[Snapshot]]] = []
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "alpagym-worlds")
        self._stepping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> WorldPool:
        self._stepping = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._stepping is not None
        self._stepping.cancel()
        await asyncio.gather(self._stepping, return_exceptions=True)
        for _, future in self._asked:
            future.cancel()
        await asyncio.to_thread(self._thread.shutdown)

    @property
    def num_free(self) -> int:
        """Worlds that nobody has borrowed."""
        return self._free.qsize()

    @asynccontextmanager
    async def world(self) -> AsyncIterator[World]:
        """Borrow a world, as soon as one is free."""
        slot = await self._free.get()
        try:
            yield World(self._ask, slot)
        finally:
            self._free.put_nowait(slot)

    async def _ask(self, asked: _Begin | _Step) -> Snapshot:
        future = asyncio.get_running_loop().create_future()
        self._asked.append((asked, future))
        self._wake.set()
        return await future

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            batched = [(asked, f) for asked, f in self._asked if not f.done()]
            self._asked = []
            if not batched:
                continue
            try:
                answers = await loop.run_in_executor(
                    self._thread, self._carry_out, [asked for asked, _ in batched]
                )
            except Exception as error:
                for _, future in batched:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), answer in zip(batched, answers, strict=True):
                if not future.done():
                    future.set_result(answer)

    @torch.no_grad()
    def _carry_out(self, asked: Sequence[_Begin | _Step]) -> list[Snapshot]:
        """One request a world at most: whoever waits for one does not ask again."""
        for one in asked:
            if isinstance(one, _Begin):
                self._begin(one)
        stepping = [one for one in asked if isinstance(one, _Step)]
        state = self._state
        if stepping:
            moving = torch.tensor([one.slot for one in stepping])
            plans = torch.from_numpy(np.stack([one.action for one in stepping]))
            self._action[moving, 0] = plans.to(self._action)
            state.terminated[moving] = False
            state.truncated[moving] = False
            sim.step(self._packed, state, self._outcome, self._action, self._weights, self._params)
        over = state.terminated | state.truncated
        state.terminated.fill_(True)
        return self._snapshots(asked, over)

    def _begin(self, asked: _Begin) -> None:
        """Reset reads the frame of the scenario; from it, steps are counted from the usual one."""
        state, slot, scenario = self._state, asked.slot, asked.scenario
        mask = torch.zeros(len(state.step), dtype=torch.bool, device=state.device)
        mask[slot] = True
        state.scenario[slot], state.seed[slot] = scenario, asked.seed
        self._packed.start_frame[scenario] = asked.frame
        sim.reset(self._packed, state, mask, self._params)
        self._packed.start_frame[scenario] = self._starts[scenario]
        state.step[slot] = asked.frame - self._starts[scenario]
        state.terminated[slot] = True

    def _snapshots(self, asked: Sequence[_Begin | _Step], over: torch.Tensor) -> list[Snapshot]:
        state, outcome = self._state, self._outcome
        slots = torch.tensor([one.slot for one in asked])
        ego = state.ego[slots].long().clamp(min=0)

        def rows(*tensors: torch.Tensor) -> np.ndarray:
            return torch.stack([t[slots] for t in tensors], 1).cpu().numpy()

        pose, valid = rows(state.x, state.y, state.yaw), rows(state.valid)[:, 0]
        z, speed = (t[slots].gather(1, ego)[:, 0].cpu().numpy() for t in (state.z, state.speed))
        motion = rows(*[getattr(state, name)[:, 0] for name in MOTION[1:]])
        motion = np.column_stack([speed, motion]).astype(np.float64)
        terms, collision = rows(outcome.terms[:, 0])[:, 0], rows(outcome.collision[:, 0])[:, 0]
        routes: Sequence[np.ndarray | None] = [None] * len(asked)
        if self._seen is not None:
            mask = torch.zeros(len(state.step), dtype=torch.bool, device=state.device)
            mask[slots] = True
            sim.observe(self._packed, state, self._seen, self._params, mask=mask)
            routes = list(waypoints_of(self._seen.index(slots))[:, 0])
        progress, ended = rows(outcome.progress_fraction[:, 0])[:, 0], rows(over[:, 0])[:, 0]
        return [
            Snapshot(
                pose[i],
                float(z[i]),
                valid[i],
                motion[i],
                terms[i],
                int(collision[i]),
                float(progress[i]),
                bool(ended[i]) and isinstance(one, _Step),
                routes[i],
            )
            for i, one in enumerate(asked)
        ]
