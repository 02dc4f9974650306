"""What drivers are told, as messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from alpagym.interop.alpasim.cameras import POSITION, SHUTTER_US, Camera
from alpagym.interop.alpasim.poses import Track, into_frame, write_trajectory
from alpagym.interop.alpasim.rig import RigPath
from alpagym.interop.alpasim.wire.messages import common, egodriver, sensorsim

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
    write_trajectory(request.trajectory, track)
    for told in rates:
        state = request.dynamic_states.add()
        names = "angular_velocity", "linear_velocity", "linear_acceleration", "angular_acceleration"
        for name, value in zip(names, told or (np.zeros(3),) * 4, strict=True):
            getattr(state, name).CopyFrom(_vector(value))
    return request


def route(uuid: str, now_us: int, waypoints: np.ndarray) -> Any:
    """A `RouteRequest` of waypoints [n, 3] in the rig's frame."""
    request = egodriver.RouteRequest(session_uuid=uuid)
    request.route.timestamp_us = now_us
    for point in waypoints.tolist():
        request.route.waypoints.append(_vector(point))
    return request


def ground_truth(uuid: str, now_us: int, path: RigPath, frame_us: int, rig: np.ndarray) -> Any:
    """A `GroundTruthRequest`: the whole record as seen from the rig x, y, z, yaw now."""
    request = egodriver.GroundTruthRequest(session_uuid=uuid)
    request.ground_truth.timestamp_us = now_us
    local = into_frame(rig[[0, 1, 3]], path.pose[:, [0, 1, 3]])
    track = Track(path.frame * frame_us, local, path.pose[:, 2] - rig[2])
    write_trajectory(request.ground_truth.trajectory, track)
    return request


def image(uuid: str, now_us: int, camera: str, data: bytes) -> Any:
    """A `RolloutCameraImage` that ends now."""
    request = egodriver.RolloutCameraImage(session_uuid=uuid)
    request.camera_image.frame_start_us = max(now_us - SHUTTER_US, 0)
    request.camera_image.frame_end_us = now_us
    request.camera_image.image_bytes = data
    request.camera_image.logical_id = camera
    return request


def _vector(value: Sequence[float] | np.ndarray) -> Any:
    x, y, z = (float(v) for v in value)
    return common.Vec3(x=x, y=y, z=z)
