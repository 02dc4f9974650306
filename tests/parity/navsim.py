"""Rows of the parity table: NAVSIM's PDM terms, v1.1 (PDMS) and v2 (EPDMS)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from alpagym.metrics.comfort import is_comfortable, smoothed_acceleration, within_bounds
from alpagym.metrics.drive import Drive
from alpagym.metrics.navsim.aggregation import epdms, second_stage_weights
from alpagym.metrics.navsim.comfort import ACCELERATION, extended_comfort, resampled_past, series
from alpagym.metrics.navsim.drive import scene_of
from alpagym.metrics.navsim.scorer import Scene, Scores, score_proposals, score_proposals_v1
from alpagym.metrics.navsim.simulator import simulate_proposals
from alpagym.metrics.navsim.states import Car, State, Traffic
from alpagym.metrics.polygon_map import PolygonMap
from alpagym.metrics.polygons import Polygons
from alpagym.metrics.scenario_map import polygon_map_of
from alpagym.scenarios.scenario import Scenario
from parity.navsim_shapely import KINDS, Shapes, random_situation
from parity.nuplan import lane_fields
from parity.recorded import recordings
from parity.row import Row

V2 = "NAVSIM 0a380a9"
V1 = "NAVSIM 3e8291b"
STEPS = 51
"""Recorded steps of the traffic."""
ON_ROUTE = ("A1", "B1", "CA", "CB", "CAB", "A2", "B2")
LIGHTS = ("CA", "CB", "CAB")
ROADBLOCKS = ("R1", "R2", "RO1", "RO2")
PAST_COLUMNS = [0, 1, 2, 3, 4, 5, 6, 9, 10]
"""State columns of `human_past`."""


def rows(golden: Path) -> list[Row]:
    folder = golden / "navsim"
    maps = [golden_map(m) for m in json.loads((folder / "maps.json").read_text())]
    return [
        *_scorer(folder, maps),
        *_comfort(folder),
        *_extended_comfort(folder),
        _epdms(folder),
        _weights(folder),
        _simulator(folder),
    ]


def independent_rows(data: Path | None, every: int = 1) -> list[Row]:
    """Terms of proposals against shapely, in float64: every decision must be the same.

    Random situations with eight proposals each; of every recording in `data` that has a frame each
    0.1 s, as NAVSIM needs it, with the record of its ego and that shifted at random as proposals.
    """
    rng = np.random.default_rng(20)
    situations = [random_situation(rng, 25, 8) for _ in range(250 // every)]
    result = _against_shapely("random", situations)
    if data is not None:
        result += _against_shapely("recorded", _recorded(rng, data, every))
    return result


def _recorded(rng: np.random.Generator, data: Path, every: int) -> list[tuple[np.ndarray, Scene]]:
    result = []
    for scenario in recordings(data, every):
        if abs(scenario.dt - 0.1) > 1e-6:
            continue
        states, scene = scene_of(recorded_drive(scenario), polygon_map_of(scenario))
        states[1, :, :3] += rng.normal(0, [1.0, 1.0, 0.1])
        result.append((states, scene))
    return result


def recorded_drive(scenario: Scenario) -> Drive:
    """The record of a scenario as a drive, from the ego's first frame on."""
    tracks, start = scenario.tracks, scenario.start_frame
    absent = np.flatnonzero(~tracks.valid[scenario.ego, :start])
    first = int(absent[-1]) + 1 if len(absent) else 0
    pose = np.concatenate([tracks.xyz[..., :2], tracks.yaw[..., None]], -1).astype(np.float64)
    return Drive(
        scenario,
        scenario.ego,
        first_frame=first,
        start=start - first,
        pose=pose[:, first:].transpose(1, 0, 2),
        valid=tracks.valid[:, first:].T,
    )


