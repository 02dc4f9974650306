"""AlpaSim's vehicle and its linear controller: the twins of `csrc/bicycle.h` and `csrc/mpc.h`.

After `alpasim_controller` of NVIDIA AlpaSim 3032e0c. A state is x, y, yaw of the rear axle [m, m,
rad], speed and lateral speed of the center of mass in axes of the body [m/s], yaw rate [rad/s],
steering angle [rad], acceleration [m/s^2]; a command is a steering angle and an acceleration.
"""

from __future__ import annotations

import math

import numpy as np

from alpagym.reference.geometry import wrap_angle

MASS, INERTIA = 2014.4, 3414.2
REAR, WHEELBASE = 1.59, 2.85
FRONT = WHEELBASE - REAR
FRONT_STIFFNESS, REAR_STIFFNESS = 93534.5, 176162.1
LAG = 0.1
KINEMATIC_BELOW, NO_SLIP_RATE = 5.0, 10.0
SUBSTEP = 0.01

PERIOD, HORIZON, FIRST_TRACKED = 0.1, 20, 10
STATE_COST = np.diag([2.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.1])
COMMAND_COST = np.array([5.0, 1.0])
RIDGE = 1e-6
BOUNDED = [2, 3, 6, 7]
STATE_LOW = np.array([-math.pi / 2, 0.0, -math.pi / 4, -8.0])
STATE_HIGH = np.array([math.pi / 2, 35.0, math.pi / 4, 6.0])
COMMAND_LOW, COMMAND_HIGH = np.array([-2.0, -9.0]), np.array([2.0, 6.0])


def lateral(speed: float) -> tuple[np.ndarray, np.ndarray]:
    """Above walking pace, (lateral speed, yaw rate)' = A (...) + B steering angle."""
    moment = FRONT * FRONT_STIFFNESS - REAR * REAR_STIFFNESS
    squared = FRONT**2 * FRONT_STIFFNESS + REAR**2 * REAR_STIFFNESS
    a = -2.0 * np.array(
        [
            [(FRONT_STIFFNESS + REAR_STIFFNESS) / (MASS * speed), moment / (MASS * speed)],
            [moment / (INERTIA * speed), squared / (INERTIA * speed)],
        ]
    )
    a[0, 1] -= speed
    return a, 2.0 * FRONT_STIFFNESS * np.array([1.0 / MASS, FRONT / INERTIA])


def rate_of(state: np.ndarray, command: np.ndarray) -> np.ndarray:
    """Time derivative of a state [8]."""
    _, _, yaw, speed, slide, turn, steering, accel = state
    if speed < KINEMATIC_BELOW:
        sideways = 0.0
        without_slip = speed * steering / WHEELBASE * np.array([REAR, 1.0])
        slide_rate, turn_rate = NO_SLIP_RATE * (without_slip - [slide, turn])
    else:
        sideways = slide - REAR * turn
        a, b = lateral(speed)
        slide_rate, turn_rate = a @ [slide, turn] + b * steering
    return np.array(
        [
            speed * math.cos(yaw) - sideways * math.sin(yaw),
            speed * math.sin(yaw) + sideways * math.cos(yaw),
            turn,
            accel,
            slide_rate,
            turn_rate,
            (command[0] - steering) / LAG,
            (command[1] - accel) / LAG,
        ]
    )


def advance(state: np.ndarray, command: np.ndarray, dt: float) -> np.ndarray:
    """The state after a command held for `dt`: midpoint rule, substeps of 10 ms, no reverse."""
    done = 0.0
    while dt - done > 1e-9:
        h = min(SUBSTEP, dt - done)
        state = state + h * rate_of(state + 0.5 * h * rate_of(state, command), command)
        state[3] = max(state[3], 0.0)
        done += h
    return state


def moving(speed: float, lateral_speed: float, yaw_rate: float) -> np.ndarray:
    """The state of a vehicle at the origin that moves so, steered as if it did not slip."""
    steering = math.atan(yaw_rate / speed * WHEELBASE) if speed > 0.25 else 0.0
    return np.array([0.0, 0.0, 0.0, speed, lateral_speed, yaw_rate, steering, 0.0])


