"""What is wrong with a run, in plain sentences: the sign, the likely cause, the remedy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from alpagym.sim import RewardTerm
from alpagym.training_config import GrpoConfig

Values = Mapping[str, float]

MOSTLY_DEAD = 0.8
"""Share of dead groups from which on an iteration is called idle."""
JUMP = 20.0
"""A return that is so many times what returns were before has exploded."""
MUCH_CLIPPED = 0.4
"""Share of clipped steps from which on updates are called too large."""
FAR = 1.0
"""KL to the anchor from which on a policy is called far from it."""
LONG_GRADIENT = 20.0
"""So many times `max_grad_norm` is called long."""
NARROW = 0.02
"""Spread of actions in normalized units below which a policy no longer explores."""
WORSE = 2.0
"""The mean return of the last few iterations lies below the best by so many standard deviations."""
FEW = 5
"""Iterations that are averaged to tell."""


def diagnose(
    history: Sequence[Values], config: GrpoConfig, flight: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """What the last of some iterations shows to be wrong.

    Args:
        history: what `GrpoTrainer.iterate` returned, in order; at least one.
        config: of the run.
        flight: `GrpoTrainer.flight` of the last: findings name the rollout that shows them best.

    Returns:
        One sentence for each finding, by its name; empty when all is well.
    """
    found = {rule.__name__.strip("_"): rule(history, config) for rule in _RULES}
    for name, extreme in _WITNESS.items():
        if found[name] and extreme(history[-1]) in (flight or {}):
            found[name] += f"; see rollout {(flight or {})[extreme(history[-1])]}"
    return {name: sentence for name, sentence in found.items() if sentence}


def _constant_reward(history: Sequence[Values], config: GrpoConfig) -> str:
    now = history[-1]
    if now["dead_group_fraction"] < 1.0 or now["return_spread_in_group"] > 1e-6:
        return ""
    same = "all rollouts" if now["return_spread_across_groups"] <= 1e-6 else "all of a group"
    return (
        f"the reward is constant: {same} returned the same ({now['return_mean']:.4g}), so nothing "
        "was learned: look at the weights under reward=, or explore more (policy.log_std)"
    )


def _dead_groups(history: Sequence[Values], config: GrpoConfig) -> str:
    now = history[-1]
    share = now["dead_group_fraction"]
    if share < MOSTLY_DEAD or _constant_reward(history, config):
        return ""
    remedy = (
        "their scenarios are drawn less often from now on"
        if config.resample_dead and config.forked
        else "grpo.resample_dead=true draws their scenarios less often"
    )
    return (
        f"{share:.0%} of the groups are dead (all members did as well), so little was learned: "
        f"{remedy}; harder scenarios or more exploration (policy.log_std) would help"
    )


def _exploding_reward(history: Sequence[Values], config: GrpoConfig) -> str:
    before = [abs(v["return_mean"]) for v in history[:-1]]
    now = history[-1]
    if len(before) < FEW or abs(now["return_mean"]) <= JUMP * max(median(before), 1.0):
        return ""
    terms = {t.name.lower(): abs(now.get(f"term_{t.name.lower()}", 0.0)) for t in RewardTerm}
    largest = max(terms, key=lambda name: terms[name])
    return (
        f"the reward exploded: the mean return is {now['return_mean']:.4g}, after "
        f"{median(before):.4g} in the median so far; the largest term is {largest} "
        f"({terms[largest]:.4g}): bound it or lower its weight"
    )


def _large_updates(history: Sequence[Values], config: GrpoConfig) -> str:
    clipped = history[-1].get("clip_fraction", 0.0)
    if clipped < MUCH_CLIPPED:
        return ""
    return (
        f"{clipped:.0%} of the steps were clipped, the largest ratio was "
        f"{history[-1]['ratio_max']:.3g}: updates are too large for their data: lower "
        f"grpo.learning_rate (now {config.learning_rate:g}) or grpo.epochs (now {config.epochs})"
    )


def _far_from_anchor(history: Sequence[Values], config: GrpoConfig) -> str:
    kl = history[-1].get("kl", 0.0)
    if kl < FAR:
        return ""
    return (
        f"KL to the anchor is {kl:.3g} a step: the policy has left it: raise grpo.kl_weight (now "
        f"{config.kl_weight:g}), or let the anchor follow (grpo.anchor_decay=0.9)"
    )


def _long_gradients(history: Sequence[Values], config: GrpoConfig) -> str:
    norm = history[-1].get("grad_norm", 0.0)
    if norm < LONG_GRADIENT * config.max_grad_norm:
        return ""
    return (
        f"gradients are {norm:.3g} long, and shortened to {config.max_grad_norm:g}: advantages may "
        "be dominated by a few rollouts: try grpo.scale=batch or smaller reward weights"
    )


def _no_exploration(history: Sequence[Values], config: GrpoConfig) -> str:
    spread = history[-1]["spread"]
    if spread > NARROW:
        return ""
    return (
        f"actions hardly vary any more (spread {spread:.2g} in normalized units), so members of a "
        "group do the same: raise grpo.entropy_weight or lower grpo.learning_rate"
    )


def _inert_clipping(history: Sequence[Values], config: GrpoConfig) -> str:
    if config.log_prob != "mean" or config.epochs < 2 or len(history) < FEW:
        return ""
    if max(v.get("clip_fraction", 0.0) for v in history[-FEW:]) > 0.0:
        return ""
    return (
        "grpo.log_prob=mean makes ratios so small that clipping never acted: use grpo.log_prob=sum"
    )


def _getting_worse(history: Sequence[Values], config: GrpoConfig) -> str:
    returns = [v["return_mean"] for v in history]
    if len(returns) < 4 * FEW:
        return ""
    means = [sum(returns[i : i + FEW]) / FEW for i in range(len(returns) - FEW + 1)]
    steps = [b - a for a, b in pairwise(returns)]
    noise = math.sqrt(sum(s * s for s in steps) / len(steps) / 2.0)
    best = max(range(len(means)), key=lambda i: means[i])
    if means[-1] >= means[best] - WORSE * noise or best + FEW > len(returns) - FEW:
        return ""
    return (
        f"the mean return fell from {means[best]:.4g} around iteration {best + FEW // 2} to "
        f"{means[-1]:.4g}: learning has turned: lower grpo.learning_rate, or mix imitation in "
        "(grpo.imitation_weight=0.1)"
    )


def _not_filled(history: Sequence[Values], config: GrpoConfig) -> str:
    now = history[-1]
    if config.refills == 0 or now["refills"] < config.refills or now["live_groups"] >= 1.0:
        return ""
    return (
        f"after {config.refills} more rollouts only {now['live_groups']:.0%} of the groups asked "
        "for were alive: raise grpo.refills, or choose harder scenarios"
    )


def _largest_return(now: Values) -> str:
    return "return_min" if now["return_mean"] < 0.0 else "return_max"


_WITNESS: dict[str, Callable[[Values], str]] = {
    "exploding_reward": _largest_return,
    "large_updates": lambda now: "ratio_max",
}
"""Which extreme of the flight recorder shows a finding."""
_RULES: tuple[Callable[[Sequence[Values], GrpoConfig], str], ...] = (
    _constant_reward,
    _dead_groups,
    _exploding_reward,
    _large_updates,
    _far_from_anchor,
    _long_gradients,
    _no_exploration,
    _inert_clipping,
    _getting_worse,
    _not_filled,
)
