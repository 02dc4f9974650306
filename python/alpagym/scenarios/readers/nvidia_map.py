"""The map of NVIDIA recordings (RDS-HQ, ClipGT): lanes as two rails, boundaries, stops, lights.

Both formats hold the same map in different files; their readers fill a `SourceMap`, and
`assemble_clip` makes of it and of the tracks a scenario.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from alpagym.scenarios.assemble import RawLight, RawScenario, RawTracks, assemble
from alpagym.scenarios.polyline import (
    arc_length,
    headings,
    interpolate,
    split_long_steps,
    squared_distances,
    wrap_angle,
)
from alpagym.scenarios.readers.nvidia_tracks import number_ids
from alpagym.scenarios.road_map import LINK_ANGLE, LINK_GAP, LINK_STEP, RawElement
from alpagym.scenarios.scenario import LightState, MapType, Scenario, ScenarioError

MAX_POINTS = 100_000
"""Most points of a map; a real one of a square kilometer has 7 000."""
MAX_LANES = 2_500
MAX_FAN = 20
"""Most links or neighbors of a lane on average."""
MAX_LENGTH = 2e6
"""Longest total of all lines of a map [m]."""
RAIL_GAP = 0.3
"""Two rails are one line where their ends lie this near to each other [m]."""
SIDE_REACH = 15.0
"""A lane farther than this from a boundary says nothing about its direction [m]."""
GUIDE_POINTS = 8_000
"""About how many points of lanes tell on which side of the boundaries one drives."""
STOP_GAP = 5.0
"""A wait line belongs to a lane that ends this near to it [m]."""
SIGN_REACH = 20.0
"""A stop sign stands this near to its stop line, where the source does not relate them [m]."""


@dataclass
class Lane:
    """A lane as the source has it."""

    id: str
    rails: list[np.ndarray]
    """Left and right border, or the centerline alone [m], each [n, 3], in driving direction."""
    speed_limit: float = np.nan
    """[m/s]."""
    drivable: bool = True
    """Whether cars may change into it; shoulders and bicycle lanes are lanes as well."""
    next: list[str] = field(default_factory=list)
    previous: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    right: list[str] = field(default_factory=list)
    signs: list[str] = field(default_factory=list)
    lights: list[str] = field(default_factory=list)

    @property
    def center(self) -> np.ndarray:
        """Centerline [m], [n, 3]."""
        return self.rails[0] if len(self.rails) == 1 else middle_line(*self.rails)


@dataclass
class Line:
    """A line or polygon with what the source tells of its two sides."""

    id: str
    points: np.ndarray
    """[m], [n, 3]."""
    left_drivable: float = 0.0
    """Share of its points with traffic on the left, as far as the source tells."""
    right_drivable: float = 0.0


@dataclass
class SourceMap:
    """A map before it is put into the common form."""

    lanes: list[Lane] = field(default_factory=list)
    lane_lines: list[Line] = field(default_factory=list)
    boundaries: list[Line] = field(default_factory=list)
    crosswalks: list[Line] = field(default_factory=list)
    stop_lines: list[Line] = field(default_factory=list)
    """Wait lines at which traffic stops; `<line>-<lane>` names the lane, `<line>--1` says none."""
    stop_signs: list[Line] = field(default_factory=list)
    """One point each, as traffic lights."""
    lights: list[Line] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """How many records were left out, by why."""


def assemble_clip(
    clip: str,
    source: str,
    tracks: RawTracks,
    source_map: SourceMap,
    notes: list[str],
    *,
    dataset: str,
    license: str,
    has_z: bool = True,
) -> Scenario:
    """The scenario of a clip.

    Args:
        clip: its identifier.
        source: for messages.
        tracks: the recording vehicle first.
        source_map: as for `map_elements`.
        notes: of all that was inferred or left out so far; gets those of the map.
        dataset: as in `Scenario`.
        license: likewise.
        has_z: whether the heights of the map are those of the tracks.

    Raises:
        ScenarioError: if the clip cannot be used, or its map is absurdly large.
    """
    driven = tracks.xyz[0, tracks.valid[0]]
    elements, lights = map_elements(source_map, driven, tracks.valid.shape[1], source, notes)
    return assemble(
        RawScenario(
            clip, source, dataset, license, tracks, elements, lights,
            ego=0, has_z=has_z, notes=notes,
        )
    )  # fmt: skip


def map_elements(
    source_map: SourceMap, ego_path: np.ndarray, num_frames: int, source: str, notes: list[str]
) -> tuple[list[RawElement], list[RawLight]]:
    """Elements with links, neighbors and directed road edges, and the lights.

    Args:
        source_map: what the source has; its lanes get the links that follow from geometry.
        ego_path: of the recording vehicle [m], [n, 2+]; it drives on the drivable side.
        num_frames: of the record.
        source: for messages.
        notes: gets a clause for everything inferred or left out.

    Raises:
        ScenarioError: if the map is absurdly large.
    """
    lanes = source_map.lanes
    layers = {
        MapType.ROAD_LINE: source_map.lane_lines,
        MapType.ROAD_EDGE: source_map.boundaries,
        MapType.CROSSWALK: source_map.crosswalks,
    }
    lines = [line.points for layer in layers.values() for line in layer]
    lines += [rail for lane in lanes for rail in lane.rails]
    if len(lanes) > MAX_LANES:
        raise ScenarioError(
            f"{source}: the map has {len(lanes)} lanes, at most {MAX_LANES} are read"
        )
    _check_extent(lines, source)
    centers = [lane.center for lane in lanes]
    if lanes and not any(lane.next or lane.previous for lane in lanes):
        _link_by_geometry(lanes, centers, source, notes)
    if lanes and not any(lane.left or lane.right for lane in lanes):
        _neighbors_by_rails(lanes, source, notes)
    _orient_boundaries(source_map.boundaries, [*centers, ego_path], notes)

    others = [line for layer in layers.values() for line in layer] + source_map.stop_signs
    numbers = number_ids([lane.id for lane in lanes] + [line.id for line in others])
    follow = _successors(lanes)
    reachable = {lane.id for lane in lanes if lane.drivable}
    elements = [
        RawElement(
            MapType.LANE,
            numbers[lane.id],
            center,
            speed_limit=lane.speed_limit,
            successors=[numbers.get(i, -1) for i in follow[lane.id]],
            left=[numbers[i] for i in lane.left if i in reachable],
            right=[numbers[i] for i in lane.right if i in reachable],
        )
        for lane, center in zip(lanes, centers, strict=True)
    ]
    for kind, layer in layers.items():
        elements += [RawElement(kind, numbers[line.id], line.points) for line in layer]
    begins = _lanes_after_stop_lines(source_map, centers, follow)
    for sign, own in _sign_lanes(source_map, begins).items():
        record = source_map.stop_signs[sign]
        stop_lanes = sorted(numbers[i] for i in own)
        elements.append(
            RawElement(MapType.STOP_SIGN, numbers[record.id], record.points, stop_lanes=stop_lanes)
        )
    lights = _lights(source_map, numbers, begins, num_frames)
    if source_map.lights:
        notes.append("the source gives the places of traffic lights but never what they show")
    shut = sum(not lane.drivable for lane in lanes)
    if shut:
        notes.append(f"{shut} lanes are shoulders or not for cars: no lane has them as neighbors")
    for reason, count in source_map.left_out.items():
        notes.append(f"left out {count} {reason}")
    return elements, lights


def middle_line(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The line midway between two rails, with a point for each of theirs, [n, 3]."""
    shares = [s / max(s[-1], 1e-9) for s in (arc_length(left), arc_length(right))]
    every = np.unique(np.round(np.concatenate(shares), 6))
    ends = [interpolate(r, every * arc_length(r)[-1]) for r in (left, right)]
    return 0.5 * (ends[0] + ends[1])


