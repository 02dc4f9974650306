"""Readers of users: found by entry point, asked first, and harmless where they fail."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from alpagym.scenarios.build import build_scenario
from alpagym.scenarios.load import inputs_of, load_scenarios
from alpagym.scenarios.readers.plugins import plugins
from alpagym.scenarios.road_map import RawElement
from alpagym.scenarios.scenario import AgentType, MapType, ScenarioError
from plugin_packages import install, register
from reading import notes, only, refused
from scenario_files import json_scenario, write_json

ROOT = Path(__file__).resolve().parents[1]
DOCS = (ROOT / "docs" / "readers.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCS, flags=re.MULTILINE | re.DOTALL)


def tracks_file(path: Path, agents: int = 2, frames: int = 40) -> Path:
    """Cars behind each other at 8 m/s; the second is absent in frame 5."""
    rows = [
        f"{a},{t},{5000 + 15 * a + 0.8 * t},-3000,{2 * np.pi}"
        for a in range(agents)
        for t in range(frames)
        if (a, t) != (1, 5)
    ]
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(autouse=True)
def forget_plugins():
    yield
    plugins.cache_clear()


# As users have it


def test_the_documented_example_runs_installed(tmp_path) -> None:
    """The example of the documentation as a package of its own, with one and with two workers."""
    site, data = tmp_path / "site", tmp_path / "data"
    (site / "mypkg").mkdir(parents=True)
    data.mkdir()
    example, *_ = blocks("python")
    (toml,) = blocks("toml")
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    (site / "mypkg" / "__init__.py").touch()
    (site / "mypkg" / "reader.py").write_text(example)
    (entry,) = [line for line in toml.splitlines() if not line.startswith("[")]
    assert '[project.entry-points."alpagym.readers"]' in toml
    register(site, "mypkg", [entry.replace('"', "")])
    for name in ("a", "b", "c"):
        tracks_file(data / f"{name}.tracks")
    write_json(data / "made.json", json_scenario())
    script = tmp_path / "load.py"
    script.write_text(
        "import sys\n"
        "from alpagym.scenarios.load import inputs_of, load_scenarios\n"
        "if __name__ == '__main__':\n"
        "    for workers in (1, 2):\n"
        "        scenarios, skipped = load_scenarios(sys.argv[1], workers=workers)\n"
        "        print([s.id for s in scenarios], scenarios[0].license, skipped)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), *sys.path])}
    command = [sys.executable, str(script), str(data)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    line = "['a', 'b', 'c', 'made-1'] own []"
    assert done.stdout.splitlines() == [line, line]


def test_the_documented_map_is_built() -> None:
    _, example = blocks("python")
    xy = np.stack([np.linspace(0, 60, 40), np.zeros(40)], axis=1)[None]
    names: dict = {"np": np, "build_scenario": build_scenario, "xy": xy, "yaw": np.zeros((1, 40))}
    exec(compile(example, "readers.md", "exec"), names)
    road = names["scenario"].map
    assert road.type.tolist() == [MapType.LANE, MapType.LANE, MapType.ROAD_EDGE]
    assert road.successors_of(0).tolist() == [1]


# Which reader is asked


def test_a_plugin_comes_before_our_readers_and_leaves_what_is_not_its_own(
    tmp_path, monkeypatch
) -> None:
    (site := tmp_path / "site").mkdir()
    install(
        site,
        monkeypatch,
        "import json, numpy as np\n"
        "from alpagym.scenarios.build import build_scenario\n"
        "def read(path):\n"
        "    if path.suffix != '.json' or 'x' not in (data := json.loads(path.read_text())):\n"
        "        return\n"
        "    xy = np.stack([np.array(data['x']), np.zeros(len(data['x']))], axis=1)[None]\n"
        "    for k in range(2):\n"
        "        yield build_scenario(f'{path.stem}-{k}', path, xy=xy, yaw=0 * xy[..., 0])\n",
    )
    write_json(tmp_path / "mine.json", {"x": [0.8 * i for i in range(40)]})
    write_json(tmp_path / "ours.json", json_scenario())
    assert [s.id for s in load_scenarios(tmp_path / "mine.json")[0]] == ["mine-0", "mine-1"]
    assert only(tmp_path / "ours.json").id == "made-1"


def test_an_unknown_file_names_plugins_among_the_known_formats(tmp_path, monkeypatch) -> None:
    (site := tmp_path / "site").mkdir()
    install(site, monkeypatch, "def read(path): return None\n")
    (tmp_path / "odd.xyz").write_text("odd")
    assert re.search(r"of no known format \(known: .*, mine\)$", refused(tmp_path / "odd.xyz"))


# Failures


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise KeyError('x')", "reader plug-in mine: KeyError: 'x'"),
        ("return 3", "reader plug-in mine: TypeError: returned an int, expected Scenarios or None"),
        ("return [3]", "reader plug-in mine: TypeError: gave an int, expected a Scenario"),
        ("raise ValueError('two\\nlines')", "reader plug-in mine: ValueError: two lines"),
        ("return path.missing", "reader plug-in mine: AttributeError: "),
        (
            "from alpagym.scenarios.scenario import ScenarioError\n"
            "    raise ScenarioError(f'{path}: line 3 is cut off')",
            "reader plug-in mine: line 3 is cut off",
        ),
    ],
)
def test_a_failing_plugin_is_named_and_loses_no_other_file(
    tmp_path, monkeypatch, body, words
) -> None:
    (site := tmp_path / "site").mkdir()
    (data := tmp_path / "data").mkdir()
    install(site, monkeypatch, f"def read(path):\n    {body}\n")
    (data / "odd.xyz").write_text("odd")
    write_json(data / "made.json", json_scenario())
    (scenario,), skipped = load_scenarios(data)
    assert words in notes(scenario)
    (reason,) = [s.reason for s in skipped]
    assert reason.startswith(f"{data / 'odd.xyz'}: {words}")
    assert "\n" not in reason
    assert refused(data / "odd.xyz").startswith(words)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import no_such_module\n", "cannot import .*: ModuleNotFoundError: No module named"),
        ("def read(:\n", "cannot import .*: SyntaxError: "),
        ("read = 3\n", "expected a function read in .*, got an int"),
        ("other = 3\n", "expected a function read in .*, got nothing"),
    ],
)
def test_a_plugin_that_cannot_be_had_is_named_once(tmp_path, monkeypatch, source, words) -> None:
    (site := tmp_path / "site").mkdir()
    (data := tmp_path / "data").mkdir()
    install(site, monkeypatch, source)
    for name in ("a", "b"):
        write_json(data / f"{name}.json", json_scenario(scenario_id=name))
    scenarios, skipped = load_scenarios(data)
    assert [s.id for s in scenarios] == ["a", "b"]
    (reason,) = [s.reason for s in skipped]
    assert re.match(f"reader plug-in mine: {words}", reason)
    (data / "odd.xyz").write_text("odd")
    assert re.search(f"; reader plug-in mine: {words}", refused(data / "odd.xyz"))


def test_two_packages_with_one_name_are_refused(tmp_path, monkeypatch) -> None:
    for package in ("one", "two"):
        register(tmp_path, package, [f"mine = {package}:read"])
    monkeypatch.syspath_prepend(tmp_path)
    plugins.cache_clear()
    assert plugins() == (
        (),
        ("reader plug-in mine: expected one entry point, got one:read, two:read",),
    )


def test_scenarios_before_a_failure_are_kept(tmp_path, monkeypatch) -> None:
    (site := tmp_path / "site").mkdir()
    install(
        site,
        monkeypatch,
        "import numpy as np\n"
        "from alpagym.scenarios.build import build_scenario\n"
        "def read(path):\n"
        "    xy = np.cumsum(np.ones((1, 40, 2)), axis=1)\n"
        "    good = build_scenario('good', path, xy=xy, yaw=np.zeros((1, 40)))\n"
        "    yield good\n"
        "    bad = build_scenario('bad', path, xy=xy, yaw=np.zeros((1, 40)))\n"
        "    bad.tracks.xyz[0, 3, 0] = np.nan\n"
        "    yield bad\n"
        "    yield good\n"
        "    raise OSError('disk')\n",
    )
    path = tmp_path / "some.xyz"
    path.write_text("some")
    scenarios, skipped = load_scenarios(path)
    assert [s.id for s in scenarios] == ["good", "good"]
    assert [s.reason.partition("mine: ")[2] for s in skipped] == [
        "tracks.xyz holds NaN or infinity",
        "OSError: disk",
    ]


def test_a_plugin_tells_what_else_it_reads(tmp_path, monkeypatch) -> None:
    (site := tmp_path / "site").mkdir()
    install(
        site,
        monkeypatch,
        "def read(path): return None\n"
        "read.inputs = lambda path: [path.with_suffix('.map'), path.with_suffix('.none')]\n",
    )
    for name in ("a.xyz", "a.map", "b.xyz"):
        (tmp_path / name).write_text("x")
    assert inputs_of(tmp_path / "a.xyz") == [tmp_path / "a.map"]
    assert inputs_of(tmp_path / "a.map") == inputs_of(tmp_path / "b.xyz") == []
    install(site, monkeypatch, "def read(path): return None\nread.inputs = 3\n", "other")
    assert inputs_of(tmp_path / "a.xyz") == [tmp_path / "a.map"]


# Scenarios from arrays


def test_build_scenario_completes_what_is_missing() -> None:
    t = np.arange(40)
    xy = np.stack([[5e5 + 0.8 * t, 4e6 + 0.0 * t], [5e5 + 20 + 0.8 * t, 4e6 + 0.0 * t]])
    xy = xy.transpose(0, 2, 1)
    xy[1, 3] = np.nan
    scenario = build_scenario(
        "made", "here", xy=xy, yaw=np.full((2, 40), 7.0), types=[AgentType.VEHICLE, 3], ids=[9, 8]
    )
    tracks = scenario.tracks
    assert not scenario.has_z
    assert tracks.id.tolist() == [9, 8]
    assert tracks.valid.sum(1).tolist() == [40, 39]
    np.testing.assert_allclose(tracks.velocity[0, :, 0], 8.0, atol=1e-4)
    np.testing.assert_allclose(tracks.yaw[0], 7.0 - 2 * np.pi, atol=1e-6)
    np.testing.assert_allclose(tracks.size[:, 0], [4.5, 1.8])
    assert scenario.license == scenario.dataset == "unknown"


def test_build_scenario_keeps_heights_and_links() -> None:
    xyz = np.cumsum(np.ones((1, 40, 3)), axis=1)
    lanes = [RawElement(MapType.LANE, i, np.array([[0.0, 0, 0], [1, 1, 1]]) + i) for i in range(2)]
    scenario = build_scenario("made", "here", xy=xyz, yaw=np.zeros((1, 40)), elements=lanes)
    assert scenario.has_z
    assert scenario.map.successors_of(0).tolist() == [1]  # by where they end and start


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"xy": np.zeros((2, 40))}, r"here: xy: expected \[A, T, 2 or 3\], got \[2, 40\]"),
        ({"xy": "text"}, "here: xy: expected an array of numbers"),
        ({"yaw": np.zeros((1, 41))}, r"here: yaw: expected \[1, 40\], got \[1, 41\]"),
        ({"velocity": np.zeros((1, 40))}, r"here: velocity: expected \[1, 40, 2\], got \[1, 40\]"),
        ({"size": np.zeros(3)}, r"here: size: expected \[1, 3\], got \[3\]"),
        ({"types": [1, 1]}, r"here: types: expected \[1\], got \[2\]"),
        ({"types": 9}, r"here: types: expected AgentType, got \[9.0\]"),
        ({"ids": [1, 1]}, r"here: ids: expected integers \[1\], got int64\[2\]"),
        ({"ego": 1}, "here: no ego: index 1 of 1 agents"),
    ],
)
def test_build_scenario_refuses_what_does_not_fit(change, words) -> None:
    given = {"xy": np.zeros((1, 40, 2)), "yaw": np.zeros((1, 40))} | change
    with pytest.raises(ScenarioError, match=words):
        build_scenario("made", "here", **given)
