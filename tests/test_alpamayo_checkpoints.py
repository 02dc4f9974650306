"""Alpamayo's models from files, and files that are refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import alpamayo_models as tiny
from alpagym.interop.alpamayo import checkpoints, prompt


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("alpamayo")
    return tiny.save_release(root / "release"), tiny.save_vlm(root / "vlm")


@pytest.mark.parametrize(("kind", "shards"), [("alpamayo1_5", 2), ("alpamayo_r1", 1)])
def test_a_release_is_loaded_by_its_path(tmp_path, folders, kind, shards):
    source = tiny.make(kind, seed=4)
    release = tiny.save_release(tmp_path / "r", kind, source, shards)
    loaded = checkpoints.load(release, folders[1], dtype=torch.float32)
    for name, tensor in source.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.bfloat16().float()), name
    source.load_state_dict(loaded.state_dict())
    tokenizer = checkpoints.load_tokenizer(release, folders[1])
    seen = tiny.inputs()
    made = prompt.build(seen, loaded.settings, tokenizer, loaded.patches)
    action, time = tiny.noisy(2)
    want = source.velocity(source.prefix(made), action, time)
    # Tables that are in no file, of rotary positions and waves, are there too.
    torch.testing.assert_close(loaded.velocity(loaded.prefix(made), action, time), want)


def test_precisions_of_a_loaded_model(folders):
    loaded = checkpoints.load(*folders)
    assert {p.dtype for p in loaded.vlm.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in loaded.expert.parameters()} == {torch.float32}
    assert not [name for name, buffer in loaded.named_buffers() if buffer.is_meta]
    kept = tiny.read(loaded)
    assert kept.keys[0].dtype == torch.bfloat16
    assert kept.nbytes == 2 * 2 * kept.keys[0].nbytes
    assert loaded.velocity(kept, *tiny.noisy(2)).isfinite().all()


def edit_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_weights(folder, change):
    file = folder / "model-00001-of-00002.safetensors"
    state = load_file(file)
    change(state)
    save_file(state, file)


def drop(name):
    return lambda folder: edit_weights(folder, lambda state: state.pop(name))


def reindex(folder):
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"] = {k: f"../{v}" for k, v in index["weight_map"].items()}
    file.write_text(json.dumps(index))


def cut(folder):
    file = folder / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def only_pickle(folder):
    for file in folder.glob("model*"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")


PATCH = "vlm.model.visual.patch_embed.proj.weight"
FAULTS = {
    "found no config.json": lambda f: (f / "config.json").unlink(),
    "expected JSON": lambda f: (f / "config.json").write_text("{"),
    f"expected {PATCH} in it, as model.safetensors.index.json has it": drop(PATCH),
    "and .. more; is a file of model.safetensors.index.json not there": lambda f: (
        f / "model.safetensors.index.json"
    ).write_text(json.dumps({"weight_map": {PATCH: "model-00001-of-00002.safetensors"}})),
    r"expected no other weights than those of alpamayo1_5, got expert.odd": lambda f: edit_weights(
        f, lambda s: s.update({"expert.odd": torch.zeros(1)})
    ),
    r"expected action_in_proj.encoder.trunk.6.bias of shape \[40\], .*, got \[24\]": (
        lambda f: edit_config(f, expert_cfg={"hidden_size": 40, "num_attention_heads": 2})
    ),
    "expert_cfg.num_key_value_heads: expected 2": lambda f: edit_config(
        f, expert_cfg={"num_key_value_heads": 4}
    ),
    "expected names of files beside it, got ../model-0000": reindex,
    "it was cut short": cut,
    "pytorch_model.bin could run code and is not read": only_pickle,
    "expected action_space.accel_mean to be .0.029": lambda f: edit_weights(
        f, lambda s: s.update({"action_space.accel_mean": torch.tensor(0.5)})
    ),
}


@pytest.mark.parametrize("message", FAULTS)
def test_checkpoints_that_are_refused(tmp_path, folders, message):
    broken = tmp_path / "broken"
    shutil.copytree(folders[0], broken)
    FAULTS[message](broken)
    with pytest.raises(ValueError, match=message) as error:
        checkpoints.load(broken, folders[1])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_no_configuration_chooses_code(tmp_path, folders, key):
    release, vlm = (shutil.copytree(f, tmp_path / f.name) for f in folders)
    expert = tiny.config()["expert_cfg"] | {key: "owner/kernels"}
    edit_config(release, expert_cfg=expert)
    hostile = {key: "owner/kernels", "auto_map": {"AutoModel": "modeling.Model"}}
    text, vision = (tiny.VLM[f"{name}_config"] | hostile for name in ("text", "vision"))
    edit_config(vlm, text_config=text, vision_config=vision, **hostile)
    loaded = checkpoints.load(release, vlm)
    for part in (loaded.vlm, loaded.vlm.model.visual, loaded.vlm.model.language_model):
        assert part.config._attn_implementation == "sdpa"
    assert loaded.expert.config._attn_implementation == "sdpa"
    assert "owner/kernels" not in str(loaded.vlm.config)
    assert "modeling.Model" not in str(loaded.vlm.config)


def test_a_vlm_that_is_no_local_folder_is_refused(folders, tmp_path):
    with pytest.raises(ValueError, match=r"vlm_name_or_path: expected a local folder .*Cosmos"):
        checkpoints.load(folders[0])
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(ValueError, match="expected model_type qwen3_vl, got qwen2"):
        checkpoints.load(folders[0], tmp_path)
