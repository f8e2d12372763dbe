"""Telling those who wait what has changed, apart from the commits that changed it, and for many commits at once.

Whoever commits waits for nothing here: `holdfast.store.changes` says why. What can't be told is left: whoever waits
looks now and then, which `holdfast.streaming.run_changes` does for all of a process.
"""

import asyncio
import logging
from collections.abc import Collection

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from holdfast.store import changes
from holdfast.store.changes import Change

log = logging.getLogger(__name__)

#: How long telling may take, in seconds.
_TELL_S = 2.0


class Herald:
    """One a process. What changes while it tells is told together, next."""

    def __init__(self, engine: AsyncEngine) -> None:
        # A single statement is a transaction by itself, which saves the round trips of its beginning and its end.
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._untold: set[Change] = set()
        self._task: asyncio.Task[None] | None = None

    def tell(self, committed: Collection[Change]) -> None:
        """Have those who wait look soon; waits for nothing."""
        self._untold.update(committed)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._tell(), name="herald")

    async def close(self) -> None:
        """Tell what is left."""
        if self._task is not None:
            await self._task

    async def _tell(self) -> None:
        while self._untold:
            untold, self._untold = self._untold, set()
            try:
                async with asyncio.timeout(_TELL_S), self._engine.connect() as connection:
                    await changes.tell(connection, untold)
            except (OSError, SQLAlchemyError, TimeoutError) as error:
                log.warning("%s changes are not told, and will be seen late: %s", len(untold), type(error).__name__)
