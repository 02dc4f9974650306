"""Flags of recorded agents: parked, overlapping, off-road, with gaps; float64 NumPy.

Records hold overlapping boxes and cars parked beyond the road edge. An episode with one as its ego
would end at once, so readers mark them here with the definitions that the simulator uses.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from alpagym.scenarios.polyline import Segments, cut_segments, on_segment
from alpagym.scenarios.scenario import AgentFlag, MapType, RoadMap, Tracks
from alpagym.scenarios.segment_tree import IntricateError, SegmentTree

PARKED_DISTANCE = 0.5
"""An agent that never gets farther than this from its first recorded position is parked [m]."""
LEVEL_HEIGHT = 2.5
"""Boxes and road edges whose heights differ by less are on one level, as in the simulator [m]."""
PAIRS = 1 << 18
"""How many pairs of boxes are compared at once, which bounds the memory."""
TEST, MAX_WORK = 8, 20_000_000
"""To hold two boxes against each other costs about so many times as much as to see that they are
apart, and how often one may see so in one scenario."""
FEW = 4
"""Boxes that overlap each other in piles are found among so many next ones."""
MAX_PAIRS = 2_000_000
"""Most pairs of a box and a road edge segment near to it, in one scenario."""
FRAME_STRIDE = 5
"""Every how many frames the record is searched for off-road boxes."""


def compute_flags(tracks: Tracks, road_map: RoadMap, start_frame: int, has_z: bool) -> np.ndarray:
    """Bits of `AgentFlag` for every agent, uint16 [A].

    Raises:
        IntricateError: if boxes or road edges lie absurdly close.
    """
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
    """Whether the box of each agent overlaps or touches another's on its level, bool [A, T].

    Raises:
        IntricateError: if too many boxes lie too near to each other.
    """
    result = np.zeros_like(tracks.valid)
    agent, frame = np.nonzero(tracks.valid)
    xy = tracks.xyz[agent, frame, :2].astype(np.float64)
    yaw, half = tracks.yaw[agent, frame].astype(np.float64), 0.5 * tracks.size[agent, :2]
    cos, sin = np.abs(np.cos(yaw)), np.abs(np.sin(yaw))
    extent = np.stack([cos * half[:, 0] + sin * half[:, 1], sin * half[:, 0] + cos * half[:, 1]], 1)
    extent += 0.01  # rounding may not part those that touch
    touched = np.zeros(len(agent), bool)
    work = 0
    for i, j, looked_at in _swept_pairs(xy - extent, xy + extent, frame, touched):
        near = np.abs(xy[i, 1] - xy[j, 1]) <= extent[i, 1] + extent[j, 1]
        i, j = i[near], j[near]
        work += looked_at + TEST * len(i)
        if work > MAX_WORK:
            raise IntricateError(
                "has so many boxes beside each other that to hold them against each other takes "
                "too long"
            )
        for k in range(0, len(i), PAIRS):
            _mark_touching(tracks, has_z, agent, frame, i[k : k + PAIRS], j[k : k + PAIRS], touched)
    result[agent[touched], frame[touched]] = True
    return result


def _swept_pairs(
    low: np.ndarray, high: np.ndarray, frame: np.ndarray, done: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Pairs of boxes that meet in x along strips of the plane, frame by frame, a part at a time.

    Args:
        low: corners of boxes along the axes [m], [n, 2].
        high: the opposite ones.
        frame: of each box, [n].
        done: boxes that need not be paired with each other any more, [n]; the caller sets them
            between two parts.

    Yields:
        Indices of boxes i, j [k], and how many pairs were looked at for these.
    """
    if not len(low):
        return
    height = max(2.0 * float(np.median(high[:, 1] - low[:, 1])), 1.0)
    first = np.floor(low[:, 1] / height).astype(np.int64)
    copies = np.floor(high[:, 1] / height).astype(np.int64) - first + 1
    box = np.repeat(np.arange(len(low)), copies)
    strip = first[box] + np.arange(len(box)) - np.repeat(np.cumsum(copies) - copies, copies)
    _, lane = np.unique(frame[box] * (np.ptp(strip) + 1) + strip - strip.min(), return_inverse=True)
    shift = lane * (np.ptp(np.concatenate([low[:, 0], high[:, 0]])) + 1.0) - low[:, 0].min()
    order = np.argsort(shift + low[box, 0], kind="stable")
    box, begin, stop = box[order], (shift + low[box, 0])[order], (shift + high[box, 0])[order]
    place = np.arange(len(box))
    ahead = np.searchsorted(begin, stop, side="right") - place
    behind = place - np.searchsorted(np.maximum.accumulate(stop), begin, side="left")
    forward, backward = place[ahead > 1], place[behind > FEW]
    lag = 1
    while len(forward) or len(backward):
        i, j = box[forward], box[forward + lag]
        kept = ~(done[i] & done[j])
        looked_at = len(forward)
        if lag > FEW:
            other = box[backward - lag]
            # If the other is not done, it has found this one on its own way forward.
            late = done[other] & (ahead[backward - lag] > lag)
            i = np.concatenate([i[kept], other[late]])
            j = np.concatenate([j[kept], box[backward[late]]])
            looked_at += len(backward)
        else:
            i, j = i[kept], j[kept]
        yield i, j, looked_at
        lag += 1
        forward = forward[ahead[forward] > lag]
        if lag > FEW:
            forward = forward[~done[box[forward]]]
            backward = backward[~done[box[backward]] & (behind[backward] >= lag)]


