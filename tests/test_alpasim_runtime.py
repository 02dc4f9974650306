"""AlpaSim's RuntimeService on our simulator, over sockets: what trainers ask of it and get."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import grpc
import numpy as np
import pytest

import scenario_factory as factory
from alpagym.interop.alpasim.address import parse_address
from alpagym.interop.alpasim.remote_evaluation import evaluate_driver
from alpagym.interop.alpasim.runtime.returns import answer_size
from alpagym.interop.alpasim.wire.messages import common, runtime
from alpagym.metrics import alpasim
from alpagym.metrics.drive import drive_of
from alpasim_drivers import Refusal, ScriptedDriver, Session, ahead
from alpasim_runtimes import DEFAULT, PATIENCE, ServedRuntime, request, rollouts
from test_alpasim_eval import FREE

MADE = [
    factory.curve(frames=48),
    *(factory.straight(frames=44, name=f"straight {k}") for k in range(5)),
    factory.assemble(
        "no map", [], [factory.Actor(factory.line((0.0, 0.0), (300.0, 0.0)), 0.0, 6.0)]
    ),
]
STRAIGHT, LATE = "straight 0", "straight 4"
AGGREGATED = {
    *("collision_front", "collision_rear", "collision_lateral", "collision_any", "offroad"),
    *("wrong_lane", "min_distance_to_lane_boundary_m", "min_distance_to_obstacle_m"),
    *("open_loop_collision", "progress", "progress_rel", "progress_rel_to_total"),
    *("dist_to_gt_trajectory", "dist_to_gt_location", "dist_traveled_m", "gt_dist_traveled_m"),
    *(f"min_ade@{s}s(gt)" for s in (0.5, 1.0, 2.5, 5.0)),
    *("plan_deviation", "safety_monitor_triggered"),
}
"""What AlpaSim's runtime returns of a rollout without cameras."""


@pytest.fixture(scope="module")
def served() -> Iterator[ServedRuntime]:
    with ServedRuntime(MADE, replace(DEFAULT, concurrent=8, retries=1)) as found:
        yield found
    assert found.tasks_left == 0


@pytest.fixture
def driver() -> Iterator[ScriptedDriver]:
    with ScriptedDriver() as found:
        yield found


def settled(condition: Callable[[], bool]) -> bool:
    """Whether it comes to hold."""
    until = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


def test_what_there_is_is_told(served) -> None:
    info = served.info()
    assert [scene.scene_id for scene in info.scenes] == [s.id for s in served.scenarios]
    assert info.max_supported_concurrent_rollouts == 8
    assert info.scenes[1].metadata.end_time_us == 4_300_000
    assert info.runtime_version.version_id.startswith("alpagym-")
    assert info.runtime_version.grpc_api_version.minor == 54
    capacities = {c.service_name: (c.total_capacity, c.skipped) for c in info.service_capacities}
    assert capacities["driver"] == (8, False)
    assert capacities["renderer"] == (8, True)


def test_a_rollout_as_trainers_ask_for_it(served, driver) -> None:
    spec = rollouts(STRAIGHT, session_uuids=["mine"], random_seed=11)
    answer = served.simulate([driver], spec)
    (found,) = answer.rollout_returns
    assert (found.success, found.error, found.error_code) == (True, "", 0)
    assert found.rollout_uuid == "mine"
    assert found.rollout_spec == spec
    assert 0.5 < found.ByteSize() / answer_size(44) < 1.0
    # The driver was told to forget the session before the answer came.
    assert not driver.sessions
    (session,) = driver.closed
    assert (session.uuid, session.scene, session.seed) == ("mine", STRAIGHT, 11)
    assert len(session.named("submit_recording_ground_truth")) == 43
    assert session.drives == 43 - 17  # not while the record drives
    assert answer.runtime_version == served.info().runtime_version


def test_metrics_have_alpasims_names_and_numbers(served, driver) -> None:
    (found,) = served.simulate([driver], rollouts("curve")).rollout_returns
    assert set(found.aggregated_metrics) == AGGREGATED
    metrics = {m.name: m for m in found.timestep_metrics}
    assert set(metrics) == AGGREGATED | {"eval_relevant"}
    times = list(metrics["progress"].timestamps_us)
    assert times == list(range(0, 4_800_000, 100_000))
    relevant = np.array(metrics["eval_relevant"].values)
    assert relevant.tolist() == [0.0] * 17 + [1.0] * 31
    kinds = runtime.TimeAggregation
    for name, how in (("progress", "LAST"), ("offroad", "MAX"), ("plan_deviation", "MEAN")):
        one = metrics[name]
        assert kinds.Name(one.time_aggregation) == f"TIME_AGGREGATION_{how}"
        values = np.array(one.values)[np.array(one.valid)]
        reduced = {"LAST": values[-1], "MAX": values.max(), "MEAN": values.mean()}[how]
        assert found.aggregated_metrics[name] == pytest.approx(reduced)
    assert found.aggregated_metrics["offroad"] == 1.0  # straight on, where the road bends
    assert 0.0 < found.aggregated_metrics["progress"] < 1.0


