"""AlpaSim's metrics: parity, its quirks in closed form, bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import shapely

from alpagym.metrics.alpasim import episode_of, score
from alpagym.metrics.alpasim.aggregate import processed, returned, run_level, scene_score
from alpagym.metrics.alpasim.buffered import buffered
from alpagym.metrics.alpasim.episode import Episode, Plan, Reply
from alpagym.metrics.alpasim.lanes import LineMap
from alpagym.metrics.alpasim.metric import metric
from alpagym.metrics.alpasim.rounded import gap, outline
from alpagym.metrics.alpasim.scorers import measure
from alpagym.metrics.alpasim.timed_poses import fill_gaps, interpolate
from alpagym.metrics.alpasim.tree import query_order
from alpagym.scenarios.polyline import project
from alpagym.scenarios.scenario import MapType
from parity.alpasim_shapely import replay
from scenario_factory import STRAIGHT, Actor, assemble, straight

STEPS = 21
LANE = np.stack([np.arange(-20.0, 100.1, 5.0), np.zeros(25), np.zeros(25)], -1)
TIMES = 100_000 * np.arange(STEPS)


def heading_east(speed: float = 5.0, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """Poses along +x, [STEPS, 3]."""
    along = x + speed * 1e-6 * TIMES
    return np.stack([along, np.full(STEPS, y), np.zeros(STEPS)], -1)


def episode(
    ego: np.ndarray | None = None, actors: list[np.ndarray] | None = None, **fields
) -> Episode:
    """A 4 m x 2 m ego among boxes of 2 m x 2 m, recorded at 5 m/s along +x, corners sharp."""
    ego, actors = heading_east() if ego is None else ego, actors or []
    values = {
        "times_us": TIMES,
        "ego_pose": ego,
        "ego_z": np.zeros(STEPS),
        "ego_size": np.array([4.0, 2.0]),
        "actor_pose": np.stack([np.zeros((STEPS, 3)), *actors], 1)[:, 1:],
        "actor_there": np.ones((STEPS, len(actors)), bool),
        "actor_size": np.full((len(actors), 2), 2.0),
        "log": Plan(TIMES, heading_east()),
        "engaged_us": 0,
        "shrink": 0.0,
        "roundness": 0.0,
    }
    return Episode(**(values | fields))


def road(lanes: int = 2, bare: bool = False) -> LineMap:
    """Lanes 4 m wide along +x, the first one's center at y = 0; road edges 0.5 m beside them."""
    x = np.arange(-20.0, 60.1, 4.0)

    def line(y: float) -> np.ndarray:
        return np.stack([x, np.full(len(x), y), np.zeros(len(x))], -1)

    side = [line(4.0 * k - 2.0)[:, :2] for k in range(lanes + 1)]
    none = [np.zeros((0, 2))] * lanes
    return LineMap(
        [line(4.0 * k) for k in range(lanes)],
        none if bare else side[1:],
        none if bare else side[:-1],
        [line(-2.5), line(4.0 * lanes - 1.5)],
    )


@pytest.mark.parametrize(
    ("dx", "dy", "where"),
    [(2.9, 1.0, "front"), (-2.9, -1.0, "rear"), (0.5, 1.9, "lateral"), (3.1, 0.0, None)],
)
def test_class_of_a_collision(dx: float, dy: float, where: str | None) -> None:
    metrics = measure(episode(actors=[heading_east(x=dx, y=dy) * [1, 1, 0]]))
    for name in ("front", "rear", "lateral"):
        assert (metrics[f"collision_{name}"].values == (name == where)).all()
    assert (metrics["collision_any"].values == (where is not None)).all()
    clear = 0.0 if where else 0.1
    np.testing.assert_allclose(metrics["min_distance_to_obstacle_m"].values, clear, atol=1e-12)


def test_northernmost_of_several_overlaps_decides() -> None:
    ahead, beside = heading_east(x=2.9), heading_east(y=1.9)
    for actors in ([ahead, beside], [beside, ahead]):
        metrics = measure(episode(actors=actors))
        assert metrics["collision_lateral"].values.all()
        assert not metrics["collision_front"].values.any()


