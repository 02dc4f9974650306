#!/bin/sh
# Everything that needs an NVIDIA GPU, in under ten minutes: build, the GPU tests, the benchmarks of
# the README's table, compute-sanitizer on a few steps of every kind, hardware counters where they
# may be read. Leaves ${OUT:-benchmarks/results}/<gpu>-<date>.json; a part that fails stops no other,
# a summary comes last, and the script ends with 1 if anything failed.
#
# Needs nvcc and, in ${PYTHON:-python3}, torch, numpy, pytest, pybind11 and scikit-build-core; no
# network. Nothing is installed into that Python. ${SECONDS_AT_MOST:-570} bounds the whole.
set -u
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3}
out=${OUT:-benchmarks/results}
deadline=$(($(date +%s) + ${SECONDS_AT_MOST:-570}))

fail() { echo "gpu_check: $1" >&2; exit 1; }
nvidia-smi -L 2>/dev/null | grep -q '^GPU' || fail "no NVIDIA GPU found: nvidia-smi lists none"
command -v nvcc >/dev/null || fail "no CUDA compiler found: put nvcc on PATH"
"$python" -c 'import torch; torch.zeros(1, device="cuda")' ||
  fail "torch in '$python' cannot use the GPU"

mkdir -p "$out" || exit 1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH="$work/site"

# part NAME SECONDS COMMAND...: runs it within the time that is left, keeps its log, status and time.
part() {
  name=$1 limit=$2
  shift 2
  begin=$(date +%s)
  left=$((deadline - begin - 10)) # the summary takes some
  [ "$left" -lt "$limit" ] && limit=$left
  echo "$name" >>"$work/parts"
  if [ "$limit" -lt 5 ]; then
    echo "124 0" >"$work/$name.status"
    echo "no time was left" >"$work/$name.log"
    echo "gpu_check: $name: no time was left"
    return
  fi
  timeout "$limit" "$@" >"$work/$name.log" 2>&1
  status=$?
  seconds=$(($(date +%s) - begin))
  echo "$status $seconds" >"$work/$name.status"
  if [ "$status" -eq 0 ]; then
    echo "gpu_check: $name: passed in $seconds s"
  else
    echo "gpu_check: $name: ended with $status after $seconds s:"
    tail -n 25 "$work/$name.log"
  fi
}

# A few steps of every kind, in both forms: for the sanitizers, which slow the host down too.
cat >"$work/few_steps.py" <<'PY'
import torch

import alpagym
from alpagym import sim
from alpagym.scenarios.sources import load_or_generate

scenarios = load_or_generate("procedural", count=8, seed=0)


def drive(worlds=16, steps=3, **options):
    env = alpagym.make(scenarios, worlds, device="cuda", **options)
    env.reset()
    for _ in range(steps):
        env.step(env.zero_action())
    return env


for form in ("plain", "fused"):
    sim.use_cuda_form(form)
    drive(steps=5)
    drive(slot_order="nearest", row_format="float16", num_road_points=200, num_agents=63)
    drive(row_format="compact", road_radius=300.0, num_road_points=256)
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

# run_bench.py FILE COMMAND KEY=VALUE...: benchmarks, called from Python, which needs no parser of
# options.
cat >"$work/run_bench.py" <<'PY'
import sys

from alpagym.bench.options import SCHEMAS
from alpagym.bench.runner import run

path, command, *given = sys.argv[1:]
options = dict(one.split("=", 1) for one in given)
if "repeats" in options:
    options["repeats"] = int(options["repeats"])
run(command, SCHEMAS[command](device="cuda", json=path, **options))
PY

# What ncu looks at: each fused kernel on many worlds, after a warm-up.
cat >"$work/count_kernels.py" <<'PY'
import torch

from alpagym import sim
from alpagym.bench import sources
from alpagym.bench.cases import DENSE, FORMATS
from alpagym.bench.step import under_way
from alpagym.scenarios.batch import batch, max_agents