def _check_extent(lines: list[np.ndarray], source: str) -> None:
    count = sum(map(len, lines))
    if count > MAX_POINTS:
        raise ScenarioError(
            f"{source}: the map holds {count} points, at most {MAX_POINTS} are read"
        )
    length = sum(float(np.nan_to_num(arc_length(p)[-1], posinf=1e9)) for p in lines if len(p))
    if length > MAX_LENGTH:
        raise ScenarioError(
            f"{source}: the lines of the map are {length / 1e3:.6g} km long, "
            f"at most {MAX_LENGTH / 1e3:g} km are read"
        )


def _link_by_geometry(
    lanes: list[Lane], centers: list[np.ndarray], source: str, notes: list[str]
) -> None:
    """Give each lane the lanes that begin where it ends and run on."""
    ends, starts = (np.array([c[i] for c in centers]) for i in (-1, 0))
    yaw = [headings(c) for c in centers]
    near = squared_distances(ends, starts) < LINK_GAP**2
    turn = np.array([y[-1] for y in yaw])[:, None] - np.array([y[0] for y in yaw])[None]
    near &= np.abs(wrap_angle(turn)) < LINK_ANGLE
    near &= np.abs(ends[:, None, 2] - starts[None, :, 2]) < LINK_STEP
    np.fill_diagonal(near, False)
    if near.sum() > MAX_FAN * len(lanes):
        raise ScenarioError(f"{source}: {near.sum()} links between {len(lanes)} lanes are no map")
    for i, j in np.argwhere(near):
        lanes[i].next.append(lanes[j].id)
    notes.append(f"inferred {near.sum()} lane links from geometry")


