"""`alpagym convert` into a folder of an earlier one: what is read again, and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alpagym.cli import main
from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.readers.plugins import plugins
from alpagym.store import reading, records, shard
from alpagym.store.shard import Shard
from converting import FEW, bytes_of, convert, drives, write_drive
from plugin_packages import install

__all__ = ["drives"]

NOTHING = ["LICENSE.txt", "README.txt", "cut.json"]
"""Files of `drives` that give no scenario, in their order."""


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read for their scenarios."""
    names: list[str] = []
    real = reading.read_file

    def counting(path: Path, max_agents: int | None) -> object:
        names.append(path.name)
        return real(path, max_agents)

    monkeypatch.setattr(reading, "read_file", counting)
    return names


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files of which a digest was made."""
    names: list[str] = []

    def counting(path: Path) -> str:
        names.append(path.name)
        return shard.sha256_of(path)

    for module in (reading, records):
        monkeypatch.setattr(module, "sha256_of", counting)
    return names


@pytest.fixture
def site(tmp_path: Path) -> object:
    """A folder for packages with readers, forgotten afterwards."""
    (folder := tmp_path / "site").mkdir()
    yield folder
    plugins.cache_clear()


def same_as_anew(folder: Path, out: Path, *more: str) -> bool:
    """Whether the store holds what a convert into an empty folder gives."""
    anew = out.with_name("anew")
    shutil.rmtree(anew, ignore_errors=True)
    convert(folder, anew, *more)
    return bytes_of(out) == bytes_of(anew)


# What is read


def test_a_second_time_only_what_gave_nothing_is_read(drives, tmp_path, read) -> None:
    first = convert(drives, tmp_path / "out")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("shard-*")}
    assert len(read) == 9
    read.clear()
    assert convert(drives, tmp_path / "out") == first
    assert read == NOTHING
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("shard-*")} == before


def test_only_the_file_that_changed_is_read_again(drives, tmp_path, read) -> None:
    out = tmp_path / "out"
    convert(drives, out)
    read.clear()
    write_drive(drives / "deep" / "4.json", "other!")  # as long as before: the digest tells
    convert(drives, out)
    assert read == [*NOTHING, "4.json"]
    assert same_as_anew(drives, out)
    (drives / "two.tfrecord").unlink()
    read.clear()
    convert(drives, out)
    assert read == NOTHING
    assert same_as_anew(drives, out)


def test_what_lay_in_a_damaged_shard_is_read_again(drives, tmp_path, read) -> None:
    out = tmp_path / "out"
    convert(drives, out)
    first = sorted(out.glob("shard-*"))[0]
    lost = {file.name.split("/")[-1] for file in Shard(first).files}
    first.write_bytes(first.read_bytes()[:-1])
    read.clear()
    convert(drives, out)
    assert lost <= set(read)
    assert same_as_anew(drives, out)


def test_a_file_that_comes_early_leaves_the_others_alone(tmp_path, read) -> None:
    (folder := tmp_path / "in").mkdir()
    for i in range(40):
        write_drive(folder / f"{i:02}.json", f"made-{i}")
    out = tmp_path / "out"
    before = {s["sha256"] for s in convert(folder, out)["shards"]}
    for name in ("-first", "30-between"):
        read.clear()
        write_drive(folder / f"{name}.json", name)
        after = {s["sha256"] for s in convert(folder, out)["shards"]}
        assert read == [f"{name}.json"]
        assert len(after - before) <= 5  # those of the group around it
        assert same_as_anew(folder, out)
        before = after
    read.clear()
    (folder / "-first.json").unlink()
    convert(folder, out)
    assert read == []
    assert same_as_anew(folder, out)


def test_a_shard_that_had_been_renamed_is_known(drives, tmp_path, read) -> None:
    out = tmp_path / "out"
    convert(drives, out)
    before = bytes_of(out)
    names = sorted(out.glob("shard-*"))
    for old, new in zip(names, [*names[1:], names[0]], strict=True):
        old.rename(new.with_suffix(".x"))
    for file in out.glob("*.x"):
        file.rename(file.with_suffix(".safetensors"))
    read.clear()
    convert(drives, out)
    assert read == NOTHING
    assert bytes_of(out) == before


# Causes outside of a file


def test_files_are_tried_again_when_a_plugin_comes_changes_or_goes(
    drives, tmp_path, read, site, monkeypatch
) -> None:
    out = tmp_path / "out"
    (drives / "odd.xyz").write_text("odd")
    source = (
        "import numpy as np\n"
        "from alpagym.scenarios.build import build_scenario\n"
        "def read(path):\n"
        "    if path.suffix == '.xyz':\n"
        "        xy = np.cumsum(np.full((1, 40, 2), {step}), axis=1)\n"
        "        return build_scenario('odd', path, xy=xy, yaw=np.zeros((1, 40)))\n"
    )
    assert convert(drives, out)["num_scenarios"] == 7
    install(site, monkeypatch, source.format(step=0.5), "mine")
    assert convert(drives, out)["num_scenarios"] == 8
    read.clear()
    convert(drives, out)
    assert read == NOTHING
    (module,) = site.glob("*.py")
    module.write_text(source.format(step=0.75))
    sys.modules.pop(module.stem)
    plugins.cache_clear()
    convert(drives, out)
    (odd,) = [s for s in load_scenarios(out)[0] if s.id == "odd"]
    assert np.allclose(np.diff(odd.tracks.xyz[0, :, 0]), 0.75)
    assert same_as_anew(drives, out)
    shutil.rmtree(site)
    sys.modules.pop(module.stem)
    plugins.cache_clear()
    assert convert(drives, out)["num_scenarios"] == 7


def test_a_plugin_that_failed_in_the_middle_is_asked_again(
    drives, tmp_path, read, site, monkeypatch
) -> None:
    flag = tmp_path / "works"
    install(
        site,
        monkeypatch,
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from alpagym.scenarios.build import build_scenario\n"
        "def read(path):\n"
        "    if path.suffix == '.xyz':\n"
        "        xy = np.cumsum(np.ones((1, 40, 2)), axis=1)\n"
        "        yield build_scenario('one', path, xy=xy, yaw=np.zeros((1, 40)))\n"
        f"        Path({str(flag)!r}).read_text()\n"
        "        yield build_scenario('two', path, xy=xy, yaw=np.zeros((1, 40)))\n",
    )
    (drives / "odd.xyz").write_text("odd")
    out = tmp_path / "out"
    assert convert(drives, out)["num_scenarios"] == 8
    flag.write_text("")
    assert convert(drives, out)["num_scenarios"] == 9
    assert same_as_anew(drives, out)


def test_a_log_whose_map_was_not_found_is_tried_again(drives, tmp_path, monkeypatch) -> None:
    pytest.importorskip("pyproj", reason="nuPlan needs pyproj: pip install alpagym[nuplan]")
    pytest.importorskip("shapely", reason="nuPlan needs shapely: pip install alpagym[nuplan]")
    import nuplan_files

    for name in ("NUPLAN_MAPS_ROOT", "NUPLAN_DATA_ROOT"):
        monkeypatch.delenv(name, raising=False)
    nuplan_files.write_log(drives / "log.db")
    nuplan_files.write_map(tmp_path / "cities" / nuplan_files.LOCATION / "1" / "map.gpkg")
    out = tmp_path / "out"
    told = convert(drives, out)
    assert any("set NUPLAN_MAPS_ROOT" in s["reason"] for s in told["skipped"])
    monkeypatch.setenv("NUPLAN_MAPS_ROOT", str(tmp_path / "cities"))
    assert convert(drives, out)["num_scenarios"] == 7 + 3
    assert same_as_anew(drives, out)


# Other files that a scenario is made of


def nuplan_tree(folder: Path) -> tuple[Path, Path]:
    pytest.importorskip("pyproj", reason="nuPlan needs pyproj: pip install alpagym[nuplan]")
    pytest.importorskip("shapely", reason="nuPlan needs shapely: pip install alpagym[nuplan]")
    import nuplan_files

    log = nuplan_files.write_dataset(folder)
    return log, folder / "maps" / nuplan_files.LOCATION / nuplan_files.VERSION / "map.gpkg"


def argoverse2_motion(folder: Path) -> tuple[Path, Path]:
    pytest.importorskip("pyarrow", reason="needs pyarrow: pip install alpagym[argoverse2]")
    import argoverse2_files

    path = argoverse2_files.write_motion(folder)
    return path, next(folder.glob("*.json"))


def argoverse2_sensor(folder: Path) -> tuple[Path, Path]:
    pytest.importorskip("pyarrow", reason="needs pyarrow: pip install alpagym[argoverse2]")
    import argoverse2_files

    path = argoverse2_files.write_sensor(folder / "log")
    return path, next((folder / "log" / "map").glob("log_map_archive_*"))


def argoverse2_poses(folder: Path) -> tuple[Path, Path]:
    path, _ = argoverse2_sensor(folder)
    return path, path.with_name("city_SE3_egovehicle.feather")


def clipgt(folder: Path) -> tuple[Path, Path]:
    pytest.importorskip("pyarrow", reason="needs pyarrow: pip install alpagym[nvidia]")
    import nvidia_files

    path = nvidia_files.write_clipgt(folder)
    return path, next(folder.glob("*.obstacle.parquet"))


def rds_hq(folder: Path) -> tuple[Path, Path]:
    import nvidia_files

    path = nvidia_files.write_rds_hq(folder)
    return path, folder / "3d_lanes" / path.name


TREES = (nuplan_tree, argoverse2_motion, argoverse2_sensor, argoverse2_poses, clipgt, rds_hq)


@pytest.mark.parametrize("tree", TREES)
def test_another_file_that_is_taken_in_counts(
    tree: Callable[[Path], tuple[Path, Path]], tmp_path, read, monkeypatch
) -> None:
    for name in ("NUPLAN_MAPS_ROOT", "NUPLAN_DATA_ROOT"):
        monkeypatch.delenv(name, raising=False)
    carrier, taken_in = tree(tmp_path / "in")
    out = tmp_path / "out"
    report = convert(tmp_path / "in", out)
    assert report["num_parts"] == sum(p.is_file() for p in (tmp_path / "in").rglob("*")) - 1
    assert read == [carrier.name]
    read.clear()
    convert(tmp_path / "in", out)
    assert read == []
    taken_in.write_bytes(taken_in.read_bytes() + b" ")
    main(["convert", str(tmp_path / "in"), f"out={out}", *FEW])
    assert read == [carrier.name]
    read.clear()
    taken_in.unlink()
    main(["convert", str(tmp_path / "in"), f"out={out}", *FEW])
    assert read == [carrier.name]


def test_what_is_not_read_is_not_hashed(tmp_path, read, hashed) -> None:
    path, _ = argoverse2_sensor(tmp_path / "in")
    images = path.parent / "sensors" / "cameras" / "ring_front_center"
    images.mkdir(parents=True)
    for i in range(20):
        (images / f"{i}.jpg").write_bytes(b"x" * i)
    (tmp_path / "in" / "movie.mp4").write_bytes(b"x")
    report = convert(tmp_path / "in", tmp_path / "out")
    assert report["num_parts"] == 20 + 3
    made = {shard["name"] for shard in report["shards"]}
    wanted = {"annotations.feather", "city_SE3_egovehicle.feather"}
    assert {name for name in hashed if "log_map_archive" not in name} - made == wanted
    assert len(hashed) == 3
    assert read == ["annotations.feather", "movie.mp4"]


# Interruptions

KILLED = """
import os, signal
from alpagym.store import container
written = 0
def fsync(descriptor):
    global written
    written += 1
    if written == 9:
        os.kill(os.getpid(), signal.SIGKILL)
