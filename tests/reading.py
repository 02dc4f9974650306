"""What tests of readers ask: the one scenario of a file, why it is refused, what was noted."""

from __future__ import annotations

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
