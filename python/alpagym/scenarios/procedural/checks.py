"""Checks of records: overlapping boxes and boxes that leave the road, all frames at once.

The definitions are those of `flags.py`.
"""

from __future__ import annotations

import numpy as np

from alpagym.scenarios.flags import beyond_edge, box_corners
from alpagym.scenarios.polyline import Segments, cut_segments
from alpagym.scenarios.scenario import MapType, Scenario, Tracks


def overlapping(tracks: Tracks) -> np.ndarray:
    """Whether the box of each agent overlaps another's in any frame, bool [A]."""
    xy = tracks.xyz[..., :2]
    reach = 0.5 * np.hypot(tracks.size[:, 0], tracks.size[:, 1])
    i, j = np.triu_indices(tracks.num_agents, 1)
    dx, dy = xy[i, :, 0] - xy[j, :, 0], xy[i, :, 1] - xy[j, :, 1]
    near = dx * dx + dy * dy < (reach[i] + reach[j])[:, None] ** 2
    pair, frame = np.nonzero(near & tracks.valid[i] & tracks.valid[j])
    a, b = i[pair], j[pair]
    dx, dy = dx[pair, frame].astype(np.float64), dy[pair, frame].astype(np.float64)
    yaw = tracks.yaw.astype(np.float64)
    turn = yaw[a, frame] - yaw[b, frame]
    cos, sin = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    half_size = 0.5 * tracks.size.astype(np.float64)
    touch = np.ones(len(a), bool)
    for one, other in ((a, b), (b, a)):
        half, half_other = half_size[one], half_size[other]
        c, s = np.cos(yaw[one, frame]), np.sin(yaw[one, frame])
        length, width = half_other[:, 0], half_other[:, 1]
        touch &= np.abs(c * dx + s * dy) <= half[:, 0] + length * cos + width * sin
        touch &= np.abs(c * dy - s * dx) <= half[:, 1] + length * sin + width * cos
    result = np.zeros(tracks.num_agents, bool)
    result[a[touch]] = result[b[touch]] = True
    return result


def offroad_frames(scenario: Scenario, search: np.ndarray) -> np.ndarray:
    """Whether a box corner lies beyond its nearest edge, where `search` asks; both bool [A, T]."""
    road, tracks = scenario.map, scenario.tracks
    agent, frame = np.nonzero(search)
    xyz = tracks.xyz[agent, frame].astype(np.float64)
    corners = box_corners(xyz[:, :2], tracks.yaw[agent, frame], tracks.size[agent])
    # Edges far from every box cannot be the nearest of any.
    low, high = xyz[:, :2].min(axis=0) - 40.0, xyz[:, :2].max(axis=0) + 40.0
    edges = np.flatnonzero(road.type == MapType.ROAD_EDGE)
    segments = cut_segments([road.polyline(int(e)) for e in edges], edges, max_step=10.0)
    inside = ((segments.middle[:, :2] > low) & (segments.middle[:, :2] < high)).all(axis=1)
    near = Segments(*(getattr(segments, f)[inside] for f in ("start", "step", "owner", "s")))
    result = np.zeros_like(search)
    result[agent, frame] = beyond_edge(near, xyz, corners, scenario.has_z).any(axis=1)
    return result
