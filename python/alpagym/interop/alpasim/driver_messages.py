"""What drivers are told, as messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from alpagym.interop.alpasim.cameras import POSITION, SHUTTER_US, Camera
from alpagym.interop.alpasim.poses import Track, into_frame
from alpagym.interop.alpasim.rig import RigPath
from alpagym.interop.alpasim.wire.messages import common, egodriver, sensorsim

_POSE = np.dtype(
    [
        *[("begin", "V7"), ("x", "<f4"), ("to_y", "V1"), ("y", "<f4"), ("to_z", "V1")],
        *[("z", "<f4"), ("to_w", "V3"), ("w", "<f4"), ("to_qz", "V1"), ("qz", "<f4")],
        *[("to_time", "V1"), ("time_us", "<u8")],
    ]
)
"""A `PoseAtTime` of a `Trajectory` on the wire, with the fields that upright poses have."""
_POSE_FRAME: dict[str, Any] = {
    "begin": np.void(bytes([0x0A, 40, 0x0A, 29, 0x0A, 15, 0x0D])),
    "to_y": np.void(b"\x15"),
    "to_z": np.void(b"\x1d"),
    "to_w": np.void(bytes([0x12, 10, 0x0D])),
    "to_qz": np.void(b"\x25"),
    "to_time": np.void(b"\x11"),
}
"""Numbers, kinds and lengths of the fields."""

_RATES = "angular_velocity", "linear_velocity", "linear_acceleration", "angular_acceleration"
_AT_REST = (np.zeros(3),) * 4

Rates = tuple[np.ndarray, ...]
"""As of `rig.rates`."""


def start_session(uuid: str, seed: int, scene: str, cameras: Sequence[Camera]) -> Any:
    """A `DriveSessionRequest`."""
    request = egodriver.DriveSessionRequest(session_uuid=uuid, random_seed=seed)
    request.debug_info.scene_id = scene
    request.rollout_spec.vehicle.SetInParent()
    for camera in cameras:
        told = request.rollout_spec.vehicle.available_cameras.add(logical_id=camera.name)
        told.intrinsics.logical_id = camera.name
        told.intrinsics.resolution_h, told.intrinsics.resolution_w = camera.height, camera.width
        told.intrinsics.shutter_type = sensorsim.ShutterType.Value("ROLLING_TOP_TO_BOTTOM")
        lens = told.intrinsics.opencv_pinhole_param
        lens.principal_point_x, lens.principal_point_y = 0.5 * camera.width, 0.5 * camera.height
        lens.focal_length_x = lens.focal_length_y = camera.focal_length
        told.rig_to_camera.vec.CopyFrom(_vector(POSITION))
        w, x, y, z = camera.quaternion
        told.rig_to_camera.quat.CopyFrom(common.Quat(w=w, x=x, y=y, z=z))
    return request


def egomotion(
    uuid: str, times_us: Sequence[int], rigs: Sequence[np.ndarray], rates: Sequence[Rates | None]
) -> Any:
    """A `RolloutEgoTrajectory` of rigs x, y, z, yaw in the local frame; no rates are zeros."""
    request = egodriver.RolloutEgoTrajectory(session_uuid=uuid)
    pose = np.stack(rigs)
    track = Track(np.array(times_us, np.int64), pose[:, [0, 1, 3]], pose[:, 2])
    _add_poses(request.trajectory, track)
    for told in rates:
        state = request.dynamic_states.add()
        for name, value in zip(_RATES, told or _AT_REST, strict=True):
            vector = getattr(state, name)
            vector.x, vector.y, vector.z = value.tolist()
            vector.SetInParent()
    return request


def route(uuid: str, now_us: int, waypoints: np.ndarray) -> Any:
    """A `RouteRequest` of waypoints [n, 3] in the rig's frame."""
    request = egodriver.RouteRequest(session_uuid=uuid)
    request.route.timestamp_us = now_us
    for x, y, z in waypoints.tolist():
        request.route.waypoints.add(x=x, y=y, z=z)
    return request


def ground_truth(uuid: str, now_us: int, path: RigPath, frame_us: int, rig: np.ndarray) -> Any:
    """A `GroundTruthRequest`: the whole record as seen from the rig x, y, z, yaw now."""
    request = egodriver.GroundTruthRequest(session_uuid=uuid)
    request.ground_truth.timestamp_us = now_us
    local = into_frame(rig[[0, 1, 3]], path.pose[:, [0, 1, 3]])
    track = Track(path.frame * frame_us, local, path.pose[:, 2] - rig[2])
    _add_poses(request.ground_truth.trajectory, track)
    return request


def image(uuid: str, now_us: int, camera: str, data: bytes) -> Any:
    """A `RolloutCameraImage` that ends now."""
    request = egodriver.RolloutCameraImage(session_uuid=uuid)
    request.camera_image.frame_start_us = max(now_us - SHUTTER_US, 0)
    request.camera_image.frame_end_us = now_us
    request.camera_image.image_bytes = data
    request.camera_image.logical_id = camera
    return request


def _add_poses(trajectory: Any, track: Track) -> None:
    """Append upright poses to a `Trajectory`, as bytes: a record has hundreds in each call."""
    half = 0.5 * track.pose[:, 2]
    columns = {
        "x": track.pose[:, 0],
        "y": track.pose[:, 1],
        "z": track.z,
        "w": np.cos(half),
        "qz": np.sin(half),
        "time_us": track.time_us,
    }
    rows = np.empty(len(half), _POSE)
    for name, value in (_POSE_FRAME | columns).items():
        rows[name] = value
    trajectory.MergeFromString(rows.tobytes())


def _vector(value: Sequence[float] | np.ndarray) -> Any:
    x, y, z = (float(v) for v in value)
    return common.Vec3(x=x, y=y, z=z)
