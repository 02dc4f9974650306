#!/bin/sh
# Everything that needs an NVIDIA GPU, in under nine minutes: build, the GPU tests, memcheck and
# racecheck on a few steps of every kind, the benchmarks. Leaves one JSON in
# ${OUT:-benchmarks/results}; ends with 1 if anything failed.
#
# Needs nvcc and, in ${PYTHON:-python3}, torch, numpy, pytest, pybind11 and scikit-build-core; no
# network. Nothing is installed into that Python.
set -u
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3}
out=${OUT:-benchmarks/results}

fail() { echo "gpu_check: $1" >&2; exit 1; }
command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU' ||
  fail "no NVIDIA GPU found: nvidia-smi lists none"
command -v nvcc >/dev/null || fail "no CUDA compiler found: put nvcc on PATH"
"$python" -c 'import torch; torch.zeros(1, device="cuda")' ||
  fail "torch in '$python' cannot use the GPU"

mkdir -p "$out" || exit 1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH="$work/site"

# step NAME SECONDS COMMAND...: runs it, keeps its log, status and time.
step() {
  name=$1 limit=$2
  shift 2
  echo "gpu_check: $name"
  begin=$(date +%s)
  timeout "$limit" "$@" >"$work/$name.log" 2>&1
  status=$?
  echo "$status $(($(date +%s) - begin))" >"$work/$name.status"
  [ "$status" -eq 0 ] || { echo "gpu_check: $name ended with $status:"; tail -n 40 "$work/$name.log"; }
}

cat >"$work/steps.py" <<'PY'
import torch

import alpagym
from alpagym import sim
from alpagym.scenarios.sources import load_or_generate

# Once, and few: the sanitizer slows the host down too.
scenarios = load_or_generate("procedural", count=8, seed=0)


def drive(worlds=16, steps=3, **options):
    env = alpagym.make(scenarios, worlds, device="cuda", **options)
    env.reset()
    for _ in range(steps):
        env.step(env.zero_action())
    return env


drive(steps=5)
for action in ("bicycle", "delta", "teleport"):
    drive(action=action)
for auto_reset in ("same_step", "next_step", "disabled"):  # each ends and begins an episode
    drive(steps=5, auto_reset=auto_reset, max_steps=2)
env = drive(traffic="idm", multi_agent=True, steps=5)
env.reset(mask=torch.arange(env.num_worlds, device="cuda") % 3 == 0)

state, params = env.state, sim.make_params(env.config)
before = state.clone()
index = torch.arange(env.num_worlds, dtype=torch.int32, device="cuda").flip(0).contiguous() - 1
sim.fork(state, before, index)
action = torch.zeros(*state.ego.shape, sim.action_size(env.config), device="cuda")
sim.noise(env.scenarios, state, action)
sim.inverse(env.scenarios, before, state, action, params)
torch.cuda.synchronize()
PY

# All cases, then those that only a GPU is fast enough for; each in a file of its own, so that what
# was measured before the time is up stays. Called from Python, which needs no parser of options.
cat >"$work/bench.py" <<'PY'
import sys

from alpagym.bench.options import BenchConfig, StepConfig
from alpagym.bench.runner import run

out = sys.argv[1]
for i, (what, options) in enumerate(
    [
        ("step", StepConfig(case="synthetic4", worlds="64,1024,16384")),
        ("step", StepConfig(case="synthetic4_ego", worlds="65536")),
        ("train", BenchConfig(case="train.g256.w4096")),
        ("all", BenchConfig()),
    ]
):
    given = {"device": "cuda", "json": f"{out}/bench-{i}.json"}
    run(what, type(options)(**(vars(options) | given)))
PY

# The test files in which some test takes the device fixture or is marked cuda. The others may
# import packages that a GPU machine lacks.
cat >"$work/select.py" <<'PY'
import ast
from pathlib import Path

for path in sorted(Path("tests").glob("test_*.py")):
    text = path.read_text()
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
    names = {argument.arg for f in functions for argument in f.args.args}
    if "device" in names or "mark.cuda" in text:
        print(path)
PY

step build 150 "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
  --no-build-isolation --target "$work/site" --config-settings=build-dir="$work/build" \
  --config-settings=cmake.define.ALPAGYM_CUDA=ON --config-settings=cmake.define.ALPAGYM_PROFILE=ON \
  --config-settings=cmake.define.ALPAGYM_CUDA_ARCHITECTURES=native .
read -r built _ <"$work/build.status"
if [ "$built" -eq 0 ]; then
  # shellcheck disable=SC2046  file names of the repository have no spaces
  step tests 120 "$python" -m pytest -m cuda -p no:cacheprovider $("$python" "$work/select.py")
  sanitizer="compute-sanitizer --error-exitcode 9"
  step memcheck 50 $sanitizer --tool memcheck "$python" "$work/steps.py"
  # racecheck sees shared memory alone, which no kernel of today uses: it guards those to come. That
  # nothing races in global memory is what the tests compare, bit by bit, across runs and batches.
  step racecheck 50 $sanitizer --tool racecheck "$python" "$work/steps.py"
  step benchmarks 150 "$python" "$work/bench.py" "$work"
fi

"$python" - "$work" "$out" <<'PY'
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import torch

work, out = Path(sys.argv[1]), Path(sys.argv[2])


def output(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


driver = output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").split("\n")[0]
properties = torch.cuda.get_device_properties(0)
result = {
    "machine": {
        "gpu": properties.name,
        "gpu_memory_bytes": properties.total_memory,
        "driver": driver,
        "cpu_count": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "nvcc": output("nvcc", "--version").split("\n")[-1],
    },
    "commit": output("git", "rev-parse", "--short=12", "HEAD") or "unknown",
    "uncommitted_changes": bool(output("git", "status", "--porcelain")),
    "steps": {},
    "benchmarks": {},
}
for name in ("build", "tests", "memcheck", "racecheck", "benchmarks"):
    status_file = work / f"{name}.status"
    if not status_file.exists():
        result["steps"][name] = {"passed": False, "status": "not run: the build failed"}
        continue
    status, seconds = map(int, status_file.read_text().split())
    log = (work / f"{name}.log").read_text(errors="replace")
    lines = [line for line in log.splitlines() if line.strip()]
    result["steps"][name] = {
        "passed": status == 0,
        "status": "timed out" if status == 124 else status,
        "seconds": seconds,
        "last_line": lines[-1] if lines else "",
    }
    if status != 0:
        result["steps"][name]["log_tail"] = lines[-60:]
    if name == "benchmarks":
        stored = [json.loads(path.read_text()) for path in sorted(work.glob("bench-*.json"))]
        printed = re.findall(r"^([\w.]+) ([-+.\deE]+)$", log, flags=re.MULTILINE)
        metrics = {metric: {"value": float(value)} for metric, value in printed}
        for one in stored:
            metrics |= one["metrics"]
        result["benchmarks"] = {
            "machine": stored[0]["machine"] if stored else {},
            "notes": [note for one in stored for note in one["notes"]],
            "metrics": metrics,
        }
result["passed"] = all(step["passed"] for step in result["steps"].values())
machine = re.sub(r"[^a-z0-9]+", "-", properties.name.lower()).strip("-")
path = out / f"gpu-{machine}-{result['commit']}.json"
path.write_text(json.dumps(result, indent=2) + "\n")
print(f"gpu_check: {'passed' if result['passed'] else 'FAILED'}, see {path}")
sys.exit(not result["passed"])
PY
