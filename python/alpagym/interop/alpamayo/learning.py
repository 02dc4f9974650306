"""GRPO on Alpamayo's expert: what is learned from, and one gradient step.

Loss and advantages are those of `alpagym.grpo`; KL is exact here, since each step of a draw is a
Gaussian under both models.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alpagym.grpo.learner import not_finite
from alpagym.grpo.loss import grpo_loss, reduce_log_prob, step_weights
from alpagym.interop.alpamayo.lora import adapters, off
from alpagym.interop.alpamayo.model import Alpamayo, Prefix
from alpagym.interop.alpamayo.sampling import densities, divergence, velocities
from alpagym.policies.flow_matching import Schedule
from alpagym.training_config import GrpoConfig


@dataclass
class Decisions:
    """What T decisions of W rollouts were, row by row: T W of them."""

    prefix: Prefix
    """What was seen; read once, and true for as many steps as are taken. May lie on the host."""
    path: Tensor
    """Of the draw that was driven. [N + 1, T W, 64, 2]"""
    log_prob: Tensor
    """Of each number drawn, when it was. [T W, N 128]"""
    advantage: Tensor
    """[T, W]"""
    valid: Tensor
    """bool [T, W]"""


def replay(
    model: Alpamayo,
    prefix: Prefix,
    samples: Tensor,
    timesteps: Tensor,
    noise_level: float,
    *,
    anchor: Alpamayo | None = None,
    reduction: str = "mean",
) -> dict[str, Tensor | None]:
    """What AlpaGym's trainer asks of a model: log-probabilities of recorded draws, and KL.

    Args:
        model: that learns.
        prefix: of R decisions.
        samples: recorded paths (`samples_list`), [R, N + 1, 64, 2].
        timesteps: [R, N + 1], alike in all rows.
        noise_level: of the draws.
        anchor: to which KL is taken; the model itself for what it was before LoRA adapted it.
        reduction: `mean` as AlpaGym, or `sum`.

    Returns:
        `log_probs` [R], differentiable, and `kl_div` [R], None without an anchor.

    Raises:
        ValueError: rows of different times, or an unknown reduction.
    """
    if (timesteps != timesteps[0]).any():
        raise ValueError("timesteps: expected the same times in all rows, got others")
    schedule = Schedule.of(timesteps[0].to(model.device, torch.float32), noise_level)
    path = samples.transpose(0, 1)[:, :, None].to(model.device)
    field = velocities(model, prefix, path, schedule)
    result: dict[str, Tensor | None] = {
        "log_probs": reduce_log_prob(densities(field, path, schedule)[:, 0], reduction),
        "kl_div": None,
    }
    if anchor is not None:
        held = _held(model, anchor, prefix, path, schedule)
        result["kl_div"] = reduce_log_prob(divergence(field, held, schedule)[:, 0], reduction)
    return result


def grpo_step(
    model: Alpamayo,
    decisions: Decisions,
    schedule: Schedule,
    config: GrpoConfig,
    optimizer: torch.optim.Optimizer,
    *,
    anchor: Alpamayo | None = None,
    rollouts: int = 0,
) -> dict[str, float]:
    """One gradient step on all decisions together.

    Args:
        model: whose parameters that want gradients are the optimizer's.
        decisions: recorded; advantages as `alpagym.grpo.advantage.group_advantages` gives them.
        schedule: of the draws.
        config: the objective; of KL, which is exact, the weight alone.
        optimizer: takes the step.
        anchor: to which KL is taken, with `kl_weight` above 0; as of `replay`.
        rollouts: in the expert at a time, while gradients add up; 0 for all.

    Returns:
        `policy_loss`, `kl`, `clip_fraction`, `ratio_mean`, `ratio_max` and `grad_norm`.

    Raises:
        ValueError: KL without an anchor or to a model that is none, or numbers that are not finite,
            upon which no step is taken.
    """
    if config.kl_weight > 0.0 and (anchor is None or (anchor is model and not adapters(model))):
        raise ValueError("grpo.kl_weight: expected an anchor, or LoRA to be without, got neither")
    steps, width = decisions.valid.shape
    old = reduce_log_prob(decisions.log_prob, config.log_prob).view(steps, width)
    total = step_weights(decisions.valid, config.average, config.constant_steps)[1]
    count = int(decisions.valid.sum())
    values = dict.fromkeys(
        ("policy_loss", "kl", "clip_fraction", "ratio_mean", "ratio_max", "grad_norm"), 0.0
    )
    optimizer.zero_grad(set_to_none=True)
    for part in torch.arange(width, device=old.device).split(rollouts or width):
        valid = decisions.valid[:, part]
        t, w = valid.nonzero(as_tuple=True)
        if not len(t):
            continue
        rows = t * width + part[w]
        prefix = decisions.prefix.index(rows).to(model.device)
        path = decisions.path[:, rows, None]
        field = velocities(model, prefix, path, schedule)
        found = reduce_log_prob(densities(field, path, schedule)[:, 0], config.log_prob)
        loss = grpo_loss(
            old[:, part].masked_scatter(valid, found),
            old[:, part],
            decisions.advantage[:, part],
            valid,
            config,
            total=total,
        )
        kl = torch.zeros_like(loss.policy)
        if config.kl_weight > 0.0 and anchor is not None:
            held = _held(model, anchor, prefix, path, schedule)
            each = reduce_log_prob(divergence(field, held, schedule)[:, 0], config.log_prob)
            weight = step_weights(valid, config.average, config.constant_steps)[0]
            kl = (each * weight[valid]).sum() / total
        (loss.total + config.kl_weight * kl).backward()
        share = len(t) / count
        values["policy_loss"] += float(loss.policy)
        values["kl"] += float(kl.detach())
        values["clip_fraction"] += share * float(loss.clip_fraction)
        values["ratio_mean"] += share * float(loss.ratio_mean)
        values["ratio_max"] = max(values["ratio_max"], float(loss.ratio_max))
    moved = [p for group in optimizer.param_groups for p in group["params"]]
    values["grad_norm"] = float(nn.utils.clip_grad_norm_(moved, config.max_grad_norm))
    if wrong := not_finite(values):
        raise ValueError(f"grpo: expected finite numbers, got {wrong}")
    optimizer.step()
    return values


@torch.no_grad()
def _held(
    model: Alpamayo, anchor: Alpamayo, prefix: Prefix, path: Tensor, schedule: Schedule
) -> Tensor:
    """The anchor's field on paths, [N, B, K, 64, 2]."""
    with off(anchor) if anchor is model else nullcontext():
        return velocities(anchor, prefix, path, schedule)
