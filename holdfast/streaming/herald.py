"""Telling readers that logs have grown, apart from the commits that made them grow, and for many logs at once.

PostgreSQL has transactions that notify commit one after the other, each with its own sync of the disk: some hundreds a
second, whoever writes. One that writes nothing waits for no disk. So what is written often, and may be heard late when
a worker dies in between, is committed first and told afterwards.
"""

import asyncio
import logging

from sqlalchemy.exc import SQLAlchemyError

from holdfast.domain.errors import Unavailable
from holdfast.store import event_log
from holdfast.store.engine import Database

log = logging.getLogger(__name__)

#: How long telling may take, in seconds.
_TELL_S = 2.0


class Herald:
    """One a process. What grows while it tells is told together, next."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._grown: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def tell(self, run_id: str) -> None:
        """Have the readers of a run look soon; waits for nothing."""
        self._grown.add(run_id)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._tell(), name="herald")

    async def close(self) -> None:
        """Tell what is left."""
        if self._task is not None:
            await self._task

    async def _tell(self) -> None:
        while self._grown:
            grown, self._grown = self._grown, set()
            try:
                async with asyncio.timeout(_TELL_S), self._database.nobody() as connection:
                    await event_log.wake(connection, sorted(grown))
            except (Unavailable, SQLAlchemyError, TimeoutError) as error:
                # Readers look by themselves now and then.
                log.warning("readers of %s runs are not told of new text: %s", len(grown), type(error).__name__)
