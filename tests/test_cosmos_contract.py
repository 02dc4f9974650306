"""What we register keeps to what Cosmos-RL's workers ask of it; Cosmos-RL itself is not needed."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import fake_cosmos
from alpagym.checkpoint import load_policy
from alpagym.cli import FAILED, main
from alpagym.grpo.faults import TrainingError
from alpagym.grpo.tokens import Token
from alpagym.interop.cosmos.config import BACKEND, RUN, TRAINER
from alpagym.interop.cosmos.engine import STEPS_FILE, engine_of
from alpagym.interop.cosmos.entry import require
from alpagym.resume import FLIGHT_FILE
from alpagym.reward_functions import NotFinite
from alpagym.run_directory import read_rows
from cosmos_runs import prepared
from fake_cosmos import payload, rollout, tensors

REPORTED = {
    *("train/loss_avg", "train/loss_max", "train/learning_rate", "train/iteration_time"),
    "train_step",
}
"""What the controller looks up without a default."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("runs"), "contract")


@pytest.fixture
def cosmos(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.SimpleNamespace]:
    found = fake_cosmos.install(monkeypatch)
    from alpagym.interop.cosmos.replicas import registry

    registry.main()
    engine_of.cache_clear()
    yield found
    engine_of.cache_clear()


class Process:
    """A worker that drives and learns."""

    def __init__(self, cosmos: types.SimpleNamespace, run: Path, mode: str = "colocated") -> None:
        config = types.SimpleNamespace(custom={RUN: str(run)}, mode=mode)
        self.packer = cosmos.launched["data_packer"](config)
        self.dataset = cosmos.launched["dataset"](config)
        self.trainer = cosmos.trainers[TRAINER](config, None, device="x", data_packer=self.packer)
        self.rollout = cosmos.rollouts[BACKEND](config, None, torch.device("cpu"))
        self.rollout.init_engine("", None, "dummy")

    def drive(self, draws: list[int]) -> list[Any]:
        """Rollouts as the trainer gets them."""
        results = self.rollout.rollout_generation(
            [payload(i) for i in draws], None, self.packer, None, current_weight_version=0
        )
        found = []
        for index, result in zip(draws, results, strict=True):
            sent, *_ = self.packer.get_rollout_output(result.completions, None, None, None)
            found += [rollout(index, completion) for completion in sent]
        return found


def test_names_are_those_of_the_configuration(cosmos: types.SimpleNamespace) -> None:
    assert set(cosmos.rollouts) == {BACKEND}
    assert set(cosmos.trainers) == {TRAINER}
    assert set(cosmos.launched) == {"dataset", "data_packer", "reward_fns"}
    ((predicate, factory),) = cosmos.configs
    assert predicate("/runs/x/checkpoints/before.safetensors")
    assert not predicate("Qwen/Qwen2")
    types_known = [t for m in fake_cosmos.ModelRegistry.models for t in m.supported_model_types()]
    assert factory("").model_type in types_known


def test_a_step_learns_reports_and_saves(cosmos: types.SimpleNamespace, run: Path) -> None:
    process = Process(cosmos, run)
    assert len(process.dataset) == 12
    before = tensors(process.trainer.model)
    rollouts = process.drive([0, 1, 2, 3])
    report = process.trainer.step_training(
        rollouts, current_step=1, total_steps=3, do_save_checkpoint=True, inter_policy_nccl=None
    )
    assert report.keys() >= REPORTED
    assert report["train_step"] == 1
    assert all(isinstance(value, float) for value in report.values())
    after = tensors(process.trainer.model)
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    saved = load_policy(run)[0]
    assert all(torch.equal(a, b) for a, b in zip(tensors(saved), after, strict=True))
    (row,) = read_rows(run / "cosmos" / STEPS_FILE)
    assert row["step"] == 0
    assert len(row["flight"]["rolls"][0]["groups"]) == 4


