"""The C++ tests of tests/cpp, each as one test here."""

import re
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent / "cpp"
NAMES = [
    name
    for path in sorted(FOLDER.glob("test_*.cpp"))
    for name in re.findall(r"^TEST\((\w+)\)", path.read_text(), flags=re.MULTILINE)
]


@pytest.fixture(scope="session")
def executable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build = tmp_path_factory.mktemp("cpp")
    for command in (
        ["cmake", "-S", FOLDER, "-B", build, "-G", "Ninja"],
        ["cmake", "--build", build],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "alpagym_tests"


@pytest.mark.parametrize("name", NAMES)
def test_cpp(executable: Path, name: str) -> None:
    done = subprocess.run([executable, name], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_cpp_test_has_its_own_name(executable: Path) -> None:
    done = subprocess.run([executable], capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith(f"{len(set(NAMES))} tests, 0 failed checks\n"), done.stdout
