"""What the core keeps of tensors between calls never outlives them and never hides a change."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import weakref
from collections.abc import Callable
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import scenario_factory as factory
from alpagym import sim
from alpagym.types import TensorStruct
from simulating import Rig, same_bits


def make_rig(num_worlds: int = 3) -> Rig:
    return Rig([factory.straight(factory.Actor(factory.STRAIGHT, 50.0, 8.0))], num_worlds)


def under_way() -> Rig:
    """A rig whose tensors the core has seen before."""
    rig = make_rig()
    rig.step()
    rig.observe()
    return rig


def unseen(struct: TensorStruct) -> TensorStruct:
    """The same tensors in a struct that no call has read yet."""
    return type(struct)(**struct.tensors())


def test_later_calls_give_the_same_bits_as_first_calls() -> None:
    seen, other = (
        Rig([factory.random_scenario(s, num_agents=5) for s in range(4)]) for _ in range(2)
    )
    for seed in range(5):
        action = seen.random_action(seed)
        seen.step(action)
        seen.observe()
        scenarios, state = unseen(other.scenarios), unseen(other.state)
        outcome, observation = unseen(other.outcome), unseen(other.observation)
        sim.step(scenarios, state, outcome, action, other.weights, other.params)
        sim.observe(unseen(scenarios), unseen(state), observation, other.params)
        assert same_bits(seen.state, other.state)
        assert same_bits(seen.outcome, other.outcome)
        assert same_bits(seen.observation, other.observation)


@pytest.mark.parametrize("name", ["scenarios", "state", "outcome"])
def test_a_field_that_is_replaced_is_followed(name: str) -> None:
    rig, twin = under_way(), under_way()
    struct = getattr(rig, name)
    old = struct.tensors()
    for field in fields(struct):
        setattr(struct, field.name, getattr(struct, field.name).clone())
    before = {k: t.clone() for k, t in old.items()}
    rig.step()
    twin.step()
    assert same_bits(rig.state, twin.state)
    assert same_bits(rig.outcome, twin.outcome)
    for field, tensor in old.items():
        exact = {"rtol": 0, "atol": 0, "equal_nan": True}
        torch.testing.assert_close(tensor, before[field], **exact, msg=field)


def moved_by_set(t: Tensor) -> None:
    t.set_(t.clone())


def moved_by_data(t: Tensor) -> None:
    t.data = t.clone()


def moved_to_shared_memory(t: Tensor) -> None:
    t.share_memory_()


def moved_by_growing_and_shrinking(t: Tensor) -> None:
    shape, values = t.shape, t.clone()
    t.resize_(1 << 20)
    t.resize_(shape).copy_(values)


MOVES = [moved_by_set, moved_by_data, moved_to_shared_memory, moved_by_growing_and_shrinking]


@pytest.mark.parametrize("move", MOVES)
def test_memory_that_moves_in_place_is_followed(move: Callable[[Tensor], None]) -> None:
    rig, twin = under_way(), under_way()
    for tensor in (rig.state.x, rig.state.controller, rig.outcome.reward):
        before = tensor.data_ptr()
        move(tensor)
        assert tensor.data_ptr() != before
    for _ in range(2):
        rig.step()
        twin.step()
    assert same_bits(rig.state, twin.state)
    assert same_bits(rig.outcome, twin.outcome)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda t: t.resize_(300, 2),
            "expected float32[W, A] with W=3 (from State.x), got float32[300, 2] on cpu",
        ),
        (
            lambda t: t.resize_(3, 1),
            "expected float32[W, A] with A=2 (from State.x), got float32[3, 1] on cpu",
        ),
        (
            lambda t: t.t_(),
            "expected contiguous float32[W, A], got float32[2, 3] on cpu, not contiguous",
        ),
        (lambda t: t.untyped_storage().resize_(0), "tensor has no memory"),
    ],
)
def test_a_tensor_that_no_longer_fits_is_refused(change, sentence: str) -> None:
    rig = under_way()
    change(rig.state.y)
    others = {k: t for k, t in rig.state.tensors().items() if k != "y"}
    before = {k: t.clone() for k, t in others.items()}
    for _ in range(2):
        with pytest.raises(ValueError, match=f"^State\\.y: {re.escape(sentence)}$"):
            rig.step()
    assert all(torch.equal(t, before[k]) for k, t in others.items())


def test_a_square_tensor_that_is_transposed_in_place_is_refused() -> None:
    rig = make_rig(num_worlds=2)
    rig.step()
    rig.state.yaw.t_()
    words = "State.yaw: expected contiguous float32[W, A], got float32[2, 2] on cpu, not contiguous"
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        rig.step()


@pytest.mark.parametrize("value", [None, [1.0]])
def test_a_field_that_is_no_longer_a_tensor_is_refused(value) -> None:
    rig = under_way()
    kept, rig.state.y = rig.state.y, value
    with pytest.raises(TypeError, match=r"^State\.y: expected torch\.Tensor, got"):
        rig.step()
    del rig.state.y
    with pytest.raises(TypeError, match=r"^expected State with a tensor y, got State$"):
        rig.step()
    rig.state.y = kept
    rig.step()


def test_rows_of_another_format_are_followed() -> None:
    rig = under_way()
    wide = rig.observation.road.clone()
    rig.observation.road = torch.zeros_like(wide, dtype=torch.float16)
    rig.observe()
    assert torch.equal(rig.observation.road, wide.half())


def test_nothing_is_kept_alive() -> None:
    rig = under_way()
    gone = weakref.ref(rig.state.x)
    rig.state.x = rig.state.x.clone()
    rig.step()
    assert gone() is None, "the tensor that was replaced"
    references = [
        weakref.ref(t)
        for struct in (rig.scenarios, rig.state, rig.outcome, rig.observation)
        for t in struct.tensors().values()
    ]
    gc.disable()
    try:
        del rig
        assert all(r() is None for r in references)
    finally:
        gc.enable()


def test_tensors_live_on_without_their_struct() -> None:
    rig = under_way()
    x, before = rig.state.x, rig.state.x.clone()
    rig.state = rig.state.clone()
    gc.collect()
    rig.step()
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s)), replace]
)
def test_copies_are_of_their_own(copied) -> None:
    rig, twin = under_way(), under_way()
    made = copied(rig.state)
    assert same_bits(made, rig.state)
    assert made.__dict__.keys() == made.tensors().keys()
    made.x = rig.state.x.clone()
    rig.step()
    twin.step()
    assert same_bits(rig.state, twin.state)


def test_any_object_with_the_tensors_will_do() -> None:
    rig, twin = under_way(), under_way()
    state = SimpleNamespace(**rig.state.tensors())
    for _ in range(2):
        sim.step(rig.scenarios, state, rig.outcome, rig.zero_action(), rig.weights, rig.params)
        twin.step()
    assert same_bits(rig.state, twin.state)
    assert vars(state).keys() == rig.state.tensors().keys()
