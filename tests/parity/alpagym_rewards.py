"""Episode rewards against AlpaGym's, from the golden set `alpagym`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from alpagym.rewards import EPISODE_PRESETS, distance_to_gt, episode_reward, yaw_of
from parity.row import Row

REFERENCE = "AlpaGym 85ed1f5"
TOLERANCE = 1e-9


def rows(golden: Path) -> list[Row]:
    data = np.load(golden / "alpagym" / "distance_and_rewards.npz")
    values: dict[str, list[float]] = {name: [] for name in ("rmse", "total", *EPISODE_PRESETS)}
    paired = refused = refusals = 0
    for i, failed in enumerate(data["error"] > 0):
        n, m = data["exec_n"][i], data["gt_n"][i]
        executed = np.column_stack([data["exec_xyz"][i, :n, :2], yaw_of(data["exec_quat"][i, :n])])
        metrics = {k: float(data[k][i]) for k in ("progress", "collision_any", "offroad")}
        try:
            distance = distance_to_gt(
                data["exec_ts_us"][i, :n],
                executed,
                data["gt_ts_us"][i, :m],
                data["gt_xyz"][i, :m, :2],
                int(data["anchor_us"][i]),
            )
        except ValueError:
            distance = None
        refused += int((distance is None) != failed)
        if distance is not None and not failed:
            paired += int(distance.num_paired != data["num_paired"][i])
            values["rmse"].append(abs(distance.rmse - data["rmse"][i]))
            values["total"].append(abs(data["scale"][i] * distance.rmse - data["total"][i]))
        for preset in EPISODE_PRESETS:
            want = data[f"reward_{preset}"][i]
            try:
                got = episode_reward(preset, metrics, distance).total
            except ValueError:
                refusals += int(not np.isnan(want))
                continue
            values[preset].append(abs(got - want))
    cases = len(data["error"])
    return [
        Row("alpagym.distance_to_gt refusals", REFERENCE, cases, wrong=refused),
        Row("alpagym.distance_to_gt poses paired", REFERENCE, len(values["rmse"]), wrong=paired),
        Row("alpagym.reward refusals", REFERENCE, cases * len(EPISODE_PRESETS), wrong=refusals),
        *(
            Row(f"alpagym.{name}", REFERENCE, len(errors), _largest(errors), TOLERANCE)
            for name, errors in (
                ("distance_to_gt rmse", values["rmse"]),
                ("distance_to_gt total", values["total"]),
                *((f"reward {name}", values[name]) for name in EPISODE_PRESETS),
            )
        ),
    ]


def _largest(errors: list[float]) -> float:
    """NaN counts as infinity."""
    return float(np.nan_to_num(errors, nan=np.inf).max())
