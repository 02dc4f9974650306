"""AlpaSim's per-step metrics (`eval/scorers/*.py`, repository NVlabs/alpasim at 3032e0c).

Distances are in meters, times in microseconds, decisions 0 or 1. Metrics whose scorer fails in
AlpaSim are absent here.
"""

from __future__ import annotations

import numpy as np

from alpagym.metrics.alpasim.episode import Episode
from alpagym.metrics.alpasim.metric import Metric, metric
from alpagym.metrics.alpasim.plan_scorers import min_ade, open_loop_collision, plan_deviation
from alpagym.metrics.alpasim.rounded import gap, touches_front
from alpagym.metrics.alpasim.timed_poses import interpolate_single
from alpagym.metrics.alpasim.tree import query_order
from alpagym.scenarios.polyline import arc_length, project

FRONT, REAR, LATERAL = 0, 1, 2


def measure(episode: Episode) -> dict[str, Metric]:
    """All metrics of a rollout that AlpaSim would give, by AlpaSim's names.

    `eval_relevant` is 1 from the moment the driver took over.
    """
    times = episode.times_us
    metrics = _contacts(episode)
    metrics |= _road(episode)
    metrics |= _progress(episode)
    if episode.replies is not None:
        metrics["open_loop_collision"] = open_loop_collision(episode, episode.replies)
        metrics["plan_deviation"] = plan_deviation(episode.replies)
        metrics |= min_ade(episode, episode.replies)
        now = np.array([reply.now_us for reply in episode.replies], np.int64)
        unsafe = np.array([reply.safe is False for reply in episode.replies], bool)
        metrics["safety_monitor_triggered"] = metric(now, unsafe)
    if episode.black is not None:
        metrics["img_is_black"] = metric(times, episode.black)
    metrics["eval_relevant"] = metric(times, times >= episode.engaged_us)
    return metrics


def overlap_zones(episode: Episode, distance: np.ndarray) -> tuple[np.ndarray, ...]:
    """Every overlap of the ego with an actor, and where on the ego it is.

    A contact is frontal if it touches the ego's front zone, else rear if its rear zone, else
    lateral (`eval/scorers/collision.py`). AlpaSim meets several overlaps of one step in the order
    of a query of its STR tree, which holds the ego too.

    Args:
        episode: The rollout.
        distance: Gap to each actor [m], NaN where it is not there, [T, N].

    Returns:
        Step, actor, zone (0 front, 1 rear, 2 lateral) and place in AlpaSim's order within the
        step, each [K], sorted by step and place.
    """
    step, actor = np.nonzero(distance <= 0)
    ego, other = episode.ego[step], episode.actors[step, actor]
    zone = np.where(touches_front(ego.reversed, other), REAR, LATERAL)
    zone[touches_front(ego, other)] = FRONT
    place = np.zeros(len(step), int)
    for t in np.flatnonzero(np.bincount(step, minlength=1) > 1):
        there = np.flatnonzero(episode.actor_there[t])
        center = np.insert(episode.actor_pose[t, there, :2], 0, episode.ego_pose[t, :2], 0)
        extent = np.insert(episode.actors[t, there].extent, 0, episode.ego[t].extent, 0)
        met = query_order(center - extent, center + extent)
        rank = np.zeros(len(met), int)
        rank[met] = np.arange(len(met))
        here = step == t
        ranks = rank[1 + np.searchsorted(there, actor[here])]
        place[here] = np.argsort(np.argsort(ranks))
    order = np.lexsort((place, step))
    return step[order], actor[order], zone[order], place[order]


def _contacts(episode: Episode) -> dict[str, Metric]:
    """Collisions, and the distance to the nearest actor, which is invalid where there is none.

    The last overlap in AlpaSim's order decides the class of a step.
    """
    times, there = episode.times_us, episode.actor_there
    distance = gap(episode.ego[:, None], episode.actors)
    step, _, zone, _ = overlap_zones(episode, np.where(there, distance, np.nan))
    decided = np.full(len(times), -1)
    decided[step] = zone  # sorted: the last one of a step stays
    nearest = np.where(there, distance, np.inf).min(1, initial=np.inf)
    return {
        "collision_front": metric(times, decided == FRONT),
        "collision_rear": metric(times, decided == REAR),
        "collision_lateral": metric(times, decided == LATERAL),
        "collision_any": metric(times, decided >= 0),
        "min_distance_to_obstacle_m": metric(times, nearest, np.any(there, axis=1)),
    }


