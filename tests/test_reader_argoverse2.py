"""What the Argoverse 2 readers make of logs whose content is known, damaged ones and real ones."""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as parquet
import pytest

from alpagym.scenarios.flags import beyond_edge
from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.polyline import cut_segments
from alpagym.scenarios.readers.argoverse2_map import center_line
from alpagym.scenarios.scenario import AgentFlag, AgentType, MapType, ScenarioError
from argoverse2_files import (
    AXLE,
    LOG,
    ORIGIN,
    PITCH,
    arc,
    city_map,
    ego_pose,
    lane,
    matrix,
    motion_rows,
    points,
    sensor_tables,
    write_motion,
    write_sensor,
)
from reading import agent, element, only


def refuse(path: Path, *words: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        load_scenarios(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert ". " not in sentence
    assert str(path.parent) in sentence
    for word in words:
        assert word in sentence, sentence


def of_type(scenario, kind: MapType) -> list[np.ndarray]:
    """Polylines of a type in the source's local frame (less ORIGIN) [n, 3]."""
    shift = scenario.origin - ORIGIN
    m = scenario.map
    return [m.polyline(int(e)) + shift for e in np.flatnonzero(m.type == kind)]


class TestMotion:
    def test_tracks(self, tmp_path):
        s = only(write_motion(tmp_path))
        assert (s.id, s.dataset, s.license) == (LOG, "argoverse2", "argoverse2-nc")
        assert (s.start_frame, s.dt, s.has_z, s.tracks.num_frames) == (49, 0.1, False, 110)
        bus = agent(s, 17)
        assert np.flatnonzero(~s.tracks.valid[bus]).tolist() == list(range(20, 30))
        place = (s.tracks.xyz[bus, 40] + s.origin)[:2] - ORIGIN[:2]
        assert place == pytest.approx([50, -5.25], abs=1e-3)
        assert s.tracks.yaw[bus, 40] == pytest.approx(0, abs=1e-6)
        assert s.tracks.velocity[bus, 40] == pytest.approx([5, 0])
        assert s.tracks.size[bus] == pytest.approx([11.0, 2.9, 3.2])
        assert s.tracks.type[bus] == AgentType.VEHICLE
        kinds = sorted(s.tracks.type.tolist())
        assert kinds == [1, 1, AgentType.CYCLIST, AgentType.OTHER]
        assert len(set(s.tracks.id.tolist())) == 4

    def test_the_ego_is_moved_from_its_rear_axle_to_its_box_center(self, tmp_path):
        s = only(write_motion(tmp_path))
        t = 0.1 * np.arange(110)
        axle, yaw = arc(t)
        ahead = np.stack([np.cos(yaw), np.sin(yaw)], axis=1)
        center = s.tracks.xyz[s.ego, :, :2] + s.origin[:2] - ORIGIN[:2]
        assert np.allclose(center, axle + AXLE * ahead, atol=1e-3)
        assert np.allclose(s.tracks.velocity[s.ego, 1:-1], np.gradient(center, t, axis=0)[1:-1],
                           atol=0.02)  # fmt: skip
        assert s.tracks.size[s.ego] == pytest.approx([4.877, 2.0, 1.473])
        assert "rear axle" in "; ".join(s.notes)

    def test_history_alone_is_a_scenario(self, tmp_path):
        rows = [r for r in motion_rows() if r["timestep"] < 50]
        s = only(write_motion(tmp_path, rows))
        assert (s.tracks.num_frames, s.start_frame) == (50, 10)

    def test_given_center_lines_are_used(self, tmp_path):
        segments = city_map()["lane_segments"]
        segments["3"]["centerline"] = points([(-40, -5, -20), (50, -5.5, -20)])
        s = only(write_motion(tmp_path, lane_segments=segments))
        line = s.map.polyline(element(s, 3)) + s.origin - ORIGIN
        assert line[[0, -1], 1] == pytest.approx([-5, -5.5], abs=1e-3)
        assert (s.map.points[:, 2] == 0).all()

    def test_folder_passes_over_maps(self, tmp_path):
        write_motion(tmp_path / "a")
        write_sensor(tmp_path / "b")
        scenarios, skipped = load_scenarios(tmp_path)
        assert len(scenarios) == 2
        assert not skipped
        (tmp_path / "b" / "map" / "drives.csv").write_text("x, y")
        (reason,) = [s.reason for s in load_scenarios(tmp_path)[1]]
        assert "drives.csv: of no known format" in reason

    @pytest.mark.parametrize("package", ["pyarrow", "shapely"])
    def test_a_missing_extra_is_named(self, tmp_path, monkeypatch, package):
        path = write_motion(tmp_path)
        monkeypatch.setitem(sys.modules, package, None)
        refuse(path, package, "pip install alpagym[av2]")

    def test_a_map_alone_is_refused(self, tmp_path):
        write_motion(tmp_path)
        refuse(tmp_path / f"log_map_archive_{LOG}.json", "holds only parts")

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"track_id": "5"}, "none of the 4 tracks is 'AV'"),
            ({"timestep": -1}, "time steps must be 0 to 1999, got -1"),
            ({"timestep": 10**9}, "time steps must be 0 to 1999"),
            ({"scenario_id": "x"}, "of one scenario, got 2 ids"),
            ({"heading": None}, "column 'heading' lacks 1 values"),
            ({"position_x": float("nan")}, "position must be finite"),
            ({"position_x": 1e9}, "distance from the ego must be at most"),
        ],
    )
    def test_refused_rows(self, tmp_path, change, words):
        rows = motion_rows()
        for row in rows[: 1 if "track_id" not in change else None]:
            row.update(change if "track_id" not in change or row["track_id"] == "AV" else {})
        refuse(write_motion(tmp_path, rows), words)

    def test_refused_tables(self, tmp_path):
        rows = [{k: v for k, v in r.items() if k != "heading"} for r in motion_rows()]
        refuse(write_motion(tmp_path / "a", rows), "no column 'heading'")
        rows = [r | {"timestep": "soon"} for r in motion_rows()]
        refuse(write_motion(tmp_path / "b", rows), "column 'timestep' is no int but")
        path = write_motion(tmp_path / "c")
        path.write_bytes(b"PAR1" + bytes(100))
        refuse(path, "damaged Parquet file")
        path = write_motion(tmp_path / "d")
        next(path.parent.glob("log_map*")).unlink()
        refuse(path, "expected one map", "found none")
        table = pa.table({"track_id": pa.nulls(600_000, pa.string()).fill_null("AV")})
        parquet.write_table(table, path)
        refuse(path, "a table of 600000 rows", "not plausible")


