"""RDS-HQ and ClipGT: frames, boxes, clocks, maps and what is made of damaged files."""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

import nvidia_files as files
from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.polyline import project
from alpagym.scenarios.readers import clipgt, rds_hq
from alpagym.scenarios.readers.nvidia_fields import drivable_share, speed
from alpagym.scenarios.readers.nvidia_tracks import DEFAULT_BOX, sample
from alpagym.scenarios.scenario import AgentFlag, AgentType, MapType, Scenario, ScenarioError
from nvidia_scene import check_boxes, check_parked
from reading import agent, element, notes, only

pytest.importorskip("pyarrow", reason="ClipGT needs pyarrow: pip install alpagym[nvidia]")
FORMATS = {"rds_hq": files.write_rds_hq, "clipgt": files.write_clipgt}


@pytest.fixture(params=FORMATS)
def scenario(request, tmp_path):
    FORMATS[request.param](tmp_path)
    return load(tmp_path)


def load(folder: Path) -> Scenario:
    return only(folder)


def refused(path: Path) -> str:
    with pytest.raises(ScenarioError) as error:
        load_scenarios(path)
    assert str(path.parent.parent) in str(error.value) or str(path.parent) in str(error.value)
    return str(error.value)


def test_ego_is_its_box_ahead_of_the_rear_axle(scenario):
    t, ego = scenario.tracks, scenario.ego
    assert scenario.id == files.CLIP
    assert scenario.dt == 0.1
    assert t.num_frames == 41
    assert t.valid[ego].all()
    x = t.xyz[ego, :, 0] + scenario.origin[0]
    assert np.allclose(x, 1.3965 + 0.6 * np.arange(41), atol=2e-3)
    assert np.allclose(t.xyz[ego, :, 1:] + scenario.origin[1:], [0, 0.7515], atol=1e-3)
    assert np.allclose(t.size[ego], [5.393, 2.109, 1.503])
    assert np.allclose(t.velocity[ego], [6.0, 0.0], atol=1e-2)
    assert "no size of the ego" in notes(scenario)


def test_boxes_keep_their_clock_size_and_type(scenario):
    _, _, trailer = check_boxes(scenario)
    velocity = scenario.tracks.velocity[trailer, :, 0]
    assert np.allclose(velocity, -1.0, atol=1e-2)


def test_a_hole_stays_a_hole_but_a_parked_car_stays(scenario):
    t = scenario.tracks
    assert np.array_equal(t.valid[agent(scenario, 102)], [not 10 <= k < 20 for k in range(41)])
    check_parked(scenario)
    assert "EgoVehicle" not in notes(scenario)
    assert t.num_agents == 5  # the ego itself is among the objects of the file, and left out


def test_lanes_are_midway_between_their_rails_and_linked(scenario):
    m = scenario.map
    first, second, left, oncoming = (element(scenario, i) for i in (11, 12, 21, 31))
    line = m.polyline(first) + scenario.origin
    assert np.allclose(line[[0, -1]], [[-30, 0, 0], [40, 0, 0]], atol=1e-4)
    assert list(m.successors_of(first)) == [second]
    assert list(m.successors_of(second)) == list(m.successors_of(left)) == []
    assert m.left_neighbor[first] == left
    assert m.right_neighbor[left] == first
    assert m.left_neighbor[left] == m.left_neighbor[oncoming] == -1
    assert np.isclose(m.speed_limit[first], 25 * 0.44704)
    assert np.isnan(m.speed_limit[left])


def test_road_edges_have_the_road_on_their_left(scenario):
    m = scenario.map
    below, above = (np.diff(m.polyline(element(scenario, i))[:, 0]) for i in (51, 52))
    assert (below > 0).all()
    assert (above < 0).all()
    assert "reversed 1 road edges" in notes(scenario)
    assert not scenario.flags[scenario.ego] & (AgentFlag.OFFROAD_IN_LOG | AgentFlag.STARTS_OFFROAD)
    walker = agent(scenario, 102)
    assert scenario.flags[walker] & AgentFlag.OFFROAD_IN_LOG


def test_stop_sign_controls_the_lane_behind_its_line(scenario):
    r, m = scenario.routes, scenario.map
    assert list(m.type).count(MapType.STOP_SIGN) == 1
    ego = slice(*r.stop_offsets[scenario.ego : scenario.ego + 2])
    assert np.allclose(r.stop_s[ego], 40 - 1.3965, atol=0.1)
    assert list(r.stop_light[ego]) == [-1]
    assert list(m.type).count(MapType.CROSSWALK) == list(m.type).count(MapType.ROAD_LINE) == 1


