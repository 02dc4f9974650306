"""Reward functions of users, by name: `module:function`, or an entry point of `alpagym.rewards`.

A reward function is called after every step, on the simulator's device:

    def my_reward(state: State, outcome: Outcome, scenarios: Scenarios) -> Tensor  # float32 [W, E]

What it returns is added to the weighted terms of every ego that was driving in this step; what it
returns for others is ignored. It must not write to what it is given, and should not wait for a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from alpagym.config import REWARD_PRESETS, RewardConfig
from alpagym.plugins import load_named, registered
from alpagym.types import Outcome, Scenarios, State

ENTRY_POINTS = "alpagym.rewards"
"""Group of entry points that packages register reward functions in."""

RewardFunction = Callable[[State, Outcome, Scenarios], Tensor]


def known_rewards() -> list[str]:
    """Names that installed packages register."""
    return registered(ENTRY_POINTS)


def named_reward(
    given: str | RewardConfig | RewardFunction,
) -> tuple[RewardConfig, list[str | RewardFunction]]:
    """Weights of the terms, and functions added to them.

    Args:
        given: a preset of `config.REWARD_PRESETS`, weights, or a reward function alone, itself or
            by its name.

    Raises:
        ValueError: none of these.
    """
    if isinstance(given, RewardConfig):
        return given, []
    if isinstance(given, str):
        if given in REWARD_PRESETS:
            return REWARD_PRESETS[given], []
        if ":" in given or given in known_rewards():
            return RewardConfig(), [given]
        known = ", ".join([*REWARD_PRESETS, *known_rewards(), "module:function"])
        raise ValueError(f"reward: expected one of {known}, got {given}")
    if not callable(given):
        raise ValueError(f"reward: expected a name, a RewardConfig or a function, got {given!r}")
    return RewardConfig(), [given]


def load_reward(name: str) -> RewardFunction:
    """The reward function of a name.

    Args:
        name: `module:function`, or the name of an entry point.

    Raises:
        ValueError: an unknown name, with those known; a name that two packages register; a module
            that cannot be imported; or no such function in it.
    """
    result: RewardFunction = load_named("reward", "function", name, ENTRY_POINTS)
    return result


class NotFinite(ValueError):
    """A reward function returned NaN or infinity."""

    def __init__(self, name: str, value: float, world: int, ego: int, step: int) -> None:
        """As it is told where worlds have no names; `step` is that of the episode."""
        super().__init__(
            f"reward {name}: expected finite values, got {value} in world {world}, ego {ego}, "
            f"at step {step}"
        )
        self.name, self.value, self.world, self.step = name, value, world, step


class UserRewards:
    """Reward functions that run together; false if there are none."""

    def __init__(self, functions: Sequence[str | RewardFunction]) -> None:
        """Load those given by name.

        Raises:
            ValueError: as `load_reward`; or something that is neither a name nor a function.
        """
        self._functions: list[tuple[str, RewardFunction]] = []
        for given in functions:
            if isinstance(given, str):
                self._functions.append((given, load_reward(given)))
            elif callable(given):
                self._functions.append((getattr(given, "__qualname__", repr(given)), given))
            else:
                raise ValueError(
                    f"reward_functions: expected names or functions, got {type(given).__name__}"
                )

    def __bool__(self) -> bool:
        return bool(self._functions)

    @torch.no_grad()
    def add(self, scenarios: Scenarios, state: State, outcome: Outcome, driving: Tensor) -> None:
        """Add to `outcome.reward` where `driving`, bool [W, E]: egos not done before the step.

        Raises:
            ValueError: a function returned something else than float32 [W, E] on the device.
            NotFinite: or a value that is not finite.
        """
        reward = outcome.reward
        for name, function in self._functions:
            value = function(state, outcome, scenarios)
            if (
                not isinstance(value, Tensor)
                or value.dtype != reward.dtype
                or value.shape != reward.shape
                or value.device != reward.device
            ):
                raise ValueError(
                    f"reward {name}: expected {_described(reward)}, got {_described(value)}"
                )
            bad = driving & ~torch.isfinite(value)
            if bool(bad.any()):
                world, ego = (int(i) for i in torch.nonzero(bad)[0])
                got, step = float(value[world, ego]), int(state.step[world])
                raise NotFinite(name, got, world, ego, step)
            reward.add_(torch.where(driving, value, torch.zeros_like(value)))


def _described(value: object) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    kind = str(value.dtype).removeprefix("torch.")
    return f"{kind}{list(value.shape)} on {value.device}"
