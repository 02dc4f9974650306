"""What the binding accepts harms no memory, whatever numbers it holds."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

import scenario_factory as factory
from alpagym import sim
from alpagym.config import ActionType, Traffic
from alpagym.types import State
from simulating import Rig, poison, same_bits, weights_of_one


def make_rig(**options) -> Rig:
    return Rig([factory.straight(factory.Actor(factory.STRAIGHT, 50.0, 8.0))], 3, **options)


def test_fork_from_nowhere_copies_nothing(device) -> None:
    rig = make_rig(device=device)
    target = rig.state.clone()
    poison(target)
    before = target.clone()
    index = torch.tensor([-1, 3, 2**31 - 1], dtype=torch.int32, device=device)
    sim.fork(rig.state, target, index)
    assert same_bits(target, before)


def test_no_worlds_is_nothing_to_do(device) -> None:
    rig = Rig([factory.straight()], 0, device=device)
    rig.step()
    rig.observe()
    sim.noise(rig.scenarios, rig.state, torch.zeros(0, 1, 2, device=device))
    target = rig.state.clone()
    sim.fork(rig.state, target, torch.zeros(0, dtype=torch.int32, device=device))


def test_tensors_that_require_gradients_are_read_as_numbers(device) -> None:
    plain, tracked = make_rig(device=device), make_rig(device=device)
    plain.step(torch.ones(3, 1, 2, device=device))
    tracked.step(torch.nn.Parameter(torch.ones(3, 1, 2, device=device)))
    assert same_bits(plain.state, tracked.state)


@pytest.mark.parametrize("traffic", list(Traffic))
@pytest.mark.parametrize("name", [f.name for f in fields(State)])
def test_no_number_in_the_state_makes_it_crash(device, name, traffic) -> None:
    scenarios = [factory.random_scenario(s, num_agents=3 + s) for s in range(4)]
    tensor = getattr(Rig(scenarios).state, name)
    floating = tensor.dtype.is_floating_point
    if floating:
        values = [torch.nan, torch.inf, -torch.inf, 1e20, -1e20, -5.0]
    elif tensor.dtype == torch.bool:
        values = [True, False]
    else:
        info = torch.iinfo(tensor.dtype)
        values = [info.min, info.max, 2, 5, 6, 100]  # controller 2 is IDM, for pedestrians too
    for value in values:
        rig = Rig(scenarios, device=device, traffic=traffic)
        getattr(rig.state, name).fill_(value)
        rig.observe()
        for _ in range(2):
            rig.step()
            rig.observe()
    if device.type == "cuda":
        torch.cuda.synchronize()


@pytest.mark.parametrize("action", list(ActionType))
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_an_action_that_is_no_number_leaves_numbers(device, action, value) -> None:
    rig = make_rig(device=device, action=action)
    given = rig.zero_action()
    for _ in range(3):
        rig.step(given.fill_(value))
    rig.observe()
    for struct in (rig.state, rig.observation):
        for name, tensor in struct.tensors().items():
            assert not tensor.dtype.is_floating_point or tensor.isfinite().all(), name


def test_memory_around_the_tensors_stays_untouched(device) -> None:
    """Every tensor in the middle of a larger one whose rest is a known pattern."""
    rig = Rig([factory.random_scenario(s) for s in range(4)], 5, device=device, num_egos=3)
    pad, guarded = 64, []

    def within(tensor: torch.Tensor) -> torch.Tensor:
        size = tensor.numel() * tensor.element_size()
        memory = torch.full((size + 2 * pad,), 0x5A, dtype=torch.uint8, device=tensor.device)
        memory[pad : pad + size] = tensor.contiguous().view(-1).view(torch.uint8)
        guarded.append((memory, size))
        return memory[pad : pad + size].view(tensor.dtype).view(tensor.shape)

    rig.state, rig.outcome = rig.state.map(within), rig.outcome.map(within)
    rig.observation, rig.scenarios = rig.observation.map(within), rig.scenarios.map(within)
    other = rig.state.map(torch.clone).map(within)
    noise = within(torch.zeros(5, 3, 2, device=device))
    static = rig.scenarios.clone()
    sim.reset(rig.scenarios, rig.state, rig.all, rig.params)
    for t in range(4):
        rig.step(rig.random_action(t))
        rig.observe()
        sim.noise(rig.scenarios, rig.state, noise)
        sim.fork(rig.state, other, torch.arange(5, dtype=torch.int32, device=device))
    assert same_bits(static, rig.scenarios), "scenarios never change"
    for memory, size in guarded:
        assert (memory[:pad] == 0x5A).all()
        assert (memory[pad + size :] == 0x5A).all()


def test_weights_may_be_one_row_or_one_per_world(device) -> None:
    rig = make_rig(device=device)
    rig.step(weights=torch.stack([weights_of_one(device)[0] * k for k in range(3)]))
    want = rig.outcome.terms.sum(-1)[:, 0] * torch.arange(3, device=device)
    torch.testing.assert_close(rig.outcome.reward[:, 0], want)
