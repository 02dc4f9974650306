"""PufferDrive .bin files of each layout: the same drive as from the JSON they were made of."""

from __future__ import annotations

import copy
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alpagym.scenarios.polyline import project
from alpagym.scenarios.readers import pufferdrive_bin
from alpagym.scenarios.scenario import AgentFlag
from reading import notes, only, refused
from scenario_files import (
    FRAMES,
    SHARED,
    json_object,
    json_road,
    json_scenario,
    proto_scenario,
    write_json,
    write_tfrecord,
)

TYPES = {"vehicle": 1, "pedestrian": 2, "cyclist": 3}
ROADS = {
    "lane": 4,
    "road_line": 5,
    "road_edge": 6,
    "stop_sign": 7,
    "crosswalk": 8,
    "speed_bump": 9,
    "driveway": 10,
}
LAYOUTS = ("ids", "plain", "ego", "name")
RECORDED = sorted((SHARED / "womd_gpudrive_json" / "current").glob("*.json"))


def bin_bytes(record: dict[str, Any], layout: str, name: str = "") -> bytes:
    """A GPUDrive JSON object as PufferDrive writes it, with the fields of one of its layouts."""
    objects, roads = record["objects"], record["roads"]
    parts = []
    if layout == "name":
        parts.append(struct.pack("16s", (name or record["scenario_id"]).encode()))
    if layout in ("ego", "name"):
        metadata = record.get("metadata") or {}
        predict = [t["track_index"] for t in metadata.get("tracks_to_predict", [])]
        ego = metadata.get("sdc_track_index", -1)
        parts.append(struct.pack(f"<{2 + len(predict)}i", ego, len(predict), *predict))
    parts.append(struct.pack("<2i", len(objects), len(roads)))
    frames = len(objects[0]["valid"]) if objects else 0
    for item in objects:
        parts.append(head(layout, TYPES[item["type"]], item.get("id", 0), frames))
        for axis in "xyz":
            parts.append(floats(p.get(axis, 0.0) for p in item["position"]))
        for axis in "xyz":
            parts.append(floats(v.get(axis, 0.0) for v in item["velocity"]))
        parts.append(floats(item["heading"]))
        parts.append(struct.pack(f"<{frames}i", *map(int, item["valid"])))
        parts.append(floats([item["width"], item["length"], item.get("height", 0.0), 0, 0, 0]))
        parts.append(struct.pack("<i", 0))
    for road in roads:
        points = road["geometry"]
        points = [points] if isinstance(points, dict) else points
        parts.append(head(layout, ROADS.get(road["type"], 11), road.get("id", 0), len(points)))
        for axis in "xyz":
            parts.append(floats(p.get(axis, 0.0) for p in points))
        parts.append(bytes(28))
    return b"".join(parts)


def head(layout: str, kind: int, number: int, count: int) -> bytes:
    values = {"ids": (kind, number, count), "plain": (kind, count)}
    words = values.get(layout, (3, kind, number, count))
    return struct.pack(f"<{len(words)}i", *words)


def floats(values) -> bytes:
    return np.array(list(values), "<f4").tobytes()


def write(path: Path, record: dict[str, Any], layout: str = "ego") -> Path:
    path.write_bytes(bin_bytes(record, layout))
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_drive_as_the_json(tmp_path, layout):
    record = json_scenario()
    record["objects"].append(json_object(40, 1.5, type="pedestrian", width=0.7, length=0.8))
    record["objects"][1]["valid"] = [i not in (3, 20) for i in range(FRAMES)]
    wanted = only(write_json(tmp_path / "made.json", record))
    s = only(write(tmp_path / "map_000.bin", record, layout))
    assert s.id == ("made-1" if layout == "name" else "map_000")
    assert (s.dataset, s.license, s.dt, s.ego, s.start_frame) == ("womd", "womd-nc", 0.1, 0, 10)
    assert np.array_equal(s.origin, wanted.origin)
    for name in ("xyz", "yaw", "velocity", "size"):
        a, b = getattr(s.tracks, name), getattr(wanted.tracks, name)
        assert np.allclose(a, b, atol=1e-3), name
    assert np.array_equal(s.tracks.valid, wanted.tracks.valid)
    assert np.array_equal(s.tracks.type, wanted.tracks.type)
    assert np.array_equal(s.map.type, wanted.map.type)
    assert np.allclose(s.map.points, wanted.map.points, atol=1e-3)
    assert np.array_equal(s.map.successors, wanted.map.successors)
    assert np.array_equal(s.flags, wanted.flags)
    has_ids = layout != "plain"
    assert list(s.tracks.id) == ([100, 115, 140] if has_ids else [0, 1, 2])
    assert list(s.map.id) == ([1, 2, 3, 4, 5, 6] if has_ids else [-1, -2, -3, -4, -5, -6])
    assert len(s.lights.lane) == 0
    assert "have no lights, lane graph or speed limits" in notes(s)
    assert "left out 1 map elements of too few points" in notes(s)
    assert ("names no ego" in notes(s)) == (layout in ("ids", "plain"))


