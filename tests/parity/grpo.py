"""Rows of the parity table: the objective and advantages, against Cosmos-RL, TRL and AlpaGym."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alpagym.grpo.advantage import group_advantages
from alpagym.grpo.loss import (
    clipped_surrogate,
    grpo_loss,
    kl_estimate,
    log_ratio,
    on_policy_mask,
    step_weights,
)
from alpagym.training_config import ObjectiveConfig
from parity.row import Row

COSMOS = "Cosmos-RL 0.4.7"
TRL = "TRL 1.16.0"
ALPAGYM = "AlpaGym 85ed1f5"
NO_LIMIT = float("inf")
AVERAGES = {
    "token-mean": "step",
    "token-sum": "sum",
    "seq-mean-token-sum": "rollout_sum",
    "seq-mean-token-mean": "rollout",
}
TRL_AVERAGES = ("rollout", "constant", "step", "rollout", "step")
"""Of grpo, dr_grpo, dapo, gspo and bnpo."""
QUIET = 1e-5
"""Rows of advantages where float32 and float64 differ by more are rounding upstream, not values."""


def rows(golden: Path) -> list[Row]:
    return [
        *_cosmos(golden / "cosmos_rl"),
        _advantages(golden / "cosmos_rl", "group", "adv_std"),
        _advantages(golden / "cosmos_rl", "none", "adv_unbiased"),
        *_trl(golden / "cosmos_rl"),
        *_alpagym(golden / "alpagym"),
    ]


def objective_of(o: dict[str, Any]) -> ObjectiveConfig:
    """Ours for options of Cosmos-RL, whose `dapo` differs from `grpo` in sampling alone."""
    by_rollout = o["variant"] == "gspo"
    constant = o["unbiased_loss_max_tokens"] if o["loss_type"] == "seq-mean-token-mean" else None
    return ObjectiveConfig(
        clip_low=o["epsilon_low"],
        clip_high=o["epsilon_high"],
        ratio="rollout" if by_rollout else "step",
        max_log_ratio=10.0 if by_rollout else 20.0,
        dual_clip=0.0 if by_rollout else o["lower_bound_ratio"],
        truncate_ratio=o["aipo_rho"] or 0.0,
        average="constant" if constant else AVERAGES[o["loss_type"]],
        constant_steps=constant or 0,
        kl_weight=o["kl_beta"],
        kl_corrected=o["unbiased_kl_estimate"],
        off_policy_limit=o["off_policy_masking_delta"] or 0.0,
    )


def _cosmos(folder: Path) -> Iterator[Row]:
    z = np.load(folder / "grpo_loss.npz")
    options = json.loads((folder / "grpo_loss.json").read_text())["options"]
    for dtype, suffix, loss_tolerance, gradient in (
        (torch.float64, "f64", (1e-9, 1e-9), (1e-12, 1e-9)),
        (torch.float32, "f32", (5e-6, 5e-6), (1e-6, 3e-4)),
    ):
        losses, gradients, wanted = [], [], []
        for k, o in enumerate(options):
            span = slice(z["offset"][k], z["offset"][k + 1])
            lengths = z["lengths"][k, : z["n_seq"][k]]
            valid = np.arange(max(1, lengths.max()))[:, None] < lengths
            column, row = np.nonzero(valid.T)

            def table(packed, valid=valid, row=row, column=column, dtype=dtype):
                full = torch.zeros(valid.shape, dtype=dtype)
                full[row, column] = torch.from_numpy(packed).to(dtype)
                return full

            log_prob = table(z["cur"][span]).requires_grad_()
            advantage = torch.from_numpy(z["advantages"][k, : len(lengths)]).to(dtype)
            loss = grpo_loss(
                log_prob,
                table(z["old"][span]),
                advantage.expand(valid.shape),
                torch.from_numpy(valid),
                objective_of(o),
                anchor=table(z["ref"][span]) if o["kl_beta"] else None,
                behavior=table(z["roll"][span]) if o["use_rollout_logprobs"] else None,
                behavior_cap=o["behav_imp_weight_cap"] or 0.0,
            )
            loss.total.backward()
            losses.append([loss.total.item(), loss.policy.item(), loss.kl.item()])
            assert log_prob.grad is not None
            gradients.append(log_prob.grad.numpy()[row, column])
            wanted.append(z[f"grad_{suffix}"][span])
        want, got = z[f"loss_{suffix}"], np.array(losses)
        yield Row.of(f"grpo.loss {suffix}", COSMOS, got - want, want, *loss_tolerance)
        slope, wanted_slope = np.concatenate(gradients), np.concatenate(wanted)
        name = f"grpo.loss gradient {suffix}"
        yield Row.of(name, COSMOS, slope - wanted_slope, wanted_slope, *gradient)


def _advantages(folder: Path, scale: str, name: str) -> Row:
    z = np.load(folder / "advantages.npz")
    got, want, size = [], [], []
    for k, n in enumerate(z["n"]):
        if np.abs(z["adv_std"][k, :n] - z["adv_std_f64_own"][k, :n]).max() >= QUIET:
            continue
        reward = torch.from_numpy(z["rewards"][k : k + 1, :n]).double()
        every = torch.ones_like(reward, dtype=torch.bool)
        ours = group_advantages(reward, every, int(n), credit="episode", scale=scale)
        got.append(ours.advantage[0].numpy())
        want.append(z[name][k, :n])
        size.append(np.full(n, np.abs(z["rewards"][k, :n]).max()))
    difference = np.concatenate(got) - np.concatenate(want)
    # Upstream subtracts a float32 mean from float32 rewards: its rounding is that of the rewards.
    name, rounding = f"grpo.advantage scale={scale}", 0.0 if scale == "group" else 3e-7
    return Row.of(name, COSMOS, difference, np.concatenate(size), 2e-5, rounding)


def _trl(folder: Path) -> Iterator[Row]:
    z = np.load(folder / "trl_losses.npz")
    for dtype, suffix, tolerance in ((torch.float64, "f64", 1e-12), (torch.float32, "f32", 1e-6)):
        losses, gradients = [], []
        for k, variant in enumerate(z["variant"]):

            def table(name, k=k, dtype=dtype):
                return torch.from_numpy(z[name][k].T.copy()).to(dtype)

            log_prob, old, anchor = table("cur").requires_grad_(), table("old"), table("ref")
            valid = torch.from_numpy(z["mask"][k].T.copy())
            advantage = torch.from_numpy(z["advantages"][k]).to(dtype).expand_as(old)
            kind = "rollout" if variant == 3 else "step"
            ratio = log_ratio(log_prob, old, valid, kind, NO_LIMIT).exp()
            low, high, delta = z["epsilon_low"][k], z["epsilon_high"][k], z["delta"][k]
            # Its cap of the unclipped ratio is a dual clip, as it lies above 1 + epsilon_high.
            dual = 0.0 if np.isnan(delta) else float(delta)
            loss = clipped_surrogate(ratio, advantage, low, high, dual)
            threshold = z["off_policy_threshold"][k]
            if not np.isnan(threshold):
                loss = loss * on_policy_mask(log_prob, old, advantage, valid, threshold)
            by = ratio if z["bias_correction_kl"][k] else None
            loss = loss + z["beta"][k] * kl_estimate(log_prob, anchor, "k3", by)
            constant = int(z["max_completion_length"][k])
            weight, total = step_weights(valid, TRL_AVERAGES[variant], constant, dtype)
            if variant == 2:
                total = total.new_tensor(float(z["num_items_in_batch"][k]))
            result = (loss * weight).sum() / total
            result.backward()
            losses.append(result.item())
            assert log_prob.grad is not None
            gradients.append(log_prob.grad.numpy().T)
        want = z[f"loss_{suffix}"]
        yield Row.of(
            f"grpo.loss {suffix}", TRL, np.array(losses) - want, want, tolerance, tolerance
        )
        if suffix == "f64":
            slope = z["grad_f64"]
            name = "grpo.loss gradient f64"
            yield Row.of(name, TRL, np.stack(gradients) - slope, slope, 1e-12, 1e-9)


def _alpagym(folder: Path) -> Iterator[Row]:
    z = np.load(folder / "ppo_objective.npz")
    for dtype, suffix, tolerance in ((torch.float64, "_f64", 1e-12), (torch.float32, "", 1e-6)):
        got: list[list[float]] = []
        gradients, wanted = [], []
        for k, n in enumerate(z["n_rows"]):

            def row(name, k=k, n=n, dtype=dtype):
                return torch.from_numpy(z[name][k : k + 1, :n]).to(dtype)

            log_prob = row("new_logprob").requires_grad_()
            valid = ~torch.from_numpy(z["is_padding"][k : k + 1, :n])
            bounds = float(z["clip_low"][k]), float(z["clip_high"][k])
            objective = ObjectiveConfig(*bounds, max_log_ratio=5.0)
            loss = grpo_loss(log_prob, row("old_logprob"), row("advantage"), valid, objective)
            loss.total.backward()
            weight, total = step_weights(valid, "step", dtype=dtype)
            kl = z["kl_beta"][k] * float((row("kl_div") * weight).sum() / total)
            got.append([loss.policy.item(), kl if z["has_kl"][k] else 0.0])
            assert log_prob.grad is not None
            gradients.append(log_prob.grad.numpy()[0])
            wanted.append(z[f"grad_new{suffix}"][k, :n])
        want = np.stack([z[f"policy_loss{suffix}"], z[f"kl_loss{suffix}"]], -1)
        label = "f64" if suffix else "f32"
        difference = np.array(got) - want
        yield Row.of(f"grpo.loss {label}", ALPAGYM, difference, want, tolerance, tolerance)
        slope = np.concatenate(wanted)
        difference = np.concatenate(gradients) - slope
        yield Row.of(
            f"grpo.loss gradient {label}", ALPAGYM, difference, slope, tolerance, tolerance
        )
