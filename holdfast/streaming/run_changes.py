"""Waiting for a run to change, without polling: one listening connection a process, woken by PostgreSQL's NOTIFY.

A notification says only which run changed; whoever waits reads the row again. What is notified while the connection is
down is lost, so everybody looks when it is back, and now and then besides.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import asyncpg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from holdfast.store import event_log, outbox

log = logging.getLogger(__name__)

#: The channels that `holdfast.store` notifies, of a run's status and of its event log; the payload is the run's id.
STATUS, LOG = "holdfast_runs", event_log.CHANNEL

#: The channel of words that the relay alone says; without a payload.
OUTBOX = outbox.CHANNEL

#: How long to go without a notification before looking anyway, in seconds: each look is a transaction.
_LOOK_AGAIN_S = {STATUS: 5.0, LOG: 15.0, OUTBOX: 1.0}

#: The same while the listening connection is down.
_LOOK_UNHEARD_S = 1.0

#: How long to rest before listening again, in seconds.
_LISTEN_AGAIN_S = 1.0

#: How often the listening connection is asked whether it is alive, in seconds, and how long that may take: of a server
#: that is cut off nothing is heard, as of one where nothing happens.
_ASK_S = 10.0
_ANSWER_S = 5.0

State = TypeVar("State")


class RunChanges:
    """Wakes those who wait for a run. `start` it in the process's event loop, `stop` it at the end."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._waiting: defaultdict[tuple[str, str], set[asyncio.Event]] = defaultdict(set)
        self._is_listening = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen; reconnects by itself."""
        self._task = asyncio.create_task(self._listen(), name="run changes")

    async def stop(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def wait_until(
        self, run_id: str, read: Callable[[], Awaitable[State]], is_reached: Callable[[State], bool], timeout_s: float
    ) -> State:
        """Read a run's state until a condition holds or the time is up; answers with what was read last."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        with self.watching(STATUS, run_id) as watch:
            while True:
                watch.is_seen()
                state = await read()
                remaining = deadline - asyncio.get_running_loop().time()
                if is_reached(state) or remaining <= 0:
                    return state
                await watch.changed(remaining)

    @contextmanager
    def watching(self, channel: str, run_id: str) -> Iterator["Watch"]:
        """A watch on a run. Begun before the first look: a change between the look and the wait must not be missed."""
        event = asyncio.Event()
        self._waiting[channel, run_id].add(event)
        try:
            yield Watch(self, channel, event)
        finally:
            self._waiting[channel, run_id].discard(event)
            if not self._waiting[channel, run_id]:
                del self._waiting[channel, run_id]

    def patience_s(self, channel: str) -> float:
        """How long to wait for a notification before looking anyway, in seconds."""
        return _LOOK_AGAIN_S[channel] if self._is_listening else _LOOK_UNHEARD_S

    async def _listen(self) -> None:
        while True:
            try:
                async with self._engine.connect() as connection:
                    try:
                        raw = await connection.get_raw_connection()
                        await self._listen_on(raw.driver_connection)
                    finally:
                        # It may be dead, which the pool would not notice, and hand it out again.
                        await connection.invalidate()
            except (OSError, SQLAlchemyError, asyncpg.InterfaceError, asyncpg.PostgresError) as error:
                log.warning("listening for run changes failed, trying again: %s", type(error).__name__)
            await asyncio.sleep(_LISTEN_AGAIN_S)

    async def _listen_on(self, connection: Any) -> None:
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        for channel in (STATUS, LOG, OUTBOX):
            await connection.add_listener(channel, self._wake)
        self._is_listening = True
        self.wake_all()
        try:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), _ASK_S)
                async with asyncio.timeout(_ANSWER_S):
                    # Said again, it changes nothing, and among the server's connections this one is known by it.
                    await connection.execute(f"LISTEN {LOG}")
        finally:
            self._is_listening = False
            # So that those who went to wait for a notification look by the clock from here on.
            self.wake_all()

    def wake_all(self) -> None:
        """Let everybody look: what was notified while nobody listened is lost."""
        for events in self._waiting.values():
            for changed in events:
                changed.set()

    def _wake(self, _connection: Any, _pid: int, channel: str, payload: object) -> None:
        for changed in self._waiting.get((channel, str(payload)), ()):
            changed.set()


class Watch:
    """Notices that a run changes."""

    def __init__(self, changes: RunChanges, channel: str, event: asyncio.Event) -> None:
        self._changes = changes
        self._channel = channel
        self._event = event

    def is_seen(self) -> None:
        """Say that all that was noticed so far is about to be looked at."""
        self._event.clear()

    @property
    def has_changed(self) -> bool:
        """Whether something was noticed since that was said."""
        return self._event.is_set()

    async def changed(self, timeout_s: float = float("inf")) -> None:
        """Wait for a change, or until it is time to look anyway."""
        patience_s = min(timeout_s, self._changes.patience_s(self._channel))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), patience_s)
