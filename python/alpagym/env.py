"""The simulator with memory: a torch-native vector environment with explicit auto-reset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from alpagym import sim
from alpagym.config import (
    DRIVES_ON,
    AutoReset,
    RewardConfig,
    SimConfig,
    Traffic,
)
from alpagym.keys import mix
from alpagym.option_ranges import check
from alpagym.reward_functions import RewardFunction, UserRewards, named_reward
from alpagym.reward_ranges import check_ranges, condition, draw_weights
from alpagym.scenarios.batch import batch, max_agents
from alpagym.scenarios.scenario import Scenario
from alpagym.scenarios.step_length import require_step
from alpagym.traffic_mixture import traffic_mixture
from alpagym.types import Observation, Outcome, Scenarios, State

_Options = TypeVar("_Options", SimConfig, RewardConfig)


class VectorEnv:
    """W worlds that step together; everything it takes and gives is a torch tensor on its device.

    `reset` and `step` return views of buffers: what they return stays as it is during the next step
    and is overwritten by the one after. In ego mode tensors are [W, ...]; in multi-agent mode
    [W, E, ...], where `ego_mask` tells which of the E slots hold an agent.

    Attributes:
        scenarios: the packed scenarios, shared by all worlds.
        state: the simulator's state; may be read at any time, and written between steps.
        weights: of the reward terms, [1, R] for all worlds, or [W, R] where episodes draw them.
    """

    def __init__(
        self,
        scenarios: Sequence[Scenario],
        num_worlds: int,
        *,
        sim_config: SimConfig | None = None,
        reward: RewardConfig,
        reward_functions: Sequence[str | RewardFunction] = (),
        reward_ranges: Mapping[str, Sequence[float]] | None = None,
        observe_weights: bool = False,
        auto_reset: AutoReset = AutoReset.same_step,
        device: str | torch.device = "cpu",
        seed: int = 0,
        traffic: Sequence[str] | Mapping[str, float] | None = None,
    ) -> None:
        """Pack `scenarios` for `device` and seat `num_worlds` worlds; call `reset` before `step`.

        `traffic` mixes kinds of traffic (names of `config.Traffic`): one for each world, or shares
        by which each episode draws its own. Without it all worlds have `sim_config.traffic`.

        Reward functions are of `alpagym.reward_functions`, ranges of `alpagym.reward_ranges`; with
        `observe_weights` the drawn weights, from -1 to 1, are the last columns of
        `Observation.ego`.

        Raises:
            ValueError: no worlds, an option out of range, a scenario recorded otherwise than every
                `sim_config.dt`, a reward function that is not there, or unknown or too few kinds of
                traffic.
            ScenarioError: no scenarios.
        """
        if num_worlds < 1:
            raise ValueError(f"num_worlds: expected at least 1, got {num_worlds}")
        self.config = _checked(sim_config or SimConfig(), "sim.")
        self.auto_reset = auto_reset
        self.device = torch.device(device)
        self.num_worlds = num_worlds
        self._traffic, self._shares = traffic_mixture(traffic, num_worlds, self.device)
        kinds = set(traffic) if traffic is not None else {self.config.traffic.name}
        packed = batch(
            scenarios,
            device,
            lanes=bool(kinds & DRIVES_ON),
            seconds=self.config.max_steps * self.config.dt,
        )
        self.scenarios: Scenarios = sim.with_near(packed, self.config)
        self.scenario_ids = [s.id for s in scenarios]
        self._params = sim.make_params(self.config)
        self._base_weights = sim.make_weights(_checked(reward, "reward."), device)
        self._functions = UserRewards(reward_functions)
        self._ranges = check_ranges(reward_ranges or {})
        self._observe_weights = observe_weights
        repeats = num_worlds if self._ranges else 1
        self.weights: Tensor = self._base_weights.repeat(repeats, 1)
        require_step(scenarios, self.config.dt)
        agents = max_agents(scenarios)
        self._egos = int(self.scenarios.num_egos.max()) if self.config.multi_agent else 1
        self.state: State = sim.make_state(
            num_worlds, agents, num_egos=self._egos, config=self.config, device=device
        )
        # Two of each: what the last step returned stays valid while the next one writes.
        self._observations = [sim.make_observation(self.state, self.config) for _ in range(2)]
        self._outcomes = [sim.make_outcome(self.state) for _ in range(2)]
        self._finals = [sim.make_observation(self.state, self.config) for _ in range(2)]
        self._turn = 0
        self._seed = seed
        self._episode = torch.zeros(num_worlds, dtype=torch.int64, device=device)
        self._world = torch.arange(num_worlds, dtype=torch.int64, device=device)
        self._ended = torch.zeros(num_worlds, dtype=torch.bool, device=device)
        self._fixed: Tensor | None = None
        self._seated = False

    @property
    def action_shape(self) -> tuple[int, ...]:
        """[W, D] in ego mode, [W, E, D] in multi-agent mode; D is `sim.action_size`.

        For plans D is 3 * `plan_steps`; else `replan_every` times the numbers of one control.
        """
        d = sim.action_size(self.config)
        return (self.num_worlds, self._egos, d) if self.config.multi_agent else (self.num_worlds, d)

    @property
    def replans(self) -> Tensor:
        """Which worlds read their action in the next step, bool [W]: all with `replan_every` 1."""
        return self.state.step % self.config.replan_every == 0

    @property
    def ego_mask(self) -> Tensor:
        """Which ego slots hold an agent, bool [W] or [W, E]."""
        return self._squeeze(self.state.ego >= 0)

    def zero_action(self) -> Tensor:
        """An action of zeros: coast straight on; as a plan, stop here."""
        return torch.zeros(self.action_shape, device=self.device)

    def reset(
        self,
        *,
        seed: int | None = None,
        scenario: Tensor | Sequence[int] | None = None,
        mask: Tensor | None = None,
    ) -> Observation:
        """Start new episodes in all worlds, or in those of `mask`; return what the egos see.

        Args:
            seed: from which scenarios and random numbers of all further episodes follow.
            scenario: index into the scenarios for each world [W]; kept for later episodes. Without
                it each episode draws one.
            mask: worlds to reset; needs an earlier `reset` of all.

        Raises:
            IndexError: a scenario index out of range.
        """
        if seed is not None:
            self._seed = seed
            self._episode.zero_()
        if scenario is not None:
            self._fixed = self._check_scenarios(torch.as_tensor(scenario, device=self.device))
        if mask is None:
            mask = torch.ones(self.num_worlds, dtype=torch.bool, device=self.device)
        elif not self._seated:
            raise RuntimeError(
                "reset(mask=...): expected an earlier reset() of all worlds, got none"
            )
        self._begin(mask)
        self._seated = True
        self._turn ^= 1
        return self._observe(self._observations)

    def step(self, action: Tensor) -> tuple[Observation, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Advance all worlds; return observation, reward, terminated, truncated, info.

        `action` has `action_shape`, float32, in physical units (`SimConfig.action`). Worlds that
        are not among `replans` ignore it and go on with their last. Actions that require gradients
        are detached: the simulator is not differentiable.

        `info` holds `terms` (each reward term by name), `collision`, `progress_fraction`, `ttc`,
        `lane`, `lane_offset`, `lane_heading`, `bad_action`, `offroad`, and with `same_step`
        auto-reset `final_observation`: for worlds that ended in this step the last observation of
        the old episode, for the others what an earlier one left there.

        Raises:
            RuntimeError: `reset` was not called.
            ValueError, TypeError: the action's shape, dtype, layout or device, with what was
                expected; and with `SimConfig.bad_action` "raise" an action of NaN or infinity, by
                world, agent and step, before anything has moved.
        """
        if not self._seated:
            raise RuntimeError("step: expected reset() first")
        if isinstance(action, Tensor):
            action = action.detach()
            if not self.config.multi_agent and action.dim() == 2:
                action = action.unsqueeze(1)
            if self.config.bad_action == "raise":
                self._refuse_bad(action)
        if self.auto_reset is AutoReset.next_step:
            restarting = self._ended.clone()
        self._turn ^= 1
        outcome = self._outcomes[self._turn]
        driving = ~self.state.done & (self.state.ego >= 0) if self._functions else None
        sim.step(self.scenarios, self.state, outcome, action, self.weights, self._params)
        if driving is not None:
            self._functions.add(self.scenarios, self.state, outcome, driving)
        terminated, truncated = self.state.terminated.clone(), self.state.truncated.clone()
        offroad = self.state.offroad.clone()
        if self.auto_reset is AutoReset.next_step:
            self._begin(restarting)
            terminated.masked_fill_(restarting.unsqueeze(1), False)
            truncated.masked_fill_(restarting.unsqueeze(1), False)
        info = self._info(outcome, offroad)
        torch.all(self.state.done | (self.state.ego < 0), dim=1, out=self._ended)
        if self.auto_reset is AutoReset.same_step:
            info["final_observation"] = self._observe(self._finals, self._ended)
            self._begin(self._ended)
        observation = self._observe(self._observations)
        squeeze = self._squeeze
        return observation, squeeze(outcome.reward), squeeze(terminated), squeeze(truncated), info

    def _refuse_bad(self, action: Tensor) -> None:
        """Raise if an ego that is still driving is given NaN or infinity."""
        if action.shape[:2] != self.state.ego.shape:
            return  # the core says what is wrong with it
        driving = (self.state.ego >= 0) & ~self.state.done & self.replans.unsqueeze(1)
        bad = ((~torch.isfinite(action)).any(2) & driving).nonzero()
        if len(bad):
            w, e = bad[0].tolist()
            raise ValueError(
                f"action: expected finite numbers, got {action[w, e].tolist()} for world {w}, "
                f"agent {int(self.state.ego[w, e])}, step {int(self.state.step[w])} "
                f"(scenario {self.scenario_ids[int(self.state.scenario[w])]})"
            )

    def _begin(self, mask: Tensor) -> None:
        """Seat the next episode in the worlds of `mask`; keys determine scenario and seed."""
        num_scenarios = len(self.scenario_ids)
        key = mix(mix(mix(self._seed) ^ self._world) ^ self._episode)
        drawn = mix(key ^ 1) % num_scenarios if self._fixed is None else self._fixed
        torch.where(mask, drawn.to(torch.int32), self.state.scenario, out=self.state.scenario)
        torch.where(mask, key, self.state.seed, out=self.state.seed)
        if self._traffic is not None:
            kind = self._traffic
            if self._shares is not None:
                share = (mix(key ^ 2) >> 23).to(torch.float64) / (1 << 40)
                kind = kind[torch.searchsorted(self._shares, share, right=True)]
            torch.where(mask, kind, self.state.traffic, out=self.state.traffic)
        if self._ranges:
            drawn_for = self.scenarios.key[self.state.scenario.long()]
            weights = draw_weights(self._base_weights, self._ranges, self.state.seed, drawn_for)
            torch.where(mask.unsqueeze(1), weights, self.weights, out=self.weights)
        self._episode += mask
        sim.reset(self.scenarios, self.state, mask, self._params)
        self._ended &= ~mask  # last, as `mask` may be `_ended` itself

    def _observe(self, buffers: list[Observation], mask: Tensor | None = None) -> Observation:
        """Write this turn's buffer, in the worlds of `mask`, and return it."""
        buffer = buffers[self._turn]
        sim.observe(self.scenarios, self.state, buffer, self._params, mask=mask)
        torch.autograd.graph.increment_version(list(buffer.tensors().values()))
        if self._observe_weights:
            drawn = condition(self.weights, self._ranges).unsqueeze(1)
            drawn = drawn.expand(*buffer.ego.shape[:2], -1)
            buffer = replace(buffer, ego=torch.cat([buffer.ego, drawn], -1))
        return self._squeeze_all(buffer)

    def _info(self, outcome: Outcome, offroad: Tensor) -> dict[str, Any]:
        terms = self._squeeze(outcome.terms)
        return {
            "terms": {term.name.lower(): terms[..., term] for term in sim.RewardTerm},
            "collision": self._squeeze(outcome.collision),
            "progress_fraction": self._squeeze(outcome.progress_fraction),
            "ttc": self._squeeze(outcome.ttc),
            "lane": self._squeeze(outcome.lane),
            "lane_offset": self._squeeze(outcome.lane_offset),
            "lane_heading": self._squeeze(outcome.lane_heading),
            "bad_action": self._squeeze(outcome.bad_action),
            "offroad": self._squeeze(offroad),
        }

    def _squeeze(self, t: Tensor) -> Tensor:
        return t if self.config.multi_agent else t.squeeze(1)

    def _squeeze_all(self, observation: Observation) -> Observation:
        return observation.map(self._squeeze)

    def _check_scenarios(self, index: Tensor) -> Tensor:
        count = len(self.scenario_ids)
        if index.shape != (self.num_worlds,) or index.is_floating_point():
            raise IndexError(
                f"scenario: expected {self.num_worlds} integers, "
                f"got {index.dtype} {list(index.shape)}"
            )
        if ((index < 0) | (index >= count)).any():
            raise IndexError(
                f"scenario: expected indices in 0..{count - 1}, got {index.min()}..{index.max()}"
            )
        return index.to(torch.int64)