def _neighbors_by_rails(lanes: list[Lane], source: str, notes: list[str]) -> None:
    """Make neighbors of lanes of which the right rail of one is the left rail of the other."""
    railed = [lane for lane in lanes if len(lane.rails) == 2]
    if not railed:
        notes.append("lanes have no rails, so none has a neighbor")
        return
    ends = np.array([[[rail[0], rail[-1]] for rail in lane.rails] for lane in railed])
    same = np.ones((len(railed), len(railed)), bool)
    for end in (0, 1):
        gap = squared_distances(ends[:, 1, end], ends[:, 0, end]) < RAIL_GAP**2
        same &= gap & (np.abs(ends[:, None, 1, end, 2] - ends[None, :, 0, end, 2]) < LINK_STEP)
    np.fill_diagonal(same, False)
    if same.sum() > MAX_FAN * len(lanes):
        raise ScenarioError(f"{source}: {same.sum()} pairs of {len(lanes)} lanes share a rail")
    for i, j in np.argwhere(same):
        railed[i].right.append(railed[j].id)
        railed[j].left.append(railed[i].id)
    notes.append(f"inferred {same.sum()} pairs of neighboring lanes from shared rails")


def _orient_boundaries(boundaries: list[Line], guides: list[np.ndarray], notes: list[str]) -> None:
    """Turn boundaries so that one drives on their left.

    The source tells where traffic runs of most; lanes and the path of the ego tell of the others.
    """
    guides = [g[:, :2] for g in guides if len(g) > 1]
    total = sum(arc_length(g)[-1] for g in guides)
    spacing = max(2.0, total / GUIDE_POINTS)
    guide = np.concatenate([np.zeros((0, 2)), *(split_long_steps(g, spacing) for g in guides)])
    turned = unknown = 0
    for line in boundaries:
        left, right = line.left_drivable, line.right_drivable
        if left == right:
            left, right = _nearest_sides(line.points[:, :2], guide, spacing)
            unknown += left == right
        if right > left:
            line.points = line.points[::-1]
            turned += 1
    if turned:
        notes.append(f"reversed {turned} road edges that had the drivable area on their right")
    if unknown:
        notes.append(f"the drivable side of {unknown} road edges is not known")


