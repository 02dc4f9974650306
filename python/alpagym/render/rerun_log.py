"""Rollouts for Rerun's viewer, in three dimensions: roads once, agents at every state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alpagym.atomic import write_atomically
from alpagym.render.raster import AGENT_COLORS, EGO, LINES, LOG, MIDDLE, OTHER_COLOR, PLAN, ROUTE
from alpagym.render.replay import Rollout, incidents
from alpagym.scenarios.scenario import AgentType, MapType, Tracks

SHOWN = {MapType.LANE: (MIDDLE, 0.1), MapType.CROSSWALK: ("#b8bfca", 0.1)} | LINES
"""Colors and widths [m] of lines."""


def write_log(rerun: Any, rollouts: Sequence[Rollout], path: Path) -> Path:
    """Write rollouts of one scenario as `.rrd`; `rerun` is the package.

    Timeline `time` counts from the rollouts' begin [s]; `road`, `route` and `record` are of the
    scenario, what is under a rollout's number and label of that rollout.

    Raises:
        OSError: the file cannot be written.
    """

    def write(to: Path) -> None:
        with rerun.RecordingStream(f"alpagym {rollouts[0].scenario.id}") as stream:
            stream.save(to)
            _log_scenario(rerun, stream, rollouts[0])
            for i, rollout in enumerate(rollouts):
                _log_rollout(rerun, stream, rollout, f"{i + 1} {rollout.label}".rstrip())
            stream.flush()

    return write_atomically(path, write)


def _log_scenario(rerun: Any, stream: Any, rollout: Rollout) -> None:
    scenario, ego = rollout.scenario, rollout.ego
    for kind, (color, width) in SHOWN.items():
        lines = [
            line
            for i in np.flatnonzero(scenario.map.type == int(kind)).tolist()
            if len(line := scenario.map.polyline(i)) > 1
        ]
        if lines:
            strips = rerun.LineStrips3D(lines, colors=_rgb(color), radii=width / 2)
            stream.log(f"road/{kind.name.lower()}", strips, static=True)
    routes, tracks = scenario.routes, scenario.tracks
    route = routes.points[routes.offsets[ego] : routes.offsets[ego + 1]]
    record = tracks.xyz[ego, rollout.start_frame :][tracks.valid[ego, rollout.start_frame :]]
    for name, points, color in (("route", route, ROUTE), ("record", record, LOG)):
        if len(points) > 1:
            strips = rerun.LineStrips3D([points], colors=_rgb(color), radii=0.15)
            stream.log(name, strips, static=True)


def _log_rollout(rerun: Any, stream: Any, rollout: Rollout, label: str) -> None:
    """Heights are the record's, held where it has none, for the simulator drives on a plane."""
    tracks = rollout.scenario.tracks

    def entity(*parts: str) -> str:
        return str(rerun.new_entity_path([label, *parts]))

    count = tracks.num_agents
    colors = [_rgb(AGENT_COLORS.get(AgentType(kind), OTHER_COLOR)) for kind in tracks.type.tolist()]
    colors[rollout.ego] = _rgb(EGO)
    height = _heights(tracks)
    for t in range(rollout.num_steps + 1):
        stream.set_time("time", duration=t * rollout.scenario.dt)
        frame = min(rollout.start_frame + t, tracks.num_frames - 1)
        there = np.flatnonzero(rollout.valid[t, :count])
        half = 0.5 * rollout.yaw[t, there]
        zero = np.zeros_like(half)
        stream.log(
            entity("agents"),
            rerun.Boxes3D(
                centers=np.stack(
                    [rollout.x[t, there], rollout.y[t, there], height[there, frame]], axis=1
                ),
                half_sizes=0.5 * tracks.size[there],
                quaternions=np.stack([zero, zero, np.sin(half), np.cos(half)], axis=1),
                colors=[colors[a] for a in there],
                labels=[str(int(tracks.id[a])) for a in there],
                show_labels=False,
                fill_mode="solid",
            ),
        )
        if t < rollout.num_steps:
            if rollout.plans is not None:
                plan = rollout.plan(t)
                line = np.pad(plan, ((0, 0), (0, 1)), constant_values=height[rollout.ego, frame])
                strips = rerun.LineStrips3D([line] if len(line) > 1 else [], colors=_rgb(PLAN))
                stream.log(entity("plan"), strips)
            for name, term in rollout.rewards.items():
                if np.isfinite(term[t]):
                    stream.log(entity("reward", name), rerun.Scalars(float(term[t])))
    for incident in incidents(rollout):
        stream.set_time("time", duration=(incident.step + 1) * rollout.scenario.dt)
        stream.log(entity("incidents"), rerun.TextLog(incident.name, level="WARN"))


def _heights(tracks: Tracks) -> np.ndarray:
    """Of each agent at each frame [m], those before and after its record held, [A, frames]."""
    frames = np.arange(tracks.num_frames)
    last = np.maximum.accumulate(np.where(tracks.valid, frames, -1), axis=1)
    known = np.where(last < 0, tracks.valid.argmax(1)[:, None], last)
    return np.take_along_axis(tracks.xyz[..., 2], known, axis=1)


def _rgb(color: str) -> list[int]:
    return [int(color[k : k + 2], 16) for k in (1, 3, 5)]