def test_lights_have_a_place_and_no_state(scenario):
    lights = scenario.lights
    assert np.allclose(lights.xy + scenario.origin[:2], [[62, -3]], atol=1e-3)
    assert not lights.state.any()
    assert "never what they show" in notes(scenario)


def test_both_formats_give_the_same_drive(tmp_path):
    a, b = (load(write(tmp_path / name).parents[name == "rds_hq"])
            for name, write in FORMATS.items())  # fmt: skip
    assert a.id == b.id
    assert (a.dataset, a.license) == ("rds-hq", "cc-by-4.0")
    assert np.array_equal(a.tracks.id, b.tracks.id)
    assert np.array_equal(a.tracks.valid, b.tracks.valid)
    for name in ("xyz", "yaw", "size", "type"):
        one, other = getattr(a.tracks, name), getattr(b.tracks, name)
        assert np.allclose(one, other, atol=1e-3), name
    order = [np.argsort(s.map.id) for s in (a, b)]
    for name in ("id", "type", "speed_limit"):
        one, other = (getattr(s.map, name)[o] for s, o in zip((a, b), order, strict=True))
        assert np.array_equal(one, other, equal_nan=True), name
    assert len(a.map.successors) == len(b.map.successors) == 1


def test_links_and_neighbors_follow_from_rails_where_none_are_given(tmp_path):
    s = load(files.write_rds_hq(tmp_path, attributes=False).parents[1])
    lanes = np.flatnonzero(s.map.type == MapType.LANE)
    assert list(s.map.successors_of(lanes[0])) == [lanes[1]]
    assert s.map.left_neighbor[lanes[0]] == lanes[2]
    assert s.map.right_neighbor[lanes[2]] == lanes[0]
    assert "inferred 1 lane links" in notes(s)
    assert "inferred 1 pairs of neighboring lanes" in notes(s)


def test_dialect_with_texts_and_associations(tmp_path):
    path = files.write_clipgt(tmp_path, text_speeds=True, prefix=False)
    assert path.name == "egomotion_estimate.parquet"
    s = load(tmp_path)
    first = element(s, 11)
    assert s.id == files.CLIP
    assert np.isclose(s.map.speed_limit[first], 25 * 0.44704)
    assert list(s.map.successors_of(first)) == [element(s, 12)]
    assert s.map.left_neighbor[first] == element(s, 21)
    assert "inferred" not in notes(s)
    assert len(s.routes.stop_s) > 0


def test_ego_box_of_the_calibration(tmp_path):
    files.write_clipgt(tmp_path)
    body = {"length": 4.9, "width": 1.9, "height": 1.5, "boundingBoxPosition": [-1.0, 0, 0]}
    rig = {"rig": {"vehicle": {"valid": True, "value": {"body": body}}}}
    path = tmp_path / f"{files.CLIP}.calibration_estimate.parquet"
    files.write_table(path, [{"calibration_estimate": {"rig_json": json.dumps(rig)}}])
    s = load(tmp_path)
    assert np.allclose(s.tracks.size[s.ego], [4.9, 1.9, 1.5])
    assert np.isclose(s.tracks.xyz[s.ego, 0, 0] + s.origin[0], -1.0 + 4.9 / 2, atol=1e-3)


def test_frames_without_time_stamps_are_30_hz(tmp_path):
    s = load(files.write_rds_hq(tmp_path, stamps=False).parents[1])
    assert s.tracks.num_frames == 41
    assert np.allclose(s.tracks.velocity[s.ego], [6.0, 0.0], atol=1e-2)
    assert "30 Hz" in notes(s)


def test_poses_of_the_front_camera_stand_in_for_those_of_the_rig(tmp_path):
    camera = np.eye(4)
    camera[:3, :3] = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # right, down, forward
    members = {}
    for i in range(91):
        camera[:3, 3] = [1.7 + 0.2 * i, 0, 1.45]
        members[f"{i:06d}.pose.camera_front_wide_120fov.npy"] = files.npy(camera)
    files.write_tar(tmp_path / "pose" / "clip-7.tar", members)
    s = load(tmp_path)
    x = s.tracks.xyz[s.ego, :, 0] + s.origin[0]
    assert np.allclose(x, 1.3965 + 0.6 * np.arange(31), atol=1e-3)
    assert np.allclose(s.tracks.xyz[s.ego, :, 2] + s.origin[2], 0.7515, atol=1e-3)
    assert "front camera" in notes(s)
    assert "the ego is alone" in notes(s)


