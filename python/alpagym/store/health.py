"""What in a scenario looks wrong: counted and said, never mended here.

Repairs are those that readers make while they read; each is a note of the scenario.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alpagym.scenarios.scenario import (
    AgentFlag,
    AgentType,
    LightState,
    MapType,
    Scenario,
    Tracks,
)

MAX_SPEED = 70.0
"""Nobody drives faster [m/s]."""
MAX_ACCEL = 15.0
"""No vehicle brakes or speeds up harder [m/s^2]."""
MOVING = 2.0
"""Headings of slower agents may be noise [m/s]."""
LINK_GAP, LINK_STEP = 0.5, 2.0
"""A lane that begins so near to where another ends, in x-y and z, should follow it [m]..."""
ALIGNED = float(np.cos(np.pi / 4))
"""...if the angle between them is no larger than this one's."""

CHECKS = {
    "ego_missing": "frames after the start in which the ego was not recorded",
    "ego_overlaps_at_start": "the ego's box overlaps another's at the start",
    "ego_offroad_at_start": "the ego's box is off-road at the start",
    "ego_offroad": "the ego's box is off-road in the record",
    "gaps": "agents that vanish and come back",
    "overlaps_at_start": "agents whose box overlaps another's at the start",
    "overlaps": "agents whose box overlaps another's in the record",
    "offroad": "vehicles that move and whose box is off-road in the record",
    "unwrapped_headings": "agents with a heading outside [-pi, pi)",
    "heading_jumps": "moving agents whose heading turns by more than 90 degrees in a frame",
    "speeds": f"agents faster than {MAX_SPEED:g} m/s",
    "accelerations": f"vehicles that speed up or brake by more than {MAX_ACCEL:g} m/s^2",
    "position_jumps": f"agents that get farther in a frame than at {MAX_SPEED:g} m/s",
    "no_lanes": "maps without lanes",
    "no_road_edges": "maps without road edges: nothing is off-road",
    "lone_lanes": "lanes without a successor or a predecessor",
    "missing_links": "lanes that begin where another ends, and do not follow it",
    "dark_lights": "lights that show no known state in any frame",
    "unplaced_lights": "lights that control no lane",
    "no_heights": "scenarios without heights",
}
"""What is counted in each scenario, by name."""


def health(scenario: Scenario) -> dict[str, int]:
    """How often each of `CHECKS` holds in a scenario."""
    s, tracks, flags = scenario, scenario.tracks, scenario.flags
    moves = (flags & AgentFlag.PARKED) == 0
    vehicle = tracks.type == AgentType.VEHICLE

    def has(flag: AgentFlag) -> np.ndarray:
        return (flags & flag) != 0

    counts = {
        "ego_missing": (~tracks.valid[s.ego, s.start_frame :]).sum(),
        "ego_overlaps_at_start": has(AgentFlag.STARTS_IN_COLLISION)[s.ego],
        "ego_offroad_at_start": has(AgentFlag.STARTS_OFFROAD)[s.ego],
        "ego_offroad": has(AgentFlag.OFFROAD_IN_LOG)[s.ego],
        "gaps": has(AgentFlag.HAS_GAPS).sum(),
        "overlaps_at_start": has(AgentFlag.STARTS_IN_COLLISION).sum(),
        "overlaps": has(AgentFlag.OVERLAPS_IN_LOG).sum(),
        "offroad": (has(AgentFlag.OFFROAD_IN_LOG) & moves & vehicle).sum(),
        "no_lanes": not (s.map.type == MapType.LANE).any(),
        "no_road_edges": not (s.map.type == MapType.ROAD_EDGE).any(),
        "dark_lights": (s.lights.state <= LightState.UNKNOWN).all(1).sum(),
        "unplaced_lights": (s.lights.lane < 0).sum(),
        "no_heights": not s.has_z,
        **_motion(tracks, s.dt),
        **_links(s),
    }
    return {name: int(counts[name]) for name in CHECKS}


