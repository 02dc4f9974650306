"""Replay recorded scenarios with every agent on its log, and say where the record breaks the rules.

    python scripts/log_replay.py [FOLDER] [--output docs/log_replay.md] [--plots FOLDER]

A recorded drive should neither collide nor leave the road: each case in which ours says that it
does is real, a fault of the data, or a fault of ours. `docs/log_replay_causes.json` holds what
looking at each case showed, by scenario id; a case without an entry is listed as unexplained. Only
numbers are written, no recorded geometry.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from alpagym.config import SimConfig
from alpagym.evaluation import evaluate
from alpagym.render.raster import Camera
from alpagym.render.replay import COLLISION_NAMES, Rollout
from alpagym.scenarios.flags import beyond_edge, box_corners
from alpagym.scenarios.load import Skipped, load_scenarios
from alpagym.scenarios.polyline import cut_segments, on_segment
from alpagym.scenarios.scenario import AgentFlag, AgentType, MapType, Scenario, ScenarioError

ROOT = Path(__file__).resolve().parents[1]
GROWTH = 2.0
"""A control: with a box so much larger on a record, collisions must show [m]."""
DRIVEN = 5.0
"""A vehicle that gets farther than this from its first place is driven [m]."""
CAUSES = ROOT / "docs" / "log_replay_causes.json"


@dataclass(frozen=True)
class Case:
    """Something that the simulator holds against a recorded ego."""

    dataset: str
    scenario: str
    frame: int
    """Recorded frame in which it began."""
    kind: str
    detail: str


@dataclass(frozen=True)
class Dataset:
    """One folder of recordings."""

    name: str
    files: int
    rollouts: list[Rollout]
    skipped: list[Skipped]
    grown: int
    """Scenarios with a collision when the ego's box is `GROWTH` longer and wider."""

    def count(self, flag: str) -> int:
        """How many rollouts have a collision at fault, any collision, or left the road."""
        flags = {
            "at_fault": lambda r: np.isin(r.collision, [1, 3]).any(),
            "any": lambda r: (r.collision > 0).any(),
            "offroad": lambda r: r.offroad.any(),
        }
        return sum(bool(flags[flag](r)) for r in self.rollouts)


def driven(scenarios: list[Scenario]) -> list[Rollout]:
    """Log replays of scenarios, each in steps of its own record."""
    rollouts = []
    for dt, alike in groupby(scenarios, lambda s: round(s.dt, 4)):
        config = replace(SimConfig(), end_on=(), dt=dt)
        rollouts += evaluate("log", list(alike), config, record="log")[1]
    return rollouts


def replay(name: str, path: Path) -> Dataset:
    """Every loadable scenario of a folder, all agents on their logs, to the end of the record."""
    files = [f for f in path.rglob("*") if f.is_file()]
    try:
        scenarios, skipped = load_scenarios(path)
    except ScenarioError as error:
        scenarios, skipped = [], [Skipped(str(path), str(error))]
    if not scenarios:
        return Dataset(name, len(files), [], skipped, 0)
    rollouts = driven(scenarios)
    larger = copy.deepcopy(scenarios)
    for scenario in larger:
        scenario.tracks.size[scenario.ego, :2] += GROWTH
    grown = sum(bool((rollout.collision > 0).any()) for rollout in driven(larger))
    return Dataset(name, len(files), rollouts, skipped, grown)


def nearest_gap(rollout: Rollout) -> float:
    """Smallest gap between the ego's box and any other over the drive, in float64 [m]."""
    gap, ego = np.inf, rollout.ego
    for t in range(rollout.num_steps + 1):
        offset = np.hypot(rollout.x[t] - rollout.x[t, ego], rollout.y[t] - rollout.y[t, ego])
        near = np.flatnonzero(rollout.valid[t] & (offset < 30.0))
        if rollout.valid[t, ego]:
            own = _box(rollout, t, ego)
            gaps = [-penetration(own, _box(rollout, t, a)) for a in near if a != ego]
            gap = min([gap, *gaps])
    return gap


