"""Rows of the parity table: Waymax's dynamics, IDM agents and metrics; our simulator's twins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import shapely
import torch

import scenario_factory as factory
from alpagym import sim
from alpagym.config import ActionType
from alpagym.interop.waymax import bicycle, dynamics, idm
from alpagym.metrics import waymax
from alpagym.metrics.geometry import corners
from alpagym.scenarios.polyline import wrap_angle
from alpagym.scenarios.scenario import MapType
from alpagym.sim import Controller, RewardTerm
from parity.recorded import recordings
from parity.row import Row
from parity.ttc import kernel_ttc, random_pairs
from parity.waymax_shapely import BAND, SHAPELY, curved_edge, offroad_row, overlap_row
from simulating import Rig, error

REFERENCE = "Waymax 48b33d7"
ATOL, RTOL = 1e-3, 1e-4
YAW = 2
"""Column of the only angle of a state."""
BOX = [0, 1, 4, 2, 3]
"""Of x, y, length, width, yaw."""
EDGE_TYPES = (15, 16)
"""Road edges: boundary and median."""
PAIRS = 3000


def rows(golden: Path) -> list[Row]:
    files = {path.stem: np.load(path) for path in sorted((golden / "waymax").glob("*.npz"))}
    return [
        *_bicycle(files["bicycle_forward"], files["bicycle_inverse"]),
        *_step(files["bicycle_forward_step"]),
        *_delta(files["delta_forward"], files["delta_inverse"]),
        *_state(files["state_dynamics"]),
        *_idm(files["idm_route"]),
        *_infeasible(files["kinematic_infeasibility"]),
        *_overlap(files["overlap"]),
        *_offroad(files["offroad"]),
        *_divergence(files["log_divergence"]),
        *_paths(files["sdc_paths_metrics"]),
    ]


def _row(
    metric: str, got: np.ndarray, want: np.ndarray, *, rtol: float = RTOL, angle: int | None = None
) -> Row:
    assert got.shape == want.shape, (metric, got.shape, want.shape)
    difference = error(got, want)
    if angle is not None:
        difference[..., angle] = error(got[..., angle], want[..., angle], angle=True)
    return Row.of(f"waymax.{metric}", REFERENCE, difference, want, ATOL, rtol)


def _flags(
    metric: str, got: np.ndarray, want: np.ndarray, skipped: np.ndarray | None = None
) -> Row:
    assert got.shape == want.shape, (metric, got.shape, want.shape)
    judged = np.ones(got.shape, bool) if skipped is None else ~skipped
    wrong = (got.astype(bool) != want.astype(bool)) & judged
    return Row(f"waymax.{metric}", REFERENCE, int(judged.sum()), wrong=int(wrong.sum()))


def _bicycle(ahead, back) -> list[Row]:
    states, actions = ahead["state"], ahead["action"]
    other = {"dt": 0.2, "max_accel": 4.0, "max_curvature": 0.2}
    normalized = bicycle.forward(states, ahead["action_normalized"], normalized=True)
    pairs, valid = back["states"], back["valid"]
    found = [
        _row("bicycle forward", bicycle.forward(states, actions), ahead["next"], angle=YAW),
        _row("bicycle forward, normalized", normalized, ahead["next_normalized"], angle=YAW),
        _row(
            "bicycle forward, dt 0.2 s",
            bicycle.forward(states, actions, **other),
            ahead["next_dt02_a4_k02"],
            angle=YAW,
        ),
        _flags("bicycle valid", ahead["state_valid"] & ahead["action_valid"], ahead["next_valid"]),
        _flags("bicycle inverse valid", valid.all(-1), back["action_valid"]),
    ]
    for name, from_velocity in (("raw_velocity_yaw", True), ("raw_logged_yaw", False)):
        got = bicycle.inverse(pairs, valid, yaw_from_velocity=from_velocity)
        label = f"bicycle inverse, {name}"
        found.append(_row(f"{label} acceleration", got[:, 0], back[name][:, 0]))
        # Ill-conditioned at low speed.
        found.append(_row(f"{label} curvature", got[:, 1], back[name][:, 1], rtol=2e-3))
    for name, share in (("model_inverse", False), ("model_inverse_normalized", True)):
        got = bicycle.model_inverse(pairs, valid, normalized=share)
        found.append(_row(f"bicycle {name}", got, back[name], rtol=2e-3))
    return found


def _step(z) -> list[Row]:
    found = []
    updates = bicycle.forward(z["state"], z["action"])
    exists, known = z["state_valid"], z["reference_next_valid"]
    for k in range(2):
        states, valid = dynamics.step(
            updates, exists, z["reference_next"], known, z["is_controlled"], inject=bool(k)
        )
        found.append(_row(f"step, inject {k}", states, z[f"next_inject{k}"], angle=YAW))
        found.append(_flags(f"step valid, inject {k}", valid, z[f"next_valid_inject{k}"]))
    return found


def _delta(ahead, back) -> list[Row]:
    found = []
    there = ahead["state_valid"] & ahead["action_valid"]
    for name in ("global", "local"):
        local = name == "local"
        moved = dynamics.delta_forward(ahead["state"], ahead["action"], local=local)
        action = dynamics.delta_inverse(back["states"], back["valid"], local=local)
        both = back["valid"].all(-1)
        found += [
            _row(f"delta forward, {name}", moved, ahead[f"next_{name}"], angle=YAW),
            _flags(f"delta valid, {name}", there, ahead[f"next_valid_{name}"]),
            _row(f"delta inverse, {name}", action, back[f"action_{name}"], angle=YAW),
            _flags(f"delta inverse valid, {name}", both, back[f"action_valid_{name}"]),
        ]
    return found


def _state(z) -> list[Row]:
    ahead, ahead_valid = dynamics.state_forward(z["action"], z["action_valid"])
    back, back_valid = dynamics.state_inverse(z["states"], z["valid"])
    return [
        _flags("state forward", ahead != z["next"], np.zeros(ahead.shape)),
        _flags("state valid", ahead_valid, z["next_valid"]),
        _flags("state inverse", back != z["inverse_action"], np.zeros(back.shape)),
        _flags("state inverse valid", back_valid, z["inverse_valid"]),
    ]


def _idm(z) -> list[Row]:
    got = [], [], []
    for case, p in enumerate(z["params"]):
        model = idm.Idm(
            *p[:6],
            log_points=int(p[6]),
            from_current=bool(z["lookahead_from_current"][case]),
            extra_distance=p[7],
            extra_points=int(p[8]),
        )
        log = z["log"][case]
        seen = z["current"][case], z["valid"][case], log, np.ones(log.shape[:-1], bool)
        accel = idm.accelerations(*seen, model)
        for part, values in zip(got, (accel, *idm.advance(*seen, accel)), strict=True):
            part.append(values)
    accel, speed, states = (np.stack(part) for part in got)
    there = z["valid"]
    return [
        _row("idm acceleration", accel[there], z["accel"][there], rtol=1e-3),
        _row("idm speed", speed[there], z["new_speed"][there], rtol=1e-3),
        _row("idm state", states, z["next"], rtol=1e-3, angle=YAW),
        _flags("idm valid", there, z["next_valid"]),
    ]


def _infeasible(z) -> list[Row]:
    got = waymax.kinematically_infeasible(z["states"], z["valid"])
    action = bicycle.inverse(z["states"], z["valid"])
    limits = np.array([waymax.MAX_ACCEL, waymax.MAX_CURVATURE]) + waymax.SLACK
    near = (np.abs(np.abs(z["inverse_action"]) - limits) < 1e-3).any(-1)
    return [
        _flags("kinematic_infeasibility", got, z["value"], near),
        _flags("kinematic_infeasibility valid", z["valid"].all(-1), z["value_valid"]),
        _row("kinematic_infeasibility action", action, z["inverse_action"], rtol=2e-3),
    ]


def _overlap(z) -> list[Row]:
    boxes = z["boxes"][..., BOX].astype(np.float64)
    first, second = np.triu_indices(boxes.shape[1], 1)
    a, b = boxes[:, first].reshape(-1, 5), boxes[:, second].reshape(-1, 5)
    touches = kernel_ttc(a, b, np.zeros((len(a), 2)), 1.0) == 0.0
    want = z["pairwise"][:, first, second].reshape(-1)
    return [
        _flags("overlap pairs", waymax.overlaps(boxes), z["pairwise"]),
        _flags("overlap", waymax.overlap(boxes, z["valid"]), z["overlap"]),
        _flags("overlap pairs, in the simulator", touches, want),
    ]


def edges_of(points: np.ndarray) -> waymax.RoadEdgePoints:
    """Of golden map points [P, 9]."""
    counts = (points[:, 8] > 0) & np.isin(points[:, 6], EDGE_TYPES)
    return waymax.RoadEdgePoints(points[:, :3], points[:, 3:5], points[:, 7], counts)


def _offroad(z) -> list[Row]:
    edges = [edges_of(points) for points in z["map_points"]]
    boxes = z["boxes"].astype(np.float64)
    got = np.stack(
        [
            waymax.corner_edge_distances(own[:, [0, 1, 5, 3, 4]], own[:, 2], edges[m])
            for own, m in zip(boxes, z["map_index"], strict=True)
        ]
    )
    unsure = (z["nearest_gap"] < 1e-4) | (np.abs(z["signed_distance"]) < 1e-3)
    return [
        _row("offroad signed distance", got[~unsure], z["signed_distance"][~unsure]),
        _flags("offroad", (got > 0.0).any(-1), z["offroad"], unsure.any(-1)),
        _simulated_offroad(z, edges, boxes, got),
    ]


def _simulated_offroad(
    z, edges: list[waymax.RoadEdgePoints], boxes: np.ndarray, got: np.ndarray
) -> Row:
    """`State.offroad` of boxes for which the nearest edge is the same by points and by segments.

    It is another where a box is on the level of one edge while Waymax, which lets 1 m of height
    count as 2 m, finds one on another level nearer, and at gaps between edges. Beyond the open end
    of an edge Waymax may find corners of one box on both sides though no edge is near it; there the
    simulator goes by the center.
    """
    drawn = [_segments(own) for own in edges]
    case, slot = (k.ravel() for k in np.indices(boxes.shape[:2]))
    same, margin = np.zeros(len(case), bool), np.zeros(len(case))
    for w, (c, k) in enumerate(zip(case, slot, strict=True)):
        own, box = edges[z["map_index"][c]], boxes[c, k]
        same[w], margin[w] = _agrees(own, drawn[z["map_index"][c]], box, got[c, k] > 0.0)
    offroad = _in_simulator(drawn, z["map_index"][case], boxes[case, slot])
    differs = (offroad != (z["offroad"][case, slot] > 0)) & same
    name = "waymax.offroad, in the simulator, same nearest edges"
    return Row.decisions(name, REFERENCE, differs, margin < BAND, int(same.sum()))


def _segments(edges: waymax.RoadEdgePoints) -> list[np.ndarray]:
    """Unbroken runs of points of one edge, [n, 3] each."""
    joined = edges.counts[1:] & edges.counts[:-1] & (edges.id[1:] == edges.id[:-1])
    runs = np.split(np.arange(len(edges.id)), np.flatnonzero(~joined) + 1)
    return [edges.xyz[run].astype(np.float64) for run in runs if len(run) > 1]


def _agrees(
    edges: waymax.RoadEdgePoints, lines: list[np.ndarray], box: np.ndarray, off: np.ndarray
) -> tuple[bool, float]:
    """Whether both go by the same edge at every corner, and the smallest distance to one.

    That is where the nearest point lies on the nearest line of the box's level, unless corners
    differ (`off` [4]) though every line is farther than the corners are from the center.
    """
    pool, least = np.flatnonzero(edges.counts), np.inf
    level = [shapely.LineString(line) for line in lines if abs(line[0, 2] - box[2]) <= 2.5]
    if not level:
        return False, 0.0
    for corner in corners(box[[0, 1, 5]], box[3:5]):
        apart = (np.array([*corner, box[2]]) - edges.xyz[pool]) * [1.0, 1.0, 2.0]
        point = shapely.Point(edges.xyz[pool[(apart**2).sum(-1).argmin()], :2])
        away = shapely.distance(level, shapely.Point(corner))
        if shapely.distance(level[int(away.argmin())], point) > 1e-3:
            return False, 0.0
        least = min(least, float(away.min()))
    center = shapely.distance(level, shapely.Point(box[:2])).min()
    open_end = off.any() and not off.all() and center > 0.5 * np.hypot(*box[3:5])
    return not open_end, least


def _in_simulator(
    maps: list[list[np.ndarray]], map_index: np.ndarray, boxes: np.ndarray
) -> np.ndarray:
    """`State.offroad` of boxes x, y, z, length, width, yaw [n, 6], each the ego of a world."""
    scenarios, slot = [], np.zeros(len(boxes), np.int64)
    for m, lines in enumerate(maps):
        mine = np.flatnonzero(map_index == m)
        slot[mine] = np.arange(len(mine))
        sizes = [(float(b[3]), float(b[4]), 1.5) for b in boxes[mine]] or [factory.CAR]
        still = [factory.Actor(factory.line((0.0, 0.0), (1.0, 0.0)), size=s) for s in sizes]
        elements = [(MapType.ROAD_EDGE, line) for line in lines]
        scenarios.append(factory.assemble(f"map-{m}", elements, still, has_z=True))
    worlds = np.arange(len(boxes))
    rig = Rig(scenarios, len(boxes))
    state = rig.state
    state.scenario.copy_(torch.as_tensor(map_index))
    sim.reset(rig.scenarios, state, rig.all, rig.params)
    state.ego[:, 0] = torch.as_tensor(slot)
    state.valid.fill_(False)
    state.valid[worlds, slot] = True
    state.controller.fill_(int(Controller.POLICY))  # which stands still
    columns = {"x": boxes[:, 0], "y": boxes[:, 1], "z": boxes[:, 2], "yaw": wrap_angle(boxes[:, 5])}
    for name, values in columns.items():
        getattr(state, name)[worlds, slot] = torch.as_tensor(values, dtype=torch.float32)
    rig.step()
    return state.offroad[:, 0].numpy()


def _divergence(z) -> list[Row]:
    count = len(z["value"])
    still = [
        factory.Actor(factory.line(xy, np.add(xy, [1.0, 0.0]))) for xy in z["log_xy"].astype(float)
    ]
    rig = Rig([factory.assemble("log", [], still)], count, action=ActionType.teleport)
    rig.state.ego[:, 0] = torch.arange(count)
    rig.state.controller.fill_(int(Controller.POLICY))
    there = np.concatenate([z["sim_xy"], np.zeros((count, 1))], -1)
    rig.step(torch.as_tensor(there[:, None], dtype=torch.float32))
    simulated = rig.outcome.terms[:, 0, RewardTerm.DISTANCE_TO_GT].double().numpy()
    return [
        _row("log_divergence", waymax.log_divergence(z["sim_xy"], z["log_xy"]), z["value"]),
        _flags("log_divergence valid", z["sim_valid"] & z["log_valid"], z["value_valid"]),
        _row("log_divergence, in the simulator", simulated, z["value"]),
    ]


def _paths(z) -> list[Row]:
    names = ("path_xy", "path_valid", "path_arc_length", "path_on_route")
    paths, xy, there = waymax.Paths(*(z[name] for name in names)), z["sdc_xy"], z["sdc_valid"]
    away = paths.distances(xy).min(-1)
    on = np.where(paths.on_route, away, np.inf).min(-1)
    off = np.where(paths.on_route, np.inf, away).min(-1)
    with np.errstate(invalid="ignore"):
        more = on - off
    near_wrong = np.abs(away.min(-1) - waymax.WRONG_WAY) < 1e-3
    near_off = np.abs(on - waymax.OFF_ROUTE) < 1e-3
    near_off |= np.abs(more - waymax.OFF_ROUTE_RELATIVE) < 1e-3
    found = []
    for name, (value, valid), skipped in (
        ("wrong_way", waymax.wrong_way(paths, xy), near_wrong),
        ("off_route", waymax.off_route(paths, xy, there), near_off),
        (
            "progression",
            waymax.progression(paths, xy, there, z["log_start_xy"], z["log_end_xy"]),
            np.zeros(len(xy), bool),
        ),
    ):
        found.append(_row(name, value[~skipped], z[name][~skipped]))
        found.append(_flags(f"{name} valid", valid, z[f"{name}_valid"]))
    return found


def independent_rows(data: Path | None, every: int = 1) -> list[Row]:
    """Overlap and off-road of random boxes, and of recorded ones, against shapely."""
    rng = np.random.default_rng(11)
    a, b, _ = random_pairs(rng, PAIRS)
    b[:, :2] = a[:, :2] + 0.25 * (b[:, :2] - a[:, :2])
    lines = [curved_edge(rng) for _ in range(40)]
    spots = np.concatenate([line[rng.integers(len(line), size=30), :2] for line in lines])
    boxes = a[rng.integers(PAIRS, size=len(spots))].copy()
    boxes[:, :2] = spots + rng.normal(0.0, 3.0, spots.shape)
    found = [overlap_row("random", np.stack([a, b], 1)), offroad_row("random", lines, boxes)]
    return found if data is None else found + recorded_rows(data, every)


def recorded_rows(data: Path, every: int) -> list[Row]:
    """Neighbors within 8 m in each tenth frame, and a third of all boxes there."""
    pairs, offroad = [], []
    for scenario in recordings(data, every):
        tracks = scenario.tracks
        pose = np.concatenate([tracks.xyz[..., :2], tracks.yaw[..., None]], -1)
        every = []
        for frame in range(0, tracks.num_frames, 10):
            there = np.flatnonzero(tracks.valid[:, frame])
            own = np.concatenate([pose[there, frame], tracks.size[there, :2]], -1).astype(float)
            near = np.linalg.norm(own[:, None, :2] - own[None, :, :2], axis=-1) < 8.0
            i, j = np.nonzero(np.triu(near, 1))
            pairs.append(np.stack([own[i], own[j]], 1))
            every.append(own)
        is_edge = np.flatnonzero(scenario.map.type == MapType.ROAD_EDGE)
        lines = [scenario.map.polyline(k) for k in is_edge]
        if lines:
            offroad.append(offroad_row("recorded", lines, np.concatenate(every)[::3]))
    total = {n: sum(getattr(row, n) for row in offroad) for n in ("cases", "flips", "wrong")}
    recorded = Row(offroad[0].metric, SHAPELY, **total)
    return [overlap_row("recorded", np.concatenate(pairs)), recorded]