def test_parts_are_taken_in_by_the_poses_alone(tmp_path):
    archives = [files.write_rds_hq(tmp_path / "a"), files.write_rds_hq(tmp_path / "a", "clip-8")]
    table = files.write_clipgt(tmp_path / "b")
    every = [p for p in tmp_path.rglob("*") if p.is_file()]
    carriers = {*archives, table}
    for path in every:
        head = path.read_bytes()[:4096]
        assert (rds_hq.sniff(head, path) or clipgt.sniff(head, path)) == (path in carriers)
        assert (rds_hq.part(path) or clipgt.part(path)) == (path not in carriers)
    scenarios, skipped = load_scenarios(tmp_path)
    assert not skipped
    assert [s.id for s in scenarios] == ["clip-7", "clip-8", "clip-7"]


def test_sample_interpolates_the_short_way_round():
    time, yaw = np.array([0.0, 0.1, 0.8]), np.array([3.1, -3.1, -3.0])
    xyz = np.array([[0.0, 0, 0], [1, 0, 0], [9, 0, 0]])
    grid = np.array([0.05, 0.11, 0.4, 0.79, 0.9])
    place, heading, valid = sample(time, xyz, yaw, grid)
    assert list(valid) == [True, True, False, True, False]
    assert np.allclose(place[[0, 1, 3], 0], [0.5, 1.0, 9.0])
    assert np.isclose(abs(heading[0]), np.pi, atol=0.01)


def test_small_texts():
    assert np.isclose(speed("50 km/h"), 50 / 3.6)
    assert np.isclose(speed(65.0), 29.0576)
    assert np.isnan([speed("NONE"), speed(None), speed(0.0)]).all()
    assert drivable_share(["FORWARD", "NOT_DRIVABLE"]) == 0.5
    assert drivable_share([]) == 0.0


