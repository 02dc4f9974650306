"""The wheel itself: small, free of torch and CUDA libraries, and usable outside the source tree."""

import ast
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_BYTES = 10 * 1024 * 1024
SOURCE_FOLDERS = ("csrc", "cuda", "python")

MODULES = {
    "hydra-core": {"hydra", "omegaconf"},
    "protobuf": {"google"},
    "grpcio": {"grpc"},
    "pillow": {"PIL"},
    "cosmos-rl": {"cosmos_rl"},
}
"""What a distribution is imported as, where that is not its name."""

LAZY = ("asl", "driver", "runtime", "wire", "driver_client.py", "session.py", "replicas")
"""What is imported in functions only: AlpaSim's services, sessions and logs, and what Cosmos-RL
runs."""

STEP_A_BATCH = """
from importlib.metadata import version

import torch

import alpagym

assert alpagym.__version__ == version("alpagym")
env = alpagym.make("procedural", num_worlds=4)
obs = env.reset()
obs, reward, terminated, truncated, info = env.step(env.zero_action())
assert reward.shape == terminated.shape == truncated.shape == (4,), reward.shape
assert torch.isfinite(reward).all(), reward
print(alpagym.__file__)
"""


def run(command: list[str | Path], cwd: Path) -> str:
    """The standard output of a command that must succeed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def newest_source() -> float:
    files = [ROOT / "CMakeLists.txt", ROOT / "pyproject.toml"]
    for folder in SOURCE_FOLDERS:
        files += [
            p for p in (ROOT / folder).rglob("*") if p.is_file() and p.suffix not in {".pyc", ".so"}
        ]
    return max(path.stat().st_mtime for path in files)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of `make wheel` if it is newer than every source, else one built now."""
    for path in sorted((ROOT / "dist").glob("alpagym-*.whl")):
        if path.stat().st_mtime >= newest_source():
            return path
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    run([*command, "--no-build-isolation", "--wheel-dir", folder, "."], ROOT)
    return next(folder.glob("alpagym-*.whl"))


@pytest.fixture(scope="session")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size <= MAX_BYTES


def test_wheel_holds_the_package_and_nothing_else(unpacked: Path) -> None:
    assert {p.name for p in unpacked.iterdir() if p.suffix != ".dist-info"} == {"alpagym"}
    names = {str(p.relative_to(unpacked / "alpagym")) for p in (unpacked / "alpagym").rglob("*")}
    assert {"__init__.py", "_core.pyi", "py.typed"} <= names
    assert not {n for n in names if n.endswith((".cpp", ".cu", ".h", ".pyc"))}


def test_wheel_needs_no_torch_and_no_cuda_library(unpacked: Path) -> None:
    libraries = list(unpacked.rglob("*.so"))
    assert libraries
    for library in libraries:
        needed = re.findall(r"\(NEEDED\).*\[(.+)\]", run(["readelf", "-dW", library], unpacked))
        assert needed
        allowed = re.compile(r"lib(c|m|stdc\+\+|gcc_s|gomp|pthread|dl|rt)\.so|ld-linux")
        assert not [name for name in needed if not allowed.match(name)], library.name


def gpu_code(library: bytes) -> tuple[set[int], set[int]]:
    """The architectures for which a library has machine code, and those for which it has PTX.

    nvcc embeds containers: a header (magic, version, header size, size of what follows), then one
    entry per architecture (kind: 1 PTX, 2 machine code; header size; size; ...; architecture).
    """
    machine_code, ptx = set(), set()
    for match in re.finditer(re.escape(struct.pack("<IH", 0xBA55ED50, 1)), library):
        header_size, size = struct.unpack_from("<HQ", library, match.end())
        entry = match.start() + header_size
        end = entry + size
        while entry < end:
            kind, _, entry_header, entry_size = struct.unpack_from("<HHIQ", library, entry)
            (architecture,) = struct.unpack_from("<I", library, entry + 28)
            {1: ptx, 2: machine_code}[kind].add(architecture)
            entry += entry_header + entry_size
    return machine_code, ptx


def test_wheel_has_code_for_every_gpu_generation(unpacked: Path) -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not installed: the wheel has the CPU backend only")
    (library,) = unpacked.rglob("_core*.so")
    machine_code, ptx = gpu_code(library.read_bytes())
    assert machine_code, "nvcc is installed, but the wheel has no GPU code: built with CUDA=OFF?"
    assert (machine_code, ptx) == ({80, 86, 89, 90, 100, 120}, {120})


@pytest.fixture(scope="session")
def clean_venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with only the wheel in it; its dependencies come from this one by a path."""
    venv = tmp_path_factory.mktemp("clean") / "venv"
    run([sys.executable, "-m", "venv", "--without-pip", venv], ROOT)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = venv / "lib" / version / "site-packages"
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin" / "python"]
    run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], ROOT)
    # Appended to sys.path after the environment's own packages, so its alpagym is found first.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return venv


def test_installed_wheel_steps_a_batch(clean_venv: Path, tmp_path: Path) -> None:
    script = tmp_path / "step.py"
    script.write_text(STEP_A_BATCH)
    printed = run([clean_venv / "bin" / "python", "-W", "error", script], tmp_path)
    assert Path(printed.strip()).is_relative_to(clean_venv)


def test_installed_wheel_has_the_command(clean_venv: Path, tmp_path: Path) -> None:
    assert "train" in run([clean_venv / "bin" / "alpagym", "--help"], tmp_path)


def modules(requirements: list[str]) -> set[str]:
    """The top-level modules that requirements provide."""
    names = [re.match(r"[\w-]+", requirement).group() for requirement in requirements]
    return set().union(*(MODULES.get(name, {name}) for name in names))


def imports(node: ast.AST, lazy: bool = False) -> Iterator[tuple[str, bool]]:
    """Top-level modules imported below `node`, and whether only when a function is called."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name.split(".")[0], lazy) for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.level == 0:
            yield child.module.split(".")[0], lazy
        yield from imports(child, lazy or isinstance(child, ast.FunctionDef | ast.Lambda))


def test_every_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    always = {"alpagym", *sys.stdlib_module_names} | modules(project["dependencies"])
    extras = {
        extra: modules(requirements)
        for extra, requirements in project["optional-dependencies"].items()
        if extra not in ("test", "dev")
    }
    seen = set()
    for path in sorted((ROOT / "python" / "alpagym").rglob("*.py")):
        # Modules that are themselves imported in functions only.
        inner = path.name.endswith("_pb2.py") or any(part in LAZY for part in path.parts)
        for name, lazy in imports(ast.parse(path.read_text()), inner):
            seen.add(name)
            where = f"{path.relative_to(ROOT)}: {name}"
            assert name in always.union(*extras.values()), f"{where} is no dependency"
            assert lazy or name in always, f"{where} is an extra, but not imported lazily"
    assert {"torch", "numpy", "google"} <= seen
