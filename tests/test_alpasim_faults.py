"""Drivers that hang, die or answer what is no plan: their session fails, others do not notice."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace

import grpc
import numpy as np
import pytest

import scenario_factory as factory
from alpagym.cli import main
from alpagym.config import ActionType, SimConfig
from alpagym.interop.alpasim.address import parse_address
from alpagym.interop.alpasim.cameras import load_renderer
from alpagym.interop.alpasim.driver_client import CallStatistics, DriverClient
from alpagym.interop.alpasim.remote_evaluation import evaluate_driver
from alpagym.interop.alpasim.session_options import SessionConfig
from alpagym.interop.alpasim.timeline import taken_over
from alpagym.interop.alpasim.wire.messages import common, egodriver
from alpasim_drivers import Refusal, ScriptedDriver, ahead

CONFIG = SessionConfig(retries=1)
SIM = SimConfig(action=ActionType.trajectory)
SCENES = [f"straight {k}" for k in range(4)]
MANY = [factory.straight(frames=34, name=name) for name in SCENES]
FAULTY = SCENES[2]


def drive(address: str, config: SessionConfig = CONFIG):
    scenarios, _ = taken_over(MANY, config, 1)
    return evaluate_driver(parse_address("policy", address), scenarios, SIM, config)


def with_pose(k: int, change):
    """An answer whose plan is changed at one pose."""

    def answer(session, request):
        made = ahead(session, request)
        change(made.trajectory.poses[k])
        return made

    return answer


def refuse(code):
    def answer(session, request):
        raise Refusal(code, "no plan today")

    return answer


def huge(session, request):
    made = ahead(session, request)
    made.debug_info.unstructured_debug_info = b"x" * (65 * 2**20)
    return made


def set_time(time_us):
    return lambda pose: setattr(pose, "timestamp_us", time_us)


FAULTS = {
    "no plan": (
        lambda s, r: egodriver.DriveResponse(),
        "at 2 s: plan: expected at least one pose, got none",
    ),
    "NaN": (
        with_pose(3, lambda p: setattr(p.pose.vec, "y", np.nan)),
        "at 2 s: plan pose 3: expected finite numbers, got NaN or infinity",
    ),
    "no quaternion": (
        with_pose(1, lambda p: p.pose.ClearField("quat")),
        "at 2 s: plan pose 1: expected a unit quaternion, got one of length 0",
    ),
    "another time": (
        with_pose(0, set_time(1_900_000)),
        "at 2 s: plan: expected a first pose at the time asked, 2000000 us, got 1900000 us",
    ),
    "times that fall": (
        with_pose(2, set_time(2_100_000)),
        "at 2 s: plan pose 2: expected times that rise, got 2100000 us after 2100000 us",
    ),
    "a time beyond all times": (
        with_pose(39, set_time(2**64 - 1)),
        "at 2 s: plan pose 39: expected a time of at most 2^63 - 1 us, got 18446744073709551615",
    ),
    "a refusal": (
        refuse(grpc.StatusCode.FAILED_PRECONDITION),
        "drive failed with FAILED_PRECONDITION: no plan today",
    ),
    "no message": (
        lambda s, r: b"\xff\xff\xff",
        "answered drive with bytes that are no message of it",
    ),
    "an oversize message": (huge, "drive failed with RESOURCE_EXHAUSTED: "),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_answer_fails_its_own_session_alone(fault) -> None:
    bad, sentence = FAULTS[fault]

    def answer(session, request):
        faulty = session.scene == FAULTY and request.time_now_us == 2_000_000
        return (bad if faulty else ahead)(session, request)

    with ScriptedDriver(answer) as driver:
        found = drive(driver.address)
        assert not driver.sessions  # the faulty one was closed too
    (failed,) = found.results.undriven.items()
    assert failed[0] == SCENES.index(FAULTY)
    assert failed[1].startswith(f"driver {driver.address.removeprefix('grpc://')}: {sentence}")
    assert found.results.failure.tolist() == [False, False, True, False]
    assert found.results.scene_score[2] == 0.0
    assert (found.results.progress[[0, 1, 3]] > 0.3).all()
    assert found.results.steps.tolist() == [16, 16, 0, 16]
    assert found.summary["num_failed_sessions"] == 1


def test_a_driver_that_hangs_is_waited_for_only_so_long() -> None:
    def answer(session, request):
        if session.scene == FAULTY and session.drives == 5:
            driver.released.wait()
        return ahead(session, request)

    with ScriptedDriver(answer) as driver:
        found = drive(driver.address, replace(CONFIG, drive_timeout=5.0))
        assert not driver.sessions
        driver.released.set()
    assert list(found.results.undriven) == [2]
    assert found.results.undriven[2].endswith("expected an answer to drive within 5 s")
    assert found.summary["failed_calls"] == {"drive: DEADLINE_EXCEEDED": 1}


def test_a_call_that_did_not_arrive_is_made_again() -> None:
    lost = []

    def answer(session, request):
        if session.scene == FAULTY and session.drives in {3, 20} - set(lost):
            lost.append(session.drives)
            session.calls.pop()
            raise Refusal(grpc.StatusCode.UNAVAILABLE)
        return ahead(session, request)

    with ScriptedDriver(answer) as driver:
        found = drive(driver.address)
    assert lost == [3, 20]
    assert found.results.undriven == {}
    assert found.summary["num_repeated_calls"] == 2
    assert found.summary["num_restarted_sessions"] == 0


def test_a_driver_that_comes_back_soon_is_reached() -> None:
    """Between two tries of a call, not after gRPC's own pause of a second and more."""

    async def call(port: int) -> CallStatistics:
        statistics = CallStatistics()
        client = DriverClient(
            f"127.0.0.1:{port}", SessionConfig(), asyncio.Semaphore(1), statistics
        )
        waiting = asyncio.create_task(client.call("get_version", common.Empty()))
        while not statistics.retried:
            await asyncio.sleep(0.01)
        with ScriptedDriver(port=port):
            await waiting
        await client.close()
        return statistics

    with ScriptedDriver() as driver:
        port = driver.port
    assert not asyncio.run(call(port)).failures


