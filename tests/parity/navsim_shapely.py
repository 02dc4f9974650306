"""NAVSIM's terms for one proposal from their definitions, with shapely and step by step."""

from __future__ import annotations

import numpy as np
import shapely

from alpagym.metrics.navsim.scorer import Scene
from alpagym.metrics.navsim.states import Car, State, Traffic
from alpagym.metrics.polygon_map import PolygonMap
from alpagym.metrics.polygons import Polygons

KINDS = ("NC", "DAC", "TLC", "DDC", "TTC", "LK")


class Shapes:
    """The shapes of a scene, against which proposals are measured."""

    def __init__(self, scene: Scene) -> None:
        polygon_map, traffic = scene.polygon_map, scene.traffic
        self.scene = scene
        self.lanes = _shapes(polygon_map.polygons)
        self.crossings = _shapes(polygon_map.intersections)
        plain = np.flatnonzero(~polygon_map.roadblock_is_connector)
        blocks, parks = _shapes(polygon_map.roadblocks)[plain], _shapes(polygon_map.car_parks)
        self.drivable = np.concatenate([blocks, self.crossings, parks])
        self.others = shapely.polygons(
            _boxes(
                traffic.pose[..., :2], traffic.pose[..., 2], traffic.size[:, 0], traffic.size[:, 1]
            )
        )
        self.others[~traffic.present] = shapely.Polygon()
        self.line = shapely.LineString(scene.centerline)

    def terms_of(self, states: np.ndarray) -> dict[str, float]:
        """The terms of `KINDS` and the progress of one proposal [T, 11]."""
        here = _Situation(states, self)
        return {
            "NC": here.collision(),
            "DAC": 0.0 if here.non_drivable.any() else 1.0,
            "TLC": here.lights(),
            "DDC": here.direction(),
            "TTC": here.ttc(),
            "LK": here.lane_keeping(),
            "progress": here.progress(),
        }


