"""A minute of IDM traffic alone: nobody overlaps, and nobody stands for long."""

from __future__ import annotations

import pytest

from alpagym.config import SimConfig, Traffic
from alpagym.scenarios.procedural import KINDS, generate
from alpagym.scenarios.scenario import Scenario
from long_run import drive_long


def check_long_run(scenarios: list[Scenario], *, overlaps: int, standstills: int) -> None:
    overlapping, standing = drive_long(scenarios, SimConfig(traffic=Traffic.idm), 600)
    assert len({name for name, *_ in overlapping}) <= overlaps, overlapping
    assert len({name for name, *_ in standing}) <= standstills, standing


@pytest.mark.parametrize("kind", KINDS)
def test_idm_alone_drives_for_a_minute_without_overlap_or_gridlock(kind) -> None:
    check_long_run([generate(kind, seed) for seed in range(3)], overlaps=0, standstills=0)


@pytest.mark.heavy
def test_idm_alone_drives_for_a_minute_over_many_seeds() -> None:
    scenarios = [generate(KINDS[i % 9], 1000 + i) for i in range(360)]
    check_long_run(scenarios, overlaps=0, standstills=0)


@pytest.mark.parametrize("seed", [30008, 30026, 30085, 30257, 30282])
def test_an_all_way_stop_lets_in_only_whom_it_can_let_out(seed) -> None:
    """Drivers that meet in the middle of these block each other if all go at once."""
    check_long_run([generate("all_way_stop", seed)], overlaps=0, standstills=0)
