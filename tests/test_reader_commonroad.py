"""CommonRoad XML: what the reader makes of files written here, of recordings, of broken files."""

from __future__ import annotations

import time

import numpy as np
import pytest

from alpagym.config import SimConfig
from alpagym.evaluation import evaluate
from alpagym.scenarios.goals import goal_points
from alpagym.scenarios.load import load_scenarios
from alpagym.scenarios.polyline import project
from alpagym.scenarios.readers import commonroad_route
from alpagym.scenarios.scenario import (
    AgentFlag,
    AgentType,
    LightState,
    MapType,
    Scenario,
    ScenarioError,
)
from reading import agent, element, notes
from scenario_files import SHARED

X0, Y0 = 4000.0, -700.0
"""Where the files written here lie [m]."""


def points(line) -> str:
    return "".join(f"<point><x>{X0 + x}</x><y>{Y0 + y}</y></point>" for x, y in line)


def lanelet(number, left, right, extra="", marking="") -> str:
    return (
        f'<lanelet id="{number}"><leftBound>{points(left)}{marking}</leftBound>'
        f"<rightBound>{points(right)}{marking}</rightBound>{extra}</lanelet>"
    )


def exact(tag, value) -> str:
    return f"<{tag}><exact>{value}</exact></{tag}>"


def between(tag, low, high) -> str:
    return f"<{tag}><intervalStart>{low}</intervalStart><intervalEnd>{high}</intervalEnd></{tag}>"


def state(tag, t, x, y, yaw=0.0, **more) -> str:
    place = f"<position>{points([(x, y)])}</position>"
    rest = "".join(exact(k, v) for k, v in more.items())
    return f"<{tag}>{place}{exact('orientation', yaw)}{exact('time', t)}{rest}</{tag}>"


RECTANGLE = "<rectangle><length>4.0</length><width>1.8</width></rectangle>"


def obstacle(number, x, speed, *, frames=40, kind="car", shape=RECTANGLE, unit=1.0, y=0.0) -> str:
    rows = [
        state(
            "initialState" if i == 0 else "state", i * unit, x + 0.1 * speed * i, y, velocity=speed
        )
        for i in range(frames)
    ]
    return (
        f'<dynamicObstacle id="{number}"><type>{kind}</type><shape>{shape}</shape>{rows[0]}'
        f"<trajectory>{''.join(rows[1:])}</trajectory></dynamicObstacle>"
    )


def problem(number=900, x=5.0, y=0.0, speed=8.0, goal=None) -> str:
    region = (
        "<position><rectangle><length>6</length><width>3</width><orientation>0</orientation>"
        f"<center><x>{X0 + 33}</x><y>{Y0}</y></center></rectangle></position>"
    )
    goal = region + between("time", 25, 39) if goal is None else goal
    return (
        f'<planningProblem id="{number}">{state("initialState", 0, x, y, velocity=speed)}'
        f"<goalState>{goal}</goalState></planningProblem>"
    )


