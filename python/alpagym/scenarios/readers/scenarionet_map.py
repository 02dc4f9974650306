"""Map features and lights of ScenarioNet / MetaDrive pickles; see `scenarionet`."""

from __future__ import annotations

from typing import Any

import numpy as np

from alpagym.scenarios.assemble import RawLight
from alpagym.scenarios.readers.scenarionet_values import entries, listed, name, number, table
from alpagym.scenarios.readers.womd import LIGHT_STATES
from alpagym.scenarios.road_map import RawElement
from alpagym.scenarios.scenario import LightState, MapType, ScenarioError
from alpagym.scenarios.units import KMH, MPH

MAX_ELEMENTS = 20_000
MAX_LANES = 3_000
MAX_POINTS = 150_000
"""Of all map elements; the richest known map has 43 000."""
MAX_EDGE_POINTS = 50_000
MAX_LANE_POINTS = 4_000
MAX_LENGTH = 1e6
"""Of all lanes and road edges together [m]; they are cut into pieces of 10 m."""
MAX_LIGHTS = 1_000
MAX_OUTLINE_WORK = 50_000_000
"""Rings times segments of the outline of a drivable area; the largest of nuScenes has 2 million."""
SIDE_STEP = 0.02
"""How far beside a boundary the drivable area is looked for [m]."""
_OUTLINED = ("nuscenes", "nuplan")
"""Datasets whose drivable area is given by its outline, in features named "boundary_..."."""
_MADE_UP_LIMITS = ("nuscenes", "argoverse2")
"""Datasets that have no speed limits; the converter writes 100 km/h and 85 mph."""
_TYPES = {
    "STOP_SIGN": MapType.STOP_SIGN,
    "CROSSWALK": MapType.CROSSWALK,
    "CROSS_WALK": MapType.CROSSWALK,
    "SPEED_BUMP": MapType.SPEED_BUMP,
    "DRIVEWAY": MapType.DRIVEWAY,
    "CENTER_LANE": MapType.LANE,
    "UNKNOWN_LINE": MapType.ROAD_LINE,
    "UNKNOWN": MapType.ROAD_LINE,
}
_PREFIXES = {
    "LANE_": MapType.LANE,
    "ROAD_LINE_": MapType.ROAD_LINE,
    "ROAD_EDGE_": MapType.ROAD_EDGE,
}
_STATE_NAMES = [
    "UNKNOWN",
    "ARROW_STOP",
    "ARROW_CAUTION",
    "ARROW_GO",
    "STOP",
    "CAUTION",
    "GO",
    "FLASHING_STOP",
    "FLASHING_CAUTION",
]
_LIGHTS = {
    **{f"LANE_STATE_{s}": LIGHT_STATES[i] for i, s in enumerate(_STATE_NAMES)},
    **{str(i): state for i, state in LIGHT_STATES.items()},
    "TRAFFIC_LIGHT_RED": LightState.RED,
    "TRAFFIC_LIGHT_YELLOW": LightState.YELLOW,
    "TRAFFIC_LIGHT_GREEN": LightState.GREEN,
}


def raw_elements(
    features: Any, dataset: str, has_z: bool, source: str, notes: list[str]
) -> tuple[list[RawElement], bool]:
    """The map, and whether it has heights.

    Args:
        features: `map_features` of the file.
        dataset: Our name of it.
        has_z: Whether the tracks have heights.
        source: The file, for messages.
        notes: Gets a clause for each repair and omission.
    """
    elements: list[RawElement] = []
    outline: list[RawElement] = []
    left_out: dict[str, int] = {}
    for key, feature in entries(features, f"{source}: 'map_features'", MAX_ELEMENTS).items():
        what = f"{source}: map feature {name(key)}"
        given = feature.get("type")
        kind = _map_type(feature)
        if kind is None:
            label = f"of type {name(given)}" if isinstance(given, str) else "without a type"
            left_out[label] = left_out.get(label, 0) + 1
            continue
        points = _geometry(feature, kind, what)
        element = RawElement(kind, number(key), points)
        if kind == MapType.LANE:
            _add_links(element, feature, dataset, what)
        if kind == MapType.STOP_SIGN:
            named = listed(feature.get("lane", feature.get("lanes")))
            element.stop_lanes = [number(lane) for lane in named]
        is_outline = dataset in _OUTLINED and str(key).startswith("boundary_")
        if is_outline and len(points) > 3 and np.array_equal(points[0], points[-1]):
            element.type = MapType.ROAD_EDGE
            outline.append(element)
        elements.append(element)
    _check_extent(elements, source)
    _note_left_out(left_out, notes)
    limits = ("speed_limit_mph", "speed_limit_kmh")
    if dataset in _MADE_UP_LIMITS and any(k in f for f in features.values() for k in limits):
        notes.append("left out speed limits, which the dataset does not have")
    has_z = has_z and all(e.points.shape[1] == 3 for e in elements)
    if not has_z:  # a third column may be a heading
        for element in elements:
            flat = element.points[:, :2]
            element.points = np.column_stack([flat, np.zeros(len(flat))])
    direct_outline(outline, source, notes)
    _mirror_neighbors(elements, notes)
    return elements, has_z


