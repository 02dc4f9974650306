"""Rollouts as compact data for the replay player.

Only the agents and the part of the map near the ego's paths are kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alpagym.render.encoding import pieces, plain, polylines, short, track
from alpagym.scenarios.scenario import MapType, Scenario

NEAR = 80.0
"""Agents and map elements farther than this from every path of the ego are left out [m]."""

APART = 0.05
"""Egos of two rollouts differ when they are farther than that from each other [m]."""

COLLISION_NAMES = ("none", "front", "rear", "lateral")
AT_FAULT = frozenset({"front", "lateral"})
"""Collisions that count as the ego's fault; a rear hit does not."""


@dataclass
class Rollout:
    """T consecutive steps of one world, on the host.

    State t is what holds before step t; step t leads to state t + 1. Columns beyond the scenario's
    agents are padding.
    """

    scenario: Scenario
    x: np.ndarray
    """Box centers, world frame [m], float32 [T + 1, A]."""
    y: np.ndarray
    """Likewise, float32 [T + 1, A]."""
    yaw: np.ndarray
    """Headings in [-pi, pi) [rad], float32 [T + 1, A]."""
    valid: np.ndarray
    """bool [T + 1, A]."""
    ego: int
    """Index of the ego."""
    start_frame: int
    """Recorded frame of state 0."""
    rewards: dict[str, np.ndarray]
    """Raw reward terms by name, float32 [T] each."""
    collision: np.ndarray
    """Of the ego: 0 none, 1 front, 2 rear, 3 lateral, uint8 [T]."""
    offroad: np.ndarray
    """Of the ego, bool [T]."""
    done_step: int | None = None
    """Step that ended the episode; later states are ignored. None when time ran out."""
    label: str = ""
    """Who drove, e.g. "imitation" or "GRPO"."""
    plans: np.ndarray | None = None
    """Where the ego meant to go at each step: box centers to come, world frame [m], float32
    [T, P, 2]; a plan that is not finite is none. None for drivers that do not plan."""
    metrics: dict[str, float | bool] = field(default_factory=dict)
    """Results of this rollout by name: failure, progress_fraction, scene_score, ..."""

    @property
    def num_steps(self) -> int:
        """Steps up to and including the one that ended the episode."""
        recorded = self.x.shape[0] - 1
        return recorded if self.done_step is None else min(recorded, self.done_step + 1)

    def plan(self, t: int) -> np.ndarray:
        """Where the ego meant to go at a step [m], [P, 2]; [0, 2] for no plan."""
        if self.plans is None or not np.isfinite(self.plans[t]).all():
            return np.empty((0, 2), np.float32)
        return self.plans[t]

    def validate(self) -> Rollout:
        """Check shapes and indices; return self or raise `ValueError` with one sentence."""
        name = f"rollout {self.label!r} of {self.scenario.id}"
        if self.x.ndim != 2 or self.x.shape[0] < 2:
            raise ValueError(
                f"{name}: x: expected [T + 1, A] with T >= 1, got {list(self.x.shape)}"
            )
        states, agents = self.x.shape
        expected = {
            "y": (self.y, (states, agents)),
            "yaw": (self.yaw, (states, agents)),
            "valid": (self.valid, (states, agents)),
            "collision": (self.collision, (states - 1,)),
            "offroad": (self.offroad, (states - 1,)),
        }
        expected |= {f"rewards[{k!r}]": (v, (states - 1,)) for k, v in self.rewards.items()}
        if self.plans is not None:
            expected["plans"] = (self.plans, (states - 1, self.plans.shape[1], 2))
        for key, (array, shape) in expected.items():
            if array.shape != shape:
                raise ValueError(f"{name}: {key}: expected {list(shape)}, got {list(array.shape)}")
        known = self.scenario.tracks.num_agents
        if agents < known:
            raise ValueError(
                f"{name}: expected at least the scenario's {known} agents, got {agents}"
            )
        if not 0 <= self.ego < known:
            raise ValueError(f"{name}: ego: expected an index below {known}, got {self.ego}")
        return self


@dataclass(frozen=True)
class Incident:
    """Something that began at a step of a rollout."""

    step: int
    kind: str
    """"collision" or "offroad"."""
    detail: str
    """Side of a collision: front, rear or lateral; empty for offroad."""

    @property
    def at_fault(self) -> bool:
        """Whether it makes the rollout a failure."""
        return self.kind == "offroad" or self.detail in AT_FAULT

    @property
    def name(self) -> str:
        """As it is called in text, e.g. "front collision"."""
        return f"{self.detail} {self.kind}".strip()


def incidents(rollout: Rollout) -> list[Incident]:
    """What went wrong, in order of time; a condition that lasts counts once, when it begins."""
    steps = rollout.num_steps
    collision = np.minimum(rollout.collision[:steps].astype(np.int64), 3)
    offroad = rollout.offroad[:steps].astype(np.int64)
    found = [Incident(t, "collision", COLLISION_NAMES[collision[t]]) for t in _onsets(collision)]
    found += [Incident(t, "offroad", "") for t in _onsets(offroad)]
    return sorted(found, key=lambda i: (i.step, i.kind))


