"""Parts of sessions by themselves: worlds, times, rates, cameras, latencies, addresses."""

from __future__ import annotations

import asyncio
import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import scenario_factory as factory
from alpagym.config import ActionType, SimConfig
from alpagym.interop.alpasim.address import Address, parse_address
from alpagym.interop.alpasim.cameras import View, cameras_of, placeholder
from alpagym.interop.alpasim.latencies import Latencies
from alpagym.interop.alpasim.plans import DelayedPlans
from alpagym.interop.alpasim.poses import Track
from alpagym.interop.alpasim.rig import Rig as RigOfBox
from alpagym.interop.alpasim.rig import rates
from alpagym.interop.alpasim.session_options import SessionConfig
from alpagym.interop.alpasim.timeline import taken_over, timeline
from alpagym.interop.alpasim.world_pool import Snapshot, WorldPool
from alpagym.scenarios.scenario import ScenarioError
from simulating import Rig

CONFIG = SessionConfig()


def some_plan(seed: int, step: int) -> np.ndarray:
    way = (4.0 + np.random.default_rng(100 * seed + step).random()) * 0.1 * np.arange(1, 65)
    return np.stack([way, 0.02 * way, 0.0 * way], -1).reshape(-1).astype(np.float32)


async def driven(pool: WorldPool, scenario: int, frame: int, seed: int) -> list[Snapshot]:
    async with pool.world() as world:
        states = [await world.begin(scenario, frame, seed)]
        for step in range(8):
            states.append(await world.step(some_plan(seed, step)))
        return states


def test_borrowed_worlds_do_what_worlds_alone_do() -> None:
    made = [factory.random_scenario(s) for s in range(3)]
    asked = [(k % 3, made[k % 3].start_frame + k % 4, k) for k in range(20)]

    async def run() -> list[list[Snapshot]]:
        async with WorldPool(made, SimConfig(), 6) as pool:
            found = await asyncio.gather(*(driven(pool, *one) for one in asked))
            assert pool.num_free == 6
            return list(found)

    for (scenario, frame, seed), states in zip(asked, asyncio.run(run()), strict=True):
        begun = replace(made[scenario], start_frame=frame)
        rig = Rig([begun], action=ActionType.trajectory)
        for step, state in enumerate(states):
            if step:
                rig.step(torch.as_tensor(some_plan(seed, step - 1)).reshape(1, 1, -1))
                assert (state.terms == rig.outcome.terms[0, 0].numpy()).all()
            want = torch.stack([rig.state.x[0], rig.state.y[0], rig.state.yaw[0]]).numpy()
            assert (state.pose[:, : want.shape[1]] == want).all(), (scenario, frame, step)
            assert state.motion[2] == rig.state.yaw_rate.item()
            assert state.done == (bool(rig.state.done) and step > 0)


def test_a_session_that_is_given_up_returns_its_world() -> None:
    async def run() -> None:
        async with WorldPool([factory.straight(frames=60)], SimConfig(), 1) as pool:
            first = asyncio.create_task(driven(pool, 0, 6, 0))
            await asyncio.sleep(0.01)
            first.cancel()
            states = await driven(pool, 0, 6, 1)
            assert len(states) == 9
            assert pool.num_free == 1

    asyncio.run(run())


def test_when_the_driver_takes_over() -> None:
    scenario = factory.straight(frames=60)  # begins at frame 5
    found = timeline(scenario, CONFIG)
    assert (found.context, found.first, found.engaged, found.last) == (0, 0, 17, 59)
    late = timeline(replace(scenario, start_frame=30), CONFIG)
    assert (late.context, late.first, late.engaged) == (0, 13, 30)
    assert timeline(replace(scenario, start_frame=30), CONFIG, offset_us=560_000).engaged == 36
    short = timeline(scenario, replace(CONFIG, max_seconds=2.5), every=1)
    assert list(short.asked) == list(range(25))
    half = timeline(scenario, replace(CONFIG, force_gt=1.5), every=5)
    assert list(half.asked) == list(range(0, 59, 5))
    assert half.time_us(7) == 700_000
    with pytest.raises(ValueError, match=r"^alpasim.force_gt: expected a multiple of 0.5 s, "):
        timeline(scenario, CONFIG, every=5)


def test_records_that_are_too_short_are_left_out() -> None:
    path = factory.line((0.0, 0.0), (300.0, 0.0))
    gap = factory.assemble(
        "gap", [], [factory.Actor(path, 0.0, 6.0, absent=(12, 14))], frames=80, start=20
    )
    after = timeline(gap, CONFIG)
    assert (after.context, after.first, after.engaged) == (14, 14, 31)
    lost = factory.assemble("lost", [], [factory.Actor(path, 0.0, 6.0, absent=(12, 80))], frames=80)
    short = factory.straight(frames=18, name="short")
    kept, left_out = taken_over([gap, lost, short], CONFIG, 1)
    assert [s.start_frame for s in kept] == [31]
    assert left_out == {
        "lost": "lost: expected the ego in 19 frames from frame 0 on, got frames 0 to 11",
        "short": "short: expected the ego in 19 frames from frame 0 on, got frames 0 to 17",
    }
    with pytest.raises(ScenarioError, match="short"):
        taken_over([short], CONFIG, 1)


