"""Closed-loop evaluation: drive every scenario once, count what failed, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from alpagym import sim
from alpagym.config import DRIVES_ON, ActionType, SimConfig
from alpagym.policies.policy import Policy, memory_of
from alpagym.ranks import Ranks
from alpagym.render.replay import Rollout
from alpagym.rows import decode
from alpagym.scenarios.batch import batch, max_agents
from alpagym.scenarios.scenario import Scenario
from alpagym.scenarios.step_length import require_step
from alpagym.types import Scenarios, State

MIN_LOG_LENGTH = 5.0
"""Recorded paths shorter than this do not ask for progress [m] (AlpaSim's rule)."""
WORLDS = 256
"""Scenarios driven side by side."""
BASELINES = {
    "log": sim.Controller.LOG,
    "idm": sim.Controller.IDM,
    "constant_velocity": sim.Controller.CONSTANT_VELOCITY,
}
"""Drivers that need no network, by name."""


@dataclass
class Results:
    """One row a scenario, on the host."""

    collision_at_fault: np.ndarray
    """A front or lateral collision began. bool [S]"""
    collision_any: np.ndarray
    """Any collision began. bool [S]"""
    offroad: np.ndarray
    """A corner of the box left the drivable area. bool [S]"""
    progress: np.ndarray
    """Arc length reached over the recorded path's, in [0, 1]; 1 where that is short. [S]"""
    scene_score: np.ndarray
    """AlpaSim's: 0 after a failure, else min(progress / 0.8, 1). [S]"""
    terms: dict[str, np.ndarray]
    """Sum of each raw reward term over the episode. [S]"""
    steps: np.ndarray
    """Steps driven. int [S]"""
    recordings: list[str]
    """Which recording each drive is one of. [S]"""
    undriven: dict[int, str] = field(default_factory=dict)
    """Why a drive was not driven to its end, by row; such count as failures without progress."""

    @property
    def failure(self) -> np.ndarray:
        """An at-fault collision or off-road, or not driven to its end, bool [S]."""
        failed = self.collision_at_fault | self.offroad
        failed[list(self.undriven)] = True
        return failed

    def summary(self) -> dict[str, float | int | list[float]]:
        """Rates and means with 95 % intervals: Wilson's for rates, normal ones for means.

        Drives of one recording are alike, so intervals count recordings, not drives.
        """
        independent = len(set(self.recordings))
        result: dict[str, float | int | list[float]] = {
            "num_scenarios": len(self.steps),
            "num_recordings": independent,
        }
        rates = {
            "failure_rate": self.failure,
            "collision_at_fault_rate": self.collision_at_fault,
            "collision_any_rate": self.collision_any,
            "offroad_rate": self.offroad,
        }
        for name, flags in rates.items():
            result[name] = float(flags.mean())
            result[f"{name}_ci95"] = wilson_interval(float(flags.mean()) * independent, independent)
        for name in ("progress", "scene_score"):
            values = getattr(self, name)
            spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
            half, mean = 1.96 * spread / math.sqrt(independent), float(values.mean())
            result[name] = mean
            result[f"{name}_ci95"] = [max(mean - half, 0.0), min(mean + half, 1.0)]
        return result


def check_simulator(config: SimConfig) -> None:
    """Refuse what driving one ego a world cannot do, before anything is loaded.

    Raises:
        ValueError: an option out of range, or one for several egos.
    """
    if config.multi_agent:
        raise ValueError("sim.multi_agent: expected false, since one ego a world is driven here")
    sim.make_params(config)
    sim.make_observation(sim.make_state(1, 1), config)


def wilson_interval(successes: float, trials: int, z: float = 1.96) -> list[float]:
    """Wilson's score interval of a proportion (E. B. Wilson, 1927)."""
    if trials == 0:
        return [0.0, 1.0]
    p = successes / trials
    center = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = (
        z / (1 + z * z / trials) * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    )
    return [max(center - half, 0.0), min(center + half, 1.0)]


@torch.no_grad()
def evaluate(
    driver: Policy | str,
    scenarios: Sequence[Scenario],
    config: SimConfig,
    *,
    device: str | torch.device = "cpu",
    worlds: int = WORLDS,
    record: str | None = None,
    packed: Sequence[Scenarios] = (),
) -> tuple[Results, list[Rollout]]:
    """Drive each scenario once from its start to the end of its record or to a failure.

    Args:
        driver: a policy, which drives by its mean action, or a name of `BASELINES`.
        scenarios: what to drive.
        config: the simulator's; its `end_on` decides when an episode ends.
        device: where to drive.
        worlds: scenarios driven side by side.
        record: a label; with it every rollout is kept, at 13 bytes an agent and step.
        packed: `pack` of the same scenarios and options, for those who drive them again and again.

    Returns:
        Results in the order of `scenarios`, and the rollouts, empty without `record`.

    Raises:
        ValueError: an unknown baseline; a scenario recorded otherwise than every `config.dt`; or
            with `bad_action` "raise" a policy whose action is NaN or infinite, by scenario and
            step.
    """
    if isinstance(driver, str) and driver not in BASELINES:
        raise ValueError(
            f"policy: expected a checkpoint or one of {', '.join(BASELINES)}, got {driver}"
        )
    require_step(scenarios, config.dt)
    at = torch.device(device)
    parts = []
    for n, first in enumerate(range(0, len(scenarios), worlds)):
        chosen = scenarios[first : first + worlds]
        given = packed[n] if packed else _pack(chosen, config, at)
        parts.append(_drive(driver, chosen, given, config, record))
    return joined([r for r, _ in parts]), [x for _, part in parts for x in part]


def evaluate_together(
    ranks: Ranks,
    driver: Policy | str,
    scenarios: Sequence[Scenario],
    config: SimConfig,
    device: torch.device,
    packed: Sequence[Scenarios] = (),
) -> Results:
    """The results of `evaluate`, of whose scenarios each rank drives some; the same on all.

    `packed` is `pack` of the rank's own.
    """
    own = scenarios[ranks.share(len(scenarios))]
    found = evaluate(driver, own, config, device=device, packed=packed)[0] if own else None
    return joined([results for results in ranks.everyone(found) if results is not None])


def joined(results: Sequence[Results]) -> Results:
    """Those of some scenarios, and of others, as of all."""
    terms = {k: np.concatenate([r.terms[k] for r in results]) for k in results[0].terms}
    names = ("collision_at_fault", "collision_any", "offroad", "progress", "scene_score", "steps")
    rows = {n: np.concatenate([getattr(r, n) for r in results]) for n in names}
    recordings = [x for r in results for x in r.recordings]
    starts = np.cumsum([0, *(len(r.steps) for r in results)])
    undriven = {
        int(first) + i: reason
        for first, r in zip(starts, results, strict=False)
        for i, reason in r.undriven.items()
    }
    return Results(**rows, terms=terms, recordings=recordings, undriven=undriven)


def pack(
    scenarios: Sequence[Scenario], config: SimConfig, device: torch.device, worlds: int = WORLDS
) -> list[Scenarios]:
    """What `evaluate` puts onto the device.

    On a CPU with lists of what is near, which cost time once and save it at every step.
    """
    parts = [scenarios[i : i + worlds] for i in range(0, len(scenarios), worlds)]
    return [sim.with_near(_pack(part, config, device), config) for part in parts]


def _pack(scenarios: Sequence[Scenario], config: SimConfig, device: torch.device) -> Scenarios:
    return batch(scenarios, device, lanes=config.traffic.name in DRIVES_ON)


def _drive(
    driver: Policy | str,
    scenarios: Sequence[Scenario],
    packed: Scenarios,
    config: SimConfig,
    record: str | None,
) -> tuple[Results, list[Rollout]]:
    count, device = len(scenarios), packed.device
    params, weights = sim.make_params(config), torch.zeros(1, len(sim.RewardTerm), device=device)
    state = sim.make_state(count, max_agents(scenarios), config=config, device=device)
    state.scenario.copy_(torch.arange(count))
    sim.reset(packed, state, torch.ones(count, dtype=torch.bool, device=device), params)
    if isinstance(driver, str):
        state.controller.scatter_(1, state.ego.long(), int(BASELINES[driver]))
    outcome, seen = sim.make_outcome(state), sim.make_observation(state, config)
    action = torch.zeros(count, 1, sim.action_size(config), device=device)
    terms = torch.zeros(count, len(sim.RewardTerm), device=device)
    happened = torch.zeros(count, len(sim.RewardTerm), dtype=torch.bool, device=device)
    bad_step = torch.full((count,), -1, device=device)
    tape, plan = Tape(state) if record is not None else None, None
    memory = memory_of(None if isinstance(driver, str) else driver, count, device)
    for t in range(max(s.num_steps for s in scenarios)):
        if not isinstance(driver, str) and t % config.replan_every == 0:
            sim.observe(packed, state, seen, params)
            now = decode(seen.map(lambda t: t.squeeze(1)), packed)
            if memory.shape[-1]:
                now = replace(now, ego=torch.cat([now.ego, memory], -1))
                memory = driver.remember(now)
            action[:, 0] = driver.mean(now)
            if tape is not None and config.action is ActionType.trajectory:
                plan = _planned(action[:, 0], state, packed)
        sim.step(packed, state, outcome, action, weights, params)
        terms += outcome.terms[:, 0]
        happened |= outcome.terms[:, 0] > 0
        bad_step[outcome.bad_action[:, 0] & (bad_step < 0)] = t
        if tape is not None:
            tape.add(state, outcome.terms[:, 0], outcome.collision[:, 0], plan)
    if config.bad_action == "raise" and bool((bad_step >= 0).any()):
        w = int((bad_step >= 0).nonzero()[0])
        raise ValueError(
            f"action: expected finite numbers, got NaN or infinity in scenario {scenarios[w].id}, "
            f"step {int(bad_step[w])}"
        )
    results = results_of(
        scenarios,
        terms.cpu().numpy(),
        happened.cpu().numpy(),
        outcome.progress_fraction[:, 0].cpu().numpy(),
        state.step.cpu().numpy(),
    )
    if tape is None or record is None:
        return results, []
    return results, tape.rollouts(scenarios, results, record)


def results_of(
    scenarios: Sequence[Scenario],
    terms: np.ndarray,
    happened: np.ndarray,
    progress: np.ndarray,
    steps: np.ndarray,
) -> Results:
    """Judge drives of S scenarios.

    Args:
        scenarios: what was driven.
        terms: sum of each raw reward term over a drive, [S, R].
        happened: whether it was positive in some step, bool [S, R].
        progress: `Outcome.progress_fraction` after the last step, [S].
        steps: driven, [S].
    """
    term = sim.RewardTerm
    at_fault, collided, offroad = (
        happened[:, t] for t in (term.COLLISION_AT_FAULT, term.COLLISION_ANY, term.OFFROAD)
    )
    short = np.array([s.routes.log_length[s.ego] < MIN_LOG_LENGTH for s in scenarios])
    progress = np.where(short, np.float32(1.0), np.clip(progress, 0.0, 1.0))
    score = np.where(at_fault | offroad, 0.0, np.minimum(progress / 0.8, 1.0))
    return Results(
        at_fault,
        collided,
        offroad,
        progress,
        score,
        {t.name.lower(): terms[:, t] for t in term},
        steps,
        [s.recording for s in scenarios],
    )


def _planned(action: Tensor, state: State, packed: Scenarios) -> Tensor:
    """Box centers that plans lead to, in the world frame [m].

    Args:
        action: of kind `trajectory`, [W, P * 3].
        state: when it is given.
        packed: the scenarios of its worlds, one ego each.

    Returns:
        x, y, float32 [W, P, 2].
    """
    ego = state.ego.long()
    x, y, yaw = (v.gather(1, ego) for v in (state.x, state.y, state.yaw))
    back = packed.agent[packed.agent_start[state.scenario.long()][:, None] + ego, 3]
    ahead, left, turn = action.unflatten(-1, (-1, 3)).unbind(-1)
    ahead, left = ahead - back + back * turn.cos(), left + back * turn.sin()
    cos, sin = yaw.cos(), yaw.sin()
    return torch.stack([x + cos * ahead - sin * left, y + sin * ahead + cos * left], -1)


class Tape:
    """Poses of all agents, step by step, on the host."""

    def __init__(self, state: State) -> None:
        self._poses = [self._pose(state)]
        self._valid = [state.valid.cpu().numpy().copy()]
        self._terms: list[np.ndarray] = []
        self._collision: list[np.ndarray] = []
        self._plans: list[np.ndarray] = []

    @staticmethod
    def _pose(state: State) -> np.ndarray:
        return torch.stack([state.x, state.y, state.yaw]).cpu().numpy()

    def add(
        self, state: State, terms: Tensor, collision: Tensor, plan: Tensor | None = None
    ) -> None:
        self._poses.append(self._pose(state))
        self._valid.append(state.valid.cpu().numpy().copy())
        self._terms.append(terms.cpu().numpy().copy())
        self._collision.append(collision.cpu().numpy().copy())
        if plan is not None:
            self._plans.append(plan.cpu().numpy())

    def rollouts(
        self, scenarios: Sequence[Scenario], results: Results, label: str
    ) -> list[Rollout]:
        """One rollout a scenario, cut to its own length."""
        poses, valid = np.stack(self._poses), np.stack(self._valid)  # [T + 1, (3,) W, A]
        terms, collision = np.stack(self._terms), np.stack(self._collision)
        plans = np.stack(self._plans) if self._plans else None
        rollouts = []
        for w, scenario in enumerate(scenarios):
            steps = scenario.num_steps
            driven = int(results.steps[w])
            rollouts.append(
                Rollout(
                    scenario,
                    x=poses[: steps + 1, 0, w],
                    y=poses[: steps + 1, 1, w],
                    yaw=poses[: steps + 1, 2, w],
                    valid=valid[: steps + 1, w],
                    ego=scenario.ego,
                    start_frame=scenario.start_frame,
                    rewards={t.name.lower(): terms[:steps, w, t] for t in sim.RewardTerm},
                    collision=collision[:steps, w],
                    offroad=terms[:steps, w, sim.RewardTerm.OFFROAD] > 0,
                    done_step=driven - 1 if driven < steps else None,
                    label=label,
                    plans=None if plans is None else plans[:steps, w],
                    metrics={
                        "failure": bool(results.failure[w]),
                        "progress": float(results.progress[w]),
                        "scene_score": float(results.scene_score[w]),
                    },
                )
            )
        return rollouts