def _motion(tracks: Tracks, dt: float) -> dict[str, int]:
    """Headings, speeds and jumps that no drive has; counts of agents."""
    valid, yaw = tracks.valid, tracks.yaw
    velocity = tracks.velocity.astype(np.float64)
    speed = np.hypot(velocity[..., 0], velocity[..., 1])
    both = valid[:, 1:] & valid[:, :-1]
    turn = np.abs(np.angle(np.exp(1j * np.diff(yaw.astype(np.float64), axis=1))))
    accel = np.linalg.norm(np.diff(velocity, axis=1), axis=-1) / dt
    away = np.linalg.norm(np.diff(tracks.xyz[..., :2].astype(np.float64), axis=1), axis=-1) / dt
    moving = np.minimum(speed[:, 1:], speed[:, :-1]) > MOVING
    vehicle = (tracks.type == AgentType.VEHICLE)[:, None]
    found = {
        "unwrapped_headings": valid & ((yaw < -np.pi) | (yaw >= np.pi)),
        "heading_jumps": both & moving & (turn > 0.5 * np.pi),
        "speeds": valid & (speed > MAX_SPEED),
        "accelerations": both & vehicle & (accel > MAX_ACCEL),
        "position_jumps": both & (away > MAX_SPEED),
    }
    return {name: int(where.any(1).sum()) for name, where in found.items()}


def _links(s: Scenario) -> dict[str, int]:
    """Lanes that hang on to nothing, and links that the geometry shows and the graph lacks."""
    lanes = np.flatnonzero(s.map.type == MapType.LANE)
    if not len(lanes):
        return {"lone_lanes": 0, "missing_links": 0}
    begin, end = s.map.offsets[lanes], s.map.offsets[lanes + 1]
    points = s.map.points.astype(np.float64)
    follows = np.zeros((s.map.num_elements,) * 2, bool)
    follows[np.repeat(np.arange(s.map.num_elements), np.diff(s.map.successor_offsets)),
            s.map.successors] = True  # fmt: skip
    follows = follows[np.ix_(lanes, lanes)]

    def unit(step: np.ndarray) -> np.ndarray:
        return step / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-9)

    gap = points[begin][None] - points[end - 1][:, None]
    out = unit(points[end - 1, :2] - points[end - 2, :2])
    into = unit(points[begin + 1, :2] - points[begin, :2])
    meets = np.hypot(gap[..., 0], gap[..., 1]) < LINK_GAP
    meets &= (np.abs(gap[..., 2]) < LINK_STEP) & (out @ into.T > ALIGNED)
    np.fill_diagonal(meets, False)
    return {
        "lone_lanes": int((~follows.any(0) & ~follows.any(1)).sum()),
        "missing_links": int((meets & ~follows).sum()),
    }


def light_coverage(scenario: Scenario) -> float:
    """Share of light frames with a known state; NaN without lights."""
    state = scenario.lights.state
    return float((state > LightState.UNKNOWN).mean()) if state.size else float("nan")


def without_numbers(text: str) -> str:
    """The text with each number as #, so that what differs in them only is one."""
    return re.sub(r"\d+(\.\d+)?", "#", text)


def diagnosis(scenarios: Sequence[Scenario]) -> dict[str, Any]:
    """Everything there is to say on the health of scenarios, as JSON takes it.

    `checks` holds for each of `CHECKS` its meaning, in how many scenarios it holds and how often
    in all; `repairs` how many scenarios have each note of the readers; `scenarios` a row each.
    """
    rows = []
    for s in scenarios:
        counts = {name: count for name, count in health(s).items() if count}
        row: dict[str, Any] = {"id": s.id, "source": s.source, "found": counts, "repairs": s.notes}
        if len(s.lights.lane):
            row["light_coverage"] = round(light_coverage(s), 4)
        rows.append(row)
    checks = {}
    for name, meaning in CHECKS.items():
        found = [row["found"][name] for row in rows if name in row["found"]]
        checks[name] = {"meaning": meaning, "scenarios": len(found), "count": sum(found)}
    repairs = Counter(note for s in scenarios for note in {without_numbers(n) for n in s.notes})
    return {
        "num_scenarios": len(rows),
        "checks": checks,
        "repairs": dict(sorted(repairs.items(), key=lambda item: (-item[1], item[0]))),
        "scenarios": rows,
    }


def summary(found: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Rows of a table of a `diagnosis`: check, scenarios, how often, meaning."""
    return [
        (name, str(check["scenarios"]), str(check["count"]), check["meaning"])
        for name, check in found["checks"].items()
    ]