def test_a_session_whose_driver_went_away_is_driven_anew() -> None:
    gone = []

    def answer(session, request):
        if session.scene == FAULTY and session.drives >= 20 and len(gone) < 2:
            gone.append(session.uuid)
            raise Refusal(grpc.StatusCode.UNAVAILABLE)
        return ahead(session, request)

    with ScriptedDriver(answer) as driver:
        found = drive(driver.address)
        again = [s for s in driver.closed if s.scene == FAULTY]
    assert found.results.undriven == {}
    assert found.summary["num_restarted_sessions"] == 1
    assert [s.uuid for s in again] == [gone[0]] * 2  # the same name, as AlpaSim has it
    assert again[1].drives == 33


def test_a_driver_that_dies_fails_its_sessions_soon() -> None:
    def answer(session, request):
        if session.scene == FAULTY and session.drives == 10:
            driver.kill_soon()
        return ahead(session, request)

    with ScriptedDriver(answer) as driver:
        found = drive(driver.address)
    assert set(found.results.undriven) == {0, 1, 2, 3}
    assert all("cannot be reached for" in reason for reason in found.results.undriven.values())
    assert found.results.failure.all()


def test_an_end_that_the_driver_asks_for() -> None:
    def answer(session, request):
        at = {SCENES[0]: 25, SCENES[1]: 3}.get(session.scene)
        made = ahead(session, request)
        made.terminate_session = session.drives == at
        return made

    with ScriptedDriver(answer) as driver:
        found = drive(driver.address)
    assert list(found.results.undriven) == [1]
    assert found.results.undriven[1].endswith("ended the session at 0.2 s, before it took over")
    assert found.results.steps.tolist() == [7, 0, 16, 16]
    assert found.summary["num_ended_by_driver"] == 1


def test_a_renderer_that_fails(monkeypatch) -> None:
    monkeypatch.setattr("alpagym.interop.alpasim.cameras.placeholder", lambda *_: 1 / 0)
    config = replace(CONFIG, cameras=("camera_rear_tele_30fov",))
    with ScriptedDriver() as driver:
        found = drive(driver.address, config)
    assert len(found.results.undriven) == 4
    assert found.results.undriven[0] == (
        "renderer placeholder: failed for camera_rear_tele_30fov at 0 s with ZeroDivisionError: "
        "division by zero"
    )


# The command line