@pytest.mark.parametrize("count", [1, 2, 10, 11, 37, 100, 101, 437])
def test_order_is_that_of_shapelys_tree(count: int) -> None:
    rng = np.random.default_rng(count)
    low = rng.uniform(-50, 50, (count, 2))
    high = low + rng.uniform(0.1, 8, (count, 2))
    tree = shapely.STRtree(shapely.box(*low.T, *high.T))
    met = tree.query(shapely.box(-100, -100, 100, 100), predicate="intersects")
    np.testing.assert_array_equal(query_order(low, high), met)


def test_corners_are_rounded() -> None:
    size, poses = np.array([4.0, 2.0]), np.array([[0.0, 0.0, 0.0], [5.0, 3.0, 0.0]])
    a, b = outline(poses, size, shrink=0.0, roundness=0.5)
    # Inner corners at (1.5, 0.5) and (3.5, 2.5), each with a radius of 0.5.
    np.testing.assert_allclose(gap(a, b), np.sqrt(8.0) - 1.0, atol=1.3e-3)


def test_full_roundness_leaves_nothing() -> None:
    metrics = measure(
        episode(actors=[heading_east()], roundness=1.0, lanes=road(), shrink=0.1, replies=())
    )
    assert not metrics["collision_any"].values.any()
    assert not metrics["offroad"].values.any()
    assert np.isnan(metrics["min_distance_to_obstacle_m"].values).all()
    assert np.isnan(metrics["progress"].values).all()
    row = processed(metrics).row
    with pytest.raises(ValueError, match="progress_clipped_rel is nan"):
        scene_score(row)


@pytest.mark.parametrize(
    ("y", "off", "clear"),
    [
        (0.0, False, 1.0),  # within a lane
        (2.0, False, 3.0),  # across both: their union holds it
        (-1.4, False, 0.0),  # out of the lanes, the edge is 0.1 m away
        (-1.6, True, 0.0),  # touches the edge
        (-4.0, False, 0.0),  # beyond the edge: unseen
    ],
)
def test_offroad_is_touching_an_edge(y: float, off: bool, clear: float) -> None:
    metrics = measure(episode(heading_east(y=y), lanes=road()))
    assert (metrics["offroad"].values == off).all()
    np.testing.assert_allclose(metrics["min_distance_to_lane_boundary_m"].values, clear, atol=1e-9)


def test_lane_without_edges_is_buffered() -> None:
    metrics = measure(episode(lanes=road(1, bare=True)))
    np.testing.assert_allclose(metrics["min_distance_to_lane_boundary_m"].values, 0.85, atol=1e-9)
    line = np.array([[0.0, 0.0], [6.0, 0.0], [6.0, 0.0], [9.0, 4.0], [9.5, 4.2], [7.0, 9.0]])
    bent = replace(road(1, bare=True), center=[np.column_stack([line, np.zeros(len(line))])])
    bound = bent.border.of_unions(np.ones((1, 1), bool))[0]
    drawn = np.stack([bent.border.start[bound], bent.border.end[bound]], 1)
    outline_of = shapely.LineString(line).buffer(1.85).boundary
    assert shapely.union_all(shapely.linestrings(drawn)).hausdorff_distance(outline_of) < 1e-6
    assert buffered(line[1:3]).shape == (0, 2)


def test_lanes_are_candidates_by_their_vertices_in_3d() -> None:
    lanes = road(1)
    for z, near in ((5.9, True), (6.1, False)):
        found = lanes.candidates(np.array([[0.0, 0.0, z]]))
        assert found.all() == near
    sparse = replace(lanes, center=[lanes.center[0][[0, -1]]])
    assert not sparse.candidates(np.array([[20.0, 0.0, 0.0]])).any()


def test_wrong_lane_is_not_wrapped() -> None:
    def at(yaw: float, lanes: LineMap) -> bool:
        pose = heading_east() * [1, 1, 0] + [0, 0, yaw]
        return bool(measure(episode(pose, lanes=lanes))["wrong_lane"].values.all())

    west = replace(road(1), center=[road(1).center[0][::-1]])
    assert at(0.0, west)
    assert not at(np.pi - 0.1, west)
    assert at(-np.pi + 0.1, west)  # the same way within 0.1 rad, yet 2 pi apart
    assert not at(0.0, road(1))


