"""Alpamayo's trajectory tokens: bins of the history's displacements and of the future's actions.

As NVlabs/alpamayo 1cba38c computes them: `models/delta_tokenizer.py` for the history,
`action_space/discrete_action_space.py` for the future. Tokens are bins from 0; where they stand in
a model's vocabulary is the model's affair. Frames, units and `check` are those of `action_space`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alpagym.interop.alpamayo import action_space
from alpagym.interop.alpamayo.action_space import NUM_FUTURE, NUM_HISTORY
from alpagym.interop.alpamayo.checks import (
    require,
    require_bins,
    require_finite,
    require_tokens,
    require_trajectory,
)

HISTORY_BINS = 1000
HISTORY_RANGE = (4.0, 4.0, 10.0)
"""Displacement x, y, z between poses that the bins span, either way [m]."""
FUTURE_BINS = 3000
FUTURE_RANGE = 10.0
"""Normalized action that the bins span, either way."""


def encode_history(
    history_xyz: Tensor, history_rotation: Tensor | None = None, *, check: bool = True
) -> Tensor:
    """Tokens of the displacements between poses: x, y, z (and yaw) of each pose in turn.

    The first pose counts as displaced from the origin, which is where the last one is: its tokens
    hold its position, and x saturates in bin 0 above about 2.7 m/s. The models are trained so.

    Args:
        history_xyz: [..., 16, 3].
        history_rotation: [..., 16, 3, 3] or [..., 16, 2] adds a yaw token to each pose. It counts
            clockwise, as upstream's does; the released models have none.
        check: Refuse values that are not finite; waits for the device.

    Returns:
        int64 [..., 48], with yaw [..., 64].

    Raises:
        ValueError: A wrong shape, precision or device, or a value that is not finite.
    """
    require("history_xyz", history_xyz, (NUM_HISTORY, 3))
    if history_rotation is not None:
        require_trajectory("history", history_xyz, history_rotation, NUM_HISTORY)
    if check:
        require_finite(history_xyz=history_xyz)
        if history_rotation is not None:
            require_finite(history_rotation=history_rotation)
    step = torch.nn.functional.pad(history_xyz, (0, 0, 1, 0)).diff(dim=-2)
    tokens = [_to_bins(step[..., axis], HISTORY_RANGE[axis], HISTORY_BINS) for axis in range(3)]
    if history_rotation is not None:
        yaw = torch.nn.functional.pad(_clockwise_yaw(history_rotation), (1, 0))
        turn = yaw.diff(dim=-1)
        tokens.append(_to_bins(torch.atan2(turn.sin(), turn.cos()), math.pi, HISTORY_BINS))
    return torch.stack(tokens, -1).flatten(-2)


def decode_history(
    tokens: Tensor, *, dtype: torch.dtype = torch.float32, check: bool = True
) -> Tensor:
    """Positions of 48 history tokens, [..., 48] -> [..., 16, 3] [m].

    Where the first token is saturated, all positions are off by what it lost.

    Raises:
        ValueError: A wrong shape, or (with `check`) a token that is no bin.
    """
    bins = _bins(tokens, (NUM_HISTORY, 3), HISTORY_BINS, check)
    step = [
        _from_bins(bins[..., axis], HISTORY_RANGE[axis], HISTORY_BINS, dtype) for axis in range(3)
    ]
    return torch.stack(step, -1).cumsum(-2)


def encode_action(action: Tensor, *, check: bool = True) -> Tensor:
    """Tokens of an action, [..., 64, 2] -> int64 [..., 128]: acceleration, curvature in turn.

    Values beyond the range take the last bin.

    Raises:
        ValueError: A wrong shape or precision, or (with `check`) a value that is not finite.
    """
    require("action", action, (NUM_FUTURE, 2))
    if check:
        require_finite(action=action)
    return _to_bins(action, FUTURE_RANGE, FUTURE_BINS).flatten(-2)


def decode_action(
    tokens: Tensor, *, dtype: torch.dtype = torch.float32, check: bool = True
) -> Tensor:
    """The action of 128 tokens, [..., 128] -> [..., 64, 2].

    Raises:
        ValueError: A wrong shape, or (with `check`) a token that is no bin.
    """
    bins = _bins(tokens, (NUM_FUTURE, 2), FUTURE_BINS, check)
    return _from_bins(bins, FUTURE_RANGE, FUTURE_BINS, dtype)


def encode_future(
    history_xyz: Tensor,
    history_rotation: Tensor,
    future_xyz: Tensor,
    future_rotation: Tensor,
    *,
    check: bool = True,
) -> Tensor:
    """Tokens of a future trajectory, int64 [..., 128]; arguments and errors as `encode`'s."""
    action = action_space.encode(
        history_xyz, history_rotation, future_xyz, future_rotation, check=check
    )
    return encode_action(action, check=False)


def decode_future(
    tokens: Tensor, history_xyz: Tensor, history_rotation: Tensor, *, check: bool = True
) -> tuple[Tensor, Tensor]:
    """The trajectory of 128 tokens: waypoints [..., 64, 3] and (cos, sin) [..., 64, 2].

    Other arguments and errors are those of `action_space.decode`.
    """
    action = decode_action(tokens, dtype=history_xyz.dtype, check=check)
    return action_space.decode(action, history_xyz, history_rotation, check=check)


def _clockwise_yaw(rotation: Tensor) -> Tensor:
    """Upstream reads R01 where R10 belongs: of a rotation about z, minus yaw."""
    if rotation.shape[-2:] == (3, 3):
        return torch.atan2(rotation[..., 0, 1], rotation[..., 0, 0])
    return torch.atan2(-rotation[..., 1], rotation[..., 0])


def _to_bins(value: Tensor, reach: float, num_bins: int) -> Tensor:
    # Of a tensor, as CUDA divides by a scalar through its reciprocal, which may round to another
    # bin than the CPU does.
    span = torch.full((), 2 * reach, dtype=value.dtype, device=value.device)
    part = (value + reach) / span
    return (part * (num_bins - 1)).round().clamp(0, num_bins - 1).long()


def _bins(tokens: Tensor, shape: tuple[int, int], num_bins: int, check: bool) -> Tensor:
    """Tokens [..., n] in the shape of what they stand for."""
    require_tokens(tokens, shape[0] * shape[1])
    if check:
        require_bins(tokens, num_bins)
    return tokens.unflatten(-1, shape)


def _from_bins(tokens: Tensor, reach: float, num_bins: int, dtype: torch.dtype) -> Tensor:
    return tokens.to(dtype) / (num_bins - 1) * (2 * reach) - reach
