"""Rows of the parity table: distance, time to collision and DRAC of box pairs, ours in both forms.

One form is `alpagym.metrics.ttc`, in float64; the other the simulator's kernel, in float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import shapely
import torch

import scenario_factory as factory
from alpagym.config import SimConfig, Traffic
from alpagym.metrics import ttc
from alpagym.scenarios.polyline import wrap_angle
from alpagym.scenarios.scenario import Scenario
from alpagym.sim import Controller
from parity.recorded import recordings
from parity.row import Row
from simulating import Rig, error

SEARCH = "shapely 2.2.0, search"
TWO_DIM = "TwoDimSSM 99ff37a"
SHAPELY = "shapely, independent"
HORIZON = 10.0
BOX = [0, 1, 2, 5, 6]
"""x, y, yaw, length, width among the golden columns."""
GRID = 1e-3
"""Step of the grid on which the search looked for the smallest distance [s] and [m]."""
BAND = 1e-6
"""Boxes in float64 that miss or meet by less may be decided either way [m]."""
KERNEL_BAND = 1e-3
"""Likewise in float32, at coordinates of 100 m [m]."""
KERNEL_GAP = 1e-4
"""What float32 makes of a gap at such coordinates [m]: a time is off by that over the speed."""
RANDOM_PAIRS = 3000
RECORDED_PAIRS = 60
CROWD = 64
"""Agents of a scenario that lends its worlds two of them at a time."""


def rows(golden: Path) -> list[Row]:
    z = np.load(golden / "ttc" / "ttc_pairs.npz")
    a, b, velocity = z["box_a"][:, BOX], z["box_b"][:, BOX], z["box_b"] - z["box_a"]
    velocity = velocity[:, 3:5]
    within = ttc.time_to_collision(a, b, velocity, HORIZON)
    ever = ttc.time_to_collision(a, b, velocity)
    least, when = ttc.closest_approach(a, b, velocity, HORIZON)
    # Where they stay equally near for a while, rounding chooses the search's time.
    then = np.concatenate([b[:, :2] + z["time_of_min_distance"][:, None] * velocity, b[:, 2:]], -1)
    tied = np.isinf(within) & (ttc.distance(a, then) < least + ttc.SAME_DISTANCE)
    when = np.where(tied, z["time_of_min_distance"], when)
    one_sided = np.where(ttc.separation(a, b) > 0.0, ttc.corner_distances(a, b).min(-1), 0.0)
    return [
        _row("ttc.ttc", SEARCH, within, z["ttc"], 1e-6),
        _row("ttc.ttc without horizon", TWO_DIM, np.where(ever == 0.0, -1.0, ever), z["ttc_2d"]),
        *_drac_rows(ttc.drac(a, b, velocity), z["drac_2d"], z["ttc_2d"]),
        _row("ttc.distance", SEARCH, ttc.distance(a, b), z["distance_now"], 1e-6),
        # TwoDimSSM knows the corners of one box only; so does this, which is no metric of ours.
        _row("ttc.corner_distances", TWO_DIM, one_sided, z["current_distance_2d"], 1e-6),
        _row("ttc.min_distance", SEARCH, least, z["min_distance"], GRID),
        _row("ttc.time_of_min_distance", SEARCH, when, z["time_of_min_distance"], GRID),
        *_kernel_rows("sim.ttc", SEARCH, a, b, velocity, z["ttc"], np.inf),
    ]


def _row(metric: str, reference: str, got, want, tolerance: float = 1e-6) -> Row:
    return Row(metric, reference, got.size, float(error(got, want).max()), tolerance)


def _drac_rows(got: np.ndarray, want: np.ndarray, want_ttc: np.ndarray) -> list[Row]:
    """TwoDimSSM looks twice, for the corners of either box, and takes the larger result; where the
    two disagree about boxes that overlap now, it names no overlap though its TTC does: flips."""
    contact, undecided = np.isinf(got), (want_ttc == -1.0) & (want != -1.0)
    apart = ~contact & ~undecided
    differs = contact != (want == -1.0)
    return [
        Row("ttc.drac", TWO_DIM, apart.sum(), float(error(got, want)[apart].max()), 1e-6),
        Row.decisions("ttc.drac overlap", TWO_DIM, differs, undecided),
    ]


def kernel_ttc(a: np.ndarray, b: np.ndarray, velocity: np.ndarray, horizon: float) -> np.ndarray:
    """Time to collision of n pairs [n, 5] from the simulator's step, one pair in each world.

    The simulator moves boxes along their headings. A box turned by 90 degrees with its sides
    swapped is the same box, so that every relative velocity is one of two such motions.
    """
    a, b = a.copy(), b.copy()
    level = np.abs(np.sin(b[:, 2] - a[:, 2])) < np.sqrt(0.5)
    b[level, 2] += 0.5 * np.pi
    b[level, 3:] = b[level, :2:-1]
    heading = np.stack([np.stack([np.cos(x[:, 2]), np.sin(x[:, 2])], -1) for x in (a, b)], 1)
    speed = np.linalg.solve((heading * [[-1.0], [1.0]]).transpose(0, 2, 1), velocity[..., None])
    boxes = np.stack([a, b], 1)
    boxes[..., :2] -= speed * heading * SimConfig.dt  # one step earlier
    boxes[..., 2] = wrap_angle(boxes[..., 2])

    path = factory.line((0.0, 0.0), (100.0, 0.0))
    crowd = factory.assemble("crowd", [], [factory.Actor(path, s, 1.0) for s in range(CROWD)])
    worlds, scenarios = np.arange(len(a)), -(-2 * len(a) // CROWD)
    rig = Rig([crowd] * scenarios, len(a), traffic=Traffic.constant_velocity, ttc_horizon=horizon)
    slot = 2 * (worlds // scenarios)  # of the first of the two; the others are absent
    state, info = rig.state, rig.scenarios.agent.view(scenarios, CROWD, 4)
    info[..., 3] = 0.0
    state.valid.fill_(False)
    state.controller.fill_(int(Controller.CONSTANT_VELOCITY))
    state.controller[worlds, slot] = int(Controller.POLICY)
    state.ego[:, 0] = torch.as_tensor(slot)
    for k in range(2):
        values = {"x": boxes[:, k, 0], "y": boxes[:, k, 1], "yaw": boxes[:, k, 2]}
        for name, value in (values | {"speed": speed[:, k, 0]}).items():
            getattr(state, name)[worlds, slot + k] = torch.as_tensor(value, dtype=torch.float32)
        state.valid[worlds, slot + k] = True
        size = torch.as_tensor(boxes[:, k, 3:], dtype=torch.float32)
        info[worlds % scenarios, slot + k, :2] = size
    rig.step()
    return rig.outcome.ttc[:, 0].double().numpy()


def _kernel_rows(
    metric: str,
    reference: str,
    a: np.ndarray,
    b: np.ndarray,
    velocity: np.ndarray,
    want: np.ndarray,
    slack: np.ndarray | float,
) -> list[Row]:
    """The kernel's times as gaps at the relative speed [m], and its decisions.

    `slack` is by how much the boxes meet or miss [m].
    """
    got = kernel_ttc(a, b, velocity, HORIZON)
    both = np.isfinite(got) & np.isfinite(want)
    differs = np.isfinite(got) != np.isfinite(want)
    speed = closing_speed(a, b, velocity, want)
    gap = error(got, want)[both] * speed[both]
    near = np.broadcast_to(np.abs(slack) < KERNEL_BAND, got.shape)
    return [
        Row(f"{metric} [m]", reference, int(both.sum()), float(gap.max()), KERNEL_GAP),
        Row.decisions(f"{metric} within {HORIZON:g} s", reference, differs, near),
    ]


def closing_speed(a: np.ndarray, b: np.ndarray, velocity: np.ndarray, at: np.ndarray) -> np.ndarray:
    """How fast the boxes close along the axis on which they meet last [m/s]: what turns the error
    of a time into that of a gap."""
    axes = np.concatenate([ttc.axes_of(a), ttc.axes_of(b)], -2)
    moved = b.copy()
    moved[:, :2] += np.where(np.isfinite(at), at, 0.0)[:, None] * velocity
    offset = np.abs(np.einsum("ni,nki->nk", moved[:, :2] - a[:, :2], axes))
    reach = 0.0
    for box in (a, moved):
        turn = np.abs(axes @ ttc.axes_of(box).transpose(0, 2, 1))
        reach = reach + np.einsum("nkj,nj->nk", turn, 0.5 * box[:, 3:])
    last = (offset - reach).argmax(-1)
    return np.abs(np.einsum("ni,ni->n", velocity, axes[np.arange(len(a)), last]))


def independent_rows(data: Path | None, every: int = 1) -> list[Row]:
    """Random pairs, and pairs of recorded agents near each other, against shapely."""
    found = _against_shapely("random", *random_pairs(np.random.default_rng(7), RANDOM_PAIRS))
    return found if data is None else found + recorded_rows(data, every)


def recorded_rows(data: Path, every: int) -> list[Row]:
    """Pairs of recorded agents."""
    return _against_shapely("recorded", *recorded_pairs(recordings(data, every)))


def random_pairs(rng: np.random.Generator, count: int) -> tuple[np.ndarray, ...]:
    """Boxes of all sizes at any angle, some parallel, moving more or less towards each other."""
    size = np.stack([rng.uniform(0.5, 12.0, (2, count)), rng.uniform(0.4, 2.8, (2, count))], -1)
    yaw = rng.uniform(-np.pi, np.pi, (2, count))
    parallel = rng.random(count) < 0.2
    yaw[1, parallel] = yaw[0, parallel] + rng.choice([0.0, np.pi, 1e-9], parallel.sum())
    center = rng.uniform(-60.0, 60.0, (count, 2))
    away = rng.uniform(0.0, 40.0, (count, 1))
    way = rng.uniform(-np.pi, np.pi, count)
    apart = away * np.stack([np.cos(way), np.sin(way)], -1)
    course = way + np.pi + rng.normal(0.0, 0.3, count)
    speed = rng.uniform(0.05, 25.0, (count, 1))
    velocity = speed * np.stack([np.cos(course), np.sin(course)], -1)
    first = np.concatenate([center, yaw[0][:, None], size[0]], -1)
    return first, np.concatenate([center + apart, yaw[1][:, None], size[1]], -1), velocity


def recorded_pairs(scenarios: list[Scenario]) -> tuple[np.ndarray, ...]:
    """Up to `RECORDED_PAIRS` of each scenario, of those that move against each other less than 30 m
    apart in each tenth frame."""
    pairs, rng = [], np.random.default_rng(8)
    for scenario in scenarios:
        tracks = scenario.tracks
        pose = np.concatenate([tracks.xyz[..., :2], tracks.yaw[..., None]], -1).astype(np.float64)
        size = tracks.size[:, :2].astype(np.float64)
        velocity = tracks.velocity.astype(np.float64)
        own = []
        for frame in range(0, tracks.num_frames, 10):
            there = np.flatnonzero(tracks.valid[:, frame])
            boxes = np.concatenate([pose[there, frame], size[there]], -1)
            apart = np.linalg.norm(boxes[:, None, :2] - boxes[None, :, :2], axis=-1)
            i, j = np.nonzero(np.triu(apart < 30.0, 1))
            change = velocity[there[j], frame] - velocity[there[i], frame]
            moves = np.linalg.norm(change, axis=-1) > 0.05
            own.append((boxes[i][moves], boxes[j][moves], change[moves]))
        joined = [np.concatenate(parts) for parts in zip(*own, strict=True)]
        some = rng.permutation(len(joined[0]))[:RECORDED_PAIRS]
        pairs.append([part[some] for part in joined])
    return tuple(np.concatenate(parts) for parts in zip(*pairs, strict=True))


def polygons(boxes: np.ndarray) -> np.ndarray:
    """Of shapely, from corners of this module's own making, [n]."""
    forward = np.stack([np.cos(boxes[:, 2]), np.sin(boxes[:, 2])], -1) * boxes[:, 3:4] / 2
    left = np.stack([-np.sin(boxes[:, 2]), np.cos(boxes[:, 2])], -1) * boxes[:, 4:5] / 2
    ring = [forward + left, left - forward, -forward - left, forward - left]
    return shapely.polygons(boxes[:, None, :2] + np.stack(ring, 1))


