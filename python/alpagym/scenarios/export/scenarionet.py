"""Scenarios as ScenarioNet / MetaDrive pickles, of plain containers and NumPy arrays alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from alpagym.scenarios.export import plain_pickle
from alpagym.scenarios.export.common import common_losses, outline, unique_ids, world
from alpagym.scenarios.readers import export_tag
from alpagym.scenarios.scenario import AgentType, LightState, MapType, RoadMap, Scenario
from alpagym.scenarios.units import KMH, MPH

VERSION = "alpagym"
DATASETS = {"womd": "waymo", "argoverse2": "av2"}
"""ScenarioNet's name of a dataset, where it differs from ours."""
MOVING = 1.0
"""An agent that gets farther is counted as moving [m]."""
_AGENTS = {
    AgentType.UNKNOWN: "OTHER",  # the format's own check refuses its UNSET
    AgentType.VEHICLE: "VEHICLE",
    AgentType.PEDESTRIAN: "PEDESTRIAN",
    AgentType.CYCLIST: "CYCLIST",
    AgentType.OTHER: "OTHER",
}
_ELEMENTS = {
    MapType.LANE: "LANE_SURFACE_STREET",
    MapType.ROAD_LINE: "UNKNOWN_LINE",
    MapType.ROAD_EDGE: "ROAD_EDGE_BOUNDARY",
    MapType.CROSSWALK: "CROSSWALK",
    MapType.STOP_SIGN: "STOP_SIGN",
    MapType.SPEED_BUMP: "SPEED_BUMP",
    MapType.DRIVEWAY: "DRIVEWAY",
}
_LIGHTS = {
    LightState.ABSENT: None,
    LightState.UNKNOWN: "LANE_STATE_UNKNOWN",
    LightState.RED: "LANE_STATE_STOP",
    LightState.YELLOW: "LANE_STATE_CAUTION",
    LightState.GREEN: "LANE_STATE_GO",
    LightState.FLASHING_RED: "LANE_STATE_FLASHING_STOP",
    LightState.FLASHING_YELLOW: "LANE_STATE_FLASHING_CAUTION",
}


def encode(scenario: Scenario, file_name: str) -> bytes:
    """The content of a file."""
    return plain_pickle.dumps(to_dict(scenario))


def prefix(scenario: Scenario) -> str:
    """How names of files begin that ScenarioNet takes for scenarios."""
    return f"sd_{DATASETS.get(scenario.dataset, scenario.dataset)}_{VERSION}_"


def indices(scenarios: list[Scenario], names: list[str]) -> dict[str, bytes]:
    """The files beside the scenarios that list them."""
    summary = {
        name: _metadata(scenario, _tracks(scenario))
        for name, scenario in zip(names, scenarios, strict=True)
    }
    return {
        "dataset_summary.pkl": plain_pickle.dumps(summary),
        "dataset_mapping.pkl": plain_pickle.dumps(dict.fromkeys(names, "")),
    }


def to_dict(scenario: Scenario) -> dict[str, Any]:
    """The scenario as a `ScenarioDescription` has it."""
    tracks = _tracks(scenario)
    return {
        "id": scenario.id,
        "version": VERSION,
        "length": scenario.tracks.num_frames,
        "tracks": tracks,
        "dynamic_map_states": _lights(scenario),
        "map_features": _map_features(scenario),
        "metadata": _metadata(scenario, tracks),
    }


def losses(scenario: Scenario) -> list[str]:
    """What the format does not hold of this scenario."""
    result = common_losses(scenario)
    if (scenario.tracks.type == AgentType.UNKNOWN).any():
        result.append('unknown types of agents (written as "OTHER")')
    if (scenario.map.type == MapType.STOP_SIGN).any():
        result.append("lanes of stop signs (found again from places)")
    return result


def _metadata(scenario: Scenario, tracks: dict[str, Any]) -> dict[str, Any]:
    frames = scenario.tracks.num_frames
    ego = list(tracks)[scenario.ego]
    objects = {key: _object_summary(track) for key, track in tracks.items()}
    moving = [o["type"] for o in objects.values() if o["moving_distance"] > MOVING]
    types = [o["type"] for o in objects.values()]
    return {
        "dataset": DATASETS.get(scenario.dataset, scenario.dataset),
        "license": scenario.license,
        "coordinate": "waymo",  # x, y as in the source, counter-clockwise headings
        "metadrive_processed": False,
        "ts": np.arange(frames) * scenario.dt,
        "track_length": frames,
        "sample_rate": float(scenario.dt),
        "current_time_index": int(scenario.start_frame),
        "id": scenario.id,
        "scenario_id": scenario.id,
        "sdc_id": ego,
        "sdc_track_index": int(scenario.ego),
        "objects_of_interest": [],
        "tracks_to_predict": {
            ego: {
                "track_index": int(scenario.ego),
                "track_id": ego,
                "difficulty": 0,
                "object_type": tracks[ego]["type"],
            }
        },
        "object_summary": objects,
        "number_summary": {
            "num_objects": len(objects),
            "object_types": set(types),
            "num_objects_each_type": dict(Counter(types)),
            "num_moving_objects": len(moving),
            "num_moving_objects_each_type": dict(Counter(moving)),
            "num_traffic_lights": len(scenario.lights.lane),
            "num_map_features": scenario.map.num_elements,
        },
        export_tag.KEY: export_tag.tag_of(scenario),
    }


