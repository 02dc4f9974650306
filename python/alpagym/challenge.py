"""`alpagym eval suite=challenge`: a rehearsal of AlpaSim's closed-loop challenge of 2026.

Its protocol (track `pai`) on any scenarios: the record drives for 1.7 s, then the driver at 10 Hz
among agents that replay their log; scores end 4 m beside the recorded path, an end that the driver
asks for spoils the run, and 0.1 s is the budget of a drive.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from alpagym.config import SimConfig, Traffic
from alpagym.evaluation import evaluate
from alpagym.interop.alpasim.address import Address
from alpagym.interop.alpasim.latencies import Latencies
from alpagym.interop.alpasim.processes import listener, peak_memory
from alpagym.metrics.alpasim.episode import Plan, Reply
from alpagym.metrics.drive import Drive, from_row
from alpagym.metrics.suites import alpasim_total
from alpagym.policies.policy import Policy
from alpagym.scenarios.scenario import Scenario
from alpagym.tables import plain_printer
from alpagym.training_config import EvalConfig

if TYPE_CHECKING:
    from alpagym.interop.alpasim.remote_evaluation import RemoteDrives

NAME = "challenge"
FORCE_GT = 1.7
"""Time that the record drives first [s]."""
DT = 0.1
ROUTE_START = 40.0
"""Waypoints nearer than this are not told [m]."""
BUDGET = 0.1
"""Time of a drive [s]."""
MEMORY = 16 * 2**30
"""GPU memory of a driver [bytes]."""
RULES: dict[str, Any] = {"dt": DT, "traffic": Traffic.log}
"""Options of the simulator that the protocol sets."""
NOT_GIVEN = {
    "drive_irt_rank": "needs the rollouts of other entrants",
    "policy_capability_score": "needs the rollouts of other entrants",
}
"""Columns of the leaderboard that nobody can have alone."""


def rehearsed(config: EvalConfig) -> EvalConfig:
    """The options of an evaluation by the challenge's protocol.

    Raises:
        ValueError: an unknown suite, or other metrics.
    """
    if config.suite != NAME:
        raise ValueError(f"suite: expected {NAME}, got {config.suite}")
    if config.metrics not in ("", "alpasim"):
        raise ValueError(f"metrics: expected alpasim with suite={NAME}, got {config.metrics}")
    sessions = replace(
        config.alpasim,
        force_gt=FORCE_GT,
        planner_delay=0.0,
        max_seconds=0.0,
        route_start_offset=ROUTE_START,
        send_ground_truth=False,
        recorded_motion=False,
    )
    return replace(config, metrics="alpasim", alpasim=sessions, sim=replace(config.sim, **RULES))


def from_first_plan(
    drives: Sequence[Drive], replies: Sequence[Sequence[Reply]] | None
) -> tuple[list[Drive], list[list[Reply]] | None]:
    """Drives, and what their drivers answered, without what was before the challenge begins."""
    before = [max(d.start - round(FORCE_GT / d.dt), 0) for d in drives]
    cut = [from_row(d, row) for d, row in zip(drives, before, strict=True)]
    if replies is None:
        return cut, None
    told = [
        [_earlier(reply, round(row * d.dt * 1e6)) for reply in given]
        for given, row, d in zip(replies, before, drives, strict=True)
    ]
    return cut, told


def _earlier(reply: Reply, by: int) -> Reply:
    def moved(plan: Plan) -> Plan:
        return Plan(plan.times_us - by, plan.pose)

    return replace(
        reply,
        now_us=reply.now_us - by,
        query_us=reply.query_us - by,
        plan=moved(reply.plan),
        samples=[moved(sample) for sample in reply.samples],
    )


@dataclass(frozen=True)
class Resources:
    """What a driver took."""

    latencies: Latencies
    """Of its drives."""
    timed: str
    """What was timed."""
    memory: int | None
    """Most that it had [bytes]; None where that cannot be seen."""
    seen: str
    """Of what that is the memory, or why it is not seen."""


class _Clocked:
    """A policy whose decisions are timed."""

    def __init__(self, policy: Policy, device: torch.device, latencies: Latencies) -> None:
        self._policy, self._device, self._latencies = policy, device, latencies

    def mean(self, seen: Any) -> Any:
        begun = time.perf_counter()
        action = self._policy.mean(seen)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._latencies.add(time.perf_counter() - begun)
        return action

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)


def resources_of(
    driver: Policy | str | Address,
    far: RemoteDrives | None,
    scenario: Scenario,
    sim_config: SimConfig,
    device: torch.device,
) -> Resources:
    """What a driver took.

    Args:
        driver: who drove.
        far: what it drove, if it is far away.
        scenario: which a policy drives once more, alone, to be timed.
        sim_config: its simulator's.
        device: where it is.
    """
    if isinstance(driver, Address):
        assert far is not None
        timed = "calls of drive, the way there and back included"
        process = listener(driver.host, driver.port)
        if process is None:
            seen = "not seen: no process of this machine that may be looked at listens there"
            return Resources(far.drive_latencies, timed, None, seen)
        seen = f"resident memory of process {process}, without its children and the GPU's"
        return Resources(far.drive_latencies, timed, peak_memory(process), seen)
    if isinstance(driver, str):
        return Resources(Latencies(), "nothing: a baseline decides nothing", None, "a baseline")
    latencies = Latencies()
    clocked: Any = _Clocked(driver, device, latencies)
    evaluate(clocked, [scenario], replace(sim_config, end_on=()), device=device)
    timed = "decisions of the policy, one world at a time"
    if device.type == "cuda":
        memory = torch.cuda.max_memory_reserved(device)
        return Resources(latencies, timed, memory, "the GPU's, that of the simulator included")
    memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Resources(latencies, timed, memory, "resident, of this process with the simulator")


def report(
    label: str,
    rows: Sequence[dict[str, Any]],
    far: RemoteDrives | None,
    used: Resources,
    console: Console,
) -> dict[str, Any]:
    """Print the leaderboard of one driver and return it by the suite's name."""
    found = leaderboard(rows, [] if far is None else far.ended_by_driver, used)
    console.print(board_table(label, found))
    plain_printer(console)(f"memory: {used.seen}")
    return {NAME: found}


