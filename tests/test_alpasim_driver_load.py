"""Five hundred sessions at a time against the driver's command, and clients that vanish."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from alpagym.checkpoint import save_policy
from alpagym.interop.alpasim.wire import connection
from alpagym.interop.alpasim.wire.messages import egodriver
from alpagym.interop.alpasim.wire.services import EGODRIVER, Stub
from alpasim_talk import KINDS, START_US, STEP_US, drive, policy_of, start, told_straight

SESSIONS = 500
DRIVES = 10
"""In a session at most, before it is closed and another begins."""
VANISH = 10
"""One session in so many is never closed."""
IDLE_S = 15.0
SWEPT_S = IDLE_S + 0.25 * IDLE_S + 3.0
"""Nothing is heard for so long at the end, after which every session that was left is dropped."""
MORE_MIB = 96.0
"""By so much the driver's memory may grow after a third of the time."""


def resident_mib(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) / 1024


async def sessions_in_turn(stub, name: str, end: float, latencies: list[float]) -> int:
    """Drive session after session until the time is up; returns how many were left open."""
    left, turn = 0, 0
    while time.monotonic() < end:
        turn += 1
        uuid = f"{name}-{turn}"
        await stub.start_session(start(uuid))
        for step in range(DRIVES):
            if time.monotonic() >= end:
                break
            time_us = await told_straight(stub, uuid, step)
            begun = time.perf_counter()
            answer = await stub.drive(drive(uuid, time_us))
            latencies.append(time.perf_counter() - begun)
            assert answer.trajectory.poses[0].timestamp_us == START_US + STEP_US * step
        if (turn + int(name)) % VANISH == 0:
            left += 1
        else:
            await stub.close_session(egodriver.DriveSessionCloseRequest(session_uuid=uuid))
    return left


async def load(address: str, process: int, seconds: float):
    """Left sessions, latencies [s], memory [MiB] after a third of the time and at its end."""
    latencies: list[float] = []
    began = time.monotonic()

    async def watch() -> float:
        await asyncio.sleep(seconds / 3)
        return resident_mib(process)

    async with connection.dial(address) as channel:
        stub = Stub(channel, EGODRIVER)
        early, *left = await asyncio.gather(
            watch(),
            *(sessions_in_turn(stub, f"{i}", began + seconds, latencies) for i in range(SESSIONS)),
        )
    return sum(left), latencies, early, resident_mib(process)


@pytest.mark.parametrize("seconds", [15, pytest.param(300, marks=pytest.mark.heavy)])
def test_five_hundred_sessions(tmp_path, seconds) -> None:
    file = tmp_path / "policy.safetensors"
    policy, sim_config = policy_of("actions")
    save_policy(file, policy, KINDS["actions"][0], sim_config, [])
    command = [sys.executable, "-m", "alpagym", "serve", "driver", f"checkpoint={file}", "port=0"]
    command += ["threads=1", "device=cpu", f"idle_s={IDLE_S}", "max_sessions=2000"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            address = process.stdout.readline().split()[1]
            left, latencies, early, late = asyncio.run(load(address, process.pid, float(seconds)))
            time.sleep(SWEPT_S)
            process.send_signal(signal.SIGTERM)
            told = process.stdout.read()
        finally:
            if process.poll() is None:
                process.kill()
    assert process.returncode == 0
    p50, p90, p99 = 1e3 * np.percentile(latencies, [50, 90, 99])
    print(
        f"{len(latencies)} drives in {seconds} s, {left} sessions left open; latency at the "
        f"client p50 {p50:.0f} ms, p90 {p90:.0f} ms, p99 {p99:.0f} ms; "
        f"memory {early:.0f} -> {late:.0f} MiB"
    )
    print(told)
    found = re.search(r"(\d+) sessions \((\d+) dropped as idle\), (\d+) drives.* (\d+) calls", told)
    sessions, dropped, drives, refused = map(int, found.groups())
    assert (drives, refused) == (len(latencies), 0)
    assert sessions >= SESSIONS
    assert left >= SESSIONS // VANISH
    assert dropped == left
    assert late - early < MORE_MIB
