"""Tiny Alpamayo models with random weights, of the releases' structure, and their files."""

import json
from functools import cache

import torch
from safetensors.torch import save_file

from alpagym.interop.alpamayo import prompt, settings, vocabulary
from alpagym.interop.alpamayo.contract import Inputs
from alpagym.interop.alpamayo.model import Alpamayo

BASE = 300
"""Tokens of the tiny tokenizer before Alpamayo's."""
SIZE = (64, 96)
"""Of camera frames."""
PLAIN = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
"""Tokens that Qwen's tokenizer has besides text."""
LAYERS = 2
VLM = {
    "model_type": "qwen3_vl",
    "tie_word_embeddings": False,
    "vision_start_token_id": 258,
    "vision_end_token_id": 259,
    "image_token_id": 260,
    "video_token_id": 261,
    "text_config": {
        "model_type": "qwen3_vl_text",
        "vocab_size": BASE,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rope_theta": 5000000,
        "rope_scaling": {
            "mrope_interleaved": True,
            "mrope_section": [4, 2, 2],
            "rope_type": "default",
        },
    },
    "vision_config": {
        "model_type": "qwen3_vl",
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 32,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    },
}


def tokenizer():
    """A byte-level tokenizer of 256 bytes and Qwen's special tokens, filled up to `BASE`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=made)
    fast.add_tokens(list(PLAIN), special_tokens=True)
    fast.add_tokens([f"<|unused{n}|>" for n in range(BASE - 256 - len(PLAIN))], special_tokens=True)
    fast.pad_token = "<|unused0|>"
    assert len(fast) == BASE
    return fast


@cache
def extended():
    return vocabulary.extend(tokenizer(), settings.of(config()))


def config(kind="alpamayo1_5"):
    """A `config.json` of a release."""
    first = BASE + 4000
    names = [name for name in vocabulary.SPECIAL if name != "image_pad"]
    ids = {key: first + names.index(name) for key, name in vocabulary.TRAJECTORY.items()}
    package = {"alpamayo_r1": "alpamayo_r1", "alpamayo1_5": "alpamayo1_5"}[kind]
    space = f"{package}.action_space"
    return {
        "model_type": kind,
        "architectures": [{"alpamayo_r1": "AlpamayoR1", "alpamayo1_5": "Alpamayo1_5"}[kind]],
        "vlm_name_or_path": "nvidia/Cosmos-Reason2-8B",
        "vlm_backend": "qwenvl3",
        "model_dtype": "bfloat16",
        "vocab_size": first + len(names),
        "traj_vocab_size": 4000,
        "traj_token_start_idx": BASE,
        "traj_token_ids": ids,
        "tokens_per_history_traj": 48,
        "tokens_per_future_traj": 128,
        "add_special_tokens": True,
        "min_pixels": 1024,
        "max_pixels": 196608,
        "keep_same_dtype": True,
        "expert_non_causal_attention": True,
        "expert_cfg": {
            "dtype": "bfloat16",
            "head_dim": 16,
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_attention_heads": 2,
        },
        "action_in_proj_cfg": {
            "_target_": f"{package}.models.action_in_proj.PerWaypointActionInProjV2",
            "hidden_size": 16,
            "max_freq": 100.0,
            "num_enc_layers": 2,
            "num_fourier_feats": 20,
        },
        "action_out_proj_cfg": {"_target_": "torch.nn.Linear"},
        "action_space_cfg": {
            "_target_": f"{space}.UnicycleAccelCurvatureActionSpace",
            "accel_bounds": [-9.8, 9.8],
            **settings.ACTION,
        },
        "diffusion_cfg": {
            "_target_": f"{package}.diffusion.flow_matching.FlowMatching",
            "int_method": "euler",
            "num_inference_steps": 10,
            "x_dims": [64, 2],
        },
        "hist_traj_tokenizer_cfg": {
            "_target_": f"{package}.models.delta_tokenizer.DeltaTrajectoryTokenizer"
        },
        "traj_tokenizer_cfg": {
            "_target_": f"{space}.discrete_action_space.DiscreteTrajectoryTokenizer",
            "action_space_cfg": {"_target_": f"{space}.UnicycleAccelCurvatureActionSpace"},
        },
    } | ({"include_camera_ids": True, "include_frame_nums": True} if kind != "alpamayo_r1" else {})


def vlm_config():
    from transformers import Qwen3VLConfig

    return Qwen3VLConfig(**json.loads(json.dumps(VLM)))


def make(kind="alpamayo1_5", seed=0):
    """A model in float32 with weights large enough that all of it matters."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Alpamayo(settings.of(config(kind)), vlm_config())
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model.eval()


def inputs(batch=2, cameras=(1, 6), frames=2, seed=0):
    """Situations with random frames, straight histories at 5 m/s and more."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, len(cameras) * frames, 3, *SIZE)
    speed = 5.0 + torch.arange(batch)
    past = torch.arange(-15, 1) * 0.1
    xyz = torch.zeros(batch, 1, 16, 3)
    xyz[..., 0] = (speed[:, None] * past)[:, None]
    return Inputs(
        history_xyz=xyz,
        history_rotation=torch.eye(3).expand(batch, 1, 16, 3, 3).contiguous(),
        frames=torch.randint(256, shape, generator=generator, dtype=torch.uint8),
        camera=torch.tensor(cameras).repeat_interleave(frames).expand(batch, -1),
        time_us=torch.arange(1 - frames, 1).repeat(len(cameras)).expand(batch, -1) * 100_000,
    )


def read(model, routes=None, **options):
    """What a model's VLM keeps of the prompts of `inputs`."""
    seen = inputs(**options)
    made = prompt.build(seen, model.settings, extended(), model.patches, routes=routes)
    return model.prefix(made)


def noisy(count, batch=2, seed=0):
    """Actions and times for `Alpamayo.velocity`, float64."""
    generator = torch.Generator().manual_seed(seed)
    action = torch.randn(batch, count, 64, 2, generator=generator, dtype=torch.float64)
    return action, torch.rand(batch, count, generator=generator, dtype=torch.float64)


def save_vlm(folder):
    """The folder of a VLM as far as its weights are not needed: configuration and tokenizer."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(VLM))
    tokenizer().save_pretrained(folder)
    return folder


def save_release(folder, kind="alpamayo1_5", model=None, shards=2):
    """A release's files: configuration, sharded weights in bfloat16, and their index."""
    folder.mkdir(parents=True)
    state = {n: t.to(torch.bfloat16) for n, t in (model or make(kind)).state_dict().items()}
    if kind == "alpamayo_r1":
        state |= {
            f"action_space.{n}": torch.tensor(v) for n, v in list(settings.ACTION.items())[:4]
        }
        waves = torch.logspace(0, 2, 10)[None].bfloat16()
        for name in ("sinus.0", "sinus.1", "timestep_fourier_encoder"):
            state[f"action_in_proj.{name}.freqs"] = waves.clone()
    names, where = list(state), {}
    for n in range(shards):
        file = f"model-{n + 1:05}-of-{shards:05}.safetensors" if shards > 1 else "model.safetensors"
        part = {name: state[name] for name in names[n::shards]}
        save_file(part, folder / file, {"format": "pt"})
        where |= dict.fromkeys(part, file)
    if shards > 1:
        index = {
            "metadata": {"total_size": sum(t.nbytes for t in state.values())},
            "weight_map": where,
        }
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / "model.safetensors.index.json").write_text(text)
    (folder / "config.json").write_text(json.dumps(config(kind), indent=2) + "\n")
    return folder
