"""What becomes of a rollout: gradient steps on a policy, and on a critic where there is one."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alpagym.grpo.batches import OwnBatch, own_batch, shuffled_rollouts, shuffled_steps
from alpagym.grpo.critic import Critic
from alpagym.grpo.loss import grpo_loss, reduce_log_prob, step_weights
from alpagym.grpo.tokens import Token
from alpagym.imitation import Demonstrations, imitation_loss
from alpagym.policies.policy import Policy
from alpagym.ranks import ALONE, Ranks
from alpagym.rows import decode
from alpagym.sharding import Learning, full, like
from alpagym.training_config import GrpoConfig, Precision
from alpagym.types import Observation, Scenarios


@dataclass
class Lesson:
    """What is to be learned: T decisions of W rollouts, of which a rank holds w."""

    observation: Observation
    """As recorded. [T, w, ...]"""
    action: Tensor
    """What was decided (`Policy.sample`). [T, w, N]"""
    log_prob: Tensor
    """By dimension, when it was decided. [T, w, L]"""
    advantage: Tensor
    """[T, W]"""
    valid: Tensor
    """bool [T, W]"""
    origin: Origin
    wanted: Tensor | None = None
    """What a critic should have expected, [T, W]."""
    column: Tensor | None = None
    """Which of the w each of the W is, -1 where another rank holds it, int64 [W]; None where one
    rank holds all. w is at least 1, whether any of them is or not."""


@dataclass
class Origin:
    """Where rollouts come from, on the host; W each."""

    name: list[str]
    """Of the scenario."""
    seed: Tensor
    member: Tensor
    """Of its group."""
    lead: Tensor
    """Steps that the policy had driven when its group forked."""

    @classmethod
    def of_groups(cls, names: Sequence[str], seed: Tensor, lead: Tensor, size: int) -> Origin:
        """Of groups of so many, each of one scenario, seed and lead."""
        return cls(
            name=[name for name in names for _ in range(size)],
            seed=seed.repeat_interleave(size),
            member=torch.arange(size).repeat(len(names)),
            lead=lead.repeat_interleave(size),
        )

    def of(self, worlds: Tensor) -> Origin:
        """Those of some worlds."""
        at = worlds.cpu()
        names = [self.name[world] for world in at.tolist()]
        return Origin(names, self.seed[at], self.member[at], self.lead[at])

    def groups(self, size: int) -> list[str]:
        """Names of groups of so many."""
        return [self.token(world).group for world in range(0, len(self.name), size)]

    def token(self, world: int) -> Token:
        """The name of a rollout."""
        seed, member, lead = (int(t[world]) for t in (self.seed, self.member, self.lead))
        return Token(self.name[world], seed, member, lead)


NUMBERS = ("seed", "member", "lead")
"""Of an origin."""


def join(lessons: Sequence[Lesson]) -> Lesson:
    """One of all their rollouts, side by side."""

    def of(name: str) -> Tensor:
        return torch.cat([getattr(lesson, name) for lesson in lessons], 1)

    seen = [lesson.observation.tensors() for lesson in lessons]
    columns, width = [], 0
    for lesson in lessons:
        if lesson.column is not None:
            columns.append(torch.where(lesson.column >= 0, lesson.column + width, -1))
            width += lesson.action.shape[1]
    return Lesson(
        observation=Observation(**{k: torch.cat([t[k] for t in seen], 1) for k in seen[0]}),
        action=of("action"),
        log_prob=of("log_prob"),
        advantage=of("advantage"),
        valid=of("valid"),
        origin=Origin(
            [name for lesson in lessons for name in lesson.origin.name],
            *(torch.cat([getattr(lesson.origin, n) for lesson in lessons]) for n in NUMBERS),
        ),
        wanted=None if lessons[0].wanted is None else of("wanted"),
        column=torch.cat(columns) if columns else None,
    )


def _nan_first(found: tuple[float, int]) -> float:
    """By which the largest of several numbers is NaN where any of them is."""
    return math.inf if math.isnan(found[0]) else found[0]


class Learner:
    """A policy, what holds it back (its anchor, the record), and the optimizer that moves it."""

    def __init__(
        self,
        policy: Policy,
        config: GrpoConfig,
        scenarios: Scenarios,
        *,
        generator: torch.Generator,
        critic: Critic | None = None,
        demonstrations: Demonstrations | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """Take the policy as it is now for the anchor.

        Args:
            policy: what learns.
            config: how.
            scenarios: on the device; compact rows are decoded from them. Others may take their
                place between updates.
            generator: on the host, shuffles.
            critic: learns beside it.
            demonstrations: what the imitation loss is about.
            ranks: that learn together.

        Raises:
            ValueError: a critic or demonstrations that the configuration asks for are missing.
        """
        if config.baseline == "critic" and critic is None:
            raise ValueError("grpo.baseline=critic: expected a critic, got none")
        if config.imitation_weight > 0.0 and demonstrations is None:
            raise ValueError("grpo.imitation_weight: expected demonstrations, got none")
        self.policy, self.critic, self.config = policy, critic, config
        self.scenarios, self.demonstrations = scenarios, demonstrations
        self.anchor = copy.deepcopy(policy).requires_grad_(False) if config.kl_weight > 0 else None
        self.generator, self.ranks = generator, ranks
        self.learning = Learning(policy, ranks, shard=config.shard)
        moved = list(self.learning.module.parameters())
        groups = [{"params": moved, "lr": config.learning_rate}]
        if critic is not None:
            rate = config.critic_learning_rate
            groups.append({"params": list(critic.parameters()), "lr": rate})
        self.optimizer = torch.optim.Adam(groups, eps=1e-5)
        self._rates = [group["lr"] for group in self.optimizer.param_groups]

    def set_progress(self, share: float) -> None:
        """Let learning rates fall to 0 in proportion, as `share` goes from 0 to 1."""
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * (1.0 - share)

    def precision(self) -> torch.autocast:
        """What the policy runs under, in rollouts and updates alike."""
        low = self.config.precision is Precision.bfloat16
        return torch.autocast(self.scenarios.device.type, torch.bfloat16, enabled=low)

    @torch.no_grad()
    def expect(self, observation: Observation) -> Tensor:
        """What the critic makes of recorded steps [T, W, ...], in pieces: [T, W]."""
        assert self.critic is not None
        parts = [
            self.critic.value(decode(observation.index(t), self.scenarios))
            for t in range(len(observation.ego))
        ]
        return torch.stack(parts)

    def update(self, lesson: Lesson) -> tuple[dict[str, float], int]:
        """Take all gradient steps of one lesson.

        Returns:
            Means over them, to log, but of `ratio_max`, which is the largest; and in which of the
            rollouts that was, -1 for none. Nothing happens, and the entropy and the standard
            deviation that it amounts to alone are returned, where no step has an advantage.
        """
        config = self.config
        self.learning.module.train()
        flat = Lesson(
            observation=lesson.observation.map(lambda t: t.flatten(0, 1)),
            action=lesson.action.flatten(0, 1),
            log_prob=reduce_log_prob(lesson.log_prob, config.log_prob).flatten(),
            advantage=lesson.advantage.flatten(),
            valid=lesson.valid.flatten(),
            origin=lesson.origin,
            wanted=None if lesson.wanted is None else lesson.wanted.flatten(),
            column=lesson.column,
        )
        made = [
            self._learn(flat, batch)
            for _ in range(config.epochs)
            for batch in self._batches(lesson)
        ]
        self.learning.gather()
        entropy = float(self.policy.entropy().detach())
        normal = 0.5 * math.log(2 * math.pi * math.e)  # of a standard one
        spread = math.exp(min(entropy / lesson.log_prob.shape[-1] - normal, 700.0))
        values, world = {"entropy": entropy, "spread": spread}, -1
        if made:
            seen = {k: torch.stack([m[k] for m in made]) for k in made[0]}
            at = seen.pop("ratio_max_at")[seen["ratio_max"].argmax()]
            found = float(seen.pop("ratio_max").max()), int(at) % lesson.valid.shape[1]
            largest, world = max(self.ranks.everyone(found), key=_nan_first)
            self.ranks.sum_([v for k, v in seen.items() if k != "grad_norm"])
            values |= {k: float(v.mean()) for k, v in seen.items()} | {"ratio_max": largest}
        self._follow()
        return values, world

    def _batches(self, lesson: Lesson) -> list[OwnBatch]:
        teaches = lesson.valid
        if self.anchor is None and self.critic is None:  # without an advantage, no gradient
            teaches = teaches & (lesson.advantage != 0)
        size = self.config.minibatch_size
        if self.config.by_rollout:
            batches = shuffled_rollouts(teaches, lesson.valid, size, self.generator)
        else:
            batches = shuffled_steps(teaches, size, self.generator)
        width = lesson.action.shape[1]
        return [own_batch(batch, lesson.column, width) for batch in batches]

    def _learn(self, flat: Lesson, own: OwnBatch) -> dict[str, Tensor]:
        """One gradient step; returns scalars on the device, this rank's parts of sums."""
        config, batch, rows = self.config, own.batch, own.rows
        policy, critic = self.learning.module, self.critic
        seen = decode(flat.observation.index(rows), self.scenarios)
        action, anchor = flat.action[rows], None
        total_weight = None
        if not self.ranks.alone:
            valid = own.whole.table(flat.valid[own.whole.rows])
            total_weight = step_weights(valid, config.average, config.constant_steps)[1]
        with self.precision():
            log_prob = reduce_log_prob(policy.log_prob(seen, action), config.log_prob)
            if self.anchor is not None:
                with torch.no_grad():
                    held = self.anchor.log_prob(seen, action)
                    anchor = batch.table(reduce_log_prob(held, config.log_prob))
        loss = grpo_loss(
            batch.table(log_prob),
            batch.table(flat.log_prob[rows]),
            batch.table(flat.advantage[batch.rows]),
            own.valid(),
            config,
            anchor=anchor,
            total=total_weight,
        )
        values = {
            "policy_loss": loss.policy,
            "kl": loss.kl,
            "clip_fraction": loss.clip_fraction * own.share,
            "ratio_mean": loss.ratio_mean * own.share,
            "ratio_max": loss.ratio_max,
            "ratio_max_at": batch.table(batch.rows).flatten()[loss.ratio_max_at],
        }
        total = loss.total - config.entropy_weight / self.ranks.count * policy.entropy()
        if config.imitation_weight > 0.0:
            values["imitation_loss"] = self._imitation_loss()
            total = total + config.imitation_weight * values["imitation_loss"]
        if critic is not None and flat.wanted is not None:
            values["critic_loss"] = critic.loss(seen, flat.wanted[batch.rows]) * own.share
            total = total + values["critic_loss"]
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.learning.sum_gradients(critic.parameters() if critic is not None else ())
        norm = full(nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm))
        if critic is not None:
            nn.utils.clip_grad_norm_(critic.parameters(), config.max_grad_norm)
        self.optimizer.step()
        return {k: v.detach() for k, v in values.items()} | {"grad_norm": norm.detach()}

    def _imitation_loss(self) -> Tensor:
        assert self.demonstrations is not None
        count = len(self.demonstrations.action)
        size = min(self.config.imitation_batch, count)
        rows = torch.randint(count, (size,), generator=self.generator)
        rows = rows.to(self.demonstrations.action.device)
        with self.precision():
            return imitation_loss(
                self.learning.module, self.demonstrations, rows, self.generator, self.ranks
            )

    def state_dict(self) -> dict[str, Any]:
        """Everything that later updates depend on, but for the configuration."""
        state = {name: module.state_dict() for name, module in self._modules()}
        moments = self.optimizer.state_dict()["state"]
        of = {str(k): {name: full(t) for name, t in v.items()} for k, v in moments.items()}
        return state | {"optimizer": of}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was called."""
        for name, module in self._modules():
            module.load_state_dict(state[name])
        self.learning.scatter()
        moved = [p for group in self.optimizer.param_groups for p in group["params"]]
        whole = self.optimizer.state_dict()
        whole["state"] = {
            int(k): {name: like(t, moved[int(k)]) for name, t in v.items()}
            for k, v in state["optimizer"].items()
        }
        self.optimizer.load_state_dict(whole)

    def _modules(self) -> list[tuple[str, nn.Module]]:
        named = (("policy", self.policy), ("critic", self.critic), ("anchor", self.anchor))
        return [(name, module) for name, module in named if module is not None]

    @torch.no_grad()
    def _follow(self) -> None:
        """Let the anchor come after the policy."""
        if self.anchor is None or self.config.anchor_decay == 0.0:
            return
        pairs = zip(self.anchor.parameters(), self.policy.parameters(), strict=True)
        for held, now in pairs:
            held.lerp_(now, 1.0 - self.config.anchor_decay)


def not_finite(values: dict[str, float]) -> str:
    """What among values to log is NaN or infinite, in words; empty for nothing."""
    return ", ".join(f"{k}={v}" for k, v in values.items() if not math.isfinite(v))