def test_progress_and_distances_to_the_record() -> None:
    metrics = measure(episode(heading_east(speed=2.5, y=3.0)))
    t = np.arange(STEPS) / (STEPS - 1)
    np.testing.assert_allclose(metrics["progress"].values[2:], 0.5 * t[2:], atol=1e-6)
    np.testing.assert_allclose(metrics["progress"].values[:2], [0.0, t[1] / 2], atol=1e-6)
    np.testing.assert_allclose(metrics["progress_rel"].values, [1, 1] + [0.5] * 19, atol=1e-6)
    np.testing.assert_allclose(metrics["dist_to_gt_trajectory"].values, [0, 0] + [3.0] * 19)
    behind = np.hypot(5.0 * t[2:], 3.0)
    np.testing.assert_allclose(metrics["dist_to_gt_location"].values[2:], behind, atol=1e-6)
    np.testing.assert_allclose(metrics["dist_traveled_m"].values[2:], 5.0 * t[2:], atol=1e-9)
    np.testing.assert_allclose(metrics["gt_dist_traveled_m"].values, 10.0)


def test_record_must_span_the_rollout() -> None:
    metrics = measure(episode(log=Plan(TIMES[:-1], heading_east()[:-1])))
    assert "progress" not in metrics
    assert "collision_any" in metrics


def reply(now: int, y: float = 0.0, samples: tuple = (), **fields) -> Reply:
    """A plan of 5 m/s along +x beside the record, 2 s long, from step `now`."""
    at = TIMES[now] + TIMES
    pose = np.stack([5e-6 * at, np.full(STEPS, y), np.zeros(STEPS)], -1)
    return Reply(int(TIMES[now]), int(TIMES[now]) + 100_000, Plan(at, pose), samples, **fields)


def test_plan_deviation_of_shifted_plans() -> None:
    replies = [reply(0), reply(1, y=0.5), reply(2, y=0.5)]
    found = measure(episode(replies=replies))["plan_deviation"]
    np.testing.assert_array_equal(found.times_us, TIMES[1:3])
    np.testing.assert_allclose(found.values, [0.5, 0.0], atol=1e-12)


def test_open_loop_collision_looks_where_actors_will_be() -> None:
    parked = heading_east(speed=0.0, x=9.0, y=0.0)
    found = measure(episode(actors=[parked], replies=[reply(0), reply(15), reply(20)]))
    plans = found["open_loop_collision"]
    # At step 20 the rollout is over: no actor is known beyond, yet the plan has poses.
    np.testing.assert_array_equal(plans.values, [1.0, 1.0, 0.0])
    assert plans.valid.all()
    clear = measure(episode(actors=[parked], replies=[reply(0, y=2.1)]))["open_loop_collision"]
    np.testing.assert_array_equal(clear.values, [0.0])


def test_min_ade_takes_the_best_sample_and_vanishes_with_a_short_one() -> None:
    samples = tuple(reply(0, y).plan for y in (1.0, -0.4, 2.0))
    metrics = measure(episode(replies=[reply(0, samples=samples)]))
    for name in ("min_ade@0.5s(gt)", "min_ade@1.0s(gt)"):
        np.testing.assert_allclose(metrics[name].values, [0.4], atol=1e-9)
    assert len(metrics["min_ade@2.5s(gt)"].values) == 0
    short = Plan(samples[0].times_us[:-1], samples[0].pose[:-1])
    metrics = measure(episode(replies=[reply(0, samples=(*samples, short))]))
    assert not any(name.startswith("min_ade") for name in metrics)


def test_safety_monitor_and_black_images() -> None:
    replies = [reply(0, safe=True), reply(1, safe=False), reply(2)]
    metrics = measure(episode(replies=replies, black=np.arange(STEPS) == 3))
    np.testing.assert_array_equal(metrics["safety_monitor_triggered"].values, [0, 1, 0])
    assert returned(metrics)["img_is_black"] == 1.0
    assert processed(metrics) is None
    late = measure(episode(black=np.arange(STEPS) == 3, engaged_us=int(TIMES[4])))
    assert processed(late) is not None


