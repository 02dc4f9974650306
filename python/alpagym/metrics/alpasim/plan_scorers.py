"""AlpaSim's metrics of what a driver planned, one value for each reply."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from alpagym.metrics.alpasim.episode import Episode, Plan, Reply
from alpagym.metrics.alpasim.metric import Metric, metric
from alpagym.metrics.alpasim.rounded import gap, outline
from alpagym.metrics.alpasim.timed_poses import interpolate

HORIZON_US = 3_000_000
"""How far ahead a plan is checked for collisions."""

DECAY = 0.1
"""Weights of plan deviation fall by exp(-DECAY) from one planned pose to the next."""

AHEAD_S = (0.5, 1.0, 2.5, 5.0)
"""Horizons of min_ade [s]."""


def open_loop_collision(episode: Episode, replies: Sequence[Reply]) -> Metric:
    """Whether a plan's poses of the next 3 s overlap an actor where it is at that time.

    Plans without such a pose are invalid (`eval/scorers/open_loop_collision.py`).
    """
    times, owner, pose = [], [], []
    for k, reply in enumerate(replies):
        ahead = reply.plan.times_us - reply.now_us
        soon = (ahead > 0) & (ahead <= HORIZON_US)
        times.append(reply.plan.times_us[soon])
        pose.append(reply.plan.pose[soon])
        owner.append(np.full(soon.sum(), k))
    now = np.array([reply.now_us for reply in replies], np.int64)
    hits = np.zeros(len(replies), bool)
    if not replies:
        return metric(now, hits)
    at, ego = (
        np.concatenate(times),
        outline(np.concatenate(pose), episode.ego_size, episode.shrink, episode.roundness),
    )
    reply_of = np.concatenate(owner)
    actor_pose = interpolate(episode.times_us, episode.actor_pose, at)
    first = np.clip(np.searchsorted(episode.times_us, at, "right") - 1, 0, None)
    until = np.clip(np.searchsorted(episode.times_us, at), None, len(episode.times_us) - 1)
    spanned = (at >= episode.times_us[0]) & (at <= episode.times_us[-1])
    there = episode.actor_there[first] & episode.actor_there[until] & spanned[:, None]
    actors = outline(actor_pose, episode.actor_size, episode.shrink, episode.roundness)
    apart = np.hypot(*(actor_pose[..., :2] - ego.pose[:, None, :2]).transpose(2, 0, 1))
    reach = np.hypot(*episode.ego_size) / 2 + np.hypot(*episode.actor_size.T) / 2
    row, actor = np.nonzero(there & (apart <= reach))
    touch = gap(ego[row], actors[row, actor]) <= 0
    hits[reply_of[row[touch]]] = True
    return metric(now, hits, np.bincount(reply_of, minlength=len(replies)) > 0)


def plan_deviation(replies: Sequence[Reply]) -> Metric:
    """Mean distance between a plan and the one before it [m], sooner poses weighing more.

    It is taken at the later plan's times, its first (the current pose) left out, as far as the
    earlier plan goes (`eval/scorers/plan_deviation.py`). AlpaSim fails where the earlier plan
    begins after such a time; here that plan's first pose stands in.
    """
    values, times = [], []
    for before, reply in pairwise(replies):
        common = reply.plan.times_us[1:] <= before.plan.times_us[-1]
        if not common.any():
            continue
        at = reply.plan.times_us[1:][common]
        earlier = interpolate(before.plan.times_us, before.plan.pose, at)
        distance = np.hypot(*(reply.plan.pose[1:][common] - earlier)[:, :2].T)
        values.append(np.average(distance, weights=np.exp(-DECAY * np.arange(len(at)))))
        times.append(reply.now_us)
    return metric(np.array(times, np.int64), np.array(values))


def min_ade(episode: Episode, replies: Sequence[Reply]) -> dict[str, Metric]:
    """Least mean distance of a sample from the record, up to each horizon [m].

    Means run over the rollout's steps from the query time on and end one step before the horizon
    where steps do not fall on it, as AlpaSim indexes them (`eval/scorers/minADE.py`). If the
    record or any sample does not span those steps AlpaSim gives no min_ade at all.
    """
    steps = episode.times_us
    found: dict[float, tuple[list[int], list[float]]] = {s: ([], []) for s in AHEAD_S}
    for reply in replies:
        last = min(reply.now_us + max(AHEAD_S) * 1e6, steps[-1])
        at = steps[(steps >= reply.query_us) & (steps <= last)]
        if not all(_spans(plan, at) for plan in (episode.log, *reply.samples)):
            return {}
        if not reply.samples:
            continue
        record = interpolate(episode.log.times_us, episode.log.pose, at)[:, :2]
        samples = [interpolate(s.times_us, s.pose, at)[:, :2] for s in reply.samples]
        distance = np.hypot(*(np.stack(samples) - record).transpose(2, 0, 1))
        best = (np.cumsum(distance, 1) / np.arange(1, len(at) + 1)).min(0)
        now = np.searchsorted(steps, reply.now_us)
        for horizon in AHEAD_S:
            k = int(np.searchsorted(steps, reply.now_us + horizon * 1e6) - now) - 1
            if k < 0 and not len(at):
                return {}
            if k < len(at):  # -1, a horizon within the first step, means the last one
                found[horizon][0].append(reply.now_us)
                found[horizon][1].append(float(best[k]))
    return {
        f"min_ade@{horizon}s(gt)": metric(np.array(times, np.int64), np.array(values))
        for horizon, (times, values) in found.items()
    }


def _spans(plan: Plan, at: np.ndarray) -> bool:
    return len(at) == 0 or bool(plan.times_us[0] <= at[0] and at[-1] <= plan.times_us[-1])
