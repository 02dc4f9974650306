"""Hundreds of sessions at a time between our runtime and our drivers; one of five is killed."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest

from alpagym.checkpoint import save_policy
from alpagym.interop.alpasim.wire.connection import limits
from alpagym.interop.alpasim.wire.messages import common
from alpagym.interop.alpasim.wire.services import RUNTIME, Stub
from alpasim_runtimes import PATIENCE, request, rollouts
from alpasim_talk import KINDS, policy_of

DRIVERS, KILLED = 5, 1
BEGINS_S = 300.0
"""For five processes to begin, where others want the same cores."""
MORE_MIB = 128.0
"""What the second half may add to the runtime's memory."""


@contextmanager
def alpagym(*arguments: str) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-m", "alpagym", "serve", *arguments, "port=0", "device=cpu"]
    command += ["threads=1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def port_of(process: subprocess.Popen) -> int:
    line = process.stdout.readline()
    told = re.match(r"\w+: 127\.0\.0\.1:(\d+) serves ", line)
    assert told, (line, process.stderr.read())
    return int(told[1])


def resident_mib(process: subprocess.Popen) -> float:
    (line,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    return int(line) / 1024


class Load:
    """Clients that ask for one rollout after the other, each of its own driver."""

    def __init__(self, runtime: int, drivers: list[int], clients: int, seconds: float) -> None:
        self.runtime, self.drivers = runtime, drivers
        self.clients, self.seconds = clients, seconds
        self.succeeded: Counter[int] = Counter()
        self.failed: dict[int, list[str]] = {}
        self.open = self.most_open = 0

    async def __call__(self, kill, look) -> None:
        options = limits(256)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.runtime}", options) as channel:
            stub = Stub(channel, RUNTIME)
            info = await stub.get_runtime_info(common.Empty(), timeout=PATIENCE)
            self.scenes = [scene.scene_id for scene in info.scenes]
            self.until = time.monotonic() + self.seconds
            async with asyncio.TaskGroup() as group:
                for k in range(self.clients):
                    group.create_task(self._client(stub, k))
                await asyncio.sleep(0.4 * self.seconds)
                kill()
                await asyncio.sleep(0.1 * self.seconds)
                look()
                await asyncio.sleep(0.5 * self.seconds)

    async def _client(self, stub, k: int) -> None:
        driver = self.drivers[k % len(self.drivers)]
        while True:
            scene = rollouts(self.scenes[k % len(self.scenes)])
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            answer = await stub.simulate(request([driver], scene), timeout=BEGINS_S)
            self.open -= 1
            (found,) = answer.rollout_returns
            if not found.success:
                self.failed.setdefault(driver, []).append(found.error)
                return
            self.succeeded[driver] += 1
            if time.monotonic() > self.until:
                return


@pytest.mark.parametrize(
    ("sessions", "seconds"),
    [(500, 15.0), pytest.param(500, 300.0, marks=pytest.mark.heavy)],
)
def test_load(tmp_path, sessions, seconds) -> None:
    checkpoint = tmp_path / "policy.safetensors"
    policy, sim_config = policy_of("plans")
    save_policy(checkpoint, policy, KINDS["plans"][0], sim_config, [])
    rng = random.Random(0)
    with ExitStack() as processes:
        runtime = processes.enter_context(
            alpagym(
                *("runtime", "data.held_out=4", f"alpasim.concurrent={sessions}"),
                *("alpasim.force_gt=0.2", "alpasim.max_seconds=0.8", "alpasim.retries=1"),
                *("alpasim.drive_timeout=300", "alpasim.call_timeout=300"),
            )
        )
        drivers = [
            processes.enter_context(alpagym("driver", f"checkpoint={checkpoint}"))
            for _ in range(DRIVERS)
        ]
        ports = {port_of(driver): driver for driver in drivers}
        killed = rng.sample(sorted(ports), KILLED)
        load = Load(port_of(runtime), list(ports), sessions, seconds)
        memory = []
        asyncio.run(
            load(
                lambda: [ports[port].kill() for port in killed],
                lambda: memory.append(resident_mib(runtime)),
            )
        )
        memory.append(resident_mib(runtime))
        ended = [resident_mib(ports[port]) for port in ports if port not in killed]
        runtime.send_signal(signal.SIGTERM)
        out, err = runtime.communicate(timeout=PATIENCE)
    print(
        f"\n{sessions} sessions, {seconds:g} s: {out.strip()}; "
        f"{sum(load.succeeded.values())} succeeded; memory of the "
        f"runtime {memory[0]:.0f} and then {memory[1]:.0f} MiB, of drivers {max(ended):.0f} MiB"
    )
    assert (runtime.returncode, err) == (0, "")
    assert load.most_open == sessions
    assert set(load.failed) == set(killed)  # nobody else's rollouts
    for errors in load.failed.values():
        assert len(errors) == sessions // DRIVERS
        assert all("cannot be reached for" in error for error in errors)
    for port in set(ports) - set(killed):
        assert load.succeeded[port] >= sessions // DRIVERS
    assert memory[1] - memory[0] < MORE_MIB
