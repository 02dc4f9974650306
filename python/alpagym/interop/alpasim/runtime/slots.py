"""The drivers that a request names, lent to its rollouts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from alpagym.interop.alpasim.driver_client import DriverClient


class DriverSlots:
    """Each driver is lent to so many sessions at a time.

    One that has gone away is lent no more as long as another is there.
    """

    def __init__(self, drivers: Sequence[DriverClient], sessions: int) -> None:
        self._drivers = list(drivers)
        self._free: asyncio.Queue[DriverClient] = asyncio.Queue()
        for _ in range(sessions):
            for driver in drivers:
                self._free.put_nowait(driver)

    @asynccontextmanager
    async def borrowed(self) -> AsyncIterator[DriverClient]:
        """One that is free."""
        driver = await self._free.get()
        while driver.gone and not all(d.gone for d in self._drivers):
            driver = await self._free.get()
        try:
            yield driver
        finally:
            self._free.put_nowait(driver)
