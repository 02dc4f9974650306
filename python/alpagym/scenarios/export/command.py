"""`alpagym export`: scenarios into the formats of other programs."""

from __future__ import annotations

import os
from collections.abc import Callable

from alpagym.scenarios.edits import edit, named_edits
from alpagym.scenarios.export import FORMATS, ExportReport, export
from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.procedural import generate_many
from alpagym.scenarios.sources import PROCEDURAL
from alpagym.training_config import ExportConfig


def export_command(config: ExportConfig, say: Callable[[str], None]) -> ExportReport:
    """Load or generate scenarios, write them, and say what was skipped and what is not held.

    Raises:
        ValueError: an option that is missing or out of range; nothing to export.
        OSError: a file cannot be written.
    """
    if config.format not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {config.format}")
    if not config.out:
        raise ValueError("out: expected a folder to write to, e.g. out=exported")
    if config.copies < 1 or (config.copies > 1 and not config.edits):
        raise ValueError(f"copies: expected 1, or more with edits, got {config.copies}")
    edits = named_edits(config.edits)
    workers = config.workers or os.cpu_count() or 1
    if config.scenarios == PROCEDURAL:
        if config.count < 1:
            raise ValueError(f"count: expected at least 1 scenario, got {config.count}")
        scenarios = generate_many(config.count, config.seed, workers=workers)
    else:
        scenarios, skipped = load_scenarios(config.scenarios, workers=workers)
        if skipped:
            say(f"{config.scenarios}: {len(skipped)} skipped:")
            for entry in skipped:
                say(f"  {entry.reason}")
    if edits:
        seeds = [config.seed * config.copies + i for i in range(config.copies)]
        scenarios = [edit(scenario, edits, seed) for scenario in scenarios for seed in seeds]
    report = export(scenarios, config.out, config.format)
    title = FORMATS[config.format].title
    say(f"{config.out}: {_count(len(report.files), 'scenario')} as {title}")
    tags = ", ".join(f"{tag} ({count})" for tag, count in sorted(report.licenses.items()))
    say(f"license tags, kept in the files' metadata: {tags}")
    parts = ", ".join(
        what if count == len(scenarios) else f"{what} of {_count(count, 'scenario')}"
        for what, count in report.losses.items()
    )
    say(f"not held by the format: {parts}")
    return report


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' if number != 1 else ''}"
