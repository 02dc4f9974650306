"""Field values of NVIDIA maps: the same in RDS-HQ labels and ClipGT tables."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from alpagym.scenarios.polyline import arc_length
from alpagym.scenarios.scenario import ScenarioError
from alpagym.scenarios.units import KMH, MPH

MIN_LENGTH = 0.05
"""Shorter lines are left out [m]."""
_NO_ID = ("", "-1", "None")


def as_list(value: Any) -> list[Any]:
    """A list as it is, one value as a list of it, nothing as none."""
    return value if isinstance(value, list) else [] if value is None else [value]


def open_to_cars(uses: Any, vehicles: Any) -> bool:
    """Whether a lane of these uses and vehicle types is one that a car changes into."""
    types = as_list(vehicles)
    return "SHOULDER_LANE" not in as_list(uses) and (not types or "CAR" in types)


def speed(value: Any) -> float:
    """A speed limit [m/s] from a number or a text that holds one, in mph unless it says km/h."""
    text = str(value).lower()
    found = re.search(r"\d{1,3}(\.\d{1,6})?", text) if len(text) < 40 else None
    limit = float(found[0]) if found else 0.0
    unit = KMH if "km" in text or "kph" in text else MPH
    return limit * unit if 0 < limit < 200 else np.nan


def drivable_sides(fields: dict[str, Any]) -> tuple[float, float]:
    """`drivable_share` of the left and of the right side of a line."""
    left, right = (drivable_share(fields.get(f"{x}_driving_direction")) for x in ("left", "right"))
    return left, right


def drivable_share(directions: Any) -> float:
    """Share of a boundary's points beside which the source says that traffic runs."""
    runs = [
        str(v).upper() not in ("NOT_DRIVABLE", "UNKNOWN", "NONE", "") for v in as_list(directions)
    ]
    return sum(runs) / len(runs) if runs else 0.0


def points(value: Any, what: str) -> np.ndarray:
    """Points [m], float64 [n, 3], from a list of [x, y, z] or {x, y, z}.

    Raises:
        ScenarioError: naming `what` if it is no such list.
    """
    if isinstance(value, list) and value and all(isinstance(p, dict) for p in value):
        value = [(p.get("x"), p.get("y"), p.get("z")) for p in value]
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.zeros(())
    if array.size == 0 and isinstance(value, list):
        return np.zeros((0, 3))
    if array.ndim != 2 or array.shape[1] != 3:
        raise ScenarioError(f"{what} must be a list of points with x, y and z")
    return array


def is_line(line: np.ndarray) -> bool:
    """Whether points [n, 3] are finite and go somewhere."""
    return len(line) > 1 and bool(np.isfinite(line).all()) and arc_length(line)[-1] > MIN_LENGTH


def is_stop_line(category: Any, place: Any) -> bool:
    """Whether a wait line, by its category and place at a junction, is one to stop at."""
    return str(category or "STOP").upper() == "STOP" and str(place).upper() != "EXIT"


def is_stop_sign(category: Any) -> bool:
    """Whether a sign's category names a stop sign, rather than one that announces it."""
    text = str(category).upper()
    return text.endswith("STOP") or "STOP_SIGN" in text


def known_ids(values: Iterable[Any]) -> list[str]:
    """Identifiers as text, without those that stand for none."""
    return [str(v) for v in values if str(v) not in _NO_ID]