def first_incident(rollout: Rollout) -> Incident | None:
    """The earliest failure, else the earliest incident of another's fault, else None."""
    found = incidents(rollout)
    return next((i for i in found if i.at_fault), found[0] if found else None)


def failed(rollout: Rollout) -> bool:
    """At-fault collision or offroad: `metrics["failure"]` where given, else from the incidents."""
    stated = rollout.metrics.get("failure")
    if stated is None or not math.isfinite(stated):
        return any(i.at_fault for i in incidents(rollout))
    return bool(stated)


def together(rollouts: Sequence[Rollout]) -> list[list[Rollout]]:
    """Those that begin in the same moment of the same scenario, to be shown in step."""
    groups: dict[tuple[str, str, int, int], list[Rollout]] = {}
    for r in rollouts:
        groups.setdefault((r.scenario.dataset, r.scenario.id, r.ego, r.start_frame), []).append(r)
    return list(groups.values())


def replay_json(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """Data of one replay: the rollouts of one scenario, to be played in step.

    Returns:
        A tree of plain Python values without NaN or infinity, ready for `json.dumps`.

    Raises:
        ValueError: no rollouts, rollouts of different scenarios or egos, or wrong shapes.
    """
    if not rollouts:
        raise ValueError("replay: expected at least one rollout, got none")
    for rollout in rollouts:
        rollout.validate()
    first = rollouts[0]
    scenario = first.scenario
    if len(groups := together(rollouts)) > 1:
        other = groups[1][0]
        raise ValueError(
            "replay: expected rollouts of one scenario, ego and start frame, "
            f"got {scenario.id} (ego {first.ego}, frame {first.start_frame}) and "
            f"{other.scenario.id} (ego {other.ego}, frame {other.start_frame})"
        )
    steps = max(r.num_steps for r in rollouts)
    log = _log(first, steps)
    path = np.concatenate([_ego_path(r) for r in rollouts] + [log[:2, log[3] > 0].T])
    # Every fourth state is enough to tell what is near; the last one must not be missed.
    path = np.concatenate([path[::4], path[-1:]])
    agents = _near_agents(rollouts, path)
    tracks = scenario.tracks
    return {
        "id": scenario.id,
        "kind": scenario.kind,
        "dataset": scenario.dataset,
        "license": scenario.license,
        "notes": [str(note) for note in scenario.notes],
        "dt": scenario.dt,
        "start_frame": first.start_frame,
        "steps": steps,
        "ego": agents.index(first.ego),
        "parts": parting(rollouts),
        "agents": [
            {
                "type": int(tracks.type[a]),
                "id": str(int(tracks.id[a])),
                "length": round(float(tracks.size[a, 0]), 2),
                "width": round(float(tracks.size[a, 1]), 2),
            }
            for a in agents
        ],
        "map": _map(scenario, path),
        "lights": _lights(first, steps, path),
        "route": _route(scenario, first.ego, path),
        "log": track(*log),
        "rollouts": [_rollout(r, agents) for r in rollouts],
    }


def parting(rollouts: Sequence[Rollout]) -> int | None:
    """The first state in which the egos of rollouts are `APART` from the first's, or one has ended.

    None if they stay together, or there is one rollout only.
    """
    first, *others = rollouts
    found = []
    for other in others:
        both = min(first.num_steps, other.num_steps) + 1
        distance = np.hypot(
            first.x[:both, first.ego] - other.x[:both, other.ego],
            first.y[:both, first.ego] - other.y[:both, other.ego],
        )
        apart = np.flatnonzero(distance > APART)
        if len(apart):
            found.append(int(apart[0]))
        elif first.num_steps != other.num_steps:
            found.append(both - 1)
    return min(found, default=None)


def _rollout(rollout: Rollout, agents: Sequence[int]) -> dict[str, Any]:
    states = rollout.num_steps + 1
    cut = [a[:states] for a in (rollout.x, rollout.y, rollout.yaw, rollout.valid)]
    incident = first_incident(rollout)
    return {
        "label": rollout.label,
        "steps": rollout.num_steps,
        "ended": rollout.done_step is not None,
        "failed": failed(rollout),
        "tracks": [track(*(array[:, a] for array in cut)) for a in agents],
        "speed": _speed(rollout),
        "plans": _plans(rollout),
        "rewards": {
            name: [short(v) for v in term[: states - 1]] for name, term in rollout.rewards.items()
        },
        "incidents": [
            {"step": i.step, "kind": i.kind, "name": i.name, "at_fault": i.at_fault}
            for i in incidents(rollout)
        ],
        "thumbnail": incident.step + 1 if incident else rollout.num_steps,
        "metrics": {name: plain(value) for name, value in rollout.metrics.items()},
    }


def _plans(rollout: Rollout) -> list[list[int]] | None:
    """For each step the plan that it follows, from where the ego is; empty for none."""
    if rollout.plans is None:
        return None
    here = np.stack([rollout.x[:, rollout.ego], rollout.y[:, rollout.ego]], axis=1)
    lines = [np.concatenate([here[t, None], rollout.plan(t)]) for t in range(rollout.num_steps)]
    return [line if len(line) > 2 else [] for line in polylines(lines)]


def _speed(rollout: Rollout) -> list[float | int | None]:
    """Distance over time of the ego in each step [m/s], from positions before they are rounded."""
    states = slice(0, rollout.num_steps + 1)
    x, y, valid = (a[states, rollout.ego] for a in (rollout.x, rollout.y, rollout.valid))
    speed = np.hypot(np.diff(x), np.diff(y)) / rollout.scenario.dt
    seen = valid[1:].astype(bool) & valid[:-1].astype(bool)
    return [short(v) if ok else None for v, ok in zip(speed, seen, strict=True)]


def _log(rollout: Rollout, steps: int) -> np.ndarray:
    """Recorded x, y, yaw and validity of the ego from the start frame on, [4, <= steps + 1]."""
    tracks = rollout.scenario.tracks
    frames = slice(rollout.start_frame, rollout.start_frame + steps + 1)
    xy = tracks.xyz[rollout.ego, frames, :2].T
    return np.stack([*xy, tracks.yaw[rollout.ego, frames], tracks.valid[rollout.ego, frames]])


def _ego_path(rollout: Rollout) -> np.ndarray:
    states = slice(0, rollout.num_steps + 1)
    xy = np.stack([rollout.x[states, rollout.ego], rollout.y[states, rollout.ego]], axis=1)
    return xy[rollout.valid[states, rollout.ego].astype(bool) & np.isfinite(xy).all(axis=1)]


def _near(points: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Which points [n, 2] lie within `NEAR` of any path point, bool [n]."""
    if not len(path):
        return np.ones(len(points), bool)
    near = np.zeros(len(points), bool)
    for position in path:
        near |= ((points - position) ** 2).sum(axis=1) < NEAR**2
    return near


def _near_agents(rollouts: Sequence[Rollout], path: np.ndarray) -> list[int]:
    num_agents = rollouts[0].scenario.tracks.num_agents
    keep = {rollouts[0].ego}
    for rollout in rollouts:
        states = slice(0, rollout.num_steps + 1)
        for a in range(num_agents):
            valid = rollout.valid[states, a].astype(bool)
            xy = np.stack([rollout.x[states, a][valid], rollout.y[states, a][valid]], axis=1)
            if _near(xy, path).any():
                keep.add(a)
    return sorted(keep)


def _map(scenario: Scenario, path: np.ndarray) -> list[dict[str, Any]]:
    roads = scenario.map
    near = _near(roads.points[:, :2].astype(np.float64), path)
    kinds: list[int] = []
    parts: list[np.ndarray] = []
    for element in range(roads.num_elements):
        start, end = int(roads.offsets[element]), int(roads.offsets[element + 1])
        if not near[start:end].any():
            continue
        points = roads.points[start:end, :2].astype(np.float64)
        kind = MapType(int(roads.type[element]))
        closed = kind in (MapType.CROSSWALK, MapType.SPEED_BUMP, MapType.DRIVEWAY)
        for part in [points] if closed else pieces(points, near[start:end]):
            kinds.append(int(kind))
            parts.append(part)
    return [{"type": kind, "xy": xy} for kind, xy in zip(kinds, polylines(parts), strict=True)]


def _lights(rollout: Rollout, steps: int, path: np.ndarray) -> list[dict[str, Any]]:
    """Stop points with one state digit per rollout state; the last recorded state is held."""
    lights = rollout.scenario.lights
    frames = np.minimum(rollout.start_frame + np.arange(steps + 1), lights.state.shape[1] - 1)
    near = _near(lights.xy.astype(np.float64), path)
    return [
        {
            "xy": np.rint(lights.xy[k].astype(np.float64) * 100.0).astype(np.int64).tolist(),
            "state": "".join(str(int(s)) for s in lights.state[k, frames]),
        }
        for k in np.flatnonzero(near)
    ]


def _route(scenario: Scenario, ego: int, path: np.ndarray) -> list[list[int]]:
    start, end = int(scenario.routes.offsets[ego]), int(scenario.routes.offsets[ego + 1])
    points = scenario.routes.points[start:end, :2].astype(np.float64)
    return polylines(pieces(points, _near(points, path)))


def _onsets(values: np.ndarray) -> list[int]:
    """Where a non-zero value begins."""
    before = np.concatenate([[0], values[:-1]])
    return np.flatnonzero((values != 0) & (values != before)).tolist()
