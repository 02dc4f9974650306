"""What the ScenarioNet reader makes of pickles of each layout, real and hostile ones."""

from __future__ import annotations

import copy
import csv
import enum
import pickle
import re
import sys
import time
import tracemalloc
import types

import numpy as np
import pytest

from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.polyline import project
from alpagym.scenarios.readers import safe_pickle, scenarionet
from alpagym.scenarios.readers.tfrecord import read_records
from alpagym.scenarios.scenario import AgentFlag, AgentType, LightState, MapType, ScenarioError
from reading import element, notes, only, refused

FRAMES = 40
X0, Y0 = 5000.0, -3000.0
GREEN, RED, UNKNOWN, ABSENT = (
    LightState.GREEN,
    LightState.RED,
    LightState.UNKNOWN,
    LightState.ABSENT,
)


def line(*xy, z=10.0):
    return np.array([(X0 + x, Y0 + y, z) for x, y in xy], np.float32)


def track(x0, kind="VEHICLE", speed=8.0, size=(4.6, 2.0, 1.6), y=0.0):
    """A track that drives along +x; absent, with remnants, in its last five frames."""
    n, dtype = FRAMES, np.float32
    position = np.zeros((n, 3), dtype)
    position[:, 0] = X0 + x0 + speed * 0.1 * np.arange(n)
    position[:, 1:] = Y0 + y, 10.8
    valid = np.ones(n, bool)
    if x0 != 0:
        valid[-5:] = False
        position[-5:] = -1.0
    state = {
        "position": position,
        "heading": np.full(n, 2 * np.pi, dtype),
        "velocity": np.tile(np.array([speed, 0], dtype), (n, 1)),
        "valid": valid,
    }
    state |= {
        k: np.full(n, v, dtype) for k, v in zip(("length", "width", "height"), size, strict=True)
    }
    return {"type": kind, "state": state, "metadata": {"type": kind, "object_id": str(x0)}}


def lane(points, exits=(), left=(), right=(), mph=25.0):
    def beside(ids):
        return [
            {"feature_id": i, "self_start_index": "0", "self_end_index": str(n)} for n, i in ids
        ]

    return {
        "type": "LANE_SURFACE_STREET",
        "polyline": points,
        "speed_limit_mph": mph,
        "speed_limit_kmh": mph * 1.609344,
        "entry_lanes": [],
        "exit_lanes": list(exits),
        "left_neighbor": beside(left),
        "right_neighbor": beside(right),
    }


def scenario(**changes):
    """Two lanes in sequence and one beside them, as the converter of WOMD writes them now."""
    states = [None] * 5 + ["LANE_STATE_STOP"] * 15 + ["LANE_STATE_ARROW_GO"] * 20
    record = {
        "id": "0123456789abcdef",
        "version": "v1.2",
        "length": FRAMES,
        "tracks": {
            "77": track(15.0),
            "9": track(0.0),
            "101": track(-30.0, "PEDESTRIAN", 1.0, (0.8, 0.7, 1.7), y=3.0),
        },
        "map_features": {
            "1": lane(line((-20, 0), (30, 0)), exits=[2, 999], left=[(1, "3")]),
            "2": lane(line((30, 0), (200, 0)), mph=0.0),
            "3": lane(line((-20, 3.5), (30, 3.5)), left=[(1, "4")], right=[(1, "1")]),
            "4": lane(line((30, 7), (-20, 7))),
            "5": {"type": "ROAD_EDGE_BOUNDARY", "polyline": line((-20, -4), (200, -4))},
            "6": {"type": "ROAD_LINE_BROKEN_SINGLE_WHITE", "polyline": line((-20, 2), (30, 2))},
            "7": {"type": "CROSSWALK", "polygon": line((20, -4), (23, -4), (23, 4), (20, 4))},
            "8": {"type": "STOP_SIGN", "lane": [2], "position": line((30, -6))[0]},
            "9": {"type": "DRIVEWAY", "polygon": line((50, -9), (53, -9), (53, -4), (50, -4))},
        },
        "dynamic_map_states": {
            "2": {
                "type": "TRAFFIC_LIGHT",
                "state": {"object_state": states},
                "lane": 2,
                "stop_point": line((29, 0))[0],
                "metadata": {},
            }
        },
        "metadata": {
            "dataset": "waymo",
            "coordinate": "waymo",
            "ts": np.arange(FRAMES, dtype=np.float32) * np.float32(0.1001),
            "sdc_id": "9",
            "sdc_track_index": 1,
            "scenario_id": "0123456789abcdef",
            "current_time_index": 10,
            "number_summary": {"object_types": {"VEHICLE"}},
        },
    }
    return record | changes