hosts = sources.kept("synthetic4", 4, None).hosts
packed = batch(hosts, torch.device("cuda"))
for worlds, options in ((4096, DENSE | FORMATS["fp16"]), (16384, {})):
    drive = under_way(packed, max_agents(hosts), worlds, sources.sim_config(options))
    torch.cuda.synchronize()
    torch.cuda.profiler.start()
    drive.step()
    if options:
        drive.observe()
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()
PY

# The test files in which some test takes the device fixture or is marked cuda; not those that want
# packages which are not here.
cat >"$work/list_tests.py" <<'PY'
import ast
import importlib
import sys
from pathlib import Path

sys.path.insert(0, "tests")
for path in sorted(Path("tests").glob("test_*.py")):
    text = path.read_text()
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
    names = {argument.arg for f in functions for argument in f.args.args}
    if "device" not in names and "mark.cuda" not in text:
        continue
    try:
        importlib.import_module(path.stem)
        print(path)
    except ModuleNotFoundError as error:
        print(f"gpu_check: {path} is left out: it wants {error.name}", file=sys.stderr)
PY

# initcheck.sh: torch's own kernels may read what nobody wrote; ours may not.
cat >"$work/initcheck.sh" <<'SH'
compute-sanitizer --tool initcheck "$@" >"$0.log" 2>&1
status=$?
grep 'ERROR SUMMARY' "$0.log"
if grep -q 'alpagym::' "$0.log"; then grep -m 20 -B 2 -A 6 'alpagym::' "$0.log"; exit 9; fi
exit $status
SH

part build 200 "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
  --no-build-isolation --target "$work/site" --config-settings=build-dir="$work/build" \
  --config-settings=cmake.define.ALPAGYM_CUDA=ON --config-settings=cmake.define.ALPAGYM_PROFILE=ON \
  --config-settings=cmake.define.ALPAGYM_CUDA_ARCHITECTURES=native .
read -r built _ <"$work/build.status"
if [ "$built" -eq 0 ]; then
  # File names of the repository have no spaces.
  # shellcheck disable=SC2046
  part tests 150 "$python" -m pytest -q -m cuda -p no:cacheprovider $("$python" "$work/list_tests.py")
  part bench_step 80 "$python" "$work/run_bench.py" "$work/bench-1.json" step case=synthetic4 \
    format=fp16 worlds=1024,16384
  part bench_ego 40 "$python" "$work/run_bench.py" "$work/bench-2.json" step case=synthetic4_ego \
    worlds=65536 form=plain,fused
  part bench_train 100 "$python" "$work/run_bench.py" "$work/bench-3.json" train case=train.g256.w4096
  sanitizer() {
    part "$1" "$2" compute-sanitizer --error-exitcode 9 --tool "$1" "$python" "$work/few_steps.py"
  }
  sanitizer memcheck 60
  sanitizer racecheck 60
  sanitizer synccheck 50
  part initcheck 50 sh "$work/initcheck.sh" "$python" "$work/few_steps.py"
  # Clocks are left as they are. Counters may be forbidden: then the log says so.
  part counters 60 ncu --csv --page raw --clock-control none --profile-from-start off \
    --kernel-name 'regex:step_worlds|observe_egos' --metrics \
gpu__time_duration.sum,dram__bytes_read.sum,dram__bytes_write.sum,\
dram__throughput.avg.pct_of_peak_sustained_elapsed,lts__t_bytes.sum,\
l1tex__t_sector_hit_rate.pct,sm__warps_active.avg.pct_of_peak_sustained_active,\
smsp__issue_active.avg.pct_of_peak_sustained_active,smsp__inst_executed.sum,\
smsp__thread_inst_executed_per_inst_executed.ratio,launch__registers_per_thread,\
launch__occupancy_limit_registers,launch__occupancy_limit_shared_mem \
    "$python" "$work/count_kernels.py"
  part bench_forms 60 "$python" "$work/run_bench.py" "$work/bench-4.json" step case=synthetic4 \
    format=fp16,compact,sorted worlds=1024 form=plain,fused repeats=3
  part bench_rest 80 "$python" "$work/run_bench.py" "$work/bench-5.json" all
fi

"$python" - "$work" "$out" <<'PY'
import csv
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

