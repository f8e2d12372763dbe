"""Waiting for a run to change: one listening connection a process, woken by PostgreSQL's NOTIFY, and one look at all.

A notification says only which run changed; whoever waits reads the row again. It comes after the commit, from the
process that committed, and is lost with that process, or while the connection here is down. So every second the heads
of all runs that are waited for are read, by one query a tenant, and those are woken who have missed something: that
costs the same for one who waits and for hundreds.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from holdfast.domain.errors import Unavailable
from holdfast.domain.runs import RunStatus
from holdfast.store import runs
from holdfast.store.changes import LOG, OUTBOX, STATUS, Change
from holdfast.store.engine import Database
from holdfast.store.runs import Head

log = logging.getLogger(__name__)

#: How long to rest between two looks at all runs that are waited for, in seconds, and after those of one tenant, of
#: which there may be many.
_LOOK_S = 1.0
_NEXT_TENANT_S = 0.02

#: How long to rest before listening again, in seconds.
_LISTEN_AGAIN_S = 1.0

#: How often the listening connection is asked whether it is alive, in seconds, and how long that or a look may take: of
#: a server that is cut off nothing is heard, as of one where nothing happens.
_ASK_S = 10.0
_ANSWER_S = 5.0


class RunChanges:
    """Wakes those who wait for a run. `start` it in the process's event loop, `stop` it at the end."""

    def __init__(self, engine: AsyncEngine, database: Database) -> None:
        self._engine = engine
        self._database = database
        self._watches: defaultdict[Change, set[Watch]] = defaultdict(set)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to listen, and to look; reconnects by itself."""
        self._tasks = [
            asyncio.create_task(self._listen(), name="run changes"),
            asyncio.create_task(self._keep_looking(), name="looks at runs"),
        ]

    async def stop(self) -> None:
        """Stop listening, and looking."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait_until(
        self,
        tenant_id: str,
        run_id: str,
        read: Callable[[], Awaitable[RunStatus]],
        is_reached: Callable[[RunStatus], bool],
        timeout_s: float,
    ) -> RunStatus:
        """Read a run's status until a condition holds or the time is up; answers with what was read last."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        with self.watching(STATUS, tenant_id, run_id, lambda head: is_reached(head.status)) as watch:
            while True:
                watch.is_seen()
                status = await read()
                remaining = deadline - asyncio.get_running_loop().time()
                if is_reached(status) or remaining <= 0:
                    return status
                await watch.changed(remaining)

    def watching(
        self, channel: str, tenant_id: str, run_id: str, is_news: Callable[[Head], bool]
    ) -> contextlib.AbstractContextManager["Watch"]:
        """A watch on a run. Begun before the first look: a change between the look and the wait must not be missed.

        `is_news`: whether a head of the run shows something that was not seen.
        """
        return self._watching(Change(channel, run_id), Watch(tenant_id, is_news))

    def watching_outbox(self, watch: "Watch") -> contextlib.AbstractContextManager["Watch"]:
        """Have a watch notice what only the relay says; it looks by itself, too."""
        return self._watching(Change(OUTBOX), watch)

    def wake_all(self) -> None:
        """Let everybody look, since they are to stop."""
        for watches in self._watches.values():
            for watch in watches:
                watch.wake()

    @contextmanager
    def _watching(self, change: Change, watch: "Watch") -> Iterator["Watch"]:
        self._watches[change].add(watch)
        try:
            yield watch
        finally:
            self._watches[change].discard(watch)
            if not self._watches[change]:
                del self._watches[change]

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
            except Exception:
                # Whatever nobody foresaw must not have everybody wait for a look from here on.
                log.exception("listening for run changes met an error that nobody foresaw, trying again")
            await asyncio.sleep(_LISTEN_AGAIN_S)

    async def _listen_on(self, connection: Any) -> None:
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        for channel in (STATUS, LOG, OUTBOX):
            await connection.add_listener(channel, self._wake)
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ASK_S):
                    await ended.wait()
            async with asyncio.timeout(_ANSWER_S):
                # Said again, it changes nothing, and among the server's connections this one is known by it.
                await connection.execute(f"LISTEN {LOG}")

    def _wake(self, _connection: Any, _pid: int, channel: str, payload: object) -> None:
        for watch in self._watches.get(Change(channel, str(payload)), ()):
            watch.wake()

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self._look()
            except (Unavailable, SQLAlchemyError, TimeoutError) as error:
                log.warning("runs that are waited for can't be looked at now: %s", type(error).__name__)
            except Exception:
                # Whatever nobody foresaw in one look must not end all looks to come.
                log.exception("a look at runs met an error that nobody foresaw, trying again")

    async def _look(self) -> None:
        """Wake those who have missed something."""
        for tenant_id, waiting in self._waiting().items():
            async with asyncio.timeout(_ANSWER_S), self._database.tenant(tenant_id) as connection:
                heads = await runs.heads(connection, tenant_id, waiting.keys())
            for head in heads:
                for watch in waiting[head.run_id]:
                    if watch.is_news(head):
                        watch.wake()
            await asyncio.sleep(_NEXT_TENANT_S)

    def _waiting(self) -> dict[str, dict[str, list["Watch"]]]:
        """Who waits for a run, by tenant and run; not who is about to look anyway."""
        found: defaultdict[str, defaultdict[str, list[Watch]]] = defaultdict(lambda: defaultdict(list))
        for change, watches in self._watches.items():
            for watch in watches:
                if watch.is_waiting and watch.tenant_id is not None:
                    found[watch.tenant_id][change.run_id].append(watch)
        return {tenant_id: dict(of_tenant) for tenant_id, of_tenant in found.items()}


def _nothing(_: Head) -> bool:
    return False


class Watch:
    """Notices that a run changes; `tenant_id` None: no run."""

    def __init__(self, tenant_id: str | None = None, is_news: Callable[[Head], bool] = _nothing) -> None:
        self.tenant_id = tenant_id
        self.is_news = is_news
        self.is_waiting = False
        self._event = asyncio.Event()

    def is_seen(self) -> None:
        """Say that all that was noticed so far is about to be looked at."""
        self._event.clear()

    @property
    def has_changed(self) -> bool:
        """Whether something was noticed since that was said."""
        return self._event.is_set()

    def wake(self) -> None:
        """Notice a change."""
        self._event.set()

    async def changed(self, timeout_s: float | None = None) -> None:
        """Wait for a change, or until the time is up."""
        self.is_waiting = True
        try:
            with contextlib.suppress(TimeoutError):
                # Not `wait_for`: before Python 3.12, a cancellation that comes along with the change is lost in it.
                async with asyncio.timeout(timeout_s):
                    await self._event.wait()
        finally:
            self.is_waiting = False
