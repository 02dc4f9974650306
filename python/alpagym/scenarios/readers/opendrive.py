"""OpenDRIVE maps: no recordings, so traffic is generated on them; see `scenarios.opendrive`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from alpagym.scenarios.scenario import Scenario, ScenarioError


def sniff(head: bytes, path: Path) -> bool:
    """Whether the file begins like OpenDRIVE, or claims to be it by its name."""
    return re.search(rb"<OpenDRIVE[\s>]", head) is not None or path.suffix.lower() == ".xodr"


def read(path: Path) -> Iterator[Scenario | ScenarioError]:
    """Seeded scenarios on the map; see `Reader.read`."""
    from alpagym.scenarios.opendrive.traffic import scenarios_on

    yield from scenarios_on(path)
