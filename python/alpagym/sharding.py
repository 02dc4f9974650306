"""Policies that learn in shards (FSDP2): each rank moves its part of every weight."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from alpagym.policies.policy import Policy
from alpagym.ranks import Ranks

LEARNS_BY = ("log_prob", "deviation", "entropy")
"""What of a policy is differentiated."""


class Learning:
    """A policy that drives, and what of it learns: itself, or shards of a copy.

    Attributes:
        policy: the one that drives, with whole weights.
        module: the one that learns.
    """

    def __init__(self, policy: Policy, ranks: Ranks, *, shard: bool) -> None:
        """Begin with the weights of `policy`; one rank has nothing to share out."""
        self.policy, self.module, self._ranks = policy, policy, ranks
        self._sharded = shard and not ranks.alone
        if self._sharded:
            self.module = copy.deepcopy(policy)
            device = next(policy.parameters()).device.type
            fully_shard(self.module, mesh=init_device_mesh(device, (ranks.count,)))
            assert isinstance(self.module, FSDPModule)
            self.module.set_gradient_divide_factor(1.0)  # losses have denominators of all ranks
            self.module.set_force_sum_reduction_for_comms(True)  # gloo knows nothing else
            for name in LEARNS_BY:
                register_fsdp_forward_method(self.module, name)

    def sum_gradients(self, others: Iterable[nn.Parameter] = ()) -> None:
        """Replace gradients, also of others that learn beside it, by those of all ranks.

        Shards have theirs from the backward pass.
        """
        summed = list(others) if self._sharded else [*self.module.parameters(), *others]
        self._ranks.sum_([p.grad for p in summed if p.grad is not None])

    @torch.no_grad()
    def gather(self) -> None:
        """Give the policy that drives the weights that were learned."""
        if self._sharded:
            for whole, part in self._pairs():
                whole.copy_(full(part))

    @torch.no_grad()
    def scatter(self) -> None:
        """Go on learning from the weights of the policy that drives."""
        if self._sharded:
            for whole, part in self._pairs():
                part.copy_(like(whole, part))

    def _pairs(self) -> Iterable[tuple[Tensor, Tensor]]:
        return zip(self.policy.parameters(), self.module.parameters(), strict=True)


def full(tensor: Tensor) -> Tensor:
    """A tensor whole, whatever part of it this rank has."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(whole: Tensor, part: Tensor) -> Tensor:
    """Of a whole tensor what this rank has of another of the same shape."""
    if not isinstance(part, DTensor) or whole.shape != part.shape:
        return whole
    return distribute_tensor(whole.to(part.device), part.device_mesh, part.placements)
