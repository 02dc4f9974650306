"""Which scenarios come next: a sequence that follows from the seed and from what was reported."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from alpagym.keys import mix, uniform
from alpagym.scenarios.scenario import ScenarioError

WEIGHTS = ("uniform", "failure", "difficulty")
"""What scenarios may be weighted by."""
FLOOR = 0.1
"""Weight of a scenario in which nothing fails, or that is as easy as can be; the highest is 1."""
FORGET = 0.5
"""Share of the last report in a scenario's rate of failures."""
LOWEST = 1 / 16
"""How far scenarios whose groups are dead sink, halving by halving."""


class Curriculum:
    """Draws of N scenarios, each as often as its weight tells.

    Scenarios come by their clocks; a draw moves a scenario's clock on by 1 / weight. Of
    equal weights each scenario is therefore drawn once before any is drawn again. When between two
    moves it is due follows from seed, scenario and how often it was drawn: the order is another one
    each time.

    Weights by failure are `FLOOR` to 1 by the share of rollouts that failed; scenarios that nobody
    drove yet count as failing. Those by difficulty are `FLOOR` to 1 by `scenarios.difficulty`.
    """

    def __init__(self, key: np.ndarray, difficulty: np.ndarray, *, weights: str, seed: int) -> None:
        """Start with nothing drawn.

        Args:
            key: of each scenario's random numbers, int64 [N].
            difficulty: of each, 0 to 1, float [N].
            weights: one of `WEIGHTS`.
            seed: of the draws.

        Raises:
            ValueError: other weights.
        """
        if weights not in WEIGHTS:
            raise ValueError(f"stream.weights: expected one of {', '.join(WEIGHTS)}, got {weights}")
        self.kind = weights
        self._difficulty = np.asarray(difficulty, np.float64)
        self._key = mix(mix(seed) ^ torch.from_numpy(np.asarray(key, np.int64)))
        self._clock = np.zeros(len(key))
        self._drawn = np.zeros(len(key), np.int64)
        self._failing = np.ones(len(key))
        self._alive = np.ones(len(key))

    def __len__(self) -> int:
        return len(self._clock)

    @property
    def weight(self) -> np.ndarray:
        """Of each scenario now, in (0, 1], float64 [N]."""
        share = {
            "uniform": np.ones(len(self)),
            "failure": self._failing,
            "difficulty": self._difficulty,
        }[self.kind]
        return (FLOOR + (1.0 - FLOOR) * share) * self._alive

    def due(self, count: int) -> np.ndarray:
        """The scenarios that come next, at most `count` and none of them twice, int64 [n]."""
        share = uniform(mix(self._key ^ torch.from_numpy(self._drawn))).numpy()
        due = self._clock + share / self.weight
        first = np.arange(len(due))
        if count < len(due):
            first = np.sort(np.argpartition(due, count)[:count])
        return first[np.argsort(due[first], kind="stable")]

    def take(self, scenario: np.ndarray) -> None:
        """Move the clocks of scenarios that are drawn now, int [n], none of them twice."""
        self._clock[scenario] += 1.0 / self.weight[scenario]
        self._drawn[scenario] += 1

    def report(self, scenario: np.ndarray, failing: np.ndarray, dead: np.ndarray) -> None:
        """Tell of one group each of some scenarios.

        Args:
            scenario: indices, int [n].
            failing: share of the group's rollouts that failed, [n].
            dead: groups that taught nothing, whose scenarios are halved in weight; the others are
                restored. bool [n].
        """
        self._failing[scenario] += FORGET * (failing - self._failing[scenario])
        lower = np.maximum(0.5 * self._alive[scenario], LOWEST)
        self._alive[scenario] = np.where(dead, lower, 1.0)

    def state_dict(self) -> dict[str, Any]:
        """Everything that later draws depend on, but for seed and scenarios."""
        return {
            "weights": self.kind,
            "key": self._key.clone(),
            **{name: torch.from_numpy(getattr(self, f"_{name}").copy()) for name in _STATE},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was called.

        Raises:
            ScenarioError: it is of other scenarios, another seed or other weights.
        """
        same = state["weights"] == self.kind and torch.equal(state["key"], self._key)
        if not same:
            raise ScenarioError(
                "curriculum: expected the state of the same scenarios, seed and stream.weights"
            )
        for name in _STATE:
            getattr(self, f"_{name}")[:] = state[name].numpy()


_STATE = ("clock", "drawn", "failing", "alive")
