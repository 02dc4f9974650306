"""Scenarios by name: exactly those that an option asks for, and which recordings are held out."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from alpagym.scenarios.egos import drives_of
from alpagym.scenarios.scenario import EGO_MARK, Scenario, ScenarioError, recording_of


def names_in(option: str, text: str) -> list[str]:
    """Ids that an option gives: those in a file, one a line, or comma-separated.

    Raises:
        ScenarioError: there is none, or the file cannot be read.
    """
    names = text.split(",")
    try:
        if Path(text).is_file():
            names = Path(text).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{option}={text:.200}: cannot be read ({error})") from error
    names = [name.strip() for name in names]
    names = [name for name in names if name and not name.startswith("#")]
    if not names:
        raise ScenarioError(f"{option}={text:.200}: expected ids of scenarios, got none")
    return names


def selected(option: str, text: str, ids: Sequence[str]) -> np.ndarray:
    """Indices of the scenarios that an option names, in the order of `ids`.

    The id of a recording names all of its drives.

    Args:
        option: for messages.
        text: as of `names_in`; empty for all scenarios.
        ids: of the scenarios there are.

    Raises:
        ScenarioError: an id that is not there.
    """
    if not text:
        return np.arange(len(ids))
    names = set(names_in(option, text))
    of = [recording_of(id) for id in ids]
    _all_there(option, names, {*ids, *of})
    return np.array(
        [i for i, id in enumerate(ids) if id in names or of[i] in names], dtype=np.int64
    )


def selected_drives(
    scenarios: Sequence[Scenario], option: str, text: str, count: int
) -> list[Scenario]:
    """At most `count` drives of each scenario; or those that an option names, however many.

    Raises:
        ScenarioError: an id that is not there.
    """
    wanted = {recording_of(n) for n in names_in(option, text) if EGO_MARK in n} if text else set()
    drives = [
        drive
        for scenario in scenarios
        for drive in drives_of(
            scenario, scenario.tracks.num_agents if scenario.recording in wanted else count
        )
    ]
    return [drives[i] for i in selected(option, text, [drive.id for drive in drives])]


def held_out(
    recordings: Collection[str], *, named: str = "", fraction: float, seed: int
) -> set[str]:
    """Recordings to judge by: those that `data.hold_out` names, or a share drawn from the seed.

    What shares a recording stays on one side, in whatever formats or shards it comes.

    Raises:
        ScenarioError: a recording that is not there.
        ValueError: a fraction outside (0, 1).
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(
            f"data.held_out_fraction: expected a share between 0 and 1, got {fraction}"
        )
    ids = sorted(set(recordings))
    if named:
        names = {recording_of(name) for name in names_in("data.hold_out", named)}
        _all_there("data.hold_out", names, set(ids))
        return names
    order = np.random.default_rng(seed).permutation(len(ids))
    count = min(max(round(fraction * len(ids)), 1), len(ids) - 1)
    return {ids[i] for i in order[:count]}


def _all_there(option: str, names: set[str], known: set[str]) -> None:
    missing = sorted(names - known)
    if missing:
        near = difflib.get_close_matches(missing[0], known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ScenarioError(f"{option}: {missing[0]:.200}: no such scenario here{hint}")