def _checked(config: _Options, prefix: str) -> _Options:
    """The same options, each a float where one is meant; refuses those out of range."""
    floats: dict[str, Any] = {
        f.name: float(getattr(config, f.name)) for f in fields(config) if f.type == "float"
    }
    config = replace(config, **floats)
    check(config, prefix)
    return config


def make(
    scenarios: str | Path | Sequence[Scenario] = "procedural",
    num_worlds: int = 64,
    *,
    num_scenarios: int = 64,
    reward: str | RewardConfig | RewardFunction = "dense",
    reward_functions: Sequence[str | RewardFunction] = (),
    reward_ranges: Mapping[str, Sequence[float]] | None = None,
    observe_weights: bool = False,
    auto_reset: str | AutoReset = "same_step",
    device: str | torch.device = "cpu",
    seed: int = 0,
    traffic: str | Sequence[str] | Mapping[str, float] | Traffic = Traffic.log,
    **options: Any,
) -> VectorEnv:
    """A vector environment, in one call.

    Args:
        scenarios: `procedural`, a file or folder of recordings, or scenarios.
        num_worlds: worlds that step together, W.
        num_scenarios: how many to generate when procedural.
        reward: a preset of `config.REWARD_PRESETS`, weights, or a reward function alone, itself or
            by its name (`alpagym.reward_functions`).
        reward_functions: further ones, added to the weighted terms.
        reward_ranges: lowest and highest weight of terms that each episode draws, by term.
        observe_weights: whether those weights are seen, as the last columns of `Observation.ego`.
        auto_reset: `same_step`, `next_step` or `disabled`.
        device: `cpu`, `cuda`, `cuda:1`, or `auto`.
        seed: of generation, of scenario draws and of random numbers.
        traffic: a kind of traffic for all worlds, or a mixture as of `VectorEnv`.
        options: further fields of `SimConfig`, enumerations by name.

    Raises:
        ValueError: an unknown option, preset or choice.
        ScenarioError: no scenario could be loaded.
    """
    from alpagym.devices import choose_device
    from alpagym.scenarios.sources import load_or_generate

    known = {f.name: f for f in fields(SimConfig)}
    for name in options:
        if name not in known:
            raise ValueError(
                f"make: expected an option of SimConfig ({', '.join(known)}), got {name}"
            )
    mixture: Sequence[str] | Mapping[str, float] | None = None
    if isinstance(traffic, str | Traffic):
        options["traffic"] = traffic
    else:
        mixture = traffic
    config = replace(SimConfig(), **{name: _choice(name, value) for name, value in options.items()})
    weights, functions = named_reward(reward)
    if isinstance(auto_reset, str):
        if auto_reset not in AutoReset.__members__:
            raise ValueError(
                f"auto_reset: expected one of {', '.join(AutoReset.__members__)}, got {auto_reset}"
            )
        auto_reset = AutoReset[auto_reset]
    if not isinstance(auto_reset, AutoReset):
        names = ", ".join(AutoReset.__members__)
        raise ValueError(f"auto_reset: expected one of {names}, got {auto_reset!r}")
    device = choose_device(str(device))
    if isinstance(scenarios, str | Path):
        scenarios = load_or_generate(str(scenarios), count=num_scenarios, seed=seed)
    return VectorEnv(
        scenarios,
        num_worlds,
        sim_config=config,
        reward=weights,
        reward_functions=[*functions, *reward_functions],
        reward_ranges=reward_ranges,
        observe_weights=observe_weights,
        auto_reset=auto_reset,
        device=device,
        seed=seed,
        traffic=mixture,
    )


def _choice(name: str, value: Any) -> Any:
    """The value of an option; an enumeration's member from its name."""
    default = getattr(SimConfig(), name)
    kind = type(default)
    if isinstance(default, Enum) and isinstance(value, str):
        if value not in kind.__members__:
            raise ValueError(f"{name}: expected one of {', '.join(kind.__members__)}, got {value}")
        return kind[value]
    if isinstance(value, kind) or (kind is float and isinstance(value, int)):
        return value
    raise ValueError(f"{name}: expected {kind.__name__}, got {value!r}")
