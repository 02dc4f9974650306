"""The GRPO loop: draw scenarios, roll groups, compare, update."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alpagym import sim
from alpagym.config import GrpoConfig, Precision, RewardConfig, SimConfig
from alpagym.grpo.advantage import Advantages, group_advantages
from alpagym.grpo.loss import grpo_loss, reduce_log_prob
from alpagym.grpo.rollout import Recording, Roller
from alpagym.policies.policy import Policy
from alpagym.reward_functions import UserRewards
from alpagym.reward_ranges import Ranges
from alpagym.rows import decode
from alpagym.stream.banks import Stream
from alpagym.types import Observation, Scenarios


class TrainingError(RuntimeError):
    """Training cannot go on; the message is one sentence that names the cause."""


@dataclass
class Sampler:
    """Draws the scenarios of an iteration; those whose groups are dead are drawn less often."""

    weight: Tensor
    """[S], on the host."""
    generator: torch.Generator

    def draw(self, count: int) -> Tensor:
        """Scenario indices, without repetition while there are enough, int32 [count]."""
        again = count > int((self.weight > 0).sum())
        return torch.multinomial(
            self.weight, count, replacement=again, generator=self.generator
        ).to(torch.int32)

    def report(self, scenario: Tensor, dead: Tensor) -> None:
        """Halve the weight of scenarios whose groups were dead, down to 1/16; restore others."""
        index = scenario.long()
        lower = (0.5 * self.weight[index]).clamp(min=1 / 16)
        self.weight[index] = torch.where(dead, lower, torch.ones_like(lower))


class GrpoTrainer:
    """Improves a policy in closed loop on packed scenarios."""

    def __init__(
        self,
        policy: Policy,
        scenarios: Scenarios,
        max_agents: int,
        *,
        config: GrpoConfig,
        sim_config: SimConfig,
        reward: RewardConfig,
        reward_functions: UserRewards | None = None,
        reward_ranges: Ranges | None = None,
        seed: int,
        names: Sequence[str] = (),
        stream: Stream | None = None,
    ) -> None:
        """Allocate the buffers of a rollout.

        With `stream`, whose `per_rollout` is `config.scenarios_per_iteration`, scenarios come from
        there; `scenarios` are those of its bank in use, and `max_agents` its.

        Raises:
            ValueError: a group of fewer than two, which has nothing to compare.
        """
        if config.group_size < 2:
            raise ValueError(
                f"grpo.group_size: expected at least 2, to compare with, got {config.group_size}"
            )
        self.policy, self.config, self.scenarios = policy, config, scenarios
        self.anchor = copy.deepcopy(policy).requires_grad_(False) if config.kl_weight > 0 else None
        horizon = int((scenarios.num_frames - 1 - scenarios.start_frame).max())
        if stream is not None:
            horizon = stream.num_steps
        self.roller = Roller(
            scenarios,
            max_agents,
            num_groups=config.scenarios_per_iteration,
            group_size=config.group_size,
            num_steps=min(horizon, sim_config.max_steps) if sim_config.max_steps > 0 else horizon,
            config=sim_config,
            weights=sim.make_weights(reward, scenarios.device),
            functions=reward_functions,
            ranges=reward_ranges,
            observed=policy.ranges,
            capture=config.capture,
        )
        self.names = names if stream is None else stream.names
        self.stream = stream
        self.generator = torch.Generator().manual_seed(seed)
        self.sampler = Sampler(torch.ones(len(scenarios.key)), self.generator)
        self.optimizer = torch.optim.Adam(policy.parameters(), lr=config.learning_rate, eps=1e-5)
        self.agent_steps = 0

    def train(self, on_iteration: Callable[[int, dict[str, float]], None]) -> None:
        """Run all iterations.

        Raises:
            TrainingError: a non-finite reward or gradient.
        """
        for iteration in range(self.config.iterations):
            remaining = 1.0 - iteration / self.config.iterations
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * remaining
            on_iteration(iteration, self.iterate(iteration))

    def iterate(self, iteration: int) -> dict[str, float]:
        """One rollout of all groups and the updates from it; returns what to log."""
        config, device = self.config, self.scenarios.device
        started = time.perf_counter()
        waited = self.stream.waited_s if self.stream is not None else 0.0
        scenario = self._draw()
        seed = torch.randint(2**62, (config.scenarios_per_iteration,), generator=self.generator)
        self.policy.eval()
        with self._precision():
            record = self.roller.roll(self.policy, scenario.to(device), seed.to(device))
        compared = group_advantages(
            record.reward,
            record.valid,
            config.group_size,
            credit=config.credit,
            scale=config.scale,
            discount=config.discount,
            dead_tolerance=config.dead_group_tolerance,
        )
        self._check(record, scenario, seed)
        self._report(scenario, record, compared)
        rolled = time.perf_counter()
        steps = record.steps
        self.agent_steps += steps
        values = self._update(record, compared, iteration) | self._describe(record, compared)
        elapsed = time.perf_counter() - started
        if self.stream is not None:
            values["stream_wait_s"] = self.stream.waited_s - waited
            values["stream_banks"] = float(self.stream.num_banks)
        return values | {
            "agent_steps": self.agent_steps,
            "agent_steps_per_s": steps / elapsed,
            "rollout_s": rolled - started,
            "update_s": elapsed - (rolled - started),
        }

    def _draw(self) -> Tensor:
        """Scenarios of the next rollout, of the resident ones or of the stream's next."""
        if self.stream is None:
            return self.sampler.draw(self.config.scenarios_per_iteration)
        scenario = self.stream.draw()
        self.names = self.stream.names
        if self.scenarios is not self.stream.scenarios:
            self.scenarios = self.stream.scenarios
            self.roller.use(self.scenarios)
        return scenario

    def _report(self, scenario: Tensor, record: Recording, compared: Advantages) -> None:
        """Tell what scenarios are drawn by how their groups did."""
        dead = compared.dead.cpu()
        if self.stream is not None:
            failing = _failed(record).view(-1, self.config.group_size).float().mean(1).cpu()
            counted = dead if self.config.resample_dead else torch.zeros_like(dead)
            self.stream.report(scenario, failing, counted)
        elif self.config.resample_dead:
            self.sampler.report(scenario, dead)

    def _update(self, record: Recording, compared: Advantages, iteration: int) -> dict[str, float]:
        config = self.config
        self.policy.train()
        observation = record.observation.map(lambda t: t.flatten(0, 1))
        action = record.action.flatten(0, 1)
        old = reduce_log_prob(record.log_prob, config.log_prob).flatten()
        advantage = compared.advantage.flatten()
        teaches = record.valid.flatten()
        if self.anchor is None:  # steps without an advantage have no gradient
            teaches = teaches & (advantage != 0)
        chosen = torch.nonzero(teaches).squeeze(1)
        rows: list[Tensor] = []
        for _ in range(config.epochs if len(chosen) else 0):  # all groups may be dead
            order = torch.randperm(len(chosen), generator=self.generator).to(chosen.device)
            rows += chosen[order].tensor_split(math.ceil(len(chosen) / config.minibatch_size))
        made = [self._learn(observation.index(r), action[r], old[r], advantage[r]) for r in rows]
        means = {k: float(torch.stack([m[k] for m in made]).mean()) for k in (made or [{}])[0]}
        if not all(math.isfinite(v) for v in means.values()):
            bad = ", ".join(f"{k}={v}" for k, v in means.items() if not math.isfinite(v))
            raise TrainingError(
                f"iteration {iteration}: {bad}: lower grpo.learning_rate or look at the reward"
            )
        return means | {"entropy": float(self.policy.entropy().detach())}

    def _learn(
        self, seen: Observation, action: Tensor, old_log_prob: Tensor, advantage: Tensor
    ) -> dict[str, Tensor]:
        """One gradient step on N recorded steps; returns scalars on the device."""
        config, seen = self.config, decode(seen, self.scenarios)
        anchor = None
        with self._precision():
            log_prob = reduce_log_prob(self.policy.log_prob(seen, action), config.log_prob)
            if self.anchor is not None:
                with torch.no_grad():
                    anchor = reduce_log_prob(self.anchor.log_prob(seen, action), config.log_prob)
        loss = grpo_loss(
            log_prob,
            old_log_prob,
            advantage,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            anchor_log_prob=anchor,
            kl_weight=config.kl_weight,
        )
        self.optimizer.zero_grad(set_to_none=True)
        (loss.total - config.entropy_weight * self.policy.entropy()).backward()
        norm = nn.utils.clip_grad_norm_(self.policy.parameters(), config.max_grad_norm)
        self.optimizer.step()
        return {
            "policy_loss": loss.policy,
            "kl": loss.kl,
            "clip_fraction": loss.clip_fraction,
            "ratio_max": loss.ratio_max,
            "grad_norm": norm.detach(),
        }

    def _precision(self) -> torch.autocast:
        """What the policy runs under, in rollouts and updates alike."""
        low = self.config.precision is Precision.bfloat16
        return torch.autocast(self.scenarios.device.type, torch.bfloat16, enabled=low)

    def _check(self, record: Recording, scenario: Tensor, seed: Tensor) -> None:
        """Stop at the first action or reward that is not finite, and name where it was."""
        lost = ~torch.isfinite(record.action).all(2) & record.valid
        bad = ~torch.isfinite(record.reward) | lost
        if not bool(bad.any()):
            return
        step, world = (int(i) for i in torch.nonzero(bad)[0])
        group, member = divmod(world, self.config.group_size)
        terms = [
            t.name.lower()
            for t in sim.RewardTerm
            if not bool(torch.isfinite(record.terms[step, world, t]))
        ]
        what, cause = "reward", f"from {', '.join(terms) or 'the weights'}"
        if bool(lost[step, world]):
            what, cause = "action", f"got {record.action[step, world].tolist()}"
        index = int(scenario[group])
        name = self.names[index] if self.names else index
        raise TrainingError(
            f"{what} is not finite in scenario {name}, seed {int(seed[group])}, "
            f"member {member}, step {step}, {cause}"
        )

    def _describe(self, record: Recording, compared: Advantages) -> dict[str, float]:
        term = sim.RewardTerm
        total = (record.terms * record.valid.unsqueeze(-1)).sum(0)  # [W, R]
        return {
            "return_mean": float(compared.returns.mean()),
            "return_spread_in_group": float(compared.returns.std(1).mean()),
            "return_spread_across_groups": float(compared.returns.mean(1).std())
            if len(compared.returns) > 1
            else 0.0,
            "dead_group_fraction": float(compared.dead.float().mean()),
            "failure_rate": float(_failed(record).float().mean()),
            "episode_steps": float(record.valid.sum(0).float().mean()),
        } | {f"term_{t.name.lower()}": float(total[:, t].mean()) for t in term}


def _failed(record: Recording) -> Tensor:
    """Which worlds met an at-fault collision or left the road, bool [W]."""
    terms = [sim.RewardTerm.COLLISION_AT_FAULT, sim.RewardTerm.OFFROAD]
    happened = (record.terms[..., terms] * record.valid.unsqueeze(-1)).sum((0, 2))
    return happened > 0
