"""Rows of the parity table: draws, log-probabilities and KL of flow matching."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from alpagym.policies.flow_matching import Schedule, draw, integrate, path_kl, path_log_prob
from parity.row import Row

RECIPES = "Alpamayo recipes 4bc7677"
UPSTREAM_ROUNDING = 1.56e-8
"""Upstream takes log(sqrt(2 pi)) in float32 even for float64."""


def rows(golden: Path) -> list[Row]:
    z = np.load(golden / "alpagym" / "sde_flow_matching.npz")
    names = ("path", "log_prob", "log_prob_step", "std", "euler", "midpoint", "grad")
    got: dict[str, list[np.ndarray]] = {n: [] for n in (*names, "log_prob64", "kl", "kl64")}
    want: dict[str, list[np.ndarray]] = {n: [] for n in got}
    for k, n in enumerate(z["n_steps"]):

        def f(name, k=k):
            return torch.from_numpy(z[name][k])

        def net(x, t, k=k):
            return _net(
                x, t, *(torch.from_numpy(z[f"net_{p}"][k]) for p in ("w1", "b1", "w2", "b2"))
            )

        times = f("timesteps")[: n + 1]
        even = torch.linspace(0.0, 1.0, int(n) + 1)  # what upstream integrates over without noise
        schedule = Schedule.of(times, float(z["noise_level"][k]))
        start = float(z["temperature"][k]) * f("x0")
        path = draw(net, start, f("eps")[:n], schedule)
        velocity = f("v")[:n].requires_grad_()
        step = path_log_prob(f("samples")[: n + 1], velocity, schedule).mean((1, 2))
        step.mean().backward()
        other = velocity.detach() + z["v_ref_shift"][k]
        double = Schedule.of(times.double(), float(z["noise_level"][k]))
        samples64, v64 = f("samples")[: n + 1].double(), velocity.detach().double()
        other64 = v64 + float(z["v_ref_shift"][k])
        assert velocity.grad is not None
        for name, ours, theirs in (
            ("path", path, z["samples"][k, : n + 1]),
            ("log_prob", step.mean(), z["log_prob"][k]),
            ("log_prob_step", step, z["log_prob_step"][k, :n]),
            ("std", schedule.std, z["std_step"][k, :n]),
            ("euler", integrate(net, start, even), z["euler_x"][k]),
            ("midpoint", integrate(net, start, even, "midpoint"), z["midpoint_x"][k]),
            ("grad", velocity.grad, z["grad_v"][k, :n]),
            (
                "log_prob64",
                path_log_prob(samples64, v64, double).mean(),
                z["log_prob_batched_f64"][k] - UPSTREAM_ROUNDING,
            ),
            ("kl", path_kl(velocity.detach(), other, schedule).mean(), z["kl_batched"][k]),
            ("kl64", path_kl(v64, other64, double).mean(), z["kl_batched_f64"][k]),
        ):
            got[name].append(ours.detach().numpy().reshape(-1))
            want[name].append(np.reshape(theirs, -1))
    tolerances = {
        "path": (3e-6, 0.0),
        "log_prob": (1e-6, 0.0),
        "log_prob_step": (2e-6, 0.0),
        "std": (1e-7, 1e-6),
        "euler": (3e-6, 0.0),
        "midpoint": (3e-6, 0.0),
        "grad": (1e-4, 5e-3),
        "log_prob64": (1e-10, 0.0),
        "kl": (0.0, 1e-5),
        "kl64": (0.0, 1e-10),
    }
    made = []
    for name, tolerance in tolerances.items():
        ours, theirs = np.concatenate(got[name]), np.concatenate(want[name])
        made.append(Row.of(f"flow_matching.{name}", RECIPES, ours - theirs, theirs, *tolerance))
    return made


def _net(x, t, w1, b1, w2, b2):
    """The velocity field of the golden data: a tiny net of a waypoint, the time and its place."""
    place = torch.linspace(-1.0, 1.0, len(x))
    time = torch.as_tensor(t).expand(len(x))
    f = torch.stack([x[:, 0], x[:, 1], time, place, x[:, 0] + x[:, 1]], -1)
    return torch.tanh(f @ w1.T + b1) @ w2.T + b2