def _check_extent(elements: list[RawElement], source: str) -> None:
    """Refuse maps that would take minutes and gigabytes to clean; real ones are far smaller."""
    counts = {MapType.LANE: 0, MapType.ROAD_EDGE: 0}
    points, length = 0, 0.0
    for element in elements:
        points += len(element.points)
        if element.type in counts:
            is_lane = element.type == MapType.LANE
            counts[element.type] += 1 if is_lane else len(element.points)
            step = np.hypot(*np.diff(element.points[:, :2], axis=0).T)
            length += float(np.nan_to_num(step, posinf=0.0).sum())
    for what, found, limit in (
        ("points", points, MAX_POINTS),
        ("lanes", counts[MapType.LANE], MAX_LANES),
        ("points of road edges", counts[MapType.ROAD_EDGE], MAX_EDGE_POINTS),
        ("m of lanes and road edges", length, MAX_LENGTH),
    ):
        if found > limit:
            raise ScenarioError(
                f"{source}: 'map_features' has {found:.8g} {what}, at most {limit:.8g} are read"
            )


def _map_type(feature: dict[Any, Any]) -> MapType | None:
    given = feature.get("type", feature.get("sign"))
    if not isinstance(given, str):
        return None
    given = given.upper()
    if given == "UNKNOWN" and ("exit_lanes" in feature or "exit" in feature):
        return MapType.LANE
    if given == "ROAD_EDGE_SIDEWALK":
        return None
    if given in _TYPES:
        return _TYPES[given]
    return next((kind for start, kind in _PREFIXES.items() if given.startswith(start)), None)


def _geometry(feature: dict[Any, Any], kind: MapType, what: str) -> np.ndarray:
    """Points of a feature [m], float64 [n, 2 or 3]."""
    if kind == MapType.STOP_SIGN:
        place = feature.get("position", feature.get("pos"))
        return table([place], (2, 3), f"{what}: 'position'")
    is_line = kind in (MapType.LANE, MapType.ROAD_LINE, MapType.ROAD_EDGE)
    for field in ("polyline", "polygon") if is_line else ("polygon", "polyline"):
        if feature.get(field) is not None:
            points = table(feature[field], (2, 3), f"{what}: '{field}'")
            if kind == MapType.LANE and len(points) > MAX_LANE_POINTS:
                raise ScenarioError(
                    f"{what}: a lane of {len(points)} points, at most {MAX_LANE_POINTS} are read"
                )
            return points
    raise ScenarioError(f"{what} has no 'polyline' or 'polygon'")


def _add_links(lane: RawElement, feature: dict[Any, Any], dataset: str, what: str) -> None:
    lane.successors = [number(i) for i in listed(feature.get("exit_lanes", feature.get("exit")))]
    lane.left = _neighbors(feature.get("left_neighbor"), f"{what}: 'left_neighbor'")
    lane.right = _neighbors(feature.get("right_neighbor"), f"{what}: 'right_neighbor'")
    if dataset in _MADE_UP_LIMITS:
        return
    for field, unit in (("speed_limit_mph", MPH), ("speed_limit_kmh", KMH)):
        limit = feature.get(field)
        if isinstance(limit, (int, float)) and 0 < limit < 200:
            lane.speed_limit = limit * unit
            return


