"""What an update minimizes, as pure functions of tensors.

A batch is a table of steps: T steps of W rollouts, [T, W], with `valid` telling which are there.
Steps that belong to no rollout in particular (shuffled ones, say) are a table of one row. What
averages or compares within a rollout needs whole columns.

Order, after Cosmos-RL 0.4.7 (`grpo_trainer.compute_loss`): ratio, clip, weight of the behavior
policy, mask of the off-policy, average.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alpagym.training_config import ObjectiveConfig

MAX_LOG_RATIO = 20.0
"""To an anchor, log-ratios count as no farther from 0 than this: `exp` of more says nothing."""
MAX_KL = 10.0
"""Estimates of KL at one step count as no larger than this."""


@dataclass
class Loss:
    """The objective and what it was made of; scalars on the device."""

    total: Tensor
    policy: Tensor
    kl: Tensor
    """Estimate of KL to the anchor policy; 0 without one."""
    clip_fraction: Tensor
    """Share of the steps whose gradient clipping or truncation took away."""
    ratio_mean: Tensor
    ratio_max: Tensor
    ratio_max_at: Tensor
    """Its place in the table, flattened."""


def reduce_log_prob(log_prob: Tensor, reduction: str) -> Tensor:
    """Log-probability of an action from those of its dimensions, [..., D] -> [...].

    `sum` is the joint probability; `mean` (AlpaGym's) shrinks the ratio's exponent by D, so that
    clipping hardly ever acts.

    Raises:
        ValueError: another reduction.
    """
    if reduction == "sum":
        return log_prob.sum(-1)
    if reduction == "mean":
        return log_prob.mean(-1)
    raise ValueError(f"grpo.log_prob: expected sum or mean, got {reduction}")


def rollout_mean(value: Tensor, valid: Tensor) -> Tensor:
    """Mean over the valid steps of each rollout, [T, W] -> [1, W]; 0 for a rollout without any."""
    return (value * valid).sum(0, keepdim=True) / valid.sum(0, keepdim=True).clamp(min=1)


def log_ratio(
    log_prob: Tensor, old: Tensor, valid: Tensor, kind: str, limit: float = 20.0
) -> Tensor:
    """Of probabilities now and before, [T, W]: of each `step`, or its mean over the `rollout`.

    Beyond `limit` (of a rollout: above it) it is constant, so without gradient.

    Raises:
        ValueError: another kind.
    """
    difference = log_prob - old
    if kind == "step":
        return difference.clamp(-limit, limit)
    if kind == "rollout":
        return rollout_mean(difference, valid).clamp(max=limit).expand_as(difference)
    raise ValueError(f"grpo.ratio: expected step or rollout, got {kind}")


def clipped_surrogate(
    ratio: Tensor, advantage: Tensor, clip_low: float, clip_high: float, dual_clip: float = 0.0
) -> Tensor:
    """-min(r A, clip(r, 1 - low, 1 + high) A), and where A < 0 no more than -dual_clip A.

    Proximal policy optimization (Schulman et al. 2017, eq. 7) with a side for each bound (DAPO);
    the dual clip is that of Ye et al. 2020, eq. 3.

    Args:
        ratio: of probabilities, [...].
        advantage: [...].
        clip_low: negative for no bound.
        clip_high: negative for no bound.
        dual_clip: 0 for no bound.
    """
    low = 1.0 - clip_low if clip_low >= 0.0 else None
    high = 1.0 + clip_high if clip_high >= 0.0 else None
    clipped = ratio if low is None and high is None else ratio.clamp(low, high)
    loss = -torch.minimum(ratio * advantage, clipped * advantage)
    if dual_clip > 0.0:
        loss = torch.where(advantage < 0.0, torch.minimum(-dual_clip * advantage, loss), loss)
    return loss


def truncated_surrogate(ratio: Tensor, advantage: Tensor, limit: float) -> Tensor:
    """-min(r, limit) A: truncated importance sampling (Espeholt et al. 2018; AIPO)."""
    return -ratio.clamp(max=limit) * advantage


def kl_estimate(
    log_prob: Tensor, anchor: Tensor, kind: str = "k3", ratio: Tensor | None = None
) -> Tensor:
    """KL to an anchor policy from the actions taken, one estimate a step.

    With d = anchor - log_prob: k1 = -d, k2 = d^2 / 2, k3 = exp(d) - d - 1 (Schulman, "Approximating
    KL divergence", 2020). d counts as no farther from 0 than MAX_LOG_RATIO, and an estimate as no
    farther than MAX_KL.

    Args:
        log_prob: of the actions under the policy, [...].
        anchor: under the anchor, [...].
        kind: `k1`, `k2` or `k3`.
        ratio: of probabilities, weighs the estimate. The gradient of k1 alone is that of the
            log-probability, whatever the anchor: use it with a ratio.

    Raises:
        ValueError: another kind.
    """
    d = (anchor - log_prob).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    if kind == "k1":
        estimate = -d
    elif kind == "k2":
        estimate = 0.5 * d.square()
    elif kind == "k3":
        estimate = d.exp() - d - 1.0
    else:
        raise ValueError(f"grpo.kl_estimate: expected k1, k2 or k3, got {kind}")
    return (estimate if ratio is None else ratio * estimate).clamp(-MAX_KL, MAX_KL)


def step_weights(
    valid: Tensor, average: str, constant_steps: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """How an average weighs steps: the loss is sum(weight * value) / total.

    Weights and total of parts of a batch add up to those of the whole, so that minibatches and
    ranks together give what one batch gives.

    Args:
        valid: bool [T, W].
        average: as `ObjectiveConfig.average`.
        constant_steps: for `constant`.
        dtype: of what is averaged.

    Returns:
        weight [T, W] and total, a scalar.

    Raises:
        ValueError: an unknown average, or `constant` without a number.
    """
    there = valid.to(dtype)
    rollouts = torch.full((), float(valid.shape[1]), dtype=dtype, device=valid.device)
    if average == "step":
        return there, there.sum().clamp(min=1.0)
    if average == "sum":
        return there, torch.ones_like(rollouts)
    if average == "rollout":
        return there / there.sum(0).clamp(min=1.0), rollouts
    if average == "rollout_sum":
        return there, rollouts
    if average == "constant":
        if constant_steps < 1:
            raise ValueError(
                f"grpo.constant_steps: expected at least 1 for grpo.average=constant, "
                f"got {constant_steps}"
            )
        return there / constant_steps, rollouts
    raise ValueError(
        f"grpo.average: expected step, rollout, rollout_sum, constant or sum, got {average}"
    )


def on_policy_mask(
    log_prob: Tensor, behavior: Tensor, advantage: Tensor, valid: Tensor, limit: float
) -> Tensor:
    """Whether a step counts, bool [T, W]: not where A < 0 in a rollout whose policy has moved on.

    That is one whose mean log-ratio behavior - log_prob exceeds `limit` (Cosmos-RL's off-policy
    sequence masking, after DeepSeek-V3.2).
    """
    moved = rollout_mean(behavior - log_prob.detach(), valid) > limit
    return ~(moved & (advantage < 0.0))


def behavior_weight(old: Tensor, behavior: Tensor, cap: float) -> Tensor:
    """exp(old - behavior): undoes that actions were drawn by a policy other than `old`, [...].

    Weights above `cap` count as 0, if it is positive (AReaL's decoupled objective).
    """
    weight = (old - behavior).exp()
    return torch.where(weight > cap, torch.zeros_like(weight), weight) if cap > 0.0 else weight


def grpo_loss(
    log_prob: Tensor,
    old: Tensor,
    advantage: Tensor,
    valid: Tensor,
    objective: ObjectiveConfig,
    *,
    anchor: Tensor | None = None,
    behavior: Tensor | None = None,
    behavior_cap: float = 0.0,
    total: Tensor | None = None,
) -> Loss:
    """The objective of a table of steps.

    Args:
        log_prob: of the actions under the policy being trained, [T, W].
        old: when the update began, [T, W].
        advantage: [T, W].
        valid: bool [T, W].
        objective: which.
        anchor: under the anchor policy, [T, W]; needed for KL.
        behavior: under the policy that took them, [T, W]; None where that is `old`.
        behavior_cap: as the cap of `behavior_weight`.
        total: what the average divides by, if this is a part of a batch (`step_weights`).
    """
    ratio = log_ratio(log_prob, old, valid, objective.ratio, objective.max_log_ratio).exp()
    if objective.truncate_ratio > 0.0:
        loss = truncated_surrogate(ratio, advantage, objective.truncate_ratio)
    else:
        loss = clipped_surrogate(
            ratio, advantage, objective.clip_low, objective.clip_high, objective.dual_clip
        )
    if behavior is not None:
        loss = loss * behavior_weight(old, behavior, behavior_cap)
    if objective.off_policy_limit > 0.0:
        source = old if behavior is None else behavior
        loss = loss * on_policy_mask(log_prob, source, advantage, valid, objective.off_policy_limit)
    weight, own_total = step_weights(
        valid, objective.average, objective.constant_steps, log_prob.dtype
    )
    weight = weight / (own_total if total is None else total)
    policy = (loss * weight).sum()
    kl = torch.zeros_like(policy)
    if anchor is not None:
        corrected = objective.kl_corrected or objective.kl_estimate == "k1"
        by = (log_prob - old).exp() if corrected else None
        kl = (kl_estimate(log_prob, anchor, objective.kl_estimate, by) * weight).sum()
    with torch.no_grad():
        count = valid.sum().clamp(min=1)
        outside = _flat(ratio, advantage, objective) & valid
        seen = torch.where(valid, ratio, torch.zeros_like(ratio))
    return Loss(
        total=policy + objective.kl_weight * kl,
        policy=policy.detach(),
        kl=kl.detach(),
        clip_fraction=outside.sum() / count,
        ratio_mean=seen.sum() / count,
        ratio_max=seen.amax(),
        ratio_max_at=seen.argmax(),
    )


def _flat(ratio: Tensor, advantage: Tensor, objective: ObjectiveConfig) -> Tensor:
    """Where the surrogate no longer depends on the ratio, though there is an advantage."""
    if objective.truncate_ratio > 0.0:
        return (ratio > objective.truncate_ratio) & (advantage != 0.0)
    good = (objective.clip_high >= 0.0) & (ratio > 1.0 + objective.clip_high) & (advantage > 0.0)
    bad = (objective.clip_low >= 0.0) & (ratio < 1.0 - objective.clip_low) & (advantage < 0.0)
    far = (objective.dual_clip > 0.0) & (ratio > objective.dual_clip) & (advantage < 0.0)
    return good | bad | far