def write(tmp_path, record, protocol=4, name="sd_waymo_v1.2_0.pkl"):
    path = tmp_path / name
    path.write_bytes(record if isinstance(record, bytes) else pickle.dumps(record, protocol))
    return path


def load(tmp_path, record, protocol=4):
    return only(write(tmp_path, record, protocol))


def refuse(tmp_path, record):
    return refused(write(tmp_path, record))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_current_layout(tmp_path, protocol):
    s = load(tmp_path, scenario(), protocol)
    assert (s.id, s.dataset, s.license) == ("0123456789abcdef", "womd", "womd-nc")
    assert (s.dt, s.start_frame, s.has_z) == (0.1, 10, True)
    assert np.array_equal(s.origin, [5008, -3000, 11])
    assert list(s.tracks.id) == [77, 9, 101]
    assert s.tracks.id[s.ego] == 9
    assert list(s.tracks.type) == [AgentType.VEHICLE, AgentType.VEHICLE, AgentType.PEDESTRIAN]
    assert np.allclose(s.tracks.xyz[1, :, 0], -8 + 0.8 * np.arange(FRAMES), atol=1e-3)
    assert np.allclose(s.tracks.yaw, 0, atol=1e-5)
    assert np.allclose(s.tracks.velocity[1], [8, 0])
    assert np.allclose(s.tracks.size[2], [0.8, 0.7, 1.7])
    assert not s.tracks.valid[0, -5:].any()
    assert (s.tracks.xyz[0, -5:] == 0).all()


def test_map_and_links(tmp_path):
    m = (s := load(tmp_path, scenario())).map
    assert [MapType(t).name for t in m.type] == [
        *["LANE"] * 4, "ROAD_EDGE", "ROAD_LINE", "CROSSWALK", "STOP_SIGN", "DRIVEWAY"
    ]  # fmt: skip
    assert list(m.successors_of(0)) == [1]
    assert "dropped 1 lane links" in notes(s)
    assert (m.left_neighbor[0], m.right_neighbor[2]) == (2, 0)
    assert m.left_neighbor[2] == -1  # runs the other way
    assert np.allclose(m.speed_limit[[0, 2]], 25 * 0.44704)
    assert np.isnan(m.speed_limit[1])
    assert np.allclose(m.polyline(4)[[0, -1], :2], [[-28, -4], [192, -4]], atol=1e-3)
    assert len(m.polyline(6)) == 5
    assert list(s.routes.stop_light[s.routes.stop_offsets[1] : s.routes.stop_offsets[2]])


def test_lights_of_all_versions(tmp_path):
    def shown(states, **fields):
        light = {"type": "TRAFFIC_LIGHT", "state": {"object_state": states}, "lane": "2"}
        s = load(tmp_path, scenario(dynamic_map_states={"light": light | fields}))
        assert list(s.lights.lane) == [1]
        return s.lights

    lights = load(tmp_path, scenario()).lights
    assert np.allclose(lights.xy, [[21, 0]], atol=1e-3)
    assert list(lights.state[0]) == [ABSENT] * 5 + [RED] * 15 + [GREEN] * 20

    place = [X0 + 29, Y0]
    digits = shown(["6"] * 10 + ["0"] * 10 + [4] * 10 + [None] * 10, stop_point=place)
    assert list(digits.state[0]) == [GREEN] * 10 + [UNKNOWN] * 10 + [RED] * 10 + [ABSENT] * 10
    nuplan = shown(np.array(["TRAFFIC_LIGHT_GREEN"] * 39 + ["TRAFFIC_LIGHT_UNKNOWN"]))
    assert list(nuplan.state[0]) == [GREEN] * 39 + [UNKNOWN]
    assert np.allclose(nuplan.xy, [[22, 0]], atol=1e-3)  # no stop point: where the lane begins

    points = np.zeros((FRAMES, 3), np.float32)
    points[7:9] = line((29, 0))
    states = np.zeros(FRAMES, int)
    states[7] = 4
    state = {"object_state": states, "lane": (points[:, 0] > 0) * 2, "stop_point": points}
    early = load(
        tmp_path, scenario(dynamic_map_states={"2": {"type": "TRAFFICLIGHT", "state": state}})
    )
    assert np.allclose(early.lights.xy, [[21, 0]], atol=1e-3)
    assert list(early.lights.state[0]) == [ABSENT] * 7 + [RED, UNKNOWN] + [ABSENT] * 31