ROADS = "".join(
    [
        # Two lanes side by side over 100 m, then a bend to the right of the first alone.
        lanelet(1, [(0, 2), (50, 2)], [(0, -2), (50, -2)], '<successor ref="2"/>'
                '<adjacentLeft ref="3" drivingDir="same"/><trafficSignRef ref="50"/>'
                '<trafficLightRef ref="60"/>', "<lineMarking>dashed</lineMarking>"),
        lanelet(2, [(50, 2), (100, 2)], [(50, -2), (100, -2)], '<predecessor ref="1"/>'
                "<laneletType>urban</laneletType>"),
        lanelet(3, [(0, 6), (100, 6)], [(0, 2), (100, 2)],
                '<adjacentRight ref="1" drivingDir="same"/>'
                '<adjacentLeft ref="4" drivingDir="opposite"/><trafficSignRef ref="51"/>'),
        lanelet(4, [(100, 6), (0, 6)], [(100, 10), (0, 10)]),
        lanelet(5, [(60, -2), (60, 10)], [(63, -2), (63, 10)],
                "<laneletType>crosswalk</laneletType>"),
        lanelet(6, [(0, -2), (100, -2)], [(0, -4), (100, -4)],
                "<laneletType>sidewalk</laneletType>"),
    ]
)  # fmt: skip
SIGNS = (
    '<trafficSign id="50"><trafficSignElement><trafficSignID>274</trafficSignID>'
    "<additionalValue>13.89</additionalValue></trafficSignElement><trafficSignElement>"
    "<trafficSignID>206</trafficSignID></trafficSignElement></trafficSign>"
    '<trafficSign id="51"><trafficSignElement><trafficSignID>R2-1</trafficSignID>'
    "<additionalValue>35 mph</additionalValue></trafficSignElement></trafficSign>"
)
LIGHT = (
    '<trafficLight id="60"><cycle>'
    "<cycleElement><duration>10</duration><color>red</color></cycleElement>"
    "<cycleElement><duration>5</duration><color>redYellow</color></cycleElement>"
    "<cycleElement><duration>20</duration><color>green</color></cycleElement>"
    "<cycleElement><duration>5</duration><color>yellow</color></cycleElement>"
    "<timeOffset>30</timeOffset></cycle><active>true</active></trafficLight>"
)
STATIC = (
    '<staticObstacle id="70"><type>parkedVehicle</type><shape><rectangle><length>5</length>'
    "<width>2</width><orientation>0.5</orientation></rectangle></shape>"
    f"{state('initialState', 0, 80.0, -1.0, 0.25)}</staticObstacle>"
)


def document(*parts, version="2020a", dt=0.1, name="ZAM_Made-1_1_T-1") -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<!-- made -->\n'
        f'<commonRoad commonRoadVersion="{version}" timeStepSize="{dt}" benchmarkID="{name}">'
        f"{''.join(parts)}</commonRoad>"
    )


def write(tmp_path, text) -> str:
    path = tmp_path / "made.xml"
    path.write_text(text, encoding="utf-8")
    return path


def load(tmp_path, text) -> list[Scenario]:
    scenarios, skipped = load_scenarios(write(tmp_path, text))
    assert not skipped
    return scenarios


def one(tmp_path, *parts, **header) -> Scenario:
    (scenario,) = load(tmp_path, document(*parts, **header))
    return scenario


def error_of(tmp_path, text) -> str:
    with pytest.raises(ScenarioError) as error:
        load_scenarios(write(tmp_path, text))
    return str(error.value)


def test_tracks_ids_sizes_and_units(tmp_path):
    s = one(tmp_path, ROADS, obstacle(7, 40.0, 10.0), STATIC, problem())
    assert (s.id, s.dataset, s.license, s.dt) == (
        "ZAM_Made-1_1_T-1", "commonroad", "commonroad-mixed", 0.1,
    )  # fmt: skip
    assert (s.start_frame, s.tracks.num_frames, s.has_z) == (0, 40, False)
    a = agent(s, 7)
    where = s.tracks.xyz[a].astype(float) + s.origin
    assert np.allclose(where[:, 0], X0 + 40.0 + np.arange(40), atol=1e-3)
    assert np.allclose(where[:, 1], Y0, atol=1e-3)
    assert np.allclose(s.tracks.velocity[a], [10.0, 0.0])
    assert np.allclose(s.tracks.size[a], [4.0, 1.8, 1.6])
    parked = agent(s, 70)
    assert s.tracks.valid[parked].all()
    assert np.allclose(s.tracks.yaw[parked], 0.75)
    assert s.flags[parked] & AgentFlag.PARKED


def test_shapes_beside_the_point_that_moves(tmp_path):
    corners = ((0, -1), (6, -1), (7, 0), (6, 1), (0, 1))
    polygon = "".join(f"<point><x>{x}</x><y>{y}</y></point>" for x, y in corners)
    polygon = f"<polygon>{polygon}</polygon>"
    circle = "<circle><radius>0.4</radius></circle>"
    s = one(
        tmp_path, ROADS, problem(),
        obstacle(7, 40.0, 10.0, shape=polygon),
        obstacle(8, 30.0, 1.0, shape=circle, kind="pedestrian", y=-3.0),
    )  # fmt: skip
    bus, walker = agent(s, 7), agent(s, 8)
    assert np.allclose(s.tracks.size[bus, :2], [7, 2])
    assert s.tracks.xyz[bus, 0, 0] + s.origin[0] == pytest.approx(X0 + 43.5, abs=1e-3)
    assert np.allclose(s.tracks.size[walker, :2], 0.8)
    assert s.tracks.type[walker] == AgentType.PEDESTRIAN


