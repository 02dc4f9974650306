"""What readers make of files whose content is known: units, masks, ego, lights, lane graph."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.polyline import project, resample, simplify, split_long_steps
from alpagym.scenarios.readers.tfrecord import crc32c
from alpagym.scenarios.scenario import AgentFlag, LightState, MapType, ScenarioError
from reading import notes
from scenario_files import (
    FRAMES,
    SHARED,
    json_object,
    json_scenario,
    proto_scenario,
    write_json,
    write_tfrecord,
)


def load_json(tmp_path, **changes):
    (scenario,), skipped = load_scenarios(
        write_json(tmp_path / "made.json", json_scenario(**changes))
    )
    assert not skipped
    return scenario


def test_json_geometry_is_local_and_metric(tmp_path):
    s = load_json(tmp_path)
    assert s.id == "made-1"
    assert (s.license, s.dataset, s.ego, s.start_frame) == ("womd-nc", "womd", 0, 10)
    assert np.array_equal(s.origin, [5008, -3000, 11])
    assert np.allclose(s.tracks.xyz[0, :, 0], -8 + 0.8 * np.arange(FRAMES), atol=1e-4)
    assert np.allclose(s.tracks.size[0], [4.6, 2.0, 1.6])
    assert list(s.map.type) == [0, 0, 0, 2, 2, 3]
    crosswalk = s.map.polyline(5)
    assert len(crosswalk) == 5
    assert np.array_equal(crosswalk[0], crosswalk[-1])
    lane = s.map.polyline(1)
    assert np.hypot(*np.diff(lane[:, :2], axis=0).T).max() <= 10.001
    assert "1 map elements of too few points" in notes(s)


def test_json_lane_links_from_geometry(tmp_path):
    s = load_json(tmp_path)
    assert list(s.map.successors_of(0)) == [1, 2]
    assert list(s.map.successors_of(1)) == []
    assert "inferred 2 lane links" in notes(s)


def test_json_lights_are_scattered_by_time_index(tmp_path):
    s = load_json(tmp_path)
    state = s.lights.state[0]
    assert s.lights.lane[0] == 1
    assert (state[:5] == LightState.ABSENT).all()
    assert (state[5:15] == LightState.RED).all()
    assert (state[15:25] == LightState.GREEN).all()
    assert (state[25:] == LightState.ABSENT).all()


@pytest.mark.parametrize(
    "sentinel", [-10000.0, 0.0001, 0.0, 7777.0, None, float("nan"), float("inf")]
)
def test_json_what_stands_under_the_mask_is_ignored(tmp_path, sentinel):
    gone = [i not in (3, 4, 20) for i in range(FRAMES)]
    other = json_object(15, 8.0, valid=gone)
    for i in (3, 4, 20):
        other["position"][i] = {"x": sentinel, "y": sentinel, "z": sentinel}
        other["heading"][i] = sentinel
        other["velocity"][i] = {"x": sentinel, "y": sentinel}
    s = load_json(tmp_path, objects=[json_object(0, 8.0), other])
    for values in (s.tracks.xyz, s.tracks.yaw, s.tracks.velocity):
        assert (values[1][[3, 4, 20]] == 0).all()
    assert s.flags[1] & AgentFlag.HAS_GAPS
    assert not s.flags[0] & AgentFlag.HAS_GAPS


def test_json_degrees_are_told_from_the_data(tmp_path):
    objects = [
        json_object(0, 8.0, heading=[-360.0 + 3.0] * FRAMES),
        json_object(15, 8.0, heading=[3.0] * FRAMES),
    ]
    s = load_json(tmp_path, objects=objects)
    assert np.allclose(s.tracks.yaw, np.deg2rad(3.0), atol=1e-5)
    assert "degrees" in notes(s)
    s = load_json(tmp_path, objects=[json_object(0, 8.0, heading=[2 * np.pi + 0.1] * FRAMES)])
    assert np.allclose(s.tracks.yaw, 0.1, atol=1e-5)
    assert "degrees" not in notes(s)


def test_json_degrees_where_nothing_moves(tmp_path):
    s = load_json(tmp_path, objects=[json_object(0, 0.0, heading=[-90.0] * FRAMES)])
    assert np.allclose(s.tracks.yaw, -np.pi / 2)


def test_json_old_schema_has_no_heights_ids_or_metadata(tmp_path):
    record = json_scenario()
    for item in record["objects"]:
        item.pop("id")
        item.pop("height")
        for point in item["position"]:
            point.pop("z")
    for road in record["roads"]:
        road.pop("id")
        for point in road["geometry"]:
            point.pop("z")
    for key in ("metadata", "scenario_id"):
        record.pop(key)
    (s,), _ = load_scenarios(write_json(tmp_path / "drive_7.json", record))
    assert s.id == "drive_7"
    assert not s.has_z
    assert (s.tracks.xyz[..., 2] == 0).all()
    assert (s.map.points[:, 2] == 0).all()
    assert s.tracks.size[0, 2] == pytest.approx(1.6)
    assert s.lights.lane[0] == -1
    assert "the file names no ego" in notes(s)


def test_json_positions_as_lists_by_axis(tmp_path):
    x = [5000.0 + 0.8 * i for i in range(FRAMES)]
    axes = {"x": x, "y": [-3000.0] * FRAMES, "z": [10.0] * FRAMES}
    s = load_json(tmp_path, objects=[json_object(0, 8.0, position=axes)])
    assert np.allclose(np.diff(s.tracks.xyz[0, :, 0]), 0.8, atol=1e-4)


def test_json_missing_velocity_and_size(tmp_path):
    record = json_object(0, 8.0, type="cyclist", length=0.0, width=None)
    record.pop("velocity")
    s = load_json(tmp_path, objects=[json_object(20, 4.0), record])
    assert np.allclose(s.tracks.velocity[1], [8.0, 0.0], atol=1e-3)
    assert np.allclose(s.tracks.size[1], [1.8, 0.7, 1.6])
    assert "velocities of 1 agents" in notes(s)


class TestEgo:
    def test_index_out_of_range(self, tmp_path):
        s = load_json(
            tmp_path,
            metadata={"sdc_track_index": 89},
            objects=[json_object(0, 1.0), json_object(15, 8.0)],
        )
        assert s.ego == 1
        assert "track 89" in notes(s)

    def test_index_names_a_pedestrian_or_a_short_track(self, tmp_path):
        short = json_object(30, 9.0, valid=[i < 20 for i in range(FRAMES)])
        objects = [json_object(0, 1.0, type="pedestrian"), short, json_object(15, 8.0)]
        for wrong in (0, 1):
            assert (
                load_json(tmp_path, metadata={"sdc_track_index": wrong}, objects=objects).ego == 2
            )

    def test_recording_car_is_known_by_its_box(self, tmp_path):
        objects = [json_object(0, 9.0), json_object(15, 0.5, length=5.286, width=2.332)]
        assert load_json(tmp_path, metadata=None, objects=objects).ego == 1
        assert load_json(tmp_path, metadata={"sdc_track_index": 0}, objects=objects).ego == 1

    def test_index_survives_agents_that_are_never_valid(self, tmp_path):
        objects = [
            json_object(0, 1.0, valid=[False] * FRAMES),
            json_object(5, 1.0),
            json_object(15, 8.0),
        ]
        s = load_json(tmp_path, metadata={"sdc_track_index": 2}, objects=objects)
        assert s.tracks.num_agents == 2
        assert s.ego == 1
        assert s.tracks.xyz[s.ego, s.start_frame, 0] == pytest.approx(0, abs=1)

    def test_start_moves_to_where_the_ego_stays(self, tmp_path):
        late = json_object(0, 8.0, valid=[i >= 14 for i in range(FRAMES)])
        s = load_json(tmp_path, objects=[late, json_object(15, 8.0, type="pedestrian")])
        assert s.start_frame == 14
        assert "starts at frame 14" in notes(s)


def test_short_record_starts_at_its_first_frame(tmp_path):
    scenario = proto_scenario()
    for track in scenario.tracks:
        del track.states[11:]
    (s,), _ = load_scenarios(write_tfrecord(tmp_path / "x", scenario))
    assert (s.start_frame, s.num_steps) == (0, 10)


def test_flags(tmp_path):
    objects = [
        json_object(0, 8.0),
        json_object(60, 0.0),
        json_object(62, 0.0),
        json_object(90, 0.0, position=[{"x": 5090.0, "y": -3004.0, "z": 10.8}] * FRAMES),
        json_object(-10, 1.0, valid=[i < 5 or i > 8 for i in range(FRAMES)]),
    ]
    above = json_object(0, 8.0)
    for point in above["position"]:
        point["z"] += 6.0
    s = load_json(tmp_path, objects=[*objects, above])
    parked = AgentFlag.PARKED
    hit = AgentFlag.STARTS_IN_COLLISION | AgentFlag.OVERLAPS_IN_LOG
    off = AgentFlag.STARTS_OFFROAD | AgentFlag.OFFROAD_IN_LOG
    assert list(s.flags) == [0, parked | hit, parked | hit, parked | off, AgentFlag.HAS_GAPS, 0]


def test_overlaps_count_on_one_level_only(tmp_path):
    for rise, hit in ((2.4, True), (2.6, False)):
        objects = [json_object(0, 8.0), json_object(60, 0.0), json_object(60, 0.0)]
        for point in objects[2]["position"]:
            point["z"] += rise
        s = load_json(tmp_path, objects=objects)
        assert [bool(f & AgentFlag.OVERLAPS_IN_LOG) for f in s.flags] == [False, hit, hit]


def test_edges_of_undirected_maps_are_turned(tmp_path):
    record = json_scenario()
    record["roads"][4]["geometry"].reverse()
    (s,), _ = load_scenarios(write_json(tmp_path / "a.json", record))
    assert "reversed 1 road edges" in notes(s)
    assert not (s.flags & AgentFlag.OFFROAD_IN_LOG).any()
    for edge in np.flatnonzero(s.map.type == MapType.ROAD_EDGE):
        _, d = project(s.map.polyline(edge).astype(float), s.tracks.xyz[s.ego, :1].astype(float))
        assert d[0] > 0


def test_womd_record(tmp_path):
    (s,), skipped = load_scenarios(write_tfrecord(tmp_path / "odd_suffix.bin", proto_scenario()))
    assert not skipped
    assert (s.id, s.ego, s.start_frame, s.dt) == ("made-2", 1, 10, 0.1)
    assert np.allclose(s.tracks.yaw, 0, atol=1e-5)
    assert list(s.tracks.id) == [7, 9]
    assert list(s.map.successors_of(0)) == [1]
    assert "dropped 1 lane links" in notes(s)
    assert list(s.map.left_neighbor[:4]) == [2, -1, -1, -1]  # lane 4 runs the other way
    assert s.map.speed_limit[0] == pytest.approx(11.176)
    assert np.isnan(s.map.speed_limit[2])
    assert list(np.unique(s.lights.state[0], return_index=True)[1]) == [0, 5, 20]
    assert np.allclose(s.routes.speed_limit[:20], 11.176)


def test_formats_are_told_by_content_not_by_name(tmp_path):
    write_json(tmp_path / "a.tfrecord.json", json_scenario())
    write_tfrecord(tmp_path / "b.json", proto_scenario())
    write_json(tmp_path / "c", json_scenario())
    scenarios, skipped = load_scenarios(tmp_path)
    assert [s.id for s in scenarios] == ["made-1", "made-2", "made-1"]
    assert not skipped


def test_womd_many_records_and_a_bad_one_between(tmp_path):
    bad = proto_scenario()
    bad.tracks[0].states[7].center_x = float("nan")
    path = write_tfrecord(tmp_path / "x.tfrecord", proto_scenario(), bad, proto_scenario())
    scenarios, skipped = load_scenarios(path)
    assert len(scenarios) == 2
    assert "x.tfrecord#1: track 0, frame 7: position must be finite" in skipped[0].reason
    assert all("its id occurs more than once" in notes(s) for s in scenarios)


def test_crc32c_against_known_values():
    assert crc32c(b"") == 0
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


@pytest.mark.parametrize("size", [1023, 1024, 1025, 70_001])
def test_crc32c_in_lanes_equals_bytewise(size):
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    assert crc32c(data) == crc ^ 0xFFFFFFFF


def test_workers_change_nothing(tmp_path):
    for i in range(3):
        write_json(tmp_path / f"{i}.json", json_scenario(scenario_id=f"s{i}"))
    (tmp_path / "note.txt").write_text("hello")
    scenarios, skipped = load_scenarios(tmp_path, workers=2)
    assert [s.id for s in scenarios] == ["s0", "s1", "s2"]
    assert len(skipped) == 1


class TestPolyline:
    def test_simplify_keeps_within_tolerance(self):
        rng = np.random.default_rng(0)
        lines = [np.cumsum(rng.normal(0, 0.1, (n, 3)), 0) for n in (1, 2, 3, 40, 300)]
        for line, kept in zip(lines, simplify(lines, 0.05), strict=True):
            assert np.array_equal(kept[[0, -1]], line[[0, -1]])
            if len(kept) > 1:
                assert np.abs(project(kept[:, :2], line)[1]).max() <= 0.05 + 1e-9
        assert len(simplify([np.c_[np.arange(100.0), np.zeros(100)]])[0]) == 2

    def test_projection_signs_left_positive(self):
        line = np.array([[0.0, 0], [10, 0], [10, 10]])
        s, d = project(line, np.array([[3.0, 2], [3, -2], [12, 5]]))
        assert np.allclose(s, [3, 3, 15])
        assert np.allclose(d, [2, -2, -2])

    def test_resample_and_split(self):
        line = np.array([[0.0, 0], [3, 0], [3, 4]])
        assert np.allclose(resample(line, 2.0), [[0, 0], [2, 0], [3, 1], [3, 3]])
        assert np.hypot(*np.diff(split_long_steps(line, 1.5), axis=0).T).max() <= 1.5


def _index() -> list[dict]:
    if not (SHARED / "index.csv").exists():
        return []
    with (SHARED / "index.csv").open() as file:
        formats = ("gpudrive_json", "nocturne_json", "womd_scenario_tfrecord", "womd_tfexample")
        return [row for row in csv.DictReader(file) if row["format"] in formats]


REFUSED = {
    "fabriksgatan.womd.tfrecord": "has no tracks",
}


@pytest.mark.shared
@pytest.mark.skipif(not _index(), reason="the recorded data are not beside the repository")
def test_recorded_files_agree_with_their_index():
    for row in _index():
        path = SHARED / row["file"]
        if path.name in REFUSED:
            with pytest.raises(ScenarioError, match=REFUSED[path.name]):
                load_scenarios(path)
            continue
        (s,), skipped = load_scenarios(path)
        assert not skipped
        name = path.name
        assert s.id == row["id"], name
        assert s.tracks.num_frames == int(row["steps"]), name
        dropped = int(row["n_agents"]) - s.tracks.num_agents  # the index counts agents never valid
        assert (f"left out {dropped} agents" in notes(s)) == (dropped > 0), name
        assert s.tracks.valid.sum(0).max() == int(row["max_simultaneous"]), name
        assert len(s.lights.lane) == int(row["n_tl"]), name
        short = int(row["n_map_polylines"]) - s.map.num_elements
        assert (f"left out {short} map elements" in notes(s)) == (short > 0), name
        if row["sdc_index"] and not dropped:
            assert s.ego == int(row["sdc_index"]), name
        # Recording cars drive on the road and through nobody; one file lacks its recording car.
        known_ego = "travels farthest" not in notes(s)
        offroad = bool(s.flags[s.ego] & (AgentFlag.STARTS_OFFROAD | AgentFlag.STARTS_IN_COLLISION))
        assert not (known_ego and offroad), name
