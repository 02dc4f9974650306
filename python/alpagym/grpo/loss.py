"""The GRPO objective: one function of tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Loss:
    """The objective and what it was made of; scalars on the device."""

    total: Tensor
    policy: Tensor
    kl: Tensor
    """k3 estimate to the anchor policy; 0 without one."""
    clip_fraction: Tensor
    ratio_max: Tensor


def reduce_log_prob(log_prob: Tensor, reduction: str) -> Tensor:
    """Log-probability of an action from those of its dimensions, [..., D] -> [...].

    `sum` is the joint probability; `mean` (AlpaGym's) shrinks the ratio's exponent by D, so that
    clipping
    hardly ever acts.
    """
    if reduction == "sum":
        return log_prob.sum(-1)
    if reduction == "mean":
        return log_prob.mean(-1)
    raise ValueError(f"grpo.log_prob: expected sum or mean, got {reduction}")


def grpo_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    anchor_log_prob: Tensor | None = None,
    kl_weight: float = 0.0,
) -> Loss:
    """Clipped surrogate plus KL to a frozen anchor policy, averaged over valid steps.

    -mean(min(r A, clip(r, 1 - low, 1 + high) A)) + weight * mean(exp(d) - d - 1), where
    r = exp(log_prob - old) and d = anchor - log_prob (Schulman's k3 estimate of KL to the anchor).

    Args:
        log_prob: of the actions under the policy being trained, [N].
        old_log_prob: when they were taken, [N].
        advantage: [N].
        clip_low: how far the ratio may fall below 1.
        clip_high: how far it may rise above 1.
        anchor_log_prob: under the anchor policy, [N].
        kl_weight: of the KL term.
    """
    log_ratio = log_prob - old_log_prob
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    policy = -torch.minimum(ratio * advantage, clipped * advantage).mean()
    kl = torch.zeros_like(policy)
    if anchor_log_prob is not None:
        difference = anchor_log_prob - log_prob
        kl = (difference.exp() - difference - 1.0).mean()
    with torch.no_grad():
        outside = ((ratio < 1.0 - clip_low) | (ratio > 1.0 + clip_high)).float().mean()
        ratio_max = ratio.max()
    return Loss(policy + kl_weight * kl, policy.detach(), kl.detach(), outside, ratio_max)