def test_times_are_seconds_before_2018b_and_where_they_show_fractions(tmp_path):
    old = obstacle(7, 40.0, 10.0, unit=0.1).replace("dynamicObstacle", "obstacle")
    old = old.replace("<type>", "<role>dynamic</role><type>")
    goal = between("time", 2.0, 3.0) + between("velocity", 5, 15)
    s = one(tmp_path, ROADS, old, problem(goal=goal), version="2018a")
    assert s.tracks.num_frames == 40
    assert s.tracks.valid[agent(s, 7)].all()
    assert "times are in" not in notes(s)
    odd = one(tmp_path, ROADS, obstacle(7, 40.0, 10.0), problem(), version="2018a")
    assert odd.tracks.num_frames == 40
    assert "times are in steps, unlike version 2018a" in notes(odd)


def test_the_source_time_step_is_kept(tmp_path):
    s = one(tmp_path, ROADS, obstacle(7, 40.0, 10.0), problem(), dt=0.04)
    assert s.dt == 0.04
    ego = s.tracks.xyz[s.ego, :5, 0]
    assert np.allclose(np.diff(ego) / 0.04, 8.0, atol=0.5)


def test_lanes_links_neighbors_limits_and_lines(tmp_path):
    s = one(tmp_path, ROADS, SIGNS, obstacle(7, 40.0, 10.0), problem())
    lanes = [int(i) for i in s.map.id[s.map.type == MapType.LANE]]
    assert lanes == [1, 2, 3, 4]
    first, second, third = (element(s, i) for i in (1, 2, 3))
    assert list(s.map.successors_of(first)) == [second]
    assert s.map.left_neighbor[first] == third
    assert s.map.right_neighbor[third] == first
    assert s.map.left_neighbor[third] == -1  # runs the other way
    assert s.map.speed_limit[first] == pytest.approx(13.89)
    assert s.map.speed_limit[third] == pytest.approx(35 * 0.44704)
    assert np.isnan(s.map.speed_limit[second])
    line = s.map.polyline(first) + s.origin
    assert np.allclose(line[[0, -1], :2], [[X0, Y0], [X0 + 50, Y0]], atol=1e-3)
    backwards = s.map.polyline(element(s, 4)) + s.origin
    assert np.allclose(backwards[[0, -1], :2], [[X0 + 100, Y0 + 8], [X0, Y0 + 8]], atol=1e-3)
    assert (s.map.type == MapType.ROAD_LINE).sum() == 2
    crossing = s.map.polyline(element(s, 5))
    assert s.map.type[element(s, 5)] == MapType.CROSSWALK
    assert len(crossing) == 5
    assert "1 lanelets are no lanes for cars" in notes(s)


def test_stop_signs_stand_where_the_lanelet_ends(tmp_path):
    s = one(tmp_path, ROADS, SIGNS, obstacle(7, 90.0, 1.0), problem())
    (sign,) = np.flatnonzero(s.map.type == MapType.STOP_SIGN)
    assert np.allclose(s.map.polyline(int(sign))[0, :2] + s.origin[:2], [X0 + 50, Y0], atol=1e-3)
    routes, ego = s.routes, s.ego
    own = slice(routes.stop_offsets[ego], routes.stop_offsets[ego + 1])
    assert list(routes.stop_light[own]) == [-1]
    assert routes.stop_s[own] == pytest.approx([45.0], abs=0.5)


