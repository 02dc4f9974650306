"""Alpamayo's model on tiny random weights: reading, drawing and densities."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

import alpamayo_models as tiny
from alpagym.grpo.loss import reduce_log_prob
from alpagym.interop import alpamayo
from alpagym.interop.alpamayo import layouts, prompt, sampling, settings
from alpagym.interop.alpamayo.encoder import ActionEncoder
from alpagym.interop.alpamayo.model import Alpamayo, Prefix
from alpagym.policies.flow_matching import Schedule


@pytest.fixture(scope="module")
def model():
    return tiny.make().double()


@pytest.fixture(scope="module")
def prefix(model):
    return tiny.read(model, ["Turn left in 40m", ""])


def test_the_expert_sees_what_upstream_shows_it(model, prefix):
    """One situation and one waypoint set at a time, through the caches of `transformers`."""
    made = prompt.build(
        tiny.inputs(),
        model.settings,
        tiny.extended(),
        model.patches,
        routes=["Turn left in 40m", ""],
    )
    action, time = tiny.noisy(3)
    got = model.velocity(prefix, action, time)
    for b in range(2):
        ids = made.ids[b][made.mask[b]][None]
        patches, grid = made.patches.chunk(2)[b], made.grid.chunk(2)[b]
        with torch.no_grad():
            out = model.vlm.model(
                input_ids=ids,
                mm_token_type_ids=(ids == tiny.VLM["image_token_id"]).int(),
                pixel_values=patches,
                image_grid_thw=grid,
                use_cache=True,
            )
        cache, length = out.past_key_values, ids.shape[1]
        first = length + int(model.vlm.model.rope_deltas)
        assert first < length  # an image of 2 x 3 tokens takes 3 positions
        for c in range(3):
            with torch.no_grad():
                hidden = model.expert(
                    inputs_embeds=model.action_in_proj(action[b, c][None], time[b, c][None]),
                    position_ids=(torch.arange(64) + first).expand(3, 1, 64),
                    past_key_values=cache,
                    attention_mask=torch.zeros(1, 1, 64, length + 64, dtype=torch.float64),
                    use_cache=True,
                ).last_hidden_state
            cache.crop(-64)
            want = model.action_out_proj(hidden)[0]
            torch.testing.assert_close(got[b, c], want, atol=1e-9, rtol=0)


def test_draws_and_situations_do_not_see_each_other(model, prefix):
    action, time = tiny.noisy(3)
    got = model.velocity(prefix, action, time)
    action[0, 1], time[0, 1] = 9.0, 0.9
    changed = (model.velocity(prefix, action, time) - got).abs().amax((2, 3)) > 1e-12
    assert changed.tolist() == [[False, True, False], [False, False, False]]
    alone = model.velocity(prefix.index(slice(1, 2)), action[1:], time[1:])
    torch.testing.assert_close(alone, got[1:], atol=1e-12, rtol=0)


def test_prefixes_of_prompts_of_several_lengths_are_joined(model, prefix):
    alone = [
        tiny.read(model, ["Turn left in 40m", ""]).index(slice(0, 1)),
        tiny.read(model).index([1]),
    ]
    assert alone[0].mask.shape[1] > alone[1].mask.shape[1]
    joined = Prefix.join(alone)
    action, time = tiny.noisy(2)
    want = model.velocity(prefix, action, time)
    torch.testing.assert_close(model.velocity(joined, action, time), want, atol=1e-9, rtol=0)
    assert joined.nbytes == prefix.nbytes


RELEASED_VLM = {
    "text_config": {
        **tiny.VLM["text_config"],
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
    "vision_config": {
        **tiny.VLM["vision_config"],
        "depth": 27,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_heads": 16,
        "out_hidden_size": 4096,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [8, 16, 24],
    },
}


def test_the_released_sizes_give_the_released_number_of_weights():
    from transformers import Qwen3VLConfig

    config = tiny.config() | {"vocab_size": 155697}
    sizes = {"head_dim": 128, "hidden_size": 2048, "intermediate_size": 8256}
    config["expert_cfg"] = sizes | {"num_attention_heads": 16}
    config["action_in_proj_cfg"]["hidden_size"] = 512
    with torch.device("meta"):
        whole = Alpamayo(settings.of(config), Qwen3VLConfig(**RELEASED_VLM))
    count = {name: sum(p.numel() for p in m.parameters()) for name, m in whole.named_children()}
    assert count["expert"] == pytest.approx(2.3e9, rel=0.01)
    assert sum(count.values()) == pytest.approx(11.1e9, rel=0.01)
    # With the seven constants of R1's files, 416 tensors are not the VLM's.
    own = [name for name in whole.state_dict() if not name.startswith("vlm.")]
    assert len(own) + len(layouts.constants(whole.settings)) == 416


def test_everything_shown_matters(model):
    def kept(routes=None, **changes):
        seen = tiny.inputs(batch=1)
        for name, value in changes.items():
            setattr(seen, name, value)
        made = prompt.build(seen, model.settings, tiny.extended(), model.patches, routes=routes)
        return model.velocity(model.prefix(made), *tiny.noisy(1, batch=1))

    plain, seen = kept(), tiny.inputs(batch=1)
    others = {
        "frames": kept(frames=255 - seen.frames),
        "history": kept(history_xyz=seen.history_xyz * 2),
        "camera": kept(camera=seen.camera - 1),
        "route": kept(["Turn left in 40m"]),
    }
    for name, other in others.items():
        assert (other - plain).abs().max() > 1e-4, name


def test_waypoints_see_later_ones_unless_the_configuration_says_no(model, prefix):
    causal = Alpamayo(
        settings.of(tiny.config() | {"expert_non_causal_attention": False}), tiny.vlm_config()
    ).double()
    causal.load_state_dict(model.state_dict())
    action, time = tiny.noisy(1)
    moved = action.clone()
    moved[..., 40, :] += 1.0
    for made, earlier in ((model, True), (causal, False)):
        change = made.velocity(prefix, moved, time) - made.velocity(prefix, action, time)
        assert (change[:, :, :40].abs().max() > 1e-6) == earlier
        assert change[:, :, 41:].abs().max() > 1e-6


def test_features_of_actions_and_time():
    encoder = ActionEncoder(settings.of(tiny.config()), 24)
    caught = []
    encoder.encoder.register_forward_hook(lambda module, given, out: caught.append(given[0]))
    action, time = torch.tensor([[[0.25, -3.5]]]), torch.tensor([0.6])
    encoder(action, time)
    frequencies = np.logspace(0, 2, 10)
    rounded = torch.tensor(frequencies).bfloat16().double().numpy()
    assert abs(rounded - frequencies).max() > 0.01  # the releases' are in bfloat16
    phase = 2 * math.pi * np.array([[0.25], [-3.5], [0.6]]) * rounded
    want = math.sqrt(2) * np.concatenate([np.sin(phase), np.cos(phase)], 1).reshape(-1)
    np.testing.assert_allclose(caught[0][0, 0].numpy(), want, atol=2e-3)
    exact = ActionEncoder(settings.of(tiny.config() | {"model_dtype": "float32"}), 24)
    np.testing.assert_allclose(exact.sinus[0].freqs[0].numpy(), frequencies, rtol=1e-5)


def test_draws_are_chains_of_gaussians(model, prefix):
    schedule = Schedule.even(5, 0.2)
    schedule = Schedule(**{k: t.double() for k, t in vars(schedule).items()})
    draws = sampling.sample(model, prefix, 3, schedule, torch.Generator().manual_seed(1))
    assert draws.path.shape == (6, 2, 3, 64, 2)
    assert draws.log_prob.shape == (2, 3, 5 * 128)
    again = sampling.log_prob(model, prefix, draws.path, schedule)
    torch.testing.assert_close(again, draws.log_prob, atol=1e-9, rtol=0)
    other = tiny.make(seed=1).double()
    field = sampling.velocities(model, prefix, draws.path, schedule)
    anchor = sampling.velocities(other, prefix, draws.path, schedule)
    total, divergence = torch.zeros(2, 3).double(), torch.zeros(2, 3).double()
    for n in range(5):
        # Of the noise level 0.2 and five even steps, from alpamayo-recipes' formulas.
        t, dt = n / 5, 1 / 5
        sigma = 1 - t
        s = 0.2 * math.sqrt(sigma / (1 - min(sigma, 1 - 1 / 5)))
        x = draws.path[n]

        def step(v, x=x, s=s, sigma=sigma, dt=dt):
            mean = x * (1 - s * s / (2 * sigma) * dt)
            mean = mean + v * (1 + s * s * (1 - sigma) / (2 * sigma)) * dt
            return Normal(mean, s * math.sqrt(dt))

        total += step(field[n]).log_prob(draws.path[n + 1]).sum((-1, -2))
        divergence += kl_divergence(step(field[n]), step(anchor[n])).sum((-1, -2))
    torch.testing.assert_close(reduce_log_prob(draws.log_prob, "sum"), total, atol=1e-4, rtol=0)
    kl = sampling.divergence(field, anchor, schedule)
    torch.testing.assert_close(reduce_log_prob(kl, "sum"), divergence, atol=0, rtol=1e-5)
    torch.testing.assert_close(reduce_log_prob(kl, "mean"), divergence / 640, atol=0, rtol=1e-5)


STEP = 1e-3


def test_gradients_of_log_probabilities_against_finite_differences(model, prefix):
    schedule = Schedule(**{k: t.double() for k, t in vars(Schedule.even(4, 0.2)).items()})
    path = sampling.sample(model, prefix, 2, schedule, torch.Generator().manual_seed(2)).path

    def value():
        return sampling.log_prob(model, prefix, path, schedule).sum()

    # A path is fixed, so only what carries it depends on the weights.
    path = path + 0.05 * torch.randn(path.shape, generator=torch.Generator().manual_seed(3))
    model.zero_grad()
    value().backward()
    for name in (
        "action_out_proj.bias",
        "action_in_proj.encoder.trunk.3.weight",
        "expert.layers.0.self_attn.q_proj.weight",
        "expert.layers.1.mlp.down_proj.weight",
    ):
        weight = model.get_parameter(name)
        gradient = weight.grad
        assert gradient is not None
        way = torch.randn(weight.shape, generator=torch.Generator().manual_seed(4)).double()
        # Norms are taken in float32 whatever the weights' precision: small steps drown in that.
        way = way / way.norm()
        with torch.no_grad():
            weight += STEP * way
            above = float(value())
            weight -= 2 * STEP * way
            below = float(value())
            weight += STEP * way
        slope = (above - below) / (2 * STEP)
        error = abs(float((gradient * way).sum()) - slope)
        assert error < 1e-3 * float(gradient.norm()), (name, slope)
    assert model.get_parameter("vlm.model.language_model.norm.weight").grad is None


def test_integration_without_noise_is_reproducible(model, prefix):
    def draw(seed):
        return sampling.integrated(model, prefix, 2, torch.Generator().manual_seed(seed))

    assert draw(0).shape == (2, 2, 64, 2)
    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_a_path_of_another_schedule_is_refused(model, prefix):
    with pytest.raises(ValueError, match=r"path: expected shape \[5, 2, K, 64, 2\], got \[4, 2"):
        sampling.log_prob(model, prefix, torch.zeros(4, 2, 1, 64, 2), Schedule.even(4, 0.2))


def test_nothing_needs_transformers_before_a_model_is_made(monkeypatch):
    folder = Path(alpamayo.__file__).parent
    names = [f"{alpamayo.__name__}.{file.stem}" for file in folder.glob("*.py")]
    assert len(names) > 15
    script = f"import alpagym, sys, {', '.join(names)}; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"need transformers \(.*pip install alpagym.alpamayo.$"):
        Alpamayo(settings.of(tiny.config()), None)
