"""A simulator with all its tensors at hand, and the comparisons that tests share."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

import scenario_factory as factory
from alpagym import reference, sim
from alpagym.config import ActionType, SimConfig
from alpagym.scenarios.batch import batch, max_agents
from alpagym.scenarios.scenario import Scenario
from alpagym.types import State, TensorStruct


def weights_of_one(device: torch.device | str = "cpu") -> Tensor:
    return torch.ones(1, len(sim.RewardTerm), device=device)


def poison(struct: TensorStruct) -> None:
    """Fill with what no kernel writes: NaN, 0xAA, and masks of alternating values."""
    for tensor in struct.tensors().values():
        if tensor.dtype.is_floating_point:
            tensor.fill_(torch.nan)
        else:
            tensor.view(torch.uint8).fill_(1 if tensor.dtype == torch.bool else 0xAA)


class Rig:
    """W worlds over some scenarios, world w in scenario w modulo their number, and every buffer."""

    def __init__(
        self,
        scenarios: Sequence[Scenario],
        num_worlds: int | None = None,
        *,
        device: torch.device | str = "cpu",
        num_egos: int = 1,
        capacity: int | None = None,
        lanes: bool = False,
        seconds: float = 0.0,
        **options,
    ) -> None:
        self.config = SimConfig(**({"end_on": ()} | options))
        self.params = sim.make_params(self.config)
        self.scenarios = batch(scenarios, device, lanes=lanes, seconds=seconds)
        worlds = num_worlds if num_worlds is not None else len(scenarios)
        agents = capacity if capacity is not None else max_agents(scenarios)
        self.state = sim.make_state(
            worlds, agents, num_egos=num_egos, config=self.config, device=device
        )
        self.state.scenario.copy_(torch.arange(worlds) % len(scenarios))
        self.outcome = sim.make_outcome(self.state)
        self.observation = sim.make_observation(self.state, self.config)
        self.weights = weights_of_one(device)
        self.all = torch.ones(worlds, dtype=torch.bool, device=device)
        sim.reset(self.scenarios, self.state, self.all, self.params)

    @property
    def device(self) -> torch.device:
        return self.state.device

    def zero_action(self) -> Tensor:
        size = sim.action_size(self.config)
        return torch.zeros(*self.state.ego.shape, size, device=self.device)

    def same_action(self, *numbers: float) -> Tensor:
        """One action for every ego."""
        action = torch.tensor(numbers, dtype=torch.float32, device=self.device)
        return action.expand(*self.state.ego.shape, len(numbers)).contiguous()

    def random_action(self, seed: int) -> Tensor:
        """Actions of plausible size, drawn on the host so that devices agree."""
        generator = torch.Generator().manual_seed(seed)
        if self.config.action is ActionType.trajectory:
            return self.random_plan(generator)
        scale = {
            ActionType.unicycle: [3.0, 0.08],
            ActionType.bicycle: [3.0, 0.2],
            ActionType.delta: [0.5, 0.1, 0.05],
            ActionType.teleport: [0.5, 0.1, 0.05],
            ActionType.jerk: [5.0, 0.1],
        }[self.config.action]
        rows = self.config.replan_every
        drawn = torch.randn(*self.state.ego.shape, rows, len(scale), generator=generator)
        action = drawn * torch.tensor(scale)
        if self.config.action is ActionType.delta:
            action[..., 0] += 0.8
        if self.config.action is ActionType.teleport:
            index = self.state.ego.clamp(min=0).long()
            here = [getattr(self.state, n).gather(1, index).cpu() for n in ("x", "y", "yaw")]
            action += torch.stack(here, -1).unsqueeze(2)
        return action.flatten(2).to(self.device)

    def random_plan(self, generator: torch.Generator) -> Tensor:
        """Arcs that begin near the ego's speed, some of them with a bend that cannot be driven."""
        shape = self.state.ego.shape
        drawn = torch.randn(*shape, 3, generator=generator).unsqueeze(-1)
        speed = self.state.speed.gather(1, self.state.ego.clamp(min=0).long()).cpu()
        t = 0.1 * torch.arange(1, self.config.plan_steps + 1)
        way = ((speed.unsqueeze(-1) + 1.5 * drawn[..., :1, 0]) * t).clamp(min=0.0)
        yaw = 0.03 * drawn[..., 1, :] * way
        x, y = way * torch.cos(0.5 * yaw), way * torch.sin(0.5 * yaw) + 0.3 * drawn[..., 2, :]
        return torch.stack([x, y, yaw], -1).flatten(2).contiguous().to(self.device)

    def step(self, action: Tensor | None = None, weights: Tensor | None = None) -> None:
        sim.step(
            self.scenarios,
            self.state,
            self.outcome,
            self.zero_action() if action is None else action,
            self.weights if weights is None else weights,
            self.params,
        )

    def run(self, steps: int) -> list[State]:
        """The state after each of some steps with an action of zeros; nothing ends an episode."""
        seen = []
        for _ in range(steps):
            self.state.terminated.zero_()
            self.state.truncated.zero_()
            self.step()
            seen.append(self.state.clone())
        return seen

    def observe(self) -> None:
        sim.observe(self.scenarios, self.state, self.observation, self.params)

    def disturb(self, seed: int) -> None:
        """Move agents about, so that some overlap, leave the road or their route, and reverse."""
        rng = np.random.default_rng(seed)
        state = self.state
        shape = tuple(state.x.shape)
        for name, scale in (("x", 1.2), ("y", 1.2), ("yaw", 0.3), ("speed", 2.0), ("accel", 1.0)):
            tensor = getattr(state, name)
            noise = rng.normal(0.0, scale, shape) * (rng.random(shape) < 0.6)
            tensor += torch.tensor(noise, dtype=torch.float32, device=self.device)
        state.yaw.copy_((state.yaw + torch.pi) % (2 * torch.pi) - torch.pi)
        some = torch.tensor(rng.random(shape) < 0.05, device=self.device)
        state.yaw[some] = -torch.pi  # the seam

    def reference_step(self, action: Tensor, weights: Tensor | None = None) -> tuple:
        """State and outcome that the float64 reference makes of the present state."""
        state = reference.arrays(self.state)
        weights = self.weights if weights is None else weights
        outcome = reference.step(
            reference.places(self.scenarios),
            state,
            action.cpu().double().numpy(),
            weights.cpu().double().numpy(),
            self.config,
        )
        return state, outcome


def random_rig(seed: int, num_scenarios: int = 8, **options) -> Rig:
    """Eight random scenarios in worlds a few random steps into their episodes, then disturbed."""
    scenarios = [factory.random_scenario(8 * seed + s) for s in range(num_scenarios)]
    rig = Rig(scenarios, **options)
    for t in range(seed % 4 + 2):
        rig.step(rig.random_action(100 * seed + t))
    rig.disturb(seed)
    return rig


def same_bits(a: TensorStruct, b: TensorStruct) -> bool:
    """Whether two structs hold the same bits (NaN equal to itself)."""
    return all(
        torch.equal(x.contiguous().view(torch.uint8), y.contiguous().view(torch.uint8))
        for x, y in zip(a.tensors().values(), b.tensors().values(), strict=True)
    )


def error(got: np.ndarray, want: np.ndarray, angle: bool = False) -> np.ndarray:
    """Absolute differences; zero where both are the same infinity, inf where one is NaN."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.where(got == want, 0.0, np.abs(got - want))
    if angle:
        difference = np.minimum(difference, np.abs(2 * np.pi - difference))
    return np.where(np.isnan(difference), np.inf, difference)


def host(state: State | TensorStruct) -> SimpleNamespace:
    return reference.arrays(state)
