"""Edits of recorded drives: where they start, how fast, when, and in what box."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from alpagym.scenarios.assemble import MAX_SIZE, wrapped_float32
from alpagym.scenarios.polyline import wrap_angle
from alpagym.scenarios.scenario import Scenario, Tracks

WHO = ("others", "ego", "all")
"""Whom an edit changes; `others` are all but the ego."""
SMALLEST = 0.1
"""No side of a box becomes shorter [m]."""


class Edit(Protocol):
    """A transform of scenarios; its fields are what it is called with."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __init__(self, *arguments: Any) -> None: ...

    def apply(self, scenario: Scenario, rng: np.random.Generator) -> Scenario:
        """A changed copy with a note; routes and flags are those of before."""
        ...


def in_range(what: str, value: object, low: float, high: float) -> None:
    """Refuse what is no number from `low` to `high`."""
    fine = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not fine or not math.isfinite(float(value)) or not low <= float(value) <= high:  # type: ignore[arg-type]
        raise ValueError(f"{what}: expected a number from {low:g} to {high:g}, got {value}")


def chosen(scenario: Scenario, who: str) -> np.ndarray:
    """Agents that an edit changes, bool [A]."""
    is_ego = np.arange(scenario.tracks.num_agents) == scenario.ego
    return {"others": ~is_ego, "ego": is_ego, "all": np.ones_like(is_ego)}[who]


def changed(scenario: Scenario, note: str, **fields: Any) -> Scenario:
    """A copy with other tracks, lights or ego, and a note."""
    return replace(scenario, notes=[*scenario.notes, note], **fields)


def _check_who(edit: str, who: object) -> None:
    if who not in WHO:
        raise ValueError(f"edits: {edit}: expected one of {', '.join(WHO)}, got {who}")


@dataclass(frozen=True)
class Shift:
    """Move whole tracks rigidly, each by amounts drawn up to these, to either side."""

    along: float
    """[m]."""
    across: float = 0.0
    """[m]."""
    turn: float = 0.0
    """About the pose at the start [rad]."""
    who: str = "others"

    def __post_init__(self) -> None:
        for name, limit in (("along", 100.0), ("across", 100.0), ("turn", math.pi)):
            in_range(f"edits: shift: {name}", getattr(self, name), 0.0, limit)
        _check_who("shift", self.who)

    def apply(self, scenario: Scenario, rng: np.random.Generator) -> Scenario:
        t = scenario.tracks
        drawn = rng.uniform(-1.0, 1.0, (t.num_agents, 3)) * (self.along, self.across, self.turn)
        drawn[~chosen(scenario, self.who)] = 0.0
        at = np.where(t.valid[:, scenario.start_frame], scenario.start_frame, t.valid.argmax(1))
        rows = np.arange(t.num_agents)
        center = t.xyz[rows, at, :2].astype(np.float64)[:, None]
        yaw, turn = t.yaw[rows, at].astype(np.float64), drawn[:, 2]
        moved = np.stack(
            [
                drawn[:, 0] * np.cos(yaw) - drawn[:, 1] * np.sin(yaw),
                drawn[:, 0] * np.sin(yaw) + drawn[:, 1] * np.cos(yaw),
            ],
            axis=1,
        )
        xy = center + moved[:, None] + _turned(t.xyz[..., :2] - center, turn)
        still = (drawn == 0.0).all(1)
        xy[still] = t.xyz[still, :, :2]
        tracks = _masked(
            replace(
                t,
                xyz=np.concatenate([xy, t.xyz[..., 2:]], axis=2),
                yaw=np.where(turn[:, None] != 0.0, t.yaw + turn[:, None], t.yaw),
                velocity=_turned(t.velocity.astype(np.float64), turn),
            )
        )
        note = f"edited: {self.who} moved by up to {self.along:g} m, {self.across:g} m sideways"
        return changed(scenario, f"{note}, turned by up to {self.turn:g} rad", tracks=tracks)


@dataclass(frozen=True)
class Speed:
    """Drive the same paths faster or slower, by a factor drawn for each agent."""

    low: float
    high: float
    who: str = "others"

    def __post_init__(self) -> None:
        in_range("edits: speed: low", self.low, 0.05, 5.0)
        in_range("edits: speed: high", self.high, self.low, 5.0)
        _check_who("speed", self.who)

    def apply(self, scenario: Scenario, rng: np.random.Generator) -> Scenario:
        factor = rng.uniform(self.low, self.high, scenario.tracks.num_agents)
        factor[~chosen(scenario, self.who)] = 1.0
        frames = np.arange(scenario.tracks.num_frames) - scenario.start_frame
        source = scenario.start_frame + factor[:, None] * frames
        note = f"edited: speeds of {self.who} times {self.low:g} to {self.high:g}"
        return changed(scenario, note, tracks=_retimed(scenario.tracks, source, factor))