def test_road_edges_are_open_at_the_map_s_ends_and_directed(tmp_path):
    s = one(tmp_path, ROADS, obstacle(7, 40.0, 10.0), problem())
    edges = [s.map.polyline(int(i)) + s.origin for i in np.flatnonzero(s.map.type == 2)]
    edges.sort(key=lambda e: e[0, 1])
    (low, high) = ([e[0, :2] - [X0, Y0], e[-1, :2] - [X0, Y0]] for e in edges)
    assert np.allclose(low, [[0, -2], [100, -2]], atol=0.2)  # the sidewalk is beyond
    assert np.allclose(high, [[100, 10], [0, 10]], atol=0.2)


def test_islands_have_the_road_on_their_left(tmp_path):
    block = "".join(
        [
            lanelet(1, [(-40, 2), (40, 2)], [(-40, -2), (40, -2)]),
            lanelet(2, [(40, 26), (-40, 26)], [(40, 30), (-40, 30)]),
            lanelet(3, [(16, -2), (16, 30)], [(20, -2), (20, 30)]),
            lanelet(4, [(-20, -2), (-20, 30)], [(-16, -2), (-16, 30)]),
        ]
    )
    s = one(tmp_path, block, obstacle(7, 30.0, 1.0), problem(x=-30.0, speed=5.0))
    rings = [s.map.polyline(int(i)) for i in np.flatnonzero(s.map.type == 2)]
    closed = [r for r in rings if np.array_equal(r[0], r[-1])]
    (island,) = closed
    x, y = island[:, 0].astype(float), island[:, 1].astype(float)
    assert 0.5 * np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) == pytest.approx(-32 * 24, rel=0.02)


def test_lights_follow_their_cycle_and_offset(tmp_path):
    s = one(tmp_path, ROADS, LIGHT, obstacle(7, 80.0, 1.0), problem())
    assert [int(s.map.id[i]) for i in s.lights.lane] == [2]
    assert np.allclose(s.lights.xy + s.origin[:2], [[X0 + 50, Y0]], atol=1e-3)
    shown = s.lights.state[0]
    # A cycle begins at frame 30, so frame 0 is 10 frames into one that began at -10.
    assert list(shown[:5]) == [LightState.RED] * 5
    assert list(shown[5:25]) == [LightState.GREEN] * 20
    assert list(shown[25:30]) == [LightState.YELLOW] * 5
    assert list(shown[30:40]) == [LightState.RED] * 10
    whole = np.concatenate([shown, s.lights.after[0]])
    assert np.array_equal(whole[40:], np.resize(whole[:40], len(whole) - 40))


def test_lights_control_the_ways_that_they_point_to(tmp_path):
    fork = "".join(
        [
            lanelet(1, [(0, 2), (50, 2)], [(0, -2), (50, -2)], '<successor ref="2"/>'
                    '<successor ref="3"/><trafficLightRef ref="60"/><trafficLightRef ref="61"/>'),
            lanelet(2, [(50, 2), (100, 2)], [(50, -2), (100, -2)]),
            lanelet(3, [(50, 2), (60, 30)], [(50, -2), (64, 30)]),
            '<intersection id="80"><incoming id="81"><incomingLanelet ref="1"/>'
            '<successorsLeft ref="3"/><successorsStraight ref="2"/></incoming></intersection>',
        ]
    )  # fmt: skip
    left = LIGHT.replace('id="60"', 'id="61"').replace(
        "<active>", "<direction>left</direction><active>"
    )
    left = left.replace("green", "inactive")
    ahead = LIGHT.replace("<active>", "<direction>straightRight</direction><active>")
    s = one(tmp_path, fork, ahead, left, obstacle(7, 80.0, 1.0), problem())
    by_lane = {
        int(s.map.id[lane]): row for lane, row in zip(s.lights.lane, s.lights.state, strict=True)
    }
    assert by_lane[2][10] == LightState.GREEN
    assert by_lane[3][10] == LightState.ABSENT


