"""Decisions of a policy as plans, for many sessions at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from alpagym import sim
from alpagym.config import ActionType, ObservationKind, SimConfig
from alpagym.interop.alpasim.told import observation_of
from alpagym.policies.policy import Policy, memory_of
from alpagym.policies.trajectory import TrajectoryPolicy
from alpagym.timed_plans import STEP
from alpagym.types import Observation

LOOKED_AT = 20
"""Waypoints that AlpaSim's controller looks ahead: 2 s. A plan that ends sooner stops the car."""
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Query:
    """What one session knows when it is to decide."""

    motion: tuple[float, float, float]
    """Speed [m/s], acceleration [m/s^2], curvature [1/m]."""
    waypoints: np.ndarray
    """x, y in the rig frame, NaN behind the last [m], float32 [20, 2]"""
    memory: Tensor
    """What the policy remembers, [M]."""
    seed: int
    """What its decision is drawn from."""


@dataclass(frozen=True)
class Answer:
    """What the policy makes of it."""

    waypoints: np.ndarray
    """x, y [m], yaw [rad] of the rig 0.1 s, 0.2 s, ... ahead, in its frame now. float64 [P, 3]"""
    memory: Tensor
    """For the next decision, [M]."""


class Planner:
    """A policy that is asked by many.

    Attributes:
        interval_us: from one decision to the next, as in training.
    """

    def __init__(
        self,
        policy: Policy,
        config: SimConfig,
        device: torch.device | str = "cpu",
        *,
        sample: bool = False,
        name: str = "checkpoint",
    ) -> None:
        """Look whether the policy can drive on what AlpaSim sends.

        Args:
            policy: on `device`.
            config: of the simulator that it was trained in.
            device: where it is asked.
            sample: whether decisions are drawn instead of being the policy's mean.
            name: of the policy, in errors.

        Raises:
            ValueError: it cannot; one sentence that says what to train instead.
        """
        _check(config, name)
        self.policy, self.config, self.sample = policy, config, sample
        self.device = torch.device(device)
        self.interval_us = round(config.replan_every * config.dt * 1e6)

    def no_memory(self) -> Tensor:
        """What a session begins with, [M]."""
        return memory_of(self.policy, 1, self.device)[0]

    @torch.no_grad()
    def __call__(self, queries: Sequence[Query]) -> list[Answer | ValueError]:
        """Decide for B sessions in one forward; an error for each plan that is not finite."""
        motion = torch.tensor([q.motion for q in queries], dtype=torch.float32)
        waypoints = torch.from_numpy(np.stack([q.waypoints for q in queries]))
        seen = observation_of(motion.to(self.device), waypoints.to(self.device), self.config)
        memory = torch.stack([q.memory for q in queries])
        if memory.shape[-1]:
            seen = replace(seen, ego=torch.cat([seen.ego, memory], -1))
        noise = torch.stack([self._noise(q.seed) for q in queries]) if self.sample else None
        planned = self._planned(seen, noise)
        remembered = self.policy.remember(seen)
        return [
            Answer(plan, kept.clone())  # a row of its own does not hold on to the batch
            if np.isfinite(plan).all()
            else ValueError("the policy's plan: expected finite numbers, got NaN or infinity")
            for plan, kept in zip(planned, remembered, strict=True)
        ]

    def _noise(self, seed: int) -> Tensor:
        sizes = self.policy.sizes
        count = sim.action_size(self.config) if sizes is None else sizes.noise
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, generator=generator).to(self.device)

    def _planned(self, seen: Observation, noise: Tensor | None) -> np.ndarray:
        """[B, P, 3]."""
        policy = self.policy
        decision = None if noise is None else policy.sample(seen, noise)[0]
        if self.config.action is ActionType.trajectory:
            action = policy.mean(seen) if decision is None else policy.action_of(seen, decision)
            return _host(action.unflatten(-1, (-1, 3)))
        if isinstance(policy, TrajectoryPolicy):  # of which an action is only the beginning
            knots = policy.most_likely(seen) if decision is None else policy.drawn(decision)
            control = policy.plan(seen, knots)
        else:
            action = policy.mean(seen) if decision is None else policy.action_of(seen, decision)
            control = action.unflatten(-1, (-1, 2))
        return driven(_host(control), _host(seen.ego[..., 0]), self.config)


def seed_of(session: int, decision: int) -> int:
    """What a decision of a session is drawn from: the same whoever else is asked with it."""
    return (session + _GOLDEN * (decision + 1)) % 2**63


def driven(control: np.ndarray, speed: np.ndarray, config: SimConfig) -> np.ndarray:
    """Where a unicycle gets by controls, of which the last is held for as long as is looked at.

    Args:
        control: acceleration [m/s^2] and curvature [1/m] of each step of 0.1 s, [B, P, 2].
        speed: at first [m/s], [B].
        config: whose bounds hold, as in the simulator.

    Returns:
        x, y, yaw of the rig after each step, in its frame at first, [B, max(P, 20 + k), 3] with k
        of `SimConfig.replan_every`.
    """
    steps = max(control.shape[1], LOOKED_AT + config.replan_every)
    x, y, yaw = np.zeros((3, len(control)))
    reached = np.zeros((len(control), steps, 3))
    for t in range(steps):
        asked = control[:, min(t, control.shape[1] - 1)]
        accel = asked[:, 0].clip(config.min_accel, config.max_accel)
        tightest = config.max_lateral_accel / np.maximum(speed * speed, 1e-3)
        tightest = np.minimum(tightest, config.max_curvature)
        after = speed + STEP * accel
        after = np.where(speed >= 0.0, np.maximum(after, 0.0), after)
        turned = yaw + asked[:, 1].clip(-tightest, tightest) * 0.5 * STEP * (speed + after)
        x = x + 0.5 * STEP * (speed * np.cos(yaw) + after * np.cos(turned))
        y = y + 0.5 * STEP * (speed * np.sin(yaw) + after * np.sin(turned))
        yaw, speed = turned, after
        reached[:, t] = np.stack([x, y, yaw], -1)
    return reached


def _host(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.cpu().numpy().astype(np.float64)
    return array


def _check(config: SimConfig, name: str) -> None:
    """Refuse what AlpaSim's messages do not tell, and plans that its controller cannot follow."""
    if config.observation is not ObservationKind.alpasim:
        parts = {
            "agents": config.num_agents,
            "road points": config.num_road_points,
            "lights": config.num_lights,
        }
        seen = [f"{count} {part}" for part, count in parts.items() if count]
        listed = ", ".join([*seen, "its own size and speed limits"])
        raise ValueError(
            f"{name}: expected a policy that drives on what AlpaSim sends, the own motion and a "
            f"route, got one that also observes {listed}; train one with observation=alpasim"
        )
    if config.action not in (ActionType.unicycle, ActionType.trajectory):
        raise ValueError(
            f"{name}: expected a policy of unicycle or trajectory actions, of which plans can be "
            f"made, got sim.action={config.action.name}"
        )
    if abs(config.dt - STEP) > 1e-9:
        raise ValueError(f"{name}: expected sim.dt={STEP}, got {config.dt}")
    least = LOOKED_AT + config.replan_every - 1
    if config.action is ActionType.trajectory and config.plan_steps < least:
        raise ValueError(
            f"{name}: expected plans of at least {least} waypoints, 2 s and the steps until the "
            f"next, as AlpaSim's controller looks ahead, got sim.plan_steps={config.plan_steps}"
        )