class TestMap:
    def test_lanes_links_and_neighbors(self, tmp_path):
        s = only(write_sensor(tmp_path))
        one, two, three, four = (element(s, i) for i in (1, 2, 3, 4))
        assert s.map.successors_of(one).tolist() == [two]  # which only lane 2 tells
        assert s.map.successors_of(two).tolist() == []
        assert (s.map.right_neighbor[one], s.map.left_neighbor[three]) == (three, one)
        assert s.map.left_neighbor[one] == -1  # runs the other way
        assert s.map.left_neighbor[four] == -1
        line = s.map.polyline(one) + s.origin - ORIGIN
        assert np.allclose(line[:, 1], -1.75, atol=1e-3)
        assert np.allclose(line[:, 2], 0.01 * line[:, 0], atol=1e-3)
        assert line[[0, -1], 0] == pytest.approx([-40, 50], abs=1e-3)
        assert np.isnan(s.map.speed_limit).all()
        assert "1 lane links that lead out of the map" in "; ".join(s.notes)

    def test_painted_boundaries_once_each(self, tmp_path):
        lines = of_type(only(write_sensor(tmp_path)), MapType.ROAD_LINE)
        assert sorted(round(float(line[0, 1]), 3) for line in lines) == [-3.5, 0.0]

    def test_crossings_are_simple_polygons(self, tmp_path):
        for flip in (False, True):
            crossing = city_map()["pedestrian_crossings"]
            if flip:
                crossing["7"]["edge2"].reverse()
            path = write_sensor(tmp_path / str(flip), pedestrian_crossings=crossing)
            (ring,) = of_type(only(path), MapType.CROSSWALK)
            x, y = ring[:, 0], ring[:, 1]
            assert abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2 == pytest.approx(42, abs=0.1)

    def test_edges_have_the_road_on_the_left_and_are_open_where_lanes_leave(self, tmp_path):
        s = only(write_sensor(tmp_path))
        (edge,) = of_type(s, MapType.ROAD_EDGE)
        assert edge[:, :2] == pytest.approx(
            np.array([(150, 3.5), (-50, 3.5), (-50, -7), (150, -7)]), abs=0.01
        )
        assert "1 segments of road edges across which lanes run" in "; ".join(s.notes)
        segments = cut_segments([edge.astype(np.float32)], np.array([0]), max_step=10.0)
        for xy, outside in (((0, 0), False), ((0, 5), True), ((0, -9), True), ((149, 0), False),
                            ((-55, 0), True), ((160, 0), False)):  # fmt: skip
            place = np.array([[*xy, 0.0]])
            corner = place[:, None, :2]
            assert beyond_edge(segments, place, corner, False).any() == outside, xy

    def test_bridges_do_not_open_edges_below(self, tmp_path):
        segments = city_map()["lane_segments"]
        bridge = lane(5, (20, 24), 0, 0, lane_type="BUS")
        for name, x in (("left_lane_boundary", 20), ("right_lane_boundary", 24)):
            bridge[name] = points([(x, -40, 8.0), (x, 40, 8.0)])
        s = only(write_sensor(tmp_path, lane_segments=segments | {"5": bridge}))
        assert len(of_type(s, MapType.ROAD_EDGE)) == 1

    def test_center_line_of_an_arc(self):
        def bend(radius, count):
            a = np.linspace(0, np.pi / 2, count)
            return np.stack([radius * np.cos(a), radius * np.sin(a), a], axis=1)

        middle = center_line(bend(8, 17), bend(12, 40))
        assert np.hypot(middle[:, 0], middle[:, 1]) == pytest.approx(10, abs=0.02)
        assert middle[[0, -1], 2] == pytest.approx([0, np.pi / 2])
        assert len(center_line(np.ones((2, 3)), np.ones((3, 3)))) >= 2

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"lane_segments": {}}, "has no lane segments"),
            ({"lane_segments": []}, "lacks the object 'lane_segments'"),
            ({"lane_segments": {"1": 3}}, "'lane_segments' 1 must be an object"),
            ({"lane_segments": {"1": lane("a", (0, 1), 1, 0)}}, "an id must be an integer"),
            ({"lane_segments": {"1": lane(1, (0, 1), 1, 0), "2": lane(1, (0, 1), 1, 0)}},
             "1 lane segments share an id"),
            ({"lane_segments": {"1": lane(1, (0, 1), 1, 0, successors=7)}},
             "must be a list of ids"),
            ({"lane_segments": {"1": lane(1, (0, 1e9), 1, 0)}}, "must be finite and below 1e+07"),
            ({"lane_segments": {"1": lane(1, (0, 1), 1, 0, left_lane_boundary=[[1, 2]])}},
             "must be a list of points x, y, z"),
            ({"lane_segments": {"1": lane(1, (0, 1), 1, 0, left_lane_boundary=[])}},
             "must have 2 to 500 points, got 0"),
            ({"drivable_areas": {str(i): {"area_boundary": points(np.eye(3))} for i in range(501)}},
             "501 drivable areas of 1503 corners are more than plausible"),
        ],
    )  # fmt: skip
    def test_refused_maps(self, tmp_path, change, words):
        refuse(write_motion(tmp_path, **change), words, "log_map_archive")

    def test_tangled_areas_are_refused_quickly(self, tmp_path):
        rng = np.random.default_rng(0)
        area = {"1": {"area_boundary": points(rng.uniform(-50, 50, (2000, 3)))}}
        begun = time.perf_counter()
        refuse(write_motion(tmp_path, drivable_areas=area), "cross too often")
        assert time.perf_counter() - begun < 5