def test_the_made_ego_starts_as_given_and_gets_to_the_goal_in_time(tmp_path):
    s = one(tmp_path, ROADS, obstacle(7, 90.0, 1.0), problem())
    ego = s.tracks.xyz[s.ego].astype(float) + s.origin
    assert np.allclose(ego[0, :2], [X0 + 5, Y0], atol=1e-3)
    assert s.tracks.yaw[s.ego, 0] == pytest.approx(0.0, abs=1e-3)
    assert np.hypot(*s.tracks.velocity[s.ego, 0]) == pytest.approx(8.0)
    in_goal = (np.abs(ego[:, 0] - X0 - 33) < 3) & (np.abs(ego[:, 1] - Y0) < 1.5)
    assert in_goal[25:40].any()
    goal, _ = goal_points(s)
    assert np.allclose(goal[:2] + s.origin[:2], [X0 + 33, Y0], atol=0.3)
    assert "made from planning problem 900, not recorded" in notes(s)
    assert "bounds of the goal" not in notes(s)


def test_the_made_ego_changes_lanes_for_its_goal(tmp_path):
    goal = (
        f"<position><circle><radius>2</radius><center><x>{X0 + 80}</x><y>{Y0 + 4}</y></center>"
        "</circle></position>" + between("time", 60, 110)
    )
    s = one(tmp_path, ROADS, obstacle(7, 90.0, 5.0, frames=101, y=0.0), problem(goal=goal))
    ego = s.tracks.xyz[s.ego].astype(float) + s.origin
    near = np.hypot(ego[:, 0] - X0 - 80, ego[:, 1] - Y0 - 4)
    assert near[60:].min() < 2.0
    turn = np.abs(np.diff(s.tracks.yaw[s.ego].astype(float))).max()
    assert turn / 0.1 * 8.0 < 3.0  # lateral acceleration


def test_a_goal_may_be_lanelets_or_have_no_place(tmp_path):
    goal = '<position><lanelet ref="2"/></position>' + between("time", 30, 120)
    s = one(tmp_path, ROADS, obstacle(7, 95.0, 8.0), problem(goal=goal))
    point = goal_points(s)[0] + s.origin
    assert np.allclose(point[:2], [X0 + 75, Y0], atol=0.5)
    s = one(tmp_path, ROADS, obstacle(7, 95.0, 8.0), problem(goal=between("time", 39, 39)))
    speed = np.hypot(*s.tracks.velocity[s.ego].T)
    assert np.allclose(speed, 8.0, atol=1.0)
    assert s.tracks.num_frames == 40


def test_the_made_ego_keeps_behind_a_slower_car(tmp_path):
    s = one(tmp_path, ROADS, obstacle(7, 22.0, 3.0, frames=60), problem(speed=10.0))
    gap = s.tracks.xyz[agent(s, 7), :60, 0] - s.tracks.xyz[s.ego, :60, 0]
    assert gap.min() > 4.3
    assert not s.flags[s.ego] & (AgentFlag.OVERLAPS_IN_LOG | AgentFlag.OFFROAD_IN_LOG)


def test_a_goal_that_no_lane_leads_to_is_noted(tmp_path):
    goal = '<position><lanelet ref="4"/></position>' + between("time", 10, 39)
    s = one(tmp_path, ROADS, obstacle(7, 60.0, 8.0), problem(goal=goal))
    assert "no lanes lead to its goal" in notes(s)


def test_each_planning_problem_is_a_scenario_of_one_recording(tmp_path):
    text = document(ROADS, obstacle(7, 60.0, 8.0), problem(900), problem(901, x=10.0, y=4.0))
    first, second = load(tmp_path, text)
    assert [s.id.rpartition("-")[2] for s in (first, second)] == ["900", "901"]
    assert first.recording == second.recording == "ZAM_Made-1_1_T-1"
    assert first.tracks.id[first.ego] == 900


def test_problems_of_one_file_do_not_change_each_other(tmp_path):
    problems = [problem(900 + k, x=5.0 + 12.0 * k, y=0.5 * k, speed=5.0 * k) for k in range(4)]
    together = load(tmp_path, document(ROADS, obstacle(7, 60.0, 2.0), *problems))
    for own, scenario in zip(problems, together, strict=True):
        alone = one(tmp_path, ROADS, obstacle(7, 60.0, 2.0), own)
        for name in ("xyz", "yaw", "velocity", "valid"):
            assert np.array_equal(getattr(alone.tracks, name), getattr(scenario.tracks, name))
        assert np.array_equal(alone.map.points, scenario.map.points)