def early_layout(record):
    """What was written before v0.3.0: no metadata, integer keys, columns."""
    record = copy.deepcopy(record)
    for key, item in record["tracks"].items():
        state = item["state"]
        state["size"] = np.stack([state.pop(k) for k in ("length", "width", "height")], 1)
        state["heading"], state["valid"] = state["heading"][:, None], state["valid"][:, None]
        item["metadata"] = {"object_id": int(key)}
    features = {int(k): f for k, f in record["map_features"].items()}
    for feature in features.values():
        if "exit_lanes" in feature:
            feature["left_neighbor"] = [{"id": 6}]
            feature["right_neighbor"] = [
                {"id": int(n["feature_id"])} for n in feature["right_neighbor"]
            ]
    nameless = {"polygon": line((20, -4), (23, -4), (23, 4), (20, 4))}
    nameless["type"] = nameless
    features[7] = nameless
    features[8] = {"type": "stop_sign", "lanes": [2], "pos": line((30, -6))[0].tolist()}
    features[9] = {"type": "CROSS_WALK", "polyline": features[9]["polygon"]}
    return {
        "id": record["id"],
        "version": "old format",
        "ts": [0.1 * i for i in range(FRAMES)],
        "tracks": {int(k): v for k, v in record["tracks"].items()},
        "sdc_track_index": "9",
        "dynamic_map_states": [[{}]],
        "map_features": features,
    }


def test_layout_before_v030(tmp_path):
    new, old = load(tmp_path, scenario()), load(tmp_path, early_layout(scenario()))
    assert (old.id, old.dataset, old.license, old.ego) == (new.id, "womd", "womd-nc", new.ego)
    for field in ("xyz", "yaw", "velocity", "valid", "size", "type", "id"):
        assert np.array_equal(getattr(old.tracks, field), getattr(new.tracks, field)), field
    assert (old.map.left_neighbor[0], old.map.right_neighbor[2]) == (2, 0)
    assert list(old.map.successors_of(0)) == [1]
    assert [MapType(t).name for t in old.map.type[-2:]] == ["STOP_SIGN", "CROSSWALK"]
    assert "left out 1 map features without a type" in notes(old)
    assert "took left neighbors from the right ones" in notes(old)


def test_layout_of_2021(tmp_path, monkeypatch):
    module = types.ModuleType("waymo_types_of_2021")
    for name, members in (
        ("AgentType", "UNSET VEHICLE PEDESTRIAN"),
        ("RoadLineType", "UNKNOWN BROKEN_SINGLE_WHITE"),
        ("RoadEdgeType", "UNKNOWN BOUNDARY"),
    ):
        kind = enum.Enum(name, members.split(), module=module.__name__, start=0)
        setattr(module, name, kind)
    record = early_layout(scenario())
    tracks = {}
    for key, item in record["tracks"].items():
        s = item["state"]
        columns = [s[k] for k in ("position", "size", "heading", "velocity", "valid")]
        tracks[key] = {"type": module.AgentType[item["type"]], "state": np.hstack(columns)}
    features = record["map_features"]
    for feature in features.values():
        if "exit_lanes" in feature:
            feature["type"], feature["exit"] = "center_lane", feature.pop("exit_lanes")
    features[5]["type"] = module.RoadEdgeType.BOUNDARY
    features[6]["type"] = module.RoadLineType.BROKEN_SINGLE_WHITE
    features[7] = {"sign": "cross_walk", "polygon": features[7]["polygon"]}
    seen = {2: {"state": 4, "stop_point": line((29, 0))[0].tolist()}}
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        data = pickle.dumps(
            {"id": record["id"], "ts": record["ts"], "tracks": tracks, "sdc_index": 9,
             "dynamic_map_states": [seen], "map": features}, 4)  # fmt: skip
    new, old = load(tmp_path, scenario()), load(tmp_path, data)
    for field in ("xyz", "valid", "size", "type", "id"):
        assert np.array_equal(getattr(old.tracks, field), getattr(new.tracks, field)), field
    assert list(old.map.type[4:7]) == [MapType.ROAD_EDGE, MapType.ROAD_LINE, MapType.CROSSWALK]
    assert list(old.lights.state[0]) == [ABSENT] * 39 + [RED]
    assert "kept the lights of the last frame alone" in notes(old)


