"""Alpamayo checkpoints from one layout into another, and back byte for byte."""

import json
import os
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import alpamayo_models as tiny
from alpagym.cli import main
from alpagym.interop.alpamayo import checkpoints, conversion, layouts, prompt, settings, trial
from alpagym.interop.alpamayo.model import Alpamayo, train_expert_only
from alpagym.interop.alpamayo.weights import INDEX, files_of, table_of


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    folder = tiny.save_vlm(tmp_path_factory.mktemp("qwen") / "vlm")
    (folder / "preprocessor_config.json").write_text("{}")
    return folder


def tensors(folder):
    return {k: t for file in files_of(folder) for k, t in load_file(folder / file).items()}


@pytest.mark.parametrize("kind", layouts.RELEASES)
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("target", layouts.LAYOUTS)
def test_there_and_back_gives_the_same_bytes(tmp_path, vlm, kind, shards, target):
    release = tiny.save_release(tmp_path / "r", kind, shards=shards)
    there = conversion.convert(release, tmp_path / "there", target, vlm=vlm)
    assert (there.source, there.target) == (kind, target)
    config = settings.read(tmp_path / "there")[0]
    names = [name for names in files_of(tmp_path / "there").values() for name in names]
    assert layouts.layout_of(config, names) == target
    back = conversion.convert(tmp_path / "there", tmp_path / "back", kind)
    assert back.source == target
    for file in release.iterdir():
        assert (tmp_path / "back" / file.name).read_bytes() == file.read_bytes(), file.name


def prompt_ids(folder, vlm):
    config, tokenizer = settings.read(folder)[0], checkpoints.load_tokenizer(folder, vlm)
    return prompt.build(tiny.inputs(), config, tokenizer, prompt.Patches()).ids


