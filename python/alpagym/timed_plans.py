"""Plans with times, as drivers give them, into actions of kind `trajectory`."""

from __future__ import annotations

import torch
from torch import Tensor

from alpagym.scenarios.polyline import wrap_angle

STEP = 0.1
"""Time between waypoints of an action [s]."""
FIRST_POSE_REACH, FIRST_POSE_TURN = 0.5, 0.2
"""A plan begins within these of where the ego is [m, rad]."""


def plan_action(time: Tensor, pose: Tensor, ego: Tensor, *, steps: int = 64) -> Tensor:
    """The action that follows plans of N poses.

    The first pose is where the ego is now; those after it are interpolated at 0.1 s, 0.2 s, ...,
    along the shorter way round in yaw. A plan that ends sooner stays at its last pose.

    Args:
        time: of each pose [s], rising; the first is now, whatever its value. float32 or float64
            [..., N].
        pose: of the rear axle, x, y [m] and yaw [rad] in the world frame, [..., N, 3].
        ego: the ego's rear axle now in the world frame, [..., 3].
        steps: waypoints of the action, `SimConfig.plan_steps`.

    Returns:
        x, y, yaw of each waypoint in the frame of the ego's rear axle, float32 [..., steps * 3].

    Raises:
        ValueError: shapes that do not fit, fewer than two poses, numbers that are not finite, times
            that do not rise, or a first pose that is not the ego's; the message names the first
            plan at fault. Looking waits for a GPU.
    """
    if pose.shape != (*time.shape, 3) or ego.shape != (*time.shape[:-1], 3) or time.dim() == 0:
        raise ValueError(
            "plan: expected time [..., N], pose [..., N, 3] and ego [..., 3], "
            f"got {list(time.shape)}, {list(pose.shape)} and {list(ego.shape)}"
        )
    count = time.shape[-1]
    if count < 2:
        raise ValueError(f"plan: expected at least 2 poses, got {count}")
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    local = _into_frame(pose.double(), ego.double())
    since = (time - time[..., :1]).double()  # differences first: times may be epochs
    _check(
        since.reshape(-1, count),
        pose.reshape(-1, count, 3),
        ego.reshape(-1, 3),
        local.reshape(-1, count, 3),
    )
    at = STEP * torch.arange(1, steps + 1, dtype=torch.float64, device=time.device)
    at = at.expand(*since.shape[:-1], steps).contiguous()
    after = torch.searchsorted(since.contiguous(), at).clamp(1, count - 1)
    t0, t1 = since.gather(-1, after - 1), since.gather(-1, after)
    share = ((at - t0) / (t1 - t0)).clamp(max=1.0).unsqueeze(-1)
    index = after.unsqueeze(-1).expand(*after.shape, 3)
    before, behind = local.gather(-2, index - 1), local.gather(-2, index)
    step = behind - before
    step = torch.cat([step[..., :2], wrap_angle(step[..., 2:])], -1)
    way = before + share * step
    return torch.cat([way[..., :2], wrap_angle(way[..., 2:])], -1).flatten(-2).float()


def _into_frame(pose: Tensor, frame: Tensor) -> Tensor:
    """Poses [..., N, 3] seen from a frame [..., 3]."""
    x, y = (pose[..., :2] - frame[..., None, :2]).unbind(-1)
    cos, sin = frame[..., None, 2].cos(), frame[..., None, 2].sin()
    turn = wrap_angle(pose[..., 2] - frame[..., None, 2])
    return torch.stack([cos * x + sin * y, cos * y - sin * x, turn], -1)


def _check(time: Tensor, pose: Tensor, ego: Tensor, local: Tensor) -> None:
    """Raise for the first of B plans that cannot be followed."""
    finite = torch.isfinite(time).all(-1) & torch.isfinite(pose).flatten(1).all(-1)
    finite &= torch.isfinite(ego).all(-1)
    rising = (time.diff(dim=-1) > 0).all(-1)
    distance, turn = local[:, 0, :2].norm(dim=-1), local[:, 0, 2].abs()
    begins = (distance <= FIRST_POSE_REACH) & (turn <= FIRST_POSE_TURN)
    if bool((finite & rising & begins).all()):
        return
    i = int((~(finite & rising & begins)).nonzero()[0])
    name = f"plan {i}" if len(time) > 1 else "plan"
    if not finite[i]:
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    if not rising[i]:
        k = int((time[i].diff() <= 0).nonzero()[0])
        raise ValueError(
            f"{name}: expected times that rise, "
            f"got {float(time[i, k]):g} s and then {float(time[i, k + 1]):g} s"
        )
    raise ValueError(
        f"{name}: expected a first pose within {FIRST_POSE_REACH:g} m and {FIRST_POSE_TURN:g} rad "
        f"of the ego's, got one {float(distance[i]):.3g} m and {float(turn[i]):.3g} rad away"
    )