def nuscenes(**changes):
    """A road 12 m wide around an island, its outlines clockwise; lanes with headings for z."""
    record = scenario(dynamic_map_states={}, **changes)
    ego = track(0.0, size=(1.73, 4.08, 1.56))
    for item in (ego, *record["tracks"].values()):
        state = item["state"]
        state["position"][:, 2] = 0.0 if item is ego else 0.9
        state["velocity"][-1] = 0.0
        state["valid"] = state["valid"].astype(float)
        for side in ("length", "width", "height"):
            state[side] = state[side][:, None].astype(float)
    outer = [(-40, -6), (-40, 60), (240, 60), (240, -6), (-40, -6)]
    island = [(0, 10), (0, 40), (200, 40), (200, 10), (0, 10)]
    white = {"type": "ROAD_LINE_SOLID_SINGLE_WHITE"}

    def heading_lane(points):
        rows = [(float(x), float(y), 0.0) for x, y, _ in line(*points)]
        return {"type": "LANE_SURFACE_STREET", "polyline": rows, "speed_limit_kmh": 100}

    record |= {
        "id": "scene-0001",
        "tracks": {"6fd": record["tracks"]["77"], "ego": ego},
        "map_features": {
            "boundary_0": white | {"polyline": line(*outer)[:, :2].astype(float)},
            "boundary_1": white | {"polyline": line(*island)[:, :2].astype(float)},
            "0073-a": heading_lane([(-20, 0), (30, 0)]),
            "0073-b": heading_lane([(30.3, 0), (200, 0)]),
            "w": {"type": "ROAD_EDGE_SIDEWALK", "polygon": line((0, -9), (5, -9), (5, -7))},
        },
        "metadata": {"dataset": "nuscenes", "coordinate": "right-handed", "sdc_id": "ego",
                     "ts": np.arange(0, FRAMES) * 0.1},
    }  # fmt: skip
    return record


def test_nuscenes(tmp_path):
    s = load(tmp_path, nuscenes())
    assert (s.id, s.dataset, s.license, s.has_z) == ("scene-0001", "nuscenes", "nuscenes-nc", False)
    assert (s.tracks.xyz[..., 2] == 0).all()
    assert (s.map.points[:, 2] == 0).all()
    assert np.allclose(s.tracks.size[s.ego], [4.08, 1.73, 1.56])
    x = s.tracks.xyz[s.ego, :, 0] + s.origin[0]
    assert np.allclose(x, X0 + 1.385 + 0.8 * np.arange(FRAMES), atol=1e-3)
    assert np.allclose(s.tracks.velocity[s.ego], [8, 0], atol=1e-2)
    assert np.isnan(s.map.speed_limit).all()
    first = element(s, s.map.id[2])
    assert list(s.map.successors_of(first)) == [3]
    assert (s.map.id > 2**60).all()
    outer, island = s.map.polyline(0), s.map.polyline(1)
    areas = [0.5 * np.sum(p[:-1, 0] * p[1:, 1] - p[1:, 0] * p[:-1, 1]) for p in (outer, island)]
    assert areas[0] == pytest.approx(280 * 66, rel=1e-4)  # counter-clockwise: inside on the left
    assert areas[1] == pytest.approx(-200 * 30, rel=1e-4)
    assert list(s.map.type[:2]) == [MapType.ROAD_EDGE] * 2
    assert not s.flags[s.ego] & AgentFlag.OFFROAD_IN_LOG
    for clause in ("length and width", "rear axle", "2 boundaries", "SIDEWALK", "no heights"):
        assert clause in notes(s)


def test_nuscenes_clock_change(tmp_path):
    record = nuscenes()
    record["tracks"]["ego"]["state"]["position"][-2:, 0] -= 1.25
    s = load(tmp_path, record)
    assert np.allclose(np.diff(s.tracks.xyz[s.ego, :, 0]), 0.8, atol=1e-3)
    assert "last 2 positions by 1.25 m" in notes(s)


def test_other_datasets(tmp_path):
    def of(name, **metadata):
        record = scenario()
        record["metadata"] |= {"dataset": name} | metadata
        return load(tmp_path, record)

    av2 = of("av2")
    assert (av2.dataset, av2.license) == ("argoverse2", "argoverse2-nc")
    assert av2.tracks.size[av2.ego, 0] == pytest.approx(4.877)
    assert np.isnan(av2.map.speed_limit).all()
    assert (of("nuplan").license, of("other").license) == ("nuplan-nc", "unknown")
    assert "MetaDrive's own frame" in notes(of("metadrive", coordinate="metadrive"))


