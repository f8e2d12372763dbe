"""How many model calls of one tenant are in flight in this process: a slow provider of one is not to hold every slot.

Temporal's fairness orders what waits. What already holds a slot, it leaves alone: a tenant whose provider hangs would
come to hold them all. So each may have so many calls, and so many more that wait for one of those to end, and no more.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from holdfast.domain.errors import TooManyRequests

#: When there may be room again: nobody knows, but trying more often would be a burden.
_AGAIN_AFTER = timedelta(seconds=1)


@dataclass
class _Room:
    calls: asyncio.Semaphore
    inside: int = 0


class TenantSlots:
    """Lets in `calls` at a time of each tenant, and has `waiting` more wait. Holds no tenant that has none."""

    def __init__(self, calls: int, waiting: int = 0) -> None:
        self._calls = calls
        self._waiting = waiting
        self._rooms: dict[str, _Room] = {}

    @asynccontextmanager
    async def one(self, tenant_id: str) -> AsyncIterator[None]:
        """One call's slot, for as long as the block runs; waited for, if there is room to wait.

        Raises:
            TooManyRequests: there is none.
        """
        room = self._rooms.setdefault(tenant_id, _Room(asyncio.Semaphore(self._calls)))
        if room.inside >= self._calls + self._waiting:
            raise TooManyRequests(f"{self._calls} model calls of this tenant are in flight already.", _AGAIN_AFTER)
        room.inside += 1
        try:
            async with room.calls:
                yield
        finally:
            room.inside -= 1
            if not room.inside:
                del self._rooms[tenant_id]
