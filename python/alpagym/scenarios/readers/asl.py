"""AlpaSim's logs of rollouts (`rollout.asl`): what somebody drove, as a scenario without a map.

The ego's track is what was driven, not the record that the rollout began with; it starts where the
driver took over. Entries that hold neither poses nor metadata are passed over unread.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alpagym.scenarios.assemble import RawScenario, assemble
from alpagym.scenarios.readers.nvidia_tracks import DT, MAX_GAP, TYPES, Boxes, EgoBox, build_tracks
from alpagym.scenarios.scenario import EDIT_MARK, AgentType, Scenario, ScenarioError

if TYPE_CHECKING:
    from alpagym.interop.alpasim.asl.log import RolloutLog


def sniff(head: bytes, path: Path) -> bool:
    """Whether the file is a log, by its name; it may be damaged."""
    return path.suffix.lower() == ".asl"


def read(path: Path) -> Iterator[Scenario | ScenarioError]:
    """The one scenario of a log; see `Reader.read`."""
    try:
        from alpagym.interop.alpasim.asl.log import read_log
    except ImportError as error:
        raise ScenarioError(
            f"{path}: AlpaSim's logs need protobuf ({error}): pip install alpagym[alpasim]"
        ) from error
    yield scenario_of(read_log(path))


def scenario_of(log: RolloutLog) -> Scenario:
    """What was driven, every 0.1 s from the first plan on.

    Raises:
        ScenarioError: poses too far apart, or a log that ends before the driver took over.
    """
    first = int(np.searchsorted(log.times_us, log.render_start_us))
    times, pose, there = log.times_us[first:], log.pose[first:], log.there[first:]
    if len(times) < 2 or times[-1] <= log.engaged_us:
        raise ScenarioError(
            f"{log.source}: expected poses after {log.engaged_us} us, when the driver takes over, "
            f"got the last at {int(log.times_us[-1])} us"
        )
    seconds = (times - times[0]) * 1e-6
    widest = float(np.diff(seconds).max())
    if widest > MAX_GAP:
        raise ScenarioError(
            f"{log.source}: expected poses every {MAX_GAP} s or closer, got {widest:.6g} s"
        )
    length, width, height = log.size[0].tolist()
    note = "took the size of the ego from the log"
    box = EgoBox(length, width, height, -0.5 * length, note, bottom=-0.5 * height)
    notes = ["no map: logs have none", f"driven in {log.runtime[:100] or 'AlpaSim'}"]
    step, actor = np.nonzero(there[:, 1:])
    seen = pose[step, actor + 1]
    boxes = Boxes(
        actor, seconds[step], seen[:, :3], seen[:, 3], log.size[actor + 1],
        log.names[1:],
        [TYPES.get(label.lower(), AgentType.OTHER) for label in log.labels[1:]],
    )  # fmt: skip
    tracks = build_tracks(seconds, _matrices(pose[:, 0]), box, boxes, log.source, notes)
    return assemble(
        RawScenario(
            log.scene + EDIT_MARK + log.uuid, log.source, "asl", _license(log), tracks, [], [],
            ego=0, dt=DT, start=round((log.engaged_us - int(times[0])) * 1e-6 / DT),
            has_z=bool(pose[:, :, 2].any()), notes=notes,
        )
    )  # fmt: skip


def _license(log: RolloutLog) -> str:
    """The tag that our logs tell; AlpaSim's own clips are NVIDIA's."""
    return log.license or ("nvidia-av" if log.scene.startswith("clipgt-") else "unknown")


def _matrices(pose: np.ndarray) -> np.ndarray:
    """Rigid transforms [n, 4, 4] of x, y, z, yaw [n, 4]."""
    matrices = np.tile(np.eye(4), (len(pose), 1, 1))
    cos, sin = np.cos(pose[:, 3]), np.sin(pose[:, 3])
    matrices[:, :3, 3] = pose[:, :3]
    matrices[:, 0, 0], matrices[:, 0, 1], matrices[:, 1, 0], matrices[:, 1, 1] = cos, -sin, sin, cos
    return matrices
