"""A log of a rollout as arrays: who was where, and what the driver answered.

`unstructured_debug_info`, which AlpaSim's own drivers pickle, is never looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alpagym.interop.alpasim.asl.entries import Entry, read_entries
from alpagym.interop.alpasim.poses import (
    LAST_TIME_US,
    UNIT,
    Track,
    from_frame,
    read_trajectory,
    yaw_of,
)
from alpagym.metrics.alpasim.episode import Plan, Reply
from alpagym.scenarios.scenario import ScenarioError

EGO = "EGO"
MAX_ACTORS, MAX_STEPS, MAX_CELLS = 5_000, 100_000, 2_000_000
"""Actors, steps, and their product, that are read at most."""
MAX_NAME = 256
LICENSE = "license:"
"""Before the license tag of a scenario in `nre_runid` of logs that this package wrote."""


@dataclass(frozen=True)
class RolloutLog:
    """One rollout, T steps of N actors; poses of box centers in AlpaSim's local frame."""

    source: str
    uuid: str
    scene: str
    runtime: str
    """Version of what wrote it."""
    license: str
    """Tag of the scenario, empty where the log does not tell."""
    times_us: np.ndarray
    """Rising, int64 [T]."""
    render_start_us: int
    """When the driver was asked first."""
    engaged_us: int
    """When it took over."""
    names: list[str]
    """Of the actors; the first is the ego."""
    labels: list[str]
    size: np.ndarray
    """Length, width, height [m], float64 [N, 3]."""
    pose: np.ndarray
    """x, y, z [m], yaw [rad], float64 [T, N, 4]; 0 where not there."""
    there: np.ndarray
    """bool [T, N]."""
    record: Plan
    """The ego's whole recorded drive."""
    replies: list[Reply]
    """All plans of the driver."""
    ended_by_driver: bool


def logs_at(path: Path) -> list[Path]:
    """All logs of a folder, or the one.

    Raises:
        ValueError: none.
    """
    found = sorted(path.rglob("*.asl")) if path.is_dir() else [path] * path.is_file()
    if not found:
        raise ValueError(f"asl: expected a log or a folder of logs, found none at {path}")
    return found


def read_log(path: Path) -> RolloutLog:
    """Read a log.

    Raises:
        ScenarioError: a log that is cut short, out of order, or holds impossible numbers; one
            sentence with file, entry and byte.
        OSError: the file cannot be read.
    """
    entries = iter(read_entries(path))
    first = next(entries, None)
    if first is None or first.kind != "rollout_metadata":
        place = f"{path}: entry 0 at byte 0" if first is None else first.place
        got = "the end of the file" if first is None else first.kind or "another entry"
        raise ScenarioError(f"{place}: expected rollout_metadata first, got {got}")
    try:
        actors = _Actors(first.value)
    except ValueError as error:
        raise ScenarioError(f"{first.place}: rollout_metadata: {error}") from error
    driver = _Driver(actors.box)
    for entry in entries:
        try:
            _take(entry, actors, driver)
        except ValueError as error:
            raise ScenarioError(f"{entry.place}: {entry.kind}: {error}") from error
    try:
        return actors.log(str(path), driver)
    except ValueError as error:
        raise ScenarioError(f"{path}: {error}") from error


def _take(entry: Entry, actors: _Actors, driver: _Driver) -> None:
    if entry.kind == "rollout_metadata":
        raise ValueError("expected once, at the beginning, got it again")
    if entry.kind == "actor_poses":
        actors.add(entry.value)
    elif entry.kind == "driver_request":
        driver.asked(entry.value)
    elif entry.kind == "driver_return":
        driver.answered(entry.value)


