"""The narrow contract of every policy: what rollouts, evaluation and training ask of a network."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from alpagym.reward_ranges import Ranges
from alpagym.types import Observation


class Policy(nn.Module, ABC):
    """A distribution of actions given an observation; leading dimensions are free.

    Actions are in physical units, as the simulator takes them. Log-probabilities are by dimension,
    so that the objective chooses how to reduce them.

    A policy that observes reward weights names them in `ranges`; it finds them, from -1 to 1, as
    the last columns of `Observation.ego`, or drives by its own choice where those are missing.
    """

    ranges: Ranges = {}  # noqa: RUF012  replaced, never written to
    """Lowest and highest of each reward weight that it observes."""

    @abstractmethod
    def mean(self, observation: Observation) -> Tensor:
        """The action to drive with when nothing is to be explored, [..., D]."""

    @abstractmethod
    def sample(self, observation: Observation, noise: Tensor) -> tuple[Tensor, Tensor]:
        """An action and its log-probability by dimension, from standard normals; all [..., D].

        In rollouts, worlds that are done are among those asked for, with all masks false; what
        comes out for them is not used.
        """

    @abstractmethod
    def log_prob(self, observation: Observation, action: Tensor) -> Tensor:
        """Log-probability of an action by dimension, [..., D]; differentiable."""

    @abstractmethod
    def deviation(self, observation: Observation, action: Tensor) -> Tensor:
        """How far `mean` is from an action, in units of order 1, [..., D]; differentiable."""

    @abstractmethod
    def entropy(self) -> Tensor:
        """Of an action, summed over dimensions; a differentiable scalar."""
