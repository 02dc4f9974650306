"""`alpagym serve runtime`, as a process."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest

from alpagym.cli import main
from alpagym.interop.alpasim.wire.messages import common
from alpagym.interop.alpasim.wire.services import RUNTIME, Stub
from alpasim_drivers import ScriptedDriver
from alpasim_runtimes import PATIENCE, request, rollouts

SMALL = ("data.held_out=2", "device=cpu", "threads=1", "alpasim.max_seconds=2.5")


@contextmanager
def serve(*options: str) -> Iterator[tuple[subprocess.Popen, re.Match]]:
    """The process, and the address and number of scenarios that it tells."""
    command = [sys.executable, "-m", "alpagym", "serve", "runtime", "port=0", *SMALL, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            line = process.stdout.readline()
            told = re.fullmatch(r"runtime: (\S+:\d+) serves (\d+) scenarios, .* \((.*)\)\n", line)
            assert told, (line, process.stderr.read() if process.poll() is not None else "")
            yield process, told
        finally:
            if process.poll() is None:
                process.kill()


def test_it_serves_until_it_is_told_to_end() -> None:
    with serve() as (process, told), ScriptedDriver() as driver:
        assert told[2] == "2"
        assert told[3] == "no TLS"
        with grpc.insecure_channel(told[1]) as channel:
            stub = Stub(channel, RUNTIME)
            scenes = stub.get_runtime_info(common.Empty(), timeout=PATIENCE).scenes
            asked = request([driver], *(rollouts(s.scene_id) for s in scenes), at_once=2)
            found = stub.simulate(asked, timeout=PATIENCE).rollout_returns
        assert [one.error for one in found] == ["", ""]
        assert {len(one.timestep_metrics[0].values) for one in found} == {26}
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert re.fullmatch(
        r"runtime: 2 rollouts, 0 of them failed; 16 plans, p50 \d+\.\d ms, p90 \d+\.\d ms, "
        r"p99 \d+\.\d ms\n",
        out,
    )


def test_a_client_may_end_it_or_not() -> None:
    with serve("shut_down=false", "host=0.0.0.0") as (process, told):
        assert told[3] == "no TLS, open to all who reach this address"
        address = f"127.0.0.1:{told[1].rpartition(':')[2]}"
        with (
            grpc.insecure_channel(address) as channel,
            pytest.raises(grpc.RpcError, match="shut_down: not allowed here"),
        ):
            Stub(channel, RUNTIME).shut_down(common.Empty(), timeout=PATIENCE)
        assert process.poll() is None
    with serve() as (process, told):
        with grpc.insecure_channel(told[1]) as channel:
            Stub(channel, RUNTIME).shut_down(common.Empty(), timeout=PATIENCE)
        assert process.wait(PATIENCE) == 0


def test_wrong_options_get_one_sentence(capsys, tmp_path) -> None:
    for given, words in {
        ("port=-1",): "port: expected a whole number from 0 to 65535, got -1",
        ("alpasim.concurrent=0",): "alpasim.concurrent: expected a whole number from 1",
        ("alpasim.force_gt=-1",): "alpasim.force_gt: expected a number of at least 0, got -1.0",
        (
            "alpasim.force_gt=60",
            "alpasim.max_seconds=0",
        ): "expected the ego in 602 frames from frame 0 on",
        (f"scenarios={tmp_path}",): str(tmp_path),
        ("alpasim.max_seconds=1.7",): "alpasim.max_seconds: expected more than alpasim.force_gt=1",
        ("sim.plan_steps=19",): "sim.plan_steps: expected at least 20, the 2 s that AlpaSim's ",
        ("alpasim.tls_key=x",): "tls: expected a certificate and its key, got only a key",
        ("alpasim.tls_authority=none.pem",): "none.pem",
        ("tls_key=x",): "tls: expected a certificate and its key, got only a key",
        ("sim.multi_agent=true",): "sim.multi_agent: expected false",
        ("host=300.1.2.3",): "300.1.2.3:50051: expected an address to listen at",
    }.items():
        assert main(["serve", "runtime", *SMALL, *given]) == 2, given
        captured = capsys.readouterr()
        (line,) = [x for x in captured.err.splitlines() if x.startswith("alpagym: ")]
        assert words in line, (given, line)


def test_options_are_listed(capsys) -> None:
    assert main(["serve", "runtime", "--options"]) == 0
    listed = capsys.readouterr().out
    assert "alpasim.skip_driver_during_force_gt=true" in listed
    assert "# Sessions at a time." in listed