class _Actors:
    """Those that the metadata define, and where they are seen."""

    def __init__(self, about: Any) -> None:
        self._about = about
        defined = about.actor_definitions.actor_aabb
        if not 0 < len(defined) <= MAX_ACTORS:
            raise ValueError(f"expected 1 to {MAX_ACTORS} actors, got {len(defined)}")
        self.names = [_word("actor_id", a.actor_id) for a in defined]
        if self.names[0] != EGO:
            raise ValueError(f"expected {EGO} as the first actor, got {self.names[0]}")
        self._index = {name: k for k, name in enumerate(self.names)}
        if len(self._index) < len(self.names):
            raise ValueError("expected actors with different ids, got one twice")
        self._labels = [a.actor_label[:MAX_NAME] for a in defined]
        boxes = [(a.aabb.size_x, a.aabb.size_y, a.aabb.size_z) for a in defined]
        self._size = np.array(boxes, np.float64)
        bad = np.flatnonzero(~((self._size > 0) & (self._size < 100)).all(1))
        if len(bad):
            raise ValueError(
                f"actor {self.names[bad[0]]}: expected a size of 0 to 100 m, "
                f"got {self._size[bad[0]].tolist()}"
            )
        told = about.transform_ego_coords_rig_to_aabb
        if about.HasField("transform_ego_coords_rig_to_aabb"):
            self.box = _poses([told], ["transform_ego_coords_rig_to_aabb"])[0]
        else:
            raise ValueError("expected transform_ego_coords_rig_to_aabb, got none")
        record = read_trajectory(
            about.ego_rig_recorded_ground_truth_trajectory, "recorded trajectory"
        )
        if not len(record.time_us):
            raise ValueError("expected a recorded trajectory of the ego, got none")
        self._record = boxed(record, self.box)
        session = about.session_metadata
        self._render_start = session.render_start_timestamp_us or session.start_timestamp_us
        if self._render_start + about.force_gt_duration > LAST_TIME_US:
            raise ValueError("expected times of at most 2^63 - 1 us, got later ones")
        self._uuid, self._scene = (
            _word(name, getattr(session, name)) for name in ("session_uuid", "scene_id")
        )
        self._times: list[int] = []
        self._seen: list[np.ndarray] = []
        self._poses: list[np.ndarray] = []

    def add(self, step: Any) -> None:
        now = step.timestamp_us
        if now > LAST_TIME_US or (self._times and now <= self._times[-1]):
            before = self._times[-1] if self._times else 0
            raise ValueError(f"expected times that rise, got {now} us after {before} us")
        names = [actor.actor_id for actor in step.actor_poses]
        if EGO not in names:
            raise ValueError(f"expected a pose of {EGO} at {now} us, got none")
        unknown = next((name for name in names if name not in self._index), None)
        if unknown is not None or len(set(names)) < len(names):
            got = "one twice" if unknown is None else repr(unknown[:40])
            raise ValueError(f"expected each of the defined actors once at most, got {got}")
        if (len(self._times) + 1) * len(self.names) > MAX_CELLS or len(self._times) >= MAX_STEPS:
            raise ValueError(
                f"expected at most {MAX_STEPS} steps and {MAX_CELLS} steps times actors, got more"
            )
        self._poses.append(_poses([actor.actor_pose for actor in step.actor_poses], names))
        self._seen.append(np.array([self._index[name] for name in names]))
        self._times.append(now)

    def log(self, source: str, driver: _Driver) -> RolloutLog:
        count = len(self._times)
        if not count:
            raise ValueError("expected actor_poses, got none")
        pose, there = (
            np.zeros((count, len(self.names), 4)),
            np.zeros((count, len(self.names)), bool),
        )
        for t, (seen, found) in enumerate(zip(self._seen, self._poses, strict=True)):
            pose[t, seen], there[t, seen] = found, True
        runtime = self._about.version_ids.runtime_version.version_id
        tag = self._about.session_metadata.nre_runid
        told = runtime.startswith("alpagym ") and tag.startswith(LICENSE)
        return RolloutLog(
            source, self._uuid, self._scene, runtime,
            _word("license", tag.removeprefix(LICENSE)) if told else "",
            np.array(self._times, np.int64), self._render_start,
            self._render_start + self._about.force_gt_duration,
            self.names, self._labels, self._size, pose, there,
            self._record, driver.replies, driver.ended,
        )  # fmt: skip


class _Driver:
    """What it was asked and answered."""

    def __init__(self, box: np.ndarray) -> None:
        self._box = box
        self._request: Any = None
        self.replies: list[Reply] = []
        self.ended = False

    def asked(self, request: Any) -> None:
        if self._request is not None:
            raise ValueError(
                f"expected an answer to what was asked at {self._request.time_now_us} us first"
            )
        if max(request.time_now_us, request.time_query_us) > LAST_TIME_US:
            raise ValueError("expected times of at most 2^63 - 1 us, got later ones")
        if self.replies and request.time_now_us < self.replies[-1].now_us:
            raise ValueError(
                f"expected times that rise, got {request.time_now_us} us after "
                f"{self.replies[-1].now_us} us"
            )
        self._request = request

    def answered(self, answer: Any) -> None:
        request, self._request = self._request, None
        if request is None:
            raise ValueError("expected a driver_request before it, got none")
        self.ended |= answer.terminate_session
        if not answer.trajectory.poses or answer.terminate_session:
            return
        samples = answer.debug_info.sampled_trajectories
        self.replies.append(
            Reply(
                request.time_now_us,
                request.time_query_us,
                boxed(read_trajectory(answer.trajectory), self._box),
                [boxed(read_trajectory(s, "sampled trajectory"), self._box)
                 for s in samples if s.poses],
            )
        )  # fmt: skip


def boxed(rigs: Track, box: np.ndarray) -> Plan:
    """Box centers x, y, yaw of rigs; `box` is x, y, z, yaw in the rig's frame, [4]."""
    return Plan(rigs.time_us, from_frame(rigs.pose, box[[0, 1, 3]]))


def _poses(poses: Iterable[Any], names: list[str]) -> np.ndarray:
    """x, y, z, yaw of messages `common.Pose`, float64 [n, 4], checked."""
    rows = np.array(
        [(v.x, v.y, v.z, q.w, q.x, q.y, q.z) for v, q in ((p.vec, p.quat) for p in poses)],
        np.float64,
    ).reshape(-1, 7)
    length = np.linalg.norm(rows[:, 3:], axis=1)
    good = np.isfinite(rows).all(1) & (np.abs(rows[:, :3]) < 1e7).all(1)
    bad = np.flatnonzero(~(good & (np.abs(length - 1.0) <= UNIT)))
    if len(bad):
        raise ValueError(
            f"actor {names[bad[0]][:40]}: expected a pose of finite numbers with a unit "
            f"quaternion, got {rows[bad[0]].tolist()}"
        )
    yaw = yaw_of(rows[:, 3:] / length[:, None])
    return np.column_stack([rows[:, :3], yaw])


def _word(name: str, text: str) -> str:
    if not 0 < len(text) <= MAX_NAME or not text.isprintable():
        raise ValueError(f"{name}: expected 1 to {MAX_NAME} printable characters, got others")
    return text