@dataclass(frozen=True)
class Delay:
    """Drive the same records later (or earlier, if negative), by times drawn for each agent."""

    low: float
    """[s]."""
    high: float
    """[s]."""

    def __post_init__(self) -> None:
        in_range("edits: delay: low", self.low, -60.0, 60.0)
        in_range("edits: delay: high", self.high, self.low, 60.0)

    def apply(self, scenario: Scenario, rng: np.random.Generator) -> Scenario:
        delay = rng.uniform(self.low, self.high, scenario.tracks.num_agents)
        delay[scenario.ego] = 0.0
        source = np.arange(scenario.tracks.num_frames) - delay[:, None] / scenario.dt
        note = f"edited: others {self.low:g} to {self.high:g} s later"
        ones = np.ones(len(delay))
        return changed(scenario, note, tracks=_retimed(scenario.tracks, source, ones))


@dataclass(frozen=True)
class Size:
    """Longer, wider and higher boxes, or smaller ones, by a factor drawn for each agent."""

    low: float
    high: float
    who: str = "others"

    def __post_init__(self) -> None:
        in_range("edits: size: low", self.low, 0.1, 10.0)
        in_range("edits: size: high", self.high, self.low, 10.0)
        _check_who("size", self.who)

    def apply(self, scenario: Scenario, rng: np.random.Generator) -> Scenario:
        t = scenario.tracks
        factor = rng.uniform(self.low, self.high, t.num_agents)
        factor[~chosen(scenario, self.who)] = 1.0
        size = np.clip(t.size * factor[:, None], SMALLEST, MAX_SIZE).astype(np.float32)
        size[factor == 1.0] = t.size[factor == 1.0]
        note = f"edited: sizes of {self.who} times {self.low:g} to {self.high:g}"
        return changed(scenario, note, tracks=replace(t, size=size))


def _turned(xy: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Vectors [A, T, 2] of each agent turned by its angle [A]."""
    c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
    return np.stack([c * xy[..., 0] - s * xy[..., 1], s * xy[..., 0] + c * xy[..., 1]], axis=2)


def _retimed(tracks: Tracks, source: np.ndarray, factor: np.ndarray) -> Tracks:
    """Tracks whose frame t shows the frame `source[a, t]` of before, between two frames if need be.

    Where it lies outside the record or in a gap, the agent is absent. Velocities are multiplied by
    `factor`, [A].
    """
    last = tracks.num_frames - 1
    nearest = np.rint(source)
    source = np.where(np.abs(source - nearest) < 1e-6, nearest, source)
    before = np.clip(np.floor(source), 0, last).astype(int)
    after = np.clip(before + 1, 0, last)
    part = np.clip(source - before, 0.0, 1.0)
    after = np.where(part > 0.0, after, before)
    rows = np.arange(tracks.num_agents)[:, None]
    valid = (source >= 0) & (source <= last)
    valid &= tracks.valid[rows, before] & tracks.valid[rows, after]

    def between(values: np.ndarray) -> np.ndarray:
        a, b = (values[rows, i].astype(np.float64) for i in (before, after))
        return np.asarray(a + part[..., None] * (b - a))

    yaw = tracks.yaw[rows, before].astype(np.float64)
    turn = wrap_angle(tracks.yaw[rows, after].astype(np.float64) - yaw)
    return _masked(
        replace(
            tracks,
            xyz=between(tracks.xyz),
            yaw=yaw + part * turn,
            velocity=between(tracks.velocity) * factor[:, None, None],
            valid=valid,
        )
    )


def _masked(tracks: Tracks) -> Tracks:
    """The tracks in the types of a scenario, zero where invalid."""
    here = tracks.valid
    return replace(
        tracks,
        xyz=np.where(here[..., None], tracks.xyz, 0.0).astype(np.float32),
        yaw=wrapped_float32(np.where(here, tracks.yaw, 0.0)),
        velocity=np.where(here[..., None], tracks.velocity, 0.0).astype(np.float32),
    )
