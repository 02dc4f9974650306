"""The narrow contract of every policy: what rollouts, evaluation and training ask of a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alpagym.reward_ranges import Ranges
from alpagym.training_config import PolicyConfig
from alpagym.types import Observation


@dataclass(frozen=True)
class Sizes:
    """How many numbers belong to one decision of a policy."""

    noise: int
    """Standard normals that it is drawn from."""
    decision: int
    """What is recorded of it, N."""
    log_prob: int
    """Dimensions of its log-probability, L."""
    memory: int = 0
    """What it leaves for the next one, M."""


def memory_of(policy: Policy | None, worlds: int, device: torch.device) -> Tensor:
    """What a policy remembers when episodes begin: nothing, [W, M]."""
    sizes = None if policy is None else policy.sizes
    return torch.zeros(worlds, 0 if sizes is None else sizes.memory, device=device)


class Policy(nn.Module, ABC):
    """A distribution of decisions given an observation; leading dimensions are free.

    Five methods make a policy whose decisions are actions; in physical units, as the simulator
    takes them (`sim.action_size` numbers, D). Log-probabilities are by dimension, so that the
    objective chooses how to reduce them. The rest have defaults: a policy may decide in numbers of
    its own (`sizes`, `action_of`), and remember (`remember`). It is asked at steps 0, k, 2 k, ...
    of an episode, with k of `SimConfig.replan_every`.

    A policy that observes reward weights names them in `ranges`; it finds them, from -1 to 1, as
    the last columns of `Observation.ego`, or drives by its own choice where those are missing.
    What it remembers stands in the columns before them, after the features; it is zeros at the
    first step, and may be missing likewise.
    """

    made_of: PolicyConfig
    """By `alpagym.policies.registry.make_policy`."""
    ranges: Ranges = {}  # noqa: RUF012  replaced, never written to
    """Lowest and highest of each reward weight that it observes."""
    sizes: Sizes | None = None
    """None: as many of each as an action has numbers, and nothing is remembered."""
    imitates: int = 1
    """Recorded steps ahead, P, that `deviation` is shown: the controls until the next decision, or
    a plan."""
    imitation_noise: int = 0
    """Standard normals that `deviation` is drawn from."""
    imitation_knee: float = 1.0
    """Deviations larger than this count linearly, not squared, in imitation."""

    @abstractmethod
    def mean(self, observation: Observation) -> Tensor:
        """The action to drive with when nothing is to be explored, [..., D]."""

    @abstractmethod
    def sample(self, observation: Observation, noise: Tensor) -> tuple[Tensor, Tensor]:
        """A decision [..., N] and its log-probability by dimension [..., L], from normals.

        In rollouts, worlds that are done are among those asked for, with all masks false; what
        comes out for them is not used.
        """

    @abstractmethod
    def log_prob(self, observation: Observation, decision: Tensor) -> Tensor:
        """Log-probability of a decision by dimension, [..., L]; differentiable."""

    @abstractmethod
    def deviation(
        self, observation: Observation, recorded: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """How far the policy is from what was recorded, in units of order 1, [..., 2 P].

        Differentiable.

        Args:
            observation: as it was then.
            recorded: acceleration [m/s^2] and curvature [1/m] of P steps, [..., 2 P].
            noise: standard normals, with `imitation_noise`.
        """

    @abstractmethod
    def entropy(self) -> Tensor:
        """Of a decision, summed over dimensions; a scalar, differentiable where weights matter."""

    def action_of(self, observation: Observation, decision: Tensor) -> Tensor:
        """The action that a decision amounts to, [..., N] -> [..., D]."""
        return decision

    def remember(self, observation: Observation) -> Tensor:
        """What to keep for the next decision, of what is seen and remembered now: [..., M]."""
        return observation.ego[..., :0]

    def choose_weights(self, weights: Mapping[str, float]) -> None:
        """Drive for these reward weights where the observation holds none.

        Args:
            weights: by term.

        Raises:
            ValueError: a term that the policy does not observe, or a weight out of its range.
        """
        for term in weights:
            known = ", ".join(self.ranges) or "none"
            raise ValueError(
                f"reward_weights: expected any of those the policy observes ({known}), got {term}"
            )
