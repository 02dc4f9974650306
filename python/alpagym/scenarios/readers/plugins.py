"""Readers of users: functions from a path to scenarios, as entry points of `alpagym.readers`.

    def read(path: Path) -> Scenario | Iterable[Scenario] | None

A file for which the function gives no scenario is none of its own; other readers are asked then.
Plug-ins are asked before the readers of this package, in the order of their names.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from alpagym.plugins import attribute
from alpagym.scenarios.scenario import Scenario, ScenarioError

ENTRY_POINTS = "alpagym.readers"
"""Group of entry points that packages register readers in."""


class PluginError(ScenarioError):
    """What a reader of a user failed with."""


@dataclass(frozen=True)
class Plugin:
    """A reader of a user; the function may have an attribute `inputs`, see `inputs` here."""

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

    def inputs(self, path: Path) -> list[Path]:
        """Other files that the function reads for a file, by its own `inputs(path)` if it has one.

        Raises:
            ScenarioError: it fails.
        """
        try:
            return [Path(file) for file in getattr(self.function, "inputs", lambda path: ())(path)]
        except Exception as error:
            raise self._failure(path, error) from error

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

    def _failure(self, path: Path, error: Exception) -> PluginError:
        reason = " ".join(str(error).split()).removeprefix(f"{path}: ")
        if not isinstance(error, ScenarioError):
            reason = f"{type(error).__name__}: {reason:.500}"
        return PluginError(f"{path}: reader plug-in {self.name}: {reason}")


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


def fingerprint() -> list[str]:
    """A text for each plug-in, the same as long as it is: its function and that one's file."""
    found, problems = plugins()
    texts = []
    for plugin in found:
        module = getattr(plugin.function, "__module__", None) or type(plugin.function).__module__
        file = Path(getattr(sys.modules.get(module), "__file__", None) or "")
        digest = sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
        name = getattr(plugin.function, "__qualname__", type(plugin.function).__qualname__)
        texts.append(f"{plugin.name}={module}:{name} {digest}")
    return [*texts, *problems]


def _function(targets: list[str]) -> Callable[[Path], Any]:
    """The function that an entry point names as `module:function`."""
    if len(targets) > 1:
        raise ScenarioError(f"expected one entry point, got {', '.join(targets)}")
    module, _, path = targets[0].partition(":")
    value = attribute(importlib.import_module(module), path)
    if not callable(value):
        kind = "nothing" if value is None else _kind(value)
        raise ScenarioError(f"expected a function {path} in {module}, got {kind}")
    function: Callable[[Path], Any] = value
    return function


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
