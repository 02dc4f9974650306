"""nuPlan logs and maps: poses, boxes, map, route, and what is made of broken databases."""

from __future__ import annotations

import shutil
import sqlite3
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

import nuplan_files as files
from alpagym.config import SimConfig
from alpagym.evaluation import evaluate
from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.polyline import cut_segments, on_segment, split_long_steps
from alpagym.scenarios.readers import geopackage, nuplan, nuplan_map, sqlite_tables
from alpagym.scenarios.readers.argoverse2_tables import track_number
from alpagym.scenarios.scenario import AgentFlag, LightState, MapType, Scenario, ScenarioError
from reading import agent, element, notes

pytest.importorskip("pyproj", reason="nuPlan needs pyproj: pip install alpagym[nuplan]")
pytest.importorskip("shapely", reason="nuPlan needs shapely: pip install alpagym[nuplan]")


@pytest.fixture(autouse=True)
def no_maps_elsewhere(monkeypatch):
    for name in ("NUPLAN_MAPS_ROOT", "NUPLAN_DATA_ROOT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The log in its tree."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("NUPLAN_MAPS_ROOT", raising=False)
        return files.write_dataset(tmp_path_factory.mktemp("nuplan"))


@pytest.fixture(scope="module")
def scenarios(made) -> list[Scenario]:
    loaded, skipped = load_scenarios(made.parents[3])
    assert not skipped  # maps and their index are passed over
    return loaded


@pytest.fixture
def copy(made, tmp_path) -> Path:
    """The log in a tree of its own, to be damaged."""
    shutil.copytree(made.parents[3], tmp_path / "data")
    return tmp_path / "data" / made.relative_to(made.parents[3])


def map_of(log: Path) -> Path:
    return log.parents[3] / "maps" / files.LOCATION / files.VERSION / "map.gpkg"


def refused(path: Path) -> str:
    with pytest.raises(ScenarioError) as error:
        load_scenarios(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def change(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def track(scenario: Scenario, token: bytes) -> int:
    return agent(scenario, track_number(token.hex()))


def place(scenario: Scenario, points: np.ndarray) -> np.ndarray:
    """Meters from the place of the test's map."""
    return points[..., :2] + scenario.origin[:2] - files.PLACE


def test_each_scene_is_a_scenario_and_the_rest_a_window(scenarios):
    first, second, rest = scenarios
    assert [first.id, second.id] == [token.hex() for token in files.SCENES]
    assert rest.id == struct.pack(">Q", 0x1000 + 241).hex()  # of its first sweep
    assert [s.tracks.num_frames for s in scenarios] == [61, 60, 10]
    assert {(s.dataset, s.license, s.dt) for s in scenarios} == {("nuplan", "nuplan-nc", 0.1)}
    assert first.kind == "following_lane_with_lead"
    assert second.kind == ""


def test_ego_is_its_box_ahead_of_the_rear_axle(scenarios):
    s = scenarios[0]
    t, ego = s.tracks, s.ego
    expected = files.START_X + files.SPEED * 0.1 * np.arange(61) + 1.461
    assert t.valid[ego].all()
    assert np.allclose(place(s, t.xyz[ego]), np.stack([expected, 0 * expected], 1), atol=1e-3)
    assert np.allclose(t.size[ego], [5.176, 2.297, 1.777])
    assert np.allclose(t.velocity[ego], [files.SPEED, 0], atol=1e-5)
    assert not s.has_z
    assert "dropped heights" in notes(s)


def test_boxes_are_resampled_from_uneven_sweeps(scenarios):
    s = scenarios[0]
    car, cone, walker = (track(s, x) for x in (files.CAR, files.CONE, files.WALKER))
    x = place(s, s.tracks.xyz[car])[:, 0]
    assert np.allclose(x, files.START_X + 20 + files.SPEED * 0.1 * np.arange(61), atol=1e-3)
    assert np.allclose(s.tracks.size[car], [4.6, 1.9, 1.6])
    assert list(s.tracks.type[[car, cone, walker]]) == [1, 4, 2]
    assert s.tracks.valid[walker].sum() == 20
    assert np.allclose(np.abs(s.tracks.yaw[walker, :20]), np.pi, atol=1e-6)
    assert np.allclose(s.tracks.velocity[walker, :20], [-1, 0], atol=1e-6)
    assert s.tracks.type[track(scenarios[1], files.BICYCLE)] == 3 if len(s.tracks.type) > 4 else 1
    assert s.flags[cone] & AgentFlag.PARKED


def test_who_is_on_a_bridge_over_the_drive_is_left_out(scenarios):
    number = track_number(files.ON_A_BRIDGE.hex())
    assert number not in scenarios[0].tracks.id
    assert "left out 1 agents that are on a bridge" in notes(scenarios[0])


def test_lanes_links_neighbors_and_limits(scenarios):
    s = scenarios[0]
    m = s.map
    lane = {i: element(s, i) for i in (101, 102, 103, 104, 105, 106, 201, 202, 203)}
    follow = {i: {int(m.id[j]) for j in m.successors_of(e)} for i, e in lane.items()}
    assert follow == {
        101: {201, 203}, 102: {202}, 103: set(), 104: set(), 105: set(), 106: set(),
        201: {103}, 202: {104}, 203: {105},
    }  # fmt: skip
    assert m.left_neighbor[lane[101]] == lane[102]
    assert m.right_neighbor[lane[102]] == lane[101]
    assert m.left_neighbor[lane[102]] == m.right_neighbor[lane[101]] == -1
    assert m.left_neighbor[lane[106]] == -1
    assert np.allclose(m.speed_limit[[lane[101], lane[203]]], [11.0, 6.0])
    assert np.isnan(m.speed_limit[lane[103]])
    assert 900 not in m.id  # two kilometers away
    line = place(s, m.polyline(lane[203]))
    assert np.allclose(line[[0, -1]], [[0, 0], [10, -10]], atol=1e-3)  # of degrees and back


def test_road_edges_outline_the_union_with_the_road_on_their_left(scenarios):
    s = scenarios[0]
    edges = [
        place(s, s.map.polyline(int(e))) for e in np.flatnonzero(s.map.type == MapType.ROAD_EDGE)
    ]
    segments = cut_segments(edges, np.arange(len(edges)), max_step=1.0)
    inside = np.array([[-90, 0], [-20, -1.0], [-50, -6], [5, -5], [10, -50], [40, 8], [10, 8.0]])
    outside = np.array([[-90, -3], [-30, -4], [15, -7.5], [30, -5], [-50, -9], [-20, 10]])
    for points, sign in ((inside, 1), (outside, -1)):
        for point in points:
            index = np.arange(len(segments.owner))
            _, gap = on_segment(segments, index, np.tile([*point, 0.0], (len(index), 1)))
            nearest = int(gap.argmin())
            offset = point - segments.middle[nearest, :2]
            step = segments.step[nearest]
            assert np.sign(step[0] * offset[1] - step[1] * offset[0]) == sign, point
    # None runs across the road where two polygons meet.
    every = np.concatenate([split_long_steps(e, 0.5) for e in edges])
    joint = (np.abs(every[:, 0]) < 1) & (every[:, 1] > -1.6) & (every[:, 1] < 8.6)
    assert not joint.any()
    near = s.tracks.xyz[s.ego][:, :2]
    far = [np.hypot(*(near[:, None] - (e - place(s, np.zeros(2)))[None]).transpose(2, 0, 1)).min(0)
           for e in edges]  # fmt: skip
    assert max(f.max() for f in far) < nuplan_map.RADIUS + 5
    assert not s.flags[s.ego] & (AgentFlag.STARTS_OFFROAD | AgentFlag.OFFROAD_IN_LOG)
    assert not s.flags[track(s, files.CONE)] & AgentFlag.OFFROAD_IN_LOG  # on the car park
    assert s.flags[track(s, files.WALKER)] & AgentFlag.OFFROAD_IN_LOG


def test_other_elements(scenarios):
    s = scenarios[0]
    kinds = list(s.map.type)
    assert kinds.count(MapType.ROAD_LINE) == 1
    assert kinds.count(MapType.CROSSWALK) == 1
    assert kinds.count(MapType.STOP_SIGN) == 1
    assert len(np.unique(s.map.id)) == len(s.map.id)
    assert "left out 1 lane boundaries that are not painted" in notes(s)
    assert "left out 1 stop polygons of other kinds" in notes(s)


def test_lights_of_connectors(scenarios):
    first, second, _ = scenarios
    (straight, turn) = first.lights.state
    assert list(first.map.id[first.lights.lane]) == [201, 203]
    assert set(straight[:30]) == {LightState.GREEN}
    assert set(straight[31:]) == {LightState.RED}
    assert set(turn[:10]) == {LightState.ABSENT}
    assert set(turn[11:]) == {LightState.UNKNOWN}
    assert np.allclose(place(first, first.lights.xy), 0, atol=1e-3)
    assert set(second.lights.state[0]) == {LightState.RED}


def test_stop_sign_stops_at_the_end_of_the_lane_before(tmp_path):
    (s, *_), _ = load_scenarios(files.write_dataset(tmp_path, lights=False).parents[3])
    own = slice(*s.routes.stop_offsets[s.ego : s.ego + 2])
    assert list(s.routes.stop_light[own]) == [-1]
    assert np.allclose(s.routes.stop_s[own], 90 - 1.461, atol=0.1)


def test_route_goes_on_along_the_mission_and_else_straight_on(scenarios):
    ends = []
    for s in scenarios[:2]:
        own = slice(*s.routes.offsets[s.ego : s.ego + 2])
        ends.append(place(s, s.routes.points[own])[-1])
    assert np.allclose(ends[0][0], 10, atol=0.1)
    assert ends[0][1] < -60
    assert np.allclose(ends[1][1], 0, atol=0.1)


def test_replayed_log_neither_collides_nor_leaves_the_road(scenarios):
    usable = [s for s in scenarios if s.num_steps > 2]
    results, _ = evaluate("log", usable, SimConfig(end_on=()))
    assert not results.offroad.any()
    assert not results.collision_any.any()


def test_a_log_without_scenes_is_cut_into_windows(tmp_path):
    log = files.write_dataset(tmp_path, scenes=False)
    loaded, skipped = load_scenarios(log)
    assert not skipped
    assert [s.tracks.num_frames for s in loaded] == [131]
    assert loaded[0].id == struct.pack(">Q", 0x1000).hex()


def test_maps_are_found_and_passed_over(made, tmp_path, monkeypatch):
    lone = tmp_path / "logs" / made.name
    lone.parent.mkdir()
    shutil.copy(made, lone)
    assert refused(lone) == (
        f"{lone}: its map, us-ma-boston/<version>/map.gpkg, was not found: set NUPLAN_MAPS_ROOT to "
        "the folder of nuPlan's maps"
    )
    maps = made.parents[3] / "maps"
    monkeypatch.setenv("NUPLAN_MAPS_ROOT", str(maps))
    assert len(load_scenarios(lone)[0]) == 3
    monkeypatch.delenv("NUPLAN_MAPS_ROOT")
    shutil.copy(map_of(made), lone.parent / "map.gpkg")
    assert len(load_scenarios(lone.parent)[0]) == 3
    assert "only parts of scenarios" in refused(maps)
    assert nuplan.sniff(made.read_bytes()[:4096], made)
    assert not nuplan.sniff(map_of(made).read_bytes()[:4096], map_of(made))


def test_only_what_the_dataset_has_is_a_part(made, tmp_path):
    maps, blobs = made.parents[3] / "maps", "data/sensor_blobs/2021.05.12.22.00.38_veh-35"
    for part in (
        map_of(made),
        maps / "nuplan-maps-v1.0.json",
        map_of(made).with_name("intensity.npy.npz"),
        Path(blobs, "CAM_F0", "c082c104b7ac5a71.jpg"),
        Path(blobs, "MergedPointCloud", "03fafcf2c0865668.pcd"),
    ):
        assert nuplan.part(part), part
    other = tmp_path / "my.gpkg"
    other.write_bytes(b"SQLite format 3\0")
    for own in (
        made,
        other,
        map_of(made).with_name("drives.tfrecord"),
        maps / "nuplan-maps-of-mine.json",
        Path(blobs, "drive.json"),
        Path(blobs, "CAM_F0", "drives.pkl"),
        Path("sensor_blobs", "womd.tfrecord"),
    ):
        assert not nuplan.part(own), own
    named = tmp_path / "us-ma-boston.gpkg"
    shutil.copy(map_of(made), named)
    assert nuplan.part(named)


def test_the_latest_of_several_maps_is_taken(copy):
    other = map_of(copy).parents[1] / "9.9.1" / "map.gpkg"
    other.parent.mkdir()
    other.write_bytes(b"")
    assert len(load_scenarios(copy)[0]) == 3


def test_nothing_is_written(copy):
    before = {p: p.stat().st_mtime_ns for p in copy.parents[3].rglob("*")}
    load_scenarios(copy)
    assert {p: p.stat().st_mtime_ns for p in copy.parents[3].rglob("*")} == before


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DROP TABLE lidar_box", "no nuPlan log: the database has no table 'lidar_box'"),
        ("DELETE FROM lidar_pc", "no lidar sweeps"),
        ("DELETE FROM ego_pose", "table 'ego_pose' has no pose '0000000000002000'"),
        ("ALTER TABLE ego_pose DROP COLUMN qw", "table 'ego_pose' has no column 'qw'"),
        ("UPDATE ego_pose SET qw = 7", "must be a finite place and a unit quaternion"),
        ("UPDATE ego_pose SET x = 'far'", "column 'x' must be numbers, got 'far'"),
        ("UPDATE ego_pose SET x = NULL", "must be a finite place"),
        ("UPDATE ego_pose SET x = x + 9e7", "outside EPSG:32619"),
        ("UPDATE ego_pose SET x = x + 50000", "has no lanes near the drive"),
        ("UPDATE log SET map_version = '../../etc', location = NULL", "does not name the map"),
        ("UPDATE log SET map_version = 'mars', location = 'mars'", "mars/<version>/map.gpkg"),
        ("UPDATE lidar_box SET yaw = X'00'", "column 'yaw' must be numbers"),
        ("UPDATE lidar_box SET vx = 1e6", "speed must be at most 200"),
    ],
)
def test_refused_logs(copy, statement, words):
    change(copy, statement)
    sentence = refused(copy)
    assert words in sentence
    assert str(copy) in sentence or str(map_of(copy)) in sentence


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DROP TABLE meta", "has no table 'meta'"),
        ("DELETE FROM meta", "does not name the zone"),
        ("UPDATE meta SET value = 'mars'", "must name the zone of the map"),
        ("UPDATE meta SET value = 'epsg:99999'", "no way from EPSG:4326 to EPSG:99999"),
        ("DROP TABLE baseline_paths", "has no lanes near the drive"),
        ("UPDATE baseline_paths SET geom = X'0000'", "does not begin with 'GP'"),
        ("UPDATE baseline_paths SET geom = substr(geom, 1, 60)", "damaged geometry"),
        ("UPDATE baseline_paths SET geom = substr(geom, 1, 12)", "its bounding box"),
        ("UPDATE lanes_polygons SET speed_limit_mps = 'slow'", "must be numbers, got 'slow'"),
    ],
)
def test_refused_maps(copy, statement, words):
    change(map_of(copy), statement)
    assert words in refused(copy)


