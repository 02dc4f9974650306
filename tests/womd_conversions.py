"""A WOMD Scenario proto in the formats that other projects convert it to, as they do."""

from __future__ import annotations

from typing import Any

import numpy as np

from womd_features import CODES, points_of

TYPES = {1: "vehicle", 2: "pedestrian", 3: "cyclist", 4: "other"}
STATES = [
    "unknown", "arrow_stop", "arrow_caution", "arrow_go", "stop", "caution", "go",
    "flashing_stop", "flashing_caution",
]  # fmt: skip
NAMES = {
    "lane": "LANE_SURFACE_STREET",
    "road_line": "ROAD_LINE_BROKEN_SINGLE_WHITE",
    "road_edge": "ROAD_EDGE_BOUNDARY",
    "stop_sign": "STOP_SIGN",
    "crosswalk": "CROSSWALK",
    "speed_bump": "SPEED_BUMP",
    "driveway": "DRIVEWAY",
}


def gpudrive_of(proto: Any) -> dict[str, Any]:
    """As GPUDrive's script writes it: -10000 where invalid, one size a track, no links."""

    def xyz(state: Any) -> dict[str, float]:
        if not state.valid:
            return {"x": -10000.0, "y": -10000.0, "z": -10000.0}
        return {"x": state.center_x, "y": state.center_y, "z": state.center_z}

    objects = []
    for track in proto.tracks:
        seen = [s for s in track.states if s.valid]
        median = {k: float(np.median([getattr(s, k) for s in seen]))
                  for k in ("length", "width", "height")}  # fmt: skip
        objects.append(
            {
                "position": [xyz(s) for s in track.states],
                "heading": [s.heading if s.valid else -10000.0 for s in track.states],
                "velocity": [
                    {"x": s.velocity_x, "y": s.velocity_y} if s.valid else {"x": -1e4, "y": -1e4}
                    for s in track.states
                ],
                "valid": [s.valid for s in track.states],
                **median,
                "goalPosition": xyz(seen[-1]),
                "type": TYPES.get(track.object_type, "unset"),
                "id": track.id,
                "mark_as_expert": False,
            }
        )
    roads = []
    for feature in proto.map_features:
        kind, points = points_of(feature)
        geometry = [dict(zip("xyz", p, strict=True)) for p in points.tolist()]
        roads.append(
            {"geometry": geometry, "type": kind, "map_element_id": CODES[kind], "id": feature.id}
        )
    lights: dict[str, dict[str, list]] = {}
    for frame, step in enumerate(proto.dynamic_map_states):
        for seen in step.lane_states:
            light = lights.setdefault(
                str(seen.lane),
                {k: [] for k in ("state", "x", "y", "z", "time_index", "lane_id")},
            )
            light["state"].append(STATES[seen.state])
            for axis in "xyz":
                light[axis].append(getattr(seen.stop_point, axis))
            light["time_index"].append(frame)
            light["lane_id"].append(seen.lane)
    return {
        "name": "tfrecord_0.json",
        "scenario_id": proto.scenario_id,
        "objects": objects,
        "roads": roads,
        "tl_states": lights,
        "metadata": {
            "sdc_track_index": proto.sdc_track_index,
            "objects_of_interest": [],
            "tracks_to_predict": [],
        },
    }


def scenarionet_of(proto: Any) -> dict[str, Any]:
    """As ScenarioNet's converter of WOMD writes it."""
    frames = len(proto.timestamps_seconds)
    tracks = {}
    for track in proto.tracks:
        kind = TYPES.get(track.object_type, "unset").upper()

        def column(*names: str, states: Any = track.states) -> np.ndarray:
            values = np.array([[getattr(s, n) for n in names] for s in states], np.float32)
            return values[:, 0] if len(names) == 1 else values

        tracks[str(track.id)] = {
            "type": kind,
            "state": {
                "position": column("center_x", "center_y", "center_z"),
                "length": column("length"),
                "width": column("width"),
                "height": column("height"),
                "heading": column("heading"),
                "velocity": column("velocity_x", "velocity_y"),
                "valid": column("valid").astype(bool),
            },
            "metadata": {"type": kind, "object_id": str(track.id), "track_length": frames},
        }
    features = {}
    for feature in proto.map_features:
        kind, points = points_of(feature)
        entry: dict[str, Any] = {"type": NAMES[kind]}
        if kind == "stop_sign":
            entry |= {"position": points[0], "lane": list(feature.stop_sign.lane)}
        elif kind in ("lane", "road_line", "road_edge"):
            entry["polyline"] = points.astype(np.float32)
        else:
            entry["polygon"] = points.astype(np.float32)
        if kind == "lane":
            lane = feature.lane
            entry |= {
                "speed_limit_mph": lane.speed_limit_mph,
                "speed_limit_kmh": lane.speed_limit_mph * 1.609344,
                "entry_lanes": list(lane.entry_lanes),
                "exit_lanes": list(lane.exit_lanes),
            }
            for side in ("left", "right"):
                entry[f"{side}_neighbor"] = [
                    {
                        "feature_id": n.feature_id,
                        "self_start_index": n.self_start_index,
                        "self_end_index": n.self_end_index,
                    }
                    for n in getattr(lane, f"{side}_neighbors")
                ]
        features[str(feature.id)] = entry
    lights: dict[str, dict[str, Any]] = {}
    for frame, step in enumerate(proto.dynamic_map_states):
        for seen in step.lane_states:
            light = lights.setdefault(
                str(seen.lane),
                {
                    "type": "TRAFFIC_LIGHT",
                    "state": {"object_state": [None] * frames},
                    "lane": str(seen.lane),
                    "stop_point": np.array(
                        [getattr(seen.stop_point, axis) for axis in "xyz"], np.float32
                    ),
                    "metadata": {"type": "TRAFFIC_LIGHT", "object_id": str(seen.lane)},
                },
            )
            light["state"]["object_state"][frame] = f"LANE_STATE_{STATES[seen.state].upper()}"
    return {
        "id": f"{proto.scenario_id}|training.tfrecord",
        "version": "v1.2",
        "length": frames,
        "tracks": tracks,
        "dynamic_map_states": lights,
        "map_features": features,
        "metadata": {
            "dataset": "waymo",
            "coordinate": "waymo",
            "ts": np.array(proto.timestamps_seconds, np.float32),
            "sdc_id": str(proto.tracks[proto.sdc_track_index].id),
            "scenario_id": proto.scenario_id,
            "current_time_index": proto.current_time_index,
            "sdc_track_index": proto.sdc_track_index,
        },
    }
