"""PufferDrive .bin files: a WOMD drive that went through GPUDrive JSON, with a simplified map.

The files have neither magic nor version, and their layouts differ in which numbers come first and
which head each entity. Only the right one ends exactly where the file ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alpagym.scenarios.assemble import RawScenario, RawTracks, assemble
from alpagym.scenarios.readers.gpudrive_json import find_ego, in_degrees
from alpagym.scenarios.road_map import RawElement, orient_edges
from alpagym.scenarios.scenario import AgentType, MapType, Scenario, ScenarioError

MAX_BYTES = 1 << 26
"""A larger file is a data fault; most have less than 1 MB."""
MAX_OBJECTS, MAX_FRAMES, MAX_ROADS, MAX_POINTS = 512, 250, 3000, 200_000
"""Larger numbers in a file are a data fault; most have some 60 objects, 91 frames, 300 roads."""
NAME_WORDS = 4
"""Words of 4 bytes that a scenario id takes."""
OBJECT_ROWS, ROAD_ROWS, TAIL = 8, 3, 7
"""Numbers by frame of an object, by point of a road, and words after them: width, length, height,
goal (3) and whether the log drives it."""
_AGENT_TYPES = {1: AgentType.VEHICLE, 2: AgentType.PEDESTRIAN, 3: AgentType.CYCLIST}
_MAP_TYPES = {
    4: MapType.LANE,
    5: MapType.ROAD_LINE,
    6: MapType.ROAD_EDGE,
    7: MapType.STOP_SIGN,
    8: MapType.CROSSWALK,
    9: MapType.SPEED_BUMP,
    10: MapType.DRIVEWAY,
}


@dataclass(frozen=True)
class Layout:
    """What a generation of the format writes besides what all of them do."""

    name: str
    has_name: bool = False
    """Whether the file begins with a scenario id."""
    has_ego: bool = False
    """Whether the index of the ego and those of tracks to predict come before the counts, and the
    number of the map at the head of each entity."""
    has_ids: bool = True
    """Whether each entity has an id."""


LAYOUTS = (
    Layout("with ids"),
    Layout("without ids", has_ids=False),
    Layout("with an ego", has_ego=True),
    Layout("with a scenario id", has_name=True, has_ego=True),
)


@dataclass(frozen=True)
class Header:
    """What comes before the entities."""

    scenario_id: str
    ego: int | None
    objects: int
    roads: int
    end: int
    """Word at which the first entity begins."""


@dataclass(frozen=True)
class Entity:
    """Where an object or road lies in the file."""

    type: int
    id: int
    count: int
    """Frames or points."""
    start: int
    """Word at which its arrays begin."""


def sniff(head: bytes, path: Path) -> bool:
    """Whether a file named .bin begins with counts and a first entity that are plausible."""
    if path.suffix.lower() != ".bin":
        return False
    words = np.frombuffer(head[: len(head) // 4 * 4], "<i4")
    for layout in LAYOUTS:
        header = _header(words, layout)
        if header is not None:
            first = _entity(words, header.end, 0, header, layout)
            types = _AGENT_TYPES if header.objects else _MAP_TYPES
            if isinstance(first, Entity) and first.type in types:
                return True
    return False


def read(path: Path) -> Iterator[Scenario | ScenarioError]:
    """The one scenario of a file; see `Reader.read`."""
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ScenarioError(
            f"{path}: a PufferDrive file of {size} bytes, at most {MAX_BYTES} are plausible"
        )
    data = path.read_bytes()
    if len(data) % 4:
        raise ScenarioError(
            f"{path}: truncated: {len(data)} bytes are no multiple of 4, of which all numbers are"
        )
    yield assemble(_raw_scenario(np.frombuffer(data, "<i4"), path))


def _raw_scenario(words: np.ndarray, path: Path) -> RawScenario:
    header, layout, entities = _find_layout(words, path)
    notes = ["PufferDrive files have no lights, lane graph or speed limits, and coarser maps"]
    if not header.objects:
        raise ScenarioError(f"{path}: no objects, so there is no ego to drive")
    tracks = _raw_tracks(words, entities[: header.objects], layout, path, notes)
    elements = _raw_elements(words, entities[header.objects :], layout, notes)
    heights = [tracks.xyz[tracks.valid, 2], *(e.points[:, 2] for e in elements)]
    has_z = any(z.any() for z in heights)
    if not has_z:
        notes.append("has no heights")
    orient_edges(elements, None, notes, str(path))
    return RawScenario(
        id=header.scenario_id or path.stem,
        source=str(path),
        dataset="womd",
        license="womd-nc",
        tracks=tracks,
        elements=elements,
        lights=[],
        ego=find_ego(header.ego, tracks, path, notes),
        has_z=has_z,
        infer_links=True,
        notes=notes,
    )


def _header(words: np.ndarray, layout: Layout) -> Header | None:
    """The numbers before the entities; None where they are implausible."""
    at, name, ego = 0, "", None
    if layout.has_name:
        raw = words[:NAME_WORDS].tobytes().rstrip(b"\0")
        if not raw or not raw.isascii() or not raw.decode("ascii").isprintable():
            return None
        at, name = NAME_WORDS, raw.decode("ascii")
    if layout.has_ego:
        if len(words) < at + 2 or not 0 <= words[at + 1] <= MAX_OBJECTS:
            return None
        ego = int(words[at]) if words[at] >= 0 else None
        at += 2 + int(words[at + 1])
    if len(words) < at + 2:
        return None
    objects, roads = int(words[at]), int(words[at + 1])
    plausible = 0 <= objects <= MAX_OBJECTS and 0 <= roads <= MAX_ROADS and objects + roads > 0
    return Header(name, ego, objects, roads, at + 2) if plausible else None


def _entity(
    words: np.ndarray, at: int, number: int, header: Header, layout: Layout
) -> Entity | str:
    """The entity whose head is at word `at`, or what is wrong there."""
    size = 2 + layout.has_ids + layout.has_ego
    if at + size > len(words):
        return "begins beyond the end of the file"
    head = words[at : at + size].tolist()
    limit = MAX_FRAMES if number < header.objects else MAX_POINTS
    if not 0 <= head[-1] <= limit:
        return f"claims {head[-1]} points or frames, at most {limit} are plausible"
    return Entity(head[layout.has_ego], head[-2] if layout.has_ids else 0, head[-1], at + size)


def _find_layout(words: np.ndarray, path: Path) -> tuple[Header, Layout, list[Entity]]:
    """The layout in which the entities end exactly where the file ends."""
    farthest, reason = -1, "the counts at its beginning are implausible"
    for layout in LAYOUTS:
        header = _header(words, layout)
        if header is None:
            continue
        at, entities, fault = header.end, [], ""
        for number in range(header.objects + header.roads):
            entity = _entity(words, at, number, header, layout)
            if isinstance(entity, Entity):
                rows = OBJECT_ROWS if number < header.objects else ROAD_ROWS
                end = entity.start + rows * entity.count + TAIL
                if end <= len(words):
                    entities.append(entity)
                    at = end
                    continue
                entity = f"needs {4 * (end - len(words))} bytes more than the file has"
            total = header.objects + header.roads
            fault = f"entity {number} of {total}, at byte {4 * at}, {entity}"
            break
        if not fault and at < len(words):
            fault = f"its entities end at byte {4 * at} of {4 * len(words)}"
        if not fault:
            return header, layout, entities
        if len(entities) > farthest:
            farthest, reason = len(entities), f"read {layout.name}, {fault}"
    raise ScenarioError(f"{path}: in no layout of PufferDrive files, perhaps truncated: {reason}")


def _raw_tracks(
    words: np.ndarray, objects: list[Entity], layout: Layout, path: Path, notes: list[str]
) -> RawTracks:
    frames = objects[0].count
    for number, entity in enumerate(objects):
        if entity.count != frames:
            raise ScenarioError(
                f"{path}: object {number} has {entity.count} frames, but object 0 has {frames}"
            )
    ends = [entity.start + OBJECT_ROWS * frames for entity in objects]
    blocks = np.stack(
        [
            words[e.start : end].reshape(OBJECT_ROWS, frames)
            for e, end in zip(objects, ends, strict=True)
        ]
    )
    boxes = np.stack([words[end : end + 3] for end in ends]).view("<f4").astype(np.float64)
    values = blocks.view("<f4").astype(np.float64)  # x, y, z, velocity x, y, z, heading
    valid = blocks[:, 7] > 0
    if not frames or not valid.any():
        raise ScenarioError(f"{path}: no object is valid in any frame, so there is no ego to drive")
    last = int(np.flatnonzero(valid.any(0))[-1]) + 1
    if last < frames:
        notes.append(f"left out the last {frames - last} frames, in which no object is valid")
    yaw = values[:, 6]
    if in_degrees(yaw[valid], values.transpose(0, 2, 1)[valid, 3:5]):
        yaw = np.deg2rad(yaw)
        notes.append("headings are in degrees")
    return RawTracks(
        xyz=values[:, 0:3, :last].transpose(0, 2, 1),
        yaw=yaw[:, :last],
        velocity=values[:, 3:5, :last].transpose(0, 2, 1),
        size=boxes[:, None, [1, 0, 2]],
        valid=valid[:, :last],
        type=np.array([_AGENT_TYPES.get(e.type, AgentType.UNKNOWN) for e in objects]),
        id=np.array([e.id if layout.has_ids else i for i, e in enumerate(objects)], np.int64),
    )


def _raw_elements(
    words: np.ndarray, roads: list[Entity], layout: Layout, notes: list[str]
) -> list[RawElement]:
    elements = []
    for number, road in enumerate(roads):
        kind = _MAP_TYPES.get(road.type)
        if kind is not None:
            axes = words[road.start : road.start + ROAD_ROWS * road.count].view("<f4")
            points = axes.reshape(ROAD_ROWS, road.count).T.astype(np.float64)
            elements.append(RawElement(kind, road.id if layout.has_ids else -1 - number, points))
    if len(elements) < len(roads):
        notes.append(f"left out {len(roads) - len(elements)} map elements of unknown type")
    return elements
