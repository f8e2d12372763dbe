"""Reading along in a run's event log, from any number on, on any process.

Between two reads nothing is held: no connection, and no more than one page in memory, which is handed out as fast as it
is taken. What a reader has seen is a number that it knows itself, so it can go on anywhere, at any time.

Pieces of text may be missing, since a crash of the database takes them. A number that is missing shows it; what follows
of the same text would be a text without its beginning, and is left out: the whole of it comes.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable

from sqlalchemy.exc import SQLAlchemyError

from holdfast.domain.errors import Unavailable
from holdfast.domain.events import TERMINAL, LoggedEvent, MessageDelta
from holdfast.domain.runs import OPEN
from holdfast.store import event_log
from holdfast.store.changes import LOG
from holdfast.store.engine import Database
from holdfast.store.event_log import Page
from holdfast.streaming.run_changes import RunChanges, Watch

log = logging.getLogger(__name__)

#: How many events are read at a time, and how many bytes of them, which is what a slow reader costs.
_PAGE = 100
_PAGE_BYTES = 128 * 1024

#: How many readers of a process read at once: the database's connections are for what must last, too.
_READS = 4

#: How long to rest before reading again when the database is away, in seconds.
_READ_AGAIN_S = 1.0

#: How often it is asked, without an event, whether a reader may go on, in seconds.
_ASK_AGAIN_S = 5.0

#: Tells whether a reader may go on; asked again and again, so that it had better be quick.
MayGoOn = Callable[[], Awaitable[bool]]


async def always() -> bool:
    """Of a reader who takes what there is, and is gone."""
    return True


class Tail:
    """Reads the logs of runs."""

    def __init__(self, database: Database, changes: RunChanges) -> None:
        self._database = database
        self._changes = changes
        self._reads = asyncio.Semaphore(_READS)
        self._is_stopping = False

    def stop(self) -> None:
        """End everybody's reading: this process stops. They go on elsewhere, from the number that they know."""
        self._is_stopping = True
        self._changes.wake_all()

    async def follow(
        self, tenant_id: str, run_id: str, after: int, *, to_the_end: bool, may_go_on: MayGoOn
    ) -> AsyncGenerator[LoggedEvent]:
        """The events of a run that exists after number `after`, and those to come, up to the last.

        Not `to_the_end`: without those to come. Outlasts an absence of the database.
        """
        is_torn = False
        changed = self._changes.watching(
            LOG, tenant_id, run_id, lambda head: head.last_seq > after or head.status not in OPEN
        )
        with changed as watch:
            while not self._is_stopping and await may_go_on():
                watch.is_seen()
                page = await self._until_read(tenant_id, run_id, after)
                for event in page.events:
                    # A reader that is slow takes a page for long.
                    if not await may_go_on():
                        return
                    is_torn = event.type == MessageDelta.TYPE and (is_torn or event.seq != after + 1)
                    after = event.seq
                    if not is_torn:
                        yield event
                    if event.type in TERMINAL:
                        return
                if page.has_ended or not (page.events or to_the_end):
                    return
                if not page.events:
                    await self._until_changed(watch, may_go_on)

    async def _until_changed(self, watch: Watch, may_go_on: MayGoOn) -> None:
        """Wait for a change, or until the reader may not go on."""
        while not watch.has_changed and await may_go_on():
            await watch.changed(_ASK_AGAIN_S)

    async def _until_read(self, tenant_id: str, run_id: str, after: int) -> Page:
        while not self._is_stopping:
            try:
                async with self._reads, self._database.tenant(tenant_id) as connection:
                    return await event_log.read(
                        connection, tenant_id, run_id, after=after, limit=_PAGE, max_bytes=_PAGE_BYTES
                    )
            except (Unavailable, SQLAlchemyError) as error:
                log.warning("the log of run %s can't be read now: %s", run_id, type(error).__name__)
                await asyncio.sleep(_READ_AGAIN_S)
        return Page([], has_ended=True)
