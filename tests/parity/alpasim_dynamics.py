"""AlpaSim's vehicle model, linear controller and both in closed loop, against its own numbers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

import dynamics
import scenario_factory as factory
from alpagym.config import ActionType
from alpagym.reference import vehicle
from alpagym.scenarios.recorded_plans import resample
from parity.row import Row
from simulating import Rig

ALPASIM = "AlpaSim 3032e0c"


def load(golden: Path, name: str) -> SimpleNamespace:
    with np.load(golden / "alpasim" / f"{name}.npz") as arrays:
        return SimpleNamespace(**{key: arrays[key] for key in arrays.files})


def row(metric: str, got: np.ndarray, want: np.ndarray, tolerance: float) -> Row:
    return Row.numbers(f"alpasim.{metric}", ALPASIM, got, want, tolerance)


def turned(yaw: np.ndarray, want: np.ndarray) -> np.ndarray:
    """The same angles, less whole turns, near to those wanted."""
    return want + (yaw - want + np.pi) % (2 * np.pi) - np.pi


def rows(golden: Path) -> list[Row]:
    """Every quantity of the vehicle model, the controller and the closed loop."""
    return [*vehicle_rows(golden), *controller_rows(golden), *closed_loop_rows(golden)]


def vehicle_rows(golden: Path) -> list[Row]:
    g = load(golden, "vehicle_model")
    state, rate = dynamics.advance(g.state0, g.u, g.dt)
    single, single_rate = dynamics.advance(g.state0, g.u, g.dt, np.float32)
    half = 0.5 * state[:, 2]
    pose = np.stack([*state[:, :2].T, *np.zeros((3, len(half))), np.sin(half), np.cos(half)], 1)
    slow = np.array(
        [vehicle.advance(s, u, dt) for s, u, dt in zip(g.state0, g.u, g.dt, strict=True)]
    )
    motion, made = g.init_vx_vy_r_state[:, :3], g.init_vx_vy_r_state[:, 3:]
    return [
        row("vehicle.state", state, g.state1, 1e-9),
        row("vehicle.rates", rate, g.accel, 1e-9),
        row("vehicle.pose", pose, g.pose, 1e-6),  # stored as float32
        row("vehicle.state.float32", single, g.state1, 1e-4),
        row("vehicle.rates.float32", single_rate, g.accel, 1e-4),
        row("vehicle.init", dynamics.moving(motion), made, 1e-9),
        row("vehicle.state.reference", slow, g.state1, 1e-9),
    ]


def controller_rows(golden: Path) -> list[Row]:
    g = load(golden, "linear_mpc")
    n, first = len(g.state0), vehicle.FIRST_TRACKED
    target = np.nan_to_num(g.x_ref[:, first:])
    u, solved = dynamics.solve(g.state0, target, g.n_horizon)
    after, _ = dynamics.advance(g.state0, u, np.full(n, 0.1))
    slow = [
        vehicle.solve(s, t[: h + 1 - first], h)
        for s, t, h in zip(g.state0, target, g.n_horizon, strict=True)
    ]
    slow_u = np.array([np.zeros(2) if x is None else x for x in slow])
    slow_solved = np.array([x is not None for x in slow])
    read, want = [], []
    for i in range(n):
        plan = slice(g.plan_off[i], g.plan_off[i + 1])
        at = 0.1 * np.arange(g.n_horizon[i] + 1)
        read.append(resample(1e-6 * g.plan_dt_us[plan], g.plan_xyyaw[plan], at))
        want.append(g.x_ref[i, : len(at)])
    x_ref, want_ref = np.concatenate(read), np.concatenate(want)
    decided = [Row("alpasim.mpc.solvable", ALPASIM, n, wrong=int((solved != g.tight_solved).sum()))]
    unlike = int((slow_solved != g.tight_solved).sum())
    decided += [Row("alpasim.mpc.solvable.reference", ALPASIM, n, wrong=unlike)]
    return [
        row("mpc.target.position", x_ref[:, :2], want_ref[:, :2], 1e-3),
        # AlpaSim's rotations are float32, and interpolated by a polynomial.
        row("mpc.target.yaw", turned(x_ref[:, 2], want_ref[:, 2]), want_ref[:, 2], 2e-4),
        row("mpc.command", u, g.u_tight, 1e-3),
        row("mpc.state_after_0.1s", after, g.state1_tight, 1e-3),
        row("mpc.command.reference", slow_u, g.u_tight, 1e-6),
        *decided,
    ]


def closed_loop_rows(golden: Path) -> list[Row]:
    g = load(golden, "closed_loop")
    runs = [drive(g, run) for run in range(len(g.run_mode))]
    got, want = (np.concatenate([run[k] for run in runs]) for k in range(2))
    return [
        row("closed_loop.position", got[:, :2], want[:, :2], 2e-2),
        row("closed_loop.yaw", turned(got[:, 2], want[:, 2]), want[:, 2], 5e-3),
        row("closed_loop.velocity", got[:, 3:5], want[:, 3:5], 2e-2),
        row("closed_loop.yaw_rate", got[:, 5], want[:, 5], 5e-3),
    ]


def drive(g: SimpleNamespace, run: int) -> tuple[np.ndarray, np.ndarray]:
    """Poses and velocities [n, 6] of a run through `sim.step`, and AlpaSim's at the same times.

    A request for k controller periods is an action that lasts k steps of 0.1 s. AlpaSim takes the
    state of a request where it is told to (`rq_coerce`); but for the first that is what it has.
    """
    requests = np.flatnonzero(g.rq_run == run)
    last = int((g.rq_t[requests[-1]] + g.rq_dt[requests[-1]]) // 100_000)
    once = len(np.unique(g.rq_plan[requests])) == 1
    every = last if once else int(g.rq_dt[requests[0]] // 100_000)
    steps = 80 if once else 40
    ego = factory.Actor(factory.line((0.0, 0.0), (400.0, 0.0)), 0.0, 10.0)
    rig = Rig(
        [factory.assemble("plain", [], [ego], frames=301, start=0)],
        action=ActionType.trajectory,
        plan_steps=steps,
        replan_every=every,
    )
    arm = float(rig.scenarios.agent[0, 3])
    x, y, yaw, speed, yaw_rate = g.run_init[run]
    set_ego(rig, x + arm * np.cos(yaw), y + arm * np.sin(yaw), yaw, speed, yaw_rate)
    if g.rq_coerce[requests[0]]:  # told again that the rear axle, not the center of mass, is still
        rig.state.lateral_speed.fill_(vehicle.REAR * float(yaw_rate))
    given = requests[:1] if once else requests
    plans = {int(g.rq_t[q]) // 100_000: int(g.rq_plan[q]) for q in given}
    states = [read_ego(rig, arm)]
    action = rig.zero_action()
    for step in range(last):
        if step in plans:
            plan = slice(g.pl_off[plans[step]], g.pl_off[plans[step] + 1])
            at = 0.1 * (step + np.arange(1, steps + 1))
            waypoints = resample(1e-6 * g.pl_dt_us[plan], g.pl_xyyaw[plan], at)
            action = torch.as_tensor(waypoints.reshape(1, 1, -1), dtype=torch.float32)
        rig.step(action)
        states.append(read_ego(rig, arm))
    reported = np.flatnonzero(g.st_run == run)
    want = np.concatenate([g.st_xyyaw[reported], g.st_dyn[reported, :3]], axis=1)
    return np.array(states)[g.st_t[reported] // 100_000], want


def set_ego(rig: Rig, x: float, y: float, yaw: float, speed: float, yaw_rate: float) -> None:
    motion = vehicle.moving(speed, 0.0, yaw_rate)
    for name, value in {"x": x, "y": y, "yaw": yaw, "speed": speed}.items():
        getattr(rig.state, name).fill_(float(value))
    for name, value in zip(
        ("lateral_speed", "yaw_rate", "steering_angle", "lagged_accel"), motion[4:], strict=True
    ):
        getattr(rig.state, name).fill_(float(value))


def read_ego(rig: Rig, arm: float) -> list[float]:
    """x, y, yaw of the rear axle; its velocity in axes of the body; yaw rate."""
    x, y, yaw, speed, lateral, yaw_rate = (
        float(getattr(rig.state, name)[0, 0])
        for name in ("x", "y", "yaw", "speed", "lateral_speed", "yaw_rate")
    )
    sideways = lateral - vehicle.REAR * yaw_rate
    return [x - arm * np.cos(yaw), y - arm * np.sin(yaw), yaw, speed, sideways, yaw_rate]
