"""Pools of workers that are given up at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

AnyPool = TypeVar("AnyPool", bound=Executor)


@contextmanager
def dropping(pool: AnyPool) -> Iterator[AnyPool]:
    """A pool whose waiting tasks are dropped when the block is left, by an error or a signal too.

    An executor's own block would first work through all of them.
    """
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def processes(workers: int, tasks: int) -> ProcessPoolExecutor:
    """Processes that share nothing with this one, not more of them than tasks."""
    return ProcessPoolExecutor(min(workers, tasks), get_context("spawn"))
