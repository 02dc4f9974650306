"""Reward weights drawn for each episode, and as inputs of a policy: one policy, many styles.

`ranges` names reward terms and the lowest and highest weight of each; the weights of other terms
stay as configured. A draw follows from the episode's seed, its scenario and the term's name, so it
is the same in any batch, and the same for all worlds of a group.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from alpagym.config import RewardTerm
from alpagym.keys import mix, purpose, uniform

Ranges = dict[str, tuple[float, float]]
"""Lowest and highest weight by reward term."""


def check_ranges(given: Mapping[str, Sequence[float]], name: str = "reward_ranges") -> Ranges:
    """The same ranges as tuples of floats.

    Raises:
        ValueError: an unknown term, or not a low and a higher finite number.
    """
    ranges: Ranges = {}
    for term, values in given.items():
        if term.upper() not in RewardTerm.__members__:
            known = ", ".join(RewardTerm.__members__).lower()
            raise ValueError(f"{name}: expected any of {known}, got {term}")
        pair = list(values) if isinstance(values, Sequence) else [values]
        numbers = all(isinstance(v, int | float) and math.isfinite(v) for v in pair)
        if len(pair) != 2 or not numbers or not pair[0] < pair[1]:
            raise ValueError(
                f"{name}.{term}: expected a low and a higher finite number, got {values}"
            )
        ranges[term] = (float(pair[0]), float(pair[1]))
    return ranges


def draw_weights(weights: Tensor, ranges: Ranges, seed: Tensor, scenario_key: Tensor) -> Tensor:
    """Weights for each episode, uniform within their ranges.

    Args:
        weights: of the terms without a range, float32 [1, R].
        ranges: of the others.
        seed: of each episode, int64 [W].
        scenario_key: `Scenarios.key` of each episode's scenario, int64 [W].

    Returns:
        float32 [W, R].
    """
    drawn = weights.repeat(len(seed), 1)
    episode = mix(seed) ^ scenario_key
    for term, (low, high) in ranges.items():
        share = uniform(mix(episode) ^ purpose(f"reward weight {term}"))
        drawn[:, RewardTerm[term.upper()]] = (low + (high - low) * share).to(drawn.dtype)
    return drawn


def condition(weights: Tensor, ranges: Ranges) -> Tensor:
    """Weights [..., R] of the terms of `ranges`, from -1 at the lowest to 1, [..., C]."""
    columns = [
        2.0 * (weights[..., RewardTerm[term.upper()]] - low) / (high - low) - 1.0
        for term, (low, high) in ranges.items()
    ]
    return torch.stack(columns, -1) if columns else weights[..., :0]
