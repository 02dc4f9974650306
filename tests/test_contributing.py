"""The recipes of CONTRIBUTING.md are patches: they apply, stay small, and do what they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from alpagym import _core

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "docs" / "recipes"
NAMES = ["reward_term", "action_kind", "reader"]
MAX_FILES = 3


def files_of(name: str) -> list[str]:
    """Files that a patch changes or adds."""
    text = (RECIPES / f"{name}.patch").read_text()
    return re.findall(r"^\+\+\+ b/(.+)$", text, flags=re.MULTILINE)


def new_tests(name: str) -> list[str]:
    return [file for file in files_of(name) if file.startswith("tests/test_")]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the sources, with the built core beside them."""
    skip = shutil.ignore_patterns("__pycache__", "*.so", "*.pyc")
    for folder in ("csrc", "python", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(_core.__file__, tmp_path / "python" / "alpagym")
    return tmp_path


def apply(name: str, tree: Path) -> None:
    command = ["git", "apply", "--whitespace=error", str(RECIPES / f"{name}.patch")]
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(tree.parent)}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def run_tests(tree: Path, *which: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *which]
    environment = os.environ | {"PYTHONPATH": str(tree / "python"), "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_contributing_names_every_recipe() -> None:
    assert {path.stem for path in RECIPES.glob("*.patch")} == set(NAMES)
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for name in NAMES:
        assert f"docs/recipes/{name}.patch" in text


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_applies_and_touches_few_files(name: str, tree: Path) -> None:
    sources = [file for file in files_of(name) if not file.startswith("tests/")]
    assert 1 <= len(sources) <= MAX_FILES, sources
    assert new_tests(name)
    apply(name, tree)
    for file in files_of(name):
        assert (tree / file).is_file()


def test_the_reader_recipe_works(tree: Path) -> None:
    apply("reader", tree)
    run_tests(tree, *new_tests("reader"))


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["reward_term", "action_kind"])
def test_the_recipe_compiles_and_agrees_with_the_reference(name: str, tree: Path) -> None:
    import pybind11

    apply(name, tree)
    compiled = tree / "python" / "alpagym" / Path(_core.__file__).name
    includes = [pybind11.get_include(), sysconfig.get_path("include"), "csrc"]
    command = ["g++", "-std=c++20", "-O2", "-ffp-contract=off", "-fopenmp", "-fPIC", "-shared"]
    command += ["-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
    command += [f"-I{path}" for path in includes]
    bindings = sorted(str(path) for path in (tree / "csrc" / "bindings").glob("*.cpp"))
    command += ["csrc/sim_cpu.cpp", "csrc/cpu/tuned.cpp", "csrc/cpu/encoder.cpp", *bindings]
    command += ["-o", str(compiled)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    run_tests(tree, *new_tests(name), "tests/test_fields.py", "tests/test_parity.py")
