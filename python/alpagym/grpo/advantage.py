"""Advantages inside groups: how much better than the other futures of the same state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NOISE = 1e-6
"""Returns that differ by less are equal but for rounding."""
EPSILON = 1e-6
"""Added to standard deviations that advantages are divided by."""


@dataclass
class Advantages:
    """What a group's comparison gives."""

    advantage: Tensor
    """Of each decision, [D, W]; 0 where not valid."""
    returns: Tensor
    """Undiscounted return of each rollout, [S, G]."""
    dead: Tensor
    """Groups whose rollouts all returned as good as the same: they teach nothing. bool [S]"""


def reward_to_go(reward: Tensor, discount: float) -> Tensor:
    """Discounted sum of this and all later rewards, [T, W]."""
    result = torch.empty_like(reward)
    ahead = torch.zeros_like(reward[0])
    for t in range(len(reward) - 1, -1, -1):
        ahead = reward[t] + discount * ahead
        result[t] = ahead
    return result


def between_decisions(reward: Tensor, discount: float, every: int) -> Tensor:
    """Rewards from each decision until the next, discounted to it: [T, W] -> [D, W]."""
    if every == 1:
        return reward
    chunks = [reward_to_go(chunk, discount)[0] for chunk in reward.split(every)]
    return torch.stack(chunks)


def group_advantages(
    reward: Tensor,
    valid: Tensor,
    group_size: int,
    *,
    credit: str = "step",
    baseline: str = "group",
    scale: str = "batch",
    discount: float = 1.0,
    dead_tolerance: float = 0.05,
    every: int = 1,
) -> Advantages:
    """Compare each rollout with the others of its group.

    Args:
        reward: [T, W], 0 where not valid; W = S * G, groups contiguous.
        valid: bool [T, W].
        group_size: G.
        credit: `step` gives each step its discounted reward-to-go, compared with those members of
            its group that are still driving at that step; `episode` gives every step of a rollout
            its return, compared with all members, as AlpaGym.
        baseline: what is taken away: the mean of the `group`, or of the others alone
            (`leave_one_out`, RLOO: Ahmadian et al. 2024).
        scale: divide by the standard deviation inside the `group` (GRPO), or over the whole `batch`
            (so that a group whose members differ in nothing but noise stays quiet), or not (`none`,
            Dr. GRPO).
        discount: per step; with `episode` credit returns are not discounted.
        dead_tolerance: returns of a dead group spread less than this times the standard deviation
            inside groups, pooled over all: what is left then is noise.
        every: steps from one decision to the next; advantages are those of decisions, [D, W], at
            steps 0, every, 2 every, ...

    Raises:
        ValueError: an unknown credit, baseline or scale.
    """
    groups = reward.shape[1] // group_size
    mask = valid[::every].unflatten(1, (groups, group_size))
    returns = (reward * valid).sum(0).view(groups, group_size)
    if credit == "step":
        value, compared = reward_to_go(reward * valid, discount)[::every].view_as(mask), mask
    elif credit == "episode":
        value, compared = returns.expand_as(mask), torch.ones_like(mask)
    else:
        raise ValueError(f"grpo.credit: expected step or episode, got {credit}")
    count = compared.sum(-1, keepdim=True).clamp(min=1)
    difference = (value - (value * compared).sum(-1, keepdim=True) / count) * compared
    if baseline == "leave_one_out":  # r - (sum - r) / (n - 1) = (r - mean) n / (n - 1)
        difference = difference * (count / (count - 1).clamp(min=1))
    elif baseline != "group":
        raise ValueError(f"grpo.baseline: expected group or leave_one_out, got {baseline}")
    advantage = difference * mask
    if scale == "group":
        advantage = advantage / (
            (difference.square().sum(-1, keepdim=True) / count).sqrt() + EPSILON
        )
    elif scale == "batch":
        advantage = advantage / (
            (advantage.square().sum() / mask.sum().clamp(min=1)).sqrt() + EPSILON
        )
    elif scale != "none":
        raise ValueError(f"grpo.scale: expected group, batch or none, got {scale}")
    spread = returns.amax(1) - returns.amin(1)
    usual = (returns - returns.mean(1, keepdim=True)).square().mean().sqrt()  # inside groups
    dead = spread <= dead_tolerance * usual + NOISE
    return Advantages((advantage * ~dead[:, None]).flatten(1), returns, dead)
