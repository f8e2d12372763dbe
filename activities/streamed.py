"""A model's text on its way to those who read along, while it is being written.

Best effort: what must last is the whole text, which the step's transaction tells. The stream of the provider is read
as ever; text is gathered, and written by a task beside it, in its own transactions. When one of those fails, or takes
too long, no more of this model call is written, and nothing else happens.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from holdfast.domain.errors import Unavailable
from holdfast.domain.model_calls import StreamEvent, TextDelta, TextVoid
from holdfast.domain.storable import storable
from holdfast.store import event_log
from holdfast.store.engine import Database
from holdfast.store.event_log import Tail, Try
from holdfast.tools.run import MAX_STORED_CHARACTERS

log = logging.getLogger(__name__)

#: How long the first text waits for more, in seconds: a short answer is then told with its step, and costs nothing.
_FIRST_S = 0.02

#: How long further text is gathered, in seconds.
_GATHER_S = 0.1

#: How long a write may take, in seconds, and how long the end of the model call waits for one.
_WRITE_S = 2.0
_END_S = 0.5

#: How many writes a worker has under way: the database's connections are for what must last.
WRITES = 3


class Stream:
    """One try's text. `hear` never waits."""

    def __init__(self, database: Database, writes: asyncio.Semaphore, own: Try) -> None:
        self._database = database
        self._writes = writes
        self._own = own
        self._heard: list[StreamEvent] = []
        self._something = asyncio.Event()
        self._writing = asyncio.Lock()
        self._attempt: int | None = None
        self._written = ""
        self._is_off = False

    @classmethod
    @asynccontextmanager
    async def open(cls, database: Database, writes: asyncio.Semaphore, own: Try) -> AsyncIterator[Self]:
        """A stream that writes what it hears while the block runs."""
        stream = cls(database, writes, own)
        task = asyncio.create_task(stream._keep_writing(), name="stream")
        try:
            yield stream
        except Exception:
            # What is void is taken back now, and not only by the next try.
            await stream.end("")
            raise
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def hear(self, event: StreamEvent) -> None:
        """Take note of what the model said, or of what is void."""
        if not self._is_off:
            self._heard.append(event)
            self._something.set()

    async def end(self, whole: str) -> Tail:
        """Write no more; answers with what is missing of the whole text that was said in the end."""
        try:
            async with asyncio.timeout(_END_S), self._writing:
                if any(isinstance(event, TextVoid) for event in self._heard):
                    await self._write(self._take())
        except TimeoutError:
            self._is_off = True
        was_off, self._is_off = self._is_off, True
        if was_off or not whole.startswith(self._written):
            return Tail()
        return Tail(whole[len(self._written) :], self._attempt)

    async def _keep_writing(self) -> None:
        gather_s = _FIRST_S
        while not self._is_off:
            await self._something.wait()
            await asyncio.sleep(gather_s)
            gather_s = _GATHER_S
            # In this order: the end of the model call waits for a write under way, and for no queue of others.
            async with self._writes, self._writing:
                if not self._is_off:
                    await self._write(self._take())

    def _take(self) -> list[StreamEvent]:
        heard, self._heard = self._heard, []
        self._something.clear()
        return heard

    async def _write(self, heard: Sequence[StreamEvent]) -> None:
        try:
            async with asyncio.timeout(_WRITE_S):
                for part in _joined(heard):
                    await self._write_part(part)
        except (Unavailable, SQLAlchemyError, TimeoutError) as error:
            self._is_off = True
            log.warning("no more text of run %s is streamed: %s", self._own.run_id, type(error).__name__)

    async def _write_part(self, part: str | None) -> None:
        if self._is_off or (part is None and self._attempt is None):
            return
        async with self._database.tenant(self._own.tenant_id) as connection:
            if part is None:
                await event_log.void(connection, self._own, self._attempt)
                self._attempt, self._written = None, ""
            elif self._attempt is None:
                self._attempt = await event_log.open_stream(connection, self._own, part)
                self._is_off = self._attempt is None
            else:
                self._is_off = not await event_log.write(connection, self._own, self._attempt, part)
        if part is not None:
            self._written += part
        self._is_off = self._is_off or len(self._written) > MAX_STORED_CHARACTERS


def _joined(heard: Sequence[StreamEvent]) -> Iterator[str | None]:
    """What was heard, in as few parts as possible: a text, or None for what makes all before it void."""
    for is_text, events in itertools.groupby(heard, lambda event: isinstance(event, TextDelta)):
        if is_text:
            yield storable(
                "".join(event.text for event in events if isinstance(event, TextDelta)), MAX_STORED_CHARACTERS
            )
        else:
            yield None
