"""Edits of who is there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from alpagym.scenarios.assemble import wrapped_float32
from alpagym.scenarios.edits.tracks import changed, in_range
from alpagym.scenarios.flags import overlapping
from alpagym.scenarios.polyline import arc_length, drop_duplicates, interpolate
from alpagym.scenarios.routes import NO_ROUTE, pack_routes, straightest
from alpagym.scenarios.scenario import AgentType, MapType, Scenario, Tracks

ATTEMPTS = 30
"""Places tried for one inserted vehicle."""
REACH = 80.0
"""An inserted vehicle starts this near to the ego [m]."""
CLEAR = 1.0
"""Free space that it keeps around its box, on each side [m]."""
DEFAULT_SPEED = 10.0
"""Where lanes have no speed limit [m/s]."""
CAR = (4.6, 1.9, 1.6)
"""[m]."""


@dataclass(frozen=True)
class Remove:
    """Take agents out, drawn among all but the ego."""

    count: int

    def __post_init__(self) -> None:
        in_range("edits: remove: count", self.count, 0, 1_000_000)

    def apply(self, scenario: Scenario, rng: np.random.Generator) -> Scenario:
        others = np.delete(np.arange(scenario.tracks.num_agents), scenario.ego)
        gone = rng.permutation(others)[: int(self.count)]
        drop = np.zeros(scenario.tracks.num_agents, bool)
        drop[gone] = True
        return changed(self.without(scenario, drop), f"edited: removed {len(gone)} agents")

    @staticmethod
    def without(scenario: Scenario, drop: np.ndarray) -> Scenario:
        """The scenario without some agents (bool [A]), which are not the ego; it has no routes."""
        names = ("xyz", "yaw", "velocity", "valid", "size", "type", "id")
        tracks = Tracks(**{name: getattr(scenario.tracks, name)[~drop] for name in names})
        return replace(
            scenario,
            tracks=tracks,
            ego=int((~drop[: scenario.ego]).sum()),
            flags=scenario.flags[~drop],
            routes=pack_routes([NO_ROUTE] * tracks.num_agents),
        )


@dataclass(frozen=True)
class Insert:
    """Add cars that follow lanes near the ego at a constant speed, where they touch nobody."""

    count: int
    low: float = 0.0
    """Lowest speed, as a share of the speed limit; 0 stands."""
    high: float = 1.0

    def __post_init__(self) -> None:
        in_range("edits: insert: count", self.count, 0, 100)
        in_range("edits: insert: low", self.low, 0.0, 2.0)
        in_range("edits: insert: high", self.high, self.low, 2.0)

    def apply(self, scenario: Scenario, rng: np.random.Generator) -> Scenario:
        result, done = scenario, 0
        for _ in range(int(self.count)):
            for _ in range(ATTEMPTS):
                track = self._drawn(result, rng)
                if track is None:
                    continue
                joined = _joined(result, track)
                if not _touches(joined, scenario.has_z):
                    result, done = replace(result, tracks=joined), done + 1
                    break
        flags = np.concatenate([scenario.flags, np.zeros(done, np.uint16)])
        routes = pack_routes([NO_ROUTE] * result.tracks.num_agents)
        note = f"edited: inserted {done} cars of {int(self.count)} wanted"
        return changed(result, note, flags=flags, routes=routes)

    def _drawn(self, scenario: Scenario, rng: np.random.Generator) -> Tracks | None:
        """A car on a lane near the ego, present in all frames while its lanes last."""
        t, road = scenario.tracks, scenario.map
        ego = t.xyz[scenario.ego, scenario.start_frame].astype(np.float64)
        lanes = [
            int(i)
            for i in np.flatnonzero(road.type == MapType.LANE)
            if np.hypot(*(road.polyline(int(i))[:, :2] - ego[:2]).T).min() < REACH
        ]
        if not lanes:
            return None
        lane = lanes[rng.integers(len(lanes))]
        limit = float(road.speed_limit[lane])
        speed = rng.uniform(self.low, self.high) * (limit if np.isfinite(limit) else DEFAULT_SPEED)
        frames = np.arange(t.num_frames) * scenario.dt
        line = [road.polyline(lane).astype(np.float64)]
        seen = {lane}
        while arc_length(np.concatenate(line))[-1] < speed * frames[-1] + 60.0:
            lane = straightest(lane, road)
            if lane < 0 or lane in seen:
                break
            seen.add(lane)
            line.append(road.polyline(lane).astype(np.float64))
        path = drop_duplicates(np.concatenate(line), 0.01)
        if len(path) < 2:
            return None
        length = float(arc_length(path)[-1])
        s = rng.uniform(0.0, length) + speed * frames
        valid = s < length - 0.5
        xyz, ahead = interpolate(path, s), interpolate(path, np.minimum(s + 0.5, length))
        behind = interpolate(path, np.maximum(s - 0.5, 0.0))
        start = scenario.start_frame
        if not valid[start] or np.hypot(*(xyz[start, :2] - ego[:2])) > REACH:
            return None
        step = ahead - behind
        yaw = np.arctan2(step[:, 1], step[:, 0])
        xyz[:, 2] += 0.5 * CAR[2] if scenario.has_z else -xyz[:, 2]
        velocity = speed * np.column_stack([np.cos(yaw), np.sin(yaw)])
        return Tracks(
            xyz=np.where(valid[:, None], xyz, 0.0).astype(np.float32)[None],
            yaw=wrapped_float32(np.where(valid, yaw, 0.0))[None],
            velocity=np.where(valid[:, None], velocity, 0.0).astype(np.float32)[None],
            valid=valid[None],
            size=np.array([CAR], np.float32),
            type=np.array([AgentType.VEHICLE], np.uint8),
            id=np.array([max(int(t.id.max()), 0) + 1], np.int64),
        )


def _joined(scenario: Scenario, track: Tracks) -> Tracks:
    names = ("xyz", "yaw", "velocity", "valid", "size", "type", "id")
    return Tracks(
        **{
            name: np.concatenate([getattr(scenario.tracks, name), getattr(track, name)])
            for name in names
        }
    )


def _touches(tracks: Tracks, has_z: bool) -> bool:
    """Whether the last agent, with `CLEAR` around it, touches another one in any frame."""
    size = tracks.size.copy()
    size[-1, :2] += 2.0 * CLEAR
    return bool(overlapping(replace(tracks, size=size), has_z)[-1].any())