def _nearest_sides(line: np.ndarray, guide: np.ndarray, spacing: float) -> tuple[float, float]:
    """Length of a line [n, 2] with its nearest guide point on the left, and on the right [m]."""
    fine = split_long_steps(line, spacing)
    sides = np.zeros(2)
    for first in range(0, len(fine) - 1, 1024) if len(guide) else ():
        part = fine[first : first + 1025]
        step = np.diff(part, axis=0)
        middle = part[:-1] + 0.5 * step
        gap = squared_distances(middle, guide)
        nearest = gap.argmin(1)
        offset = guide[nearest] - middle
        side = step[:, 0] * offset[:, 1] - step[:, 1] * offset[:, 0]
        length = np.hypot(*step.T) * (gap[np.arange(len(gap)), nearest] < SIDE_REACH**2)
        sides += length[side > 0].sum(), length[side < 0].sum()
    return float(sides[0]), float(sides[1])


def _successors(lanes: list[Lane]) -> dict[str, list[str]]:
    """Ids of the lanes that follow each lane, by the links of either side."""
    follow = {lane.id: list(lane.next) for lane in lanes}
    for lane in lanes:
        for before in lane.previous:
            if before in follow and lane.id not in follow[before]:
                follow[before].append(lane.id)
    return follow


def _lanes_after_stop_lines(
    source_map: SourceMap, centers: list[np.ndarray], follow: dict[str, list[str]]
) -> dict[str, tuple[np.ndarray, list[str]]]:
    """Middle of the stop line and the lanes that begin there, by the lane that ends there."""
    index = {lane.id: i for i, lane in enumerate(source_map.lanes)}
    ends = np.array([c[-1, :2] for c in centers]).reshape(-1, 2)
    found: dict[str, tuple[np.ndarray, list[str]]] = {}
    for line in source_map.stop_lines:
        place = 0.5 * (line.points[0] + line.points[-1])
        gaps = np.hypot(*(ends - place[:2]).T)
        words = line.id.split("-")
        tails = ("-".join(words[i:]) for i in range(1, len(words)))
        lane = next((tail for tail in tails if tail in index), None)
        if lane is None and "--" not in line.id and len(gaps):
            lane = source_map.lanes[int(gaps.argmin())].id
        if lane is not None and gaps[index[lane]] < STOP_GAP:
            found[lane] = place, [i for i in follow[lane] if i in index]
        else:
            source_map.left_out["stop lines at which no lane ends"] += 1
    return found


def _sign_lanes(
    source_map: SourceMap, begins: dict[str, tuple[np.ndarray, list[str]]]
) -> dict[int, set[str]]:
    """Ids of the lanes that begin at the stop line of each stop sign, by index of the sign."""
    own: dict[int, set[str]] = {i: set() for i in range(len(source_map.stop_signs))}
    index = {sign.id: i for i, sign in enumerate(source_map.stop_signs)}
    places = np.array([s.points[0, :2] for s in source_map.stop_signs]).reshape(-1, 2)
    related = any(s in index for lane in source_map.lanes for s in lane.signs)
    by_id = {lane.id: lane for lane in source_map.lanes}
    for lane, (place, after) in begins.items():
        if by_id[lane].lights:
            continue
        signs = [index[s] for s in by_id[lane].signs if s in index]
        gaps = np.hypot(*(places - place[:2]).T)
        if not related and len(gaps) and gaps.min() < SIGN_REACH:
            signs = [int(gaps.argmin())]
        if not signs:
            source_map.left_out["stop lines without a stop sign"] += 1
        for sign in signs:
            own[sign].update(after)
    return own


def _lights(
    source_map: SourceMap,
    numbers: dict[str, int],
    begins: dict[str, tuple[np.ndarray, list[str]]],
    num_frames: int,
) -> list[RawLight]:
    """A light for each lane that begins at a stop line with lights, and for each light without."""
    dark = np.full(num_frames, LightState.ABSENT, np.uint8)
    known = {light.id for light in source_map.lights}
    lights, used = [], set()
    for lane in source_map.lanes:
        own = known.intersection(lane.lights)
        if own and lane.id in begins:
            place, after = begins[lane.id]
            lights += [RawLight(numbers[i], place[:2], dark) for i in after]
            used |= own
    rest = [light for light in source_map.lights if light.id not in used]
    return lights + [RawLight(None, light.points[0, :2], dark) for light in rest]
