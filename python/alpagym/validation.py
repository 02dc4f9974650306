"""Closed-loop evaluation during training, on scenarios that nothing else uses; the best is kept."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from alpagym.config import SimConfig
from alpagym.evaluation import Results, evaluate_together, pack
from alpagym.paired import paired_difference
from alpagym.policies.policy import Policy
from alpagym.ranks import ALONE, Ranks
from alpagym.scenarios.scenario import Scenario


class Validation:
    """Drives the same scenarios every so many iterations, and remembers the best policy.

    The best is the one with the highest mean scene score; the first of several.

    Attributes:
        step: iterations that the best had been trained for; -1 for none yet.
        score: its scene score.
        failure_rate: its failure rate.
    """

    def __init__(
        self,
        scenarios: Sequence[Scenario],
        config: SimConfig,
        device: torch.device,
        *,
        every: int,
        iterations: int,
        ranks: Ranks = ALONE,
    ) -> None:
        """Put the scenarios onto the device; nothing is done where there are none, or `every` is 0.

        Args:
            scenarios: to drive.
            config: the simulator's.
            device: where to drive.
            every: iterations from one time to the next.
            iterations: of the run; the last policy is looked at in any case.
            ranks: each of which drives its part.
        """
        self._scenarios, self._config, self._device = scenarios, config, device
        self._every, self._iterations = every if scenarios else 0, iterations
        self._ranks = ranks
        own = scenarios[ranks.share(len(scenarios))]
        self._packed = pack(own, config, device) if self._every and own else []
        self.step, self.score, self.failure_rate = -1, float("-inf"), float("nan")
        self._weights: dict[str, Tensor] = {}

    def due(self, done: int) -> bool:
        """Whether to look at the policy after `done` iterations."""
        return self._every > 0 and (done % self._every == 0 or done == self._iterations)

    def judge(self, policy: Policy, done: int) -> dict[str, Any]:
        """Drive, and keep a copy of the policy if it is the best; returns what to log."""
        results = self._drive(policy)
        numbers = {k: v for k, v in results.summary().items() if not isinstance(v, list)}
        score = float(numbers["scene_score"])
        if score > self.score:
            self.step, self.score = done, score
            self.failure_rate = float(numbers["failure_rate"])
            self._weights = {k: v.detach().clone() for k, v in policy.state_dict().items()}
        return numbers | {"best": self.step}

    def best(self, policy: Policy) -> Policy:
        """The best so far, as a policy of its own; `policy` tells its kind."""
        copied = copy.deepcopy(policy).eval()
        copied.load_state_dict(self._weights)
        return copied

    def verdict(self, last: Policy) -> str:
        """One sentence if the last policy is worse than the best beyond chance, else nothing.

        The best of several looks is lucky, too: the interval is wider by their number (Bonferroni).
        """
        if self.step < 0 or self.step == self._iterations:
            return ""
        now, then = self._drive(last), self._drive(self.best(last))
        looks = len({*range(0, self._iterations, self._every), self._iterations})
        found = paired_difference(
            now.scene_score, then.scene_score, now.recordings, level=1.0 - 0.05 / looks
        )
        if found.interval is None or found.interval[1] >= 0.0:
            return ""
        return (
            f"on the {len(self._scenarios)} validation scenarios the last policy has scene score "
            f"{found.first:.3f}, that of iteration {self.step} had {found.second:.3f} "
            f"(difference {found.value:.3f}, interval for the best of {looks} looks "
            f"{found.interval[0]:.3f} to {found.interval[1]:.3f}): checkpoints/best.safetensors "
            "has it, final=best ends with it"
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that later choices depend on."""
        numbers = {"step": self.step, "score": self.score, "failure_rate": self.failure_rate}
        return {**numbers, "weights": self._weights} if self.step >= 0 else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was called."""
        if state:
            self.step, self.score = state["step"], state["score"]
            self.failure_rate = state["failure_rate"]
            self._weights = {k: v.to(self._device) for k, v in state["weights"].items()}

    def _drive(self, policy: Policy) -> Results:
        policy.eval()
        return evaluate_together(
            self._ranks, policy, self._scenarios, self._config, self._device, self._packed
        )
