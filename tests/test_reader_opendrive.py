"""OpenDRIVE: geometry in closed form, lanes and links, signs and lights, traffic, bad files."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.special import fresnel

from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.opendrive import curves, traffic
from alpagym.scenarios.opendrive.build import Built, add_edges, build
from alpagym.scenarios.opendrive.roads import read_roads
from alpagym.scenarios.opendrive.traffic import COUNT, scenarios_on
from alpagym.scenarios.polyline import arc_length, project
from alpagym.scenarios.procedural.network import NO_STOP, STOP_SIGN, YIELD_LINE, Lane, Network
from alpagym.scenarios.procedural.routes import trace
from alpagym.scenarios.scenario import (
    ROUTE_SPACING,
    AgentFlag,
    LightState,
    MapType,
    ScenarioError,
)
from opendrive_files import crossing, geometry, lane, road, section, straight, write

CM = 0.01


def built(path: Path) -> Built:
    file = read_roads(path)
    found = build(file, set(file.roads), path)
    add_edges(found, file, set(file.roads), path)
    return found


def reference(path: Path, s) -> tuple[np.ndarray, np.ndarray]:
    (only_road,) = read_roads(path).roads.values()
    return only_road.at(np.atleast_1d(np.asarray(s, float)))


def one_road(path: Path, length: float, shape: str, *, heading: float = 0.0) -> Path:
    plan = geometry(0, 3.0, -2.0, heading, length, shape)
    return write(path, road(1, length, plan, section("", lane(-1))))


# Reference lines


def test_arc(tmp_path) -> None:
    path = one_road(tmp_path / "a.xodr", 60.0, '<arc curvature="-0.02"/>', heading=0.5)
    points, heading = reference(path, [0.0, 30.0, 60.0])
    center = np.array([3.0 + 50 * math.sin(0.5), -2.0 - 50 * math.cos(0.5)])
    np.testing.assert_allclose(np.hypot(*(points - center).T), 50.0, atol=1e-9)
    np.testing.assert_allclose(heading, [0.5, -0.1, -0.7], atol=1e-12)


@pytest.mark.parametrize(("start", "end"), [(0.0, 0.05), (0.05, 0.0), (-0.03, 0.04)])
def test_spiral_ends_where_fresnel_integrals_say(tmp_path, start, end) -> None:
    length = 80.0
    shape = f'<spiral curvStart="{start}" curvEnd="{end}"/>'
    points, heading = reference(one_road(tmp_path / "a.xodr", length, shape), [0.0, 33.3, length])
    # theta(s) = start s + rate s^2 / 2 completes to a square about s0 = -start / rate
    rate = (end - start) / length
    s0, scale = -start / rate, math.sqrt(math.pi / abs(rate))

    def at(s: float) -> complex:
        value = []
        for x in (s - s0, -s0):
            sine, cosine = fresnel(x / scale)
            value.append(scale * complex(cosine, math.copysign(1, rate) * sine))
        return (value[0] - value[1]) * np.exp(-0.5j * rate * s0**2)

    wanted = [at(33.3), at(length)]
    found = [complex(*(p - [3.0, -2.0])) for p in points[1:]]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_allclose(heading[-1], 0.5 * (start + end) * length, atol=1e-12)


def test_poly3_is_measured_along_the_curve(tmp_path) -> None:
    a, b = 0.004, 40.0  # v = a u^2: its arc length is known
    slope = 2 * a * b
    length = 0.5 * b * math.sqrt(1 + slope**2) + math.asinh(slope) / (4 * a)
    path = one_road(tmp_path / "a.xodr", length, f'<poly3 a="0" b="0" c="{a}" d="0"/>')
    points, heading = reference(path, [length])
    np.testing.assert_allclose(points[0], [3.0 + b, -2.0 + a * b**2], atol=CM)
    np.testing.assert_allclose(heading, math.atan(slope), atol=1e-3)


@pytest.mark.parametrize("kind", ["arcLength", "normalized"])
def test_param_poly3(tmp_path, kind) -> None:
    length = 50.0
    scale = length if kind == "normalized" else 1.0
    u, v = (0, 1.0 * scale, 0, 0), (0, 0, 0.002 * scale**2, 0)
    numbers = " ".join(
        f'{k}{axis}="{value}"'
        for axis, row in (("U", u), ("V", v))
        for k, value in zip("abcd", row, strict=True)
    )
    path = one_road(tmp_path / "a.xodr", length, f'<paramPoly3 pRange="{kind}" {numbers}/>')
    points, heading = reference(path, [25.0, 50.0])
    np.testing.assert_allclose(points, [[28.0, -0.75], [53.0, 3.0]], atol=1e-9)
    np.testing.assert_allclose(heading[-1], math.atan(0.2), atol=1e-9)


def test_pieces_follow_each_other(tmp_path) -> None:
    plan = geometry(0, 0, 0, 0, 40, "<line/>") + geometry(
        40, 40, 0, 0, 30, '<spiral curvStart="0" curvEnd="0.02"/>'
    )
    path = write(tmp_path / "a.xodr", road(1, 70, plan, section("", lane(-1))))
    points, _ = reference(path, np.linspace(0.0, 70.0, 141))
    np.testing.assert_allclose(np.hypot(*np.diff(points, axis=0).T), 0.5, atol=1e-4)


def test_profiles_before_their_first_piece_and_empty() -> None:
    profile = curves.Profile(np.array([0.0, 10.0]), np.array([[1.0, 0.1, 0, 0], [2.0, 0, 0, 0]]))
    np.testing.assert_allclose(profile.at(np.array([0.0, 5.0, 10.0, 12.0])), [1.0, 1.5, 2.0, 2.0])
    empty = curves.Profile(np.zeros(0), np.zeros((0, 4)))
    assert empty.at(np.ones(3)).tolist() == [0, 0, 0]


# Lanes


def test_lanes_lie_beside_the_reference_line(tmp_path) -> None:
    found = built(straight(tmp_path / "a.xodr"))
    lanes = {key[2]: found.network.lanes[i] for key, i in found.index.items()}
    assert {k: round(float(v.points[0, 1]), 6) for k, v in lanes.items()} == {
        2: 5.25, 1: 1.75, -1: -1.75, -2: -5.25,
    }  # fmt: skip
    for number, part in lanes.items():
        step = part.points[-1] - part.points[0]
        assert np.sign(step[0]) == -np.sign(number)  # right lanes run along the road
        np.testing.assert_allclose(part.speed_limit, 50 / 3.6)
    index = {key[2]: i for key, i in found.index.items()}
    assert (lanes[-1].left, lanes[-1].right) == (-1, index[-2])
    assert (lanes[-2].left, lanes[-2].right) == (index[-1], -1)
    assert (lanes[1].left, lanes[1].right) == (-1, index[2])


def test_left_hand_traffic(tmp_path) -> None:
    found = built(straight(tmp_path / "a.xodr", rule="LHT"))
    lanes = {key[2]: found.network.lanes[i] for key, i in found.index.items()}
    index = {key[2]: i for key, i in found.index.items()}
    assert lanes[1].points[-1, 0] > lanes[1].points[0, 0]
    assert lanes[-1].points[-1, 0] < lanes[-1].points[0, 0]
    assert (lanes[1].left, lanes[1].right) == (index[2], -1)


def test_widths_offsets_and_borders_are_polynomials(tmp_path) -> None:
    growing = (
        '<width sOffset="0" a="3" b="0" c="0" d="0"/>'
        '<width sOffset="10" a="3" b="0.1" c="0" d="0"/>'
    )
    shift = '<laneOffset s="0" a="1" b="0" c="0" d="0"/>'
    border = '<border sOffset="0" a="-8" b="0" c="0" d="0"/>'
    lanes = section("", lane(-1, width=growing) + lane(-2, width=border), s=0)
    plan = geometry(0, 0, 0, 0, 30, "<line/>")
    found = built(write(tmp_path / "a.xodr", road(1, 30, plan, shift + lanes)))
    first, second = (found.network.lanes[found.index["1", 0, i]].points for i in (-1, -2))
    np.testing.assert_allclose(first[[0, -1], 1], [1 - 1.5, 1 - 2.5], atol=1e-9)
    np.testing.assert_allclose(second[[0, -1], 1], [(-2 - 7) / 2, (-4 - 7) / 2], atol=1e-9)


def test_units_and_places_of_speed_limits(tmp_path) -> None:
    fast = '<speed sOffset="0" max="65" unit="mph"/>'
    none = '<speed sOffset="0" max="no limit"/>'
    lanes = section("", lane(-1, extra=fast) + lane(-2, extra=none) + lane(-3))
    plan = geometry(0, 0, 0, 0, 30, "<line/>")
    path = write(tmp_path / "a.xodr", road(1, 30, plan, lanes))
    limits = [part.speed_limit for part in built(path).network.lanes]
    np.testing.assert_allclose(limits, [65 * 0.44704, 50 / 3.6, 50 / 3.6])


def test_sections_and_roads_are_linked(tmp_path) -> None:
    """Two sections, then a road that is defined against the direction of travel."""
    on = '<successor id="-1"/>'
    first = section("", lane(-1, link=on)) + section("", lane(-1, link='<successor id="1"/>'), s=40)
    end = '<successor elementType="road" elementId="2" contactPoint="end"/>'
    plan = geometry(0, 0, 0, 0, 100, "<line/>")
    back = geometry(0, 200, 0, math.pi, 100, "<line/>")
    second = road(2, 100, back, section(lane(1), ""))
    path = write(tmp_path / "a.xodr", road(1, 100, plan, first, link=end), second)
    found = built(path)
    a, b, c = (found.index[k] for k in (("1", 0, -1), ("1", 1, -1), ("2", 0, 1)))
    lanes = found.network.lanes
    assert (lanes[a].successors, lanes[b].successors, lanes[c].successors) == ([b], [c], [])
    np.testing.assert_allclose(lanes[c].points[[0, -1], 0], [100, 200], atol=1e-6)


def test_links_that_do_not_meet_and_narrow_lanes_are_left_out(tmp_path) -> None:
    end = '<successor elementType="road" elementId="2" contactPoint="start"/>'
    thin = lane(-2, width='<width sOffset="0" a="0.5" b="0" c="0" d="0"/>')
    lanes = section("", lane(-1, link='<successor id="-1"/>') + thin + lane(-3, kind="sidewalk"))
    plans = [geometry(0, x, 0, 0, 100, "<line/>") for x in (0, 110)]
    path = write(
        tmp_path / "a.xodr",
        road(1, 100, plans[0], lanes, link=end),
        road(2, 100, plans[1], section("", lane(-1))),
    )
    found = built(path)
    assert len(found.network.lanes) == 2
    assert not any(part.successors for part in found.network.lanes)


def test_a_crossing_is_linked_through_its_junction(tmp_path) -> None:
    found = built(crossing(tmp_path / "x.xodr"))
    lanes = found.network.lanes
    assert len(lanes) == 8 + 12
    for arm in range(1, 5):
        incoming = lanes[found.index[str(arm), 0, 1]]
        assert len(incoming.successors) == 3
        assert set(incoming.successors) <= found.in_junction
        for inner in incoming.successors:
            (out,) = lanes[inner].successors
            assert out not in found.in_junction
            np.testing.assert_allclose(lanes[inner].points[0], incoming.points[-1], atol=CM)
            np.testing.assert_allclose(lanes[inner].points[-1], lanes[out].points[0], atol=CM)
    right = [lanes[i] for i in found.in_junction if arc_length(lanes[i].points)[-1] < 17]
    np.testing.assert_allclose(  # radius 12 m less half a lane
        [arc_length(part.points)[-1] for part in right], 0.5 * math.pi * 10.25, atol=0.02
    )


# The drivable area


@pytest.mark.parametrize("draw", [straight, crossing])
def test_edges_have_the_road_on_their_left(tmp_path, draw) -> None:
    found = built(draw(tmp_path / "a.xodr"))
    edges = [points for kind, points in found.network.others if kind == MapType.ROAD_EDGE]
    total = sum(float(arc_length(edge)[-1]) for edge in edges)
    for part in found.network.lanes:
        middle = part.pose_at(0.5 * part.s[-1])[0]
        _, side = min(
            (project(edge, middle[None]) for edge in edges), key=lambda found: abs(found[1][0])
        )
        assert side[0] > 1.0
    if draw is straight:  # the ends of the road are open
        assert len(edges) == 2
        np.testing.assert_allclose(total, 1600.0, atol=1.0)


# Signs and lights


@pytest.mark.parametrize(("signal", "stop"), [("stop", STOP_SIGN), ("none", NO_STOP)])
def test_signs_stand_at_the_end_of_who_comes_in(tmp_path, signal, stop) -> None:
    found = built(crossing(tmp_path / "x.xodr", signal))
    ends = {key: found.network.lanes[i].stop for key, i in found.index.items()}
    assert {ends[str(arm), 0, 1] for arm in range(1, 5)} == {stop}
    assert {ends[str(arm), 0, -1] for arm in range(1, 5)} == {NO_STOP}
    signs = [points for kind, points in found.network.others if kind == MapType.STOP_SIGN]
    assert len(signs) == (4 if signal == "stop" else 0)
    if signs:  # on arm 1, 2 m out and 5 m to the left of its outward direction
        assert min(np.hypot(*(sign[0] - [14.0, 5.0])) for sign in signs) < 1e-6


def test_yield_signs_lights_inside_junctions_and_validity(tmp_path) -> None:
    """A signal where traffic enters a road is for the lanes that lead there."""
    yields = '<signal id="1" s="98" t="-4" orientation="+" dynamic="no" type="205" subtype="-1"/>'
    light = (
        '<signal id="2" s="1" t="-4" orientation="+" dynamic="yes" type="1000001">'
        '<validity fromLane="-2" toLane="-2"/></signal>'
    )
    on = '<successor elementType="road" elementId="2" contactPoint="start"/>'
    both = "".join(lane(i, link=f'<successor id="{i}"/>') for i in (-1, -2))
    plans = [geometry(0, x, 0, 0, 100, "<line/>") for x in (0, 100)]
    first = road(1, 100, plans[0], section("", both), link=on)
    second = road(2, 100, plans[1], section("", lane(-1) + lane(-2)), signals=yields + light)
    found = built(write(tmp_path / "a.xodr", first, second))
    ends = {key[0::2]: found.network.lanes[i].stop for key, i in found.index.items()}
    assert ends == {("1", -1): NO_STOP, ("1", -2): 0, ("2", -1): YIELD_LINE, ("2", -2): YIELD_LINE}
    assert found.lights == [(found.index["1", 0, -2], "1")]


# Traffic


def test_a_map_gives_scenarios_like_a_recording(tmp_path) -> None:
    path = crossing(tmp_path / "town.xodr")
    scenarios, skipped = load_scenarios(path)
    assert not skipped
    assert [s.id for s in scenarios] == [f"opendrive/town/{i}" for i in range(COUNT)]
    for scenario in scenarios:
        assert (scenario.dataset, scenario.license) == ("opendrive", "unknown")
        assert scenario.tracks.valid[scenario.ego].all()
        assert not scenario.flags[scenario.ego] & AgentFlag.OFFROAD_IN_LOG
        assert not (scenario.flags & AgentFlag.OVERLAPS_IN_LOG).any()
        assert "traffic is generated on a given map" in scenario.notes
        travel = np.hypot(*np.diff(scenario.tracks.xyz[scenario.ego, 10:, :2], axis=0).T).sum()
        assert travel > 2.0
    lit = [s for s in scenarios if len(s.lights.lane) == 4]
    assert lit
    for scenario in lit:  # one road at a time
        assert ((scenario.lights.state == LightState.GREEN).sum(0) <= 1).all()
    again = next(scenarios_on(path, 1, seed=1))
    np.testing.assert_array_equal(again.tracks.xyz, scenarios[1].tracks.xyz)


def test_scenarios_lie_where_the_map_does(tmp_path) -> None:
    scenario = next(scenarios_on(straight(tmp_path / "a.xodr"), 1))
    lanes = scenario.map.points[scenario.map.offsets[0] : scenario.map.offsets[1]]
    places = lanes.astype(float) + scenario.origin
    np.testing.assert_allclose(np.abs(places[:, 1]).max(), 5.25, atol=1e-3)
    assert places[:, 0].min() > -0.01
    assert places[:, 0].max() < 800.01


def test_routes_end_beyond_what_is_driven(tmp_path) -> None:
    scenario = next(scenarios_on(straight(tmp_path / "a.xodr", length=20_000.0), 1, seed=3))
    lengths = np.diff(scenario.routes.offsets) * ROUTE_SPACING
    assert lengths.max() <= 2000.0 + ROUTE_SPACING
    driven = np.hypot(*np.diff(scenario.tracks.xyz[..., :2], axis=1).transpose(2, 0, 1)).sum(1)
    assert (driven + 100.0 < lengths).all()


def test_where_many_lanes_cross_vehicles_stand_near(tmp_path) -> None:
    """With more lanes than vehicles, none is far from the middle."""
    pair = section(lane(1), lane(-1))
    roads = [
        road(i, 1000, geometry(0, -500, 10.0 * (i - 15), 0, 1000, "<line/>"), pair)
        for i in range(31)
    ]
    scenario = next(scenarios_on(write(tmp_path / "a.xodr", *roads), 1))
    start = scenario.tracks.xyz[:, 0, :2]
    assert len(start) >= 30
    assert np.hypot(*start.T).max() < 100.0


def test_intricate_roads_are_given_fewer_attempts(tmp_path, monkeypatch) -> None:
    path = crossing(tmp_path / "a.xodr")
    monkeypatch.setattr(traffic, "MAX_WORK", 4_000)
    made: dict[int, list[str]] = {}
    for count in (COUNT, 10 * COUNT):
        made[count] = []
        with pytest.raises(
            ScenarioError, match=r"attempts .* roads so intricate are given no more"
        ):
            made[count] += (scenario.id for scenario in scenarios_on(path, count))
    assert 0 < len(made[COUNT]) < len(made[10 * COUNT])  # more may be spent on more scenarios


# Bad files


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<OpenDRIVE>", "not valid XML, perhaps truncated"),
        ("<OpenDRIVE/>", "OpenDRIVE without any road that has lanes"),
        ("<map/>", "the root element must be OpenDRIVE, got map"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><OpenDRIVE/>', "a document type or entities is not read"),
        ('<OpenDRIVE><road id="7" length="x"/></OpenDRIVE>', "road 7: road: length must be a"),
        ('<OpenDRIVE><road id="7" length="1e6"/></OpenDRIVE>', "road 7: 1e+06 m of roads and"),
        (
            '<OpenDRIVE><road id="7" length="-1"/></OpenDRIVE>',
            "length must not be negative, got -1",
        ),
    ],
)
def test_damaged_files_are_refused(tmp_path, text, words) -> None:
    path = tmp_path / "bad.xodr"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=f"^{re.escape(str(path))}: .*{re.escape(words)}"):
        load_scenarios(path)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ("<loop/>", "road 1: geometry: expected line, arc, spiral, poly3 or paramPoly3"),
        ('<arc curvature="nan"/>', "road 1: arc: curvature must be a finite number, got 'nan'"),
        ('<spiral curvStart="1"/>', "road 1: spiral: curvEnd must be a finite number, got ''"),
    ],
)
def test_damaged_geometry_is_refused(tmp_path, shape, words) -> None:
    path = one_road(tmp_path / "a.xodr", 30.0, shape)
    with pytest.raises(ScenarioError, match=re.escape(words)):
        load_scenarios(path)


def test_a_road_too_short_for_traffic_is_refused(tmp_path) -> None:
    path = straight(tmp_path / "a.xodr", length=30.0)
    with pytest.raises(ScenarioError, match="no usable traffic on this map"):
        load_scenarios(path)


def test_lanes_of_other_points_are_changed_between() -> None:
    lane = np.column_stack([np.linspace(0.0, 100.0, 11), np.zeros(11)])
    beside = np.column_stack([np.linspace(0.0, 100.0, 5), np.full(5, 3.5)])
    net = Network(lanes=[Lane(lane, 10.0), Lane(beside, 10.0)])
    path = trace(net, [0], 0.0, change=(1, 30.0, 40.0)).points
    assert np.all(np.diff(path[:, 0]) > 0.0)
    assert np.abs(path[path[:, 0] < 29.0, 1]).max() < 1e-6
    assert np.abs(path[path[:, 0] > 72.0, 1] - 3.5).max() < 1e-6
