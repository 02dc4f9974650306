"""WOMD tf.Examples: the same drive as from a Scenario proto, map and lights put together again."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.polyline import project
from alpagym.scenarios.readers import womd_example, womd_scenario_pb2
from alpagym.scenarios.readers.tfrecord import read_records
from alpagym.scenarios.scenario import AgentFlag, LightState, MapType, ScenarioError
from reading import notes, only, refused
from scenario_files import FRAMES, SHARED, proto_scenario, record_bytes, write_tfrecord
from womd_example_files import AGENTS, add_map, example_of, serialize, write_examples

SAMPLE = SHARED / "womd_tfrecord" / "motion_data_one_example.tfrecord"
SCENARIO = SHARED / "womd_tfrecord" / "motion_data_one_scenario.tfrecord"
absent = pytest.mark.skipif(not SAMPLE.exists(), reason="the recorded data are not there")


def load(tmp_path, features):
    return only(write_examples(tmp_path / "x.tfrecord", features))


def refuse(tmp_path, features) -> str:
    return refused(write_examples(tmp_path / "bad.tfrecord", features))


def line(start, end, y=0.0, step=0.5):
    """A line sampled along x, near the drive of the made scenario."""
    x = np.linspace(start, end, round(abs(end - start) / step) + 1)
    return np.column_stack([5000 + x, np.full(len(x), y - 3000.0), np.full(len(x), 10.0)])


def assert_same_drive(a, b, places=0.002):
    """Whether two scenarios are one but for rounding to float32, lane graph and speed limits."""
    assert (a.id, a.dataset, a.license, a.dt) == (b.id, b.dataset, b.license, b.dt)
    assert (a.ego, a.start_frame, a.has_z) == (b.ego, b.start_frame, b.has_z)
    for name in ("valid", "id", "type"):
        assert np.array_equal(getattr(a.tracks, name), getattr(b.tracks, name)), name
    assert np.array_equal(a.tracks.size, b.tracks.size)
    assert np.array_equal(a.tracks.velocity, b.tracks.velocity)
    shift = a.origin - b.origin
    assert np.allclose(a.tracks.xyz + shift * a.tracks.valid[..., None], b.tracks.xyz, atol=places)
    turn = np.abs(a.tracks.yaw - b.tracks.yaw)
    assert np.minimum(turn, 2 * np.pi - turn).max() < 1e-5
    assert sorted(a.map.id) == sorted(b.map.id)
    place = {int(number): i for i, number in enumerate(b.map.id)}
    for i, number in enumerate(a.map.id):
        j = place[int(number)]
        one, other = a.map.polyline(i) + shift, b.map.polyline(j)
        assert a.map.type[i] == b.map.type[j]
        assert np.allclose(one[[0, -1]], other[[0, -1]], atol=places)  # so the direction as well
        if len(one) > 1:
            assert np.abs(project(other[:, :2], one[:, :2])[1]).max() < 0.1 + places
    lights = {int(b.map.id[k]): b.lights.state[i] for i, k in enumerate(b.lights.lane)}
    assert len(a.lights.lane) == len(lights)
    for i, k in enumerate(a.lights.lane):
        assert np.array_equal(a.lights.state[i], lights[int(a.map.id[k])])


def links(scenario):
    m = scenario.map
    return {(int(m.id[i]), int(m.id[j])) for i in range(m.num_elements) for j in m.successors_of(i)}


def test_same_drive_as_the_scenario_proto(tmp_path):
    proto = proto_scenario()
    crosswalk = proto.map_features.add(id=12)
    for x, y in ((20, -4), (23, -4), (23, 4), (20, 4)):
        crosswalk.crosswalk.polygon.add(x=5000 + x, y=-3000 + y, z=10)
    (wanted,), _ = load_scenarios(write_tfrecord(tmp_path / "proto", proto))
    s = load(tmp_path, example_of(proto))
    assert s.id == "made-2"
    assert_same_drive(s, wanted)
    assert links(s) == links(wanted) == {(1, 2)}
    assert np.isnan(s.map.speed_limit).all()
    assert (s.map.left_neighbor == -1).all()
    for note in ("no lane graph, neighbors or speed limits", "inferred 1 lane links", "left out 4"):
        assert note in notes(s)
    for note in ("all 6 slots", "map points are taken", "sampled paths", "repeat the id"):
        assert note not in notes(s)


def test_records_of_both_kinds_in_one_file(tmp_path):
    path = tmp_path / "mixed"
    proto = proto_scenario()
    proto.scenario_id = "made-3"
    other = record_bytes(serialize(example_of(proto_scenario()) | {"scenario/id": [b""]}))
    path.write_bytes(write_tfrecord(tmp_path / "a", proto).read_bytes() + other)
    scenarios, skipped = load_scenarios(path)
    assert [s.id for s in scenarios] == ["made-3", "mixed#1"]
    assert not skipped


def test_lights_change_their_slots(tmp_path):
    proto = proto_scenario()
    for i, step in enumerate(proto.dynamic_map_states):
        del step.lane_states[:]
        for lane, state in ((1, 4), (2, 6)) if i % 2 else ((2, 5), (7, 0)):
            step.lane_states.add(lane=lane, state=state)
    s = load(tmp_path, example_of(proto))
    even = np.arange(FRAMES) % 2 == 0
    state = {
        int(s.map.id[k]) if k >= 0 else -1: s.lights.state[i] for i, k in enumerate(s.lights.lane)
    }
    assert np.array_equal(state[1], np.where(even, LightState.ABSENT, LightState.RED))
    assert np.array_equal(state[2], np.where(even, LightState.YELLOW, LightState.GREEN))
    assert np.array_equal(state[-1], np.where(even, LightState.UNKNOWN, LightState.ABSENT))
    assert "1 lights control no lane" in notes(s)


class TestMap:
    def load(self, tmp_path, lines, drop=(), **changes):
        features = example_of(proto_scenario())
        add_map(features, lines)
        for i in drop:
            features["roadgraph_samples/valid"][i] = 0
        return load(tmp_path, features | changes)

    def elements(self, s):
        """Id, and where each element begins and ends along the road, in the order of ids."""
        x = [s.map.polyline(i)[[0, -1], 0] + s.origin[0] - 5000 for i in range(s.map.num_elements)]
        return [(int(n), *np.round(v, 1).tolist()) for n, v in zip(s.map.id, x, strict=True)]

    def test_lanes_are_linked(self, tmp_path):
        s = self.load(
            tmp_path, [(7, 2, line(30, 90)), (3, 1, line(-20, 30)), (5, 3, line(60, 30, 4))]
        )
        assert self.elements(s) == [(3, -20, 30), (5, 60, 30), (7, 30, 90)]
        assert (s.map.type == MapType.LANE).all()
        assert links(s) == {(3, 7)}

    def test_one_element_in_two_runs(self, tmp_path):
        whole = line(-20, 30)
        s = self.load(tmp_path, [(3, 2, whole), (4, 15, line(-20, 90, -4))])
        features = example_of(proto_scenario())
        add_map(features, [(3, 2, whole), (4, 15, line(-20, 90, -4))])
        order = [*range(50), *range(len(whole), len(whole) + 20), *range(50, len(whole))]
        rest = range(len(whole) + 20, len(features["roadgraph_samples/id"]))
        for name, width in (("xyz", 3), ("dir", 3), ("id", 1), ("type", 1), ("valid", 1)):
            values = np.array(features[f"roadgraph_samples/{name}"]).reshape(-1, width)
            moved = values[[*order, *rest]]
            features[f"roadgraph_samples/{name}"] = moved.ravel().tolist()
        again = load(tmp_path, features)
        assert self.elements(again) == self.elements(s) == [(3, -20, 30), (4, -20, 90)]
        assert "repeat the id" not in notes(again)

    def test_an_id_used_again_elsewhere(self, tmp_path):
        lines = [(3, 2, line(-20, 30)), (4, 15, line(-20, 90, -4)), (3, 2, line(60, 90))]
        s = self.load(tmp_path, lines)
        assert self.elements(s) == [(3, -20, 30), (3, 60, 90), (4, -20, 90)]
        assert "1 map elements repeat the id" in notes(s)
        s = self.load(tmp_path, [lines[0], lines[2]])  # side by side in the record
        assert self.elements(s) == [(3, -20, 30), (3, 60, 90)]

    def test_an_element_ends_where_its_direction_is_zero(self, tmp_path):
        s = self.load(tmp_path, [(3, 6, line(0, 10)), (3, 6, line(10.5, 20))])
        assert self.elements(s) == [(3, 0, 10), (3, 10.5, 20)]

    def test_long_steps_along_the_direction_are_no_gaps(self, tmp_path):
        edge = np.concatenate([line(-20, 0, -4), line(53, 60, -4)])
        s = self.load(tmp_path, [(4, 15, edge)])
        assert self.elements(s) == [(4, -20, 60)]

    def test_long_steps_without_directions(self, tmp_path):
        edge = np.concatenate([line(-20, 0, -4), line(53, 60, -4)])
        features = example_of(proto_scenario())
        add_map(features, [(4, 15, edge), (3, 2, line(-20, 90)), (4, 15, line(80, 90, -4))])
        features.pop("roadgraph_samples/dir")
        s = load(tmp_path, features)
        assert self.elements(s) == [(3, -20, 90), (4, -20, 60), (4, 80, 90)]

    def test_padding_inside_an_element(self, tmp_path):
        s = self.load(tmp_path, [(3, 2, line(-20, 30))], drop=(0, 40, 41, 42))
        assert self.elements(s) == [(3, -19.5, 30)]

    def test_points_and_polygons(self, tmp_path):
        square = np.array([[20, -4, 10], [23, -4, 10], [23, 4, 10], [20, 4, 10.0]])
        square[:, :2] += (5000, -3000)
        lines = [
            (3, 18, square),
            (4, 18, square + np.array([30, 0, 0])),
            (5, 17, square[:1]),
            (6, 19, square),
        ]
        s = self.load(tmp_path, [*lines, (7, 99, square)])
        assert list(s.map.type) == [3, 3, 4, 5]
        assert [len(s.map.polyline(i)) for i in range(4)] == [5, 5, 1, 5]
        assert "left out 1 map elements of unknown type" in notes(s)

    def test_no_map(self, tmp_path):
        features = example_of(proto_scenario())
        features = {k: v for k, v in features.items() if not k.startswith("roadgraph")}
        s = load(tmp_path, features)
        assert s.map.num_elements == 0
        assert "has no map" in notes(s)


def test_test_split_has_no_future(tmp_path):
    features = example_of(proto_scenario())
    empty = {
        name: [0 if name.endswith("valid") else -1] * len(values)
        for name, values in features.items()
        if "/future/" in name
    }
    s = load(tmp_path, features | empty)
    assert (s.tracks.num_frames, s.start_frame, s.lights.state.shape[1]) == (11, 0, 11)
    assert f"left out the last {FRAMES - 11} frames" in notes(s)
    s = load(tmp_path, {k: v for k, v in features.items() if "/future/" not in k})
    assert s.tracks.num_frames == 11
    assert "left out the last" not in notes(s)


def test_what_may_be_missing_is_said(tmp_path):
    features = example_of(proto_scenario(), agents=2, points=10)
    s = load(tmp_path, features | {"path_samples/xyz": [0.0] * 30})
    assert "all 2 slots for agents are taken" in notes(s)
    assert "all 10 map points are taken" in notes(s)
    assert "left out its sampled paths" in notes(s)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state/current/x": None}, "no feature 'state/current/x'"),
        ({"state/past/bbox_yaw": None}, "no feature 'state/past/bbox_yaw'"),
        ({"state/past/z": [1.0]}, f"'state/past/z' has 1 values, not {10 * AGENTS}"),
        ({"state/past/y": [b"north"]}, "'state/past/y' must be numbers, got bytes_list"),
        ({"state/future/valid": [1] * 7}, "'state/future/valid' has 7 values, but"),
        ({"state/is_sdc": [0] * AGENTS}, "'state/is_sdc' must mark one agent, but it marks 0"),
        ({"state/is_sdc": [1] * AGENTS}, "but it marks 6"),
        ({"state/current/x": [], "state/current/valid": []}, "names no agents"),
        ({"roadgraph_samples/id": [1]}, "'roadgraph_samples/id' has 1 values, not"),
        ({"roadgraph_samples/xyz": [0.0] * 601_000}, "at most 600000 are plausible"),
        ({"traffic_light_state/past/id": [1] * 7}, "has 7 values for 10 frames"),
        ({"traffic_light_state/past/x": [1.0] * 7}, "past/x' has 7 values, not 160"),
        ({"state/current/valid": [0] * AGENTS, "state/current/x": [float("nan")] * AGENTS}, None),
        ({"state/current/x": [float("nan")] * AGENTS}, "frame 10: position must be finite"),
        ({f"junk/{i}": [1.0] for i in range(1000)}, "features, at most 1000 are plausible"),
    ],
)  # fmt: skip
def test_bad_features(tmp_path, changes, words):
    features = example_of(proto_scenario()) | changes
    features = {name: values for name, values in features.items() if values is not None}
    if words is None:
        assert load(tmp_path, features).start_frame == 11
    else:
        assert words in refuse(tmp_path, features)


def test_too_many_agents_or_elements(tmp_path):
    agents = womd_example.MAX_AGENTS + 1
    assert "257 agents over" in refuse(tmp_path, example_of(proto_scenario(), agents=agents))
    features = example_of(proto_scenario())
    add_map(features, [(i, 2, line(0, 1)) for i in range(womd_example.MAX_ELEMENTS + 1)])
    assert "make up 3001 elements" in refuse(tmp_path, features)


def test_too_long_a_record(tmp_path):
    path = tmp_path / "x.tfrecord"
    path.write_bytes(record_bytes(b"scenario/id" + bytes(womd_example.MAX_BYTES)))
    with pytest.raises(ScenarioError, match="at most 16777216 are plausible"):
        load_scenarios(path)


def test_a_long_list_of_tiny_features(tmp_path):
    entry = b"\x0a\x00"
    body = entry * 2_000_000 + b"\x0a\x0d\x0a\x0bscenario/id"
    data = b"\x0a" + _varint(len(body)) + body
    path = tmp_path / "x.tfrecord"
    path.write_bytes(record_bytes(data))
    with pytest.raises(ScenarioError, match="2000001 features"):
        load_scenarios(path)


def _varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return struct.pack(f"{len(parts) + 1}B", *parts, value)


@pytest.mark.shared
@absent
def test_recorded_example():
    (s,), skipped = load_scenarios(SAMPLE)
    assert not skipped
    assert (s.id, s.ego, s.start_frame, s.dt) == ("a3bb37c25ce56418", 8, 10, 0.1)
    assert s.tracks.valid.shape == (128, 91)
    assert (s.map.type == MapType.LANE).sum() == 131
    assert s.map.num_elements == 254 - 1
    assert len(s.lights.lane) == 21
    assert "all 20000 map points are taken" in notes(s)
    bad = AgentFlag.OFFROAD_IN_LOG | AgentFlag.OVERLAPS_IN_LOG
    assert not s.flags[s.ego] & bad
    lanes = [s.map.polyline(i)[:, :2] for i in np.flatnonzero(s.map.type == MapType.LANE)]
    ego = s.tracks.xyz[s.ego, :, :2]
    aside = np.min([np.hypot(*_nearest(lane, ego).T) for lane in lanes], axis=0)
    assert aside[[0, -1]].max() < 0.3  # between them it turns on a lane that was cut off the map


def _nearest(lane: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Offsets from points [n, 2] to the nearest points of a lane, [n, 2]."""
    step = np.diff(lane, axis=0)
    along = ((points[:, None] - lane[:-1]) * step).sum(-1) / (step**2).sum(-1)
    offset = lane[:-1] + np.clip(along, 0, 1)[..., None] * step - points[:, None]
    return offset[np.arange(len(points)), (offset**2).sum(-1).argmin(1)]


@pytest.mark.shared
@absent
def test_recorded_scenario_written_as_an_example(tmp_path):
    """A drive of the dataset, from its Scenario proto and from the tf.Example of it."""
    ((_, data),) = read_records(SCENARIO)
    proto = womd_scenario_pb2.Scenario.FromString(data)
    (wanted,), _ = load_scenarios(SCENARIO)
    s = load(tmp_path, example_of(proto, agents=128, points=20_000))
    assert_same_drive(s, wanted)
    assert np.array_equal(s.flags, wanted.flags)
    assert len(links(wanted) - links(s)) <= 0.02 * len(links(wanted))
    assert len(links(s) - links(wanted)) <= 0.02 * len(links(wanted))
