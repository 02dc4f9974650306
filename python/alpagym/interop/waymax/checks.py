"""What every function of this package asks of its arguments."""

from __future__ import annotations

import numpy as np


def checked_positive(**values: float) -> np.ndarray:
    """The values as an array, in their order.

    Raises:
        ValueError: one of them is not above 0.
    """
    for name, value in values.items():
        if not value > 0.0:
            raise ValueError(f"{name}: expected a number above 0, got {value}")
    return np.array(list(values.values()), np.float64)


def checked_mask(name: str, mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The mask as bool.

    Raises:
        ValueError: another shape.
    """
    mask = np.asarray(mask, bool)
    if mask.shape != shape:
        raise ValueError(f"{name}: expected {list(shape)}, got {list(mask.shape)}")
    return mask
