"""What Alpamayo's tensors must be, said in one sentence where one is not."""

from __future__ import annotations

import torch
from torch import Tensor


def require(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse all but float32 and float64 of shape [..., *shape]."""
    if tensor.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name}: expected float32 or float64, got {tensor.dtype}")
    if tensor.shape[-len(shape) :] != shape:
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"{name}: expected shape [..., {wanted}], got {list(tensor.shape)}")


def require_trajectory(name: str, xyz: Tensor, rotation: Tensor, num_poses: int) -> None:
    """Refuse all but positions [..., P, 3] with rotations [..., P, 3, 3] or [..., P, 2]."""
    require(f"{name}_xyz", xyz, (num_poses, 3))
    kind = (3, 3) if rotation.shape[-2:] == (3, 3) else (2,)
    require(f"{name}_rotation", rotation, (num_poses, *kind))
    require_alike(f"{name}_rotation", rotation, f"{name}_xyz", xyz)
    if rotation.shape[: -len(kind)] != xyz.shape[:-1]:
        raise ValueError(
            f"{name}_rotation: expected the leading dimensions of {name}_xyz "
            f"{list(xyz.shape)}, got {list(rotation.shape)}"
        )


def require_alike(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Refuse a precision or device that differs from another tensor's."""
    if (tensor.dtype, tensor.device) != (other.dtype, other.device):
        raise ValueError(
            f"{name}: expected {other.dtype} on {other.device} like {other_name}, "
            f"got {tensor.dtype} on {tensor.device}"
        )


def require_broadcast(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Refuse leading dimensions, all but the last two, that do not broadcast."""
    try:
        torch.broadcast_shapes(tensor.shape[:-2], other.shape[:-2])
    except RuntimeError:
        raise ValueError(
            f"{name}: expected leading dimensions that broadcast with {other_name} "
            f"{list(other.shape)}, got {list(tensor.shape)}"
        ) from None


def require_finite(**tensors: Tensor) -> None:
    """Refuse NaN and infinity; waits for the device once."""
    finite = torch.stack([tensor.isfinite().all() for tensor in tensors.values()])
    if finite.all():
        return
    name, tensor = next((n, t) for n, t in tensors.items() if not t.isfinite().all())
    count = tensor.numel() - int(tensor.isfinite().sum())
    raise ValueError(
        f"{name}: expected finite numbers, got {count} NaN or infinite of {tensor.numel()}"
    )


def require_tokens(tokens: Tensor, count: int) -> None:
    """Refuse all but integers [..., count]."""
    if tokens.is_floating_point() or tokens.shape[-1:] != (count,):
        raise ValueError(
            f"tokens: expected integers of shape [..., {count}], "
            f"got {tokens.dtype} of shape {list(tokens.shape)}"
        )


def require_bins(tokens: Tensor, num_bins: int) -> None:
    """Refuse tokens outside of [0, num_bins); waits for the device once."""
    outside = (tokens < 0) | (tokens >= num_bins)
    if outside.any():
        raise ValueError(
            f"tokens: expected bins 0 .. {num_bins - 1}, got {int(tokens[outside][0])}"
        )
