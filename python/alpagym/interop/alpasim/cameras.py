"""Cameras of sessions, and the renderers that make their images."""

from __future__ import annotations

import importlib.util
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from alpagym.plugins import load_named
from alpagym.scenarios.scenario import Scenario

SHUTTER_US = 30_000
"""From the first to the last row of an image [us]."""
ENTRY_POINTS = "alpagym.renderers"
"""Group of entry points that packages register renderers in."""
VIEWS = {
    "camera_front_wide_120fov": (0.0, 120.0),
    "camera_front_tele_30fov": (0.0, 30.0),
    "camera_cross_left_120fov": (60.0, 120.0),
    "camera_cross_right_120fov": (-60.0, 120.0),
    "camera_rear_left_70fov": (150.0, 70.0),
    "camera_rear_right_70fov": (-150.0, 70.0),
    "camera_rear_tele_30fov": (180.0, 30.0),
}
"""Direction, left positive, and field of view [deg] of cameras by AlpaSim's names; about those of
its cars."""
POSITION = (1.7, 0.0, 1.5)
"""Of every camera in the rig's frame [m]."""
NEAREST = 0.5
"""What is nearer to a camera is not drawn [m]."""
SKY, GROUND, OUTLINE = (150, 180, 210), (95, 95, 90), (230, 120, 40)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without roll or pitch."""

    name: str
    height: int
    """[pixels]"""
    width: int
    """[pixels]"""
    yaw: float
    """Of where it looks, in the rig's frame [rad]."""
    field_of_view: float
    """From the left to the right of the image [rad]."""

    @property
    def focal_length(self) -> float:
        """Of the pinhole [pixels]."""
        return 0.5 * self.width / math.tan(0.5 * self.field_of_view)

    @property
    def quaternion(self) -> tuple[float, float, float, float]:
        """w, x, y, z of its axes (x right, y down, z forward) in the rig's frame."""
        w, z = math.cos(0.5 * self.yaw), math.sin(0.5 * self.yaw)
        return 0.5 * (w + z), -0.5 * (w + z), 0.5 * (w - z), 0.5 * (z - w)


@dataclass(frozen=True)
class View:
    """What there is to see."""

    scenario: Scenario
    time_us: int
    """Of the session [us]."""
    rig: np.ndarray
    """Of the ego: x, y, z [m] and yaw [rad], float64 [4]."""
    pose: np.ndarray
    """x, y [m] and yaw [rad] of all box centers, float32 [3, A]."""
    valid: np.ndarray
    """Which agents are there, bool [A]."""


Renderer = Callable[[View, Camera], bytes]
"""Makes a JPEG or PNG; called on a thread of its own."""


def cameras_of(names: Sequence[str], height: int, width: int) -> list[Camera]:
    """Cameras by AlpaSim's names.

    Raises:
        ValueError: an unknown name.
    """
    for name in names:
        if name not in VIEWS:
            raise ValueError(f"alpasim.cameras: expected any of {', '.join(VIEWS)}, got {name}")
    return [
        Camera(name, height, width, *(math.radians(angle) for angle in VIEWS[name]))
        for name in names
    ]


def load_renderer(name: str) -> Renderer:
    """`placeholder`, or what users bring along.

    Raises:
        ValueError: an unknown renderer, or Pillow is not there for `placeholder`.
    """
    if name == "placeholder":
        if importlib.util.find_spec("PIL") is None:
            raise ValueError(
                "alpasim.renderer: placeholder needs Pillow: pip install alpagym[alpasim]"
            )
        return placeholder
    renderer: Renderer = load_named("alpasim.renderer", "function", name, ENTRY_POINTS)
    return renderer


def placeholder(view: View, camera: Camera) -> bytes:
    """Sky, ground and frames around the other agents, as a JPEG: no image to learn from."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (camera.width, camera.height), SKY)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, camera.height // 2, camera.width, camera.height), fill=GROUND)
    scenario, ground = view.scenario, float(view.rig[2])
    there = np.flatnonzero(view.valid[: scenario.tracks.num_agents])
    for a in there[there != scenario.ego]:
        size = scenario.tracks.size[a].astype(np.float64)
        corners = _corners(view.pose[:, a].astype(np.float64), size, ground)
        seen = _seen(corners, view.rig, camera)
        if seen is not None:
            (left, top), (right, bottom) = seen.min(0), seen.max(0)
            if right > 0 and left < camera.width:
                draw.rectangle((left, top, right, bottom), outline=OUTLINE, width=2)
    draw.text((4, 4), f"{camera.name} {view.time_us * 1e-6:.3f} s", fill=(0, 0, 0))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return data.getvalue()


def _corners(pose: np.ndarray, size: np.ndarray, ground: float) -> np.ndarray:
    """Of a box that stands on the ground, world frame [8, 3]."""
    signs = np.array([(i, j, k) for i in (-0.5, 0.5) for j in (-0.5, 0.5) for k in (0.0, 1.0)])
    x, y, z = (signs * size).T
    c, s = np.cos(pose[2]), np.sin(pose[2])
    return np.stack([pose[0] + c * x - s * y, pose[1] + s * x + c * y, ground + z], -1)


def _seen(points: np.ndarray, rig: np.ndarray, camera: Camera) -> np.ndarray | None:
    """Pixels of points [n, 3], [n, 2]; None if one is too near or behind."""
    c, s = np.cos(rig[3]), np.sin(rig[3])
    dx, dy = (points[:, :2] - rig[:2]).T
    ahead, left = c * dx + s * dy - POSITION[0], c * dy - s * dx - POSITION[1]
    up = points[:, 2] - rig[2] - POSITION[2]
    c, s = np.cos(camera.yaw), np.sin(camera.yaw)
    depth, left = c * ahead + s * left, c * left - s * ahead
    if depth.min() < NEAREST:
        return None
    f = camera.focal_length
    across, down = 0.5 * camera.width - f * left / depth, 0.5 * camera.height - f * up / depth
    return np.stack([across, down], 1)