@pytest.mark.parametrize("kind", layouts.RELEASES)
@pytest.mark.parametrize("target", layouts.LAYOUTS)
def test_every_layout_is_the_same_model(tmp_path, vlm, kind, target):
    release = tiny.save_release(tmp_path / "r", kind)
    conversion.convert(release, tmp_path / "there", target, vlm=vlm)
    a, b = (checkpoints.load(folder, vlm).state_dict() for folder in (release, tmp_path / "there"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    ids = [prompt_ids(folder, vlm) for folder in (release, tmp_path / "there")]
    assert torch.equal(*ids)
    assert json.loads((tmp_path / "there" / "config.json").read_text())["model_type"] == (
        target if target in layouts.RELEASES else "alpamayo_reasoning_vla_expert"
    )


def test_names_and_classes_of_the_layouts(tmp_path, vlm):
    release = tiny.save_release(tmp_path / "r")
    for target in ("training", "export", "alpamayo_r1"):
        conversion.convert(release, tmp_path / target, target, vlm=vlm)
    stored = tensors(tmp_path / "export")
    assert {
        "lm_head.weight",
        "visual.patch_embed.proj.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.embed_tokens.weight",
        "expert.norm.weight",
        "action_out_proj.bias",
    } <= set(stored)
    assert not [name for name in stored if name.startswith("vlm.")]
    training = json.loads((tmp_path / "training" / "config.json").read_text())
    assert training["architectures"] == ["ExpertModel"]
    assert training["diffusion_cfg"]["x_dims"] is None
    assert training["cotrain_vlm"] is False
    assert training["padding_side"] == "left"
    assert "dtype" not in training["expert_cfg"]
    assert "add_special_tokens" not in training
    place = "alpamayo_r1.action_space"
    assert training["action_space_cfg"]["_target_"] == (
        f"{place}.unicycle_accel_curvature.UnicycleAccelCurvatureActionSpace"
    )
    assert training["traj_tokenizer_cfg"]["_target_"] == (
        f"{place}.discrete_action_space.DiscreteTrajectoryTokenizer"
    )
    assert training["action_in_proj_cfg"]["_target_"] == (
        "alpagym_alpamayo_r1.submodules.action_in_proj.PerWaypointActionInProjV2"
    )
    assert training["diffusion_cfg"]["_target_"].startswith("alpamayo1_x_rl.diffusion.")
    # R1 and training read from files what follows from the configuration; 1.5 has no such files.
    constants = {f"action_space.{name}" for name in list(settings.ACTION)[:4]}
    for target in ("training", "alpamayo_r1"):
        stored = tensors(tmp_path / target)
        assert constants <= set(stored)
        assert stored["action_space.accel_std"] == settings.ACTION["accel_std"]
        assert stored["action_in_proj.sinus.1.freqs"].shape == (1, 10)
    assert not constants & set(tensors(release))


def test_an_export_that_others_wrote(tmp_path, vlm):
    """Without the release's configuration in it: its classes are named from the table."""
    release = tiny.save_release(tmp_path / "r")
    conversion.convert(release, tmp_path / "export", "export", vlm=vlm)
    file = tmp_path / "export" / "config.json"
    config = json.loads(file.read_text())
    del config[layouts.KEPT]
    file.write_text(json.dumps(config))
    conversion.convert(tmp_path / "export", tmp_path / "driver", "alpamayo1_5")
    got, want = (
        json.loads((f / "config.json").read_text()) for f in (tmp_path / "driver", release)
    )
    want["expert_cfg"].pop("dtype")
    want["diffusion_cfg"]["x_dims"] = None
    assert got == want | {"padding_side": "left"}
    assert checkpoints.load_tokenizer(tmp_path / "driver").convert_tokens_to_ids("<i0>") == 300


def test_training_gets_a_tokenizer_with_all_tokens(tmp_path, vlm):
    release = tiny.save_release(tmp_path / "r")
    assert conversion.convert(release, tmp_path / "t", "training", vlm=vlm).tokenizer
    assert len(checkpoints.load_tokenizer(tmp_path / "t")) == tiny.config()["vocab_size"]
    assert (tmp_path / "t" / "preprocessor_config.json").read_text() == "{}"
    with pytest.raises(ValueError, match=r"vlm_name_or_path: expected a local folder"):
        conversion.convert(release, tmp_path / "other", "training")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r", "t"]


def test_what_is_linked_and_what_is_not_copied(tmp_path):
    release = tiny.save_release(tmp_path / "r")
    (release / "LICENSE").write_text("some")
    odd = {
        "modeling.py",
        "optimizer.pt",
        "kernel.so",
        "SETUP.PY",
        "state.npz",
        "run.sh",
        "LICENSE.py",
    }
    for name in odd:
        (release / name).write_bytes(b"pickle")
    for name in ("NOTICE.txt", "README.MD", "tokenizer.model", "LICENSE-CODE"):
        (release / name).write_text("some")
    conversion.convert(release, tmp_path / "linked", "alpamayo1_5", link=True)
    made = {p.name for p in (tmp_path / "linked").iterdir()}
    assert made == {p.name for p in release.iterdir()} - odd
    assert all((tmp_path / "linked" / file).is_symlink() for file in files_of(release))
    conversion.convert(tmp_path / "linked", tmp_path / "r1", "alpamayo_r1", link=True)
    last = tmp_path / "r1" / list(files_of(release))[-1]
    assert not last.is_symlink()  # constants were added to it


def edit_config(folder, **changes):
    file = folder / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_no_code_is_named_in_what_is_written(tmp_path, vlm, name):
    release = tiny.save_release(tmp_path / "r")
    tiny.tokenizer().save_pretrained(release)
    file = release / name
    own = {"auto_map": {"AutoModel": "modeling.Model"}, "nested": [{"auto_map": {}}]}
    file.write_text(json.dumps(json.loads(file.read_text()) | own))
    conversion.convert(release, tmp_path / "t", "training", vlm=vlm)
    conversion.convert(tmp_path / "t", tmp_path / "back", "alpamayo1_5")
    conversion.save(checkpoints.load(release, vlm), release, tmp_path / "saved")
    for folder in ("t", "back", "saved"):
        text = (tmp_path / folder / name).read_text()
        assert "nested" in text
        assert "auto_map" not in text


@pytest.mark.parametrize(
    "target",
    ["os.system", "alpamayo_r1.diffusion.subprocess.Popen", "alpamayo1_5.models.base.Model", 3],
)
def test_classes_that_are_not_alpamayos_are_refused(tmp_path, vlm, target):
    release = tiny.save_release(tmp_path / "r")
    edit_config(release, traj_tokenizer_cfg={"parts": [{"_target_": target}]})
    with pytest.raises(ValueError, match=rf"config.json: _target_: expected .* got {target!r}"):
        conversion.convert(release, tmp_path / "t", "training", vlm=vlm)


@pytest.mark.parametrize("kept", ["{", "{}", "[]", 3, '{"model_type": "alpamayo1_5"}', None])
def test_an_edited_configuration_is_what_counts(tmp_path, vlm, kept):
    """Not the release's text in it, whether that is whole or broken."""
    release = tiny.save_release(tmp_path / "r")
    conversion.convert(release, tmp_path / "t", "training", vlm=vlm)
    flow = json.loads((tmp_path / "t" / "config.json").read_text())["diffusion_cfg"]
    changes = {} if kept is None else {layouts.KEPT: kept}
    edit_config(tmp_path / "t", diffusion_cfg=flow | {"num_inference_steps": 4}, **changes)
    for target in layouts.RELEASES:
        conversion.convert(tmp_path / "t", tmp_path / target, target)
        made, config = settings.read(tmp_path / target)
        assert made.steps == 4
        assert config["diffusion_cfg"]["_target_"].startswith(target)


def test_only_constants_that_a_conversion_added_are_dropped(tmp_path, vlm):
    release = tiny.save_release(tmp_path / "r")
    conversion.convert(release, tmp_path / "t", "training", vlm=vlm)
    added = set(layouts.constants(settings.read(release)[0]))
    assert set(json.loads((tmp_path / "t" / "config.json").read_text())[layouts.ADDED]) == added
    # By name: what they hold and where they lie does not matter.
    file = tmp_path / "t" / list(files_of(tmp_path / "t"))[-1]
    state = load_file(file)
    save_file({n: t.bfloat16() for n, t in state.items()}, file)
    conversion.convert(tmp_path / "t", tmp_path / "back", "alpamayo1_5")
    assert not added & tensors(tmp_path / "back").keys()
    edit_config(tmp_path / "t", **{layouts.ADDED: None})
    conversion.convert(tmp_path / "t", tmp_path / "kept", "alpamayo1_5")
    assert added <= tensors(tmp_path / "kept").keys()


def test_a_trained_model_becomes_a_checkpoint(tmp_path, vlm):
    release = tiny.save_release(tmp_path / "r", "alpamayo_r1")
    model = checkpoints.load(release, vlm)
    learned = train_expert_only(model)
    with torch.no_grad():
        for parameter in learned:
            parameter += 0.25
    conversion.save(model, release, tmp_path / "trained")
    before, after = tensors(release), tensors(tmp_path / "trained")
    assert before.keys() == after.keys()
    own = {n for n, _ in model.named_parameters() if not n.startswith("vlm.")}
    for name, tensor in after.items():
        assert tensor.dtype == before[name].dtype
        if name in own:
            assert torch.equal(tensor, model.get_parameter(name).to(tensor.dtype)), name
        else:
            assert torch.equal(tensor, before[name]), name
    larger = tiny.config() | {"expert_cfg": {"hidden_size": 40, "num_attention_heads": 2}}
    other = Alpamayo(settings.of(larger), tiny.vlm_config())
    with pytest.raises(ValueError, match=r"expected BF16 \[.*24\].* got \[.*40\]"):
        conversion.save(other, release, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def twice(folder):
    """One tensor in two files."""
    files = sorted(files_of(folder))
    shutil.copyfile(folder / files[0], folder / files[1])
    index = json.loads((folder / INDEX).read_text())
    names = [e.name for e in table_of(folder / files[0]).entries]
    index["weight_map"] = {names[0]: files[0]} | dict.fromkeys(names[1:], files[1])
    (folder / INDEX).write_text(json.dumps(index))


def edit_table(change):
    """Change the first row, or the whole table, of the first file."""

    def edit(folder):
        file = folder / sorted(files_of(folder))[0]
        data = file.read_bytes()
        length = int.from_bytes(data[:8], "little")
        rows = json.loads(data[8 : 8 + length])
        name = next(name for name in rows if name != "__metadata__")
        change(rows[name], rows)
        table = json.dumps(rows).encode().ljust(length)
        file.write_bytes(len(table).to_bytes(8, "little") + table + data[8 + length :])

    return edit


def shift(row, _):
    row["data_offsets"] = [place + 2 for place in row["data_offsets"]]


def whole(text):
    return lambda f: (f / sorted(files_of(f))[0]).write_bytes(
        len(text).to_bytes(8, "little") + text
    )


FAULTS = {
    "expected .* once, got it in model-00001-of-00002.safetensors too": twice,
    "expected bytes of .* from": edit_table(shift),
    "expected a safetensors table": whole(b"{{{{"),
    "expected a safetensors table, got RecursionError": whole(b"[" * 200_000),
    "expected a safetensors table, got TypeError": whole(b"[1, 2]  "),
    "expected texts as __metadata__, got 3": edit_table(
        lambda _, rows: rows.update(__metadata__=3)
    ),
    "expected whole numbers as shape and places, got .'4'": edit_table(
        lambda row, _: row.update(shape=["4"])
    ),
    "expected whole numbers as shape and places, got .-4": edit_table(
        lambda row, _: row.update(shape=[-4])
    ),
    "expected bytes of BF16 .1, 1., got": edit_table(lambda row, _: row.update(shape=[1, 1])),
    "expected a type of numbers, got .'BF16'": edit_table(
        lambda row, _: row.update(dtype=["BF16"])
    ),
    "got a table of 0 bytes": lambda f: (f / sorted(files_of(f))[0]).write_bytes(b"\0" * 8),
    "expected a weight_map": lambda f: (f / INDEX).write_text("[]"),
}


@pytest.mark.parametrize("message", FAULTS)
def test_files_that_are_refused(tmp_path, message):
    release = tiny.save_release(tmp_path / "r")
    FAULTS[message](release)
    with pytest.raises(ValueError, match=message):
        conversion.convert(release, tmp_path / "out", "alpamayo_r1")
    assert os.listdir(tmp_path) == ["r"]


@pytest.mark.parametrize(("shift", "said"), [(0.01, "1.0e-02"), (float("nan"), "nan")])
def test_a_model_that_judges_otherwise_than_it_draws(tmp_path, vlm, monkeypatch, shift, said):
    release = tiny.save_release(tmp_path / "r")
    judge = trial.log_prob
    monkeypatch.setattr(trial, "log_prob", lambda *given: judge(*given) + 1.01 * shift)
    said = rf"expected log-probabilities, .*, less than 0.01 from those drawn, got {said}"
    with pytest.raises(ValueError, match=said):
        list(trial.try_out(release, vlm, "cpu"))


def test_the_command(tmp_path, vlm, capsys):
    release = tiny.save_release(tmp_path / "r")
    out = tmp_path / "t"
    given = [str(release), f"out={out}", "to=training", f"vlm={vlm}"]
    assert main(["convert-checkpoint", *given, "--check", "device=cpu"]) == 0
    wrote, loaded, read, drew, judged = capsys.readouterr().out.splitlines()
    assert wrote.startswith(f"{out}: alpamayo1_5 as training, 112 tensors of 0.00 GB in 2 files")
    assert wrote.endswith("with a tokenizer")
    assert loaded.startswith("loaded 0.00e9 weights of 0.00 GB in ")
    # 16 frames of 10 x 16 tokens, and words.
    count = int(re.match(r"read (\d+) tokens of 16 frames into ", read).group(1))
    assert 16 * 160 + 48 < count < 16 * 160 + 1000
    ends = re.findall(r"\((-?\d+\.\d), (-?\d+\.\d)\) m", drew)
    assert len(ends) == 2
    assert ends[0] != ends[1]
    assert float(re.search(r": (\S+) from those drawn", judged).group(1)) < 1e-3
    for arguments, message in (
        ([str(release), f"out={out}", "to=training"], "expected a new or empty folder"),
        ([str(release), "to=training"], "out: expected a folder, got nothing"),
        (
            [str(release), f"out={out}2", "to="],
            "to: expected one of alpamayo_r1, alpamayo1_5, training",
        ),
        ([str(tmp_path), f"out={out}2", "to=export"], "found no config.json in it"),
    ):
        assert main(["convert-checkpoint", *arguments]) == 2
        assert message in capsys.readouterr().err