def test_left_out_with_a_note(copy):
    change(copy, "UPDATE lidar_box SET x = NULL WHERE track_token = X'a3a3a3a3a3a3a3a3'")
    change(copy, "DELETE FROM track WHERE token = X'a1a1a1a1a1a1a1a1'")
    change(map_of(copy), "DELETE FROM baseline_paths WHERE lane_fid = 104")
    s = load_scenarios(copy)[0][0]
    assert "boxes without a finite place" in notes(s)
    assert "took 1 agents without a category as unknown" in notes(s)
    assert "left out 1 lanes without a center line" in notes(s)


def test_a_view_that_never_ends_is_no_table(copy):
    change(
        copy,
        "ALTER TABLE lidar_box RENAME TO boxes",
        "CREATE VIEW lidar_box AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT i AS x FROM n",
    )
    assert "no table 'lidar_box'" in refused(copy)


def test_statements_that_cost_too_much_are_ended(copy, monkeypatch):
    monkeypatch.setattr(sqlite_tables, "BASE_INSTRUCTIONS", 0)
    monkeypatch.setattr(sqlite_tables, "INSTRUCTIONS_PER_BYTE", 0)
    assert "reading it takes more steps" in refused(copy)


def test_huge_values_and_counts_are_refused(copy, monkeypatch):
    change(map_of(copy), f"UPDATE baseline_paths SET geom = zeroblob({5 * 2**20}) WHERE fid = 1003")
    assert "damaged SQLite database (string or blob too big)" in refused(copy)
    monkeypatch.setattr(nuplan, "MAX_SWEEPS", 100)
    assert "more rows than the 100" in refused(copy)


