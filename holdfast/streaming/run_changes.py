"""Waiting for a run to change, without polling: one listening connection a process, woken by PostgreSQL's NOTIFY.

A notification says only which run changed; whoever waits reads the row again. What is notified while the connection is
down is lost, so everybody looks when it is back, and now and then besides.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

log = logging.getLogger(__name__)

#: The channel that `holdfast.store` notifies; the payload is the run's id.
CHANNEL = "holdfast_runs"

#: How long to go without a notification before looking anyway, in seconds: each look is a transaction.
_LOOK_AGAIN_S = 5.0

#: How long to rest before listening again, in seconds.
_LISTEN_AGAIN_S = 1.0

State = TypeVar("State")


class RunChanges:
    """Wakes those who wait for a run. `start` it in the process's event loop, `stop` it at the end."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
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
        changed = asyncio.Event()
        # Before the first read: a change between the read and the wait must not be missed.
        self._waiting[run_id].add(changed)
        try:
            while True:
                changed.clear()
                state = await read()
                remaining = deadline - asyncio.get_running_loop().time()
                if is_reached(state) or remaining <= 0:
                    return state
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), min(remaining, _LOOK_AGAIN_S))
        finally:
            self._waiting[run_id].discard(changed)
            if not self._waiting[run_id]:
                del self._waiting[run_id]

    async def _listen(self) -> None:
        while True:
            try:
                async with self._engine.connect() as connection:
                    raw = await connection.get_raw_connection()
                    await self._listen_on(raw.driver_connection)
            except (OSError, SQLAlchemyError) as error:
                log.warning("listening for run changes failed, trying again: %s", type(error).__name__)
            await asyncio.sleep(_LISTEN_AGAIN_S)

    async def _listen_on(self, connection: Any) -> None:
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        await connection.add_listener(CHANNEL, self._wake)
        self._wake_all()
        try:
            await ended.wait()
        finally:
            if not connection.is_closed():
                await connection.remove_listener(CHANNEL, self._wake)

    def _wake_all(self) -> None:
        # What was notified while nobody listened is lost: let everybody look.
        for events in self._waiting.values():
            for changed in events:
                changed.set()

    def _wake(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        for changed in self._waiting.get(str(payload), ()):
            changed.set()