def _object_summary(track: dict[str, Any]) -> dict[str, Any]:
    valid = track["state"]["valid"]
    path = track["state"]["position"][valid, :2]
    unbroken = valid[valid.argmax() :]
    return {
        "type": track["type"],
        "object_id": track["metadata"]["object_id"],
        "track_length": len(valid),
        "moving_distance": float(np.hypot(*np.diff(path, axis=0).T).sum()),
        "valid_length": int(valid.sum()),
        "continuous_valid_length": len(valid) if unbroken.all() else int((~unbroken).argmax()),
    }


def _tracks(scenario: Scenario) -> dict[str, Any]:
    tracks = scenario.tracks
    result = {}
    for a, number in enumerate(unique_ids(tracks.id)):
        kind, valid = _AGENTS[AgentType(int(tracks.type[a]))], tracks.valid[a]
        position = np.where(valid[:, None], world(scenario, tracks.xyz[a]), 0.0)
        sizes = np.where(valid[:, None], tracks.size[a].astype(np.float64), 0.0)
        result[str(number)] = {
            "type": kind,
            "state": {
                "position": position,
                "heading": tracks.yaw[a].astype(np.float64),
                "velocity": tracks.velocity[a].astype(np.float64),
                "valid": valid.copy(),
                "length": sizes[:, 0].copy(),
                "width": sizes[:, 1].copy(),
                "height": sizes[:, 2].copy(),
            },
            "metadata": {
                "type": kind,
                "object_id": str(number),
                "track_length": len(valid),
                "dataset": DATASETS.get(scenario.dataset, scenario.dataset),
            },
        }
    return result


def _map_features(scenario: Scenario) -> dict[str, Any]:
    road = scenario.map
    keys = [str(i) for i in unique_ids(road.id)]
    before: list[list[str]] = [[] for _ in keys]
    for element, key in enumerate(keys):
        for after in road.successors_of(element):
            before[after].append(key)
    result = {}
    for element, key in enumerate(keys):
        kind = MapType(int(road.type[element]))
        points = outline(scenario, element)
        feature: dict[str, Any] = {"type": _ELEMENTS[kind]}
        if kind == MapType.STOP_SIGN:
            feature |= {"position": points[0], "lane": []}
        elif kind in (MapType.LANE, MapType.ROAD_LINE, MapType.ROAD_EDGE):
            feature["polyline"] = points
        else:
            feature["polygon"] = points
        if kind == MapType.LANE:
            feature |= {
                "entry_lanes": before[element],
                "exit_lanes": [keys[i] for i in road.successors_of(element)],
                "left_neighbor": _neighbor(road, int(road.left_neighbor[element]), element, keys),
                "right_neighbor": _neighbor(road, int(road.right_neighbor[element]), element, keys),
                "left_boundaries": [],
                "right_boundaries": [],
                "interpolating": False,
            }
            limit = float(road.speed_limit[element])
            if np.isfinite(limit):
                feature |= {"speed_limit_mph": limit / MPH, "speed_limit_kmh": limit / KMH}
        result[key] = feature
    return result


def _neighbor(road: RoadMap, other: int, element: int, keys: list[str]) -> list[dict[str, Any]]:
    """A neighbor along the whole lane, as WOMD's converter writes it."""
    if other < 0:
        return []
    own, its = len(road.polyline(element)), len(road.polyline(other))
    return [
        {
            "feature_id": keys[other],
            "self_start_index": 0,
            "self_end_index": own - 1,
            "neighbor_start_index": 0,
            "neighbor_end_index": its - 1,
            "boundaries": [],
        }
    ]


def _lights(scenario: Scenario) -> dict[str, Any]:
    lights, keys = scenario.lights, [str(i) for i in unique_ids(scenario.map.id)]
    place = world(scenario, lights.xy)
    result: dict[str, Any] = {}
    for k, lane in enumerate(lights.lane.tolist()):
        name = keys[lane] if lane >= 0 else f"none{k}"
        key = name if name not in result else f"{name}-{k}"
        z = world(scenario, scenario.map.polyline(lane))[0, 2] if lane >= 0 else scenario.origin[2]
        result[key] = {
            "type": "TRAFFIC_LIGHT",
            "state": {"object_state": [_LIGHTS[LightState(int(s))] for s in lights.state[k]]},
            "lane": name,
            "stop_point": np.array([*place[k], z]),
            "metadata": {
                "type": "TRAFFIC_LIGHT",
                "object_id": key,
                "track_length": lights.state.shape[1],
                "dataset": DATASETS.get(scenario.dataset, scenario.dataset),
            },
        }
    return result