def test_messages_of_damaged_archives(tmp_path):
    poses = files.write_rds_hq(tmp_path, map_too=False)
    whole = poses.read_bytes()
    poses.write_bytes(whole[: len(whole) // 2 + 100])
    assert "truncated" in refused(poses)
    poses.write_bytes(whole[:600] + b"x" + whole[601:])
    assert "must be a .npy file of 4 x 4 floats" in refused(poses)
    poses.write_bytes(b"y" + whole[1:])
    assert "checksum" in refused(poses)
    files.write_tar(poses, {"000000.vehicle_pose.npy": files.npy(np.eye(4))})
    assert "2 ego poses or more, got 1" in refused(poses)
    files.write_tar(poses, {"000000.vehicle_pose.npy": files.npy(np.array([print, 1]))})
    assert "must be a .npy file" in refused(poses)
    files.write_tar(poses, {"other.npy": b""})
    assert "holds no members named" in refused(poses)
    bent = {f"{i:06d}.vehicle_pose.npy": files.npy(2 * np.eye(4) * (i + 1)) for i in range(9)}
    files.write_tar(poses, bent)
    assert "axes of length 1" in refused(poses)


def test_archives_are_never_unpacked_nor_links_followed(tmp_path):
    poses = files.write_rds_hq(tmp_path / "in", map_too=False)
    with tarfile.open(poses, "w") as archive:
        info = tarfile.TarInfo("../../000000.vehicle_pose.npy")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    assert "a link or device" in refused(poses)
    huge = tarfile.TarInfo("clip-7.000000.vehicle_pose.npy")
    huge.size = 2**40
    poses.write_bytes(huge.tobuf(tarfile.GNU_FORMAT))
    assert "its size must be 0 to" in refused(poses)
    assert not list(tmp_path.rglob("*passwd*"))
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} == {".tar"}


def test_messages_of_damaged_maps_and_objects(tmp_path, monkeypatch):
    poses = files.write_rds_hq(tmp_path)
    lanes = tmp_path / "3d_lanes" / poses.name
    for data, message in (
        (b"{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "a list 'labels'"),
        (b'{"labels": [7]}', "label 0: must be a JSON object"),
        (
            b'{"labels": [{"labelData": {"shape3d": {"polyline3d": {"vertices": [1, 2]}}}}]}',
            "a list of points with x, y and z",
        ),
    ):
        files.write_tar(lanes, {"lanes.json": data})
        assert message in refused(poses)
    for limit, message in (("POINTS", "holds 25 points"), ("LENGTH", "km long")):
        with monkeypatch.context() as patch:
            patch.setattr(f"alpagym.scenarios.readers.nvidia_map.MAX_{limit}", 20)
            files.write_tar(lanes, {"lanes.json": b'{"labels": []}'})
            assert message in refused(poses)
    lanes.unlink()
    objects = tmp_path / "all_object_info" / poses.name
    files.write_tar(objects, {"000000.all_object_info.json": b'{"1": {"object_type": "Car"}}'})
    assert "must be [4, 4] finite numbers" in refused(poses)
    objects.unlink()
    stamps = tmp_path / "timestamp" / poses.name
    files.write_tar(stamps, {f"{i:06d}.timestamp_micros.txt": b"5" for i in range(3)})
    assert "not after the one before" in refused(poses)
    far = {f"{i:06d}.timestamp_micros.txt": b"%d" % (i * 10**15) for i in range(130)}
    files.write_tar(stamps, far)
    assert "are more than is read" in refused(poses)


def test_messages_of_damaged_tables(tmp_path, monkeypatch):
    ego = files.write_clipgt(tmp_path)
    whole = ego.read_bytes()
    ego.write_bytes(whole[:-40])
    assert "damaged Parquet file" in refused(ego)
    files.write_table(ego, [{"key": {"timestamp_micros": 0}}])
    assert "no column 'egomotion_estimate.location.x'" in refused(ego)
    ego.write_bytes(whole)
    lanes = ego.with_name(f"{files.CLIP}.lane.parquet")
    files.write_table(lanes, [{"lane": {"left_rail": [1.0], "right_rail": None}}])
    assert "row 0: 'left_rail' must be a list of points" in refused(ego)
    files.write_table(lanes, [{"road": 1}])
    assert "no column 'lane'" in refused(ego)
    rows = [{"key": {"map_id": "x" * 5000}, "lane": {"left_rail": []}}] * 5
    files.write_table(lanes, rows)
    assert "holds a text of 5000 bytes" in refused(ego)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install alpagym[nvidia]" in refused(ego)


REAL = "nvidia_rds_hq/assets/example"
MADE = "synthetic_roadgen/fabriksgatan"


@pytest.mark.parametrize(
    ("name", "lanes", "links", "edges", "frames"),
    [
        (REAL, 344, 336, 93, 100),
        (f"{MADE}.rds_hq", 20, 24, 32, 94),
        (f"{MADE}.clipgt", 20, 24, 32, 94),
    ],
)
def test_published_samples(shared_data, name, lanes, links, edges, frames):
    (s,), _ = load_scenarios(shared_data / name)
    kinds = list(s.map.type)
    assert kinds.count(MapType.LANE) == lanes
    assert len(s.map.successors) == links
    assert kinds.count(MapType.ROAD_EDGE) == edges
    assert s.tracks.num_frames == frames
    assert s.tracks.type[s.ego] == AgentType.VEHICLE
    path = s.tracks.xyz[s.ego]
    gaps = np.min(
        [np.abs(project(s.map.polyline(int(i)).astype(float), path)[1])
         for i in np.flatnonzero(s.map.type == MapType.LANE)], axis=0)  # fmt: skip
    assert gaps.max() < 1.5  # in a lane throughout
    assert not s.flags[s.ego] & (AgentFlag.STARTS_OFFROAD | AgentFlag.OFFROAD_IN_LOG)
    # The recorded heading is that of the motion: the pose is that of the rear axle, not a corner.
    step = np.diff(path[:, :2], axis=0)
    course = np.arctan2(step[:, 1], step[:, 0])
    assert np.abs(np.sin(s.tracks.yaw[s.ego, 1:] - course)).max() < 0.05


def test_samples_of_one_junction_agree(shared_data):
    (a,), _ = load_scenarios(shared_data / f"{MADE}.rds_hq")
    (b,), _ = load_scenarios(shared_data / f"{MADE}.clipgt")
    assert a.id == b.id
    assert np.allclose(a.tracks.xyz + a.origin, b.tracks.xyz + b.origin, atol=1e-3)
    for kind in (MapType.LANE, MapType.ROAD_EDGE):
        ends = [
            sorted(
                tuple(np.round(s.map.polyline(int(i))[[0, -1]].astype(float) + s.origin, 2).ravel())
                for i in np.flatnonzero(s.map.type == kind)
            )
            for s in (a, b)
        ]
        assert np.allclose(*ends, atol=0.02)
    assert np.isclose(DEFAULT_BOX.center[0], 1.3965)