def test_intricate_maps_are_refused(copy, monkeypatch):
    for name, limit, words in (
        ("MAX_CORNERS", 20, "corners near one drive are more than plausible"),
        ("MAX_CROSSINGS", 1, "cross too often"),
        ("MAX_POINTS", 30, "the map near one drive has"),
        ("MAX_LINE", 2, "a line of 3 points is more than plausible"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(nuplan_map, name, limit)
            assert words in refused(copy)
    monkeypatch.setattr(geopackage, "MAX_POINTS", 10)
    assert "more points near the drive" in refused(copy)


def test_missing_packages_are_named(copy, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyproj", None)
    assert "pip install alpagym[nuplan]" in refused(copy)


def test_a_file_that_is_no_database(tmp_path):
    path = tmp_path / "thumbs.db"
    path.write_bytes(b"x" * 5000)
    assert "damaged SQLite database (file is not a database)" in refused(path)


def test_a_shape_without_an_outline_is_passed_over(copy):
    square = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 0.0]])
    hole_alone = files.blob(3, [np.zeros((0, 2)), square])
    change(map_of(copy), f"UPDATE crosswalks SET geom = X'{hole_alone.hex()}'")
    scenarios, skipped = load_scenarios(copy)
    assert scenarios
    assert not skipped
    assert not (scenarios[0].map.type == MapType.CROSSWALK).any()