def test_without_a_problem_the_vehicle_seen_longest_is_the_ego(tmp_path):
    s = one(
        tmp_path, ROADS, STATIC,
        obstacle(7, 40.0, 10.0, frames=35), obstacle(8, 10.0, 5.0, frames=45),
        obstacle(9, 0.0, 1.0, frames=60, kind="pedestrian"),
    )  # fmt: skip
    assert s.tracks.id[s.ego] == 8
    assert "took vehicle 8, seen longest" in notes(s)
    assert s.start_frame == 10


def test_what_is_left_out_is_noted(tmp_path):
    sets = (
        f'<dynamicObstacle id="71"><type>car</type><shape>{RECTANGLE}</shape>'
        f"{state('initialState', 0, 70, 0)}<occupancySet><occupancy/></occupancySet>"
        "</dynamicObstacle>"
    )
    building = '<environmentObstacle id="72"><type>building</type></environmentObstacle>'
    far = obstacle(73, 60.0, 5.0).replace("<exact>20</exact>", "<exact>20</exact>", 1)
    far = far.replace(f"<x>{X0 + 60.0 + 0.5 * 39}</x>", "<x>1e10</x>")
    s = one(tmp_path, ROADS, sets, building, far, problem())
    assert "1 obstacles that are given as sets of occupancies" in notes(s)
    assert "1 buildings" in notes(s)
    assert "1 states of obstacles that are far" in notes(s)
    assert set(s.tracks.id) == {73, 900}


def test_uneven_bounds_are_resampled(tmp_path):
    road = lanelet(1, [(0, 2), (30, 2), (60, 2)], [(0, -2), (60, -2)])
    s = one(tmp_path, road, obstacle(7, 40.0, 1.0), problem())
    assert np.allclose(s.map.polyline(element(s, 1))[:, 1] + s.origin[1], Y0, atol=1e-3)
    assert "bounds of 1 lanelets" in notes(s)


GOOD = document(ROADS, SIGNS, LIGHT, obstacle(7, 40.0, 10.0), STATIC, problem())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</commonRoad>", "", "not valid XML, perhaps truncated"),
        ("<!-- made -->", '<!DOCTYPE a [<!ENTITY b "c">]>', "document type or entities"),
        ("<!-- made -->", "\0", "zero bytes"),
        ('timeStepSize="0.1"', 'timeStepSize="7"', "timeStepSize must be 0.01 to 1 s, got 7 s"),
        ('timeStepSize="0.1"', 'timeStepSize="x"', "timeStepSize must be a finite number, got 'x'"),
        ('lanelet id="2"', 'lanelet id="1"', "lanelet 1 occurs twice"),
        ('lanelet id="2"', 'lanelet id="y"', "lanelet y: attribute id must be an integer"),
        ("<x>4050.0</x>", "<x>wide</x>", "lanelet 1: x of a point of leftBound must be a finite"),
        ("<x>4050.0</x>", "<x>9e9</x>", "must lie within 1e+08 m"),
        ("<y>-698.0</y>", "<y>0</y>", "lanelet 1: bounds must be at most 60 m apart"),
        ("<y>-698.0</y>", "<y>5e6</y>", "lanelet 1: bounds must be at most 20000 m long"),
        ("<length>4.0</length>", "<length>-4</length>", "dynamicObstacle 7: length of rectangle"),
        ("<exact>39.0</exact>", "<exact>1e8</exact>", "at most 5000 are read"),
        ("<exact>39.0</exact>", "<exact>-3</exact>", "time must not be negative, got -3"),
        ("<duration>10</duration>", "<duration>1e9</duration>", "trafficLight 60: a cycle must"),
        ("<goalState>", "<goal>", "not valid XML"),
        ("<intervalEnd>39", "<intervalEnd>0", "planningProblem 900: the goal's time must end"),
        ("<commonRoad ", "<commonRoad_ ", "of no known format"),
    ],
)
def test_each_fault_is_named_with_its_place(tmp_path, old, new, message):
    assert old in GOOD
    text = error_of(tmp_path, GOOD.replace(old, new, 1))
    assert message in text
    assert text.startswith(str(tmp_path / "made.xml"))
    assert "\n" not in text


