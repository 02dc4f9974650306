"""How NAVSIM drives a proposal before scoring it: an LQR tracker and a kinematic bicycle.

Source: NAVSIM, `pdm_simulator.py`, `batch_lqr.py`, `batch_lqr_utils.py` and
`batch_kinematic_bicycle.py`, which follow nuPlan's `LQRTracker` and `KinematicBicycleModel`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alpagym.metrics.geometry import principal_angle, to_frame
from alpagym.metrics.navsim.states import STEP, Car, State
from alpagym.scenarios.polyline import wrap_angle


@dataclass(frozen=True)
class Tracking:
    """Parameters of the tracker and of the vehicle model."""

    speed_weight: float = 10.0
    """Cost of the squared speed error at the horizon [s^2/m^2]."""
    acceleration_weight: float = 1.0
    """Cost of the squared acceleration [s^4/m^2]."""
    lateral_weight: float = 1.0
    """Cost of the squared lateral error at the horizon [1/m^2]."""
    heading_weight: float = 10.0
    """Cost of the squared heading error at the horizon [1/rad^2]."""
    steering_rate_weight: float = 1.0
    """Cost of the squared steering rate [s^2/rad^2]."""
    horizon: int = 10
    """Steps over which a command is held when its effect is predicted."""
    jerk_penalty: float = 1e-4
    """Weight of the squared accelerations in the fit of the speed profile, see
    `reference_profiles`."""
    curvature_rate_penalty: float = 1e-2
    """Weight of the squared curvature rate in the fit of the curvature profile."""
    curvature_penalty: float = 1e-10
    """Weight of the squared first curvature, which keeps the fit at standstill unique."""
    stopping_gain: float = 0.5
    """Deceleration per speed error when coming to a stop [1/s]."""
    stopping_speed: float = 0.2
    """Ego and reference speed at or below which the stop is made by proportional control [m/s]."""
    acceleration_lag: float = 0.2
    """Time constant of the acceleration [s]."""
    steering_lag: float = 0.05
    """Time constant of the steering angle [s]."""
    max_steering: float = np.pi / 3
    """Largest steering angle either way [rad]."""


def simulate_proposals(
    poses: np.ndarray,
    initial: np.ndarray,
    *,
    dt: float = STEP,
    car: Car | None = None,
    tracking: Tracking | None = None,
) -> np.ndarray:
    """Drive every proposal from its initial state with feedback.

    Args:
        poses: Rear-axle x, y [m] and heading [rad] to follow, one every `dt`, the first at the
            time of the initial state, [P, T, 3].
        initial: First state, `State` columns, [11] or [P, 11].
        dt: Time between poses [s].
        car: Shape of the ego; the Pacifica if not given.
        tracking: Parameters; NAVSIM's if not given.

    Returns:
        Driven states, [P, T, 11]; the first is the initial state, headings are in [-pi, pi).

    Raises:
        ValueError: Fewer than 4 poses, another shape, NaN or infinity, or `dt` not positive.
    """
    poses = np.asarray(poses, np.float64)
    if poses.ndim != 3 or poses.shape[2] != 3 or poses.shape[0] == 0 or poses.shape[1] < 4:
        raise ValueError(f"poses: expected [proposals, steps >= 4, 3], got {list(poses.shape)}")
    initial = np.asarray(initial, np.float64)
    if initial.shape not in {(len(State),), (len(poses), len(State))}:
        raise ValueError(f"initial state: expected [11] or [P, 11], got {list(initial.shape)}")
    if not (np.isfinite(poses).all() and np.isfinite(initial).all()):
        raise ValueError("poses and initial state: expected finite numbers, got NaN or infinity")
    if not dt > 0:
        raise ValueError(f"dt: expected a positive time, got {dt}")
    car, tracking = car or Car(), tracking or Tracking()

    speed, curvature = reference_profiles(poses, dt, tracking)
    last = speed.shape[1] - 1
    states = np.zeros((*poses.shape[:2], len(State)))
    states[:, 0] = initial
    for step in range(poses.shape[1] - 1):
        ahead = np.minimum(step + np.arange(tracking.horizon + 1), last)
        state, target = states[:, step], poses[:, step]
        reference = speed[:, ahead[-1]], curvature[:, ahead[:-1]]
        commands = _commands(state, target, *reference, dt, car, tracking)
        states[:, step + 1] = _bicycle(state, *commands, dt, car, tracking)
    return states


def reference_profiles(
    poses: np.ndarray, dt: float, tracking: Tracking
) -> tuple[np.ndarray, np.ndarray]:
    """Speed and curvature of a path of poses, each by regularized least squares.

    The speed starts at v_0 and changes by accelerations a_k held for `dt`; poses move by
    v_k * dt along their heading. NAVSIM means to penalize the changes of a_k, but its difference
    matrix loses all but one of its +1 entries (autonomousvision/navsim issue 52): what costs
    `jerk_penalty` is every a_k but the last two and, for these, their difference. Kept, as its
    scores rest on it. The curvature starts at c_0 and changes by rates held for `dt`; headings
    turn by v_k * c_k * dt; the rates cost `curvature_rate_penalty` and c_0 `curvature_penalty`.

    Args:
        poses: x, y [m] and heading [rad], [P, T, 3].
        dt: Time between poses [s].
        tracking: Penalties.

    Returns:
        Speed [m/s] and curvature [1/m] at the first T - 1 poses, [P, T - 1] each.
    """
    moved = np.diff(poses, axis=1)
    heading = poses[:, :-1, 2]
    steps = moved.shape[1]
    # Both profiles are `integral @ (first value, derivatives)`.
    integral = np.tri(steps) * dt
    integral[:, 0] = 1.0

    # x moves by cos * dt * v and y by sin * dt * v. As cos^2 + sin^2 = 1, the normal equations are
    # those of the distance moved along the heading.
    along = np.cos(heading) * moved[..., 0] + np.sin(heading) * moved[..., 1]
    penalized = np.zeros((steps - 2, steps))
    penalized[:, 1:-1] = -np.eye(steps - 2)
    penalized[-1, -1] = 1.0
    distance = dt * integral
    normal = distance.T @ distance + tracking.jerk_penalty * penalized.T @ penalized
    speed = np.linalg.solve(normal, distance.T @ along.T).T @ integral.T

    turned = principal_angle(moved[..., 2])
    penalty = np.full(steps, tracking.curvature_rate_penalty)
    penalty[0] = tracking.curvature_penalty
    turning = (dt * speed)[:, :, None] * integral
    transposed = turning.transpose(0, 2, 1)
    normal = transposed @ turning + np.diag(penalty)
    fit = np.linalg.solve(normal, transposed @ turned[..., None])
    return speed, fit[..., 0] @ integral.T


def _commands(
    state: np.ndarray,
    target: np.ndarray,
    speed: np.ndarray,
    curvature: np.ndarray,
    dt: float,
    car: Car,
    tracking: Tracking,
) -> tuple[np.ndarray, np.ndarray]:
    """Acceleration [m/s^2] and steering rate [rad/s] for one step, [P] each.

    Both are held over the horizon and minimize the weighted squared errors at its end. Errors
    evolve as e' = v h, h' = v (steering / wheel base - curvature), steering' = rate, by Euler
    steps of `dt`, at the speeds that the acceleration brings about.

    Args:
        state: [P, 11].
        target: Pose to be at now, [P, 3].
        speed: Reference speed at the end of the horizon [m/s], [P].
        curvature: Reference curvature over the horizon [1/m], [P, H].
        dt: Length of a step [s].
        car: Gives the wheel base.
        tracking: Weights.
    """
    velocity = state[:, State.VELOCITY_X]
    time = tracking.horizon * dt
    gain = (
        tracking.speed_weight
        * time
        / (tracking.speed_weight * time**2 + tracking.acceleration_weight)
    )
    stopping = (speed <= tracking.stopping_speed) & (velocity <= tracking.stopping_speed)
    acceleration = np.where(stopping, tracking.stopping_gain, gain) * (speed - velocity)

    lateral = to_frame(target, state[:, : State.HEADING])[:, 1]
    heading = principal_angle(state[:, State.HEADING] - target[:, 2])
    steering = state[:, State.STEERING_ANGLE]

    ticks = np.arange(tracking.horizon)
    moved = dt * (velocity[:, None] + acceleration[:, None] * dt * ticks)
    # Without a command, and per unit of steering rate.
    turn_free = moved * (steering[:, None] / car.wheel_base - curvature)
    turn_unit = moved * (dt * ticks / car.wheel_base)
    end_free, end_unit = turn_free.sum(1), turn_unit.sum(1)
    heading_free = heading[:, None] + np.cumsum(turn_free, 1) - turn_free
    heading_unit = np.cumsum(turn_unit, 1) - turn_unit
    lateral_free = lateral + (moved * heading_free).sum(1)
    lateral_unit = (moved * heading_unit).sum(1)
    error = (
        tracking.lateral_weight * lateral_unit * lateral_free
        + tracking.heading_weight * end_unit * principal_angle(heading + end_free)
    )
    curve = (
        tracking.lateral_weight * lateral_unit**2
        + tracking.heading_weight * end_unit**2
        + tracking.steering_rate_weight
    )
    return acceleration, np.where(stopping, 0.0, -error / curve)


def _bicycle(
    state: np.ndarray,
    acceleration: np.ndarray,
    steering_rate: np.ndarray,
    dt: float,
    car: Car,
    tracking: Tracking,
) -> np.ndarray:
    """The state one Euler step later, [P, 11]; commands reach the car through first-order lags."""
    velocity, steering = state[:, State.VELOCITY_X], state[:, State.STEERING_ANGLE]
    heading, lagged = state[:, State.HEADING], state[:, State.ACCELERATION_X]
    lagged = lagged + dt / (dt + tracking.acceleration_lag) * (acceleration - lagged)
    rate = dt / (dt + tracking.steering_lag) * steering_rate

    after = np.zeros_like(state)
    after[:, State.X] = state[:, State.X] + dt * velocity * np.cos(heading)
    after[:, State.Y] = state[:, State.Y] + dt * velocity * np.sin(heading)
    turned = heading + dt * velocity * np.tan(steering) / car.wheel_base
    after[:, State.HEADING] = wrap_angle(turned)
    after[:, State.VELOCITY_X] = velocity + dt * lagged
    after[:, State.ACCELERATION_X] = lagged
    limit = tracking.max_steering
    after[:, State.STEERING_ANGLE] = np.clip(steering + dt * rate, -limit, limit)
    after[:, State.STEERING_RATE] = rate
    after[:, State.YAW_RATE] = (
        after[:, State.VELOCITY_X] * np.tan(after[:, State.STEERING_ANGLE]) / car.wheel_base
    )
    after[:, State.YAW_ACCELERATION] = (after[:, State.YAW_RATE] - state[:, State.YAW_RATE]) / dt
    return after
