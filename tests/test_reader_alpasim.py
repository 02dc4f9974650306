"""AlpaSim USDZ scenes: rig and tracks with their clocks, the map, and broken archives."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

import nvidia_files as files
from alpagym.config import SimConfig
from alpagym.evaluation import evaluate
from alpagym.scenarios.readers import alpasim_usdz, zip_members
from alpagym.scenarios.scenario import AgentFlag, AgentType, MapType, Scenario
from alpasim_files import SCENE, YAML, members, rigs, tables, tracks, write
from nvidia_scene import check_boxes, check_parked
from reading import agent, element, notes, only, refused

pytest.importorskip("pyarrow", reason="AlpaSim scenes need pyarrow: pip install alpagym[nvidia]")


@pytest.fixture(scope="module")
def map_tables(tmp_path_factory) -> dict[str, bytes]:
    return tables(tmp_path_factory.mktemp("made") / "tables")


@pytest.fixture
def usdz(tmp_path, map_tables) -> Path:
    return write(tmp_path / "01d503d4.usdz", members(map_tables))


@pytest.fixture
def scenario(usdz) -> Scenario:
    return only(usdz.parent)


def test_ego_is_the_box_of_the_rig(scenario):
    t, ego = scenario.tracks, scenario.ego
    assert scenario.id == SCENE
    assert (scenario.dataset, scenario.license, scenario.dt) == ("alpasim", "nvidia-av", 0.1)
    assert t.num_frames == 41
    place = t.xyz[ego] + scenario.origin
    assert np.allclose(place[:, 0], 1.4 + 0.6 * np.arange(41), atol=2e-3)
    assert np.allclose(place[:, 1:], [0.1, 0.8], atol=1e-3)
    assert np.allclose(t.size[ego], [5.0, 2.0, 1.5])
    assert np.allclose(t.velocity[ego], [6.0, 0.0], atol=1e-2)
    assert "took the box of the ego from its rig" in notes(scenario)


def test_without_a_box_the_ego_is_that_of_alpasim(tmp_path, map_tables):
    content = members(map_tables) | {"rig_trajectories.json": json.dumps(rigs(None))}
    s = only(write(tmp_path / "a.usdz", content))
    assert np.allclose(s.tracks.size[s.ego], [5.393, 2.109, 1.503])
    assert np.isclose(s.tracks.xyz[s.ego, 0, 0] + s.origin[0], 1.3965, atol=1e-3)


def test_tracks_keep_their_clocks_sizes_and_types(scenario):
    _, walker, _ = check_boxes(scenario)
    t = scenario.tracks
    # Seen 3 ms later than the frames, and not in the second second.
    y = t.xyz[walker, 1:9, 1] + scenario.origin[1]
    assert np.allclose(y, -4.0 + 0.1 * np.arange(1, 9) - 0.003, atol=1e-3)
    assert not t.valid[walker, 11:20].any()
    assert t.valid[walker, 21:].all()
    check_parked(scenario)


def test_the_map_is_that_of_its_tables(scenario, tmp_path):
    m = scenario.map
    files.write_clipgt(tmp_path / "bare", text_speeds=True)
    other = only(tmp_path / "bare")
    assert list(m.id) == list(other.map.id)
    assert np.allclose(m.points + scenario.origin, other.map.points + other.origin, atol=1e-3)
    first = element(scenario, 11)
    assert list(m.successors_of(first)) == [element(scenario, 12)]
    assert m.left_neighbor[first] == element(scenario, 21)
    below, above = (np.diff(m.polyline(element(scenario, i))[:, 0]) for i in (51, 52))
    assert (below > 0).all()
    assert (above < 0).all()
    assert list(scenario.routes.stop_light) != []


def test_replayed_log_neither_collides_nor_leaves_the_road(scenario):
    results, _ = evaluate("log", [scenario], SimConfig(end_on=()))
    assert not results.offroad.any()
    assert not results.collision_any.any()


def test_folders_of_the_map(tmp_path, map_tables):
    prefixed = tables(tmp_path / "made", prefix=True)
    s = only(write(tmp_path / "a.usdz", members(prefixed, "clipgt")))
    assert s.has_z
    assert (s.map.type == MapType.LANE).sum() == 4
    content = members(map_tables, "clipgt") | {"fastmap/lane.parquet": b"broken"}
    assert (only(write(tmp_path / "a.usdz", content)).map.type == MapType.LANE).sum() == 4
    s = only(write(tmp_path / "a.usdz", members(map_tables, "fastmap")))
    assert not s.has_z
    assert "those of this map are not those of the ground" in notes(s)
    assert not s.flags[s.ego] & AgentFlag.OFFROAD_IN_LOG
    content = members(map_tables) | {"map_data/other.lane.parquet": b""}
    assert "folder 'map_data' has two maps (lane)" in refused(write(tmp_path / "a.usdz", content))


def test_what_may_be_missing(tmp_path, map_tables):
    content = members({}) | {"metadata.yaml": "version_string: 1"}
    del content["sequence_tracks.json"]
    s = only(write(tmp_path / "named.usdz", content))
    assert s.id == "named"
    assert s.tracks.num_agents == 1
    assert s.map.num_elements == 0
    assert "the ego is alone" in notes(s)
    assert "gives no scene id: took the name of the file" in notes(s)
    assert "no map: the archive has none" in notes(s)


def test_labels_that_are_not_listed_are_other_things(tmp_path, map_tables):
    odd = json.dumps(tracks(lambda label: "forklift" if label == "Trailer" else label))
    s = only(write(tmp_path / "a.usdz", members(map_tables) | {"sequence_tracks.json": odd}))
    assert s.tracks.type[agent(s, 103)] == AgentType.OTHER
    assert "took 1 tracks of unlisted labels as other things" in notes(s)


def test_poses_that_are_not_finite_are_left_out(tmp_path, map_tables):
    record = tracks()
    record["dummy_chunk_id"]["tracks_data"]["tracks_poses"][0][5][0] = float("nan")
    content = members(map_tables) | {"sequence_tracks.json": json.dumps(record)}
    s = only(write(tmp_path / "a.usdz", content))
    assert "left out 1 poses that are not finite" in notes(s)
    assert s.tracks.valid[agent(s, 101)].all()  # a tenth of a second is bridged


def edited(record: dict, *path: str | int, value: object) -> str:
    place = record
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(record)


RIG, CHUNK = ("rig_trajectories", 0), "dummy_chunk_id"


@pytest.mark.parametrize(
    ("member", "content", "words"),
    [
        ("rig_trajectories.json", "{", "not valid JSON"),
        ("rig_trajectories.json", "[" * 100_000, "not valid JSON"),
        ("rig_trajectories.json", "[]", "must be a JSON object, got list"),
        ("rig_trajectories.json", "{}", "'rig_trajectories' must be a list, got NoneType"),
        ("rig_trajectories.json", json.dumps(rigs(count=2)), "must hold one rig trajectory, got 2"),
        (
            "rig_trajectories.json",
            edited(rigs(), *RIG, "T_rig_worlds", value=[[1, 2]]),
            "'T_rig_worlds' must be n x 4 x 4 numbers",
        ),
        (
            "rig_trajectories.json",
            edited(rigs(), *RIG, "T_rig_world_timestamps_us", value=[5]),
            "has 41 poses at 1 times",
        ),
        (
            "rig_trajectories.json",
            edited(rigs(), *RIG, "T_rig_world_timestamps_us", value=[5] * 41),
            "the time of ego pose 1 is not after the one before",
        ),
        (
            "rig_trajectories.json",
            edited(rigs(), *RIG, "rig_bbox", "rot", value=[0, 0, 1]),
            "'rig_bbox' must not be turned",
        ),
        (
            "rig_trajectories.json",
            edited(rigs(), *RIG, "rig_bbox", "dim", value=[500, 2, 2]),
            "must be the box of a vehicle",
        ),
        ("sequence_tracks.json", '{"a": {}, "b": {}}', "must hold one sequence, got 2"),
        ("sequence_tracks.json", '{"a": {}}', "'tracks_data' must be a JSON object"),
        (
            "sequence_tracks.json",
            edited(tracks(), CHUNK, "tracks_data", "tracks_id", value=["1"]),
            "needs as many ids, labels, times, poses and sizes",
        ),
        (
            "sequence_tracks.json",
            edited(tracks(), CHUNK, "tracks_data", "tracks_id", value=["1"] * 4),
            "two tracks share an id",
        ),
        (
            "sequence_tracks.json",
            edited(tracks(), CHUNK, "tracks_data", "tracks_poses", 1, value=[[0] * 7]),
            "track '102' has 1 poses at 31 times",
        ),
        (
            "sequence_tracks.json",
            edited(tracks(), CHUNK, "cuboidtracks_data", "cuboids_dims", 0, value="big"),
            "track '101': its size must be 3 numbers",
        ),
        ("map_data/lane.parquet", b"PAR1", "member 'map_data/lane.parquet': damaged Parquet file"),
    ],
)
def test_refused_members(tmp_path, map_tables, member, content, words):
    path = write(tmp_path / "a.usdz", members(map_tables) | {member: content})
    assert words in refused(path)


def test_refused_archives(tmp_path, map_tables, monkeypatch):
    path = tmp_path / "a.usdz"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "damaged zip archive (File is not a zip file)" in refused(path)
    content = members(map_tables)
    del content["rig_trajectories.json"]
    assert "member 'rig_trajectories.json' must be there once, but is 0 times" in refused(
        write(path, content)
    )
    write(path, members(map_tables))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("rig_trajectories.json", "{}")
    assert "but is 2 times" in refused(path)
    write(path, members(map_tables))
    with monkeypatch.context() as patch:
        patch.setattr(alpasim_usdz, "MAX_JSON", 1000)
        assert "bytes, at most 1000 are read" in refused(path)
    with monkeypatch.context() as patch:
        patch.setattr(zip_members, "MAX_LIST", 300)
        assert "its list of members has" in refused(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("metadata.yaml", YAML)
    assert "packed in another way than deflate" in refused(path)


def test_bombs_are_not_unpacked(tmp_path, map_tables):
    bomb = b" " * (20 * 2**20)
    path = write(tmp_path / "a.usdz", members(map_tables) | {"sequence_tracks.json": bomb})
    assert "which is more than plausible (at most 200 times)" in refused(path)
    # A size that the list of members understates ends the member there.
    write(path, members(map_tables))
    data = path.read_bytes()
    whole = len(json.dumps(tracks()))
    assert data.count(struct.pack("<I", whole)) == 2
    path.write_bytes(data.replace(struct.pack("<I", whole), struct.pack("<I", whole // 2)))
    assert "Bad CRC-32" in refused(path)


def test_names_lead_nowhere(tmp_path, map_tables):
    folder = tmp_path / "in"
    folder.mkdir()
    names = ("../lane.parquet", "/etc/evil", "map_data/../../lane.parquet", "map_data/x/y.parquet")
    path = write(folder / "a.usdz", members(map_tables) | dict.fromkeys(names, b"evil"))
    assert (only(path).map.type == MapType.LANE).sum() == 4
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "a.usdz"]
