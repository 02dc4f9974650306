"""Groups of closed-loop rollouts: G futures of one state, recorded step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from alpagym import sim
from alpagym.config import SimConfig
from alpagym.grpo.capture import Captured
from alpagym.policies.policy import Policy, Sizes
from alpagym.reward_functions import UserRewards
from alpagym.reward_ranges import Ranges, condition, draw_weights
from alpagym.rows import decode
from alpagym.types import Observation, Outcome, Scenarios, State


@dataclass
class Recording:
    """T steps of W = S * G worlds, and the D decisions at steps 0, k, 2 k, ... of them.

    k is `SimConfig.replan_every`. Worlds s * G .. s * G + G - 1 are one group.
    """

    observation: Observation
    """Rows as the simulator stores them (`SimConfig.row_format`), the ego's with what is remembered
    and with reward weights behind the features. [D, W, ...]; where not valid, masks are false and
    the rest is whatever was there before."""
    action: Tensor
    """What was decided: the action itself, in physical units, unless the policy has numbers of its
    own (`Policy.sizes`). [D, W, N]"""
    log_prob: Tensor
    """Of the decision when it was made, by dimension. [D, W, L]"""
    reward: Tensor
    """[T, W]"""
    terms: Tensor
    """Raw reward terms. [T, W, R]"""
    driven: Tensor
    """Whether the world was still going in a step. bool [T, W]"""
    valid: Tensor
    """Whether it was when the decision was made: a view of `driven`. bool [D, W]"""

    @property
    def steps(self) -> int:
        """Steps driven by the policy."""
        return int(self.driven.sum())


class Roller:
    """Drives groups of worlds and records them into buffers that are allocated once.

    Attributes:
        scenarios: that groups drive.
        weights: of the reward terms, [1, R], or [W, R] where groups draw them.
        forked_at: step of the episode at which the last recording begins, int32 [W].
        watch: told of every state of the worlds and the outcome that led there; of the forked
            states, which nothing led to, first. Not while a captured rollout is replayed.
    """

    watch: Callable[[State, Outcome | None], None] | None = None

    def __init__(
        self,
        scenarios: Scenarios,
        max_agents: int,
        *,
        num_groups: int,
        group_size: int,
        num_steps: int,
        config: SimConfig,
        weights: Tensor,
        functions: UserRewards | None = None,
        ranges: Ranges | None = None,
        observed: Ranges | None = None,
        sizes: Sizes | None = None,
        capture: bool = False,
    ) -> None:
        """Allocate.

        Args:
            scenarios: packed, with `max_agents` agents at most.
            max_agents: capacity of the worlds.
            num_groups: S.
            group_size: G.
            num_steps: T.
            config: the simulator's.
            weights: of the reward terms, [1, R].
            functions: added to the weighted terms.
            ranges: weights that each group draws.
            observed: weights that the policy observes (`Policy.ranges`).
            sizes: of its decisions (`Policy.sizes`).
            capture: on a GPU, replay rollouts as one CUDA graph; not with `functions`, whose values
                are looked at on the host.
        """
        device = scenarios.device
        self.group_size, self.num_steps = group_size, num_steps
        self.scenarios, self._base_weights = scenarios, weights
        self._functions, self._ranges = functions, ranges or {}
        self._observed = observed or {}
        captures = capture and device.type == "cuda" and not functions
        self._captured = Captured() if captures else None
        self._params = sim.make_params(config)
        worlds = num_groups * group_size
        self.weights = weights.repeat(worlds if self._ranges else 1, 1)
        self._start: State = sim.make_state(num_groups, max_agents, config=config, device=device)
        self._state: State = sim.make_state(worlds, max_agents, config=config, device=device)
        self._outcome: Outcome = sim.make_outcome(self._state)
        self._group = torch.arange(worlds, dtype=torch.int32, device=device) // group_size
        self._member = torch.arange(worlds, dtype=torch.int32, device=device) % group_size
        self._all = torch.ones(num_groups, dtype=torch.bool, device=device)
        self._config, self.every = config, config.replan_every
        size = sim.action_size(config)
        sizes = sizes or Sizes(size, size, size)
        self.forked_at = torch.zeros_like(self._state.step)
        self._noise = torch.zeros(worlds, 1, sizes.noise, device=device)
        self._memory = torch.zeros(worlds, sizes.memory, device=device)
        self._action = torch.zeros(worlds, 1, size, device=device)
        decisions = -(-num_steps // self.every)

        def room(*shape: int, dtype: torch.dtype = torch.float32, rows: int = decisions) -> Tensor:
            return torch.zeros(rows, worlds, *shape, dtype=dtype, device=device)

        one = sim.make_observation(self._state, config)
        seen = one.map(lambda t: room(*t.shape[2:], dtype=t.dtype))
        self._appended = sizes.memory + len(self._observed)
        if self._appended:
            seen.ego = room(seen.ego.shape[-1] + self._appended)
        driven = room(dtype=torch.bool, rows=num_steps)
        self._record = Recording(
            observation=seen,
            action=room(sizes.decision),
            log_prob=room(sizes.log_prob),
            reward=room(rows=num_steps),
            terms=room(len(sim.RewardTerm), rows=num_steps),
            driven=driven,
            valid=driven[:: self.every],
        )
        # The simulator writes observations, rewards and terms of each step into the record itself;
        # the ego's features only where nothing is appended to them.
        steps = [self._record.observation.index(d) for d in range(decisions)]
        self._seen = [o.map(lambda t: t.unsqueeze(1)) for o in steps]
        if self._appended:
            self._seen = [replace(o, ego=one.ego) for o in self._seen]
        self._outcomes = [
            replace(self._outcome, reward=reward.unsqueeze(1), terms=terms.unsqueeze(1))
            for reward, terms in zip(self._record.reward, self._record.terms, strict=True)
        ]

    def use(self, scenarios: Scenarios) -> None:
        """Drive others from the next rollout on, with as many agents at most."""
        self.scenarios = scenarios

    @property
    def num_groups(self) -> int:
        return len(self._start.scenario)

    @torch.no_grad()
    def roll(
        self, policy: Policy, scenario: Tensor, seed: Tensor, lead: Tensor | None = None
    ) -> Recording:
        """Fork a state of each scenario into a group and drive it for `num_steps` steps.

        Worlds that are done stand still; those that are not by then are cut off.

        Args:
            policy: whose `sample` drives.
            scenario: index for each group, int32 [S].
            seed: for each group, int64 [S]; with scenario, member and step it determines every
                draw.
            lead: steps that the policy drives before its group forks, multiples of
                `replan_every`, int64 [S]; groups whose drive has ended by then, and all without it,
                fork at the first state.

        Returns:
            The recording; it is overwritten by the next call.
        """
        self._start.scenario.copy_(scenario)
        self._start.seed.copy_(seed)
        sim.reset(self.scenarios, self._start, self._all, self._params)
        sim.fork(self._start, self._state, self._group)
        record = self._record
        if self._ranges:
            drawn_for = self.scenarios.key[scenario.long()]
            drawn = draw_weights(self._base_weights, self._ranges, seed, drawn_for)
            self.weights.copy_(drawn.repeat_interleave(self.group_size, 0))
        self._memory.zero_()
        if lead is not None:
            self._drive_ahead(policy, lead)
        self._state.member.copy_(self._member)
        self.forked_at.copy_(self._state.step)
        ego_features = record.observation.ego.shape[-1] - len(self._observed)
        record.observation.ego[..., ego_features:] = condition(self.weights, self._observed)
        if self._captured:
            read = self.scenarios.tensors().values()
            self._captured(lambda: self._drive(policy), policy, read)
        else:
            self._drive(policy)
        return record

    def _drive(self, policy: Policy) -> None:
        """All steps from the forked states on; in the same buffers whenever it is called."""
        record = self._record
        if self.watch:
            self.watch(self._state, None)
        for t in range(self.num_steps):
            driving, outcome = record.driven[t], self._outcomes[t]
            torch.logical_not(self._state.done.squeeze(1), out=driving)
            if t % self.every == 0:
                self._decide(policy, t // self.every, driving)
            sim.step(self.scenarios, self._state, outcome, self._action, self.weights, self._params)
            if self._functions:
                alive = driving.unsqueeze(1)
                self._functions.add(self.scenarios, self._state, outcome, alive)
            if self.watch:
                self.watch(self._state, outcome)

    def _decide(self, policy: Policy, d: int, driving: Tensor) -> None:
        """Record decision d of the worlds that are `driving`, bool [W], and what it amounts to."""
        record, seen = self._record, self._seen[d]
        if self._appended:  # shared by all steps: nothing of an earlier one may stay
            seen.ego.zero_()
        sim.observe(self.scenarios, self._state, seen, self._params, mask=driving)
        for mask in (seen.agents_mask, seen.road_mask, seen.route_mask, seen.lights_mask):
            mask &= driving[:, None, None]  # the fused encoder spends nothing on empty sets
        if self._appended:
            ego = record.observation.ego[d]
            features = ego.shape[-1] - self._appended
            ego[:, :features] = seen.ego.squeeze(1)
            ego[:, features : features + self._memory.shape[-1]] = self._memory
        sim.noise(self.scenarios, self._state, self._noise)
        now = decode(record.observation.index(d), self.scenarios)
        record.action[d], record.log_prob[d] = policy.sample(now, self._noise.squeeze(1))
        self._action[:, 0] = policy.action_of(now, record.action[d])
        if self._memory.shape[-1]:
            self._memory.copy_(policy.remember(now))

    def _drive_ahead(self, policy: Policy, lead: Tensor) -> None:
        """Let the policy drive each start and fork it into its group after `lead` steps.

        Its draws are those of a member that no group has.
        """
        start = self._start
        start.member.fill_(self.group_size)
        seen, outcome = sim.make_observation(start, self._config), sim.make_outcome(start)
        noise = torch.zeros(len(lead), 1, self._noise.shape[-1], device=lead.device)
        memory = torch.zeros(len(lead), self._memory.shape[-1], device=lead.device)
        action = torch.zeros(len(lead), *self._action.shape[1:], device=lead.device)
        weights = self.weights
        if len(weights) > 1:
            weights = weights[:: self.group_size].contiguous()
        chosen = condition(weights, self._observed).expand(len(lead), -1)
        nobody = torch.full_like(self._group, -1)
        for step in range(1, min(int(lead.max()), self.num_steps) + 1):
            if (step - 1) % self.every == 0:
                sim.observe(self.scenarios, start, seen, self._params)
                now = decode(seen.map(lambda t: t.squeeze(1)), self.scenarios)
                if self._appended:
                    now = replace(now, ego=torch.cat([now.ego, memory, chosen], -1))
                sim.noise(self.scenarios, start, noise)
                decision, _ = policy.sample(now, noise.squeeze(1))
                action[:, 0] = policy.action_of(now, decision)
                memory = policy.remember(now) if memory.shape[-1] else memory
            sim.step(self.scenarios, start, outcome, action, weights, self._params)
            forks = (lead == step) & ~start.done.squeeze(1)
            forked = forks[self._group.long()]
            sim.fork(start, self._state, torch.where(forked, self._group, nobody))
            if memory.shape[-1]:
                theirs = memory[self._group.long()]
                torch.where(forked[:, None], theirs, self._memory, out=self._memory)
