"""A driver of AlpaSim's contract, as it is called: deadlines, tries, and a bound on open calls."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from typing import Any

import grpc

from alpagym.interop.alpasim.latencies import Latencies
from alpagym.interop.alpasim.session_options import SessionConfig
from alpagym.interop.alpasim.wire.connection import Tls, dial
from alpagym.interop.alpasim.wire.services import EGODRIVER, Stub

PAUSES = (0.2, 0.5, 2.0)
"""Before each further try of a call [s]; the last again and again."""
LONGEST_DETAIL = 200
"""Of what a driver says, in characters."""
GONE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
"""The driver, or the way to it, is not there."""


class DriverError(Exception):
    """A driver does not do its part; the message is one sentence."""

    def __init__(
        self, sentence: str, code: grpc.StatusCode | None = None, *, repeated: bool = False
    ) -> None:
        super().__init__(sentence)
        self.code = code
        """What the call ended with; None where it was answered."""
        self.repeated = repeated
        """It was not the first try, of which the driver may have heard as well."""

    @property
    def gone(self) -> bool:
        """It cannot be reached: another time it may be there."""
        return self.code in GONE


def tls_of(config: SessionConfig) -> Tls | None:
    """The files that channels to drivers are to use, None where none is set.

    Raises:
        ValueError: half of a pair.
    """
    tls = Tls(config.tls_certificate, config.tls_key, config.tls_authority)
    return tls if tls != Tls() else None


class CallStatistics:
    """What calls to all drivers together took, and how they failed."""

    def __init__(self) -> None:
        self.latencies: defaultdict[str, Latencies] = defaultdict(Latencies)
        """Of answered calls, by method."""
        self.failures: Counter[str] = Counter()
        """Calls that failed for good, by method and status."""
        self.retried = 0
        """Calls that were made again."""
        self.restarted = 0
        """Sessions that were driven anew because their driver went away."""

    def summary(self) -> dict[str, Any]:
        """As a report shows it."""
        calls = {name: found.summary() for name, found in sorted(self.latencies.items())}
        counts = {"num_repeated_calls": self.retried, "num_restarted_sessions": self.restarted}
        return {**counts, "calls": calls, "failed_calls": dict(self.failures)}


class DriverClient:
    """Calls one driver."""

    def __init__(
        self,
        address: str,
        config: SessionConfig,
        open_calls: asyncio.Semaphore,
        statistics: CallStatistics,
        tls: Tls | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            address: `host:port`.
            config: deadlines and tries.
            open_calls: bounds how many calls wait for an answer, of all clients that share it.
            statistics: where calls are counted.
            tls: of the channel; None for one in the clear.
        """
        self.address = address
        self.gone = False
        """The last call did not reach it."""
        self._config, self._open, self.statistics = config, open_calls, statistics
        self._channel = dial(address, tls)
        self._stub = Stub(self._channel, EGODRIVER)

    async def close(self) -> None:
        """Hang up; open calls fail."""
        await self._channel.close()

    async def call(self, method: str, request: Any, *, deadline: float | None = None) -> Any:
        """The answer to a call, which waits for its turn without its time running.

        Args:
            method: of `EgodriverService`.
            request: its message.
            deadline: for an answer [s], by default as configured.

        Raises:
            DriverError: there is no answer.
        """
        if deadline is None:
            drives = method == "drive"
            deadline = self._config.drive_timeout if drives else self._config.call_timeout
        for attempt in range(self._config.retries + 1):
            async with self._open:
                begun = time.monotonic()
                try:
                    answer = await getattr(self._stub, method)(request, timeout=deadline)
                except grpc.aio.AioRpcError as error:
                    failed = error
                else:
                    self.statistics.latencies[method].add(time.monotonic() - begun)
                    self.gone = False
                    if answer is None:  # what grpc.aio makes of bytes that it cannot read
                        self.statistics.failures[f"{method}: unreadable"] += 1
                        raise DriverError(
                            f"driver {self.address}: answered {method} with bytes that are no "
                            "message of it"
                        )
                    return answer
            if failed.code() is not grpc.StatusCode.UNAVAILABLE or attempt == self._config.retries:
                break
            self.statistics.retried += 1
            await asyncio.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
        self.statistics.failures[f"{method}: {failed.code().name}"] += 1
        self.gone = failed.code() in GONE
        sentence = self._told(method, failed, deadline)
        raise DriverError(sentence, failed.code(), repeated=attempt > 0)

    def _told(self, method: str, error: grpc.aio.AioRpcError, deadline: float) -> str:
        who, detail = f"driver {self.address}", " ".join((error.details() or "").split())
        detail = detail[:LONGEST_DETAIL]
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"{who}: expected an answer to {method} within {deadline:g} s"
        if error.code() in GONE:
            return f"{who}: cannot be reached for {method}: {detail}"
        return f"{who}: {method} failed with {error.code().name}: {detail}"
