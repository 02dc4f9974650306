"""What Alpamayo is shown and what it answers, as AlpaGym's policies exchange them.

The rig frame is that of the rear axle's center on the ground, x forward, y left, z up, at the time
t0 of the newest camera frame. Histories are 16 poses, 0.1 s apart, the last at t0; futures are 64,
from 0.1 s on. Times are whole microseconds, quaternions w, x, y, z.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alpagym.interop.alpamayo.action_space import NUM_FUTURE, NUM_HISTORY, decode, matrix_of

STEP_US = 100_000
"""Between poses of histories and futures."""
JITTER_US = 10_000
"""How far two poses of a history may be from that."""
ORIGIN = 1e-3
"""A last pose may be so far from the rig's [m], and its matrix from the identity."""
UNIT = 1e-2
"""A quaternion's length may be so far from 1."""
FRAME_SIZE = (320, 512)
"""Height and width of camera frames [pixels]."""
CAMERAS = {
    "camera_cross_left_120fov": 0,
    "camera_front_wide_120fov": 1,
    "camera_cross_right_120fov": 2,
    "camera_rear_left_70fov": 3,
    "camera_rear_tele_30fov": 4,
    "camera_rear_right_70fov": 5,
    "camera_front_tele_30fov": 6,
}
"""Numbers of cameras in the models' prompts, by AlpaSim's names."""


@dataclass
class Inputs:
    """What a model sees in B situations."""

    history_xyz: Tensor
    """Rig frame [m], the last row 0. float32 [B, 1, 16, 3]"""
    history_rotation: Tensor
    """The last matrix is the identity. float32 [B, 1, 16, 3, 3]"""
    frames: Tensor
    """Camera by camera, each from its oldest frame to its newest. uint8 [B, C F, 3, 320, 512]"""
    camera: Tensor
    """Number of each frame's camera (`CAMERAS`). int64 [B, C F]"""
    time_us: Tensor
    """When each was taken, counted from t0, the newest's: rising within a camera. int64 [B, C F]"""

    def check(self, size: tuple[int, int] = FRAME_SIZE) -> None:
        """Refuse what does not keep the contract.

        Args:
            size: height and width of frames.

        Raises:
            ValueError: a wrong shape, type, order or value; one sentence.
        """
        batch = len(self.history_xyz)
        if batch == 0:
            raise ValueError("history_xyz: expected at least one situation, got none")
        frames = self.frames.shape[1] if self.frames.ndim > 1 else 0
        expected = {
            "history_xyz": ((batch, 1, NUM_HISTORY, 3), torch.float32),
            "history_rotation": ((batch, 1, NUM_HISTORY, 3, 3), torch.float32),
            "frames": ((batch, frames, 3, *size), torch.uint8),
            "camera": ((batch, frames), torch.int64),
            "time_us": ((batch, frames), torch.int64),
        }
        for name, (shape, dtype) in expected.items():
            tensor = getattr(self, name)
            if tuple(tensor.shape) != shape or tensor.dtype != dtype:
                kind = str(dtype).removeprefix("torch.")
                raise ValueError(
                    f"{name}: expected {kind} {list(shape)}, "
                    f"got {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
                )
        for name in ("history_xyz", "history_rotation"):
            if not getattr(self, name).isfinite().all():
                raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
        off = self.history_xyz[:, 0, -1].abs().amax(-1)
        if off.max() > ORIGIN:
            b = int(off.argmax())
            raise ValueError(
                f"history_xyz: expected the rig at t0 as origin, got a last pose at "
                f"{self.history_xyz[b, 0, -1].tolist()} in row {b}"
            )
        last = self.history_rotation[:, 0, -1]
        off = (last - torch.eye(3, device=last.device)).abs().amax((-1, -2))
        if off.max() > ORIGIN:
            b = int(off.argmax())
            raise ValueError(
                f"history_rotation: expected the identity at t0, got {last[b].tolist()} in row {b}"
            )
        if frames == 0:
            raise ValueError("frames: expected at least one camera frame, got none")
        _, each = order(self.camera)
        newest = self.time_us.amax(1)
        if newest.any():
            b = int(newest.abs().argmax())
            raise ValueError(
                f"time_us: expected 0 at the newest frame, got {int(newest[b])} in row {b}"
            )
        falling = self.time_us.unflatten(1, (-1, each)).diff() <= 0
        if falling.any():
            b = int(falling.flatten(1).sum(1).argmax())
            raise ValueError(
                f"time_us: expected times that rise within each camera, "
                f"got {self.time_us[b].tolist()} in row {b}"
            )


def order(camera: Tensor) -> tuple[list[int], int]:
    """The cameras of a prompt and how many frames each gives it.

    Args:
        camera: int64 [B, C F], alike in all rows.

    Returns:
        Numbers of C cameras, rising, and F.

    Raises:
        ValueError: rows that differ, an unknown camera, numbers that do not rise, or cameras with
            unequal numbers of frames.
    """
    row: list[int] = camera[0].tolist()
    if (camera != camera[0]).any():
        raise ValueError("camera: expected the same cameras in all rows of a batch, got others")
    numbers, counts = camera[0].unique_consecutive(return_counts=True)
    found: list[int] = numbers.tolist()
    known = sorted(CAMERAS.values())
    if found != sorted(set(row)) or not set(found) <= set(known):
        raise ValueError(
            f"camera: expected numbers of {known[0]} to {known[-1]}, rising, frames of a camera "
            f"side by side, got {row}"
        )
    if (counts != counts[0]).any():
        raise ValueError(f"camera: expected as many frames of each camera, got {row}")
    return found, int(counts[0])


