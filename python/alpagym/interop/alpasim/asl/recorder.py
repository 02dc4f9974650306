"""Sessions as AlpaSim's logs, in its tree `rollouts/<scene>/<uuid>/rollout.asl`."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

import numpy as np

import alpagym
from alpagym import sim
from alpagym.interop.alpasim.asl.entries import SIZE
from alpagym.interop.alpasim.asl.log import EGO, LICENSE
from alpagym.interop.alpasim.poses import Track, quaternion_of, write_trajectory
from alpagym.interop.alpasim.wire.messages import common, log, sensorsim
from alpagym.scenarios.scenario import AgentType, Scenario

if TYPE_CHECKING:
    from alpagym.interop.alpasim.session import Order

FILE = "rollout.asl"
MAX_FOLDER = 120
"""Characters of a folder's name; longer ones are cut, and told apart by a hash."""
LABELS = {
    AgentType.UNKNOWN: "unknown",
    AgentType.VEHICLE: "automobile",
    AgentType.PEDESTRIAN: "person",
    AgentType.CYCLIST: "rider",
    AgentType.OTHER: "other",
}
"""AlpaSim's words."""
KINDS = {
    "start_session": "driver_session_request",
    "submit_image_observation": "driver_camera_image",
    "submit_egomotion_observation": "driver_ego_trajectory",
    "submit_route": "route_request",
    "submit_recording_ground_truth": "ground_truth_request",
    "drive": "driver_request",
}
"""Entries of what is sent to the driver, by method."""


class Recorder:
    """The log of one session.

    It grows in a file beside its place, which it takes when it is whole. Where the disk refuses it,
    `error` says so, and the session goes on without.
    """

    def __init__(self, folder: Path, order: Order) -> None:
        """Write what begins a log."""
        scenario = order.stage.scenario
        self.path = log_path(folder, scenario.id, order.uuid)
        self._part = self.path.with_name(f".{FILE}.{os.getpid()}.part")
        self._names = actor_names(scenario)
        self._file: BinaryIO | None = None
        self.error = ""
        """Why there is no log, a sentence; empty if nothing is wrong."""
        try:
            self._part.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("wb")
        except OSError as error:
            self._fail(error)
        self._add(rollout_metadata=_metadata(order, self._names))

    def sent(self, method: str, request: Any) -> None:
        """What the driver is told."""
        if method not in KINDS:
            return
        self._add(**{KINDS[method]: request})
        if method == "start_session":
            cameras = request.rollout_spec.vehicle.available_cameras
            self._add(
                available_cameras_return=sensorsim.AvailableCamerasReturn(available_cameras=cameras)
            )

    def answered(self, answer: Any) -> None:
        """What it answered to `drive`."""
        self._add(driver_return=answer)

    def boxes(self, time_us: int, pose: np.ndarray, z: np.ndarray, valid: np.ndarray) -> None:
        """Who is where.

        Args:
            time_us: now.
            pose: x, y [m] and yaw [rad] of the box centers, [3, A].
            z: of the box centers [m], [A].
            valid: whether the agent is there, bool [A].
        """
        step = log.ActorPoses(timestamp_us=time_us)
        rows = zip(*pose[:2].tolist(), z.tolist(), quaternion_of(pose[2]).tolist(), strict=True)
        for name, there, (x, y, height, (w, _, _, qz)) in zip(
            self._names, valid.tolist(), rows, strict=True
        ):
            if there:
                actor = step.actor_poses.add(actor_id=name)
                vec, quat = actor.actor_pose.vec, actor.actor_pose.quat
                vec.x, vec.y, vec.z, quat.w, quat.z = x, y, height, w, qz
        self._add(actor_poses=step)

    def finish(self) -> None:
        """Put the log into its place; waits for the disk."""
        if self._file is None:
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._part, self.path)
        except OSError as error:
            self._fail(error)

    def discard(self) -> None:
        """Leave nothing of it, unless it is in its place."""
        if self._file is not None:
            file, self._file = self._file, None
            with suppress(OSError):  # of what was not written yet, and is not wanted
                file.close()
            self._part.unlink(missing_ok=True)
            with suppress(OSError):  # of another log of the session
                self.path.parent.rmdir()

    def _add(self, **entry: Any) -> None:
        if self._file is None:
            return
        data = log.LogEntry(**entry).SerializeToString()
        try:
            self._file.write(SIZE.pack(len(data)) + data)
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.error = f"{self.path}: not written: {error.strerror or error}"
        self.discard()


def log_path(folder: Path, scene: str, uuid: str) -> Path:
    """Where the log of a session stands, whatever characters its names have."""
    return folder / "rollouts" / _folder(scene) / _folder(uuid) / FILE


def _folder(name: str) -> str:
    """A name as that of a folder: what leads elsewhere is escaped."""
    safe = quote(name, safe=" ")
    if safe.strip(".") == "":
        safe = safe.replace(".", "%2E")
    if len(safe) > MAX_FOLDER:
        safe = f"{safe[:80]}-{hashlib.blake2b(name.encode(), digest_size=12).hexdigest()}"
    return safe


def actor_names(scenario: Scenario) -> list[str]:
    """Names of all agents in logs: `EGO`, else their ids, which are made to differ."""
    ids = scenario.tracks.id.tolist()
    count = Counter(ids)
    names = [str(i) if count[i] == 1 else f"{i}-{k}" for k, i in enumerate(ids)]
    names[scenario.ego] = EGO
    return names


def _metadata(order: Order, names: list[str]) -> Any:
    """A `RolloutMetadata`."""
    stage, time = order.stage, order.timeline
    scenario, rig, record = stage.scenario, stage.rig, stage.record
    about = log.RolloutMetadata(force_gt_duration=(time.engaged - time.first) * time.frame_us)
    session = about.session_metadata
    session.session_uuid, session.scene_id = order.uuid, scenario.id
    session.n_sim_steps = (time.last - time.first) // time.every
    session.start_timestamp_us = time.time_us(time.context)
    session.render_start_timestamp_us = time.time_us(time.first)
    session.control_timestep_us = time.every * time.frame_us
    session.nre_runid = f"{LICENSE}{scenario.license}"
    about.version_ids.runtime_version.CopyFrom(
        common.VersionId(version_id=f"alpagym {alpagym.__version__}", git_hash=sim.commit())
    )
    others = [k for k in range(len(names)) if k != scenario.ego]
    for k in [scenario.ego, *others]:
        actor = about.actor_definitions.actor_aabb.add(actor_id=names[k])
        actor.actor_label = LABELS[AgentType(int(scenario.tracks.type[k]))]
        box = actor.aabb
        box.size_x, box.size_y, box.size_z = scenario.tracks.size[k].tolist()
    place = about.transform_ego_coords_rig_to_aabb
    place.vec.x, place.vec.z, place.quat.w = rig.back, rig.down, 1.0
    write_trajectory(
        about.ego_rig_recorded_ground_truth_trajectory,
        Track(record.frame * time.frame_us, record.pose[:, [0, 1, 3]], record.pose[:, 2]),
    )
    return about
