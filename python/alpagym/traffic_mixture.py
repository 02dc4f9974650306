"""Several kinds of traffic in one batch of worlds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from alpagym import sim
from alpagym.config import Traffic


def traffic_mixture(
    traffic: Sequence[str] | Mapping[str, float] | None, num_worlds: int, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """Codes of `State.traffic`: one a world, or one a kind and where the draws of kinds part.

    Raises:
        ValueError: an unknown kind, a share that is negative or not finite, shares that are all
            zero, or another number of names than worlds.
    """
    if traffic is None:
        return None, None
    for name in traffic:
        if name not in Traffic.__members__:
            known = ", ".join(Traffic.__members__)
            raise ValueError(f"traffic: expected names of {known}, got {name}")
    codes = torch.tensor(
        [sim.traffic_code(Traffic[name]) for name in traffic], dtype=torch.uint8, device=device
    )
    if not isinstance(traffic, Mapping):
        if len(traffic) != num_worlds:
            raise ValueError(
                f"traffic: expected one name for each of {num_worlds} worlds, got {len(traffic)}"
            )
        return codes, None
    shares = torch.tensor([float(share) for share in traffic.values()], dtype=torch.float64)
    if not (shares.isfinite().all() and (shares >= 0).all() and shares.sum() > 0):
        raise ValueError(f"traffic: expected shares of at least 0, got {dict(traffic)}")
    return codes, (shares.cumsum(0) / shares.sum())[:-1].to(device)
