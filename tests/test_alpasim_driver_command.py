"""`alpagym serve driver` as a process, and an independent implementation of AlpaSim's contract."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import grpc
import numpy as np
import pytest
import torch
from carla_driver_interface.testing import FakeCamera, FakeLoop

from alpagym.checkpoint import save_policy
from alpagym.cli import main
from alpagym.config import SimConfig
from alpagym.interop.alpasim.wire.messages import common
from alpagym.interop.alpasim.wire.services import EGODRIVER, Stub
from alpagym.policies.registry import make_policy
from alpagym.training_config import PolicyConfig
from alpagym.types import EgoFeature
from alpasim_talk import KINDS

START_S, END_S = 120.0, 60.0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A policy that steers against the route offset and the heading error, and holds its speed."""
    file = tmp_path_factory.mktemp("driver") / "policy.safetensors"
    config = PolicyConfig(kind="trajectory", width=4, hidden=16, knots=4)
    sim_config = replace(KINDS["plans"][1], plan_steps=40)
    policy = make_policy(config, sim_config)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.zero_()
        first, second, last = policy.trunk[0], policy.trunk[2], policy.trunk[4]
        for unit, sign in ((0, 1.0), (1, -1.0)):
            first.weight[unit, EgoFeature.ROUTE_OFFSET] = sign * 0.4
            first.weight[unit, EgoFeature.HEADING_ERROR] = sign
            second.weight[unit, unit] = 1.0
            for knot in range(config.knots):
                last.weight[2 * knot + 1, unit] = -sign * 0.8
    save_policy(file, policy, config, sim_config, ["synthetic-cc0"])
    return file


class Served:
    """A driver in a process of its own."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "alpagym", "serve", "driver", "port=0", "threads=1"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [*command, "device=cpu", *options], stdout=pipe, stderr=pipe, text=True
        )
        self.ready = self.process.stdout.readline()
        found = re.match(r"driver: (\S+:\d+) serves \S+ on cpu, 1 threads \((.*)\)\n", self.ready)
        assert found, self.ready + self.process.stderr.read()
        self.address, self.safety = found.groups()

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=END_S)
        told = [line for line in err.splitlines() if "Traceback" in line or "alpagym:" in line]
        return self.process.returncode, out, "\n".join(told)


@contextmanager
def serve(*options: str):
    served = Served(*options)
    with served.process:
        try:
            yield served
        finally:
            if served.process.poll() is None:
                served.process.kill()


def test_it_drives_the_car_of_others_and_ends_cleanly(checkpoint) -> None:
    """The runtime side of `carla-driver-interface`, which knows nothing of ours."""
    with serve(f"checkpoint={checkpoint}") as served:
        assert served.safety == "no TLS"
        camera = FakeCamera(width=64, height=36)
        car = FakeLoop(
            served.address, [camera], initial_speed_mps=8.0, initial_lateral_offset_m=1.0
        )
        with car:
            result = car.run(100, seed=3)
        served.process.send_signal(signal.SIGTERM)
        code, out, err = served.end()
    assert (code, err) == (0, "")
    assert re.fullmatch(
        r"driver: 1 sessions \(0 dropped as idle\), 100 drives in 100 batches, 0 calls refused; "
        r"latency of drives p50 \d+\.\d ms, p90 \d+\.\d ms, p99 \d+\.\d ms\n",
        out,
    )
    assert result.steps == 100
    offsets = np.abs(result.lateral_offsets_m)
    assert offsets[0] == pytest.approx(1.0)
    assert offsets.max() < 1.3
    assert offsets[-20:].max() < 0.2
    assert result.ego.positions[-1, 0] == pytest.approx(0.1 * 8.0 * 99, rel=0.02)


def test_clients_may_end_it_only_where_that_is_allowed(checkpoint) -> None:
    with serve(f"checkpoint={checkpoint}", "shut_down=true", "host=0.0.0.0") as served:
        assert served.safety == "no TLS, open to all who reach this address"
        address = f"127.0.0.1:{served.address.rpartition(':')[2]}"
        with grpc.insecure_channel(address) as channel:
            stub = Stub(channel, EGODRIVER)
            version = stub.get_version(common.Empty(), timeout=START_S)
            assert version.version_id.startswith("alpagym-")
            assert version.grpc_api_version.minor == 54
            stub.shut_down(common.Empty(), timeout=START_S)
            code, out, err = served.end()
    assert (code, err) == (0, "")
    assert out.startswith("driver: 0 sessions (0 dropped as idle), 0 drives in 0 batches")


def test_wrong_options_get_one_sentence(checkpoint, tmp_path, capsys) -> None:
    full = tmp_path / "full.safetensors"
    config, sim_config = PolicyConfig(width=8, hidden=16), SimConfig()
    save_policy(full, make_policy(config, sim_config), config, sim_config, [])
    good = f"checkpoint={checkpoint}"
    for given, words in {
        (): "serve: expected driver or runtime, as in serve driver checkpoint=PATH or serve ",
        ("renderer",): "serve runtime scenarios=PATH, got renderer",
        ("driver",): "serve driver: expected checkpoint=<run>",
        ("driver", "checkpoint=nowhere"): "nowhere: no such policy file",
        ("driver", f"checkpoint={full}"): "train one with observation=alpasim",
        ("driver", good, "port=70000"): "port: expected a whole number from 0 to 65535, got 70000",
        ("driver", good, "idle_s=0"): "idle_s: expected a number above 0, got 0.0",
        ("driver", good, "max_sessions=0"): "max_sessions: expected a whole number from 1",
        ("driver", good, "host=300.1.2.3"): "300.1.2.3:6789: expected an address to listen at",
        ("driver", good, "tls_key=x"): "tls: expected a certificate and its key, got only a key",
        ("driver", good, "reward_weights={progress: 1.0}"): "reward_weights: expected any of",
        ("driver", good, "ports=1"): "ports: no such option; did you mean port?",
    }.items():
        assert main(["serve", *given]) == 2, given
        captured = capsys.readouterr()
        (line,) = [x for x in captured.err.splitlines() if x.startswith("alpagym: ")]
        assert words in line, (given, line)
        assert captured.out == ""


def test_options_are_listed(capsys) -> None:
    assert main(["serve", "driver", "--options"]) == 0
    lines = capsys.readouterr().out
    assert "host=127.0.0.1" in lines
    assert "# Sessions at a time; more are refused." in lines
