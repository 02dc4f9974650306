"""Run benchmarks: one `case.metric value` a line, and with --json everything in one file.

python benchmarks/run.py [--device cpu|cuda] [--cases a,b] [--quick] [--json [FILE]]
python benchmarks/run.py --compare A.json B.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import bench_binding
import bench_step
import bench_train
import torch
from cases import CASES, BindingCase, StepCase

import alpagym
from alpagym import sim

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def output_of(*command: str) -> str:
    """First line that a program prints; empty if it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().split("\n")[0] if done.returncode == 0 else ""


def cpu_model() -> str:
    """As the kernel names it."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.M) if info.exists() else None
    return found.group(1) if found else platform.processor() or platform.machine()


def machine(device: torch.device) -> dict[str, str | int | bool]:
    """What the numbers were measured on."""
    facts: dict[str, str | int | bool] = {
        "device": str(device),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "compiler": output_of(os.environ.get("CXX", "c++"), "--version"),
        "alpagym": alpagym.__version__,
        "commit": output_of("git", "rev-parse", "--short=12", "HEAD") or sim.commit(),
        "uncommitted_changes": bool(output_of("git", "status", "--porcelain")),
    }
    if device.type == "cuda":
        query = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["driver"] = output_of(*query)
    return facts


def compare(first: Path, second: Path) -> list[str]:
    """`metric first second ratio` for what both have; `~` marks a change within the spread."""
    a, b = (json.loads(path.read_text()) for path in (first, second))
    lines = []
    for name, before in a["metrics"].items():
        after = b["metrics"].get(name)
        if after is None:
            continue
        ratio = after["value"] / before["value"]
        noise = before["spread"] + after["spread"]
        mark = " ~" if abs(ratio - 1.0) <= noise else ""
        lines.append(f"{name} {before['value']:.6g} {after['value']:.6g} {ratio:.3f}{mark}")
    for key in sorted(set(a["machine"]) | set(b["machine"])):
        values = [x["machine"].get(key) for x in (a, b)]
        if values[0] != values[1]:
            lines.append(f"# {key}: {values[0]} | {values[1]}")
    return lines


def chosen_cases(names: str) -> list:
    """Cases whose names are given, comma-separated; all without.

    Raises:
        ValueError: a name that no case has.
    """
    known = {case.name: case for case in CASES}
    wanted = [name for name in names.split(",") if name] or list(known)
    for name in wanted:
        if name not in known:
            raise ValueError(f"--cases: expected any of {', '.join(known)}, got {name}")
    return [known[name] for name in wanted]


def run_case(case, device: torch.device, *, quick: bool):
    """The case's metrics by name."""
    if isinstance(case, StepCase):
        return bench_step.run(case, device, quick=quick)
    if isinstance(case, BindingCase):
        return bench_binding.run(case, device, quick=quick)
    return bench_train.run(case, device, quick=quick)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--cases", default="", help="names of cases.py, comma-separated")
    parser.add_argument("--quick", action="store_true", help="prove that it runs; not for numbers")
    parser.add_argument("--json", nargs="?", const="", help="file; in benchmarks/results without")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"))
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    given = parse(arguments)
    try:
        if given.compare:
            print("\n".join(compare(*given.compare)))
            return 0
        if given.device == "cuda" and not (sim.cuda_built() and torch.cuda.is_available()):
            raise ValueError("--device cuda: expected a GPU and a build with CUDA, got none")
        cases = chosen_cases(given.cases)
    except (ValueError, OSError, KeyError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    device = torch.device(given.device)
    metrics = {}
    for case in cases:
        for name, value in run_case(case, device, quick=given.quick).items():
            metrics[f"{case.name}.{name}"] = value.as_dict()
            print(f"{case.name}.{name} {value.value:.6g}", flush=True)
    if given.json is not None:
        facts = machine(device)
        slug = re.sub(r"[^a-z0-9]+", "-", str(facts.get("gpu", facts["cpu"])).lower()).strip("-")
        path = Path(given.json) if given.json else RESULTS / f"{slug}-{facts['commit']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"machine": facts, "quick": given.quick, "metrics": metrics}, indent=2)
        path.write_text(text + "\n")
        print(f"benchmarks: wrote {path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
