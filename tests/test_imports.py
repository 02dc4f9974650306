"""No modules import each other in a circle: each can be the first that a program imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import alpagym

PACKAGE = Path(alpagym.__file__).parent


def modules() -> dict[str, Path]:
    """Files by the names of their modules."""
    names = {
        file: file.relative_to(PACKAGE.parent).with_suffix("") for file in PACKAGE.rglob("*.py")
    }
    return {".".join(name.parts).removesuffix(".__init__"): file for file, name in names.items()}


def run_on_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module but those in functions, and those that only a type checker sees."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            continue
        yield statement
        for name in ("body", "orelse", "finalbody"):
            yield from run_on_import(getattr(statement, name, []))
        for handler in getattr(statement, "handlers", []):
            yield from run_on_import(handler.body)


def packages_of(name: str) -> set[str]:
    parts = name.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))}


def imported(name: str, file: Path, known: set[str]) -> set[str]:
    """Modules that importing one runs, but for its own packages, which always come before it."""
    asked: set[str] = set()
    for statement in run_on_import(ast.parse(file.read_text()).body):
        if isinstance(statement, ast.Import):
            asked |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            assert statement.module
            assert not statement.level, f"{file}: a relative import"
            asked |= {f"{statement.module}.{alias.name}" for alias in statement.names}
    found = asked.union(*map(packages_of, asked))
    return (found & known) - packages_of(name) - {name}


def circle(graph: dict[str, set[str]], name: str) -> list[str]:
    """The shortest way from a module back to it; empty if there is none."""
    ways = [[name]]
    seen: set[str] = set()
    for way in ways:
        for after in sorted(graph[way[-1]]):
            if after == name:
                return [*way, name]
            if after not in seen:
                seen.add(after)
                ways.append([*way, after])
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    files = modules()
    assert len(files) > 200
    graph = {name: imported(name, file, set(files)) for name, file in files.items()}
    circles = [" -> ".join(way) for name in graph if (way := circle(graph, name))]
    assert not circles, "\n".join(circles)


def test_a_circle_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "b"}, "d": {"a"}}
    assert circle(graph, "a") == ["a", "b", "c", "a"]
    assert not circle(graph, "d")


def test_the_modules_behind_packages_can_be_imported_first() -> None:
    for name in ("alpagym.scenarios.opendrive.traffic", "alpagym.scenarios.readers.womd"):
        command = [sys.executable, "-c", f"import {name}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
