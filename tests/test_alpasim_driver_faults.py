"""What a driver refuses, in one sentence with a status, and who is not touched by it."""

from __future__ import annotations

import ast
import asyncio
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from grpc import StatusCode

import alpagym.interop.alpasim as package
from alpagym.interop.alpasim.poses import MOST
from alpagym.interop.alpasim.wire.messages import common, egodriver
from alpasim_talk import (
    CALL_S,
    START_US,
    STEP_US,
    drive,
    egomotion,
    planned,
    policy_of,
    route,
    start,
    straight,
    talk_to,
    told_straight,
    waypoints,
)

INVALID, MISSING = StatusCode.INVALID_ARGUMENT, StatusCode.FAILED_PRECONDITION


async def refused(call) -> tuple[StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    sentence = caught.value.details()
    assert "\n" not in sentence
    return caught.value.code(), sentence


def bad_egomotion(change):
    """A message of two poses with states, changed."""
    message = egomotion("a", straight(1), [8.0])
    message.trajectory.poses.extend(egomotion("a", straight(2)).trajectory.poses)
    message.dynamic_states.add()
    change(message)
    return message


def image(**frame):
    return egodriver.RolloutCameraImage(session_uuid="a", camera_image=frame)


def infinite_route():
    rows = waypoints()
    rows[1, 0] = np.inf
    return route("a", START_US, rows)


def too_many_poses():
    message = egomotion("a", straight(1), [8.0])
    message.trajectory.MergeFromString(MOST * message.trajectory.SerializeToString())
    return message


def set_pose(index, part, name, value):
    return lambda m: setattr(getattr(m.trajectory.poses[index].pose, part), name, value)


BAD_CALLS = {
    "NaN pose": (
        "submit_egomotion_observation",
        bad_egomotion(set_pose(1, "vec", "x", np.nan)),
        (INVALID, "egomotion pose 1: expected finite numbers"),
    ),
    "no quaternion": (
        "submit_egomotion_observation",
        bad_egomotion(lambda m: m.trajectory.poses[0].pose.ClearField("quat")),
        (INVALID, "egomotion pose 0: expected a unit quaternion, got one of length 0"),
    ),
    "times back within": (
        "submit_egomotion_observation",
        bad_egomotion(lambda m: setattr(m.trajectory.poses[1], "timestamp_us", 3)),
        (INVALID, "egomotion pose 1: expected times that rise, got 3 us"),
    ),
    "times back": (
        "submit_egomotion_observation",
        egomotion("a", straight(-1)),
        (INVALID, f"egomotion: expected times after {START_US} us, got {START_US - STEP_US} us"),
    ),
    "too few states": (
        "submit_egomotion_observation",
        bad_egomotion(lambda m: m.dynamic_states.pop()),
        (INVALID, "expected a dynamic state for each of 2 poses or none, got 1"),
    ),
    "NaN speed": (
        "submit_egomotion_observation",
        bad_egomotion(lambda m: setattr(m.dynamic_states[1].linear_velocity, "y", np.nan)),
        (INVALID, "egomotion state 1: expected finite numbers"),
    ),
    "too many poses": (
        "submit_egomotion_observation",
        too_many_poses(),
        (INVALID, f"egomotion: expected at most {MOST} poses, got {MOST + 1}"),
    ),
    "too many poses of the record": (
        "submit_recording_ground_truth",
        egodriver.GroundTruthRequest(
            session_uuid="a", ground_truth={"trajectory": too_many_poses().trajectory}
        ),
        (INVALID, f"ground truth: expected at most {MOST} poses, got {MOST + 1}"),
    ),
    "too many waypoints": (
        "submit_route",
        route("a", START_US, np.zeros((MOST + 1, 3))),
        (INVALID, f"route: expected at most {MOST} points, got {MOST + 1}"),
    ),
    "infinite route": (
        "submit_route",
        infinite_route(),
        (INVALID, "route waypoint 1: expected finite numbers or NaN, got infinity"),
    ),
    "NaN truth": (
        "submit_recording_ground_truth",
        egodriver.GroundTruthRequest(
            session_uuid="a",
            ground_truth={"trajectory": bad_egomotion(set_pose(1, "vec", "z", np.inf)).trajectory},
        ),
        (INVALID, "ground truth pose 1: expected finite numbers"),
    ),
    "image that ends first": (
        "submit_image_observation",
        image(frame_start_us=9, frame_end_us=8, logical_id="front"),
        (INVALID, "image of front: expected a frame that ends after it starts, got 9 to 8 us"),
    ),
    "large image": (
        "submit_image_observation",
        image(image_bytes=bytes(65 * 2**20)),
        (StatusCode.RESOURCE_EXHAUSTED, "larger than max"),
    ),
    "drive ahead": (
        "drive",
        drive("a", START_US + STEP_US),
        (MISSING, f"expected egomotion up to time_now_us={START_US + STEP_US}, got it up to"),
    ),
    "drive into the past": (
        "drive",
        egodriver.DriveRequest(session_uuid="a", time_now_us=START_US, time_query_us=3),
        (INVALID, f"2^63 us, time_now_us and time_query_us, got {START_US} and 3 us"),
    ),
    "drive at the end of time": (
        "drive",
        egodriver.DriveRequest(session_uuid="a", time_now_us=2**64 - 1, time_query_us=2**64 - 1),
        (INVALID, "expected times that rise and are below 2^63 us, time_now_us"),
    ),
    "started twice": (
        "start_session",
        start("a"),
        (StatusCode.ALREADY_EXISTS, "session a: expected a new one, it has begun"),
    ),
    "no name": ("start_session", start(""), (INVALID, "a session_uuid of 1 to 256 characters")),
    "long name": ("start_session", start("x" * 257), (INVALID, "256 characters, got 257")),
    "unknown": (
        "submit_route",
        route("b", START_US, waypoints()),
        (StatusCode.NOT_FOUND, "session b: expected one that has begun, got none"),
    ),
    "unknown over two lines": (
        "submit_route",
        route("b\nc", START_US, waypoints()),
        (StatusCode.NOT_FOUND, "session b c: expected one that has begun, got none"),
    ),
    "unknown to close": (
        "close_session",
        egodriver.DriveSessionCloseRequest(session_uuid="b"),
        (StatusCode.NOT_FOUND, "session b: expected one that has begun"),
    ),
    "shut down": (
        "shut_down",
        common.Empty(),
        (StatusCode.PERMISSION_DENIED, "this driver ends by SIGTERM"),
    ),
}


def test_bad_calls_get_a_status_and_a_sentence_and_change_nothing() -> None:
    """One session hears all of them, and drives on as one that heard none."""

    async def conversation(stub, driver):
        for uuid in ("a", "untouched"):
            await stub.start_session(start(uuid))
            await told_straight(stub, uuid)
        for name, (method, request, (code, words)) in BAD_CALLS.items():
            got, sentence = await refused(getattr(stub, method)(request))
            assert got == code, (name, sentence)
            assert words in sentence, name
            assert len(sentence) < 400
        answers = []
        for uuid in ("a", "untouched"):
            answers.append(planned(await stub.drive(drive(uuid, START_US)))[1])
        # The message limit is the transport's; all others are the driver's.
        return answers, driver.statistics.refused

    answers, count = talk_to(conversation)
    assert np.array_equal(*answers)
    assert count == len(BAD_CALLS) - 1


def test_calls_out_of_order() -> None:
    async def conversation(stub, driver):
        await stub.start_session(start("a"))
        code, sentence = await refused(stub.drive(drive("a", START_US)))
        assert (code, sentence) == (
            MISSING,
            "drive: expected egomotion first, got none in this session",
        )
        await stub.submit_egomotion_observation(egomotion("a", straight(0)))
        code, sentence = await refused(stub.drive(drive("a", START_US)))
        assert (code, sentence) == (
            MISSING,
            "drive: expected a route first, got none in this session",
        )
        await stub.submit_route(route("a", START_US - 5 * STEP_US, waypoints()))
        code, sentence = await refused(stub.drive(drive("a", START_US)))
        assert code == MISSING
        assert "expected a route of a time between" in sentence
        time_us = await told_straight(stub, "a", 1)
        planned(await stub.drive(drive("a", time_us)))
        code, sentence = await refused(stub.drive(drive("a", time_us - STEP_US)))
        assert code == INVALID
        assert f"expected times that rise and are below 2^63 us, {time_us} us before" in sentence
        await stub.close_session(egodriver.DriveSessionCloseRequest(session_uuid="a"))
        code, _ = await refused(stub.drive(drive("a", time_us)))
        assert code == StatusCode.NOT_FOUND
        await stub.start_session(start("a"))  # a name may be used again
        return len(driver)

    assert talk_to(conversation) == 1


def test_poses_sent_again_are_passed_over() -> None:
    async def conversation(stub, driver):
        await stub.start_session(start("a"))
        for step in range(3):
            await told_straight(stub, "a", step)
        both = egomotion("a", straight(2), [8.0])
        both.trajectory.poses.extend(egomotion("a", straight(3)).trajectory.poses)
        both.dynamic_states.add().linear_velocity.x = 8.0
        await stub.submit_egomotion_observation(both)
        time_us = START_US + 3 * STEP_US
        await stub.submit_route(route("a", time_us, waypoints()))
        return planned(await stub.drive(drive("a", time_us)))[1]

    assert talk_to(conversation)[0] == pytest.approx([2.4, 0.0, 0.0], abs=1e-5)


def test_no_more_sessions_than_allowed() -> None:
    async def conversation(stub, driver):
        for i in range(3):
            await stub.start_session(start(f"s{i}"))
        code, sentence = await refused(stub.start_session(start("s3")))
        assert code == StatusCode.RESOURCE_EXHAUSTED
        assert "expected at most 3 sessions at a time" in sentence
        await stub.close_session(egodriver.DriveSessionCloseRequest(session_uuid="s1"))
        await stub.start_session(start("s3"))
        return len(driver)

    assert talk_to(conversation, max_sessions=3) == 3


def test_sessions_of_clients_that_vanish_are_dropped() -> None:
    now = [0.0]

    async def conversation(stub, driver):
        await stub.start_session(start("gone"))
        now[0] = 8.0
        await stub.start_session(start("alive"))
        await told_straight(stub, "alive")
        now[0] = 11.0
        assert driver.drop_idle() == 1
        code, sentence = await refused(stub.submit_route(route("gone", START_US, waypoints())))
        assert code == StatusCode.NOT_FOUND
        assert "was not heard of for 10 s" in sentence
        planned(await stub.drive(drive("alive", START_US)))
        now[0] = 20.0
        assert driver.drop_idle() == 0
        for i in range(5):  # a full house is swept before anyone is sent away
            now[0] += 20.0
            await stub.start_session(start(f"s{i}"))
        return len(driver), driver.statistics.dropped

    left, dropped = talk_to(conversation, idle_s=10.0, max_sessions=2, clock=lambda: now[0])
    assert left <= 2
    assert dropped == 6 - left + 1


class Held:
    """A policy that thinks until it is let go."""

    def __init__(self) -> None:
        self.policy, self.config = policy_of("actions")
        self._mean, self.policy.mean = self.policy.mean, self._think
        self.thinks, self._let_go = threading.Event(), threading.Event()

    def _think(self, seen):
        self.thinks.set()
        assert self._let_go.wait(0.5 * CALL_S)
        return self._mean(seen)

    async def asked(self) -> None:
        assert await asyncio.to_thread(self.thinks.wait, CALL_S)

    def let_go(self) -> None:
        self._let_go.set()


def test_a_client_that_leaves_in_the_middle_of_a_drive() -> None:
    """Its session goes on where it was, and others get their answers."""
    held = Held()

    async def conversation(stub, driver):
        for uuid in ("first", "leaves", "stays"):
            await stub.start_session(start(uuid))
            await told_straight(stub, uuid)
        first = asyncio.ensure_future(stub.drive(drive("first", START_US)))
        await held.asked()
        waits, left, ask = asyncio.Event(), asyncio.Event(), driver.batcher.ask

        async def watched(query):
            waits.set()
            try:
                return await ask(query)
            except asyncio.CancelledError:
                left.set()
                raise

        driver.batcher.ask = watched
        leaves = stub.drive(drive("leaves", START_US))
        await waits.wait()
        stays = asyncio.ensure_future(stub.drive(drive("stays", START_US)))
        leaves.cancel()
        await left.wait()
        held.let_go()
        planned(await first)
        planned(await stays)
        planned(await stub.drive(drive("leaves", START_US)))
        return driver.statistics.drives

    assert talk_to(conversation, policy=(held.policy, held.config)) == 3


def test_one_drive_at_a_time_in_a_session() -> None:
    held = Held()

    async def conversation(stub, driver):
        await stub.start_session(start("a"))
        await told_straight(stub, "a")
        first = asyncio.ensure_future(stub.drive(drive("a", START_US)))
        await held.asked()
        code, sentence = await refused(stub.drive(drive("a", START_US)))
        assert code == MISSING
        assert "expected one at a time" in sentence
        code, sentence = await refused(
            stub.submit_egomotion_observation(egomotion("a", straight(1)))
        )
        assert code == MISSING
        assert "while one is under way" in sentence
        held.let_go()
        planned(await first)

    talk_to(conversation, policy=(held.policy, held.config))


def test_a_plan_that_is_not_finite_fails_alone() -> None:
    policy, config = policy_of("actions")
    mean = policy.mean

    def broken(seen):
        action = mean(seen)
        action[seen.ego[:, 0] > 10.0] = torch.nan
        return action

    policy.mean = broken

    async def conversation(stub, driver):
        for uuid, speed in (("slow", 5.0), ("fast", 15.0)):
            await stub.start_session(start(uuid))
            await told_straight(stub, uuid, speed=speed)
        slow, fast = await asyncio.gather(
            stub.drive(drive("slow", START_US)), refused(stub.drive(drive("fast", START_US)))
        )
        planned(slow)
        return fast

    code, sentence = talk_to(conversation, policy=(policy, config))
    assert code == StatusCode.INTERNAL
    assert sentence == "drive: the policy's plan: expected finite numbers, got NaN or infinity"


def test_a_policy_that_raises_fails_the_call_alone(capfd) -> None:
    policy, config = policy_of("actions")
    mean = policy.mean

    def broken(seen):
        if bool((seen.ego[:, 0] > 10.0).any()):
            raise RuntimeError("out of memory")
        return mean(seen)

    policy.mean = broken

    async def conversation(stub, driver):
        await stub.start_session(start("a"))
        time_us = await told_straight(stub, "a", speed=20.0)
        got = await refused(stub.drive(drive("a", time_us)))
        await stub.start_session(start("b"))
        planned(await stub.drive(drive("b", await told_straight(stub, "b"))))
        return got

    code, sentence = talk_to(conversation, policy=(policy, config))
    assert code == StatusCode.INTERNAL
    assert "RuntimeError: out of memory" in sentence
    assert "Traceback" in capfd.readouterr().err


def test_debug_info_of_nobody_is_unpickled() -> None:
    for file in Path(package.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "dill", "cloudpickle", "marshal", "shelve"}, file
