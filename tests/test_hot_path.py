"""What a step must not do: ask for memory, resist a CUDA graph; or a rollout: wait for the host."""

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import alpagym
from alpagym import sim
from alpagym.config import ActionType, RowFormat, SimConfig, SlotOrder, Traffic
from alpagym.grpo.rollout import Roller
from alpagym.policies.late_fusion import LateFusion
from alpagym.scenarios.batch import batch, max_agents
from alpagym.scenarios.procedural import generate_many
from alpagym.training_config import GrpoConfig, PolicyConfig

COUNTER = Path(__file__).parent / "cpp" / "count_allocations.c"
CASES = {
    "log": SimConfig(),
    "idm": SimConfig(traffic=Traffic.idm),
    "multi_agent": SimConfig(multi_agent=True),
    "sorted": SimConfig(slot_order=SlotOrder.nearest_first),
    "nearest": SimConfig(slot_order=SlotOrder.nearest),
    "bounded": SimConfig(slot_order=SlotOrder.bounded),
    "compact": SimConfig(row_format=RowFormat.compact),
    "half": SimConfig(row_format=RowFormat.float16),
    "plans": SimConfig(action=ActionType.trajectory, replan_every=2),
}


@pytest.fixture
def cuda() -> None:
    """Skips where there is no GPU, or no CUDA in the build."""
    if not (torch.cuda.is_available() and alpagym.cuda_built()):
        pytest.skip("needs an NVIDIA GPU and a build with CUDA")


def stepper(config: SimConfig, device: str, worlds: int = 64) -> Callable[[], None]:
    """A function that makes every call of a step once; its buffers are there before."""
    hosts = generate_many(4, 3)
    scenarios = sim.with_near(batch(hosts, device), config)
    egos = max_agents(hosts) if config.multi_agent else 1
    state = sim.make_state(worlds, max_agents(hosts), num_egos=egos, config=config, device=device)
    state.scenario.copy_(torch.arange(worlds) % len(hosts))
    params = sim.make_params(config)
    outcome, seen = sim.make_outcome(state), sim.make_observation(state, config)
    weights = torch.ones(1, len(sim.RewardTerm), device=device)
    action = torch.zeros(*state.ego.shape, sim.action_size(config), device=device)
    drawn = torch.zeros(*state.ego.shape, 2, device=device)
    some = torch.arange(worlds, device=device) % 3 == 0
    sim.reset(scenarios, state, torch.ones(worlds, dtype=torch.bool, device=device), params)

    def once() -> None:
        sim.noise(scenarios, state, drawn)
        sim.step(scenarios, state, outcome, action, weights, params)
        sim.observe(scenarios, state, seen, params)
        sim.observe(scenarios, state, seen, params, mask=some)

    return once


def count_allocations(name: str) -> int:
    """Calls for memory in 20 steps; runs where the counter is preloaded."""
    counter = ctypes.CDLL(None)
    counter.count_stop.restype = ctypes.c_long
    once = stepper(CASES[name], "cpu")
    for _ in range(3):
        once()
    counter.count_start()
    for _ in range(20):
        once()
    return int(counter.count_stop())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="counts the calls of glibc")
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_step_on_the_cpu_asks_for_no_memory(tmp_path: Path) -> None:
    library = tmp_path / "counter.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", COUNTER, "-o", library], check=True)
    script = (
        "import ctypes, torch, test_hot_path as t\n"
        "for name in t.CASES: print(t.count_allocations(name))\n"
        "counter = ctypes.CDLL(None); counter.count_start()\n"
        "torch.ones(1000); print(counter.count_stop())\n"
    )
    environment = os.environ | {
        "LD_PRELOAD": str(library),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]),
    }
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    *steps, control = (int(line) for line in done.stdout.split())
    assert control > 0  # the counter counts
    assert dict(zip(CASES, steps, strict=True)) == dict.fromkeys(CASES, 0)


@pytest.mark.cuda
@pytest.mark.parametrize("form", ["plain", "fused"])
@pytest.mark.parametrize("name", CASES)
def test_a_step_on_a_gpu_neither_waits_nor_allocates_and_can_be_captured(
    cuda: None, name: str, form: str
) -> None:
    before_test = sim.cuda_form()
    sim.use_cuda_form(form)
    try:
        check_step(name)
    finally:
        sim.use_cuda_form(before_test)


def check_step(name: str) -> None:
    once = stepper(CASES[name], "cuda")
    once()
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    torch.cuda.set_sync_debug_mode("error")
    try:
        once()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        once()
    graph.replay()
    torch.cuda.synchronize()


@pytest.mark.cuda
@pytest.mark.parametrize("capture", [False, True], ids=["eager", "replayed"])
def test_a_rollout_on_a_gpu_does_not_wait_for_the_host(cuda: None, capture: bool) -> None:
    hosts = generate_many(4, 3)
    config = SimConfig(max_steps=5)
    policy = LateFusion(PolicyConfig(), config).to("cuda")
    roller = Roller(
        batch(hosts, "cuda"),
        max_agents(hosts),
        num_groups=2,
        group_size=GrpoConfig().group_size,
        num_steps=5,
        config=config,
        weights=torch.ones(1, len(sim.RewardTerm), device="cuda"),
        capture=capture,
    )
    scenario = torch.tensor([0, 1], dtype=torch.int32, device="cuda")
    seed = torch.tensor([1, 2], device="cuda")
    for _ in range(2):  # the second is captured
        roller.roll(policy, scenario, seed)
    torch.cuda.set_sync_debug_mode("error")
    try:
        roller.roll(policy, scenario, seed)
    finally:
        torch.cuda.set_sync_debug_mode("default")
