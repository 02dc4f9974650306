"""Numbers and names as a reader sees them; what is missing or not finite is a dash."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

DASH = "–"


def format_number(value: float) -> str:
    """Three significant digits, thousands as k, M or G."""
    if not math.isfinite(value):
        return DASH
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if suffix == 'k' else size):.3g}{suffix}"
    return f"{value:.4g}" if abs(value) >= 1000 else f"{value:.3g}"


def finite(value: Any) -> float | None:
    """A finite float, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return None
    return float(value) if math.isfinite(value) else None


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return DASH if value is None else f"{100 * value:.{digits}f} %"


def decimal(value: float | None) -> str:
    """A score with three decimals."""
    return DASH if value is None else f"{value:.3f}"


def count(value: Any) -> str:
    """A whole number with thousands separated."""
    number = finite(value)
    return DASH if number is None else f"{number:,.0f}"


def duration(seconds: float | None) -> str:
    """Seconds in the two largest units."""
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def plain(value: Any) -> str:
    """Any value as text."""
    if isinstance(value, (float, np.floating)):
        return f"{value:.6g}" if math.isfinite(value) else DASH
    return DASH if value is None or value == "" else str(value)


def words(key: Any) -> str:
    """A key as words."""
    return str(key).replace("_", " ")
