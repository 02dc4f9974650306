"""Readers of recorded scenarios. To add one: write its file, its line in `READERS` and its test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from alpagym.scenarios.readers import (
    alpasim_usdz,
    argoverse2_motion,
    argoverse2_sensor,
    asl,
    clipgt,
    commonroad,
    gpudrive_json,
    nuplan,
    opendrive,
    pufferdrive_bin,
    rds_hq,
    scenarionet,
    womd,
)
from alpagym.scenarios.scenario import Scenario, ScenarioError


@dataclass(frozen=True)
class Reader:
    """How one format is recognized and read."""

    name: str
    """As users know the format."""
    sniff: Callable[[bytes, Path], bool]
    """Whether a file with this beginning (4 KiB or all of it) and path is of the format."""
    read: Callable[[Path], Iterator[Scenario | ScenarioError]]
    """Yields each scenario of a file, or the reason why that one is left out.

    Raises `ScenarioError` where the file cannot be read further.
    """
    part: Callable[[Path], bool] = lambda path: False
    """Whether the file belongs to a scenario of this format that another file carries."""
    inputs: Callable[[Path], Iterable[Path]] = lambda path: ()
    """Other files that `read` takes in, or looks for; none of them needs to be there.

    When one comes, goes or changes, what was read is out of date. May raise `ScenarioError`.
    """


READERS = [
    Reader("WOMD TFRecord", womd.sniff, womd.read),
    # Before JSON, since a count of 91 or 123 objects looks like "[" or "{".
    Reader("PufferDrive .bin", pufferdrive_bin.sniff, pufferdrive_bin.read),
    Reader("GPUDrive / Nocturne JSON", gpudrive_json.sniff, gpudrive_json.read),
    Reader(
        "Argoverse 2 motion forecasting",
        argoverse2_motion.sniff,
        argoverse2_motion.read,
        argoverse2_motion.part,
        argoverse2_motion.inputs,
    ),
    Reader(
        "Argoverse 2 sensor log",
        argoverse2_sensor.sniff,
        argoverse2_sensor.read,
        argoverse2_sensor.part,
        argoverse2_sensor.inputs,
    ),
    Reader("ScenarioNet pickle", scenarionet.sniff, scenarionet.read, scenarionet.part),
    Reader("AlpaSim USDZ", alpasim_usdz.sniff, alpasim_usdz.read),
    Reader("AlpaSim log", asl.sniff, asl.read),
    Reader("nuPlan log", nuplan.sniff, nuplan.read, nuplan.part, nuplan.inputs),
    Reader("NVIDIA RDS-HQ", rds_hq.sniff, rds_hq.read, rds_hq.part, rds_hq.inputs),
    Reader("NVIDIA ClipGT", clipgt.sniff, clipgt.read, clipgt.part, clipgt.inputs),
    Reader("CommonRoad XML", commonroad.sniff, commonroad.read),
    Reader("OpenDRIVE", opendrive.sniff, opendrive.read),
]