def test_a_file_without_anyone_to_drive_is_refused(tmp_path):
    assert "there is no ego to drive" in error_of(tmp_path, document(ROADS, STATIC))


def test_huge_files_are_refused_before_they_are_parsed(tmp_path):
    begin = time.perf_counter()
    text = document("<a/>" * 3_100_000)
    assert "tags or attributes" in error_of(tmp_path, text)
    deep = "<commonRoad>" + "<a>" * 200_000
    assert "not valid XML" in error_of(tmp_path, deep)
    assert time.perf_counter() - begin < 5.0


def test_lanelets_that_cross_too_often_to_unite_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    bounds = (rng.uniform(0, 50, (100, 2)) for _ in range(2))
    itself = document(lanelet(1, *bounds), obstacle(7, 40.0, 1.0), problem())
    many = "".join(lanelet(i, [(0, 4), (90, 4)], [(0, 0), (90, 0)]) for i in range(1, 300))
    for text in (itself, document(many, obstacle(7, 40.0, 1.0), problem())):
        message = error_of(tmp_path, text)
        assert "the outlines of drivable areas cross too often to unite" in message
        assert message.startswith(str(tmp_path / "made.xml"))


def test_missing_shapely_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "shapely", None)
    assert "pip install alpagym[commonroad]" in error_of(tmp_path, GOOD)


RECORDINGS = SHARED / "commonroad_xml" / "located"
KNOWN = {
    # File: frames, agents besides the ego, lanes, time step; from the data's index.
    "1_toll_station.xml": (66, 2, 15, 0.5),
    "ARG_Carcarana-10_2_T-1.xml": (34, 10, 94, 0.1),
    "USA_Lanker-1_7_T-1.xml": (16, 22, 91, 0.1),
    "USA_Peach-3_3_T-1.simulated.xml": (201, 46, 74, 0.1),
    "USA_US101-5_1_T-1.xml": (101, 25, 5, 0.1),
}


@pytest.mark.parametrize("name", KNOWN)
def test_recordings(name):
    if not (RECORDINGS / name).exists():
        pytest.skip(f"{RECORDINGS / name} is not there")
    frames, others, lanes, dt = KNOWN[name]
    (s,), _ = load_scenarios(RECORDINGS / name)
    assert (s.tracks.num_frames, s.tracks.num_agents - 1, s.dt) == (frames, others, dt)
    assert (s.map.type == MapType.LANE).sum() == lanes
    start = s.tracks.xyz[s.ego, s.start_frame : s.start_frame + 1]
    distance = [
        np.abs(project(s.map.polyline(int(i)), start)[1][0])
        for i in np.flatnonzero(s.map.type == MapType.LANE)
    ]
    assert min(distance) < 2.0
    if "made" in notes(s):
        results, _ = evaluate("log", [s], SimConfig(dt=s.dt, end_on=()))
        assert not results.offroad.any()
        assert not results.collision_any.any()


def test_smoothing_in_blocks_is_a_solve() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 3, 16, 17, 250):
        third = np.diff(np.eye(count + 3), 3, axis=0)[:, :count]
        matrix = third.T @ third + np.diag(rng.uniform(0.01, 1.0, count))
        value = rng.normal(size=(count, 2))
        found = commonroad_route._solve_banded(matrix, value)
        np.testing.assert_allclose(found, np.linalg.solve(matrix, value), rtol=1e-8, atol=1e-8)


def test_planning_problems_of_one_id_are_refused_but_the_first(tmp_path) -> None:
    scenarios, skipped = load_scenarios(write(tmp_path, document(ROADS, problem(), problem())))
    assert len(scenarios) == 1
    (told,) = skipped
    assert "planningProblem 900: its id occurs more than once" in told.reason