def _mark_touching(
    tracks: Tracks,
    has_z: bool,
    agent: np.ndarray,
    frame: np.ndarray,
    i: np.ndarray,
    j: np.ndarray,
    touched: np.ndarray,
) -> None:
    """Set `touched` [n] where boxes i, j [k] of the list `agent`, `frame` [n] touch."""
    a, b, f = agent[i], agent[j], frame[i]
    offset = tracks.xyz[a, f] - tracks.xyz[b, f]
    yaw_a, yaw_b = tracks.yaw[a, f].astype(np.float64), tracks.yaw[b, f].astype(np.float64)
    dx, dy = offset[:, 0].astype(np.float64), offset[:, 1].astype(np.float64)
    cos, sin = np.abs(np.cos(yaw_a - yaw_b)), np.abs(np.sin(yaw_a - yaw_b))
    half_size = 0.5 * tracks.size.astype(np.float64)
    touch = np.abs(offset[:, 2]) < LEVEL_HEIGHT if has_z else np.ones(len(a), bool)
    for one, other, yaw in ((a, b, yaw_a), (b, a, yaw_b)):
        half, (length, width) = half_size[one], half_size[other, :2].T
        c, s = np.cos(yaw), np.sin(yaw)
        touch &= np.abs(c * dx + s * dy) <= half[:, 0] + length * cos + width * sin
        touch &= np.abs(c * dy - s * dx) <= half[:, 1] + length * sin + width * cos
    touched[i[touch]] = touched[j[touch]] = True


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
    reach = np.linalg.norm(corners - centers[:, None, :2], axis=-1).max(1, initial=0.0)
    # A midpoint is on its segment, so no nearest segment is farther than the nearest midpoint; a
    # corner may be nearer or farther than the center by `reach`.
    level = LEVEL_HEIGHT if has_z else None
    blocks = SegmentTree(segments).near(centers, 2 * reach + 1e-6, level, MAX_PAIRS)
    for box, index in blocks:
        rows, begin, count = np.unique(box, return_index=True, return_counts=True)
        if not len(rows):
            continue
        group = np.repeat(np.arange(len(rows)), count)
        for c in range(corners.shape[1]):
            query = corners[box, c]
            _, distance = on_segment(segments, index, query)
            offset, step = query - segments.start[index, :2], segments.step[index, :2]
            side = (step[:, 0] * offset[:, 1] - step[:, 1] * offset[:, 0]) / np.maximum(
                2 * half[index], 1e-9
            )
            # Nearest rounded to 0.1 mm, then the larger perpendicular, then the first segment.
            distance = np.round(distance, 4)
            tied = distance == np.minimum.reduceat(distance, begin)[group]
            across = np.where(tied, np.abs(side), -1.0)
            best = np.flatnonzero(across == np.maximum.reduceat(across, begin)[group])
            best = best[np.lexsort((index[best], group[best]))]
            best = best[np.unique(group[best], return_index=True)[1]]
            result[rows, c] = side[best] < 0
    return result
