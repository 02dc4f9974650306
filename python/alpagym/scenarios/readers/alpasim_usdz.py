"""AlpaSim scenes: a zip archive (.usdz) of one clip, its neural reconstruction and its map.

Of its members are read: the scene id in `metadata.yaml`, poses and box of the recording vehicle in
`rig_trajectories.json`, boxes of the others in `sequence_tracks.json`, and the map as ClipGT tables
in the first of the folders `map_data`, `clipgt` and `fastmap` that there is, or else as OpenDRIVE
in `map.xodr`. Meshes and the checkpoint of the renderer are passed over. Field names are those that
AlpaSim reads (alpasim, src/utils/alpasim_utils/{artifact,scenario}.py); positions are as recorded,
without its smoothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alpagym.scenarios.readers.alpasim_opendrive import opendrive_map
from alpagym.scenarios.readers.clipgt import ELEMENTS, source_map
from alpagym.scenarios.readers.clipgt_tables import MAX_FILE
from alpagym.scenarios.readers.nvidia_map import SourceMap, assemble_clip
from alpagym.scenarios.readers.nvidia_tracks import (
    DEFAULT_BOX,
    TYPES,
    Boxes,
    EgoBox,
    build_tracks,
    no_boxes,
    quaternion_matrices,
)
from alpagym.scenarios.readers.rds_hq_map import parse_json
from alpagym.scenarios.readers.zip_members import Archive, Member, open_archive
from alpagym.scenarios.scenario import AgentType, Scenario, ScenarioError
from alpagym.scenarios.xml_files import MAX_BYTES

METADATA, RIGS, TRACKS = "metadata.yaml", "rig_trajectories.json", "sequence_tracks.json"
MAPS = ("map_data", "clipgt", "fastmap")
"""Folders of the map, the first preferred."""
ROUGH_MAP = "fastmap"
"""The folder of a map whose heights are not those of the ground."""
OPENDRIVE = "map.xodr"
MAX_YAML, MAX_JSON = 2**20, 24 * 2**20
"""Largest members of these kinds [bytes]; JSON takes about twenty times as much memory."""
MAX_TRACKS, MAX_OBSERVATIONS = 5_000, 400_000
_SCENE_ID = re.compile(r"^scene_id:[ \t]*([\"']?)([\w.:-]{1,200})\1[ \t]*(?:#.*)?$", re.MULTILINE)


def sniff(head: bytes, path: Path) -> bool:
    """Whether the file is an archive of a scene, by its name; it may be damaged."""
    return path.suffix.lower() == ".usdz"


def read(path: Path) -> Iterator[Scenario | ScenarioError]:
    """The one scenario of a scene; see `Reader.read`."""
    notes: list[str] = []
    with open_archive(path) as archive:
        scene = _scene_id(archive, notes)
        time, poses, box, base = _rig(archive, notes)
        boxes = _boxes(archive, float(time[0]) if len(time) else 0.0, notes)
        seconds = (time - time[:1]) * 1e-6
        tracks = build_tracks(seconds, poses, box, boxes, str(path), notes)
        made, rough = _map(archive, base, poses[:, :3, 3], notes)
        yield assemble_clip(
            scene, str(path), tracks, made, notes,
            dataset="alpasim", license="nvidia-av", has_z=not rough,
        )  # fmt: skip


def _scene_id(archive: Archive, notes: list[str]) -> str:
    """The scene's name in AlpaSim; that of the file where the archive does not tell."""
    text = ""
    if METADATA in archive.names:
        text = archive.read(METADATA, MAX_YAML).decode("utf-8", "replace")
    found = _SCENE_ID.search(text)
    if found:
        return found[2]
    notes.append(f"{METADATA} gives no scene id: took the name of the file")
    return archive.path.stem


def _json(archive: Archive, name: str) -> tuple[dict[str, Any], str]:
    """A JSON object, and its name for messages."""
    what = f"{archive.path}: member '{name}'"
    record = parse_json(archive.read(name, MAX_JSON), what)
    return _object(record, what), what


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ScenarioError(f"{what} must be a JSON object, got {type(value).__name__}")
    return value