class _Situation:
    def __init__(self, states: np.ndarray, shapes: Shapes) -> None:
        scene, car = shapes.scene, shapes.scene.car
        self.states, self.scene = states, scene
        self.lanes, self.others, self.line = shapes.lanes, shapes.others, shapes.line
        self.yaw = states[:, State.HEADING]
        self.speed = np.hypot(states[:, State.VELOCITY_X], states[:, State.VELOCITY_Y])
        ahead = np.stack([np.cos(self.yaw), np.sin(self.yaw)], 1)
        self.center = states[:, :2] + car.center * ahead
        self.corners = _boxes(self.center, self.yaw, car.length, car.width)
        self.ego = shapely.polygons(self.corners)

        corner, center = shapely.points(self.corners), shapely.points(self.center)
        rear = shapely.points(states[:, :2])
        in_lane = shapely.contains_properly(self.lanes[:, None, None], corner).sum(2)
        self.multiple = ((in_lane > 0).sum(0) > 1) & ~(in_lane == 4).any(0)
        inside = shapely.contains_properly(shapes.drivable[:, None, None], corner).any(0)
        inside |= scene.polygon_map.in_drivable_area(self.corners)
        self.non_drivable = ~inside.all(1)
        on_route = self.lanes[scene.on_route]
        self.oncoming = ~shapely.contains_properly(on_route[:, None], center).any(0)
        self.crossing = shapely.contains_properly(shapes.crossings[:, None], center).any(0)
        self.rear_crossing = shapely.contains_properly(shapes.crossings[:, None], rear).any(0)

    def _angle(self, step: int, point: np.ndarray) -> float:
        """Off the heading at the rear axle, by the dot product [deg]."""
        to = point - self.states[step, :2]
        cos = to @ [np.cos(self.yaw[step]), np.sin(self.yaw[step])] / np.hypot(*to)
        return float(np.degrees(np.arccos(np.clip(cos, -1, 1))))

    def collision(self) -> float:
        traffic, score = self.scene.traffic, 1.0
        steps = len(self.states)
        hits = shapely.intersects(self.ego[:, None], self.others[:steps])
        dismissed: set[int] = set()
        for step, agent in np.argwhere(hits):
            if agent in dismissed:
                continue
            box = self.others[step, agent]
            front = shapely.LineString(self.corners[step][[0, 3]])
            stopped = not traffic.is_agent[agent] or traffic.speed[agent] <= 0.05
            if self.speed[step] <= 0.05:
                fault = False
            elif stopped:
                fault = True
            elif self._angle(step, traffic.pose[step, agent, :2]) > 150:
                fault = False
            elif front.intersects(box):
                fault = True
            else:
                fault = bool(self.multiple[step] or self.non_drivable[step])
            if fault:
                score = min(score, 0.0 if traffic.is_agent[agent] else 0.5)
            else:
                dismissed.add(agent)
        return score

    def ttc(self) -> float:
        traffic = self.scene.traffic
        later = np.arange(len(self.states) - 9)[:, None] + [0, 3, 6, 9]
        moved = 0.1 * np.array([0, 3, 6, 9]) * self.speed[: len(later), None]
        yaw = self.yaw[: len(later), None]
        along = np.stack([moved * np.cos(yaw), moved * np.sin(yaw)], -1)
        ego = shapely.polygons(self.corners[: len(later), None] + along[:, :, None])
        dismissed: set[int] = set()
        for step, ahead, agent in np.argwhere(
            shapely.intersects(ego[..., None], self.others[later])
        ):
            if agent in dismissed or self.speed[step] < 0.005:
                continue
            angle = self._angle(step, traffic.pose[later[step, ahead], agent, :2])
            wide = self.multiple[step] or self.non_drivable[step] or self.rear_crossing[step]
            if angle < 30 or (wide and angle <= 150):
                return 0.0
            dismissed.add(agent)
        return 1.0

    def lights(self) -> float:
        red = self.scene.red[: len(self.states)]
        meets = shapely.intersects(self.ego[:, None], self.lanes[None])
        return 0.0 if (meets & red).any() else 1.0

    def direction(self) -> float:
        worst = 0.0
        for step in range(len(self.states)):
            total = 0.0
            for k in range(max(1, step - 10), step + 1):
                if self.oncoming[k] and not self.crossing[k]:
                    total += float(np.hypot(*(self.center[k] - self.center[k - 1])))
            worst = max(worst, total)
        return 1.0 if worst < 2 else 0.5 if worst < 6 else 0.0

    def lane_keeping(self) -> float:
        run = 0
        for distance in shapely.distance(shapely.points(self.center), self.line)[~self.crossing]:
            run = run + 1 if distance > 0.5 else 0
            if run == 20:
                return 0.0
        return 1.0

    def progress(self) -> float:
        first, last = (self.line.project(shapely.Point(self.center[k])) for k in (0, -1))
        return max(0.0, last - first)


