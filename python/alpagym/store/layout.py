"""What a shard holds: N scenarios, each array of theirs joined with those of the others.

Schema 1. Row i of `offsets` says where scenario i begins in each pool of `POOLS`, row N how long
the pools are. `FIELDS` says which array is cut by which pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alpagym.scenarios.scenario import Lights, RoadMap, Routes, Scenario, Tracks

SCHEMA = 1
POOLS = (
    *("agents", "cells", "mask_bytes", "points", "elements", "links"),
    *("lights", "light_cells", "after_cells", "route_points", "stops"),
)
"""Agents; agents times frames; bytes of their validity; map points, elements and successors;
lights; lights times frames; lights times frames after the record; route points; stops on routes."""
REACH = 20_001.0
"""No coordinate of a track or of the map is farther from the origin [m]; as for readers."""
FAR = 1.0e6
"""No finite value is larger."""


@dataclass(frozen=True)
class Field:
    """One array of a shard."""

    name: str
    dtype: str
    pool: str
    """That its first dimension counts."""
    columns: int = 0
    """Its second dimension; 0 for none."""
    more: int = 0
    """1 where each scenario has one more than its share of the pool: offsets, with both ends."""
    low: float | None = None
    """Lowest and highest value; None where any will do."""
    high: float | None = None
    unknown: bool = False
    """Whether NaN stands for what is not known."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return (self.columns,) if self.columns else ()


FIELDS = (
    Field("tracks.xyz", "<f4", "cells", 3, low=-REACH, high=REACH),
    Field("tracks.yaw", "<f4", "cells", low=-3.1416, high=3.1416),
    Field("tracks.velocity", "<f4", "cells", 2, low=-FAR, high=FAR),
    Field("tracks.valid", "u1", "mask_bytes"),
    Field("tracks.size", "<f4", "agents", 3, low=0.0, high=1000.0),
    Field("tracks.type", "u1", "agents", low=0, high=4),
    Field("tracks.id", "<i8", "agents"),
    Field("map.points", "<f4", "points", 3, low=-REACH, high=REACH),
    Field("map.offsets", "<i4", "elements", more=1, low=0),
    Field("map.type", "u1", "elements", low=0, high=6),
    Field("map.id", "<i8", "elements"),
    Field("map.speed_limit", "<f4", "elements", low=-FAR, high=FAR, unknown=True),
    Field("map.successor_offsets", "<i4", "elements", more=1, low=0),
    Field("map.successors", "<i4", "links", low=0),
    Field("map.left_neighbor", "<i4", "elements", low=-1),
    Field("map.right_neighbor", "<i4", "elements", low=-1),
    Field("lights.lane", "<i4", "lights", low=-1),
    Field("lights.xy", "<f4", "lights", 2, low=-REACH, high=REACH),
    Field("lights.state", "u1", "light_cells", low=0, high=6),
    Field("lights.after", "u1", "after_cells", low=0, high=6),
    Field("routes.points", "<f4", "route_points", 3, low=-2 * REACH, high=2 * REACH),
    Field("routes.offsets", "<i4", "agents", more=1, low=0),
    Field("routes.speed_limit", "<f4", "route_points", low=-FAR, high=FAR, unknown=True),
    Field("routes.log_length", "<f4", "agents", low=0.0, high=FAR),
    Field("routes.stop_offsets", "<i4", "agents", more=1, low=0),
    Field("routes.stop_s", "<f4", "stops", low=-FAR, high=FAR),
    Field("routes.stop_light", "<i4", "stops", low=-2),
    Field("flags", "<u2", "agents"),
)
"""Arrays that are cut by pools, in the order in which their classes have them."""
FACTS = {
    "origin": ("<f8", 3),
    "dt": ("<f8", 0),
    "frames": ("<i4", 0),
    "frames_after": ("<i4", 0),
    "start_frame": ("<i4", 0),
    "ego": ("<i4", 0),
    "has_z": ("u1", 0),
}
"""Arrays with a row for each scenario: type and columns. `frames_after` is the length of
`Lights.after`, -1 for None."""


def mask_bytes(frames: Any) -> Any:
    """Bytes that the validity of one agent takes, one bit a frame, the first in the highest.

    Takes a number of frames, or an array of them.
    """
    return (frames + 7) // 8


