"""Requests that wait are answered together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Batcher(Generic[Q, A]):
    """Asks a function in a thread of its own; what comes in meanwhile is its next batch.

    Attributes:
        batches: asked so far.
    """

    def __init__(
        self, function: Callable[[Sequence[Q]], Sequence[A | Exception]], most: int
    ) -> None:
        """Ask nothing yet.

        Args:
            function: gives an answer, or an error, for each of at most `most` questions.
            most: questions at a time.
        """
        self._function, self._most = function, most
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._thread = ThreadPoolExecutor(1, "policy")
        self._work: asyncio.Task[None] | None = None
        self.batches = 0

    async def ask(self, question: Q) -> A:
        """The answer; raises what the function gave, or raised, for it."""
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._answer())
        return await answer

    async def _answer(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch: list[tuple[Q, asyncio.Future[A]]] = []
            while self._waiting and len(batch) < self._most:
                question, answer = self._waiting.popleft()
                if not answer.done():  # who asked may have left
                    batch.append((question, answer))
            if not batch:
                continue
            self.batches += 1
            questions = [question for question, _ in batch]
            given: Sequence[A | Exception]
            try:
                given = await loop.run_in_executor(self._thread, self._function, questions)
            except Exception as error:
                given = [error] * len(batch)
            for (_, answer), value in zip(batch, given, strict=True):
                if answer.done():
                    continue
                if isinstance(value, Exception):
                    answer.set_exception(value)
                else:
                    answer.set_result(value)

    def close(self) -> None:
        """End the thread; what is being asked is finished."""
        self._thread.shutdown()
