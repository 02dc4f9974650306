"""Packages with a reader of a user, installed for one test."""

from __future__ import annotations

from pathlib import Path

import pytest

from alpagym.scenarios.readers.plugins import plugins


def register(folder: Path, package: str, lines: list[str]) -> None:
    """The metadata of a package with these entry points."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[alpagym.readers]\n" + "\n".join(lines) + "\n")


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str, name: str = "mine") -> None:
    """A package with one reader, seen by this process."""
    module = f"plugin_{abs(hash((folder, source, name))):x}"
    (folder / f"{module}.py").write_text(source)
    register(folder, f"{name}-{module}", [f"{name} = {module}:read"])
    monkeypatch.syspath_prepend(folder)
    plugins.cache_clear()
