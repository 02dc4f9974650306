"""The rehearsal of AlpaSim's challenge: its protocol, what spoils a run, budget and memory."""

from __future__ import annotations

import io
import os
import time

import pytest
import torch
from rich.console import Console

from alpagym import challenge
from alpagym.config import SimConfig, Traffic
from alpagym.eval import evaluate_command
from alpagym.interop.alpasim.processes import listener, peak_memory
from alpagym.interop.alpasim.session_options import SessionConfig
from alpagym.interop.alpasim.wire.messages import egodriver
from alpagym.training_config import DataConfig, EvalConfig
from alpasim_drivers import ScriptedDriver, ahead
from alpasim_talk import policy_of

COUNT = 4
DATA = DataConfig(held_out=COUNT, egos_per_scenario=1, workers=1)


def rehearse(policy: str, **options) -> tuple[dict, str]:
    shown = io.StringIO()
    config = EvalConfig(policy=policy, suite="challenge", device="cpu", data=DATA, **options)
    value = evaluate_command(config, [], Console(file=shown, width=200))
    return value, shown.getvalue()


def test_a_driver_far_away_is_judged_by_the_protocol() -> None:
    def answer(session, request):
        if session.drives == 30:
            time.sleep(0.3)
        return ahead(session, request, 5.0)

    sessions = SessionConfig(force_gt=0.5, send_ground_truth=True, planner_delay=0.1)
    with ScriptedDriver(answer) as driver:
        value, shown = rehearse(
            driver.address, alpasim=sessions, sim=SimConfig(traffic=Traffic.idm)
        )
    assert len(driver.closed) == COUNT
    for session in driver.closed:
        assert not session.named("submit_recording_ground_truth")
        points = session.named("submit_route")[0].route.waypoints
        ahead_of = [p.x for p in points if p.x == p.x]
        assert all(x > 30.0 for x in ahead_of)  # 40 m of path, which may bend
        assert session.named("drive")[17].time_now_us == 1_700_000
    board = value["challenge"]
    assert board["valid"]
    assert board["num_scored"] == board["num_rollouts"] == COUNT
    scores = [row["challenge"]["scene_score"] for row in value["per_scenario"]]
    assert scores == [row["metrics"]["alpasim"]["scene_score"] for row in value["per_scenario"]]
    assert board["scene_score"] == pytest.approx(sum(scores) / COUNT)
    incidents = [row["challenge"]["incident_at_fault"] for row in value["per_scenario"]]
    assert board["num_incidents_at_fault"] == sum(incidents)
    km = sum(row["challenge"]["km"] for row in value["per_scenario"])
    expected = km / sum(incidents) if any(incidents) else "inf"
    assert board["avg_dist_between_incidents_at_fault"] == pytest.approx(expected)
    used = board["driver"]
    assert used["num_calls"] == value["sessions"]["calls"]["drive"]["num_calls"]
    assert used["share_over_budget"] >= COUNT / used["num_calls"]
    assert f"process {os.getpid()}," in used["memory_seen"]
    assert used["within_memory_limit"]
    assert used["memory_mib"] > 50
    assert board["drive_irt_rank"] is None
    assert "needs the rollouts of other entrants" in shown


def test_an_end_that_the_driver_asks_for_spoils_the_run() -> None:
    scene = []

    def answer(session, request):
        scene.append(session.scene)
        if session.scene == min(scene) and session.drives > 40:
            return egodriver.DriveResponse(terminate_session=True)
        if session.scene == max(scene) and session.drives > 40:
            return egodriver.DriveResponse()
        return ahead(session, request, 5.0)

    with ScriptedDriver(answer) as driver:
        value, shown = rehearse(driver.address)
    board = value["challenge"]
    assert not board["valid"]
    assert (board["num_invalid"], board["num_failed"], board["num_scored"]) == (1, 1, COUNT - 2)
    by_status = {row["challenge"]["status"]: row["challenge"] for row in value["per_scenario"]}
    assert by_status["invalid"] == {
        "status": "invalid", "scene_score": 0.0, "reason": "the driver asked for the end"
    }  # fmt: skip
    assert by_status["failed"]["scene_score"] == 0.0
    assert "no: the driver ended sessions" in shown


def test_baselines_are_judged_over_the_same_steps() -> None:
    value, _ = rehearse("log", sim=SimConfig(traffic=Traffic.idm))
    board = value["challenge"]
    assert board["num_scored"] == COUNT
    assert board["progress_clipped_rel"] == pytest.approx(1.0, abs=0.02)
    assert board["driver"]["num_calls"] == 0
    for row in value["per_scenario"]:  # nothing before the 1.7 s that the record drives
        numbers = row["metrics"]["alpasim"]
        assert numbers["dist_traveled_m"] <= numbers["gt_dist_traveled_m"] + 0.5


def test_a_policy_in_process_is_timed_alone() -> None:
    from alpagym.scenarios.procedural import generate_many

    policy, sim_config = policy_of("actions")
    (scenario,) = generate_many(1, 3)
    used = challenge.resources_of(policy, None, scenario, sim_config, torch.device("cpu"))
    assert len(used.latencies) == scenario.num_steps
    assert used.memory is not None
    assert used.memory > 50 * 2**20


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"suite": "chalenge"}, "suite: expected challenge, got chalenge"),
        ({"suite": "challenge", "metrics": "nuplan"}, "metrics: expected alpasim with suite="),
    ],
)
def test_what_cannot_be_rehearsed_is_refused(options, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        evaluate_command(EvalConfig(policy="log", **options))


def test_what_listens_elsewhere_is_not_seen() -> None:
    assert listener("192.0.2.1", 6789) is None
    assert listener("127.0.0.1", 1) is None
    assert peak_memory(2**22 + 1) is None
