"""IDM alone, for minutes: where vehicles overlap, and who stands for long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from alpagym import sim
from alpagym.config import SimConfig
from alpagym.scenarios.batch import batch, max_agents
from alpagym.scenarios.scenario import AgentType, LightState, Scenario

LONGEST = 20.0
"""Who stands longer without a red light is reported [s]."""
STRIDE = 3
"""Boxes are compared every so many steps."""


def drive_long(scenarios: Sequence[Scenario], config: SimConfig, steps: int) -> tuple[list, list]:
    """Let the IDM drive every agent, the ego too.

    Returns:
        Pairs of vehicles that overlap, (scenario, agent, agent, step), and vehicles that stand for
        more than `LONGEST` where no red or yellow light ahead holds them, (scenario, agent, time).
    """
    config = replace(config, end_on=(), max_steps=steps)
    params = sim.make_params(config)
    packed = batch(scenarios, lanes=True, seconds=steps * config.dt)
    worlds, capacity = len(scenarios), max_agents(scenarios)
    state = sim.make_state(worlds, capacity)
    state.scenario.copy_(torch.arange(worlds))
    state.seed.copy_(torch.tensor([s.key for s in scenarios]))
    outcome = sim.make_outcome(state)
    action = torch.zeros(worlds, 1, sim.action_size(config))
    weights = torch.zeros(1, len(sim.RewardTerm))
    sim.reset(packed, state, torch.ones(worlds, dtype=torch.bool), params)
    size, drives = np.ones((worlds, capacity, 2)), np.zeros((worlds, capacity), bool)
    for w, s in enumerate(scenarios):
        n = s.tracks.num_agents
        size[w, :n] = s.tracks.size[:, :2]
        drives[w, :n] = (np.diff(s.routes.offsets) >= 2) & (s.tracks.type != AgentType.PEDESTRIAN)
        state.controller[w, s.ego] = int(sim.Controller.IDM)
    vehicle = drives | np.array(
        [
            [
                a < s.tracks.num_agents and s.tracks.type[a] != AgentType.PEDESTRIAN
                for a in range(capacity)
            ]
            for s in scenarios
        ]
    )
    first_hit: dict[tuple[int, int, int], int] = {}
    stood, longest = np.zeros((worlds, capacity)), np.zeros((worlds, capacity))
    lights = _Lights(packed)
    for t in range(steps):
        state.terminated.zero_()
        state.truncated.zero_()
        sim.step(packed, state, outcome, action, weights, params)
        valid, speed = state.valid.numpy(), state.speed.numpy()
        assert np.isfinite(speed[valid]).all()
        standing = valid & drives & (speed < 0.1)
        held = np.zeros_like(standing)
        for w, a in np.argwhere(standing & (stood > 5.0)):
            held[w, a] = lights.hold(state, int(w), int(a), size[w, a, 0])
        stood = np.where(standing, stood + config.dt * ~held, 0.0)
        longest = np.maximum(longest, stood)
        if t % STRIDE == 0:
            for pair in _overlapping(state, size, valid & vehicle):
                first_hit.setdefault(pair, t)
    overlaps = [(scenarios[w].id, a, b, t) for (w, a, b), t in first_hit.items()]
    late = [(scenarios[w].id, int(a), longest[w, a]) for w, a in np.argwhere(longest > LONGEST)]
    return overlaps, late


class _Lights:
    """Whether a light ahead on its route keeps an agent, or the queue before it, standing."""

    def __init__(self, packed) -> None:
        self.c = {name: tensor.numpy() for name, tensor in packed.tensors().items()}

    def hold(self, state, w: int, a: int, length: float) -> bool:
        c, s = self.c, int(state.scenario[w])
        count = c["light_start"][s + 1] - c["light_start"][s]
        if count == 0:
            return False
        route = int(state.route[w, a])
        row = (
            c["agent_start"][s] + a
            if route == 0
            else len(c["type"]) + c["lane_start"][s] + route - 1
        )
        frame = int(c["start_frame"][s] + state.step[w])
        recorded, known = int(c["num_frames"][s]), int(c["light_frames"][s])
        if frame >= known:
            frame = recorded + (frame - recorded) % (known - recorded)
        front = float(state.route_s[w, a]) + 0.5 * length
        for m in range(c["stop_start"][row], c["stop_start"][row + 1]):
            if c["stop_light"][m] >= 0 and -1.0 < c["stop_s"][m] - front < 100.0:
                cell = c["signal_start"][s] + frame * count + c["stop_light"][m]
                return bool(c["light_state"][cell] != LightState.GREEN)
        return False


def _overlapping(state, size: np.ndarray, there: np.ndarray) -> list[tuple[int, int, int]]:
    """Pairs (world, agent, agent) whose boxes intersect, by separating axes."""
    center = np.stack([state.x.numpy(), state.y.numpy()], -1).astype(np.float64)
    yaw = state.yaw.numpy().astype(np.float64)
    reach = 0.5 * np.hypot(size[..., 0], size[..., 1])
    apart = np.linalg.norm(center[:, :, None] - center[:, None], axis=-1)
    near = (apart < reach[:, :, None] + reach[:, None]) & there[:, :, None] & there[:, None]
    w, a, b = np.nonzero(np.triu(near, 1))
    if len(w) == 0:
        return []
    half = 0.5 * size
    forward = [np.stack([np.cos(yaw[w, i]), np.sin(yaw[w, i])], -1) for i in (a, b)]
    left = [np.stack([-f[:, 1], f[:, 0]], -1) for f in forward]
    meet = np.ones(len(w), bool)
    for axis in (*forward, *left):
        extent = sum(
            half[w, i, 0] * np.abs((f * axis).sum(-1)) + half[w, i, 1] * np.abs((g * axis).sum(-1))
            for i, f, g in zip((a, b), forward, left, strict=True)
        )
        meet &= np.abs(((center[w, b] - center[w, a]) * axis).sum(-1)) <= extent
    return [(int(i), int(j), int(k)) for i, j, k in zip(w[meet], a[meet], b[meet], strict=True)]
