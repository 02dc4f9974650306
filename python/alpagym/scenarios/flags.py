"""Flags of recorded agents: parked, overlapping, off-road, with gaps; float64 NumPy.

Records hold overlapping boxes and cars parked beyond the road edge. An episode with one as its ego
would end at once, so readers mark them here with the definitions that the simulator uses.
"""

from __future__ import annotations

import numpy as np

from alpagym.scenarios.polyline import Segments, cut_segments, on_segment, squared_distances
from alpagym.scenarios.scenario import AgentFlag, MapType, RoadMap, Tracks

PARKED_DISTANCE = 0.5
"""An agent that never gets farther than this from its first recorded position is parked [m]."""
LEVEL_HEIGHT = 2.5
"""Boxes and road edges whose heights differ by less are on one level, as in the simulator [m]."""
PAIR_FRAMES = 1 << 20
"""Of how many pairs times frames boxes are compared at once, which bounds the memory."""
BOX_SEGMENTS = 1 << 19
"""Of how many boxes times road edge segments distances are taken at once, likewise."""
FRAME_STRIDE = 5
"""Every how many frames the record is searched for off-road boxes."""


def compute_flags(tracks: Tracks, road_map: RoadMap, start_frame: int, has_z: bool) -> np.ndarray:
    """Bits of `AgentFlag` for every agent, uint16 [A]."""
    valid = tracks.valid
    flags = np.zeros(tracks.num_agents, np.uint16)
    parked = parked_agents(tracks)
    flags[parked] |= np.uint16(AgentFlag.PARKED)
    flags[_has_gaps(valid)] |= np.uint16(AgentFlag.HAS_GAPS)

    overlap = overlapping(tracks, has_z)
    flags[overlap.any(1)] |= np.uint16(AgentFlag.OVERLAPS_IN_LOG)
    flags[overlap[:, start_frame]] |= np.uint16(AgentFlag.STARTS_IN_COLLISION)

    offroad = offroad_frames(tracks, road_map, _frames_to_search(valid, parked, start_frame), has_z)
    flags[offroad.any(1)] |= np.uint16(AgentFlag.OFFROAD_IN_LOG)
    flags[offroad[:, start_frame]] |= np.uint16(AgentFlag.STARTS_OFFROAD)
    return flags


def parked_agents(tracks: Tracks) -> np.ndarray:
    """Whether each agent stays within `PARKED_DISTANCE` of its first valid position, bool [A]."""
    first = tracks.xyz[np.arange(tracks.num_agents), tracks.valid.argmax(1), :2]
    moved = np.linalg.norm(tracks.xyz[..., :2] - first[:, None], axis=-1)
    return np.where(tracks.valid, moved, 0.0).max(1) < PARKED_DISTANCE


