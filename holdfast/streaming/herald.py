"""Telling those who wait what has changed, apart from the commits that changed it, and for many commits at once.

Whoever commits waits for nothing here: `holdfast.store.changes` says why. What can't be told is left: whoever waits
looks now and then, which `holdfast.streaming.run_changes` does for all of a process.
"""

import asyncio
import contextlib
import logging
from collections.abc import Collection
from typing import Any

import asyncpg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from holdfast.store import changes
from holdfast.store.changes import Change

log = logging.getLogger(__name__)

#: How long telling may take, in seconds.
_TELL_S = 2.0


class Herald:
    """One a process. What changes while it tells is told together, next.

    It keeps a connection, and tells through the driver: that takes an eighth of the time of a transaction of the pool,
    three times for each message.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._untold: set[Change] = set()
        self._task: asyncio.Task[None] | None = None
        self._connection: AsyncConnection | None = None
        self._driver: Any = None

    def tell(self, committed: Collection[Change]) -> None:
        """Have those who wait look soon; waits for nothing."""
        self._untold.update(committed)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._tell(), name="herald")

    async def close(self) -> None:
        """Tell what is left."""
        if self._task is not None:
            await self._task
        await self._disconnect()

    async def _tell(self) -> None:
        while self._untold:
            untold, self._untold = self._untold, set()
            try:
                async with asyncio.timeout(_TELL_S):
                    await changes.tell(await self._connected(), untold)
            except (OSError, SQLAlchemyError, asyncpg.InterfaceError, asyncpg.PostgresError, TimeoutError) as error:
                log.warning("%s changes are not told, and will be seen late: %s", len(untold), type(error).__name__)
            except Exception:
                # Whatever nobody foresaw must not stay with the connection, nor keep the process from closing the rest.
                log.exception("%s changes are not told, by an error that nobody foresaw", len(untold))
            else:
                continue
            await self._disconnect()

    async def _connected(self) -> Any:
        # A restart of PostgreSQL has closed it.
        if self._driver is not None and self._driver.is_closed():
            await self._disconnect()
        if self._connection is None:
            self._connection = await self._engine.connect()
            self._driver = (await self._connection.get_raw_connection()).driver_connection
        return self._driver

    async def _disconnect(self) -> None:
        connection, self._connection, self._driver = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                # It may be dead, which the pool would not notice, and hand it out again.
                await connection.invalidate()
                await connection.close()
