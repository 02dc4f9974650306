"""Parity of AlpaSim's metrics: recorded numbers of the program, and shapely's geometry."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from alpagym.metrics.alpasim.aggregate import Processed, processed, returned, run_level, scene_score
from alpagym.metrics.alpasim.episode import Episode, Plan, Reply
from alpagym.metrics.alpasim.lanes import LineMap
from alpagym.metrics.alpasim.metric import Metric
from alpagym.metrics.alpasim.rounded import gap, touches_front
from alpagym.metrics.alpasim.scorers import FRONT, LATERAL, REAR, measure, overlap_zones
from alpagym.metrics.alpasim.timed_poses import fill_gaps
from alpagym.scenarios.polyline import arc_length, interpolate
from parity.alpasim_shapely import Tally, cracked, independent_rows
from parity.row import Row

__all__ = ["independent_rows", "rows"]

REFERENCE = "AlpaSim 3032e0c"
STEPS = (
    "min_distance_to_lane_boundary_m",
    "min_distance_to_obstacle_m",
    "dist_to_gt_trajectory",
    "dist_to_gt_location",
    "dist_traveled_m",
)
DECISIONS = (
    "collision_front",
    "collision_rear",
    "collision_lateral",
    "collision_any",
    "offroad",
    "wrong_lane",
)
REPLIES = (
    "plan_deviation",
    "min_ade@0.5s(gt)",
    "min_ade@1.0s(gt)",
    "min_ade@2.5s(gt)",
    "min_ade@5.0s(gt)",
)
ALTERED = 0.01
"""How much longer and wider boxes may be for a decision to count as undecided [m]."""
SHORTEST_PATH = 2.0
"""Recorded paths below this make progress meaningless in float32 [m]."""


class Golden:
    """The recorded arrays of one set."""

    def __init__(self, folder: Path) -> None:
        with np.load(folder / "metrics.npz") as file:
            self.arrays = {name: file[name] for name in file.files}
        self.index = json.loads((folder / "index.json").read_text())
        self.count = len(self.arrays["r_type"])
        self.maps = [self._map(m) for m in range(len(self.arrays["map_z"]))]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def rows(self, offsets: str, item: int) -> slice:
        return slice(self[offsets][item], self[offsets][item + 1])

    def _map(self, m: int) -> LineMap:
        def line(kind: str, k: int) -> np.ndarray:
            return self[f"{kind}_xy"][self.rows(f"{kind}_off", k)].astype(float)

        def raised(xy: np.ndarray) -> np.ndarray:
            return np.column_stack([xy, np.full(len(xy), float(self["map_z"][m]))])

        lanes = range(*self["map_lane_off"][m : m + 2])
        return LineMap(
            [raised(line("lane_center", k)) for k in lanes],
            [line("lane_left", k) for k in lanes],
            [line("lane_right", k) for k in lanes],
            [raised(line("edge", k)) for k in range(*self["map_edge_off"][m : m + 2])],
        )

    def episode(self, r: int) -> Episode:
        offset = self["r_rig_to_aabb"][r, :2].astype(float)

        def centers(rig: np.ndarray) -> np.ndarray:
            pose = rig.astype(float)
            c, s = np.cos(pose[:, 2]), np.sin(pose[:, 2])
            pose[:, 0] += c * offset[0] - s * offset[1]
            pose[:, 1] += s * offset[0] + c * offset[1]
            return pose.astype(np.float32).astype(float)  # how AlpaSim holds poses

        step, actors = self.rows("t_off", r), self.rows("a_off", r)
        times = self["t_us"][step]
        seen = np.zeros((len(times), actors.stop - actors.start), bool)
        pose = np.zeros((*seen.shape, 3))
        for a in range(actors.start, actors.stop):
            there = self.rows("ap_off", a)
            seen[self["ap_tidx"][there], a - actors.start] = True
            pose[self["ap_tidx"][there], a - actors.start] = self["ap_xyyaw"][there]
        counts, pose = fill_gaps(seen, times, pose)
        record, m = self.rows("gt_off", r), self["r_map"][r]
        replies = []
        for d in self.answered(r):
            now, rows = int(self["d_now_us"][d]), self.rows("dp_off", d)
            samples = [
                Plan(now + self["dsp_dt_us"][k].astype(np.int64), centers(self["dsp_xyyaw"][k]))
                for k in (self.rows("dsp_off", s) for s in range(*self["ds_off"][d : d + 2]))
            ]
            plan = Plan(
                now + self["dp_dt_us"][rows].astype(np.int64), centers(self["dp_xyyaw"][rows])
            )
            safe = None if self["d_safe"][d] < 0 else bool(self["d_safe"][d])
            replies.append(Reply(now, int(self["d_query_us"][d]), plan, samples, safe))
        return Episode(
            times_us=times,
            ego_pose=self["t_ego_xyyaw"][step].astype(float),
            ego_z=np.full(len(times), float(self["r_ego_z"][r])),
            ego_size=self["r_ego_size"][r, :2].astype(float),
            actor_pose=pose,
            actor_there=counts,
            actor_size=self["a_size"][actors, :2].astype(float),
            log=Plan(self["gt_us"][record], centers(self["gt_xyyaw"][record])),
            engaged_us=int(self["r_render_start_us"][r] + self["r_force_gt_us"][r]),
            lanes=self.maps[m] if m >= 0 else None,
            replies=replies,
            black=self["t_img_black"][step] == 1,
            shrink=float(self["r_shrink"][r]),
            roundness=float(self["r_roundness"][r]),
        )

    def answered(self, r: int) -> np.ndarray:
        """Replies of a rollout that hold a plan."""
        rows = np.arange(*self["d_off"][r : r + 2])
        return rows[np.diff(self["dp_off"])[rows] > 0]


Of = Callable[[str], Tally]


def rows(golden: Path) -> list[Row]:
    """Every output of `metrics.npz` of the recorded AlpaSim set."""
    data = Golden(golden / "alpasim")
    tally: dict[str, Tally] = {}

    def of(name: str) -> Tally:
        return tally.setdefault(name, Tally())

    kept_rows: dict[int, Processed] = {}
    for r in range(data.count):
        episode = data.episode(r)
        metrics = measure(episode)
        _compare_steps(data, r, episode, metrics, of)
        _compare_replies(data, r, metrics, of)
        _compare_overlaps(data, r, episode, of)
        # Undecided steps enter the aggregates as AlpaSim decided them.
        metrics = _settled(data, r, episode, metrics)
        result = processed(metrics)
        _compare_aggregates(data, r, episode, metrics, result, of)
        if result is not None:
            kept_rows[r] = result
    _compare_run(data, kept_rows, of)
    tolerances = dict.fromkeys((*STEPS, *REPLIES), 1e-3)
    tolerances |= {"progress [m]": 1e-3, "progress_rel [m]": 1e-3, "gt_dist_traveled_m": 1e-3}
    tolerances |= {"RuntimeService": 1e-3, "processed": 1e-3, "run_level": 1e-3}
    tolerances |= {"score": 1e-4, "progress_score": 1e-4}
    return [t.row(name, REFERENCE, tolerances.get(name, 0.0)) for name, t in tally.items()]


def _metric(metrics: dict[str, Metric], name: str, count: int) -> np.ndarray:
    """Values on the grid of steps, NaN where absent or invalid."""
    if name not in metrics:
        return np.full(count, np.nan)
    return np.where(metrics[name].valid, metrics[name].values, np.nan)


def _compare_steps(
    data: Golden, r: int, episode: Episode, metrics: dict[str, Metric], of: Of
) -> None:
    step = data.rows("t_off", r)
    count = len(episode.times_us)
    for name in (*DECISIONS, "eval_relevant", "img_is_black"):
        theirs = data[f"m_{name}"][step].astype(float)
        theirs[theirs == 255] = -1
        ours = np.nan_to_num(_metric(metrics, name, count), nan=-1)
        fragile = f"frag_{name}"
        undecided = data[fragile][step] == 1 if fragile in data.arrays else np.zeros(count, bool)
        of(name).decisions(ours, theirs, undecided)
    for name in STEPS:
        ours, theirs = _metric(metrics, name, count), data[f"m_{name}"][step].astype(float)
        undecided = _undecided(name, episode, ours, theirs)
        of(name).flips += int(undecided.sum())
        ours = np.where(undecided, theirs, ours)
        of(name).values(ours, theirs)
    path = arc_length(episode.log.pose[:, :2])[-1]
    lengths = {"progress": np.full(count, path), "progress_rel": np.ones(count)}
    if count > 2:
        at = np.stack([np.interp(episode.times_us, episode.log.times_us, episode.log.pose[:, k])
                       for k in (0, 1)], -1)  # fmt: skip
        lengths["progress_rel"] = np.maximum(arc_length(at), 0)
    for name, length in lengths.items():
        ours, theirs = _metric(metrics, name, count), data[f"m_{name}"][step].astype(float)
        long = length >= SHORTEST_PATH
        # Normalized progress may differ by 2e-5 and 1 mm over the length: the rest as meters.
        rest = np.maximum(np.abs(ours - theirs) - 2e-5, 0) * length
        missing = np.isnan(ours) | np.isnan(theirs)
        same = np.isnan(ours) == np.isnan(theirs)
        of(f"{name} [m]").values(
            np.where(missing, np.where(same, 0.0, np.inf), rest)[long], np.zeros(long.sum())
        )


def _undecided(name: str, episode: Episode, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Steps whose distance differs because AlpaSim's geometry leaves it to rounding.

    Where the ego's own path passes its center again, either place on the path may be the nearest
    one. Where GEOS leaves a crack of no area in a union of lanes, distances are measured to it.
    """
    differ = np.abs(ours - theirs) > 1e-3
    if name == "dist_traveled_m":
        path = episode.ego_pose[:, :2]
        apart = np.hypot(*(interpolate(path, np.nan_to_num(theirs)) - path).T)
        return differ & (apart <= 2 * np.spacing(np.abs(path).max().astype(np.float32)))
    if name == "min_distance_to_lane_boundary_m" and episode.lanes is not None:
        place = np.column_stack([episode.ego_pose[:, :2], episode.ego_z])
        for t in np.flatnonzero(differ):
            near = episode.lanes.candidates(place[t : t + 1])[0]
            differ[t] = theirs[t] < ours[t] and cracked(episode.lanes, near)
        return differ
    return np.zeros(len(ours), bool)


