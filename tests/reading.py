"""What tests of readers ask: the one scenario of a file, why it is refused, what was noted, and
whether two are the same.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest

from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.scenario import Scenario, ScenarioError


def only(path: Path) -> Scenario:
    """The only scenario of a file or folder, of which nothing was skipped."""
    (scenario,), skipped = load_scenarios(path)
    assert not skipped
    return scenario


def refused(path: Path) -> str:
    """The sentence by which a file is refused, without its name."""
    with pytest.raises(ScenarioError) as caught:
        load_scenarios(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ")
    assert "\n" not in sentence
    return sentence.removeprefix(f"{path}: ")


def notes(scenario: Scenario) -> str:
    return "; ".join(scenario.notes)


def agent(scenario: Scenario, number: int) -> int:
    """Index of the track with this id."""
    return int(np.flatnonzero(scenario.tracks.id == number)[0])


def element(scenario: Scenario, number: int) -> int:
    """Index of the map element with this id."""
    return int(np.flatnonzero(scenario.map.id == number)[0])


def same(a: object, b: object, where: str = "scenario") -> None:
    """Both are equal, field by field and bit for bit."""
    assert type(a) is type(b), where
    if is_dataclass(a):
        for f in fields(a):
            same(getattr(a, f.name), getattr(b, f.name), f"{where}.{f.name}")
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype, where
        assert a.shape == b.shape, where
        assert a.tobytes() == b.tobytes(), where
    else:
        assert a == b, where