def rules(**columns: np.ndarray):
    """Metrics of ten steps, the driver engaged from step 2, with some columns set."""
    times = TIMES[:10]
    values = {
        "collision_front": np.zeros(10),
        "collision_rear": np.zeros(10),
        "collision_lateral": np.zeros(10),
        "offroad": np.zeros(10),
        "dist_to_gt_trajectory": np.zeros(10),
        "dist_traveled_m": 10.0 * np.arange(10),
        "gt_dist_traveled_m": np.full(10, 90.0),
        "progress": np.arange(10) / 9,
        "eval_relevant": np.arange(10) >= 2,
    } | columns
    values["collision_any"] = sum(values[f"collision_{k}"] for k in ("front", "rear", "lateral"))
    return processed({name: metric(times, value) for name, value in values.items()})


def test_offline_rules_cut_at_the_first_incident() -> None:
    step = np.arange(10)
    early = rules(collision_front=step == 1)  # before the driver took over
    assert scene_score(early.row).score == 1.0
    np.testing.assert_array_equal(early.times_us, TIMES[2:10])
    np.testing.assert_allclose(early.row["duration_frac_20s"], 0.7 / 20)
    rear = rules(collision_rear=step == 5, collision_front=step == 8)
    np.testing.assert_array_equal(rear.times_us, TIMES[2:6])
    found = scene_score(rear.row)
    assert found.failure is None
    np.testing.assert_allclose(found.score, 5 / 9 / 0.8)
    front = scene_score(rules(collision_front=step == 5, offroad=step == 5).row)
    assert (front.score, front.failure) == (0.0, "collision_at_fault")
    assert scene_score(rules(offroad=step == 9).row).failure == "offroad"
    far = rules(dist_to_gt_trajectory=np.where(step >= 4, 4.0, 0.0), offroad=step == 6)
    np.testing.assert_array_equal(far.times_us, TIMES[2:5])
    never = rules(eval_relevant=np.zeros(10), collision_front=step == 1)
    np.testing.assert_array_equal(never.times_us, TIMES[:2])


def test_short_records_need_no_progress() -> None:
    row = rules(gt_dist_traveled_m=np.full(10, 4.9), progress=np.full(10, 0.1)).row
    assert scene_score(row).score == 1.0


def test_run_level_counts_kilometers_between_incidents() -> None:
    clean, crashed = rules().row, rules(collision_lateral=np.arange(10) == 5).row
    groups, overall = run_level([clean, crashed, clean], [0, 0, 1])
    assert [group["n_clips"] for group in groups] == [2, 1]
    np.testing.assert_allclose(groups[0]["avg_dist_between_incidents"], 0.14)
    assert groups[1]["avg_dist_between_incidents_at_fault"] == np.inf
    np.testing.assert_allclose(overall["collision_any"], 0.25)
    np.testing.assert_allclose(overall["collision_any_std"], 0.5 / np.sqrt(2))
    with pytest.raises(ValueError, match="one index for each"):
        run_level([clean], [])


def test_actors_count_between_their_sightings() -> None:
    pose = np.zeros((5, 1, 3))
    pose[[0, 3], 0] = [[0.0, 0.0, 3.0], [3.0, 3.0, -3.0]]
    there, filled = fill_gaps(np.array([[1], [0], [0], [1], [0]], bool), TIMES[:5], pose)
    np.testing.assert_array_equal(there[:, 0], [1, 1, 1, 1, 0])
    turn = (2 * np.pi - 6.0) / 3
    np.testing.assert_allclose(filled[1, 0], [1.0, 1.0, 3.0 + turn])


def test_projection_takes_the_first_of_equals() -> None:
    back_and_forth = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 0.0]])
    points = np.array([[4.0, 1.0], [12.0, 0.0]])
    s, d = project(back_and_forth, points)
    np.testing.assert_allclose(s, [4.0, 10.0])
    np.testing.assert_allclose(np.abs(d), [1.0, 2.0])
    s, _ = project(back_and_forth[::-1], points, last=np.array([1, 2]))
    np.testing.assert_allclose(s, [4.0, 10.0])
    single = interpolate(TIMES[:1], np.ones((1, 3)), TIMES[:3])
    np.testing.assert_array_equal(single, np.ones((3, 3)))