def _neighbors(value: Any, what: str) -> list[int]:
    """Ids of neighbors, that which lies alongside for the most points first."""
    spans: list[tuple[int, int]] = []
    for entry in listed(value, (int, str, dict)):
        span, key = 0, entry
        if isinstance(entry, dict):
            key = entry.get("feature_id", entry.get("id"))
            try:
                span = int(entry.get("self_end_index", 0)) - int(entry.get("self_start_index", 0))
            except (TypeError, ValueError, OverflowError) as error:
                raise ScenarioError(f"{what}: an index is no number") from error
        if isinstance(key, (int, str)):
            spans.append((span, number(key)))
    return [i for _, i in sorted(spans, key=lambda pair: -pair[0])]


def _mirror_neighbors(elements: list[RawElement], notes: list[str]) -> None:
    """Give lanes their left neighbors, in place, where a file names road lines in their stead.

    An early converter wrote the boundaries of a lane as its left neighbors. A right neighbor always
    runs the same way, so the lane is the left neighbor of its right one.
    """
    lanes = {e.id: e for e in elements if e.type == MapType.LANE}
    named = [i for e in lanes.values() for i in e.left]
    if not named or any(i in lanes for i in named):
        return
    for lane in lanes.values():
        lane.left = []
    for lane in lanes.values():
        for right in lane.right:
            if right in lanes:
                lanes[right].left.append(lane.id)
    notes.append("took left neighbors from the right ones, for the file names road lines as such")


def direct_outline(rings: list[RawElement], source: str, notes: list[str]) -> None:
    """Direct, in place, the rings that bound a drivable area so that it lies on their left.

    A place is inside the area if a ray from it crosses the rings an odd number of times. Each ring
    is asked beside the middle of its longest segments; the majority decides.

    Args:
        rings: Outer and inner boundaries, as closed lines [m].
        source: The file, for messages.
        notes: Gets a clause.
    """
    if not rings:
        return
    start = np.concatenate([r.points[:-1, :2] for r in rings])
    step = np.concatenate([np.diff(r.points[:, :2], axis=0) for r in rings])
    if len(rings) * len(start) > MAX_OUTLINE_WORK:
        raise ScenarioError(
            f"{source}: the drivable area has {len(rings)} boundaries of {len(start)} points in "
            "all, too many to tell its inside"
        )
    turned = 0
    for ring in rings:
        own = np.diff(ring.points[:, :2], axis=0)
        longest = np.argsort(-np.hypot(*own.T), kind="stable")[:5]
        length = np.hypot(*own[longest].T)
        longest = longest[length > 10 * SIDE_STEP]
        if not len(longest):
            continue
        along = own[longest] / np.hypot(*own[longest].T)[:, None]
        left = np.column_stack([-along[:, 1], along[:, 0]])
        places = ring.points[longest, :2] + 0.5 * own[longest] + SIDE_STEP * left
        if _inside(places, start, step).mean() < 0.5:
            ring.points = ring.points[::-1].copy()
            turned += 1
    notes.append(
        f"took {len(rings)} boundaries of the drivable area as road edges, {turned} reversed"
    )