container.os.fsync = fsync
from alpagym.cli import main
main({arguments})
"""


def test_killed_in_the_middle_it_goes_on(drives, tmp_path, read) -> None:
    for i in range(30):
        write_drive(drives / "deep" / f"{i}-more.json", f"more-{i}")
    out = tmp_path / "out"
    arguments = ["convert", str(drives), f"out={out}", "shard_scenarios=2", "workers=1"]
    code = KILLED.format(arguments=arguments)
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(out.glob(".*.part"))
    assert not (out / "convert.json").exists()
    scenarios, skipped = load_scenarios(out)
    assert not skipped
    assert 0 < len(scenarios) < 37
    convert(drives, out)
    assert 0 < len(read) < 39
    assert same_as_anew(drives, out)
    assert not list(out.glob(".*.part"))


class Stop(BaseException):
    """The process ends here."""


def test_stopped_anywhere_in_a_later_convert_it_goes_on(tmp_path, monkeypatch) -> None:
    (folder := tmp_path / "in").mkdir()
    for i in range(16):
        write_drive(folder / f"{i:02}.json", f"made-{i}")
    convert(folder, tmp_path / "first")
    write_drive(folder / "-first.json", "-first")  # every shard gets another name
    write_drive(folder / "09.json", "other")
    (folder / "12.json").unlink()
    convert(folder, tmp_path / "wanted")
    wanted = bytes_of(tmp_path / "wanted")
    point = 0
    while True:
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(tmp_path / "first", out)
        with monkeypatch.context() as patch:
            stop_at(point, patch)
            try:
                convert(folder, out)
                break
            except Stop:
                pass
        convert(folder, out)
        assert bytes_of(out) == wanted, point
        point += 8
    assert point > 15


def stop_at(point: int, patch: pytest.MonkeyPatch) -> None:
    """Let so many changes to the folder happen, and then no more."""
    left = [point]

    def stopping(real: Callable[..., None]) -> Callable[..., None]:
        def call(*given: object, **options: object) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Stop
            real(*given, **options)

        return call

    for name in ("rename", "replace", "unlink"):
        patch.setattr(os, name, stopping(getattr(os, name)))
