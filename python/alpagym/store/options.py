"""Options of `alpagym convert` and `alpagym doctor data`, the schema of their command lines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ConvertConfig:
    """`alpagym convert`."""

    scenarios: str = ""
    """A file or folder of recordings, or `procedural`."""
    out: str = ""
    """Folder to write: a new one, an empty one, or one of an earlier convert that goes on."""
    workers: int = 0
    """Processes that read; 0 for all cores. What is written does not depend on it."""
    max_agents: int = 0
    """Scenarios with more agents are skipped; 0 for no bound."""
    shard_scenarios: int = 256
    """Scenarios that a shard holds at most, 1 to 4096; fewer where they are large."""
    count: int = 512
    """Scenarios to generate, when procedural."""
    seed: int = 0
    """Of what is generated; a run of another seed generates other scenarios."""
    pack: bool = True
    """Also write what streaming reads (`docs/streaming.md`), as much again; it is made when it is
    missed, too."""
    check: bool = False
    """Also report on the health of every scenario, as `alpagym doctor data` does."""


@dataclass(frozen=True)
class DoctorConfig:
    """`alpagym doctor data`."""

    scenarios: str = ""
    """A file or folder of recordings or shards."""
    output: str = ""
    """JSON file to write; empty for standard output."""
    workers: int = 0
    """Processes that read; 0 for all cores."""
    max_agents: int = 0
    """Scenarios with more agents are skipped; 0 for no bound."""
