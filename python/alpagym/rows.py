"""Observations in a narrow format, made float32 rows where a network consumes them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from alpagym.types import Observation, Scenarios


def decode(observation: Observation, scenarios: Scenarios) -> Observation:
    """The same observation with agents and road as float32 rows.

    Args:
        observation: in any `SimConfig.row_format`, leading dimensions free.
        scenarios: whose road points compact rows name.

    Returns:
        What `row_format=float32` gives: from `compact` up to float32's rounding, but with all 7
        columns of road points whatever `SimConfig.road_columns`; from float16 and bfloat16 to
        their precision.
    """
    road = observation.road
    if road.dtype == torch.int32:
        road = road_rows(road.squeeze(-1), observation.road_mask, observation.pose, scenarios.road)
    return replace(observation, agents=observation.agents.float(), road=road.float())


def road_rows(index: Tensor, mask: Tensor, pose: Tensor, road: Tensor) -> Tensor:
    """Road points in the ego's frame.

    Args:
        index: rows of `road`, int32 [..., B].
        mask: whether a slot is filled, bool [..., B].
        pose: x, y, z, yaw of the ego [m, rad], [..., 4].
        road: `Scenarios.road`, [P, 8].

    Returns:
        Columns of `RoadFeature`, zero where `mask` is False, [..., B, 7].
    """
    if not len(road):
        return pose.new_zeros(*index.shape, 7)
    points = road.index_select(0, index.flatten().long()).unflatten(0, index.shape)
    x, y, z, yaw = pose.unsqueeze(-2).unbind(-1)
    cos, sin = yaw.cos(), yaw.sin()
    dx, dy = points[..., 0] - x, points[..., 1] - y
    ux, uy = points[..., 2], points[..., 3]
    rows = torch.stack(
        [
            cos * dx + sin * dy,
            cos * dy - sin * dx,
            cos * ux + sin * uy,
            cos * uy - sin * ux,
            points[..., 4],
            points[..., 5],
            points[..., 6] - z,
        ],
        -1,
    )
    return rows * mask.unsqueeze(-1)
