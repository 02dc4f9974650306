"""The kernels of the CUDA backend, emulated on a CPU, do what the plain bodies do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import emulated
from alpagym import sim
from alpagym.config import (
    ALPASIM_SIZES,
    ActionType,
    ObservationKind,
    RowFormat,
    SimConfig,
    SlotOrder,
    Traffic,
)
from alpagym.scenarios.batch import batch, max_agents
from alpagym.scenarios.procedural import generate_many
from alpagym.scenarios.scenario import Scenario
from alpagym.types import Observation

WORLDS = 9  # no multiple of the worlds in a block
FEW = SimConfig(end_on=(), num_agents=8, num_road_points=60)


class Plain:
    """The oracle: the CPU backend, body by body."""

    device = "cpu"
    make_params = staticmethod(sim.make_params)

    def __init__(self) -> None:
        self.params: sim.Params | None = None

    def reset(self, scenarios, state, mask) -> None:
        sim.reset(scenarios, state, mask, self.params)

    def step(self, scenarios, state, outcome, action, weights) -> None:
        sim.step(scenarios, state, outcome, action, weights, self.params)

    def observe(self, scenarios, state, seen, mask=None) -> None:
        sim.observe(scenarios, state, seen, self.params, mask=mask)


class OnGpu(Plain):
    """The same calls on a GPU, in one of its forms."""

    device = "cuda"

    def __init__(self, form: str) -> None:
        super().__init__()
        sim.use_cuda_form(form)


@pytest.fixture(autouse=True)
def _plain_form():
    before, on_gpu = sim.cpu_form(), sim.cuda_form()
    sim.use_cpu_form("plain")
    yield
    sim.use_cpu_form(before)
    if sim.cuda_built():
        sim.use_cuda_form(on_gpu)


@pytest.fixture
def cuda() -> None:
    """Skips where there is no GPU, or no CUDA in the build."""
    if not (torch.cuda.is_available() and sim.cuda_built()):
        pytest.skip("needs an NVIDIA GPU and a build with CUDA")


@pytest.fixture(scope="module")
def procedural() -> list[Scenario]:
    return generate_many(6, 5)


def drive(
    backend,
    hosts: list[Scenario],
    config: SimConfig,
    *,
    steps: int = 4,
    worlds: int = WORLDS,
    agents: int = 0,
) -> tuple[list[dict[str, Tensor]], list[Observation]]:
    """States, outcomes and observations of a drive by random actions, after each step."""
    device = backend.device
    packed = batch(hosts, device)
    backend.params = backend.make_params(config)
    egos = int(packed.num_egos.max()) if config.multi_agent else 1
    room = agents or max_agents(hosts)
    state = sim.make_state(worlds, room, num_egos=egos, config=config, device=device)
    state.scenario.copy_(torch.arange(worlds) % len(hosts))
    state.seed.copy_(torch.arange(worlds))
    outcome, seen = sim.make_outcome(state), sim.make_observation(state, config)
    seen = seen.map(lambda t: t.fill_(1) if t.dtype == torch.bool else t.fill_(7))  # poisoned
    weights = torch.rand(worlds, len(sim.RewardTerm), generator=torch.Generator().manual_seed(1))
    weights = weights.to(device)
    backend.reset(packed, state, torch.ones(worlds, dtype=torch.bool, device=device))
    state.terminated[1:2] = True  # one that stands still from the beginning
    generator = torch.Generator().manual_seed(3)
    some = (torch.arange(worlds) % 3 != 0).to(device)
    states, observations = [], []
    for step in range(steps):
        size = (worlds, egos, sim.action_size(config))
        spread = torch.tensor([4.0, 0.06]).repeat(size[2] // 2 + 1)[: size[2]]
        action = torch.randn(size, generator=generator) * spread
        backend.step(packed, state, outcome, action.to(device), weights)
        backend.observe(packed, state, seen, some if step % 2 else None)
        observations.append(seen.clone().to("cpu"))
        states.append({**state.clone().to("cpu").tensors(), **outcome.clone().to("cpu").tensors()})
    return states, observations


def bits(tensor: Tensor) -> Tensor:
    """Bit patterns: NaN is like itself, and zeros have a sign."""
    return tensor.contiguous().view(torch.uint8) if tensor.numel() else tensor


def check_same(a, b) -> None:
    states, observations = zip(a, b, strict=True)
    for step, (x, y) in enumerate(zip(*states, strict=True)):
        for name in x:
            assert torch.equal(bits(x[name]), bits(y[name])), f"step {step}: {name}"
    for step, (x, y) in enumerate(zip(*observations, strict=True)):
        for name in x.tensors():
            p, q = getattr(x, name), getattr(y, name)
            assert torch.equal(bits(p), bits(q)), f"observation {step}: {name}"


CASES = {
    "ego": FEW,
    "multi_agent": replace(FEW, multi_agent=True),
    "idm": replace(FEW, traffic=Traffic.idm),
    "log_then_idm": replace(FEW, traffic=Traffic.log_then_idm, reactive_distance=0.5),
    "many_slots": replace(FEW, num_agents=63, num_road_points=200, num_lights=4),
    "no_slots": replace(FEW, num_agents=0, num_road_points=0, num_lights=0),
    "far": replace(FEW, num_road_points=256, road_radius=400.0, agent_radius=400.0),
    "half": replace(FEW, row_format=RowFormat.float16, road_columns=7),
    "odd_rows": replace(
        FEW, row_format=RowFormat.bfloat16, num_road_points=33, road_columns=5, agent_columns=7
    ),
    "compact": replace(FEW, row_format=RowFormat.compact, num_road_points=37),
    "narrow": replace(FEW, ego_columns=7, agent_columns=3, road_columns=1),
    "held": replace(FEW, replan_every=3),
    "poses": replace(FEW, action=ActionType.delta),
    "plans": replace(FEW, action=ActionType.trajectory, plan_steps=20),
    "alpasim": replace(FEW, observation=ObservationKind.alpasim, **ALPASIM_SIZES),
}


@pytest.mark.parametrize("name", CASES)
def test_fused_kernels_do_what_the_plain_bodies_do(name, procedural) -> None:
    expected = drive(Plain(), procedural, CASES[name])
    for backward in (False, True):  # what the order of threads changes is a race
        fused = emulated.Backend(emulated.fibers(), fused=True, backward=backward)
        check_same(expected, drive(fused, procedural, CASES[name]))


@pytest.mark.parametrize(("worlds", "agents"), [(1, 0), (3, 300), (70, 0)])
def test_blocks_take_any_number_of_worlds_and_agents(worlds, agents, procedural) -> None:
    size = {"steps": 2, "worlds": worlds, "agents": agents}
    expected = drive(Plain(), procedural, FEW, **size)
    fused = emulated.Backend(emulated.fibers(), fused=True)
    check_same(expected, drive(fused, procedural, FEW, **size))


def test_collisions_and_leaving_the_road_are_found_by_warps_too(procedural) -> None:
    config = replace(FEW, num_agents=1, num_road_points=1)
    expected = drive(Plain(), procedural, config, steps=60)
    fused = emulated.Backend(emulated.fibers(), fused=True)
    check_same(expected, drive(fused, procedural, config, steps=60))
    states = expected[0]
    assert len({int(kind) for s in states for kind in s["collision"].flatten()}) > 2
    assert any(s["terms"][..., sim.RewardTerm.OFFROAD].any() for s in states)
    assert any(s["terms"][..., sim.RewardTerm.WRONG_WAY].any() for s in states)
    assert any((s["lane"] < 0).any() for s in states)


def test_a_launch_for_each_body_does_what_the_plain_bodies_do(procedural) -> None:
    config = replace(FEW, multi_agent=True, traffic=Traffic.idm)
    launches = emulated.Backend(emulated.fibers(), fused=False)
    check_same(drive(Plain(), procedural, config), drive(launches, procedural, config))


@pytest.mark.parametrize("order", [SlotOrder.nearest, SlotOrder.bounded])
def test_unsorted_slots_are_the_nearest_by_rising_index(order, procedural) -> None:
    wide = replace(FEW, row_format=RowFormat.compact, num_road_points=50)
    _, expected = drive(Plain(), procedural, wide)
    fused = emulated.Backend(emulated.fibers(), fused=True)
    _, found = drive(fused, procedural, replace(wide, slot_order=order))
    for p, q in zip(expected, found, strict=True):
        assert torch.equal(p.road_mask, q.road_mask)
        last = torch.iinfo(torch.int32).max  # empty slots come after the filled ones
        index = p.road.masked_fill(~p.road_mask.unsqueeze(-1), last).sort(-2).values
        assert torch.equal(index, q.road.masked_fill(~q.road_mask.unsqueeze(-1), last))
        assert torch.equal(p.agents_mask, q.agents_mask)


def spread_of(kind: str, n: int, generator: torch.Generator) -> Tensor:
    """Squared distances that are hard to choose from."""
    even = torch.rand(n, generator=generator)
    return {
        "even": even * 2500.0,
        "skewed": torch.pow(10.0, 76.0 * even - 38.0),
        "huge": even * 3.3e38,
        "tiny": even * 1e-44,
        "equal": torch.full((n,), 7.0),
        "zero": torch.zeros(n),
        "pairs": torch.arange(n).float().div(2.0, rounding_mode="floor"),
        "few": torch.randint(4, (n,), generator=generator).float(),
        "falling": torch.arange(n, 0, -1).float(),
    }[kind]


@pytest.mark.parametrize(
    "kind", ["even", "skewed", "huge", "tiny", "equal", "zero", "pairs", "few", "falling"]
)
def test_a_warp_finds_the_nearest_that_sorting_finds(kind: str) -> None:
    generator = torch.Generator().manual_seed(1)
    for n in (0, 1, 31, 33, 200, 480, 481, 512, 513, 1500):  # the pool is full at 480
        distance2 = spread_of(kind, n, generator)
        for k in (0, 1, 2, 63, 200, 256):
            for reach2 in (3.4e38, distance2.median().item() if n else 0.0):
                there = torch.nonzero(distance2 <= reach2).squeeze(1)
                order = there[distance2[there].sort(stable=True).indices][:k]
                sorted_found = emulated.nearest(distance2, k, reach2, ordered=True)
                assert torch.equal(sorted_found, order), (n, k, reach2)
                found = emulated.nearest(distance2, k, reach2, ordered=False)
                assert torch.equal(found, order.sort().values), (n, k, reach2)


def test_unknown_forms_are_refused() -> None:
    with pytest.raises(ValueError, match="use_cuda_form: expected plain or fused, got fast"):
        sim.use_cuda_form("fast")
    if not sim.cuda_built():
        assert sim.cuda_form() == "none"
        with pytest.raises(ValueError, match="this build of alpagym has no CUDA backend"):
            sim.use_cuda_form("plain")


@pytest.mark.cuda
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu_fused_kernels_do_what_a_launch_for_each_body_does(cuda, name, procedural) -> None:
    plain, fused = (
        drive(OnGpu(form), procedural, CASES[name], steps=30, worlds=200)
        for form in ("plain", "fused")
    )
    check_same(plain, fused)


@pytest.mark.cuda
@pytest.mark.parametrize("form", ["plain", "fused"])
def test_a_gpu_drives_as_a_cpu_does(cuda, form, procedural, tol) -> None:
    config = replace(FEW, multi_agent=True)
    expected, _ = drive(Plain(), procedural, config, steps=5)
    found, _ = drive(OnGpu(form), procedural, config, steps=5)
    for p, q in zip(expected, found, strict=True):
        for name in ("x", "y", "yaw", "speed", "route_s", "lane_offset"):
            torch.testing.assert_close(q[name], p[name], atol=tol(1e-3), rtol=0)
        assert torch.equal(p["valid"], q["valid"])
        assert torch.equal(p["lane"], q["lane"])


@pytest.mark.cuda
def test_records_that_begin_between_two_accesses_are_refused(cuda, procedural) -> None:
    packed = batch(procedural, "cuda")
    shifted = torch.empty(packed.road.numel() + 1, device="cuda")[1:].view_as(packed.road)
    state = sim.make_state(1, max_agents(procedural), device="cuda")
    mask = torch.ones(1, dtype=torch.bool, device="cuda")
    wanted = r"Scenarios\.road: expected rows that begin at a multiple of 16 bytes"
    with pytest.raises(ValueError, match=wanted):
        sim.reset(replace(packed, road=shifted), state, mask, sim.make_params(FEW))


RACES = """
import ctypes, sys
import torch
torch.set_num_threads(1)
import emulated, test_cuda_kernels as t
from alpagym import sim
sim.use_cpu_form("plain")
hosts = t.generate_many(3, 5)
library = ctypes.CDLL(sys.argv[1])
for name in ("ego", "multi_agent", "far", "odd_rows", "log_then_idm"):
    few = {"steps": 2, "worlds": 1 if name == "multi_agent" else 3}
    expected = t.drive(t.Plain(), hosts, t.CASES[name], **few)
    backend = emulated.Backend(library, fused=True)
    t.check_same(expected, t.drive(backend, hosts, t.CASES[name], **few))
print("same")
"""


@pytest.mark.skipif(shutil.which("setarch") is None, reason="ThreadSanitizer wants setarch")
def test_no_two_threads_of_a_block_race(tmp_path: Path) -> None:
    compiler = os.environ.get("CXX", "g++")
    runtime = subprocess.run(
        [compiler, "-print-file-name=libtsan.so"], capture_output=True, text=True
    ).stdout.strip()
    if not Path(runtime).is_absolute():
        pytest.skip(f"{compiler} has no ThreadSanitizer")
    library = tmp_path / "races.so"
    emulated.build(library, "threads", "-fsanitize=thread")
    environment = os.environ | {
        "LD_PRELOAD": runtime,
        "TSAN_OPTIONS": "exitcode=66",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]),
    }
    done = subprocess.run(
        ["setarch", "-R", sys.executable, "-c", RACES, library],  # it wants fixed addresses
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("ThreadSanitizer cannot run here: unexpected memory mapping")
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == "same\n"