def random_situation(
    rng: np.random.Generator, steps: int, proposals: int
) -> tuple[np.ndarray, Scene]:
    """Proposals [proposals, steps, 11] near a crossing, among 5 others, somewhere in the plane."""
    turn, origin = rng.uniform(-np.pi, np.pi), rng.uniform(-1000, 1000, 2)
    cos, sin = np.cos(turn), np.sin(turn)
    rotation = np.array([[cos, sin], [-sin, cos]])

    def placed(x: float, y: float, length: float, width: float) -> np.ndarray:
        corner = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * [length, width]
        return (corner + np.array([x, y])) @ rotation + origin

    # Two lanes forth and two back, cut by an intersection of 15 m.
    lanes, blocks = [], []
    for x, length in ((-60.0, 60.0), (0.0, 15.0), (15.0, 60.0)):
        lanes += [placed(x, 3.5 * lane, length, 3.5) for lane in (-2, -1, 0, 1)]
        blocks += [placed(x, -7.0, length, 7.0), placed(x, 0.0, length, 7.0)]
    connector = np.repeat([False, True, False], 4)
    baselines = [0.5 * np.array([b[0] + b[3], b[1] + b[2]]) for b in lanes]
    n = len(lanes)
    polygon_map = PolygonMap(
        ids=[str(i) for i in range(n)],
        is_connector=connector,
        polygons=Polygons.of(lanes),
        baselines=baselines,
        outgoing=[np.zeros(0, int)] * n,
        roadblock=np.arange(n) // 2,
        speed_limit=np.full(n, np.nan),
        roadblocks=Polygons.of(blocks),
        roadblock_is_connector=np.repeat([False, True, False], 2),
        intersections=Polygons.of([placed(0.0, -7.0, 15.0, 14.0)]),
        car_parks=Polygons.of([placed(-20.0, 7.0, 8.0, 5.0)]),
    )
    start = np.array([rng.uniform(-30, 15), rng.uniform(-7, 1), rng.normal(0, 0.15)])
    start[2] += np.pi * (rng.random() < 0.15)
    states = np.stack([_driven(rng, start, steps) for _ in range(proposals)])
    poses = np.stack([_driven(rng, _beside(rng, start), steps) for _ in range(5)], 1)
    size = np.where(rng.random((5, 1)) < 0.7, [4.6, 1.9], [0.8, 0.8])
    present = rng.random((1, 5)) < 0.9
    traffic = Traffic(
        _moved(poses[..., :3], rotation, origin, turn),
        size * rng.uniform(0.8, 1.2, (5, 2)),
        np.repeat(present, steps, 0),
        np.abs(poses[0, :, State.VELOCITY_X]),
        rng.random(5) < 0.8,
    )
    states[..., :3] = _moved(states[..., :3], rotation, origin, turn)
    red = np.zeros((steps, n), bool)
    red[rng.integers(0, steps) :, connector] = rng.random(4) < 0.2
    lane = int(rng.integers(0, 2))
    line = np.concatenate([baselines[lane], baselines[lane + 4], baselines[lane + 8]])
    scene = Scene(polygon_map, np.arange(n) % 4 < 2, line, traffic, red, car=Car())
    return states, scene


def _driven(rng: np.random.Generator, start: np.ndarray, steps: int) -> np.ndarray:
    """States of constant acceleration and turning from a pose, [steps, 11]."""
    time = 0.1 * np.arange(steps)
    acceleration = rng.normal(0, 1.5)
    speed = 0.0 if rng.random() < 0.15 else rng.uniform(0, 14)
    velocity = np.maximum(speed + acceleration * time, 0.0) * (speed > 0)
    yaw = start[2] + rng.normal(0, 0.08) * time * np.sign(speed)
    step = 0.1 * velocity[:, None] * np.stack([np.cos(yaw), np.sin(yaw)], 1)
    states = np.zeros((steps, len(State)))
    states[:, :2] = start[:2] + np.cumsum(step, 0) - step
    states[:, State.HEADING], states[:, State.VELOCITY_X] = yaw, velocity
    return states


def _beside(rng: np.random.Generator, start: np.ndarray) -> np.ndarray:
    away = np.array([rng.uniform(-15, 35), rng.uniform(-8, 8), rng.normal(0, 0.8)])
    return start + away


def _moved(pose: np.ndarray, rotation: np.ndarray, origin: np.ndarray, turn: float) -> np.ndarray:
    return np.concatenate([pose[..., :2] @ rotation + origin, pose[..., 2:] + turn], -1)


def _boxes(center: np.ndarray, yaw: np.ndarray, length, width) -> np.ndarray:
    unit = np.array([[0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]])
    local = unit * np.stack(np.broadcast_arrays(length, width), -1)[..., None, :]
    turned = (local[..., 0] + 1j * local[..., 1]) * np.exp(1j * np.asarray(yaw))[..., None]
    return np.stack([turned.real, turned.imag], -1) + center[..., None, :]


def _shapes(polygons: Polygons) -> np.ndarray:
    rings = [shapely.Polygon(polygons.ring(i)) for i in range(len(polygons))]
    return np.array(rings, object) if rings else np.empty(0, object)
