"""Training under `torchrun`, as users start it: on gloo, with a port of its own each time."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

OPTIONS = [
    "data.train=6", "data.held_out=4", "data.workers=1", "imitation.max_epochs=1", "threads=1",
    "grpo.iterations=8", "grpo.group_size=3", "grpo.scenarios_per_iteration=5", "device=cpu",
    "policy.width=8", "policy.hidden=16", "num_replays=0", "save_every=2", "sim.max_steps=12",
    "grpo.minibatch_size=64", "seed=3", "data.validation=3",
]  # fmt: skip
"""Five groups: no two ranks have as many."""
TIMINGS = ("wall_s", "agent_steps_per_s", "rollout_s", "update_s", "stream_wait_s")


TRAIN = ("-m", "alpagym", "train")


def start(
    arguments: list[str],
    *launch: str,
    ranks: int = 2,
    program: Sequence[str] = TRAIN,
    **variables: str,
) -> subprocess.Popen:
    """Begin `torchrun ... -m alpagym train ...`; what all ranks say comes as one text."""
    where = ["--standalone"] if not any("rdzv" in word for word in launch) else []
    command = [sys.executable, "-m", "torch.distributed.run", *where, *launch]
    command += ["--nproc-per-node", str(ranks), *program, *arguments]
    tests = str(Path(__file__).parent)
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), tests]))
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **variables},
    )


def finish(process: subprocess.Popen) -> str:
    """Wait for it; returns what was said."""
    try:
        return process.communicate(timeout=300)[0]
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


def train(arguments: list[str], **options: Any) -> str:
    """Train to the end, with options of `start`; returns what was said."""
    process = start(arguments, **options)
    said = finish(process)
    assert process.returncode == 0, said
    return said


def sentences(said: str) -> list[str]:
    """What alpagym itself gave as the reason of an end."""
    return [line for line in said.splitlines() if line.startswith("alpagym: ")]


def until(what: Callable[[], bool], process: subprocess.Popen) -> None:
    """Wait for something to be there, while the process lives."""
    for _ in range(12000):
        if what() or process.poll() is not None:
            return
        time.sleep(0.01)


def runs_in(folder: Path) -> list[Path]:
    """Run directories; not what else a folder of runs may keep, which is hidden."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def metrics(folder: Path, text: str) -> Callable[[], bool]:
    """Whether the only run in a folder has come to a line of metrics with this text."""
    return lambda: any(text in path.read_text() for path in folder.glob("*/metrics.jsonl"))


def pid_of_rank(process: subprocess.Popen, rank: int) -> int:
    """The process of a rank, of those that `torchrun` has started."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # ended meanwhile
        if parent == process.pid and b"RANK=%d" % rank in variables:
            return int(folder.name)
    raise AssertionError(f"no rank {rank} under {process.pid}")


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


def rows(run: Path) -> list[dict]:
    """Metrics, but for timings."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in lines]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "policy.safetensors")


def difference(run: Path, other: Path) -> float:
    """The largest between weights of two runs."""
    here, there = weights(run), weights(other)
    assert here.keys() == there.keys()
    return max(float((here[name] - there[name]).abs().max()) for name in here)