def test_ego(tmp_path):
    objects = [json_object(0, 1.0), json_object(15, 8.0), json_object(40, 2.0, type="cyclist")]
    metadata = {"sdc_track_index": 0, "tracks_to_predict": [{"track_index": 1}] * 3}
    record = json_scenario(objects=objects, metadata=metadata)
    assert only(write(tmp_path / "a.bin", record, "ego")).ego == 0
    assert only(write(tmp_path / "b.bin", record, "ids")).ego == 1  # which gets farthest
    for wrong in (2, 17, -1):
        s = only(write(tmp_path / "c.bin", record | {"metadata": {"sdc_track_index": wrong}}))
        assert s.ego == 1
        assert ("names no ego" if wrong < 0 else f"names track {wrong}") in notes(s)
    objects[0].update(length=5.286, width=2.332)
    assert only(write(tmp_path / "d.bin", record, "plain")).ego == 0


def test_what_stands_under_the_mask_is_ignored(tmp_path):
    record = json_scenario()
    other = record["objects"][1]
    other["valid"] = [i != 4 for i in range(FRAMES)]
    other["position"][4] = {"x": -10000.0, "y": float("nan"), "z": -10000.0}
    other["heading"][4] = -10000.0
    s = only(write(tmp_path / "x.bin", record))
    assert (s.tracks.xyz[1, 4] == 0).all()
    assert np.allclose(s.tracks.yaw, 0)


def test_short_records_lose_their_empty_frames(tmp_path):
    record = json_scenario()
    for item in record["objects"]:
        item["valid"] = [i < 11 for i in range(FRAMES)]
    s = only(write(tmp_path / "x.bin", record))
    assert (s.tracks.num_frames, s.start_frame) == (11, 0)
    assert f"left out the last {FRAMES - 11} frames" in notes(s)


def test_without_heights_and_in_degrees(tmp_path):
    record = json_scenario()
    for item in record["objects"]:
        item["position"] = [p | {"z": 0.0} for p in item["position"]]
        item["heading"] = [357.0] * FRAMES
    for road in record["roads"]:
        road["geometry"] = [p | {"z": 0.0} for p in road["geometry"]]
    s = only(write(tmp_path / "x.bin", record))
    assert not s.has_z
    assert np.allclose(s.tracks.yaw, np.deg2rad(-3.0), atol=1e-5)
    assert "has no heights" in notes(s)
    assert "degrees" in notes(s)


def test_edges_and_unknown_elements(tmp_path):
    record = json_scenario()
    record["roads"][4]["geometry"].reverse()
    record["roads"].append(json_road("tree", [(0, 9), (1, 9)], 9))
    s = only(write(tmp_path / "x.bin", record))
    assert "reversed 1 road edges" in notes(s)
    assert "left out 1 map elements of unknown type" in notes(s)
    assert not (s.flags & AgentFlag.OFFROAD_IN_LOG).any()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", [9, 10, 32, 91, 123])
def test_counts_that_look_like_the_start_of_json(tmp_path, layout, count):
    still = [json_object(0, 8.0)] + [json_object(-30 - 9 * i, 0.0) for i in range(count - 1)]
    s = only(write(tmp_path / "x.bin", json_scenario(objects=still), layout))
    assert s.tracks.num_agents == count


