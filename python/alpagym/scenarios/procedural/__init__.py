"""Seeded scenarios of our own making: roads laid out by kind, traffic driven by its IDM.

The same kind and seed give the same bits, whatever else is generated beside them.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import torch

from alpagym.pools import dropping
from alpagym.scenarios.procedural.plan import LAYOUTS, plan
from alpagym.scenarios.procedural.rollout import drive, finish
from alpagym.scenarios.scenario import Scenario, ScenarioError

__all__ = ["KINDS", "generate", "generate_each", "generate_many"]

KINDS = tuple(LAYOUTS)
"""The kinds of scenarios that can be generated."""
ATTEMPTS = 50
"""Plans tried for one scenario before giving up."""
MIN_FOR_PROCESSES = 128
"""Fewer scenarios are generated sooner than processes start."""
SEEDS_PER_STREAM = 1_000_000
"""`generate_many` with seed n uses scenario seeds from n times this on."""


def check_kinds(kinds: Sequence[str]) -> None:
    """Refuse what cannot be generated.

    Raises:
        ScenarioError: an unknown kind.
    """
    for kind in kinds:
        if kind not in LAYOUTS:
            raise ScenarioError(f"procedural: expected one of {', '.join(KINDS)}, got {kind}")


def generate(kind: str, seed: int) -> Scenario:
    """One scenario, `procedural/{kind}/{seed}`.

    Raises:
        ScenarioError: an unknown kind, a negative seed, or no plan that gives usable traffic.
    """
    check_kinds([kind])
    if seed < 0:
        raise ScenarioError(f"procedural/{kind}: expected a seed of at least 0, got {seed}")
    for attempt in range(ATTEMPTS):
        planned = plan(kind, seed, attempt)
        scenario = finish(planned, drive(planned), seed, attempt) if planned is not None else None
        if scenario is not None:
            return scenario
    raise ScenarioError(f"procedural/{kind}/{seed}: no usable traffic in {ATTEMPTS} attempts")


def generate_many(
    count: int,
    seed: int,
    kinds: Sequence[str] | None = None,
    *,
    first: int = 0,
    workers: int = 1,
) -> list[Scenario]:
    """Scenarios of all `kinds` in rotation (default: `KINDS`), each with a seed of its own.

    Different values of `seed` share no scenario as long as `count` stays below a million.

    Args:
        count: how many.
        seed: of the stream of scenarios.
        kinds: which; all when not given.
        first: how many of the same seed come before.
        workers: processes that generate side by side. More than one asks of the calling program
            what multiprocessing does: to guard its main module.

    Raises:
        ScenarioError: as `generate`, or no kinds.
    """
    numbers = range(first, first + count)
    return list(generate_each(numbers, seed, kinds, workers=workers))


def generate_each(
    numbers: Sequence[int],
    seed: int,
    kinds: Sequence[str] | None = None,
    *,
    workers: int = 1,
) -> Generator[Scenario, None, None]:
    """The scenarios of `generate_many` that have these numbers, each made shortly before its turn.

    Args:
        numbers: from 0 on, in the order wanted.
        seed: of the stream of scenarios.
        kinds: which; all when not given.
        workers: as of `generate_many`.

    Raises:
        ScenarioError: as `generate`, or no kinds.
    """
    kinds = KINDS if kinds is None else tuple(kinds)
    if not kinds:
        raise ScenarioError("procedural: expected at least one kind, got none")
    wanted = [(kinds[i % len(kinds)], seed * SEEDS_PER_STREAM + i) for i in numbers]
    if workers > 1 and len(wanted) >= MIN_FOR_PROCESSES:
        one_thread = ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,))
        with dropping(one_thread) as pool:
            yield from _in_order(pool, wanted, chunk=16, ahead=2 * workers)
        return
    # The simulator, which takes half of the time, runs without the GIL.
    count = min(os.cpu_count() or 1, 4)
    with dropping(ThreadPoolExecutor(count)) as threads:
        yield from _in_order(threads, wanted, chunk=1, ahead=2 * count)


def _in_order(
    pool: Executor, wanted: Sequence[tuple[str, int]], chunk: int, ahead: int
) -> Iterator[Scenario]:
    """What is wanted, in its order; never more than `ahead` chunks are waited for or held."""
    waiting: deque[Future[list[Scenario]]] = deque()
    for first in range(0, len(wanted), chunk):
        waiting.append(pool.submit(_chunk, wanted[first : first + chunk]))
        if len(waiting) == ahead:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


def _chunk(wanted: Sequence[tuple[str, int]]) -> list[Scenario]:
    return [generate(kind, seed) for kind, seed in wanted]
