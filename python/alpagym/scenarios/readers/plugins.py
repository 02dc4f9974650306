"""Readers of users: functions from a path to scenarios, as entry points of `alpagym.readers`.

    def read(path: Path) -> Scenario | Iterable[Scenario] | None

A file for which the function gives no scenario is none of its own; other readers are asked then.
Plug-ins are asked before the readers of this package, in the order of their names.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from alpagym.scenarios.scenario import Scenario, ScenarioError

ENTRY_POINTS = "alpagym.readers"
"""Group of entry points that packages register readers in."""


@dataclass(frozen=True)
class Plugin:
    """A reader of a user."""

    name: str
    """Of the entry point; messages call it so."""
    function: Callable[[Path], Any]

    def read(self, path: Path) -> Iterator[Scenario | ScenarioError]:
        """Each scenario of a file, and why there are no more if the function fails."""
        try:
            given = self.function(path)
            if given is None:
                return
            if isinstance(given, Scenario):
                given = [given]
            if not isinstance(given, Iterable):
                raise TypeError(f"returned {_kind(given)}, expected Scenarios or None")
            for scenario in given:
                yield self._checked(path, scenario)
        except Exception as error:
            yield self._failure(path, error)

    def _checked(self, path: Path, given: object) -> Scenario | ScenarioError:
        """A scenario as it was given, or why it cannot be used."""
        try:
            if isinstance(given, ScenarioError):
                raise given
            if not isinstance(given, Scenario):
                raise TypeError(f"gave {_kind(given)}, expected a Scenario")
            return given.validate()
        except Exception as error:
            return self._failure(path, error)

    def _failure(self, path: Path, error: Exception) -> ScenarioError:
        reason = " ".join(str(error).split()).removeprefix(f"{path}: ")
        if not isinstance(error, ScenarioError):
            reason = f"{type(error).__name__}: {reason}"
        return ScenarioError(f"{path}: reader plug-in {self.name}: {reason}")


@cache
def plugins() -> tuple[tuple[Plugin, ...], tuple[str, ...]]:
    """Readers that installed packages register, and a sentence for each that cannot be had."""
    found, problems = [], []
    targets: dict[str, set[str]] = {}
    for point in entry_points(group=ENTRY_POINTS):
        targets.setdefault(point.name, set()).add(point.value)
    for name, values in sorted(targets.items()):
        try:
            found.append(Plugin(name, _function(sorted(values))))
        except Exception as error:
            reason = " ".join(str(error).split())
            if not isinstance(error, ScenarioError):
                reason = f"cannot import {min(values)}: {type(error).__name__}: {reason}"
            problems.append(f"reader plug-in {name}: {reason}")
    return tuple(found), tuple(problems)


def _function(targets: list[str]) -> Callable[[Path], Any]:
    """The function that an entry point names as `module:function`."""
    if len(targets) > 1:
        raise ScenarioError(f"expected one entry point, got {', '.join(targets)}")
    module, _, attribute = targets[0].partition(":")
    value: Any = importlib.import_module(module)
    for part in attribute.split("."):
        value = getattr(value, part, None)
    if not callable(value):
        kind = "nothing" if value is None else _kind(value)
        raise ScenarioError(f"expected a function {attribute} in {module}, got {kind}")
    function: Callable[[Path], Any] = value
    return function


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
