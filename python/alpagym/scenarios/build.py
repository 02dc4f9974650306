"""A scenario from plain arrays, for readers of users and for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from alpagym.scenarios.assemble import RawLight, RawScenario, RawTracks, assemble
from alpagym.scenarios.road_map import RawElement
from alpagym.scenarios.scenario import AgentType, Scenario, ScenarioError


def build_scenario(
    name: str,
    source: str | Path,
    *,
    xy: ArrayLike,
    yaw: ArrayLike,
    velocity: ArrayLike | None = None,
    size: ArrayLike | None = None,
    types: ArrayLike = AgentType.VEHICLE,
    ids: ArrayLike | None = None,
    ego: int = 0,
    dt: float = 0.1,
    elements: Sequence[RawElement] = (),
    lights: Sequence[RawLight] = (),
    dataset: str = "unknown",
    license: str = "unknown",
) -> Scenario:
    """A checked scenario of A agents over T frames, in source coordinates of any size.

    Velocities that are not given follow from positions, sizes from types, lane links that no lane
    names from where lanes end and start.

    Args:
        name: its id, the same whenever the drive is read.
        source: the file, for messages.
        xy: box centers [m], [A, T, 2], or [A, T, 3] with heights; NaN where an agent is absent.
        yaw: counter-clockwise from +x [rad], [A, T].
        velocity: [m/s], [A, T, 2].
        size: length, width and height [m], [A, 3], or [A, T, 3] where a source measures it by
            frame; NaN where unknown.
        types: `AgentType`, [A] or one for all.
        ids: of the agents in the source, [A]; their places in the arrays by default.
        ego: index of the ego.
        dt: time between frames [s].
        elements: the map; road edges have the drivable area on their left.
        lights: states of controlled lanes, [T] each.
        dataset: name of the data set.
        license: tag that travels into checkpoints and exports.

    Raises:
        ScenarioError: shapes that do not fit each other, or a record that cannot be used; one
            sentence.
    """
    places = _array(xy, f"{source}: xy")
    if places.ndim != 3 or places.shape[2] not in (2, 3):
        raise ScenarioError(f"{source}: xy: expected [A, T, 2 or 3], got {list(places.shape)}")
    agents, frames = places.shape[:2]
    has_z = places.shape[2] == 3
    headings = _shaped(yaw, (agents, frames), f"{source}: yaw")
    boxes = np.full((agents, 3), np.nan) if size is None else _array(size, f"{source}: size")
    if boxes.shape not in ((agents, 3), (agents, frames, 3)):
        raise ScenarioError(f"{source}: size: expected [{agents}, 3], got {list(boxes.shape)}")
    boxes = boxes[:, None] if boxes.ndim == 2 else boxes
    motion = (
        np.full((agents, frames, 2), np.nan)
        if velocity is None
        else _shaped(velocity, (agents, frames, 2), f"{source}: velocity")
    )
    valid = np.isfinite(places).all(2) & np.isfinite(headings)
    kinds = _array(types, f"{source}: types")
    kinds = _shaped(kinds if kinds.ndim else np.full(agents, kinds), (agents,), f"{source}: types")
    if not np.isin(kinds, list(AgentType)).all():
        raise ScenarioError(f"{source}: types: expected AgentType, got {kinds.tolist()}")
    numbers = np.arange(agents) if ids is None else np.asarray(ids)
    if numbers.shape != (agents,) or numbers.dtype.kind not in "iu":
        raise ScenarioError(
            f"{source}: ids: expected integers [{agents}], got {numbers.dtype}{list(numbers.shape)}"
        )
    if not has_z:
        places = np.concatenate([places, np.zeros((agents, frames, 1))], axis=2)
    tracks = RawTracks(
        xyz=places,
        yaw=headings,
        velocity=motion,
        size=boxes,
        valid=valid,
        type=kinds.astype(np.uint8),
        id=numbers.astype(np.int64),
    )
    return assemble(
        RawScenario(
            id=name,
            source=str(source),
            dataset=dataset,
            license=license,
            tracks=tracks,
            elements=list(elements),
            lights=list(lights),
            ego=ego,
            dt=dt,
            has_z=has_z,
            infer_links=not any(e.successors for e in elements),
        )
    )


def _array(value: ArrayLike, what: str) -> np.ndarray:
    try:
        return np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ScenarioError(f"{what}: expected an array of numbers") from error


def _shaped(value: ArrayLike, shape: tuple[int, ...], what: str) -> np.ndarray:
    array = _array(value, what)
    if array.shape != shape:
        raise ScenarioError(f"{what}: expected {list(shape)}, got {list(array.shape)}")
    return array