def test_metrics_are_those_of_eval(served, driver) -> None:
    scenario = next(s for s in served.scenarios if s.id == "curve")
    (found,) = served.simulate([driver], rollouts("curve")).rollout_returns
    config = replace(served.config, send_ground_truth=False)
    there = parse_address("policy", driver.address)
    drives = evaluate_driver(there, [scenario], FREE, config, whole=True)
    score = alpasim.score(drive_of(drives.rollouts[0]), drives.replies[0])
    for name, value in score.returned.items():
        assert found.aggregated_metrics[name] == pytest.approx(value, nan_ok=True), name


def test_where_no_map_tells_alpasims_offroad_ours_is_there(served, driver) -> None:
    (found,) = served.simulate([driver], rollouts("no map")).rollout_returns
    assert found.success
    assert found.aggregated_metrics["offroad"] == 0.0
    assert {"progress", "collision_any"} <= set(found.aggregated_metrics)


def test_seeds_names_and_offsets_of_many_rollouts(served, driver) -> None:
    first = rollouts(STRAIGHT, 3, session_uuids=["a", "b", "c"], random_seed=2**64 - 2)
    late = rollouts(STRAIGHT, 1, session_uuids=["d"], start_time_offset_us=1_000_000)
    chance = rollouts(LATE, 2)
    answer = served.simulate([driver], first, late, chance, at_once=3)
    found = list(answer.rollout_returns)
    assert all(one.success for one in found)
    assert [one.rollout_uuid for one in found[:4]] == ["a", "b", "c", "d"]
    assert [list(one.rollout_spec.session_uuids) for one in found[2:5]] == [["c"], ["d"], []]
    assert {one.rollout_spec.nr_rollouts for one in found[:3]} == {3}
    sessions = {s.uuid: s for s in driver.closed}
    assert [sessions[n].seed for n in "abc"] == [2**64 - 2, 2**64 - 1, 0]
    drawn = [sessions[one.rollout_uuid].seed for one in found[4:]]
    assert drawn[1] == drawn[0] + 1
    assert sessions["a"].named("drive")[0].time_now_us == 1_700_000
    assert sessions["d"].named("drive")[0].time_now_us == 2_700_000
    assert sessions["d"].named("submit_egomotion_observation")[0].trajectory.poses[10]


def test_so_many_sessions_a_driver_has_at_a_time(served) -> None:
    most = {}

    def answer(session, request):
        most[driver] = max(most.get(driver, 0), len(driver.sessions))
        return ahead(session, request)

    with ScriptedDriver(answer) as driver:
        found = served.simulate([driver], rollouts(STRAIGHT, 5), at_once=2)
    assert sum(one.success for one in found.rollout_returns) == 5
    assert most[driver] == 2


def test_several_drivers_share_the_rollouts(served, driver) -> None:
    with ScriptedDriver() as other:
        found = served.simulate([driver, other], rollouts(STRAIGHT, 6), at_once=2)
        assert len(other.closed) + len(driver.closed) == 6
        assert len(other.closed) >= 2
        assert len(driver.closed) >= 2
    assert all(one.success for one in found.rollout_returns)


def test_many_requests_go_on_side_by_side(served, driver) -> None:
    calls = [
        served.stub.simulate.future(
            request([driver], rollouts(f"straight {k % 5}", session_uuids=[f"s{k}"])),
            timeout=PATIENCE,
        )
        for k in range(20)
    ]
    found = [call.result().rollout_returns[0] for call in calls]
    assert [one.rollout_uuid for one in found] == [f"s{k}" for k in range(20)]
    assert all(one.success for one in found)
    # The same driver in the same scenario drives the same, whatever goes on beside it.
    for k in range(5, 20):
        for name, value in found[k % 5].aggregated_metrics.items():
            assert found[k].aggregated_metrics[name] == value or math.isnan(value), name


# Faults