class TestSensor:
    def test_the_ego(self, tmp_path):
        s = only(write_sensor(tmp_path))
        assert (s.id, s.ego, s.start_frame, s.has_z) == (LOG, 0, 10, True)
        assert s.tracks.num_frames == 60
        assert s.tracks.valid[0].all()
        for frame in (0, 13, 59):
            place, yaw = ego_pose(0.1 * frame)
            center = place + matrix(yaw, PITCH) @ [AXLE, 0, 1.473 / 2 - 0.3]
            assert s.tracks.xyz[0, frame] + s.origin == pytest.approx(center, abs=2e-3)
            assert s.tracks.yaw[0, frame] == pytest.approx(yaw, abs=1e-4)
        assert np.hypot(*s.tracks.velocity[0, 20]) == pytest.approx(
            np.hypot(5, 0.2 * AXLE), abs=0.02
        )

    def test_boxes_are_lifted_and_resampled(self, tmp_path):
        s = only(write_sensor(tmp_path))
        car, truck, bike = (
            int(np.flatnonzero(np.isclose(s.tracks.size[:, 0], length))[0])
            for length in (4.5, 8.0, 1.8)
        )
        shift = s.origin - ORIGIN
        t = 0.1 * np.arange(60)
        expected = np.stack([10 * t, -5.25 + 0 * t, 0.8 + 0 * t], axis=1)
        assert np.allclose(s.tracks.xyz[car] + shift, expected, atol=2e-3)
        assert np.allclose(s.tracks.xyz[truck] + shift, [60, -5.25, 1.5], atol=2e-3)
        assert np.allclose(s.tracks.yaw[[car, truck]], 0, atol=1e-5)
        assert np.allclose(s.tracks.velocity[car], [10, 0], atol=0.02)
        # Seen until 19 * 0.1004 s and again from 26 * 0.1004 s on.
        assert np.flatnonzero(~s.tracks.valid[bike]).tolist() == list(range(20, 27))
        assert s.tracks.type[[car, truck, bike]].tolist() == [1, 1, AgentType.CYCLIST]
        assert s.flags[truck] & AgentFlag.PARKED
        assert not s.flags[car] & AgentFlag.PARKED

    def test_scenario_mining_files_give_the_ego_its_size(self, tmp_path):
        boxes, poses = sensor_tables()
        own = [b | {"track_uuid": "me", "category": "EGO_VEHICLE", "length_m": 5.0, "tx_m": 0.0}
               for b in boxes if b["track_uuid"] == "car"]  # fmt: skip
        path = write_sensor(tmp_path, boxes + own, poses, name="annotations_with_ego.feather")
        s = only(path)
        assert s.tracks.num_agents == 4
        assert s.tracks.size[0] == pytest.approx([5.0, 1.9, 1.6])
        write_sensor(tmp_path)  # with both files, the log is loaded once
        assert only(tmp_path).tracks.size[0] == pytest.approx([4.877, 2.0, 1.473])

    def test_uncompressed_and_dictionary_columns(self, tmp_path):
        path = write_sensor(tmp_path)
        table = feather.read_table(path)
        coded = table.set_column(2, "category", table["category"].dictionary_encode())
        expected = only(path)
        for codec in ("uncompressed", "zstd", "lz4"):
            feather.write_feather(coded, path, compression=codec, chunksize=50)
            assert np.array_equal(only(path).tracks.xyz, expected.tracks.xyz)

    def test_refused_logs(self, tmp_path):
        path = write_sensor(tmp_path / "a")
        (path.parent / "city_SE3_egovehicle.feather").unlink()
        refuse(path, "city_SE3_egovehicle.feather, are missing")
        path = write_sensor(tmp_path / "b")
        path.unlink()
        refuse(path.parent / "city_SE3_egovehicle.feather", "no agent was annotated")
        path = write_sensor(tmp_path / "c")
        path.write_bytes(path.read_bytes()[:-2000])
        refuse(path, "damaged Feather file")
        path.write_bytes(b"FEA1" + bytes(50))
        refuse(path, "no Feather file")
        boxes, poses = sensor_tables()
        for name, change, words in (
            ("d", {"qw": 7.0}, "row 0: a rotation must be a unit quaternion"),
            ("e", {"tx_m": float("inf")}, "row 0: a position must be finite"),
            ("f", {"timestamp_ns": 2**62}, "stamps must span 200 s or less"),
        ):
            refuse(write_sensor(tmp_path / name, [boxes[0] | change, *boxes[1:]], poses), words)
        refuse(write_sensor(tmp_path / "g", boxes, [p | {"timestamp_ns": 5} for p in poses]),
               "no box was annotated while")  # fmt: skip

    def test_a_small_file_that_unpacks_to_a_large_table_is_refused(self, tmp_path):
        path = write_sensor(tmp_path)
        zeros = np.zeros(450_000)
        table = pa.table({f"c{i}": zeros for i in range(90)})
        feather.write_feather(table, path, compression="zstd", chunksize=450_000)
        assert path.stat().st_size < 200_000
        refuse(path, "not plausible")