def test_score_of_a_log() -> None:
    found = score(replay(straight(Actor(STRAIGHT, 60.0, 10.0))))
    assert found.scene is not None
    assert found.scene.score == 1.0
    assert found.unscored == ""
    assert found.returned["collision_any"] == 0.0
    assert found.processed["offroad"] == 0.0
    relevant = found.metrics["eval_relevant"].values
    np.testing.assert_array_equal(relevant, np.arange(41) >= 5)
    assert not {"img_is_black", "plan_deviation", "open_loop_collision"} & set(found.metrics)


def test_score_of_a_rear_end_collision() -> None:
    drive = replay(straight(Actor(STRAIGHT, 40.0, 4.0)))
    found = score(drive)
    assert found.scene.failure == "collision_at_fault"
    assert found.scene.score == 0.0
    struck = score(replay(straight(Actor(STRAIGHT, 14.0, 14.0))))
    assert struck.metrics["collision_rear"].values.any()
    assert struck.scene.failure is None


def test_score_without_a_map_is_refused_as_upstream() -> None:
    scenario = assemble("bare", [], [Actor(STRAIGHT, 20.0, 10.0)])
    found = score(replay(scenario))
    assert found.scene is None
    assert "no lanes in the map" in found.unscored
    assert "offroad" not in found.metrics
    lanes = assemble("lanes", [(MapType.LANE, LANE)], [Actor(STRAIGHT, 20.0, 10.0)])
    found = score(replay(lanes))
    assert "needs road edges" in found.unscored
    metrics = found.metrics
    assert "offroad" not in metrics
    assert (metrics["min_distance_to_lane_boundary_m"].values > 0).all()


def test_the_cause_of_a_missing_scene_score_is_named() -> None:
    scenario = straight(Actor(STRAIGHT, 60.0, 10.0))
    parked = score(replay(straight(ego=Actor(STRAIGHT, 20.0, 0.0))))
    assert parked.unscored == "no scene score: the record, 0.00 m long, has no progress"
    valid = scenario.tracks.valid.copy()
    drive = replay(scenario)
    valid[scenario.ego, -2:] = False
    cut = replace(scenario, tracks=replace(scenario.tracks, valid=valid))
    found = score(replace(drive, scenario=cut))
    assert (
        "a record that spans the drive, the record has 0.0..3.8 s of 0.0..4.0 s" in found.unscored
    )


def test_height_matters_where_it_is_real() -> None:
    for height, held in ((0.0, True), (7.0, False)):
        lane = LANE + np.array([0.0, 0.0, height])
        ego = Actor(STRAIGHT, 20.0, 10.0)
        metrics = score(replay(assemble("bridge", [(MapType.LANE, lane)], [ego], has_z=True)))
        clear = metrics.metrics["min_distance_to_lane_boundary_m"].values
        assert ((clear > 0) == held).all()


def test_bad_input_is_named() -> None:
    good = heading_east()
    with pytest.raises(ValueError, match=r"Episode.ego_pose: expected finite numbers"):
        episode(np.where(good == good[3, 0], np.nan, good))
    with pytest.raises(ValueError, match=r"Episode.ego_pose: expected shape \[21, 3\]"):
        episode(good[:, :2])
    with pytest.raises(ValueError, match=r"Episode.times_us: expected rising times"):
        episode(times_us=np.zeros(STEPS, int))
    with pytest.raises(ValueError, match="expected shrink in"):
        episode(roundness=1.5)
    with pytest.raises(ValueError, match=r"Episode.log.pose: expected shape"):
        episode(log=Plan(TIMES[:0], good))
    with pytest.raises(ValueError, match="at least one step"):
        episode(log=Plan(TIMES[:0], good[:0]))
    plan = reply(0).plan
    for bad in (
        Plan(plan.times_us[:0], plan.pose[:0]),
        Plan(plan.times_us, plan.pose * np.nan),
        Plan(plan.times_us[::-1], plan.pose),
        Plan(plan.times_us, plan.pose[:-1]),
    ):
        with pytest.raises(ValueError, match=r"Episode.replies\[0\]: expected"):
            episode(replies=[Reply(0, 0, bad)])
    drive = replay(straight())
    valid = drive.valid.copy()
    valid[7, drive.ego] = False
    with pytest.raises(ValueError, match="the ego in every row, row 7 is without it"):
        episode_of(replace(drive, valid=valid))