def nobody() -> int:
    """A port at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_dead_driver_beside_a_living_one_is_done_without(served, driver) -> None:
    found = served.simulate([nobody(), driver], rollouts(STRAIGHT, 4), at_once=2)
    assert [one.error for one in found.rollout_returns] == [""] * 4
    assert len(driver.closed) == 4


def test_a_dead_driver_alone_fails_its_rollouts_alone(served, driver) -> None:
    port = nobody()
    call = served.stub.simulate.future(request([driver], rollouts(STRAIGHT)), timeout=PATIENCE)
    found = served.simulate([port], rollouts(STRAIGHT, 2)).rollout_returns
    assert [one.success for one in found] == [False, False]
    for one in found:
        assert one.error.startswith(f"driver 127.0.0.1:{port}: cannot be reached for start_session")
        assert one.error_code == runtime.RolloutErrorCode.Value("ROLLOUT_ERROR_CODE_UNSPECIFIED")
        assert not one.aggregated_metrics
    assert call.result().rollout_returns[0].success


def test_a_driver_that_fails_in_one_rollout(served) -> None:
    def answer(session, request):
        if session.uuid == "b" and session.drives == 10:
            raise Refusal(grpc.StatusCode.INTERNAL, "out of order")
        return ahead(session, request)

    with ScriptedDriver(answer) as driver:
        spec = rollouts(STRAIGHT, 3, session_uuids=["a", "b", "c"])
        found = served.simulate([driver], spec, at_once=3).rollout_returns
        assert not driver.sessions
    assert [one.success for one in found] == [True, False, True]
    assert found[1].error.endswith("drive failed with INTERNAL: out of order")


def test_a_start_beyond_the_record_is_the_scenes_fault(served, driver) -> None:
    found = served.simulate(
        [driver], rollouts(STRAIGHT, start_time_offset_us=30_000_000), rollouts(STRAIGHT)
    ).rollout_returns
    assert [one.success for one in found] == [False, True]
    assert found[0].error_code == runtime.RolloutErrorCode.Value("ROLLOUT_ERROR_CODE_INVALID_SCENE")
    assert found[0].error == (
        "straight 0: expected the ego in 19 frames from frame 300 on, got frames 0 to 43"
    )


def test_a_record_that_folds_back_is_the_scenes_fault(driver) -> None:
    path = np.array([(0.0, 0.0, 0.0), (20.0, 0.0, 0.0), (0.0, 0.2, 0.0)])
    folded = factory.assemble("folded", [], [factory.Actor(path, 0.0, 10.0)])
    with ServedRuntime([folded, MADE[1]]) as served:
        specs = rollouts("folded"), rollouts(STRAIGHT)
        found = served.simulate([driver], *specs).rollout_returns
    assert [one.success for one in found] == [False, True]
    assert found[0].error.startswith("folded: no route: waypoint ")
    assert found[0].error_code == runtime.RolloutErrorCode.Value("ROLLOUT_ERROR_CODE_INVALID_SCENE")


@pytest.mark.parametrize("way", ["cancel", "hang up"])
def test_a_client_that_vanishes_leaves_nothing_behind(served, way) -> None:
    with ScriptedDriver() as driver:
        channel = grpc.insecure_channel(f"127.0.0.1:{served.port}")
        method = channel.unary_unary(
            "/RuntimeService/simulate",
            request_serializer=runtime.SimulationRequest.SerializeToString,
            response_deserializer=runtime.SimulationReturn.FromString,
        )
        call = method.future(request([driver], rollouts(STRAIGHT, 300), at_once=6))
        assert settled(lambda: len(driver.sessions) >= 6)
        if way == "cancel":
            call.cancel()
        channel.close()
        assert settled(lambda: served.service.num_open == 0)
        assert settled(lambda: not driver.sessions)  # all were closed
        assert settled(lambda: served.pool.num_free == 8)
        assert len(driver.closed) < 300
        assert served.simulate([driver], rollouts(STRAIGHT)).rollout_returns[0].success


def hangs(driver: ScriptedDriver):
    def answer(session, request):
        assert driver.released.wait(PATIENCE)
        return ahead(session, request)

    return answer


def test_one_name_is_driven_once_at_a_time(served) -> None:
    spec = rollouts(STRAIGHT, session_uuids=["mine"])
    with ScriptedDriver() as driver:
        driver._answer = hangs(driver)
        call = served.stub.simulate.future(request([driver], spec), timeout=PATIENCE)
        assert settled(lambda: "mine" in driver.sessions)
        assert refused(served, request([driver], spec)) == (
            "session_uuids: expected names that no request under way uses, got mine"
        )
        assert "mine" in driver.sessions
        driver.released.set()
        assert call.result().rollout_returns[0].success
        # Another time the name is free.
        assert served.simulate([driver], spec).rollout_returns[0].success


def test_a_session_of_somebody_else_is_left_alone(served, driver) -> None:
    theirs = driver.sessions["mine"] = Session("mine", STRAIGHT, 0)
    (found,) = served.simulate([driver], rollouts(STRAIGHT, session_uuids=["mine"])).rollout_returns
    assert found.error.endswith("start_session failed with ALREADY_EXISTS: mine")
    assert driver.sessions == {"mine": theirs}
    assert not driver.closed


def test_a_start_whose_answer_is_lost_is_made_again(served, driver) -> None:
    driver.starts_lost = 1
    (found,) = served.simulate([driver], rollouts(STRAIGHT)).rollout_returns
    assert found.success, found.error
    assert not driver.sessions
    assert [session.drives for session in driver.closed] == [0, 43 - 17]


def refused(served: ServedRuntime, asked) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        served.stub.simulate(asked, timeout=PATIENCE)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return caught.value.details()


def test_requests_that_make_no_sense(served) -> None:
    good = rollouts(STRAIGHT)
    unknown = [rollouts(f"nowhere {k}") for k in range(7)]
    for asked, sentence in (
        (request([1], good, *unknown), "scenario_id: expected any of the 7 of get_runtime_info, "),
        (request([1], good, at_once=0), "n_concurrent_per_driver: expected at least 1, got 0"),
        (request([], good), "available_drivers: expected at least one, got none"),
        (
            request([1] * 1001, good),
            "available_drivers: expected at most 1000, got 1001",
        ),
        (
            request([1], rollouts(STRAIGHT, 9000)),
            "rollout_specs: expected an answer of at most 64 MiB (max_message_mib), got rollouts "
            "whose metrics take 196 MiB; ask for fewer at a time",
        ),
        (
            request([1], rollouts(STRAIGHT, session_uuids=["a" * 257])),
            "session_uuids: expected names of at most 256 characters, got 257",
        ),
        (request([0], good), "available_drivers: expected an ip and a port from 1 to 65535, got "),
        (request([1]), "rollout_specs: expected 1 to 10000 rollouts, got 0"),
        (request([1], rollouts(STRAIGHT, 2**32 - 1)), "rollout_specs: expected 1 to 10000 rollou"),
        (
            request([1], rollouts(STRAIGHT, 2, session_uuids=["a"])),
            "session_uuids: expected none or 2, one for each rollout of straight 0, got 1",
        ),
        (
            request([1], rollouts(STRAIGHT, 2, session_uuids=["a", "a"])),
            "session_uuids: expected names that are not empty and all different",
        ),
    ):
        assert refused(served, asked).startswith(sentence)
    assert refused(served, request([1], *unknown)).endswith(
        "such as curve, got nowhere 0, nowhere 1, nowhere 2, nowhere 3, nowhere 4 and 2 more"
    )
    raw = served.channel.unary_unary("/RuntimeService/simulate")
    with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
        raw(b"\xff\xff", timeout=PATIENCE)
    assert served.service.num_open == 0


def test_fields_of_later_versions_are_passed_over(served, driver) -> None:
    later = b"\xca\x3e\x03new"  # field 1001, three bytes
    asked = request([driver], rollouts(STRAIGHT)).SerializeToString() + later
    raw = served.channel.unary_unary("/RuntimeService/simulate")
    answer = runtime.SimulationReturn.FromString(raw(asked, timeout=PATIENCE))
    assert answer.rollout_returns[0].success


def test_prefetching_and_the_end(driver) -> None:
    with ServedRuntime(MADE[:2], DEFAULT) as served:
        served.stub.prefetch_scene(runtime.ScenePrefetchRequest(scene_id="curve"))
        with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
            served.stub.prefetch_scene(runtime.ScenePrefetchRequest(scene_id="nowhere"))
        served.stub.shut_down(common.Empty(), timeout=PATIENCE)
        assert settled(lambda: not served.alive)


def test_an_end_amid_rollouts_closes_their_sessions() -> None:
    with ScriptedDriver() as driver, ServedRuntime(MADE[:2], DEFAULT) as served:
        driver._answer = hangs(driver)
        call = served.stub.simulate.future(request([driver], rollouts(STRAIGHT, 3), at_once=3))
        assert settled(lambda: len(driver.sessions) == 3)
        served.stub.shut_down(common.Empty(), timeout=PATIENCE)
        assert settled(lambda: not served.alive)
        assert not driver.sessions
        assert len(driver.closed) == 3
        with pytest.raises(grpc.RpcError):
            call.result()
