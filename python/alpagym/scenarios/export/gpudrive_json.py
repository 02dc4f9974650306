"""Scenarios as GPUDrive JSON, the current generation of its schema."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from alpagym.scenarios.export.common import DECIMALS, common_losses, outline, unique_ids, world
from alpagym.scenarios.readers import export_tag
from alpagym.scenarios.scenario import AgentFlag, AgentType, LightState, MapType, Scenario

ABSENT = -10000.0
"""Stands under invalid frames, as in files of the format."""
MAX_FRAMES = 91
"""GPUDrive reads no more."""
NOMINAL_DT = 0.1
_AGENTS = {
    AgentType.UNKNOWN: "unset",
    AgentType.VEHICLE: "vehicle",
    AgentType.PEDESTRIAN: "pedestrian",
    AgentType.CYCLIST: "cyclist",
    AgentType.OTHER: "other",
}
_ELEMENTS = {
    MapType.LANE: ("lane", 2),
    MapType.ROAD_LINE: ("road_line", 5),
    MapType.ROAD_EDGE: ("road_edge", 15),
    MapType.STOP_SIGN: ("stop_sign", 17),
    MapType.CROSSWALK: ("crosswalk", 18),
    MapType.SPEED_BUMP: ("speed_bump", 19),
    MapType.DRIVEWAY: ("driveway", 20),
}
"""Name, and code of the dataset's own examples for the most common kind."""
_LIGHTS = {
    LightState.UNKNOWN: "unknown",
    LightState.RED: "stop",
    LightState.YELLOW: "caution",
    LightState.GREEN: "go",
    LightState.FLASHING_RED: "flashing_stop",
    LightState.FLASHING_YELLOW: "flashing_caution",
}


def encode(scenario: Scenario, file_name: str) -> bytes:
    """The content of a file."""
    return json.dumps(to_json(scenario, file_name), allow_nan=False).encode()


def to_json(scenario: Scenario, file_name: str) -> dict[str, Any]:
    """The scenario as GPUDrive has it."""
    objects = _objects(scenario)
    return {
        "name": file_name,
        "scenario_id": scenario.id,
        "objects": objects,
        "roads": _roads(scenario),
        "tl_states": _lights(scenario),
        "metadata": {
            "sdc_track_index": int(scenario.ego),
            "objects_of_interest": [],
            "tracks_to_predict": [],
            "license": scenario.license,
            export_tag.KEY: export_tag.tag_of(scenario),
        },
    }


def losses(scenario: Scenario) -> list[str]:
    """What the format does not hold of this scenario."""
    road = scenario.map
    result = common_losses(scenario)
    if len(road.successors):
        result.append("lane links (inferred again)")
    if (road.left_neighbor >= 0).any() or (road.right_neighbor >= 0).any():
        result.append("lane neighbors")
    if np.isfinite(road.speed_limit).any():
        result.append("speed limits")
    lanes = scenario.lights.lane[scenario.lights.lane >= 0].tolist()
    if len(set(lanes)) < len(lanes):
        result.append("further lights of a lane")
    if not scenario.lights.state.any(1).all():
        result.append("lights that are never seen")
    if abs(scenario.dt - NOMINAL_DT) > 1e-3:
        result.append("time steps other than 0.1 s (kept in the metadata)")
    if scenario.tracks.num_frames > MAX_FRAMES:
        result.append(f"for GPUDrive itself, frames after the {MAX_FRAMES}st")
    return result


def _points(xyz: np.ndarray) -> list[dict[str, float]]:
    rounded = np.round(xyz, DECIMALS).tolist()
    return [dict(zip("xyz", point, strict=False)) for point in rounded]


def _objects(scenario: Scenario) -> list[dict[str, Any]]:
    tracks = scenario.tracks
    xyz = np.where(tracks.valid[..., None], world(scenario, tracks.xyz), ABSENT)
    velocity = np.where(tracks.valid[..., None], tracks.velocity, ABSENT).astype(np.float64)
    yaw = np.where(tracks.valid, tracks.yaw, ABSENT).astype(np.float64)
    unfit = AgentFlag.STARTS_IN_COLLISION | AgentFlag.STARTS_OFFROAD
    return [
        {
            "id": number,
            "type": _AGENTS[AgentType(int(tracks.type[a]))],
            "position": _points(xyz[a]),
            "heading": np.round(yaw[a], 7).tolist(),
            "velocity": _points(velocity[a]),
            "valid": tracks.valid[a].tolist(),
            **dict(zip(("length", "width", "height"), _rounded(tracks.size[a]), strict=True)),
            "goalPosition": _points(xyz[a, np.flatnonzero(tracks.valid[a])[-1:]])[0],
            "mark_as_expert": bool(scenario.flags[a] & unfit),
        }
        for a, number in enumerate(unique_ids(tracks.id))
    ]


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(v), DECIMALS) for v in values]


def _roads(scenario: Scenario) -> list[dict[str, Any]]:
    result = []
    for element, number in enumerate(unique_ids(scenario.map.id)):
        name, code = _ELEMENTS[MapType(int(scenario.map.type[element]))]
        points = _points(outline(scenario, element))
        result.append({"geometry": points, "type": name, "map_element_id": code, "id": number})
    return result


def _lights(scenario: Scenario) -> dict[str, dict[str, Any]]:
    """States by lane, of the frames in which a light was seen; the first light of each lane."""
    lights = scenario.lights
    ids = unique_ids(scenario.map.id)
    place = world(scenario, lights.xy)
    result: dict[str, dict[str, Any]] = {}
    for k, lane in enumerate(lights.lane.tolist()):
        key = str(ids[lane]) if lane >= 0 else f"none{k}"
        frames = np.flatnonzero(lights.state[k] != LightState.ABSENT).tolist()
        if key in result or not frames:
            continue
        x, y = _rounded(place[k])
        z = world(scenario, scenario.map.polyline(lane))[0, 2] if lane >= 0 else scenario.origin[2]
        result[key] = {
            "state": [_LIGHTS[LightState(int(lights.state[k, t]))] for t in frames],
            "x": [x] * len(frames),
            "y": [y] * len(frames),
            "z": [round(float(z), DECIMALS)] * len(frames),
            "time_index": frames,
            "lane_id": [ids[lane] if lane >= 0 else -1] * len(frames),
        }
    return result