def _inside(places: np.ndarray, start: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Whether a ray along +x from each place [k, 2] crosses an odd number of segments [S, 2]."""
    end_y = start[:, 1] + step[:, 1]
    result = np.zeros(len(places), bool)
    for i, (x, y) in enumerate(places):
        spans = (start[:, 1] > y) != (end_y > y)
        fraction = (y - start[spans, 1]) / step[spans, 1]
        result[i] = (start[spans, 0] + fraction * step[spans, 0] > x).sum() % 2 == 1
    return result


def _note_left_out(left_out: dict[str, int], notes: list[str]) -> None:
    for label, count in list(left_out.items())[:5]:
        notes.append(f"left out {count} map features {label}")
    if len(left_out) > 5:
        more = sum(list(left_out.values())[5:])
        notes.append(f"left out {more} map features of {len(left_out) - 5} more types")


def raw_lights(states: Any, num_frames: int, source: str, notes: list[str]) -> list[RawLight]:
    """Lights by lane; frames in which one was not seen stay `ABSENT`.

    Args:
        states: `dynamic_map_states` of the file: a dict of lights, or (2021) a list with a dict of
            lights for each of the last frames.
        num_frames: Frames T of the record.
        source: The file, for messages.
        notes: Gets a clause for each omission.
    """
    if isinstance(states, (list, tuple)):
        return _lights_of_last_frames(states, num_frames, source, notes)
    if states is None:
        return []
    lights, lone = [], 0
    for key, light in entries(states, f"{source}: 'dynamic_map_states'", MAX_LIGHTS).items():
        what = f"{source}: light {name(key)}"
        state = light.get("state")
        if not isinstance(state, dict) or "object_state" not in state:
            raise ScenarioError(f"{what} has no 'object_state'")
        shown = _shown(state["object_state"], num_frames, what)
        lane, place = light.get("lane"), light.get("stop_point")
        if "stop_point" in state:  # by frame, zero where the light was not seen
            by_frame = table(state["stop_point"], (2, 3), f"{what}: 'stop_point'")
            if len(by_frame) != num_frames:
                raise ScenarioError(
                    f"{what}: 'stop_point' has {len(by_frame)} frames, but tracks {num_frames}"
                )
            seen = by_frame.any(1)
            shown[~seen] = LightState.ABSENT
            lone += int(seen.sum() == 1)
            place = by_frame[seen.argmax()]
        lane_id = number(lane if isinstance(lane, (int, str)) else key)
        lights.append(RawLight(lane_id, _place(place, what), shown))
    if lone > 1 and lone == len(lights):
        notes.append("an early converter kept one state of each light")
    return lights


def _lights_of_last_frames(
    frames: list[Any] | tuple[Any, ...], num_frames: int, source: str, notes: list[str]
) -> list[RawLight]:
    """The lists of 2021: the converter kept the last frame alone."""
    if len(frames) > num_frames:
        raise ScenarioError(
            f"{source}: 'dynamic_map_states' has {len(frames)} frames, but tracks {num_frames}"
        )
    lights: dict[int, RawLight] = {}
    for frame, states in enumerate(frames, num_frames - len(frames)):
        if isinstance(states, (list, tuple)) and len(states) == 1:
            states = states[0]
        what = f"{source}: 'dynamic_map_states', frame {frame}"
        for key, seen in entries(states, what, MAX_LIGHTS).items():
            if len(lights) >= MAX_LIGHTS:
                raise ScenarioError(f"{what}: more than {MAX_LIGHTS} lights")
            place = _place(seen.get("stop_point"), what)
            light = lights.setdefault(
                number(key), RawLight(number(key), place, np.zeros(num_frames, np.uint8))
            )
            light.state[frame] = _shown([seen.get("state")], 1, what)[0]
    if lights and len(frames) < num_frames:
        notes.append("an early converter kept the lights of the last frame alone")
    return list(lights.values())


def _place(value: Any, what: str) -> np.ndarray:
    """Stop point [m], float64 [2]; NaN where there is none, for which zeros stand as well."""
    if value is None:
        return np.full(2, np.nan)
    xy = table([value], (2, 3), f"{what}: 'stop_point'")[0, :2]
    return xy if xy.any() else np.full(2, np.nan)


def _shown(value: Any, num_frames: int, what: str) -> np.ndarray:
    """`LightState` by frame, uint8 [T], from names, numbers, or numbers as text; None is absent."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "iufU" and value.size == num_frames:
        try:
            value = value.ravel().tolist()
        except ValueError as error:  # text of impossible characters
            raise ScenarioError(f"{what}: 'object_state' is damaged") from error
    if not isinstance(value, (list, tuple)) or len(value) != num_frames:
        raise ScenarioError(f"{what}: 'object_state' must be a list of {num_frames} states")
    shown = np.zeros(num_frames, np.uint8)
    for i, state in enumerate(value):
        if isinstance(state, float) and state.is_integer():
            state = int(state)
        if state is not None:
            text = str(state).upper() if isinstance(state, (int, str)) else ""
            shown[i] = _LIGHTS.get(text, LightState.UNKNOWN)
    return shown
