"""Imitation: learn from the logs, open loop, what the recorded ego did."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from alpagym import sim
from alpagym.config import SimConfig
from alpagym.policies.policy import Policy, memory_of
from alpagym.ranks import ALONE, Ranks
from alpagym.rows import decode
from alpagym.scenarios.polyline import wrap_angle
from alpagym.sharding import Learning
from alpagym.training_config import ImitationConfig
from alpagym.types import Observation, Scenarios

SHORTEST_WAY = 0.05
"""Recorded steps shorter than this tell nothing of curvature [m]."""


@dataclass
class Demonstrations:
    """What the recorded egos saw and did; N steps."""

    observation: Observation
    """[N, ...]"""
    action: Tensor
    """By the inverse of the vehicle model, within bounds, of this step and those after it; zeros
    where the record tells nothing of them. [N, 2 P]"""
    recording: Tensor
    """Which recording each step comes from. int64 [N]"""
    known: Tensor | None = None
    """Of which of the P steps the record tells. bool [N, P]; None: of all"""


@torch.no_grad()
def demonstrate(
    scenarios: Scenarios,
    max_agents: int,
    config: SimConfig,
    *,
    recordings: Sequence[str] | None = None,
    smoothing: float = 0.0,
    policy: Policy | None = None,
    worlds: int = 256,
) -> Demonstrations:
    """Replay every scenario's ego; pair what it saw with the controls its next poses amount to.

    Args:
        scenarios: packed, with `max_agents` agents at most.
        max_agents: capacity of the worlds that replay them.
        config: the simulator's.
        recordings: which recording each scenario is a drive of; each its own when not given.
        smoothing: time over which controls are averaged [s]: recorded poses are noisy, and their
            differences noisier. 0 inverts the vehicle model exactly.
        policy: whom it is shown to: as many controls ahead as it imitates, and what it remembers
            of the steps before, `config.replan_every` apart. One control, and nothing, without it.
        worlds: scenarios replayed side by side.

    Raises:
        ValueError: no scenario has two recorded frames of its ego in a row.
    """
    count, device = len(scenarios.key), scenarios.device
    params = sim.make_params(replace(config, max_steps=0))  # whole records teach
    window = 2 * round(0.5 * smoothing / config.dt) + 1
    parts: list[Demonstrations] = []
    for first in range(0, count, worlds):
        index = torch.arange(first, min(first + worlds, count), dtype=torch.int32, device=device)
        parts.append(_replay(scenarios, index, max_agents, config, params, window, policy))
    if not any(len(part.action) for part in parts):
        raise ValueError(
            f"imitation: expected recorded steps of the ego in {count} scenarios, got none"
        )
    number = {name: i for i, name in enumerate(dict.fromkeys(recordings or range(count)))}
    of_scenario = torch.tensor([number[n] for n in recordings or range(count)], device=device)
    joined = join(parts)
    joined.recording = of_scenario[joined.recording]
    return joined


def join(parts: Sequence[Demonstrations]) -> Demonstrations:
    """All of them, one after the other."""
    observations = [part.observation.tensors() for part in parts]
    known = [part.known for part in parts if part.known is not None]
    return Demonstrations(
        Observation(**{k: torch.cat([o[k] for o in observations]) for k in observations[0]}),
        torch.cat([part.action for part in parts]),
        torch.cat([part.recording for part in parts]),
        torch.cat(known) if known else None,
    )


def _replay(
    scenarios: Scenarios,
    index: Tensor,
    max_agents: int,
    config: SimConfig,
    params: sim.Params,
    window: int,
    policy: Policy | None,
) -> Demonstrations:
    state = sim.make_state(len(index), max_agents, config=config, device=scenarios.device)
    state.scenario.copy_(index)
    sim.reset(scenarios, state, torch.ones_like(index, dtype=torch.bool), params)
    state.controller.fill_(int(sim.Controller.LOG))
    outcome, seen = sim.make_outcome(state), sim.make_observation(state, config)
    weights = torch.zeros(1, len(sim.RewardTerm), device=scenarios.device)
    idle = torch.zeros(len(index), 1, sim.action_size(config), device=scenarios.device)
    ego = state.ego.long().clamp(min=0)
    horizon = scenarios.num_frames[index.long()] - 1 - scenarios.start_frame[index.long()]
    observations, moves, known = [], [], []
    every = config.replan_every
    memories = [memory_of(policy, len(index), scenarios.device) for _ in range(every)]
    for step in range(int(horizon.max())):
        sim.observe(scenarios, state, seen, params)
        now = decode(seen.map(lambda t: t.squeeze(1).clone()), scenarios)
        if policy is not None and memories[0].shape[-1]:
            now.ego = torch.cat([now.ego, memories[step % every]], -1)
            memories[step % every] = policy.remember(now)
        observations.append(now)
        state.terminated.zero_()  # a recorded ego drives on, whatever the rules say
        sim.step(scenarios, state, outcome, idle, weights, params)
        names = ("accel", "prev_speed", "yaw", "prev_yaw", "valid", "prev_valid")
        fields = {name: getattr(state, name).gather(1, ego).squeeze(1) for name in names}
        turn = wrap_angle(fields["yaw"] - fields["prev_yaw"])
        moves.append(torch.stack([fields["accel"], fields["prev_speed"], turn]))
        plausible = fields["accel"].abs() < 2 * -config.min_accel
        known.append(fields["valid"] & fields["prev_valid"] & plausible & (step < horizon))
    keep = torch.stack(known)  # [T, W]
    accel, speed, turn = _averaged(torch.stack(moves, 1), keep, window)
    way = speed * config.dt + 0.5 * accel * config.dt**2
    shortest = 1e-3 if window == 1 else SHORTEST_WAY
    curvature = torch.where(way.abs() < shortest, torch.zeros_like(turn), turn / way)
    limit = (config.max_lateral_accel / speed.square().clamp(min=1e-3)).clamp(
        max=config.max_curvature
    )
    bounded = torch.stack(
        [accel.clamp(config.min_accel, config.max_accel), curvature.clamp(-limit, limit)], -1
    )
    parts = [o.index(k) for o, k in zip(observations, keep, strict=True)]
    joined = {k: torch.cat([part.tensors()[k] for part in parts]) for k in parts[0].tensors()}
    owner = index.long().expand_as(keep)
    ahead = policy.imitates if policy is not None else 1
    if ahead == 1:
        return Demonstrations(Observation(**joined), bounded[keep], owner[keep])
    controls, told = _ahead(bounded, keep, ahead)
    return Demonstrations(
        Observation(**joined), controls[keep].flatten(-2), owner[keep], told[keep]
    )


def _ahead(controls: Tensor, known: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Each step's controls and those after it, until one is not known.

    [T, W, 2] and bool [T, W] -> [T, W, steps, 2], 0 where not known, and bool [T, W, steps].
    """
    later = nn.functional.pad(controls, (0, 0, 0, 0, 0, steps - 1)).unfold(0, steps, 1)
    there = nn.functional.pad(known, (0, 0, 0, steps - 1)).unfold(0, steps, 1)
    there = there.cumprod(-1).bool()  # [T, W, steps]
    return later.transpose(-1, -2) * there.unsqueeze(-1), there