def leaderboard(
    rows: Sequence[dict[str, Any]], ended_by_driver: Sequence[int], used: Resources
) -> dict[str, Any]:
    """The challenge's numbers of one driver; adds `challenge` to the row of each scenario.

    Args:
        rows: of each scenario as `alpagym eval` reports them, with AlpaSim's metrics.
        ended_by_driver: rows whose session the driver asked to end.
        used: what the driver took.
    """
    judged, scores = [], []
    for k, row in enumerate(rows):
        numbers = _read(row.get("metrics", {}).get("alpasim", {}))
        reason = row.get("not_driven") or row.get("not_scored", {}).get("alpasim", "")
        status = "scored"
        if "not_driven" in row:
            status = "failed"
        elif k in ended_by_driver:
            status, reason = "invalid", "the driver asked for the end"
        elif not numbers or math.isnan(numbers["scene_score"]):
            status = "not_scored"
        told: dict[str, Any] = {"status": status}
        if status == "scored":
            judged.append(numbers)
            told |= {n: numbers[n] for n in ("scene_score", "progress_clipped_rel")}
            told |= {
                "incident": bool(numbers["offroad_or_collision"]),
                "incident_at_fault": bool(numbers["offroad_or_collision_at_fault"]),
                "km": numbers["dist_traveled_m"] / 1000,
            }
        elif status != "not_scored":
            told["scene_score"] = 0.0
        if reason:
            told["reason"] = reason
        if "scene_score" in told:
            scores.append(told["scene_score"])
        row["challenge"] = told
    statuses = [row["challenge"]["status"] for row in rows]
    total = alpasim_total(judged) if judged else {}
    found: dict[str, Any] = {
        "valid": "invalid" not in statuses,
        "num_rollouts": len(rows),
        **{f"num_{s}": statuses.count(s) for s in ("scored", "failed", "invalid", "not_scored")},
        "scene_score": float(np.mean(scores)) if scores else None,
        "progress_clipped_rel": total.get("progress_clipped_rel"),
        "num_incidents": sum(bool(n["offroad_or_collision"]) for n in judged),
        "num_incidents_at_fault": sum(bool(n["offroad_or_collision_at_fault"]) for n in judged),
    }
    for name in ("avg_dist_between_incidents", "avg_dist_between_incidents_at_fault"):
        value = total.get(name)
        found[name] = "inf" if value == math.inf else value
    return found | {**dict.fromkeys(NOT_GIVEN), "not_given": NOT_GIVEN, "driver": _used(used)}


def _used(used: Resources) -> dict[str, Any]:
    within = None if used.memory is None else used.memory <= MEMORY
    times = used.latencies.summary() if len(used.latencies) else {"num_calls": 0}
    over = used.latencies.share_over(BUDGET) if len(used.latencies) else None
    return {
        "timed": used.timed,
        **times,
        "budget_ms": 1e3 * BUDGET,
        "share_over_budget": over,
        "memory_mib": None if used.memory is None else round(used.memory / 2**20),
        "memory_limit_mib": MEMORY // 2**20,
        "within_memory_limit": within,
        "memory_seen": used.seen,
    }


def _read(numbers: dict[str, Any]) -> dict[str, float]:
    """Numbers as of before they became JSON."""
    return {name: math.nan if v is None else float(v) for name, v in numbers.items()}


def board_table(label: str, found: dict[str, Any]) -> Table:
    """The leaderboard's columns as rows."""
    table = Table(title=f"challenge: {label}"[:100])
    table.add_column("", no_wrap=True)
    table.add_column("", justify="right")
    names = {
        "scene_score": "", "progress_clipped_rel": "", "num_incidents": "",
        "num_incidents_at_fault": "", "avg_dist_between_incidents": " km",
        "avg_dist_between_incidents_at_fault": " km",
        "num_scored": "", "num_failed": "", "num_invalid": "", "num_not_scored": "",
    }  # fmt: skip
    for name, unit in names.items():
        value = found[name]
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        table.add_row(name, "-" if value is None else text + unit)
    table.add_row("valid", "yes" if found["valid"] else "no: the driver ended sessions")
    for name, why in found["not_given"].items():
        table.add_row(name, f"- ({why})")
    driver = found["driver"]
    if driver["num_calls"]:
        table.add_row("drive p50 / p99", f"{driver['p50_ms']:.1f} / {driver['p99_ms']:.1f} ms")
        table.add_row("drives over 100 ms", f"{100 * driver['share_over_budget']:.2f} %")
    if driver["memory_mib"] is not None:
        table.add_row("memory", f"{driver['memory_mib']} of {driver['memory_limit_mib']} MiB")
    return table