def test_summaries_are_passed_over(tmp_path):
    write(tmp_path, scenario())
    for name in ("dataset_summary.pkl", "dataset_mapping.pkl"):
        write(tmp_path, {"sd_waymo_v1.2_0.pkl": ""}, name=name)
    scenarios, skipped = load_scenarios(tmp_path)
    assert len(scenarios) == 1
    assert not skipped


def changed(path, value):
    """The scenario with what stands at a path of keys replaced, or removed by None."""
    record = scenario()
    target = record
    for key in path[:-1]:
        target = target[key]
    if value is None:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return record


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["tracks"], None, "a pickle, but no ScenarioNet scenario: it lacks"),
        (["tracks"], {}, "'tracks' is empty, so there is no ego to drive"),
        (["tracks"], [1], "'tracks' must be a dict, got list"),
        (["tracks"], {str(i): {} for i in range(2001)}, "at most 2000 are read"),
        (["tracks", "9"], 5, "'tracks': 9 must be a dict, got int"),
        (["tracks", "9", "state", "valid"], None, "track 9 has no 'valid'"),
        (["tracks", "9", "state"], "x", "track 9: 'state' must be a dict, got str"),
        (["tracks", "9", "state", "heading"], np.zeros(3), "'heading' has 3 frames, but 'valid'"),
        (["tracks", "9", "state", "position"], np.zeros((40, 7)), "must have 2 or 3 columns"),
        (["tracks", "9", "state", "position"], np.full((40, 3), np.nan), "must be finite"),
        (["tracks", "9", "state", "heading"], np.array(["a"] * 40), "must be numbers, got an"),
        (["tracks", "9", "state", "heading"], [[1, 2], [3]], "numbers in rows of one length"),
        (["tracks", "9", "state", "heading"], {}, "'heading' must be a list of at most"),
        (["metadata", "sdc_id"], "8", "no ego: no track is named '8'"),
        (["metadata"], {"dataset": "waymo"}, "no ego: the file names none"),
        (["metadata", "dataset"], [1], "'dataset' must be text, got list"),
        (["metadata", "ts"], [0.0, 9.0], "frames must be 0.01 to 1 s apart"),
        (["map_features", "1", "polyline"], None, "map feature 1 has no 'polyline' or 'polygon'"),
        (["map_features", "1", "polyline"], line((0, 0)).tolist() * 5000, "a lane of 5000 points"),
        (
            ["map_features", "1", "left_neighbor"],
            [{"self_end_index": "x"}],
            "an index is no number",
        ),
        (["map_features", "5", "polyline"], np.zeros((60_000, 3)), "60000 points of road edges"),
        (["map_features", "5", "polyline"], [[0, 0, 0], [9e6, 0, 0]], "m of lanes and road edges"),
        (["map_features", "8", "position"], None, "'position' must be numbers in rows"),
        (["dynamic_map_states", "2", "state"], {}, "light 2 has no 'object_state'"),
        (["dynamic_map_states", "2", "state", "object_state"], [4], "must be a list of 40 states"),
        (["dynamic_map_states"], [{}] * 41, "has 41 frames, but tracks 40"),
    ],
)
def test_messages(tmp_path, path, value, message):
    assert message in refuse(tmp_path, changed(path, value))


def test_tracks_of_different_length(tmp_path):
    record = scenario()
    state = record["tracks"]["101"]["state"]
    record["tracks"]["101"]["state"] = {k: v[:30] for k, v in state.items()}
    assert "track 101 has 30 frames, but the first track has 40" in refuse(tmp_path, record)


def test_too_many_states(tmp_path):
    state = np.zeros((40_000, 10))
    tracks = {str(i): {"type": "VEHICLE", "state": state} for i in range(9)}
    assert "at most 300000 states are read" in refuse(tmp_path, scenario(tracks=tracks))


