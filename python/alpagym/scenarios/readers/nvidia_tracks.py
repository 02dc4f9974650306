"""Tracks of NVIDIA recordings: poses with their own time stamps, sampled on one grid.

RDS-HQ has ego poses at 30 Hz and boxes at 10 Hz, ClipGT both at about 10 Hz, each with its own time
stamps. The ego pose is that of the rig: the center of the rear axle on the ground, x forward,
y left, z up.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from alpagym.scenarios.assemble import RawTracks
from alpagym.scenarios.readers.quaternions import rotation_matrices
from alpagym.scenarios.scenario import AgentType, ScenarioError

DT = 0.1
"""Time between frames of the grid [s]."""
MAX_FRAMES = 6_000
MAX_CELLS = 100_000
"""Most agents times frames; a busy clip has 50 000."""
MAX_GAP = 0.35
"""Longest hole in a track over which is interpolated [s]: at 10 Hz, two frames may be missing."""
STILL = 0.3
"""A box that comes back this near to where it was has stood there meanwhile [m]."""
SNAP = 0.02
"""A frame takes the pose of a time stamp this near, even outside the track [s]."""
EGO_ID = -1
"""Identifier of the ego, which has none in the source."""

TYPES = {
    **dict.fromkeys(
        (
            "automobile", "car", "vehicle", "other_vehicle", "truck", "heavy_truck", "bus",
            "trolley_bus", "trailer", "train", "train_or_tram_car",
        ),
        AgentType.VEHICLE,
    ),
    **dict.fromkeys(("person", "pedestrian"), AgentType.PEDESTRIAN),
    **dict.fromkeys(("rider", "cyclist", "bicycle", "motorcycle"), AgentType.CYCLIST),
    **dict.fromkeys(
        ("stroller", "animal", "protruding_object", "movableobject", "trafficcone", "other"),
        AgentType.OTHER,
    ),
    "unknown": AgentType.UNKNOWN,
}  # fmt: skip
"""Agent types by the names that the formats use, in lower case; other labels are no road users."""


@dataclass(frozen=True)
class EgoBox:
    """The box of the recording vehicle about its rig."""

    length: float
    """[m], as `width` and `height`."""
    width: float
    height: float
    rear: float
    """Where the rear of the box lies ahead of the rear axle [m]; negative."""
    note: str
    """Where these numbers come from."""
    side: float = 0.0
    """How far the middle of the box lies to the left [m]."""
    bottom: float = 0.0
    """How far its bottom lies above the rig [m]."""

    @property
    def center(self) -> np.ndarray:
        """Box center in the rig frame [m], [3]."""
        return np.array([self.rear + 0.5 * self.length, self.side, self.bottom + 0.5 * self.height])


DEFAULT_BOX = EgoBox(
    5.393, 2.109, 1.503, -1.3,
    "the source gives no size of the ego; took that of its fleet, 5.393 x 2.109 m with the rear "
    "1.3 m behind the rear axle",
)  # fmt: skip
"""What NVIDIA's own simulator assumes of the vehicle that recorded these clips."""


@dataclass
class Boxes:
    """n observations of agents, in any order."""

    agent: np.ndarray
    """Index into `names`, int [n]."""
    time: np.ndarray
    """[s], on the clock of the ego poses, [n]."""
    xyz: np.ndarray
    """Box centers [m], [n, 3]."""
    yaw: np.ndarray
    """[rad], [n]."""
    size: np.ndarray
    """Length, width, height [m], [n, 3]."""
    names: list[str]
    """Identifiers of the agents in the source."""
    types: list[AgentType]


def no_boxes() -> Boxes:
    """What a clip without objects has."""
    zero = np.zeros(0)
    return Boxes(zero.astype(int), zero, np.zeros((0, 3)), zero, np.zeros((0, 3)), [], [])


