"""What values the options of `alpagym.config` and `alpagym.training_config` may have."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any

AT_LEAST = {
    "data.train": 1,
    "data.held_out": 1,
    "data.validation": 1,
    "sim.num_route_points": 1,
    "sim.plan_steps": 1,
    "sim.replan_every": 1,
    "policy.width": 1,
    "policy.hidden": 1,
    "policy.history": 1,
    "policy.knots": 1,
    "policy.flow_steps": 1,
    "imitation.batch_size": 1,
    "imitation.patience": 1,
    "shard_scenarios": 1,
    "save_every": 1,
    "jobs": 1,
    "max_sessions": 1,
    "max_batch": 1,
    "max_message_mib": 1,
    "stream.max_mib": 1,
    "stream.held_out": 1,
    "stream.imitation": 1,
    "grpo.group_size": 1,
    "grpo.constant_steps": 1,
    "grpo.imitation_batch": 1,
    "grpo.scenarios_per_iteration": 1,
    "grpo.epochs": 1,
    "grpo.minibatch_size": 1,
    "alpasim.concurrent": 1,
    "alpasim.calls": 1,
    "alpasim.image_height": 16,
    "alpasim.image_width": 16,
    "cosmos.policies": 1,
    "cosmos.rollouts": 1,
    "cosmos.port": 1,
}
"""Whole numbers that may not be 0; none may be negative."""
AT_MOST = {"shard_scenarios": 4096, "port": 65535, "cosmos.port": 65535, "max_message_mib": 2047}
"""Highest whole numbers, where it is not what 32 bits hold."""
POSITIVE = {
    *(f"sim.{n}" for n in ("dt", "max_accel", "max_curvature", "max_lateral_accel", "ttc_horizon")),
    *(f"sim.{n}" for n in ("route_step", "agent_radius", "road_radius", "light_radius")),
    *(f"sim.{n}" for n in ("route_horizon", "idm_accel", "idm_decel", "idm_max_decel")),
    "sim.idm_safe_decel",
    *(f"grpo.{n}" for n in ("learning_rate", "critic_learning_rate", "max_grad_norm")),
    "grpo.max_log_ratio",
    "imitation.learning_rate",
    "policy.flow_noise",
    "alpasim.call_timeout",
    "alpasim.drive_timeout",
    "idle_s",
}
"""Numbers that must be above 0."""
NOT_NEGATIVE = {
    *(f"alpasim.{n}" for n in ("force_gt", "planner_delay", "max_seconds", "route_start_offset"))
}
"""Numbers that must not be below 0."""
SHARES = {
    "data.held_out_fraction": "between 0 and 1",
    "data.validation_fraction": "between 0 and 1",
    "imitation.held_out_fraction": "between 0 and 1",
    "grpo.discount": "above 0 and at most 1",
    "grpo.gae_lambda": "above 0 and at most 1",
}
"""Numbers that are shares of something, and what is allowed."""
CHOICES = {
    "metrics": ("", "alpasim", "nuplan", "navsim", "waymax", "ttc", "alpagym", "all"),
    "final": ("last", "best"),
    "backend": ("alpagym", "cosmos"),
    "cosmos.mode": ("colocated", "disaggregated"),
    "stream.weights": ("uniform", "failure", "difficulty"),
    "policy.head": ("gaussian", "flow_matching"),
    "alpasim.route": ("map", "recorded", "simulator", "none"),
    "sim.bad_action": ("raise", "clamp", "terminate"),
    "grpo.credit": ("step", "episode"),
    "grpo.log_prob": ("sum", "mean"),
    "grpo.scale": ("group", "batch", "none"),
    "grpo.baseline": ("group", "leave_one_out", "critic"),
    "grpo.ratio": ("step", "rollout"),
    "grpo.average": ("step", "rollout", "rollout_sum", "constant", "sum"),
    "grpo.kl_estimate": ("k1", "k2", "k3"),
}
"""Words to choose from."""


def check(config: Any, prefix: str = "") -> None:
    """Refuse values that could only fail later, when time has been spent.

    Raises:
        ValueError: the first option out of its range, by its dotted name.
    """
    for f in fields(config):
        name, value = f"{prefix}{f.name}", getattr(config, f.name)
        wanted = None
        if is_dataclass(value):
            check(value, f"{name}.")
        elif type(value) is int:
            low = AT_LEAST.get(name, 0)
            high = AT_MOST.get(name, 2**31 - 1)
            end = AT_MOST.get(name, "2^31 - 1")
            wanted = None if low <= value <= high else f"a whole number from {low} to {end}"
        elif name in SHARES:
            upper_ok = value <= 1.0 if "at most 1" in SHARES[name] else value < 1.0
            wanted = None if value > 0.0 and upper_ok else f"a share {SHARES[name]}"
        elif isinstance(value, float):
            if not math.isfinite(value):
                wanted = "a finite number"
            elif name in POSITIVE and value <= 0.0:
                wanted = "a number above 0"
            elif name in NOT_NEGATIVE and value < 0.0:
                wanted = "a number of at least 0"
        elif name in CHOICES and value not in CHOICES[name]:
            wanted = f"one of {', '.join(filter(None, CHOICES[name]))}"
        if wanted is not None:
            raise ValueError(f"{name}: expected {wanted}, got {value}")