def array_pickle(shape, code="f8", content=b"12345678"):
    """An array whose header may say anything."""
    data = pickle.dumps(np.zeros(1), 4)
    kind = re.search(rb"\x8c\x02f8", data)
    assert kind is not None
    new = b"\x8c" + bytes([len(code)]) + code.encode()
    data = data[: kind.start()] + new + data[kind.end() :]
    start = data.index(b"(K\x01K\x01\x85") + 3
    end = data.index(b"\x85", start) + 1
    numbers = b"".join(b"\x8a\x08" + n.to_bytes(8, "little") for n in shape)
    assert data[end : end + 1] == b"\x94"
    data = data[:start] + b"(" + numbers + b"t" + data[end:]
    tail = data.index(b"C\x08")
    return data[:tail] + b"C" + bytes([len(content)]) + content + data[tail + 10 :]


def proto4(body):
    return b"\x80\x04" + body + b"."


def nested(levels):
    """A list of two times a list of two times ..., by reference: 2^levels leaves."""
    value = [1.0]
    for _ in range(levels):
        value = [value, value]
    return value


def system(command):
    text = command.encode()
    return b"X" + len(text).to_bytes(4, "little") + text


HOSTILE = {
    "calls 'os.system'": b"cos\nsystem\n" + system("touch written") + b"\x85R",
    "calls 'builtins.eval'": b"cbuiltins\neval\n" + system("open('written', 'w')") + b"\x85R",
    "calls 'nt.system'": b"\x8c\x02nt\x8c\x06system\x93" + system("touch written") + b"\x85\x81",
    "instruction 0x69": b"(" + system("touch written") + b"ios\nsystem\n",
    "instruction 0x6f": b"(cos\nsystem\n" + system("touch written") + b"o",
    "instruction 0x92": b"cos\nsystem\n)}\x92",
    "instruction 0x50": b"Pname\n",
    "instruction 0x82": b"\x82\x01",
    "calls what has no name": b"K\x01)R",
    "sets the state": b"K\x01}b",
    "is cut off: 1152921504606846976 bytes": b"\x96" + (2**60).to_bytes(8, "little"),
    "is cut off: 2147483647 bytes": b"B" + (2**31 - 1).to_bytes(4, "little"),
    "a frame of": b"\x95" + (2**40).to_bytes(8, "little"),
    "an integer of 100000000 bytes": b"\x8b" + (10**8).to_bytes(4, "little"),
    "lacks what it works on": b"h\x05",
    "is cut off: a name": b"cos",
    "appends to what is no list": b"K\x01K\x02a",
    "sets items of what is no dict": b"K\x01K\x02K\x03s",
    "adds to what is no set": b"K\x01(K\x02\x90",
    "a key of type list": b"}]K\x01s",
    "not valid UTF-8": b"\x8c\x01\xff",
    "class other than numpy.ndarray": b"cnumpy.core.multiarray\n_reconstruct\ncos\nPathLike\n\x85R",
}


@pytest.mark.parametrize("message", HOSTILE)
def test_nothing_is_run(tmp_path, monkeypatch, message):
    monkeypatch.chdir(tmp_path)
    tracemalloc.start()
    try:
        found = refuse(tmp_path, proto4(HOSTILE[message]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.startswith("the pickle ")
    assert message in found
    assert re.search(r"\(byte \d+\)$", found)
    assert peak < 10e6
    assert not (tmp_path / "written").exists()


def test_instructions_are_counted(tmp_path):
    began = time.process_time()
    data = proto4(b"]" * (safe_pickle.MAX_OPCODES + 1))
    assert "more than 600000 instructions" in refuse(tmp_path, data)
    assert time.process_time() - began < 5


def test_large_files_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(safe_pickle, "MAX_FILE_BYTES", 1000)
    assert re.fullmatch(r"a pickle may have 1000 bytes, this has \d+", refuse(tmp_path, scenario()))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (array_pickle([10**12]), "shape 1e+12 and type '<f8', but 8 bytes"),
        (array_pickle([10**6, 10**6, 10**6]), "but 8 bytes"),
        (array_pickle([1] * 5), "at most 4 dimensions"),
        (array_pickle([1], "O8"), "type 'O8', only numbers and text"),
        (array_pickle([10**12], "S0", b""), "type 'S0', only numbers and text"),
        (array_pickle([1], "V8"), "type 'V8', only numbers and text"),
        (pickle.dumps(np.array([{}, 1], object), 4), "only numbers and text"),
        (pickle.dumps(np.zeros(2, "f4,i4"), 4), "only numbers and text"),
        (b"\x80\x09.", "does not begin as protocol 2 to 5 does"),
        (b"PK\3\4 zip", "does not begin as protocol 2 to 5 does"),
        (b"\x80\x04]", "is cut off: it has no end"),
    ],
)
def test_arrays_are_checked_before_they_are_made(tmp_path, data, message):
    assert message in refuse(tmp_path, data)