def _compare_replies(data: Golden, r: int, metrics: dict[str, Metric], of: Of) -> None:
    answers = np.arange(*data["d_off"][r : r + 2])
    now = data["d_now_us"][answers]
    for name in (*REPLIES, "open_loop_collision", "safety_monitor_triggered"):
        ours = np.full(len(now), np.nan)
        if name in metrics:
            found = metrics[name]
            at = np.searchsorted(now, found.times_us)
            ours[at] = np.where(found.valid, found.values, np.nan)
        theirs = data[f"dm_{name}"][answers].astype(float)
        if name in REPLIES:
            of(name).values(ours, theirs)
            continue
        flat = (np.nan_to_num(ours, nan=-1), np.nan_to_num(theirs, nan=-1))
        undecided = np.zeros(len(now), bool)
        if name == "open_loop_collision" and (flat[0] != flat[1]).any():
            undecided[np.isin(answers, data.answered(r))] = _undecided_plans(data, r)
        of(name).decisions(*flat, undecided)


def _undecided_plans(data: Golden, r: int) -> np.ndarray:
    """Replies whose open-loop collision changes with boxes 10 mm larger or smaller."""
    episode = data.episode(r)
    found = [measure(_resized(episode, by))["open_loop_collision"] for by in (-ALTERED, ALTERED)]
    return found[0].values != found[1].values


