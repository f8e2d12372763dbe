"""Heartbeats while something slow goes on, so that a worker's death is noticed and a cancellation is heard."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from temporalio import activity

#: A cancellation is heard with a heartbeat, and what is cancelled goes on costing until then: a second at most.
#: The first comes after one interval: most steps are done by then.
INTERVAL = timedelta(seconds=0.8)


@asynccontextmanager
async def heartbeating() -> AsyncIterator[None]:
    """Heartbeat, while the block runs, every `INTERVAL`."""
    task = asyncio.create_task(_beat(), name="heartbeat")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _beat() -> None:
    while True:
        await asyncio.sleep(INTERVAL.total_seconds())
        activity.heartbeat()
