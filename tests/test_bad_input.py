"""Bad files end in one sentence that names the file and the reason; never in another exception."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile

import numpy as np
import pytest

from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.scenario import ScenarioError
from scenario_files import (
    FRAMES,
    json_object,
    json_scenario,
    proto_scenario,
    record_bytes,
    write_json,
    write_tfrecord,
)


def refuse(path, *words, named=None, **options) -> str:
    """Check that loading fails with one sentence about the path that has these words."""
    with pytest.raises(ScenarioError) as caught:
        load_scenarios(path, **options)
    sentence = str(caught.value)
    assert str(named or path) in sentence
    assert "\n" not in sentence
    assert ". " not in sentence.replace(str(path), "")
    for word in words:
        assert word in sentence, sentence
    return sentence


def test_missing_path(tmp_path):
    refuse(tmp_path / "absent.json", "no such file or folder")


def test_empty_folder(tmp_path):
    refuse(tmp_path, "the folder holds no files")
    (tmp_path / ".hidden").write_text("{}")
    refuse(tmp_path, "the folder holds no files")


def test_folder_of_bad_files_only(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "b.txt").write_text("hello")
    refuse(tmp_path, "none of 2 files could be loaded", "a.txt: of no known format")


def test_bad_files_in_a_folder_do_not_keep_the_good_from_loading(tmp_path):
    (tmp_path / "deep").mkdir()
    write_json(tmp_path / "deep" / "good.json", json_scenario())
    write_tfrecord(tmp_path / "good.tfrecord", proto_scenario())
    (tmp_path / "cut.json").write_text(json.dumps(json_scenario())[:-50])
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    scenarios, skipped = load_scenarios(tmp_path)
    assert [s.id for s in scenarios] == ["made-1", "made-2"]
    assert [s.path for s in skipped] == [str(tmp_path / "cut.json"), str(tmp_path / "picture.png")]
    assert "truncated" in skipped[0].reason


def test_truncated_json(tmp_path):
    path = tmp_path / "cut.json"
    path.write_text(json.dumps(json_scenario())[:1000])
    refuse(path, "not valid JSON, perhaps truncated")


@pytest.mark.parametrize("keep", [5, 12, 100, -1])
def test_truncated_tfrecord(tmp_path, keep):
    path = write_tfrecord(tmp_path / "cut.tfrecord", proto_scenario())
    path.write_bytes(path.read_bytes()[:keep])
    refuse(path, "truncated at byte 0")


def test_truncated_second_record_leaves_the_first(tmp_path):
    path = write_tfrecord(tmp_path / "two.tfrecord", proto_scenario(), proto_scenario())
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    scenarios, skipped = load_scenarios(path)
    assert len(scenarios) == 1
    assert f"{path}: truncated at byte {len(data) // 2}" in skipped[0].reason


@pytest.mark.parametrize(
    ("byte", "what"),
    [(9, "record length"), (60, "of the record at byte 0"), (-2, "of the record at byte 0")],
)
def test_wrong_checksum(tmp_path, byte, what):
    path = write_tfrecord(tmp_path / "bad.tfrecord", proto_scenario())
    data = bytearray(path.read_bytes())
    data[byte] ^= 4
    path.write_bytes(data)
    refuse(path, "checksum", what)


@pytest.mark.parametrize("length", [(256 << 20) + 1, 1 << 30, 1 << 60])
def test_huge_record_length(tmp_path, length):
    path = tmp_path / "huge.tfrecord"
    data = bytearray(record_bytes(b"abc"))
    head = struct.pack("<Q", length)
    from alpagym.scenarios.readers.tfrecord import masked_crc32c

    data[:12] = head + struct.pack("<I", masked_crc32c(head))
    path.write_bytes(data)
    refuse(path, "claims")


@pytest.mark.parametrize(
    "payload", [b"", b"noise" * 40, bytes(range(256)), b"\x0a\x10state/current/x"]
)
def test_tfrecord_of_something_else(tmp_path, payload):
    path = tmp_path / "x.tfrecord"
    path.write_bytes(record_bytes(payload))
    refuse(path)


def test_other_formats(tmp_path):
    zipped = tmp_path / "a.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a.txt", "hello")
    files = {
        "a.png": b"\x89PNG\r\n\x1a\n" + bytes(40),
        "a.xml": b"<?xml version='1.0'?><svg/>",
        "a.bin": np.random.default_rng(0).bytes(5000),
        "noise.json": np.random.default_rng(1).bytes(5000),
        "zeros": bytes(100),
        "short": b"x",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        refuse(tmp_path / name, "of no known format")
    refuse(zipped, "of no known format")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"tracks": []}))
    refuse(tmp_path / "a.pkl", "a pickle, but no ScenarioNet scenario")
    (tmp_path / "cut.xml").write_bytes(b"<commonRoad commonRoadVersion='2020a' timeStepSize='0.1'>")
    refuse(tmp_path / "cut.xml", "not valid XML, perhaps truncated")
    (tmp_path / "empty.json").write_bytes(b"")
    refuse(tmp_path / "empty.json", "the file is empty")


@pytest.mark.parametrize(
    "record",
    [
        [],
        {},
        [1, 2],
        {"objects": [], "road": []},
        {"objects": {}, "roads": []},
        {"objects": 5, "roads": 5},
    ],
)
def test_json_of_another_shape(tmp_path, record):
    refuse(write_json(tmp_path / "x.json", record), "no GPUDrive or Nocturne scenario")


def test_deeply_nested_json(tmp_path):
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    refuse(path, "not valid JSON")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
@pytest.mark.parametrize("field", ["position", "heading", "velocity"])
def test_not_finite_in_a_valid_frame(tmp_path, field, value):
    record = json_scenario()
    frames = record["objects"][1][field]
    frames[12] = value if field == "heading" else frames[12] | {"x": value}
    refuse(write_json(tmp_path / "x.json", record), "track 1, frame 12", field)


@pytest.mark.parametrize(
    ("field", "value"), [("position", 1e300), ("position", 5e6), ("velocity", 1e308)]
)
def test_absurd_values(tmp_path, field, value):
    record = json_scenario()
    record["objects"][1][field] = [p | {"x": value} for p in record["objects"][1][field]]
    refuse(write_json(tmp_path / "x.json", record), "track 1, frame 0")


def test_absurd_map(tmp_path):
    record = json_scenario()
    record["roads"][2]["geometry"][1]["x"] = 1e12
    refuse(write_json(tmp_path / "x.json", record), "map element 3")


def test_no_ego(tmp_path):
    walker = json_object(0, 1.0, type="pedestrian")
    refuse(write_json(tmp_path / "a.json", json_scenario(objects=[walker])), "no ego")
    refuse(write_json(tmp_path / "b.json", json_scenario(objects=[])), "no ego")
    nobody = json_object(0, 1.0, valid=[False] * FRAMES)
    refuse(write_json(tmp_path / "c.json", json_scenario(objects=[nobody])), "no ego")
    gone = json_object(0, 1.0, valid=[i < 5 for i in range(FRAMES)])
    refuse(
        write_json(tmp_path / "d.json", json_scenario(objects=[gone])),
        "the ego (track 0) is not valid",
    )
    proto = proto_scenario()
    proto.sdc_track_index = 7
    refuse(write_tfrecord(tmp_path / "e", proto), "no ego: index 7 of 2")
    proto.ClearField("sdc_track_index")
    refuse(write_tfrecord(tmp_path / "f", proto), "no ego")
    del proto.tracks[:]
    refuse(write_tfrecord(tmp_path / "g", proto), "no tracks", "no ego")


def test_more_agents_than_capacity(tmp_path):
    path = write_json(tmp_path / "x.json", json_scenario())
    refuse(path, "has 2 agents, more than max_agents=1", max_agents=1)
    assert len(load_scenarios(path, max_agents=2)[0]) == 1


@pytest.mark.parametrize("field", ["position", "heading", "velocity", "valid"])
def test_lists_of_mismatched_lengths(tmp_path, field):
    record = json_scenario()
    record["objects"][1][field] = record["objects"][1][field] * 1000
    refuse(write_json(tmp_path / "x.json", record), "object 1", "frames")


def test_tracks_of_mismatched_lengths(tmp_path):
    proto = proto_scenario()
    del proto.tracks[1].states[5:]
    refuse(write_tfrecord(tmp_path / "x", proto), "track 1 has 5 states, but track 0 has 40")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("position", "here"), ("position", [[1]] * FRAMES), ("position", {"x": [1]}),
        ("heading", {}), ("heading", [[0]] * FRAMES), ("valid", "yes"), ("velocity", 3),
        ("length", [[2]]), ("width", {}),
    ],
)  # fmt: skip
def test_wrong_types(tmp_path, field, value):
    record = json_scenario()
    record["objects"][0][field] = value
    refuse(write_json(tmp_path / "x.json", record), "object 0", f"'{field}'")


def test_missing_protobuf_is_explained(tmp_path, monkeypatch):
    import sys

    path = write_tfrecord(tmp_path / "x.tfrecord", proto_scenario())
    monkeypatch.setitem(sys.modules, "google.protobuf.message", None)
    refuse(path, "pip install alpagym[womd]")


def test_any_flipped_bit_of_a_tfrecord_is_noticed(tmp_path):
    path = write_tfrecord(tmp_path / "x.tfrecord", proto_scenario())
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for at in [0, 8, 12, len(whole) - 1, *rng.integers(len(whole), size=30)]:
        framed = bytearray(whole)
        framed[at] ^= 1 << rng.integers(8)
        path.write_bytes(framed)
        with pytest.raises(ScenarioError):
            load_scenarios(path)