class TestRecorded:
    @pytest.mark.parametrize("folder", ["argoverse2_motion", "argoverse2_sensor"])
    def test_counts_and_the_ego_on_the_road(self, shared_data, folder):
        with (shared_data / "index.csv").open() as file:
            listed = {r["id"]: r for r in csv.DictReader(file) if r["file"].startswith(folder)}
        scenarios, _ = load_scenarios(shared_data / folder)
        assert {s.id for s in scenarios} == set(listed)
        for s in scenarios:
            row = listed[s.id]
            assert s.tracks.num_agents == int(row["n_agents"])
            assert s.tracks.num_frames == int(row["steps"])
            counts = np.bincount(s.tracks.type, minlength=5)
            for kind, name in ((1, "n_vehicle"), (2, "n_pedestrian"), (3, "n_cyclist")):
                assert counts[kind] == int(row[name]), name
            bad = AgentFlag.OFFROAD_IN_LOG | AgentFlag.OVERLAPS_IN_LOG
            assert not s.flags[s.ego] & bad
            lanes = np.concatenate(
                [s.map.polyline(int(i))[:, :2] for i in np.flatnonzero(s.map.type == MapType.LANE)]
            )
            ego = s.tracks.xyz[s.ego][s.tracks.valid[s.ego], :2]
            gap = np.hypot(*(ego[::8, None] - lanes[None]).transpose(2, 0, 1)).min(1)
            assert np.median(gap) < 5.5  # points of a lane are 10 m apart at most
            speed = np.hypot(*np.diff(ego, axis=0).T) / s.dt
            known = np.hypot(*s.tracks.velocity[s.ego].T)
            assert np.median(np.abs(speed - known[1:])) < 0.3
