"""One scenario on the host, in NumPy: a map, recorded tracks, traffic lights, routes and a license.

Frames: `world` is x east, y north, z up, in meters, shifted by `Scenario.origin` (float64) so that
coordinates stay small enough for float32. Yaw is counter-clockwise from +x in [-pi, pi). Box poses
are box centers. Whatever stands under an invalid frame is zero; the mask is the only truth.

Readers build these; `batch.py` packs many of them for the device. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

ROUTE_SPACING = 2.0
"""Arc length between two route points [m]; point i of a route lies at s = i * ROUTE_SPACING."""


EGO_MARK = "/ego-"
"""Between a recording's id and the vehicle that is the ego of a further drive of it."""
EDIT_MARK = "/edit-"
"""Between a scenario's id and what tells an edited copy of it."""


def recording_of(id: str) -> str:
    """Id of the recording that the drive of this id is one of."""
    return id.split(EGO_MARK)[0].split(EDIT_MARK)[0]


def key_of(id: str) -> int:
    """63 bits of an id, from which the random numbers of its scenario are derived."""
    digest = hashlib.blake2b(id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class ScenarioError(ValueError):
    """A scenario cannot be used; the message is one sentence: the source and the reason."""


class AgentType(IntEnum):
    """What an agent is."""

    UNKNOWN = 0
    VEHICLE = 1
    PEDESTRIAN = 2
    CYCLIST = 3
    OTHER = 4


class MapType(IntEnum):
    """What a map element is."""

    LANE = 0
    ROAD_LINE = 1
    ROAD_EDGE = 2
    CROSSWALK = 3
    STOP_SIGN = 4
    SPEED_BUMP = 5
    DRIVEWAY = 6


class LightState(IntEnum):
    """What a traffic light shows to one lane."""

    ABSENT = 0
    UNKNOWN = 1
    RED = 2
    YELLOW = 3
    GREEN = 4
    FLASHING_RED = 5
    FLASHING_YELLOW = 6


class AgentFlag(IntEnum):
    """Bits of `Scenario.flags`."""

    PARKED = 1
    """Moves less than 0.5 m over the whole record."""
    STARTS_IN_COLLISION = 2
    """Its box overlaps another box at the start frame."""
    STARTS_OFFROAD = 4
    """Its box crosses a road edge, or lies beyond one, at the start frame."""
    HAS_GAPS = 8
    """Vanishes and reappears in the record."""
    OVERLAPS_IN_LOG = 16
    """Its recorded box overlaps another recorded box in some frame."""
    OFFROAD_IN_LOG = 32
    """Its recorded box is off-road in some frame."""


@dataclass
class Tracks:
    """Recorded states of A agents over T frames."""

    xyz: np.ndarray
    """Box centers [m], float32 [A, T, 3]."""
    yaw: np.ndarray
    """Headings in [-pi, pi) [rad], float32 [A, T]."""
    velocity: np.ndarray
    """World-frame velocities [m/s], float32 [A, T, 2]."""
    valid: np.ndarray
    """Whether the agent was observed, bool [A, T]."""
    size: np.ndarray
    """Length, width, height, constant over time [m], float32 [A, 3]."""
    type: np.ndarray
    """`AgentType`, uint8 [A]."""
    id: np.ndarray
    """Identifier in the source, int64 [A]."""

    @property
    def num_agents(self) -> int:
        return self.valid.shape[0]

    @property
    def num_frames(self) -> int:
        return self.valid.shape[1]


@dataclass
class RoadMap:
    """L map elements as polylines over one pool of P points.

    Road edges are directed: the drivable area lies on their left. Polygons (crosswalks, speed
    bumps,
    driveways) are closed: their first point is repeated at the end. Consecutive points of an
    element
    are at least 1 mm apart.
    """

    points: np.ndarray
    """[m], float32 [P, 3]."""
    offsets: np.ndarray
    """Element l owns points[offsets[l]:offsets[l + 1]], int32 [L + 1]."""
    type: np.ndarray
    """`MapType`, uint8 [L]."""
    id: np.ndarray
    """Identifier in the source, int64 [L]."""
    speed_limit: np.ndarray
    """Of lanes [m/s], NaN where unknown, float32 [L]."""
    successor_offsets: np.ndarray
    """Element l leads to successors[successor_offsets[l]:successor_offsets[l + 1]], int32 [L +
    1]."""
    successors: np.ndarray
    """Element indices, int32 [K]."""
    left_neighbor: np.ndarray
    """Element index of the lane to the left that runs the same way, or -1, int32 [L]."""
    right_neighbor: np.ndarray
    """Likewise to the right, int32 [L]."""

    @property
    def num_elements(self) -> int:
        return len(self.type)

    def polyline(self, element: int) -> np.ndarray:
        """Points of one element [m], float32 [n, 3]."""
        return self.points[self.offsets[element] : self.offsets[element + 1]]

    def successors_of(self, element: int) -> np.ndarray:
        return self.successors[
            self.successor_offsets[element] : self.successor_offsets[element + 1]
        ]


@dataclass
class Lights:
    """K controlled lanes over T frames."""

    lane: np.ndarray
    """Element index of the controlled lane, or -1 where the source names none, int32 [K]."""
    xy: np.ndarray
    """Stop point [m], float32 [K, 2]."""
    state: np.ndarray
    """`LightState`, uint8 [K, T]; ABSENT where no state was seen (which is not green)."""
    after: np.ndarray | None = None
    """What follows the record and then repeats, uint8 [K, P]; None where nothing is known."""


@dataclass
class Routes:
    """The path each agent is meant to follow, resampled every `ROUTE_SPACING` meters.

    A route begins at the first valid recorded position, follows the recorded path and goes on along
    the lane graph. An agent without a path (parked) has a route of no points.
    """

    points: np.ndarray
    """[m], float32 [Q, 3]."""
    offsets: np.ndarray
    """Agent a owns points[offsets[a]:offsets[a + 1]], int32 [A + 1]."""
    speed_limit: np.ndarray
    """At each route point [m/s], NaN where unknown, float32 [Q]."""
    log_length: np.ndarray
    """Arc length at the last valid recorded position [m], float32 [A]; progress 1 is reached
    there."""
    stop_offsets: np.ndarray
    """Agent a meets stops stop_offsets[a]:stop_offsets[a + 1], in order of arc length, int32 [A +
    1]."""
    stop_s: np.ndarray
    """Arc length of the stop line [m], float32 [M]."""
    stop_light: np.ndarray
    """Index into `Lights`, -1 for a stop sign, -2 for a yield line, int32 [M]."""


@dataclass
class Scenario:
    """One recorded or generated situation."""

    id: str
    """Stable identifier; the same drive has the same id whatever format it was read from."""
    source: str
    """File or generator it came from, for messages."""
    dataset: str
    """e.g. "womd", "procedural"."""
    license: str
    """License tag that travels into checkpoints, e.g. "womd-nc", "synthetic-cc0"."""
    dt: float
    """Time between frames [s]."""
    origin: np.ndarray
    """What was subtracted from source coordinates [m], float64 [3]."""
    start_frame: int
    """Frame at which an episode starts."""
    ego: int
    """Index of the ego agent."""
    tracks: Tracks
    map: RoadMap
    lights: Lights
    routes: Routes
    flags: np.ndarray
    """Bits of `AgentFlag`, uint16 [A]."""
    has_z: bool = True
    """Whether z is real; otherwise it is zero everywhere."""
    kind: str = ""
    """What happens here, e.g. "roundabout"; empty when the source does not say."""
    notes: list[str] = field(default_factory=list)
    """What the reader repaired or left out, one clause each."""

    @property
    def key(self) -> int:
        """63 bits of the id, from which random numbers are derived (never from a batch index)."""
        return key_of(self.id)

    @property
    def recording(self) -> str:
        """Id of the recording that this drive is one of: what is never split or counted twice."""
        return recording_of(self.id)

    @property
    def num_steps(self) -> int:
        """Steps an episode lasts: the frames recorded after the start frame."""
        return self.tracks.num_frames - 1 - self.start_frame

    def validate(self) -> Scenario:
        """Check shapes, dtypes and values; return self or raise `ScenarioError`."""
        t, m, r, li = self.tracks, self.map, self.routes, self.lights
        a, n = t.valid.shape
        elements = len(m.type)
        expected = {
            "tracks.xyz": (t.xyz, "float32", (a, n, 3)),
            "tracks.yaw": (t.yaw, "float32", (a, n)),
            "tracks.velocity": (t.velocity, "float32", (a, n, 2)),
            "tracks.valid": (t.valid, "bool", (a, n)),
            "tracks.size": (t.size, "float32", (a, 3)),
            "tracks.type": (t.type, "uint8", (a,)),
            "tracks.id": (t.id, "int64", (a,)),
            "map.points": (m.points, "float32", (len(m.points), 3)),
            "map.offsets": (m.offsets, "int32", (elements + 1,)),
            "map.type": (m.type, "uint8", (elements,)),
            "map.id": (m.id, "int64", (elements,)),
            "map.speed_limit": (m.speed_limit, "float32", (elements,)),
            "map.successor_offsets": (m.successor_offsets, "int32", (elements + 1,)),
            "map.successors": (m.successors, "int32", (len(m.successors),)),
            "map.left_neighbor": (m.left_neighbor, "int32", (elements,)),
            "map.right_neighbor": (m.right_neighbor, "int32", (elements,)),
            "lights.lane": (li.lane, "int32", (len(li.lane),)),
            "lights.xy": (li.xy, "float32", (len(li.lane), 2)),
            "lights.state": (li.state, "uint8", (len(li.lane), n)),
            "routes.points": (r.points, "float32", (len(r.points), 3)),
            "routes.offsets": (r.offsets, "int32", (a + 1,)),
            "routes.speed_limit": (r.speed_limit, "float32", (len(r.points),)),
            "routes.log_length": (r.log_length, "float32", (a,)),
            "routes.stop_offsets": (r.stop_offsets, "int32", (a + 1,)),
            "routes.stop_s": (r.stop_s, "float32", (len(r.stop_s),)),
            "routes.stop_light": (r.stop_light, "int32", (len(r.stop_s),)),
            "flags": (self.flags, "uint16", (a,)),
        }
        for name, (array, dtype, shape) in expected.items():
            if array.dtype != dtype or array.shape != shape:
                raise ScenarioError(
                    f"{self.source}: {name}: expected {dtype}{list(shape)}, "
                    f"got {array.dtype}{list(array.shape)}"
                )
        for name in (
            "tracks.xyz",
            "tracks.yaw",
            "tracks.velocity",
            "tracks.size",
            "map.points",
            "routes.points",
        ):
            if not np.isfinite(expected[name][0]).all():
                raise ScenarioError(f"{self.source}: {name} holds NaN or infinity")
        if not 0 <= self.ego < a:
            raise ScenarioError(f"{self.source}: no ego: index {self.ego} of {a} agents")
        if not 0 <= self.start_frame < n:
            raise ScenarioError(f"{self.source}: start frame {self.start_frame} of {n} frames")
        if not t.valid[self.ego, self.start_frame]:
            raise ScenarioError(
                f"{self.source}: the ego, agent {self.ego}, is absent at frame {self.start_frame}"
            )
        return self
