"""What is behind numbers that are not finite: which rollout, and which term of its reward."""

from __future__ import annotations

import torch
from torch import Tensor

from alpagym import sim
from alpagym.grpo.advantage import Advantages
from alpagym.grpo.learner import Lesson, Origin
from alpagym.grpo.rollout import Recording
from alpagym.reward_functions import NotFinite


class TrainingError(RuntimeError):
    """Training cannot go on; the message is one sentence that names the cause."""

    def __init__(self, sentence: str, token: str = "") -> None:
        """`token` is that of the rollout to look at, if there is one."""
        super().__init__(sentence)
        self.token = token


def place(origin: Origin, world: int) -> str:
    """A rollout in words."""
    return (
        f"scenario {origin.name[world]}, seed {int(origin.seed[world])}, "
        f"member {int(origin.member[world])}"
    )


def unrewarded(error: NotFinite, origin: Origin, world: int) -> TrainingError:
    """What a reward function's NaN or infinity in one of `origin`'s worlds ends training with."""
    return TrainingError(
        f"reward is not finite in {place(origin, world)}, step {error.step - 1}, from "
        f"{error.name}, which gave {error.value}",
        str(origin.token(world)),
    )


def first_not_finite(record: Recording, every: int) -> tuple[int, int, str, str] | None:
    """The first action or reward that is not finite: step, world, which of both, and its cause.

    Steps are counted from where the record begins.

    Args:
        record: of W rollouts.
        every: steps from one decision to the next.
    """
    lost = torch.zeros_like(record.driven)
    lost[::every] = ~torch.isfinite(record.action).all(2) & record.valid
    bad = ~torch.isfinite(record.reward) | lost
    if not bool(bad.any()):
        return None
    step, world = (int(i) for i in torch.nonzero(bad)[0])
    if bool(lost[step, world]):
        found = record.action[step // every, world, :8].tolist()
        return step, world, "action", f"got {found}"
    infinite = ~torch.isfinite(record.terms[step, world])
    terms = [t.name.lower() for t in sim.RewardTerm if bool(infinite[t])]
    return step, world, "reward", f"from {', '.join(terms) or 'the weights'}"


def overflown(compared: Advantages) -> int:
    """The rollout whose return is largest, if returns or their squares overflow; else -1."""
    sound = torch.isfinite(compared.advantage).all() & compared.returns.square().sum().isfinite()
    if bool(sound):
        return -1
    return _largest(compared.returns.flatten())


def culprit(lesson: Lesson, ratio_world: int, ratio_max: float) -> int:
    """The rollout to look at when an update is not finite.

    The one whose ratio is not finite, `ratio_world`; else the one with the largest advantage.
    """
    if not torch.isfinite(torch.tensor(ratio_max)) and ratio_world >= 0:
        return ratio_world
    return _largest(lesson.advantage.abs().amax(0))


def largest_term(record: Recording, weights: Tensor, world: int) -> str:
    """What a rollout's reward is mostly made of, with its sum.

    Args:
        record: of W rollouts.
        weights: of the terms, [1, R] or [W, R].
        world: which rollout.
    """
    there = record.driven[:, world]
    own = weights[world if len(weights) > 1 else 0]
    weighted = record.terms[there, world].double() * own.double()
    parts = {t.name.lower(): float(weighted[:, t].sum()) for t in sim.RewardTerm}
    rest = record.reward[there, world].double() - weighted.sum(1)
    if float(rest.abs().sum()) > 1e-3 * float(weighted.abs().sum()) + 1e-3:
        parts["reward_functions"] = float(rest.sum())
    name = max(parts, key=lambda n: float("inf") if parts[n] != parts[n] else abs(parts[n]))
    return f"{name} ({parts[name]:.4g})"


def _largest(values: Tensor) -> int:
    return int(values.abs().nan_to_num(nan=torch.inf).argmax())
