"""The real scenarios beside the repository, loaded once for all modules."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alpagym.scenarios.load import files_of, is_part, read_file
from alpagym.scenarios.scenario import Scenario


@cache
def recordings(data: Path, every: int = 1) -> list[Scenario]:
    """What one in so many files holds, of every format; shared, so nobody may change them."""
    files = [file for file in files_of(data) if not is_part(file)][::every]
    return [s for file in files for s in read_file(file) if isinstance(s, Scenario)]