def penetration(a: np.ndarray, b: np.ndarray) -> float:
    """Depth by which two boxes [4, 2] overlap [m]; negative is a gap along the best axis."""
    axes = np.concatenate([a[1:3] - a[:2], b[1:3] - b[:2]])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    pa, pb = a @ axes.T, b @ axes.T
    return float(np.minimum(pa.max(0) - pb.min(0), pb.max(0) - pa.min(0)).min())


def _box(rollout: Rollout, t: int, agent: int) -> np.ndarray:
    xy = np.array([[rollout.x[t, agent], rollout.y[t, agent]]], np.float64)
    yaw = rollout.yaw[t, agent : agent + 1].astype(np.float64)
    return box_corners(xy, yaw, rollout.scenario.tracks.size[agent : agent + 1])[0]


def _name(scenario: Scenario, agent: int) -> str:
    kind = AgentType(int(scenario.tracks.type[agent])).name.lower()
    length, width = scenario.tracks.size[agent, :2]
    parked = ", parked" if scenario.flags[agent] & AgentFlag.PARKED else ""
    return f"{kind} {scenario.tracks.id[agent]} ({length:.2f} x {width:.2f} m{parked})"


def collisions(rollout: Rollout, dataset: str) -> Iterator[Case]:
    """One case a step in which the ego began to overlap others, naming them."""
    s, ego = rollout.scenario, rollout.ego
    for step in np.flatnonzero(rollout.collision):
        t = int(step) + 1
        own, before = _box(rollout, t, ego), _box(rollout, t - 1, ego)
        parts = []
        for a in range(s.tracks.num_agents):
            if a == ego or not rollout.valid[t, a] or not rollout.valid[t - 1, a]:
                continue
            depth = penetration(own, _box(rollout, t, a))
            if depth < 0 or penetration(before, _box(rollout, t - 1, a)) >= 0:
                continue
            later = [
                penetration(_box(rollout, u, ego), _box(rollout, u, a))
                for u in range(t, rollout.num_steps + 1)
                if rollout.valid[u, a] and rollout.valid[u, ego]
            ]
            frames = sum(d >= 0 for d in later)
            speeds = [np.hypot(*s.tracks.velocity[i, rollout.start_frame + t]) for i in (ego, a)]
            parts.append(
                f"{_name(s, a)}, {depth:.3f} m deep, {max(later):.3f} m at worst, {frames} frames; "
                f"ego at {speeds[0]:.1f} m/s, other at {speeds[1]:.1f} m/s"
            )
        side = COLLISION_NAMES[int(rollout.collision[step])]
        text = "; ".join(parts) or "no pair found in float64"
        yield Case(dataset, s.id, rollout.start_frame + t, f"collision, {side}", text)


def departures(rollout: Rollout, dataset: str) -> Iterator[Case]:
    """One case a step in which a corner of the ego left the road, with the nearest edge."""
    s, ego = rollout.scenario, rollout.ego
    edges = np.flatnonzero(s.map.type == MapType.ROAD_EDGE)
    segments = cut_segments([s.map.polyline(int(e)) for e in edges], edges, max_step=10.0)
    for step in np.flatnonzero(rollout.offroad):
        t = int(step) + 1
        corners, z = _box(rollout, t, ego), s.tracks.xyz[ego, rollout.start_frame + t, 2]
        center = np.array([[rollout.x[t, ego], rollout.y[t, ego], z]], np.float64)
        beyond = beyond_edge(segments, center, corners[None], s.has_z)[0]
        parts = []
        for c in np.flatnonzero(beyond):
            query = np.repeat(corners[c : c + 1], len(segments.owner), 0)
            _, distance = on_segment(segments, np.arange(len(segments.owner)), query)
            if s.has_z:
                distance[np.abs(segments.middle[:, 2] - z) > 2.5] = np.inf
            i = int(distance.argmin())
            where = ("front left", "rear left", "rear right", "front right")[c]
            edge = s.map.id[segments.owner[i]]
            parts.append(f"{where} corner {distance[i]:.3f} m beyond edge {edge}")
        frames = _frames_beyond(rollout, segments, t)
        text = "; ".join(parts) or "no corner beyond an edge in float64"
        yield Case(dataset, s.id, rollout.start_frame + t, "off-road", f"{text}; {frames}")


