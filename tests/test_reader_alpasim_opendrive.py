"""AlpaSim scenes whose map is OpenDRIVE: where on earth both are, and what becomes of the map."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import opendrive_files
from alpagym.scenarios.scenario import AgentFlag, MapType
from alpasim_files import members, rigs, write
from reading import element, notes, only, refused

pytest.importorskip("shapely", reason="OpenDRIVE needs shapely: pip install alpagym[opendrive]")

LATITUDE, LONGITUDE, HEIGHT = 42.3601, -71.0589, 14.0
YAW = 0.7
"""Direction of the road, and of the drive, in the map [rad]."""
START = np.array([1200.0, -340.0, 20.0])
"""Of the drive in the map [m]."""
PLACE = f"+proj=tmerc +lat_0={LATITUDE} +lon_0={LONGITUDE} +alt_0={HEIGHT} +ellps=WGS84"


def road_map(path: Path, place: str = PLACE) -> str:
    """A road on whose right lane of two the drive runs, from 50 m before it to 350 m after."""
    along = np.array([math.cos(YAW), math.sin(YAW)])
    left = np.array([-along[1], along[0]])
    x, y = START[:2] - 50.0 * along + 1.75 * left
    plan = opendrive_files.geometry(0, x, y, YAW, 400, "<line/>")
    lanes = opendrive_files.section(
        left=opendrive_files.lane(1),
        right=opendrive_files.lane(-1),
    )
    speed = '<type s="0" type="rural"><speed max="50" unit="km/h"/></type>'
    opendrive_files.write(path, opendrive_files.road(1, 400, plan, lanes, kind=speed))
    return referenced(path, place)


def referenced(path: Path, place: str, offset: str = "") -> str:
    header = f'<header revMajor="1" revMinor="6"><geoReference><![CDATA[{place}]]></geoReference>'
    old = '<header revMajor="1" revMinor="6"/>'
    return path.read_text().replace(old, f"{header}{offset}</header>")


def world_base() -> list[list[float]]:
    """From the scene's frame to earth-centered coordinates, by PROJ and differences."""
    pyproj = pytest.importorskip("pyproj", reason="checked with pyproj")
    to_earth = pyproj.Transformer.from_crs("EPSG:4979", "EPSG:4978").transform

    def earth(latitude: float, longitude: float, height: float) -> np.ndarray:
        return np.array(to_earth(latitude, longitude, height))

    here = earth(LATITUDE, LONGITUDE, HEIGHT)
    axes = [
        earth(LATITUDE, LONGITUDE + 1e-4, HEIGHT) - earth(LATITUDE, LONGITUDE - 1e-4, HEIGHT),
        earth(LATITUDE + 1e-4, LONGITUDE, HEIGHT) - earth(LATITUDE - 1e-4, LONGITUDE, HEIGHT),
        earth(LATITUDE, LONGITUDE, HEIGHT + 1) - here,
    ]
    from_map = np.eye(4)
    from_map[:3, :3] = np.stack([axis / np.linalg.norm(axis) for axis in axes], axis=1)
    from_map[:3, 3] = here
    from_scene = np.eye(4)
    from_scene[:2, :2] = [[math.cos(YAW), -math.sin(YAW)], [math.sin(YAW), math.cos(YAW)]]
    from_scene[:3, 3] = START
    return (from_map @ from_scene).tolist()


def scene(path: Path, xodr: str, base: object) -> Path:
    content = members({}) | {"map.xodr": xodr}
    content["rig_trajectories.json"] = json.dumps(rigs() | {"T_world_base": base})
    return write(path / "a.usdz", content)


def test_the_map_lies_under_the_drive(tmp_path) -> None:
    s = only(scene(tmp_path, road_map(tmp_path / "map.xodr"), world_base()))
    lanes = np.flatnonzero(s.map.type == MapType.LANE)
    lines = [s.map.polyline(i)[:, :2] + s.origin[:2] for i in lanes]
    ends = sorted((line[[0, -1]] for line in lines), key=lambda line: line[0, 1])
    assert np.allclose(ends[0], [[-50, 0], [350, 0]], atol=0.01)
    assert np.allclose(ends[1], [[350, 3.5], [-50, 3.5]], atol=0.01)
    assert np.allclose(s.map.speed_limit[lanes], 50 / 3.6)
    assert not s.has_z
    assert not s.flags[s.ego] & (AgentFlag.OFFROAD_IN_LOG | AgentFlag.STARTS_OFFROAD)
    edges = [s.map.polyline(i) for i in np.flatnonzero(s.map.type == MapType.ROAD_EDGE)]
    below = [e for e in edges if np.allclose(e[:, 1] + s.origin[1], -1.75, atol=0.05)]
    assert below
    assert all((np.diff(e[:, 0]) > 0).all() for e in below)  # the road on their left
    assert "the map is OpenDRIVE" in notes(s)


def test_a_map_without_a_place_is_in_the_frame_of_the_scene(tmp_path) -> None:
    for signal in ("stop", "light"):
        path = opendrive_files.crossing(tmp_path / "map.xodr", signal=signal)
        s = only(scene(tmp_path, path.read_text(), None))
        assert "names no place" in notes(s)
        assert (s.map.type == MapType.LANE).sum() == 20
        assert len(s.map.successors) == 24
        assert ((s.map.type == MapType.STOP_SIGN).sum() == 4) == (signal == "stop")
        assert (len(s.lights.lane) == 12) == (signal == "light")
        assert element(s, 0) >= 0


@pytest.mark.parametrize(
    ("place", "offset", "base", "words"),
    [
        (PLACE, "", None, "does not say where on earth"),
        ("+proj=utm +zone=19", "", "here", "not given by lat_0 and lon_0 alone"),
        (PLACE, '<offset x="5" y="0" z="0" hdg="0"/>', "here", "not given by lat_0 and lon_0"),
        (PLACE.replace("42.3601", "42.5"), "", "here", "no road of its OpenDRIVE map is within"),
        (PLACE.replace("-71.0589", "100"), "", "here", "does not stand upright"),
        (PLACE, "", np.diag([2.0, 1, 1, 1]).tolist(), "is no place and rotation"),
    ],
)
def test_a_map_that_cannot_be_placed_is_left_out(tmp_path, place, offset, base, words) -> None:
    road_map(tmp_path / "map.xodr", "")
    xodr = referenced(tmp_path / "map.xodr", place, offset)
    s = only(scene(tmp_path, xodr, world_base() if base == "here" else base))
    assert s.map.num_elements == 0
    assert words in notes(s)


@pytest.mark.parametrize(
    ("xodr", "base", "words"),
    [
        ("<OpenDRIVE/>", None, "member 'map.xodr': OpenDRIVE without any road"),
        ("<OpenDRIVE", None, "member 'map.xodr': not valid XML"),
        (None, [[1.0]], "'T_world_base' must be 4 x 4 numbers"),
        (PLACE.replace("42.3601", "north"), None, "geoReference: lat_0 must be a number"),
    ],
)
def test_damaged_maps_are_refused(tmp_path, xodr, base, words) -> None:
    if xodr is None or xodr.startswith("+"):
        xodr = road_map(tmp_path / "map.xodr", xodr or PLACE)
    assert words in refused(scene(tmp_path, xodr, base))