def test_other_files_are_not_taken(tmp_path):
    made = bin_bytes(json_scenario(), "ego")
    sniff = pufferdrive_bin.sniff
    assert sniff(made[:4096], Path("a.bin"))
    assert sniff(made[:4096], Path("A.BIN"))
    for path in ("a", "a.dat", "a.json", "bin"):
        assert not sniff(made[:4096], Path(path))
    json_text = write_json(tmp_path / "j.bin", json_scenario())
    record = write_tfrecord(tmp_path / "t.bin", proto_scenario())
    rng = np.random.default_rng(0)
    others = [
        json_text.read_bytes(), record.read_bytes(), bytes(4096), b"\xff" * 4096, b"PK\3\4" * 99,
        rng.normal(0, 30, 1024).astype("<f4").tobytes(), rng.bytes(4096), b"text " * 800, b"",
        b"\x01", struct.pack("<2i", 5, 5), struct.pack("<5i", 1, 0, 1, -1, -1), b"a" * 20,
        np.arange(1024, dtype="<i4").tobytes(), struct.pack("<5i", 600, 1, 1, 7, 91),
    ]  # fmt: skip
    assert [sniff(data[:4096], Path("a.bin")) for data in others] == [False] * len(others)
    assert only(json_text).id == "made-1"
    assert only(record).id == "made-2"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_truncated(tmp_path, layout):
    data = bin_bytes(json_scenario(), layout)
    path = tmp_path / "x.bin"
    for cut in (4, 400, len(data) - 200):
        path.write_bytes(data[:-cut])
        sentence = refused(path)
        assert "in no layout of PufferDrive files, perhaps truncated: read with" in sentence
        assert "entity" in sentence
        assert "byte" in sentence
    path.write_bytes(data[:-1])
    assert "truncated: " in refused(path)
    path.write_bytes(data + bytes(8))
    assert f"its entities end at byte {len(data)} of {len(data) + 8}" in refused(path)


def test_bad_values(tmp_path):
    path = tmp_path / "x.bin"
    record = json_scenario()
    record["objects"][1]["position"][12]["x"] = float("nan")
    assert "track 1, frame 12: position must be finite" in refused(write(path, record))
    record = json_scenario()
    record["roads"][1]["geometry"][1]["x"] = 1e12
    assert "map element 2: a point lies" in refused(write(path, record))
    walker = json_object(0, 1.0, type="pedestrian")
    assert "no ego: none of the 1 objects" in refused(write(path, json_scenario(objects=[walker])))
    assert "no objects, so there is no ego" in refused(write(path, json_scenario(objects=[])))
    nobody = json_object(0, 1.0, valid=[False] * FRAMES)
    assert "no object is valid" in refused(write(path, json_scenario(objects=[nobody])))
    other = copy.deepcopy(json_object(15, 8.0))
    data = bytearray(bin_bytes(json_scenario(objects=[json_object(0, 8.0)], roads=[]), "ids"))
    more = bytearray(bin_bytes(json_scenario(objects=[_cut(other, 30)], roads=[]), "ids"))
    data[:4] = struct.pack("<i", 2)
    path.write_bytes(bytes(data + more[8:]))
    assert "object 1 has 30 frames, but object 0 has 40" in refused(path)


def _cut(record: dict[str, Any], frames: int) -> dict[str, Any]:
    lists = ("position", "velocity", "heading", "valid")
    return record | {name: record[name][:frames] for name in lists}


def test_huge_counts(tmp_path):
    path = tmp_path / "x.bin"
    data = bin_bytes(json_scenario(), "ids")
    first = struct.unpack_from("<5i", data)
    second = 8 + 12 + 4 * (8 * FRAMES + 7)
    for at in (second + 8, len(data) - 28 - 12 - 4):  # frames of object 1, points of the last road
        damaged = bytearray(data)
        damaged[at : at + 4] = struct.pack("<i", 2**31 - 1)
        path.write_bytes(damaged)
        assert "claims 2147483647 points or frames" in refused(path)
    assert first[4] == FRAMES
    with path.open("wb") as file:
        file.write(data)
        file.truncate(pufferdrive_bin.MAX_BYTES + 4)
    assert "at most 67108864 are plausible" in refused(path)


@pytest.mark.shared
@pytest.mark.skipif(not RECORDED, reason="the recorded data are not beside the repository")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_recorded_drives_written_as_bin(tmp_path, layout):
    for source in RECORDED[:2]:
        record = json.loads(source.read_text())
        wanted = only(source)
        s = only(write(tmp_path / f"{source.stem}.bin", record, layout))
        if layout == "name":
            assert s.id == wanted.id
        assert s.ego == wanted.ego
        assert np.array_equal(s.tracks.valid, wanted.tracks.valid)
        assert np.allclose(s.tracks.xyz, wanted.tracks.xyz, atol=2e-3)
        assert np.allclose(s.tracks.size, wanted.tracks.size)
        assert np.array_equal(s.map.type, wanted.map.type)
        for i in range(s.map.num_elements):  # rounding decides which points are left of a line
            a, b = s.map.polyline(i), wanted.map.polyline(i)
            assert np.allclose(a[[0, -1]], b[[0, -1]], atol=2e-3)
            if len(a) > 1:
                assert np.abs(project(a[:, :2], b[:, :2])[1]).max() < 0.1
        if layout != "plain":
            assert np.array_equal(s.map.id, wanted.map.id)
        assert not s.flags[s.ego] & (AgentFlag.OFFROAD_IN_LOG | AgentFlag.OVERLAPS_IN_LOG)