def box_corners(xy: np.ndarray, yaw: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Corners of boxes [n, 4, 2] from centers [n, 2], headings [n], lengths and widths [n, 2+]."""
    forward = np.stack([np.cos(yaw), np.sin(yaw)], -1).astype(np.float64)
    left = np.stack([-forward[:, 1], forward[:, 0]], -1)
    a = 0.5 * size[:, :1] * forward
    b = 0.5 * size[:, 1:2] * left
    return xy[:, None].astype(np.float64) + np.stack([a + b, b - a, -a - b, a - b], 1)


def _has_gaps(valid: np.ndarray) -> np.ndarray:
    """Whether an agent vanishes and comes back, bool [A]."""
    starts = valid[:, 0].astype(int) + (valid[:, 1:] & ~valid[:, :-1]).sum(1)
    return starts > 1


def overlapping(tracks: Tracks, has_z: bool) -> np.ndarray:
    """Whether the box of each agent overlaps or touches another's on its level, bool [A, T]."""
    reach = 0.5 * np.hypot(tracks.size[:, 0], tracks.size[:, 1])
    i, j = _meeting_pairs(tracks.xyz[..., :2], tracks.valid, reach)
    result = np.zeros_like(tracks.valid)
    block = 1 + PAIR_FRAMES // tracks.num_frames
    for k in range(0, len(i), block):
        _mark_touching(tracks, has_z, reach, i[k : k + block], j[k : k + block], result)
    return result


def _mark_touching(
    tracks: Tracks,
    has_z: bool,
    reach: np.ndarray,
    i: np.ndarray,
    j: np.ndarray,
    result: np.ndarray,
) -> None:
    """Set `result` [A, T] where boxes of the pairs i, j [n] touch; `reach` is half a diagonal."""
    xyz, valid = tracks.xyz, tracks.valid
    dx, dy = xyz[i, :, 0] - xyz[j, :, 0], xyz[i, :, 1] - xyz[j, :, 1]
    near = dx * dx + dy * dy < (reach[i] + reach[j])[:, None] ** 2
    near &= valid[i] & valid[j]
    if has_z:
        near &= np.abs(xyz[i, :, 2] - xyz[j, :, 2]) < LEVEL_HEIGHT
    pair, frame = np.nonzero(near)
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
    result[a[touch], frame[touch]] = result[b[touch], frame[touch]] = True


def _meeting_pairs(
    xy: np.ndarray, valid: np.ndarray, reach: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs i < j of agents whose records cover rectangles that meet: few of all pairs."""
    low = np.where(valid[..., None], xy, np.inf).min(1) - reach[:, None]
    high = np.where(valid[..., None], xy, -np.inf).max(1) + reach[:, None]
    meet = (low[:, None] <= high[None] + 0.01).all(2)  # rounding may not part those that touch
    i, j = np.nonzero(np.triu(meet & meet.T, 1))
    return i, j


def _frames_to_search(valid: np.ndarray, parked: np.ndarray, start_frame: int) -> np.ndarray:
    """Frames in which boxes are held against road edges, bool [A, T]; parked boxes need one."""
    search = np.zeros_like(valid)
    search[:, ::FRAME_STRIDE] = True
    search[parked] = False
    once = np.flatnonzero(parked & ~valid[:, start_frame])
    search[once, valid[once].argmax(1)] = True
    search[:, start_frame] = True
    return search & valid


def offroad_frames(
    tracks: Tracks, road_map: RoadMap, search: np.ndarray, has_z: bool
) -> np.ndarray:
    """Whether a corner lies beyond its nearest road edge, bool [A, T]; False where not searched."""
    result = np.zeros_like(search)
    edges = np.flatnonzero(road_map.type == MapType.ROAD_EDGE)
    segments = cut_segments([road_map.polyline(int(e)) for e in edges], edges, max_step=10.0)
    agent, frame = np.nonzero(search)
    if len(segments.owner) and len(agent):
        xyz, size = (
            tracks.xyz[agent, frame].astype(np.float64),
            tracks.size[agent].astype(np.float64),
        )
        corners = box_corners(xyz[:, :2], tracks.yaw[agent, frame], size)
        result[agent, frame] = beyond_edge(segments, xyz, corners, has_z).any(1)
    return result


def beyond_edge(
    segments: Segments, centers: np.ndarray, corners: np.ndarray, has_z: bool
) -> np.ndarray:
    """Whether each corner lies on the right of the road edge segment nearest to it.

    Where two segments tie, at the vertex they share, the one whose line is farther from the corner
    decides. With `has_z`, segments at another level than the center do not count; with none left,
    nothing is beyond.

    Args:
        segments: road edges.
        centers: of boxes [m], [n, 3].
        corners: of the same boxes [m], [n, c, 2].
        has_z: whether heights are real.

    Returns:
        bool [n, c].
    """
    result = np.zeros(corners.shape[:2], bool)
    half = 0.5 * np.hypot(segments.step[:, 0], segments.step[:, 1])
    middle = segments.middle
    reach = np.linalg.norm(corners - centers[:, None, :2], axis=-1).max(1)
    block = 1 + BOX_SEGMENTS // max(len(middle), 1)
    for first in range(0, len(centers), block):
        chunk = slice(first, first + block)
        to_middle = np.sqrt(squared_distances(centers[chunk], middle))
        if has_z:
            to_middle[np.abs(centers[chunk, None, 2] - middle[None, :, 2]) > LEVEL_HEIGHT] = np.inf
        # A midpoint is on its segment, so no nearest segment is farther than the nearest midpoint;
        # a corner may be nearer or farther than the center by `reach`.
        limit = to_middle.min(1) + 2 * reach[chunk] + 1e-6
        box, index = np.nonzero((to_middle - half <= limit[:, None]) & (to_middle < np.inf))
        for c in range(corners.shape[1]):
            query = corners[chunk, c][box]
            _, distance = on_segment(segments, index, query)
            offset, step = query - segments.start[index, :2], segments.step[index, :2]
            side = (step[:, 0] * offset[:, 1] - step[:, 1] * offset[:, 0]) / np.maximum(
                2 * half[index], 1e-9
            )
            # Sorted by box, then distance rounded to 0.1 mm, then larger perpendicular first.
            order = np.lexsort((-np.abs(side), np.round(distance, 4), box))
            rows, best = np.unique(box[order], return_index=True)
            result[first + rows, c] = side[order[best]] < 0
    return result
