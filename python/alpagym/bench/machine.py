"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

import torch

import alpagym
from alpagym import sim

HERE = Path(__file__).resolve().parent
GPU_FACTS = {
    "driver": "driver_version",
    "gpu_clock_mhz": "clocks.sm",
    "gpu_max_clock_mhz": "clocks.max.sm",
    "gpu_memory_clock_mhz": "clocks.mem",
    "gpu_power_limit_w": "power.limit",
}


def output_of(*command: str) -> str:
    """First line that a program prints; empty if it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=HERE, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().split("\n")[0] if done.returncode == 0 else ""


def _text(path: str) -> str:
    """A file of the kernel; empty where there is none."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _cpu_info(key: str) -> list[str]:
    return re.findall(rf"^{key}\s*:\s*(.+)$", _text("/proc/cpuinfo"), re.M)


def clock() -> str:
    """How fast the CPU runs now, and who decides."""
    governor = _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    mhz = [round(float(value)) for value in _cpu_info("cpu MHz")]
    now = f"{min(mhz)} to {max(mhz)} MHz" if mhz else "frequency not readable"
    return f"{now}, governor {governor or 'not readable'}"


def machine(device: torch.device, threads: str, form: str) -> dict[str, str | int | bool]:
    """Names, versions and clocks; `threads` and `form` of the device's code as measured with."""
    model = _cpu_info("model name")
    commit = output_of("git", "rev-parse", "--short=12", "HEAD")
    facts: dict[str, str | int | bool] = {
        "device": str(device),
        "cpu": model[0] if model else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        f"{device.type}_form": form,
        "clock": clock(),
        "load": _text("/proc/loadavg"),
        "huge_pages": _text("/sys/kernel/mm/transparent_hugepage/enabled"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "compiler": output_of(os.environ.get("CXX", "c++"), "--version"),
        "alpagym": alpagym.__version__,
        "commit": commit or sim.commit(),
        "build_commit": sim.commit(),
        "uncommitted_changes": bool(output_of("git", "status", "--porcelain")),
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["cuda"] = str(torch.version.cuda)
        query = f"--query-gpu={','.join(GPU_FACTS.values())}"
        index = f"--id={device.index or 0}"
        values = output_of("nvidia-smi", query, index, "--format=csv,noheader,nounits").split(", ")
        facts |= dict(zip(GPU_FACTS, values, strict=False))
    return facts
