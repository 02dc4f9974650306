"""`alpagym convert` where shards would be too large, and where files look like parts of others."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.readers.plugins import plugins
from alpagym.store import convert as module
from alpagym.store.shard import write_shard
from converting import convert, drives, write_drive
from plugin_packages import install
from reading import same
from scenario_factory import straight

__all__ = ["drives"]


@pytest.fixture(autouse=True)
def forget_plugins() -> object:
    yield
    plugins.cache_clear()


# Large shards


def install_wordy(site: Path, monkeypatch: pytest.MonkeyPatch, lengths: list[int]) -> None:
    """A reader of `.xyz` that gives a scenario with a note of each length."""
    site.mkdir()
    install(
        site,
        monkeypatch,
        "import numpy as np\n"
        "from alpagym.scenarios.build import build_scenario\n"
        "def read(path):\n"
        f"    for k, length in enumerate({lengths} if path.suffix == '.xyz' else []):\n"
        "        xy = np.cumsum(np.ones((1, 40, 2)), axis=1)\n"
        "        made = build_scenario(f'{k}', path, xy=xy, yaw=np.zeros((1, 40)))\n"
        "        made.notes.append('n' * length)\n"
        "        yield made\n",
    )


def test_texts_that_fill_a_header_fill_several(tmp_path, monkeypatch, capsys) -> None:
    install_wordy(tmp_path / "site", monkeypatch, [1 << 19] * 40 + [1 << 20])
    (folder := tmp_path / "in").mkdir()
    (folder / "a.xyz").write_text("x")
    report = convert(folder, tmp_path / "out", "shard_scenarios=256")
    assert [shard["scenarios"] for shard in report["shards"]] == [15, 15, 10]
    (told,) = report["skipped"]
    assert told["reason"].startswith("a.xyz: its texts take 104")
    assert told["reason"].endswith(" bytes, at most 1048576 are stored")
    assert [s.id for s in load_scenarios(tmp_path / "out")[0]] == [str(k) for k in range(40)]


def test_large_scenarios_make_smaller_shards(drives, tmp_path, monkeypatch) -> None:
    (whole,) = convert(drives, tmp_path / "one", "shard_scenarios=256")["shards"]
    monkeypatch.setattr(module, "SHARD_BYTES", whole["bytes"] // 3)
    parted = convert(drives, tmp_path / "two", "shard_scenarios=256")["shards"]
    assert len(parted) >= 3
    assert all(shard["bytes"] < whole["bytes"] // 2 for shard in parted)
    pairs = zip(*(load_scenarios(tmp_path / n)[0] for n in ("one", "two")), strict=True)
    for a, b in pairs:
        same(a, b)


def test_a_path_that_is_no_unicode_spoils_no_shard(drives, tmp_path) -> None:
    write_drive(Path(os.fsdecode(os.fsencode(drives) + b"/odd-\xff.json")), "odd")
    report = convert(drives, tmp_path / "out", "--check")
    assert report["num_scenarios"] == 7
    assert "a text, perhaps its path, is no Unicode" in [
        told["reason"].partition(": ")[2] for told in report["skipped"]
    ]
    assert not report["health"]["unreadable"]


# Parts of scenarios


def test_a_file_that_looks_like_a_part_is_not_lost(tmp_path, monkeypatch, capsys) -> None:
    """Where others keep parts may lie recordings, shards, and files that a plug-in reads."""
    folder = tmp_path / "in"
    blobs = folder / "sensor_blobs" / "log"
    camera = blobs / "CAM_F0"
    camera.mkdir(parents=True)
    write_shard(camera / "a.jpg", [replace(straight(), id="shard")])
    write_drive(blobs / "b.json", "recording")
    (camera / "c.jpg").write_bytes(b"pixels")
    maps = folder / "maps" / "city" / "1"
    maps.mkdir(parents=True)
    (maps / "map.gpkg").write_bytes(b"a map")
    (maps / "notes.txt").write_text("not of the map")
    write_drive(maps / "d.json", "beside")
    report = convert(folder, tmp_path / "out")
    assert {s.id for s in load_scenarios(tmp_path / "out")[0]} == {"shard", "recording", "beside"}
    assert (report["num_files"], report["num_parts"]) == (4, 2)
    assert [told["path"] for told in report["skipped"]] == ["maps/city/1/notes.txt"]
    printed = " ".join(capsys.readouterr().err.split())
    assert "3 scenarios of 4 files" in printed
    assert "2 more files are parts of scenarios that others carry" in printed
    install_pixels(tmp_path / "site", monkeypatch)
    report = convert(folder, tmp_path / "out")
    assert (report["num_files"], report["num_parts"], report["num_scenarios"]) == (5, 1, 4)


def install_pixels(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.mkdir()
    install(
        site,
        monkeypatch,
        "import numpy as np\n"
        "from alpagym.scenarios.build import build_scenario\n"
        "def read(path):\n"
        "    if path.read_bytes() == b'pixels':\n"
        "        xy = np.cumsum(np.ones((1, 40, 2)), axis=1)\n"
        "        return build_scenario('pixels', path, xy=xy, yaw=np.zeros((1, 40)))\n",
    )
