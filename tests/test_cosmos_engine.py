"""Driving and learning as Cosmos-RL asks for it gives the numbers of `alpagym train`."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from alpagym.grpo.faults import TrainingError
from alpagym.interop.cosmos.draws import DrawDataset, Draws
from alpagym.interop.cosmos.engine import Engine, engine_of
from alpagym.interop.cosmos.group import Group, Member, whole
from alpagym.ranks import RankError
from cosmos_runs import prepared, without_cosmos

ITERATIONS, GROUPS, SIZE = 3, 4, 4


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("runs"), "engine")


def fresh(run: Path, **changes: object) -> Engine:
    """An engine at the beginning of a run, with its own weights; scenarios are shared."""
    first = engine_of(run)
    config = replace(first.run_options, **changes)
    data = first.data
    return Engine(config, data, copy.deepcopy(first.policy), [])


def of_iteration(iteration: int) -> list[int]:
    return list(range(iteration * GROUPS, (iteration + 1) * GROUPS))


def assert_equal(one: torch.nn.Module, other: torch.nn.Module, tolerance: float = 0.0) -> None:
    pairs = zip(one.state_dict().items(), other.state_dict().values(), strict=True)
    for (name, a), b in pairs:
        torch.testing.assert_close(a, b, rtol=0.0, atol=tolerance, msg=name)


def test_numbers_are_those_of_alpagym_train(run: Path) -> None:
    engine = fresh(run)
    before = copy.deepcopy(engine.policy)
    rows = [engine.learn(engine.drive(of_iteration(i))) for i in range(ITERATIONS)]
    trainer, wanted = without_cosmos(engine, run)
    assert_equal(engine.policy, trainer.policy)
    timed = {"rollout_s", "update_s", "agent_steps_per_s"}
    for row, row_wanted in zip(rows, wanted, strict=True):
        assert {k: v for k, v in row.items() if k not in timed} == {
            k: v for k, v in row_wanted.items() if k not in timed
        }
    assert engine.flight["rolls"] == trainer.flight["rolls"]
    moved = [
        (a - b).abs().max()
        for a, b in zip(before.parameters(), engine.policy.parameters(), strict=True)
    ]
    assert max(moved) > 1e-5


def test_neither_calls_nor_files_nor_order_change_numbers(run: Path, tmp_path: Path) -> None:
    whole_calls, pieces = fresh(run), fresh(run)
    for iteration in range(2):
        whole_calls.learn(whole_calls.drive(of_iteration(iteration)))
        draws = of_iteration(iteration)
        groups = [*pieces.drive(draws[3:]), *pieces.drive(draws[:3])]
        members = []
        for group in groups:
            path = tmp_path / f"{group.draw}.safetensors"
            group.write(path)
            read = Group.read(path, torch.device("cpu"))
            members += [Member(read, index) for index in range(read.size)]
        pieces.learn(whole(members[::-1]))
    assert_equal(whole_calls.policy, pieces.policy)


def test_more_draws_than_worlds_are_driven_in_turns(run: Path) -> None:
    engine = fresh(run)
    groups = engine.drive(list(range(6)))
    assert [group.draw for group in groups] == list(range(6))
    alone = engine.drive([5])[0]
    assert alone.name == groups[5].name
    torch.testing.assert_close(alone.record.reward, groups[5].record.reward, rtol=0, atol=1e-5)


def test_a_group_in_parts_is_refused(run: Path) -> None:
    group = fresh(run).drive([0])[0]
    with pytest.raises(ValueError, match="group of draw 0: expected all 4 rollouts in one batch"):
        whole([Member(group, index) for index in (0, 1, 3)])


def test_a_draw_that_was_driven_twice_is_refused(run: Path) -> None:
    engine = fresh(run)
    one, other = engine.drive([0])[0], engine.drive([0])[0]
    members = [*(Member(one, i) for i in (0, 1)), *(Member(other, i) for i in (2, 3))]
    with pytest.raises(ValueError, match="group of draw 0: expected one in a batch, got two"):
        whole(members)


def test_missing_groups_are_refused(run: Path) -> None:
    engine = fresh(run)
    with pytest.raises(TrainingError, match="groups: expected 4 in an iteration, got 3"):
        engine.learn(engine.drive([0, 1, 2]))


def test_what_is_no_group_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"x.safetensors: expected a group of rollouts"):
        Group.read(path, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"missing.safetensors: expected a group"):
        Group.read(tmp_path / "missing.safetensors", torch.device("cpu"))


class Meeting:
    """Sums tensors of several threads, as NCCL does of several replicas."""

    def __init__(self, count: int) -> None:
        self.barrier = threading.Barrier(count, timeout=60)
        self.parts: dict[str, Tensor] = {}
        self.ranks = {f"replica {rank}": rank for rank in range(count)}


class Speaker:
    def __init__(self, meeting: Meeting, rank: int) -> None:
        self.meeting, self.replica_name = meeting, f"replica {rank}"
        self.replica_name_to_rank = meeting.ranks

    def wait_comm_ready(self) -> None: ...

    def allreduce(self, sendbuff: Tensor, recvbuff: Tensor, op: torch.distributed.ReduceOp) -> None:
        assert op == torch.distributed.ReduceOp.SUM
        self.meeting.parts[self.replica_name] = sendbuff.clone()
        self.meeting.barrier.wait()
        parts = [self.meeting.parts[name] for name in self.meeting.ranks]
        assert len({(part.shape, part.dtype) for part in parts}) == 1
        total = torch.stack(parts).sum(0, dtype=sendbuff.dtype)
        self.meeting.barrier.wait()
        recvbuff.copy_(total)


def test_replicas_learn_what_one_learns(run: Path) -> None:
    alone = fresh(run)
    cosmos = replace(alone.run_options.cosmos, policies=2)
    engines = [fresh(run, cosmos=cosmos) for _ in range(2)]
    meeting = Meeting(2)
    failures: list[BaseException] = []

    def replica(rank: int) -> None:
        try:
            engine = engines[rank]
            for iteration in range(ITERATIONS):
                place = (rank + iteration) % 2  # whichever asked first
                own = of_iteration(iteration)[place * 2 : place * 2 + 2]
                engine.learn(engine.drive(own), Speaker(meeting, rank))
        except BaseException as error:
            failures.append(error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=replica, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures, failures
    for iteration in range(ITERATIONS):
        alone.learn(alone.drive(of_iteration(iteration)))
    assert_equal(engines[0].policy, engines[1].policy)
    assert_equal(engines[0].policy, alone.policy, tolerance=2e-6)
    groups: Sequence[str] = [name for roll in engines[1].flight["rolls"] for name in roll["groups"]]
    assert groups == alone.flight["rolls"][0]["groups"]


def test_a_missing_replica_is_named(run: Path) -> None:
    first = engine_of(run)
    engine = fresh(run, cosmos=replace(first.run_options.cosmos, policies=2))
    with pytest.raises(RankError, match="policy replicas: expected 2, as planned, got 1"):
        engine.learn(engine.drive([0, 1]), Speaker(Meeting(1), 0))


def test_every_pass_draws_every_scenario_once_in_another_order() -> None:
    draws = Draws(seed=3, num_scenarios=10)
    passes = draws.scenario(torch.arange(30)).view(3, 10)
    assert [sorted(p) for p in passes.tolist()] == [list(range(10))] * 3
    assert len({tuple(p) for p in passes.tolist()}) == 3
    assert Draws(4, 10).scenario(torch.arange(10)).tolist() != passes[0].tolist()


def test_a_draw_is_the_same_beside_any_others() -> None:
    draws = Draws(seed=7, num_scenarios=100)
    mixed = torch.tensor([250, 3, 99, 100, 7])
    assert draws.scenario(mixed).tolist() == [
        int(draws.scenario(torch.tensor([i]))[0]) for i in mixed.tolist()
    ]
    seeds = draws.group_seed(torch.arange(10_000))
    assert len(seeds.unique()) == 10_000
    assert int(seeds.min()) >= 0
    assert int(seeds.max()) < 2**62


def test_the_dataset_is_as_long_as_the_draws() -> None:
    dataset = DrawDataset(5)
    assert len(dataset) == 5
    assert [dataset[i]["prompt"] for i in range(2)] == ['{"draw": 0}', '{"draw": 1}']
    with pytest.raises(IndexError, match="draw: expected 0 to 4, got 5"):
        dataset[5]