def first_contact(a: np.ndarray, b: np.ndarray, velocity: np.ndarray) -> tuple[np.ndarray, ...]:
    """Time of first contact within the horizon [s], smallest distance until then [m], and by how
    much the boxes meet or miss [m], from the path of one box's center past the sum of both.

    What a box sweeps is that sum, a convex polygon; contact begins where the path enters it.
    """
    turned = b.copy()
    turned[:, :2] = 0.0
    offsets = shapely.get_coordinates(polygons(turned)).reshape(-1, 5, 2)[:, :4]
    own = shapely.get_coordinates(polygons(a)).reshape(-1, 5, 2)[:, :4]
    every = (own[:, :, None] + offsets[:, None]).reshape(-1, 16, 2)
    whole = shapely.convex_hull(shapely.multipoints(every))
    start, end = b[:, :2], b[:, :2] + HORIZON * velocity
    path = shapely.linestrings(np.stack([start, end], 1))
    inside = shapely.intersection(path, whole)
    speed = np.linalg.norm(velocity, axis=-1)
    way = shapely.distance(shapely.points(start), inside)
    time = np.where(way > 0.0, way / np.maximum(speed, 1e-12), 0.0)
    miss = shapely.distance(path, whole)
    deep = shapely.length(inside)
    meets = shapely.intersects(path, whole)
    return np.where(meets, time, np.inf), miss, np.where(meets, deep, miss)


