"""Any rollout of training can be shown again, and is the very one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from alpagym import cli, training_data
from alpagym.checkpoint import CheckpointError
from alpagym.command_line import options_of, to_config
from alpagym.flight import policy_name, replay, stride_of
from alpagym.grpo.tokens import Token
from alpagym.grpo.trainer import GrpoTrainer
from alpagym.render.replay import replay_json
from alpagym.scenarios.procedural import generate
from test_cli import refuse

TINY = [
    "data.train=6", "data.held_out=2", "data.workers=1", "data.validation=2", "threads=1",
    "imitation.max_epochs=1", "device=cpu", "policy.width=8", "policy.hidden=16", "num_replays=0",
    "grpo.iterations=4", "grpo.group_size=3", "grpo.scenarios_per_iteration=3",
    "grpo.learning_rate=0.02", "seed=3",
]  # fmt: skip
VARIANTS = {
    "plain": [],
    "forked late": ["grpo.branch_within=30", "grpo.refills=2", "grpo.dead_group_tolerance=0.5"],
    "weights drawn": ["reward_ranges={progress:[0.1,0.4]}", "sim.traffic=idm"],
    "apart": ["grpo=ppo", "sim.max_steps=30"],
    "narrow": ["grpo.precision=bfloat16", "keep_policies=4"],
    "streamed": ["stream.scenarios=4"],
    "plans": ["policy=trajectory", "policy.history=2", "grpo.branch_within=20"],
    "plans that flow": ["policy=flow_matching", "sim.action=trajectory", "policy.history=2"],
}


def trained(folder: Path, monkeypatch, *options: str):
    """A run, and what it recorded: tokens -> iteration, decisions, and rewards of driven steps."""
    seen, roll = {}, GrpoTrainer._roll

    def noted(self):
        rolled = roll(self)
        record, origin = rolled.record, rolled.origin
        for world in range(len(origin.name)):
            seen[str(origin.token(world))] = (
                self.iterations,
                record.action[record.valid[:, world], world].clone(),
                record.reward[record.driven[:, world], world].clone(),
            )
        return rolled

    with monkeypatch.context() as patch:
        patch.setattr(GrpoTrainer, "_roll", noted)
        assert cli.main(["train", f"runs={folder}", "name=run", *TINY, *options]) == 0
    return folder / "run", seen


def shown(run: Path, token: str):
    config = to_config(options_of(run, "run"))
    return replay(run, config, Token.of(token), torch.device("cpu"), print)


def flight_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "flight.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        return trained(tmp_path_factory.mktemp("plain"), patch)


def assert_same(again, told) -> None:
    iteration, action, reward = told
    assert again.same is True
    assert again.iteration == again.policy_iteration == iteration
    assert torch.equal(again.action, action)
    assert torch.equal(again.reward, reward)
    assert again.rollout.num_steps == len(reward)
    assert torch.equal(torch.from_numpy(again.rollout.rewards["reward"]), reward)
    assert f"iteration {iteration}, bit for bit" in again.told
    replay_json([again.rollout])  # can be drawn


def test_a_token_gives_the_very_rollout_of_training(plain):
    run, seen = plain
    rows = flight_of(run)
    extremes = {row[name] for row in rows for name in ("return_min", "return_max", "ratio_max")}
    assert extremes <= seen.keys()
    assert len({seen[token][0] for token in extremes}) == 4
    for token in sorted(extremes)[:4]:
        assert_same(shown(run, token), seen[token])


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v != "plain"])
def test_so_it_does_whatever_the_options(tmp_path, monkeypatch, variant):
    run, seen = trained(tmp_path, monkeypatch, *VARIANTS[variant])
    if variant == "forked late":
        assert any(len(row["rolls"]) > 1 for row in flight_of(run))
    tokens = sorted(seen, key=lambda t: (seen[t][0], -Token.of(t).lead))
    for token in (tokens[1], tokens[-1]):
        assert_same(shown(run, token), seen[token])


def test_recorded_drives_are_found_again(tmp_path, monkeypatch, shared_data):
    scenarios = f"scenarios={shared_data / 'womd_scenarionet_pkl'}"
    few = "data.select=2831b6fde0420b0d,8799c31b5be1f312,8d3d061e518531d0"
    options = [few, "data.procedural=0", "data.egos_per_scenario=2", "sim.max_steps=20"]
    run, seen = trained(tmp_path, monkeypatch, scenarios, *options, "grpo.iterations=1")
    token = [t for t in seen if "/ego-" in t][-1]
    assert_same(shown(run, token), seen[token])


def test_the_extremes_are_those_of_the_returns(plain):
    run, seen = plain
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row, flight in zip((r for r in rows if r["phase"] == "grpo"), flight_of(run), strict=True):
        for name in ("return_min", "return_max"):
            total = float(seen[flight[name]][2].sum())
            assert total == pytest.approx(row[name], abs=1e-4)


def test_the_command_writes_a_page(plain, tmp_path, capsys):
    run, _ = plain
    token = flight_of(run)[2]["return_min"]
    page = tmp_path / "x.html"
    assert cli.main(["render", "--token", token, f"run={run}", f"out={page}"]) == 0
    assert "the rollout of iteration 2, bit for bit" in capsys.readouterr().out
    text = page.read_text()
    assert Token.of(token).scenario in text
    assert f"{token}, iteration 2, policy of iteration 2" in text


def test_another_policy_is_called_so(plain, tmp_path):
    run, _ = plain
    (run / "checkpoints" / f"{policy_name(3)}.safetensors").rename(tmp_path / "kept")
    try:
        again = shown(run, flight_of(run)[3]["return_max"])
    finally:
        (tmp_path / "kept").rename(run / "checkpoints" / f"{policy_name(3)}.safetensors")
    assert (again.iteration, again.policy_iteration, again.same) == (3, 2, False)
    assert "NOT the rollout of iteration 3: its policy was not kept" in again.told


def test_other_scenarios_are_noticed(plain, monkeypatch):
    run, _ = plain
    monkeypatch.setattr(
        training_data,
        "generate",
        lambda kind, seed: replace(generate(kind, 1), id=f"procedural/{kind}/{seed}"),
    )
    again = shown(run, flight_of(run)[0]["return_max"])
    assert again.same is False
    assert "but not bit for bit as in training" in again.told


def test_long_runs_keep_few_policies():
    for done in range(1, 300):
        stride = stride_of(done, 8)
        assert 4 < len(range(0, done, stride)) <= 8 or done <= 8
    assert [stride_of(n, 8) for n in (1, 8, 9, 16, 17)] == [1, 1, 2, 2, 4]


def test_a_long_run_leaves_as_many_policies_as_asked_for(tmp_path, monkeypatch):
    run, _ = trained(tmp_path, monkeypatch, "keep_policies=2", "sim.max_steps=5")
    kept = sorted(f.stem for f in (run / "checkpoints" / "policies").iterdir())
    assert kept == ["0000000", "0000002"]


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("", "expected --token scenario@seed.member+lead"),
        ("x", "token: expected scenario@seed.member+lead, got x"),
        ("x@1.2", "token: expected scenario@seed.member+lead, got x@1.2"),
        ("x@1.2+0", "no rollout x@1.2+0 in flight.jsonl"),
    ],
)
def test_what_is_no_token_of_the_run_is_refused(plain, capsys, token, words):
    assert words in refuse(capsys, "render", f"run={plain[0]}", *([f"token={token}"] * bool(token)))


def test_members_beyond_the_group_are_refused(plain):
    run, seen = plain
    token = replace(Token.of(next(iter(seen))), member=3)
    with pytest.raises(CheckpointError, match="groups have 3 members"):
        shown(run, str(token))


def test_what_is_no_run_is_refused(tmp_path, capsys):
    said = refuse(capsys, "render", f"run={tmp_path}", "token=x@1.2+0")
    assert "found no config.yaml there" in said


def test_ids_may_hold_anything():
    for name in ("a@b.c+d/ego-3", "x y", "a@1.2+3"):
        token = Token(name, 5, 2, 7)
        assert Token.of(str(token)) == token


def test_what_training_stopped_on_can_be_seen(tmp_path, monkeypatch, capsys):
    (tmp_path / "spoiling.py").write_text(
        "import torch\n"
        "def reward(state, outcome, scenarios):\n"
        "    bad = (state.member == 1) & (state.step == 9)\n"
        "    return torch.where(bad[:, None], torch.nan, torch.zeros_like(outcome.reward))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    options = ["reward_functions=['spoiling:reward']", f"runs={tmp_path}", "name=run"]
    assert cli.main(["train", *TINY, *options]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "member 1, step 8, from spoiling:reward, which gave nan; `alpagym render" in said
    token = said.split("--token ")[1].split(" run=")[0]
    page = tmp_path / "rollout.html"
    assert cli.main(["render", "--token", token, f"run={tmp_path / 'run'}", f"out={page}"]) == 0
    assert page.is_file()
    assert "which ended training" in capsys.readouterr().out
