"""Policies: the contract, and what users build theirs from."""

from alpagym.policies.gaussian import GaussianPolicy
from alpagym.policies.policy import Policy, Sizes

__all__ = ["GaussianPolicy", "Policy", "Sizes"]
