"""One WOMD scene in several formats: whichever file it is read from, it is the same scenario.

A record of the dataset is converted as other projects convert it (`womd_conversions`,
`womd_example_files`), and exported by AlpaGym. Pairs of files that hold one scene are compared as
well, where the recorded data have any.
"""

from __future__ import annotations

import csv
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alpagym.scenarios.export import export
from alpagym.scenarios.readers import womd_scenario_pb2
from alpagym.scenarios.readers.tfrecord import read_records
from alpagym.scenarios.scenario import MapType, Scenario
from reading import only
from same_scene import assert_same
from scenario_files import proto_scenario, write_json, write_tfrecord
from womd_conversions import gpudrive_of, scenarionet_of
from womd_example_files import example_of, write_examples

RECORD = Path("womd_tfrecord") / "motion_data_one_scenario.tfrecord"
NO_GRAPH = {"links": False, "neighbors": False, "limits": False}
"""What GPUDrive JSON and tf.Examples do not hold."""
FLOAT32 = {"place": 2e-3, "line": 0.05}
"""Coordinates in float32, kilometers from zero [m]; which points of a line are dropped as needless
(those within 5 cm of it) may hang on the last digit."""


def write(proto: Any, folder: Path, format: str) -> Path:
    """The scene of a proto in a format, as its converter writes it."""
    if format == "tfrecord":
        return write_tfrecord(folder / "scene.tfrecord", proto)
    if format == "gpudrive":
        return write_json(folder / "scene.json", gpudrive_of(proto))
    if format == "scenarionet":
        path = folder / "sd_waymo_v1.2_scene.pkl"
        path.write_bytes(pickle.dumps(scenarionet_of(proto)))
        return path
    path = folder / "out"
    export([only(write(proto, folder, "tfrecord"))], path, format.removeprefix("exported "))
    return path


FORMATS = ["gpudrive", "scenarionet", "exported gpudrive", "exported scenarionet"]


def compare(proto: Any, folder: Path, format: str) -> None:
    wanted = only(write(proto, folder, "tfrecord"))
    held = NO_GRAPH if "gpudrive" in format else {}
    precision = FLOAT32 if format == "scenarionet" else {}
    back = only(write(proto, folder, format))
    assert_same(wanted, back, **held, **precision)
    if "gpudrive" not in format:
        np.testing.assert_allclose(
            wanted.routes.log_length, back.routes.log_length, rtol=0, atol=0.02
        )


@pytest.mark.parametrize("format", FORMATS)
def test_a_made_scene(tmp_path, format) -> None:
    compare(proto_scenario(), tmp_path, format)


@pytest.mark.parametrize("format", FORMATS)
def test_a_recorded_scene(shared_data, tmp_path, format) -> None:
    ((_, data),) = read_records(shared_data / RECORD)
    proto = womd_scenario_pb2.Scenario()
    proto.ParseFromString(data)
    compare(proto, tmp_path, format)


def test_a_recorded_scene_as_example(shared_data, tmp_path) -> None:
    """The dataset's other format has no ids of map elements' links, and 16 lights."""
    ((_, data),) = read_records(shared_data / RECORD)
    proto = womd_scenario_pb2.Scenario()
    proto.ParseFromString(data)
    wanted = only(shared_data / RECORD)
    back = only(write_examples(tmp_path / "scene.tfrecord", example_of(proto, agents=128)))
    assert_same(by_id(wanted), by_id(back), lights=False, **FLOAT32, **NO_GRAPH)
    seen = wanted.lights.state.any(1).sum()
    assert back.lights.state.any(1).sum() == seen


def by_id(scenario: Scenario) -> Scenario:
    """Lanes, lines and the like in the order of their ids."""
    road = scenario.map
    order = np.argsort(road.id, kind="stable")
    lines = [road.polyline(int(i)) for i in order]
    road.points = np.concatenate(lines)
    road.offsets = np.cumsum([0, *map(len, lines)]).astype(np.int32)
    road.type, road.id = road.type[order], road.id[order]
    return scenario


def scenes_in_several_files(data: Path) -> dict[str, list[Path]]:
    with (data / "index.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == "WOMD"]
    files = defaultdict(list)
    for row in rows:
        files[row["id"]].append(data / row["file"])
    return {scene: paths for scene, paths in files.items() if len(paths) > 1}


def test_pairs_of_the_recorded_data(shared_data) -> None:
    pairs = scenes_in_several_files(shared_data)
    if not pairs:
        pytest.skip(f"no scene of {shared_data} lies there in two formats")
    for paths in pairs.values():
        first, *others = (only(path) for path in paths)
        for other in others:
            assert first.recording == other.recording
            frames = min(first.tracks.num_frames, other.tracks.num_frames)
            ours, theirs = ego_path(first, frames), ego_path(other, frames)
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=0.01, equal_nan=True)
            for kind in (MapType.LANE, MapType.ROAD_EDGE):
                counts = [int((s.map.type == kind).sum()) for s in (first, other)]
                assert abs(counts[0] - counts[1]) <= 0.02 * max(counts) + 1, (kind.name, counts)


def ego_path(scenario: Scenario, frames: int) -> np.ndarray:
    """Positions in source coordinates [m], NaN where it is absent, [T, 2]."""
    tracks, ego = scenario.tracks, scenario.ego
    xy = tracks.xyz[ego, :frames, :2] + scenario.origin[:2]
    return np.where(tracks.valid[ego, :frames, None], xy, np.nan)


def test_another_scene_is_not_the_same(tmp_path) -> None:
    """The comparison itself sees a car moved by a centimeter, or a bent lane."""
    one, two = (only(write(proto_scenario(), tmp_path, "tfrecord")) for _ in range(2))
    assert_same(one, two)
    two.tracks.xyz[0, 20, 0] += 0.01
    with pytest.raises(AssertionError):
        assert_same(one, two)
    two = only(write(proto_scenario(), tmp_path, "tfrecord"))
    lane = int(np.flatnonzero(two.map.type == MapType.LANE)[0])
    two.map.points[two.map.offsets[lane] + 1, 1] += 0.01
    with pytest.raises(AssertionError):
        assert_same(one, two)
