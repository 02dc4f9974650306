"""The README: its example runs, and what it points to is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from alpagym.config import REWARD_PRESETS, ActionType, Traffic
from alpagym.scenarios.readers import READERS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_the_example_runs_and_is_short(capsys) -> None:
    (example,) = blocks("python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert re.match(r"mean return -?\d+\.\d\d, \d+ worlds ended in the last step", printed)


def test_links_and_files_that_it_names_exist() -> None:
    linked = re.findall(r"\]\(([^)#]+)\)", README)
    named = re.findall(r"`((?:csrc|python|scripts|docs|benchmarks)/[\w/.]+)`", README)
    run = re.findall(r"python ((?:scripts|benchmarks)/[\w/.]+)", README)
    for path in [*linked, *named, *run]:
        assert (ROOT / path).exists(), path


def test_make_targets_that_it_names_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)\b(?=[`\s\"])", README)) <= targets


def test_it_names_every_choice_and_format() -> None:
    for name in [*REWARD_PRESETS, *(t.name for t in Traffic), *(a.name for a in ActionType)]:
        assert f"`{name}`" in README, name
    formats = re.findall(r"^\| ([^|]+) \| (?:–|`(\w+)`) \|", README, flags=re.MULTILINE)
    assert {name for name, _ in formats} >= {reader.name for reader in READERS}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    named = {extra for _, extra in formats if extra}
    assert named == {"womd", "av2", "nvidia", "commonroad", "nuplan", "opendrive"}
    assert named <= extras.keys()
