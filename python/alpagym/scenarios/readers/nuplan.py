"""nuPlan logs: an SQLite database per log, and a GeoPackage per city with its map.

Each row of the table `scene`, up to 20 s of a log, becomes a scenario; scenes follow each other
without overlap, so a log is covered once. Sweeps that belong to no scene, or to one of more than
30 s, are cut into windows of 20 s. (The devkit's scenarios, 15 s or so around each moment that a
tag names, overlap by the hundred.) The id is the token of the scene, or that of the first lidar
sweep of a window, in hexadecimal as the devkit prints them; the kind is the scenario tag that most
sweeps of it bear. The route goes on along the scene's roadblocks where it names them.

The map is looked for in the folder that NUPLAN_MAPS_ROOT names, in `maps` under NUPLAN_DATA_ROOT,
and in `maps` beside or above the log, as the dataset is laid out. Table and column names are those
of the devkit's documentation (nuplan-devkit, docs/nuplan_schema.md). Heights are dropped, because
maps have none.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alpagym.scenarios.assemble import RawLight, RawScenario, assemble
from alpagym.scenarios.polyline import drop_duplicates
from alpagym.scenarios.readers.nuplan_map import NuplanMap, is_map, read_map
from alpagym.scenarios.readers.nuplan_tracks import DT, Ego, read_ego, read_types, scene_tracks
from alpagym.scenarios.readers.sqlite_tables import MAGIC, Database, number, open_database, token
from alpagym.scenarios.scenario import AgentType, LightState, Scenario, ScenarioError

MAX_SWEEPS = 200_000
"""Most lidar sweeps of a log; a quarter of an hour has 18 000."""
MAX_SCENE_SWEEPS = 2_000
MAX_ROWS = 500_000
"""Most rows of lights of a scene, and of tags of a log."""
MAX_SCENE, WINDOW = 30.0, 20.0
"""A longer scene is cut into windows, and how long these are [s]."""
SNAP = 0.06
"""A frame takes the lights of a sweep this near [s]."""
LIGHTS = {
    "green": LightState.GREEN,
    "yellow": LightState.YELLOW,
    "red": LightState.RED,
}
"""Other words, in practice "unknown", are `UNKNOWN`."""
_TABLES = (b"lidar_pc", b"ego_pose", b"lidar_box")
_INDEX = re.compile(r"nuplan-maps-v[\d.]+\.json")
_LAYER = re.compile(r"\w+\.(npy|npy\.npz|tif)", re.IGNORECASE)
"""A layer of a map as pixels, beside its GeoPackage."""
_SENSOR = re.compile(r"sensor_blobs/[^/]+/(CAM_\w+/\w+\.jpg|MergedPointCloud/\w+\.pcd)")
_NAME = re.compile(r"\w[\w-]{0,80}")


def sniff(head: bytes, path: Path) -> bool:
    """Whether the file is an SQLite database that is no GeoPackage, by magic or by its name."""
    if path.suffix.lower() == ".gpkg" or head[68:72] == b"GPKG":
        return False
    return head.startswith(MAGIC) or path.suffix.lower() == ".db"


def part(path: Path) -> bool:
    """Whether the file is a map, a layer of one, or what a sensor of a log recorded."""
    if path.suffix == ".gpkg":
        return path.name == "map.gpkg" or is_map(path)
    if path.suffix == ".json":
        return _INDEX.fullmatch(path.name) is not None
    if _LAYER.fullmatch(path.name):
        return (path.parent / "map.gpkg").is_file()
    return _SENSOR.search("/".join(path.parts[-4:])) is not None


def inputs(path: Path) -> list[Path]:
    """The map of a log."""
    with open_database(path) as database:
        return [_find_map(path, _map_names(database))]


def read(path: Path) -> Iterator[Scenario | ScenarioError]:
    """A scenario for each scene of a log; see `Reader.read`."""
    with open_database(path) as database:
        log = _read_log(database)
        types = read_types(database)
        city = read_map(_find_map(path, log.names), log.ego.xyz[:, :2])
        for scene in log.scenes:
            try:
                yield _scenario(database, log, scene, types, city)
            except ScenarioError as error:
                yield error


@dataclass
class _Scene:
    """A run of lidar sweeps that becomes a scenario."""

    id: str
    rows: np.ndarray
    """Indices of its sweeps, [n]."""
    roadblocks: set[int]
    """Those of its mission route."""


@dataclass
class _Log:
    """What is read once for all scenes of a log."""

    names: list[str]
    """By which the map may be called."""
    sweeps: list[str]
    """Tokens in order of time, [n]."""
    ego: Ego
    scenes: list[_Scene]
    tags: dict[str, list[str]]
    """Scenario tags by sweep."""


def _read_log(database: Database) -> _Log:
    path = database.path
    if missing := [t.decode() for t in _TABLES if t.decode() not in database.tables]:
        raise ScenarioError(f"{path}: no nuPlan log: the database has no table '{missing[0]}'")
    columns = ("timestamp", "token", "scene_token", "ego_pose_token")
    sweeps = [
        (number(stamp), token(own), token(scene), token(pose))
        for stamp, own, scene, pose in database.rows("lidar_pc", columns, limit=MAX_SWEEPS)
    ]
    # One sweep for each time, whatever order the rows have.
    sweeps = [sweep for sweep in {s[0]: s for s in sorted(sweeps)}.values() if sweep[0] >= 0]
    if not sweeps:
        raise ScenarioError(f"{path}: the log has no lidar sweeps, so nothing was recorded")
    stamps = np.array([s[0] for s in sweeps], np.int64)
    ego = read_ego(database, stamps, [s[3] for s in sweeps])
    tokens = [s[1] for s in sweeps]
    return _Log(
        _map_names(database),
        tokens,
        ego,
        _scenes(stamps, tokens, [s[2] for s in sweeps], _roadblocks(database)),
        _tags(database),
    )


def _scenes(
    stamps: np.ndarray, tokens: list[str], scenes: list[str], roadblocks: dict[str, set[int]]
) -> list[_Scene]:
    """Scenes in order of time; sweeps without one in windows."""
    found: dict[str, list[int]] = {}
    for row, scene in enumerate(scenes):
        found.setdefault(scene, []).append(row)
    result = []
    for name, rows in found.items():
        seconds = (stamps[rows] - stamps[rows[0]]) * 1e-6
        route = roadblocks.get(name, set())
        if name and seconds[-1] <= MAX_SCENE:
            result.append(_Scene(name, np.array(rows), route))
            continue
        windows = np.split(np.array(rows), np.flatnonzero(np.diff(seconds // WINDOW)) + 1)
        result += [_Scene(tokens[w[0]], w, route) for w in windows]
    return sorted(result, key=lambda scene: int(scene.rows[0]))


def _roadblocks(database: Database) -> dict[str, set[int]]:
    """Ids of the roadblocks on the mission route of each scene, by its token."""
    if not {"token", "roadblock_ids"} <= set(database.columns("scene")):
        return {}
    rows = database.rows("scene", ("token", "roadblock_ids"), limit=10_000)
    # The documentation separates them by commas, the devkit's code by spaces.
    return {token(key): {number(i) for i in re.split(r"[,\s]+", str(ids))} for key, ids in rows}


def _tags(database: Database) -> dict[str, list[str]]:
    """Scenario tags by sweep."""
    found: dict[str, list[str]] = {}
    if {"lidar_pc_token", "type"} <= set(database.columns("scenario_tag")):
        for key, kind in database.rows("scenario_tag", ("lidar_pc_token", "type"), limit=MAX_ROWS):
            found.setdefault(token(key), []).append(str(kind)[:80])
    return found


def _map_names(database: Database) -> list[str]:
    """What the log calls its map: by its version and by its place."""
    wanted = tuple(c for c in ("map_version", "location") if c in database.columns("log"))
    row = next(database.rows("log", wanted, limit=1), ()) if wanted else ()
    names = [str(value).removesuffix(".gpkg") for value in row if isinstance(value, str)]
    known = list(dict.fromkeys(name for name in names if _NAME.fullmatch(name)))
    if not known:
        raise ScenarioError(f"{database.path}: table 'log' does not name the map of the log")
    return known


def _find_map(path: Path, names: list[str]) -> Path:
    """The map of a log.

    Raises:
        ScenarioError: that says what to set, if there is none.
    """
    roots = [Path(folder) for folder in (os.environ.get("NUPLAN_MAPS_ROOT"),) if folder]
    roots += [Path(f) / "maps" for f in (os.environ.get("NUPLAN_DATA_ROOT"),) if f]
    for folder in list(path.resolve().parents)[:5]:
        roots += [folder / "maps", folder / "nuplan-maps-v1.0", folder]
    for root in roots:
        for name in names:
            versions = [p for p in root.glob(f"{name}/*/map.gpkg") if p.is_file()]
            if versions:
                return max(versions, key=lambda p: _version(p.parent.name))
            for near in (root / name / "map.gpkg", root / f"{name}.gpkg"):
                if near.is_file():
                    return near
    lone = path.parent / "map.gpkg"
    if lone.is_file():
        return lone
    raise ScenarioError(
        f"{path}: its map, {names[0]}/<version>/map.gpkg, was not found: set NUPLAN_MAPS_ROOT to "
        "the folder of nuPlan's maps"
    )


def _version(text: str) -> tuple[int, ...]:
    """A version to be compared with others."""
    return tuple(int(word) for word in re.findall(r"\d{1,9}", text))


def _scenario(
    database: Database,
    log: _Log,
    scene: _Scene,
    types: dict[str, AgentType],
    city: NuplanMap,
) -> Scenario:
    """The scenario of one scene."""
    source = f"{database.path}: scene {scene.id}"
    ego = log.ego.part(scene.rows)
    if len(scene.rows) > MAX_SCENE_SWEEPS:
        raise ScenarioError(
            f"{source}: has {len(scene.rows)} sweeps, at most {MAX_SCENE_SWEEPS} are read"
        )
    if len(scene.rows) < 2:
        raise ScenarioError(f"{source}: a record needs 2 lidar sweeps or more, got 1")
    notes = ["dropped heights: the map has none"]
    sweeps = {log.sweeps[row]: i for i, row in enumerate(scene.rows)}
    tracks = scene_tracks(database, ego, sweeps, types, notes)
    elements = city.around(drop_duplicates(ego.xyz[:, :2], 1.0), notes)
    seconds = (ego.stamps - ego.stamps[0]) * 1e-6
    lights = _lights(database, city, sweeps, ego.stamps, seconds, tracks.valid.shape[1])
    scenario = assemble(
        RawScenario(
            id=scene.id,
            source=source,
            dataset="nuplan",
            license="nuplan-nc",
            tracks=tracks,
            elements=elements,
            lights=lights,
            ego=0,
            dt=DT,
            has_z=False,
            mission={lane for lane, block in city.blocks.items() if block in scene.roadblocks},
            notes=notes,
        )
    )
    tags = Counter(tag for sweep in sweeps for tag in sorted(set(log.tags.get(sweep, ()))))
    if tags:
        scenario.kind = min(tags, key=lambda tag: (-tags[tag], tag))
    return scenario


def _lights(
    database: Database,
    city: NuplanMap,
    sweeps: dict[str, int],
    stamps: np.ndarray,
    seconds: np.ndarray,
    num_frames: int,
) -> list[RawLight]:
    """The light of each lane connector that has one in the scene, at its start."""
    names = ("lidar_pc_token", "lane_connector_id", "status")
    if not set(names) <= set(database.columns("traffic_light_status")):
        return []
    grid = DT * np.arange(num_frames)
    after = np.clip(np.searchsorted(seconds, grid), 1, max(len(seconds) - 1, 1))
    near = np.where(grid - seconds[after - 1] < seconds[after] - grid, after - 1, after)
    close = np.abs(seconds[near] - grid) < SNAP
    where = "lidar_pc_token IN (SELECT token FROM lidar_pc WHERE timestamp BETWEEN ? AND ?)"
    span = (int(stamps[0]), int(stamps[-1]))
    states: dict[int, np.ndarray] = {}
    for key, connector, status in database.rows(
        "traffic_light_status", names, where, span, limit=MAX_ROWS
    ):
        lane = city.connectors.get(number(connector))
        if lane is None or (sweep := sweeps.get(token(key))) is None:
            continue
        shown = states.setdefault(lane, np.zeros(len(seconds), np.uint8))
        shown[sweep] = LIGHTS.get(str(status).lower(), LightState.UNKNOWN)
    nowhere = np.full(2, np.nan)  # the start of the lane
    return [
        RawLight(lane, nowhere, np.where(close, shown[near], LightState.ABSENT))
        for lane, shown in sorted(states.items())
    ]