def shrunk(pictures: Tensor, size: tuple[int, int] = FRAME_SIZE) -> Tensor:
    """Camera pictures as frames: bilinear with antialiasing, whatever that does to their sides.

    Args:
        pictures: uint8 [N, 3, H, W], on any device.
        size: height and width.

    Returns:
        uint8 [N, 3, *size].
    """
    made = torch.nn.functional.interpolate(
        pictures.float(), size, mode="bilinear", antialias=True, align_corners=False
    )
    return made.round().clamp(0, 255).to(torch.uint8)


def rotation_of(quaternion: Tensor) -> Tensor:
    """Matrices of quaternions w, x, y, z, [..., 4] -> [..., 3, 3].

    Raises:
        ValueError: a quaternion whose length is not near 1.
    """
    length = quaternion.norm(dim=-1, keepdim=True)
    off = (length - 1.0).abs()
    if not (off <= UNIT).all():
        worst = float(length.flatten()[off.flatten().argmax()])
        raise ValueError(f"quaternion: expected unit length, got {worst:.3g}")
    w, x, y, z = (quaternion / length).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def quaternion_of(rotation: Tensor) -> Tensor:
    """Unit quaternions w, x, y, z with w >= 0 of matrices, [..., 3, 3] -> [..., 4].

    Of the four ways to write one, that with the largest denominator (Shepperd 1978).
    """
    m = [[rotation[..., i, j] for j in range(3)] for i in range(3)]
    xx, yy, zz = m[0][0], m[1][1], m[2][2]
    wx, wy, wz = m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]
    xy, xz, yz = m[0][1] + m[1][0], m[0][2] + m[2][0], m[1][2] + m[2][1]
    ways = torch.stack(
        [
            torch.stack([1 + xx + yy + zz, wx, wy, wz], -1),
            torch.stack([wx, 1 + xx - yy - zz, xy, xz], -1),
            torch.stack([wy, xy, 1 - xx + yy - zz, yz], -1),
            torch.stack([wz, xz, yz, 1 - xx - yy + zz], -1),
        ],
        -2,
    )
    best = ways.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None]
    chosen = ways.gather(-2, best.expand(*best.shape[:-1], 4)).squeeze(-2)
    chosen = chosen / chosen.norm(dim=-1, keepdim=True)
    return torch.where(chosen[..., :1] < 0, -chosen, chosen)


def history_of(time_us: Tensor, xyz: Tensor, quaternion: Tensor) -> tuple[Tensor, Tensor]:
    """The last 16 of reported poses in the rig's frame at the last of them; nothing is resampled.

    They span 1.5 s.

    Args:
        time_us: int64 [P].
        xyz: of the rig in the world [m], [P, 3].
        quaternion: [P, 4].

    Returns:
        float32 [1, 16, 3] and [1, 16, 3, 3], as `Inputs` holds them.

    Raises:
        ValueError: fewer than 16 poses, poses that are not 0.1 s apart, or a quaternion that is
            not of unit length.
    """
    if len(time_us) < NUM_HISTORY:
        raise ValueError(
            f"history: expected {NUM_HISTORY} poses, 0.1 s apart, got {len(time_us)}: the log "
            "must drive the first 1.5 s"
        )
    steps = time_us[-NUM_HISTORY:].diff()
    worst = int(steps[(steps - STEP_US).abs().argmax()])
    if abs(worst - STEP_US) > JITTER_US:
        raise ValueError(
            f"history: expected poses {STEP_US} us apart (pose_reporting_interval_us), got {worst}"
        )
    place = xyz[-NUM_HISTORY:].double()
    rotation = rotation_of(quaternion[-NUM_HISTORY:].double())
    back = rotation[-1].T
    relative = (place - place[-1]) @ back.T
    turned = back @ rotation
    turned[-1] = torch.eye(3, dtype=turned.dtype)
    return relative.float()[None], turned.float()[None]


def trajectories(
    action: Tensor, history_xyz: Tensor, history_rotation: Tensor
) -> tuple[Tensor, Tensor]:
    """The futures that actions drive, rig frame.

    Args:
        action: normalized, [B, ns, nj, 64, 2].
        history_xyz: [B, 1, 16, 3].
        history_rotation: [B, 1, 16, 3, 3].

    Returns:
        Waypoints [B, ns, nj, 64, 3] and rotations [B, ns, nj, 64, 3, 3].
    """
    xyz, heading = decode(action, history_xyz[:, None], history_rotation[:, None])
    return xyz, matrix_of(heading)


def in_world(
    xyz: Tensor, rotation: Tensor, pose_xyz: Tensor, pose_quaternion: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """A future as AlpaSim is told of it: in the world, after the pose that it begins with.

    Args:
        xyz: rig frame [m], [64, 3].
        rotation: [64, 3, 3].
        pose_xyz: of the rig in the world at t0, [3].
        pose_quaternion: [4].

    Returns:
        Positions [65, 3], quaternions [65, 4], in float64, and times counted from t0 [us],
        int64 [65]: 0, 100000, ..., 6400000.
    """
    turn = rotation_of(pose_quaternion.double())
    place = torch.cat([torch.zeros(1, 3, dtype=torch.float64), xyz.double().cpu()])
    turned = torch.cat([torch.eye(3, dtype=torch.float64)[None], rotation.double().cpu()])
    time_us = torch.arange(NUM_FUTURE + 1) * STEP_US
    return place @ turn.T + pose_xyz.double(), quaternion_of(turn @ turned), time_us
