"""Policies on disk: whole or not at all, and nothing but a policy comes back."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from dataclasses import asdict, replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from alpagym import checkpoint, sim
from alpagym.checkpoint import CheckpointError, load_policy, save_policy
from alpagym.config import SimConfig, Traffic
from alpagym.policies.late_fusion import LateFusion
from alpagym.training_config import PolicyConfig

POLICY = PolicyConfig(width=8, hidden=16)
SIM = SimConfig(num_agents=3, num_route_points=6, traffic=Traffic.idm, end_on=("goal",), dt=0.2)
LICENSES = ["synthetic-cc0", "womd-nc"]


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    policy = LateFusion(POLICY, SIM).eval()
    path = tmp_path / "policy.safetensors"
    save_policy(path, policy, POLICY, SIM, LICENSES)
    return path, policy


def parts(path):
    """Weights and metadata of a file."""
    with safe_open(path, "pt") as stored:
        weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        return weights, json.loads(stored.metadata()["alpagym"])


def rewrite(path, change):
    """The same file after `change(weights, header)`."""
    weights, header = parts(path)
    change(weights, header)
    save_file(weights, path, metadata={"alpagym": json.dumps(header)})


def refuse(path, *words):
    with pytest.raises(CheckpointError) as caught:
        load_policy(path)
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    assert len(sentence) < len(str(path)) + 300
    for word in words:
        assert word in sentence, sentence


def test_what_was_saved_comes_back(saved):
    path, policy = saved
    loaded, sim_config, licenses = load_policy(path)
    assert sim_config == SIM
    assert licenses == LICENSES
    assert not loaded.training
    seen = sim.make_observation(sim.make_state(5, 4), SIM).map(
        lambda t: torch.rand_like(t.squeeze(1)) if t.is_floating_point() else t.squeeze(1)
    )
    assert torch.equal(loaded.mean(seen), policy.mean(seen))
    noise = torch.randn(5, 2)
    assert torch.equal(loaded.sample(seen, noise)[1], policy.sample(seen, noise)[1])


def test_a_run_directory_stands_for_its_last_policy(saved, tmp_path):
    path, _ = saved
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    os.replace(path, tmp_path / "run" / "checkpoints" / "policy.safetensors")
    assert load_policy(str(tmp_path / "run"))[1] == SIM


def test_no_such_file(tmp_path):
    refuse(tmp_path / "absent.safetensors", "no such policy file")
    refuse(tmp_path, "no such policy file")  # a run without a policy


def test_saving_leaves_one_file_and_replaces_an_older_one(saved):
    path, policy = saved
    with torch.no_grad():
        policy.log_std.fill_(-2.0)
    save_policy(path, policy, POLICY, SIM, [])
    assert os.listdir(path.parent) == [path.name]
    assert load_policy(path)[0].log_std.tolist() == [-2.0, -2.0]


def test_a_failure_while_saving_keeps_the_older_file(saved, monkeypatch):
    path, policy = saved
    before = path.read_bytes()

    def full(weights, target, metadata):
        target.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="no space"):
        save_policy(path, policy, POLICY, SIM, [])
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 5000, -1])
def test_truncated_files(saved, keep):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:keep])
    refuse(path, "not a policy of format alpagym-policy-2")


def test_files_of_other_formats(tmp_path):
    path = tmp_path / "policy.safetensors"

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    path.write_bytes(pickle.dumps(Evil()))
    refuse(path)
    torch.save({"weights": torch.zeros(3)}, path)
    refuse(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Evil()))
    refuse(path)
    for content in (b"\xff" * 64, b'{"a": 1}', b"\x00" * 1000, (2**62).to_bytes(8, "little")):
        path.write_bytes(content)
        refuse(path)
    assert not (tmp_path / "executed").exists()


def test_safetensors_of_another_program(tmp_path):
    path = tmp_path / "model.safetensors"
    weights = {"layer.weight": torch.zeros(2, 2)}
    save_file(weights, path)
    refuse(path, "expected metadata of format alpagym-policy-2, got None")
    save_file(weights, path, metadata={"alpagym": "not json"})
    refuse(path)
    for header in ([], "x", 3, {"format": "alpagym-policy-9"}, {"format": "alpagym-policy-2"}):
        save_file(weights, path, metadata={"alpagym": json.dumps(header)})
        refuse(path)
    save_file(weights, path, metadata={"alpagym": "[" * 100_000})
    refuse(path)


@pytest.mark.parametrize(
    ("part", "key", "value", "words"),
    [
        ("policy", "width", 9, ["weights", "expected [9"]),
        ("policy", "width", -1, ["policy.width"]),
        ("policy", "width", "8", ["policy.width: expected int, got '8'"]),
        ("policy", "width", 1 << 30, ["weights"]),  # before four gigabytes are taken
        ("policy", "log_std", None, ["policy.log_std: expected float"]),
        ("policy", "depth", 3, ["depth"]),
        ("sim", "num_route_points", 7, ["weights trunk.0.weight: expected [16, 69]"]),
        ("sim", "dt", "0.1", ["sim.dt: expected float"]),
        ("sim", "dt", 0.0, ["sim.dt: expected a number above 0"]),
        ("sim", "dt", float("nan"), ["sim.dt: expected a finite number"]),
        ("sim", "action", "levitate", ["levitate"]),
        ("sim", "action", "delta", ["unicycle"]),
        ("sim", "action", [], []),
        ("sim", "end_on", 5, []),
        ("sim", "max_steps", 1 << 40, ["sim.max_steps"]),
    ],
)
def test_metadata_that_do_not_fit(saved, part, key, value, words):
    path, _ = saved
    rewrite(path, lambda weights, header: header[part].update({key: value}))
    refuse(path, *words)


@pytest.mark.parametrize("part", ["policy", "sim", "licenses"])
@pytest.mark.parametrize("value", [None, 5, [["a"]], "ab"])
def test_metadata_of_wrong_shape(saved, part, value):
    path, _ = saved
    rewrite(path, lambda weights, header: header.update({part: value}))
    refuse(path)


def test_weights_that_do_not_fit(saved):
    path, _ = saved
    original = path.read_bytes()

    def test(change, *words):
        path.write_bytes(original)
        rewrite(path, lambda weights, header: change(weights))
        refuse(path, *words)

    test(lambda w: w.pop("log_std"), "weights log_std: expected [2], got none")
    test(lambda w: w.update(extra=torch.zeros(1)), "weights extra: expected none, got [1]")
    test(lambda w: w.update(log_std=torch.zeros(3)), "weights log_std: expected [2], got [3]")
    test(lambda w: w["log_std"].fill_(torch.nan), "weights log_std hold NaN or infinity")


def test_the_metadata_hold_the_whole_configuration(saved):
    path, _ = saved
    _, header = parts(path)
    assert header["licenses"] == LICENSES
    assert header["sim"].keys() == asdict(SIM).keys()
    assert header["policy"] == asdict(POLICY)
    assert header["sim"]["traffic"] == "idm"


def test_whole_numbers_given_for_real_ones_come_back(tmp_path):
    config = replace(SIM, road_radius=50)
    path = tmp_path / "policy.safetensors"
    save_policy(path, LateFusion(POLICY, config), POLICY, config, [])
    assert load_policy(path)[1] == config