def _averaged(values: Tensor, known: Tensor, window: int) -> Tensor:
    """Mean over the known steps of a centered window, [K, T, W] and bool [T, W] -> [K, T, W]."""
    if window == 1:
        return values
    weight = known.float()

    def total(x: Tensor) -> Tensor:  # over the window along time, ends cut short
        padded = nn.functional.pad(x, (0, 0, window // 2 + 1, window // 2)).cumsum(-2)
        return padded[..., window:, :] - padded[..., :-window, :]

    return total(values * weight) / total(weight[None]).clamp(min=1.0)


def imitation_loss(
    policy: Policy,
    demonstrations: Demonstrations,
    rows: Tensor,
    generator: torch.Generator,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Huber distance of the policy's actions from those recorded, in units of order 1; a scalar.

    Of several ranks each takes its part of the rows; what they return adds up to the mean of all.

    Args:
        policy: to compare.
        demonstrations: N recorded steps.
        rows: which of them, int64 [n].
        generator: on the host, for a policy whose deviation is drawn; moved on by all rows.
        ranks: that learn together, given the same rows.
    """
    own, share = ranks.part(rows)
    seen, done = demonstrations.observation.index(own), demonstrations.action[own]
    if policy.imitation_noise:
        noise = torch.randn(len(rows), policy.imitation_noise, generator=generator)
        deviation = policy.deviation(seen, done, ranks.part(noise)[0].to(rows.device))
    else:
        deviation = policy.deviation(seen, done)
    nothing, knee = torch.zeros_like(deviation), policy.imitation_knee
    if demonstrations.known is None:
        return nn.functional.huber_loss(deviation, nothing, delta=knee) * share
    known = demonstrations.known[rows]
    apart = nn.functional.huber_loss(deviation, nothing, delta=knee, reduction="none")
    lost = (apart * demonstrations.known[own].repeat_interleave(2, -1)).sum()
    return lost / (2 * known.sum()) * (share > 0.0)


def imitate(
    policy: Policy,
    demonstrations: Demonstrations,
    config: ImitationConfig,
    *,
    seed: int,
    on_epoch: Callable[[dict[str, float]], None],
    ranks: Ranks = ALONE,
    shard: bool = False,
) -> Policy:
    """Train `policy` until its held-out loss stops falling; return the best epoch's weights.

    The loss is the Huber distance of actions in units of order 1. Recordings, not steps, are held
    out. The learning rate halves whenever two epochs pass without a lower held-out loss. With a
    single recording nothing is held out and the training loss decides. Of several ranks, which
    have the same demonstrations, each takes its part of every batch, and with `shard` moves its
    part of the weights.

    Raises:
        ValueError: the loss is not finite.
        RankError: the ranks do not agree.
    """
    generator = torch.Generator().manual_seed(seed)
    recordings = demonstrations.recording.unique()
    num_held_out = min(
        max(1, round(config.held_out_fraction * len(recordings))), len(recordings) - 1
    )
    chosen = recordings[
        torch.randperm(len(recordings), generator=generator)[:num_held_out].to(recordings.device)
    ]
    is_held_out = torch.isin(demonstrations.recording, chosen)
    train = torch.nonzero(~is_held_out).squeeze(1)
    held_out = torch.nonzero(is_held_out).squeeze(1) if num_held_out else train

    def loss_of(learner: Policy, rows: Tensor, generator: torch.Generator) -> Tensor:
        return imitation_loss(learner, demonstrations, rows, generator, ranks)

    learning = Learning(policy, ranks, shard=shard)
    optimizer = torch.optim.Adam(learning.module.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    best, best_weights, since_best = float("inf"), copy.deepcopy(policy.state_dict()), 0
    for epoch in range(config.max_epochs):
        learning.module.train()
        total, count = torch.zeros((), device=train.device), 0
        order = train[torch.randperm(len(train), generator=generator).to(train.device)]
        for rows in order.split(config.batch_size):
            loss = loss_of(learning.module, rows, generator)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            learning.sum_gradients()
            optimizer.step()
            total += loss.detach() * len(rows)
            count += len(rows)
        learning.gather()
        policy.eval()
        with torch.no_grad():
            fixed = torch.Generator().manual_seed(seed)  # epochs are compared by the same draws
            parts = [loss_of(policy, rows, fixed) * len(rows) for rows in held_out.split(8192)]
            lost = sum(parts, torch.zeros_like(total))
            ranks.sum_([total, lost])
            held_out_loss = float(lost / len(held_out))
        if not math.isfinite(held_out_loss):
            raise ValueError(
                f"imitation: held-out loss {held_out_loss} in epoch {epoch}: "
                "lower imitation.learning_rate"
            )
        schedule.step(held_out_loss)
        since_best += 1
        if held_out_loss < best:
            best, best_weights, since_best = held_out_loss, copy.deepcopy(policy.state_dict()), 0
        on_epoch(
            {
                "epoch": epoch,
                "loss": float(total / count),
                "held_out_loss": held_out_loss,
                "best": best,
            }
        )
        if since_best >= config.patience:
            break
    policy.load_state_dict(best_weights)
    ranks.agree("what was imitated", list(policy.parameters()))
    return policy
