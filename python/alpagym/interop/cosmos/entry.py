"""What Cosmos-RL runs in every role: `cosmos-rl --config run.toml alpagym.interop.cosmos.entry`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from shutil import which


def search_path() -> str:
    """Where programs are looked for: this environment's come first."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


def find(command: str) -> None:
    """Look whether the program that starts replicas is there.

    Raises:
        ValueError: it is not.
    """
    if which(command, path=search_path()) is None:
        raise ValueError(f"cosmos.command: expected a program, found none at {command}")


def require() -> None:
    """Look whether the extra `cosmos` is installed, in the version that it was made for.

    Raises:
        ValueError: it is not; one sentence that says how to install it.
    """
    from importlib.metadata import PackageNotFoundError, version

    from alpagym.interop.cosmos.config import pinned

    wanted = pinned()[0]
    try:
        found = version("cosmos-rl")
    except PackageNotFoundError:
        found = "none"
    if found != wanted:
        raise ValueError(
            f"backend=cosmos: expected cosmos-rl {wanted}, got {found}: pip install alpagym[cosmos]"
        )


def main() -> None:
    """Be the controller or a replica."""
    require()
    from alpagym.interop.cosmos.replicas.registry import main as run

    run()


if __name__ == "__main__":
    main()