def build_tracks(
    time: np.ndarray, poses: np.ndarray, box: EgoBox, boxes: Boxes, source: str, notes: list[str]
) -> RawTracks:
    """The ego as track 0 and all boxes, on a grid of `DT` that begins with the first ego pose.

    Args:
        time: of the ego poses [s], increasing, [n].
        poses: rig to world, [n, 4, 4].
        box: of the ego.
        boxes: of the other agents.
        source: for messages.
        notes: gets a clause for each assumption.

    Raises:
        ScenarioError: if there are too few poses, or poses, times or counts are absurd.
    """
    if len(time) < 2:
        raise ScenarioError(f"{source}: a drive needs 2 ego poses or more, got {len(time)}")
    if not np.isfinite(time).all() or (np.diff(time) <= 0).any():
        frame = int(np.flatnonzero(~(np.diff(time) > 0))[0]) + 1
        raise ScenarioError(f"{source}: the time of ego pose {frame} is not after the one before")
    axis = poses[:, :3, 0]
    bad = ~np.isfinite(poses).all((1, 2)) | ~(np.abs(np.linalg.norm(axis, axis=1) - 1) < 0.05)
    if bad.any():
        frame = int(np.flatnonzero(bad)[0])
        raise ScenarioError(
            f"{source}: ego pose {frame} must be finite with axes of length 1, "
            f"got {poses[frame].ravel()[:4].tolist()}..."
        )
    span = float(time[-1] - time[0])
    num_frames = int(min(span / DT + 1e-3, 1e9)) + 1
    if num_frames > MAX_FRAMES or num_frames * (len(boxes.names) + 1) > MAX_CELLS:
        raise ScenarioError(
            f"{source}: {len(boxes.names) + 1} agents over {span:.6g} s are more than is read "
            f"({MAX_FRAMES} frames, {MAX_CELLS} agents times frames)"
        )
    grid = time[0] + DT * np.arange(num_frames)
    center = poses[:, :3, 3] + poses[:, :3, :3] @ box.center
    rows = [sample(time, center, np.arctan2(poses[:, 1, 0], poses[:, 0, 0]), grid)]
    sizes, kept, bridged = [[box.length, box.width, box.height]], [], 0
    order = np.lexsort((boxes.time, boxes.agent))
    starts = np.searchsorted(boxes.agent[order], range(len(boxes.names) + 1))
    for agent, (begin, end) in enumerate(itertools.pairwise(starts)):
        own = order[begin:end]
        if not len(own):
            continue
        kept.append(agent)
        stamps, first = np.unique(boxes.time[own], return_index=True)
        own = own[first]
        rows.append(sample(stamps, boxes.xyz[own], boxes.yaw[own], grid))
        sizes.append(np.median(boxes.size[own], axis=0).tolist())
        bridged += bool(rows[-1][2].any() and (np.diff(stamps) > MAX_GAP).any())
    if bridged:
        notes.append(
            f"{bridged} tracks have holes of more than {MAX_GAP} s, filled only where the box "
            "comes back to its place"
        )
    notes.append(box.note)
    xyz, yaw, valid = (np.stack(column) for column in zip(*rows, strict=True))
    numbers = number_ids(boxes.names)
    return RawTracks(
        xyz=xyz,
        yaw=yaw,
        velocity=np.full((*valid.shape, 2), np.nan),
        size=np.array(sizes, np.float64)[:, None],
        valid=valid,
        type=np.array([AgentType.VEHICLE, *(boxes.types[i] for i in kept)]),
        id=np.array([EGO_ID, *(numbers[boxes.names[i]] for i in kept)], np.int64),
    )


def sample(
    time: np.ndarray, xyz: np.ndarray, yaw: np.ndarray, grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A track at the times of a grid: linear in position, the short way round in heading.

    Args:
        time: of the observations [s], increasing, [n], n >= 1.
        xyz: [m], [n, 3].
        yaw: [rad], [n].
        grid: [s], [T].

    Returns:
        Positions [T, 3], headings [T], and where the track covers the grid, bool [T].
    """
    if len(time) == 1:
        shape = len(grid)
        valid = np.abs(grid - time[0]) <= SNAP
        return np.repeat(xyz, shape, 0), np.repeat(yaw, shape), valid
    i = np.clip(np.searchsorted(time, grid, side="right") - 1, 0, len(time) - 2)
    gap = np.diff(time)
    moved = np.linalg.norm(np.diff(xyz, axis=0), axis=1)
    ahead, behind = grid - time[i], time[i + 1] - grid
    within = (ahead >= 0) & (behind >= 0) & ((gap <= MAX_GAP) | (moved < STILL))[i]
    valid = within | (np.abs(ahead) <= SNAP) | (np.abs(behind) <= SNAP)
    share = np.where(within, ahead / gap[i], np.abs(ahead) > np.abs(behind))
    turned = np.unwrap(yaw)
    return (
        xyz[i] + share[:, None] * (xyz[i + 1] - xyz[i]),
        turned[i] + share * (turned[i + 1] - turned[i]),
        valid,
    )


def number_ids(names: list[str]) -> dict[str, int]:
    """A number for each name: its own where it is one, else -2, -3, ... by first appearance."""
    numbers: dict[str, int] = {}
    for name in names:
        if name not in numbers:
            is_number = name.isascii() and name.isdigit() and len(name) < 19
            numbers[name] = int(name) if is_number else -2 - len(numbers)
    return numbers


def quaternion_matrices(q: np.ndarray) -> np.ndarray:
    """Rotation matrices [n, 3, 3] of quaternions x, y, z, w [n, 4]; NaN where one is zero."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        x, y, z, w = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    return rotation_matrices(x, y, z, w)
