"""Thresholds of other programs' metrics, a little to either side: what recorded drives miss."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from alpagym.metrics import waymax
from alpagym.metrics.alpasim.aggregate import processed
from alpagym.metrics.alpasim.lanes import LineMap
from alpagym.metrics.alpasim.metric import metric
from alpagym.metrics.alpasim.rounded import outline
from alpagym.metrics.alpasim.tree import query_order


@pytest.mark.parametrize(("away", "told"), [(3.4999, 0.0), (3.5, 3.5), (3.5001, 3.5001)])
def test_waymax_calls_three_and_a_half_meters_the_wrong_way(away, told) -> None:
    points = np.zeros((1, 1, 2))
    paths = waymax.Paths(points, np.ones((1, 1), bool), np.zeros((1, 1)), np.ones(1, bool))
    value, valid = waymax.wrong_way(paths, np.array([0.0, away]))
    assert valid
    assert value == told


@pytest.mark.parametrize(("gap", "touches"), [(0.0005, True), (0.0009, True), (0.0011, False)])
def test_alpasim_takes_a_millimeter_to_the_road_edge_for_contact(gap, touches) -> None:
    x = np.arange(-20.0, 20.1, 4.0)
    edge = np.stack([x, np.full(len(x), -1.0 - gap), np.zeros(len(x))], -1)
    ego = outline(np.zeros((1, 3)), np.array([[4.0, 2.0]]), shrink=0.0, roundness=0.0)
    center = np.stack([x, *np.zeros((2, len(x)))], -1)
    lanes = LineMap([center], [np.zeros((0, 2))], [np.zeros((0, 2))], [edge])
    assert lanes.touches_edge(ego, np.zeros(1)).tolist() == [touches]


@pytest.mark.parametrize(("farthest", "left"), [(3.99995, 5), (4.0, 3), (4.00005, 3)])
def test_alpasim_stops_at_four_meters_from_the_record(farthest, left) -> None:
    times, zero = 100_000 * np.arange(5), np.zeros(5)
    metrics = {
        name: metric(times, zero)
        for name in ("collision_any", "collision_front", "collision_lateral", "offroad")
    }
    metrics["eval_relevant"] = metric(times, np.ones(5))
    away = np.array([0.0, 1.0, farthest, 1.0, 1.0])
    metrics["dist_to_gt_trajectory"] = metric(times, away)
    result = processed(metrics)
    assert result is not None
    assert len(result.times_us) == left


@pytest.mark.parametrize("count", [9, 16, 17, 33, 64, 110, 200])
@pytest.mark.parametrize("kind", ["row", "column", "grid", "one place"])
def test_boxes_with_equal_centers_come_in_the_order_of_shapelys_tree(count, kind) -> None:
    """Of shapely's wheels for Linux: elsewhere `std::sort` may leave ties otherwise."""
    rng = np.random.default_rng(count)
    center = 4.0 * rng.integers(-5, 6, (count, 2))
    if kind in ("row", "one place"):
        center[:, 1] = 0.0
    if kind in ("column", "one place"):
        center[:, 0] = 0.0
    half = rng.integers(1, 5, (count, 2)) * [1.0, 0.5]
    low, high = center - half, center + half
    tree = shapely.STRtree(shapely.box(*low.T, *high.T))
    met = tree.query(shapely.box(-100.0, -100.0, 100.0, 100.0))
    np.testing.assert_array_equal(query_order(low, high), met)