def _resized(episode: Episode, by: float) -> Episode:
    return replace(episode, ego_size=episode.ego_size + by, actor_size=episode.actor_size + by)


def _zones(episode: Episode, step: np.ndarray, actor: np.ndarray) -> np.ndarray:
    ego, other = episode.ego[step], episode.actors[step, actor]
    zone = np.where(touches_front(ego.reversed, other), REAR, LATERAL)
    return np.where(touches_front(ego, other), FRONT, zone)


def _compare_overlaps(data: Golden, r: int, episode: Episode, of: Of) -> None:
    recorded = data.rows("ov_off", r)
    distance = np.where(episode.actor_there, gap(episode.ego[:, None], episode.actors), np.nan)
    step, actor, zone, place = overlap_zones(episode, distance)
    ours = np.full((*distance.shape, 2), -1)
    ours[step, actor] = np.stack([zone, place], -1)
    theirs = np.full_like(ours, -1)
    at = data["ov_tidx"][recorded].astype(int), data["ov_actor"][recorded].astype(int)
    theirs[at] = np.stack([data["ov_zone"][recorded], data["ov_order"][recorded]], -1)
    either = (ours[..., 0] >= 0) | (theirs[..., 0] >= 0)
    where = np.nonzero(either)
    both = ((ours[..., 0] >= 0) & (theirs[..., 0] >= 0))[where]
    small, large = _resized(episode, -ALTERED), _resized(episode, ALTERED)
    grazing = (gap(small.ego[where[0]], small.actors[where]) > 0) != (
        gap(large.ego[where[0]], large.actors[where]) > 0
    )
    of("overlaps").decisions(both, np.ones(len(both), bool), grazing)
    grazing |= _zones(small, *where) != _zones(large, *where)
    of("overlap zones").decisions(ours[where][both, 0], theirs[where][both, 0], grazing[both])
    agreed = ~np.isin(where[0], where[0][~both])
    of("overlap order").decisions(
        ours[where][agreed, 1], theirs[where][agreed, 1], np.zeros(agreed.sum(), bool)
    )