def linearized(state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A and B of state' = A state + B command over one period, about a state at the origin.

    Below walking pace AlpaSim leaves out what speed does to lateral speed and yaw rate.
    """
    _, _, _, speed, slide, turn, _, _ = state
    rate = np.zeros((10, 10))
    rate[0, 3], rate[1, 2] = 1.0, speed
    rate[2, 5] = rate[3, 7] = 1.0
    if speed < KINEMATIC_BELOW:
        for row, arm in ((4, REAR), (5, 1.0)):
            rate[row, 6] = NO_SLIP_RATE * speed * arm / WHEELBASE
            rate[row, row] = -NO_SLIP_RATE
    else:
        rate[0, 2] = -(slide - REAR * turn)
        rate[1, 4], rate[1, 5] = 1.0, -REAR
        rate[4:6, 4:6], rate[4:6, 6] = lateral(speed)
    rate[6, 6] = rate[7, 7] = -1.0 / LAG
    rate[6, 8] = rate[7, 9] = 1.0 / LAG
    held = exponential(rate * PERIOD)
    return held[:8, :8], held[:8, 8:]


def seen_from(frame: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """A pose [3] in the frame of another, its yaw in [-pi, pi)."""
    c, s = math.cos(frame[2]), math.sin(frame[2])
    dx, dy, turn = pose - frame
    return np.array([c * dx + s * dy, c * dy - s * dx, wrap_angle(turn)])


def from_frame(frame: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """The inverse: a pose [3] given in a frame, where the frame is given in."""
    c, s = math.cos(frame[2]), math.sin(frame[2])
    x, y, yaw = pose
    return frame + np.array([c * x - s * y, s * x + c * y, yaw])


def along(plan: np.ndarray, ahead: float) -> np.ndarray:
    """The pose [3] of a plan [n, 3] so many seconds after it began; its ends beyond them."""
    place = min(max(ahead / PERIOD - 1.0, 0.0), len(plan) - 1.0)
    n = min(int(place), max(len(plan) - 2, 0))
    turned = plan[min(n + 1, len(plan) - 1)] - plan[n]
    turned[2] = wrap_angle(turned[2])
    return plan[n] + (place - n) * turned


def follow(
    plan: np.ndarray, frame: np.ndarray, age: float, state: np.ndarray, dt: float
) -> tuple[np.ndarray, np.ndarray]:
    """Pose [3] and state [8] after following a plan for `dt`.

    `plan` [n, 3] began `age` seconds ago and is given where the rear axle's pose `frame` [3] is,
    too; the controller runs every 0.1 s.
    """
    runs = max(1, int(dt / PERIOD + 0.5))
    for run in range(runs):
        start = age + run * dt / runs
        target = [seen_from(frame, along(plan, start + 0.1 * n)) for n in range(10, 21)]
        state = np.concatenate([np.zeros(3), state[3:]])
        command = solve(state, np.array(target))
        state = advance(state, np.zeros(2) if command is None else command, dt / runs)
        frame = from_frame(frame, state[:3])
    return frame, state


def exponential(matrix: np.ndarray) -> np.ndarray:
    """The matrix exponential, by a Taylor series of a small enough part, squared back."""
    squarings = max(0, math.ceil(math.log2(max(np.abs(matrix).sum(1).max(), 1e-3)))) + 4
    small, term = matrix / 2.0**squarings, np.eye(len(matrix))
    total = term
    for n in range(1, 20):
        term = term @ small / n
        total = total + term
    return np.linalg.matrix_power(total, 2**squarings)


def solve(state: np.ndarray, target: np.ndarray, horizon: int = HORIZON) -> np.ndarray | None:
    """The command [2] that follows a plan, None where the bounds cannot all hold.

    `target` [horizon - 9, 3] is where the rear axle should be 1.0 s, 1.1 s, ... ahead, in the frame
    of where it is: x, y [m], yaw [rad].
    """
    if not (np.isfinite(state).all() and np.isfinite(target).all()):
        return None
    a, b = linearized(state)
    free, response = [], []
    ahead, reached = state.copy(), np.zeros((8, 2 * horizon))
    for k in range(horizon):
        ahead, reached = a @ ahead, a @ reached
        reached[:, 2 * k : 2 * k + 2] = b
        free.append(ahead)
        response.append(reached.copy())
    hessian = np.diag(np.tile(COMMAND_COST + RIDGE, horizon))
    gradient = np.zeros(2 * horizon)
    for k in range(FIRST_TRACKED - 1, horizon):
        wanted = np.zeros(8)
        wanted[:3] = target[k + 1 - FIRST_TRACKED]
        hessian += response[k].T @ STATE_COST @ response[k]
        gradient += response[k].T @ STATE_COST @ (free[k] - wanted)
    rows = np.concatenate([np.eye(2 * horizon), *(r[BOUNDED] for r in response)])
    offset = np.concatenate([np.zeros(2 * horizon), *(f[BOUNDED] for f in free)])
    low = np.concatenate([np.tile(COMMAND_LOW, horizon), np.tile(STATE_LOW, horizon)]) - offset
    high = np.concatenate([np.tile(COMMAND_HIGH, horizon), np.tile(STATE_HIGH, horizon)]) - offset
    commands = quadratic_program(
        hessian, gradient, np.concatenate([rows, -rows]), np.concatenate([high, -low])
    )
    return None if commands is None else commands[:2]


def quadratic_program(
    hessian: np.ndarray, gradient: np.ndarray, rows: np.ndarray, high: np.ndarray
) -> np.ndarray | None:
    """The x of least x' hessian x / 2 + gradient' x with rows x <= high, None if there is none.

    Goldfarb and Idnani's dual method: from the minimum without bounds, take in the bound that is
    violated most, one at a time, and let go of those that no longer press.
    """
    inverse = np.linalg.inv(hessian)
    x = -inverse @ gradient
    active: list[int] = []
    press: list[float] = []
    for _ in range(100 * len(x)):
        violation = rows @ x - high
        violation[active] = 0.0
        worst = int(np.argmax(violation))
        if violation[worst] < 1e-10:
            return x
        normal, added = rows[worst], 0.0
        while True:
            held = rows[active]
            relief = np.zeros(0)
            step = -inverse @ normal
            if active:
                relief = np.linalg.solve(held @ inverse @ held.T, held @ inverse @ normal)
                step = step + inverse @ held.T @ relief
            released = [p / r if r > 1e-12 else np.inf for p, r in zip(press, relief, strict=True)]
            drop = int(np.argmin(released)) if released else -1
            gain = -normal @ step
            full = (normal @ x - high[worst]) / gain if gain > 1e-11 else np.inf
            length = min(full, released[drop] if released else np.inf)
            if not np.isfinite(length):
                return None
            if np.isfinite(full):
                x = x + length * step
            press = [p - length * r for p, r in zip(press, relief, strict=True)]
            added += length
            if length == full:
                active.append(worst)
                press.append(added)
                break
            del active[drop], press[drop]
    return None