def test_rates_are_alpasims(shared_golden) -> None:
    golden = np.load(shared_golden / "alpasim" / "closed_loop.npz")
    known = np.isfinite(golden["st_model"]).all(1)
    assert known.sum() > 400
    for state, want in zip(golden["st_model"][known], golden["st_dyn"][known], strict=True):
        angular, velocity, accel, angular_accel = rates(state[3:])
        got = [velocity[0], velocity[1], angular[2], accel[0], accel[1], angular_accel[2]]
        assert got == pytest.approx(want, abs=1e-5)


def test_plans_wait_until_they_are_old_enough() -> None:
    plans = DelayedPlans(250_000)
    for k in range(6):
        plans.add(100_000 * k, Track(np.array([100_000 * k]), np.zeros((1, 3)), np.zeros(1)))
        used = int(plans.current(100_000 * k).time_us[0]) // 100_000
        assert used == max(k - 3, 0)
    with pytest.raises(ValueError, match="got none"):
        DelayedPlans(0).current(0)


def test_cameras_look_where_their_names_say() -> None:
    front, left, rear = cameras_of(
        ["camera_front_wide_120fov", "camera_cross_left_120fov", "camera_rear_tele_30fov"], 48, 64
    )
    assert front.focal_length == pytest.approx(32 / math.tan(math.radians(60)))
    for camera, ahead in ((front, [1, 0, 0]), (rear, [-1, 0, 0]), (left, [0.5, 3**0.5 / 2, 0])):
        w, *v = camera.quaternion
        v = np.array(v)

        def turned(axis, w=w, v=v):
            return axis + 2 * w * np.cross(v, axis) + 2 * np.cross(v, np.cross(v, axis))

        assert turned(np.array([0.0, 0.0, 1.0])) == pytest.approx(ahead, abs=1e-9)
        assert turned(np.array([0.0, 1.0, 0.0])) == pytest.approx([0, 0, -1], abs=1e-9)


def test_the_placeholder_shows_who_is_ahead() -> None:
    lane = factory.line((0.0, 0.0), (100.0, 0.0))
    scenario = factory.assemble("two", [], [factory.Actor(lane, 5.0), factory.Actor(lane, 25.0)])
    tracks = scenario.tracks
    pose = np.stack([*tracks.xyz[:, 0, :2].T, tracks.yaw[:, 0]])
    rig = RigOfBox.of(scenario).of_box(tracks.xyz[0, 0], tracks.yaw[0, 0])
    view = View(scenario, 0, rig, pose, tracks.valid[:, 0])

    def orange(camera: str, valid: np.ndarray) -> int:
        (made,) = cameras_of([camera], 120, 160)
        data = placeholder(replace(view, valid=valid), made)
        pixels = np.asarray(Image.open(io.BytesIO(data)), int)
        assert pixels.shape == (120, 160, 3)
        return int(((pixels[..., 0] > 180) & (pixels[..., 2] < 90)).sum())

    both, alone = np.array([True, True]), np.array([True, False])
    assert orange("camera_front_tele_30fov", both) > 20
    assert orange("camera_front_tele_30fov", alone) == 0
    assert orange("camera_rear_tele_30fov", both) == 0


def test_percentiles_of_latencies() -> None:
    rng, latencies = np.random.default_rng(0), Latencies()
    assert math.isnan(latencies.percentile(0.5))
    seconds = rng.lognormal(-4.0, 1.0, 5000)
    for one in seconds:
        latencies.add(float(one))
    latencies.add(0.0)
    for share in (0.01, 0.5, 0.9, 0.99):
        want = np.quantile(seconds, share)
        assert latencies.percentile(share) == pytest.approx(want, rel=0.03)
    assert latencies.percentile(1.0) == seconds.max()
    assert latencies.summary()["num_calls"] == 5001


def test_addresses() -> None:
    assert parse_address("policy", "grpc://a.b:12") == Address("a.b", 12)
    six = parse_address("policy", "grpcs://[::1]:12")
    assert (six.target, six.encrypted, str(six)) == ("[::1]:12", True, "grpcs://[::1]:12")
    for text in ("grpc://a:0", "grpc://a:70000", "grpc://:1", "grpc://u@a:1", "grpc://a:1?x"):
        with pytest.raises(ValueError, match=r"^policy: expected grpc://host:port or grpcs://"):
            parse_address("policy", text)
