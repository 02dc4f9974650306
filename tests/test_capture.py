"""Rollouts as one CUDA graph: when they are captured, and that they are the same rollouts."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import alpagym
from alpagym import sim
from alpagym.config import REWARD_PRESETS, RowFormat, SimConfig
from alpagym.grpo.capture import Captured
from alpagym.grpo.rollout import Roller
from alpagym.policies import fused
from alpagym.policies.late_fusion import LateFusion
from alpagym.scenarios.batch import batch, max_agents
from alpagym.scenarios.procedural import generate_many
from alpagym.training_config import PolicyConfig

CONFIGS = {
    "rows": SimConfig(num_agents=4, num_road_points=8, max_steps=6),
    "compact": SimConfig(
        num_agents=4, num_road_points=8, max_steps=6, row_format=RowFormat.compact
    ),
}


def make_roller(config: SimConfig, device: str = "cpu", **options) -> Roller:
    hosts = generate_many(4, 3)
    return Roller(
        batch(hosts, device),
        max_agents(hosts),
        num_groups=3,
        group_size=4,
        num_steps=6,
        config=config,
        weights=sim.make_weights(REWARD_PRESETS["dense"], device),
        **options,
    )


def make_policy(config: SimConfig, device: str = "cpu", kind: type = LateFusion) -> LateFusion:
    torch.manual_seed(0)
    return kind(PolicyConfig(width=8, hidden=16), config).eval().to(device)


def roll(roller: Roller, policy: nn.Module, seed: int, device: str = "cpu"):
    scenario = torch.tensor([0, 2, 1], dtype=torch.int32, device=device)
    return roller.roll(policy, scenario, torch.tensor([seed, 7, 8], device=device))


class Recorder:
    """Captures as a graph does: the work is not done before it is replayed."""

    def __init__(self) -> None:
        self.captures = self.replays = self.runs = 0

    def run(self) -> None:
        self.runs += 1

    def capture(self, run):
        self.captures += 1

        def replay() -> None:
            self.replays += 1

        return replay


def test_other_scenarios_are_not_replayed_as_those_before() -> None:
    recorder, policy = Recorder(), nn.Linear(2, 2)
    captured, banks = Captured(recorder.capture), [torch.zeros(3), torch.zeros(3)]
    for bank in (0, 0, 0, 1, 1, 0):
        captured(recorder.run, policy, [banks[bank]])
    assert (recorder.runs, recorder.captures, recorder.replays) == (3, 2, 3)


def test_the_first_run_is_eager_the_second_captured_and_all_others_replayed() -> None:
    recorder, policy = Recorder(), nn.Linear(2, 2)
    captured = Captured(recorder.capture)
    for _ in range(4):
        captured(recorder.run, policy)
        with torch.no_grad():
            policy.weight.add_(1.0)  # as an optimizer does
    assert (recorder.runs, recorder.captures, recorder.replays) == (1, 1, 3)


def test_another_policy_is_captured_anew() -> None:
    def moved() -> None:
        policy.weight = nn.Parameter(policy.weight.detach().clone())

    recorder, policy = Recorder(), nn.Linear(2, 2)
    captured = Captured(recorder.capture)
    for change in (lambda: None, moved, lambda: policy.train(not policy.training)):
        change()
        for _ in range(3):
            captured(recorder.run, policy)
    with torch.autocast("cpu", torch.bfloat16):
        captured(recorder.run, policy)
    assert (recorder.runs, recorder.captures, recorder.replays) == (4, 3, 6)


def test_what_cannot_be_captured_says_so_once_and_runs_on() -> None:
    def refuse(run):
        raise RuntimeError("operation not permitted when stream is capturing\nand a trace")

    recorder, policy = Recorder(), nn.Linear(2, 2)
    captured = Captured(refuse)
    captured(recorder.run, policy)
    wanted = "rollouts of Linear run without a CUDA graph: operation not .* capturing$"
    with pytest.warns(UserWarning, match=wanted):
        captured(recorder.run, policy)
    captured(recorder.run, policy)
    assert recorder.runs == 3


def test_a_cpu_captures_nothing() -> None:
    config = CONFIGS["rows"]
    plain, policy = make_roller(config), make_policy(config)
    asked = make_roller(config, capture=True)
    for seed in (1, 2, 3):
        assert torch.equal(roll(plain, policy, seed).action, roll(asked, policy, seed).action)


class Told(TorchDispatchMode):
    """Every operation with the shapes that it is given, and those that wait for their result."""

    WAITING = (
        "aten::_local_scalar_dense",
        "aten::nonzero",
        "aten::masked_select",
        "aten::equal",
        "aten::unique",
        "aten::repeat_interleave.Tensor",
        "aten::lift_fresh",  # a tensor made of numbers of the host
    )

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []
        self.waiting: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name + (
            f".{func._schema.overload_name}" if func._schema.overload_name else ""
        )
        shapes = [tuple(a.shape) for a in args if isinstance(a, torch.Tensor)]
        self.operations.append(f"{name} {shapes}")
        masked = name.startswith("aten::index") and any(
            t is not None and t.dtype in (torch.bool, torch.uint8)
            for a in args
            if isinstance(a, list | tuple)
            for t in a
            if t is None or isinstance(t, torch.Tensor)
        )
        if masked or name in self.WAITING:
            self.waiting.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("low", [False, True], ids=["float32", "bfloat16"])
def test_a_rollout_is_the_same_work_whatever_happens_in_it(name, low, monkeypatch) -> None:
    monkeypatch.setattr(fused, "fits", lambda rows, features: False)  # as on a GPU
    config = CONFIGS[name]
    roller, policy = make_roller(config), make_policy(config)
    told = []
    for seed in (1, 2):
        with torch.autocast("cpu", torch.bfloat16, enabled=low), torch.no_grad(), Told() as mode:
            roller._drive(policy)
        told.append(mode)
        roll(roller, policy, seed)  # so that the next one begins elsewhere
    assert not told[0].waiting
    assert len(told[0].operations) > 100
    assert told[0].operations == told[1].operations


def test_the_test_above_sees_what_waits() -> None:
    with Told() as mode:
        x = torch.arange(4)
        bool((x > 2).any())
        x[x > 2]
        torch.tensor([1.0])
    assert len(mode.waiting) >= 3


class Waiting(LateFusion):
    """Looks at a value, which no graph can hold."""

    def sample(self, observation, noise):
        action, log_prob = super().sample(observation, noise)
        assert float(action.abs().amax()) < 1e6
        return action, log_prob


@pytest.fixture
def cuda() -> None:
    """Skips where there is no GPU, or no CUDA in the build."""
    if not (torch.cuda.is_available() and alpagym.cuda_built()):
        pytest.skip("needs an NVIDIA GPU and a build with CUDA")


@pytest.mark.cuda
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("low", [False, True], ids=["float32", "bfloat16"])
def test_replayed_rollouts_are_the_eager_ones_bit_by_bit(cuda, name, low) -> None:
    config = CONFIGS[name]
    policy = make_policy(config, "cuda")
    eager, graph = (make_roller(config, "cuda", capture=capture) for capture in (False, True))
    for seed in (1, 2, 3, 2):
        with torch.autocast("cuda", torch.bfloat16, enabled=low):
            expected, found = (roll(roller, policy, seed, "cuda") for roller in (eager, graph))
        for field in ("action", "log_prob", "reward", "terms", "valid"):
            going = expected.valid
            p, q = getattr(expected, field)[going], getattr(found, field)[going]
            assert torch.equal(p, q), (seed, field)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.add_(0.01)  # what a graph reads in the next rollout


@pytest.mark.cuda
def test_a_policy_that_waits_drives_without_a_graph(cuda) -> None:
    config = CONFIGS["rows"]
    policy = make_policy(config, "cuda", Waiting)
    eager, graph = (make_roller(config, "cuda", capture=capture) for capture in (False, True))
    roll(graph, policy, 1, "cuda")
    with pytest.warns(UserWarning, match="rollouts of Waiting run without a CUDA graph"):
        found = roll(graph, policy, 2, "cuda").action.clone()
    expected = roll(eager, policy, 2, "cuda")
    assert torch.equal(expected.action[expected.valid], found[expected.valid])