def _against_shapely(kind: str, a: np.ndarray, b: np.ndarray, velocity: np.ndarray) -> list[Row]:
    want, miss, slack = first_contact(a, b, velocity)
    got = ttc.time_to_collision(a, b, velocity, HORIZON)
    least, when = ttc.closest_approach(a, b, velocity, HORIZON)
    both = np.isfinite(got) & np.isfinite(want)
    differs = np.isfinite(got) != np.isfinite(want)
    now = shapely.distance(polygons(a), polygons(b))
    then = b.copy()
    then[:, :2] += when[:, None] * velocity
    at = shapely.distance(polygons(a), polygons(then))
    return [
        _row(f"ttc.distance, {kind}", SHAPELY, ttc.distance(a, b), now),
        _row(f"ttc.ttc, {kind}", SHAPELY, got[both], want[both]),
        Row.decisions(f"ttc.ttc within {HORIZON:g} s, {kind}", SHAPELY, differs, slack < BAND),
        _bisection_row(f"ttc.ttc bisected, {kind}", a, b, velocity, got),
        _row(f"ttc.min_distance, {kind}", SHAPELY, least, miss),
        _row(f"ttc.time_of_min_distance, {kind} [m]", SHAPELY, at, least),
        *_kernel_rows(f"sim.ttc, {kind}", SHAPELY, a, b, velocity, want, slack),
    ]


def _bisection_row(
    metric: str, a: np.ndarray, b: np.ndarray, velocity: np.ndarray, got: np.ndarray
) -> Row:
    """First contact between no contact now and contact in the middle of ours, by bisection."""
    some = np.flatnonzero(np.isfinite(got) & (got > 0.0))
    a, b, velocity, got = a[some], b[some], velocity[some], got[some]
    fixed = polygons(a)

    def meets(time: np.ndarray) -> np.ndarray:
        moved = b.copy()
        moved[:, :2] += time[:, None] * velocity
        return shapely.intersects(fixed, polygons(moved))

    low, high = np.zeros(len(some)), got + 1e-6
    hit = meets(high)  # a corner that is cut for less than that is left out
    for _ in range(45):
        middle = 0.5 * (low + high)
        inside = meets(middle)
        low, high = np.where(inside, low, middle), np.where(inside, middle, high)
    return _row(metric, SHAPELY, got[hit], high[hit])
