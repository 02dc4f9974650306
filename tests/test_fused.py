"""The fused encoder of the CPU does what torch's modules do."""

from __future__ import annotations

import pytest
import torch

from alpagym import sim
from alpagym.policies.features import Scale
from alpagym.policies.fused import encode_elements, fits
from alpagym.policies.scene_network import encoder, masked_max

KINDS = (0, 1, 2)


def example(features: int, sets: int, slots: int, columns: int = 7, kinds=KINDS):
    """Rows with kinds up to one that has no input of its own, a mask with empty sets, a network."""
    generator = torch.Generator().manual_seed(features + sets + slots)
    rows = 30.0 * torch.randn(sets, slots, columns, generator=generator)
    rows[..., 5] = torch.randint(0, 5, (sets, slots), generator=generator).float()
    mask = torch.rand(sets, slots, generator=generator) < 0.6
    mask[: sets // 4] = False
    scale = Scale((0.05, 0.05, 1.0, 1.0, 0.2), kinds)
    torch.manual_seed(1)
    return rows, mask, scale, encoder(scale.size, features)


def fused(rows, mask, scale, network):
    first, _, last = network
    kinds = (int(scale.kinds[0]), len(scale.kinds)) if len(scale.kinds) else (0, 0)
    weights = (first.weight, first.bias, last.weight, last.bias)
    return encode_elements(rows, mask, scale.scale, kinds, *weights)


@pytest.mark.parametrize("form", ["vector", "avx2", "avx512"])
@pytest.mark.parametrize("features", [8, 16, 32, 64, 128])
@pytest.mark.parametrize("kinds", [KINDS, ()], ids=["kinds", "plain"])
def test_values_and_gradients_are_torchs(form, features, kinds) -> None:
    before = sim.cpu_form()
    try:
        sim.use_cpu_form(form)
    except ValueError as error:
        pytest.skip(str(error))
    try:
        rows, mask, scale, network = example(features, 300, 13, kinds=kinds)
        torch.manual_seed(2)
        towards = torch.randn(300, features)
        results = []
        for encode in (
            lambda: masked_max(network(scale(rows)), mask),
            lambda: fused(rows, mask, scale, network),
        ):
            network.zero_grad()
            out = encode()
            (out * towards).sum().backward()
            results.append([out.detach(), *(p.grad.clone() for p in network.parameters())])
    finally:
        sim.use_cpu_form(before)
    assert (results[0][0] > 0).any()
    assert not results[1][0][:75].any(), "empty sets give zeros"
    for wanted, found in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=2e-4, atol=2e-3)


def test_gradients_do_not_depend_on_the_number_of_threads() -> None:
    rows, mask, scale, network = example(32, 700, 9)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            network.zero_grad()
            fused(rows, mask, scale, network).square().sum().backward()
            found.append([p.grad.clone() for p in network.parameters()])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_leading_dimensions_are_free_and_may_be_empty() -> None:
    rows, mask, scale, network = example(16, 6, 4)
    flat = fused(rows, mask, scale, network)
    folded = fused(rows.view(2, 3, 4, 7), mask.view(2, 3, 4), scale, network)
    assert torch.equal(folded, flat.view(2, 3, 16))
    assert fused(rows[:0], mask[:0], scale, network).shape == (0, 16)
    assert not fused(rows[:, :0], mask[:, :0], scale, network).any()


def test_what_does_not_fit_goes_to_torch() -> None:
    rows = torch.zeros(2, 3, 7)
    assert fits(rows, 32)
    assert not fits(rows.double(), 32)
    assert not fits(rows, 33)
    with torch.autocast("cpu", torch.bfloat16):
        assert not fits(rows, 32)


def test_shapes_that_disagree_are_refused() -> None:
    rows, mask, scale, network = example(16, 6, 4)
    with pytest.raises(
        ValueError, match=r"^encode: mask: expected \[6, 4\] on cpu, got bool\[6, 3\]"
    ):
        fused(rows, mask[:, :3], scale, network)
    with pytest.raises(ValueError, match=r"^encode: expected rows of at least 6 columns, got 5$"):
        fused(rows[..., :5], mask, scale, network)
    with pytest.raises(
        ValueError, match=r"^encode: expected 8, 16, 32, 64 or 128 features, got 12$"
    ):
        fused(rows, mask, scale, encoder(scale.size, 12))


@pytest.mark.parametrize("where", ["row", "w1", "w2"])
def test_what_is_not_a_number_is_not_hidden(where) -> None:
    rows, mask, scale, network = example(16, 40, 5)
    mask[:, 0] = True
    if where == "row":
        rows[7, 0, 1] = float("nan")
    else:
        with torch.no_grad():
            network[0 if where == "w1" else 2].weight[3, 2] = float("nan")
    expected = masked_max(network(scale(rows)), mask).isnan()
    found = fused(rows, mask, scale, network).isnan()
    assert found.any()
    assert torch.equal(found, expected)
