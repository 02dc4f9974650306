"""Keys of random draws: numbers that follow from what is drawn for, not from when or beside what.

A draw is a hash of its purpose and its subject (seed, scenario, episode), so it is the same in any
batch and on any device.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def mix(key: Tensor | int) -> Tensor:
    """A mixing of 63 bits; int64, non-negative."""
    key = torch.as_tensor(key, dtype=torch.int64)
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        key = (key ^ ((key >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return (key ^ ((key >> 31) & ((1 << 33) - 1))) & 0x7FFFFFFFFFFFFFFF


def purpose(name: str) -> int:
    """63 bits of a name."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") >> 1


def uniform(key: Tensor) -> Tensor:
    """A number in [0, 1) for each key, float64."""
    return (mix(key) >> 10).double() * 2.0**-53