def test_one_text_named_many_times_is_not_copied_without_end():
    content = bytes(1 << 20)
    array = pickle.dumps(np.frombuffer(content, np.uint8), 4)
    assert np.array_equal(safe_pickle.loads(array, "x"), np.zeros(1 << 20, np.uint8))
    many = b"\x80\x03c_codecs\nencode\nq\0X\0\0\x10\0" + content + b"q\1X\6\0\0\0latin1q\2("
    many += b"h\0h\1h\2\x86R" * 200 + b"l."
    with pytest.raises(ScenarioError, match=r"more than 134217728 bytes of arrays"):
        safe_pickle.loads(many, "x")


def test_references_do_not_multiply(tmp_path):
    began = time.process_time()
    record = changed(["map_features", "5", "polyline"], nested(60))
    assert "must be numbers in rows" in refuse(tmp_path, record)
    deep = proto4(b"]" + b"]" * 100_000 + b"a" * 100_000)
    assert "no ScenarioNet scenario" in refuse(tmp_path, deep)
    key = proto4(b"}" + b")" + b"\x94h\0\x86" * 1 + b"K\1s")
    assert "a key of type tuple" in refuse(tmp_path, key)
    assert time.process_time() - began < 5


def womd_pickle(proto):
    """A WOMD record as the ScenarioNet converter writes it: float32, keys as text."""

    def points(message):
        return np.array([(p.x, p.y, p.z) for p in message], np.float32).reshape(-1, 3)

    def neighbors(message):
        fields = ("feature_id", "self_start_index", "self_end_index")
        return [{f: str(getattr(n, f)) for f in fields} for n in message]

    frames = len(proto.timestamps_seconds)
    names = ("UNSET", "VEHICLE", "PEDESTRIAN", "CYCLIST", "OTHER")
    tracks, features, lights = {}, {}, {}
    for t in proto.tracks:
        rows = np.array(
            [(s.center_x, s.center_y, s.center_z, s.length, s.width, s.height, s.heading,
              s.velocity_x, s.velocity_y, s.valid) for s in t.states], np.float32)  # fmt: skip
        state = {"position": rows[:, :3], "heading": rows[:, 6], "velocity": rows[:, 7:9]}
        state |= {"length": rows[:, 3], "width": rows[:, 4], "height": rows[:, 5]}
        tracks[str(t.id)] = {
            "type": names[t.object_type],
            "state": state | {"valid": rows[:, 9] > 0},
            "metadata": {},
        }
    for f in proto.map_features:
        kind = f.WhichOneof("feature_data")
        body = getattr(f, kind)
        if kind == "lane":
            value = {
                "type": "LANE_SURFACE_STREET", "polyline": points(body.polyline),
                "speed_limit_mph": body.speed_limit_mph, "exit_lanes": list(body.exit_lanes),
                "left_neighbor": neighbors(body.left_neighbors),
                "right_neighbor": neighbors(body.right_neighbors),
            }  # fmt: skip
        elif kind in ("road_line", "road_edge"):
            name = {"road_line": "UNKNOWN", "road_edge": "ROAD_EDGE_BOUNDARY"}[kind]
            value = {"type": name, "polyline": points(body.polyline)}
        elif kind == "stop_sign":
            value = {"type": "STOP_SIGN", "lane": list(body.lane)}
            value["position"] = points([body.position])[0]
        else:
            value = {"type": kind.upper(), "polygon": points(body.polygon)}
        features[str(f.id)] = value
    codes = ["UNKNOWN", "ARROW_STOP", "ARROW_CAUTION", "ARROW_GO", "STOP", "CAUTION", "GO"]
    for i, step in enumerate(proto.dynamic_map_states):
        for seen in step.lane_states:
            light = lights.setdefault(
                str(seen.lane),
                {"type": "TRAFFIC_LIGHT", "state": {"object_state": [None] * frames},
                 "lane": seen.lane, "stop_point": points([seen.stop_point])[0]},
            )  # fmt: skip
            light["state"]["object_state"][i] = f"LANE_STATE_{codes[seen.state]}"
    return scenario(
        id=proto.scenario_id, length=frames, tracks=tracks, map_features=features,
        dynamic_map_states=lights,
        metadata={"dataset": "waymo", "coordinate": "waymo",
                  "ts": np.array(proto.timestamps_seconds, np.float32),
                  "sdc_id": str(proto.tracks[proto.sdc_track_index].id),
                  "current_time_index": proto.current_time_index},
    )  # fmt: skip


