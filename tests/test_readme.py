"""The README: its example runs, and what it points to is there."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import torch

from alpagym import cli
from alpagym.checkpoint import load_policy
from alpagym.config import REWARD_PRESETS, ActionType, Traffic
from alpagym.scenarios.readers import READERS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_the_example_runs_and_is_short(capsys) -> None:
    example, _ = blocks("python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert re.match(r"mean return -?\d+\.\d\d, \d+ worlds ended in the last step", printed)


def test_a_network_of_ones_own_trains_and_drives_from_its_checkpoint(
    tmp_path, monkeypatch, capsys
) -> None:
    _, example = blocks("python")
    commands = next(b for b in blocks("sh") if "policy.weights" in b).splitlines()
    written = [line for line in example.splitlines() if line.strip()]
    assert len(written) + len(commands) <= 10
    (tmp_path / "mine.py").write_text(example)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    from_file: dict[str, Any] = {}
    exec(compile(example, "mine.py", "exec"), from_file)
    net = from_file["Mine"](None, None).net
    torch.save(net.state_dict(), "net.pt")
    train, evaluate = (command.partition("#")[0].split()[1:] for command in commands)
    tiny = ["data.train=2", "data.held_out=2", "data.workers=1", "device=cpu", "num_replays=0"]
    none = ["imitation.max_epochs=0", "grpo.iterations=0"]
    try:
        assert cli.main([*train, "name=new", *tiny, *none]) == 0
        assert (
            cli.main([argument.replace("<name>", "new") for argument in evaluate] + tiny[1:4]) == 0
        )
        kept = load_policy("runs/new")[0]
    finally:
        sys.modules.pop("mine", None)
    assert type(kept).__module__ == "mine"
    for name, weight in net.state_dict().items():
        assert torch.equal(kept.net.state_dict()[name], weight)
    assert '"driver": "runs/new"' in capsys.readouterr().out


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
    assert named == {"womd", "av2", "nvidia", "alpasim", "commonroad", "nuplan", "opendrive"}
    assert named <= extras.keys()
