"""Whether two scenarios are one scene, as read from two formats."""

from __future__ import annotations

import numpy as np

from alpagym.scenarios.polyline import project, wrap_angle
from alpagym.scenarios.scenario import MapType, Scenario


def assert_same(
    a: Scenario,
    b: Scenario,
    *,
    place: float = 1e-4,
    angle: float = 1e-5,
    velocity: float = 1e-4,
    line: float = 1e-3,
    limit: float = 1e-5,
    identity: bool = True,
    links: bool = True,
    neighbors: bool = True,
    limits: bool = True,
    lights: bool = True,
) -> None:
    """Compare in source coordinates; tolerances are the precision of the coarser format.

    Args:
        a: one scenario.
        b: the other.
        place: of positions and sizes [m].
        angle: of headings [rad].
        velocity: [m/s].
        line: how far map lines may lie apart [m].
        limit: of speed limits [m/s].
        identity: compare id, dataset, license and start too.
        links: compare lane links.
        neighbors: compare neighbors of lanes.
        limits: compare speed limits.
        lights: compare lights.
    """
    if identity:
        for name in ("id", "dataset", "license", "start_frame"):
            assert getattr(a, name) == getattr(b, name), name
    assert (a.ego, a.has_z) == (b.ego, b.has_z)
    assert abs(a.dt - b.dt) < 1e-6
    same_tracks(a, b, place, angle, velocity)
    same_map(a, b, line)
    if links:
        assert _pairs(a) == _pairs(b)
    if neighbors:
        for name in ("left_neighbor", "right_neighbor"):
            np.testing.assert_array_equal(getattr(a.map, name), getattr(b.map, name), name)
    if limits:
        np.testing.assert_allclose(a.map.speed_limit, b.map.speed_limit, atol=limit)
    if lights:
        np.testing.assert_array_equal(a.lights.lane, b.lights.lane)
        np.testing.assert_array_equal(a.lights.state, b.lights.state)
        np.testing.assert_allclose(
            a.lights.xy + a.origin[:2], b.lights.xy + b.origin[:2], rtol=0, atol=2e-3
        )


def same_tracks(a: Scenario, b: Scenario, place: float, angle: float, velocity: float) -> None:
    one, two = a.tracks, b.tracks
    for name in ("valid", "type", "id"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), name)
    valid = one.valid
    np.testing.assert_allclose(
        (one.xyz + a.origin)[valid], (two.xyz + b.origin)[valid], rtol=0, atol=place + 1e-3 * far(a)
    )
    assert np.abs(wrap_angle(one.yaw - two.yaw))[valid].max() <= angle
    assert two.yaw.min() >= -np.pi
    assert two.yaw.max() < np.pi
    np.testing.assert_allclose(one.velocity[valid], two.velocity[valid], rtol=0, atol=velocity)
    np.testing.assert_allclose(one.size, two.size, rtol=0, atol=place)


def far(scenario: Scenario) -> float:
    """1 where agents are kilometers from the origin, so that float32 resolves 1 mm, else 0."""
    return float(np.abs(scenario.tracks.xyz).max() > 2000.0)


def same_map(a: Scenario, b: Scenario, tolerance: float) -> None:
    np.testing.assert_array_equal(a.map.type, b.map.type)
    np.testing.assert_array_equal(a.map.id, b.map.id)
    for element, kind in enumerate(a.map.type):
        one = a.map.polyline(element) + a.origin
        two = b.map.polyline(element) + b.origin
        if kind == MapType.STOP_SIGN:
            np.testing.assert_allclose(one, two, rtol=0, atol=tolerance)
            continue
        gap = max(np.abs(project(one, two)[1]).max(), np.abs(project(two, one)[1]).max())
        assert gap <= tolerance, (MapType(kind).name, int(a.map.id[element]), gap)
        ends = np.abs(one[[0, -1], :2] - two[[0, -1], :2]).max()
        assert ends <= max(tolerance, 2e-3), (MapType(kind).name, int(a.map.id[element]), ends)
        assert abs(one[:, 2].mean() - two[:, 2].mean()) <= 0.2


def _pairs(scenario: Scenario) -> set[tuple[int, int]]:
    road = scenario.map
    return {
        (element, int(after))
        for element in range(road.num_elements)
        for after in road.successors_of(element)
    }