def _against_shapely(kind: str, situations: list[tuple[np.ndarray, Scene]]) -> list[Row]:
    count, wrong, error = 0, dict.fromkeys(KINDS, 0), 0.0
    for states, scene in situations:
        ours, shapes = score_proposals(states, scene), Shapes(scene)
        for i, proposal in enumerate(states):
            theirs = shapes.terms_of(proposal)
            count += 1
            for name in KINDS:
                wrong[name] += int(ours.terms[name][i] != theirs[name])
            error = max(error, abs(ours.progress[i] - theirs["progress"]))
    return [
        *(Row(f"navsim.v2.{n} ({kind})", "shapely", count, wrong=wrong[n]) for n in KINDS),
        Row(f"navsim.v2.progress ({kind})", "shapely", count, error, 1e-6),
    ]


def golden_map(record: dict) -> PolygonMap:
    """The map as NAVSIM loads it: no connector roadblocks and no drivable areas."""
    return PolygonMap(
        **lane_fields(record, ROADBLOCKS),
        roadblock_is_connector=np.zeros(len(ROADBLOCKS), bool),
        intersections=Polygons.of([np.array(record["intersection"])]),
        car_parks=Polygons.of([np.array(record["carpark"])]),
    )


def golden_scene(data: dict[str, np.ndarray], i: int, polygon_map: PolygonMap) -> Scene:
    tracks = data["tracks"][i]
    time = 0.1 * np.arange(STEPS)[:, None, None]
    pose = np.repeat(tracks[None, :, :3], STEPS, 0)
    pose[..., :2] += time * tracks[:, 3:5]
    red = np.zeros((STEPS, len(polygon_map.ids)), bool)
    red[:, [polygon_map.ids.index(name) for name in LIGHTS]] = data["red_connectors"][i]
    return Scene(
        polygon_map,
        on_route=np.isin(polygon_map.ids, ON_ROUTE),
        centerline=data["centerline"][i, :, :2],
        traffic=Traffic(
            pose,
            tracks[:, 5:7],
            present=np.ones(pose.shape[:2], bool),
            speed=np.hypot(tracks[:, 3], tracks[:, 4]),
            is_agent=tracks[:, 7] <= 2,
        ),
        red=red,
        past=resampled_past(past_of(data["human_past"][i])) if data["has_human_past"][i] else None,
    )


def past_of(human: np.ndarray) -> np.ndarray:
    states = np.zeros((len(human), len(State)))
    states[:, PAST_COLUMNS] = human
    return states


def _scorer(folder: Path, maps: list[PolygonMap]) -> list[Row]:
    v2, v1 = _load(folder, "pdm_scorer"), _load(folder, "pdm_scorer_v1_1")
    scenes = [golden_scene(v2, i, maps[v2["map_index"][i]]) for i in range(len(v2["states"]))]
    scores = [score_proposals(s, scene) for s, scene in zip(v2["states"], scenes, strict=True)]
    scores_v1 = [
        score_proposals_v1(s, scene) for s, scene in zip(v2["states"], scenes, strict=True)
    ]
    past = np.stack([resampled_past(past_of(human)) for human in v2["human_past"]])
    past_error = float(np.abs(_turned(past - v2["human_past_resampled"])).max())
    return [
        *_scores("navsim.v2", V2, scores, v2, ("NC", "DAC", "TLC", "DDC"), ("TTC", "LK", "HC")),
        *_scores("navsim.v1", V1, scores_v1, v1, ("NC", "DAC"), ("TTC", "C", "DDC")),
        Row("navsim.v2.past", V2, past.size, past_error, 1e-6),
    ]


