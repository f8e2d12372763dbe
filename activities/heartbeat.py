"""Heartbeats while something slow goes on, so that a worker's death is noticed and a cancellation is heard."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import activity

#: Well below `workflows.stubs.HEARTBEAT_TIMEOUT`. The first comes after one interval: most steps are done by then.
_INTERVAL_S = 1.5


@asynccontextmanager
async def heartbeating() -> AsyncIterator[None]:
    """Heartbeat, while the block runs, every one and a half seconds."""
    task = asyncio.create_task(_beat(), name="heartbeat")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _beat() -> None:
    while True:
        await asyncio.sleep(_INTERVAL_S)
        activity.heartbeat()
