"""The real scenarios beside the repository, loaded once for all modules."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.scenario import Scenario


@cache
def recordings(data: Path) -> list[Scenario]:
    """All that can be loaded, of every format; they are shared, so nobody may change them."""
    return load_scenarios(data)[0]
