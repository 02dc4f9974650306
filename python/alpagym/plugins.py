"""What users bring along, by name: `module:attribute`, or an entry point of a group."""

from __future__ import annotations

import importlib
import os
import sys
from importlib.metadata import entry_points
from typing import Any


def registered(group: str) -> list[str]:
    """Names that installed packages register in a group of entry points."""
    return sorted({point.name for point in entry_points(group=group)})


def load_named(what: str, kind: str, name: str, group: str) -> Any:
    """The callable of a name; modules in the working directory are found, after all others.

    Args:
        what: the name is of, for messages: `reward`.
        kind: of callable that is looked for, for messages: `function`.
        name: `module:attribute`, or that of an entry point.
        group: of entry points.

    Raises:
        ValueError: an unknown name, with those known; a name that two packages register; a module
            that cannot be imported; or no such callable in it.
    """
    target = name
    if ":" not in name:
        points = entry_points(group=group, name=name)
        targets = sorted({point.value for point in points})
        if len(targets) > 1:
            raise ValueError(f"{what} {name}: expected one entry point, got {', '.join(targets)}")
        if not targets:
            known = ", ".join(registered(group)) or "none is registered"
            raise ValueError(
                f"{what} {name}: expected module:{kind} or an entry point of {group} ({known})"
            )
        target = targets[0]
    module, _, path = target.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = importlib.import_module(module)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{what} {name}: cannot import {module}: {reason}") from error
    value = attribute(found, path)
    if not callable(value):
        got = "nothing" if value is None else type(value).__name__
        raise ValueError(f"{what} {name}: expected a {kind} {path} in {module}, got {got}")
    return value


def attribute(module: Any, path: str) -> Any:
    """What a dotted path leads to, None for nothing."""
    value = module
    for part in path.split("."):
        value = getattr(value, part, None)
    return value