def _frames_beyond(rollout: Rollout, segments: object, t: int) -> str:
    """How long some corner stays beyond its edge, and how far the box center is inside."""
    s, ego, count = rollout.scenario, rollout.ego, 0
    for u in range(t, rollout.num_steps + 1):
        z = s.tracks.xyz[ego, rollout.start_frame + u, 2]
        center = np.array([[rollout.x[u, ego], rollout.y[u, ego], z]], np.float64)
        if not beyond_edge(segments, center, _box(rollout, u, ego)[None], s.has_z).any():
            break
        count += 1
    return f"for {count} frames"


def starts(rollout: Rollout, dataset: str) -> Iterator[Case]:
    """What holds before the first step, and hence begins in none."""
    for flag in (AgentFlag.STARTS_IN_COLLISION, AgentFlag.STARTS_OFFROAD):
        if rollout.scenario.flags[rollout.ego] & flag:
            parked = rollout.scenario.flags[rollout.ego] & AgentFlag.PARKED
            text = f"ego parked: {'yes' if parked else 'no'}; flagged when loaded, not in the rates"
            kind = flag.name.lower().replace("_", " ")
            yield Case(dataset, rollout.scenario.id, rollout.start_frame, kind, text)


def _others(d: Dataset) -> list[str]:
    """A row on the recorded agents that are not egos and that move, and the vehicles that drive."""
    counts = np.zeros((2, 3), int)
    for r in d.rollouts:
        tracks, flags = r.scenario.tracks, r.scenario.flags
        moves = (flags & AgentFlag.PARKED) == 0
        moves[r.scenario.ego] = False
        away = (
            tracks.xyz[..., :2]
            - tracks.xyz[np.arange(len(flags)), tracks.valid.argmax(1), None, :2]
        )
        farthest = np.where(tracks.valid, np.linalg.norm(away, axis=-1), 0.0).max(1)
        drives = moves & (tracks.type == AgentType.VEHICLE) & (farthest > DRIVEN)
        held = [(flags & f) > 0 for f in (AgentFlag.OVERLAPS_IN_LOG, AgentFlag.OFFROAD_IN_LOG)]
        counts += [[m.sum(), *((m & h).sum() for h in held)] for m in (moves, drives)]
    cells = [
        f"{n} | " + " | ".join(f"{k} ({k / max(n, 1):.1%})" for k in own) for n, *own in counts
    ]
    return [f"| {d.name} | {' | '.join(cells)} |"]