def joined(scenarios: Sequence[Scenario]) -> dict[str, np.ndarray]:
    """All arrays of a shard, by name; `offsets` and `FACTS` among them."""
    sizes = np.array([_sizes(s) for s in scenarios], np.int64).reshape(-1, len(POOLS))
    after = [s.lights.after for s in scenarios]
    arrays = {
        "offsets": np.concatenate([np.zeros((1, len(POOLS)), np.int64), np.cumsum(sizes, 0)]),
        "origin": np.array([s.origin for s in scenarios]),
        "dt": np.array([s.dt for s in scenarios]),
        "frames": np.array([s.tracks.num_frames for s in scenarios]),
        "frames_after": np.array([-1 if a is None else a.shape[1] for a in after]),
        "start_frame": np.array([s.start_frame for s in scenarios]),
        "ego": np.array([s.ego for s in scenarios]),
        "has_z": np.array([s.has_z for s in scenarios]),
    }
    for name, (dtype, columns) in FACTS.items():
        shape = (-1, columns) if columns else (-1,)
        arrays[name] = arrays[name].astype(np.dtype(dtype)).reshape(shape)
    for field in FIELDS:
        parts = [_part(s, field) for s in scenarios]
        arrays[field.name] = np.concatenate([np.zeros((0, *field.shape), field.dtype), *parts])
    return arrays


def _sizes(s: Scenario) -> tuple[int, ...]:
    """How much the scenario adds to each of `POOLS`."""
    agents, frames = s.tracks.valid.shape
    lights, after = len(s.lights.lane), s.lights.after
    return (
        *(agents, agents * frames, agents * mask_bytes(frames)),
        *(len(s.map.points), s.map.num_elements, len(s.map.successors)),
        *(lights, lights * frames, 0 if after is None else after.size),
        *(len(s.routes.points), len(s.routes.stop_s)),
    )


def _part(s: Scenario, field: Field) -> np.ndarray:
    """The scenario's share of one array, as rows."""
    of, _, name = field.name.rpartition(".")
    value = getattr(getattr(s, of) if of else s, name)
    if value is None:
        value = np.zeros(0, np.uint8)
    if field.pool == "mask_bytes":
        value = np.packbits(value, axis=1)
    return value.reshape(-1, *field.shape)


class Cutter:
    """Takes scenarios out of the arrays of a shard, which have been checked."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Prepare everything that is the same for all scenarios: taking one out is hot."""
        self._offsets: list[list[int]] = arrays["offsets"].tolist()
        names = ("dt", "frames", "frames_after", "start_frame", "ego", "has_z")
        self._facts = list(zip(*(arrays[name].tolist() for name in names), strict=True))
        self._origin = arrays["origin"]
        self._fields = [(arrays[f.name], POOLS.index(f.pool), f.more) for f in FIELDS]

    def scenario(self, i: int, **told: Any) -> Scenario:
        """Scenario `i`, all of its arrays views but the validity.

        Args:
            i: index.
            told: the attributes that are no arrays: `id`, `dataset`, ...
        """
        begin, end = self._offsets[i], self._offsets[i + 1]
        dt, frames, after, start_frame, ego, has_z = self._facts[i]
        agents, lights = end[0] - begin[0], end[6] - begin[6]
        v = [
            array[begin[pool] + i * more : end[pool] + i * more + more]
            for array, pool, more in self._fields
        ]
        bits = v[3].reshape(agents, mask_bytes(frames))
        v[0] = v[0].reshape(agents, frames, 3)
        v[1] = v[1].reshape(agents, frames)
        v[2] = v[2].reshape(agents, frames, 2)
        v[3] = np.unpackbits(bits, axis=1, count=frames).view(np.bool_)
        state = v[18].reshape(lights, frames)
        later = None if after < 0 else v[19].reshape(lights, after)
        return Scenario(
            dt=dt,
            origin=self._origin[i],
            start_frame=start_frame,
            ego=ego,
            has_z=bool(has_z),
            tracks=Tracks(*v[:7]),
            map=RoadMap(*v[7:16]),
            lights=Lights(v[16], v[17], state, later),
            routes=Routes(*v[20:27]),
            flags=v[27],
            **told,
        )
