"""The tuned forms of the CPU backend do what the plain bodies do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from alpagym import sim
from alpagym.config import RowFormat, SimConfig, SlotOrder, Traffic
from alpagym.rows import decode
from alpagym.scenarios.batch import batch, max_agents
from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.procedural import generate_many
from alpagym.scenarios.scenario import Scenario
from alpagym.types import Observation, Scenarios
from scenario_files import SHARED

FORMS = ("vector", "avx2", "avx512")
WORLDS = 21  # more than one block, and no multiple of it


@pytest.fixture(autouse=True)
def _own_form():
    """Leave the form as it was."""
    before = sim.cpu_form()
    yield
    sim.use_cpu_form(before)


def use(form: str) -> None:
    try:
        sim.use_cpu_form(form)
    except ValueError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def recorded() -> list[Scenario]:
    folder = SHARED / "womd_gpudrive_json" / "current"
    if not folder.is_dir():
        pytest.skip(f"no recorded scenarios: {folder} is missing")
    files = sorted(folder.iterdir(), key=lambda file: file.stat().st_size)[:4]
    return [s for file in files for s in load_scenarios(file)[0]]


@pytest.fixture(scope="module")
def procedural() -> list[Scenario]:
    return generate_many(14, 5)


def drive(
    hosts: list[Scenario], form: str, config: SimConfig, *, steps: int = 12, lists: bool = True
) -> tuple[list[dict[str, Tensor]], list[Observation], Scenarios]:
    """States, outcomes and observations of a drive by random actions, after each step."""
    sim.use_cpu_form(form)
    packed = batch(hosts)
    if lists:
        packed = sim.with_near(packed, config)
    params = sim.make_params(config)
    egos = int(packed.num_egos.max()) if config.multi_agent else 1
    state = sim.make_state(WORLDS, max_agents(hosts), num_egos=egos)
    state.scenario.copy_(torch.arange(WORLDS) % len(hosts))
    outcome, seen = sim.make_outcome(state), sim.make_observation(state, config)
    seen = seen.map(lambda t: t.fill_(1) if t.dtype == torch.bool else t.fill_(7))  # poisoned
    weights = torch.ones(1, len(sim.RewardTerm))
    sim.reset(packed, state, torch.ones(WORLDS, dtype=torch.bool), params)
    generator = torch.Generator().manual_seed(3)
    states, observations = [], []
    for step in range(steps):
        size = (WORLDS, egos, sim.action_size(config))
        action = torch.randn(size, generator=generator) * torch.tensor([4.0, 0.06])
        sim.step(packed, state, outcome, action, weights, params)
        if step % 3 == 0:
            sim.observe(packed, state, seen, params)
            observations.append(seen.clone())
        states.append({**state.clone().tensors(), **outcome.clone().tensors()})
    return states, observations, packed


def same(a: Tensor, b: Tensor) -> bool:
    """Bit for bit, but for the sign of zeros."""
    return torch.equal(a, b)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("source", ["procedural", "recorded"])
@pytest.mark.parametrize("multi_agent", [False, True], ids=["ego", "multi"])
def test_steps_and_sorted_observations_are_those_of_the_plain_form(
    form, source, multi_agent, request
) -> None:
    use(form)
    hosts = request.getfixturevalue(source)
    config = SimConfig(multi_agent=multi_agent, end_on=(), num_agents=8, num_road_points=60)
    plain, plain_seen, _ = drive(hosts, "plain", config)
    tuned, tuned_seen, packed = drive(hosts, form, config)
    assert len(packed.near_road) > 0
    for step, (a, b) in enumerate(zip(plain, tuned, strict=True)):
        for name in a:
            assert same(a[name], b[name]), f"step {step}: {name}"
    for step, (p, q) in enumerate(zip(plain_seen, tuned_seen, strict=True)):
        for name in p.tensors():
            assert same(getattr(p, name), getattr(q, name)), f"observation {step}: {name}"


def rows(seen: Observation, field: str) -> list[list[tuple[float, ...]]]:
    """The filled rows of every ego as a sorted list."""
    table, mask = getattr(seen, field).float(), getattr(seen, f"{field}_mask")
    return [
        sorted(map(tuple, slots[there].tolist()))
        for slots, there in zip(table.flatten(0, 1), mask.flatten(0, 1), strict=True)
    ]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("slots", [(3, 20), (63, 200)], ids=["few", "many"])
def test_unsorted_slots_hold_the_same_elements(form, slots, procedural) -> None:
    use(form)
    config = SimConfig(multi_agent=True, end_on=(), num_agents=slots[0], num_road_points=slots[1])
    _, wanted, _ = drive(procedural, "plain", config, steps=4)
    _, found, _ = drive(procedural, form, replace(config, slot_order=SlotOrder.nearest), steps=4)
    for p, q in zip(wanted, found, strict=True):
        assert rows(p, "agents") == rows(q, "agents")
        assert rows(p, "road") == rows(q, "road")
        for field in ("agents", "road"):
            empty = ~getattr(q, f"{field}_mask")
            assert not getattr(q, field)[empty].any()


@pytest.mark.parametrize("form", FORMS)
def test_bounded_slots_miss_nothing_that_is_nearer_by_six_meters(form, procedural) -> None:
    use(form)
    config = SimConfig(end_on=(), num_road_points=40)
    _, wanted, _ = drive(procedural, "plain", config, steps=4)
    bounded = replace(config, slot_order=SlotOrder.bounded)
    _, found, _ = drive(procedural, form, bounded, steps=4)
    differs = 0
    for p, q in zip(wanted, found, strict=True):
        for nearest, taken in zip(rows(p, "road"), rows(q, "road"), strict=True):
            missed, extra = set(nearest) - set(taken), set(taken) - set(nearest)
            assert not set(taken) - extra - set(nearest)
            differs += bool(missed)
            if missed and extra:
                least = min(x * x + y * y for x, y, *_ in missed) ** 0.5
                most = max(x * x + y * y for x, y, *_ in extra) ** 0.5
                assert most - least < 6.0
    assert differs, "with so few slots the approximation shows somewhere"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("row_format", ["float16", "bfloat16"])
def test_narrow_rows_are_the_rounded_wide_ones(form, row_format, procedural) -> None:
    use(form)
    wide = SimConfig(end_on=(), num_agents=8, num_road_points=60)
    narrow = replace(wide, row_format=RowFormat[row_format])
    _, wanted, _ = drive(procedural, form, wide, steps=4)
    for run in (form, "plain"):
        _, found, packed = drive(procedural, run, narrow, steps=4)
        for p, q in zip(wanted, found, strict=True):
            for field in ("agents", "road"):
                assert same(getattr(p, field).to(getattr(torch, row_format)), getattr(q, field))
            assert decode(q, packed).road.dtype == torch.float32


@pytest.mark.parametrize("form", ["plain", *FORMS])
def test_compact_rows_decode_to_the_wide_ones(form, procedural) -> None:
    use(form)
    wide = SimConfig(end_on=(), num_agents=8, num_road_points=60)
    _, wanted, _ = drive(procedural, "plain", wide, steps=4)
    compact = replace(wide, row_format=RowFormat.compact)
    _, found, packed = drive(procedural, form, compact, steps=4)
    for p, q in zip(wanted, found, strict=True):
        assert q.road.dtype == torch.int32
        assert q.road.shape[-1] == 1
        torch.testing.assert_close(decode(q, packed).road, p.road, atol=2e-5, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_without_lists_the_map_is_searched(form, procedural) -> None:
    use(form)
    config = SimConfig(end_on=(), num_road_points=30)
    with_lists, seen, _ = drive(procedural, form, config, steps=4)
    without, seen_without, packed = drive(procedural, form, config, steps=4, lists=False)
    assert len(packed.near_road) == 0
    for a, b in zip(with_lists, without, strict=True):
        assert all(same(a[name], b[name]) for name in a)
    for p, q in zip(seen, seen_without, strict=True):
        assert same(p.road, q.road)


def test_fewer_columns_leave_out_the_last_ones(procedural) -> None:
    config = SimConfig(end_on=(), num_road_points=30)
    _, wide, _ = drive(procedural, sim.cpu_form(), config, steps=1)
    narrow = replace(config, ego_columns=7, agent_columns=7, road_columns=5)
    _, cut, _ = drive(procedural, sim.cpu_form(), narrow, steps=1)
    assert same(cut[0].ego, wide[0].ego[..., :7])
    assert same(cut[0].agents, wide[0].agents[..., :7])
    assert same(cut[0].road, wide[0].road[..., :5])


def test_traffic_without_a_record_goes_the_same_way(procedural) -> None:
    config = SimConfig(end_on=(), traffic=Traffic.idm)
    plain, _, _ = drive(procedural, "plain", config)
    tuned, _, _ = drive(procedural, sim.cpu_form(), config)
    for a, b in zip(plain, tuned, strict=True):
        assert all(same(a[name], b[name]) for name in a)


def test_unknown_forms_are_refused() -> None:
    with pytest.raises(ValueError, match="expected plain, vector, avx2 or avx512, got sse9"):
        sim.use_cpu_form("sse9")


def test_lists_of_another_number_of_cells_are_refused(procedural) -> None:
    config = SimConfig()
    packed = sim.with_near(batch(procedural), config)
    other = sim.with_near(batch(procedural[:3]), config)
    lists = {n: t for n, t in other.tensors().items() if n.startswith("near_")}
    mixed, state = replace(packed, **lists), sim.make_state(1, max_agents(procedural))
    everyone = torch.ones(1, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"near_cell: expected V=\d+ small cells, got V=\d+"):
        sim.reset(mixed, state, everyone, sim.make_params(config))
