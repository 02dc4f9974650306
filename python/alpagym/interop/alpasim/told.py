"""What a policy of `observation=alpasim` sees, from what AlpaSim tells its drivers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from alpagym import sim
from alpagym.config import SimConfig
from alpagym.interop.alpasim.route import NUM_WAYPOINTS, REGULAR_STEP, prepare_for_policy, resample
from alpagym.types import EgoFeature, Observation, RouteFeature

SHORT_WAY = 0.05
"""On a way shorter than this in the last step a curvature means nothing [m]."""
TIGHTEST = 1.0 / 2.85
"""Curvature that no vehicle of AlpaSim exceeds [1/m]."""


def observation_of(motion: Tensor, waypoints: Tensor, config: SimConfig) -> Observation:
    """The observation that the simulator makes with `SimConfig.observation=alpasim`.

    Args:
        motion: speed [m/s], acceleration [m/s^2] and curvature [1/m] of B egos, [B, 3].
        waypoints: x, y [m] in the frame of the rear axle, NaN behind the last, float32 [B, 20, 2].
        config: that the policy was trained with.

    Returns:
        Tensors [B, ...] on the device of `motion`.
    """
    state = sim.make_state(len(motion), 1, device=motion.device)
    seen = sim.make_observation(state, config).map(lambda t: t.squeeze(1))
    there = waypoints.isfinite().all(-1)
    points = waypoints.nan_to_num(0.0)
    step = points.diff(dim=1)
    step = step / step.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    direction = torch.zeros_like(points)
    direction[..., 0] = 1.0
    onward = there[:, 1:, None]
    direction[:, 1:] = torch.where(onward, step, direction[:, 1:])  # of the last: as before it
    direction[:, :-1] = torch.where(onward, step, direction[:, :-1])
    feature = RouteFeature
    seen.route[..., [feature.X, feature.Y]] = points
    seen.route[..., [feature.COS, feature.SIN]] = direction * there[..., None]
    seen.route_mask.copy_(there)
    first, along = points[:, 0], direction[:, 0]
    offset = first[:, 0] * along[:, 1] - first[:, 1] * along[:, 0]
    known = there[:, 1]
    seen.ego[:, EgoFeature.SPEED : EgoFeature.CURVATURE + 1] = motion
    seen.ego[:, EgoFeature.ROUTE_OFFSET] = offset * known
    seen.ego[:, EgoFeature.HEADING_ERROR] = -torch.atan2(along[:, 1], along[:, 0]) * known
    return seen


def waypoints_of(seen: Observation) -> np.ndarray:
    """The route as AlpaSim sends it, of an observation that the simulator made.

    Args:
        seen: with `SimConfig.observation=alpasim`, leading dimensions free.

    Returns:
        x, y, z = 0 in the frame of the rear axle [m], NaN behind the last, float32 [..., 20, 3].
    """
    xy = seen.route[..., [RouteFeature.X, RouteFeature.Y]]
    xyz = torch.nn.functional.pad(xy, (0, 1)).masked_fill(~seen.route_mask[..., None], torch.nan)
    return xyz.cpu().numpy()


def route_told(points: np.ndarray) -> np.ndarray:
    """A route as a message has it, as the 20 waypoints that policies know.

    AlpaSim's own routes stay as they are; of another spacing it is sampled anew.

    Args:
        points: x, y, z in the rig frame [m], what follows a NaN does not count, float32 [N, 3].

    Returns:
        x, y, NaN behind the last, float32 [20, 2].

    Raises:
        ValueError: a waypoint is infinite.
    """
    missing = np.flatnonzero(np.isnan(points).any(1))
    points = points[: missing[0]] if len(missing) else points
    if not np.isfinite(points).all():
        i = int(np.flatnonzero(~np.isfinite(points).all(1))[0])
        raise ValueError(f"route waypoint {i}: expected finite numbers or NaN, got infinity")
    points = points * np.array([1.0, 1.0, 0.0], np.float32)
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    regular = ((steps >= REGULAR_STEP[0]) & (steps <= REGULAR_STEP[1])).all()
    if len(points) > NUM_WAYPOINTS or not regular:
        points = resample(points)
    waypoints: np.ndarray = prepare_for_policy(points)[:, :2]
    return waypoints


def curvature_of(turn: float, way: float, bound: float) -> float:
    """Curvature [1/m] of a turn [rad] on a way [m], at most `bound` or the vehicle's."""
    if abs(way) < SHORT_WAY:
        return 0.0
    most = max(bound, TIGHTEST)
    return min(max(turn / way, -most), most)