def test_a_womd_scene_is_the_same_from_two_formats(tmp_path, shared_data):
    from alpagym.scenarios.readers import womd_scenario_pb2

    path = shared_data / "womd_tfrecord" / "motion_data_one_scenario.tfrecord"
    proto = womd_scenario_pb2.Scenario.FromString(next(iter(read_records(path)))[1])
    (a,), _ = load_scenarios(path)
    b = load(tmp_path, womd_pickle(proto))
    assert (a.id, a.dataset, a.license, a.ego, a.start_frame, a.dt) == (
        b.id, b.dataset, b.license, b.ego, b.start_frame, b.dt)  # fmt: skip
    for field in ("valid", "type", "id"):
        assert np.array_equal(getattr(a.tracks, field), getattr(b.tracks, field)), field
    for field in ("xyz", "yaw", "velocity", "size"):
        assert np.allclose(getattr(a.tracks, field), getattr(b.tracks, field), atol=2e-3), field
    for field in ("type", "id", "successors", "successor_offsets", "left_neighbor"):
        assert np.array_equal(getattr(a.map, field), getattr(b.map, field)), field
    assert np.allclose(a.map.speed_limit, b.map.speed_limit, equal_nan=True)
    for k in range(0, a.map.num_elements, 7):
        one, other = a.map.polyline(k), b.map.polyline(k)
        assert np.abs(project(one[:, :2], other[:, :2])[1]).max() < 0.06  # simplified to 5 cm
    assert np.array_equal(a.lights.state, b.lights.state)
    assert np.array_equal(a.lights.lane, b.lights.lane)
    assert np.allclose(a.lights.xy, b.lights.xy, atol=2e-3)


@pytest.mark.parametrize(
    "name",
    [
        "womd_scenarionet_pkl/sd_training_20s.tfrecord-00000-of-01000_49c341dce1f65cdb.pkl",
        "womd_scenarionet_pkl/sd_waymo_2831b6fde0420b0d.pkl",
        "womd_scenarionet_pkl/sd_waymo_8799c31b5be1f312.pkl",
        "womd_scenarionet_pkl/sd_waymo_v1.2_eb4b91b10ca94ff2.pkl",
        "nuscenes_scenarionet_pkl/sd_nuscenes_scene-0757.pkl",
        "nuscenes_scenarionet_pkl/sd_nuscenes_v1.0-mini_scene-0103.pkl",
    ],
)
def test_recorded_files(shared_data, name):
    with (shared_data / "index.csv").open() as file:
        row = next(r for r in csv.DictReader(file) if r["file"] == name)
    (s,), skipped = load_scenarios(shared_data / name)
    assert not skipped
    assert s.id == row["id"]
    never = sum(int(n) for n in re.findall(r"left out (\d+) agents", notes(s)))
    assert s.tracks.num_agents + never == int(row["n_agents"])
    assert s.tracks.num_frames == int(row["steps"])
    assert len(s.lights.lane) == int(row["n_tl"])
    lost = sum(int(n) for n in re.findall(r"left out (\d+) map", notes(s)))
    assert s.map.num_elements + lost == int(row["n_map_polylines"])
    lanes = np.flatnonzero(s.map.type == MapType.LANE)
    assert int(row["n_lane_polylines"]) - 5 <= len(lanes) <= int(row["n_lane_polylines"])
    assert len(s.map.successors) > 0.8 * len(lanes)
    path = s.tracks.xyz[s.ego, ::5, :2].astype(np.float64)
    gaps = [np.abs(project(s.map.polyline(i).astype(np.float64), path)[1]) for i in lanes]
    assert np.min(gaps, axis=0).max() < 2.0
    faults = AgentFlag.OFFROAD_IN_LOG | AgentFlag.OVERLAPS_IN_LOG
    assert not s.flags[s.ego] & faults


def test_only_pickles_are_sniffed(tmp_path):
    assert scenarionet.sniff(b"\x80\x04\x95", tmp_path / "0")
    assert scenarionet.sniff(b"rubbish", tmp_path / "0.pkl")
    assert not scenarionet.sniff(b"\x80\x04\x95", tmp_path / "dataset_summary.pkl")
    assert not scenarionet.sniff(b"\x80\x00\x00\x00", tmp_path / "map_0.bin")
