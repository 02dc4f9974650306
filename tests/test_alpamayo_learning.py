"""What Alpamayo's expert learns, and what stays as it is."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import alpamayo_models as tiny
from alpagym.grpo.advantage import group_advantages
from alpagym.grpo.loss import reduce_log_prob
from alpagym.interop.alpamayo import learning, lora, prompt, sampling
from alpagym.interop.alpamayo.learning import Decisions
from alpagym.interop.alpamayo.model import train_expert_only
from alpagym.policies.flow_matching import Schedule
from alpagym.training_config import GrpoConfig

SCHEDULE = Schedule.even(3, 0.2)
T, W = 2, 4
"""Decisions of a rollout, and rollouts: two groups of two."""


def rolled_out(model):
    """Two decisions of four rollouts, rewarded for accelerating; the last has one decision."""
    seen = tiny.inputs(batch=T * W)
    made = prompt.build(seen, model.settings, tiny.extended(), model.patches)
    prefix = model.prefix(made)
    draws = sampling.sample(model, prefix, 1, SCHEDULE, torch.Generator().manual_seed(0))
    valid = torch.ones(T, W, dtype=torch.bool)
    valid[1, 3] = False
    reward = draws.action[:, 0, :, 0].mean(-1).view(T, W) * valid
    found = group_advantages(reward, valid, 2, dead_tolerance=0.0)
    return Decisions(prefix, draws.path[:, :, 0], draws.log_prob[:, 0], found.advantage, valid)


@pytest.fixture(scope="module")
def recorded():
    return rolled_out(tiny.make())


def weights(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def changed(model, before):
    return {
        name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
    }


def likely(model, decisions):
    found = sampling.log_prob(model, decisions.prefix, decisions.path[:, :, None], SCHEDULE)
    return reduce_log_prob(found[:, 0], "sum").detach().view(T, W)


def test_a_step_of_grpo_changes_the_expert_and_nothing_else(recorded):
    model = tiny.make()
    before, were = weights(model), likely(model, recorded)
    optimizer = torch.optim.Adam(train_expert_only(model), 1e-5)
    values = learning.grpo_step(model, recorded, SCHEDULE, GrpoConfig(), optimizer)
    parts = ("expert.", "action_in_proj.", "action_out_proj.")
    assert changed(model, before) == {name for name in before if name.startswith(parts)}
    assert values["ratio_mean"] == pytest.approx(1.0, abs=1e-3)
    assert values["kl"] == values["clip_fraction"] == 0.0
    assert values["grad_norm"] > 0.0
    # What was better than its group is likelier now, on the whole.
    assert ((likely(model, recorded) - were) * recorded.advantage)[recorded.valid].sum() > 0.0
    # The VLM is frozen: what it read stays true.
    again = rolled_out(model).prefix
    assert all(torch.equal(a, b) for a, b in zip(again.keys, recorded.prefix.keys, strict=True))


def test_each_device(device, recorded):
    model = tiny.make().to(device)
    prefix = recorded.prefix.to(device)
    schedule = Schedule.even(3, 0.2, device)
    draws = sampling.sample(model, prefix, 2, schedule, torch.Generator(device).manual_seed(0))
    again = sampling.log_prob(model, prefix, draws.path, schedule)
    torch.testing.assert_close(again, draws.log_prob, atol=1e-3, rtol=0)
    here = Decisions(
        recorded.prefix,  # stays on the host
        *(
            getattr(recorded, name).to(device)
            for name in ("path", "log_prob", "advantage", "valid")
        ),
    )
    optimizer = torch.optim.SGD(train_expert_only(model), 0.0)
    values = learning.grpo_step(model, here, schedule, GrpoConfig(), optimizer, rollouts=2)
    assert values["ratio_mean"] == pytest.approx(1.0, abs=1e-2)


@pytest.mark.parametrize("average", ["step", "rollout", "sum"])
def test_gradients_do_not_depend_on_the_parts_that_they_are_summed_from(recorded, average):
    config = GrpoConfig(average=average, kl_weight=0.3, log_prob="mean")
    found = []
    for rollouts in (0, 1, 3):
        model = tiny.make()
        optimizer = torch.optim.SGD(train_expert_only(model), 0.0)
        values = learning.grpo_step(
            model,
            recorded,
            SCHEDULE,
            config,
            optimizer,
            anchor=tiny.make(seed=1),
            rollouts=rollouts,
        )
        found.append((values, model.expert.layers[0].self_attn.q_proj.weight.grad))
    for values, gradient in found[1:]:
        assert values == pytest.approx(found[0][0], rel=1e-4, abs=1e-6)
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-3, atol=1e-6)
    assert found[0][0]["kl"] > 0.0


def test_what_is_not_valid_does_not_count(recorded):
    def step(decisions):
        model = tiny.make()
        optimizer = torch.optim.SGD(train_expert_only(model), 1e-6)
        values = learning.grpo_step(model, decisions, SCHEDULE, GrpoConfig(), optimizer)
        return values, weights(model)

    path = recorded.path.clone()
    path[:, T * W - 1] = torch.nan
    spoiled = Decisions(
        recorded.prefix, path, recorded.log_prob, recorded.advantage, recorded.valid
    )
    values, learned = step(spoiled)
    wanted, want = step(recorded)
    assert values == wanted
    assert all(torch.equal(tensor, want[name]) for name, tensor in learned.items())


def test_numbers_that_are_not_finite_take_no_step(recorded):
    model = tiny.make()
    before = weights(model)
    optimizer = torch.optim.Adam(train_expert_only(model), 1e-3)
    advantage = recorded.advantage * torch.inf
    broken = Decisions(recorded.prefix, recorded.path, recorded.log_prob, advantage, recorded.valid)
    with pytest.raises(ValueError, match="expected finite numbers, got policy_loss"):
        learning.grpo_step(model, broken, SCHEDULE, GrpoConfig(), optimizer)
    assert not changed(model, before)


def test_lora_learns_beside_frozen_weights_and_is_its_own_anchor(recorded):
    model = tiny.make()
    before, were = weights(model), likely(model, recorded)
    model.requires_grad_(False)
    learned = lora.add(model.expert, 2, alpha=4.0)
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in learned}
    assert len(learned) == 2 * 7 * tiny.LAYERS
    torch.testing.assert_close(likely(model, recorded), were, rtol=0, atol=0)
    optimizer = torch.optim.Adam(learned, 1e-2)
    config = GrpoConfig(kl_weight=0.1)
    for _ in range(2):
        values = learning.grpo_step(model, recorded, SCHEDULE, config, optimizer, anchor=model)
    assert values["kl"] > 0.0
    with lora.off(model):
        torch.testing.assert_close(likely(model, recorded), were, rtol=0, atol=0)
    now = likely(model, recorded)
    assert (now - were).abs().max() > 0.1
    lora.merge(model)
    assert set(model.state_dict()) == set(before)
    torch.testing.assert_close(likely(model, recorded), now, rtol=1e-4, atol=0.05)
    moved = changed(model, before)
    assert all(name.startswith("expert.layers.") and "proj" in name for name in moved)


def test_lora_and_anchors_that_are_refused(recorded):
    model = tiny.make()
    with pytest.raises(ValueError, match="lora rank: expected at least 1, got 0"):
        lora.add(model.expert, 0)
    with pytest.raises(ValueError, match="expected linear layers named odd, found none"):
        lora.add(model.expert, 1, layers=["odd"])
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    config = GrpoConfig(kl_weight=0.1)
    for anchor in (None, model):
        with pytest.raises(ValueError, match=r"grpo\.kl_weight: expected an anchor"):
            learning.grpo_step(model, recorded, SCHEDULE, config, optimizer, anchor=anchor)
    lora.add(model.expert, 1)
    with pytest.raises(ValueError, match="expected a model without adapters"):
        lora.add(model.expert, 1)


class Recorded:
    """A model whose field on a path is known."""

    def __init__(self, field):
        self.field, self.device = field, torch.device("cpu")

    def velocity(self, prefix, action, time):
        return self.field[None]


def test_replays_have_upstreams_log_probabilities_and_divergences(shared_golden, tol):
    z = np.load(shared_golden / "alpagym" / "sde_flow_matching.npz")
    for k, n in enumerate(z["n_steps"]):
        field = torch.from_numpy(z["v"][k][:n])
        found = learning.replay(
            Recorded(field),
            [None],
            torch.from_numpy(z["samples"][k][None, : n + 1]),
            torch.from_numpy(z["timesteps"][k][None, : n + 1]),
            float(z["noise_level"][k]),
            anchor=Recorded(field + z["v_ref_shift"][k]),
        )
        assert float(found["log_probs"][0]) == pytest.approx(z["log_prob"][k], abs=tol(1e-6))
        assert float(found["kl_div"][0]) == pytest.approx(z["kl_batched"][k], rel=tol(1e-5))


def test_replays_of_draws(recorded):
    model = tiny.make()
    samples = recorded.path.transpose(0, 1)
    times = SCHEDULE.times.expand(T * W, -1)
    found = learning.replay(model, recorded.prefix, samples, times, 0.2, reduction="sum")
    want = reduce_log_prob(recorded.log_prob, "sum")
    torch.testing.assert_close(found["log_probs"], want, rtol=0, atol=1e-2)
    assert found["kl_div"] is None
    assert found["log_probs"].requires_grad
    with pytest.raises(ValueError, match="timesteps: expected the same times"):
        learning.replay(model, recorded.prefix, samples, times * torch.rand(T * W, 1), 0.2)


def test_the_examples_of_the_documentation(tmp_path, monkeypatch):
    text = (Path(__file__).resolve().parents[1] / "docs" / "alpamayo.md").read_text()
    tiny.save_release(tmp_path / "Alpamayo-1.5-10B")
    tiny.save_vlm(tmp_path / "Cosmos-Reason2-8B")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for example in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        exec(compile(example.replace('"cuda"', '"cpu"'), "alpamayo.md", "exec"), names)
    assert names["values"]["grad_norm"] > 0.0
    assert (tmp_path / "trained" / "config.json").is_file()