def evaluated(capsys, *arguments: str) -> dict:
    assert main(["eval", "device=cpu", "threads=1", "data.held_out=2", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_renderer_that_is_not_installed(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ValueError, match=r"^alpasim.renderer: placeholder needs Pillow: pip inst"):
        load_renderer("placeholder")


def test_eval_of_a_driver_tells_what_eval_of_others_tells(capsys) -> None:
    with ScriptedDriver() as driver:
        found = evaluated(capsys, f"policy={driver.address}", "metrics=alpasim", "compare=idm")
    assert found["driver"] == driver.address
    assert set(found["compared"]) <= set(found)
    assert found["num_scenarios"] == 2
    assert found["sessions"]["num_failed_sessions"] == 0
    calls = found["sessions"]["calls"]["drive"]
    assert calls["num_calls"] > 100
    assert 0 < calls["p50_ms"] <= calls["p90_ms"] <= calls["p99_ms"] <= calls["max_ms"]
    measured = found["metrics"]["alpasim"]
    assert measured["num_scored"] == 2
    assert measured["plan_deviation"] >= 0.0  # plans are known here
    assert "plan_deviation" not in found["compared"]["metrics"]["alpasim"]
    assert found["differences"]["progress"]["num_drives"] == 2


def test_scenarios_that_were_not_driven_have_score_0(capsys) -> None:
    failing = []

    def answer(session, request):
        if session.scene in failing:
            raise Refusal(grpc.StatusCode.INTERNAL)
        return ahead(session, request)

    with ScriptedDriver(answer) as driver:
        asked = f"policy={driver.address}", "metrics=all", "data.held_out=3"
        whole = evaluated(capsys, *asked)
        best = max(whole["per_scenario"], key=lambda row: row["metrics"]["alpasim"]["scene_score"])
        failing.append(best["id"])
        assert main(["eval", "device=cpu", "threads=1", *asked]) == 0
        out, err = capsys.readouterr()
    found = json.loads(out)
    for suite, name in (
        ("alpasim", "scene_score"),
        ("nuplan", "closed_loop_score"),
        ("navsim", "EPDMS"),
    ):
        assert f"{suite}: 2 of 2 drives; 1 not driven" in err
        rows = {row["id"]: row["metrics"][suite][name] for row in found["per_scenario"]}
        assert rows[best["id"]] == 0.0
        total = found["metrics"][suite]
        assert total[name] == pytest.approx(sum(rows.values()) / 3)
        assert total["num_drives"][name] == 3
        assert (total["num_scored"], total["num_not_driven"]) == (2, 1)
        assert total[name] <= whole["metrics"][suite][name]
    assert found["metrics"]["alpasim"]["num_drives"]["progress"] == 2


def test_what_is_asked_for_wrongly(capsys) -> None:
    for policy, sentence in (
        ("grpc://", "policy: expected grpc://host:port or grpcs://host:port, got grpc://"),
        ("http://a:1", "policy: expected grpc://host:port or grpcs://host:port, got http://a:1"),
        (
            "grpc://a:1/b",
            "policy: expected grpc://host:port or grpcs://host:port, got grpc://a:1/b",
        ),
        ("grpc://a", "policy: expected grpc://host:port or grpcs://host:port, got grpc://a"),
    ):
        assert main(["eval", f"policy={policy}"]) == 2
        assert capsys.readouterr().err == f"alpagym: {sentence}\n"
    for option, sentence in (
        ("alpasim.force_gt=0.25", "alpasim.force_gt: expected a multiple of 0.1 s, the time from "),
        (
            "alpasim.tls_authority=a.pem",
            "alpasim.tls_*: expected a driver at grpcs://, got grpc://",
        ),
        ("alpasim.max_seconds=1", "alpasim.max_seconds: expected more than alpasim.force_gt=1.7, "),
        ("sim.plan_steps=10", "sim.plan_steps: expected at least 20, the 2 s that AlpaSim's "),
        ("alpasim.cameras=[left]", "alpasim.cameras: expected any of camera_front_wide_120fov, "),
        ("alpasim.route=scenic", "alpasim.route: expected one of map, recorded, simulator, none"),
        ("alpasim.renderer=no:way", "alpasim.renderer no:way: cannot import no: "),
    ):
        more = ["alpasim.cameras=[camera_rear_tele_30fov]"] if "renderer" in option else []
        asked = ["eval", "policy=grpc://localhost:1", "data.held_out=1", "device=cpu", option]
        assert main([*asked, *more]) == 2
        told = capsys.readouterr().err.splitlines()[-1]
        assert told.startswith(f"alpagym: {sentence}")


def test_nobody_is_there(capsys) -> None:
    with ScriptedDriver() as driver:
        address = driver.address
    asked = ["eval", f"policy={address}", "data.held_out=1", "device=cpu", "alpasim.retries=0"]
    assert main(asked) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"alpagym: policy: expected a driver at {address}: ")