def report(datasets: list[Dataset], cases: list[Case], causes: dict[str, dict[str, str]]) -> str:
    """The page, in Markdown."""
    lines = [
        "# Log replay",
        "",
        "Made by `python scripts/log_replay.py`. Every agent follows its record from the frame at "
        "which the scenario starts to the end; episodes do not end on failures. What the simulator "
        "then holds against the recorded ego is real, a fault of the record, or a fault of ours.",
        "",
        "| folder | files | scenarios | at-fault collision | any collision | off-road "
        "| nearest box [m] | collisions, ego grown | skipped |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for d in datasets:
        n = len(d.rollouts)
        made = sum("not recorded" in " ".join(r.scenario.notes) for r in d.rollouts)
        drives = f"{n} (egos made: {made})" if made else n
        cells = ["", "", "", "", ""]
        if n:
            cells = [f"{d.count(f)} ({d.count(f) / n:.1%})" for f in ("at_fault", "any", "offroad")]
            gap = min(nearest_gap(r) for r in d.rollouts)
            cells += [f"{gap:.2f}" if gap < np.inf else "none near", str(d.grown)]
        lines.append(
            f"| {d.name} | {d.files} | {drives} | {' | '.join(cells)} | {len(d.skipped)} |"
        )
    lines += [
        "",
        "*nearest box*: the smallest gap between the ego's box and any other over all drives, "
        "computed apart from the simulator in float64; below zero, the depth of an overlap. "
        f"*ego grown*: scenarios with a collision once the ego's box is {GROWTH:.0f} m longer and "
        "wider, which shows that zeros are not for want of looking. *skipped*: files or records of "
        "no use; one that is read with another as its part does not count. "
        "*egos made*: nobody drove; the reader makes the ego's track from a planning problem.",
        "",
        "Other recorded agents that move, which become egos in multi-agent mode (those that start "
        "in an overlap or off-road do not), and of these the vehicles that get "
        f"{DRIVEN:.0f} m from where they began. A record of every road user holds pedestrians on "
        "sidewalks, parked cars whose boxes wander, car parks that the map does not count as road "
        "and boxes of riders over their bicycles, so these are not faults by themselves:",
        "",
        "| folder | moving agents | overlap another box | off-road "
        "| driven vehicles | overlap another box | off-road |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for d in datasets:
        lines += _others(d) if d.rollouts else []
    lines += ["", f"## Cases ({len(cases)})", ""]
    seen: dict[str, list[Case]] = {}
    for case in cases:
        seen.setdefault(case.scenario, []).append(case)
    verdicts = Counter(causes.get(i, {}).get("verdict", "unexplained") for i in seen)
    if seen:
        lines += ["By scenario: " + ", ".join(f"{n} {v}" for v, n in verdicts.items()) + ".", ""]
    for scenario, own in seen.items():
        cause = causes.get(scenario, {"verdict": "unexplained", "cause": "not looked at yet"})
        lines += [f"### {scenario} ({', '.join(sorted({c.dataset for c in own}))})", ""]
        lines += [f"**{cause['verdict']}**: {cause['cause']}", ""]
        lines += [f"- frame {c.frame}, {c.kind}: {c.detail}" for c in own] + [""]
    lines += ["## Skipped", ""]
    for d in datasets:
        reasons = Counter(re.sub(r"^\S+: ", "", s.reason) for s in d.skipped)
        lines += [f"- {d.name}: {n} x {reason}" for reason, n in reasons.most_common()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "log_replay.md")
    parser.add_argument("--plots", type=Path, help="also draw each case into this folder")
    given = parser.parse_args()
    if not given.folder.is_dir():
        parser.error(f"{given.folder}: expected a folder of recordings")
    folders = sorted(p for p in given.folder.iterdir() if p.is_dir()) or [given.folder]
    datasets = [replay(f.name, f) for f in folders]
    cases = []
    for dataset in datasets:
        for rollout in dataset.rollouts:
            own = [
                case
                for find in (starts, collisions, departures)
                for case in find(rollout, dataset.name)
            ]
            cases += own
            if given.plots and own:
                given.plots.mkdir(parents=True, exist_ok=True)
                for case in own:
                    camera = Camera(rollout.scenario, rollout.ego, size=600, radius=12.0)
                    picture = camera.draw(rollout, case.frame - rollout.start_frame)
                    stem = f"{dataset.name}-{case.scenario}-{case.frame}".replace("/", "_")
                    picture.save(given.plots / f"{stem}.png")
    causes = json.loads(CAUSES.read_text()) if CAUSES.exists() else {}
    page = report(datasets, cases, causes)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(page, encoding="utf-8")
    print(f"{given.output}: {sum(len(d.rollouts) for d in datasets)} scenarios, {len(cases)} cases")


if __name__ == "__main__":
    main()