def _road(episode: Episode) -> dict[str, Metric]:
    """Off-road, wrong lane and the distance to the border of the lanes around the ego.

    Off-road is the ego that no union of candidate lanes contains and that touches the nearest road
    edge: starting off the road, or jumping an edge between two steps, goes unseen. The distance
    is 0 where the ego is not contained. Without lanes nothing is known, without road edges only
    the distance.
    """
    times, lanes, ego = episode.times_us, episode.lanes, episode.ego
    if lanes is None or not lanes.center:
        return {}
    position = np.concatenate([episode.ego_pose[:, :2], episode.ego_z[:, None]], 1)
    candidate = lanes.candidates(position)
    # An empty outline has no center for a lane to contain.
    candidate &= ~np.isnan(ego.half[:, :1])
    inside = lanes.contain(episode.ego_pose[:, :2], candidate)
    border = lanes.union_gap(ego, candidate, inside)
    metrics = {"min_distance_to_lane_boundary_m": metric(times, np.maximum(border, 0.0))}
    if lanes.edges:
        metrics["offroad"] = metric(times, (border < 0) & lanes.touches_edge(ego, episode.ego_z))
        metrics["wrong_lane"] = metric(times, lanes.wrong_way(ego, inside))
    return metrics


def _progress(episode: Episode) -> dict[str, Metric]:
    """Where the ego is along and beside its record (`eval/scorers/ground_truth.py`).

    AlpaSim fills in the first two steps: progress rises evenly from 0 to that of the third,
    relative progress is 1, distances are 0. It fails where the record does not span all steps.
    Progress is NaN on a record without length, and all is where the outline is empty.
    """
    times, record = episode.times_us, episode.log
    count = len(times)
    if count < 3:
        whole = np.zeros(count, bool)
        return {
            "progress": metric(times, np.full(count, np.nan), whole),
            "progress_rel_to_total": metric(times, np.full(count, np.nan), whole),
            "progress_rel": metric(times, np.ones(count)),
            "dist_to_gt_trajectory": metric(times, np.zeros(count)),
            "dist_to_gt_location": metric(times, np.zeros(count)),
            "dist_traveled_m": metric(times, np.zeros(count)),
            "gt_dist_traveled_m": metric(times, np.full(count, arc_length(record.pose[:, :2])[-1])),
        }
    if times[0] < record.times_us[0] or times[-1] > record.times_us[-1]:
        return {}
    center = np.where(np.isnan(episode.ego.half[:, :1]), np.nan, episode.ego_pose[:, :2])[2:]
    path, step = record.pose[:, :2], np.arange(2, count)
    at_times = interpolate_single(record.times_us, path, times)
    length = arc_length(path)[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        along, beside = project(path, center)
        progress = along / length
        relative = project(at_times, center, step)[0] / arc_length(at_times)[2:]
    progress = np.concatenate([progress[0] * np.array([0.0, 0.5]), progress])
    traveled, _ = project(episode.ego_pose[:, :2], center)
    behind = np.hypot(*(at_times[2:] - center).T)
    start = np.zeros(2)
    return {
        "progress": metric(times, progress),
        "progress_rel_to_total": metric(times, progress),
        "progress_rel": metric(times, np.concatenate([start + 1, relative])),
        "dist_to_gt_trajectory": metric(times, np.concatenate([start, np.abs(beside)])),
        "dist_to_gt_location": metric(times, np.concatenate([start, behind])),
        "dist_traveled_m": metric(times, np.concatenate([start, traveled])),
        "gt_dist_traveled_m": metric(times, np.full(count, length)),
    }
