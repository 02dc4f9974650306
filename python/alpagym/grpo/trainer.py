"""The GRPO loop: draw scenarios, roll groups, compare, update."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from alpagym import sim
from alpagym.checkpoint import CheckpointError
from alpagym.config import RewardConfig, SimConfig
from alpagym.grpo.advantage import (
    EPSILON,
    Advantages,
    between_decisions,
    group_advantages,
    reward_to_go,
)
from alpagym.grpo.critic import Critic, generalized_advantages
from alpagym.grpo.faults import (
    TrainingError,
    culprit,
    first_not_finite,
    largest_term,
    overflown,
    place,
    unrewarded,
)
from alpagym.grpo.learner import Learner, Lesson, Origin, join, not_finite
from alpagym.grpo.rolled import Driven, Rolled
from alpagym.grpo.rollout import Recording, Roller
from alpagym.grpo.sampler import Sampler
from alpagym.grpo.tokens import digest
from alpagym.imitation import Demonstrations
from alpagym.policies.policy import Policy
from alpagym.ranks import ALONE, Ranks
from alpagym.reward_functions import NotFinite, UserRewards
from alpagym.reward_ranges import Ranges
from alpagym.stream.banks import Stream
from alpagym.training_config import GrpoConfig
from alpagym.types import Scenarios


def check_groups(config: GrpoConfig, ranks: Ranks = ALONE) -> None:
    """Refuse groups in which nothing can be compared, and ranks without one.

    Raises:
        ValueError: a group of one, without a critic; or fewer groups than ranks.
    """
    if config.scenarios_per_iteration < ranks.count:
        raise ValueError(
            f"grpo.scenarios_per_iteration: expected at least a group for each of {ranks.count} "
            f"ranks, got {config.scenarios_per_iteration}"
        )
    if config.group_size < 2 and config.baseline != "critic":
        raise ValueError(
            f"grpo.group_size: expected at least 2, to compare with, got {config.group_size}"
        )


class GrpoTrainer:
    """Improves a policy in closed loop on packed scenarios.

    Attributes:
        iterations: done so far.
        flight: of the last iteration: which rollouts were extreme, by tokens, scenarios whose
            groups were dead, and `rolls`: groups that were rolled side by side, with the digest of
            their recording.
    """

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
        critic: Critic | None = None,
        demonstrations: Demonstrations | None = None,
        stream: Stream | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """Allocate the buffers of a rollout.

        With `stream`, whose `per_rollout` is `config.starts`, scenarios come from there;
        `scenarios` are those of its bank in use, and `max_agents` its. Of several `ranks` each
        drives whole groups; all have the same scenarios, and draw and learn the same.

        Raises:
            ValueError: a group of fewer than two, which has nothing to compare, or fewer groups
                than ranks; or a critic or demonstrations that the configuration asks for are
                missing.
        """
        check_groups(config, ranks)
        self.config, self.stream, self.ranks = config, stream, ranks
        groups, starts = ranks.share(config.scenarios_per_iteration), 1
        if not config.forked:
            starts = config.group_size
        self._starts = slice(groups.start * starts, groups.stop * starts)
        self._worlds = slice(groups.start * config.group_size, groups.stop * config.group_size)
        self.names = names if stream is None else stream.names
        self.generator = torch.Generator().manual_seed(seed)
        self.learner = Learner(
            policy,
            config,
            scenarios,
            generator=self.generator,
            critic=critic,
            demonstrations=demonstrations,
            ranks=ranks,
        )
        horizon = int((scenarios.num_frames - 1 - scenarios.start_frame).max())
        if stream is not None:
            horizon = stream.num_steps
        self.roller = Roller(
            scenarios,
            max_agents,
            num_groups=self._starts.stop - self._starts.start,
            group_size=config.group_size if config.forked else 1,
            num_steps=min(horizon, sim_config.max_steps) if sim_config.max_steps > 0 else horizon,
            config=sim_config,
            weights=sim.make_weights(reward, scenarios.device),
            functions=reward_functions,
            ranges=reward_ranges,
            observed=policy.ranges,
            sizes=policy.sizes,
            capture=config.capture,
        )
        self.sampler = Sampler(torch.ones(len(scenarios.key)), self.generator)
        self.iterations = self.agent_steps = 0
        self.flight: dict[str, Any] = {}

    @property
    def policy(self) -> Policy:
        """What learns."""
        return self.learner.policy

    @property
    def scenarios(self) -> Scenarios:
        """That groups drive now."""
        return self.roller.scenarios

    def state_dict(self) -> dict[str, Any]:
        """Everything that later iterations depend on, but for configuration and scenarios.

        Between iterations no world is on its way: a rollout begins and ends within one.
        """
        drawing: dict[str, Any] = {"sampler": self.sampler.weight, "key": self.scenarios.key}
        if self.stream is not None:
            drawing = {"stream": self.stream.state_dict()}
        return {
            "iterations": self.iterations,
            "agent_steps": self.agent_steps,
            "ranks": self.ranks.count,
            "generator": self.generator.get_state(),
            "learner": self.learner.state_dict(),
            **drawing,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was called: the same iterations follow.

        Raises:
            CheckpointError: it is of another configuration, or of other scenarios.
        """
        try:
            self._load(state)
        except (KeyError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"the state of the run does not fit it: {reason}") from error

    def _load(self, state: dict[str, Any]) -> None:
        if self.stream is None and not torch.equal(state["key"], self.scenarios.key.cpu()):
            raise CheckpointError("expected the scenarios that the run began with, got others")
        self.iterations, self.agent_steps = state["iterations"], state["agent_steps"]
        self.generator.set_state(state["generator"])
        self.learner.load_state_dict(state["learner"])
        if self.stream is not None:
            self.stream.load_state_dict(state["stream"])
        else:
            self.sampler.weight.copy_(state["sampler"])

    def train(self, on_iteration: Callable[[int, dict[str, float]], None]) -> None:
        """Run the iterations that are left.

        Raises:
            TrainingError: a non-finite reward or gradient.
        """
        for iteration in range(self.iterations, self.config.iterations):
            self.learner.set_progress(iteration / self.config.iterations)
            values = self.iterate(iteration)
            self.iterations = iteration + 1
            on_iteration(iteration, values)

    def iterate(self, iteration: int) -> dict[str, float]:
        """One rollout of all groups and the updates from it; returns what to log."""
        started = time.perf_counter()
        waited = self.stream.waited_s if self.stream is not None else 0.0
        self.flight = {"rolls": []}
        rolled = self._roll()
        steps, described = rolled.driven.steps, rolled.described()
        lesson, refills = rolled.lesson(), 0
        live = 1.0 - described["dead_group_fraction"]
        if self.config.refills > 0:
            lesson, refills, more = self._refill(rolled)
            steps += more
            live = lesson.valid.shape[1] / rolled.driven.valid.shape[1]
        self.flight |= rolled.extremes()
        self.ranks.agree("what was driven", [lesson.advantage, lesson.valid])
        rolled_at = time.perf_counter()
        self.agent_steps += steps
        values, world = self.learner.update(lesson)
        if world >= 0:
            self.flight["ratio_max"] = str(lesson.origin.token(world))
        if bad := not_finite(values):
            world = culprit(lesson, world, values.get("ratio_max", 0.0))
            of_term = ""
            if not refills:
                of_term = self._made_of(rolled, world, ", whose reward is mostly ")
            raise TrainingError(
                f"iteration {iteration}: {bad}, first of all by {place(lesson.origin, world)}"
                f"{of_term}: lower grpo.learning_rate or look at the reward",
                str(lesson.origin.token(world)),
            )
        critic = self.learner.critic
        learned = [*self.policy.parameters(), *(critic.parameters() if critic is not None else ())]
        self.ranks.agree("what was learned", learned)
        elapsed = time.perf_counter() - started
        if self.stream is not None:
            values["stream_wait_s"] = self.stream.waited_s - waited
            values["stream_banks"] = float(self.stream.num_banks)
        return (
            values
            | described
            | {
                "refills": refills,
                "live_groups": live,
                "agent_steps": self.agent_steps,
                "agent_steps_per_s": steps / elapsed,
                "rollout_s": rolled_at - started,
                "update_s": elapsed - (rolled_at - started),
            }
        )

    def _roll(self) -> Rolled:
        """Draw scenarios, drive their groups, compare."""
        scenario, seed, lead = self._draw()
        device, size = self.scenarios.device, self.roller.group_size
        names = [self._name(index) for index in scenario.tolist()]
        origin = Origin.of_groups(names, seed, lead, size)
        self.policy.eval()
        with self.learner.precision():
            at, keys, leads = (t[self._starts].to(device) for t in (scenario, seed, lead))
            ahead = leads if self.config.branch_within > 0 else None
            try:
                record = self.roller.roll(self.policy, at, keys, ahead)
            except NotFinite as error:
                self.flight["rolls"].append({"groups": origin.groups(size)[self._starts]})
                world = self._worlds.start + error.world
                raise unrewarded(error, origin, world) from error
        rolled = self._compared(record, origin)
        self._report(scenario, rolled.driven, rolled.compared)
        return rolled

    def _compared(self, record: Recording, origin: Origin) -> Rolled:
        """Note what this rank drove of `origin`'s worlds, and compare all ranks' groups."""
        groups = origin.groups(self.roller.group_size)[self._starts]
        self.flight["rolls"] += self.ranks.everyone({"groups": groups, "digest": digest(record)})
        self._check(record, origin)
        driven = Driven.of(record, self.ranks, self._worlds, len(origin.name), self.roller.every)
        column = None
        if not self.ranks.alone:
            column = torch.full((len(origin.name),), -1, device=self.scenarios.device)
            column[self._worlds] = torch.arange(record.valid.shape[1], device=column.device)
        compared, wanted = self._compare(record, driven)
        rolled = Rolled(record, driven, compared, origin, wanted, self.scenarios, column)
        if (world := overflown(compared)) >= 0:
            total = float(compared.returns.flatten()[world])
            raise TrainingError(
                f"returns are too large to compare: that of {place(origin, world)} is {total:.4g}"
                f"{self._made_of(rolled, world, ', mostly ')}",
                str(origin.token(world)),
            )
        return rolled

    def _draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of each start of the next rollout: scenario, seed, and steps driven before the fork."""
        scenario = self._draw_scenarios()
        count, config = len(scenario), self.config
        seed = torch.randint(2**62, (count,), generator=self.generator)
        lead = torch.zeros(count, dtype=torch.int64)
        if config.branch_within > 0:
            every = self.roller.every
            decisions = config.branch_within // every + 1
            lead = every * torch.randint(decisions, (count,), generator=self.generator)
        return scenario, seed, lead

    def _draw_scenarios(self) -> Tensor:
        """From the resident ones, or the stream's next."""
        if self.stream is None:
            return self.sampler.draw(self.config.starts)
        scenario = self.stream.draw()
        self.names = self.stream.names
        if self.roller.scenarios is not self.stream.scenarios:
            self.roller.use(self.stream.scenarios)
            self.learner.scenarios = self.stream.scenarios
        return scenario

    def _report(self, scenario: Tensor, driven: Driven, compared: Advantages) -> None:
        """Tell what scenarios are drawn by how their groups did."""
        counts = self.config.resample_dead and self.config.forked  # a group is of one scenario
        if self.stream is not None:
            failing = driven.failed.view(len(scenario), -1).float().mean(1).cpu()
            dead = compared.dead.cpu() if counts else torch.zeros(len(scenario), dtype=torch.bool)
            self.stream.report(scenario, failing, dead)
        elif counts:
            self.sampler.report(scenario, compared.dead.cpu())

    def _compare(self, record: Recording, driven: Driven) -> tuple[Advantages, Tensor | None]:
        config, valid = self.config, driven.valid
        compared = group_advantages(
            driven.reward,
            driven.going,
            config.group_size,
            credit=config.credit,
            baseline="group" if config.baseline == "critic" else config.baseline,
            scale=config.scale,
            discount=config.discount,
            dead_tolerance=config.dead_group_tolerance,
            every=self.roller.every,
        )
        critic = self.learner.critic
        if critic is None or config.baseline != "critic":
            return compared, None
        every = self.roller.every
        reward = between_decisions(driven.reward * driven.going, config.discount, every)
        discount = config.discount**every
        critic.set_unit(reward_to_go(reward, discount)[valid])
        own = self.learner.expect(record.observation)
        value = self.ranks.join(own, 1, self._worlds, valid.shape[1])
        expected = generalized_advantages(reward, value, valid, discount, config.gae_lambda)
        advantage = expected.advantage
        if config.scale != "none":
            there = advantage[valid]
            advantage = (advantage - there.mean()) / (there.std() + EPSILON) * valid
        alive = torch.zeros_like(compared.dead)
        return replace(compared, advantage=advantage, dead=alive), expected.wanted

    def _refill(self, first: Rolled) -> tuple[Lesson, int, int]:
        """Roll again until as many groups are alive as were asked for, or often enough.

        Returns:
            The live groups of all rollouts, how many more there were, and their steps.
        """
        wanted, size = len(first.compared.dead), self.config.group_size
        lessons, alive, steps, rolled = [], 0, 0, first
        for refill in range(self.config.refills + 1):
            if refill > 0:
                rolled = self._roll()
                steps += rolled.driven.steps
            chosen = torch.nonzero(~rolled.compared.dead).squeeze(1)[: wanted - alive]
            alive += len(chosen)
            worlds = chosen[:, None] * size + torch.arange(size, device=chosen.device)
            lessons.append(rolled.lesson(worlds.flatten()))
            if alive == wanted:
                break
        return join(lessons), len(lessons) - 1, steps

    def _check(self, record: Recording, origin: Origin) -> None:
        """Stop at the first action or reward that is not finite, and name where it was."""
        if found := first_not_finite(record, self.roller.every):
            step, own, what, cause = found
            world, step = self._worlds.start + own, int(self.roller.forked_at[own]) + step
            raise TrainingError(
                f"{what} is not finite in {place(origin, world)}, step {step}, {cause}",
                str(origin.token(world)),
            )

    def _name(self, scenario: int) -> str:
        return str(self.names[scenario] if self.names else scenario)

    def _made_of(self, rolled: Rolled, world: int, words: str) -> str:
        """What a rollout's reward is mostly made of, after `words`; nothing on other ranks."""
        own = world - self._worlds.start
        if not 0 <= own < self._worlds.stop - self._worlds.start:
            return ""
        return f"{words}{largest_term(rolled.record, self.roller.weights, own)}"
