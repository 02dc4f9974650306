"""Fixtures and switches that every test shares.

`device` runs a test on the CPU and on a GPU, `shared_data` and `shared_golden` are recorded data
beside the repository, `tol` scales every tolerance: `ALPAGYM_TOL_SCALE=0 pytest` shows the real
residuals.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"

# The tests are small: more threads than this only wait for each other, and workers of
# pytest-xdist share the machine.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(4, os.cpu_count() or 1))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--heavy", action="store_true", help="also run the tests that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if {"shared_data", "shared_golden"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("shared")
    if not config.getoption("--heavy"):
        heavy = [item for item in items if item.get_closest_marker("heavy")]
        items[:] = [item for item in items if item not in heavy]
        if heavy:
            config.hook.pytest_deselected(items=heavy)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device in turn; the GPU is skipped where there is none, or no CUDA in the build."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no NVIDIA GPU: torch.cuda.is_available() is False")
        import alpagym

        if not alpagym.cuda_built():
            pytest.skip("alpagym was built without CUDA: alpagym.cuda_built() is False")
    return torch.device(request.param)


def _shared(name: str) -> Path:
    path = SHARED / name
    if not path.is_dir():
        pytest.skip(f"no recorded data: {path} is not a folder")
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of recorded scenarios, ../shared/data beside the repository."""
    return _shared("data")


@pytest.fixture(scope="session")
def shared_golden() -> Path:
    """The folder of golden outputs of other programs, ../shared/golden beside the repository."""
    return _shared("golden")


@pytest.fixture(scope="session")
def tol() -> Callable[[float], float]:
    """Scale a tolerance by ALPAGYM_TOL_SCALE: `atol=tol(1e-5)`."""
    scale = float(os.environ.get("ALPAGYM_TOL_SCALE", "1"))
    return lambda tolerance: tolerance * scale