work, out = Path(sys.argv[1]), Path(sys.argv[2])
PARTS = (
    *("build", "tests", "bench_step", "bench_ego", "bench_train"),
    *("memcheck", "racecheck", "synccheck", "initcheck", "counters", "bench_forms", "bench_rest"),
)


def output(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def counted(log):
    """Counters of each kernel that ncu saw, by name and unit."""
    rows = [row for row in csv.reader(log.splitlines()) if len(row) > 10]
    if len(rows) < 3 or "Kernel Name" not in rows[0]:
        return []
    names, units, *values = rows
    wanted = [i for i, name in enumerate(names) if "__" in name or name == "Kernel Name"]
    return [
        {f"{names[i]} {units[i]}".strip(): row[i] for i in wanted}
        for row in values
        if len(row) == len(names)
    ]


driver = output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").split("\n")[0]
properties = torch.cuda.get_device_properties(0)
result = {
    "machine": {
        "gpu": properties.name,
        "gpu_memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "driver": driver,
        "cpu_count": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "nvcc": output("nvcc", "--version").split("\n")[-1],
    },
    "commit": output("git", "rev-parse", "--short=12", "HEAD") or "unknown",
    "uncommitted_changes": bool(output("git", "status", "--porcelain")),
    "date": time.strftime("%Y-%m-%d", time.gmtime()),
    "parts": {},
    "benchmarks": {"machine": {}, "notes": [], "metrics": {}},
    "counters": [],
}
for name in PARTS:
    status_file = work / f"{name}.status"
    if not status_file.exists():
        result["parts"][name] = {"passed": False, "status": "not run: the build failed"}
        continue
    status, seconds = map(int, status_file.read_text().split())
    log = (work / f"{name}.log").read_text(errors="replace")
    lines = [line for line in log.splitlines() if line.strip()]
    part = {
        "passed": status == 0,
        "status": "timed out" if status == 124 else status,
        "seconds": seconds,
        "last_line": lines[-1][:400] if lines else "",
    }
    if status != 0:
        part["log_tail"] = [line[:400] for line in lines[-60:]]
    if name == "counters":
        result["counters"] = counted(log)
        part["passed"] = part["passed"] and bool(result["counters"])
        forbidden = "ERR_NVGPUCTRPERM" in log or "Failed to initialize the profiler" in log
        if not result["counters"] and forbidden:
            part |= {"passed": True, "status": "hardware counters may not be read here"}
    result["parts"][name] = part
    if name.startswith("bench_"):  # what was printed before the time was up stays
        printed = re.findall(r"^([\w.]+) ([-+.\deE]+)$", log, flags=re.MULTILINE)
        result["benchmarks"]["metrics"] |= {n: {"value": float(v)} for n, v in printed}
for path in sorted(work.glob("bench-*.json")):
    one = json.loads(path.read_text())
    result["benchmarks"]["machine"] = result["benchmarks"]["machine"] or one["machine"]
    result["benchmarks"]["notes"] += one["notes"]
    result["benchmarks"]["metrics"] |= one["metrics"]

result["passed"] = all(part["passed"] for part in result["parts"].values())
machine = re.sub(r"[^a-z0-9]+", "-", properties.name.lower()).strip("-")
path = out / f"{machine}-{result['date']}.json"
path.write_text(json.dumps(result, indent=2) + "\n")
print("gpu_check: figures")
shown = "agent_steps_per_s", "world_steps_per_s", "share_of_copy", "copy_gb_per_s", "rollout_s"
for name, metric in result["benchmarks"]["metrics"].items():
    if name.rsplit(".", 1)[1] in (*shown, "graph_agent_steps_per_s", "update_s"):
        print(f"  {name} {metric['value']:.6g}")
for kernel in result["counters"]:
    print(" ", json.dumps(kernel))
print("gpu_check: summary")
for name, part in result["parts"].items():
    print(f"  {name:12} {'passed' if part['passed'] else 'FAILED':6} {part['status']}")
print(f"gpu_check: {'passed' if result['passed'] else 'FAILED'}, see {path}")
sys.exit(not result["passed"])
PY