def _list(record: dict[str, Any], name: str, what: str) -> list[Any]:
    value = record.get(name)
    if not isinstance(value, list):
        raise ScenarioError(f"{what}: '{name}' must be a list, got {type(value).__name__}")
    return value


def _array(value: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Numbers of nested lists as float64 of a shape, in which -1 stands for any length."""
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.zeros(())
    if array.size == 0 and 0 in array.shape and -1 in shape:
        return np.zeros([max(n, 0) for n in shape])
    same = array.ndim == len(shape)
    if not same or any(m not in (n, -1) for n, m in zip(array.shape, shape, strict=True)):
        wanted = " x ".join("n" if n < 0 else str(n) for n in shape)
        raise ScenarioError(f"{what} must be {wanted} numbers")
    return array


def _rig(archive: Archive, notes: list[str]) -> tuple[np.ndarray, np.ndarray, EgoBox, Any]:
    """Time stamps [us], [n], rig poses [n, 4, 4], the recording vehicle's box, `T_world_base`."""
    record, what = _json(archive, RIGS)
    rigs = _list(record, "rig_trajectories", what)
    if len(rigs) != 1:
        raise ScenarioError(f"{what}: must hold one rig trajectory, got {len(rigs)}")
    rig = _object(rigs[0], f"{what}: the rig trajectory")
    name = "T_rig_world_timestamps_us"
    time = _array(rig.get(name), (-1,), f"{what}: '{name}'")
    poses = _array(rig.get("T_rig_worlds"), (-1, 4, 4), f"{what}: 'T_rig_worlds'")
    if len(time) != len(poses):
        raise ScenarioError(f"{what}: has {len(poses)} poses at {len(time)} times")
    box = _ego_box(rig.get("rig_bbox"), f"{what}: 'rig_bbox'")
    return time, poses, box, record.get("T_world_base")


def _ego_box(value: Any, what: str) -> EgoBox:
    """The vehicle's box about its rig, or the default, which is AlpaSim's, where none is given."""
    if value is None:
        return DEFAULT_BOX
    record = _object(value, what)
    centroid, size, turn = (
        _array(record.get(name), (3,), f"{what}: '{name}'") for name in ("centroid", "dim", "rot")
    )
    if not (np.abs(turn) < 1e-4).all():
        raise ScenarioError(f"{what} must not be turned, got {turn.tolist()}")
    if not ((size > 0.5) & (size < 20)).all() or not (np.abs(centroid) < 10).all():
        raise ScenarioError(
            f"{what} must be the box of a vehicle, got {size.tolist()} m at {centroid.tolist()}"
        )
    length, width, height = size.tolist()
    x, y, z = centroid.tolist()
    return EgoBox(
        length, width, height, x - length / 2,
        "took the box of the ego from its rig", side=y, bottom=z - height / 2,
    )  # fmt: skip


def _boxes(archive: Archive, start: float, notes: list[str]) -> Boxes:
    """Observations of all other agents, on the clock of the first ego pose."""
    if TRACKS not in archive.names:
        notes.append("no tracks: the ego is alone")
        return no_boxes()
    record, what = _json(archive, TRACKS)
    if len(record) != 1:
        raise ScenarioError(f"{what}: must hold one sequence, got {len(record)}")
    sequence = _object(next(iter(record.values())), f"{what}: the sequence")
    about = _object(sequence.get("tracks_data"), f"{what}: 'tracks_data'")
    cuboids = _object(sequence.get("cuboidtracks_data"), f"{what}: 'cuboidtracks_data'")
    fields = ("tracks_id", "tracks_label_class", "tracks_timestamps_us", "tracks_poses")
    columns = [_list(about, name, what) for name in fields]
    columns.append(_list(cuboids, "cuboids_dims", what))
    counts = [len(column) for column in columns]
    if len(set(counts)) != 1 or counts[0] > MAX_TRACKS:
        raise ScenarioError(
            f"{what}: needs as many ids, labels, times, poses and sizes, {MAX_TRACKS} at most, "
            f"got {counts}"
        )
    ids = [str(name) for name in columns[0]]
    if len(set(ids)) < len(ids):
        raise ScenarioError(f"{what}: two tracks share an id")
    agent, times, poses, sizes = [], [np.zeros(0)], [np.zeros((0, 7))], [np.zeros((0, 3))]
    total = 0
    for i, (stamps, placed, size) in enumerate(zip(*columns[2:], strict=True)):
        track = f"{what}: track '{ids[i][:40]}'"
        own = _array(stamps, (-1,), f"{track}: its times")
        pose = _array(placed, (-1, 7), f"{track}: its poses")
        if len(own) != len(pose):
            raise ScenarioError(f"{track} has {len(pose)} poses at {len(own)} times")
        total += len(own)
        if total > MAX_OBSERVATIONS:
            raise ScenarioError(f"{what}: holds more than {MAX_OBSERVATIONS} poses")
        times.append((own - start) * 1e-6)
        poses.append(pose)
        sizes.append(np.tile(_array(size, (3,), f"{track}: its size"), (len(own), 1)))
        agent += [i] * len(own)
    return _collect(ids, columns[1], np.array(agent, int), times, poses, sizes, notes)


def _collect(
    ids: list[str],
    labels: list[Any],
    agent: np.ndarray,
    times: list[np.ndarray],
    poses: list[np.ndarray],
    sizes: list[np.ndarray],
    notes: list[str],
) -> Boxes:
    """The observations of all tracks [n] in one."""
    time, pose, size = np.concatenate(times), np.concatenate(poses), np.concatenate(sizes)
    matrices = quaternion_matrices(pose[:, 3:])
    good = np.isfinite(pose).all(1) & np.isfinite(matrices).all((1, 2)) & np.isfinite(time)
    if not good.all():
        notes.append(f"left out {(~good).sum()} poses that are not finite")
    words = [str(label).lower() for label in labels]
    if other := sum(word not in TYPES for word in words):
        notes.append(f"took {other} tracks of unlisted labels as other things")
    return Boxes(
        agent[good],
        time[good],
        pose[good, :3],
        np.arctan2(matrices[good, 1, 0], matrices[good, 0, 0]),
        size[good],
        ids,
        [TYPES.get(word, AgentType.OTHER) for word in words],
    )


def _map(
    archive: Archive, base: Any, drive: np.ndarray, notes: list[str]
) -> tuple[SourceMap, bool]:
    """The map around a drive [n, 3], and whether its heights are not to be used."""
    for folder in MAPS:
        tables: dict[str, list[str]] = {}
        for name in archive.names:
            if name.startswith(f"{folder}/") and name.endswith(".parquet") and name.count("/") == 1:
                element = name.removesuffix(".parquet").rpartition("/")[2].rpartition(".")[2]
                tables.setdefault(element, []).append(name)
        if not {"lane", "road_boundary"} & set(tables):
            continue
        double = [element for element in ELEMENTS if len(tables.get(element, ())) > 1]
        if double:
            raise ScenarioError(f"{archive.path}: folder '{folder}' has two maps ({double[0]})")
        members = {
            element: Member(archive, tables.get(element, [""])[0], MAX_FILE) for element in ELEMENTS
        }
        rough = folder == ROUGH_MAP
        if rough:
            notes.append("dropped heights: those of this map are not those of the ground")
        return source_map(members, notes), rough
    if OPENDRIVE in archive.names and np.isfinite(drive).all() and len(drive):
        notes.append("dropped heights: the map is OpenDRIVE, of which none are read")
        member = Member(archive, OPENDRIVE, MAX_BYTES)
        if base is not None:
            base = _array(base, (4, 4), f"{archive.path}: member '{RIGS}': 'T_world_base'")
        return opendrive_map(member, base, drive, notes), True
    notes.append("no map: the archive has none")
    return SourceMap(), False
