"""Our driver and our runtime, each the other's peer, against the same drive without a wire."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest
from carla_driver_interface.policies import RouteFollowerPolicy
from carla_driver_interface.server import serving

from alpagym.config import SimConfig
from alpagym.evaluation import evaluate
from alpagym.interop.alpasim.address import Address
from alpagym.interop.alpasim.driver.plans import Planner
from alpagym.interop.alpasim.driver.service import Driver
from alpagym.interop.alpasim.remote_evaluation import evaluate_driver
from alpagym.interop.alpasim.session_options import SessionConfig
from alpagym.interop.alpasim.timeline import taken_over
from alpagym.interop.alpasim.wire.connection import Tls, listen, make_server
from alpagym.interop.alpasim.wire.services import EGODRIVER, handler_of
from alpagym.scenarios.procedural import KINDS, generate
from alpasim_runtimes import DEFAULT, PATIENCE, ServedRuntime, request, rollouts
from alpasim_talk import policy_of
from test_alpasim_wire import certificates

__all__ = ["certificates"]  # a fixture
SAME = SessionConfig(
    route="simulator", recorded_motion=True, skip_driver_during_force_gt=True, force_gt=0.5
)
"""What a policy sees in training, told through the wire."""


class ServedDriver:
    """A policy behind `EgodriverService`, on a thread of its own."""

    def __init__(self, kind: str, tls: Tls | None = None) -> None:
        self.policy, self.config = policy_of(kind)
        self._tls = tls

    def __enter__(self) -> ServedDriver:
        begun: Future[int] = Future()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(begun),))
        self._thread.start()
        self.port = begun.result(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    async def _serve(self, begun: Future[int]) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        self.driver = Driver(Planner(self.policy, self.config))
        server = make_server(handler_of(EGODRIVER, self.driver))
        port = listen(server, tls=self._tls)
        await server.start()
        begun.set_result(port)
        await self._over.wait()
        await server.stop(None)
        self.driver.batcher.close()


@pytest.mark.parametrize("kind", ["plans", "old_plans"])
def test_a_policy_drives_through_the_wire_as_it_drives_in_process(kind) -> None:
    made = [generate(kind, seed) for kind in KINDS[:4] for seed in (5, 6)]
    with ServedDriver(kind) as served:
        sim_config = replace(served.config, end_on=())
        scenarios, _ = taken_over(made, SAME, sim_config.replan_every)
        found = evaluate_driver(
            Address("127.0.0.1", served.port), scenarios, sim_config, SAME, whole=True
        )
        results, inside = evaluate(served.policy, scenarios, sim_config, record="inside")
    assert found.results.undriven == {}
    for k, want in enumerate(inside):
        got = found.rollouts[k]
        assert got.x.shape == want.x.shape
        apart = np.hypot(got.x - want.x, got.y - want.y)[:, want.ego]
        assert apart.max() < 1e-3, (want.scenario.id, apart)
        assert (got.valid == want.valid).all()
    assert found.results.progress == pytest.approx(results.progress, abs=1e-4)
    assert found.results.steps.tolist() == results.steps.tolist()


def test_our_runtime_and_our_driver() -> None:
    made = [generate(kind, 5) for kind in KINDS]
    config = replace(DEFAULT, route="simulator", max_seconds=3.0)
    with ServedDriver("plans") as driver, ServedRuntime(made, config) as runtime:
        specs = [rollouts(scene.scene_id, 2) for scene in runtime.info().scenes]
        asked = request([driver.port], *specs, at_once=4)
        answer = runtime.stub.simulate(asked, timeout=PATIENCE)
        assert len(answer.rollout_returns) == 2 * len(made)
        assert [one.error for one in answer.rollout_returns] == [""] * 2 * len(made)
        assert all("progress" in one.aggregated_metrics for one in answer.rollout_returns)
        assert driver.driver.statistics.drives == 2 * 13 * len(made)


def test_a_driver_behind_tls(certificates) -> None:
    shown = str(certificates / "server.pem")
    scenarios, _ = taken_over([generate("straight", 5)], SAME, 1)
    config = replace(SAME, tls_authority=shown, max_seconds=1.0, retries=0, call_timeout=20.0)
    with ServedDriver("plans", Tls(shown, str(certificates / "server.key"))) as served:
        there = Address("127.0.0.1", served.port, encrypted=True)
        found = evaluate_driver(there, scenarios, served.config, config)
        assert found.results.undriven == {}
        assert found.results.steps.tolist() == [5]
        clear, unsigned = replace(there, encrypted=False), replace(config, tls_authority="")
        for address in (clear, there):  # nobody has signed it
            with pytest.raises(ValueError, match=r"^policy: expected a driver at grpcs?://127"):
                evaluate_driver(address, scenarios, served.config, unsigned)
        with pytest.raises(
            ValueError, match=r"^alpasim.tls_\*: expected a driver at grpcs://, got "
        ):
            evaluate_driver(clear, scenarios, served.config, config)
        for options, reason in ((config, ""), (unsigned, "cannot be reached for start_session")):
            with ServedRuntime(scenarios, options) as runtime:
                asked = rollouts(scenarios[0].id)
                (one,) = runtime.simulate([served.port], asked).rollout_returns
            assert one.success is not bool(reason)
            assert reason in one.error


def test_a_driver_of_others_follows_our_routes() -> None:
    """That of `carla-driver-interface`, which knows nothing of ours and steers by route alone."""
    made = [generate(kind, 5) for kind in KINDS[:3]]
    scenarios, _ = taken_over(made, SessionConfig(), 1)
    config = SessionConfig(cameras=("camera_front_tele_30fov",), send_ground_truth=True)
    with serving(RouteFollowerPolicy(), 0, "127.0.0.1", mode="alpasim") as port:
        address = Address("127.0.0.1", port)
        found = evaluate_driver(address, scenarios, SimConfig(end_on=()), config, whole=True)
    assert found.results.undriven == {}
    assert found.summary["calls"]["submit_image_observation"]["num_calls"] == sum(
        s.tracks.num_frames - 1 for s in scenarios
    )
    for k, scenario in enumerate(scenarios):
        rollout = found.rollouts[k]
        path = scenario.tracks.xyz[scenario.ego, :, :2]
        driven = np.stack([rollout.x, rollout.y], -1)[:, scenario.ego]
        beside = np.linalg.norm(driven[:, None] - path, axis=-1).min(1)
        assert beside.max() < 2.0, scenario.id
        assert np.linalg.norm(driven[-1] - driven[0]) > 10.0
