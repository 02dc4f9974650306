"""`alpagym bench`: one metric a line, one JSON, two of them compared; no time is asserted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from alpagym import sim
from alpagym.bench import sources
from alpagym.bench.cases import COMMANDS, DENSE, FORMATS, WOMD4_STATISTICS
from alpagym.bench.compare import compare
from alpagym.bench.timing import Measurement, median_of
from alpagym.cli import main

ROOT = Path(__file__).resolve().parents[1]
LINE = re.compile(r"([\w.]+) (\d[-+.\de]*)")
FORMATS_KEPT = ("fp32", "fp16", "bf16", "compact")
STAGES = ("step", "observe", "reset", "fork", "noise")


def printed(text: str) -> dict[str, float]:
    """Metrics by name; every other line is a note."""
    lines = [line for line in text.splitlines() if not line.startswith("# ")]
    matches = [LINE.fullmatch(line) for line in lines]
    assert all(matches), lines
    assert len({m[1] for m in matches}) == len(lines)
    return {m[1]: float(m[2]) for m in matches}


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]):
    """Runs `alpagym bench ... quick=true repeats=2`; returns metrics and what was printed."""

    def run(*arguments: str) -> tuple[dict[str, float], str]:
        before = torch.get_num_threads()
        assert main(["bench", *arguments, "quick=true", "repeats=2"]) == 0, capsys.readouterr().err
        assert torch.get_num_threads() == before
        out = capsys.readouterr().out
        return printed(out), out

    return run


def test_step_times_each_stage_and_states_bytes(bench, device, tmp_path) -> None:
    path = tmp_path / "a.json"
    metrics, out = bench(
        *("step", "case=synthetic4", "worlds=2,4", "format=fp32"),
        f"device={device}",
        f"json={path}",
    )
    for worlds in (2, 4):
        label = f"synthetic4.fp32.w{worlds}"
        wanted = {
            *(f"{label}.{stage}_ns_per_agent_step" for stage in ("step", "observe")),
            *(f"{label}.{stage}_ns_per_agent" for stage in ("reset", "fork", "noise")),
            *(f"{label}.{name}ns_per_agent_step" for name in ("", "wall_")),
            *(f"{label}.{name}_per_s" for name in ("agent_steps", "world_steps", "gb", "copy_gb")),
            *(f"{label}.{name}" for name in ("bytes_per_agent_step", "share_of_copy")),
        }
        if device.type == "cuda":
            wanted |= {f"{label}.graph_ns_per_agent_step", f"{label}.graph_agent_steps_per_s"}
        assert wanted <= metrics.keys()
        assert metrics[f"{label}.share_of_copy"] == pytest.approx(
            metrics[f"{label}.gb_per_s"] / metrics[f"{label}.copy_gb_per_s"], rel=1e-4
        )
    assert "synthetic4.fp32.w4.cost_over_w2" in metrics
    assert all(value > 0 for value in metrics.values())
    note = next(line for line in out.splitlines() if line.startswith("# synthetic4: agents"))
    assert note.count("womd4") == len(WOMD4_STATISTICS)

    stored = json.loads(path.read_text())
    assert stored.keys() == {"machine", "options", "notes", "metrics"}
    facts = {
        "device",
        "cpu",
        "cpu_form",
        "cores",
        "threads",
        "clock",
        "torch",
        "compiler",
        "commit",
    }
    assert facts <= stored["machine"].keys()
    assert stored["options"]["worlds"] == "2,4"
    assert stored["options"]["quick"] is True
    assert stored["notes"] == [note.removeprefix("# ")]
    assert stored["metrics"].keys() == metrics.keys()
    for name, metric in stored["metrics"].items():
        assert metric.keys() == {"value", "spread", "repeats"}
        assert metric["value"] == pytest.approx(metrics[name], rel=1e-4)
        assert metric["spread"] >= 0


def test_older_cases_keep_their_names(bench) -> None:
    label = "procedural.log.w256"
    metrics, _ = bench("step", f"case={label}", "threads=1")
    older = {f"{label}.{s}_us_per_world{'_step' * (s in STAGES[:2])}" for s in STAGES}
    assert older | {f"{label}.agent_steps_per_s"} <= metrics.keys()


def test_threads_are_compared(bench) -> None:
    metrics, _ = bench("step", "case=synthetic4", "worlds=2", "format=fp32", "threads=1,2")
    label = "synthetic4.fp32.w2"
    rates = [metrics[f"{label}.t{n}.agent_steps_per_s"] for n in (1, 2)]
    speedup = metrics[f"{label}.t2.speedup_over_t1"]
    assert speedup == pytest.approx(rates[1] / rates[0], rel=1e-3)


def test_forms_of_the_code_are_compared_and_the_fastest_left_as_it_was(bench, tmp_path) -> None:
    path, before = tmp_path / "a.json", sim.cpu_form()
    metrics, _ = bench(
        *("step", "case=synthetic4", "worlds=2", "format=fp32", "threads=1", "device=cpu"),
        *("form=plain,vector", f"json={path}"),
    )
    for form in ("plain", "vector"):
        assert metrics[f"synthetic4.fp32.w2.{form}.ns_per_agent_step"] > 0
    assert json.loads(path.read_text())["machine"]["cpu_form"] == "plain,vector"
    assert sim.cpu_form() == before


def test_formats_move_fewer_bytes(bench) -> None:
    metrics, _ = bench("step", "case=synthetic4", "worlds=2", "threads=1", "device=cpu")
    moved = {f: metrics[f"synthetic4.{f}.w2.bytes_per_agent_step"] for f in FORMATS}
    rows = 2 * 7 * (63 + 200)
    assert moved["fp32"] - moved["fp16"] == pytest.approx(rows, abs=1)
    assert moved["fp16"] == moved["bf16"]
    assert moved["fp32"] - moved["compact"] == pytest.approx(4 * 6 * 200, abs=1)
    assert moved["fp32"] == moved["sorted"] == moved["bounded"]
    assert metrics["synthetic4.near_lists_bytes_per_scenario"] > 0


def test_a_dense_observation_has_the_numbers_of_pufferdrive() -> None:
    seen = sim.make_observation(sim.make_state(1, 64, num_egos=3), sources.sim_config(DENSE))
    sizes = [t[0, 0].numel() for t in (seen.ego, seen.agents, seen.road, seen.route, seen.lights)]
    assert sizes == [7, 63 * 7, 200 * 7, 0, 0]


def test_options_of_the_simulator_replace_those_of_the_case(bench) -> None:
    moved = []
    for slots in (200, 0):
        metrics, _ = bench(
            *("step", "case=synthetic4", "worlds=2", "format=fp32", "threads=1"),
            f"sim.num_road_points={slots}",
        )
        moved.append(metrics["synthetic4.fp32.w2.bytes_per_agent_step"])
    assert moved[0] > moved[1] + 200 * 4


def test_memory_of_a_world_grows_with_egos(bench) -> None:
    metrics, _ = bench("step", "case=memory.a64,memory.a64.multi")
    assert metrics["memory.a64.bytes_per_world"] > 64 * 4
    assert metrics["memory.a64.bytes_per_world"] < metrics["memory.a64.multi.bytes_per_world"]
    seen = {f: metrics[f"memory.a64.multi.{f}.observation_bytes_per_world"] for f in FORMATS_KEPT}
    assert seen["compact"] < seen["fp16"] == seen["bf16"] < seen["fp32"]


@pytest.mark.parametrize("case", ["binding.w0", "binding", "binding.w64"])
def test_binding_times_every_call(bench, case: str) -> None:
    metrics, _ = bench("binding", f"case={case}")
    assert {f"{case}.{stage}_us_per_call" for stage in STAGES} <= metrics.keys()


def test_load_counts_scenarios(bench) -> None:
    metrics, _ = bench("load", "case=load.procedural")
    names = ("generate_scenarios_per_s", "pack_scenarios_per_s", "packed_bytes_per_scenario")
    assert {f"load.procedural.{name}" for name in names} <= metrics.keys()


def test_load_reads_shards(bench) -> None:
    metrics, _ = bench("load", "case=load.procedural.store")
    names = ("read_scenarios_per_s", "stored_bytes_per_scenario", "pack_scenarios_per_s")
    names += ("assemble_scenarios_per_s", "assemble_gb_per_s")
    assert {f"load.procedural.store.{name}" for name in names} <= metrics.keys()


def test_load_streams_a_store_under_a_fixed_cap(bench, device) -> None:
    metrics, _ = bench("load", "case=load.stream.bare", f"device={device}")
    kinds = ("resident_world_steps_per_s", "streamed_world_steps_per_s", "streamed_over_resident")
    names = {
        *kinds,
        "cpu_streamed_over_resident",
        "scenarios",
        "waited_share",
        "store_mib",
        "banks_mib",
        "peak_growth_mib",
    }
    assert metrics.keys() == {f"load.stream.bare.{name}" for name in names}
    assert metrics["load.stream.bare.scenarios"] == 24
    assert metrics["load.stream.bare.banks_mib"] < metrics["load.stream.bare.store_mib"]


def test_train_counts_steps_of_the_learner(bench) -> None:
    metrics, _ = bench("train", "case=train.g16.w256")
    assert metrics.keys() == {
        f"train.g16.w256.{name}" for name in ("agent_steps_per_s", "rollout_s", "update_s")
    }


def test_recorded_scenes(bench, shared_data) -> None:
    metrics, _ = bench(
        *("step", "case=womd4", "worlds=4", "format=fp32", "threads=1", f"data={shared_data}")
    )
    assert metrics["womd4.fp32.w4.ns_per_agent_step"] > 0
    hosts = sources.kept("womd4", 4, shared_data).hosts
    found = sources.statistics(hosts, sources.sim_config(DENSE))
    assert found == pytest.approx(WOMD4_STATISTICS, rel=1e-3)


def test_synthetic_scenes_are_as_crowded_as_the_recorded_ones() -> None:
    hosts = sources.kept("synthetic4", 4, Path()).hosts
    found = sources.statistics(hosts, sources.sim_config(DENSE))
    assert found == pytest.approx(WOMD4_STATISTICS, rel=0.15)
    assert {host.license for host in hosts} == {"synthetic-cc0"}


def test_cases_have_names_of_their_own_and_formats_that_exist() -> None:
    cases = [case for of_command in COMMANDS.values() for case in of_command]
    assert len({case.name for case in cases}) == len(cases)
    for case in COMMANDS["step"]:
        assert set(getattr(case, "formats", ())) <= FORMATS.keys()


def test_median_and_spread() -> None:
    measured = median_of([1.0, 2.0, 3.0, 4.0, 100.0])
    assert measured.value == 3.0
    assert measured.spread == pytest.approx((52.0 - 1.5) / 3.0)
    assert Measurement(2.0, 0.5, 7).scaled(3.0) == Measurement(6.0, 0.5, 7)
    assert Measurement(2.0, 0.5, 7).inverse(3.0) == Measurement(1.5, 0.5, 7)


def write(path: Path, metrics: dict[str, tuple[float, float]], **machine: str) -> Path:
    values = {name: {"value": v, "spread": s, "repeats": 7} for name, (v, s) in metrics.items()}
    stored = {"machine": machine, "options": {"threads": "1"}, "notes": [], "metrics": values}
    path.write_text(json.dumps(stored))
    return path


def test_compare_known_numbers(tmp_path, capsys) -> None:
    a = write(tmp_path / "a.json", {"x": (100, 0.01), "y": (50, 0.1), "z": (1, 0)}, cpu="one")
    b = write(tmp_path / "b.json", {"x": (200, 0.01), "y": (54, 0.1), "w": (1, 0)}, cpu="two")
    assert main(["bench", "compare", str(a), str(b)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "x 100 200 2.000",
        "y 50 54 1.080 ~",
        "# cpu: one | two",
        f"# 1 metrics are only in {a}",
        f"# 1 metrics are only in {b}",
    ]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"machine": {}, "metrics": {"x": 1}}'])
def test_compare_refuses_other_files(tmp_path, text: str) -> None:
    other = tmp_path / "other.json"
    other.write_text(text)
    with pytest.raises(ValueError, match=r"other\.json: expected a JSON file of alpagym bench"):
        compare(other, other)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("nothing", "bench nothing: expected step, train, binding, load, learning or compare"),
        ("step case=nothing", "case: expected any of .*womd4.*, got nothing"),
        ("binding case=womd4", "case: expected any of binding.*, got womd4"),
        ("step format=fp1", "format: expected any of .*fp32.*, got fp1"),
        ("step form=fast", "use_cpu_form: expected plain, vector, avx2 or avx512, got fast"),
        ("step worlds=0", "worlds: expected whole numbers from 1, as in 1,2, got 0"),
        ("step threads=-1", "threads: expected whole numbers from 0, as in 1,2, got -1"),
        ("step wrlds=3", "wrlds: no such option; did you mean worlds?"),
        ("train worlds=3", "worlds: no such option; alpagym bench train --options lists all"),
        ("step case=procedural.log.w256 worlds=3", "procedural.log.w256 has its own"),
        ("step case=womd4 data=nowhere", "nowhere/womd_gpudrive_json: no such folder"),
        ("step case=synthetic4 sim.max_steps=5 quick=true", "expected episodes of more than"),
        ("load json=nowhere/a.json", "json=nowhere/a.json: no such folder: nowhere"),
        ("compare one.json", "bench compare: expected two JSON files, got 1"),
        ("compare none.json none.json", "none.json: cannot be read"),
    ],
)
def test_bad_arguments_get_one_sentence(capsys, arguments: str, sentence: str) -> None:
    assert main(["bench", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert re.search(sentence.replace("?", r"\?"), error)
    assert error.count("\n") == 1


def test_without_recordings_the_others_run(monkeypatch, bench) -> None:
    kept = [case for case in COMMANDS["step"] if case.name in ("womd4", "memory.a64")]
    monkeypatch.setitem(COMMANDS, "step", tuple(kept))
    metrics, out = bench("step", "data=nowhere")
    assert {name.rsplit(".", 1)[1] for name in metrics} == {
        "bytes_per_world",
        "observation_bytes_per_world",
    }
    assert re.search(r"^# womd4: skipped: nowhere/womd_gpudrive_json: no such folder", out, re.M)


def test_the_script_of_the_checkout_is_the_same_command() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), "step", "--options"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^threads=0 +# CPU threads", done.stdout, re.MULTILINE)