def test_the_last_iteration_is_told_once_the_policy_is_saved(
    cosmos: types.SimpleNamespace, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(cosmos, run)
    engine = process.trainer.engine
    engine.iterations = 2
    before = len(read_rows(run / "cosmos" / STEPS_FILE))

    def full(*args: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(engine, "save", full)
    with pytest.raises(OSError, match="No space"):
        process.trainer.step_training(process.drive([8, 9, 10, 11]), current_step=3, total_steps=3)
    assert len(read_rows(run / "cosmos" / STEPS_FILE)) == before


def test_iterations_wait_for_a_disk_that_is_full(
    cosmos: types.SimpleNamespace, run: Path, tmp_path: Path
) -> None:
    engine = Process(cosmos, run).trainer.engine
    in_the_way = tmp_path / "cosmos" / STEPS_FILE
    in_the_way.mkdir(parents=True)
    engine.iterations = 1
    engine.note(tmp_path, {"loss": 1.0})
    in_the_way.rmdir()
    engine.iterations = 2
    engine.note(tmp_path, {"loss": 2.0})
    assert [row["step"] for row in read_rows(in_the_way)] == [0, 1]


def test_a_run_that_is_worked_on_is_left_alone(
    cosmos: types.SimpleNamespace, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = Process(cosmos, run)
    steps = run / "cosmos" / STEPS_FILE
    steps.unlink(missing_ok=True)
    process.trainer.engine.iterations = 1
    process.trainer.engine.note(run, {})
    assert main(["train", f"resume={run}"]) == FAILED
    assert "at work, 1 of 3 iterations" in " ".join(capsys.readouterr().err.split())
    assert len(read_rows(steps)) == 1


def test_a_reward_that_is_not_finite_is_told_with_the_rollout(
    cosmos: types.SimpleNamespace, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(cosmos, run)
    engine = process.trainer.engine
    engine.iterations = 1
    engine.keep(run)

    def roll(*args: Any) -> None:
        raise NotFinite("mine", float("nan"), world=5, ego=0, step=3)

    monkeypatch.setattr(engine.roller, "roll", roll)
    told = r"scenario \S+, seed \d+, member 1, step 2, from mine, which gave nan"
    with pytest.raises(
        TrainingError, match=told + "; `alpagym render --token .* shows it"
    ) as found:
        process.drive([0, 1, 2, 3])
    row = read_rows(run / FLIGHT_FILE)[-1]
    assert row["iteration"] == 1
    assert re.search(told, row["findings"]["stopped"])
    assert Token.of(found.value.token).group == row["rolls"][0]["groups"][1]


def test_weights_that_travel_are_those_that_learn(cosmos: types.SimpleNamespace, run: Path) -> None:
    process = Process(cosmos, run)
    trainer = process.trainer
    assert trainer.model is process.rollout.get_underlying_model()
    process.rollout.set_underlying_model(trainer.model)
    with pytest.raises(ValueError, match="expected that of this process's engine"):
        process.rollout.set_underlying_model(torch.nn.Linear(1, 1))
    names = {name for name, _ in trainer.model.named_parameters()}
    assert set(trainer.model.trainable_params) == names
    assert names <= set(trainer.map_w_from_policy_to_rollout)
    trainer.step_training(process.drive([0, 1, 2, 3]), current_step=1, total_steps=3)
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(trainer.map_w_from_policy_to_rollout[name], parameter), name
    assert dict(trainer.model.weight_sync_transforms).keys() == trainer.model.state_dict().keys()


def test_the_reward_is_the_return(cosmos: types.SimpleNamespace, run: Path) -> None:
    rollouts = Process(cosmos, run).drive([0, 1])
    (reward,) = cosmos.launched["reward_fns"]
    member = rollouts[5].completion
    record = member.group.record
    wanted = float((record.reward[:, 1] * record.driven[:, 1]).sum())
    assert reward(member, "", prompt=None) == pytest.approx(wanted, abs=1e-5)
    assert len({reward(r.completion, "") for r in rollouts}) > 2


def test_apart_rollouts_travel_as_json_and_files_go_when_read(
    cosmos: types.SimpleNamespace, run: Path
) -> None:
    process = Process(cosmos, run, "disaggregated")
    rollouts = process.drive([0, 1, 2, 3])
    folder = run / "cosmos" / "groups"
    assert len(list(folder.iterdir())) == 4
    for r in rollouts:
        assert json.loads(json.dumps(r.completion)) == r.completion
    process.trainer.step_training(rollouts[::-1], current_step=1, total_steps=3)
    assert not list(folder.iterdir())
    apart = tensors(process.trainer.model)
    engine_of.cache_clear()
    together = Process(cosmos, run)
    together.trainer.step_training(together.drive([0, 1, 2, 3]), current_step=1, total_steps=3)
    pairs = zip(apart, tensors(together.trainer.model), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_replica_that_joins_gets_everything(cosmos: types.SimpleNamespace, run: Path) -> None:
    old = Process(cosmos, run)
    old.trainer.step_training(old.drive([0, 1, 2, 3]), current_step=1, total_steps=3)
    engine_of.cache_clear()
    new = Process(cosmos, run)
    wire: list[torch.Tensor] = []
    sent = old.trainer.sync_all_states(True, lambda t: wire.append(t.clone()), None)
    received = new.trainer.sync_all_states(False, None, lambda t: t.copy_(wire.pop(0)))
    assert sent == received > 0
    assert not wire
    for process in (old, new):
        process.trainer.step_training(process.drive([4, 5, 6, 7]), current_step=2, total_steps=3)
    pairs = zip(tensors(old.trainer.model), tensors(new.trainer.model), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_missing_or_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata as metadata

    monkeypatch.setattr(metadata, "version", lambda name: "0.4.7")
    with pytest.raises(ValueError, match=r"expected cosmos-rl 0.4.6, got 0.4.7: pip install"):
        require()

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    with pytest.raises(ValueError, match=r"got none: pip install alpagym\[cosmos\]"):
        require()