def _settled(
    data: Golden, r: int, episode: Episode, metrics: dict[str, Metric]
) -> dict[str, Metric]:
    """Metrics with AlpaSim's own values where a decision or a projection is undecided."""
    step, settled = data.rows("t_off", r), dict(metrics)
    undecided = {name: data[f"frag_{name}"][step] == 1 for name in DECISIONS if name in settled}
    for name in STEPS:
        if name in settled:
            theirs = data[f"m_{name}"][step].astype(float)
            undecided[name] = _undecided(name, episode, settled[name].values, theirs)
    for name, where in undecided.items():
        values = np.where(where, data[f"m_{name}"][step], settled[name].values)
        settled[name] = replace(settled[name], values=values)
    plans = settled["open_loop_collision"]
    theirs = np.nan_to_num(data["dm_open_loop_collision"][data.answered(r)])
    if (plans.values != theirs).any():
        values = np.where(_undecided_plans(data, r), theirs, plans.values)
        settled["open_loop_collision"] = replace(plans, values=values)
    return settled


def _compare_aggregates(
    data: Golden,
    r: int,
    episode: Episode,
    metrics: dict[str, Metric],
    result: Processed | None,
    of: Of,
) -> None:
    short = arc_length(episode.log.pose[:, :2])[-1] < SHORTEST_PATH
    ours = returned(metrics)
    for k, name in enumerate(data.index["agg_columns"]):
        there = bool(data["agg_present"][r, k])
        of("RuntimeService keys").decisions(name in ours, there, np.zeros(1, bool))
        if there and name in ours and not (short and "progress" in name):
            of("RuntimeService").values(ours[name], data["agg"][r, k])
            if name == "gt_dist_traveled_m":
                of(name).values(ours[name], data["agg"][r, k])
    kept = np.isin(episode.times_us, [] if result is None else result.times_us)
    of("kept steps").decisions(
        kept, data["proc_kept"][data.rows("t_off", r)] == 1, np.zeros(len(kept), bool)
    )
    error, score = 0, None
    if result is None:
        error = 1
    else:
        for k, name in enumerate(data.index["proc_columns"]):
            if not (short and "progress" in name):
                of("processed").values(result.row.get(name, np.nan), data["proc"][r, k])
        try:
            score = scene_score(result.row)
        except ValueError:
            error = 2 if "offroad" not in result.row else 3
    of("score errors").decisions(error, data["score_error"][r], np.zeros(1, bool))
    failures = {None: 0, "collision_at_fault": 1, "offroad": 2}
    code = -1 if score is None else failures[score.failure]
    of("failure reasons").decisions(code, data["failure_reason"][r], np.zeros(1, bool))
    if not short:
        of("score").values(np.nan if score is None else score.score, data["score"][r])
        progress = np.nan if score is None else score.progress
        of("progress_score").values(progress, data["progress_score"][r])


def _compare_run(data: Golden, kept: dict[int, Processed], of: Of) -> None:
    used = data["run_rollouts_used"]
    if not len(used):
        return
    recorded = data.index["run_level"]
    # Rollouts of one clip are told apart by the rank of their index, before any is removed.
    clip, index = data["r_clip"][used], data["r_rollout"][used]
    rank = [
        len(np.unique(index[(clip == c) & (index < i)])) for c, i in zip(clip, index, strict=True)
    ]
    left = [(kept[r].row, k) for r, k in zip(used, rank, strict=True) if r in kept]
    groups, overall = run_level([row for row, _ in left], [k for _, k in left])
    pairs = [(g, t) for g, t in zip(groups, recorded["per_rollout_index"], strict=True)]
    for ours, theirs in [*pairs, (overall, recorded["overall"][0])]:
        for name, value in theirs.items():
            if name in ("rollout_uid", "run_uuid", "run_name"):
                continue
            value = np.nan if value is None else value
            of("run_level").values(ours.get(name, np.nan), value)