def _scores(
    name: str,
    reference: str,
    ours: list[Scores],
    golden: dict[str, np.ndarray],
    multi: tuple[str, ...],
    weighted: tuple[str, ...],
) -> list[Row]:
    result = []
    for names, key, first in ((multi, "multi", 0), (weighted, "weighted", 1)):
        for column, term in enumerate(names):
            mine = np.stack([s.terms[term] for s in ours])
            wrong = int((mine != golden[key][..., first + column]).sum())
            result.append(Row(f"{name}.{term}", reference, mine.size, wrong=wrong))
    values = {
        "EP": (np.stack([s.terms["EP"] for s in ours]), golden["weighted"][..., 0]),
        "progress": (np.stack([s.progress for s in ours]), golden["progress_raw"]),
        "score": (np.stack([s.score for s in ours]), golden["score"]),
    }
    for term, (mine, theirs) in values.items():
        error = float(np.abs(mine - theirs).max())
        result.append(Row(f"{name}.{term}", reference, mine.size, error, 1e-6))
    flags = {
        "areas": (
            np.stack(
                [
                    np.stack([s.areas.multiple_lanes, s.areas.non_drivable, s.areas.oncoming], -1)
                    for s in ours
                ]
            ),
            golden["ego_areas"],
        ),
        "collision_step": (
            np.stack([s.collision_step for s in ours]),
            golden["collision_time_idx"],
        ),
        "ttc_step": (np.stack([s.ttc_step for s in ours]), golden["ttc_time_idx"]),
    }
    for term, (mine, theirs) in flags.items():
        wrong = int((mine != theirs).sum())
        result.append(Row(f"{name}.{term}", reference, mine.size, wrong=wrong))
    return result


def _comfort(folder: Path) -> list[Row]:
    data = _load(folder, "comfort")
    ours = series(data["states"], Car())
    flags = within_bounds(ours)
    order = ("lon_accel", "lat_accel", "jerk_mag", "lon_jerk", "yaw_accel", "yaw_rate")
    within = np.stack([flags[name] for name in order], -1)
    comfortable = is_comfortable(ours)
    rear = data["states"][..., ACCELERATION]
    ours["accel_mag"] = smoothed_acceleration(np.hypot(rear[..., 0], rear[..., 1]))
    return [
        *(
            _row(f"navsim.comfort.{name}", values, data[f"series_{name}"], 1e-6)
            for name, values in ours.items()
        ),
        Row("navsim.comfort.within", V2, within.size, wrong=int((within != data["within"]).sum())),
        Row(
            "navsim.comfort.comfortable",
            V2,
            comfortable.size,
            wrong=int((comfortable != data["comfortable"]).sum()),
        ),
    ]


def _extended_comfort(folder: Path) -> list[Row]:
    data = _load(folder, "two_frame_comfort")
    score, rms = extended_comfort(data["states"][:, 0], data["states"][:, 1])
    return [
        _row("navsim.EC.rms", rms, data["rms_difference"], 1e-6),
        Row("navsim.EC", V2, len(score), wrong=int((score != data["extended_comfort"]).sum())),
    ]


def _epdms(folder: Path) -> Row:
    data = _load(folder, "epdms_aggregation")
    names = ("NC", "DAC", "TLC", "DDC", "EP", "TTC", "LK", "HC", "EC")
    ours = epdms(dict(zip(names, data["subscores"].T, strict=True)))
    return _row("navsim.epdms", ours, data["score"], 1e-12)


def _weights(folder: Path) -> Row:
    data = _load(folder, "two_stage_weights")
    ours = second_stage_weights(data["first_stage_endpoint"], data["second_stage_start"])
    return _row("navsim.stage_weights", ours, data["weight"], 1e-9)


def _simulator(folder: Path) -> Row:
    data = _load(folder, "pdm_simulator")
    ours = simulate_proposals(data["proposal_poses"], data["initial_state"])
    error = float(np.abs(_turned(ours - data["simulated"])).max())
    return Row("navsim.simulator", V2, ours.size, error, 1e-6)


def _turned(difference: np.ndarray) -> np.ndarray:
    """Differences of states with that of the heading taken modulo whole turns."""
    heading = difference[..., State.HEADING]
    difference[..., State.HEADING] = np.arctan2(np.sin(heading), np.cos(heading))
    return difference


def _row(name: str, ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> Row:
    return Row.numbers(name, V2, ours, theirs, tolerance)


def _load(folder: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(folder / f"{name}.npz") as data:
        return dict(data)
